//! Packs: sealed files to which extents are appended. Which of them count, the catalogue says; a
//! pack that it does not know is what a crash left over.
//!
//! A pack is never appended to after it was reopened (R6): each writer begins packs of its own.

mod entry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgship_base::folder::{self, SharedFolder};
use vgship_base::ids::GroupId;
use zeroize::Zeroizing;

use crate::SnapshotError;
use crate::seal::{
    KeyId, KeyRing, Placed, Purpose, SealError, SealedReader, SealedWriter, key_of_file,
};

pub use entry::{EXTENT_BYTES_MAX, ExtentId, Packed};

/// A pack ends at this size. Unit: bytes. Small enough that rewriting one takes little, large
/// enough that ten terabytes are 40,000 files: 256 MiB.
pub const PACK_BYTES: u64 = 256 << 20;

/// Packs that are held open for reading.
const OPEN_MAX: usize = 64;

const ENDING: &str = ".pack";

/// Where an extent lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The pack's number.
    pub(crate) pack: u64,
    /// Where in it.
    pub(crate) placed: Placed,
    /// What it takes there. Unit: bytes.
    pub(crate) bytes: u32,
}

/// The packs of one group: where they lie, how they are sealed, which are being written.
pub(crate) struct Packs {
    folder: SharedFolder,
    keys: KeyRing,
    group: GroupId,
    state: Mutex<State>,
    pack_bytes: u64,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Packs that are appended to, and the key of each.
    writing: BTreeMap<u64, KeyId>,
    open: HashMap<u64, Arc<SealedReader>>,
    /// The keys of packs that were looked at.
    sealed: HashMap<u64, KeyId>,
}

fn name(number: u64) -> String {
    format!("{}{ENDING}", folder::digits_of(number))
}

fn number_of(name: &str) -> Option<u64> {
    folder::number_of(name.strip_suffix(ENDING)?)
}

fn failed(action: &'static str, number: u64) -> impl FnOnce(io::Error) -> SnapshotError {
    move |source| SnapshotError::Folder { action, name: name(number), source }
}

fn in_pack(number: u64) -> impl FnOnce(SealError) -> SnapshotError {
    move |source| SnapshotError::Pack { name: name(number), source }
}

impl Packs {
    /// The packs in `folder`. `known` are those that count; all others are removed.
    pub(crate) fn open(
        folder: SharedFolder,
        keys: KeyRing,
        group: GroupId,
        pack_bytes: u64,
        known: impl Fn(u64) -> bool,
    ) -> Result<Packs, SnapshotError> {
        let names = folder.list().map_err(failed("list", 0))?;
        let numbers: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        let next = folder::number_after(numbers.last().copied()).map_err(failed("continue", 0))?;
        for &number in numbers.iter().filter(|&&number| !known(number)) {
            folder.remove(&name(number)).map_err(failed("remove", number))?;
        }
        let state = Mutex::new(State { next, ..State::default() });
        Ok(Packs { folder, keys, group, state, pack_bytes })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What gives contents their ids, as long as the current key stays the same: under another one
    /// the same content has another id, so that nothing new refers to what an older key sealed.
    pub(crate) fn namer(&self) -> Namer {
        let key = self.keys.current();
        let id_key = key.derive(None, &[b"vgship extent id v1", &self.group.0]);
        Namer { key: key.id(), id_key }
    }

    /// Whether what it names is sealed with the key that is current now.
    pub(crate) fn is_current(&self, namer: &Namer) -> bool {
        namer.key == self.keys.current_id()
    }

    /// How much may still be written, as far as is known. Unit: bytes.
    pub(crate) fn available(&self) -> Result<u64, SnapshotError> {
        let failed =
            |source| SnapshotError::Folder { action: "look at", name: "the store".into(), source };
        self.folder.available().map_err(failed)
    }

    /// Whether somebody appends to it. To one of an older key nobody does any more.
    pub(crate) fn is_written(&self, number: u64) -> bool {
        self.state().writing.get(&number).is_some_and(|key| *key == self.keys.current_id())
    }

    /// Which key a pack needs.
    pub(crate) fn key_of(&self, number: u64) -> Result<KeyId, SnapshotError> {
        let known = self.state().sealed.get(&number).copied();
        if let Some(key) = known {
            return Ok(key);
        }
        let disk = self.folder.open(&name(number)).map_err(failed("open", number))?;
        let key = key_of_file(&*disk).map_err(in_pack(number))?;
        self.state().sealed.insert(number, key);
        Ok(key)
    }

    /// Whether a pack's header can be read, and there is the key that it names.
    pub(crate) fn can_open(&self, number: u64) -> bool {
        self.key_of(number).is_ok_and(|key| self.keys.holds(key))
    }

    /// Forgets what it holds open: what a destroyed key sealed is not read on.
    pub(crate) fn forget(&self) {
        self.state().open.clear();
    }

    fn reader(&self, number: u64) -> Result<Arc<SealedReader>, SnapshotError> {
        if let Some(known) = self.state().open.get(&number) {
            return Ok(Arc::clone(known));
        }
        let disk = self.folder.open(&name(number)).map_err(failed("open", number))?;
        let reader = SealedReader::open(disk, &self.keys, Purpose::Pack, self.group);
        let reader = Arc::new(reader.map_err(in_pack(number))?);
        let mut state = self.state();
        if state.open.len() >= OPEN_MAX {
            state.open.clear();
        }
        state.open.insert(number, Arc::clone(&reader));
        Ok(reader)
    }

    /// The extent that lies there, proven to be `id`.
    pub(crate) fn get(&self, id: ExtentId, stored: Stored) -> Result<Vec<u8>, SnapshotError> {
        let number = stored.pack;
        let body = self.reader(number)?.get(stored.placed).map_err(in_pack(number))?;
        match Packed::decode(&body) {
            Ok((found, content)) if found == id => Ok(content),
            _ => Err(SnapshotError::Content { name: name(number), id }),
        }
    }

    /// Removes a pack that nothing refers to. Those who read it now read on.
    pub(crate) fn remove(&self, number: u64) -> Result<(), SnapshotError> {
        {
            let mut state = self.state();
            state.open.remove(&number);
            state.sealed.remove(&number);
        }
        match self.folder.remove(&name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", number)(error))
            }
            _ => Ok(()),
        }
    }

