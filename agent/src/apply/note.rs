//! A note: one small file that is replaced as a whole.

use std::io;

use vgship_base::bytes::FormatError;
use vgship_base::folder::{Folder, read_small, replace};

/// Why a note cannot be used. Whoever knows what it says tells it with its name.
#[derive(Debug)]
pub(super) enum NoteError {
    /// The disk refused.
    Io {
        /// A verb.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was stored is not what is there.
    Damaged(FormatError),
}

/// How a note is named and what its bytes mean.
pub(super) struct Note<T> {
    /// Its file.
    pub(super) name: &'static str,
    /// Unit: bytes.
    pub(super) len: u64,
    pub(super) encode: fn(&T) -> Vec<u8>,
    pub(super) decode: fn(&[u8]) -> Result<T, FormatError>,
}

impl<T> Note<T> {
    /// What it says, `None` when there is none. It is stored again: what a life that ended in
    /// [`Note::store`] left may be seen without being durable.
    ///
    /// Durable: what it says, once this has returned.
    pub(super) fn load(&self, folder: &dyn Folder) -> Result<Option<T>, NoteError> {
        let read = read_small(folder, self.name, self.len);
        let bytes = read.map_err(|source| NoteError::Io { action: "read", source })?;
        let found = bytes.map(|bytes| (self.decode)(&bytes)).transpose();
        let found = found.map_err(NoteError::Damaged)?;
        if let Some(said) = &found {
            self.store(folder, said)?;
        }
        Ok(found)
    }

    /// Makes it say this.
    ///
    /// Durable: what it says, once this has returned.
    pub(super) fn store(&self, folder: &dyn Folder, said: &T) -> Result<(), NoteError> {
        let io = |source| NoteError::Io { action: "write", source };
        replace(folder, self.name, &(self.encode)(said)).map_err(io)
    }
}
