//! Quantities as types: an address, a length and a count never share one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Size of the smallest unit that a disk writes as one piece. Unit: bytes.
pub const SECTOR: u64 = 512;

/// A length, never an offset. Unit: bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteLen(pub u64);

impl fmt::Display for ByteLen {
    /// The largest unit with at most one decimal: `64 KiB`, `1.5 GiB`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut unit = 0;
        while unit + 1 < UNITS.len() && self.0 >> (10 * (unit + 1)) > 0 {
            unit += 1;
        }
        let whole = self.0 >> (10 * unit);
        let tenth = match unit {
            0 => 0,
            _ => (self.0 >> (10 * (unit - 1)) & 1023) * 10 / 1024,
        };
        match tenth {
            0 => write!(out, "{whole} {}", UNITS[unit]),
            _ => write!(out, "{whole}.{tenth} {}", UNITS[unit]),
        }
    }
}

/// Time since the agent started. Unit: milliseconds. Shells read the clock, cores never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// How long ago `earlier` was. Unit: milliseconds.
    pub const fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A run of bytes of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte. Unit: bytes from the volume's start.
    pub offset: u64,
    /// How many. Unit: bytes.
    pub len: u64,
}

impl Span {
    /// The run of `len` bytes from `offset`.
    pub const fn new(offset: u64, len: u64) -> Span {
        Span { offset, len }
    }

    /// First byte behind the run, or `None` past the last address.
    pub const fn checked_end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// First byte behind the run. Saturates; bounds were checked where the span came in.
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// Whether both runs share a byte.
    pub const fn overlaps(self, other: Span) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// The bytes that both runs have; empty when there are none.
    #[must_use]
    pub fn common(self, other: Span) -> Span {
        let offset = self.offset.max(other.offset);
        Span::new(offset, self.end().min(other.end()).saturating_sub(offset))
    }

    /// Whether the run lies within a volume of `bytes`.
    pub const fn within(self, bytes: u64) -> bool {
        match self.checked_end() {
            Some(end) => end <= bytes,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_as_people_write_them() {
        let shown = |bytes| ByteLen(bytes).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(64 << 10), "64 KiB");
        assert_eq!(shown(3 << 29), "1.5 GiB");
        assert_eq!(shown(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!Span::new(0, 8).overlaps(Span::new(8, 8)));
        assert!(Span::new(0, 9).overlaps(Span::new(8, 8)));
        assert_eq!(Span::new(0, 9).common(Span::new(8, 8)), Span::new(8, 1));
        assert_eq!(Span::new(0, 8).common(Span::new(9, 8)).len, 0);
        assert!(!Span::new(u64::MAX, 2).within(u64::MAX));
    }
}
