//! Links of a source: hellos and their verdicts, generations, what an operator does to a replica.

use std::sync::Arc;

use vgship_base::ids::{Generation, ReplicaId, Seq, Start};
use vgship_base::record::ResyncReason;

use super::{Overflow, Source};
use crate::capture::ledger_format::LINEAGE_MAX;
use crate::ship::flight::Job;
use crate::ship::replica::Flow;
use crate::ship::standing::Mode;
use crate::ship::verdict::{ReplicaPoint, SourcePoint, Verdict, ahead, judge};

impl Source {
    /// A replica said hello. The verdict has been carried out when this returns, except that after
    /// any but [`Verdict::Continue`] the ledger must be written before anything is sent: after a
    /// crash it is the only one to know what the replica lacks, and which start the replica met.
    pub fn link_up(&mut self, id: ReplicaId, point: &ReplicaPoint, fresh: Generation) -> Verdict {
        // What holds nothing holds nothing up to zero, whatever number it names.
        let durable = if point.fresh { Seq::ZERO } else { point.durable };
        let point = &ReplicaPoint { durable, ..*point };
        let known = self.point_for(id, point);
        let (verdict, ahead) = (judge(point, &known), ahead(point, &known));
        match verdict {
            Verdict::Diverged => return verdict,
            Verdict::Continue => self.replica_mut(id).link_continues(point.durable),
            Verdict::Resync(why) => self.restart(id, why, point.durable),
            Verdict::Full { reason, new_generation } => {
                if new_generation {
                    self.begin_generation(fresh, point.durable);
                }
                if new_generation && ahead {
                    self.count_above(point.durable.start());
                }
                self.replica_mut(id).dirty.fill();
                self.restart(id, reason, point.durable);
            }
        }
        self.replica_mut(id).met = self.start;
        verdict
    }

    pub(super) fn point_for(&self, id: ReplicaId, point: &ReplicaPoint) -> SourcePoint<'_> {
        let replica = self.replica(id);
        let (covered, gap) = match replica.flow {
            Flow::Stream if replica.outbox.covers(point.durable) => (true, ResyncReason::Overflow),
            Flow::Stream => (false, ResyncReason::Overflow),
            Flow::Map(why) => (false, why),
        };
        SourcePoint {
            generation: self.generation,
            lineage: &self.lineage,
            start: self.start,
            issued: self.last,
            acked: replica.durable,
            met: replica.met,
            covered,
            gap,
        }
    }

    pub(super) fn restart(&mut self, id: ReplicaId, why: ResyncReason, durable: Seq) {
        let (layout, last) = (Arc::clone(&self.layout), self.last);
        let replica = self.replica_mut(id);
        replica.collapse(&layout, last, why);
        replica.linked_at(durable);
    }

    /// A new history begins; every replica gets to know by a resync. `seen` is the highest seq of
    /// the old one that a replica showed: a link that breaks now must not make it diverged.
    pub(super) fn begin_generation(&mut self, fresh: Generation, seen: Seq) {
        self.unwritten = true;
        if self.lineage.len() == LINEAGE_MAX {
            self.lineage.remove(0);
        }
        self.lineage.push((self.generation, self.last.max(seen)));
        self.generation = fresh;
        for replica in self.replicas.iter_mut().filter(|replica| replica.flow == Flow::Stream) {
            replica.collapse(&self.layout, self.last, ResyncReason::Lost);
        }
    }

    /// This source's memory proved older than `seen` (R11): a new generation counts above every
    /// start that was seen, and no map that came from that memory is believed.
    pub(super) fn count_above(&mut self, seen: Start) {
        let above = self.start.max(seen).0.checked_add(1);
        self.start = Start(above.expect("without a start left the verdict is another"));
        self.last = Seq::before(self.start);
        for replica in &mut self.replicas {
            replica.dirty.fill();
            if replica.linked() {
                replica.met = self.start; // its link goes on with the new numbers
            }
        }
    }

    /// A replica's link broke.
    pub fn link_lost(&mut self, id: ReplicaId) {
        self.replica_mut(id).link_lost();
    }

    /// Stops or restarts shipping to every replica.
    pub fn set_paused(&mut self, paused: bool) {
        self.replicas.iter_mut().for_each(|replica| replica.paused = paused);
    }

    /// No write waits for an outbox or a replica any more: the agent stops.
    pub fn stop_stalling(&mut self) {
        self.policy.overflow = Overflow::Map;
        self.stopping = true;
    }

    /// A replica's pairing was taken away: what it lacks is noted, nothing is kept for it.
    pub fn dismiss(&mut self, id: ReplicaId) {
        let (layout, last) = (Arc::clone(&self.layout), self.last);
        self.replica_mut(id).collapse(&layout, last, ResyncReason::Overflow);
        self.set_mode(id, Mode::Async);
    }

    /// Whether a job's extent is still to be read.
    pub fn wants(&self, id: ReplicaId, job: &Job) -> bool {
        self.replica(id).flight.wants(job.extent, job.key)
    }

    /// The spill of a replica's outbox failed in reading: what it held is in the map from here on.
    pub fn spill_lost(&mut self, id: ReplicaId) {
        let (layout, last) = (Arc::clone(&self.layout), self.last);
        self.replica_mut(id).collapse(&layout, last, ResyncReason::Fault);
    }
}
