//! What a source writes into its ledger, and when it counts.

use vgship_base::ids::Generation;
use vgship_base::record::ResyncReason;
use vgship_base::units::Tick;

use super::Source;
use crate::capture::activity::Activity;
use crate::capture::ledger_format::{LedgerState, ReplicaState};
use crate::ship::replica::Replica;

impl Source {
    /// What the ledger must hold from now on. Regions that need no mark any more are left out and
    /// count as unmarked at once (R14): no mark may be appended until this has been written.
    pub fn begin_checkpoint(&mut self, idle: u64) -> LedgerState {
        let replicas = &self.replicas;
        let settled = |seq| replicas.iter().all(|replica| replica.accounts_for(seq));
        let idle_since = Tick(self.now.0.saturating_sub(idle));
        if self.now.0 >= idle {
            self.activity.unmark(idle_since, settled);
        }
        self.state(false)
    }

    /// The ledger holds what [`Source::begin_checkpoint`] gave; the caller kept others from writing
    /// it meanwhile. `generation` is that of the state written.
    pub fn checkpoint_written(&mut self, generation: Generation) {
        self.unwritten &= generation != self.generation;
    }

    /// The last word of a clean stop: everything in the outboxes goes to the maps. Clean only if
    /// every volume is flushed and nothing is being written.
    pub fn close(&mut self) -> LedgerState {
        for replica in &mut self.replicas {
            replica.collapse(&self.layout, self.last, ResyncReason::CleanStart);
        }
        let unflushed = self.layout.ids().any(|id| !self.activity.unflushed(id).is_empty());
        let clean = !unflushed && self.locks.is_empty();
        if clean {
            self.activity = Activity::new(self.policy.region);
        }
        self.state(clean)
    }

    pub(super) fn state(&self, clean: bool) -> LedgerState {
        let known = |replica: &Replica| ReplicaState {
            peer: replica.peer,
            met: replica.met,
            acked: replica.durable,
            whole: replica.whole,
            dirty: replica.durable_dirty().into_sets(),
        };
        LedgerState {
            group: self.group,
            generation: self.generation,
            lineage: self.lineage.clone(),
            start: self.start,
            clean,
            volumes: self.layout.volumes.iter().map(|volume| volume.bytes).collect(),
            replicas: self.replicas.iter().map(known).collect(),
            marked: self.activity.marked(),
        }
    }
}
