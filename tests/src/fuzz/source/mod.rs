//! The source's core, driven by any order of events: writes, links, answers true and false, time,
//! failures and crashes. Each LV's extent holds a number, so that a model can say at any moment
//! what a replica holds, what the source holds, and what the order between them was.

mod lanes;
mod lv;
mod replica;

use std::sync::Arc;

use vgship::capture::activity::RegionSize;
use vgship::capture::ledger_format::LedgerState;
use vgship::capture::source::{Begin, Change, Complete, Overflow, Policy, Source, Ticket};
use vgship::outbox::queue::Budget;
use vgship::ship::pace::{LagLimit, LagPolicy, OnLag};
use vgship::ship::standing::{Mode, Standing, SyncPolicy};
use vgship_base::ids::{Generation, GroupId, PeerId, ReplicaId, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::units::{Span, Tick};

use super::Input;
use super::state::small_layout;
use lanes::Lane;
use lv::{Lv, PAGE, PAGES};
use replica::Replica;

/// The only volume that is written: numbers in its pages.
const VOLUME: VolumeId = VolumeId(0);

/// A write under way.
struct Flying {
    ticket: Ticket,
    change: Change,
    written: bool,
}

struct World {
    layout: Arc<Layout>,
    policy: Policy,
    source: Source,
    lv: Lv,
    flying: Vec<Flying>,
    lanes: Vec<Lane>,
    replicas: Vec<Replica>,
    /// What a crash would find.
    ledger: LedgerState,
    now: u64,
    generations: u8,
}

/// Events in any order; then nothing is lost: what a replica lacks stands in its map.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.settle();
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let budget =
            Budget { ram: 1500 * (1 + input.below(8)) as u64, spill: 4000 * input.below(4) as u64 };
        let kind = input.u8();
        let overflow = if kind & 1 == 0 { Overflow::Map } else { Overflow::Stall };
        let limit = LagLimit::Bytes(3000);
        let lag = (kind & 8 != 0).then_some(LagPolicy { limit, act: OnLag::Slow });
        let (region, sync) = (RegionSize::from_log2(14), SyncPolicy::default());
        let policy = Policy { overflow, budget, epoch: 20, region, sync, lag };
        let mut layout = small_layout();
        layout.volumes[0].masked = 0;
        let layout = Arc::new(layout);
        let generation = Generation([1; 16]);
        let mut source = Source::create(GroupId([7; 16]), generation, Arc::clone(&layout), policy);
        let count = 1 + usize::from(kind >> 1 & 1);
        for peer in 0..count {
            source.add_replica(PeerId([u8::try_from(peer).expect("few"); 32]));
        }
        let ledger = source.begin_checkpoint(0);
        source.checkpoint_written(generation);
        // The first is honest, so that every input proves something.
        let replica = |at| Replica::new(&layout, at > 0 && kind & 4 != 0);
        World {
            replicas: (0..count).map(replica).collect(),
            lanes: source.ids().map(|_| Lane::default()).collect(),
            layout,
            policy,
            source,
            lv: Lv::default(),
            flying: Vec::new(),
            ledger,
            now: 0,
            generations: 1,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let event = input.below(32);
        let at = if event < 14 { 0 } else { input.below(self.replicas.len()) };
        let id = ReplicaId(u8::try_from(at).expect("few"));
        match event {
            0..4 => self.write(input),
            4 => self.sync(input),
            5 => self.write_lv(input),
            6 | 7 => self.end(input),
            8 => self.flush(input.below(6) > 0),
            9 | 10 => self.tick(input.u8().into()),
            11 => self.write_ledger(input.u8().into()),
            12 if input.below(4) == 0 => self.source.set_paused(input.flag()),
            13 if input.below(4) == 0 => self.crash(),
            14 => self.link_up(id, input),
            15 if input.below(3) == 0 => self.link_lost(id),
            16..19 => self.receive(id),
            19 => self.acknowledge(id, input),
            20 | 21 => self.answer(id, input),
            22 | 23 => self.begin_reading(id),
            24..28 => self.read_on(id, input),
            28 => self.spill(id, input),
            29 => self.refill(id, input),
            30 if input.below(8) == 0 => self.source.spill_lost(id),
            30 | 31 => self.check(id, input.flag()),
            _ => self.tick(7),
        }
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let first = input.below(PAGES);
        let count = 1 + if input.below(4) == 0 { input.below(PAGES - first) } else { 0 };
        let change = self.lv.change(first, count);
        let patient = input.flag();
        let mut begun = self.source.begin(&change, None, patient);
        if let Begin::Mark = begun {
            let wanted = self.source.wanted_marks();
            self.ledger.marked.extend(&wanted);
            self.source.marked(&wanted);
            begun = self.source.begin(&change, None, patient);
        }
        if let Begin::Ready = begun {
            begun = self.source.begin(&change, Some(&change.ready(None)), patient);
        }
        match begun {
            Begin::Go(ticket) => {
                self.lv.began(ticket.seq, &change);
                self.flying.push(Flying { ticket, change, written: false });
            }
            Begin::Mark | Begin::Ready => panic!("asked for twice"),
            Begin::Busy => assert!(self.is_busy(change.span), "nobody writes there"),
            Begin::Room => assert!(patient || self.policy.overflow == Overflow::Stall),
            Begin::Pace => assert!(self.policy.lag.is_some(), "no lag is bounded"),
            Begin::Fenced => panic!("no role is given away here"),
        }
    }

    /// A replica becomes sync or async; a write is asked for. What may be told of is durable on
    /// every sync replica that counts.
    fn sync(&mut self, input: &mut Input<'_>) {
        let id = ReplicaId(u8::try_from(input.below(self.replicas.len())).expect("few"));
        if input.below(8) == 0 {
            let mode = if input.flag() { Mode::Sync } else { Mode::Async };
            self.source.set_mode(id, mode);
        }
        let last = self.source.issued();
        let told = self.source.completion(last) == Complete::Now;
        let replica = self.source.replica(id);
        let counts = replica.sync.standing() == Standing::InForce;
        assert!(!(told && counts) || replica.durable >= last, "R10: told of what is not there");
    }

    fn is_busy(&self, span: Span) -> bool {
        let writes = self.flying.iter().any(|flying| flying.change.span.overlaps(span));
        writes || self.lanes.iter().any(Lane::holds_or_waits)
    }

    fn write_lv(&mut self, input: &mut Input<'_>) {
        if !self.flying.is_empty() {
            let at = input.below(self.flying.len().min(256));
            self.flying[at].written = true;
            self.lv.write(&self.flying[at].change);
        }
    }

    fn end(&mut self, input: &mut Input<'_>) {
        if self.flying.is_empty() {
            return;
        }
        let at = input.below(self.flying.len().min(256));
        let mut flying = self.flying.swap_remove(at);
        let fails = input.below(32) == 1;
        if fails {
            self.lv.faults = true;
        } else if !flying.written {
            flying.written = true;
            self.lv.write(&flying.change);
        }
        let _ = self.source.end(flying.ticket, !fails);
    }

    fn flush(&mut self, works: bool) {
        let covers = self.source.flush_begins(VOLUME);
        if works {
            self.lv.flush();
        } else {
            self.lv.lose_cache();
            self.flying.iter_mut().for_each(|flying| flying.written = false);
        }
        self.source.flush_ended(VOLUME, covers, works);
    }

    fn tick(&mut self, millis: u64) {
        self.now += millis;
        self.source.tick(Tick(self.now), self.now * 1000);
    }

    fn write_ledger(&mut self, idle: u64) {
        self.ledger = self.source.begin_checkpoint(idle);
        self.source.checkpoint_written(self.ledger.generation);
        self.check_ledger();
    }

    /// The program ends; what is on the LV stays. It starts again from the ledger.
    fn crash(&mut self) {
        self.check_ledger();
        let (state, layout) = (self.ledger.clone(), Arc::clone(&self.layout));
        let fresh = self.fresh_generation();
        let before = self.source.issued();
        self.source = Source::resume(state, layout, self.policy, fresh);
        assert!(self.source.issued() >= before || self.source.generation() == fresh, "a seq twice");
        self.flying.clear();
        self.lanes.iter_mut().for_each(|lane| *lane = Lane::default());
        self.replicas.iter_mut().for_each(Replica::lose_link);
        self.lv.start_again();
        self.write_ledger(u64::MAX);
        self.flush(true);
    }

    fn fresh_generation(&mut self) -> Generation {
        self.generations = self.generations.wrapping_add(1);
        Generation([self.generations; 16])
    }

    /// I3: where a replica differs, the ledger's map or a marked region says so.
    fn check_ledger(&self) {
        for (replica, known) in self.replicas.iter().zip(&self.ledger.replicas) {
            let pages = replica.durable_pages();
            for page in (0..PAGES).filter(|&page| self.lv.may_differ(page, pages[page])) {
                let offset = page as u64 * PAGE;
                let region = |it: &&vgship::capture::activity::Region| {
                    it.volume == VOLUME
                        && self.policy.region.span(**it).overlaps(Span::new(offset, 1))
                };
                let noted =
                    known.dirty[0].contains(self.layout.extent.touched(Span::new(offset, 1)).0);
                let marked = self.ledger.marked.iter().any(|it| region(&it));
                assert!(
                    replica.hostile || noted || marked,
                    "I3: page {page} differs and neither map nor marks know it"
                );
            }
        }
    }

    /// All writes end; then the outboxes are emptied into the maps.
    fn settle(&mut self) {
        for flying in std::mem::take(&mut self.flying) {
            if !flying.written {
                self.lv.write(&flying.change);
            }
            let _ = self.source.end(flying.ticket, true);
        }
        for id in self.source.ids() {
            self.source.dismiss(id);
            let replica = &self.replicas[usize::from(id.0)];
            let dirty = self.source.replica(id).durable_dirty();
            let pages = replica.durable_pages();
            for page in (0..PAGES).filter(|&page| self.lv.pages()[page] != pages[page]) {
                let span = Span::new(page as u64 * PAGE, 1);
                let noted = dirty.sets()[0].contains(self.layout.extent.touched(span).0);
                assert!(replica.hostile || noted, "page {page} differs and is in no map");
            }
        }
        let state = self.source.close();
        assert!(state.replicas.len() == self.replicas.len());
    }
}

