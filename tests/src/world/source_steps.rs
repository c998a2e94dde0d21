//! Steps of the source's machine.

use bytes::Bytes;
use vgship::capture::source::{Begin, Change};
use vgship::outbox::queue::Room;
use vgship::ship::replica::Replica;
use vgship_base::disk::Disk;
use vgship_base::ids::{Start, VolumeId};
use vgship_base::units::Span;

use super::faults::Fault;
use super::model::{change_image, differing};
use super::source::{Flushing, Flying, SourceLife, Waiting};
use super::{Owed, World};

impl World {
    /// The running source.
    ///
    /// # Panics
    /// When it is down.
    pub fn life(&mut self) -> &mut SourceLife {
        self.source.life.as_mut().expect("the source runs")
    }

    pub(super) fn up(&self) -> bool {
        self.source.life.is_some() && !self.source.power.is_off()
    }

    /// Starts the source: ledger, flush, first checkpoint. Power may fail meanwhile.
    pub fn start_source(&mut self) {
        self.begin_life();
        if self.source.power.is_off() {
            self.coverage.hit("power failed inside the start of the source");
        }
    }

    fn begin_life(&mut self) {
        if self.settings.old && !self.aged && !self.age() {
            return;
        }
        let fresh = self.fresh_generation();
        let life = match self.source.load(fresh) {
            Ok(life) => life,
            Err(error) => {
                assert!(self.source.power.is_off(), "the ledger is lost: {error:?}");
                return;
            }
        };
        let found = self.source.images();
        let power = std::mem::take(&mut self.source.lost_power);
        self.promises.check(&found, power);
        self.coverage.hit(match power {
            true => "nothing acknowledged is lost: checked after a power cut",
            false => "nothing acknowledged is lost: checked after a kill",
        });
        self.promises.restart(found.clone());
        self.model.truth = found;
        self.source.life = Some(life);
        self.windows.fill(false);
        let start = self.life().source.start();
        self.trace(|| format!("source starts {}", start.0));
        if self.lineage.last().is_some_and(|known| *known != self.generation()) && start.0 == 1 {
            self.coverage.hit("starts ran out: a new generation");
            self.source.wrapped = true;
            self.model.fork();
        }
        self.note_generation();
        for volume in self.layout.ids() {
            self.flush_now(volume);
        }
        if !self.write_ledger() {
            return;
        }
        self.check_dirty_superset();
    }

    /// Gives a source that has never run a ledger in which few starts are left. Whether it could.
    fn age(&mut self) -> bool {
        const LEFT: u16 = 3;
        let fresh = self.fresh_generation();
        let Ok(mut life) = self.source.load(fresh) else { return false };
        let mut state = life.source.begin_checkpoint(0);
        state.start = Start(u16::MAX - LEFT);
        self.aged = life.ledger.checkpoint(&state).is_ok();
        self.aged
    }

    fn generation(&self) -> vgship_base::ids::Generation {
        self.source.life.as_ref().expect("it runs").source.generation()
    }

    /// Keeps the row of generations that this source has written.
    pub(super) fn note_generation(&mut self) {
        let now = self.generation();
        match self.lineage.iter().position(|known| *known == now) {
            Some(place) => self.lineage.truncate(place + 1),
            None => self.lineage.push(now),
        }
    }

    /// I3: right after a start, every extent in which a replica differs is in its dirty map. A
    /// replica that is down is looked at when it has recovered.
    fn check_dirty_superset(&mut self) {
        self.owed.fill_with(|| None);
        if self.ledger_is_old() {
            return;
        }
        for index in 0..self.replicas.len() {
            let known = self.known(index);
            let owed = Owed { images: self.source.images(), dirty: known.durable_dirty() };
            if self.replicas[index].life.is_some() {
                self.check_owed(index, &owed);
                self.coverage.hit("I3 checked after a start");
            } else {
                self.owed[index] = Some(owed);
            }
        }
    }

    /// I3: what this replica holds differs only where the map says so.
    pub(super) fn check_owed(&self, index: usize, owed: &Owed) {
        let host = &self.replicas[index];
        let fresh = host.life.as_ref().is_none_or(|life| life.admit.point().generation.is_none());
        if fresh || host.spoiled {
            return;
        }
        for durable in [true, false] {
            let theirs = host.coming(durable);
            for (volume, extent) in differing(&self.layout, &owed.images, &theirs) {
                assert!(
                    owed.dirty.sets()[volume.index()].contains(extent),
                    "I3: extent {extent} of volume {} differs on replica {index} (durable only: \
                     {durable}) and is in no map after the source's start",
                    volume.0
                );
            }
        }
    }

    /// Flushes a volume in one go, after a flush of it that is under way: there is one at a time,
    /// since only one of two would be told of a failure.
    pub fn flush_now(&mut self, volume: VolumeId) {
        if !self.up() {
            return;
        }
        let flushes = &mut self.life().flushes;
        if let Some(place) = flushes.iter().position(|it| it.volume == volume) {
            let under_way = flushes.swap_remove(place);
            if let Some(flushed) = under_way.flushed {
                self.flush_ended(&under_way, flushed);
            }
        }
        let flushing = self.flush_begins(volume);
        let flushed = self.source.disks[volume.index()].flush().is_ok();
        if self.source.power.is_off() {
            return;
        }
        self.flush_ended(&flushing, flushed);
    }

