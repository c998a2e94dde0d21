//! Which blocks are the clone's own, which of those a flush has yet to store, and how many more
//! there may be. Does no I/O.

use super::OverlayError;
use super::blocks::Blocks;
use super::format::{BLOCK, Entry};

/// What a clone owns. A block once owned stays so.
#[derive(Default)]
pub(super) struct Ownership {
    owned: Blocks,
    /// Those whose bit is not known to be durable. Invariant: all of them are owned.
    fresh: Blocks,
    /// Blocks that are being written for the first time.
    claimed: u64,
    /// Unit: bytes.
    quota: Option<u64>,
    /// A flush of the data failed: what is fresh may be lost, whatever the system's cache shows.
    poisoned: bool,
}

impl Ownership {
    pub(super) fn of(owned: Blocks) -> Ownership {
        Ownership { owned, ..Ownership::default() }
    }

    /// Blocks that are owned.
    pub(super) const fn owned(&self) -> &Blocks {
        &self.owned
    }

    pub(super) const fn set_quota(&mut self, quota: Option<u64>) {
        self.quota = quota;
    }

    pub(super) const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether one of `first..end` may be lost: its bit is not stored, and now cannot be.
    pub(super) fn is_lost(&self, first: u64, end: u64) -> bool {
        self.poisoned && self.fresh.runs(true, first, end).next().is_some()
    }

    /// Sets so many blocks aside to be owned, until [`Ownership::settle`].
    ///
    /// # Errors
    /// They are more than the quota allows; nothing is set aside.
    pub(super) fn claim(&mut self, blocks: u64, name: &str) -> Result<(), OverlayError> {
        let bytes = (self.owned.count() + self.claimed).saturating_add(blocks) * BLOCK;
        match self.quota {
            Some(quota) if blocks > 0 && bytes > quota => {
                Err(OverlayError::Quota { name: name.to_owned(), bytes, quota })
            }
            _ => {
                self.claimed += blocks;
                Ok(())
            }
        }
    }

    /// Ends a claim of so many blocks, of which `written` are owned now.
    pub(super) fn settle(&mut self, blocks: u64, written: &[(u64, u64)]) {
        self.claimed -= blocks;
        for &(first, end) in written {
            self.owned.insert(first, end);
            self.fresh.insert(first, end);
        }
    }

    /// Hands out what is to be stored.
    pub(super) fn take_fresh(&mut self) -> Blocks {
        std::mem::take(&mut self.fresh)
    }

    /// Takes back what was not stored. `lost` says that its data may not be either.
    pub(super) fn give_back(&mut self, taken: &Blocks, lost: bool) {
        self.fresh.merge(taken);
        self.poisoned |= lost;
    }

    /// What is stored, and what was taken to be, as entries of the map.
    pub(super) fn stored(&self, word: u64, max: usize) -> Vec<Entry> {
        self.owned.entries(&self.fresh, word, max)
    }
}
