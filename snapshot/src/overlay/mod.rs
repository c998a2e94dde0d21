//! A writable clone of a read-only disk.
//!
//! ```text
//!            read                    write
//!             |                        |
//!      own block? --no--> base         +--> first into this block? base's bytes around it
//!             | yes                    v
//!             +--------------> STEM.data    block n at n * BLOCK, sparse
//!                              STEM.map     which blocks are own; written by a flush alone
//! ```
//!
//! A block is the base's until the first write into it has stood in the data file as a whole; from
//! then on it is the clone's own, and bytes go into the data file as they come. [`Disk::flush`]
//! flushes the data file first, then stores in the map which blocks have become own since and
//! flushes that. So a block of which the map speaks is whole in the data file. After a power cut a
//! block of which it does not speak is the base's again, whatever the data file holds in its place:
//! nobody was promised more, and the next write into it begins with the base's bytes anew. A later
//! write into an own block touches its own sectors only, so it tears as on any disk.
//!
//! When a flush of the data file fails, nothing is known of what it should have stored, and the
//! system may take it for stored ever after. So the clone is *poisoned*: writes and flushes fail
//! from then on, and so do reads of blocks that no flush had stored in the map; all else can be
//! read. Opening it again shows what the disk holds. When the map cannot be written nothing is
//! lost: that flush fails, and the next one writes the map anew.
//!
//! The base never changes and never learns of a clone. Many clones may share one.

mod blocks;
mod disk;
mod format;
mod map;
mod ownership;
mod turns;

use std::io;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;
use vgship_base::bytes::FormatError;
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::folder::{Folder, SharedFolder};
use vgship_base::limits::VOLUME_BYTES_MAX;
use vgship_base::units::Span;

use map::{MapFile, fresh_name, remove_any};
use ownership::Ownership;
use turns::Turns;

pub use format::BLOCK;

/// Why a clone cannot do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// The folder or a file refused.
    #[error("cannot {action} {name}")]
    Io {
        /// A verb.
        action: &'static str,
        /// The file's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is a clone of that name.
    #[error("cannot create {name}: it is there already")]
    Exists {
        /// The map's name.
        name: String,
    },
    /// A clone has at most [`VOLUME_BYTES_MAX`].
    #[error("cannot clone a disk of {0} bytes: it has at most {VOLUME_BYTES_MAX}")]
    Size(u64),
    /// The map was made for another base.
    #[error("cannot use {name}: it is of a base of {expected} bytes, this one has {found}")]
    Base {
        /// The map's name.
        name: String,
        /// As stored. Unit: bytes.
        expected: u64,
        /// Unit: bytes.
        found: u64,
    },
    /// The map is damaged where something was promised, or of a newer version.
    #[error("cannot use {name} from byte {at} on")]
    Map {
        /// The map's name.
        name: String,
        /// Unit: bytes from the file's start.
        at: u64,
        /// What is wrong there.
        source: FormatError,
    },
    /// The data file ends before a block that the map says is there.
    #[error("cannot use {name}: it has {found} bytes, its map speaks of {expected}")]
    Data {
        /// The data file's name.
        name: String,
        /// Unit: bytes.
        expected: u64,
        /// Unit: bytes.
        found: u64,
    },
    /// A write would take more than it may; nothing was written.
    #[error("cannot write to {name}: its blocks would take {bytes} bytes, its quota is {quota}")]
    Quota {
        /// The data file's name.
        name: String,
        /// Unit: bytes.
        bytes: u64,
        /// Unit: bytes.
        quota: u64,
    },
    /// A flush failed before: open the clone anew.
    #[error(
        "{name} takes no more since a flush failed, and what it lost cannot be read: open it again"
    )]
    Poisoned {
        /// The data file's name.
        name: String,
    },
}

impl OverlayError {
    fn io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> OverlayError {
        move |source| OverlayError::Io { action, name: name.to_owned(), source }
    }
}

