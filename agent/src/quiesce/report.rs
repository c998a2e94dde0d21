//! What a person is told about a quiescing that failed.

use std::fmt::Write as _;

use super::{Outcome, Why};
use crate::api::ControlError;
use crate::home::Period;

/// How a quiescing went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What came of it.
    pub outcome: Outcome,
    /// How the freeze command ended and what it said at the end, or why it was not started.
    pub freeze: String,
    /// The same of the last thaw command.
    pub thaw: String,
}

/// Why it failed and what to type; `None` when it did not. `thaw` and `hold` are those of the group.
pub fn told(held: &Held, group: &str, thaw: &str, hold: Period) -> Option<ControlError> {
    let Held { outcome, freeze, thaw: thawed } = held;
    let (why, hint) = match outcome.why? {
        Why::NotStarted => (format!("the freeze command cannot be started: {freeze}"), None),
        Why::FreezeFailed => (format!("the freeze command {freeze}"), None),
        Why::FreezeLate => (
            format!("the freeze command was not done after {hold}: it {freeze}"),
            Some(format!("let it be faster, or hold longer: vgship group set {group} --hold")),
        ),
        Why::NotMarked => ("the stream took no marker".to_owned(), None),
        Why::MarkedLate => (format!("the hold of {hold} was over before the marker was in"), None),
        Why::Lapsed => (
            format!("applications were not frozen any more when they were thawed: it {thawed}"),
            Some("find out what thawed them; hooks must not do so by themselves".to_owned()),
        ),
        Why::Unguarded => ("the guard of the hold died".to_owned(), None),
        Why::NotThawed => ("the thaw command fails".to_owned(), None),
        Why::OthersLate => (
            format!("the hold of {hold} was over before the others of the set were as far"),
            Some(
                "let them be faster, or hold longer: the set's --hold, and each group's".to_owned(),
            ),
        ),
        Why::GivenUp => ("the set's snapshot was given up".to_owned(), None),
    };
    let mut message = format!("group {group} was not quiesced: {why}");
    if !outcome.frozen {
        let go_on = match outcome.why {
            Some(Why::NotStarted) => "nothing was frozen",
            _ => "applications go on",
        };
        let hint = hint.map_or_else(|| go_on.to_owned(), |hint| format!("{go_on}; {hint}"));
        return Some(ControlError::failed(message).hint(hint));
    }
    let _ = write!(message, "; APPLICATIONS MAY STILL BE FROZEN: the thaw command {thawed}");
    Some(ControlError::failed(message).hint(format!("thaw them by hand, at once: {thaw}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(why: Why, frozen: bool) -> ControlError {
        let outcome = Outcome { why: Some(why), frozen, held: 7 };
        let (freeze, thaw) = ("ended with 7: no".to_owned(), "ended with 1: busy".to_owned());
        let held = Held { outcome, freeze, thaw };
        told(&held, "pay", "/hooks/fsfreeze thaw /data", "5 s".parse().unwrap()).unwrap()
    }

    #[test]
    fn success_has_nothing_to_tell() {
        let outcome = Outcome { why: None, frozen: false, held: 7 };
        let held = Held { outcome, freeze: String::new(), thaw: String::new() };
        assert_eq!(told(&held, "pay", "t", "5 s".parse().unwrap()), None);
    }

    #[test]
    fn whoever_asks_is_told_whether_applications_go_on_and_what_to_type() {
        let failed = error(Why::FreezeFailed, false);
        assert!(failed.message.ends_with("the freeze command ended with 7: no"), "{failed}");
        assert_eq!(failed.hint.as_deref(), Some("applications go on"));
        let frozen = error(Why::FreezeLate, true);
        assert!(frozen.message.contains("MAY STILL BE FROZEN"), "{frozen}");
        assert!(frozen.message.contains("ended with 1: busy"), "{frozen}");
        assert!(frozen.hint.unwrap().ends_with(": /hooks/fsfreeze thaw /data"));
    }
}
