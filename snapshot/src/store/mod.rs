//! The extent store: what extents held before they were overwritten, each content once.
//!
//! An extent's id is the keyed BLAKE3 of its content, so that nobody without the data key can tell
//! from an id what was stored. Extents are appended to sealed packs; the index lives in memory and
//! is rebuilt from the packs when the store is opened, which reads all of them.
//!
//! What was flushed is found again. A tail that was never flushed may be gone; a pack is never
//! appended to after it was reopened, a new one is begun. A pack gets its name at its first flush,
//! so a pack whose header is not whole was damaged, never torn.

mod index;
mod pack;

use std::collections::HashMap;
use std::io;

use thiserror::Error;
use vgship_base::folder::{self, SharedFolder};
use vgship_base::ids::GroupId;
use zeroize::Zeroizing;

use crate::seal::{DataKey, Purpose, SealError, SealedReader, SealedWriter};
use index::{Index, Scan};
use pack::Entry;

pub use pack::{EXTENT_BYTES_MAX, ExtentId};

/// A pack ends at this size. Unit: bytes. Small enough to be removed or rewritten as a whole one
/// day, large enough that a terabyte is a thousand files: 1 GiB.
pub const PACK_BYTES: u64 = 1 << 30;

/// Why the store cannot do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder refused.
    #[error("cannot {action} pack {name}")]
    Folder {
        /// A verb.
        action: &'static str,
        /// The file's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A pack refused, or is not ours, or is damaged.
    #[error("pack {name} cannot be used")]
    Pack {
        /// The file's name.
        name: String,
        /// Why.
        source: SealError,
    },
    /// An extent has 1 byte to [`EXTENT_BYTES_MAX`].
    #[error("an extent of {0} bytes cannot be stored: it has 1 to {EXTENT_BYTES_MAX}")]
    Length(usize),
    /// What is stored under an id is something else.
    #[error("pack {name} holds under {id} what is not that extent")]
    Content {
        /// The file's name.
        name: String,
        /// What was asked for.
        id: ExtentId,
    },
    /// A write or flush failed before: open the store anew.
    #[error("the store takes no more since a write or flush failed: open it again")]
    Poisoned,
}

/// Where a pack is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The pack's number.
    pub pack: u64,
    /// The first frame that is not there.
    pub frame: u64,
    /// How many are not there; `None` for all from `frame` on.
    pub frames: Option<u64>,
    /// Unit: bytes from the pack's start.
    pub offset: u64,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How many extents are there.
    pub extents: u64,
    /// Places where flushed extents are lost. A torn tail is none.
    pub damage: Vec<Damage>,
}

/// Extents by content. One owner.
pub struct Store {
    files: Files,
    id_key: Zeroizing<[u8; 32]>,
    index: Index,
    readers: HashMap<u64, SealedReader>,
    current: Option<Current>,
    next_number: u64,
    pack_bytes: u64,
    poisoned: bool,
}

/// Where packs lie and how they are sealed.
struct Files {
    folder: SharedFolder,
    key: DataKey,
    group: GroupId,
}

/// The pack that is being written.
struct Current {
    number: u64,
    writer: SealedWriter,
    /// How many of its frames are durable; it has its name when there are any.
    flushed: u64,
}

impl Files {
    fn failed(action: &'static str, number: u64) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Folder { action, name: pack::name(number), source }
    }

    fn open(&self, number: u64) -> Result<SealedReader, StoreError> {
        let disk = self.folder.open(&pack::name(number)).map_err(Files::failed("open", number))?;
        SealedReader::open(disk, &self.key, Purpose::Pack, self.group).map_err(in_pack(number))
    }

    /// Begins a pack under a passing name, which [`Files::publish`] takes away again.
    fn create(&self, number: u64) -> Result<(SealedWriter, SealedReader), StoreError> {
        let fresh = pack::fresh_name(number);
        let disk = self.folder.create(&fresh).map_err(Files::failed("create", number))?;
        let writer = SealedWriter::create(disk, &self.key, Purpose::Pack, self.group)
            .map_err(in_pack(number))?;
        let disk = self.folder.open(&fresh).map_err(Files::failed("open", number))?;
        let reader = SealedReader::open(disk, &self.key, Purpose::Pack, self.group)
            .map_err(in_pack(number))?;
        Ok((writer, reader))
    }

    fn publish(&self, number: u64) -> Result<(), StoreError> {
        self.folder
            .rename(&pack::fresh_name(number), &pack::name(number))
            .and_then(|()| self.folder.sync())
            .map_err(Files::failed("publish", number))
    }

