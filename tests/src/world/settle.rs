//! Faults stop: everything must become equal in bounded steps (I7).

use super::disorder::{ACTIONS, Action};
use std::collections::BTreeSet;

use vgship_base::folder::Folder;
use vgship_base::sim::SimDisk;

use super::model::equal;
use super::{World, id_of};
use vgship::ship::replica::Flow;

/// Rounds over all actions within which everything must be in sync.
const ROUNDS: u32 = 4000;

/// Rounds after which time passes faster: a sync replica that was late is left alone for a while.
const PATIENT: u32 = 50;

fn mend(disk: &SimDisk) {
    disk.fail_writes(0);
    disk.fail_flushes(0);
    disk.fail_reads(0);
    disk.misdirect_reads(0, 0);
}

impl World {
    /// Stops faults and writes, and runs until both sides are in sync; then compares them.
    pub fn settle(&mut self) {
        self.trace(|| "settling".into());
        self.writing = false;
        self.heal();
        let (mut rounds, mut goals) = (0, Vec::new());
        let checks = self.rng.one_in(8) || self.strays.iter().any(|set| !set.is_empty());
        while !self.in_sync() || (checks && !self.checked_through(&mut goals)) {
            rounds += 1;
            if rounds > PATIENT && rounds.is_multiple_of(4) {
                self.tick(1000);
            }
            assert!(rounds < ROUNDS, "I7: not in sync after {ROUNDS} rounds: {}", self.state());
            for action in ACTIONS {
                let times = match action {
                    Action::Begin => 0,
                    Action::NextCheck | Action::Check if !checks => 0,
                    Action::Retry => 16,
                    Action::Deliver | Action::Return => 8,
                    _ => 2,
                };
                for _ in 0..times * self.replicas.len() {
                    self.act(action);
                }
            }
        }
        self.compare();
        if self.settings.blind.contains(&true) {
            self.coverage.hit("settled with a blind replica");
        }
        if checks {
            self.coverage.hit("self-check found nothing more");
        }
        self.strays.iter_mut().for_each(BTreeSet::clear);
        self.coverage.hit("settled");
    }

    /// Everything broken is mended.
    fn heal(&mut self) {
        self.source.power.restore();
        self.source.disks.iter().for_each(mend);
        self.source.ledger.set_capacity(None);
        self.source.spills.iter().for_each(|folder| folder.set_capacity(None));
        for host in &self.replicas {
            host.power.restore();
            host.disks.iter().for_each(mend);
            host.journal.set_capacity(None);
            host.state.set_capacity(None);
            host.snapshots.set_capacity(None);
            for name in host.journal.list().unwrap_or_default() {
                host.journal.file(&name).iter().for_each(mend);
            }
        }
        if self.paused && self.source.life.is_some() {
            self.paused = false;
            self.life().source.set_paused(false);
        }
    }

    /// Whether every replica has everything and nothing is under way.
    pub fn in_sync(&self) -> bool {
        let Some(life) = &self.source.life else { return false };
        let under_way = life.waiting.len() + life.flying.len() + life.acking.len();
        if under_way > 0 || !self.is_in_force() {
            return false;
        }
        (0..self.replicas.len()).all(|index| {
            let known = life.source.replica(id_of(index));
            let theirs = self.replicas[index].life.as_ref();
            self.links[index].is_some()
                && known.flow == Flow::Stream
                && known.resync.is_none()
                && known.wants_resync.is_none()
                && known.dirty.is_empty()
                && known.flight.is_empty()
                && theirs.is_some_and(|theirs| {
                    theirs.applied.seq >= known.durable
                        && theirs.applied.consistent()
                        && theirs.hold.is_none()
                })
                && known.outbox.is_empty()
        })
    }

    /// What keeps the world from being in sync.
    fn state(&self) -> String {
        let Some(life) = &self.source.life else { return "the source is down".into() };
        let replica = |index: usize| {
            let known = life.source.replica(id_of(index));
            let theirs = self.replicas[index].life.as_ref();
            let point = theirs.map(|life| (life.applied, life.rolled()));
            format!(
                "replica {index}: linked {}, {:?}, {:?}, dirty {}, flight {}, resync {:?}, \
                 unsent {}, durable {}, {:?}, theirs {point:?}",
                self.links[index].is_some(),
                known.flow,
                known.sync.standing(),
                known.dirty.count(),
                known.flight.len(),
                known.resync,
                known.outbox.unsent_bytes(),
                known.durable,
                known.checks.report()
            )
        };
        let replicas: Vec<String> = (0..self.replicas.len()).map(replica).collect();
        format!(
            "{} writes wait, {} are under way; {}",
            life.waiting.len(),
            life.flying.len(),
            replicas.join("; ")
        )
    }

    /// Both sides are equal, byte for byte, and equal to the model.
    fn compare(&mut self) {
        let ours = self.source.images();
        assert!(equal(&self.layout, &ours, &self.model.truth), "the model differs from the source");
        for index in 0..self.replicas.len() {
            let theirs = self.replicas[index].images();
            let ours = self.model.seen(id_of(index), ours.clone());
            assert!(
                equal(&self.layout, &ours, &theirs),
                "I7: in sync, yet replica {index} differs in {:?}",
                super::model::differing(&self.layout, &ours, &theirs)
            );
            self.check_prefix(index, "in sync");
            self.look_back(index);
            for which in 0..self.replicas[index].past.environments.len() {
                let checked = self.check_environment(index, which, "in sync");
                assert!(checked.is_ok(), "an environment cannot be read: {checked:?}");
            }
        }
    }
}
