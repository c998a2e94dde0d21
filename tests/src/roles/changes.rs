//! Changes of roles, step by step as the agent's shells make them (`pipeline::roles`).

use vgship::apply::rolled::Phase;
use vgship::role::demotion::{Demotion, branch_name};
use vgship::role::handing::{self, Handing};
use vgship::role::promotion::{ChangeError, Promotion, fork_name};
use vgship::wire::changed::{Run, runs};
use vgship_base::ids::{Generation, Seq};

use super::World;
use super::node::{Role, flush};
use super::writer::Switching;
use crate::world::replica::{Ended, stopped};
use crate::world::source::peer;

impl World {
    /// A switchover begins, or goes a step on.
    pub(super) fn switch_over(&mut self, node: usize) {
        let Some(writer) = self.nodes[node].writer.as_ref() else { return };
        match writer.switching {
            None if self.disorder && self.rng.one_in(6) => {
                let all: Vec<usize> =
                    (0..self.nodes.len()).filter(|&it| World::paired(node, it)).collect();
                let to = all[self.rng.index(all.len())];
                self.begin_switchover(node, to);
            }
            None => {}
            Some(switching) => {
                let done = self.go_on_switching(node, switching);
                self.done(node, done);
            }
        }
    }

    /// Keeps writes away, if the replica follows.
    pub(super) fn begin_switchover(&mut self, node: usize, to: usize) {
        let id = self.id(node, to).expect("they are paired");
        let writer = self.nodes[node].writer.as_mut().expect("it is a source");
        if writer.source.handed().is_none() && writer.source.replica(id).unfit().is_none() {
            writer.source.fence(true);
            writer.switching = Some(Switching { to, ended: false });
            self.coverage.hit("switchover begun");
        }
    }

    fn go_on_switching(&mut self, node: usize, switching: Switching) -> Result<(), Ended> {
        let Switching { to, ended } = switching;
        let id = self.id(node, to).expect("they are paired");
        let gives_in = self.disorder && self.rng.one_in(30);
        let asks = self.rng.one_in(6);
        let clock = 1_000_000_000 + self.now.0 * 1000;
        let of = &mut self.nodes[node];
        let writer = of.writer.as_mut().expect("it is a source");
        if writer.source.handed().is_some() {
            if asks {
                self.cut(to); // its next hello tells
            }
            return Ok(());
        }
        if gives_in {
            writer.source.fence(false);
            writer.switching = None;
            self.coverage.hit("switchover given up before the handover");
            return Ok(());
        }
        if !writer.source.is_quiet() {
            return Ok(());
        }
        if !ended {
            for volume in self.layout.ids() {
                flush(&mut writer.source, &of.host.disks, volume)?;
            }
            writer.source.end_last_epoch(clock);
            writer.switching = Some(Switching { to, ended: true });
            return Ok(());
        }
        let generation = self.fresh_generation();
        let of = &mut self.nodes[node];
        let writer = of.writer.as_mut().expect("it is a source");
        let Ok(seq) = writer.source.reserve_handover(id) else { return Ok(()) };
        let handing = Handing { peer: peer(to), generation, after: Seq(seq.0 - 1) };
        handing::store(&of.source, &handing).map_err(|error| stopped(&error))?;
        let line = self.lines.of(writer.source.generation());
        line.sealed = Some(line.truth.clone());
        writer.source.hand_over(generation);
        self.trace(|| format!("node {node} hands over to {to} with {seq}: {generation}"));
        self.coverage.hit("handed over");
        Ok(())
    }

    /// What comes about without a command: a replica that was handed the role takes it, a source
    /// whose handover was taken gives it up.
    pub(super) fn look_at_role(&mut self, node: usize) {
        if !self.nodes[node].up() {
            return;
        }
        let host = &mut self.nodes[node].host;
        if let Some(life) = host.life.as_mut() {
            let Some(handed) = life.handed else { return };
            let done = life.checkpoint(&host.state);
            let done = done.and_then(|()| self.promote(node, handed.generation, Some(handed.seq)));
            self.done(node, done);
            return;
        }
        let writer = self.nodes[node].writer.as_ref().expect("it runs");
        let taken = writer.source.handed().filter(|_| writer.source.is_taken());
        let Some(handed) = taken else { return };
        let known = writer.source.replica(handed.to).peer;
        let to = (0..self.nodes.len()).find(|&it| peer(it) == known).expect("it is a node");
        let done = self.demote(node, to, None);
        self.done(node, done);
    }

    /// A failover: of where the replica stands, or of a point before.
    pub(super) fn fail_over(&mut self, node: usize) {
        if self.disorder && self.rng.one_in(5) && self.nodes[node].up() {
            let done = self.take_over(node);
            self.done(node, done);
        }
    }

    pub(super) fn take_over(&mut self, node: usize) -> Result<(), Ended> {
        let Some(life) = self.nodes[node].host.life.as_mut() else { return Ok(()) };
        if life.handed.is_some() || life.admit.point().generation.is_none() {
            return Ok(());
        }
        self.cut(node);
        let back = self.disorder && self.rng.one_in(3);
        let host = &mut self.nodes[node].host;
        let life = host.life.as_mut().expect("it was just seen");
        match life.rolled().map(|rolled| rolled.phase) {
            Some(Phase::There) => {}
            Some(Phase::Going | Phase::Coming) => return self.roll_volumes(node),
            Some(Phase::Came) => return Ok(()),
            None if back || life.admit.point().window.is_some() => {
                return self.begin_rollback(node);
            }
            None => {
                life.journal.flush()?;
                while life.apply(4)?.is_some() {}
                life.checkpoint(&host.state)?;
                self.note_snapshots(node, false);
                self.note_handover(node);
                let life = self.nodes[node].host.life.as_ref().expect("it runs");
                if life.handed.is_some() {
                    return Ok(()); // it is given the role by itself
                }
            }
        }
        let generation = self.fresh_generation();
        self.coverage.hit(match self.nodes[node].host.life.as_ref().map(|it| it.hold.is_some()) {
            Some(true) => "failover to an earlier point",
            _ => "failover",
        });
        self.promote(node, generation, None)
    }

