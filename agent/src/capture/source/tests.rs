//! What a source does at its ends: starts, stops, new generations, replicas that go.

use bytes::Bytes;
use vgship_base::extent::ExtentSize;
use vgship_base::layout::VolumeLayout;

use super::*;
use vgship_base::record::Body;

use crate::outbox::queue::{Queue, Room};
use crate::ship::replica::Flow;
use crate::ship::verdict::{ReplicaPoint, Verdict};

pub(super) const LV: VolumeId = VolumeId(0);
const GEN: Generation = Generation([1; 16]);
pub(super) const NEXT: Generation = Generation([2; 16]);
pub(super) const ME: ReplicaId = ReplicaId(0);

pub(super) fn layout() -> Arc<Layout> {
    let extent = ExtentSize::from_log2(12).unwrap();
    let name = "lv".parse().unwrap();
    Arc::new(Layout { extent, volumes: vec![VolumeLayout { name, bytes: 1 << 20, masked: 0 }] })
}

pub(super) fn policy(overflow: Overflow) -> Policy {
    let budget = Budget { ram: 2000, spill: 0 };
    let (region, sync) = (RegionSize::default(), SyncPolicy::default());
    Policy { overflow, budget, epoch: 1000, region, sync, lag: None }
}

pub(super) fn point(source: &Source) -> ReplicaPoint {
    let (generation, durable) = (source.generation(), source.issued());
    ReplicaPoint { fresh: false, generation, durable, damaged: false }
}

/// A source whose one replica streams and has everything.
pub(super) fn streaming(overflow: Overflow) -> Source {
    let mut source = Source::create(GroupId([3; 16]), GEN, layout(), policy(overflow));
    source.add_replica(PeerId([4; 32]));
    let fresh = ReplicaPoint { fresh: true, durable: Seq::ZERO, ..point(&source) };
    source.link_up(ME, &fresh, NEXT);
    source.replica_mut(ME).dirty = DirtyMap::empty(&layout());
    for now in 0..3 {
        source.tick(Tick(now), now);
        let sent = source.replica_mut(ME).batch().last().map_or(Seq::ZERO, |record| record.seq);
        let progress = crate::ship::replica::Progress {
            durable: sent.max(source.replica(ME).durable),
            ..Default::default()
        };
        source.replica_mut(ME).acked(&progress);
    }
    assert!(source.replica(ME).resync.is_none() && source.replica(ME).flow == Flow::Stream);
    source
}

pub(super) fn begin(source: &mut Source, at: u64) -> Begin {
    let data = Some(Bytes::from(vec![7; 512]));
    let change = Change { volume: LV, span: Span::new(at, 512), data };
    let ready = change.ready(None);
    match source.begin(&change, Some(&ready), false) {
        Begin::Mark => {
            let wanted = source.wanted_marks();
            source.marked(&wanted);
            source.begin(&change, Some(&ready), false)
        }
        other => other,
    }
}

/// A whole write.
pub(super) fn write(source: &mut Source, at: u64) {
    let Begin::Go(ticket) = begin(source, at) else { panic!("it waits") };
    assert_eq!(source.end(ticket, true), After::Done);
}

fn resumed(source: &mut Source, start: Start) -> Source {
    let state = LedgerState { start, ..source.begin_checkpoint(0) };
    Source::resume(state, layout(), policy(Overflow::Map), NEXT)
}

#[test]
fn a_start_remembers_what_replicas_had_promised() {
    let mut source = streaming(Overflow::Map);
    let promised = source.replica(ME).durable;
    let mut next = resumed(&mut source, Start(1));
    assert_eq!((next.start(), next.replica(ME).durable), (Start(2), promised));
    let behind = ReplicaPoint { durable: Seq(promised.0 - 1), ..point(&source) };
    let lost = Verdict::Full { reason: ResyncReason::Lost, new_generation: true };
    assert_eq!(next.link_up(ME, &behind, NEXT), lost, "it went backwards while we were down");
    assert_eq!(next.start(), Start(2), "a replica that is behind takes no start away");
}

#[test]
fn a_group_that_is_paused_ships_nothing() {
    let mut source = streaming(Overflow::Map);
    source.set_paused(true);
    assert!(matches!(begin(&mut source, 0), Begin::Go(_)));
    assert!(source.replica_mut(ME).batch().is_empty());
    source.set_paused(false);
    assert_eq!(source.replica_mut(ME).batch().len(), 1);
}

/// The epoch ends among what is on its way to a replica.
fn epoch_ends(source: &mut Source, id: ReplicaId) -> usize {
    let batch = source.replica_mut(id).batch();
    batch.iter().filter(|record| matches!(record.body, Body::EpochEnd(_))).count()
}

#[test]
fn an_epoch_ends_for_those_that_stream_whatever_the_others_do() {
    let mut source = streaming(Overflow::Map);
    source.add_replica(PeerId([5; 32]));
    epoch_ends(&mut source, ME);
    source.tick(Tick(999), 1);
    assert_eq!(epoch_ends(&mut source, ME), 0);
    source.tick(Tick(1000), 1);
    assert_eq!(epoch_ends(&mut source, ME), 1, "the other is in its map");
    assert_eq!(source.replica(ME).pace.age(Tick(1500)), 500);
    source.tick(Tick(1999), 1);
    assert_eq!(epoch_ends(&mut source, ME), 0);
}

