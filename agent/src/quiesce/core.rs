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
    /// The marker is being put in.
    Frozen,
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
            stage: Stage::Freezing,
            freezes: true,
            stands: false,
            why: None,
            tries: Tries::default(),
            outputs: VecDeque::from([Output::Freeze]),
        }
    }

    /// Takes one event; what follows from it waits in [`Core::poll`].
    pub fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::FreezeEnded(freeze) => self.on_freeze(now, freeze),
            Input::Marked(stands) => self.on_marked(now, stands),
            Input::ThawEnded(thaw) => self.on_thaw(now, thaw),
            Input::Unguarded => self.on_unguarded(now),
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
            Stage::Freezing | Stage::Frozen => Some(self.hold_ends),
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
            (Stage::Freezing, Freeze::Frozen) if !self.is_late(now) => {
                self.stage = Stage::Frozen;
                self.outputs.push_back(Output::Mark);
            }
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
            Stage::Frozen => self.give_up(Why::Unguarded),
            _ => {}
        }
    }

    fn on_timer(&mut self, now: Tick) {
        match self.stage {
            Stage::Freezing if self.is_late(now) => self.kill(now, Why::FreezeLate),
            Stage::Frozen if self.is_late(now) => self.give_up(Why::MarkedLate),
            Stage::Killing(until) | Stage::Resting(until) if now >= until => self.thaw(),
            _ => {}
        }
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
