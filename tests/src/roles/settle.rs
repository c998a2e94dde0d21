//! Faults stop, and an operator chooses one side of every divergence: all nodes become equal (I7).

use super::World;
use super::node::Role;
use crate::world::model::differing;
use crate::world::replica::ReplicaLife;

/// Rounds within which all must be equal.
const ROUNDS: u32 = 3000;

impl World {
    /// Ends in peace; then disorder may begin again.
    pub(super) fn settle(&mut self) {
        self.disorder = false;
        for node in 0..self.nodes.len() {
            self.nodes[node].host.power.restore();
        }
        let winner = self.rng.index(self.nodes.len());
        self.trace(|| format!("peace: the operator would have node {winner} win"));
        for round in 0.. {
            assert!(round < ROUNDS, "I7: not in sync: {}", self.standing());
            self.round();
            if round % 4 == 0 {
                self.tick(0);
            }
            if self.is_settled() {
                break;
            }
            if round % 4 == 0 {
                self.choose(winner);
            }
        }
        self.check_settled();
        self.disorder = true;
    }

    fn standing(&self) -> String {
        let one = |node: usize| {
            let of = &self.nodes[node];
            let source = of.writer.as_ref().map(|it| {
                let known = |id| it.source.replica(id);
                let replicas: Vec<_> = it.source.ids().map(|id| known(id).unfit()).collect();
                let under_way = (it.switching, it.waiting.len(), it.is_busy());
                let applied: Vec<_> = it
                    .source
                    .ids()
                    .map(|id| (known(id).applied, known(id).dirty.count()))
                    .collect();
                let (handed, issued) = (it.source.handed(), it.source.issued());
                (it.source.generation(), handed, issued, replicas, under_way, applied, &it.met)
            });
            let point = of.host.life.as_ref().map(|life| life.admit.point());
            let rolled = of.host.life.as_ref().and_then(ReplicaLife::rolled);
            format!("{node} {:?} rolled {rolled:?} source {source:?} replica {point:?}", of.role)
        };
        (0..self.nodes.len()).map(one).collect::<Vec<_>>().join("; ")
    }