/// Goal: writes that may wait for the spill do not empty an outbox that the spill would relieve.
#[test]
fn an_impatient_write_empties_the_outbox_rather_than_wait_for_the_spill() {
    for patient in [true, false] {
        let mut source = streaming(Overflow::Map);
        let budget = Budget { ram: 2000, spill: 1 << 20 };
        source.replica_mut(ME).outbox = Queue::new(budget, source.issued());
        while source.replica(ME).outbox.room(700) == Room::Free {
            write(&mut source, 0);
        }
        assert_eq!(source.replica(ME).outbox.room(700), Room::Soon);
        assert_eq!(source.make_room(700, patient), !patient);
        let map = Flow::Map(ResyncReason::Overflow);
        assert_eq!(source.replica(ME).flow, if patient { Flow::Stream } else { map });
    }
}

#[test]
fn a_start_says_whether_the_stop_was_clean() {
    let mut source = streaming(Overflow::Map);
    let unclean = resumed(&mut source, Start(1));
    assert_eq!(unclean.replica(ME).flow, Flow::Map(ResyncReason::UncleanStart));
    let state = source.close();
    assert!(state.clean);
    let clean = Source::resume(state, layout(), policy(Overflow::Map), NEXT);
    assert_eq!(clean.replica(ME).flow, Flow::Map(ResyncReason::CleanStart));
}

#[test]
fn a_new_replica_lacks_everything() {
    let mut source = streaming(Overflow::Map);
    let other = source.add_replica(PeerId([5; 32]));
    assert_eq!(source.replica(other).dirty.count(), 256);
}

/// Goal: what was being written when a life ended is offered, and stays marked until a flush.
#[test]
fn a_start_takes_over_the_marks_of_the_life_before() {
    let mut source = streaming(Overflow::Map);
    assert!(matches!(begin(&mut source, 0), Begin::Go(_)));
    let mut state = source.begin_checkpoint(0);
    assert_eq!(state.marked.len(), 1);
    state.replicas[0].dirty[0] = vgship_base::extent::BitSet::new(256);
    // One behind the end, of a volume that was larger.
    let end = source.policy.region.span(Region { volume: LV, index: 1 }).offset;
    let beyond = Region { volume: LV, index: (1 << 20) / end };
    state.marked.push(beyond);
    let marked = state.marked[0];
    let next = Source::resume(state, layout(), policy(Overflow::Map), NEXT);
    assert_eq!(next.state(false).marked, [marked], "what is behind the end is gone");
    assert!(next.replica(ME).dirty.sets()[0].contains(0));
    assert_eq!(next.unflushed(), [LV]);
}

#[test]
fn a_stop_is_clean_when_all_is_flushed_and_leaves_no_mark() {
    let mut source = streaming(Overflow::Map);
    write(&mut source, 0);
    let state = source.close();
    assert!(!state.clean && state.marked.len() == 1, "no flush covers the write");
    let covers = source.flush_begins(LV);
    source.flush_ended(LV, covers, true);
    let state = source.close();
    assert!(state.clean && state.marked.is_empty());
}

#[test]
fn a_region_stays_marked_while_one_replica_of_two_lacks_its_writes() {
    let mut source = streaming(Overflow::Map);
    let other = source.add_replica(PeerId([5; 32]));
    source.replica_mut(other).dirty = DirtyMap::empty(&layout());
    let fresh = ReplicaPoint { fresh: true, durable: Seq::ZERO, ..point(&source) };
    source.link_up(other, &fresh, NEXT);
    source.replica_mut(other).dirty = DirtyMap::empty(&layout());
    source.tick(Tick(5), 5);
    write(&mut source, 0);
    let covers = source.flush_begins(LV);
    source.flush_ended(LV, covers, true);
    let has_all = |source: &mut Source, id: ReplicaId| {
        source.replica_mut(id).batch();
        let durable = source.issued();
        let progress = crate::ship::replica::Progress { durable, ..Default::default() };
        source.replica_mut(id).acked(&progress);
    };
    has_all(&mut source, ME);
    source.tick(Tick(6), 6);
    assert_eq!(source.begin_checkpoint(0).marked.len(), 1);
    has_all(&mut source, other);
    assert_eq!(source.begin_checkpoint(0).marked.len(), 0);
}

#[test]
fn a_long_history_forgets_its_beginning() {
    let mut source = streaming(Overflow::Map);
    for number in 0..70 {
        source.begin_generation(Generation([100 + number; 16]), Seq::ZERO);
    }
    let lineage = source.state(false).lineage;
    assert_eq!(lineage.len(), crate::capture::ledger_format::LINEAGE_MAX);
    assert_eq!(lineage.last().unwrap().0, Generation([168; 16]));
}

