//! Links between a replica and its source: hellos, as `pipeline::source::serving` and
//! `pipeline::replica` hear them, records, and what comes back.

use std::collections::VecDeque;

use vgship::apply::applier::Answer;
use vgship::receive::admit::AdmitError;
use vgship::role::hearing::{Heard, may_follow, of_handover, took_handover};
use vgship::role::meeting::{Ancestry, Meeting, meet};
use vgship::role::yields::Yields;
use vgship::role::{ancestry, handing, yields};
use vgship::ship::dirty::DirtyMap;
use vgship::ship::replica::Progress;
use vgship::ship::verdict::{ReplicaPoint, Verdict};
use vgship_base::ids::{Generation, ReplicaId};
use vgship_base::record::{Record, Target};

use super::node::Role;
use super::{Bounded, Extents, World};
use crate::world::replica::{Ended, stopped};
use crate::world::source::peer;

/// A word of a replica.
pub enum Word {
    /// How far it is.
    Ack(Progress),
    /// Its answers to offers of a session.
    Answers(u64, Vec<Answer>),
}

/// A link that stands: what is under way in both directions.
pub struct Link {
    /// Whose records come.
    pub source: usize,
    /// To the replica.
    pub up: VecDeque<Vec<Record>>,
    /// To the source.
    pub down: VecDeque<Word>,
}

/// What a replica says when a link begins.
struct Hello {
    point: ReplicaPoint,
    lineage: Vec<(Generation, vgship_base::ids::Seq)>,
    yields: Option<Yields>,
}

impl World {
    /// What a source says of its history.
    pub(super) fn ancestry(&self, node: usize) -> Ancestry {
        let source = &self.nodes[node].writer.as_ref().expect("it is a source").source;
        Ancestry { generation: source.generation(), lineage: source.lineage().to_vec() }
    }

    /// A replica says hello to its source.
    pub(super) fn connect(&mut self, node: usize) {
        let Role::ReplicaOf(source) = self.nodes[node].role else { return };
        let both = self.nodes[node].up() && self.nodes[source].up();
        if !both || self.nodes[node].host.life.is_none() || self.links[node].is_some() {
            return;
        }
        if self.nodes[source].writer.is_none() {
            self.coverage.hit("a replica met a replica");
            return;
        }
        let hello = self.hello(node);
        let Some(hello) = self.done(node, hello) else { return };
        self.note_handover(node);
        self.nodes[source].writer.as_mut().expect("it was just seen").met[node] = false;
        let heard = self.hear_handover(source, node, &hello);
        if self.done(source, heard) == Some(true) {
            self.serve(source, node, &hello);
        }
    }

    fn hello(&mut self, node: usize) -> Result<Hello, Ended> {
        let host = &mut self.nodes[node].host;
        let point = host.life.as_mut().expect("it runs").hello()?;
        host.promised = host.promised.max(point.durable);
        let known = ancestry::load(&host.state).map_err(|error| stopped(&error))?;
        let yields =
            yields::load(&host.state, point.generation).map_err(|error| stopped(&error))?;
        Ok(Hello { point, lineage: known.before(point.generation), yields })
    }

    /// Whether a hello may be served: not while the role goes elsewhere.
    fn hear_handover(
        &mut self,
        source: usize,
        node: usize,
        Hello { point, lineage, .. }: &Hello,
    ) -> Result<bool, Ended> {
        let id = self.id(source, node).expect("they are paired");
        let of = &mut self.nodes[source];
        let writer = of.writer.as_mut().expect("it is a source");
        let Some(handed) = writer.source.handed() else { return Ok(true) };
        let generation = writer.source.generation();
        let heard = of_handover(handed, id, generation, (point, lineage));
        if heard == Heard::Taken {
            writer.source.show_taken();
        }
        if heard != Heard::NotTaken {
            return Ok(false);
        }
        // First: a note that stays would be believed by a later start.
        handing::remove(&of.source).map_err(|error| stopped(&error))?;
        writer.source.take_back();
        writer.switching = None;
        self.coverage.hit("a handover that did not happen was taken back");
        let taken = &mut self.lines.of(generation).taken;
        // One that took it may have gone back behind it since, in a history of its own.
        *taken &= point.generation == generation;
        assert!(!*taken, "I6: node {source} takes the role of {generation} back, which was taken");
        Ok(true)
    }