    /// The numbers of all packs, ascending. Packs that were never published are removed.
    fn list(&self) -> Result<Vec<u64>, StoreError> {
        let names = self.folder.list().map_err(Files::failed("list", 0))?;
        for number in names.iter().filter_map(|name| pack::fresh_number_of(name)) {
            self.folder
                .remove(&pack::fresh_name(number))
                .map_err(Files::failed("remove the remains of", number))?;
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| pack::number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn in_pack(number: u64) -> impl FnOnce(SealError) -> StoreError {
    move |source| StoreError::Pack { name: pack::name(number), source }
}

impl Store {
    /// Opens the store in `folder`, or begins one. Reads and proves every pack.
    ///
    /// Durable: all extents that are found.
    ///
    /// # Errors
    /// The disk refused, or a pack is another group's or needs another key. Damage is no error,
    /// see [`Opened::damage`].
    pub fn open(
        folder: SharedFolder,
        key: &DataKey,
        group: GroupId,
    ) -> Result<(Store, Opened), StoreError> {
        let files = Files { folder, key: key.clone(), group };
        let id_key = key.derive(None, &[b"vgship extent id v1", &group.0]);
        let numbers = files.list()?;
        let highest = numbers.last().copied();
        let failed = Files::failed("continue", highest.unwrap_or(0));
        let next_number = folder::number_after(highest).map_err(failed)?;
        let mut scan = Scan::default();
        for &number in &numbers {
            match files.open(number) {
                Ok(reader) => scan.pack(number, reader)?,
                Err(StoreError::Pack { source, .. }) if source.is_damage() => scan.headless(number),
                Err(error) => return Err(error),
            }
        }
        let Scan { index, readers, damage, unproven, .. } = scan;
        let mut store = Store {
            files,
            id_key,
            index,
            readers,
            current: None,
            next_number,
            pack_bytes: PACK_BYTES,
            poisoned: false,
        };
        store.write_anew(&unproven)?;
        let extents = store.len();
        Ok((store, Opened { extents, damage }))
    }

    /// Sets the size at which a pack ends. Unit: bytes. Else it is [`PACK_BYTES`].
    pub fn set_pack_bytes(&mut self, bytes: u64) {
        self.pack_bytes = bytes;
    }

    /// The id that this content has, or would have.
    pub fn id_of(&self, content: &[u8]) -> ExtentId {
        ExtentId(*blake3::keyed_hash(&self.id_key, content).as_bytes())
    }

    /// Stores an extent, once.
    ///
    /// Durable: not before [`Store::flush`].
    ///
    /// # Errors
    /// [`StoreError::Length`] takes nothing. After any other the store takes no more.
    pub fn put(&mut self, content: &[u8]) -> Result<ExtentId, StoreError> {
        if !(1..=EXTENT_BYTES_MAX).contains(&content.len()) {
            return Err(StoreError::Length(content.len()));
        }
        self.refuse_when_poisoned()?;
        let id = self.id_of(content);
        if !self.index.contains(id) {
            let done = self.rotate().and_then(|()| self.append(id, content, 0));
            self.poisoned |= done.is_err();
            done?;
        }
        Ok(id)
    }

    /// Extents that no later one says were flushed may exist in the system's cache alone. The pack
    /// that they go to has its name only when all of them are durable, so each may say that.
    fn write_anew(&mut self, unproven: &[ExtentId]) -> Result<(), StoreError> {
        for &id in unproven {
            if let Some(content) = self.get(id)? {
                self.append(id, &content, unproven.len() as u64)?;
            }
        }
        self.flush()
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        if self.current.as_ref().is_some_and(|pack| pack.writer.bytes() >= self.pack_bytes) {
            self.flush()?;
            self.current = None;
        }
        Ok(())
    }

    fn append(&mut self, id: ExtentId, content: &[u8], promise: u64) -> Result<(), StoreError> {
        if self.current.is_none() {
            let number = self.next_number;
            self.next_number += 1;
            let (writer, reader) = self.files.create(number)?;
            self.readers.insert(number, reader);
            self.current = Some(Current { number, writer, flushed: 0 });
        }
        let pack = self.current.as_mut().expect("was begun if there was none");
        let flushed = pack.flushed.max(promise);
        let placed = pack
            .writer
            .append(pack::encoded_len(content), |out| pack::encode(flushed, id, content, out))
            .map_err(in_pack(pack.number))?;
        self.index.insert(id, pack.number, placed);
        Ok(())
    }

    /// Makes all extents so far durable.
    ///
    /// # Errors
    /// After any error nothing is known of extents since the last good flush; the store takes no
    /// more and must be opened again.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.refuse_when_poisoned()?;
        let done = self.flush_current();
        self.poisoned |= done.is_err();
        done
    }

    fn flush_current(&mut self) -> Result<(), StoreError> {
        let Some(pack) = &mut self.current else { return Ok(()) };
        if pack.flushed == pack.writer.frames() {
            return Ok(());
        }
        pack.writer.flush().map_err(in_pack(pack.number))?;
        if pack.flushed == 0 {
            self.files.publish(pack.number)?;
        }
        pack.flushed = pack.writer.frames();
        Ok(())
    }

    fn refuse_when_poisoned(&self) -> Result<(), StoreError> {
        if self.poisoned { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// The extent of an id, proven to be it; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Pack`] or [`StoreError::Content`] when it was damaged since the store was
    /// opened.
    pub fn get(&self, id: ExtentId) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((number, placed)) = self.index.get(id) else { return Ok(None) };
        let reader = self.readers.get(&number).expect("a pack in the index is open");
        let body = reader.get(placed).map_err(in_pack(number))?;
        let foreign = || StoreError::Content { name: pack::name(number), id };
        let entry = Entry::decode(&body).map_err(|_| foreign())?;
        if entry.id != id || self.id_of(entry.content) != id {
            return Err(foreign());
        }
        Ok(Some(entry.content.to_vec()))
    }

    /// Whether an extent is there.
    pub fn contains(&self, id: ExtentId) -> bool {
        self.index.contains(id)
    }

    /// All ids, in no order.
    pub fn list(&self) -> impl Iterator<Item = ExtentId> + '_ {
        self.index.ids()
    }

    /// How many extents are there.
    pub fn len(&self) -> u64 {
        self.index.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
