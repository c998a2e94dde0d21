//! The snapshots of one group: taken and kept by the [`Preserver`], which belongs to whoever writes
//! the volumes; listed, pinned, read and deleted through the [`SnapshotSet`], which everybody shares.

mod compact;
mod keys;
mod preserver;
mod view;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vgship_base::disk::SharedDisk;
use vgship_base::extent::BitSet;
use vgship_base::folder::SharedFolder;
use vgship_base::ids::{Generation, GroupId, Name, Seq};
use vgship_base::layout::Layout;

use crate::SnapshotError;
use crate::catalog::Catalog;
use crate::packs::{ExtentId, PACK_BYTES, Packs};
use crate::seal::KeyRing;

pub use crate::catalog::{Noted, Origin, Snapshot, Swept};
pub use compact::Compacted;
pub use keys::NeedsKey;
pub use preserver::Preserver;
pub use view::{View, ViewDisk};

#[cfg(test)]
mod tests;

/// Contents that were read last. One client that reads on in small pieces needs one.
const CACHED: usize = 32;

/// What a set of snapshots is made of.
pub struct Parts {
    /// Where the store lies.
    pub folder: SharedFolder,
    /// Of its packs.
    pub keys: KeyRing,
    /// Whose snapshots they are.
    pub group: GroupId,
    /// Of the volumes now.
    pub layout: Arc<Layout>,
    /// The volumes, in the layout's order.
    pub volumes: Vec<SharedDisk>,
    /// Size at which a pack ends, or [`PACK_BYTES`]. Unit: bytes.
    pub pack_bytes: Option<u64>,
}

/// A snapshot to be taken.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// Its place in the stream: behind all snapshots ever taken.
    pub seq: Seq,
    /// Its name.
    pub name: Name,
    /// Why.
    pub origin: Origin,
    /// Whether it is the way back of a resync that begins here.
    pub guards: bool,
    /// Whether applications were quiet.
    pub quiesced: bool,
    /// Whether this is no consistent point, see [`Snapshot::torn`].
    pub torn: bool,
    /// The source's wall clock at the last epoch end. Unit: microseconds since 1970.
    pub clock: u64,
    /// This machine's wall clock. Unit: microseconds since 1970.
    pub taken: u64,
    /// The history.
    pub generation: Generation,
    /// The last record that the volumes hold.
    pub point: Seq,
}

/// How much room snapshots take. Unit: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all packs on disk.
    pub total: u64,
    /// Of that, what some snapshot needs.
    pub live: u64,
}

/// A snapshot with what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// It.
    pub snapshot: Snapshot,
    /// Extents that were preserved while it was the newest.
    pub extents: u64,
    /// What they take. Unit: bytes.
    pub bytes: u64,
    /// Who holds it: environments, exports, templates being made.
    pub holders: Vec<String>,
}

/// The snapshots of one group.
pub struct SnapshotSet {
    catalog: Catalog,
    packs: Arc<Packs>,
    layout: Arc<Layout>,
    volumes: Vec<SharedDisk>,
    /// Counts changes of which snapshots there are, so that the preserver looks again.
    changes: AtomicU64,
    /// Up to where the volumes are durable.
    settled: AtomicU64,
    cache: Mutex<Vec<(ExtentId, Arc<Vec<u8>>)>>,
}

impl SnapshotSet {
    /// Opens the store in its folder, or begins one.
    ///
    /// # Errors
    /// The disk refused, or the store is another group's, or needs another key.
    pub fn open(parts: Parts) -> Result<Arc<SnapshotSet>, SnapshotError> {
        let Parts { folder, keys, group, layout, volumes, pack_bytes } = parts;
        assert_eq!(layout.volumes.len(), volumes.len(), "a disk for every volume");
        let catalog = Catalog::open(&folder, group, &keys)?;
        let known: std::collections::BTreeSet<u64> =
            catalog.packs()?.into_iter().map(|(number, ..)| number).collect();
        let pack_bytes = pack_bytes.unwrap_or(PACK_BYTES);
        let packs = Packs::open(folder, keys, group, pack_bytes, |it| known.contains(&it))?;
        let set = SnapshotSet {
            catalog,
            packs: Arc::new(packs),
            layout,
            volumes,
            changes: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            cache: Mutex::default(),
        };
        set.remove_empty_packs()?;
        Ok(Arc::new(set))
    }

    /// All snapshots, ascending.
    pub fn list(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        self.catalog.snapshots()
    }

    /// All snapshots that hold a consistent point, ascending.
    pub fn points(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let mut all = self.list()?;
        all.retain(|it| !it.torn);
        Ok(all)
    }

    /// All snapshots with what they cost, ascending.
    pub fn list_costs(&self) -> Result<Vec<Listed>, SnapshotError> {
        let cost = |snapshot: Snapshot| {
            let (extents, bytes) = self.catalog.preserved(snapshot.seq)?;
            let holders = self.catalog.holders(snapshot.seq)?;
            Ok(Listed { snapshot, extents, bytes, holders })
        };
        self.list()?.into_iter().map(cost).collect()
    }