    fn serve(&mut self, source: usize, node: usize, hello: &Hello) {
        let id = self.id(source, node).expect("they are paired");
        let linked = match &hello.yields {
            Some(yields) => self.take_in(source, node, (id, hello), yields),
            None => self.judge(source, node, (id, hello)),
        };
        if !linked {
            return;
        }
        let (up, down) = (VecDeque::new(), VecDeque::new());
        self.links[node] = Some(Link { source, up, down });
        self.check_map(source, node);
    }

    /// A replica that has no history of its own. Whether the link stands.
    fn judge(&mut self, source: usize, node: usize, (id, hello): (ReplicaId, &Hello)) -> bool {
        let fresh = self.fresh_generation();
        let writer = self.nodes[source].writer.as_mut().expect("it is a source");
        let verdict = writer.source.link_up(id, &hello.point, fresh);
        self.trace(|| format!("node {node} says {:?} to {source}: {verdict:?}", hello.point));
        self.coverage.hit(format!("verdict {verdict:?}"));
        if verdict == Verdict::Diverged {
            self.check_diverged(source, node);
            return false;
        }
        let renewed = matches!(verdict, Verdict::Full { new_generation: true, .. });
        assert!(!renewed, "nobody's memory is old here: {:?} at node {source}", hello.point);
        if verdict.needs_ledger() && !self.write_ledger(source) {
            return false;
        }
        self.remember(source, node)
    }

    /// A peer gives a history of its own up. Whether the link stands.
    fn take_in(
        &mut self,
        source: usize,
        node: usize,
        (id, hello): (ReplicaId, &Hello),
        yields: &Yields,
    ) -> bool {
        let ours = self.ancestry(source);
        let (generation, lineage) = (hello.point.generation, hello.lineage.clone());
        let theirs = Ancestry { generation, lineage };
        assert!(may_follow(&ours, &theirs), "node {node} yields {theirs:?} to {ours:?}");
        if !self.remember(source, node) {
            return false;
        }
        let mut sets = DirtyMap::empty(&self.layout).into_sets();
        yields.changed.iter().for_each(|run| run.enter(&mut sets));
        let changed = DirtyMap::from_sets(sets);
        let writer = self.nodes[source].writer.as_mut().expect("it is a source");
        let taken = writer.source.take_in(id, &hello.point, &changed);
        assert!(taken.is_some(), "starts have run out");
        self.trace(|| format!("node {node} gives {generation} up, and follows {source}"));
        self.coverage.hit("a peer that gave a history up was taken in");
        if !self.disorder {
            self.bound(source, node, (&ours, &theirs));
        }
        self.write_ledger(source)
    }

    /// I7: what a failback ships is bounded by what both sides changed since they went apart.
    fn bound(&mut self, source: usize, node: usize, (ours, theirs): (&Ancestry, &Ancestry)) {
        let fork = ours.common(theirs).expect("one may follow the other");
        let layout = &self.layout;
        let mut changed = self.lines.changed_since(layout, ours.generation, fork);
        changed.extend(self.lines.changed_since(layout, theirs.generation, fork));
        self.trace(|| format!("{source} and {node} changed {} extents", changed.len()));
        self.bounded[node] = Some(Bounded { changed, shipped: Extents::new() });
    }

    fn write_ledger(&mut self, source: usize) -> bool {
        let idle = self.settings.idle;
        let written = self.nodes[source].writer.as_mut().expect("it is a source").checkpoint(idle);
        self.done(source, written).is_some()
    }

    /// The replica notes its source's lineage. Whether it goes on.
    fn remember(&mut self, source: usize, node: usize) -> bool {
        let said = self.ancestry(source);
        let stored = ancestry::learn(&self.nodes[node].host.state, &said);
        self.done(node, stored.map_err(|error| stopped(&error))).is_some()
    }

