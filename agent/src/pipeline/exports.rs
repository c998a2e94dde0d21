//! All LVs that NBD serves: those of every group that this agent is the source of, and the clones
//! of environments.

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
    clones: RwLock<BTreeMap<String, Arc<dyn Export>>>,
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

    /// Serves a clone.
    pub(super) fn add_clone(&self, export: String, clone: Arc<dyn Export>) {
        self.clones.write().unwrap_or_else(PoisonError::into_inner).insert(export, clone);
    }

    /// Serves no clone any more whose name begins so. Who is connected stays so.
    pub(super) fn remove_clones(&self, prefix: &str) {
        let mut clones = self.clones.write().unwrap_or_else(PoisonError::into_inner);
        clones.retain(|export, _| !export.starts_with(prefix));
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
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        let clones = self.clones.read().unwrap_or_else(PoisonError::into_inner);
        // What is being masked is nobody's to see.
        let clones = clones.keys().filter(|export| export.starts_with("env/"));
        let mut names: Vec<String> = volumes.keys().chain(clones).cloned().collect();
        names.sort();
        names
    }

    fn find(&self, name: &str) -> Option<Arc<dyn Export>> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((tap, id)) = volumes.get(name) {
            return Some(Arc::new(TappedVolume::new(Arc::clone(tap), *id)));
        }
        let clones = self.clones.read().unwrap_or_else(PoisonError::into_inner);
        clones.get(name).cloned()
    }
}