    /// The snapshot of this name.
    pub fn find(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        let found = self.list()?.into_iter().find(|it| it.name.as_str() == name);
        found.ok_or_else(|| SnapshotError::Unknown(name.to_owned()))
    }

    /// All markers that are remembered, ascending.
    pub fn markers(&self) -> Result<Vec<Noted>, SnapshotError> {
        self.catalog.markers()
    }

    /// Forgets the markers before `floor`: history does not reach back to them.
    pub fn forget_markers(&self, floor: Seq) -> Result<(), SnapshotError> {
        if self.catalog.markers()?.first().is_none_or(|it| it.seq >= floor) {
            return Ok(());
        }
        let change = self.catalog.change()?;
        change.forget_markers(floor)?;
        change.commit()
    }

    /// Remembers a marker, once.
    pub fn mark(&self, marker: &Noted) -> Result<(), SnapshotError> {
        let change = self.catalog.change()?;
        change.mark(marker)?;
        change.commit()
    }

    /// Gives a snapshot another name, for good: it is then one that a person asked for.
    ///
    /// # Errors
    /// [`SnapshotError::Named`] when another has that name: nothing was changed.
    pub fn adopt(&self, name: &str, as_name: Name) -> Result<Snapshot, SnapshotError> {
        let change = self.catalog.change()?;
        let unknown = || SnapshotError::Unknown(name.to_owned());
        let found = change.named(name)?.ok_or_else(unknown)?;
        if let Some(other) = change.named(as_name.as_str())? {
            return Err(SnapshotError::Named { name: other.name.to_string(), seq: other.seq });
        }
        let adopted = Snapshot { name: as_name, origin: Origin::Manual, ..found };
        change.rename(name, &adopted)?;
        change.commit()?;
        Ok(adopted)
    }

    /// The highest seq of which a snapshot was ever taken.
    pub fn taken(&self) -> Result<Seq, SnapshotError> {
        self.catalog.taken()
    }

    /// The layout that a snapshot has.
    pub fn layout_of(&self, snapshot: &Snapshot) -> Result<Layout, SnapshotError> {
        let found = self.catalog.layout(&snapshot.layout)?;
        found.ok_or_else(|| SnapshotError::Foreign("lacks a layout that it names".into()))
    }

    /// Deletes a snapshot. Its room comes back by [`SnapshotSet::sweep`].
    ///
    /// Durable: that it is gone, once this has returned.
    ///
    /// # Errors
    /// [`SnapshotError::Kept`] when it is pinned, guards a resync or is held: nothing was changed.
    pub fn delete(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        let change = self.catalog.change()?;
        let unknown = || SnapshotError::Unknown(name.to_owned());
        let found = change.named(name)?.ok_or_else(unknown)?;
        let kept = |why: String| Err(SnapshotError::Kept { name: name.to_owned(), why });
        if found.guards {
            return kept("it is the way back of the resync under way".into());
        }
        if found.pinned {
            return kept("it is pinned; unpin it first".into());
        }
        let holders = change.holders(found.seq)?;
        if !holders.is_empty() {
            return kept(format!("it is used by {}", holders.join(", ")));
        }
        change.remove(&found)?;
        change.commit()?;
        self.changes.fetch_add(1, Ordering::SeqCst);
        Ok(found)
    }

    /// Pins a snapshot, or unpins it.
    ///
    /// Durable: once this has returned.
    pub fn pin(&self, name: &str, pinned: bool) -> Result<Snapshot, SnapshotError> {
        let change = self.catalog.change()?;
        let unknown = || SnapshotError::Unknown(name.to_owned());
        let found = Snapshot { pinned, ..change.named(name)?.ok_or_else(unknown)? };
        change.put(&found)?;
        change.commit()?;
        Ok(found)
    }

    /// Applications were not quiet there after all.
    ///
    /// Durable: once this has returned.
    pub fn disturb(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        let change = self.catalog.change()?;
        let unknown = || SnapshotError::Unknown(name.to_owned());
        let found = Snapshot { quiesced: false, ..change.named(name)?.ok_or_else(unknown)? };
        change.put(&found)?;
        change.commit()?;
        Ok(found)
    }

    /// Keeps a snapshot from being deleted for as long as `holder` needs it, over restarts.
    ///
    /// Durable: once this has returned.
    pub fn hold(&self, name: &str, holder: &str) -> Result<Snapshot, SnapshotError> {
        let change = self.catalog.change()?;
        let unknown = || SnapshotError::Unknown(name.to_owned());
        let found = change.named(name)?.ok_or_else(unknown)?;
        change.hold(found.seq, holder, true)?;
        change.commit()?;
        Ok(found)
    }

