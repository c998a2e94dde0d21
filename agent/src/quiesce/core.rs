//! One quiescing from its freeze to its thaw. Does no I/O.

use std::collections::VecDeque;

use vgship_base::units::Tick;

use super::tries::Tries;

/// How long a freeze that was killed may take to be gone before the thaw does not wait for it any
/// more. Unit: milliseconds.
const KILL_PATIENCE: u64 = 1000;

/// How the freeze command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// It could not be started: nothing is frozen.
    NotStarted,
    /// It says that applications are frozen.
    Frozen,
    /// It failed, or was killed: some may be.
    Failed,
}

/// How a thaw command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thaw {
    /// Applications go on.
    Thawed,
    /// They go on, but they were not frozen any more when it came.
    Lapsed,
    /// They may still be frozen.
    Failed,
}

/// What happened outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The freeze command has ended.
    FreezeEnded(Freeze),
    /// The marker was put in, or could not be.
    Marked(bool),
    /// A thaw command has ended.
    ThawEnded(Thaw),
    /// The guard has ended before it was told to.
    Unguarded,
    /// Conducted: everybody is frozen, the marker may go in.
    MarkNow,
    /// Conducted: applications go on; whether that is because all markers are in.
    Release(bool),
    /// The time that [`Core::deadline`] named has come.
    Timer,
}

/// What must be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Run the freeze command.
    Freeze,
    /// Kill it, with all that it started.
    Kill,
    /// Put the marker in, at once.
    Mark,
    /// Run the thaw command.
    Thaw,
    /// The marker stands in the stream, and does not hold: take it back.
    TakeBack,
    /// Conducted: say that applications are frozen.
    TellFrozen,
    /// Conducted: say that the marker is in.
    TellMarked,
}

/// Why a quiescing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The freeze command could not be started.
    NotStarted,
    /// The freeze command failed.
    FreezeFailed,
    /// The freeze command had not ended when the hold was over.
    FreezeLate,
    /// The stream took no marker.
    NotMarked,
    /// The hold was over before the marker was surely in.
    MarkedLate,
    /// Applications were not frozen any more when they were to be thawed.
    Lapsed,
    /// The guard died: what it did before is not known.
    Unguarded,
    /// No thaw succeeded.
    NotThawed,
    /// Conducted: the hold was over before the others were as far.
    OthersLate,
    /// Conducted: told to give up.
    GivenUp,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it failed; `None` when the marker was put in while applications were surely frozen, and
    /// they go on.
    pub why: Option<Why>,
    /// Whether applications may still be frozen.
    pub frozen: bool,
    /// From the start to the end of the last thaw. Unit: milliseconds.
    pub held: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Freezing,
    /// The freeze was killed; it may take until then to be gone.
    Killing(Tick),
    /// Conducted: frozen, until all are.
    Waiting,
    /// The marker is being put in.
    Frozen,
    /// Conducted: the marker is in, until all are.
    Standing,
    Thawing,
    /// Until the next thaw.
    Resting(Tick),
    Done(Outcome),
}

/// A quiescing.
///
/// A thaw runs if and only if a freeze was started. There is no outcome without failure but when the
/// marker was in before the deadline, of a freeze that returned 0 before it, and the thaw found
/// applications still frozen.
#[derive(Debug)]
pub struct Core {
    started: Tick,
    hold_ends: Tick,
    /// Somebody says when the marker goes in and when applications go on.
    conducted: bool,
    stage: Stage,
    /// The freeze command, or what it started, may still be at work.
    freezes: bool,
    stands: bool,
    why: Option<Why>,
    tries: Tries,
    outputs: VecDeque<Output>,
}

impl Core {
    /// Begins now. `hold` is how long applications may be held. Unit: milliseconds.
    pub fn new(now: Tick, hold: u64) -> Core {
        Core {
            started: now,
            hold_ends: Tick(now.0.saturating_add(hold)),
            conducted: false,
            stage: Stage::Freezing,
            freezes: true,
            stands: false,
            why: None,
            tries: Tries::default(),
            outputs: VecDeque::from([Output::Freeze]),
        }
    }

    /// The same as one of several, which are frozen together: once frozen it waits for
    /// [`Input::MarkNow`], and with the marker in for [`Input::Release`], no longer than the hold.
    pub fn conducted(now: Tick, hold: u64) -> Core {
        Core { conducted: true, ..Core::new(now, hold) }
    }

