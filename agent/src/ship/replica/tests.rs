//! What a source believes of one replica, and when it begins and feeds a resync.

use bytes::Bytes;
use vgship_base::extent::ExtentSize;
use vgship_base::layout::VolumeLayout;
use vgship_base::units::Tick;

use super::*;

const LV: VolumeId = VolumeId(0);

fn layout() -> Layout {
    let extent = ExtentSize::from_log2(12).unwrap();
    let name = "lv".parse().unwrap();
    Layout { extent, volumes: vec![VolumeLayout { name, bytes: 1 << 22, masked: 0 }] }
}

fn record(seq: u64, len: usize) -> Record {
    let body = Body::Write { volume: LV, offset: 0, data: Bytes::from(vec![1; len]) };
    Record { seq: Seq(seq), target: Target::All, body }
}

/// Linked, in its first resync, with records 1 to 9 sent; every extent may differ.
fn replica() -> Replica {
    let (budget, why) = (Budget { ram: 1 << 30, spill: 0 }, ResyncReason::Initial);
    let dirty = DirtyMap::empty(&layout());
    let mut replica = Replica::new(ReplicaId(0), PeerId([1; 32]), dirty, why, budget);
    replica.dirty.fill();
    replica.linked_at(Seq::ZERO);
    replica.begin_resync(why);
    (1..10).for_each(|seq| replica.take(&layout(), &record(seq, 100), None));
    assert_eq!(replica.batch().len(), 9);
    replica
}

fn progress(durable: u64, applied: u64, durable_clock: u64) -> Progress {
    Progress { durable: Seq(durable), applied: Seq(applied), durable_clock }
}

fn known(replica: &Replica) -> Progress {
    let Replica { durable, applied, durable_clock, .. } = *replica;
    Progress { durable, applied, durable_clock }
}

#[test]
fn acknowledgements_are_believed_within_what_was_sent_and_never_backwards() {
    let mut replica = replica();
    replica.acked(&progress(5, 3, 70));
    assert_eq!(known(&replica), progress(5, 3, 70));
    replica.acked(&progress(10, 4, 80));
    assert_eq!(known(&replica), progress(5, 3, 70), "10 was never sent");
    replica.acked(&progress(4, 4, 80));
    assert_eq!(known(&replica), progress(5, 3, 70), "it held 5");
    replica.acked(&progress(5, 4, 80));
    assert_eq!(known(&replica), progress(5, 4, 80), "only its volumes went on");
    replica.acked(&progress(7, 9, 60));
    assert_eq!(known(&replica), progress(7, 7, 80), "applied is at most durable");
    replica.acked(&progress(9, 2, 90));
    assert_eq!(known(&replica), progress(9, 7, 90));
}

#[test]
fn a_resync_begins_only_into_a_link_that_stands_and_moves() {
    let mut replica = replica();
    replica.acked(&progress(5, 0, 0));
    replica.collapse(&layout(), Seq(9), ResyncReason::Overflow);
    assert_eq!(replica.must_resync(), None, "6 to 9 are still under way and nothing moves");
    replica.acked(&progress(6, 0, 0));
    assert_eq!(replica.must_resync(), Some(ResyncReason::Overflow));
    replica.acked(&progress(9, 0, 0));
    replica.collapse(&layout(), Seq(9), ResyncReason::Overflow);
    assert_eq!(replica.must_resync(), Some(ResyncReason::Overflow), "nothing is under way");
    replica.paused = true;
    assert_eq!(replica.must_resync(), None);
    replica.paused = false;
    replica.link_lost();
    assert_eq!(replica.must_resync(), None);
    replica.linked_at(Seq(9));
    assert_eq!(replica.must_resync(), Some(ResyncReason::Overflow));
}

#[test]
fn when_the_order_is_lost_so_is_all_that_stood_in_it() {
    let mut replica = replica();
    replica.end_resync(Seq(10));
    replica.pace.epoch_ended(Seq(9), Tick(5));
    replica.collapse(&layout(), Seq(10), ResyncReason::Overflow);
    assert!(replica.resync.is_none() && replica.chain.is_none());
    assert_eq!(replica.pace.age(Tick(50)), 0);
    assert_eq!(replica.flow, Flow::Map(ResyncReason::Overflow));
}

