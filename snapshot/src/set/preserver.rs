//! The write side: takes snapshots, and preserves what they need before it is overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vgship_base::bytes::is_zero;
use vgship_base::disk::{Allocation, Disk};
use vgship_base::extent::{BitSet, Extent};
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::spread::spread;
use vgship_base::units::Span;

use super::{NewSnapshot, Snapshot, SnapshotSet};
use crate::SnapshotError;
use crate::catalog::{Before, Fresh};
use crate::packs::{ExtentId, Namer, PackWriter, Packed, Stored};

/// Extents that are read and packed at once. Unit: bytes. With their packed form, twice that is
/// held.
const AT_ONCE: u64 = 8 << 20;

/// Room that is left free: the catalogue needs some for every change. Unit: bytes.
const RESERVE: u64 = 16 << 20;

/// What preserving an extent takes beyond its content at most: a frame's parts, and rows of the
/// catalogue. Unit: bytes.
const OVERHEAD: u64 = 1 << 10;

/// The write side of a group's snapshots. One owner: whoever writes the volumes.
///
/// Durable: what [`Preserver::preserve`] was told of, before it returns; only then may it be
/// overwritten.
pub struct Preserver {
    set: Arc<SnapshotSet>,
    writer: PackWriter,
    workers: usize,
    /// Up to where the volumes hold the stream, counting what is being written.
    stands: Seq,
    /// The newest snapshot at or before that.
    era: Option<Seq>,
    /// The next snapshot behind that, taken in an earlier life: the stream is being replayed.
    ahead: Option<Seq>,
    /// What has a before-image of that era, or of a later one.
    kept: Vec<BitSet>,
    /// The changes of the set that this knows.
    known: u64,
    reserve: u64,
}

/// An extent that was read: its content's id, and its packed form unless that is stored already.
struct ReadExtent {
    extent: Extent,
    content: Option<(ExtentId, Option<Packed>)>,
}

impl Preserver {
    /// The write side of `set`, of which there may be one. The volumes hold the stream up to
    /// `stands`.
    pub fn new(
        set: Arc<SnapshotSet>,
        workers: usize,
        stands: Seq,
    ) -> Result<Preserver, SnapshotError> {
        let writer = PackWriter::new(Arc::clone(&set.packs));
        let mut preserver = Preserver {
            set,
            writer,
            workers: workers.max(1),
            stands,
            era: None,
            ahead: None,
            kept: Vec::new(),
            known: 0,
            reserve: RESERVE,
        };
        preserver.look()?;
        Ok(preserver)
    }

    /// The set that this is the write side of.
    pub const fn set(&self) -> &Arc<SnapshotSet> {
        &self.set
    }

    /// Sets how much room is left free on the store's disk. Unit: bytes.
    pub fn set_reserve(&mut self, bytes: u64) {
        self.reserve = bytes;
    }

    /// Finds the present era and what was preserved for it.
    fn look(&mut self) -> Result<(), SnapshotError> {
        self.known = self.set.changes.load(Ordering::SeqCst);
        let all = self.set.catalog.snapshots()?;
        self.era = all.iter().map(|it| it.seq).filter(|&seq| seq <= self.stands).max();
        self.ahead = all.iter().map(|it| it.seq).filter(|&seq| seq > self.stands).min();
        self.kept = self.set.changed_since(self.era.unwrap_or(Seq(u64::MAX)))?;
        Ok(())
    }

    /// Takes a snapshot of what the volumes hold now, which is everything up to its seq and nothing
    /// behind. A snapshot of that seq that was taken before, in whatever life, is not taken again,
    /// also when it was deleted since: then `None`.
    ///
    /// Durable: that it exists, once this has returned.
    ///
    /// # Errors
    /// [`SnapshotError::Named`] when another has its name: nothing was changed.
    pub fn take(&mut self, new: &NewSnapshot) -> Result<Option<Snapshot>, SnapshotError> {
        if new.seq > self.set.catalog.taken()? {
            return self.begin(new).map(Some);
        }
        self.stands = self.stands.max(new.seq);
        self.look()?;
        Ok(None)
    }

