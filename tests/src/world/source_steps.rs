//! Steps of the source's machine.

use bytes::Bytes;
use vgship::capture::source::{After, Begin, Change};
use vgship::outbox::queue::Moved;
use vgship::outbox::queue::Room;
use vgship_base::disk::Disk;
use vgship_base::extent::Extent;
use vgship_base::ids::VolumeId;
use vgship_base::units::Span;

use super::faults::Fault;
use super::model::{change_image, differing};
use super::source::{Flushing, Flying, ReadFrom, Reading, SourceLife, Step, Waiting};
use super::{World, id_of};

impl World {
    /// The running source.
    ///
    /// # Panics
    /// When it is down.
    pub fn life(&mut self) -> &mut SourceLife {
        self.source.life.as_mut().expect("the source runs")
    }

    fn up(&self) -> bool {
        self.source.life.is_some() && !self.source.power.is_off()
    }

    /// Starts the source: ledger, flush, first checkpoint. Power may fail meanwhile.
    pub fn start_source(&mut self) {
        let fresh = self.fresh_generation();
        let life = match self.source.load(fresh) {
            Ok(life) => life,
            Err(error) => {
                assert!(self.source.power.is_off(), "the ledger is lost: {error:?}");
                return;
            }
        };
        self.model.truth = self.source.images();
        self.source.life = Some(life);
        let start = self.life().source.start();
        self.trace(|| format!("source starts {}", start.0));
        for volume in self.layout.ids() {
            self.flush_now(volume);
        }
        if !self.write_ledger() {
            return;
        }
        self.check_dirty_superset();
    }

