//! Which snapshots read from which packs.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableDatabase;
use vgship_base::extent::Extent;
use vgship_base::ids::{Seq, VolumeId};

use super::rows::{self, Content};
use super::{BEFORE, Before, CONTENTS, Catalog, READ, Snapshot, before, failed};
use crate::SnapshotError;

impl Catalog {
    /// The snapshots that read something from these packs, ascending; and whether that is all of
    /// them: no more than `limit` before-images are looked at.
    pub(crate) fn readers_of(
        &self,
        packs: &BTreeSet<u64>,
        limit: usize,
    ) -> Result<(Vec<Snapshot>, bool), SnapshotError> {
        let mut left: BTreeMap<Seq, Snapshot> =
            self.snapshots()?.into_iter().map(|it| (it.seq, it)).collect();
        let mut readers = Vec::new();
        let read = self.database.begin_read().map_err(failed(READ))?;
        let table = read.open_table(BEFORE).map_err(failed(READ))?;
        let contents = read.open_table(CONTENTS).map_err(failed(READ))?;
        let mut last = (Extent { volume: VolumeId(0), index: 0 }, Seq::ZERO);
        for (seen, row) in table.range::<&[u8; 18]>(..).map_err(failed(READ))?.enumerate() {
            if left.is_empty() {
                break;
            }
            if seen == limit {
                readers.sort_by_key(|it: &Snapshot| it.seq);
                return Ok((readers, false));
            }
            let (key, value) = row.map_err(failed(READ))?;
            let (extent, era) = rows::before_of(key.value());
            // It holds for its era's snapshot and older ones down to the extent's one before it.
            let above = if last.0 == extent { last.1 } else { Seq::ZERO };
            last = (extent, era);
            let Before::Content(id) = before(value.value())? else { continue };
            let stored = contents.get(&id.0).map_err(failed(READ))?;
            let pack = stored.map(|row| Content::decode(row.value()).stored.pack);
            if pack.is_some_and(|pack| packs.contains(&pack)) {
                let between = left.range(Seq(above.0 + 1)..=era).map(|(seq, _)| *seq);
                let found: Vec<Seq> = between.collect();
                readers.extend(found.iter().filter_map(|seq| left.remove(seq)));
            }
        }
        readers.sort_by_key(|it| it.seq);
        Ok((readers, true))
    }
}
