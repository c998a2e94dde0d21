//! Sync mode and bounded lag: which writes wait for which replicas, and for how long.

use vgship_base::ids::{ReplicaId, Seq};
use vgship_base::units::Tick;

use super::{Overflow, Source};
use crate::capture::activity::{Barrier, Completion};
use crate::ship::pace::{Lag, LagPolicy};
use crate::ship::replica::Replica;
use crate::ship::standing::{Facts, Mode, Standing, SyncPolicy};

/// What is left to do for a write that the LV took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sync replica may not hold the write yet"]
pub enum After {
    /// Nothing: the application may be told.
    Done,
    /// Sync replicas count: flush the volume until the barrier is stable, then ask
    /// [`Source::completion`] until it says so (R10). What is lost is an error.
    Stabilize(Barrier),
    /// A flush of the volume failed while the write was under way, and may have taken it along:
    /// what is stored is not known (R8). The application gets an error.
    Lost,
}

/// Whether the application may be told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// It may.
    Now,
    /// A sync replica does not hold it yet. Ask again when something has changed.
    Wait,
    /// The agent stops: it will never be known whether the replica has it. The application gets an
    /// error.
    Stopped,
}

impl Source {
    /// Sets how sync replicas are waited for.
    pub fn set_sync_policy(&mut self, policy: SyncPolicy) {
        self.policy.sync = policy;
    }

    /// Sets what happens to writes when an outbox is full. A group that stops stays as it is.
    pub fn set_overflow(&mut self, overflow: Overflow) {
        if !self.stopping {
            self.policy.overflow = overflow;
        }
    }

    /// Sets how far replicas may fall behind.
    pub fn set_lag_policy(&mut self, policy: Option<LagPolicy>) {
        self.policy.lag = policy;
    }

    /// Sets when writes are complete as far as one replica is concerned. One whose pairing was
    /// taken away stays async.
    pub fn set_mode(&mut self, id: ReplicaId, mode: Mode) {
        let now = self.now;
        self.replica_mut(id).sync.set_mode(mode, now);
    }

    /// What is left to do for a write that the LV took; it is before this barrier.
    pub(super) fn after(&self, barrier: Barrier) -> After {
        let policy = self.policy.sync;
        match self.replicas.iter().any(|replica| replica.sync.wants_stability(policy)) {
            true => After::Stabilize(barrier),
            false => After::Done,
        }
    }

    /// Whether the application may be told of the write with this ticket's seq: every sync replica
    /// that counts holds it durably. Ask under the lock that is also held to tell.
    pub fn completion(&mut self, seq: Seq) -> Complete {
        let policy = self.policy.sync;
        let holds = |replica: &Replica| replica.sync.holds_back(seq, replica.durable, policy);
        if !self.replicas.iter().any(holds) {
            self.waiting.remove(&seq);
            return Complete::Now;
        }
        if self.stopping {
            self.waiting.remove(&seq);
            return Complete::Stopped;
        }
        self.waiting.entry(seq).or_insert(self.now);
        Complete::Wait
    }

    /// Whether a replica that joins waits for the volumes to be flushed.
    pub fn wants_flush(&self) -> bool {
        self.replicas.iter().any(|replica| !self.is_stable(replica.sync.floor()))
    }

    fn is_stable(&self, floor: &[Completion]) -> bool {
        let mut floors = self.layout.ids().zip(floor);
        floors.all(|(volume, floor)| self.activity.covered(volume) >= *floor)
    }

    /// Looks at every replica's standing and lag.
    pub(super) fn review(&mut self) {
        let (now, sync, lag) = (self.now, self.policy.sync, self.policy.lag);
        for index in 0..self.replicas.len() {
            let facts = self.facts(&self.replicas[index]);
            let (layout, activity) = (&self.layout, &self.activity);
            let completed = || layout.ids().map(|volume| activity.completed(volume)).collect();
            let replica = &mut self.replicas[index];
            replica.sync.review(now, sync, &facts, completed);
            let taken = replica.outbox.drained_bytes();
            let behind = replica
                .follows()
                .then(|| Lag { bytes: replica.outbox.held_bytes(), millis: replica.pace.age(now) });
            replica.pace.review(now, taken, behind, lag);
        }
    }

    fn facts(&self, replica: &Replica) -> Facts {
        let mut waiting = self.waiting.iter().filter(|(seq, _)| **seq > replica.durable);
        Facts {
            unfit: replica.unfit(),
            issued: self.last,
            durable: replica.durable,
            backlog: replica.outbox.held_bytes(),
            stable: self.is_stable(replica.sync.floor()),
            waiting: waiting.next().map(|(_, since)| *since),
        }
    }

    /// Time passed for writers that are slowed.
    pub fn pace(&mut self, now: Tick) {
        self.now = self.now.max(now);
        self.review();
    }

    /// Whether every replica's pace allows a write to begin.
    pub(super) fn is_in_pace(&self) -> bool {
        self.stopping || self.replicas.iter().all(|replica| replica.pace.allows())
    }

    /// Whether nothing acknowledged would be lost with the source: a replica is sync and in force.
    pub fn is_in_force(&self) -> bool {
        let mut modes = self.replicas.iter().filter(|replica| replica.sync.mode() == Mode::Sync);
        let in_force = |replica: &Replica| replica.sync.standing() == Standing::InForce;
        modes.clone().next().is_some() && modes.all(in_force)
    }

    /// Since when the oldest write waits for a sync replica.
    pub fn oldest_waiting(&self) -> Option<Tick> {
        self.waiting.values().min().copied()
    }
}
