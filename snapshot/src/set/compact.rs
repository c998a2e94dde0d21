//! Compaction: packs of which most counts for nothing are written anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SnapshotSet;
use crate::SnapshotError;
use crate::packs::{PackWriter, Packed};

/// Extents that move with one change of the catalogue.
const AT_ONCE: usize = 256;

/// What a step of compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// How much was given back. Unit: bytes.
    pub freed: u64,
    /// Whether no pack is left of which most counts for nothing.
    pub done: bool,
}

impl SnapshotSet {
    /// Writes one pack anew of which less than half counts, and removes it. To be called until it
    /// is done, when there is time and room: it needs up to half a pack.
    ///
    /// Durable: nothing that counts is removed before it is durable elsewhere.
    pub fn compact(&self) -> Result<Compacted, SnapshotError> {
        let mut packs = self.catalog.packs()?;
        packs.retain(|&(number, live, total)| live * 2 < total && !self.packs.is_written(number));
        // What is damaged, or a destroyed key sealed, cannot be written anew; it goes when nothing
        // needs it.
        packs.retain(|&(number, live, _)| live == 0 || self.packs.can_open(number));
        let Some(&(number, live, total)) = packs.first() else {
            return Ok(Compacted { freed: 0, done: true });
        };
        if self.packs.available()? < live * 2 {
            return Ok(Compacted { freed: 0, done: true });
        }
        let mut writer = PackWriter::new(Arc::clone(&self.packs));
        if live > 0 {
            let mut walk = self.packs.walk(number)?;
            while self.move_some(number, &mut walk, &mut writer)? {}
        }
        drop(writer);
        self.remove_empty_packs()?;
        let left = self.catalog.packs()?.iter().any(|it| it.0 == number);
        if left {
            // Something in it counts and cannot be read: that is for whoever needs it to find.
            return Ok(Compacted { freed: 0, done: true });
        }
        Ok(Compacted { freed: total.saturating_sub(live), done: packs.len() == 1 })
    }

    fn move_some(
        &self,
        number: u64,
        walk: &mut crate::packs::Walk,
        writer: &mut PackWriter,
    ) -> Result<bool, SnapshotError> {
        let mut found = Vec::new();
        while found.len() < AT_ONCE {
            match walk.next()? {
                Some(extent) => found.push(extent),
                None => break,
            }
        }
        if found.is_empty() {
            return Ok(false);
        }
        let change = self.catalog.change()?;
        let (mut places, mut totals) = (BTreeMap::new(), BTreeMap::new());
        for (id, placed, content) in found {
            let here =
                change.stored(id)?.is_some_and(|it| it.pack == number && it.placed == placed);
            if here {
                places.insert(id, writer.append(&Packed::new(id, &content))?);
                totals.extend(writer.current());
            }
        }
        if !places.is_empty() {
            writer.flush()?;
            totals.extend(writer.current());
            change.moved(&places, &totals)?;
            change.commit()?;
        }
        Ok(true)
    }
}
