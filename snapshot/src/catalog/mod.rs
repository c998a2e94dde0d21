//! The catalogue: which snapshots there are, which extents were preserved for them, and where.
//!
//! A before-image is kept under its *era*: the newest snapshot at the time. It holds for that
//! snapshot and for all older ones down to the next older before-image of the same extent. So a
//! snapshot at S reads, for each extent, the before-image of the first era at or after S, and where
//! there is none, the volume itself. Taking a snapshot begins an era and touches nothing else;
//! deleting one leaves before-images that no snapshot needs, which a sweep then removes.

mod backend;
mod change;
mod readers;
mod rows;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use vgship_base::extent::Extent;
use vgship_base::folder::{Folder, SharedFolder};
use vgship_base::ids::{Generation, GroupId, Name, Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::record::Hash;

use crate::SnapshotError;
use crate::packs::{ExtentId, Stored};
use crate::seal::{KeyId, KeyRing};
use backend::Backend;
use rows::Content;

pub use rows::Origin;

const NAME: &str = "catalogue";
const VERSION: u16 = 2;
/// Memory for the catalogue's pages. Unit: bytes.
const CACHE_BYTES: usize = 32 << 20;

const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
const SNAPSHOTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshots");
const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
const LAYOUTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("layouts");
const BEFORE: TableDefinition<'_, &[u8; 18], &[u8]> = TableDefinition::new("before");
const ERAS: TableDefinition<'_, &[u8; 18], ()> = TableDefinition::new("eras");
const CONTENTS: TableDefinition<'_, &[u8; 32], &[u8; 32]> = TableDefinition::new("contents");
const PACKS: TableDefinition<'_, u64, &[u8; 16]> = TableDefinition::new("packs");
const PRESERVED: TableDefinition<'_, u64, &[u8; 16]> = TableDefinition::new("preserved");
const SWEEPS: TableDefinition<'_, u64, u64> = TableDefinition::new("sweeps");
const HOLDS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("holds");
const MARKERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("markers");

/// A named place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Where.
    pub seq: Seq,
    /// Its name; the last of several of one name counts.
    pub name: Name,
    /// The source's wall clock at the last epoch end before it. Unit: microseconds since 1970.
    pub clock: u64,
    /// Whether applications were quiet.
    pub quiesced: bool,
}

/// A kept image of the whole group at one place in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own in its row")]
pub struct Snapshot {
    /// Names it, and orders it among the others: its place in the stream.
    pub seq: Seq,
    /// Its name.
    pub name: Name,
    /// Why it was taken.
    pub origin: Origin,
    /// Never deleted until a person unpins it.
    pub pinned: bool,
    /// A resync is under way for which it is the way back.
    pub guards: bool,
    /// Applications were quiet when it was taken.
    pub quiesced: bool,
    /// It holds no consistent point: a rollback began inside a resync, and comes back to it.
    pub torn: bool,
    /// The source's wall clock at the last epoch end before it. Unit: microseconds since 1970.
    pub clock: u64,
    /// This machine's wall clock when it was taken. Unit: microseconds since 1970.
    pub taken: u64,
    /// The history that it belongs to.
    pub generation: Generation,
    /// The last record that it holds; before [`Snapshot::seq`] when that is a resync's begin.
    pub point: Seq,
    /// Names the layout that it has.
    pub layout: Hash,
}

/// What an extent held before it was overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Zeroes.
    Zeroes,
    /// This content.
    Content(ExtentId),
}

/// A before-image to be noted.
pub(crate) struct Fresh {
    pub(crate) extent: Extent,
    pub(crate) before: Before,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Before-images that were looked at.
    pub seen: u64,
    /// Of these, how many no snapshot needed: they are gone.
    pub removed: u64,
    /// Whether nothing is left to be swept.
    pub done: bool,
}

/// The catalogue's database.
pub(crate) struct Catalog {
    database: Database,
}

fn failed<E: Into<redb::Error>>(action: &'static str) -> impl Fn(E) -> SnapshotError {
    move |error| SnapshotError::Catalog { action, source: Box::new(error.into()) }
}

