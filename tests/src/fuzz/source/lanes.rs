//! What the shell does for one replica: the link, the readings of a resync, the spill.

use std::collections::VecDeque;

use bytes::Bytes;
use vgship::capture::source::Shipped;
use vgship::outbox::queue::{Life, Moved};
use vgship::ship::flight::{Job, Purpose};
use vgship::ship::replica::Progress;
use vgship::ship::verdict::{ReplicaPoint, Verdict};
use vgship_base::extent::Extent;
use vgship_base::ids::{Generation, ReplicaId, Seq};
use vgship_base::record::{Body, Hash, Record};

use super::lv::Pages;
use super::replica::{hash_of, offsets};
use super::{Input, VOLUME, World};

/// An extent that is read.
struct Reading {
    job: Job,
    version: u64,
    content: Option<Pages>,
    /// It was overtaken: it must be held before it is read again.
    again: bool,
    held: bool,
    waits: bool,
}

/// What the shell holds for one replica.
#[derive(Default)]
pub struct Lane {
    readings: Vec<Reading>,
    /// On disk, of which life.
    spill: (Life, VecDeque<Record>),
    moving: Option<(Life, Vec<Record>)>,
    /// Read for the self-check, with its version.
    checking: Option<(Extent, u64, Pages)>,
}

impl Lane {
    /// Whether it keeps writers away from some extent.
    pub fn holds_or_waits(&self) -> bool {
        self.readings.iter().any(|reading| reading.held || reading.waits)
    }
}

impl World {
    fn lane(&mut self, id: ReplicaId) -> &mut Lane {
        &mut self.lanes[usize::from(id.0)]
    }

    pub(super) fn link_up(&mut self, id: ReplicaId, input: &mut Input<'_>) {
        let replica = &mut self.replicas[usize::from(id.0)];
        let point = match replica.hostile {
            false => replica.point(),
            true => ReplicaPoint {
                fresh: input.flag(),
                generation: Generation([input.below(4).try_into().expect("few"); 16]),
                durable: Seq(input.odd()),
                damaged: input.flag(),
            },
        };
        if replica.linked {
            replica.lose_link();
            self.source.link_lost(id);
        }
        let fresh = self.fresh_generation();
        let verdict = self.source.link_up(id, &point, fresh);
        let replica = &mut self.replicas[usize::from(id.0)];
        if verdict == Verdict::Diverged {
            return;
        }
        replica.link_up();
        if verdict.needs_ledger() {
            self.write_ledger(u64::MAX);
        }
    }

    pub(super) fn link_lost(&mut self, id: ReplicaId) {
        if self.replicas[usize::from(id.0)].linked {
            self.replicas[usize::from(id.0)].lose_link();
            self.source.link_lost(id);
        }
    }

    pub(super) fn receive(&mut self, id: ReplicaId) {
        let replica = &mut self.replicas[usize::from(id.0)];
        for record in self.source.replica_mut(id).batch() {
            replica.take(record, &self.lv);
        }
    }

    pub(super) fn acknowledge(&mut self, id: ReplicaId, input: &mut Input<'_>) {
        let replica = &mut self.replicas[usize::from(id.0)];
        let count = input.below(256);
        let (durable, durable_clock) = if replica.hostile {
            (Seq(input.odd()), input.odd())
        } else {
            let point = replica.promise(count);
            (point.seq, point.clock)
        };
        if replica.linked {
            let before = self.source.replica(id).durable;
            let progress = Progress { durable, applied: durable, durable_clock };
            self.source.replica_mut(id).acked(&progress);
            assert!(self.source.replica(id).durable >= before, "a promise goes back");
        }
    }

    pub(super) fn answer(&mut self, id: ReplicaId, input: &mut Input<'_>) {
        let replica = &mut self.replicas[usize::from(id.0)];
        let known = replica.next_answer();
        let (session, offer, equal) = match known {
            Some(known) => known,
            None if replica.hostile => (input.below(4) as u64, Seq(input.odd()), input.flag()),
            None => return,
        };
        let need = (!equal).then(Vec::new);
        let (honest, faults) = (!replica.hostile, self.lv.faults);
        let alert = self.source.answered(id, session, offer, need);
        assert!(alert.is_none() || !honest || faults, "a difference where none is: {alert:?}");
    }

