//! What goes wrong.

use vgship::ship::replica::Replica;
use vgship_base::disk::Disk;
use vgship_base::folder::Folder;
use vgship_base::ids::VolumeId;
use vgship_base::sim::SimDisk;

use super::World;
use super::faults::{Fault, Settings};
use super::replica::ReplicaHost;

impl World {
    /// One of the run's faults strikes.
    pub fn mishap(&mut self) {
        let fault = self.settings.faults[self.rng.index(self.settings.faults.len())];
        let index = self.rng.index(self.replicas.len());
        if Settings::is_radical(fault) && !self.rng.one_in(6) {
            return;
        }
        if self.strike(fault, index) {
            self.trace(|| format!("{fault:?} ({index})"));
            self.coverage.hit(format!("fault {fault:?}"));
        }
        self.notice_power();
    }

    /// Lets a fault strike; whether it could.
    pub fn strike(&mut self, fault: Fault, index: usize) -> bool {
        let soon = u32::try_from(1 + self.rng.below(40)).expect("small");
        let running = self.source.life.is_some();
        match fault {
            Fault::SourcePowerCut => self.source_crashes(true),
            Fault::SourcePowerFailsSoon => self.source.power.fail_after(soon),
            Fault::SourceKilled => self.source_crashes(false),
            Fault::SourceStopped => return self.stop_source(),
            Fault::SourceRecoveryFails => {
                self.source_crashes(true);
                self.source.power.fail_after(soon);
                self.start_source();
            }
            Fault::LedgerRestored => return self.restore_ledger(),
            Fault::VolumeWriteFails => {
                let disk = self.rng.index(self.source.disks.len());
                self.source.disks[disk].fail_writes(1 + soon % 2);
            }
            Fault::VolumeFlushFails => {
                let disk = self.rng.index(self.source.disks.len());
                self.source.disks[disk].fail_flushes(1);
            }
            Fault::SpillFails => return self.damage_spill(index),
            Fault::LinkCut => {
                let had = self.links[index].is_some();
                self.cut(index);
                return had;
            }
            Fault::LinkStorm => {
                let open = |known: &Replica| known.resync.is_some_and(|it| it.ends.is_none());
                if running && open(self.known(index)) {
                    self.coverage.hit("links come and go in a storm during a resync");
                }
                for _ in 0..6 {
                    self.cut(index);
                    self.connect(index);
                    self.send(index);
                    self.notice_power();
                }
            }
            Fault::Paused if running => {
                self.paused = !self.paused;
                let paused = self.paused;
                self.life().source.set_paused(paused);
            }
            Fault::Paused => return false,
            Fault::ClockJumps => self.clock_jumps(),
            Fault::ModeChanged => self.change_mode(index),
            Fault::StrayWrite => return self.stray_write(index),
            Fault::SourceReadFails
            | Fault::SourceReadMisdirected
            | Fault::ReplicaReadFails
            | Fault::ReplicaReadMisdirected => self.reads_go_wrong(fault, index),
            Fault::LedgerFull
            | Fault::SpillFull
            | Fault::JournalFull
            | Fault::SnapshotsFull
            | Fault::ReplicaCheckpointFails => self.disk_fills_up(fault, index),
            Fault::JournalFlushFails => return self.journal_flush_fails(index),
            Fault::ReplicaPowerCut => self.replica_crashes(index, true),
            Fault::ReplicaPowerFailsSoon => self.replicas[index].power.fail_after(soon),
            Fault::ReplicaKilled => self.replica_crashes(index, false),
            Fault::ReplicaRecoveryFails => {
                self.replica_crashes(index, true);
                self.replicas[index].power.fail_after(soon);
                self.start_replica(index);
            }
            Fault::ReplicaVolumeFails => {
                let disks = &self.replicas[index].disks;
                let disk = &disks[self.rng.index(disks.len())];
                if self.rng.one_in(2) { disk.fail_writes(1) } else { disk.fail_flushes(1) }
            }
            Fault::ReplicaReplaced => self.replace_replica(index),
            Fault::JournalDecays => self.replicas[index].decay(&mut self.rng),
        }
        true
    }

    /// Somebody sets the wall clock, or the machine was suspended, which both clocks show.
    fn clock_jumps(&mut self) {
        const HOUR: u64 = 3_600_000;
        if self.rng.one_in(3) {
            self.coverage.hit("machine was suspended");
            let hours = 1 + self.rng.below(9);
            self.tick(hours * HOUR);
            return;
        }
        let far = 1000 << self.rng.below(30);
        let jump = i64::try_from(self.rng.below(far)).expect("below a day");
        if self.rng.one_in(2) {
            self.coverage.hit("clock went backwards");
            self.skew -= jump;
        } else {
            self.skew += jump;
        }
    }

    fn reads_go_wrong(&mut self, fault: Fault, index: usize) {
        let pick = self.rng.draw();
        let ours = matches!(fault, Fault::SourceReadFails | Fault::SourceReadMisdirected);
        let disks = if ours { &self.source.disks } else { &self.replicas[index].disks };
        let disk = &disks[self.rng.index(disks.len())];
        match fault {
            Fault::SourceReadFails | Fault::ReplicaReadFails => disk.fail_reads(1),
            _ => disk.misdirect_reads(1, pick),
        }
    }

