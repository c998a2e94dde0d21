//! A change of the catalogue: all of it, or nothing, once it is committed.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableTable, Table, WriteTransaction};
use vgship_base::extent::Extent;
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::layout::Layout;

use super::rows::{self, Content};
use super::{
    ABOUT, BEFORE, Before, CONTENTS, ERAS, Fresh, HOLDS, LAYOUTS, MARKERS, NAMES, Noted, PACKS,
    PRESERVED, SNAPSHOTS, SWEEPS, Snapshot, Swept, WRITE, damaged, failed, holders,
};
use crate::SnapshotError;
use crate::packs::{ExtentId, Stored};

/// A change under way. Dropped without [`Change::commit`], it changes nothing.
pub(crate) struct Change(WriteTransaction);

impl super::Catalog {
    /// Begins a change. One at a time: others wait.
    pub(crate) fn change(&self) -> Result<Change, SnapshotError> {
        self.write().map(Change)
    }
}

impl Change {
    /// Durable: all of it, once this has returned.
    pub(crate) fn commit(self) -> Result<(), SnapshotError> {
        self.0.commit().map_err(failed(WRITE))
    }

    /// The seqs of all snapshots.
    pub(crate) fn live(&self) -> Result<BTreeSet<Seq>, SnapshotError> {
        let table = self.0.open_table(SNAPSHOTS).map_err(failed(WRITE))?;
        let mut live = BTreeSet::new();
        for row in table.iter().map_err(failed(WRITE))? {
            live.insert(Seq(row.map_err(failed(WRITE))?.0.value()));
        }
        Ok(live)
    }

    /// The snapshot of this name.
    pub(crate) fn named(&self, name: &str) -> Result<Option<Snapshot>, SnapshotError> {
        let names = self.0.open_table(NAMES).map_err(failed(WRITE))?;
        let Some(seq) = names.get(name).map_err(failed(WRITE))?.map(|it| it.value()) else {
            return Ok(None);
        };
        let table = self.0.open_table(SNAPSHOTS).map_err(failed(WRITE))?;
        let found = table.get(seq).map_err(failed(WRITE))?;
        let decode = |bytes: &[u8]| rows::decode_snapshot(Seq(seq), bytes);
        found.map(|it| decode(it.value()).map_err(damaged("a snapshot"))).transpose()
    }

    /// Who holds a snapshot.
    pub(crate) fn holders(&self, seq: Seq) -> Result<Vec<String>, SnapshotError> {
        holders(&self.0.open_table(HOLDS).map_err(failed(WRITE))?, seq)
    }

    /// Notes that `holder` needs a snapshot, or does not any more.
    pub(crate) fn hold(&self, seq: Seq, holder: &str, holds: bool) -> Result<(), SnapshotError> {
        let mut table = self.0.open_table(HOLDS).map_err(failed(WRITE))?;
        let key = rows::hold_key(seq, holder);
        match holds {
            true => table.insert(&*key, ()).map(drop).map_err(failed(WRITE)),
            false => table.remove(&*key).map(drop).map_err(failed(WRITE)),
        }
    }

    /// Writes a snapshot's row, new or changed.
    pub(crate) fn put(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let mut table = self.0.open_table(SNAPSHOTS).map_err(failed(WRITE))?;
        let row = rows::encode_snapshot(snapshot);
        table.insert(snapshot.seq.0, &*row).map_err(failed(WRITE))?;
        let mut names = self.0.open_table(NAMES).map_err(failed(WRITE))?;
        names.insert(snapshot.name.as_str(), snapshot.seq.0).map_err(failed(WRITE))?;
        Ok(())
    }

    /// Writes a snapshot's row that had another name.
    pub(crate) fn rename(&self, old: &str, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        {
            let mut names = self.0.open_table(NAMES).map_err(failed(WRITE))?;
            names.remove(old).map_err(failed(WRITE))?;
        }
        self.put(snapshot)
    }

    /// Remembers a layout, and that a snapshot of `seq` was taken.
    pub(crate) fn took(&self, seq: Seq, layout: &Layout) -> Result<(), SnapshotError> {
        let mut layouts = self.0.open_table(LAYOUTS).map_err(failed(WRITE))?;
        layouts.insert(&layout.hash(), &*layout.encode()).map_err(failed(WRITE))?;
        let mut about = self.0.open_table(ABOUT).map_err(failed(WRITE))?;
        about.insert("taken", &seq.0.to_be_bytes()[..]).map_err(failed(WRITE))?;
        Ok(())
    }

