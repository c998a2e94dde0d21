//! The checkpoint: the point that the replica's volumes hold durably. One small file, replaced as
//! a whole. Version 1:
//!
//! ```text
//! at  size  field       unit     rule
//!  0     4  magic       -        the letters VGCP
//!  4     2  version     -        1
//!  6     1  chained     -        0 or 1
//!  7     1  window      -        0, or the resync's reason
//!  8    16  generation  -        id
//! 24     8  seq         records  applied durably
//! 32     8  clock       us       the source's, at the last epoch end
//! 40     8  origin      seq      of the chain; 0 unless chained
//! 48    32  chain       BLAKE3   0 unless chained
//! 80     8  session     -        of the resync; 0 without one
//! 88     8  extents     -        that it compares; 0 without one
//! 96     4  crc         CRC-32C  of all before
//! ```
//!
//! Integers are big-endian.

use std::io;

use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, Seq};
use vgship_base::record::{Chain, ResyncReason};

use super::note::{Note, NoteError};
use crate::receive::admit::{Point, Window};

const MAGIC: [u8; 4] = *b"VGCP";
const VERSION: u16 = 1;
const NOTE: Note<Point> = Note { name: "checkpoint", len: 100, encode, decode };

/// Why the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk refused.
    #[error("cannot {action} the replica's checkpoint")]
    Io {
        /// A verb.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was stored is not what is there.
    #[error("the replica's checkpoint is damaged; remove it to have everything resynced")]
    Damaged(#[source] FormatError),
}

impl From<NoteError> for CheckpointError {
    fn from(error: NoteError) -> CheckpointError {
        match error {
            NoteError::Io { action, source } => CheckpointError::Io { action, source },
            NoteError::Damaged(source) => CheckpointError::Damaged(source),
        }
    }
}

/// The checkpoint's bytes. A point without a generation is never stored.
pub fn encode(point: &Point) -> Vec<u8> {
    let generation = point.generation.unwrap_or_default();
    let chain = point.chain.unwrap_or(Chain { origin: Seq::ZERO, hash: [0; 32] });
    let mut out = Writer::default();
    out.put(&MAGIC).u16(VERSION).u8(u8::from(point.chain.is_some()));
    out.u8(point.window.map_or(0, |window| window.reason.code()));
    out.put(&generation.0).u64(point.seq.0).u64(point.clock);
    out.u64(chain.origin.0).put(&chain.hash);
    out.u64(point.window.map_or(0, |window| window.session));
    out.u64(point.window.map_or(0, |window| window.extents));
    with_checksum(out)
}

/// Reads a checkpoint's bytes.
pub fn decode(bytes: &[u8]) -> Result<Point, FormatError> {
    let mut from = checked(bytes)?;
    if from.array("magic")? != MAGIC {
        return Err(FormatError::Magic { expected: "VGCP" });
    }
    let version = from.u16("version")?;
    if version != VERSION {
        return Err(FormatError::Version { found: version, known: VERSION });
    }
    let (chained, reason) = (from.u8("chained")?, from.u8("window")?);
    require("chained", chained, "0 or 1", chained <= 1)?;
    let generation = Generation(from.array("generation")?);
    let (seq, clock) = (Seq(from.u64("seq")?), from.u64("clock")?);
    let chain = Chain { origin: Seq(from.u64("origin")?), hash: from.array("chain")? };
    let (session, extents) = (from.u64("session")?, from.u64("extents")?);
    from.finish()?;
    let window = match reason {
        0 => None,
        code => {
            let rule = "0 or a known reason";
            let unknown = FormatError::Field { field: "window", found: code.into(), rule };
            let reason = ResyncReason::from_code(code).ok_or(unknown)?;
            Some(Window { session, reason, extents })
        }
    };
    let chain = (chained == 1).then_some(chain);
    Ok(Point { generation: Some(generation), seq, chain, window, clock })
}

/// The stored point, or `None` before the first. It is stored again: what a life that ended in
/// [`store`] left may be seen without being durable, and the journal that is recovered from it lets
/// go of what an older point would need.
///
/// Durable: the point, once this has returned.
pub fn load(folder: &dyn Folder) -> Result<Option<Point>, CheckpointError> {
    Ok(NOTE.load(folder)?)
}

/// Stores a point.
///
/// Durable: the point, once this has returned.
pub fn store(folder: &dyn Folder, point: &Point) -> Result<(), CheckpointError> {
    Ok(NOTE.store(folder, point)?)
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, Rng, SimFolder};

    use super::*;

    const POINT: Point = Point {
        generation: Some(Generation([1; 16])),
        seq: Seq(2),
        chain: Some(Chain { origin: Seq(4), hash: [5; 32] }),
        window: Some(Window { session: 6, reason: ResyncReason::Overflow, extents: 7 }),
        clock: 3,
    };

    /// By hand from the table; the checksum by an independent program.
    const GOLDEN: [u8; 100] = hex_literal::hex!(
        "56474350" "0001" "01" "02" "01010101010101010101010101010101"
        "0000000000000002" "0000000000000003" "0000000000000004"
        "0505050505050505050505050505050505050505050505050505050505050505"
        "0000000000000006" "0000000000000007" "054b610f"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encode(&POINT), GOLDEN);
        assert_eq!(decode(&GOLDEN), Ok(POINT));
        let plain = Point { chain: None, window: None, ..POINT };
        assert_eq!(decode(&encode(&plain)), Ok(plain));
    }

    /// Goal: what was loaded is found after a power cut, though the life before could not say that
    /// it had stored it.
    /// Method: the program ends after each possible step of storing, with the system's cache whole;
    /// the next one loads; then power fails.
    #[test]
    fn what_was_loaded_is_durable() {
        let mut newer = 0;
        for (seed, steps) in (0..20).flat_map(|seed| (1..9).map(move |steps| (seed, steps))) {
            let (power, mut rng) = (Power::default(), Rng::new(seed));
            let folder = SimFolder::new(&power);
            store(&folder, &POINT).unwrap();
            power.fail_after(steps);
            let _ = store(&folder, &Point { seq: Seq(9), ..POINT });
            power.restore();
            let found = load(&folder).unwrap();
            folder.power_cut(&mut rng);
            assert_eq!(load(&folder).unwrap(), found, "seed {seed}, {steps} steps");
            newer += u32::from(found.is_some_and(|point| point.seq == Seq(9)));
        }
        assert!(newer > 20 && newer < 140, "{newer}");
    }

    /// Fields out of range, each with a checksum that fits.
    #[test]
    fn what_was_never_written_is_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = GOLDEN[..GOLDEN.len() - 4].to_vec();
            match bytes.get_mut(at) {
                Some(byte) => *byte = value,
                None => bytes.push(value),
            }
            let mut out = Writer::default();
            out.put(&bytes);
            decode(&with_checksum(out)).map(|point| point.seq)
        };
        assert_eq!(with(0, GOLDEN[0]), Ok(POINT.seq));
        for (at, value, said) in [
            (3, b'X', "VGCP"),
            (5, 9, "version"),
            (6, 2, "chained"),
            (7, 99, "window"),
            (GOLDEN.len(), 0, "1"),
        ] {
            let error = with(at, value).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn every_bit_flip_and_cut_is_noticed() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..GOLDEN.len() {
            assert!(decode(&GOLDEN[..len]).is_err(), "cut to {len}");
        }
    }
}