    /// The same where a snapshot of that very seq was taken, and deleted since: it is taken again.
    /// The caller has settled that seq: no record up to it is replayed any more.
    ///
    /// Durable: that it exists, once this has returned.
    ///
    /// # Errors
    /// [`SnapshotError::Named`] when another has its name, [`SnapshotError::Inconsistent`] when a
    /// later one was taken, of records that were lost since: nothing was changed.
    pub fn take_again(&mut self, new: &NewSnapshot) -> Result<Snapshot, SnapshotError> {
        if new.seq < self.set.catalog.taken()? {
            let why = "records that a snapshot was taken of were lost since; when the source has \
                       sent as many again one can be taken";
            return Err(SnapshotError::Inconsistent(why.into()));
        }
        self.begin(new)
    }

    /// Notes a snapshot, whose era then begins.
    fn begin(&mut self, new: &NewSnapshot) -> Result<Snapshot, SnapshotError> {
        let taken = self.note(new.clone())?;
        self.stands = self.stands.max(new.seq);
        // Of one that was deleted, before-images may be there still: they are its own again.
        self.look()?;
        Ok(taken)
    }

    fn note(&self, new: NewSnapshot) -> Result<Snapshot, SnapshotError> {
        let NewSnapshot { seq, name, origin, guards, quiesced, torn, clock, .. } = new;
        let NewSnapshot { taken, generation, point, .. } = new;
        let layout = self.set.layout.hash();
        let snapshot = Snapshot {
            seq,
            name,
            origin,
            pinned: false,
            guards,
            quiesced,
            torn,
            clock,
            taken,
            generation,
            point,
            layout,
        };
        let change = self.set.catalog.change()?;
        if let Some(other) = change.named(snapshot.name.as_str())? {
            let name = other.name.to_string();
            return Err(SnapshotError::Named { name, seq: other.seq });
        }
        change.put(&snapshot)?;
        change.took(seq, &self.set.layout)?;
        change.commit()?;
        Ok(snapshot)
    }

    /// A resync has ended at `end`: what guarded it is a snapshot like others. What guards a later
    /// one stays, of which an earlier life knew.
    pub fn release_guards(&mut self, end: Seq) -> Result<(), SnapshotError> {
        let all = self.set.catalog.snapshots()?;
        let guards: Vec<Snapshot> =
            all.into_iter().filter(|it| it.guards && it.seq < end).collect();
        if guards.is_empty() {
            return Ok(());
        }
        let change = self.set.catalog.change()?;
        for snapshot in guards {
            change.put(&Snapshot { guards: false, ..snapshot })?;
        }
        change.commit()
    }

    /// Forgets snapshots behind `last`: what they should hold was lost before it was durable. Which.
    pub fn drop_behind(&mut self, last: Seq) -> Result<Vec<Snapshot>, SnapshotError> {
        let all = self.set.catalog.snapshots()?;
        let lost: Vec<Snapshot> = all.into_iter().filter(|it| it.point > last).collect();
        if !lost.is_empty() {
            let change = self.set.catalog.change()?;
            lost.iter().try_for_each(|it| change.remove(it))?;
            change.commit()?;
            self.look()?;
        }
        Ok(lost)
    }

    /// Where records behind `after`, up to `upto`, must be parted: a snapshot that was taken in an
    /// earlier life stands there.
    pub fn border(&self, after: Seq, upto: Seq) -> Option<Seq> {
        self.ahead.filter(|&seq| after < seq && seq < upto)
    }