    fn flush_begins(&mut self, volume: VolumeId) -> Flushing {
        let told = self.promises.flush_begins(volume);
        Flushing { volume, covers: self.life().source.flush_begins(volume), told, flushed: None }
    }

    fn flush_ended(&mut self, flushing: &Flushing, flushed: bool) {
        let volume = flushing.volume;
        self.life().source.flush_ended(volume, flushing.covers, flushed);
        self.promises.flush_ended(volume, &flushing.told, flushed);
        if !flushed {
            self.coverage.hit("flush of a source volume failed");
            let open = |known: &Replica| known.resync.is_some_and(|resync| resync.ends.is_none());
            if (0..self.replicas.len()).any(|index| open(self.known(index))) {
                self.coverage.hit("flush failed during a resync");
            }
            self.reread(volume);
        }
    }

    /// What a volume holds is what its disk says, and what is still to be written to it.
    fn reread(&mut self, volume: VolumeId) {
        let disk = &self.source.disks[volume.index()];
        self.model.reread(volume, Span::new(0, disk.len()), disk);
        let life = self.source.life.as_ref().expect("it runs");
        let pending = life.flying.iter().filter(|it| it.written.is_none());
        for flying in pending.filter(|it| it.change.volume == volume) {
            change_image(&mut self.model.truth, &flying.change);
        }
    }

    /// Writes a ledger checkpoint. Whether it was written; otherwise the power is off.
    pub fn write_ledger(&mut self) -> bool {
        if !self.up() {
            return false;
        }
        let idle = self.settings.idle;
        let life = self.life();
        let before = life.source.marked_regions();
        let state = life.source.begin_checkpoint(idle);
        let unmarked = before > state.marked.len();
        let written = life.ledger.checkpoint(&state);
        if unmarked {
            self.coverage.hit("regions unmarked");
        }
        if let Err(error) = written {
            assert!(self.source.power.is_off(), "the ledger fails with power on: {error:?}");
            self.coverage.hit("torn ledger checkpoint");
            return false;
        }
        self.life().source.checkpoint_written(state.generation);
        true
    }

    /// The checkpoint step: flush what is not flushed, then write the ledger.
    pub fn checkpoint(&mut self) {
        if !self.up() {
            return;
        }
        for volume in self.life().source.unflushed() {
            self.flush_now(volume);
        }
        self.write_ledger();
        if self.up() && self.settings.has(Fault::LedgerRestored) && self.rng.one_in(4) {
            let start = self.life().source.start();
            self.source.back_up(start);
        }
    }

    // ---- writes ----

    fn new_change(&mut self) -> Change {
        let ids: Vec<VolumeId> = self.layout.ids().collect();
        let volume = ids[self.rng.index(ids.len())];
        let bytes = self.layout.volume(volume).expect("it was listed").bytes;
        let rng = &mut self.rng;
        // Whole sectors, as taps must see to: a torn sector would take bytes along that no record
        // has.
        let (offset, len) = (rng.below(bytes / 512) * 512, 512 * (1 + rng.below(16)));
        let offset = if rng.one_in(2) { offset % 16_384 } else { offset };
        let span = Span::new(offset, len.min(bytes - offset));
        let size = usize::try_from(span.len).expect("small");
        let data = match rng.below(8) {
            0 => None,
            1 => Some(vec![0; size]),
            2 => Some(vec![0x55; size]),
            _ => {
                self.tags += 1;
                let tag = self.tags.to_be_bytes();
                Some(tag.iter().copied().cycle().take(size).collect())
            }
        };
        Change { volume, span, data: data.map(Bytes::from) }
    }

    /// An application begins a new write.
    pub fn write_begins(&mut self) {
        if !self.up() || !self.writing || self.life().waiting.len() > 6 {
            return;
        }
        let change = self.new_change();
        self.submit(Waiting { change, tries: 0, stalled: false });
    }

    /// A write that waits tries again.
    pub fn write_retries(&mut self) {
        if !self.up() {
            return;
        }
        if let Some(waiting) = self.life().waiting.pop_front() {
            self.submit(waiting);
        }
    }