#[test]
fn a_stop_with_a_write_under_way_is_not_clean() {
    let mut source = streaming(Overflow::Map);
    assert!(matches!(begin(&mut source, 0), Begin::Go(_)));
    let state = source.close();
    assert!(!state.clean && state.marked.len() == 1, "its region stays marked");
    assert!(state.replicas[0].dirty[0].contains(0));
}

#[test]
fn when_starts_have_run_out_a_generation_begins() {
    let mut source = streaming(Overflow::Map);
    let next = resumed(&mut source, Start(u16::MAX));
    assert_eq!((next.generation(), next.start()), (NEXT, Start(1)));
    let lineage = next.state(false).lineage;
    assert_eq!(lineage, [(GEN, Seq(u64::MAX))], "whatever it held is of the old one");
}

/// Goal: what the others receive of the new numbers is not taken for a start that they cannot have
/// seen, at the next start.
#[test]
fn links_that_stand_meet_the_start_of_a_generation_that_counts_above() {
    let mut source = streaming(Overflow::Map);
    let other = source.add_replica(PeerId([5; 32]));
    let seen = Seq::before(Start(8)).next();
    let ahead = ReplicaPoint { durable: seen, ..point(&source) };
    let lost = Verdict::Full { reason: ResyncReason::Lost, new_generation: true };
    assert_eq!(source.link_up(other, &ahead, NEXT), lost);
    let start = Start(9);
    assert_eq!((source.start(), source.replica(ME).met), (start, start));
    let next = resumed(&mut source, start).point_for(ME, &point(&source)).met;
    assert_eq!(next, start, "and the ledger knows it");
}

#[test]
fn nothing_of_a_new_generation_is_sent_before_the_ledger_holds_it() {
    let mut source = streaming(Overflow::Map);
    let ahead = ReplicaPoint { durable: Seq(source.issued().0 + 1), ..point(&source) };
    source.link_up(ME, &ahead, NEXT);
    source.tick(Tick(10), 10);
    assert!(source.replica(ME).resync.is_none(), "a crash would forget the generation");
    source.checkpoint_written(GEN);
    source.tick(Tick(11), 11);
    assert!(source.replica(ME).resync.is_none(), "that ledger was of the old one");
    let written = source.begin_checkpoint(0).generation;
    source.checkpoint_written(written);
    source.tick(Tick(12), 12);
    assert!(source.replica(ME).resync.is_some());
}

/// Fills the outbox; gives what the write that found no room was told.
fn fill(source: &mut Source) -> Begin {
    for at in 0..20 {
        match begin(source, at * 4096) {
            Begin::Go(ticket) => assert_eq!(source.end(ticket, true), After::Done),
            other => return other,
        }
    }
    panic!("20 writes fit 2000 bytes");
}

#[test]
fn an_agent_that_stops_lets_stalled_writes_go() {
    let mut source = streaming(Overflow::Stall);
    assert!(matches!(fill(&mut source), Begin::Room));
    source.stop_stalling();
    assert!(matches!(begin(&mut source, 0), Begin::Go(_)));
    assert_eq!(source.replica(ME).flow, Flow::Map(ResyncReason::Overflow));
}

#[test]
fn a_replica_that_was_dismissed_keeps_nobody_waiting_and_its_map_full() {
    let mut source = streaming(Overflow::Stall);
    assert!(matches!(fill(&mut source), Begin::Room));
    source.link_lost(ME);
    source.dismiss(ME);
    assert!(source.replica(ME).outbox.is_empty());
    assert!(source.replica(ME).dirty.sets()[0].contains(0), "what it lacks is noted");
    assert!(matches!(begin(&mut source, 0), Begin::Go(_)));
}

#[test]
fn an_extent_that_cannot_be_read_stays_dirty_and_is_tried_again() {
    let mut source = Source::create(GroupId([3; 16]), GEN, layout(), policy(Overflow::Map));
    source.add_replica(PeerId([4; 32]));
    let fresh = ReplicaPoint { fresh: true, durable: Seq::ZERO, ..point(&source) };
    source.link_up(ME, &fresh, NEXT);
    source.tick(Tick(0), 0);
    let (job, _) = source.next_job(ME).unwrap();
    let before = source.replica(ME).dirty.count();
    source.unreadable(ME, job.extent, job.key);
    assert!(source.replica(ME).flight.is_empty() && !source.wants(ME, &job));
    assert_eq!(source.replica(ME).dirty.count(), before + 1);
    let again = std::iter::from_fn(|| source.next_job(ME)).find(|(it, _)| it.extent == job.extent);
    let (again, _) = again.expect("the walk comes round");
    source.unreadable(ME, job.extent, job.key);
    assert!(source.wants(ME, &again), "a late failure is another job's");
}

#[test]
fn replicas_are_found_by_their_peer() {
    let mut source = streaming(Overflow::Map);
    let other = source.add_replica(PeerId([5; 32]));
    assert_eq!(source.find(PeerId([5; 32])), Some(other));
    assert_eq!(source.find(PeerId([4; 32])), Some(ME));
    assert_eq!(source.find(PeerId([6; 32])), None);
}