    /// A replica becomes the source.
    fn promote(
        &mut self,
        node: usize,
        generation: Generation,
        fork: Option<Seq>,
    ) -> Result<(), Ended> {
        let Role::ReplicaOf(of) = self.nodes[node].role else { unreachable!("it is a replica") };
        self.cut(node);
        self.note_snapshots(node, false);
        self.nodes[node].host.life = None;
        let images = self.images(node);
        let name = fork_name(generation).to_string();
        self.nodes[node].promised.insert(name, images.clone());
        let promotion = Promotion { generation, fork, peer: Some(peer(of)) };
        let promoted = match promotion.prepare(&self.nodes[node].place()) {
            Ok(promoted) => promoted,
            Err(ChangeError::Inconsistent) => {
                self.coverage.hit("a promotion was refused inside a resync");
                return self.open(node);
            }
            Err(error) => return Err(stopped(&error)),
        };
        self.trace(|| format!("node {node} is promoted: {promoted:?}"));
        let line = self.lines.of(promoted.from);
        let expected = line.expected(node, promoted.fork).expect("it was equal once");
        assert!(images == expected, "I1: node {node} is promoted to what is not {promoted:?}");
        if fork.is_some() {
            let sealed = line.sealed.as_ref().expect("the role was handed over");
            assert!(
                images == *sealed,
                "I2: node {node} lacks what was acknowledged before {fork:?}"
            );
            self.coverage.hit("I2: nothing is missing after a switchover");
        }
        self.nodes[node].note(Role::Source)?;
        let host = &mut self.nodes[node].host;
        (host.way_back, host.promised) = (None, Seq::ZERO);
        self.nodes[node].role = Role::Source;
        self.coverage.hit("promoted");
        self.open(node)
    }

    /// A side that is a source beside another gives up what it wrote, and follows.
    pub(super) fn fail_back(&mut self, node: usize) {
        let Some(writer) = self.nodes[node].writer.as_ref() else { return };
        let met: Vec<usize> = (0..writer.met.len()).filter(|&it| writer.met[it]).collect();
        if self.disorder && self.rng.one_in(4) && !met.is_empty() && self.nodes[node].up() {
            let to = met[self.rng.index(met.len())];
            let done = self.give_up(node, to);
            self.done(node, done);
        }
    }

    pub(super) fn give_up(&mut self, node: usize, to: usize) -> Result<(), Ended> {
        let volumes = self.nodes[node].volumes();
        let id = self.id(node, to).expect("they are paired");
        let of = &mut self.nodes[node];
        let writer = of.writer.as_mut().expect("it is a source");
        writer.source.fence(true);
        for _ in 0..20 {
            if writer.source.is_quiet() {
                break;
            }
            writer.reach(&of.host.disks, 0)?;
            writer.end();
            writer.read_step(id, &volumes, 0)?;
        }
        if !writer.source.is_quiet() {
            writer.source.fence(false);
            writer.switching = None;
            self.coverage.hit("failback given up: writes do not end");
            return Ok(());
        }
        let changed = writer.source.differs(id);
        self.coverage.hit("failback");
        self.demote(node, to, Some(runs(changed.sets())))
    }

    /// A source becomes a replica.
    fn demote(&mut self, node: usize, to: usize, gives_up: Option<Vec<Run>>) -> Result<(), Ended> {
        for replica in 0..self.nodes.len() {
            if self.links[replica].as_ref().is_some_and(|link| link.source == node) {
                self.cut(replica);
            }
        }
        let ancestry = self.ancestry(node);
        let generation = ancestry.generation;
        let writer = self.nodes[node].writer.as_ref().expect("it is a source");
        assert!(!writer.is_busy(), "nothing is written when the role is given up");
        let last = writer.source.ends_at();
        self.nodes[node].close_source()?;
        let images = self.images(node);
        let line = self.lines.of(generation);
        assert!(images == line.truth, "what node {node} gives up is what it wrote");
        assert!(line.taken || gives_up.is_some(), "I6: a role is given up that nobody took");
        line.equal_at(node, last);
        let branch = gives_up.as_ref().map(|_| branch_name(generation).to_string());
        if let Some(branch) = &branch {
            self.nodes[node].promised.insert(branch.clone(), images);
        }
        self.nodes[node].host.promised = Seq::ZERO;
        let demotion = Demotion { ancestry, last, gives_up };
        demotion.prepare(&self.nodes[node].place()).map_err(|error| stopped(&error))?;
        self.nodes[node].note(Role::ReplicaOf(to))?;
        self.nodes[node].role = Role::ReplicaOf(to);
        self.nodes[node].branches.extend(branch);
        self.trace(|| format!("node {node} follows {to} from {last} of {generation}"));
        self.coverage.hit("demoted");
        self.open(node)
    }
}