fn damaged(what: &'static str) -> impl Fn(vgship_base::bytes::FormatError) -> SnapshotError {
    move |source| SnapshotError::Row { what, source }
}

const READ: &str = "read";
const WRITE: &str = "write";

impl Catalog {
    /// Opens the catalogue in `folder`, or makes an empty one.
    pub(crate) fn open(
        folder: &SharedFolder,
        group: GroupId,
        keys: &KeyRing,
    ) -> Result<Catalog, SnapshotError> {
        let found = exists(&**folder)?;
        if !found {
            Self::create(&**folder, group, keys.current_id())?;
        }
        let catalog = Catalog { database: database(&**folder, NAME)? };
        let had = catalog.expect(group, keys)?;
        if had != keys.current_id() {
            catalog.note_key(keys.current_id())?;
        }
        Ok(catalog)
    }

    /// Makes an empty catalogue, whole before it has its name.
    fn create(folder: &dyn Folder, group: GroupId, key: KeyId) -> Result<(), SnapshotError> {
        let fresh = format!("{NAME}.new");
        let io = |action| move |source| SnapshotError::Folder { action, name: NAME.into(), source };
        match folder.remove(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove the remains of")(error));
            }
            _ => {}
        }
        drop(folder.create(&fresh).map_err(io("create"))?);
        let catalog = Catalog { database: database(folder, &fresh)? };
        let write = catalog.write()?;
        {
            let mut about = write.open_table(ABOUT).map_err(failed(WRITE))?;
            let rows: [(&str, &[u8]); 4] = [
                ("version", &VERSION.to_be_bytes()),
                ("group", &group.0),
                ("key", &key.0),
                ("taken", &0u64.to_be_bytes()),
            ];
            for (word, value) in rows {
                about.insert(word, value).map_err(failed(WRITE))?;
            }
        }
        all_tables(&write)?;
        write.commit().map_err(failed(WRITE))?;
        drop(catalog);
        folder.rename(&fresh, NAME).and_then(|()| folder.sync()).map_err(io("publish"))
    }

    /// The key that was current when it was last opened. One that was never here is another
    /// store's.
    fn expect(&self, group: GroupId, keys: &KeyRing) -> Result<KeyId, SnapshotError> {
        let read = self.read()?;
        let about = read.open_table(ABOUT).map_err(failed(READ))?;
        let field = |word: &'static str| -> Result<Vec<u8>, SnapshotError> {
            let found = about.get(word).map_err(failed(READ))?;
            let foreign = || SnapshotError::Foreign(format!("lacks {word:?}: it is no store"));
            found.map(|it| it.value().to_vec()).ok_or_else(foreign)
        };
        let version = field("version")?;
        if version != VERSION.to_be_bytes() {
            let text = format!("is of version {version:02x?}, this program reads {VERSION}");
            return Err(SnapshotError::Foreign(text));
        }
        let found = field("group")?;
        if found != group.0 {
            let text = format!("belongs to group {found:02x?}, not {group}");
            return Err(SnapshotError::Foreign(text));
        }
        let found = KeyId(field("key")?.try_into().unwrap_or_default());
        match keys.knows(found) {
            true => Ok(found),
            false => Err(SnapshotError::other_key(found, keys.current_id())),
        }
    }

    fn note_key(&self, key: KeyId) -> Result<(), SnapshotError> {
        let write = self.write()?;
        {
            let mut about = write.open_table(ABOUT).map_err(failed(WRITE))?;
            about.insert("key", &key.0[..]).map_err(failed(WRITE))?;
        }
        write.commit().map_err(failed(WRITE))
    }

    fn read(&self) -> Result<redb::ReadTransaction, SnapshotError> {
        self.database.begin_read().map_err(failed(READ))
    }

    /// Begins a change. One at a time: others wait.
    pub(crate) fn write(&self) -> Result<WriteTransaction, SnapshotError> {
        let mut write = self.database.begin_write().map_err(failed(WRITE))?;
        // Else a start after a crash would read the whole catalogue before anything else.
        write.set_quick_repair(true);
        Ok(write)
    }

    /// All snapshots, ascending.
    pub(crate) fn snapshots(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let read = self.read()?;
        let table = read.open_table(SNAPSHOTS).map_err(failed(READ))?;
        let mut found = Vec::new();
        for row in table.iter().map_err(failed(READ))? {
            let (seq, bytes) = row.map_err(failed(READ))?;
            let snapshot = rows::decode_snapshot(Seq(seq.value()), bytes.value());
            found.push(snapshot.map_err(damaged("a snapshot"))?);
        }
        Ok(found)
    }

    /// All markers, ascending.
    pub(crate) fn markers(&self) -> Result<Vec<Noted>, SnapshotError> {
        let table = self.read()?.open_table(MARKERS).map_err(failed(READ))?;
        let mut found = Vec::new();
        for row in table.iter().map_err(failed(READ))? {
            let (seq, bytes) = row.map_err(failed(READ))?;
            let marker = rows::decode_marker(Seq(seq.value()), bytes.value());
            found.push(marker.map_err(damaged("a marker"))?);
        }
        Ok(found)
    }

    /// The layout of this hash.
    pub(crate) fn layout(&self, hash: &Hash) -> Result<Option<Layout>, SnapshotError> {
        let table = self.read()?.open_table(LAYOUTS).map_err(failed(READ))?;
        let found = table.get(hash).map_err(failed(READ))?;
        let decode = |bytes: &[u8]| Layout::decode(bytes).map_err(damaged("a layout"));
        found.map(|bytes| decode(bytes.value())).transpose()
    }

    /// The highest seq of which a snapshot was ever taken.
    pub(crate) fn taken(&self) -> Result<Seq, SnapshotError> {
        let table = self.read()?.open_table(ABOUT).map_err(failed(READ))?;
        let found = table.get("taken").map_err(failed(READ))?;
        let bytes = found.and_then(|it| it.value().first_chunk().copied()).unwrap_or_default();
        Ok(Seq(u64::from_be_bytes(bytes)))
    }

    /// For each extent of `first..end` that has one: the before-image that a snapshot at `seq`
    /// reads. Ascending.
    pub(crate) fn befores(
        &self,
        volume: VolumeId,
        first: u64,
        end: u64,
        seq: Seq,
    ) -> Result<Vec<(u64, Before)>, SnapshotError> {
        let table = self.read()?.open_table(BEFORE).map_err(failed(READ))?;
        let key = |index| rows::before_key(Extent { volume, index }, Seq::ZERO);
        let mut found: Vec<(u64, Before)> = Vec::new();
        for row in table.range::<&[u8; 18]>(&key(first)..&key(end)).map_err(failed(READ))? {
            let (key, value) = row.map_err(failed(READ))?;
            let (extent, era) = rows::before_of(key.value());
            if era >= seq && found.last().is_none_or(|(index, _)| *index != extent.index) {
                found.push((extent.index, before(value.value())?));
            }
        }
        Ok(found)
    }

    /// The first extent at or behind `first` that has a before-image which a snapshot at `seq`
    /// reads; none is looked for at or behind `end`.
    pub(crate) fn next_before(
        &self,
        volume: VolumeId,
        first: u64,
        end: u64,
        seq: Seq,
    ) -> Result<Option<u64>, SnapshotError> {
        let table = self.read()?.open_table(BEFORE).map_err(failed(READ))?;
        let key = |index| rows::before_key(Extent { volume, index }, Seq::ZERO);
        for row in table.range::<&[u8; 18]>(&key(first)..&key(end)).map_err(failed(READ))? {
            let (extent, era) = rows::before_of(row.map_err(failed(READ))?.0.value());
            if era >= seq {
                return Ok(Some(extent.index));
            }
        }
        Ok(None)
    }

    /// Hands out every extent that has a before-image of an era at or after `era`.
    pub(crate) fn preserved_since(
        &self,
        era: Seq,
        mut each: impl FnMut(Extent),
    ) -> Result<(), SnapshotError> {
        let table = self.read()?.open_table(ERAS).map_err(failed(READ))?;
        let from = rows::era_key(era, Extent { volume: VolumeId(0), index: 0 });
        for row in table.range::<&[u8; 18]>(&from..).map_err(failed(READ))? {
            each(rows::era_of(row.map_err(failed(READ))?.0.value()).1);
        }
        Ok(())
    }

    /// Where a content lies.
    pub(crate) fn stored(&self, id: ExtentId) -> Result<Option<Stored>, SnapshotError> {
        let table = self.read()?.open_table(CONTENTS).map_err(failed(READ))?;
        let found = table.get(&id.0).map_err(failed(READ))?;
        Ok(found.map(|row| Content::decode(row.value()).stored))
    }

    /// Extents and stored bytes that were preserved while a snapshot was the newest.
    pub(crate) fn preserved(&self, era: Seq) -> Result<(u64, u64), SnapshotError> {
        let table = self.read()?.open_table(PRESERVED).map_err(failed(READ))?;
        let found = table.get(era.0).map_err(failed(READ))?;
        Ok(found.map_or((0, 0), |row| rows::pair_of(row.value())))
    }

    /// All packs: number, live bytes, total bytes.
    pub(crate) fn packs(&self) -> Result<Vec<(u64, u64, u64)>, SnapshotError> {
        let table = self.read()?.open_table(PACKS).map_err(failed(READ))?;
        let mut found = Vec::new();
        for row in table.iter().map_err(failed(READ))? {
            let (number, value) = row.map_err(failed(READ))?;
            let (live, total) = rows::pair_of(value.value());
            found.push((number.value(), live, total));
        }
        Ok(found)
    }

    /// Who holds a snapshot.
    pub(crate) fn holders(&self, seq: Seq) -> Result<Vec<String>, SnapshotError> {
        let table = self.read()?.open_table(HOLDS).map_err(failed(READ))?;
        holders(&table, seq)
    }

    /// Whether something is left to be swept.
    pub(crate) fn needs_sweep(&self) -> Result<bool, SnapshotError> {
        let table = self.read()?.open_table(SWEEPS).map_err(failed(READ))?;
        Ok(table.first().map_err(failed(READ))?.is_some())
    }
}

