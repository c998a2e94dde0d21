//! The role goes to a replica, or does not; and a peer that wrote itself comes back.

use vgship_base::ids::Generation;
use vgship_base::record::Body;

use super::check_tests::{drain, end_write};
use super::tests::{LV, ME, begin, streaming};
use super::*;
use crate::ship::replica::{Flow, Progress};
use crate::ship::verdict::ReplicaPoint;

const NEW: Generation = Generation([9; 16]);

/// Everything is applied on the replica, and nobody writes.
fn drained() -> Source {
    let mut source = streaming(Overflow::Map);
    end_write(&mut source, 0);
    source.fence(true);
    source.end_last_epoch(7);
    drain(&mut source);
    let issued = source.issued();
    let all = Progress { durable: issued, applied: issued, ..Progress::default() };
    source.replica_mut(ME).acked(&all);
    source
}

fn point(generation: Generation, durable: Seq) -> ReplicaPoint {
    ReplicaPoint { fresh: false, generation, durable, damaged: false }
}

#[test]
fn writes_are_kept_away_and_those_that_have_begun_end() {
    let mut source = streaming(Overflow::Map);
    let Begin::Go(ticket) = begin(&mut source, 0) else { panic!("nothing is in its way") };
    source.fence(true);
    assert!(matches!(begin(&mut source, 8192), Begin::Fenced));
    assert!(!source.is_quiet());
    assert_eq!(source.reserve_handover(ME), Err(NoHandover::Busy));
    let _ = source.end(ticket, true);
    assert!(source.is_quiet());
    source.fence(false);
    assert!(matches!(begin(&mut source, 8192), Begin::Go(_)));
}

#[test]
fn the_role_goes_only_to_a_replica_that_has_everything() {
    let mut source = streaming(Overflow::Map);
    end_write(&mut source, 0);
    source.fence(true);
    let behind = source.reserve_handover(ME);
    assert!(matches!(behind, Err(NoHandover::Behind { .. })), "{behind:?}");
    let mut source = drained();
    source.suspect(LV);
    assert_eq!(source.reserve_handover(ME), Err(NoHandover::Dirty));
    let mut source = drained();
    source.link_lost(ME);
    assert!(matches!(source.reserve_handover(ME), Err(NoHandover::Unfit(_))));
    assert_eq!(source.handed(), None);
}

#[test]
fn nothing_is_numbered_behind_a_handover() {
    let mut source = drained();
    let seq = source.reserve_handover(ME).unwrap();
    assert_eq!(seq, source.issued().next());
    source.tick(Tick(1_000_000_000), 9);
    assert_eq!(source.next_check(ME), None);
    source.hand_over(NEW);
    source.tick(Tick(2_000_000_000), 9);
    assert_eq!(source.issued(), seq);
    let batch = source.replica_mut(ME).batch();
    assert_eq!(batch.last().unwrap().body, Body::Handover { generation: NEW });
    assert!(!source.is_taken());
    let all = Progress { durable: seq, applied: Seq(seq.0 - 1), ..Progress::default() };
    source.replica_mut(ME).acked(&all);
    assert!(source.is_taken());
}

#[test]
fn what_the_replica_did_not_get_is_never_sent_again() {
    let mut source = drained();
    let seq = source.reserve_handover(ME).unwrap();
    source.hand_over(NEW);
    source.link_lost(ME);
    source.take_back();
    assert_eq!((source.handed(), source.is_fenced()), (None, false));
    assert!(source.issued() > seq, "its number is never given again");
    let verdict = source.link_up(ME, &point(source.generation(), Seq(seq.0 - 1)), NEW);
    assert!(verdict.needs_ledger(), "{verdict:?}");
    source.checkpoint_written(source.generation());
    source.tick(Tick(10), 9);
    let bodies: Vec<Body> =
        source.replica_mut(ME).batch().into_iter().map(|record| record.body).collect();
    assert!(matches!(bodies[..], [Body::ResyncBegin(_), ..]), "{bodies:?}");
    assert!(!bodies.iter().any(|body| matches!(body, Body::Handover { .. })));
}

#[test]
fn a_life_after_a_handover_waits_for_the_replica_to_say_what_came_of_it() {
    let mut source = drained();
    let handed = Handed { to: ME, seq: source.issued().next() };
    source.was_handing(handed);
    assert!(matches!(begin(&mut source, 0), Begin::Fenced));
    assert!(!source.is_taken());
    source.show_taken();
    assert!(source.is_taken());
    source.take_back();
    assert!(!source.is_taken() && !source.is_fenced());
    source.show_taken();
    assert!(!source.is_taken(), "without a handover there is nothing to be taken");
}

/// Goal: what a peer wrote itself is compared, beside what was written here, and its numbers are
/// never met again.
#[test]
fn a_peer_that_gives_up_its_writes_is_counted_above_and_compared_where_it_wrote() {
    let mut source = drained();
    source.fence(false);
    source.link_lost(ME);
    let before = source.replica(ME).dirty.count();
    assert_eq!(before, 0);
    let mut changed = DirtyMap::empty(&source.layout);
    changed.insert(vgship_base::extent::Extent { volume: LV, index: 1 });
    let seen = Seq::before(Start(source.start().0 + 3)).next();
    assert_eq!(source.take_in(ME, &point(NEW, seen), &changed), Some(()));
    assert!(source.issued() > seen, "{}", source.issued());
    assert!(matches!(source.replica(ME).flow, Flow::Map(_)));
    assert!(source.replica(ME).dirty.count() >= 1);
    source.tick(Tick(10), 9);
    assert!(source.replica_mut(ME).batch().is_empty(), "not before the ledger is written");
    source.checkpoint_written(source.generation());
    source.tick(Tick(20), 9);
    let first = source.replica_mut(ME).batch().into_iter().next().unwrap();
    let Body::ResyncBegin(begin) = first.body else { panic!("{first:?}") };
    assert_eq!(begin.after, seen, "it goes on from where the peer stands");
    let last = Seq::before(Start(u16::MAX));
    assert_eq!(source.take_in(ME, &point(NEW, last), &changed), None, "no start is left");
}

#[test]
fn what_differs_is_the_map_the_outbox_and_every_marked_region() {
    let mut source = streaming(Overflow::Map);
    end_write(&mut source, 0);
    source.link_lost(ME);
    let map = source.differs(ME);
    assert!(map.sets()[LV.index()].contains(0));
}

#[test]
fn the_fence_stands_while_a_handover_is_under_way() {
    let mut source = drained();
    source.reserve_handover(ME).unwrap();
    source.fence(false);
    assert!(source.is_fenced());
    source.take_back();
    assert!(!source.is_fenced());
}

#[test]
fn a_history_ends_with_its_handover_however_often_its_source_has_started_since() {
    let mut source = drained();
    let seq = source.issued().next();
    source.was_handing(Handed { to: ME, seq });
    assert_eq!(source.ends_at(), source.issued());
    source.show_taken();
    assert_eq!(source.ends_at(), seq);
}

#[test]
fn a_link_that_waits_for_its_resync_goes_on_above_a_peer_that_is_taken_in() {
    let mut source = drained();
    let other = source.add_replica(PeerId([8; 32]));
    source.restart(ME, ResyncReason::Overflow, source.issued());
    let seen = Seq::before(Start(source.start().0 + 3)).next();
    let yields = point(NEW, seen);
    assert!(
        source.take_in(other, &yields, &DirtyMap::empty(&Arc::clone(source.layout()))).is_some()
    );
    assert!(source.replica(ME).linked());
    assert_eq!(source.replica(ME).met, source.start(), "or its next hello looks like R11");
}
