//! What a replica knows of its source's lineage: it needs it on the day on which it becomes the
//! source. The file `lineage`, version 1:
//!
//! ```text
//! at  size  field       unit  rule
//!  0     4  magic       -     the letters VGLN
//!  4     2  version     -     1
//!  6     2  reserved    -     0
//!  8    16  generation  -     whose lineage it is
//! 24     2  count       -     0 ..= 64; then each 16 id, 8 the last seq that was kept of it
//!        4  crc         -     CRC-32C of all before
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Writer, require, with_checksum};
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, Seq};

use super::meeting::Ancestry;
use super::note::{self, NoteError};
use crate::capture::ledger_format::LINEAGE_MAX;

const MAGIC: [u8; 4] = *b"VGLN";
const VERSION: u16 = 1;
const NAME: &str = "lineage";
const MAX: u64 = 30 + 24 * LINEAGE_MAX as u64;

fn encode(known: &Ancestry) -> Vec<u8> {
    let newest = &known.lineage[known.lineage.len().saturating_sub(LINEAGE_MAX)..];
    let mut out = Writer::default();
    out.put(&MAGIC).u16(VERSION).u16(0).put(&known.generation.0);
    out.u16(u16::try_from(newest.len()).expect("at most LINEAGE_MAX"));
    for (generation, kept) in newest {
        out.put(&generation.0).u64(kept.0);
    }
    with_checksum(out)
}

fn decode(bytes: &[u8]) -> Result<Ancestry, FormatError> {
    let mut from = note::open(bytes, MAGIC, "VGLN", VERSION)?;
    let generation = Generation(from.array("generation")?);
    let count = from.u16("count")?;
    require("count", count, "at most 64", usize::from(count) <= LINEAGE_MAX)?;
    let mut one = || Ok((Generation(from.array("id")?), Seq(from.u64("kept")?)));
    let lineage = (0..count).map(|_| one()).collect::<Result<_, FormatError>>()?;
    from.finish()?;
    Ok(Ancestry { generation, lineage })
}

/// Stores what the source says of itself.
///
/// Durable: once this has returned.
pub fn store(folder: &dyn Folder, known: &Ancestry) -> Result<(), NoteError> {
    note::store(folder, NAME, &encode(known))
}

/// What was known last, if anything was.
pub fn load(folder: &dyn Folder) -> Result<Option<Ancestry>, NoteError> {
    note::load(folder, NAME, MAX, decode)
}

/// What comes before a generation that begins behind `fork` of `from`.
pub fn before(known: Option<Ancestry>, from: Generation, fork: Seq) -> Vec<(Generation, Seq)> {
    // Of a strange generation nothing is known: what was before it then counts as unrelated.
    let mut lineage = known.and_then(|it| it.before(from)).unwrap_or_default();
    lineage.push((from, fork));
    let over = lineage.len().saturating_sub(LINEAGE_MAX);
    lineage.split_off(over)
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimFolder};

    use super::*;

    fn example() -> Ancestry {
        let lineage = vec![(Generation([2; 16]), Seq(5))];
        Ancestry { generation: Generation([1; 16]), lineage }
    }

    /// By hand from the table; the checksum by an independent program.
    const GOLDEN: [u8; 54] = hex_literal::hex!(
        "56474c4e" "0001" "0000" "01010101010101010101010101010101" "0001"
        "02020202020202020202020202020202" "0000000000000005" "9221e598"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encode(&example()), GOLDEN);
        assert_eq!(decode(&GOLDEN), Ok(example()));
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_was_stored_is_found() {
        let folder = SimFolder::new(&Power::default());
        assert_eq!(load(&folder).unwrap(), None);
        store(&folder, &example()).unwrap();
        assert_eq!(load(&folder).unwrap(), Some(example()));
    }

    #[test]
    fn a_lineage_is_that_of_its_generation_or_unknown_and_has_bounds() {
        let fork = (Generation([1; 16]), Seq(9));
        let full = before(Some(example()), fork.0, fork.1);
        assert_eq!(full, [(Generation([2; 16]), Seq(5)), fork]);
        let earlier = Generation([2; 16]);
        assert_eq!(before(Some(example()), earlier, Seq(3)), [(earlier, Seq(3))]);
        let other = Generation([7; 16]);
        assert_eq!(before(Some(example()), other, Seq(9)), [(other, Seq(9))]);
        let long = Ancestry { lineage: vec![(other, Seq(1)); LINEAGE_MAX], ..example() };
        let found = before(Some(long), fork.0, fork.1);
        assert_eq!((found.len(), found.last()), (LINEAGE_MAX, Some(&fork)));
    }
}
