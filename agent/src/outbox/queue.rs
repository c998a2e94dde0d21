//! The order and the budgets of one replica's outbox. Does no I/O: the shell moves records between
//! memory and the spill when this says so.
//!
//! ```text
//! push -> tail -> (moving) -> spill on disk -> head -> sent -> acknowledged
//!            \____________ while nothing is spilled ___/
//! ```
//!
//! The head is what the link takes from; it keeps what was sent until the replica has it durably,
//! so that a link that flaps costs nothing. Records pass in order, whatever way they take.

use std::collections::VecDeque;

use vgship_base::extent::BitSet;
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use vgship_base::record::{Body, Record, Target};
use vgship_base::units::Span;

/// What an outbox may use. Unit: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Memory.
    pub ram: u64,
    /// Disk; 0 for none.
    pub spill: u64,
}

/// What became of records that were to go to the spill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// They are there.
    Written,
    /// It may not take more now.
    Full,
    /// Its disk has no room now.
    NoRoom,
    /// It cannot be used any more.
    Failed,
}

/// Whether a record may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Now.
    Free,
    /// When the spill has taken some.
    Soon,
    /// Not within the budgets.
    Full,
}

/// One replica's outbox.
#[derive(Debug)]
pub struct Queue {
    budget: Budget,
    head: VecDeque<Record>,
    /// How many of the head's records the link has taken.
    taken: usize,
    /// Records on their way to the spill.
    moving: Vec<Record>,
    tail: VecDeque<Record>,
    ram_bytes: u64,
    head_bytes: u64,
    unsent_bytes: u64,
    drained_bytes: u64,
    spilled: Spilled,
    floor: Seq,
    last: Seq,
    life: Life,
}

/// Counts how often the outbox was emptied into the map. What the spill holds of an earlier life
/// is void; the shell clears it when it sees another life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life(pub u64);

#[derive(Debug, Default)]
struct Spilled {
    /// Why it takes nothing: for this life after a failure; else until something comes back from
    /// it, or its disk has room.
    shut: Option<Moved>,
    records: u64,
    bytes: u64,
    /// Extents of the records on disk, kept while there are any.
    extents: Option<Vec<BitSet>>,
}

fn cost(record: &Record) -> u64 {
    // What the queue itself needs for an entry, beside the payload.
    const ENTRY: u64 = 128;
    record.encoded_len() as u64 + ENTRY
}

impl Queue {
    /// An empty outbox that begins behind `floor`.
    pub fn new(budget: Budget, floor: Seq) -> Queue {
        Queue {
            budget,
            head: VecDeque::new(),
            taken: 0,
            moving: Vec::new(),
            tail: VecDeque::new(),
            ram_bytes: 0,
            head_bytes: 0,
            unsent_bytes: 0,
            drained_bytes: 0,
            spilled: Spilled::default(),
            floor,
            last: floor,
            life: Life::default(),
        }
    }

    /// The life that the spill's content must be of.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Whether a change of `bytes` may come in.
    pub fn room(&self, bytes: u64) -> Room {
        // While something is spilled, half of the memory is kept for what comes back.
        let (used, limit) = match self.spilling() {
            true => (self.ram_bytes - self.head_bytes, self.budget.ram / 2),
            false => (self.ram_bytes, self.budget.ram),
        };
        if used + bytes <= limit || self.is_empty() {
            Room::Free
        } else if self.spill_takes(bytes) {
            Room::Soon
        } else {
            Room::Full
        }
    }

    fn spill_takes(&self, bytes: u64) -> bool {
        self.spilled.shut.is_none() && self.spilled.bytes + bytes <= self.budget.spill
    }

    fn spilling(&self) -> bool {
        self.spilled.records > 0 || !self.moving.is_empty()
    }

    /// Takes a record behind all others. Whether there is room was asked before.
    pub fn push(&mut self, record: Record) {
        assert!(record.seq > self.last, "record {} behind {}", record.seq, self.last);
        self.last = record.seq;
        let bytes = cost(&record);
        self.ram_bytes += bytes;
        self.unsent_bytes += bytes;
        self.tail.push_back(record);
        self.promote();
    }

