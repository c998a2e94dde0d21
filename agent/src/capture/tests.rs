//! The source's core as a whole: what its parts alone do not show.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use vgship_base::extent::{Extent, ExtentSize};
use vgship_base::ids::{Generation, GroupId, PeerId, ReplicaId, Seq, VolumeId};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::record::{Body, Record, Target};
use vgship_base::units::{Span, Tick};

use super::activity::RegionSize;
use super::source::{After, Begin, Change, Overflow, Policy, Shipped, Source, Ticket};
use super::versions::Versions;
use crate::outbox::queue::{Budget, Moved, Queue, Room};
use crate::ship::flight::{Job, Purpose};
use crate::ship::replica::Progress;
use crate::ship::standing::SyncPolicy;
use crate::ship::verdict::ReplicaPoint;

const LV: VolumeId = VolumeId(0);
const EXTENTS: u64 = 1 << 14;
const GEN: Generation = Generation([1; 16]);
const ME: ReplicaId = ReplicaId(0);

fn layout() -> Arc<Layout> {
    let extent = ExtentSize::from_log2(12).unwrap();
    let name = "lv".parse().unwrap();
    let volumes = vec![VolumeLayout { name, bytes: EXTENTS << 12, masked: 0 }];
    Arc::new(Layout { extent, volumes })
}

fn policy() -> Policy {
    let budget = Budget { ram: 1 << 20, spill: 0 };
    Policy {
        overflow: Overflow::Map,
        budget,
        epoch: 1000,
        region: RegionSize::default(),
        sync: SyncPolicy::default(),
        lag: None,
    }
}

fn point(fresh: bool, durable: Seq) -> ReplicaPoint {
    ReplicaPoint { fresh, generation: GEN, durable, damaged: false }
}

fn extent(index: u64) -> Extent {
    Extent { volume: LV, index }
}

