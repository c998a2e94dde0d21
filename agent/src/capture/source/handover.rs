//! The end of a source's role: applications are kept away, what was written is drained, and the
//! last record of the generation hands the role to one replica. And the other way round: a peer
//! that gives a history of its own up and follows this one.

use std::sync::Arc;

use vgship_base::ids::{Generation, PeerId, ReplicaId, Seq, Start};
use vgship_base::record::{Body, ResyncReason};

use super::Source;
use crate::capture::ledger_format::ReplicaState;
use crate::ship::dirty::DirtyMap;
use crate::ship::replica::{Flow, Replica};
use crate::ship::standing::Out;
use crate::ship::verdict::ReplicaPoint;

/// A handover that was begun: only the replica knows whether it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Who becomes the source.
    pub to: ReplicaId,
    /// The record that says so: the last of this generation.
    pub seq: Seq,
}

/// How far the role is on its way to another side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Giving {
    /// No write is let in any more.
    pub(super) fenced: bool,
    /// Whom the role is handed to: nothing is numbered any more.
    pub(super) handed: Option<Handed>,
    /// Somebody has shown that the replica took it.
    taken: bool,
}

/// Why a handover cannot be begun now. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHandover {
    /// Applications may still write.
    #[error("writes are still under way")]
    Busy,
    /// The replica does not follow.
    #[error("the replica does not follow: {}", .0.text())]
    Unfit(Out),
    /// It does not hold everything yet.
    #[error("the replica has applied up to {applied} of {issued}")]
    Behind {
        /// What its volumes hold durably.
        applied: Seq,
        /// The last number given.
        issued: Seq,
    },
    /// No start is left to go on with, should it be taken back.
    #[error("the starts of this generation have run out: restart the agent first")]
    Worn,
    /// Something is to be compared first.
    #[error("extents may differ that were not compared yet")]
    Dirty,
}

impl Source {
    /// Keeps applications' writes away, or lets them in again, unless a handover is under way. Those
    /// that have begun end as ever.
    pub fn fence(&mut self, fenced: bool) {
        self.giving.fenced = fenced || self.giving.handed.is_some();
    }

    /// Whether writes are kept away.
    pub const fn is_fenced(&self) -> bool {
        self.giving.fenced
    }

    /// Whether no write is under way, nor waits for a replica.
    pub fn is_quiet(&self) -> bool {
        self.giving.fenced && self.locks.is_empty() && self.waiting.is_empty()
    }

    /// Ends the last epoch, so that a replica proves by its hash chain that it has the same. What a
    /// replica must have applied before the handover.
    pub fn end_last_epoch(&mut self, clock: u64) -> Seq {
        self.end_epoch(clock);
        self.last
    }

    /// Reserves the place of the handover's record: nothing else is numbered from here on. Note it
    /// durably, then call [`Source::hand_over`], or [`Source::take_back`].
    pub fn reserve_handover(&mut self, to: ReplicaId) -> Result<Seq, NoHandover> {
        let replica = self.replica(to);
        if self.start == Start(u16::MAX) {
            return Err(NoHandover::Worn);
        }
        if !self.is_quiet() {
            return Err(NoHandover::Busy);
        }
        if let Some(out) = replica.unfit() {
            return Err(NoHandover::Unfit(out));
        }
        if replica.wants_resync.is_some() || !replica.dirty.is_empty() {
            return Err(NoHandover::Dirty);
        }
        if replica.applied < self.last {
            return Err(NoHandover::Behind { applied: replica.applied, issued: self.last });
        }
        // Others' resyncs would number records behind it.
        for other in self.replicas.iter_mut().filter(|other| other.id != to) {
            other.collapse(&self.layout, self.last, ResyncReason::CleanStart);
        }
        let seq = self.last.next();
        self.giving.handed = Some(Handed { to, seq });
        Ok(seq)
    }

    /// Hands the role over, at the place that was reserved for it.
    pub fn hand_over(&mut self, generation: Generation) {
        if let Some(handed) = self.giving.handed {
            let seq = self.push_for(handed.to, Body::Handover { generation });
            assert_eq!(seq, handed.seq, "nothing is numbered behind the reservation");
        }
    }

