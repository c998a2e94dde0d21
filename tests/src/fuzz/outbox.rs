//! One replica's outbox: the queue and its spill, driven by any order of events.

use std::sync::Arc;

use bytes::Bytes;
use vgship::outbox::queue::{Budget, Life, Moved, Queue};
use vgship::outbox::spill::Spill;
use vgship_base::extent::Extent;
use vgship_base::ids::{ReplicaId, Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Record, Target};
use vgship_base::sim::{Power, SimFolder};
use vgship_base::units::Span;

use super::Input;
use super::state::{GROUP, key, small_layout};

/// What the shell holds, and what must come out.
struct World {
    layout: Layout,
    budget: Budget,
    queue: Queue,
    spill: Spill,
    /// The life that the spill's content is of.
    life: Life,
    /// Records on their way to the spill, and how that ended.
    pushing: Option<(Life, Moved)>,
    /// Records that were read back.
    popped: Option<(Life, Vec<Record>)>,
    /// All records since the outbox was last empty, and how many the link took.
    pushed: Vec<Record>,
    taken: usize,
    acked: Seq,
    next: u64,
}

/// Every record is taken once per link and in order, or stands in the map.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let budget =
        Budget { ram: 2000 * (1 + input.below(8)) as u64, spill: 5000 * input.below(16) as u64 };
    let folder = Arc::new(SimFolder::new(&Power::default()));
    let limit = 4096 * (1 + input.below(32)) as u64;
    let queue = Queue::new(budget, Seq::ZERO);
    let mut world = World {
        layout: small_layout(),
        budget,
        life: queue.life(),
        queue,
        spill: Spill::create(folder, key(), GROUP, limit).expect("the power is on"),
        pushing: None,
        popped: None,
        pushed: Vec::new(),
        taken: 0,
        acked: Seq::ZERO,
        next: 1,
    };
    while !input.is_empty() {
        world.step(&mut input);
        world.check();
    }
    world.collapse();
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0..3 => self.push(input),
            3 | 4 => self.take(),
            5 => {
                let upto = self.taken.min(input.below(256));
                self.acked =
                    self.pushed[..upto].last().map_or(self.acked, |it| self.acked.max(it.seq));
                self.queue.acked(self.acked);
            }
            6 => self.begin_push(),
            7 => {
                if let Some((life, moved)) = self.pushing.take() {
                    self.queue.spilled(life, moved);
                }
            }
            8 => self.begin_pop(input.index(5000)),
            9 => {
                if let Some((life, records)) = self.popped.take() {
                    self.queue.refilled(life, records);
                }
            }
            10 => self.rewind(),
            _ if input.below(4) == 0 => self.collapse(),
            _ => {}
        }
    }

    fn push(&mut self, input: &mut Input<'_>) {
        let seq = Seq(self.next + u64::from(input.below(16) == 0));
        self.next = seq.0 + 1;
        let (volume, offset) = (VolumeId(0), input.below(16) as u64 * 4096);
        let one = Target::One(ReplicaId(0));
        let (target, body) = match input.below(4) {
            0 => {
                (one, Body::Offer { extent: Extent { volume, index: offset >> 13 }, hash: [1; 32] })
            }
            1 => (Target::All, Body::Zero { volume, span: Span::new(offset, 4096) }),
            _ => {
                let data = Bytes::from(vec![input.u8(); 1 + input.index(1500)]);
                (Target::All, Body::Write { volume, offset, data })
            }
        };
        let record = Record { seq, target, body };
        self.queue.push(record.clone());
        self.pushed.push(record);
    }

    fn take(&mut self) {
        for record in self.queue.take() {
            let expected = &self.pushed[self.taken];
            let void = matches!((&expected.body, &record.body), (Body::Offer { .. }, Body::Void));
            assert!(record == *expected || (void && record.seq == expected.seq), "{record:?}");
            self.taken += 1;
        }
    }

    fn begin_push(&mut self) {
        if self.pushing.is_some() {
            return;
        }
        if self.life != self.queue.life() {
            self.spill.clear().expect("the power is on");
            self.life = self.queue.life();
        }
        let Some(records) = self.queue.to_spill(&self.layout) else { return };
        let moved = match self.spill.push(&records) {
            Ok(()) => Moved::Written,
            Err(_) => Moved::Full,
        };
        self.pushing = Some((self.life, moved));
    }

    fn begin_pop(&mut self, bytes: usize) {
        if self.popped.is_some() || self.life != self.queue.life() || !self.queue.wants_refill() {
            return;
        }
        self.popped = Some((self.life, self.spill.pop(bytes).expect("it is whole")));
    }

    fn rewind(&mut self) {
        assert!(self.queue.covers(self.acked));
        self.queue.rewind(self.acked);
        self.taken = self.pushed.iter().take_while(|record| record.seq <= self.acked).count();
        // What was read back meanwhile stands behind all that is in memory.
        self.take();
    }

    fn collapse(&mut self) {
        let last = Seq(self.next - 1);
        let mut dirty = Vec::new();
        self.queue.collapse(&self.layout, last, |volume, span| dirty.push((volume, span)));
        for record in self.pushed.iter().filter(|record| record.seq > self.acked) {
            let Some((volume, span)) = record.changes() else { continue };
            let covered = |(other, run): &(VolumeId, Span)| {
                *other == volume && run.offset <= span.offset && run.end() >= span.end()
            };
            assert!(dirty.iter().any(covered), "{record:?} is in no map");
        }
        (self.pushed, self.taken, self.acked) = (Vec::new(), 0, last);
        assert!(self.queue.is_empty() && self.queue.unsent_bytes() == 0);
    }

    fn check(&self) {
        let unsent: u64 =
            self.pushed[self.taken..].iter().map(|record| record.encoded_len() as u64 + 128).sum();
        assert!(self.queue.unsent_bytes() <= unsent, "more waits than was pushed");
        let held = self.queue.spill_bytes();
        assert!(held <= self.budget.spill + (4 << 20), "{held} bytes on disk");
    }
}

/// Events that fill the outbox, spill and come back.
pub fn seeds() -> Vec<Vec<u8>> {
    let push = [0, 1, 3, 2, 9, 4, 0];
    let fill: Vec<u8> = push.repeat(6);
    let out = [6, 7, 3, 5, 9, 8, 9, 0, 9, 3, 5, 99];
    vec![
        [&[1, 9, 20][..], &fill, &out, &fill, &out, &[10, 3, 3]].concat(),
        [&[0, 3, 4][..], &fill, &out, &[11, 0], &fill, &[6, 10, 7], &out].concat(),
        [&[7, 0, 0][..], &fill, &[3, 5, 2, 10, 3, 11, 0], &fill].concat(),
    ]
}