    /// A step of the self-check: an extent is read, and asked about at once or after a write.
    pub(super) fn check(&mut self, id: ReplicaId, at_once: bool) {
        let kept = self.lane(id).checking.take();
        if let Some((extent, version, content)) = kept {
            return self.source.check(id, extent, version, content_hash(extent, &content));
        }
        let Some((extent, version)) = self.source.next_check(id) else { return };
        self.lane(id).checking = Some((extent, version, *self.lv.pages()));
        if at_once {
            self.check(id, false);
        }
    }

    pub(super) fn begin_reading(&mut self, id: ReplicaId) {
        if self.lane(id).readings.len() >= 4 {
            return;
        }
        if let Some((job, version)) = self.source.next_job(id) {
            let (content, again, held, waits) = (None, false, false, false);
            self.lane(id).readings.push(Reading { job, version, content, again, held, waits });
        }
    }

    /// One step of one reading.
    pub(super) fn read_on(&mut self, id: ReplicaId, input: &mut Input<'_>) {
        let lane = &mut self.lanes[usize::from(id.0)];
        if lane.readings.is_empty() {
            return;
        }
        let at = input.below(lane.readings.len());
        let mut reading = lane.readings.swap_remove(at);
        let extent = reading.job.extent;
        if reading.again && !reading.held {
            match self.source.hold(extent) {
                Some(version) => {
                    (reading.held, reading.waits, reading.version) = (true, false, version);
                }
                None => reading.waits = true,
            }
            return self.lane(id).readings.push(reading);
        }
        let Some(content) = reading.content.take() else {
            if input.below(32) == 1 {
                self.let_go(&reading);
                return self.source.unreadable(id, extent, reading.job.key);
            }
            reading.content = Some(*self.lv.pages());
            return self.lane(id).readings.push(reading);
        };
        if let Purpose::Offer = reading.job.purpose {
            let hash = content_hash(extent, &content);
            return self.source.offer(id, extent, reading.job.key, hash);
        }
        let bodies = if extent.volume == VOLUME { pieces(extent.index, &content) } else { vec![] };
        let shipped = self.source.ship(id, &reading.job, reading.version, reading.held, bodies);
        assert!(shipped == Shipped::Done || !reading.held, "somebody wrote what was held");
        self.let_go(&reading);
        if shipped == Shipped::Again {
            reading.again = true;
            self.lane(id).readings.push(reading);
        }
    }

    fn let_go(&mut self, reading: &Reading) {
        if reading.held {
            self.source.release(reading.job.extent);
        }
    }

    pub(super) fn spill(&mut self, id: ReplicaId, input: &mut Input<'_>) {
        let lane = &mut self.lanes[usize::from(id.0)];
        let outbox = &mut self.source.replica_mut(id).outbox;
        if let Some((life, records)) = lane.moving.take() {
            let moved =
                [Moved::Written, Moved::Written, Moved::Full, Moved::Failed][input.below(4)];
            if moved == Moved::Written && life == lane.spill.0 {
                lane.spill.1.extend(records);
            }
            return outbox.spilled(life, moved);
        }
        if lane.spill.0 != outbox.life() {
            lane.spill = (outbox.life(), VecDeque::new());
        }
        if let Some(records) = outbox.to_spill(&self.layout) {
            lane.moving = Some((outbox.life(), records));
        }
    }

    pub(super) fn refill(&mut self, id: ReplicaId, input: &mut Input<'_>) {
        let lane = &mut self.lanes[usize::from(id.0)];
        let outbox = &mut self.source.replica_mut(id).outbox;
        if outbox.wants_refill() && lane.spill.0 == outbox.life() {
            let count = (1 + input.below(8)).min(lane.spill.1.len());
            let records = lane.spill.1.drain(..count).collect();
            outbox.refilled(lane.spill.0, records);
        }
    }
}

/// The hash of an extent; the other volume is never written.
fn content_hash(extent: Extent, content: &Pages) -> Hash {
    let first = usize::try_from(extent.index).expect("small") * 2;
    if extent.volume == VOLUME { hash_of(content, first) } else { [0; 32] }
}

/// What makes a replica's extent equal.
fn pieces(index: u64, content: &Pages) -> Vec<Body> {
    let first = usize::try_from(index).expect("small") * 2;
    let body = |(offset, page): (u64, &u64)| Body::Write {
        volume: VOLUME,
        offset,
        data: Bytes::copy_from_slice(&page.to_be_bytes()),
    };
    offsets(first).into_iter().zip(&content[first..first + 2]).map(body).collect()
}