fn begin(source: &mut Source, index: u64) -> Ticket {
    let span = Span::new(index << 12, 512);
    let change = Change { volume: LV, span, data: Some(Bytes::from(vec![7; 512])) };
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

/// A source in its first resync, with one extent that the replica needs.
fn needed() -> (Source, Job, u64) {
    let mut source = Source::create(GroupId([2; 16]), GEN, layout(), policy());
    source.add_replica(PeerId([3; 32]));
    source.link_up(ME, &point(true, Seq::ZERO), GEN);
    source.tick(Tick(1), 1);
    let (job, _) = source.next_job(ME).unwrap();
    source.offer(ME, job.extent, job.key, [0; 32]);
    let offer = source.issued();
    source.replica_mut(ME).batch();
    source.answered(ME, 1, offer, Some(vec![]));
    let (job, version) = source.next_job(ME).unwrap();
    assert!(matches!(job.purpose, Purpose::Ship(_)));
    (source, job, version)
}

#[test]
fn what_was_read_under_the_lock_is_shipped_whatever_happens_elsewhere() {
    let (mut source, job, version) = needed();
    let ticket = begin(&mut source, job.extent.index);
    assert_eq!(source.end(ticket, true), After::Done);
    assert_eq!(source.ship(ME, &job, version, false, vec![]), Shipped::Again);
    let held = source.hold(job.extent).unwrap();
    let mut counts = Versions::default();
    counts.bump(job.extent);
    let twin = (1..EXTENTS).find(|&index| counts.of(extent(index)) == 1).unwrap();
    let ticket = begin(&mut source, twin);
    assert_eq!(source.end(ticket, true), After::Done);
    assert_eq!(source.ship(ME, &job, held, true, vec![]), Shipped::Done);
}

#[test]
fn a_reader_that_waits_for_a_hot_extent_gets_it() {
    let (mut source, job, _) = needed();
    let first = begin(&mut source, job.extent.index);
    assert!(source.hold(job.extent).is_none(), "somebody writes");
    // Another block of the extent: does not overlap the first write, but the reader was first.
    let span = Span::new((job.extent.index << 12) + 512, 512);
    let change = Change { volume: LV, span, data: Some(Bytes::from(vec![8; 512])) };
    let ready = change.ready(None);
    let second = source.begin(&change, Some(&ready), false);
    assert!(matches!(second, Begin::Busy), "writers overtake the reader for ever: {second:?}");
    assert_eq!(source.end(first, true), After::Done);
}

#[test]
fn one_replicas_resync_does_not_fill_anothers_outbox_without_bound() {
    let mut source = Source::create(GroupId([2; 16]), GEN, layout(), policy());
    let (away, new) = (source.add_replica(PeerId([3; 32])), source.add_replica(PeerId([4; 32])));
    for id in [away, new] {
        source.link_up(id, &point(true, Seq::ZERO), GEN);
    }
    source.tick(Tick(1), 1);
    source.link_lost(away); // streaming, and away for a while; no application writes
    for _ in 0..EXTENTS {
        let Some((job, _)) = source.next_job(new) else { break };
        source.offer(new, job.extent, job.key, [0; 32]);
        let offer = source.issued();
        source.replica_mut(new).batch();
        source.answered(new, 1, offer, None);
    }
    let ram = source.replica(away).outbox.ram_bytes();
    assert!(ram <= policy().budget.ram, "{ram} bytes of voids in a ring of 1 MiB");
}

fn write(seq: u64) -> Record {
    let body = Body::Write { volume: LV, offset: 0, data: Bytes::from(vec![1; 1000]) };
    Record { seq: Seq(seq), target: Target::All, body }
}

/// A writer that always has a record for the spill does not keep it from being read back.
#[test]
fn the_link_gets_records_while_the_spill_is_in_use_and_writers_write() {
    let layout = layout();
    let budget = Budget { ram: 40_000, spill: 100_000_000 };
    let mut queue = Queue::new(budget, Seq::ZERO);
    let (mut disk, mut seq) = (VecDeque::new(), 0);
    while queue.room(1200) == Room::Free {
        seq += 1;
        queue.push(write(seq));
    }
    let mut sent = Seq::ZERO;
    for _ in 0..2000 {
        let (out, wants) = (queue.to_spill(&layout), queue.wants_refill());
        if let Some(records) = out {
            disk.extend(records);
            queue.spilled(queue.life(), Moved::Written);
        } else if wants {
            let back = disk.drain(..disk.len().min(800)).collect();
            queue.refilled(queue.life(), back);
        }
        // A slow writer, and a link that takes and acknowledges all that it is given.
        seq += 1;
        queue.push(write(seq));
        while let Some(last) = queue.take().last() {
            sent = last.seq;
        }
        queue.acked(sent);
    }
    assert!(sent.0 > 500, "{seq} records came in, the link was given only {sent:?}");
}

#[test]
fn a_resync_is_not_begun_into_a_link_that_has_stopped_moving() {
    let (mut source, _, _) = needed();
    source.replica_mut(ME).batch();
    let sent = source.replica(ME).sent();
    source.dismiss(ME);
    assert_eq!(source.replica(ME).must_resync(), None, "what was sent is not acknowledged");
    let progress = Progress { durable: sent, applied: Seq::ZERO, durable_clock: 0 };
    source.replica_mut(ME).acked(&progress);
    assert!(source.replica(ME).must_resync().is_some());
}

#[test]
fn a_replica_that_holds_nothing_is_not_believed_a_number() {
    let mut source = Source::create(GroupId([2; 16]), GEN, layout(), policy());
    source.add_replica(PeerId([3; 32]));
    source.link_up(ME, &point(true, Seq(u64::MAX)), GEN);
    let durable = Seq(u64::MAX);
    source.replica_mut(ME).acked(&Progress { durable, applied: durable, durable_clock: 0 });
    assert_eq!(source.replica(ME).durable, Seq::ZERO);
    source.tick(Tick(1), 1);
    let records = source.replica_mut(ME).batch();
    let begins = |record: &Record| match &record.body {
        Body::ResyncBegin(begin) => begin.after == Seq::ZERO,
        _ => false,
    };
    assert!(records.first().is_some_and(begins), "{records:?}");
}