    /// Removes a snapshot's row; what only it needed is swept later.
    pub(crate) fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let next = self.live()?.range(Seq(snapshot.seq.0 + 1)..).next().map_or(u64::MAX, |it| it.0);
        let mut table = self.0.open_table(SNAPSHOTS).map_err(failed(WRITE))?;
        table.remove(snapshot.seq.0).map_err(failed(WRITE))?;
        let mut names = self.0.open_table(NAMES).map_err(failed(WRITE))?;
        names.remove(snapshot.name.as_str()).map_err(failed(WRITE))?;
        let mut sweeps = self.0.open_table(SWEEPS).map_err(failed(WRITE))?;
        let known = sweeps.get(snapshot.seq.0).map_err(failed(WRITE))?.map_or(0, |it| it.value());
        sweeps.insert(snapshot.seq.0, next.max(known)).map_err(failed(WRITE))?;
        Ok(())
    }

    /// Remembers a marker.
    pub(crate) fn mark(&self, marker: &Noted) -> Result<(), SnapshotError> {
        let mut table = self.0.open_table(MARKERS).map_err(failed(WRITE))?;
        let row = rows::encode_marker(marker);
        table.insert(marker.seq.0, &*row).map(drop).map_err(failed(WRITE))
    }

    /// Forgets the markers before `floor`; how many there were.
    pub(crate) fn forget_markers(&self, floor: Seq) -> Result<usize, SnapshotError> {
        let mut table = self.0.open_table(MARKERS).map_err(failed(WRITE))?;
        let mut gone = Vec::new();
        for row in table.range(..floor.0).map_err(failed(WRITE))? {
            gone.push(row.map_err(failed(WRITE))?.0.value());
        }
        for seq in &gone {
            table.remove(seq).map_err(failed(WRITE))?;
        }
        Ok(gone.len())
    }

    /// Whether a content is there already.
    pub(crate) fn knows(&self, id: ExtentId) -> Result<bool, SnapshotError> {
        let table = self.0.open_table(CONTENTS).map_err(failed(WRITE))?;
        Ok(table.get(&id.0).map_err(failed(WRITE))?.is_some())
    }

    /// Notes before-images of an era. `stored` are the contents among them that are new, `totals`
    /// how far the packs now reach into which they were written.
    pub(crate) fn preserve(
        &self,
        era: Seq,
        fresh: &[Fresh],
        stored: &BTreeMap<ExtentId, Stored>,
        totals: &BTreeMap<u64, u64>,
    ) -> Result<(), SnapshotError> {
        let mut before = self.0.open_table(BEFORE).map_err(failed(WRITE))?;
        let mut eras = self.0.open_table(ERAS).map_err(failed(WRITE))?;
        let mut contents = self.0.open_table(CONTENTS).map_err(failed(WRITE))?;
        for it in fresh {
            let id = match &it.before {
                Before::Zeroes => &[][..],
                Before::Content(id) => &id.0,
            };
            before.insert(&rows::before_key(it.extent, era), id).map_err(failed(WRITE))?;
            eras.insert(&rows::era_key(era, it.extent), ()).map_err(failed(WRITE))?;
            if let Before::Content(id) = it.before {
                refer(&mut contents, it.extent, id, stored.get(&id))?;
            }
        }
        self.count(era, fresh.len() as u64, stored.values().map(|it| u64::from(it.bytes)).sum())?;
        let mut packs = self.0.open_table(PACKS).map_err(failed(WRITE))?;
        for place in stored.values() {
            live(&mut packs, place.pack, i64::from(place.bytes), None)?;
        }
        for (&pack, &total) in totals {
            live(&mut packs, pack, 0, Some(total))?;
        }
        Ok(())
    }

    fn count(&self, era: Seq, extents: u64, bytes: u64) -> Result<(), SnapshotError> {
        let mut table = self.0.open_table(PRESERVED).map_err(failed(WRITE))?;
        let had =
            table.get(era.0).map_err(failed(WRITE))?.map_or((0, 0), |it| rows::pair_of(it.value()));
        let now = rows::pair(had.0 + extents, had.1 + bytes);
        table.insert(era.0, &now).map(drop).map_err(failed(WRITE))
    }

    /// Looks at up to `limit` before-images of eras whose snapshots were deleted and removes those
    /// that no snapshot needs.
    pub(crate) fn sweep(&self, limit: usize) -> Result<Swept, SnapshotError> {
        let mut sweeps = self.0.open_table(SWEEPS).map_err(failed(WRITE))?;
        let first = sweeps.first().map_err(failed(WRITE))?;
        let first = first.map(|(from, to)| (from.value(), to.value()));
        let Some((from, to)) = first else { return Ok(Swept { done: true, ..Swept::default() }) };
        let live = self.live()?;
        let mut eras = self.0.open_table(ERAS).map_err(failed(WRITE))?;
        let mut before = self.0.open_table(BEFORE).map_err(failed(WRITE))?;
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        let origin = Extent { volume: VolumeId(0), index: 0 };
        // Where an earlier sweep of this range stopped, it left the key itself in `sweeps`' place:
        // what was looked at and kept is looked at again, which costs time and changes nothing.
        let (start, end) = (self.cursor(from)?, rows::era_key(Seq(to), origin));
        for row in eras.range::<&[u8; 18]>(&start..&end).map_err(failed(WRITE))?.take(limit) {
            seen.push(*row.map_err(failed(WRITE))?.0.value());
        }
        for key in &seen {
            let (era, extent) = rows::era_of(key);
            if !needed(&before, &live, era, extent)? {
                gone.push((era, extent));
            }
        }
        self.discard(&mut before, &mut eras, &gone)?;
        let done = seen.len() < limit;
        if done {
            sweeps.remove(from).map_err(failed(WRITE))?;
        }
        self.set_cursor(from, seen.last().filter(|_| !done))?;
        let left = sweeps.first().map_err(failed(WRITE))?.is_some();
        Ok(Swept { seen: seen.len() as u64, removed: gone.len() as u64, done: !left })
    }

    /// Where the sweep of the range from `from` goes on.
    fn cursor(&self, from: u64) -> Result<[u8; 18], SnapshotError> {
        let about = self.0.open_table(ABOUT).map_err(failed(WRITE))?;
        let found = about.get("cursor").map_err(failed(WRITE))?;
        let stored = found.and_then(|it| it.value().first_chunk::<26>().copied());
        let origin = rows::era_key(Seq(from), Extent { volume: VolumeId(0), index: 0 });
        let Some((range, key)) = stored.as_ref().and_then(|it| it.split_first_chunk::<8>()) else {
            return Ok(origin);
        };
        match (u64::from_be_bytes(*range) == from, key.first_chunk()) {
            (true, Some(key)) => Ok(*key),
            _ => Ok(origin),
        }
    }

    fn set_cursor(&self, from: u64, key: Option<&[u8; 18]>) -> Result<(), SnapshotError> {
        let mut about = self.0.open_table(ABOUT).map_err(failed(WRITE))?;
        match key {
            Some(key) => {
                let row = [&from.to_be_bytes()[..], key].concat();
                about.insert("cursor", &*row).map(drop).map_err(failed(WRITE))
            }
            None => about.remove("cursor").map(drop).map_err(failed(WRITE)),
        }
    }

    fn discard(
        &self,
        before: &mut Table<'_, &'static [u8; 18], &'static [u8]>,
        eras: &mut Table<'_, &'static [u8; 18], ()>,
        gone: &[(Seq, Extent)],
    ) -> Result<(), SnapshotError> {
        let mut contents = self.0.open_table(CONTENTS).map_err(failed(WRITE))?;
        let mut packs = self.0.open_table(PACKS).map_err(failed(WRITE))?;
        let mut counts: BTreeMap<Seq, (u64, u64)> = BTreeMap::new();
        for &(era, extent) in gone {
            eras.remove(&rows::era_key(era, extent)).map_err(failed(WRITE))?;
            let row = before.remove(&rows::before_key(extent, era)).map_err(failed(WRITE))?;
            let found = row.map(|row| super::before(row.value())).transpose()?;
            let count = counts.entry(era).or_default();
            count.0 += 1;
            if let Some(Before::Content(id)) = found
                && let Some(stored) = unrefer(&mut contents, extent, id)?
            {
                live(&mut packs, stored.pack, -i64::from(stored.bytes), None)?;
                count.1 += u64::from(stored.bytes);
            }
        }
        let mut preserved = self.0.open_table(PRESERVED).map_err(failed(WRITE))?;
        for (era, (extents, bytes)) in counts {
            let had = preserved.get(era.0).map_err(failed(WRITE))?;
            let (had_extents, had_bytes) = had.map_or((0, 0), |it| rows::pair_of(it.value()));
            match had_extents.saturating_sub(extents) {
                0 => preserved.remove(era.0).map(drop).map_err(failed(WRITE))?,
                left => {
                    let row = rows::pair(left, had_bytes.saturating_sub(bytes));
                    preserved.insert(era.0, &row).map(drop).map_err(failed(WRITE))?;
                }
            }
        }
        Ok(())
    }

    /// Forgets packs that hold nothing that counts, except those that `written` says are still
    /// being written; which.
    pub(crate) fn forget_packs(
        &self,
        written: impl Fn(u64) -> bool,
    ) -> Result<Vec<u64>, SnapshotError> {
        let mut packs = self.0.open_table(PACKS).map_err(failed(WRITE))?;
        let mut gone = Vec::new();
        for row in packs.iter().map_err(failed(WRITE))? {
            let (number, value) = row.map_err(failed(WRITE))?;
            if rows::pair_of(value.value()).0 == 0 && !written(number.value()) {
                gone.push(number.value());
            }
        }
        for number in &gone {
            packs.remove(number).map_err(failed(WRITE))?;
        }
        Ok(gone)
    }

    /// Where a content lies.
    pub(crate) fn stored(&self, id: ExtentId) -> Result<Option<Stored>, SnapshotError> {
        let table = self.0.open_table(CONTENTS).map_err(failed(WRITE))?;
        let found = table.get(&id.0).map_err(failed(WRITE))?;
        Ok(found.map(|row| Content::decode(row.value()).stored))
    }

    /// Contents were written anew elsewhere.
    pub(crate) fn moved(
        &self,
        places: &BTreeMap<ExtentId, Stored>,
        totals: &BTreeMap<u64, u64>,
    ) -> Result<(), SnapshotError> {
        let mut contents = self.0.open_table(CONTENTS).map_err(failed(WRITE))?;
        let mut packs = self.0.open_table(PACKS).map_err(failed(WRITE))?;
        for (id, &stored) in places {
            let had = contents.get(&id.0).map_err(failed(WRITE))?;
            let Some(had) = had.map(|row| Content::decode(row.value())) else { continue };
            let now = Content { stored, ..had };
            contents.insert(&id.0, &now.encode()).map_err(failed(WRITE))?;
            live(&mut packs, had.stored.pack, -i64::from(had.stored.bytes), None)?;
            live(&mut packs, stored.pack, i64::from(stored.bytes), None)?;
        }
        for (&pack, &total) in totals {
            live(&mut packs, pack, 0, Some(total))?;
        }
        Ok(())
    }
}

