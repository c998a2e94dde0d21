//! What a replica says of the snapshots that it keeps: the body of a frame.
//!
//! ```text
//! at  size  field    unit   rule
//!  0     8  applied  seq    the list is of this moment
//!  8     8  stored   bytes  what snapshots take there
//! 16     2  count    -      0 ..= 4096, the newest; then per snapshot, oldest first:
//!        8  point    seq    the last record that it holds
//!        8  clock    us     the source's there, since 1970
//!        1  origin   -      1 manual, 2 automatic, 3 before a resync, 4 before a rollback
//!        1  flags    -      1 pinned, 2 way back of a resync, 4 quiesced, 8 can be read
//!      2+n  name     -      1 ..= 128 bytes
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::ids::{NAME_MAX, Name, Seq};
use vgship_snapshot::set::{Origin, Snapshot};

/// Snapshots of one list. Unit: snapshots. With the longest names they take 580 KiB.
pub const KEPT_MAX: usize = 4096;

const PINNED: u8 = 1;
const GUARDS: u8 = 2;
const QUIESCED: u8 = 4;
const COMPLETE: u8 = 8;

/// One snapshot, as its source knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each a flag of the format")]
pub struct KeptSnapshot {
    /// The last record that it holds.
    pub point: Seq,
    /// The source's clock there. Unit: microseconds since 1970.
    pub clock: u64,
    /// Why it was taken.
    pub origin: Origin,
    /// It stays until it is unpinned.
    pub pinned: bool,
    /// It is the way back of a resync under way.
    pub guards: bool,
    /// Applications were quiet.
    pub quiesced: bool,
    /// It can be read.
    pub complete: bool,
    /// Its name.
    pub name: Name,
}

/// The snapshots that a replica keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What was applied when this was said.
    pub applied: Seq,
    /// What they take there. Unit: bytes.
    pub stored: u64,
    /// Oldest first.
    pub snapshots: Vec<KeptSnapshot>,
}

impl KeptSnapshot {
    /// Of a snapshot that can be read, or not yet.
    pub fn of(snapshot: Snapshot, complete: bool) -> KeptSnapshot {
        let Snapshot { point, clock, origin, pinned, guards, quiesced, name, .. } = snapshot;
        KeptSnapshot { point, clock, origin, pinned, guards, quiesced, complete, name }
    }

    fn encode(&self, out: &mut Writer) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.pinned, PINNED)
            | flag(self.guards, GUARDS)
            | flag(self.quiesced, QUIESCED)
            | flag(self.complete, COMPLETE);
        out.u64(self.point.0).u64(self.clock).u8(self.origin.code()).u8(flags);
        out.text(self.name.as_str());
    }

    fn decode(from: &mut Reader<'_>) -> Result<KeptSnapshot, FormatError> {
        let (point, clock) = (Seq(from.u64("point")?), from.u64("clock")?);
        let (origin, flags) = (from.u8("origin")?, from.u8("flags")?);
        let rule = "a known origin";
        let unknown = FormatError::Field { field: "origin", found: origin.into(), rule };
        let origin = Origin::from_code(origin).ok_or(unknown)?;
        let known = PINNED | GUARDS | QUIESCED | COMPLETE;
        require("flags", flags, "known flags", flags & !known == 0)?;
        let text = from.text("name", NAME_MAX)?;
        let name = text.parse().map_err(|_| FormatError::Field {
            field: "name",
            found: text.len() as u64,
            rule: "letters, digits, '.', '_' and '-'",
        })?;
        let has = |flag: u8| flags & flag != 0;
        Ok(KeptSnapshot {
            point,
            clock,
            origin,
            pinned: has(PINNED),
            guards: has(GUARDS),
            quiesced: has(QUIESCED),
            complete: has(COMPLETE),
            name,
        })
    }
}

impl Kept {
    /// Appends the body.
    pub(super) fn encode(&self, out: &mut Writer) {
        let newest = &self.snapshots[self.snapshots.len().saturating_sub(KEPT_MAX)..];
        let count = u16::try_from(newest.len()).expect("KEPT_MAX fits");
        out.u64(self.applied.0).u64(self.stored).u16(count);
        newest.iter().for_each(|snapshot| snapshot.encode(out));
    }

    /// Reads a body.
    pub(super) fn decode(body: &[u8]) -> Result<Kept, FormatError> {
        let mut from = Reader::new(body);
        let (applied, stored) = (Seq(from.u64("applied")?), from.u64("stored")?);
        let count = from.u16("count")?;
        require("count", count, "at most 4096", usize::from(count) <= KEPT_MAX)?;
        let snapshots =
            (0..count).map(|_| KeptSnapshot::decode(&mut from)).collect::<Result<_, _>>()?;
        from.finish()?;
        Ok(Kept { applied, stored, snapshots })
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    fn example() -> Kept {
        let snapshot = KeptSnapshot {
            point: Seq(3),
            clock: 4,
            origin: Origin::Automatic,
            pinned: true,
            guards: false,
            quiesced: false,
            complete: true,
            name: "noon".parse().unwrap(),
        };
        Kept { applied: Seq(1), stored: 2, snapshots: vec![snapshot] }
    }

    /// By hand from the table.
    const GOLDEN: [u8; 42] = hex!(
        "0000000000000001" "0000000000000002" "0001"
        "0000000000000003" "0000000000000004" "02" "09" "0004" "6e6f6f6e"
    );

    fn encoded(kept: &Kept) -> Vec<u8> {
        let mut out = Writer::default();
        kept.encode(&mut out);
        out.into_vec()
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encoded(&example()), GOLDEN);
        assert_eq!(Kept::decode(&GOLDEN), Ok(example()));
        assert_eq!(Kept::decode(&encoded(&Kept::default())), Ok(Kept::default()));
    }

    #[test]
    fn what_no_replica_says_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(Kept::decode(&GOLDEN[..len]).is_err(), "cut to {len}");
        }
        for (at, value) in [(16, 0x10), (17, 2), (34, 0), (34, 5), (35, 16), (41, b'/')] {
            let mut bytes = GOLDEN;
            bytes[at] = value;
            assert!(Kept::decode(&bytes).is_err(), "{value} at {at}");
        }
    }

    #[test]
    fn of_more_than_fit_the_newest_are_said() {
        let mut kept = example();
        kept.snapshots = vec![kept.snapshots[0].clone(); KEPT_MAX + 5];
        kept.snapshots[5].clock = 77;
        let read = Kept::decode(&encoded(&kept)).unwrap();
        assert_eq!((read.snapshots.len(), read.snapshots[0].clock), (KEPT_MAX, 77));
        assert!(encoded(&kept).len() <= super::super::frame::BODY_MAX);
    }
}
