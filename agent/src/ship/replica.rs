//! One replica, as its source sees it: what it has promised, what lies in its outbox, in which
//! extents it may differ, how far its resync is.

use vgship_base::extent::Extent;
use vgship_base::ids::{PeerId, ReplicaId, Seq, Start, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Chain, Record, ResyncReason, Target};
use vgship_base::units::Span;

use super::dirty::DirtyMap;
use super::flight::{Flight, Job, PartHashes};
use super::pace::Pace;
use super::standing::{Out, Sync};
use crate::capture::source::Checks;
use crate::outbox::queue::{Budget, Queue};

/// Extents that one replica may have in flight. With 64 KiB extents: 32 MiB, which covers 100 ms
/// of round trip at 2.5 Gbit/s.
const FLIGHT_MAX: usize = 512;

/// Bytes that may wait for the link before a resync adds more: what a live write may find ahead
/// of it. Unit: bytes.
const RESYNC_BACKLOG: u64 = 4 << 20;

/// Where live writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Into the outbox.
    Stream,
    /// Into the dirty map only, until a resync begins; and why.
    Map(ResyncReason),
}

/// A resync under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resync {
    /// Names it in the stream.
    pub session: u64,
    /// Why.
    pub reason: ResyncReason,
    /// Extents that were to be looked at when it began, and those added since.
    pub total: u64,
    /// The seq of its begin.
    pub begins: Seq,
    /// The seq of its end, once that is in the outbox.
    pub ends: Option<Seq>,
}

/// How far a replica says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last record that its journal holds durably.
    pub durable: Seq,
    /// The last record that its volumes hold durably.
    pub applied: Seq,
    /// The source's clock at the last epoch end that is durable there. Unit: microseconds since
    /// 1970; 0 before the first.
    pub durable_clock: u64,
}

/// A live link to the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    /// The last record that was handed to it.
    sent: Seq,
}

/// One replica of a source.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked by itself")]
pub struct Replica {
    /// Its index among the source's replicas.
    pub id: ReplicaId,
    /// Who it is.
    pub peer: PeerId,
    /// Whether it keeps what it cannot read: all that is in its outbox is veiled.
    pub blind: bool,
    /// The last start of the source in which it had a link.
    pub met: Start,
    /// Whether the operator stopped shipping to it.
    pub paused: bool,
    /// The highest seq that it promised.
    pub durable: Seq,
    /// The highest seq that its volumes hold durably.
    pub applied: Seq,
    /// The source's clock at the last epoch end that is durable there. Unit: microseconds since
    /// 1970; 0 before the first.
    pub durable_clock: u64,
    /// Where live writes go.
    pub flow: Flow,
    /// Its outbox.
    pub outbox: Queue,
    /// Where it may differ.
    pub dirty: DirtyMap,
    /// Extents taken out of `dirty` and not settled yet.
    pub flight: Flight,
    /// The resync under way.
    pub resync: Option<Resync>,
    /// The hash chain of its stream, from its last resync end on.
    pub chain: Option<Chain>,
    /// Whether something was found that only a resync of the map mends.
    pub wants_resync: Option<ResyncReason>,
    /// Whether a resync of it has ever ended.
    pub whole: bool,
    /// Whether writes wait for it.
    pub sync: Sync,
    /// How far it is behind, and whether writers are slowed for it.
    pub pace: Pace,
    /// Its self-check.
    pub checks: Checks,
    link: Option<Link>,
    /// Whether the link has moved since the outbox was emptied into the map.
    moved: bool,
    sessions: u64,
    epoch_first: Seq,
}

impl Replica {
    /// A replica whose writes go to the map until its first link.
    pub fn new(
        id: ReplicaId,
        peer: PeerId,
        dirty: DirtyMap,
        why: ResyncReason,
        budget: Budget,
    ) -> Replica {
        Replica {
            id,
            peer,
            blind: false,
            met: Start(0),
            paused: false,
            durable: Seq::ZERO,
            applied: Seq::ZERO,
            durable_clock: 0,
            flow: Flow::Map(why),
            outbox: Queue::new(budget, Seq::ZERO),
            dirty,
            flight: Flight::default(),
            resync: None,
            chain: None,
            wants_resync: None,
            whole: false,
            sync: Sync::default(),
            pace: Pace::default(),
            checks: Checks::default(),
            link: None,
            moved: false,
            sessions: 0,
            epoch_first: Seq::ZERO,
        }
    }

