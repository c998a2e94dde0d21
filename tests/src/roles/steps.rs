//! What a node does that keeps its role.

use bytes::Bytes;
use vgship::capture::source::Change;
use vgship_base::ids::VolumeId;
use vgship_base::units::{Span, Tick};

use super::World;
use super::links::Word;
use super::node::flush;

impl World {
    /// An application writes.
    pub(super) fn new_write(&mut self, node: usize) {
        let many = |writer: &super::writer::Writer| writer.waiting.len() > 3;
        if !self.disorder || self.nodes[node].writer.as_ref().is_none_or(many) {
            return;
        }
        let ids: Vec<VolumeId> = self.layout.ids().collect();
        let volume = ids[self.rng.index(ids.len())];
        let bytes = self.layout.volume(volume).expect("it was listed").bytes;
        let (offset, len) = (self.rng.below(bytes / 512) * 512, 512 * (1 + self.rng.below(12)));
        let span = Span::new(offset, len.min(bytes - offset));
        let size = usize::try_from(span.len).expect("small");
        self.tags += 1;
        let tag = self.tags.to_be_bytes();
        let data = match self.rng.below(8) {
            0 => None,
            _ => Some(tag.iter().copied().cycle().take(size).collect::<Bytes>()),
        };
        let writer = self.nodes[node].writer.as_mut().expect("it was just seen");
        writer.waiting.push_back(Change { volume, span, data });
        self.begin_write(node);
    }

    /// A waiting write goes on.
    pub(super) fn begin_write(&mut self, node: usize) {
        let Some(writer) = self.nodes[node].writer.as_mut() else { return };
        let begun = writer.begin();
        if let Some(Some((seq, change))) = self.done(node, begun) {
            self.took(node, seq, &change);
        }
    }

    /// I6: a write took its place in a generation.
    fn took(&mut self, node: usize, seq: vgship_base::ids::Seq, change: &Change) {
        let writer = self.nodes[node].writer.as_ref().expect("it took a write");
        let generation = writer.source.generation();
        let line = self.lines.of(generation);
        assert_eq!(line.writer, node, "I6: two nodes write in generation {generation}");
        assert!(!line.taken, "I6: node {node} writes in {generation}, which was handed over");
        line.took(seq, change);
        self.coverage.hit("write");
        if self.sources().len() > 1 {
            self.coverage.hit("write while two nodes are a source");
        }
    }

    /// A write reaches its volume.
    pub(super) fn reach(&mut self, node: usize) {
        let pick = self.rng.index(16);
        let node_ = &mut self.nodes[node];
        let Some(writer) = node_.writer.as_mut() else { return };
        let done = writer.reach(&node_.host.disks, pick);
        self.done(node, done);
    }

    /// A write ends.
    pub(super) fn end_write(&mut self, node: usize) {
        if let Some(writer) = self.nodes[node].writer.as_mut() {
            writer.end();
        }
    }

    /// A client's flush, or the agent's.
    pub(super) fn flush(&mut self, node: usize) {
        let ids: Vec<VolumeId> = self.layout.ids().collect();
        let volume = ids[self.rng.index(ids.len())];
        let of = &mut self.nodes[node];
        let Some(writer) = of.writer.as_mut() else { return };
        let done = flush(&mut writer.source, &of.host.disks, volume);
        self.done(node, done);
    }

    /// Time passes, for all.
    pub(super) fn tick(&mut self, _node: usize) {
        self.now = Tick(self.now.0 + 1 + self.rng.below(20));
        let (now, wall) = (self.now, 1_000_000_000 + self.now.0 * 1000);
        for node in 0..self.nodes.len() {
            self.nodes[node].host.past.clock.store(wall, std::sync::atomic::Ordering::SeqCst);
            if self.nodes[node].writer.is_none() {
                continue;
            }
            let ended = |world: &World, replica: usize| {
                let writer = world.nodes[node].writer.as_ref().expect("it runs");
                let id = writer.source.find(super::peer(replica))?;
                writer.source.replica(id).resync?.ends
            };
            let before: Vec<_> = (0..self.nodes.len()).map(|it| ended(self, it)).collect();
            let writer = self.nodes[node].writer.as_mut().expect("it runs");
            writer.source.tick(now, wall);
            let generation = writer.source.generation();
            for (replica, before) in before.into_iter().enumerate() {
                if let Some(seq) = ended(self, replica).filter(|seq| Some(*seq) != before) {
                    self.lines.of(generation).equal_at(replica, seq);
                    self.coverage.hit("resync ended");
                }
            }
        }
    }

    /// The ledger's checkpoint.
    pub(super) fn ledger(&mut self, node: usize) {
        let (of, idle) = (&mut self.nodes[node], self.settings.idle);
        let Some(writer) = of.writer.as_mut() else { return };
        let mut done = Ok(());
        for volume in writer.source.unflushed() {
            done = done.and_then(|()| flush(&mut writer.source, &of.host.disks, volume));
        }
        let done = done.and_then(|()| writer.checkpoint(idle));
        self.done(node, done);
    }

    /// A replica applies what is durable, and answers offers.
    pub(super) fn apply(&mut self, node: usize) {
        let count = 1 + self.rng.index(4);
        let Some(life) = self.nodes[node].host.life.as_mut() else { return };
        let applied = life.apply(count);
        let Some(applied) = self.done(node, applied) else { return };
        self.note_snapshots(node, false);
        let Some((session, answers, ended)) = applied else { return };
        if let Some(link) = self.links[node].as_mut().filter(|_| !answers.is_empty()) {
            link.down.push_back(Word::Answers(session, answers));
        }
        if ended || self.rng.one_in(6) {
            self.check_prefix(node, "while applying");
        }
    }

    /// A replica moves its checkpoint.
    pub(super) fn checkpoint(&mut self, node: usize) {
        let trim = self.rng.one_in(2);
        let host = &mut self.nodes[node].host;
        let Some(life) = host.life.as_mut() else { return };
        let done = life.checkpoint(&host.state);
        let done = done.and_then(|()| if trim { life.trim() } else { Ok(()) });
        if self.done(node, done).is_some() {
            self.check_prefix(node, "at a checkpoint");
            self.acknowledge(node);
        }
    }

    /// A resync takes the next extent up, for some replica.
    pub(super) fn next_job(&mut self, node: usize) {
        let Some(id) = self.some_replica(node) else { return };
        self.nodes[node].writer.as_mut().expect("it has replicas").next_job(id);
    }

    /// An extent that is read for a resync goes a step on.
    pub(super) fn read_step(&mut self, node: usize) {
        let Some(id) = self.some_replica(node) else { return };
        let (volumes, pick) = (self.nodes[node].volumes(), self.rng.index(16));
        let writer = self.nodes[node].writer.as_mut().expect("it has replicas");
        let done = writer.read_step(id, &volumes, pick);
        self.done(node, done);
    }

    fn some_replica(&mut self, node: usize) -> Option<vgship_base::ids::ReplicaId> {
        let writer = self.nodes[node].writer.as_ref()?;
        let ids: Vec<_> = writer.source.ids().collect();
        Some(ids[self.rng.index(ids.len())])
    }
}
