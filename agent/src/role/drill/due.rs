//! When a drill is due: the last good one is older than the objective.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::home::{Period, QuantityError, text};

/// How often a drill shall pass, unless the group says otherwise: once a month.
pub const EVERY_DEFAULT: Every = Every(Some(Period(Duration::from_hours(30 * 24))));

/// How often a drill shall pass: `30 d`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub Option<Period>);

impl FromStr for Every {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Every, QuantityError> {
        match text.trim() {
            "none" => Ok(Every(None)),
            other => other.parse().map(|period| Every(Some(period))),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => out.write_str("none"),
            Some(period) => period.fmt(out),
        }
    }
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        text::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Every, D::Error> {
        text::deserialize(from)
    }
}

/// Whether a drill is overdue: there has been something to drill, and no drill has passed, for longer
/// than the objective.
///
/// Unit of all times: microseconds since 1970. `synced` is when the replica was consistent first,
/// `passed` when the last good drill began.
pub fn is_overdue(every: Every, synced: Option<u64>, passed: Option<u64>, now: u64) -> bool {
    let (Some(every), Some(synced)) = (every.0, synced) else { return false };
    let most = u64::try_from(every.0.as_micros()).unwrap_or(u64::MAX);
    let old = |since: u64| now.saturating_sub(since) > most;
    old(synced) && passed.is_none_or(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_drill_is_overdue_once_the_objective_is_over() {
        let every: Every = "10 s".parse().unwrap();
        let due = |synced: Option<u64>, passed: Option<u64>, now: u64| {
            let at = |it: u64| it * SECOND;
            is_overdue(every, synced.map(at), passed.map(at), at(now))
        };
        assert!(!due(None, None, 1000), "there is nothing to drill");
        assert!(!due(Some(5), None, 15) && due(Some(5), None, 16));
        assert!(!due(Some(5), Some(20), 30) && due(Some(5), Some(20), 31));
        // A copy that is new again is drilled no sooner than a new one.
        assert!(!due(Some(25), Some(20), 31));
        assert!(!is_overdue(Every(None), Some(0), None, u64::MAX));
        assert!(!due(Some(50), None, 40), "a clock that went back is no reason");
    }

    #[test]
    fn the_objective_is_read_as_it_is_shown() {
        assert_eq!(EVERY_DEFAULT.to_string(), "30 d");
        for text in ["none", "30 d", "1 s"] {
            assert_eq!(text.parse::<Every>().unwrap().to_string(), text);
        }
        assert!("soon".parse::<Every>().is_err());
    }
}