    /// A write tries to begin; it waits if it cannot.
    pub fn submit(&mut self, mut waiting: Waiting) {
        let patient = waiting.tries < 4;
        let life = self.life();
        let hashes = life.source.wants_hashes().then(|| waiting.change.hashes());
        let before = self.look();
        let begun = self.life().source.begin(&waiting.change, hashes.as_deref(), patient);
        self.note_overflow(&before);
        match begun {
            Begin::Go(ticket) => {
                self.model.took(ticket.seq, &waiting.change);
                let span = waiting.change.span;
                self.promises.begins(waiting.change.volume, span);
                if waiting.stalled {
                    self.coverage.hit("stalled write went on");
                }
                self.trace(|| format!("write {} {:?} begins", ticket.seq, span));
                let change = waiting.change;
                self.life().flying.push(Flying { ticket, change, written: None });
                return;
            }
            Begin::Mark => self.mark(),
            Begin::Busy => self.note_busy(&waiting.change),
            Begin::Room => {
                let bytes = waiting.change.data.as_ref().map_or(0, Bytes::len) as u64 + 256;
                let source = &self.life().source;
                let room = |id| source.replica(id).outbox.room(bytes);
                let full = source.ids().any(|id| room(id) == Room::Full);
                waiting.stalled |= full;
                self.coverage.hit(if full {
                    "write stalled"
                } else {
                    "write waited for the spill"
                });
            }
            Begin::Hash => unreachable!("hashes are given when they are wanted"),
        }
        waiting.tries += 1;
        if self.source.life.is_some() {
            self.life().waiting.push_back(waiting);
        }
    }

    fn note_busy(&mut self, change: &Change) {
        let (layout, lanes) = (&self.layout, &self.source.life.as_ref().expect("it runs").lanes);
        let mut held = lanes.iter().flat_map(|lane| &lane.readings).filter(|it| it.held);
        let held = held.any(|reading| {
            let extent = reading.job.extent;
            let span = layout.span(extent).expect("jobs are within the layout");
            let apart = span.end() <= change.span.offset || change.span.end() <= span.offset;
            extent.volume == change.volume && !apart
        });
        self.coverage.hit(match held {
            true => "writer waited for an extent that was held",
            false => "write waited for another",
        });
    }

    fn mark(&mut self) {
        let life = self.life();
        let wanted = life.source.wanted_marks();
        match life.ledger.mark(&wanted) {
            Ok(()) => life.source.marked(&wanted),
            Err(error) => {
                assert!(self.source.power.is_off(), "marks fail with power on: {error:?}");
                self.coverage.hit("torn ledger mark");
            }
        }
    }

    /// A write under way reaches its volume, or fails there.
    pub fn write_reaches_volume(&mut self) {
        if !self.up() {
            return;
        }
        let flying = &self.source.life.as_ref().expect("it runs").flying;
        let open: Vec<usize> =
            (0..flying.len()).filter(|&place| flying[place].written.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let place = open[self.rng.index(open.len())];
        let change = &flying[place].change;
        let disk = &self.source.disks[change.volume.index()];
        let done = match &change.data {
            Some(data) => disk.write_at(change.span.offset, data),
            None => disk.zero_at(change.span.offset, change.span.len),
        };
        if !self.source.power.is_off() {
            self.life().flying[place].written = Some(done.is_ok());
        }
    }

    /// A write that the volume took or refused is reported.
    pub fn write_ends(&mut self) {
        if !self.up() {
            return;
        }
        let flying = &mut self.life().flying;
        let Some(place) = flying.iter().position(|it| it.written.is_some()) else { return };
        let Flying { ticket, change, written } = flying.swap_remove(place);
        let written = written.expect("it was just seen");
        self.life().source.end(ticket, written);
        if written {
            self.promises.ended(&change);
        } else {
            self.coverage.hit("write on a source volume failed");
            let disk = &self.source.disks[change.volume.index()];
            self.model.reread(change.volume, change.span, disk);
        }
    }

    /// A client's flush begins, reaches the volume, or ends.
    pub fn flush_step(&mut self) {
        if !self.up() {
            return;
        }
        let ids: Vec<VolumeId> = self.layout.ids().collect();
        let volume = ids[self.rng.index(ids.len())];
        let (begin, pick) = (self.rng.one_in(2), self.rng.draw());
        let flushes = &self.life().flushes;
        let free = flushes.iter().all(|it| it.volume != volume);
        if flushes.is_empty() || (begin && free) {
            let begun = self.flush_begins(volume);
            self.life().flushes.push(begun);
            return;
        }
        let life = self.life();
        let place = usize::try_from(pick % life.flushes.len() as u64).expect("small");
        let volume = life.flushes[place].volume;
        if let Some(flushed) = life.flushes[place].flushed {
            let done = life.flushes.swap_remove(place);
            self.flush_ended(&done, flushed);
            return;
        }
        let flushed = self.source.disks[volume.index()].flush().is_ok();
        if !self.source.power.is_off() {
            // The shell takes extents in before it lets go of the cache, and again after: what a
            // failure lost is not seen by anybody before the core knows of it.
            if flushed {
                self.life().flushes[place].flushed = Some(true);
            } else {
                let ended = self.life().flushes.swap_remove(place);
                self.flush_ended(&ended, false);
            }
        }
    }

    // ---- time ----

    /// Time passes.
    pub fn tick(&mut self, step: u64) {
        self.now.0 += step;
        if !self.up() {
            return;
        }
        let now = self.now;
        let before = self.look();
        let clock = 1_000_000_000 + i64::try_from(now.0 * 1000).expect("years are enough");
        let clock = u64::try_from(clock + self.skew).unwrap_or(0);
        self.life().source.tick(now, clock);
        self.note_overflow(&before);
        self.note_resyncs(&before);
    }
}
