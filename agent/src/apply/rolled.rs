//! That a replica's volumes are rolled back: from where, to which point, and how far that is. One
//! small file, replaced as a whole; without it the volumes hold what the checkpoint says. Version 1:
//!
//! ```text
//! at  size  field       unit     rule
//!  0     4  magic       -        the letters VGRB
//!  4     2  version     -        1
//!  6     1  phase       -        1 going, 2 there, 3 coming, 4 came
//!  7     1  broken      -        0 or 1
//!  8    16  generation  -        of the point
//! 24     8  from        seq      where the volumes stood, and what the way back is named by
//! 32     8  base        seq      names the snapshot that the point builds on
//! 40     8  wanted      seq      the point
//! 48     8  clock       us       the source's, at the point's last epoch end
//! 56     8  since       us       this machine's, when it was asked for
//! 64     4  crc         CRC-32C  of all before
//! ```
//!
//! Integers are big-endian.

use std::io;

use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, Seq};

use super::note::{Note, NoteError};

const MAGIC: [u8; 4] = *b"VGRB";
const VERSION: u16 = 1;
const NOTE: Note<Rolled> = Note { name: "rolled", len: 68, encode, decode };

/// How far a rollback is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The volumes are being taken to the point; they hold anything between.
    Going,
    /// They hold the point.
    There,
    /// They are being taken to where they stood; they hold anything between.
    Coming,
    /// They hold what they held before; whatever is left over is cleared away.
    Came,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Going, Phase::There, Phase::Coming, Phase::Came];

    const fn code(self) -> u8 {
        match self {
            Phase::Going => 1,
            Phase::There => 2,
            Phase::Coming => 3,
            Phase::Came => 4,
        }
    }
}

/// A rollback under way, or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolled {
    /// How far it is.
    pub phase: Phase,
    /// Promised records behind [`Rolled::from`] were found lost meanwhile: a resync is needed.
    pub broken: bool,
    /// The history of the point.
    pub generation: Generation,
    /// The last record that the volumes held; the seq of the snapshot that holds them.
    pub from: Seq,
    /// The seq of the snapshot that the point builds on.
    pub base: Seq,
    /// The last record of the point.
    pub wanted: Seq,
    /// The source's wall clock there. Unit: microseconds since 1970.
    pub clock: u64,
    /// This machine's wall clock when it was asked for. Unit: microseconds since 1970.
    pub since: u64,
}

impl Rolled {
    /// Nothing is rolled back: only what else the note says counts.
    pub const fn came(at: Seq) -> Rolled {
        Rolled {
            phase: Phase::Came,
            broken: false,
            generation: Generation([0; 16]),
            from: at,
            base: at,
            wanted: at,
            clock: 0,
            since: 0,
        }
    }
}

/// Why it is not known whether the volumes are rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RolledError {
    /// The disk refused.
    #[error("cannot {action} the note that the volumes are rolled back")]
    Io {
        /// A verb.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was stored is not what is there.
    #[error(
        "the note that the volumes are rolled back is damaged; remove it together with the \
         checkpoint to have everything resynced"
    )]
    Damaged(#[source] FormatError),
}

impl From<NoteError> for RolledError {
    fn from(error: NoteError) -> RolledError {
        match error {
            NoteError::Io { action, source } => RolledError::Io { action, source },
            NoteError::Damaged(source) => RolledError::Damaged(source),
        }
    }
}

/// The bytes of the note.
pub fn encode(rolled: &Rolled) -> Vec<u8> {
    let mut out = Writer::default();
    out.put(&MAGIC).u16(VERSION).u8(rolled.phase.code()).u8(u8::from(rolled.broken));
    out.put(&rolled.generation.0).u64(rolled.from.0).u64(rolled.base.0).u64(rolled.wanted.0);
    out.u64(rolled.clock).u64(rolled.since);
    with_checksum(out)
}

/// Reads the bytes of a note.
pub fn decode(bytes: &[u8]) -> Result<Rolled, FormatError> {
    let mut from = checked(bytes)?;
    if from.array("magic")? != MAGIC {
        return Err(FormatError::Magic { expected: "VGRB" });
    }
    let version = from.u16("version")?;
    if version != VERSION {
        return Err(FormatError::Version { found: version, known: VERSION });
    }
    let (phase, broken) = (from.u8("phase")?, from.u8("broken")?);
    let unknown = FormatError::Field { field: "phase", found: phase.into(), rule: "1 to 4" };
    let phase = Phase::ALL.into_iter().find(|it| it.code() == phase).ok_or(unknown)?;
    require("broken", broken, "0 or 1", broken <= 1)?;
    let rolled = Rolled {
        phase,
        broken: broken == 1,
        generation: Generation(from.array("generation")?),
        from: Seq(from.u64("from")?),
        base: Seq(from.u64("base")?),
        wanted: Seq(from.u64("wanted")?),
        clock: from.u64("clock")?,
        since: from.u64("since")?,
    };
    from.finish()?;
    Ok(rolled)
}

/// The note, if there is one. It is stored again: what a life that ended in [`store`] left may be
/// seen without being durable.
///
/// Durable: the note, once this has returned.
pub fn load(folder: &dyn Folder) -> Result<Option<Rolled>, RolledError> {
    Ok(NOTE.load(folder)?)
}

/// Stores the note.
///
/// Durable: the note, once this has returned.
pub fn store(folder: &dyn Folder, rolled: &Rolled) -> Result<(), RolledError> {
    Ok(NOTE.store(folder, rolled)?)
}

/// Removes the note: the volumes hold what the checkpoint says. A crash may bring it back.
pub fn remove(folder: &dyn Folder) -> Result<(), RolledError> {
    folder.remove(NOTE.name).map_err(|source| RolledError::Io { action: "remove", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLED: Rolled = Rolled {
        phase: Phase::Coming,
        broken: true,
        generation: Generation([1; 16]),
        from: Seq(9),
        base: Seq(2),
        wanted: Seq(5),
        clock: 3,
        since: 4,
    };

    /// By hand from the table; the checksum by an independent program.
    const GOLDEN: [u8; 68] = hex_literal::hex!(
        "56475242" "0001" "03" "01" "01010101010101010101010101010101"
        "0000000000000009" "0000000000000002" "0000000000000005"
        "0000000000000003" "0000000000000004" "f10bc601"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encode(&ROLLED), GOLDEN);
        assert_eq!(decode(&GOLDEN), Ok(ROLLED));
        for phase in Phase::ALL {
            let rolled = Rolled { phase, broken: false, ..ROLLED };
            assert_eq!(decode(&encode(&rolled)), Ok(rolled));
        }
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = GOLDEN[..64].to_vec();
            bytes[at] = byte;
            let mut out = Writer::default();
            out.put(&bytes);
            decode(&with_checksum(out))
        };
        assert!(with(0, b'X').is_err() && with(5, 2).is_err());
        assert!(with(6, 0).is_err() && with(6, 5).is_err() && with(7, 2).is_err());
        assert!(decode(&GOLDEN[..67]).is_err());
        assert!(with(6, 3).is_ok());
    }
}