    /// All extents of a pack, to find those that still count. What is not whole is passed over:
    /// whoever refers to it finds out.
    pub(crate) fn walk(&self, number: u64) -> Result<Walk, SnapshotError> {
        let disk = self.folder.open(&name(number)).map_err(failed("open", number))?;
        let reader = SealedReader::open(disk, &self.keys, Purpose::Pack, self.group);
        Ok(Walk { number, reader: reader.map_err(in_pack(number))? })
    }
}

/// Gives contents their ids.
pub(crate) struct Namer {
    key: KeyId,
    id_key: Zeroizing<[u8; 32]>,
}

impl Namer {
    /// The id that this content has.
    pub(crate) fn id_of(&self, content: &[u8]) -> ExtentId {
        ExtentId(*blake3::keyed_hash(&self.id_key, content).as_bytes())
    }
}

/// Goes through one pack.
pub(crate) struct Walk {
    number: u64,
    reader: SealedReader,
}

impl Walk {
    /// The next extent that is whole: its id, where it lies, and its content.
    pub(crate) fn next(&mut self) -> Result<Option<(ExtentId, Placed, Vec<u8>)>, SnapshotError> {
        use crate::seal::Step;
        loop {
            let frame = match self.reader.step().map_err(in_pack(self.number))? {
                Step::Frame(frame) => Some(frame),
                Step::End(_) => self.reader.resume().map_err(in_pack(self.number))?,
            };
            let Some(frame) = frame else { return Ok(None) };
            if let Ok((id, content)) = Packed::decode(&frame.body) {
                return Ok(Some((id, frame.placed, content)));
            }
        }
    }
}

/// Appends extents. Begins packs as it needs them. One owner.
pub(crate) struct PackWriter {
    packs: Arc<Packs>,
    current: Option<Current>,
}

struct Current {
    number: u64,
    writer: SealedWriter,
    named: bool,
}

impl PackWriter {
    pub(crate) fn new(packs: Arc<Packs>) -> PackWriter {
        PackWriter { packs, current: None }
    }

    fn begin(&mut self) -> Result<&mut Current, SnapshotError> {
        let key = self.packs.keys.current();
        let ends = |pack: &Current| {
            pack.writer.bytes() >= self.packs.pack_bytes || pack.writer.key() != key.id()
        };
        if self.current.as_ref().is_some_and(ends) {
            self.flush()?;
            self.give_up();
        }
        if self.current.is_none() {
            let number = {
                let mut state = self.packs.state();
                let number = state.next;
                state.next += 1;
                state.writing.insert(number, key.id());
                number
            };
            let Packs { folder, group, .. } = &*self.packs;
            let begun = folder.create(&name(number)).map_err(failed("create", number));
            let begun = begun.and_then(|disk| {
                SealedWriter::create(disk, &key, Purpose::Pack, *group).map_err(in_pack(number))
            });
            match begun {
                Ok(writer) => self.current = Some(Current { number, writer, named: false }),
                Err(error) => {
                    self.packs.state().writing.remove(&number);
                    return Err(error);
                }
            }
        }
        Ok(self.current.as_mut().expect("was begun if there was none"))
    }

    /// Appends an extent.
    ///
    /// Durable: not before [`PackWriter::flush`].
    ///
    /// # Errors
    /// After an error, call [`PackWriter::give_up`]: what was appended since the last flush counts
    /// for nothing.
    pub(crate) fn append(&mut self, packed: &Packed) -> Result<Stored, SnapshotError> {
        let pack = self.begin()?;
        let before = pack.writer.bytes();
        let appended = pack.writer.append(packed.encoded_len(), |out| packed.encode(out));
        let placed = appended.map_err(in_pack(pack.number))?;
        let bytes = u32::try_from(pack.writer.bytes() - before).expect("a frame is short");
        Ok(Stored { pack: pack.number, placed, bytes })
    }

    /// Makes all extents so far durable.
    pub(crate) fn flush(&mut self) -> Result<(), SnapshotError> {
        let Some(pack) = &mut self.current else { return Ok(()) };
        pack.writer.flush().map_err(in_pack(pack.number))?;
        if !pack.named {
            self.packs.folder.sync().map_err(failed("publish", pack.number))?;
            pack.named = true;
        }
        Ok(())
    }

    /// The pack being written and how far it reaches. Unit: bytes.
    pub(crate) fn current(&self) -> Option<(u64, u64)> {
        self.current.as_ref().map(|pack| (pack.number, pack.writer.bytes()))
    }

    /// Appends nothing more to the present pack.
    pub(crate) fn give_up(&mut self) {
        if let Some(pack) = self.current.take() {
            self.packs.state().writing.remove(&pack.number);
        }
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        self.give_up();
    }
}
