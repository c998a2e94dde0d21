//! What must hold: prefixes (I1), maps (I3), what is kept of histories that were given up.

use std::collections::BTreeMap;

use vgship::role::yields;
use vgship::ship::replica::Flow;
use vgship_base::ids::{Generation, Seq};

use super::World;
use super::lines::Extents;
use super::node::Role;
use crate::world::model::differing;
use crate::world::source::peer;

impl World {
    /// I6: a handover that is durable on the node that takes the role has ended its generation.
    pub(super) fn note_handover(&mut self, node: usize) {
        let Some(life) = self.nodes[node].host.life.as_ref() else { return };
        let point = life.admit.point();
        if life.admit.handed().is_some() && life.journal.durable() >= point.seq {
            let generation = point.generation.expect("it was handed over in one");
            self.lines.of(generation).taken = true;
        }
    }

    /// I1: what a replica has applied, and what it will have applied when all that is durable is, is
    /// its source's history.
    pub(super) fn check_prefix(&mut self, node: usize, when: &str) {
        let host = &self.nodes[node].host;
        let Some(life) = host.life.as_ref() else { return };
        let applied = life.hold.is_none().then(|| (life.applied, host.images()));
        let durable = host.durable_point().map(|point| (point, host.coming(true)));
        for (point, found) in applied.into_iter().chain(durable) {
            let Some(generation) = point.generation.filter(|_| point.consistent()) else {
                continue;
            };
            let expected = self.lines.of(generation).expected(node, point.seq);
            let expected = expected.unwrap_or_else(|| {
                panic!("node {node} {when}: consistent at {} without an end before", point.seq)
            });
            let places = differing(&self.layout, &found, &expected);
            assert!(
                places.is_empty(),
                "I1: node {node} at {} of {generation} {when} differs from the history in {places:?}",
                point.seq
            );
            self.coverage.hit("I1 checked");
        }
    }

    /// I3 for all that a node has to do with.
    pub(super) fn check_maps(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|&other| World::paired(node, other)) {
            self.check_map(node, other);
            self.check_map(other, node);
        }
    }

    /// I3: where a replica differs from a source that it may follow, the source's map says so, or
    /// its outbox, or what the replica tells first.
    pub(super) fn check_map(&mut self, source: usize, node: usize) {
        let follows = self.nodes[node].role == Role::ReplicaOf(source);
        if !follows || !self.nodes[source].up() || !self.nodes[node].up() {
            return;
        }
        let Some(life) = self.nodes[node].host.life.as_ref() else { return };
        let point = life.admit.point();
        let Some(of) = point.generation else { return };
        let Some(id) = self.id(source, node) else { return };
        let state = &self.nodes[node].host.state;
        let Ok(told) = yields::load(state, of) else { return };
        let ours = self.ancestry(source);
        let kept = ours.lineage.iter().find(|(it, _)| *it == of).map(|(_, kept)| *kept);
        let follows = of == ours.generation || kept.is_some_and(|kept| point.seq <= kept);
        if told.is_none() && !follows {
            return;
        }
        let writer = self.nodes[source].writer.as_ref().expect("it has replicas");
        let known = writer.source.replica(id);
        let mut sets = known.durable_dirty().into_sets();
        let streams = known.flow == Flow::Stream;
        for run in told.iter().flat_map(|it| &it.changed) {
            run.enter(&mut sets);
        }
        for durable in [true, false] {
            let line = self.lines.of(ours.generation);
            // The outbox holds it, and goes into the map when it does not lead on from there.
            let behind = match streams {
                true => line.behind(&self.layout, known.durable),
                false => Extents::new(),
            };
            let theirs = self.nodes[node].host.coming(durable);
            for (volume, extent) in differing(&self.layout, &line.truth, &theirs) {
                let said =
                    sets[volume.index()].contains(extent) || behind.contains(&(volume, extent));
                assert!(
                    said,
                    "I3: extent {extent} of volume {} differs on node {node} from source {source} \
                     and nothing says so (durable only: {durable}, yields: {}, flow {:?})",
                    volume.0,
                    told.is_some(),
                    known.flow
                );
            }
        }
        self.coverage.hit("I3 checked");
        if told.is_some() {
            self.coverage.hit("I3 checked of a side that gives its history up");
        }
    }

    /// A replica is diverged only when it is: its records are no part of the source's history.
    pub(super) fn check_diverged(&mut self, source: usize, node: usize) {
        let life = self.nodes[node].host.life.as_ref().expect("it said hello");
        let point = life.admit.point();
        let of = point.generation.expect("it holds something");
        let kept = self.kept_of(self.ancestry(source).generation, of);
        assert!(
            kept.is_none_or(|kept| point.seq > kept),
            "node {node} at {} of {of} is refused by {source}, whose history has that",
            point.seq
        );
    }

    /// Up to where a generation is part of the history of another, by what the model knows.
    fn kept_of(&mut self, generation: Generation, of: Generation) -> Option<Seq> {
        if generation == of {
            return Some(Seq(u64::MAX));
        }
        let (mut at, mut limit) = (generation, None);
        loop {
            let (from, kept) = *self.lines.of(at).before.last()?;
            if from == of {
                return limit.map_or(Some(kept), |_: Seq| Some(kept));
            }
            (at, limit) = (from, Some(kept));
        }
    }

    /// What was given up stays as a snapshot for as long as nobody deletes it.
    pub(super) fn check_branches(&mut self, node: usize) {
        if let Some(set) = self.nodes[node].set() {
            let Ok(all) = set.list() else { return };
            for branch in &self.nodes[node].branches {
                let found = all.iter().find(|it| it.name.as_str() == branch);
                assert!(found.is_some_and(|it| it.pinned), "node {node} has lost {branch}");
                self.coverage.hit("a history that was given up is kept");
            }
        }
    }

    /// Notes what snapshots hold that are there since the last step, which changed nothing after
    /// them; or since a start, which may have. Forgets those that are gone.
    pub(super) fn note_snapshots(&mut self, node: usize, started: bool) {
        if !self.nodes[node].up() {
            return;
        }
        let Some(all) = self.nodes[node].set().and_then(|set| set.list().ok()) else { return };
        let images = self.images(node);
        let mut known = std::mem::take(&mut self.nodes[node].kept);
        let mut kept = BTreeMap::new();
        for snapshot in all {
            let key = (snapshot.seq, snapshot.name.to_string());
            let holds = known.remove(&key).unwrap_or_else(|| {
                let promised = self.nodes[node].promised.get(&key.1).cloned();
                let mut history = || {
                    let line = self.lines.of(snapshot.generation);
                    line.expected(node, snapshot.point).filter(|_| !snapshot.torn)
                };
                promised.or_else(|| if started { history() } else { Some(images.clone()) })
            });
            kept.insert(key, holds);
        }
        self.nodes[node].kept = kept;
    }

    /// Whether a node follows a source.
    pub(super) fn follows(&self, node: usize, source: usize) -> bool {
        let role = self.nodes[node].role == Role::ReplicaOf(source);
        let id = self.nodes[source].writer.as_ref().and_then(|it| it.source.find(peer(node)));
        role && self.links[node].is_some() && id.is_some()
    }
}
