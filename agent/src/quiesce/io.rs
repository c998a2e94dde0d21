//! Runs the commands of a quiescing and its guard. Decides nothing.

mod command;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use vgship_base::units::Tick;

use self::command::Run;
use self::watch::Watch;
use super::guard::{THAW_LIMIT, Word};
use super::{Core, Freeze, Held, Input, LAPSED, Output, Thaw};

pub use self::watch::{COMMAND, own_program, watch};

/// How long between two looks at what runs.
const LOOK: Duration = Duration::from_millis(2);

/// Whose applications are quiesced, with what, for what.
#[derive(Clone, Debug)]
pub struct Hooks {
    /// The group.
    pub group: String,
    /// What the marker or snapshot is called.
    pub name: String,
    /// The shell command that freezes.
    pub freeze: String,
    /// The shell command that thaws.
    pub thaw: String,
    /// How long applications may be held.
    pub hold: Duration,
}

impl Hooks {
    /// What commands find in their environment.
    fn env(&self) -> [(&'static str, String); 3] {
        // Rounded up: a hook that has a clock of its own must not thaw before the agent.
        let seconds = self.hold.as_millis().div_ceil(1000);
        [
            ("VGSHIP_GROUP", self.group.clone()),
            ("VGSHIP_NAME", self.name.clone()),
            ("VGSHIP_HOLD", seconds.to_string()),
        ]
    }
}

/// The stream that the marker goes into. Neither may wait for anything outside of the agent before
/// applications go on.
pub trait Stream {
    /// Puts the marker in; whether it stands there.
    fn mark(&mut self) -> bool;

    /// Takes back what the marker says.
    fn take_back(&mut self);
}

/// Who says how far one of several may go. Asked every few milliseconds; waits for nothing.
pub trait Conductor {
    /// Hears that applications are frozen.
    fn frozen(&mut self);

    /// Hears that the marker is in.
    fn marked(&mut self);

