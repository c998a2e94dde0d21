//! The source of one group: gives every write its place in the order and every replica its due.
//! Decides everything, does no I/O; the shell holds it under one lock, for about a microsecond a
//! call (`docs/decisions/`).
//!
//! A write passes: [`Source::begin`] (range lock, mark, seq, outbox), the LV, [`Source::end`].

use std::sync::Arc;

use bytes::Bytes;
use vgship_base::extent::Extent;
use vgship_base::ids::{Generation, GroupId, PeerId, ReplicaId, Seq, Start, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::limits::PAYLOAD_MAX;
use vgship_base::record::{Body, EpochEnd, Hash, Record, ResyncBegin, ResyncReason, Target};
use vgship_base::units::{Span, Tick};

use super::activity::{Activity, Completion, Region, RegionSize};
use super::ledger_format::{LINEAGE_MAX, LedgerState, ReplicaState};
use super::locks::RangeLocks;
use super::versions::Versions;
use crate::outbox::queue::{Budget, Room};
use crate::ship::dirty::DirtyMap;
use crate::ship::flight::{Job, JobKey, PartHashes};
use crate::ship::replica::{Flow, Replica};
use crate::ship::verdict::{ReplicaPoint, SourcePoint, Verdict, ahead, judge};

/// What to do with writes when an outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Let them go on and note dirty extents only.
    Map,
    /// Let them wait.
    Stall,
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
}

/// A write or a zeroing that an application asked for. Its bounds were checked.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which volume.
    pub volume: VolumeId,
    /// Which bytes; not empty.
    pub span: Span,
    /// The new content, as long as the span; `None` for zeroes.
    pub data: Option<Bytes>,
}

impl Change {
    /// The records' bodies: pieces that fit a record each.
    fn bodies(&self) -> impl Iterator<Item = Body> + '_ {
        let step = self.data.as_ref().map_or(u64::MAX, |_| PAYLOAD_MAX.into());
        let starts = (0..self.span.len).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        starts.map(move |at| match &self.data {
            None => Body::Zero { volume: self.volume, span: self.span },
            Some(data) => {
                let start = usize::try_from(at).expect("within a buffer");
                let end = data.len().min(start + PAYLOAD_MAX as usize);
                let (volume, offset) = (self.volume, self.span.offset + at);
                Body::Write { volume, offset, data: data.slice(start..end) }
            }
        })
    }

    /// BLAKE3 of each record's data, for [`Source::begin`]: computed outside the lock.
    pub fn hashes(&self) -> Vec<Hash> {
        let data = self.data.as_ref().map(|data| data.chunks(PAYLOAD_MAX as usize));
        data.into_iter().flatten().map(|piece| *blake3::hash(piece).as_bytes()).collect()
    }
}

/// The duty to report how a write on the LV ended, with [`Source::end`].
#[derive(Debug)]
#[must_use = "a write that is never ended keeps its range locked"]
pub struct Ticket {
    volume: VolumeId,
    span: Span,
    /// The last seq that the write took.
    pub seq: Seq,
}

/// Whether a write may go to the LV now.
#[derive(Debug)]
pub enum Begin {
    /// It may; it has its seq.
    Go(Ticket),
    /// Its regions must be marked first: see [`Source::wanted_marks`].
    Mark,
    /// An overlapping write is under way.
    Busy,
    /// An outbox has no room; it will have some when the spill or the link has taken some.
    Room,
    /// The hashes of its data are needed.
    Hash,
}

/// What came of content that was read for a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipped {
    /// It is in the outbox, or was not wanted any more.
    Done,
    /// The extent was written meanwhile: hold it, read and ship again.
    Again,
}

/// The source of one group.
#[derive(Debug)]
pub struct Source {
    layout: Arc<Layout>,
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

    // ---- application writes ----

    /// A write wants to go to the LV. `hashes` are [`Change::hashes`], needed when
    /// [`Begin::Hash`] says so; `patient` is whether it may wait for room in an outbox.
    pub fn begin(&mut self, change: &Change, hashes: Option<&[Hash]>, patient: bool) -> Begin {
        let (volume, span) = (change.volume, change.span);
        assert!(self.layout.holds(volume, span), "the tap checks bounds");
        if self.locks.blocked(volume, span) {
            return Begin::Busy;
        }
        if !self.activity.ready(volume, span) {
            return Begin::Mark;
        }
        if hashes.is_none() && change.data.is_some() && self.wants_hashes() {
            return Begin::Hash;
        }
        if !self.make_room(change.data.as_ref().map_or(0, Bytes::len) as u64 + 256, patient) {
            return Begin::Room;
        }
        self.locks.lock(volume, span, self.last.next());
        self.bump(volume, span);
        let mut hashes = hashes.unwrap_or_default().iter().copied();
        for body in change.bodies() {
            self.last = self.last.next();
            let record = Record { seq: self.last, target: Target::All, body };
            let hash = change.data.is_some().then(|| hashes.next()).flatten();
            for replica in &mut self.replicas {
                replica.take(&self.layout, &record, hash);
            }
        }
        self.activity.begin(volume, span, self.last, self.now);
        Begin::Go(Ticket { volume, span, seq: self.last })
    }