#[test]
fn a_replica_is_whole_when_a_resync_has_ended_there() {
    let mut replica = replica();
    replica.resync = None;
    replica.acked(&progress(5, 0, 0));
    assert!(!replica.whole, "none has");
    replica.begin_resync(ResyncReason::Initial);
    replica.acked(&progress(6, 0, 0));
    assert!(!replica.whole && replica.resync.is_some(), "it is under way");
    replica.end_resync(Seq(8));
    replica.acked(&progress(7, 0, 0));
    assert!(!replica.whole && replica.resync.is_some(), "its end is not durable");
    replica.acked(&progress(8, 0, 0));
    assert!(replica.whole && replica.resync.is_none());
}

/// Goal: what became durable behind a link's back ends what waits for it.
#[test]
fn a_link_that_continues_counts_as_an_acknowledgement() {
    let mut replica = replica();
    replica.pace.epoch_ended(Seq(6), Tick(5));
    replica.end_resync(Seq(9));
    replica.link_lost();
    replica.link_continues(Seq(9));
    assert!(replica.whole && replica.resync.is_none());
    assert_eq!(replica.pace.age(Tick(50)), 0);
}

#[test]
fn a_fault_begins_a_resync_when_none_is_under_way() {
    let mut replica = replica();
    replica.taint(&layout(), LV, Span::new(0, 1));
    assert_eq!(replica.wants_resync, None, "the one under way reads it");
    replica.end_resync(Seq(10));
    replica.taint(&layout(), LV, Span::new(0, 1));
    assert_eq!(replica.must_resync(), None, "its end is not durable");
    replica.resync = None;
    assert_eq!(replica.must_resync(), Some(ResyncReason::Fault));
    replica.begin_resync(ResyncReason::Fault);
    assert_eq!(replica.wants_resync, None);
}

#[test]
fn the_first_epoch_behind_a_resync_begins_behind_its_end() {
    let mut replica = replica();
    replica.end_resync(Seq(10));
    assert_eq!(replica.chain.map(|chain| chain.origin), Some(Seq(10)));
    assert_eq!(replica.roll_epoch(Seq(20)), Seq(11));
    assert_eq!(replica.roll_epoch(Seq(30)), Seq(21));
    replica.begin_resync(ResyncReason::Fault);
    assert_eq!(replica.chain, None, "inside a resync nothing is chained");
}

#[test]
fn a_resync_keeps_within_its_window_and_behind_live_writes() {
    let mut replica = replica();
    let window: Vec<Job> = std::iter::from_fn(|| replica.next_offer(|_| false)).collect();
    assert_eq!(window.len(), FLIGHT_MAX);
    replica.flight.settled(window[0].extent);
    assert!(replica.next_offer(|_| false).is_some(), "as soon as there is room");
    replica.flight.settled(window[1].extent);
    replica.flight.offered(window[2].extent, Seq(9));
    replica.flight.needs(Seq(9), Vec::new());
    replica.take(&layout(), &record(10, 1000), None);
    let head = replica.outbox.unsent_bytes() - 1000;
    replica.batch();
    let exactly = usize::try_from(RESYNC_BACKLOG - head).unwrap();
    replica.take(&layout(), &record(11, exactly), None);
    assert_eq!(replica.outbox.unsent_bytes(), RESYNC_BACKLOG);
    assert!(replica.next_offer(|_| false).is_none(), "live writes wait for the link");
    assert!(replica.next_ship().is_none());
    assert_eq!(replica.batch().len(), 1);
    assert!(replica.next_offer(|_| false).is_some());
    assert!(replica.next_ship().is_some());
    replica.flight.settled(window[3].extent);
    replica.paused = true;
    assert!(replica.next_offer(|_| false).is_none());
}
