//! What a write meets before it may begin, and what it leaves behind.

use super::check_tests::{drain, end_write};
use super::ready::bodies;
use super::tests::{LV, ME, begin, layout, point, policy, streaming, write};
use super::*;
use crate::outbox::queue::{Budget, Queue};
use crate::ship::pace::{LagLimit, OnLag};
use crate::ship::replica::Flow;
use crate::ship::verdict::ReplicaPoint;
use bytes::Bytes;
use vgship_base::limits::PAYLOAD_MAX;
use vgship_base::record::Body;

fn change(len: usize, zero: bool) -> Change {
    let data = (!zero).then(|| Bytes::from((0..=250).cycle().take(len).collect::<Vec<u8>>()));
    Change { volume: LV, span: Span::new(512, len as u64), data }
}

#[test]
fn a_large_write_is_pieces_that_follow_each_other() {
    let piece = PAYLOAD_MAX as usize;
    for len in [1, piece - 1, piece, piece + 1, 2 * piece + 512] {
        let whole = change(len, false);
        let mut at = 512;
        let ready = whole.ready(None);
        let pieces = || bodies(whole.volume, whole.span, whole.data.as_ref());
        for (body, hash) in pieces().zip(Ready::pieces(&whole, Some(&ready)).0) {
            let Body::Write { offset, data, .. } = body else { panic!("it has data") };
            assert_eq!(offset, at);
            assert_eq!(&hash, blake3::hash(&data).as_bytes());
            at += data.len() as u64;
        }
        assert_eq!((at, pieces().count()), (512 + len as u64, len.div_ceil(piece)));
        let zero = change(len, true);
        let hashes = Ready::pieces(&zero, Some(&zero.ready(None))).0.count();
        let pieces = bodies(zero.volume, zero.span, None).count();
        assert_eq!((pieces, hashes), (1, 0), "zeroes are one record");
    }
}

#[test]
fn hashes_are_wanted_while_somebody_chains_them() {
    let mut source = streaming(Overflow::Map);
    assert_eq!(source.wanted(), Wants { hashes: true, veil: false });
    end_write(&mut source, 0);
    assert!(matches!(source.begin(&change(512, false), None, false), Begin::Ready));
    assert!(matches!(source.begin(&change(512, true), None, false), Begin::Go(_)));
    let mut alone =
        Source::create(GroupId([3; 16]), Generation([1; 16]), layout(), policy(Overflow::Map));
    alone.add_replica(PeerId([4; 32]));
    assert!(!alone.wanted().any());
}

#[test]
fn writers_that_are_slowed_use_up_what_they_may_write() {
    let mut source = streaming(Overflow::Map);
    let budget = Budget { ram: 1 << 20, spill: 0 };
    source.replica_mut(ME).outbox = Queue::new(budget, source.issued());
    let lag = LagPolicy { limit: LagLimit::Bytes(1), act: OnLag::Slow };
    source.set_lag_policy(Some(lag));
    assert!(matches!(begin(&mut source, 4096), Begin::Go(_)));
    source.pace(Tick(500));
    source.pace(Tick(520));
    let went = (2..20).take_while(|at| matches!(begin(&mut source, at * 4096), Begin::Go(_)));
    assert!((1..5).contains(&went.count()), "a few hundred bytes each, of 1310");
}

#[test]
fn nobody_waits_for_a_replica_that_an_operator_stopped() {
    let mut source = streaming(Overflow::Stall);
    source.set_paused(true);
    for at in 0..20 {
        write(&mut source, at * 4096);
    }
    assert_eq!(source.replica(ME).flow, Flow::Map(ResyncReason::Overflow));
}

/// Goal: what no application waits for cannot fill the outbox of a replica that is away.
#[test]
fn epoch_ends_alone_do_not_fill_an_outbox() {
    let mut source = streaming(Overflow::Map);
    source.link_lost(ME);
    for epoch in 1..100 {
        source.tick(Tick(epoch * 1000), 1);
        assert!(source.replica(ME).outbox.held_bytes() <= 2300, "{epoch}");
    }
    assert_eq!(source.replica(ME).flow, Flow::Map(ResyncReason::Overflow));
}

#[test]
fn a_client_is_told_of_a_flush_that_failed_for_the_agent() {
    let mut source = streaming(Overflow::Map);
    end_write(&mut source, 0);
    assert!(!source.owes_error(LV));
    let covers = source.flush_begins(LV);
    source.flush_ended(LV, covers, false);
    assert!(source.owes_error(LV) && !source.owes_error(LV));
}

#[test]
fn a_replica_that_comes_back_in_time_misses_no_epoch() {
    let mut source = streaming(Overflow::Map);
    source.link_lost(ME);
    let before = ReplicaPoint { durable: source.replica(ME).durable, ..point(&source) };
    source.tick(Tick(1000), 1);
    source.link_up(ME, &before, Generation([2; 16]));
    let batch = source.replica_mut(ME).batch();
    assert!(batch.iter().any(|record| matches!(record.body, Body::EpochEnd(_))));
    drain(&mut source);
}
