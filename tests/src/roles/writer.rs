//! The program of a node that is a source: applications' writes, and the extents that resyncs read.

use std::collections::VecDeque;

use bytes::Bytes;
use vgship::apply::compare::{content_hash, read_extent};
use vgship::capture::io::Guard;
use vgship::capture::ledger::Ledger;
use vgship::capture::source::{After, Begin, Change, Shipped, Source, Ticket};
use vgship::ship::flight::Purpose;
use vgship::ship::pieces::pieces;
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::ids::{ReplicaId, Seq};
use vgship_base::sim::SimDisk;

use crate::world::replica::{Ended, stopped};
use crate::world::source::Reading;

/// A write that has its seq.
struct Flying {
    ticket: Ticket,
    change: Change,
    written: bool,
}

/// A switchover that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Switching {
    /// To which node.
    pub to: usize,
    /// Whether volumes were flushed and the last epoch ended.
    pub ended: bool,
}

/// A running source.
pub struct Writer {
    /// The core.
    pub source: Source,
    /// Its ledger.
    pub ledger: Ledger,
    /// What preserves for snapshots.
    pub guard: Option<Guard>,
    /// Writes that wait.
    pub waiting: VecDeque<Change>,
    /// A switchover under way.
    pub switching: Option<Switching>,
    /// Which nodes have shown that they are a source too.
    pub met: Vec<bool>,
    flying: Vec<Flying>,
    lanes: Vec<Vec<Reading>>,
}

impl Writer {
    /// A source whose ledger is yet to be written.
    pub fn new(source: Source, ledger: Ledger, guard: Option<Guard>, nodes: usize) -> Writer {
        Writer {
            lanes: source.ids().map(|_| Vec::new()).collect(),
            source,
            ledger,
            guard,
            waiting: VecDeque::new(),
            switching: None,
            met: vec![false; nodes],
            flying: Vec::new(),
        }
    }

    /// Writes a checkpoint of the ledger.
    pub fn checkpoint(&mut self, idle: u64) -> Result<(), Ended> {
        let state = self.source.begin_checkpoint(idle);
        self.ledger.checkpoint(&state).map_err(|error| stopped(&error))?;
        self.source.checkpoint_written(state.generation);
        Ok(())
    }

    /// The next waiting write tries to go to its volume. What took which seq.
    pub fn begin(&mut self) -> Result<Option<(Seq, Change)>, Ended> {
        let Some(change) = self.waiting.pop_front() else { return Ok(None) };
        let ready = self.source.wanted().any().then(|| change.ready(None));
        match self.source.begin(&change, ready.as_ref(), false) {
            Begin::Go(ticket) => {
                let seq = ticket.seq;
                self.flying.push(Flying { ticket, change: change.clone(), written: false });
                return Ok(Some((seq, change)));
            }
            Begin::Mark => {
                let wanted = self.source.wanted_marks();
                self.ledger.mark(&wanted).map_err(|error| stopped(&error))?;
                self.source.marked(&wanted);
                self.waiting.push_front(change);
                return self.begin();
            }
            Begin::Busy | Begin::Room => self.waiting.push_back(change),
            Begin::Fenced => {} // the application gets an error
            Begin::Ready | Begin::Pace => unreachable!("hashes are given, and nobody is slowed"),
        }
        Ok(None)
    }

    /// A write under way reaches its volume, behind what snapshots share with it.
    pub fn reach(&mut self, disks: &[SimDisk], pick: usize) -> Result<(), Ended> {
        let mut open: Vec<&mut Flying> =
            self.flying.iter_mut().filter(|flying| !flying.written).collect();
        if open.is_empty() {
            return Ok(());
        }
        let place = pick % open.len();
        let flying = &mut *open[place];
        let Change { volume, span, data } = &flying.change;
        if let Some(guard) = &self.guard {
            guard.before(*volume, *span).map_err(|error| stopped(&error))?;
        }
        let disk = &disks[volume.index()];
        let done = match data {
            Some(data) => disk.write_at(span.offset, data),
            None => disk.zero_at(span.offset, span.len),
        };
        done.map_err(|error| stopped(&error))?;
        flying.written = true;
        Ok(())
    }

    /// A write that reached its volume ends: the application is told.
    pub fn end(&mut self) {
        if let Some(place) = self.flying.iter().position(|flying| flying.written) {
            let Flying { ticket, .. } = self.flying.swap_remove(place);
            assert_eq!(self.source.end(ticket, true), After::Done, "no replica is waited for");
        }
    }

    /// Whether writes are under way.
    pub fn is_busy(&self) -> bool {
        !self.flying.is_empty()
    }

    /// The next extent for a resync of this replica is taken up.
    pub fn next_job(&mut self, id: ReplicaId) {
        let lane = &mut self.lanes[usize::from(id.0)];
        if lane.len() <= 8
            && let Some((job, version)) = self.source.next_job(id)
        {
            lane.push(Reading { job, version, held: false, again: false, bytes: None });
        }
    }

    /// One of the extents that are read goes a step on.
    pub fn read_step(
        &mut self,
        id: ReplicaId,
        volumes: &[SharedDisk],
        pick: usize,
    ) -> Result<(), Ended> {
        let lane = usize::from(id.0);
        let count = self.lanes[lane].len();
        if count == 0 {
            return Ok(());
        }
        let mut reading = self.lanes[lane].swap_remove(pick % count);
        if self.advance(id, volumes, &mut reading)? {
            self.lanes[lane].push(reading);
        }
        Ok(())
    }

    /// Whether there is more to do.
    fn advance(
        &mut self,
        id: ReplicaId,
        volumes: &[SharedDisk],
        reading: &mut Reading,
    ) -> Result<bool, Ended> {
        let extent = reading.job.extent;
        if reading.again && !reading.held {
            if !self.source.wants(id, &reading.job) {
                self.source.give_up(extent);
                return Ok(false);
            }
            if let Some(version) = self.source.hold(extent) {
                (reading.held, reading.version) = (true, version);
            }
            return Ok(true);
        }
        let Some(bytes) = reading.bytes.take() else {
            let read = read_extent(self.source.layout(), volumes, extent, |_, _| {});
            reading.bytes = Some(read.map_err(|error| stopped(&error))?);
            return Ok(true);
        };
        match &reading.job.purpose {
            Purpose::Offer => {
                self.source.offer(id, extent, reading.job.key, content_hash(&bytes));
                Ok(false)
            }
            Purpose::Ship(theirs) => {
                let span = self.source.layout().span(extent).expect("within the layout");
                let bodies = pieces(extent, span, &Bytes::from(bytes), theirs);
                let held = reading.held;
                let done = self.source.ship(id, &reading.job, reading.version, held, bodies);
                if held {
                    self.source.release(extent);
                }
                reading.again = done == Shipped::Again;
                Ok(reading.again)
            }
        }
    }
}
