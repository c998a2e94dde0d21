//! What a side that gives up a history of its own must tell before it follows: where its volumes
//! may differ from what it had of the other's. The file `yields`, version 1; it counts for as long as
//! the replica is of the generation that it names.
//!
//! ```text
//! at  size  field       unit  rule
//!  0     4  magic       -     the letters VGYD
//!  4     2  version     -     1
//!  6     2  reserved    -     0
//!  8    16  generation  -     that is given up
//! 24     4  count       -     runs; then each as in `wire::changed`
//!        4  crc         -     CRC-32C of all before
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Writer, require, with_checksum};
use vgship_base::folder::Folder;
use vgship_base::ids::Generation;

use super::note::{self, NoteError};
use crate::wire::changed::Run;

const MAGIC: [u8; 4] = *b"VGYD";
const VERSION: u16 = 1;
const NAME: &str = "yields";

/// Largest note that is read. Unit: bytes. Every second extent of 4 TiB at 64 KiB.
const MAX: u64 = 1 << 30;

/// A history that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yields {
    /// Which.
    pub generation: Generation,
    /// Where the volumes may differ.
    pub changed: Vec<Run>,
}

fn encode(yields: &Yields) -> Vec<u8> {
    let mut out = Writer::with_capacity(32 + 18 * yields.changed.len());
    out.put(&MAGIC).u16(VERSION).u16(0).put(&yields.generation.0);
    out.u32(u32::try_from(yields.changed.len()).expect("bounded by the volumes' limits"));
    yields.changed.iter().for_each(|run| run.encode(&mut out));
    with_checksum(out)
}

fn decode(bytes: &[u8]) -> Result<Yields, FormatError> {
    let mut from = note::open(bytes, MAGIC, "VGYD", VERSION)?;
    let generation = Generation(from.array("generation")?);
    let count = from.u32("count")?;
    let fits = 32 + 18 * u64::from(count) == bytes.len() as u64;
    require("count", count, "as many runs as the file has", fits)?;
    let changed = (0..count).map(|_| Run::decode(&mut from)).collect::<Result<_, _>>()?;
    from.finish()?;
    Ok(Yields { generation, changed })
}

/// Stores the note.
///
/// Durable: once this has returned.
pub fn store(folder: &dyn Folder, yields: &Yields) -> Result<(), NoteError> {
    note::store(folder, NAME, &encode(yields))
}

/// The note, if there is one for this generation.
pub fn load(folder: &dyn Folder, of: Generation) -> Result<Option<Yields>, NoteError> {
    Ok(note::load(folder, NAME, MAX, decode)?.filter(|it| it.generation == of))
}

/// Nothing is given up.
///
/// Durable: once this has returned.
pub fn remove(folder: &dyn Folder) -> Result<(), NoteError> {
    note::remove(folder, NAME)
}

#[cfg(test)]
mod tests {
    use vgship_base::ids::VolumeId;
    use vgship_base::sim::{Power, SimFolder};

    use super::*;

    fn example() -> Yields {
        let changed = vec![Run { volume: VolumeId(2), first: 3, extents: 4 }];
        Yields { generation: Generation([1; 16]), changed }
    }

    /// By hand from the table; the checksum by an independent program.
    const GOLDEN: [u8; 50] = hex_literal::hex!(
        "56475944" "0001" "0000" "01010101010101010101010101010101" "00000001"
        "0002" "0000000000000003" "0000000000000004" "61f29c88"
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
    fn the_note_counts_for_its_generation_only() {
        let folder = SimFolder::new(&Power::default());
        store(&folder, &example()).unwrap();
        assert_eq!(load(&folder, example().generation).unwrap(), Some(example()));
        assert_eq!(load(&folder, Generation([9; 16])).unwrap(), None);
        remove(&folder).unwrap();
        assert_eq!(load(&folder, example().generation).unwrap(), None);
    }
}