    /// Whether [`Source::begin`] will ask for hashes.
    pub fn wants_hashes(&self) -> bool {
        self.replicas.iter().any(|replica| replica.chain.is_some())
    }

    fn make_room(&mut self, bytes: u64, patient: bool) -> bool {
        let last = self.last;
        for replica in self.replicas.iter_mut().filter(|replica| replica.flow == Flow::Stream) {
            match (replica.outbox.room(bytes), self.policy.overflow) {
                (Room::Free, _) => {}
                (Room::Soon, Overflow::Map) if !patient => {
                    replica.collapse(&self.layout, last, ResyncReason::Overflow);
                }
                (Room::Full, Overflow::Map) => {
                    replica.collapse(&self.layout, last, ResyncReason::Overflow);
                }
                // Nobody waits for a replica that an operator stopped.
                (_, Overflow::Stall) if replica.paused => {
                    replica.collapse(&self.layout, last, ResyncReason::Overflow);
                }
                (Room::Soon, _) | (Room::Full, Overflow::Stall) => return false,
            }
        }
        true
    }

    fn bump(&mut self, volume: VolumeId, span: Span) {
        let (first, end) = self.layout.extent.touched(span);
        (first..end).for_each(|index| self.versions.bump(Extent { volume, index }));
    }

    /// The write of a ticket ended on the LV. After a failure its extents are dirty for every
    /// replica until a resync has read them back (R8).
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is consumed by its one report")]
    pub fn end(&mut self, ticket: Ticket, written: bool) {
        let Ticket { volume, span, .. } = ticket;
        self.locks.unlock(volume, span);
        self.bump(volume, span);
        self.activity.end(volume, span);
        if !written {
            for replica in &mut self.replicas {
                replica.taint(&self.layout, volume, span);
            }
        }
    }

    /// Regions to be marked in the ledger; then call [`Source::marked`].
    pub fn wanted_marks(&self) -> Vec<Region> {
        self.activity.wanted()
    }

    /// These regions are marked durably.
    pub fn marked(&mut self, regions: &[Region]) {
        self.activity.mark(regions, self.now);
    }

    /// What a flush of this volume that begins now covers.
    pub fn flush_begins(&self, volume: VolumeId) -> Completion {
        self.activity.completed(volume)
    }

    /// A flush ended. After a failure everything written since the last good one is dirty (R8).
    pub fn flush_ended(&mut self, volume: VolumeId, covers: Completion, flushed: bool) {
        if flushed {
            self.activity.flushed(volume, covers);
            return;
        }
        for region in self.activity.unflushed(volume) {
            let Some(span) = self.clip(region) else { continue };
            for replica in &mut self.replicas {
                replica.taint(&self.layout, volume, span);
            }
        }
    }

    // ---- links ----

