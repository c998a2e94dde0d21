//! What a node keeps of its past: snapshots, and volumes that are rolled back.

use std::ops::ControlFlow;

use vgship::apply::rollback::{self, Target};
use vgship::apply::rolled::Phase;
use vgship::history::keeping;
use vgship::history::roll::{RollError, point_of, survey};
use vgship_base::disk::Disk;
use vgship_base::ids::Seq;
use vgship_snapshot::set::{Origin, Snapshot};

use super::World;
use crate::world::model::Images;
use crate::world::replica::{Ended, stopped};

impl World {
    /// A snapshot is taken, deleted or read; or what deleted ones leave is swept.
    pub(super) fn snapshots(&mut self, node: usize) {
        if !self.nodes[node].up() {
            return;
        }
        let done = match self.rng.below(6) {
            0 => self.take_snapshot(node),
            1 => self.forget_snapshot(node),
            _ => self.read_snapshot(node),
        };
        self.done(node, done);
        self.note_snapshots(node, false);
    }

    fn take_snapshot(&mut self, node: usize) -> Result<(), Ended> {
        self.names += 1;
        let name = format!("s{}", self.names).parse().expect("a name");
        let Some(life) = self.nodes[node].host.life.as_mut() else { return Ok(()) };
        if life.hold.is_some() {
            return Ok(()); // as the agent refuses it
        }
        let keeper = life.applier.keeper().expect("replicas keep snapshots");
        match keeper.take_here(name, Origin::Manual) {
            Ok(_) => {
                self.coverage.hit("a replica took a snapshot");
                Ok(())
            }
            Err(error) if error.is_refusal() => Ok(()),
            Err(error) => Err(stopped(&error)),
        }
    }