/// Whether some snapshot reads this before-image.
fn needed(
    before: &impl ReadableTable<&'static [u8; 18], &'static [u8]>,
    live: &BTreeSet<Seq>,
    era: Seq,
    extent: Extent,
) -> Result<bool, SnapshotError> {
    let (from, to) = (rows::before_key(extent, Seq::ZERO), rows::before_key(extent, era));
    let mut range = before.range::<&[u8; 18]>(&from..&to).map_err(failed(WRITE))?;
    let previous = match range.next_back() {
        Some(row) => rows::before_of(row.map_err(failed(WRITE))?.0.value()).1,
        None => Seq::ZERO,
    };
    Ok(live.range(Seq(previous.0 + 1)..=era).next().is_some())
}

/// One more before-image has this content.
fn refer(
    contents: &mut Table<'_, &'static [u8; 32], &'static [u8; 32]>,
    extent: Extent,
    id: ExtentId,
    stored: Option<&Stored>,
) -> Result<(), SnapshotError> {
    let had = contents.get(&id.0).map_err(failed(WRITE))?;
    let had = had.map(|row| Content::decode(row.value()));
    let now = match (had, stored) {
        (Some(had), _) => Content { references: had.references + 1, ..had },
        (None, Some(&stored)) => Content { stored, references: 1 },
        (None, None) => return Err(SnapshotError::Missing { extent, id }),
    };
    contents.insert(&id.0, &now.encode()).map(drop).map_err(failed(WRITE))
}