    /// The extents that are about to be overwritten by records behind `after`, up to `upto`, and
    /// that some snapshot still shares with the volumes.
    ///
    /// # Panics
    /// When a snapshot stands between `after` and `upto`: what is written together must have one
    /// era (R5).
    pub fn shared<'a>(
        &mut self,
        spans: impl Iterator<Item = (VolumeId, Span)> + 'a,
        after: Seq,
        upto: Seq,
    ) -> Result<Vec<Extent>, SnapshotError> {
        self.stands = self.stands.max(after);
        if self.known != self.set.changes.load(Ordering::SeqCst)
            || self.ahead.is_some_and(|seq| seq <= after)
        {
            self.look()?;
        }
        assert!(
            self.era.is_none_or(|era| era <= after),
            "a record is not preserved for its future"
        );
        self.stands = self.stands.max(upto);
        if self.era.is_none() {
            return Ok(Vec::new());
        }
        let mut found = BTreeSet::new();
        for (volume, span) in spans {
            let (first, end) = self.set.layout.extent.touched(span);
            let kept = &self.kept[volume.index()];
            let fresh = (first..end.min(kept.bits())).filter(|&index| !kept.contains(index));
            found.extend(fresh.map(|index| Extent { volume, index }));
        }
        Ok(found.into_iter().collect())
    }

    /// Preserves extents.
    ///
    /// Durable: their before-images, and that they exist, once this has returned.
    ///
    /// # Errors
    /// [`SnapshotError::NoRoom`] has changed nothing and may be tried again. After any other, open
    /// the set anew.
    pub fn preserve(&mut self, extents: &[Extent]) -> Result<(), SnapshotError> {
        let size = self.set.layout.extent.bytes();
        let per_turn = usize::try_from((AT_ONCE / size).max(1)).expect("few extents at once");
        for turn in extents.chunks(per_turn) {
            let needed = self.reserve + (size + OVERHEAD) * turn.len() as u64;
            let free = self.set.packs.available()?;
            if free < needed {
                return Err(SnapshotError::NoRoom { needed, free });
            }
            let done = self.preserve_turn(turn);
            if done.is_err() {
                self.writer.give_up();
            }
            done?;
        }
        Ok(())
    }

    fn preserve_turn(&mut self, extents: &[Extent]) -> Result<(), SnapshotError> {
        let Some(era) = self.era else { return Ok(()) };
        let namer = self.set.packs.namer();
        let read = spread(extents, self.workers, |&extent| self.read(&namer, extent))?;
        let change = self.set.catalog.change()?;
        // It is counted under the same lock what needs a key that is to go: from then on nothing new
        // refers to what such a key sealed.
        if !self.set.packs.is_current(&namer) {
            drop(change);
            return self.preserve_turn(extents);
        }
        // Snapshots are deleted under the same lock: under a deleted one nothing is noted, for no
        // sweep would find it.
        if !change.live()?.contains(&era) {
            drop(change);
            self.look()?;
            let still = |it: &&Extent| !self.kept[it.volume.index()].contains(it.index);
            let left: Vec<Extent> = extents.iter().filter(still).copied().collect();
            return self.preserve_turn(&left);
        }
        let mut stored: BTreeMap<ExtentId, Stored> = BTreeMap::new();
        let mut totals = BTreeMap::new();
        let mut fresh = Vec::with_capacity(read.len());
        for ReadExtent { extent, content } in read {
            let before = match content {
                None => Before::Zeroes,
                Some((id, packed)) => {
                    if !stored.contains_key(&id) && !change.knows(id)? {
                        let packed = match packed {
                            Some(packed) => packed,
                            // Known when it was looked up, swept away since.
                            None => Packed::new(id, &self.read_volume(extent)?),
                        };
                        stored.insert(id, self.writer.append(&packed)?);
                        totals.extend(self.writer.current());
                    }
                    Before::Content(id)
                }
            };
            fresh.push(Fresh { extent, before });
        }
        if !stored.is_empty() {
            self.writer.flush()?;
            totals.extend(self.writer.current());
        }
        change.preserve(era, &fresh, &stored, &totals)?;
        change.commit()?;
        for extent in extents {
            self.kept[extent.volume.index()].insert(extent.index);
        }
        Ok(())
    }

    fn read(&self, namer: &Namer, extent: Extent) -> Result<ReadExtent, SnapshotError> {
        let content = self.read_volume(extent)?;
        if is_zero(&content) {
            return Ok(ReadExtent { extent, content: None });
        }
        let id = namer.id_of(&content);
        let known = self.set.catalog.stored(id)?.is_some();
        let packed = (!known).then(|| Packed::new(id, &content));
        Ok(ReadExtent { extent, content: Some((id, packed)) })
    }

    fn read_volume(&self, extent: Extent) -> Result<Vec<u8>, SnapshotError> {
        let span = self.set.layout.span(extent).expect("extents come from spans of the layout");
        let failed = |source| SnapshotError::Volume { extent, source };
        let mut content = vec![0; usize::try_from(span.len).expect("an extent fits memory")];
        let disk: &dyn Disk = &*self.set.volumes[extent.volume.index()];
        let found = disk.allocation(span.offset, span.end()).map_err(failed)?;
        if found != (Allocation::Hole, span.end()) {
            disk.read_at(span.offset, &mut content).map_err(failed)?;
        }
        Ok(content)
    }
}