    /// Whether a link stands.
    pub fn linked(&self) -> bool {
        self.link.is_some()
    }

    /// The last record that was handed to the present link.
    pub fn sent(&self) -> Seq {
        self.link.map_or(self.durable, |link| link.sent)
    }

    /// Everything in the outbox and in flight goes into the map; live writes follow.
    pub fn collapse(&mut self, layout: &Layout, floor: Seq, why: ResyncReason) {
        let dirty = &mut self.dirty;
        self.outbox.collapse(layout, floor, |volume, span| dirty.insert_span(layout, volume, span));
        self.ground();
        self.pace.clear();
        self.resync = None;
        self.chain = None;
        self.moved = false;
        self.flow = Flow::Map(why);
    }

    /// Extents in flight go back into the map (R1).
    fn ground(&mut self) {
        self.checks.clear();
        for extent in self.flight.drain() {
            self.dirty.insert(extent);
        }
    }

    /// A change of the source: into the outbox, or into the map.
    pub fn take(&mut self, layout: &Layout, record: &Record, hash: Option<[u8; 32]>) {
        match (self.flow, record.changes()) {
            (Flow::Stream, _) => {
                if let Some(chain) = &mut self.chain {
                    chain.add(record, hash);
                }
                self.outbox.push(record.clone());
            }
            (Flow::Map(_), Some((volume, span))) => self.dirty.insert_span(layout, volume, span),
            (Flow::Map(_), None) => {}
        }
    }

    /// A record of some replica's resync: as it is for its target, void for all others (R9).
    pub fn take_for(&mut self, target: ReplicaId, record: &Record) {
        if self.flow == Flow::Stream {
            let void = || Record { seq: record.seq, target: Target::All, body: Body::Void };
            self.outbox.push(if target == self.id { record.clone() } else { void() });
        }
    }

    /// A link stands; the replica holds everything up to `durable`, and the outbox the rest.
    pub fn link_continues(&mut self, durable: Seq) {
        self.outbox.rewind(durable);
        self.linked_at(durable);
        let (applied, durable_clock) = (self.applied, self.durable_clock);
        self.acked(&Progress { durable, applied, durable_clock });
    }

    /// A link stands; what follows needs a resync first. [`Replica::collapse`] came before.
    pub fn linked_at(&mut self, durable: Seq) {
        self.durable = durable;
        self.link = Some(Link { sent: durable });
    }

    /// The link broke: nothing in flight may be taken as arrived.
    pub fn link_lost(&mut self) {
        self.link = None;
        self.ground();
    }

    /// The next records for the link.
    pub fn batch(&mut self) -> Vec<Record> {
        let Some(link) = self.link.as_mut().filter(|_| !self.paused) else { return Vec::new() };
        let batch = self.outbox.take();
        if let Some(last) = batch.last() {
            link.sent = last.seq;
        }
        batch
    }

    /// The replica acknowledged. Claims to hold what was never sent are not believed.
    pub fn acked(&mut self, progress: &Progress) {
        let Progress { durable, applied, durable_clock } = *progress;
        if durable > self.sent() || durable < self.durable {
            return;
        }
        self.moved = true;
        self.durable = durable;
        self.applied = self.applied.max(applied.min(durable));
        self.durable_clock = self.durable_clock.max(durable_clock);
        self.outbox.acked(durable);
        self.flight.acked(durable);
        self.pace.durable(durable);
        if self.resync.is_some_and(|resync| resync.ends.is_some_and(|end| durable >= end)) {
            self.resync = None;
            self.whole = true;
        }
    }

    /// Whether it is connected, consistent, and given what is written.
    pub fn follows(&self) -> bool {
        self.unfit().is_none()
    }

    /// Why it does not follow.
    pub fn unfit(&self) -> Option<Out> {
        match self.flow {
            _ if self.paused => Some(Out::Paused),
            _ if !self.linked() => Some(Out::Disconnected),
            Flow::Stream if self.resync.is_none() => None,
            _ if self.whole => Some(Out::Resyncing),
            _ => Some(Out::FirstSync),
        }
    }

    /// Whether a resync must begin now.
    pub fn must_resync(&self) -> Option<ResyncReason> {
        if !self.linked() || self.paused {
            return None;
        }
        match self.flow {
            // Into a link that has stopped moving a resync would only overflow the outbox again.
            Flow::Map(why) => (self.moved || self.durable >= self.sent()).then_some(why),
            Flow::Stream if self.resync.is_none() => self.wants_resync,
            Flow::Stream => None,
        }
    }