    /// Everything goes a step on.
    pub(super) fn round(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
            if !self.disorder || self.rng.one_in(4) {
                self.rollback(node);
            }
            self.switch_over(node);
            self.look_at_role(node);
            self.connect(node);
            self.begin_write(node);
            self.reach(node);
            self.end_write(node);
            for replica in (0..self.nodes.len()).filter(|&it| World::paired(node, it)) {
                let Some(id) = self.id(node, replica) else { continue };
                let volumes = self.nodes[node].volumes();
                let writer = self.nodes[node].writer.as_mut().expect("it has replicas");
                writer.next_job(id);
                let done = writer.read_step(id, &volumes, self.rng.index(16));
                self.done(node, done);
            }
            self.send(node);
            self.deliver(node);
            self.persist(node);
            self.apply(node);
            self.checkpoint(node);
            (0..8).for_each(|_| self.deliver_back(node));
            self.meet(node);
        }
        for node in self.sources() {
            self.ledger(node);
        }
    }

    /// What an operator does who wants `winner` to be kept, and everybody to follow node 0.
    fn choose(&mut self, winner: usize) {
        let sources = self.sources();
        let first = sources.contains(&0);
        let follows = |node: usize| match self.nodes[node].role {
            Role::ReplicaOf(of) => Some(of),
            Role::Source => None,
        };
        if follows(0).is_some_and(|of| follows(of).is_some()) {
            return self.nobody();
        }
        match &sources[..] {
            [] => {}
            [one] => self.towards_the_first(*one),
            _ if !first => {
                let served =
                    sources.into_iter().find(|&it| self.nodes[0].role == Role::ReplicaOf(it));
                self.towards_the_first(served.expect("node 0 follows a source that it knows"));
            }
            _ => {
                let kept = if sources.contains(&winner) { winner } else { 0 };
                let other = sources.into_iter().find(|&it| it != 0).expect("there are several");
                let (loses, keeps) = if kept == 0 { (other, 0) } else { (0, kept) };
                let writer = self.nodes[loses].writer.as_ref().expect("it is a source");
                if writer.met[keeps] {
                    let done = self.give_up(loses, keeps);
                    self.done(loses, done);
                }
            }
        }
    }

    /// Node 0 follows a node that follows it: the one who was handed the role takes it by itself. When
    /// both gave up what they wrote to one another, one of them takes over again.
    fn nobody(&mut self) {
        self.coverage.hit("nobody was a source for a while");
        let mut lives = self.nodes.iter().filter_map(|node| node.host.life.as_ref());
        let ends_by_itself = !self.nodes.iter().all(super::Node::up)
            || lives.any(|life| life.admit.handed().is_some());
        let holds = |node: usize| {
            let life = self.nodes[node].host.life.as_ref();
            life.is_some_and(|life| life.admit.point().generation.is_some())
        };
        let able = (0..self.nodes.len()).find(|&it| holds(it));
        if let Some(node) = able.filter(|_| !ends_by_itself) {
            let done = self.take_over(node);
            self.done(node, done);
            self.coverage.hit("failover of a side that had given its history up");
        }
    }

    /// One source is left. When it is not the first node, it hands over to that.
    fn towards_the_first(&mut self, one: usize) {
        for node in 1..self.nodes.len() {
            let refused = self.nodes[node].host.life.is_some() && self.links[node].is_none();
            if one == 0 && refused && self.nodes[node].role == Role::ReplicaOf(0) {
                self.replace_if_strange(node);
            }
        }
        let switching = self.nodes[one].writer.as_ref().is_some_and(|it| it.switching.is_some());
        if one != 0 && !switching && self.follows(0, one) {
            self.begin_switchover(one, 0);
        }
    }

    /// A replica whose records are no part of the source's history is replaced.
    fn replace_if_strange(&mut self, node: usize) {
        let ours = self.ancestry(0);
        let life = self.nodes[node].host.life.as_ref().expect("it runs");
        let point = life.admit.point();
        let Some(of) = point.generation else { return };
        let kept = ours.lineage.iter().find(|(it, _)| *it == of).map(|(_, kept)| *kept);
        let strange = of != ours.generation && kept.is_none_or(|kept| point.seq > kept);
        let told = vgship::role::yields::load(&self.nodes[node].host.state, of);
        if strange && told.is_ok_and(|told| told.is_none()) {
            self.replace(node, 0);
        }
    }

    fn is_settled(&self) -> bool {
        let Some(writer) = self.nodes[0].writer.as_ref() else { return false };
        let rest = writer.source.handed().is_none()
            && writer.switching.is_none()
            && writer.waiting.is_empty()
            && !writer.is_busy();
        let issued = writer.source.issued();
        rest && (1..self.nodes.len()).all(|node| {
            let known = self.id(0, node).map(|id| writer.source.replica(id));
            self.follows(node, 0)
                && known.is_some_and(|known| {
                    let life = self.nodes[node].host.life.as_ref();
                    known.unfit().is_none()
                        && known.dirty.is_empty()
                        && known.applied == issued
                        && life.is_some_and(|life| life.hold.is_none())
                })
        })
    }

    fn check_settled(&mut self) {
        let truth = self.images(0);
        for node in 1..self.nodes.len() {
            let places = differing(&self.layout, &truth, &self.images(node));
            assert!(places.is_empty(), "I7: node {node} differs from the source in {places:?}");
            self.check_prefix(node, "in peace");
        }
        for node in 0..self.nodes.len() {
            self.check_branches(node);
            let Some(bounded) = self.bounded[node].take() else { continue };
            let (changed, shipped) = (bounded.changed.len(), bounded.shipped.len());
            assert!(
                shipped * 10 <= changed * 12,
                "I7: {shipped} extents were shipped after a failback of node {node}, and {changed} \
                 were changed on both sides since the fork"
            );
            self.coverage.hit("I7: the work of a failback is bounded");
            if shipped > 0 {
                self.coverage.hit("I7: a failback shipped something");
            }
        }
        self.coverage.hit("settled");
    }
}
