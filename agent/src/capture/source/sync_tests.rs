//! Sync mode and pace as the source decides them; how a replica stands is `ship::standing`'s.

use super::check_tests::{drain, end_write};
use super::tests::{LV, ME, begin, streaming};
use super::*;
use crate::ship::pace::{LagLimit, OnLag};
use crate::ship::replica::Progress;
use crate::ship::standing::{Mode, OnTimeout, Out, Standing};

fn standing(source: &Source) -> Standing {
    source.replica(ME).sync.standing()
}

fn tick(source: &mut Source, now: u64) {
    source.tick(Tick(now), now);
}

fn flush(source: &mut Source, flushed: bool) {
    let covers = source.flush_begins(LV);
    source.flush_ended(LV, covers, flushed);
}

fn in_force() -> Source {
    let mut source = streaming(Overflow::Map);
    source.set_mode(ME, Mode::Sync);
    for now in 10..13 {
        tick(&mut source, now);
        drain(&mut source);
    }
    assert_eq!(standing(&source), Standing::InForce);
    assert!(source.is_in_force());
    source
}

/// A sync write that its volume has taken; its number.
fn written(source: &mut Source, at: u64) -> Seq {
    let Begin::Go(ticket) = begin(source, at) else { panic!("nothing is in its way") };
    let seq = ticket.seq;
    assert!(matches!(source.end(ticket, true), After::Stabilize(_)));
    seq
}

#[test]
fn sync_is_in_force_when_the_source_holds_durably_what_it_acknowledged_before() {
    let mut source = streaming(Overflow::Map);
    end_write(&mut source, 0);
    assert!(!source.is_in_force(), "no replica is sync");
    source.set_mode(ME, Mode::Sync);
    for now in 10..20 {
        tick(&mut source, now);
        drain(&mut source);
        assert!(matches!(standing(&source), Standing::Joining { .. }), "{:?}", standing(&source));
        assert!(source.wants_flush() && !source.is_in_force());
    }
    flush(&mut source, true);
    assert!(!source.wants_flush());
    tick(&mut source, 20);
    assert!(source.is_in_force());
}

#[test]
fn a_write_is_complete_when_the_replica_has_it_and_is_waited_for_no_longer() {
    let mut source = in_force();
    let first = written(&mut source, 0);
    tick(&mut source, 100);
    let second = written(&mut source, 4096);
    assert_eq!(source.oldest_waiting(), None);
    assert_eq!(source.completion(second), Complete::Wait);
    assert_eq!(source.oldest_waiting(), Some(Tick(100)));
    tick(&mut source, 200);
    assert_eq!(source.completion(first), Complete::Wait);
    assert_eq!(source.completion(second), Complete::Wait);
    assert_eq!(source.oldest_waiting(), Some(Tick(100)), "since it was first asked for");
    source.replica_mut(ME).batch();
    source.replica_mut(ME).acked(&Progress { durable: first, ..Progress::default() });
    assert_eq!(source.completion(first), Complete::Now);
    assert_eq!(source.completion(second), Complete::Wait);
    drain(&mut source);
    assert_eq!(source.completion(second), Complete::Now);
    assert_eq!(source.oldest_waiting(), None);
}

#[test]
fn a_write_that_waits_too_long_is_let_go_and_one_that_arrived_is_no_reason() {
    let mut source = in_force();
    source.set_sync_policy(SyncPolicy { timeout: 50, on_timeout: OnTimeout::Degrade });
    let first = written(&mut source, 0);
    assert_eq!(source.completion(first), Complete::Wait);
    source.replica_mut(ME).batch();
    source.replica_mut(ME).acked(&Progress { durable: first, ..Progress::default() });
    tick(&mut source, 100);
    assert_eq!(standing(&source), Standing::InForce, "it is there, and only not told yet");
    let second = written(&mut source, 4096);
    assert_eq!(source.completion(second), Complete::Wait);
    tick(&mut source, 149);
    assert_eq!(standing(&source), Standing::InForce);
    tick(&mut source, 150);
    assert_eq!(standing(&source), Standing::Out(Out::Late));
    assert_eq!(source.completion(second), Complete::Now);
}

#[test]
fn an_agent_that_stops_tells_nobody_of_a_write_that_waits() {
    let mut source = in_force();
    let seq = written(&mut source, 0);
    assert_eq!(source.completion(seq), Complete::Wait);
    source.stop_stalling();
    assert_eq!(source.completion(seq), Complete::Stopped);
    assert_eq!(source.oldest_waiting(), None);
}

#[test]
fn a_replica_that_was_dismissed_is_async() {
    let mut source = in_force();
    source.dismiss(ME);
    assert_eq!(source.replica(ME).sync.mode(), Mode::Async);
    assert!(!source.is_in_force());
}

#[test]
fn every_replica_must_be_in_force_and_in_pace() {
    let mut source = in_force();
    let other = source.add_replica(PeerId([5; 32]));
    assert!(source.is_in_force(), "an async one does not count");
    source.set_mode(other, Mode::Sync);
    assert!(!source.is_in_force());
    source.set_mode(other, Mode::Async);
    let lag = LagPolicy { limit: LagLimit::Bytes(100), act: OnLag::Slow };
    source.set_lag_policy(Some(lag));
    written(&mut source, 0);
    assert!(source.is_in_pace());
    source.pace(Tick(500));
    assert!(!source.is_in_pace(), "one is slow");
    source.pace(Tick(400));
    assert_eq!(source.now, Tick(500), "time does not go back");
    let stays = matches!(begin(&mut source, 8192), Begin::Pace);
    assert!(stays);
    source.stop_stalling();
    assert!(source.is_in_pace(), "an agent that stops slows nobody");
}

#[test]
fn a_group_that_stops_stalls_nobody_any_more() {
    let mut source = streaming(Overflow::Map);
    source.set_overflow(Overflow::Stall);
    assert_eq!(source.policy.overflow, Overflow::Stall);
    source.stop_stalling();
    source.set_overflow(Overflow::Stall);
    assert_eq!(source.policy.overflow, Overflow::Map);
}
