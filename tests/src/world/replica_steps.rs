//! Steps of links and of the replicas' machines.

use vgship::ship::replica::Progress;
use vgship::ship::verdict::Verdict;
use vgship_base::ids::Seq;
use vgship_base::record::Body;

use super::model::equal;
use super::replica::{Ended, ReplicaHost};
use super::{Down, Link, World, id_of};

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

    fn replica_up(&self, index: usize) -> bool {
        self.replicas[index].life.is_some() && !self.replicas[index].power.is_off()
    }

    /// Starts a replica, which recovers; what it then holds is compared (I1).
    pub fn start_replica(&mut self, index: usize) {
        let host = &mut self.replicas[index];
        let found = match host.start() {
            Ok(found) => found,
            Err(Ended::Stopped(text)) => {
                host.life = None;
                let known = host.power.is_off() || volume_refuses(&text);
                assert!(known, "replica {index} cannot start: {text}");
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
        if found.damaged {
            self.coverage.hit("damage reported by recovery");
        }
        self.coverage.hit("replica recovered");
        self.check_prefix(index, "after recovery");
    }

    /// I1: what a replica has applied is its source's history up to that seq.
    pub fn check_prefix(&mut self, index: usize, when: &str) {
        let host = &self.replicas[index];
        let Some(life) = host.life.as_ref() else { return };
        let point = life.applied;
        if host.spoiled || !point.consistent() {
            return;
        }
        let found = host.images();
        let layout = self.layout.clone();
        let expected = self.model.expected(id_of(index), point.seq);
        assert!(
            equal(&layout, &found, expected),
            "I1: replica {index} at {} {when} differs from the source's history in {:?}",
            point.seq,
            super::model::differing(&layout, &found, expected)
        );
        self.coverage.hit("I1 checked");
    }

    /// A step of a replica ended its life: the program starts anew.
    pub fn ended(&mut self, index: usize, ended: &Ended) {
        let Ended::Stopped(text) = ended;
        if self.replicas[index].power.is_off() {
            return;
        }
        assert!(volume_refuses(text), "replica {index} stops: {text}");
        self.coverage.hit("replica stopped by a failing volume");
        self.replica_crashes(index, false);
    }

    // ---- links ----

    /// A replica connects: hello and verdict.
    pub fn connect(&mut self, index: usize) {
        let alive = self.source.life.is_some() && !self.source.power.is_off();
        if !alive || !self.replica_up(index) || self.links[index].is_some() {
            return;
        }
        let life = self.replicas[index].life.as_mut().expect("it is up");
        let point = match life.hello() {
            Ok(point) => point,
            Err(ended) => return self.ended(index, &ended),
        };
        self.note_held(index);
        if !point.fresh {
            let promised = &mut self.replicas[index].promised;
            *promised = (*promised).max(point.durable);
        }
        let fresh = self.fresh_generation();
        let id = id_of(index);
        let acked = self.life().source.replica(id).durable;
        let verdict = self.life().source.link_up(id, &point, fresh);
        self.trace(|| format!("replica {index} says {point:?}: {verdict:?}"));
        self.coverage.hit(format!("verdict {verdict:?}"));
        self.check_verdict(index, point.fresh, point.durable < acked || point.damaged, verdict);
        match verdict {
            Verdict::Diverged => {
                assert!(self.source.history > 0, "replica {index} diverged, though nothing forked");
                self.replace_replica(index);
            }
            Verdict::Continue => self.links[index] = Some(Link::default()),
            _ => {
                if self.write_ledger() {
                    self.links[index] = Some(Link::default());
                }
            }
        }
    }

    /// I6: what is not a prefix of the source's history is never silently continued.
    fn check_verdict(&mut self, index: usize, fresh: bool, lost: bool, verdict: Verdict) {
        let host = &self.replicas[index];
        let of = host.histories.last().map_or(0, |(_, history)| *history);
        if fresh {
            assert!(matches!(verdict, Verdict::Full { .. }), "a new replica gets everything");
        } else if of != self.source.history {
            let source = &self.source.life.as_ref().expect("it runs").source;
            let full = source.replica(id_of(index)).dirty.count()
                == self
                    .layout
                    .volumes
                    .iter()
                    .map(|lv| self.layout.extent.count(lv.bytes))
                    .sum::<u64>();
            let loud = match verdict {
                Verdict::Continue => false,
                Verdict::Resync(_) => full,
                _ => true,
            };
            assert!(
                loud,
                "I6: replica {index} has seen what this source has forgotten: {verdict:?}"
            );
        } else if lost {
            let full = matches!(verdict, Verdict::Full { .. });
            assert!(full, "replica {index} lost what it had promised: {verdict:?}");
        }
    }

    /// A link breaks; what is under way is lost.
    pub fn cut(&mut self, index: usize) {
        if self.links[index].take().is_some() {
            if let Some(life) = &mut self.source.life {
                life.source.link_lost(id_of(index));
            }
            self.trace(|| format!("link to replica {index} breaks"));
        }
    }

    /// The source hands records to the link.
    pub fn send(&mut self, index: usize) {
        if self.source.life.is_none() || self.links[index].is_none() {
            return;
        }
        let mut batch = self.life().source.replica_mut(id_of(index)).batch();
        while !batch.is_empty() {
            let len = 1 + self.rng.index(batch.len().min(12));
            let rest = batch.split_off(len);
            let link = self.links[index].as_mut().expect("it was just seen");
            link.up.push_back(std::mem::replace(&mut batch, rest));
        }
    }

    /// The next message arrives at the replica.
    pub fn deliver(&mut self, index: usize) {
        let up = self.replica_up(index);
        let Some(link) = self.links[index].as_mut().filter(|_| up) else { return };
        let Some(records) = link.up.pop_front() else { return };
        let history = self.source.history;
        let host = &mut self.replicas[index];
        let before = host.life.as_ref().expect("it is up").admit.point().seq;
        let received = host.life.as_mut().expect("it is up").receive(&records, host.promised);
        for record in &records {
            if matches!(record.body, Body::ResyncBegin(_)) && record.seq > before {
                host.histories.push((record.seq, history));
            }
        }
        match received {
            Ok(None) => self.note_held(index), // a full segment is flushed by itself
            Ok(Some(error)) => panic!("replica {index} refuses what its source sent: {error}"),
            Err(ended) => self.ended(index, &ended),
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

    fn note_held(&mut self, index: usize) {
        let host = &mut self.replicas[index];
        let durable = host.life.as_ref().map_or(Seq::ZERO, |life| life.journal.durable());
        host.held = host.held.max(durable);
    }

    fn acknowledge(&mut self, index: usize) {
        let host = &mut self.replicas[index];
        let life = host.life.as_ref().expect("it is up");
        let (durable, applied) = (life.journal.durable(), life.checkpointed);
        if let Some(link) = &mut self.links[index] {
            host.promised = host.promised.max(durable);
            link.down.push_back(Down::Ack { durable, applied });
        }
    }

    /// The replica applies a batch and answers its offers.
    pub fn apply(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let count = 1 + self.rng.index(4);
        let life = self.replicas[index].life.as_mut().expect("it is up");
        let applied = match life.apply(count) {
            Ok(applied) => applied,
            Err(ended) => return self.ended(index, &ended),
        };
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
        if let Some(link) = self.links[index].as_mut().filter(|_| !answers.is_empty()) {
            link.down.push_back(Down::Answers { session, answers });
        }
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
        let done = life.as_mut().expect("it is up").checkpoint(state, trim);
        match done {
            Ok(()) => {
                self.check_prefix(index, "at a checkpoint");
                self.acknowledge(index);
            }
            Err(ended) => self.ended(index, &ended),
        }
    }

    /// The next word of the replica arrives at the source.
    pub fn deliver_back(&mut self, index: usize) {
        if self.source.life.is_none() {
            return;
        }
        let Some(link) = &mut self.links[index] else { return };
        let Some(word) = link.down.pop_front() else { return };
        let id = id_of(index);
        match word {
            Down::Ack { durable, applied } => {
                let progress = Progress { durable, applied, durable_clock: 0 };
                self.life().source.replica_mut(id).acked(&progress);
            }
            Down::Answers { session, answers } => {
                for answer in answers {
                    self.life().source.answered(id, session, answer.offer, answer.need);
                }
            }
        }
    }
}

/// Whether a program stopped for a volume that was told to fail.
fn volume_refuses(text: &str) -> bool {
    text.contains("the simulated disk refuses")
}