    fn forget_snapshot(&mut self, node: usize) -> Result<(), Ended> {
        let Some(set) = self.nodes[node].set() else { return Ok(()) };
        let all = set.list()?;
        if all.is_empty() || self.rng.one_in(2) {
            set.sweep(1 + self.rng.index(20))?;
            return Ok(());
        }
        match set.delete(all[self.rng.index(all.len())].name.as_str()) {
            Ok(_) => {
                self.coverage.hit("a snapshot was deleted");
                Ok(())
            }
            Err(error) if error.is_refusal() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// I5: a snapshot holds what it held.
    pub(super) fn read_snapshot(&mut self, node: usize) -> Result<(), Ended> {
        let Some(set) = self.nodes[node].set() else { return Ok(()) };
        let all = set.list()?;
        if all.is_empty() {
            return Ok(());
        }
        let snapshot = &all[self.rng.index(all.len())];
        let key = (snapshot.seq, snapshot.name.to_string());
        let Some(Some(expected)) = self.nodes[node].kept.get(&key) else { return Ok(()) };
        // A source's volumes hold all that its snapshots are of.
        if self.nodes[node].host.life.is_some() && !set.is_settled(snapshot) {
            return Ok(());
        }
        let view = set.view_at(snapshot.seq, std::sync::Arc::new(set.layout_of(snapshot)?));
        for (id, expected) in self.layout.ids().zip(expected) {
            let disk = view.volume(id).expect("it has all volumes");
            let mut found = vec![0; expected.len()];
            disk.read_at(0, &mut found).map_err(|error| stopped(&error))?;
            assert!(found == *expected, "I5: {key:?} of node {node} differs in volume {}", id.0);
        }
        self.coverage.hit("I5 checked: a snapshot");
        if self.nodes[node].writer.is_some() {
            self.coverage.hit("I5 checked: a snapshot of a source");
        }
        if key.1.starts_with("fork-") || key.1.starts_with("branch-") {
            self.coverage.hit("I5 checked: a fork or a branch");
        }
        Ok(())
    }

    /// Something happens to a rollback of a replica, or one begins.
    pub(super) fn rollback(&mut self, node: usize) {
        let Some(life) = self.nodes[node].host.life.as_ref() else { return };
        if life.handed.is_some() || !self.nodes[node].up() {
            return;
        }
        let done = match life.rolled().map(|rolled| rolled.phase) {
            None if self.disorder && self.rng.one_in(12) => self.begin_rollback(node),
            Some(Phase::Going | Phase::There) if !self.disorder || self.rng.one_in(6) => {
                self.undo_rollback(node)
            }
            Some(Phase::Going | Phase::Coming) => self.roll_volumes(node),
            None | Some(_) => Ok(()),
        };
        self.done(node, done);
    }

    fn some_target(&mut self, node: usize) -> Result<Option<Target>, Ended> {
        let set = self.nodes[node].set().expect("replicas keep snapshots");
        let settled: Vec<Snapshot> =
            set.points()?.into_iter().filter(|it| set.is_settled(it)).collect();
        if settled.is_empty() {
            return Ok(None);
        }
        let base = &settled[self.rng.index(settled.len())];
        let life = self.nodes[node].host.life.as_ref().expect("it runs");
        let (first, last) = (base.point, life.journal.durable());
        let mut target = Target { base: base.seq, point: point_of(base) };
        let near = last.start() == first.start() && last > first;
        if near && life.journal.first_after() <= first && self.rng.one_in(2) {
            let wanted = Seq(first.0 + 1 + self.rng.below(last.0 - first.0));
            let base = keeping::base_of(&settled, wanted).expect("one is before it");
            let records = life.journal.replay(base.point);
            match survey(&self.layout, point_of(base), wanted, records, |_| ()) {
                Ok(point) => target = Target { base: base.seq, point },
                // A number that was never given, or one inside a resync.
                Err(RollError::Inside { .. } | RollError::Beyond { .. }) => return Ok(None),
                Err(error) => return Err(stopped(&error)),
            }
        }
        Ok(Some(target))
    }

    /// Begins to take the volumes of a replica to some point, if it has one.
    pub(super) fn begin_rollback(&mut self, node: usize) -> Result<(), Ended> {
        let Some(target) = self.some_target(node)? else { return Ok(()) };
        let host = &mut self.nodes[node].host;
        host.way_back = Some(host.images());
        let since = host.past.wall()();
        let life = host.life.as_mut().expect("it runs");
        let applied = life.applied;
        match rollback::begin(&mut life.applier, &host.state, &applied, &target, since) {
            Ok(rolled) => {
                self.trace(|| format!("node {node} rolls back: {rolled:?}"));
                self.coverage.hit("rollback begun");
                self.note_snapshots(node, false);
                self.reopen(node)
            }
            Err(error) if error.is_refusal() => {
                host.way_back = None;
                Ok(())
            }
            Err(error) => Err(stopped(&error)),
        }
    }

    /// The engine is opened anew: what it does has changed.
    fn reopen(&mut self, node: usize) -> Result<(), Ended> {
        self.cut(node);
        self.nodes[node].host.life = None;
        self.open(node)
    }

    /// The volumes go on to where they are to be.
    pub(super) fn roll_volumes(&mut self, node: usize) -> Result<(), Ended> {
        let host = &mut self.nodes[node].host;
        let life = host.life.as_mut().expect("it runs");
        let hold = life.hold.as_mut().expect("its volumes are rolled back");
        let (rolled, records) = (hold.rolled, (hold.records)());
        let applier = &mut life.applier;
        let done = rollback::roll(applier, &host.state, &rolled, records, &mut |_| {
            ControlFlow::Continue(())
        });
        let next = done.map_err(|error| stopped(&error))?.expect("nobody breaks it off");
        life.hold.as_mut().expect("it is rolled back").rolled = next;
        if next.phase != Phase::Came {
            self.check_rolled(node, (next.generation, next.wanted));
            return Ok(());
        }
        let held = host.way_back.clone().expect("it was noted");
        assert!(self.images(node) == held, "I5: node {node} is not back at {rolled:?}");
        self.coverage.hit("came back from a rollback");
        self.reopen(node)
    }

    fn check_rolled(&mut self, node: usize, (generation, wanted): (super::Generation, Seq)) {
        let found: Images = self.images(node);
        let expected = self.lines.of(generation).expected(node, wanted);
        if let Some(expected) = expected {
            assert!(found == expected, "I5: node {node} is not what was at {wanted}");
            self.coverage.hit("rolled back: the history at that point");
        }
    }

    fn undo_rollback(&mut self, node: usize) -> Result<(), Ended> {
        let host = &mut self.nodes[node].host;
        let life = host.life.as_mut().expect("it runs");
        let hold = life.hold.as_mut().expect("its volumes are rolled back");
        hold.rolled = rollback::undo(&host.state, &hold.rolled).map_err(|error| stopped(&error))?;
        Ok(())
    }
}
