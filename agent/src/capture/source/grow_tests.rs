use std::sync::Arc;

use vgship_base::extent::ExtentSize;
use vgship_base::folder::SharedFolder;
use vgship_base::ids::{Generation, GroupId, PeerId, ReplicaId, Seq};
use vgship_base::layout::VolumeLayout;
use vgship_base::record::{Body, Record};
use vgship_base::sim::{Power, Rng, SimFolder};
use vgship_base::units::Tick;

use super::*;
use crate::capture::activity::RegionSize;
use crate::capture::ledger::Ledger;
use crate::capture::source::{After, Begin, Change, Overflow, Policy, Shipped, Ticket};
use crate::outbox::queue::{Budget, Moved};
use crate::ship::flight::Purpose;
use crate::ship::replica::{Flow, Progress};
use crate::ship::standing::SyncPolicy;
use crate::ship::verdict::{ReplicaPoint, Verdict};

const LV: VolumeId = VolumeId(0);
const GEN: Generation = Generation([1; 16]);
const ME: ReplicaId = ReplicaId(0);

/// Three extents and a short one; and a volume that never changes.
const OLD: u64 = 3 * 4096 + 512;
/// The short one is whole, and there is one more.
const NEW: u64 = 5 * 4096;

fn layout(bytes: u64) -> Arc<Layout> {
    let volume = |name: &str, bytes| VolumeLayout { name: name.parse().unwrap(), bytes, masked: 0 };
    let extent = ExtentSize::from_log2(12).unwrap();
    Arc::new(Layout { extent, volumes: vec![volume("lv", bytes), volume("other", 4096)] })
}

fn source(budget: Budget) -> Source {
    let (epoch, region) = (1_000_000, RegionSize::default());
    let (sync, lag) = (SyncPolicy::default(), None);
    let policy = Policy { overflow: Overflow::Map, budget, epoch, region, sync, lag };
    let mut source = Source::create(GroupId([2; 16]), GEN, layout(OLD), policy);
    source.add_replica(PeerId([3; 32]));
    source
}

const LARGE: Budget = Budget { ram: 1 << 20, spill: 0 };

fn link(source: &mut Source, fresh: bool, durable: Seq) -> Verdict {
    let point = ReplicaPoint { fresh, generation: GEN, durable, damaged: false };
    source.link_up(ME, &point, GEN)
}

