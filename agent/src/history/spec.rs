//! How people name a point: `now`, `seq:N`, `epoch:N`, `time:RFC3339`, `marker:NAME`, a snapshot's
//! name; with its group `G@POINT`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use vgship_base::ids::{Name, Seq, Start};

/// A point in a group's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// What the replica has applied by now.
    Now,
    /// Behind this record.
    Seq(Seq),
    /// At the last epoch end at or before this record.
    Epoch(Seq),
    /// What the source held then, by its own clock. Unit: microseconds since 1970.
    Time(u64),
    /// At the last marker of this name.
    Marker(Name),
    /// Of a snapshot.
    Snapshot(Name),
}

/// A point with its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPoint {
    /// Which group.
    pub group: Name,
    /// Which point of it.
    pub at: At,
}

/// Why a text names no point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a point: {why}; write for example now, seq:2.1734, epoch:2.1734, \
     time:2026-05-01T08:00:00Z, marker:before-upgrade, or a snapshot's name"
)]
pub struct PointError {
    text: String,
    why: String,
}

fn wrong(text: &str, why: impl fmt::Display) -> PointError {
    PointError { text: text.chars().take(200).collect(), why: why.to_string() }
}

/// A seq as a person writes it: `start.count` as it is shown, or the one number of JSON.
pub fn parse_seq(text: &str) -> Option<Seq> {
    match text.split_once('.') {
        None => text.parse().ok().map(Seq),
        Some((start, count)) => {
            let (start, count): (u16, u64) = (start.parse().ok()?, count.parse().ok()?);
            let first = Seq::before(Start(start));
            let last = Seq(first.0 + ((1 << 48) - 1));
            (count <= last.count()).then(|| Seq(first.0 + count))
        }
    }
}

impl FromStr for At {
    type Err = PointError;

    fn from_str(text: &str) -> Result<At, PointError> {
        let name = |name: &str| name.parse::<Name>().map_err(|error| wrong(text, error));
        let seq = |digits: &str| {
            parse_seq(digits).ok_or_else(|| wrong(text, "a record is written as 2.1734 or 1734"))
        };
        match text.split_once(':') {
            None if text == "now" => Ok(At::Now),
            None => name(text).map(At::Snapshot),
            Some(("seq", digits)) => seq(digits).map(At::Seq),
            Some(("epoch", digits)) => seq(digits).map(At::Epoch),
            Some(("marker", rest)) => name(rest).map(At::Marker),
            Some(("time", time)) => {
                let time: Timestamp = time.parse().map_err(|error| wrong(text, error))?;
                let micros = u64::try_from(time.as_microsecond());
                micros.map(At::Time).map_err(|_| wrong(text, "it is before 1970"))
            }
            Some((kind, _)) => Err(wrong(text, format!("{kind}: is no kind of point"))),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Now => out.write_str("now"),
            At::Seq(seq) => write!(out, "seq:{seq}"),
            At::Epoch(seq) => write!(out, "epoch:{seq}"),
            At::Time(micros) => write!(out, "time:{}", rfc3339(*micros)),
            At::Marker(name) => write!(out, "marker:{name}"),
            At::Snapshot(name) => name.fmt(out),
        }
    }
}

impl FromStr for GroupPoint {
    type Err = PointError;

    fn from_str(text: &str) -> Result<GroupPoint, PointError> {
        let (group, at) =
            text.split_once('@').ok_or_else(|| wrong(text, "the group is missing: G@POINT"))?;
        let group = group.parse().map_err(|error| wrong(text, error))?;
        Ok(GroupPoint { group, at: at.parse()? })
    }
}

impl fmt::Display for GroupPoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.group, self.at)
    }
}

/// A wall clock as people and programs read it. Unit: microseconds since 1970.
pub fn rfc3339(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|it| Timestamp::from_microsecond(it).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        for text in [
            "now",
            "seq:2.1734",
            "epoch:65535.1",
            "time:2026-05-01T08:00:00Z",
            "marker:before-upgrade",
            "monday",
        ] {
            assert_eq!(text.parse::<At>().unwrap().to_string(), text);
            let whole = format!("g@{text}");
            assert_eq!(whole.parse::<GroupPoint>().unwrap().to_string(), whole);
        }
        let seq = Seq::before(Start(2)).0 + 7;
        assert_eq!(format!("seq:{seq}").parse(), "seq:2.7".parse::<At>());
    }

    #[test]
    fn what_is_no_point_is_refused() {
        for bad in [
            "",
            "seq:",
            "seq:x",
            "seq:1.",
            "seq:70000.1",
            "seq:1.281474976710656",
            "time:noon",
            "time:1969-01-01T00:00:00Z",
            "what:1",
            "marker:",
            "a b",
            "../x",
        ] {
            assert!(bad.parse::<At>().is_err(), "{bad}");
        }
        assert!("now".parse::<GroupPoint>().is_err() && "@now".parse::<GroupPoint>().is_err());
    }
}
