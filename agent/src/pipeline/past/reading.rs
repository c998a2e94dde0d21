//! Where a group's snapshots are read: whichever side of it this agent is, also when that changes.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use vgship_base::ids::Seq;
use vgship_snapshot::set::SnapshotSet;

use super::points::snapshot_error;
use crate::api::ControlError;
use crate::capture::io::Tap;
use crate::pipeline::agent::Group;
use crate::pipeline::replica::ReplicaGroup;

/// Who keeps the snapshots now.
enum Keeper {
    /// Nobody: the group is being opened, or its role changes.
    Nobody,
    Replica(Weak<ReplicaGroup>),
    Source(Weak<Tap>),
}

/// A group's snapshots, for those who read them for long.
pub(in crate::pipeline) struct Reading(Mutex<Keeper>);

impl Default for Reading {
    fn default() -> Reading {
        Reading(Mutex::new(Keeper::Nobody))
    }
}

impl Reading {
    /// The group is this from now on.
    pub(in crate::pipeline) fn follow(&self, group: &Group) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = match group {
            Group::Replica(replica) => Keeper::Replica(Arc::downgrade(replica)),
            Group::Source(source) => Keeper::Source(Arc::downgrade(&source.tap)),
            Group::Failed { .. } => Keeper::Nobody,
        };
    }

    /// The snapshots, or why they cannot be read now. To be let go of soon.
    pub(in crate::pipeline) fn snapshots(&self) -> Result<Arc<SnapshotSet>, String> {
        let keeper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || "the group is not open".to_owned();
        match &*keeper {
            Keeper::Nobody => Err(gone()),
            Keeper::Replica(replica) => replica.upgrade().ok_or_else(gone)?.snapshots(),
            Keeper::Source(tap) => {
                let lost = || "this side, which is the source, keeps no snapshots".to_owned();
                tap.upgrade().ok_or_else(gone)?.snapshots().ok_or_else(lost)
            }
        }
    }

    /// `holder` needs the snapshot of `seq` no more.
    pub(in crate::pipeline) fn release(&self, seq: Seq, holder: &str) -> Result<(), ControlError> {
        let set = self.snapshots().map_err(ControlError::failed)?;
        set.release(seq, holder).map_err(|it| snapshot_error(&it))
    }
}
