//! The index: where each extent lies, rebuilt from the packs.

use std::collections::HashMap;

use super::pack::{Entry, ExtentId};
use super::{Damage, StoreError, in_pack};
use crate::seal::{End, Placed, SealedReader, Step};

/// Where each extent lies. About 80 bytes of memory each.
#[derive(Default)]
pub(super) struct Index {
    places: HashMap<ExtentId, (u64, Placed)>,
}

impl Index {
    pub(super) fn contains(&self, id: ExtentId) -> bool {
        self.places.contains_key(&id)
    }

    pub(super) fn get(&self, id: ExtentId) -> Option<(u64, Placed)> {
        self.places.get(&id).copied()
    }

    pub(super) fn insert(&mut self, id: ExtentId, pack: u64, placed: Placed) {
        self.places.insert(id, (pack, placed));
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ExtentId> + '_ {
        self.places.keys().copied()
    }

    pub(super) fn len(&self) -> u64 {
        self.places.len() as u64
    }
}

/// Reads packs, oldest first.
///
/// A frame that does not open is damage if a frame behind it says that it had been flushed;
/// otherwise it is a tail that was torn. Whole frames behind it are used all the same: an extent
/// proves itself by its content.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) index: Index,
    pub(super) readers: HashMap<u64, SealedReader>,
    pub(super) damage: Vec<Damage>,
    /// Extents of the newest pack that no later one says were flushed.
    pub(super) unproven: Vec<ExtentId>,
}

impl Scan {
    /// Reads one pack.
    pub(super) fn pack(&mut self, pack: u64, mut reader: SealedReader) -> Result<(), StoreError> {
        let (mut flushed, mut gaps, mut added) = (0, Vec::new(), Vec::new());
        loop {
            let frame = match reader.step().map_err(in_pack(pack))? {
                Step::Frame(frame) => frame,
                Step::End(End::Clean) => break,
                Step::End(End::Broken { at: offset, number: first }) => {
                    let Some(found) = reader.resume().map_err(in_pack(pack))? else { break };
                    let frames = Some(found.placed.number - first);
                    gaps.push(Damage { pack, frame: first, frames, offset });
                    found
                }
            };
            if let Ok(entry) = Entry::decode(&frame.body) {
                self.index.insert(entry.id, pack, frame.placed);
                added.push((frame.placed.number, entry.id));
                flushed = entry.flushed.max(flushed);
            }
        }
        self.damage.extend(gaps.into_iter().filter(|gap| gap.frame < flushed));
        self.unproven.clear();
        self.unproven.extend(added.iter().filter(|it| it.0 >= flushed).map(|it| it.1));
        self.readers.insert(pack, reader);
        Ok(())
    }

    /// Notes a pack whose header is not whole.
    pub(super) fn headless(&mut self, pack: u64) {
        self.damage.push(Damage { pack, frame: 0, frames: None, offset: 0 });
        self.unproven.clear();
    }
}
