//! Steps of sync mode and bounded lag, and what applications were promised by them (I2).

use vgship::capture::activity::Stable;
use vgship::capture::source::{After, Change, Complete};
use vgship::ship::standing::{Mode, OnTimeout, Out, Standing};
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::units::SECTOR;

use super::promises::Turns;
use super::source::Acking;
use super::{World, id_of};

impl World {
    /// The LV took a write: the application is told, or waits.
    pub(super) fn ended_well(&mut self, change: Change, turns: Turns, seq: Seq, after: After) {
        match after {
            After::Done => {
                self.promises.ended(&change, &turns, false);
                self.acknowledged(seq);
            }
            After::Stabilize(barrier) => {
                let acking = Acking { change, seq, turns, barrier, stable: false, waited: false };
                self.life().acking.push(acking);
            }
            After::Lost => self.coverage.hit("a flush took a write along that was under way"),
        }
    }

    /// A write that waits for a flush or for sync replicas goes a step on.
    pub fn acknowledge_step(&mut self) {
        if !self.up() || self.life().acking.is_empty() {
            return;
        }
        let count = self.life().acking.len();
        let place = self.rng.index(count);
        let mut acking = self.life().acking.swap_remove(place);
        if !acking.stable {
            let volume = acking.change.volume;
            match self.life().source.stable(volume, acking.barrier) {
                Stable::Yes => acking.stable = true,
                Stable::No => self.flush_now(volume),
                Stable::Lost => {
                    self.coverage.hit("sync write lost its flush: an error");
                    return;
                }
            }
            if self.up() {
                self.life().acking.push(acking);
            }
            return;
        }
        match self.life().source.completion(acking.seq) {
            Complete::Now => {
                if acking.waited {
                    self.coverage.hit("write waited for a sync replica");
                }
                self.promises.ended(&acking.change, &acking.turns, true);
                self.acknowledged(acking.seq);
            }
            Complete::Wait => {
                acking.waited = true;
                self.life().acking.push(acking);
            }
            Complete::Stopped => self.coverage.hit("sync write was cut short by a stop"),
        }
    }

    /// An application is told of a write: what was promised with that must hold now.
    fn acknowledged(&mut self, seq: Seq) {
        self.told = self.told.max(seq);
        let stall = self.settings.sync.on_timeout == OnTimeout::Stall;
        for index in 0..self.replicas.len() {
            let standing = self.known(index).sync.standing();
            let must = match standing {
                Standing::Off | Standing::Out(Out::FirstSync | Out::Paused) => false,
                Standing::InForce | Standing::Joining { .. } => true,
                Standing::Out(_) => stall,
            };
            if must && !self.has_lost_promises(index) {
                let held = self.replicas[index].held;
                assert!(
                    held >= seq,
                    "I2: write {seq} is acknowledged, replica {index} ({standing:?}) has {held}"
                );
                self.coverage.hit("I2 checked at an acknowledgement");
            }
        }
        self.check_in_force();
    }

    /// Whether this replica was emptied or damaged on purpose, which no mode outlives.
    fn has_lost_promises(&self, index: usize) -> bool {
        let host = &self.replicas[index];
        host.is_blank() || host.decayed || host.spoiled
    }

    /// RPO 0: while the source says that sync is in force, everything that applications were told
    /// of is durable on every sync replica, and is what a failover would show.
    pub(super) fn check_in_force(&mut self) {
        if !self.life().source.is_in_force() {
            return;
        }
        let deep = self.rng.one_in(8);
        for index in 0..self.replicas.len() {
            let sync = self.source.modes[index] == Mode::Sync;
            if !sync || self.has_lost_promises(index) {
                continue;
            }
            let (host, told) = (&self.replicas[index], self.told);
            assert!(
                host.held >= told,
                "I2: in force, and write {told} is not durable on replica {index}: {}",
                host.held
            );
            if let Some(point) = host.durable_point().filter(|_| deep) {
                assert!(point.consistent(), "I2: in force, and {index} stands at {point:?}");
                self.compare_told(index);
                self.coverage.hit("I2: RPO 0 checked against the replica's content");
            }
        }
    }

    fn compare_told(&self, index: usize) {
        let theirs = self.replicas[index].coming(true);
        let (content, told) = self.promises.content();
        let content = self.model.seen(id_of(index), content.clone());
        let size = usize::try_from(SECTOR).expect("small");
        for (volume, lv) in self.layout.volumes.iter().enumerate() {
            let id = VolumeId(u16::try_from(volume).expect("few volumes"));
            for sector in 0..content[volume].len() / size {
                let at = sector as u64 * SECTOR;
                let extent = at / self.layout.extent.bytes();
                let apart = self.strays[index].contains(&(id, extent)) || at < u64::from(lv.masked);
                let run = sector * size..(sector + 1) * size;
                assert!(
                    apart
                        || !told(volume, sector)
                        || content[volume][run.clone()] == theirs[volume][run],
                    "I2: in force, and replica {index} lacks what an application was told of: \
                     sector {sector} of volume {volume}"
                );
            }
        }
    }

    /// Counts how replicas stand.
    pub(super) fn note_standings(&mut self) {
        for index in 0..self.replicas.len() {
            let now = self.known(index).sync.standing();
            let before = std::mem::replace(&mut self.standings[index], now);
            if before == now {
                continue;
            }
            self.trace(|| format!("replica {index} stands {now:?}"));
            match (before, now) {
                (_, Standing::InForce) => self.coverage.hit("sync in force"),
                (Standing::InForce, Standing::Out(why)) => {
                    self.coverage.hit(format!("sync no longer in force: {why:?}"));
                }
                (_, Standing::Joining { .. }) => self.coverage.hit("sync replica joins"),
                _ => {}
            }
        }
    }

    /// Nobody is slowed but for a replica that is there and behind.
    pub(super) fn check_pace(&mut self) {
        let now = self.now;
        self.life().source.pace(now);
        let slows = |index: usize| self.known(index).pace.slows();
        let for_whom: Vec<usize> = (0..self.replicas.len()).filter(|it| slows(*it)).collect();
        let away = for_whom.iter().find(|index| !self.known(**index).follows());
        assert_eq!(away, None, "writers are slowed for a replica that does not follow");
        self.coverage.hit("writer slowed");
    }

    /// The operator sets another mode.
    pub(super) fn change_mode(&mut self, index: usize) {
        let other = match self.source.modes[index] {
            Mode::Async => Mode::Sync,
            Mode::Sync => Mode::Async,
        };
        self.source.modes[index] = other;
        if self.source.life.is_some() {
            self.life().source.set_mode(id_of(index), other);
        }
    }

    /// Whether sync is in force for every replica that it is wanted for.
    pub(super) fn is_in_force(&self) -> bool {
        let modes = self.source.modes.iter().enumerate();
        let mut sync = modes.filter(|(_, mode)| **mode == Mode::Sync);
        sync.all(|(index, _)| self.known(index).sync.standing() == Standing::InForce)
    }
}
