//! The source of one group: gives every write its place in the order and every replica its due.
//! Decides everything, does no I/O; the shell holds it under one lock, for about a microsecond a
//! call (`docs/decisions/`).
//!
//! A write passes: [`Source::begin`] (range lock, mark, seq, outbox), the LV, [`Source::end`].

mod check;
mod checkpoint;
mod grow;
mod handover;
mod links;
mod marks;
mod ready;
mod resync;
mod sync;
mod time;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vgship_base::ids::{Generation, GroupId, PeerId, ReplicaId, Seq, Start, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::record::{Hash, ResyncReason};
use vgship_base::units::{Span, Tick};

pub use check::{CheckReport, Checks};
pub use handover::{Handed, NoHandover, former_source};
pub use marks::Reach;
pub use ready::{Ready, Wants};
pub use resync::Shipped;
pub use sync::{After, Complete};
pub use writes::{Begin, Change, Ticket};

use super::activity::{Activity, Region, RegionSize};
use super::ledger_format::LedgerState;
use super::locks::RangeLocks;
use super::versions::Versions;
use crate::outbox::queue::Budget;
use crate::ship::dirty::DirtyMap;
use crate::ship::pace::LagPolicy;
use crate::ship::replica::Replica;
use crate::ship::standing::SyncPolicy;
use handover::Giving;

/// What to do with writes when an outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// Let them go on and note dirty extents only: the order is lost and a resync follows.
    #[default]
    Map,
    /// Let them wait until the replica has taken some.
    Stall,
}

impl Overflow {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Overflow::Map => "map",
            Overflow::Stall => "stall",
        }
    }
}

/// How a group is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// When an outbox is full.
    pub overflow: Overflow,
    /// Of each replica's outbox.
    pub budget: Budget,
    /// How long an epoch lasts. Unit: milliseconds.
    pub epoch: u64,
    /// Of the activity map; never changes in a group's life.
    pub region: RegionSize,
    /// How sync replicas are waited for.
    pub sync: SyncPolicy,
    /// How far replicas may fall behind.
    pub lag: Option<LagPolicy>,
}

/// The source of one group.
#[derive(Debug)]
pub struct Source {
    layout: Arc<Layout>,
    layout_hash: Hash,
    policy: Policy,
    group: GroupId,
    generation: Generation,
    lineage: Vec<(Generation, Seq)>,
    start: Start,
    last: Seq,
    locks: RangeLocks,
    activity: Activity,
    versions: Versions,
    replicas: Vec<Replica>,
    next_epoch: Tick,
    /// A generation has begun that the ledger does not hold: nothing of it may be sent.
    unwritten: bool,
    /// Writes that wait for sync replicas, and since when.
    waiting: BTreeMap<Seq, Tick>,
    /// No write is kept waiting any more.
    stopping: bool,
    giving: Giving,
    now: Tick,
}

impl Source {
    /// Begins a group's history.
    pub fn create(
        group: GroupId,
        generation: Generation,
        layout: Arc<Layout>,
        policy: Policy,
    ) -> Source {
        Source {
            layout_hash: layout.hash(),
            layout,
            policy,
            group,
            generation,
            lineage: Vec::new(),
            start: Start(1),
            last: Seq::before(Start(1)),
            locks: RangeLocks::default(),
            activity: Activity::new(policy.region),
            versions: Versions::default(),
            replicas: Vec::new(),
            next_epoch: Tick(0),
            unwritten: false,
            waiting: BTreeMap::new(),
            stopping: false,
            giving: Giving::default(),
            now: Tick(0),
        }
    }

    /// Goes on after a stop or a crash. The new start counts only when the ledger holds it: write
    /// [`Source::begin_checkpoint`] before anything else, and flush the volumes (R4).
    ///
    /// When starts have run out, a new generation begins instead (R11).
    pub fn resume(
        state: LedgerState,
        layout: Arc<Layout>,
        policy: Policy,
        fresh: Generation,
    ) -> Source {
        let mut source = Source::create(state.group, state.generation, layout, policy);
        source.lineage = state.lineage;
        let why = if state.clean { ResyncReason::CleanStart } else { ResyncReason::UncleanStart };
        for (id, known) in (0..).map(ReplicaId).zip(state.replicas) {
            let mut dirty = DirtyMap::from_sets(known.dirty);
            for region in &state.marked {
                if let Some(span) = source.clip(*region) {
                    dirty.insert_span(&source.layout, region.volume, span);
                }
            }
            let mut replica = Replica::new(id, known.peer, dirty, why, policy.budget);
            replica.met = known.met;
            replica.durable = known.acked;
            replica.whole = known.whole;
            source.replicas.push(replica);
        }
        let marked = state.marked.into_iter().filter(|region| source.clip(*region).is_some());
        let marked: Vec<Region> = marked.collect();
        source.activity.inherit(&marked);
        if let Some(start) = state.start.0.checked_add(1) {
            source.start = Start(start);
        } else {
            source.begin_generation(fresh, Seq(u64::MAX));
            source.start = Start(1);
        }
        source.last = Seq::before(source.start);
        source
    }

    fn clip(&self, region: Region) -> Option<Span> {
        let bytes = self.layout.volume(region.volume)?.bytes;
        let span = self.policy.region.span(region);
        (span.offset < bytes).then(|| Span::new(span.offset, span.len.min(bytes - span.offset)))
    }

    /// Adds a replica that holds nothing yet. It counts when the ledger holds it.
    pub fn add_replica(&mut self, peer: PeerId) -> ReplicaId {
        let id = ReplicaId(u8::try_from(self.replicas.len()).expect("at most REPLICAS_MAX"));
        let mut dirty = DirtyMap::empty(&self.layout);
        dirty.fill();
        self.replicas.push(Replica::new(
            id,
            peer,
            dirty,
            ResyncReason::Initial,
            self.policy.budget,
        ));
        id
    }

    // ---- what it knows ----

    /// All replicas' ids.
    pub fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..u8::try_from(self.replicas.len()).expect("at most REPLICAS_MAX")).map(ReplicaId)
    }

    /// A replica.
    pub fn replica(&self, id: ReplicaId) -> &Replica {
        &self.replicas[usize::from(id.0)]
    }

    /// A replica, for the shell that moves its records.
    pub fn replica_mut(&mut self, id: ReplicaId) -> &mut Replica {
        &mut self.replicas[usize::from(id.0)]
    }

    /// The replica of a peer.
    pub fn find(&self, peer: PeerId) -> Option<ReplicaId> {
        self.replicas.iter().find(|replica| replica.peer == peer).map(|replica| replica.id)
    }

    /// The layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// By which a replica shows that it knows this layout. One that does not must get no record.
    pub fn layout_hash(&self) -> Hash {
        self.layout_hash
    }

    /// The history that is written.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Those before, oldest first, each with the last seq that was kept of it.
    pub fn lineage(&self) -> &[(Generation, Seq)] {
        &self.lineage
    }

    /// The present start.
    pub fn start(&self) -> Start {
        self.start
    }

    /// The last number given.
    pub fn issued(&self) -> Seq {
        self.last
    }

    /// How many regions are marked.
    pub fn marked_regions(&self) -> usize {
        self.activity.len()
    }

    /// Volumes with writes that no flush covers.
    pub fn unflushed(&self) -> Vec<VolumeId> {
        let unflushed = |id: &VolumeId| !self.activity.unflushed(*id).is_empty();
        self.layout.ids().filter(unflushed).collect()
    }
}

#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod ready_tests;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod writes_tests;
