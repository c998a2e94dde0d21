//! What of history is kept, as an operator says it: part of a group's policy, on the side that is
//! the replica.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vgship_base::units::ByteLen;
use vgship_snapshot::retention::{Grid, GridError};

use super::quantity::{Amount, Period, QuantityError, Size};
use super::text;

/// How far back any point can be opened, unless the group says otherwise: a day and the night
/// before it.
pub const WINDOW_DEFAULT: Window = Window(Some(Period(Duration::from_hours(24))));

/// How far back any point can be opened: `24 h`, or `none` for kept snapshots alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub Option<Period>);

/// What history may take: a size, or `auto` for half of what its disk has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Budget {
    /// Half of what is free, with what history takes already.
    #[default]
    Auto,
    /// So much.
    Size(Size),
}

/// When snapshots are taken by themselves and which of them stay: a grid, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(pub Option<Grid>);

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule(Some(Grid::default()))
    }
}

impl Budget {
    /// In bytes, when history takes `used` and its disk has `free`.
    pub fn bytes(self, used: ByteLen, free: ByteLen) -> ByteLen {
        match self {
            Budget::Size(size) => size.0,
            Budget::Auto => ByteLen(used.0.saturating_add(free.0) / 2),
        }
    }
}

impl FromStr for Window {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Window, QuantityError> {
        match text.trim() {
            "none" => Ok(Window(None)),
            other => other.parse().map(|period| Window(Some(period))),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => out.write_str("none"),
            Some(period) => period.fmt(out),
        }
    }
}

impl FromStr for Budget {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Budget, QuantityError> {
        match text.trim() {
            "auto" => Ok(Budget::Auto),
            other => other.parse().map(Budget::Size),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Auto => out.write_str("auto"),
            Budget::Size(size) => size.fmt(out),
        }
    }
}

impl FromStr for Schedule {
    type Err = GridError;

    fn from_str(text: &str) -> Result<Schedule, GridError> {
        match text.trim() {
            "none" => Ok(Schedule(None)),
            other => other.parse().map(|grid| Schedule(Some(grid))),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => out.write_str("none"),
            Some(grid) => grid.fmt(out),
        }
    }
}

/// Serde by text, as files and interfaces have it.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                text::serialize(self, to)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                text::deserialize(from)
            }
        }
    )*};
}

as_text!(Window, Budget, Schedule);

/// Takes `--history`: a time is how far back, a size is what it may take.
pub(super) fn apply(amount: Amount, window: &mut Window, budget: &mut Budget) {
    match amount {
        Amount::Time(period) => *window = Window(Some(period)),
        Amount::Bytes(size) => *budget = Budget::Size(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["none", "1 d", "90 m"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        for text in ["auto", "200 GiB"] {
            assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
        }
        for text in ["none", "4x15m, 24x1h"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        assert!("x".parse::<Schedule>().is_err() && "x".parse::<Window>().is_err());
    }

    #[test]
    fn half_of_what_the_disk_has_for_history_counts_unless_told() {
        let (used, free) = (ByteLen(10), ByteLen(30));
        assert_eq!(Budget::Auto.bytes(used, free), ByteLen(20));
        assert_eq!(Budget::Size(Size(ByteLen(5))).bytes(used, free), ByteLen(5));
    }
}