    /// Begins a resync: what follows goes through the outbox again. Returns its session.
    pub fn begin_resync(&mut self, reason: ResyncReason) -> u64 {
        self.sessions += 1;
        self.flow = Flow::Stream;
        self.chain = None;
        self.wants_resync = None;
        let total = self.dirty.count();
        let session = self.sessions;
        let (begins, ends) = (Seq::ZERO, None);
        self.resync = Some(Resync { session, reason, total, begins, ends });
        session
    }

    /// The resync's begin took this seq.
    pub fn resync_began(&mut self, seq: Seq) {
        if let Some(resync) = &mut self.resync {
            resync.begins = seq;
        }
    }

    /// Whether the resync has nothing left to do but to end (R7).
    pub fn resync_is_done(&self) -> bool {
        self.flow == Flow::Stream
            && self.resync.is_some_and(|resync| resync.ends.is_none())
            && self.dirty.is_empty()
            && self.flight.is_empty()
    }

    /// The resync's end took this seq; the hash chain begins behind it.
    pub fn end_resync(&mut self, seq: Seq) {
        if let Some(resync) = &mut self.resync {
            resync.ends = Some(seq);
        }
        self.chain = Some(Chain::new(seq));
        self.epoch_first = seq.next();
    }

    /// Takes the next extent to offer that is not `unready` out of the map, if the window allows
    /// one.
    pub fn next_offer(&mut self, unready: impl Fn(Extent) -> bool) -> Option<Job> {
        let open = self.resync.is_some_and(|resync| resync.ends.is_none());
        let fits = self.flight.len() < FLIGHT_MAX && self.outbox.unsent_bytes() < RESYNC_BACKLOG;
        if !open || !self.linked() || self.paused || !fits || self.flow != Flow::Stream {
            return None;
        }
        let flight = &self.flight;
        let extent = self.dirty.take_next(|extent| flight.contains(extent) || unready(extent))?;
        Some(self.flight.begin(extent))
    }

    /// The next extent to read and ship.
    pub fn next_ship(&mut self) -> Option<Job> {
        if self.outbox.unsent_bytes() < RESYNC_BACKLOG { self.flight.next_needed() } else { None }
    }

    /// The replica's answers to offers of this session; others are too late.
    pub fn answered(&mut self, session: u64, offer: Seq, need: Option<PartHashes>) {
        if self.resync.is_none_or(|resync| resync.session != session) {
            return;
        }
        match need {
            None => drop(self.flight.matched(offer)),
            Some(parts) => self.flight.needs(offer, parts),
        }
    }

    /// What may differ for reasons of I/O: durably dirty until a resync has read it back (R8).
    pub fn taint(&mut self, layout: &Layout, volume: VolumeId, span: Span) {
        self.suspect(layout, volume, span, ResyncReason::Fault);
    }

    /// What may differ although no record says so: durably dirty until a resync has read it back.
    pub fn suspect(&mut self, layout: &Layout, volume: VolumeId, span: Span, why: ResyncReason) {
        self.dirty.insert_span(layout, volume, span);
        self.want_resync(why);
    }

    /// A resync of the map must come, unless one is under way that takes in what was just noted.
    fn want_resync(&mut self, why: ResyncReason) {
        if self.flow == Flow::Stream && self.resync.is_none_or(|resync| resync.ends.is_some()) {
            self.wants_resync = Some(why);
        }
    }

    /// The volumes have grown. The link ends here: what comes next may lie where the replica has
    /// no room yet.
    pub fn grow(&mut self, old: &Layout, new: &Layout) {
        self.link_lost();
        self.dirty.grow(old, new);
        self.outbox.grow(new);
        self.want_resync(ResyncReason::Grown);
    }

    /// The first record of the epoch that ends now; the next begins behind `end`.
    pub fn roll_epoch(&mut self, end: Seq) -> Seq {
        std::mem::replace(&mut self.epoch_first, end.next())
    }

    /// The map as it must be on disk: what may differ and what is in flight (R1).
    pub fn durable_dirty(&self) -> DirtyMap {
        let mut map = self.dirty.clone();
        self.flight.extents().for_each(|extent: Extent| map.insert(extent));
        map
    }

    /// Whether every write up to `seq` is durable on the replica or stands in its map (R4 a).
    pub fn accounts_for(&self, seq: Seq) -> bool {
        matches!(self.flow, Flow::Map(_)) || seq <= self.durable
    }
}

#[cfg(test)]
mod tests;