    /// Moves the tail to the head while nothing stands between them.
    fn promote(&mut self) {
        let reserve = if self.budget.spill > 0 { self.budget.ram / 2 } else { u64::MAX };
        while !self.spilling()
            && (self.head_bytes < reserve || self.spilled.shut == Some(Moved::Failed))
        {
            let Some(record) = self.tail.pop_front() else { return };
            self.head_bytes += cost(&record);
            self.head.push_back(record);
        }
    }

    /// The next records for the link, in order; empty when all have been taken.
    pub fn take(&mut self) -> Vec<Record> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(record) = self.head.get(self.taken) {
            let len = record.encoded_len();
            if !batch.is_empty()
                && (bytes + len > BATCH_BYTES_MAX / 2 || batch.len() == BATCH_RECORDS_MAX)
            {
                break;
            }
            bytes += len;
            self.unsent_bytes -= cost(record);
            batch.push(record.clone());
            self.taken += 1;
        }
        batch
    }

    /// The replica holds everything up to `upto` durably.
    pub fn acked(&mut self, upto: Seq) {
        while self.taken > 0 && self.head.front().is_some_and(|record| record.seq <= upto) {
            if let Some(record) = self.head.pop_front() {
                self.forget(&record);
                self.taken -= 1;
            }
        }
        self.floor = self.floor.max(upto.min(self.last));
        self.promote();
    }

    fn forget(&mut self, record: &Record) {
        self.head_bytes -= cost(record);
        self.ram_bytes -= cost(record);
        self.drained_bytes += cost(record);
    }

    /// Whether a replica that holds everything up to `durable` can be given the rest.
    pub fn covers(&self, durable: Seq) -> bool {
        (self.floor..=self.last).contains(&durable)
    }

    /// A new link: everything behind `durable` is to be sent again. Questions are not: extents that
    /// were offered went back to the map, and a new offer will be made (R1).
    pub fn rewind(&mut self, durable: Seq) {
        self.taken = self.head.iter().take_while(|record| record.seq <= durable).count();
        self.acked(durable);
        for record in &mut self.head {
            if record.asks() {
                let was = cost(record);
                // A void is nobody's: a check's would be refused as part of a resync.
                (record.body, record.target) = (Body::Void, Target::All);
                let freed = was - cost(record);
                self.head_bytes -= freed;
                self.ram_bytes -= freed;
            }
        }
        let held = self.head.iter().chain(&self.moving).chain(&self.tail);
        self.unsent_bytes = held.map(cost).sum::<u64>() + self.spilled.bytes;
    }

    /// Records that the spill should take now, oldest first. The shell writes them and says
    /// [`Queue::spilled`]; until then nothing else moves to or from the spill.
    pub fn to_spill(&mut self, layout: &Layout) -> Option<Vec<Record>> {
        const STEP: u64 = 4 << 20;
        let full = self.head_bytes >= self.budget.ram / 2;
        // The link first: what comes back from the spill is what it waits for.
        let able = self.moving.is_empty() && self.spill_takes(0) && !self.wants_refill();
        if !able || self.tail.is_empty() || !(full || self.spilled.records > 0) {
            return None;
        }
        let fresh = || layout.volumes.iter().map(|lv| BitSet::new(layout.extent.count(lv.bytes)));
        let extents = self.spilled.extents.get_or_insert_with(|| fresh().collect());
        let mut bytes = 0;
        while let Some(record) = self.tail.front() {
            bytes += cost(record);
            if bytes > STEP && !self.moving.is_empty() {
                break;
            }
            if let Some((volume, span)) = record.changes() {
                let (first, end) = layout.extent.touched(span);
                extents[volume.index()].insert_range(first, end);
            }
            self.moving.extend(self.tail.pop_front());
        }
        Some(self.moving.clone())
    }

    /// How writing to the spill ended. Unless it was written the records are still here, and the
    /// outbox is as full as it was: without a spill in this life after a failure, and when it is
    /// full until something has come back from it or [`Queue::spill_has_room`].
    pub fn spilled(&mut self, life: Life, moved: Moved) {
        if life != self.life {
            return;
        }
        let records = std::mem::take(&mut self.moving);
        if moved == Moved::Written {
            let bytes: u64 = records.iter().map(cost).sum();
            self.ram_bytes -= bytes;
            self.spilled.bytes += bytes;
            self.spilled.records += records.len() as u64;
            return;
        }
        // An empty spill that is too small for a single step will never be of use.
        let small = moved == Moved::Full && self.spilled.records == 0;
        self.spilled.shut = Some(if small { Moved::Failed } else { moved });
        records.into_iter().rev().for_each(|record| self.tail.push_front(record));
        self.promote();
    }

    /// Whether the spill is not used because its disk had no room.
    pub fn lacks_room(&self) -> bool {
        self.spilled.shut == Some(Moved::NoRoom)
    }

    /// The spill's disk has room again.
    pub fn spill_has_room(&mut self) {
        self.spilled.shut.take_if(|why| *why == Moved::NoRoom);
    }

    /// Whether records should come back from the spill now.
    pub fn wants_refill(&self) -> bool {
        self.spilled.records > 0 && self.moving.is_empty() && self.head_bytes < self.budget.ram / 4
    }

    /// The oldest records of the spill are back in memory.
    pub fn refilled(&mut self, life: Life, records: Vec<Record>) {
        if life != self.life {
            return;
        }
        self.spilled.shut.take_if(|why| *why != Moved::Failed);
        for record in records {
            let bytes = cost(&record);
            self.spilled.records -= 1;
            self.spilled.bytes -= bytes;
            self.ram_bytes += bytes;
            self.head_bytes += bytes;
            self.head.push_back(record);
        }
        if self.spilled.records == 0 && self.moving.is_empty() {
            assert_eq!(self.spilled.bytes, 0, "an empty spill holds no bytes");
            self.spilled.extents = None;
        }
        self.promote();
    }

    /// The volumes have grown.
    pub fn grow(&mut self, layout: &Layout) {
        for (set, volume) in self.spilled.extents.iter_mut().flatten().zip(&layout.volumes) {
            set.grow(layout.extent.count(volume.bytes));
        }
    }

    /// Empties the outbox into the dirty map: hands every change in it to `dirty`. What comes next
    /// stands behind `floor`.
    pub fn collapse(&mut self, layout: &Layout, floor: Seq, mut dirty: impl FnMut(VolumeId, Span)) {
        let held = self.head.iter().chain(&self.moving).chain(&self.tail);
        held.filter_map(Record::changes).for_each(|(volume, span)| dirty(volume, span));
        for (volume, set) in layout.ids().zip(self.spilled.extents.iter().flatten()) {
            let bytes = layout.volume(volume).map_or(0, |known| known.bytes);
            set.iter().for_each(|index| dirty(volume, layout.extent.span(index, bytes)));
        }
        let (life, drained_bytes) = (Life(self.life.0 + 1), self.drained_bytes);
        *self = Queue { drained_bytes, life, ..Queue::new(self.budget, floor) };
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty() && !self.spilling()
    }

    /// Bytes that no link has taken yet, in memory and on disk.
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Bytes that the replica has taken and acknowledged, ever.
    pub fn drained_bytes(&self) -> u64 {
        self.drained_bytes
    }

    /// Bytes in memory and on disk: all that is not durable on the replica.
    pub fn held_bytes(&self) -> u64 {
        self.ram_bytes + self.spilled.bytes
    }

    /// Bytes in memory.
    pub fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// Bytes on disk.
    pub fn spill_bytes(&self) -> u64 {
        self.spilled.bytes
    }
}

#[cfg(test)]
mod tests;