impl From<OverlayError> for io::Error {
    /// Keeps the kind, so that a full disk is one for the client too.
    fn from(error: OverlayError) -> io::Error {
        let kind = match &error {
            OverlayError::Io { source, .. } => source.kind(),
            OverlayError::Exists { .. } => io::ErrorKind::AlreadyExists,
            OverlayError::Quota { .. } => io::ErrorKind::QuotaExceeded,
            OverlayError::Size(_) | OverlayError::Base { .. } => io::ErrorKind::InvalidInput,
            OverlayError::Map { .. } | OverlayError::Data { .. } => io::ErrorKind::InvalidData,
            OverlayError::Poisoned { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// A writable clone, as large as its base. One at a time for each pair of files.
///
/// Shape:   as [`Disk`] says; besides, writes to different bytes of one block need no order.
/// Unit:    a clone owns blocks of [`BLOCK`] bytes, each from the first byte written into it.
/// Durable: what [`Disk`] says. What was not flushed is, after a power cut and sector by sector,
///          something that was written there or what it held before; never another block's
///          content, nor zeroes that nobody wrote.
/// Memory:  about two bits for each block that is owned, at least 1 KiB for each 16 MiB with any.
///
/// # Errors
/// Of the disk's calls: those of base and data file as they are; else an [`OverlayError`] within an
/// [`io::Error`] of a fitting kind. After an error a write may have changed any of its bytes in
/// blocks that were owned, and nothing elsewhere.
pub struct Overlay {
    base: SharedDisk,
    data: Box<dyn Disk>,
    /// Of the data file.
    name: String,
    /// Unit: bytes.
    len: u64,
    ownership: RwLock<Ownership>,
    turns: Turns,
    /// Held throughout a flush: one at a time.
    map: Mutex<MapFile>,
}

fn data_name(stem: &str) -> String {
    format!("{stem}.data")
}

fn map_name(stem: &str) -> String {
    format!("{stem}.map")
}

/// Removes a clone's files, also what a crash left of them. It is no error if there are none.
///
/// Durable: that there is no such clone, once this has returned.
pub fn remove(folder: &dyn Folder, stem: &str) -> Result<(), OverlayError> {
    let sync = || folder.sync().map_err(OverlayError::io("remove", stem));
    remove_any(folder, &map_name(stem))?;
    sync()?; // a map without its data would be damage
    remove_any(folder, &data_name(stem))?;
    remove_any(folder, &fresh_name(&map_name(stem)))?;
    sync()
}

impl Overlay {
    /// Begins a clone that equals its base.
    ///
    /// Shape:   `stem` is a file's name without ending, which the caller has checked.
    /// Durable: the clone, once this has returned. A crash before leaves none, or at most a data
    ///          file, which is replaced the next time.
    pub fn create(
        folder: SharedFolder,
        stem: &str,
        base: SharedDisk,
    ) -> Result<Overlay, OverlayError> {
        let (name, map) = (data_name(stem), map_name(stem));
        if base.len() > VOLUME_BYTES_MAX {
            return Err(OverlayError::Size(base.len()));
        }
        match folder.open(&map) {
            Ok(_) => return Err(OverlayError::Exists { name: map }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OverlayError::io("open", &map)(error)),
        }
        remove_any(&*folder, &name)?;
        let data = folder.create(&name).and_then(|data| folder.sync().map(|()| data));
        let data = data.map_err(OverlayError::io("create", &name))?;
        let map = MapFile::create(folder, map, base.len())?;
        Ok(Overlay::over(base, data, name, Ownership::default(), map))
    }

    /// Opens a clone. Reads its map as a whole, and writes nothing before the first flush.
    ///
    /// # Errors
    /// [`OverlayError::Base`] for a base of another length. [`OverlayError::Map`] and
    /// [`OverlayError::Data`] for damage: what was flushed is not all there.
    pub fn open(
        folder: SharedFolder,
        stem: &str,
        base: SharedDisk,
    ) -> Result<Overlay, OverlayError> {
        let name = data_name(stem);
        let data = folder.open(&name).map_err(OverlayError::io("open", &name))?;
        // A life in which a flush failed may have left there what was never stored.
        data.forget_cache();
        let (map, owned) = MapFile::open(folder, map_name(stem), base.len())?;
        let (expected, found) = ((owned.end() * BLOCK).min(base.len()), data.len());
        if found < expected {
            return Err(OverlayError::Data { name, expected, found });
        }
        Ok(Overlay::over(base, data, name, Ownership::of(owned), map))
    }

    fn over(
        base: SharedDisk,
        data: Box<dyn Disk>,
        name: String,
        ownership: Ownership,
        map: MapFile,
    ) -> Overlay {
        let (len, map) = (base.len(), Mutex::new(map));
        let (ownership, turns) = (RwLock::new(ownership), Turns::default());
        Overlay { base, data, name, len, ownership, turns, map }
    }

    /// What its own blocks take, if none were a hole. Unit: bytes, a multiple of [`BLOCK`].
    pub fn written_bytes(&self) -> u64 {
        self.ownership().owned().count() * BLOCK
    }

    /// Limits [`Overlay::written_bytes`] from now on; `None` for no limit. What is there stays, and
    /// can be written again, even if it is more. Zeroing counts as writing, except where the base
    /// is known to hold nothing. Unit: bytes.
    ///
    /// A write that would take more is refused with [`io::ErrorKind::QuotaExceeded`] and changes
    /// nothing.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.ownership_mut().set_quota(quota);
    }

    /// The runs of blocks that are its own, ascending. Writes may go on: a run that comes behind
    /// where this stands is seen. Unit: bytes of the clone.
    pub fn runs(&self) -> impl Iterator<Item = Span> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let end = self.len.div_ceil(BLOCK);
            let (first, end) = self.ownership().owned().runs(true, at, end).next()?;
            at = end;
            Some(self.bytes_of(first, end))
        })
    }

    /// The bytes of the blocks `first..end`; the clone's last block may be short.
    fn bytes_of(&self, first: u64, end: u64) -> Span {
        let offset = first * BLOCK;
        Span::new(offset, (end * BLOCK).min(self.len) - offset)
    }

    fn ownership(&self) -> RwLockReadGuard<'_, Ownership> {
        self.ownership.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ownership_mut(&self) -> RwLockWriteGuard<'_, Ownership> {
        self.ownership.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn poisoned(&self) -> io::Error {
        OverlayError::Poisoned { name: self.name.clone() }.into()
    }
}

#[cfg(test)]
mod tests;
