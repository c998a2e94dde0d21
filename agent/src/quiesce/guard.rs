//! What a guard does: the process that thaws applications when the agent does not. Does no I/O.

use vgship_base::units::Tick;

use super::tries::most;

/// How long one run of a thaw command may take. Unit: milliseconds.
pub const THAW_LIMIT: u64 = 30_000;

/// How long a guard waits after the hold is over: an agent that lives thaws then, and applications
/// are not thawed twice at once. Unit: milliseconds.
const GRACE: u64 = 500;

/// What the agent tells its guard, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The freeze command is about to run, as this process and its group.
    Freezing(i32),
    /// The freeze command has ended: its number may soon be another process's.
    Ended,
    /// The agent thaws, or ends the freeze to thaw behind it.
    Thawing,
    /// Nothing is frozen, or the agent has done what it can.
    Done,
}

impl Word {
    /// The line that says it.
    pub fn line(self) -> String {
        match self {
            Word::Freezing(process) => format!("freezing {process}"),
            Word::Ended => "ended".to_owned(),
            Word::Thawing => "thawing".to_owned(),
            Word::Done => "done".to_owned(),
        }
    }

    /// What a line says.
    pub fn read(line: &str) -> Option<Word> {
        match line {
            "ended" => Some(Word::Ended),
            "thawing" => Some(Word::Thawing),
            "done" => Some(Word::Done),
            other => {
                let process: i32 = other.strip_prefix("freezing ")?.parse().ok()?;
                (process > 1).then_some(Word::Freezing(process))
            }
        }
    }
}

/// What a guard does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Wait for a word until then.
    Wait(Tick),
    /// Kill that freeze, if there is one, and thaw.
    Thaw(Option<i32>),
    /// End.
    End,
}

/// A guard.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    until: Tick,
    begun: bool,
    freeze: Option<i32>,
}

impl Guard {
    /// Begins now. Unit of `hold`: milliseconds.
    pub fn new(now: Tick, hold: u64) -> Guard {
        let until = Tick(now.0.saturating_add(hold).saturating_add(GRACE));
        Guard { until, begun: false, freeze: None }
    }

    /// What to do while nothing is heard.
    pub fn idle(&self, now: Tick) -> Duty {
        match now >= self.until {
            true => self.step_in(),
            false => Duty::Wait(self.until),
        }
    }

    /// What to do after a word; `None` when the agent will not say any more.
    pub fn hear(&mut self, now: Tick, word: Option<Word>) -> Duty {
        match word {
            Some(Word::Done) => return Duty::End,
            None => return self.step_in(),
            Some(Word::Freezing(process)) => (self.begun, self.freeze) = (true, Some(process)),
            Some(Word::Ended) => self.freeze = None,
            Some(Word::Thawing) => self.until = Tick(now.0.saturating_add(most(THAW_LIMIT))),
        }
        self.idle(now)
    }

    fn step_in(&self) -> Duty {
        match self.begun {
            true => Duty::Thaw(self.freeze),
            false => Duty::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_said() {
        for word in [Word::Freezing(77), Word::Ended, Word::Thawing, Word::Done] {
            assert_eq!(Word::read(&word.line()), Some(word));
        }
        // A kill of the group of 0, 1 or -1 would end more than a freeze.
        for bad in ["", "freezing", "freezing 0", "freezing 1", "freezing -5", "freezing x"] {
            assert_eq!(Word::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn it_thaws_when_the_agent_dies_or_is_late() {
        let mut guard = Guard::new(Tick(5), 100);
        assert_eq!(guard.idle(Tick(5)), Duty::Wait(Tick(605)));
        assert_eq!(guard.hear(Tick(6), Some(Word::Freezing(9))), Duty::Wait(Tick(605)));
        assert_eq!(guard.idle(Tick(605)), Duty::Thaw(Some(9)));
        assert_eq!(guard.hear(Tick(7), None), Duty::Thaw(Some(9)));
        assert_eq!(guard.hear(Tick(7), Some(Word::Done)), Duty::End);
        assert_eq!(guard.hear(Tick(7), Some(Word::Ended)), Duty::Wait(Tick(605)));
        assert_eq!(guard.idle(Tick(605)), Duty::Thaw(None), "another process may be 9 by now");
        let mut nothing_frozen = Guard::new(Tick(5), 100);
        assert_eq!(nothing_frozen.idle(Tick(605)), Duty::End);
        assert_eq!(nothing_frozen.hear(Tick(6), None), Duty::End);
    }

    #[test]
    fn while_the_agent_thaws_it_has_time_for_all_its_tries() {
        let mut guard = Guard::new(Tick(0), 100);
        let _ = guard.hear(Tick(6), Some(Word::Freezing(9)));
        let Duty::Wait(until) = guard.hear(Tick(99), Some(Word::Thawing)) else { panic!() };
        assert!(until.0 >= 99 + 6 * THAW_LIMIT);
        assert_eq!(guard.hear(Tick(150), None), Duty::Thaw(Some(9)), "it died before the end");
    }
}
