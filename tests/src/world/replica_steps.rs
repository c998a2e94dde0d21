//! Steps of links and of the replicas' machines.

use vgship_base::ids::Seq;

use super::model::equal;
use super::replica::{Ended, ReplicaHost};
use super::{World, id_of};

impl World {
    /// Everything that is down starts.
    pub fn start_all(&mut self) {
        if self.source.life.is_none() {
            self.start_source();
            self.notice_power();
        }
        for index in 0..self.replicas.len() {
            if self.replicas[index].life.is_none() {
                self.start_replica(index);
                self.notice_power();
            }
        }
    }

    pub(super) fn replica_up(&self, index: usize) -> bool {
        self.replicas[index].life.is_some() && !self.replicas[index].power.is_off()
    }

    /// Starts a replica, which recovers; what it then holds is compared (I1).
    pub fn start_replica(&mut self, index: usize) {
        self.recover(index);
        if self.replicas[index].power.is_off() {
            self.coverage.hit("power failed inside the start of a replica");
        }
    }

    fn recover(&mut self, index: usize) {
        let before = self.astray(index);
        let started = self.replicas[index].start();
        if self.astray(index) > before {
            self.everything_strays(index);
        }
        let host = &mut self.replicas[index];
        let found = match started {
            Ok(found) => found,
            Err(Ended::Stopped(text)) => {
                host.life = None;
                let known = host.power.is_off() || volume_refuses(&text);
                assert!(known, "replica {index} cannot start: {text}");
                if is_full(&text) {
                    self.coverage.hit("replica cannot start: a disk is full");
                }
                return;
            }
        };
        self.trace(|| format!("replica {index} starts at {found:?}"));
        let host = &mut self.replicas[index];
        let lost = found.damaged || found.point.seq < host.held.max(host.promised);
        if host.decayed && lost {
            (host.promised, host.held) = (found.point.seq, found.point.seq);
            host.spoiled = true;
        } else {
            assert!(!found.damaged, "replica {index} reports damage where none was done");
            assert!(
                found.point.seq >= host.held.max(host.promised),
                "replica {index} promised {}, flushed {} and has {} after recovery",
                host.promised,
                host.held,
                found.point.seq
            );
        }
        for (met, what) in [
            (true, "replica recovered"),
            (found.damaged, "damage reported by recovery"),
            (found.replayed, "replica replayed its journal"),
            (found.point.window.is_some(), "replica recovered inside a resync"),
            (found.torn, "torn journal tail"),
            (found.survived, "unflushed records of the journal survived"),
        ] {
            if met {
                self.coverage.hit(what);
            }
        }
        self.note_rollback(index);
        self.check_prefix(index, "after recovery");
        self.note_snapshots(index);
        self.look_back(index);
        if self.replica_up(index) {
            self.open_environments(index);
        }
        if !self.replica_up(index) {
            return;
        }
        if let Some(owed) = self.owed[index].take() {
            self.check_owed(index, &owed);
            self.coverage.hit("I3 checked when a replica came later");
        }
    }

    /// I1: what a replica has applied is its source's history up to that seq.
    pub fn check_prefix(&mut self, index: usize, when: &str) {
        let host = &self.replicas[index];
        let Some(life) = host.life.as_ref() else { return };
        let point = life.applied;
        if host.spoiled || life.hold.is_some() || !point.consistent() {
            return;
        }
        let found = host.images();
        let expected = self.model.expected(id_of(index), point.seq);
        if !equal(&self.layout, &found, expected) {
            let expected = expected.clone();
            let places = self.differing(index, &found, &expected);
            assert!(
                places.is_empty(),
                "I1: replica {index} at {} {when} differs from the source's history in {places:?}",
                point.seq,
            );
        }
        self.coverage.hit("I1 checked");
    }

    /// A step of a replica ended its life: the program starts anew.
    pub fn ended(&mut self, index: usize, ended: &Ended) {
        let Ended::Stopped(text) = ended;
        if self.replicas[index].power.is_off() {
            return;
        }
        assert!(volume_refuses(text), "replica {index} stops: {text}");
        self.coverage.hit(match is_full(text) {
            true => "replica stopped by a full disk",
            false => "replica stopped by a failing volume",
        });
        self.opened_anew(index);
    }

    /// A replica's program stops what it does; the agent goes on, and may serve environments
    /// meanwhile.
    pub(super) fn opened_anew(&mut self, index: usize) {
        let past = &mut self.replicas[index].past;
        let goes_on = self.rng.one_in(2);
        let served = past.environments.iter_mut().map(|it| std::mem::take(&mut it.clones));
        let served: Vec<_> = served.collect();
        self.replica_crashes(index, false);
        if goes_on {
            let past = &mut self.replicas[index].past;
            past.environments.iter_mut().zip(served).for_each(|(it, clones)| it.clones = clones);
        }
    }

    /// The replica's journal is flushed, which is acknowledged.
    pub fn persist(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let host = &mut self.replicas[index];
        let life = host.life.as_mut().expect("it is up");
        if let Err(error) = life.journal.flush() {
            return self.ended(index, &Ended::from(error));
        }
        self.note_held(index);
        self.acknowledge(index);
    }

    pub(super) fn note_held(&mut self, index: usize) {
        let host = &mut self.replicas[index];
        let durable = host.life.as_ref().map_or(Seq::ZERO, |life| life.journal.durable());
        host.held = host.held.max(durable);
    }

    /// The replica applies a batch and answers its offers.
    pub fn apply(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let count = 1 + self.rng.index(4);
        let before = self.astray(index);
        let life = self.replicas[index].life.as_mut();
        let applied = life.expect("it is up").apply(count);
        if self.astray(index) > before {
            self.coverage.hit("replica judged what was not asked for");
            self.everything_strays(index);
        }
        let applied = match applied {
            Ok(applied) => applied,
            Err(ended) => return self.ended(index, &ended),
        };
        self.note_snapshots(index);
        let Some((session, answers, ended)) = applied else { return };
        if ended {
            self.replicas[index].spoiled = false;
        }
        for answer in &answers {
            let text = match &answer.need {
                None => "equal",
                Some(parts) if parts.is_empty() => "needed whole",
                Some(_) => "needed in parts",
            };
            self.coverage.hit(format!("offer answered: {text}"));
        }
        self.answer(index, session, answers);
        if ended || self.rng.one_in(6) {
            self.check_prefix(index, "while applying");
        }
    }

    /// The replica moves its checkpoint.
    pub fn replica_checkpoint(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let trim = self.rng.one_in(2);
        let ReplicaHost { life, state, .. } = &mut self.replicas[index];
        let life = life.as_mut().expect("it is up");
        let done = life.checkpoint(state).and_then(|()| if trim { life.trim() } else { Ok(()) });
        match done {
            Ok(()) => {
                self.check_prefix(index, "at a checkpoint");
                self.acknowledge(index);
            }
            Err(ended) => self.ended(index, &ended),
        }
    }
}

/// Whether a program stopped for a disk that was told to fail, or to be full.
pub(super) fn volume_refuses(text: &str) -> bool {
    text.contains("the simulated disk refuses") || is_full(text) || text.contains("one sector only")
}

fn is_full(text: &str) -> bool {
    text.contains("StorageFull") || text.contains("NoRoom")
}
