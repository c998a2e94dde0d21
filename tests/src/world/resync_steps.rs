//! Steps of a resync: extents are read, offered, and shipped where they are needed.

use bytes::Bytes;
use vgship::apply::compare::content_hash;
use vgship::capture::source::Shipped;
use vgship::ship::flight::{Job, Purpose};
use vgship::ship::pieces::pieces;
use vgship_base::extent::Extent;

use super::model::veil;
use super::source::Reading;
use super::{World, id_of};

/// What came of a step of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is more to do.
    Later,
    /// Offered, shipped or not wanted any more.
    Done,
}

impl World {
    /// The next extent is taken up.
    pub fn next_job(&mut self, index: usize) {
        if !self.up() || self.life().lanes[index].readings.len() > 8 {
            return;
        }
        let id = id_of(index);
        if let Some((job, version)) = self.life().source.next_job(id) {
            let reading = Reading { job, version, held: false, again: false, bytes: None };
            self.life().lanes[index].readings.push(reading);
            return;
        }
        let known = self.known(index);
        let open = known.resync.is_some_and(|resync| resync.ends.is_none());
        let able = known.linked() && !known.paused && open && known.flight.is_empty();
        if able && !known.dirty.is_empty() {
            self.coverage.hit("offer waited for a write older than the resync");
        }
    }

    /// One of the readings goes a step on.
    pub fn read_step(&mut self, index: usize) {
        if !self.up() {
            return;
        }
        let count = self.life().lanes[index].readings.len();
        if count == 0 {
            return;
        }
        let place = self.rng.index(count);
        let mut reading = self.life().lanes[index].readings.swap_remove(place);
        let before = self.look();
        let step = self.advance(index, &mut reading);
        self.note_overflow(&before);
        if step == Step::Later {
            self.life().lanes[index].readings.push(reading);
        }
    }

    fn advance(&mut self, index: usize, reading: &mut Reading) -> Step {
        let id = id_of(index);
        let extent = reading.job.extent;
        if reading.again && !reading.held {
            if !self.life().source.wants(id, &reading.job) {
                self.life().source.give_up(extent);
                return Step::Done;
            }
            if let Some(version) = self.life().source.hold(extent) {
                (reading.held, reading.version) = (true, version);
            }
            return Step::Later;
        }
        let Some(bytes) = reading.bytes.take() else {
            reading.bytes = self.read(index, extent);
            if reading.bytes.is_some() {
                return Step::Later;
            }
            return self.cannot_read(index, &reading.job, reading.held);
        };
        if !self.life().source.wants(id, &reading.job) {
            self.coverage.hit("a job was overtaken before it was read");
        }
        match &reading.job.purpose {
            Purpose::Offer => {
                let issued = self.life().source.issued();
                self.life().source.offer(id, extent, reading.job.key, content_hash(&bytes));
                self.offers[index] += u64::from(self.life().source.issued() > issued);
                Step::Done
            }
            Purpose::Ship(theirs) => {
                let theirs = theirs.clone();
                self.ship(index, reading, &Bytes::from(bytes), &theirs)
            }
        }
    }

    fn ship(&mut self, index: usize, reading: &mut Reading, bytes: &Bytes, theirs: &[u64]) -> Step {
        let extent = reading.job.extent;
        let span = self.layout.span(extent).expect("jobs are within the layout");
        let bodies = pieces(extent, span, bytes, theirs);
        let nothing = bodies.is_empty();
        let (version, held) = (reading.version, reading.held);
        let source = &mut self.life().source;
        let shipped = source.ship(id_of(index), &reading.job, version, held, bodies);
        if held {
            source.release(extent);
            assert_eq!(shipped, Shipped::Done, "nobody wrote while the extent was held");
        }
        match shipped {
            Shipped::Done => {
                if nothing {
                    self.coverage.hit("needed content equals by now");
                }
                Step::Done
            }
            Shipped::Again => {
                self.coverage.hit("extent held, because it was written while it was read");
                reading.again = true;
                Step::Later
            }
        }
    }

    /// Reads an extent of the source for a replica. What goes astray the world sees, and nobody else.
    pub(super) fn read(&mut self, index: usize, extent: Extent) -> Option<Vec<u8>> {
        let before = self.source.misdirected();
        let mut bytes = self.source.read(extent);
        if let Some(bytes) = bytes.as_mut().filter(|_| self.settings.is_blind(index)) {
            let span = self.layout.span(extent).expect("what is read is within the layout");
            veil().veil(extent.volume, span.offset, bytes);
        }
        if self.source.misdirected() > before {
            self.coverage.hit("source read what was not asked for");
            self.note_strays(index, std::iter::once((extent.volume, extent.index)));
        }
        bytes
    }

    fn cannot_read(&mut self, index: usize, job: &Job, held: bool) -> Step {
        let extent: Extent = job.extent;
        self.coverage.hit("extent cannot be read");
        let source = &mut self.life().source;
        if held {
            source.release(extent);
        }
        source.unreadable(id_of(index), extent, job.key);
        Step::Done
    }
}
