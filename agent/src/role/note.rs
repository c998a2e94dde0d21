//! Small notes that one side keeps of its role: each a file that is replaced as a whole.

use std::io;

use vgship_base::bytes::{FormatError, Reader, checked, require};
use vgship_base::folder::{Folder, read_small, replace};

/// Why a note cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The disk refused.
    #[error("cannot {action} the note {name}")]
    Io {
        /// A verb.
        action: &'static str,
        /// The file.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was stored is not what is there.
    #[error("the note {name} is damaged")]
    Damaged {
        /// The file.
        name: &'static str,
        /// What is wrong with it.
        source: FormatError,
    },
}

/// Stores a note.
///
/// Durable: once this has returned.
pub(super) fn store(
    folder: &dyn Folder,
    name: &'static str,
    bytes: &[u8],
) -> Result<(), NoteError> {
    let io = |source| NoteError::Io { action: "write", name, source };
    replace(folder, name, bytes).map_err(io)
}

/// Reads a note of at most `max` bytes, if there is one.
pub(super) fn load<T>(
    folder: &dyn Folder,
    name: &'static str,
    max: u64,
    decode: impl FnOnce(&[u8]) -> Result<T, FormatError>,
) -> Result<Option<T>, NoteError> {
    let io = |source| NoteError::Io { action: "read", name, source };
    let bytes = read_small(folder, name, max).map_err(io)?;
    let damaged = |source| NoteError::Damaged { name, source };
    bytes.map(|bytes| decode(&bytes)).transpose().map_err(damaged)
}

/// Removes a note, if there is one.
///
/// Durable: once this has returned.
pub(super) fn remove(folder: &dyn Folder, name: &'static str) -> Result<(), NoteError> {
    let io = |source| NoteError::Io { action: "remove", name, source };
    match folder.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.and_then(|()| folder.sync()).map_err(io),
    }
}

/// Reads the head of a note, which has a checksum at its end.
pub(super) fn open<'a>(
    bytes: &'a [u8],
    magic: [u8; 4],
    expected: &'static str,
    version: u16,
) -> Result<Reader<'a>, FormatError> {
    let mut from = checked(bytes)?;
    if from.array("magic")? != magic {
        return Err(FormatError::Magic { expected });
    }
    let found = from.u16("version")?;
    if found != version {
        return Err(FormatError::Version { found, known: version });
    }
    let reserved = from.u16("reserved")?;
    require("reserved", reserved, "zero", reserved == 0)?;
    Ok(from)
}