/// Lives with a resync, live writes, a full outbox, a crash, and a hostile replica.
pub fn seeds() -> Vec<Vec<u8>> {
    let write = |page: u8| [0, page, 1, 0, 6, 0, 2];
    let writes: Vec<u8> = (0..6).flat_map(|page| write(page * 3)).collect();
    let up = [14, 0, 0];
    let resync: Vec<u8> = [
        &[9, 21][..],
        &[22, 0].repeat(3),
        &[24, 0, 9].repeat(6),
        &[16, 0, 19, 0, 255],
        &[20, 0, 0].repeat(8),
        &[22, 0].repeat(3),
        &[24, 0, 9].repeat(9),
        &[16, 0, 19, 0, 255],
    ]
    .concat();
    let stream: Vec<u8> = [&writes[..], &[16, 0, 19, 0, 255, 9, 30, 11, 0]].concat();
    let whole = [&up[..], &resync, &resync, &resync, &stream].concat();
    vec![
        [&[7, 0][..], &writes, &whole, &stream].concat(),
        [&[7, 2][..], &whole, &[13, 0], &writes, &whole].concat(),
        [&[0, 0][..], &whole, &writes, &writes, &writes, &whole].concat(),
        [&[3, 1][..], &[28, 0, 0], &whole, &writes, &[28, 0, 0, 29, 0, 0], &whole].concat(),
        [&[7, 6][..], &[14, 1, 0, 0, 255, 1, 2, 3], &writes, &[16, 1, 19, 1, 0, 255], &whole]
            .concat(),
        [&[7, 0][..], &whole, &[15, 0, 0], &writes, &whole, &[8, 0], &whole].concat(),
    ]
}