    /// A source shows itself to another source that it knows.
    pub(super) fn meet(&mut self, node: usize) {
        let others = self.sources();
        let others: Vec<usize> =
            others.into_iter().filter(|&other| World::paired(node, other)).collect();
        if others.is_empty() || self.nodes[node].writer.is_none() || !self.nodes[node].up() {
            return;
        }
        let other = others[self.rng.index(others.len())];
        let (ours, theirs) = (self.ancestry(node), self.ancestry(other));
        let meeting = meet(&ours, &theirs);
        let strange = matches!(meeting, Meeting::Same | Meeting::Unrelated);
        assert!(!strange, "{node} and {other} are {meeting:?}: {ours:?} {theirs:?}");
        self.coverage.hit("two sources met");
        let id = self.id(node, other).expect("they are paired");
        let writer = self.nodes[node].writer.as_mut().expect("it was just seen");
        let handed = writer.source.handed().filter(|handed| handed.to == id);
        if handed.is_some_and(|handed| took_handover(handed, meeting)) {
            writer.source.show_taken();
            self.coverage.hit("the new source showed that it took the handover");
        } else {
            writer.met[other] = true;
        }
    }

    /// A link breaks; what is under way is lost.
    pub(super) fn cut(&mut self, node: usize) {
        let Some(link) = self.links[node].take() else { return };
        if let Some(writer) = self.nodes[link.source].writer.as_mut()
            && let Some(id) = writer.source.find(peer(node))
        {
            writer.source.link_lost(id);
        }
    }

    /// The source hands records to the link.
    pub(super) fn send(&mut self, node: usize) {
        let Some(link) = self.links[node].as_mut() else { return };
        let writer = self.nodes[link.source].writer.as_mut().expect("its end cuts the link");
        let id = writer.source.find(peer(node)).expect("it has a link");
        if !writer.source.replica(id).linked() {
            return self.cut(node); // the core has ended it
        }
        let mut batch = writer.source.replica_mut(id).batch();
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(1 + self.rng.index(12)));
            link.up.push_back(std::mem::replace(&mut batch, rest));
        }
    }

    /// The next records arrive.
    pub(super) fn deliver(&mut self, node: usize) {
        let Some(records) = self.links[node].as_mut().and_then(|link| link.up.pop_front()) else {
            return;
        };
        if let Some(bounded) = &mut self.bounded[node] {
            for record in records.iter().filter(|it| matches!(it.target, Target::One(_))) {
                let Some((volume, span)) = record.changes() else { continue };
                let (first, end) = self.layout.extent.touched(span);
                bounded.shipped.extend((first..end).map(|index| (volume, index)));
            }
        }
        let host = &mut self.nodes[node].host;
        let promised = host.promised;
        let received =
            host.life.as_mut().expect("its end cuts the link").receive(&records, promised);
        match self.done(node, received).flatten() {
            None => {}
            // It has not taken yet the role that it was given, and its source took it back.
            Some(AdmitError::Over { .. }) => self.cut(node),
            Some(error) => panic!("node {node} refuses what its source sent: {error}"),
        }
    }

    /// The replica's journal is flushed, which is acknowledged.
    pub(super) fn persist(&mut self, node: usize) {
        let Some(life) = self.nodes[node].host.life.as_mut() else { return };
        let flushed = life.journal.flush().map_err(Ended::from);
        if self.done(node, flushed).is_some() {
            self.note_handover(node);
            self.acknowledge(node);
        }
    }

    /// The replica says how far it is.
    pub(super) fn acknowledge(&mut self, node: usize) {
        let host = &mut self.nodes[node].host;
        let life = host.life.as_ref().expect("it runs");
        let (durable, applied) = (life.journal.durable(), life.checkpointed);
        if let Some(link) = self.links[node].as_mut() {
            host.promised = host.promised.max(durable);
            link.down.push_back(Word::Ack(Progress { durable, applied, durable_clock: 0 }));
        }
    }

    /// The next word of the replica arrives at the source.
    pub(super) fn deliver_back(&mut self, node: usize) {
        let Some(link) = self.links[node].as_mut() else { return };
        let Some(word) = link.down.pop_front() else { return };
        let writer = self.nodes[link.source].writer.as_mut().expect("its end cuts the link");
        let id = writer.source.find(peer(node)).expect("it has a link");
        match word {
            Word::Ack(progress) => writer.source.replica_mut(id).acked(&progress),
            Word::Answers(session, answers) => {
                for answer in answers {
                    let found = writer.source.answered(id, session, answer.offer, answer.need);
                    assert_eq!(found, None, "nothing is checked here");
                }
            }
        }
    }
}
