//! Which keys the store needs: each pack says which one sealed it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Snapshot, SnapshotSet};
use crate::SnapshotError;
use crate::seal::KeyId;

/// What of the store needs one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeedsKey {
    /// The packs that it sealed.
    pub packs: BTreeSet<u64>,
    /// What they take. Unit: bytes.
    pub bytes: u64,
}

impl SnapshotSet {
    /// Which packs need which key. No pack is begun meanwhile, so that what an older key seals is
    /// all here.
    ///
    /// A pack whose header is damaged needs none.
    ///
    /// # Errors
    /// The disk refused.
    pub fn needs(&self) -> Result<BTreeMap<KeyId, NeedsKey>, SnapshotError> {
        self.remove_empty_packs()?;
        let _alone = self.catalog.change()?;
        let mut found: BTreeMap<KeyId, NeedsKey> = BTreeMap::new();
        for (number, _, total) in self.catalog.packs()? {
            let key = match self.packs.key_of(number) {
                Ok(key) => key,
                // Nobody can read it, whatever key there is.
                Err(SnapshotError::Pack { source, .. }) if source.is_damage() => continue,
                Err(error) => return Err(error),
            };
            let needs = found.entry(key).or_default();
            needs.packs.insert(number);
            needs.bytes += total;
        }
        Ok(found)
    }

    /// The snapshots that read something from these packs, ascending; and whether that is all of
    /// them: no more than `limit` before-images are looked at.
    pub fn readers_of(
        &self,
        packs: &BTreeSet<u64>,
        limit: usize,
    ) -> Result<(Vec<Snapshot>, bool), SnapshotError> {
        self.catalog.readers_of(packs, limit)
    }

    /// Forgets what was read and is held open: what a destroyed key sealed is not read on.
    pub fn forget_read(&self) {
        self.packs.forget();
        self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }
}