fn before(value: &[u8]) -> Result<Before, SnapshotError> {
    let id = rows::id_of(value).map_err(damaged("a before-image"))?;
    Ok(id.map_or(Before::Zeroes, Before::Content))
}

fn holders(
    table: &impl ReadableTable<&'static [u8], ()>,
    seq: Seq,
) -> Result<Vec<String>, SnapshotError> {
    let (from, to) = (rows::hold_key(seq, ""), rows::hold_key(Seq(seq.0 + 1), ""));
    let mut found = Vec::new();
    for row in table.range::<&[u8]>(&*from..&*to).map_err(failed(READ))? {
        found.push(rows::holder_of(row.map_err(failed(READ))?.0.value()));
    }
    Ok(found)
}

fn exists(folder: &dyn Folder) -> Result<bool, SnapshotError> {
    let names = folder.list();
    let names = names.map_err(|source| SnapshotError::Folder {
        action: "look for",
        name: NAME.into(),
        source,
    })?;
    Ok(names.iter().any(|name| name == NAME))
}

fn database(folder: &dyn Folder, name: &str) -> Result<Database, SnapshotError> {
    let open = |source| SnapshotError::Folder { action: "open", name: name.to_owned(), source };
    let backend = folder.open(name).and_then(Backend::open).map_err(open)?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
    database.map_err(failed("open"))
}

fn all_tables(write: &WriteTransaction) -> Result<(), SnapshotError> {
    write.open_table(SNAPSHOTS).map_err(failed(WRITE))?;
    write.open_table(NAMES).map_err(failed(WRITE))?;
    write.open_table(LAYOUTS).map_err(failed(WRITE))?;
    write.open_table(BEFORE).map_err(failed(WRITE))?;
    write.open_table(ERAS).map_err(failed(WRITE))?;
    write.open_table(CONTENTS).map_err(failed(WRITE))?;
    write.open_table(PACKS).map_err(failed(WRITE))?;
    write.open_table(PRESERVED).map_err(failed(WRITE))?;
    write.open_table(SWEEPS).map_err(failed(WRITE))?;
    write.open_table(HOLDS).map_err(failed(WRITE))?;
    write.open_table(MARKERS).map_err(failed(WRITE))?;
    Ok(())
}
