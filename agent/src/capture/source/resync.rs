//! Resyncs of a source: which extent is read next, where its offer or its content stands.

use vgship_base::extent::Extent;
use vgship_base::ids::{ReplicaId, Seq};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Hash, Record, ResyncReason, Target};
use vgship_base::units::Span;

use super::{Overflow, Source};
use crate::outbox::queue::Room;
use crate::ship::flight::{Job, JobKey, PartHashes};
use crate::ship::replica::{Flow, Replica};

/// What came of content that was read for a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipped {
    /// It is in the outbox, or was not wanted any more.
    Done,
    /// The extent was written meanwhile: hold it, read and ship again.
    Again,
}

impl Source {
    /// The next extent to read for a resync of this replica: content that it needs comes first.
    /// With the job comes the version that [`Source::ship`] compares.
    pub fn next_job(&mut self, id: ReplicaId) -> Option<(Job, u64)> {
        let (locks, layout) = (&self.locks, &self.layout);
        let replica = &mut self.replicas[usize::from(id.0)];
        // A write that began before the resync stands in the map, not behind the resync's begin:
        // nobody would notice that what was read is without it.
        let begin = replica.resync.map_or(Seq::ZERO, |resync| resync.begins);
        let unready = |extent: Extent| {
            let span = layout.span(extent).expect("the map is within the layout");
            locks.busy_before(extent.volume, span, begin)
        };
        let job = replica.next_ship().or_else(|| replica.next_offer(unready))?;
        let version = self.versions.of(job.extent);
        Some((job, version))
    }

    /// An extent was read and hashed: it is offered here in the order. The content may be as old
    /// as the job: a write that came since stands before the offer and is judged with it.
    pub fn offer(&mut self, id: ReplicaId, extent: Extent, key: JobKey, hash: Hash) {
        if !self.replica(id).flight.wants(extent, key) {
            return;
        }
        let seq = self.push_for(id, Body::Offer { extent, hash });
        self.replica_mut(id).flight.offered(extent, seq);
    }

    /// An extent was read for a replica that needs it: without a lock, with the `version` that came
    /// with the job, or while [`Source::hold`] kept writers away. Its pieces go out with seqs of
    /// their own, unless something wrote into the extent meanwhile (R14).
    pub fn ship(
        &mut self,
        id: ReplicaId,
        job: &Job,
        version: u64,
        held: bool,
        pieces: Vec<Body>,
    ) -> Shipped {
        let extent = job.extent;
        if !self.replica(id).flight.wants(extent, job.key) {
            return Shipped::Done;
        }
        // What was read under the lock is current, whatever else shares the extent's counter.
        let overtaken = self.versions.of(extent) != version
            || self.locks.busy(extent.volume, self.span(extent));
        if overtaken && !held {
            return Shipped::Again;
        }
        let last = pieces.into_iter().map(|body| self.push_for(id, body)).last();
        let replica = self.replica_mut(id);
        match last {
            Some(seq) => replica.flight.shipped(extent, seq),
            None => replica.flight.settled(extent),
        }
        Shipped::Done
    }

    pub(super) fn span(&self, extent: Extent) -> Span {
        self.layout.span(extent).expect("extents in flight are within the layout")
    }

    /// Keeps writers away from an extent that is written too often to be read otherwise. Returns
    /// the version to ship with, or `None` while somebody writes.
    pub fn hold(&mut self, extent: Extent) -> Option<u64> {
        let span = self.slot(extent);
        if self.locks.busy(extent.volume, span) {
            self.locks.wait(extent.volume, span);
            return None;
        }
        self.locks.lock(extent.volume, span, self.last);
        Some(self.versions.of(extent))
    }

    /// Ends waiting for [`Source::hold`].
    pub fn give_up(&mut self, extent: Extent) {
        let span = self.slot(extent);
        self.locks.give_up(extent.volume, span);
    }

    /// Ends [`Source::hold`].
    pub fn release(&mut self, extent: Extent) {
        let span = self.slot(extent);
        self.locks.unlock(extent.volume, span);
    }

    /// What is held of an extent: all of its slot, so that a volume that grows meanwhile changes
    /// nothing of it.
    fn slot(&self, extent: Extent) -> Span {
        self.layout.extent.span(extent.index, u64::MAX)
    }

    /// Reading an extent failed: it stays dirty, and the walk goes on.
    pub fn unreadable(&mut self, id: ReplicaId, extent: Extent, key: JobKey) {
        let replica = self.replica_mut(id);
        if replica.flight.wants(extent, key) {
            replica.flight.settled(extent);
            replica.dirty.insert(extent);
        }
    }

    /// A replica's answer to an offer, or to a check when it was given outside of a resync: the
    /// session is 0 then. Returns an extent that a check found to differ: say it aloud.
    pub fn answered(
        &mut self,
        id: ReplicaId,
        session: u64,
        question: Seq,
        need: Option<PartHashes>,
    ) -> Option<Extent> {
        if session == 0 {
            return self.checked(id, question, need.is_none());
        }
        self.replica_mut(id).answered(session, question, need);
        None
    }

    pub(super) fn push_for(&mut self, id: ReplicaId, body: Body) -> Seq {
        self.last = self.last.next();
        let record = Record { seq: self.last, target: Target::One(id), body };
        for replica in self.replicas.iter_mut().filter(|replica| replica.id != id) {
            bound(replica, &self.layout, self.policy.overflow, record.seq);
        }
        self.replicas.iter_mut().for_each(|replica| replica.take_for(id, &record));
        self.last
    }
}

/// Keeps records that no application waits for from filling the outbox of a replica that is away.
/// One that is there takes them: to empty its outbox would only begin its resync again, and two
/// replicas would do that to each other for ever.
pub(super) fn bound(replica: &mut Replica, layout: &Layout, overflow: Overflow, floor: Seq) {
    const SMALL: u64 = 256;
    let away = !replica.linked() || replica.paused;
    let full = replica.flow == Flow::Stream && replica.outbox.room(SMALL) == Room::Full;
    if away && full && overflow == Overflow::Map {
        replica.collapse(layout, floor, ResyncReason::Overflow);
    }
}
