//! That a source hands its role over, and to whom: from before the handover's record is numbered
//! until it is known whether the replica took it, a start keeps applications away. The file
//! `handover`, version 1:
//!
//! ```text
//! at  size  field       unit  rule
//!  0     4  magic       -     the letters VGHO
//!  4     2  version     -     1
//!  6     2  reserved    -     0
//!  8    32  peer        -     who becomes the source
//! 40    16  generation  -     that it begins
//! 56     8  after       seq   the last number before the handover's record
//! 64     4  crc         -     CRC-32C of all before
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Writer, with_checksum};
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, PeerId, Seq};

use super::note::{self, NoteError};

const MAGIC: [u8; 4] = *b"VGHO";
const VERSION: u16 = 1;
const NAME: &str = "handover";
const MAX: u64 = 68;

/// A handover that may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handing {
    /// Who becomes the source.
    pub peer: PeerId,
    /// The history that it begins.
    pub generation: Generation,
    /// The last number before the record that says so.
    pub after: Seq,
}

fn encode(handing: &Handing) -> Vec<u8> {
    let mut out = Writer::default();
    out.put(&MAGIC).u16(VERSION).u16(0);
    out.put(&handing.peer.0).put(&handing.generation.0).u64(handing.after.0);
    with_checksum(out)
}

fn decode(bytes: &[u8]) -> Result<Handing, FormatError> {
    let mut from = note::open(bytes, MAGIC, "VGHO", VERSION)?;
    let peer = PeerId(from.array("peer")?);
    let generation = Generation(from.array("generation")?);
    let after = Seq(from.u64("after")?);
    from.finish()?;
    Ok(Handing { peer, generation, after })
}

/// Stores the note.
///
/// Durable: once this has returned.
pub fn store(folder: &dyn Folder, handing: &Handing) -> Result<(), NoteError> {
    note::store(folder, NAME, &encode(handing))
}

/// The note, if there is one.
pub fn load(folder: &dyn Folder) -> Result<Option<Handing>, NoteError> {
    note::load(folder, NAME, MAX, decode)
}

/// The handover did not happen.
///
/// Durable: once this has returned.
pub fn remove(folder: &dyn Folder) -> Result<(), NoteError> {
    note::remove(folder, NAME)
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimFolder};

    use super::*;

    const HANDING: Handing =
        Handing { peer: PeerId([1; 32]), generation: Generation([2; 16]), after: Seq(3) };

    /// By hand from the table; the checksum by an independent program.
    const GOLDEN: [u8; 68] = hex_literal::hex!(
        "5647484f" "0001" "0000"
        "0101010101010101010101010101010101010101010101010101010101010101"
        "02020202020202020202020202020202" "0000000000000003" "17f273f9"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encode(&HANDING), GOLDEN);
        assert_eq!(decode(&GOLDEN), Ok(HANDING));
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_note_stays_until_it_is_removed() {
        let folder = SimFolder::new(&Power::default());
        assert_eq!(load(&folder).unwrap(), None);
        store(&folder, &HANDING).unwrap();
        assert_eq!(load(&folder).unwrap(), Some(HANDING));
        remove(&folder).unwrap();
        remove(&folder).unwrap();
        assert_eq!(load(&folder).unwrap(), None);
    }
}
