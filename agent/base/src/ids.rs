//! Identities: what a thing is, never where it is.

use std::fmt;
use std::str::FromStr;

/// How often the source of a group has started. Unit: starts. Stored durably before first use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Start(pub u16);

/// A record's place in its group's order: the high 16 bits count the source's starts, the low 48
/// the records of that start, from 1. Zero stands before everything.
///
/// A crashed source cannot give a number twice, because it counts a new start before it gives one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

const COUNT_BITS: u32 = 48;

impl Seq {
    /// Before every record.
    pub const ZERO: Seq = Seq(0);

    /// The place before the first record of `start`.
    pub const fn before(start: Start) -> Seq {
        Seq((start.0 as u64) << COUNT_BITS)
    }

    /// Which start of the source gave this number.
    pub const fn start(self) -> Start {
        Start((self.0 >> COUNT_BITS) as u16)
    }

    /// How many records of its start stand at or before this one. Unit: records.
    pub const fn count(self) -> u64 {
        self.0 & ((1 << COUNT_BITS) - 1)
    }

    /// Whether this is the number right after `last` in the same start. Never panics, whatever a
    /// peer says.
    pub const fn follows(self, last: Seq) -> bool {
        self.start().0 == last.start().0 && self.count() == last.count() + 1
    }

    /// The number after this one in the same start.
    ///
    /// # Panics
    /// After 2^48 records of one start: eight years at a million a second.
    #[must_use]
    pub const fn next(self) -> Seq {
        assert!(self.count() < (1 << COUNT_BITS) - 1, "a start has run out of sequence numbers");
        Seq(self.0 + 1)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.start().0, self.count())
    }
}

/// Defines a 16-byte random identity, shown as 32 hexadecimal digits.
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }
    };
}

identity!(
    /// A group, the same on all its sides, whatever each side calls it.
    GroupId
);
identity!(
    /// One continuous history of a group; a new one begins only when a side becomes writable.
    Generation
);

/// A volume's place in its group's layout. Unit: index from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u16);

impl VolumeId {
    /// The index for a slice.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A replica's place among its source's replicas. Unit: index from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u8);

/// Who a peer is: SHA-256 of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

impl fmt::Display for PeerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A name that a person gave to a group, a volume or an agent.
///
/// Shape: 1 to 128 ASCII letters, digits, `.`, `_`, `-`; does not begin with `.` or `-`, so it is
/// safe as a file name and as an argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Longest name. Unit: bytes.
pub const NAME_MAX: usize = 128;

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name: use 1 to {NAME_MAX} letters, digits, '.', '_' or '-', not starting with '.' or '-'"
)]
pub struct NameError {
    text: String,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with(['.', '-']);
        if fits {
            Ok(Name(text.to_owned()))
        } else {
            Err(NameError { text: text.chars().take(NAME_MAX).collect() })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_stands_after_every_record_of_an_earlier() {
        let old = Seq(Seq::before(Start(1)).0 + (1 << 40));
        let new = Seq::before(Start(2)).next();
        assert!(old < new);
        assert_eq!((new.start(), new.count()), (Start(2), 1));
        assert_eq!(new.to_string(), "2.1");
    }

    #[test]
    fn nothing_follows_the_last_number_of_a_start() {
        let last = Seq(Seq::before(Start(2)).0 - 1);
        assert_eq!((last.start(), last.count()), (Start(1), (1 << 48) - 1));
        assert!(!Seq::before(Start(2)).follows(last) && !last.follows(last));
        assert!(last.follows(Seq(last.0 - 1)));
        assert!(!Seq(u64::MAX).follows(Seq(u64::MAX)) && !Seq(0).follows(Seq(u64::MAX)));
    }

    #[test]
    fn names_cannot_leave_their_folder() {
        for bad in ["", ".", "..", "a/b", "-x", "a b", "\u{e9}", &"x".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "data_lv-01.x".parse::<Name>().map(|name| name.to_string()).as_deref(),
            Ok("data_lv-01.x")
        );
    }
}
