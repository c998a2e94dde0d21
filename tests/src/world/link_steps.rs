//! Steps of links.

use bytes::BytesMut;
use vgship::apply::applier::Answer as Judged;
use vgship::capture::ledger_format::LINEAGE_MAX;
use vgship::ship::replica::Progress;
use vgship::ship::verdict::{ReplicaPoint, Verdict};
use vgship::wire::frame::{Ack, Answer, Frame};
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, Seq, Start};
use vgship_base::record::{Body, Record};

use super::net::Event;
use super::{Link, World, id_of};

/// Room that a replica leaves free in its journal, in runs in which nobody else takes it. The
/// agent's reserve is larger than all that a run writes. Unit: bytes.
const RESERVE: u64 = 96 << 10;

fn name(event: Event) -> &'static str {
    match event {
        Event::Early => "datagram came early",
        Event::Again => "datagram came again",
        Event::Lost => "datagram lost",
    }
}

impl World {
    /// A replica connects: hello and verdict.
    pub fn connect(&mut self, index: usize) {
        if !self.up() || !self.replica_up(index) || self.links[index].is_some() {
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
        let acked = self.known(index).durable;
        let start = self.life().source.start();
        let verdict = self.life().source.link_up(id, &point, fresh);
        self.trace(|| format!("replica {index} says {point:?}: {verdict:?}"));
        self.coverage.hit(format!("verdict {verdict:?}"));
        self.note_generations(&point, start, verdict);
        self.check_verdict(index, point.fresh, point.durable < acked || point.damaged, verdict);
        match verdict {
            Verdict::Diverged => {
                let last = point.durable.start().max(start) == Start(u16::MAX);
                let expected = self.source.history > 0
                    || (self.source.wrapped && last)
                    || self.is_forgotten(point.generation);
                assert!(expected, "replica {index} diverged, though nothing forked");
                self.replace_replica(index);
            }
            Verdict::Continue => self.links[index] = Some(Link::default()),
            _ => {
                if self.write_ledger() {
                    self.links[index] = Some(Link::default());
                } else if self.up() {
                    self.coverage.hit("replica refused: the ledger has no room");
                    self.life().source.link_lost(id);
                }
            }
        }
    }

    /// Whether so many generations began since this one that no ledger names it any more.
    fn is_forgotten(&mut self, generation: Generation) -> bool {
        let forgotten =
            !self.lineage.iter().rev().take(LINEAGE_MAX + 1).any(|it| *it == generation);
        if forgotten {
            self.coverage.hit("a replica of a generation that is forgotten");
        }
        forgotten
    }

    /// Counts what a hello meant for generations.
    fn note_generations(&mut self, point: &ReplicaPoint, start: Start, verdict: Verdict) {
        if self.life().source.start() > start {
            self.coverage.hit("a new generation counts above every start seen");
        }
        let back = self.lineage.iter().rev().position(|known| *known == point.generation);
        if back == Some(2) {
            self.coverage.hit("a replica two generations back");
        }
        if back > Some(0) && matches!(verdict, Verdict::Resync(_)) {
            self.coverage.hit("a replica of an earlier generation continues from its fork");
        }
        self.note_generation();
    }

    /// I6: what is not a prefix of the source's history is never silently continued.
    fn check_verdict(&mut self, index: usize, fresh: bool, lost: bool, verdict: Verdict) {
        let host = &self.replicas[index];
        let of = host.histories.last().map_or(0, |(_, history)| *history);
        if fresh {
            assert!(matches!(verdict, Verdict::Full { .. }), "a new replica gets everything");
        } else if of != self.source.history {
            let full = self.known(index).dirty.count()
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
            let loud = matches!(verdict, Verdict::Full { .. } | Verdict::Diverged);
            assert!(loud, "replica {index} lost what it had promised: {verdict:?}");
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

    /// The source hands records to the link, which waits when too much is under way.
    pub fn send(&mut self, index: usize) {
        let Some(link) = self.links[index].as_ref().filter(|_| self.source.life.is_some()) else {
            return;
        };
        if !link.up.open(&self.settings.weather) {
            self.coverage.hit("link waits for its window");
            return;
        }
        let mut batch = self.life().source.replica_mut(id_of(index)).batch();
        while !batch.is_empty() {
            let len = 1 + self.rng.index(batch.len().min(12));
            let rest = batch.split_off(len);
            let records = std::mem::replace(&mut batch, rest);
            let link = self.links[index].as_mut().expect("it was just seen");
            let mut bytes = BytesMut::new();
            link.encoder.encode(&records).iter().for_each(|chunk| bytes.extend_from_slice(chunk));
            link.up.put(&self.settings.weather, bytes.freeze());
        }
    }

    /// The next batch arrives at the replica.
    pub fn deliver(&mut self, index: usize) {
        let up = self.replica_up(index);
        let Some(link) = self.links[index].as_mut().filter(|_| up) else { return };
        let (coverage, weather) = (&mut self.coverage, &self.settings.weather);
        let free = self.replicas[index].journal.available().unwrap_or(0);
        if self.settings.reserve && free < RESERVE {
            coverage.hit("replica reads nothing: its journal has no room");
            return self.history_gives_way(index);
        }
        let frame = link.up.next(weather, &mut self.rng, |event| coverage.hit(name(event)));
        match frame {
            None => {}
            Some(Frame::Batch(records)) => self.receive(index, &records),
            Some(other) => panic!("the source sends {other:?}"),
        }
    }

    fn receive(&mut self, index: usize, records: &[Record]) {
        let (history, alone) = (self.source.history, self.replicas.len() == 1);
        let host = &mut self.replicas[index];
        let life = host.life.as_mut().expect("it is up");
        let (before, segments) = (life.admit.point().seq, life.journal.segments());
        let received = life.receive(records, host.promised);
        if life.journal.segments() > segments {
            self.coverage.hit("journal began a segment by itself");
        }
        for record in records {
            let begins = matches!(record.body, Body::ResyncBegin(_));
            if begins && record.seq > before {
                host.histories.push((record.seq, history));
            }
            if record.body == Body::Void && alone {
                self.coverage.hit("offers became void with a broken link");
            }
        }
        match received {
            Ok(None) => self.note_held(index), // a full segment is flushed by itself
            Ok(Some(error)) => panic!("replica {index} refuses what its source sent: {error}"),
            Err(ended) => self.ended(index, &ended),
        }
    }

    /// The replica says how far it is.
    pub(super) fn acknowledge(&mut self, index: usize) {
        let host = &mut self.replicas[index];
        let life = host.life.as_ref().expect("it is up");
        let (received, durable) = (life.admit.point(), life.journal.durable());
        let (applied, applied_clock) = (life.checkpointed, life.applied.clock);
        let whole = durable == received.seq;
        let durable_clock = if whole { received.clock } else { applied_clock };
        if let Some(link) = &mut self.links[index] {
            host.promised = host.promised.max(durable);
            let ack =
                Ack { received: received.seq, durable, applied, durable_clock, applied_clock };
            link.down.put(&self.settings.weather, Frame::Ack(ack).encode());
        }
    }

    /// The replica answers offers.
    pub(super) fn answer(&mut self, index: usize, session: u64, judged: Vec<Judged>) {
        let Some(link) = self.links[index].as_mut().filter(|_| !judged.is_empty()) else { return };
        let answer = |judged: Judged| match judged.need {
            None => Answer::Match { session, seq: judged.offer },
            Some(parts) => Answer::Need { session, seq: judged.offer, parts },
        };
        let frame = Frame::Answers(judged.into_iter().map(answer).collect());
        link.down.put(&self.settings.weather, frame.encode());
    }

    /// The next word of the replica arrives at the source.
    pub fn deliver_back(&mut self, index: usize) {
        if self.source.life.is_none() {
            return;
        }
        let Some(link) = &mut self.links[index] else { return };
        let (coverage, weather) = (&mut self.coverage, &self.settings.weather);
        let frame = link.down.next(weather, &mut self.rng, |event| coverage.hit(name(event)));
        match frame {
            None => {}
            Some(Frame::Ack(ack)) => {
                let Ack { durable, applied, durable_clock, .. } = ack;
                let progress = Progress { durable, applied, durable_clock };
                self.life().source.replica_mut(id_of(index)).acked(&progress);
            }
            Some(Frame::Answers(answers)) => {
                for answer in answers {
                    match answer {
                        Answer::Match { session, seq } => self.answered(index, session, seq, None),
                        Answer::Need { session, seq, parts } => {
                            self.answered(index, session, seq, Some(parts));
                        }
                    }
                }
            }
            Some(other) => panic!("the replica sends {other:?}"),
        }
    }

    fn answered(&mut self, index: usize, session: u64, offer: Seq, need: Option<Vec<u64>>) {
        let current = self.known(index).resync.map(|resync| resync.session);
        if session != 0 && current != Some(session) {
            self.coverage.hit("answer to an offer of an earlier resync");
        }
        let differs = self.life().source.answered(id_of(index), session, offer, need);
        if let Some(extent) = differs {
            self.mismatch(index, extent);
        } else if session == 0 {
            self.coverage.hit("self-check: equal");
        }
    }
}