    /// What it says next: [`Input::MarkNow`] or [`Input::Release`].
    fn word(&mut self) -> Option<Input>;
}

/// Freezes, marks, thaws. `program` is what is run as the guard: [`own_program`].
pub fn hold(hooks: &Hooks, program: &Path, stream: &mut dyn Stream) -> Held {
    run(hooks, program, stream, None)
}

/// The same as one of several.
pub fn hold_conducted(
    hooks: &Hooks,
    program: &Path,
    stream: &mut dyn Stream,
    conductor: &mut dyn Conductor,
) -> Held {
    run(hooks, program, stream, Some(conductor))
}

fn run(
    hooks: &Hooks,
    program: &Path,
    stream: &mut dyn Stream,
    conductor: Option<&mut dyn Conductor>,
) -> Held {
    let begin = if conductor.is_some() { Core::conducted } else { Core::new };
    let mut world = World {
        hooks,
        conductor,
        since: Instant::now(),
        watch: None,
        freeze: None,
        thaw: None,
        happened: VecDeque::new(),
        freeze_said: String::new(),
        thaw_said: String::new(),
    };
    let hold = u64::try_from(hooks.hold.as_millis()).unwrap_or(u64::MAX);
    let mut core = begin(world.now(), hold);
    loop {
        while let Some(output) = core.poll() {
            match output {
                Output::Freeze => world.freeze(program),
                Output::Kill => world.kill(),
                Output::Mark => world.happened.push_back(Input::Marked(stream.mark())),
                Output::Thaw => world.thaw(),
                Output::TakeBack => stream.take_back(),
                Output::TellFrozen => world.tell_conductor(|it| it.frozen()),
                Output::TellMarked => world.tell_conductor(|it| it.marked()),
            }
        }
        if let Some(outcome) = core.outcome() {
            let (freeze, thaw) = (world.freeze_said.clone(), world.thaw_said.clone());
            return Held { outcome, freeze, thaw };
        }
        let input = world.next(core.deadline());
        core.handle(world.now(), input);
    }
}

/// Whole milliseconds since then.
fn tick(since: Instant) -> Tick {
    Tick(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
}

struct World<'a, 'c> {
    hooks: &'a Hooks,
    conductor: Option<&'c mut dyn Conductor>,
    since: Instant,
    watch: Option<Watch>,
    freeze: Option<Run>,
    thaw: Option<Thawing>,
    happened: VecDeque<Input>,
    freeze_said: String,
    thaw_said: String,
}

impl World<'_, '_> {
    fn tell_conductor(&mut self, tell: impl FnOnce(&mut dyn Conductor)) {
        if let Some(conductor) = &mut self.conductor {
            tell(*conductor);
        }
    }

    fn now(&self) -> Tick {
        tick(self.since)
    }

    fn freeze(&mut self, program: &Path) {
        if let Err(error) = self.begin(program) {
            self.freeze_said = error.to_string();
            self.happened.push_back(Input::FreezeEnded(Freeze::NotStarted));
        }
    }

    /// The freeze begins only when its guard knows of it.
    fn begin(&mut self, program: &Path) -> io::Result<()> {
        let (hooks, env) = (self.hooks, self.hooks.env());
        let mut watch = Watch::start(program, hooks.hold, &hooks.thaw, &env)?;
        let mut run = Run::prepare(&hooks.freeze, &env)?;
        watch.entrust(run.process(), hooks.hold.saturating_sub(self.since.elapsed()))?;
        run.let_go()?;
        (self.watch, self.freeze) = (Some(watch), Some(run));
        Ok(())
    }

    fn tell(&mut self, word: Word) {
        if let Some(watch) = &mut self.watch {
            watch.tell(word);
        }
    }

    fn kill(&mut self) {
        self.tell(Word::Thawing);
        if let Some(run) = &mut self.freeze {
            run.kill();
            "cannot be killed".clone_into(&mut self.freeze_said);
        }
    }

    fn thaw(&mut self) {
        self.tell(Word::Thawing);
        match Run::start(&self.hooks.thaw, &self.hooks.env()) {
            Ok(run) => self.thaw = Some(Thawing::new(run)),
            Err(error) => {
                self.thaw_said = format!("cannot be started: {error}");
                self.happened.push_back(Input::ThawEnded(Thaw::Failed));
            }
        }
    }

    /// The next event, or the timer once `deadline` has passed.
    fn next(&mut self, deadline: Option<Tick>) -> Input {
        loop {
            if let Some(input) = self.happened.pop_front().or_else(|| self.look()) {
                return input;
            }
            if deadline.is_some_and(|deadline| self.now() >= deadline) {
                return Input::Timer;
            }
            thread::sleep(LOOK);
        }
    }

    fn look(&mut self) -> Option<Input> {
        if let Some(status) = self.freeze.as_mut().and_then(Run::poll) {
            return Some(Input::FreezeEnded(self.freeze_ended(status)));
        }
        if let Some((thaw, said)) = self.thaw.as_mut().and_then(Thawing::poll) {
            (self.thaw, self.thaw_said) = (None, said);
            return Some(Input::ThawEnded(thaw));
        }
        if self.watch.as_mut().is_some_and(Watch::has_ended) {
            self.watch = None;
            return Some(Input::Unguarded);
        }
        self.conductor.as_mut().and_then(|conductor| conductor.word())
    }

    fn freeze_ended(&mut self, status: ExitStatus) -> Freeze {
        self.tell(Word::Ended);
        let run = self.freeze.take();
        if status.success() {
            return Freeze::Frozen; // at once: its last words would be waited for
        }
        if let Some(mut run) = run {
            self.freeze_said = format!("ended with {status}: {}", run.said());
        }
        Freeze::Failed
    }
}

/// A thaw command at work, which is killed when it takes too long.
struct Thawing {
    run: Run,
    since: Instant,
}

impl Thawing {
    fn new(run: Run) -> Thawing {
        Thawing { run, since: Instant::now() }
    }

    /// How it ended and what it said, if it did.
    fn poll(&mut self) -> Option<(Thaw, String)> {
        if let Some(status) = self.run.poll() {
            let thaw = match status.code() {
                Some(0) => Thaw::Thawed,
                Some(LAPSED) => Thaw::Lapsed,
                _ => Thaw::Failed,
            };
            return Some((thaw, format!("ended with {status}: {}", self.run.said())));
        }
        if self.since.elapsed() < Duration::from_millis(THAW_LIMIT) {
            return None;
        }
        self.run.kill();
        let said = self.run.said();
        Some((Thaw::Failed, format!("was killed after {} s: {said}", THAW_LIMIT / 1000)))
    }

    /// Waits for it.
    fn run_whole(started: io::Result<Run>) -> (Thaw, String) {
        let mut thawing = match started {
            Ok(run) => Thawing::new(run),
            Err(error) => return (Thaw::Failed, format!("cannot be started: {error}")),
        };
        loop {
            if let Some(ended) = thawing.poll() {
                return ended;
            }
            thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;
