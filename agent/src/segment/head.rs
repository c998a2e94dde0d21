//! The head of a segment: the body of its sealed frame 0, version 1.
//!
//! ```text
//! at  size  field       unit    rule
//!  0     2  version     -       1
//!  2     6  reserved    -       0, else refused
//!  8     8  number      -       of the segment, from 1
//! 16    16  generation  -       of all its records
//! 32     8  after       seq     the last record before this segment; all up to it are durable
//! 40     8  previous    -       the segment that this one continues, below `number`; 0 none
//! 48     8  frames      -       how many frames of `previous` count; 0 when there is none
//! ```
//!
//! Integers are big-endian. What stands in `previous` behind its first `frames` frames is void: it
//! was torn or given up, and is never read as history again.

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::ids::{Generation, Seq};

/// Encoded length. Unit: bytes.
pub(super) const LEN: usize = 56;

const VERSION: u16 = 1;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which segment; grows with each that is begun.
    pub number: u64,
    /// The history that its records belong to.
    pub generation: Generation,
    /// The last record before it.
    pub after: Seq,
    /// What it continues; `None` at the begin of a row.
    pub previous: Option<Previous>,
}

/// What a segment continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Which segment.
    pub number: u64,
    /// How many of its frames count, its head among them.
    pub frames: u64,
}

impl Head {
    pub(super) fn encode(&self, out: &mut Writer) {
        let (previous, frames) = self.previous.map_or((0, 0), |it| (it.number, it.frames));
        out.u16(VERSION).put(&[0; 6]).u64(self.number).put(&self.generation.0);
        out.u64(self.after.0).u64(previous).u64(frames);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Head, FormatError> {
        let mut from = Reader::new(bytes);
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let reserved = from.array::<6>("reserved")?;
        require("reserved", reserved[0], "0", reserved == [0; 6])?;
        let number = from.u64("number")?;
        let (generation, after) = (Generation(from.array("generation")?), Seq(from.u64("after")?));
        let (previous, frames) = (from.u64("previous")?, from.u64("frames")?);
        from.finish()?;
        require("number", number, "not 0", number > 0)?;
        require("previous", previous, "below the segment's number", previous < number)?;
        require("frames", frames, "0 only without a previous", (frames == 0) == (previous == 0))?;
        let previous = (previous > 0).then_some(Previous { number: previous, frames });
        Ok(Head { number, generation, after, previous })
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const GOLDEN: [u8; LEN] = hex!(
        "0001" "000000000000" "0000000000000005" "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
        "0002000000000007" "0000000000000003" "0000000000000009"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        let previous = Some(Previous { number: 3, frames: 9 });
        let (generation, after) = (Generation([10; 16]), Seq(0x0002_0000_0000_0007));
        let head = Head { number: 5, generation, after, previous };
        let mut out = Writer::default();
        head.encode(&mut out);
        assert_eq!(out.as_slice(), GOLDEN);
        assert_eq!(Head::decode(&GOLDEN), Ok(head));
    }

    #[test]
    fn a_first_segment_has_no_previous() {
        let mut bytes = GOLDEN;
        bytes[40..].fill(0);
        assert_eq!(Head::decode(&bytes).map(|head| head.previous), Ok(None));
    }

    #[test]
    fn what_the_table_does_not_allow_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = GOLDEN;
            bytes[at] = byte;
            Head::decode(&bytes)
        };
        assert!(matches!(with(1, 2), Err(FormatError::Version { found: 2, known: 1 })));
        for (at, byte) in [(7, 1), (15, 0), (15, 3), (47, 0), (55, 0)] {
            assert!(matches!(with(at, byte), Err(FormatError::Field { .. })), "byte {at}");
        }
        for len in 0..LEN {
            assert!(Head::decode(&GOLDEN[..len]).is_err());
        }
    }
}