    /// I3: right after a start, every extent in which a replica differs is in its dirty map.
    fn check_dirty_superset(&mut self) {
        if self.ledger_is_old() {
            return;
        }
        let layout = self.layout.clone();
        for index in 0..self.replicas.len() {
            let host = &self.replicas[index];
            let known = self.source.life.as_ref().expect("it just started");
            let dirty = known.source.replica(id_of(index)).durable_dirty();
            let fresh =
                host.life.as_ref().is_none_or(|life| life.admit.point().generation.is_none());
            if fresh || host.spoiled {
                continue;
            }
            for durable in [true, false] {
                let theirs = host.coming(durable);
                for (volume, extent) in differing(&layout, &self.source.images(), &theirs) {
                    assert!(
                        dirty.sets()[volume.index()].contains(extent),
                        "I3: extent {extent} of volume {} differs on replica {index} (durable \
                         only: {durable}) and is in no map after the source's start",
                        volume.0
                    );
                }
            }
            self.coverage.hit("I3 checked after a start");
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
                self.flush_ended(volume, under_way.covers, flushed);
            }
        }
        let covers = self.life().source.flush_begins(volume);
        let flushed = self.source.disks[volume.index()].flush().is_ok();
        if self.source.power.is_off() {
            return;
        }
        self.flush_ended(volume, covers, flushed);
    }

    fn flush_ended(
        &mut self,
        volume: VolumeId,
        covers: vgship::capture::activity::Completion,
        flushed: bool,
    ) {
        self.life().source.flush_ended(volume, covers, flushed);
        if !flushed {
            self.coverage.hit("flush of a source volume failed");
            // What was compared with the cache in between is taken in again.
            self.source.disks[volume.index()].forget_cache();
            self.life().source.flush_ended(volume, covers, false);
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
        self.submit(Waiting { change, tries: 0 });
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
        let before: Vec<_> = life.source.ids().map(|id| life.source.replica(id).flow).collect();
        let begun = life.source.begin(&waiting.change, hashes.as_deref(), patient);
        let after = life.source.ids().map(|id| life.source.replica(id).flow);
        if after.zip(&before).any(|(after, before)| after != *before) {
            let resync = life.source.ids().any(|id| life.source.replica(id).resync.is_some());
            self.coverage.hit("outbox overflowed into the map");
            self.trace(|| format!("overflow (another resync: {resync})"));
        }
        match begun {
            Begin::Go(ticket) => {
                self.model.took(ticket.seq, &waiting.change);
                let span = waiting.change.span;
                self.trace(|| format!("write {} {:?} begins", ticket.seq, span));
                let change = waiting.change;
                self.life().flying.push(Flying { ticket, change, written: None });
                return;
            }
            Begin::Mark => self.mark(),
            Begin::Busy => self.coverage.hit("write waited for another"),
            Begin::Room => {
                let bytes = waiting.change.data.as_ref().map_or(0, Bytes::len) as u64 + 256;
                let source = &self.life().source;
                let room = |id| source.replica(id).outbox.room(bytes);
                let full = source.ids().any(|id| room(id) == Room::Full);
                self.coverage.hit(if full {
                    "write stalled"
                } else {
                    "write waited for the spill"
                });
            }
            Begin::Pace => unreachable!("no lag is bounded"),
            Begin::Hash => unreachable!("hashes are given when they are wanted"),
        }
        waiting.tries += 1;
        if self.source.life.is_some() {
            self.life().waiting.push_back(waiting);
        }
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
        let after = self.life().source.end(ticket, written);
        assert_eq!(after, After::Done, "every replica is async");
        if !written {
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
        let life = self.life();
        let free = life.flushes.iter().all(|it| it.volume != volume);
        if life.flushes.is_empty() || (begin && free) {
            let covers = life.source.flush_begins(volume);
            life.flushes.push(Flushing { volume, covers, flushed: None });
            return;
        }
        let place = usize::try_from(pick % life.flushes.len() as u64).expect("small");
        let volume = life.flushes[place].volume;
        if let Some(flushed) = life.flushes[place].flushed {
            let done = life.flushes.swap_remove(place);
            self.flush_ended(volume, done.covers, flushed);
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
                self.flush_ended(ended.volume, ended.covers, false);
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
        let before = self.resyncs();
        self.life().source.tick(now, 1_000_000 + now.0 * 1000);
        for (index, (was, is)) in before.into_iter().zip(self.resyncs()).enumerate() {
            let (was, is) = (was.and_then(|it| it.ends), is.and_then(|it| it.ends));
            if let Some(seq) = is.filter(|_| was != is) {
                self.coverage.hit("resync ended");
                self.trace(|| format!("resync of replica {index} ends with {seq}"));
                self.model.resynced(id_of(index), seq);
            }
        }
    }

    fn resyncs(&self) -> Vec<Option<vgship::ship::replica::Resync>> {
        let source = &self.source.life.as_ref().expect("it runs").source;
        source.ids().map(|id| source.replica(id).resync).collect()
    }

    // ---- resync ----

    /// The next extent is taken up.
    pub fn next_job(&mut self, index: usize) {
        if !self.up() {
            return;
        }
        let life = self.life();
        if life.lanes[index].readings.len() > 8 {
            return;
        }
        if let Some((job, version)) = life.source.next_job(id_of(index)) {
            let reading = Reading { job, version, held: false, again: false, bytes: None };
            life.lanes[index].readings.push(reading);
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
        let mut life = self.source.life.take().expect("it runs");
        let mut reading = life.lanes[index].readings.swap_remove(place);
        let issued = life.source.issued();
        let offer = matches!(reading.job.purpose, vgship::ship::flight::Purpose::Offer);
        let host = &self.source;
        let from = ReadFrom { read: &|extent: Extent| host.read(extent), layout: &self.layout };
        let step = life.read_step(id_of(index), &mut reading, &from);
        if life.source.issued() > issued && offer {
            self.offers[index] += 1;
        }
        match step {
            Step::Done => {}
            Step::Later => life.lanes[index].readings.push(reading),
            Step::Repeated => {
                self.coverage.hit("extent held, because it was written while it was read");
                life.lanes[index].readings.push(reading);
            }
        }
        self.source.life = Some(life);
    }

    // ---- spill ----

    /// Records go to the spill, or the outbox hears that they did.
    pub fn spill_step(&mut self, index: usize) {
        if !self.up() {
            return;
        }
        self.renew_spill(index);
        let (layout, fails) = (self.layout.clone(), self.spill_fails());
        let life = self.source.life.as_mut().expect("it runs");
        let outbox = &mut life.source.replica_mut(id_of(index)).outbox;
        let lane = &mut life.lanes[index];
        if let Some((of, written)) = lane.pushed.take() {
            let moved = if written { Moved::Written } else { Moved::Failed };
            outbox.spilled(of, moved);
            return;
        }
        if let Some(records) = outbox.to_spill(&layout) {
            let written = !fails && lane.spill.push(&records).is_ok();
            let life = self.source.life.as_mut().expect("it runs");
            let of = life.source.replica(id_of(index)).outbox.life();
            life.lanes[index].pushed = Some((of, written));
            self.coverage.hit(if written { "spilled" } else { "spill failed" });
        }
    }

    /// Records come back from the spill.
    pub fn refill_step(&mut self, index: usize) {
        if !self.up() {
            return;
        }
        self.renew_spill(index);
        let max = 1 + self.rng.index(20_000);
        let life = self.source.life.as_mut().expect("it runs");
        let replica = life.source.replica_mut(id_of(index));
        let lane = &mut life.lanes[index];
        if let Some((of, records)) = lane.popped.take() {
            replica.outbox.refilled(of, records);
            return;
        }
        if !replica.outbox.wants_refill() {
            return;
        }
        let of = replica.outbox.life();
        match lane.spill.pop(max) {
            Ok(records) => lane.popped = Some((of, records)),
            Err(error) => {
                if !self.source.power.is_off() {
                    self.trace(|| format!("the spill is lost: {error}"));
                    self.coverage.hit("spill lost");
                    self.life().source.spill_lost(id_of(index));
                    self.renew_spill(index);
                }
            }
        }
    }

    /// Clears a spill whose content is of an earlier life of the outbox.
    fn renew_spill(&mut self, index: usize) {
        let life = self.source.life.as_mut().expect("it runs");
        let now = life.source.replica(id_of(index)).outbox.life();
        let lane = &mut life.lanes[index];
        if lane.life != now && lane.spill.clear().is_ok() {
            lane.life = now;
        }
    }
}
