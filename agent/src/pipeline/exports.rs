//! All LVs that NBD serves: those of every group that this agent is the source of.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use vgship_base::ids::VolumeId;

use crate::capture::io::{Tap, TappedVolume};
use crate::capture::nbd::backend::{Export, Exports};

/// The served volumes by export name. Groups come and go while clients are connected; a lock that
/// is held for a look-up is enough.
#[derive(Default)]
pub(super) struct Served {
    volumes: RwLock<BTreeMap<String, (Arc<Tap>, VolumeId)>>,
}

impl Served {
    /// Serves all volumes of a group.
    pub(super) fn add(&self, group: &str, tap: &Arc<Tap>) {
        let layout = Arc::clone(tap.core().layout());
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        for (id, volume) in layout.ids().zip(&layout.volumes) {
            volumes.insert(format!("{group}/{}", volume.name), (Arc::clone(tap), id));
        }
    }

    /// Serves nothing of a group any more. Who is connected stays so.
    pub(super) fn remove(&self, group: &str) {
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        volumes.retain(|export, _| !is_of(group, export));
    }
}

/// Whether an export is a volume of a group.
pub(super) fn is_of(group: &str, export: &str) -> bool {
    export.split_once('/').is_some_and(|(known, _)| known == group)
}

impl Exports for Served {
    fn names(&self) -> Vec<String> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Option<Arc<dyn Export>> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        let (tap, id) = volumes.get(name)?;
        Some(Arc::new(TappedVolume::new(Arc::clone(tap), *id)))
    }
}