    /// Whether this history began behind another's, and nobody has followed it yet.
    pub fn is_alone_since_takeover(&self) -> bool {
        let met = |replica: &Replica| replica.met != Start(0);
        !self.lineage.is_empty() && !self.replicas.iter().any(met)
    }

    /// The handover that is under way.
    pub const fn handed(&self) -> Option<Handed> {
        self.giving.handed
    }

    /// An earlier life began a handover to a replica that may have taken it: nothing is written or
    /// sent before that is known.
    pub fn was_handing(&mut self, handed: Handed) {
        self.giving = Giving { fenced: true, handed: Some(handed), taken: false };
    }

    /// The replica holds the handover durably: it is, or becomes, the source.
    pub fn is_taken(&self) -> bool {
        self.giving
            .handed
            .is_some_and(|it| self.giving.taken || self.replica(it.to).durable >= it.seq)
    }

    /// The last number of the history that is written here: the handover's once it was taken, however
    /// often this side has started since.
    pub fn ends_at(&self) -> Seq {
        self.giving.handed.filter(|_| self.is_taken()).map_or(self.last, |it| it.seq)
    }

    /// The replica has shown, other than by an acknowledgement, that it took the handover.
    pub fn show_taken(&mut self) {
        self.giving.taken = self.giving.handed.is_some();
    }

    /// The replica has proved that it does not have the handover: this side stays the source. What
    /// was numbered for it is never sent; a new start counts above it. The ledger must be written
    /// before anything is sent.
    pub fn take_back(&mut self) {
        let giving = std::mem::take(&mut self.giving);
        if giving.handed.is_some() {
            self.restart_above(self.start);
        }
    }

    /// A peer gives up what it wrote itself and follows. `changed` is where its volumes differ from
    /// what it had of this history. What of its numbers is above ours is counted above. The ledger
    /// must be written before anything is sent.
    ///
    /// `None` when no start is left for that: nothing was changed.
    pub fn take_in(
        &mut self,
        id: ReplicaId,
        point: &ReplicaPoint,
        changed: &DirtyMap,
    ) -> Option<()> {
        let seen = point.durable.start();
        if seen.max(self.start) == Start(u16::MAX) {
            return None;
        }
        if seen >= self.start {
            self.restart_above(seen);
        }
        self.replica_mut(id).dirty.join(changed);
        self.restart(id, ResyncReason::Returned, point.durable);
        let start = self.start;
        let replica = self.replica_mut(id);
        (replica.met, replica.durable) = (start, point.durable);
        self.unwritten = true;
        Some(())
    }

    /// Goes on with numbers above this start. Every stream is resynced from its map.
    fn restart_above(&mut self, start: Start) {
        let above = start.max(self.start).0.checked_add(1);
        self.start = Start(above.expect("a start is left: looked at before"));
        for replica in &mut self.replicas {
            if replica.flow == Flow::Stream {
                replica.collapse(&self.layout, self.last, ResyncReason::CleanStart);
                replica.link_lost();
            } else if replica.linked() {
                replica.met = self.start; // a link that stands is used for the new ones
            }
        }
        self.last = Seq::before(self.start);
        self.unwritten = true;
    }

    /// Where a replica may differ, as of now: its map, what waits in its outbox, and every marked
    /// region. For when this side gives its role up.
    pub fn differs(&mut self, id: ReplicaId) -> DirtyMap {
        let layout = Arc::clone(&self.layout);
        let last = self.last;
        self.replica_mut(id).collapse(&layout, last, ResyncReason::CleanStart);
        let mut map = self.replica(id).durable_dirty();
        for region in self.activity.marked() {
            if let Some(span) = self.clip(region) {
                map.insert_span(&layout, region.volume, span);
            }
        }
        map
    }
}

/// What a source that begins because of a takeover knows of the one before it, which holds all up to
/// `acked`.
pub fn former_source(peer: PeerId, acked: Seq, changed: &DirtyMap) -> ReplicaState {
    ReplicaState { peer, met: Start(0), acked, whole: true, dirty: changed.sets().to_vec() }
}