    /// Takes one event; what follows from it waits in [`Core::poll`].
    pub fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::FreezeEnded(freeze) => self.on_freeze(now, freeze),
            Input::Marked(stands) => self.on_marked(now, stands),
            Input::ThawEnded(thaw) => self.on_thaw(now, thaw),
            Input::Unguarded => self.on_unguarded(now),
            Input::MarkNow => self.on_mark_now(now),
            Input::Release(all_in) => self.on_release(now, all_in),
            Input::Timer => self.on_timer(now),
        }
    }

    /// The next thing to do. Call until it returns `None`, then wait for an event.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Timer`] if no other event comes first.
    pub fn deadline(&self) -> Option<Tick> {
        match self.stage {
            Stage::Freezing | Stage::Waiting | Stage::Frozen | Stage::Standing => {
                Some(self.hold_ends)
            }
            Stage::Killing(until) | Stage::Resting(until) => Some(until),
            Stage::Thawing | Stage::Done(_) => None,
        }
    }

    /// What came of it, once it has come to its end.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.stage {
            Stage::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    fn is_late(&self, now: Tick) -> bool {
        now >= self.hold_ends
    }

    fn on_freeze(&mut self, now: Tick, freeze: Freeze) {
        self.freezes = false;
        match (self.stage, freeze) {
            (Stage::Freezing | Stage::Killing(_), Freeze::NotStarted) => {
                self.fail(Why::NotStarted);
                self.end(now, false);
            }
            (Stage::Freezing, Freeze::Frozen) if !self.is_late(now) => match self.conducted {
                true => self.go_on(Stage::Waiting, Output::TellFrozen),
                false => self.go_on(Stage::Frozen, Output::Mark),
            },
            (Stage::Freezing, Freeze::Frozen) => self.give_up(Why::FreezeLate),
            (Stage::Freezing, Freeze::Failed) => self.give_up(Why::FreezeFailed),
            (Stage::Killing(_), _) => self.thaw(),
            _ => {} // the thaw that is under way or due comes after it
        }
    }

    fn on_marked(&mut self, now: Tick, stands: bool) {
        self.stands |= stands;
        match self.stage {
            Stage::Frozen if !stands => self.give_up(Why::NotMarked),
            Stage::Frozen if self.is_late(now) => self.give_up(Why::MarkedLate),
            Stage::Frozen if self.conducted => self.go_on(Stage::Standing, Output::TellMarked),
            Stage::Frozen => self.thaw(),
            Stage::Done(_) if stands => self.outputs.push_back(Output::TakeBack),
            _ => {}
        }
    }

    fn on_thaw(&mut self, now: Tick, thaw: Thaw) {
        if self.stage != Stage::Thawing {
            return;
        }
        if thaw == Thaw::Lapsed {
            self.fail(Why::Lapsed);
        }
        // Behind a freeze that cannot be killed, a thaw may have come too early.
        if thaw != Thaw::Failed && !self.freezes {
            return self.end(now, false);
        }
        if let Some(pause) = self.tries.pause() {
            self.stage = Stage::Resting(Tick(now.0 + pause));
        } else {
            self.fail(Why::NotThawed);
            self.end(now, true);
        }
    }

    fn on_unguarded(&mut self, now: Tick) {
        match self.stage {
            Stage::Freezing => self.kill(now, Why::Unguarded),
            Stage::Waiting | Stage::Frozen | Stage::Standing => self.give_up(Why::Unguarded),
            _ => {}
        }
    }

    fn on_mark_now(&mut self, now: Tick) {
        match self.stage {
            Stage::Waiting if self.is_late(now) => self.give_up(Why::OthersLate),
            Stage::Waiting => self.go_on(Stage::Frozen, Output::Mark),
            _ => {}
        }
    }

    fn on_release(&mut self, now: Tick, all_in: bool) {
        match self.stage {
            Stage::Standing if self.is_late(now) => self.give_up(Why::OthersLate),
            Stage::Standing if all_in => self.thaw(),
            Stage::Freezing => self.kill(now, Why::GivenUp),
            Stage::Waiting | Stage::Frozen | Stage::Standing => self.give_up(Why::GivenUp),
            _ => {}
        }
    }

    fn on_timer(&mut self, now: Tick) {
        match self.stage {
            Stage::Freezing if self.is_late(now) => self.kill(now, Why::FreezeLate),
            Stage::Frozen if self.is_late(now) => self.give_up(Why::MarkedLate),
            Stage::Waiting | Stage::Standing if self.is_late(now) => self.give_up(Why::OthersLate),
            Stage::Killing(until) | Stage::Resting(until) if now >= until => self.thaw(),
            _ => {}
        }
    }

    fn go_on(&mut self, stage: Stage, output: Output) {
        self.stage = stage;
        self.outputs.push_back(output);
    }

    /// The first reason is the one that counts.
    fn fail(&mut self, why: Why) {
        self.why.get_or_insert(why);
    }

    fn kill(&mut self, now: Tick, why: Why) {
        self.fail(why);
        self.stage = Stage::Killing(Tick(now.0 + KILL_PATIENCE));
        self.outputs.push_back(Output::Kill);
    }

    fn give_up(&mut self, why: Why) {
        self.fail(why);
        self.thaw();
    }

    fn thaw(&mut self) {
        self.stage = Stage::Thawing;
        self.tries.begin();
        self.outputs.push_back(Output::Thaw);
    }

    fn end(&mut self, now: Tick, frozen: bool) {
        // A marker that never came to be put in cannot hold either.
        if !self.stands {
            self.fail(Why::NotMarked);
        }
        if self.stands && self.why.is_some() {
            self.outputs.push_back(Output::TakeBack);
        }
        self.stage = Stage::Done(Outcome { why: self.why, frozen, held: now.since(self.started) });
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