fn begin(source: &mut Source, offset: u64) -> Ticket {
    let change =
        Change { volume: LV, span: Span::new(offset, 512), data: Some(vec![7; 512].into()) };
    let ready = change.ready(None);
    loop {
        match source.begin(&change, Some(&ready), false) {
            Begin::Go(ticket) => return ticket,
            Begin::Mark => {
                let wanted = source.wanted_marks();
                source.marked(&wanted);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn write(source: &mut Source, offset: u64) {
    let ticket = begin(source, offset);
    assert_eq!(source.end(ticket, true), After::Done);
}

/// The link comes back with what the replica holds, after what it lacks went to the map.
fn collapsed(source: &mut Source, write_at: Option<u64>) {
    source.dismiss(ME);
    source.link_lost(ME);
    write_at.into_iter().for_each(|at| write(source, at));
    again(source);
    source.tick(Tick(200), 1);
}

fn again(source: &mut Source) -> Verdict {
    let durable = source.replica(ME).durable;
    link(source, false, durable)
}

fn ack(source: &mut Source, durable: Seq) {
    let progress = Progress { durable, applied: durable, durable_clock: 0 };
    source.replica_mut(ME).acked(&progress);
}

/// Lets the replica take, acknowledge and answer all there is, and find everything equal; gives
/// what it was sent and which extents it was offered.
fn settle(source: &mut Source) -> (Vec<Record>, Vec<u64>) {
    let (mut sent, mut offered) = (Vec::new(), Vec::new());
    for round in 0..20 {
        source.tick(Tick(round), 1);
        while let Some((job, _)) = source.next_job(ME) {
            assert_eq!(job.purpose, Purpose::Offer);
            source.offer(ME, job.extent, job.key, [0; 32]);
        }
        let batch = source.replica_mut(ME).batch();
        for record in &batch {
            if let Body::Offer { extent, .. } = record.body {
                offered.push(u64::from(extent.volume.0) * 100 + extent.index);
                let session = source.replica(ME).resync.unwrap().session;
                source.answered(ME, session, record.seq, None);
            }
        }
        sent.extend(batch);
        let last = source.replica(ME).sent();
        ack(source, last);
    }
    offered.sort_unstable(); // the walk goes on from where it stood
    assert_eq!((source.replica(ME).dirty.count(), source.replica(ME).flight.len()), (0, 0));
    (sent, offered)
}

/// A source whose replica follows.
fn in_sync() -> Source {
    let mut source = source(LARGE);
    assert!(matches!(link(&mut source, true, Seq::ZERO), Verdict::Full { .. }));
    let (_, offered) = settle(&mut source);
    assert_eq!(offered, [0, 1, 2, 3, 100]);
    source
}

fn dirty(source: &Source) -> Vec<u64> {
    source.replica(ME).durable_dirty().sets()[0].iter().collect()
}

#[test]
fn what_is_new_is_compared_and_no_record_passes_a_link_that_does_not_know_it() {
    let mut source = in_sync();
    write(&mut source, 0);
    let before = source.layout_hash();
    source.grow(layout(NEW));
    assert_ne!(source.layout_hash(), before);
    write(&mut source, 4 * 4096);
    source.tick(Tick(100), 1);
    assert!(!source.replica(ME).linked());
    assert!(source.replica_mut(ME).batch().is_empty(), "a record goes to who has no room for it");
    assert_eq!(dirty(&source), [3, 4], "what was short counts as new");
    // It comes again, with what it had, and knows the new layout.
    assert_eq!(again(&mut source), Verdict::Continue);
    let (sent, offered) = settle(&mut source);
    let offsets: Vec<u64> = sent.iter().filter_map(Record::changes).map(|it| it.1.offset).collect();
    assert_eq!((offsets, offered), (vec![0, 4 * 4096], vec![3, 4]));
    let begins = sent.iter().find_map(|record| match record.body {
        Body::ResyncBegin(begin) => Some(begin.reason),
        _ => None,
    });
    assert_eq!(begins, Some(ResyncReason::Grown));
    assert!(source.replica(ME).chain.is_some(), "and it follows again");
}

#[test]
fn a_replica_that_is_away_gets_what_is_new_with_the_rest_of_its_map() {
    let mut source = in_sync();
    source.dismiss(ME);
    source.link_lost(ME);
    write(&mut source, 4096);
    source.grow(layout(NEW));
    write(&mut source, 4 * 4096 + 512);
    assert_eq!(source.replica(ME).flow, Flow::Map(ResyncReason::Overflow));
    assert_eq!(dirty(&source), [1, 3, 4]);
    assert!(matches!(again(&mut source), Verdict::Resync(_)));
    assert_eq!(settle(&mut source).1, [1, 3, 4]);
}

#[test]
fn an_answer_to_an_offer_of_the_short_extent_does_not_count() {
    let mut source = in_sync();
    collapsed(&mut source, Some(3 * 4096));
    let (job, _) = source.next_job(ME).unwrap();
    source.offer(ME, job.extent, job.key, [0; 32]);
    let (offer, session) = (source.issued(), source.replica(ME).resync.unwrap().session);
    source.replica_mut(ME).batch();
    ack(&mut source, offer);
    source.grow(layout(NEW));
    source.answered(ME, session, offer, None);
    assert_eq!(dirty(&source), [3, 4], "R1: an answer of a link that is gone");
    // The resync that was under way takes in what is new.
    assert_eq!(again(&mut source), Verdict::Continue);
    assert_eq!(settle(&mut source).1, [3, 4]);
}

#[test]
fn a_resync_whose_end_is_sent_does_not_take_in_what_is_new() {
    let mut source = in_sync();
    collapsed(&mut source, None);
    source.tick(Tick(201), 1);
    assert!(source.replica(ME).resync.unwrap().ends.is_some());
    source.replica_mut(ME).batch();
    source.grow(layout(NEW));
    assert_eq!(again(&mut source), Verdict::Continue);
    assert_eq!(settle(&mut source).1, [3, 4]);
}

#[test]
fn a_reader_that_holds_the_short_extent_gives_it_back() {
    let mut source = in_sync();
    collapsed(&mut source, Some(3 * 4096));
    let (job, _) = source.next_job(ME).unwrap();
    source.offer(ME, job.extent, job.key, [0; 32]);
    let (offer, session) = (source.issued(), source.replica(ME).resync.unwrap().session);
    source.replica_mut(ME).batch();
    source.answered(ME, session, offer, Some(vec![]));
    let (job, _) = source.next_job(ME).unwrap();
    let held = source.hold(job.extent).unwrap();
    source.grow(layout(NEW));
    assert_eq!(source.ship(ME, &job, held, true, vec![]), Shipped::Done, "nobody wants it");
    source.release(Extent { volume: LV, index: 3 });
    write(&mut source, 3 * 4096 + 512);
    assert_eq!(dirty(&source), [3, 4]);
}

#[test]
fn a_self_check_that_read_the_short_extent_asks_nothing() {
    let mut source = in_sync();
    let short = loop {
        let (extent, version) = source.next_check(ME).unwrap();
        if extent == (Extent { volume: LV, index: 3 }) {
            break version;
        }
    };
    source.grow(layout(NEW));
    again(&mut source);
    settle(&mut source);
    let before = source.issued();
    source.check(ME, Extent { volume: LV, index: 3 }, short, [0; 32]);
    assert_eq!(source.issued(), before, "a hash of less than there is would differ");
}

#[test]
fn what_is_spilled_is_noted_beyond_the_old_end_too() {
    let mut source = source(Budget { ram: 4000, spill: 1 << 20 });
    link(&mut source, true, Seq::ZERO);
    settle(&mut source);
    let spill = |source: &mut Source| {
        let layout = Arc::clone(source.layout());
        let outbox = &mut source.replica_mut(ME).outbox;
        while outbox.to_spill(&layout).is_some() {
            outbox.spilled(outbox.life(), Moved::Written);
        }
    };
    (0..8).for_each(|index| {
        write(&mut source, index % 3 * 4096);
        spill(&mut source);
    });
    assert!(source.replica(ME).outbox.spill_bytes() > 0);
    source.grow(layout(NEW));
    write(&mut source, 4 * 4096);
    spill(&mut source);
    source.replica_mut(ME).dirty = crate::ship::dirty::DirtyMap::empty(source.layout());
    source.spill_lost(ME);
    assert_eq!(dirty(&source), [0, 1, 2, 4]);
}

#[test]
#[should_panic(expected = "volumes only become larger")]
fn anything_but_growth_is_not_followed() {
    in_sync().grow(layout(OLD - 512));
}

#[test]
fn a_suspect_volume_is_compared_as_a_whole() {
    let mut source = in_sync();
    source.suspect(LV);
    assert_eq!(dirty(&source), [0, 1, 2, 3]);
    assert_eq!(settle(&mut source).1, [0, 1, 2, 3]);
}

/// Goal: a crash at any step between the layout's file, the core and the ledger finds what is new
/// as dirty (I3).
/// Method: the file is written first, so every start behind it has the new layout; the power fails
/// after each possible number of the ledger's operations.
#[test]
fn a_crash_at_any_step_of_growing_finds_what_is_new_dirty() {
    for (seed, steps) in (0..20).flat_map(|seed| (0..12).map(move |steps| (seed, steps))) {
        let (power, mut rng) = (Power::default(), Rng::new(seed * 100 + u64::from(steps)));
        let folder = SimFolder::new(&power);
        let shared: SharedFolder = Arc::new(folder.clone());
        let (mut ledger, _) = Ledger::load(Arc::clone(&shared), &layout(OLD)).unwrap();
        let mut source = in_sync();
        ledger.checkpoint(&source.begin_checkpoint(0)).unwrap();
        power.fail_after(steps);
        source.grow(layout(NEW));
        let _ = ledger.checkpoint(&source.begin_checkpoint(0));
        power.restore();
        folder.power_cut(&mut rng);
        let (_, state) = Ledger::load(shared, &layout(NEW)).unwrap();
        let policy = source.policy;
        let source = Source::resume(state.unwrap(), layout(NEW), policy, GEN);
        assert_eq!(dirty(&source), [3, 4], "seed {seed}, {steps} steps");
    }
}
