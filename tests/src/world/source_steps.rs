//! Steps of the source's machine.

use std::sync::atomic::Ordering;

use vgship::ship::replica::Replica;
use vgship_base::disk::Disk;
use vgship_base::ids::VolumeId;
use vgship_base::units::Span;

use super::World;
use super::faults::Fault;
use super::model::change_image;
use super::promises::By;
use super::source::{Flushing, SourceLife};

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

    /// Flushes a volume in one go, after a flush of it that is under way: there is one at a time,
    /// since only one of two would be told of a failure.
    pub fn flush_now(&mut self, volume: VolumeId) {
        if !self.up() {
            return;
        }
        let flushes = &mut self.life().flushes;
        if let Some(place) = flushes.iter().position(|it| it.volume == volume) {
            let under_way = flushes.swap_remove(place);
            let disk = &self.source.disks[volume.index()];
            let flushed = under_way.flushed.unwrap_or_else(|| disk.flush().is_ok());
            if self.source.power.is_off() {
                return;
            }
            self.flush_ended(&under_way, flushed);
        }
        let flushing = self.flush_begins(volume, By::Agent);
        let flushed = self.source.disks[volume.index()].flush().is_ok();
        if self.source.power.is_off() {
            return;
        }
        self.flush_ended(&flushing, flushed);
    }

    pub(super) fn flush_begins(&mut self, volume: VolumeId, by: By) -> Flushing {
        let told = self.promises.flush_begins(volume);
        let source = &mut self.life().source;
        let owed = by == By::Client && source.owes_error(volume);
        let covers = source.flush_begins(volume);
        Flushing { volume, covers, told, by, owed, flushed: None }
    }

    pub(super) fn flush_ended(&mut self, flushing: &Flushing, flushed: bool) {
        let volume = flushing.volume;
        self.life().source.flush_ended(volume, flushing.covers, flushed);
        let well = flushed && !flushing.owed;
        self.promises.flush_ended(volume, &flushing.told, flushing.by, well);
        if flushing.owed {
            self.coverage.hit("a client was told of a flush that had failed for the agent");
        }
        if !flushed {
            self.promises.flush_failed(volume);
            if flushing.by == By::Client {
                self.life().source.owes_error(volume); // this very error tells of it
            }
            self.coverage.hit("flush of a source volume failed");
            let open = |known: &Replica| known.resync.is_some_and(|resync| resync.ends.is_none());
            if (0..self.replicas.len()).any(|index| open(self.known(index))) {
                self.coverage.hit("flush failed during a resync");
            }
            // What was compared with the cache in between is taken in again.
            self.source.disks[volume.index()].forget_cache();
            self.life().source.flush_ended(volume, flushing.covers, false);
            self.reread(volume);
        }
    }

    /// What a volume holds is what its disk says, and what is still to be written to it.
    pub(super) fn reread(&mut self, volume: VolumeId) {
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
        if written.is_err() {
            self.ledger_failed("torn ledger checkpoint");
            return false;
        }
        let life = self.life();
        life.source.checkpoint_written(state.generation);
        life.serves = true;
        if std::mem::replace(&mut life.doubtful, false) {
            self.coverage.hit("doubt taken back");
        }
        true
    }

    /// The ledger could not be written: the machine has no power, or everything is in doubt.
    pub(super) fn ledger_failed(&mut self, torn: &'static str) {
        if self.source.power.is_off() {
            self.coverage.hit(torn);
            return;
        }
        assert!(self.source.ledger.is_limited(), "the ledger fails with power and room");
        self.coverage.hit("ledger in doubt");
        let life = self.life();
        life.doubtful = true;
        let (serves, noted) = (life.serves, life.ledger.doubt().is_ok());
        // Before the first checkpoint of a life there may be no spare name, and nothing in doubt.
        assert!(noted || !serves || self.source.power.is_off(), "the doubt needs no room");
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
            let begun = self.flush_begins(volume, By::Client);
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

    /// The wall clock. Unit: microseconds since 1970.
    pub(super) fn wall(&self) -> u64 {
        let clock = 1_000_000_000 + i64::try_from(self.now.0 * 1000).expect("years are enough");
        u64::try_from(clock + self.skew).unwrap_or(0)
    }

    /// Time passes.
    pub fn tick(&mut self, step: u64) {
        self.now.0 += step;
        let wall = 1_000_000_000 + self.now.0 * 1000;
        for host in &self.replicas {
            host.past.clock.store(wall, Ordering::SeqCst);
        }
        if !self.up() {
            return;
        }
        let now = self.now;
        let (before, clock) = (self.look(), self.wall());
        self.life().source.tick(now, clock);
        self.note_overflow(&before);
        self.note_resyncs(&before);
        self.note_standings();
        if self.life().source.wants_flush() {
            for volume in self.life().source.unflushed() {
                self.flush_now(volume);
            }
        }
        if self.up() {
            self.check_in_force();
        }
    }
}
