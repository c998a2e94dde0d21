//! What time does to a source: epochs end, resyncs begin and end.

use vgship_base::ids::{ReplicaId, Seq};
use vgship_base::record::{Body, EpochEnd, Record, ResyncBegin, ResyncReason, Target};
use vgship_base::units::Tick;

use super::Source;
use super::resync::bound;
use crate::ship::replica::Flow;

impl Source {
    /// Time passed: epochs end, resyncs begin and end. `clock` is the wall clock in microseconds
    /// since 1970.
    pub fn tick(&mut self, now: Tick, clock: u64) {
        self.now = now;
        if self.giving.handed.is_some() {
            return;
        }
        for id in self.ids() {
            if self.unwritten {
                break;
            }
            if let Some(reason) = self.replica(id).must_resync() {
                self.begin_resync(id, reason);
            } else if self.replica(id).resync_is_done() {
                let session = self.replica(id).resync.map_or(0, |resync| resync.session);
                let seq = self.push_for(id, Body::ResyncEnd { session });
                self.replica_mut(id).end_resync(seq);
            }
        }
        if now >= self.next_epoch {
            self.next_epoch = Tick(now.0 + self.policy.epoch);
            self.end_epoch(clock);
        }
        self.review();
    }

    pub(super) fn begin_resync(&mut self, id: ReplicaId, reason: ResyncReason) {
        let generation = self.generation;
        let replica = self.replica_mut(id);
        // Numbers may be missing only when the outbox was emptied into the map.
        let after = if replica.flow == Flow::Stream { None } else { Some(replica.sent()) };
        let (session, extents) = (replica.begin_resync(reason), replica.dirty.count());
        let after = after.unwrap_or(self.last);
        let begin = ResyncBegin { session, after, generation, reason, extents };
        let seq = self.push_for(id, Body::ResyncBegin(begin));
        self.replica_mut(id).resync_began(seq);
    }

    pub(super) fn end_epoch(&mut self, clock: u64) {
        if self.replicas.iter().all(|replica| replica.flow != Flow::Stream) {
            return;
        }
        self.last = self.last.next();
        let seq = self.last;
        for replica in &mut self.replicas {
            bound(replica, &self.layout, self.policy.overflow, seq);
        }
        for replica in self.replicas.iter_mut().filter(|replica| replica.flow == Flow::Stream) {
            let (origin, chain) =
                replica.chain.map_or((Seq::ZERO, [0; 32]), |chain| (chain.origin, chain.hash));
            let first = replica.roll_epoch(seq);
            replica.pace.epoch_ended(seq, self.now);
            let body = Body::EpochEnd(EpochEnd { clock, first, origin, chain });
            replica.outbox.push(Record { seq, target: Target::All, body });
        }
    }
}