    /// A disk fills up; when it was full already, somebody makes room.
    fn disk_fills_up(&mut self, fault: Fault, index: usize) {
        let left = self.rng.below(24 << 10);
        let host = &self.replicas[index];
        let folder = match fault {
            Fault::LedgerFull => &self.source.ledger,
            Fault::SpillFull => &self.source.spills[index],
            Fault::JournalFull => &host.journal,
            Fault::SnapshotsFull => &host.snapshots,
            _ => &host.state,
        };
        let left = match fault {
            Fault::JournalFull | Fault::SpillFull => left,
            Fault::SnapshotsFull => left * 8,
            _ => left / 16,
        };
        let limit = (!folder.is_limited()).then(|| folder.used() + left);
        folder.set_capacity(limit);
    }

    fn journal_flush_fails(&mut self, index: usize) -> bool {
        let folder = &self.replicas[index].journal;
        let last = folder.list().ok().and_then(|names| folder.file(names.last()?));
        last.inspect(|file| file.fail_flushes(1)).is_some()
    }

    /// These extents of this replica may differ from what the order says, and so may snapshots.
    pub(super) fn note_strays(
        &mut self,
        index: usize,
        places: impl Iterator<Item = (VolumeId, u64)> + Clone,
    ) {
        self.strays[index].extend(places.clone());
        self.replicas[index].strays.extend(places);
    }

    /// Any extent of this replica may differ from what the order says.
    pub(super) fn everything_strays(&mut self, index: usize) {
        let layout = std::sync::Arc::clone(&self.layout);
        for (volume, lv) in layout.ids().zip(&layout.volumes) {
            let all = 0..layout.extent.count(lv.bytes);
            self.note_strays(index, all.map(|extent| (volume, extent)));
        }
    }

    /// The source's program ends here, or its whole machine.
    pub fn source_crashes(&mut self, power: bool) {
        (0..self.links.len()).for_each(|index| self.cut(index));
        self.source.life = None;
        self.paused = false;
        if power {
            self.source.power_cut(&mut self.rng);
        } else if self.rng.one_in(2) {
            self.source.disks.iter().for_each(SimDisk::forget_cache);
        }
    }

    /// A replica's program ends here, or its whole machine.
    pub fn replica_crashes(&mut self, index: usize, power: bool) {
        self.cut(index);
        if power {
            self.replicas[index].power_cut(&mut self.rng);
        } else if self.rng.one_in(2) {
            self.replicas[index].disks.iter().for_each(SimDisk::forget_cache);
            let folder = &self.replicas[index].journal;
            for name in folder.list().unwrap_or_default() {
                folder.file(&name).expect("it was listed").forget_cache();
            }
        }
        self.replicas[index].life = None;
        self.replicas[index].past.close();
    }

    /// A clean stop; with writes still under way it cannot be clean.
    pub fn stop_source(&mut self) -> bool {
        if self.source.life.is_none() {
            return false;
        }
        (0..self.links.len()).for_each(|index| self.cut(index));
        if self.rng.one_in(2) {
            while !self.life().flying.is_empty() && !self.source.power.is_off() {
                self.write_reaches_volume();
                self.write_ends();
            }
        }
        self.life().source.stop_stalling();
        while !self.life().acking.is_empty() && !self.source.power.is_off() {
            self.acknowledge_step();
        }
        for volume in self.layout.ids() {
            self.flush_now(volume);
        }
        if self.source.power.is_off() {
            return true;
        }
        let life = self.life();
        let state = life.source.close();
        let written = life.ledger.checkpoint(&state).is_ok();
        let full = self.source.ledger.is_limited();
        assert!(written || full || self.source.power.is_off(), "the last checkpoint fails");
        self.coverage.hit(match (written, state.clean) {
            (false, _) => "stop without a last checkpoint",
            (true, true) => "clean stop",
            (true, false) => "stop that was not clean",
        });
        self.source.life = None;
        self.paused = false;
        if self.rng.one_in(2) {
            self.source.power_cut(&mut self.rng);
        }
        true
    }

    /// Whether the source runs on an older ledger that no replica has shown to be old yet.
    pub fn ledger_is_old(&self) -> bool {
        self.source.history > 0
    }

    /// The ledger is replaced by an older copy, if every replica can notice that.
    pub fn restore_ledger(&mut self) -> bool {
        let Some((start, files)) = self.source.backup.clone() else { return false };
        if self.settings.old {
            return false; // numbers that count from 1 again say nothing about age
        }
        let seen = |host: &ReplicaHost| {
            host.life.as_ref().is_some_and(|life| life.journal.durable().start() > start)
                && host.histories.last().map_or(0, |(_, history)| *history) == self.source.history
        };
        if !self.replicas.iter().all(seen) {
            return false;
        }
        self.source_crashes(true);
        self.source.restore(&files);
        self.source.backup = None;
        self.model.fork();
        true
    }

    /// The outbox's spill cannot be read any more.
    fn damage_spill(&mut self, index: usize) -> bool {
        let folder = &self.source.spills[index];
        let names = folder.list().unwrap_or_default();
        let Some(name) = names.last() else { return false };
        let file = folder.file(name).expect("it was listed");
        let len = usize::try_from(file.len()).expect("small");
        if len > 0 {
            file.decay(self.rng.index(len), 1);
        }
        len > 0
    }

    /// Whether writing to the spill fails now.
    pub fn spill_fails(&mut self) -> bool {
        self.settings.has(Fault::SpillFails) && self.rng.one_in(8)
    }

    /// A replica is replaced by an empty one.
    pub fn replace_replica(&mut self, index: usize) {
        self.cut(index);
        self.replicas[index] =
            ReplicaHost::new(&self.layout, self.settings.segment, self.settings.history.clone());
        self.coverage.hit("replica replaced by an empty one");
    }
}
