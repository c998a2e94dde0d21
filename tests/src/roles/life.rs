//! Starts and ends of nodes.

use vgship_base::ids::Seq;

use super::World;
use super::node::{Node, Role};
use crate::world::replica::Ended;

impl World {
    /// A node that is down starts as what its note says.
    pub(super) fn start(&mut self, node: usize) {
        let host = &self.nodes[node].host;
        if host.power.is_off() || self.nodes[node].writer.is_some() || host.life.is_some() {
            return;
        }
        let done = self.nodes[node].noted().and_then(|role| {
            self.nodes[node].role = role;
            self.open(node)
        });
        if self.done(node, done).is_some() {
            self.coverage.hit("node started");
        } else {
            self.coverage.hit("power failed inside a start");
        }
    }

    /// Opens a node as what it is.
    pub(super) fn open(&mut self, node: usize) -> Result<(), Ended> {
        match self.nodes[node].role {
            Role::Source => self.open_source(node)?,
            Role::ReplicaOf(_) => self.open_replica(node)?,
        }
        self.note_snapshots(node, true);
        if self.nodes[node].up() {
            self.check_maps(node);
            self.check_branches(node);
        }
        Ok(())
    }

    fn open_source(&mut self, node: usize) -> Result<(), Ended> {
        let (nodes, policy) = (self.nodes.len(), self.settings.policy);
        let fresh = self.fresh_generation();
        self.nodes[node].open_source((node, nodes), policy, fresh)?;
        let truth = self.images(node);
        let source = &self.nodes[node].writer.as_ref().expect("it was opened").source;
        let (generation, start) = (source.generation(), source.start());
        let (before, handed) = (source.lineage().to_vec(), source.handed());
        self.trace(|| format!("node {node} is the source in {generation}, start {}", start.0));
        if handed.is_some() {
            self.coverage.hit("a start does not know whether its handover was taken");
        }
        if self.lines.has(generation) {
            self.lines.of(generation).restarts(&self.layout, Seq::before(start), truth);
        } else {
            let begins = (Seq::before(start), truth);
            self.lines.begin(generation, (node, nodes), begins, before);
        }
        Ok(())
    }

    fn open_replica(&mut self, node: usize) -> Result<(), Ended> {
        let found = self.nodes[node].host.start()?;
        self.trace(|| format!("node {node} is a replica at {:?}", found.point));
        assert!(!found.damaged, "node {node} reports damage where none was done");
        let host = &mut self.nodes[node].host;
        let promised = host.promised;
        assert!(
            found.point.seq >= promised,
            "node {node} promised {promised} and has {} after recovery",
            found.point.seq
        );
        if host.life.as_ref().is_some_and(|life| life.hold.is_none()) {
            host.way_back = None;
        }
        if found.replayed {
            self.coverage.hit("replica replayed its journal");
        }
        self.note_handover(node);
        self.check_prefix(node, "after recovery");
        Ok(())
    }

    /// A node's program ends, or its power.
    pub(super) fn crash(&mut self, node: usize, power: bool) {
        self.trace(|| format!("node {node} ends, power cut: {power}"));
        for replica in 0..self.nodes.len() {
            let of = self.links[replica].as_ref().map(|link| link.source);
            if replica == node || of == Some(node) {
                self.cut(replica);
            }
        }
        self.nodes[node].crash(power, &mut self.rng);
        self.coverage.hit(if power { "power cut" } else { "program ended" });
    }

    /// A node whose power failed by itself is cut off.
    pub(super) fn notice_power(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].host.power.is_off() {
                self.coverage.hit("power failed inside a step");
                self.crash(node, true);
            }
        }
    }

    /// A node fails: at once, or in the middle of what it does next.
    pub(super) fn fails(&mut self, node: usize) {
        if !self.rng.one_in(10) {
            return;
        }
        match self.rng.below(4) {
            0 => self.crash(node, true),
            1 => self.crash(node, false),
            _ => {
                let within = if self.rng.one_in(2) { 60 } else { 300 };
                let left = 1 + u32::try_from(self.rng.below(within)).expect("small");
                self.nodes[node].host.power.fail_after(left);
            }
        }
    }

    /// For a while everything goes on. While a role is on its way, now and then one side fails.
    pub(super) fn goes_on(&mut self, _node: usize) {
        for _ in 0..=self.rng.below(8) {
            self.round();
            self.tick(0);
            self.notice_power();
            let under_way = self.sources().into_iter().find(|&it| {
                let writer = self.nodes[it].writer.as_ref().expect("it is a source");
                writer.switching.is_some() || writer.source.handed().is_some()
            });
            let Some(source) = under_way.filter(|_| self.rng.one_in(4)) else { continue };
            let node = self.rng.index(self.nodes.len());
            let power = self.rng.one_in(2);
            match self.rng.below(5) {
                0 => self.crash(source, power),
                1 => self.crash(node, power),
                2 => self.cut(node),
                3 => self.fail_over(node),
                _ => {
                    let left = 1 + u32::try_from(self.rng.below(40)).expect("small");
                    let fails = if self.rng.one_in(2) { source } else { node };
                    self.nodes[fails].host.power.fail_after(left);
                }
            }
        }
    }

    /// A node becomes an empty replica.
    pub(super) fn replace(&mut self, node: usize, of: usize) {
        self.crash(node, false);
        self.trace(|| format!("node {node} is replaced by an empty replica of node {of}"));
        self.nodes[node] = Node::emptied(&self.nodes[node], Role::ReplicaOf(of));
        self.coverage.hit("a replica of another history was replaced by an empty one");
    }
}