    /// A replica said hello. The verdict has been carried out when this returns, except that after
    /// any but [`Verdict::Continue`] the ledger must be written before anything is sent: after a
    /// crash it is the only one to know what the replica lacks, and which start the replica met.
    pub fn link_up(&mut self, id: ReplicaId, point: &ReplicaPoint, fresh: Generation) -> Verdict {
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

    fn point_for(&self, id: ReplicaId, point: &ReplicaPoint) -> SourcePoint<'_> {
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

    fn restart(&mut self, id: ReplicaId, why: ResyncReason, durable: Seq) {
        let (layout, last) = (Arc::clone(&self.layout), self.last);
        let replica = self.replica_mut(id);
        replica.collapse(&layout, last, why);
        replica.linked_at(durable);
    }

    /// A new history begins; every replica gets to know by a resync. `seen` is the highest seq of
    /// the old one that a replica showed: a link that breaks now must not make it diverged.
    fn begin_generation(&mut self, fresh: Generation, seen: Seq) {
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
    fn count_above(&mut self, seen: Start) {
        let above = self.start.max(seen).0.checked_add(1);
        self.start = Start(above.expect("without a start left the verdict is another"));
        self.last = Seq::before(self.start);
        for replica in &mut self.replicas {
            replica.dirty.fill();
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

    /// No write waits for an outbox any more: the agent stops.
    pub fn stop_stalling(&mut self) {
        self.policy.overflow = Overflow::Map;
    }

    /// A replica's pairing was taken away: what it lacks is noted, nothing is kept for it.
    pub fn dismiss(&mut self, id: ReplicaId) {
        let (layout, last) = (Arc::clone(&self.layout), self.last);
        self.replica_mut(id).collapse(&layout, last, ResyncReason::Overflow);
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

    // ---- resync ----

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

    fn span(&self, extent: Extent) -> Span {
        self.layout.span(extent).expect("extents in flight are within the layout")
    }

    /// Keeps writers away from an extent that is written too often to be read otherwise. Returns
    /// the version to ship with, or `None` while somebody writes.
    pub fn hold(&mut self, extent: Extent) -> Option<u64> {
        let span = self.span(extent);
        if self.locks.busy(extent.volume, span) {
            self.locks.wait(extent.volume, span);
            return None;
        }
        self.locks.lock(extent.volume, span, self.last);
        Some(self.versions.of(extent))
    }

    /// Ends waiting for [`Source::hold`].
    pub fn give_up(&mut self, extent: Extent) {
        let span = self.span(extent);
        self.locks.give_up(extent.volume, span);
    }

    /// Ends [`Source::hold`].
    pub fn release(&mut self, extent: Extent) {
        let span = self.span(extent);
        self.locks.unlock(extent.volume, span);
    }

    /// Reading an extent failed: it stays dirty, and the walk goes on.
    pub fn unreadable(&mut self, id: ReplicaId, extent: Extent, key: JobKey) {
        let replica = self.replica_mut(id);
        if replica.flight.wants(extent, key) {
            replica.flight.settled(extent);
            replica.dirty.insert(extent);
        }
    }

    /// A replica's answer to an offer.
    pub fn answered(&mut self, id: ReplicaId, session: u64, offer: Seq, need: Option<PartHashes>) {
        self.replica_mut(id).answered(session, offer, need);
    }

    fn push_for(&mut self, id: ReplicaId, body: Body) -> Seq {
        self.last = self.last.next();
        let record = Record { seq: self.last, target: Target::One(id), body };
        for replica in self.replicas.iter_mut().filter(|replica| replica.id != id) {
            bound(replica, &self.layout, self.policy.overflow, record.seq);
        }
        self.replicas.iter_mut().for_each(|replica| replica.take_for(id, &record));
        self.last
    }

    // ---- time ----

    /// Time passed: epochs end, resyncs begin and end. `clock` is the wall clock in microseconds
    /// since 1970.
    pub fn tick(&mut self, now: Tick, clock: u64) {
        self.now = now;
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
    }

    fn begin_resync(&mut self, id: ReplicaId, reason: ResyncReason) {
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

    fn end_epoch(&mut self, clock: u64) {
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
            let body = Body::EpochEnd(EpochEnd { clock, first, origin, chain });
            replica.outbox.push(Record { seq, target: Target::All, body });
        }
    }

    // ---- the ledger ----

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

    fn state(&self, clean: bool) -> LedgerState {
        let known = |replica: &Replica| ReplicaState {
            peer: replica.peer,
            met: replica.met,
            acked: replica.durable,
            dirty: replica.durable_dirty().into_sets(),
        };
        LedgerState {
            group: self.group,
            generation: self.generation,
            lineage: self.lineage.clone(),
            start: self.start,
            clean,
            replicas: self.replicas.iter().map(known).collect(),
            marked: self.activity.marked(),
        }
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

    /// The history that is written.
    pub fn generation(&self) -> Generation {
        self.generation
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

/// Keeps records that no application waits for from filling the outbox of a replica that is away.
/// One that is there takes them: to empty its outbox would only begin its resync again, and two
/// replicas would do that to each other for ever.
fn bound(replica: &mut Replica, layout: &Layout, overflow: Overflow, floor: Seq) {
    const SMALL: u64 = 256;
    let away = !replica.linked() || replica.paused;
    let full = replica.flow == Flow::Stream && replica.outbox.room(SMALL) == Room::Full;
    if away && full && overflow == Overflow::Map {
        replica.collapse(layout, floor, ResyncReason::Overflow);
    }
}