/// One before-image less has this content; where it lay, if that was the last.
fn unrefer(
    contents: &mut Table<'_, &'static [u8; 32], &'static [u8; 32]>,
    extent: Extent,
    id: ExtentId,
) -> Result<Option<Stored>, SnapshotError> {
    let had = contents.get(&id.0).map_err(failed(WRITE))?;
    let had = had.map(|row| Content::decode(row.value()));
    let had = had.ok_or(SnapshotError::Missing { extent, id })?;
    if had.references > 1 {
        let now = Content { references: had.references - 1, ..had };
        contents.insert(&id.0, &now.encode()).map_err(failed(WRITE))?;
        return Ok(None);
    }
    contents.remove(&id.0).map_err(failed(WRITE))?;
    Ok(Some(had.stored))
}

/// A pack holds `more` (or less) that counts, and reaches to `total`.
fn live(
    packs: &mut Table<'_, u64, &'static [u8; 16]>,
    number: u64,
    more: i64,
    total: Option<u64>,
) -> Result<(), SnapshotError> {
    let had = packs.get(number).map_err(failed(WRITE))?;
    let (bytes, known) = had.map_or((0, 0), |row| rows::pair_of(row.value()));
    let row = rows::pair(bytes.saturating_add_signed(more), total.unwrap_or(known));
    packs.insert(number, &row).map(drop).map_err(failed(WRITE))
}