    /// `holder` does not need the snapshot of `seq` any more.
    pub fn release(&self, seq: Seq, holder: &str) -> Result<(), SnapshotError> {
        let change = self.catalog.change()?;
        change.hold(seq, holder, false)?;
        change.commit()
    }

    /// The extents that may have been written since the snapshot of `seq` was taken, volume by
    /// volume. All others hold what they held then.
    pub fn changed_since(&self, seq: Seq) -> Result<Vec<BitSet>, SnapshotError> {
        let volumes = self.layout.volumes.iter();
        let mut changed: Vec<BitSet> =
            volumes.map(|it| BitSet::new(self.layout.extent.count(it.bytes))).collect();
        self.catalog.preserved_since(seq, |extent| {
            // An extent that the volumes no longer have is not written any more.
            if let Some(set) = changed.get_mut(extent.volume.index())
                && extent.index < set.bits()
            {
                set.insert(extent.index);
            }
        })?;
        Ok(changed)
    }

    /// The volumes hold everything up to `seq` durably: snapshots up to there can be read.
    pub fn settle(&self, seq: Seq) {
        self.settled.fetch_max(seq.0, Ordering::SeqCst);
    }

    /// Whether a snapshot can be read.
    pub fn is_settled(&self, snapshot: &Snapshot) -> bool {
        snapshot.point.0 <= self.settled.load(Ordering::SeqCst)
    }

    /// Opens a snapshot for reading. Whoever keeps it open also holds it.
    ///
    /// # Errors
    /// [`SnapshotError::Unsettled`] when its volumes are still being written.
    pub fn view(self: &Arc<Self>, snapshot: &Snapshot) -> Result<View, SnapshotError> {
        if !self.is_settled(snapshot) {
            return Err(SnapshotError::Unsettled(snapshot.name.to_string()));
        }
        Ok(View::new(Arc::clone(self), snapshot.seq, Arc::new(self.layout_of(snapshot)?)))
    }

    /// The same without a question: of a snapshot that the caller holds and that could be read
    /// before.
    pub fn view_at(self: &Arc<Self>, seq: Seq, layout: Arc<Layout>) -> View {
        View::new(Arc::clone(self), seq, layout)
    }

    /// How much more the store's disk has, as far as is known. Unit: bytes.
    pub fn available(&self) -> Result<u64, SnapshotError> {
        self.packs.available()
    }

    /// Looks at up to `limit` before-images of deleted snapshots and removes those that no other
    /// snapshot needs, with the packs that are then empty. To be called until it is done.
    pub fn sweep(&self, limit: usize) -> Result<Swept, SnapshotError> {
        if !self.catalog.needs_sweep()? {
            return Ok(Swept { done: true, ..Swept::default() });
        }
        let change = self.catalog.change()?;
        let swept = change.sweep(limit.max(2))?;
        change.commit()?;
        if swept.removed > 0 {
            self.remove_empty_packs()?;
        }
        Ok(swept)
    }

    /// Removes packs in which nothing counts. First the catalogue forgets them, so that a crash
    /// leaves a file that nobody knows, which opening removes.
    fn remove_empty_packs(&self) -> Result<(), SnapshotError> {
        let empty = self
            .catalog
            .packs()?
            .into_iter()
            .any(|(number, live, _)| live == 0 && !self.packs.is_written(number));
        if !empty {
            return Ok(());
        }
        let change = self.catalog.change()?;
        let gone = change.forget_packs(|number| self.packs.is_written(number))?;
        change.commit()?;
        gone.into_iter().try_for_each(|number| self.packs.remove(number))
    }

    /// How much room snapshots take.
    pub fn usage(&self) -> Result<Usage, SnapshotError> {
        let add = |sum: Usage, (_, live, total): (u64, u64, u64)| Usage {
            live: sum.live + live,
            total: sum.total + total,
        };
        Ok(self.catalog.packs()?.into_iter().fold(Usage::default(), add))
    }

    /// The content of an id, which the catalogue named a moment ago. `None` when it does not any
    /// more.
    fn content(&self, id: ExtentId) -> Result<Option<Arc<Vec<u8>>>, SnapshotError> {
        let cached = |cache: &[(ExtentId, Arc<Vec<u8>>)]| {
            cache.iter().find(|(known, _)| *known == id).map(|(_, content)| Arc::clone(content))
        };
        if let Some(found) = cached(&self.cache.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(Some(found));
        }
        let Some(stored) = self.catalog.stored(id)? else { return Ok(None) };
        let content = match self.packs.get(id, stored) {
            Ok(content) => Arc::new(content),
            // Moved meanwhile: it is elsewhere, or nowhere.
            Err(_) if self.catalog.stored(id)? != Some(stored) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            cache.remove(0);
        }
        cache.push((id, Arc::clone(&content)));
        Ok(Some(content))
    }
}
