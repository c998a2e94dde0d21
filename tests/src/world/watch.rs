//! Notes what became of outboxes and resyncs in a step.

use vgship::capture::source::Overflow;
use vgship::ship::replica::{Flow, Resync};
use vgship_base::record::ResyncReason;

use super::{World, id_of};

/// What a replica's flow was before a step.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    flow: Flow,
    resync: Option<Resync>,
}

impl Seen {
    fn in_resync(&self) -> bool {
        self.resync.is_some_and(|resync| resync.ends.is_none())
    }
}

impl World {
    /// How all replicas stand, by what the source knows.
    pub(super) fn look(&self) -> Vec<Seen> {
        let source = &self.source.life.as_ref().expect("it runs").source;
        let seen = |id| {
            let known = source.replica(id);
            Seen { flow: known.flow, resync: known.resync }
        };
        source.ids().map(seen).collect()
    }

    /// Counts the outboxes that were emptied into their maps since `before`.
    pub(super) fn note_overflow(&mut self, before: &[Seen]) {
        let after = self.look();
        for index in 0..before.len() {
            let (was, is) = (&before[index], &after[index]);
            if was.flow != Flow::Stream || is.flow != Flow::Map(ResyncReason::Overflow) {
                continue;
            }
            self.trace(|| format!("outbox {index} overflows (resync: {:?})", was.resync));
            self.coverage.hit("outbox overflowed into the map");
            if was.in_resync() {
                self.coverage.hit("overflow during a resync");
            }
            if (0..before.len()).any(|other| other != index && before[other].in_resync()) {
                self.coverage.hit("overflow of one replica during another's resync");
            }
            if self.known(index).paused && self.settings.overflow == Overflow::Stall {
                self.coverage.hit("nobody waits for a paused replica");
            }
            let lane = &self.source.life.as_ref().expect("it runs").lanes[index];
            let (pushed, popped) = (lane.pushed.is_some(), lane.popped.is_some());
            if pushed {
                self.coverage.hit("outbox overflowed while records were on their way to the spill");
            }
            if popped {
                self.coverage
                    .hit("outbox overflowed while records were coming back from the spill");
            }
        }
    }

    /// Counts the resyncs that began or ended since `before`, and tells the model of ends.
    pub(super) fn note_resyncs(&mut self, before: &[Seen]) {
        let after = self.look();
        for index in 0..before.len() {
            let (was, is) = (before[index].resync, after[index].resync);
            if let Some(begun) = is.filter(|it| was.map(|was| was.session) != Some(it.session)) {
                self.note_begin(index, begun, &after);
            }
            let ends = |resync: Option<Resync>| resync.and_then(|it| it.ends);
            if let Some(seq) = ends(is).filter(|_| ends(was) != ends(is)) {
                self.coverage.hit("resync ended");
                self.trace(|| format!("resync of replica {index} ends with {seq}"));
                self.windows[index] = false;
                self.model.resynced(id_of(index), seq);
            }
        }
    }

    fn note_begin(&mut self, index: usize, begun: Resync, all: &[Seen]) {
        self.trace(|| format!("resync of replica {index} begins: {begun:?}"));
        self.coverage.hit(format!("resync begun: {:?}", begun.reason));
        if std::mem::replace(&mut self.windows[index], true) {
            self.coverage.hit("resync begun while a resync of the replica was under way");
        }
        let others = || all.iter().enumerate().filter(|(other, _)| *other != index);
        if others().any(|(_, other)| other.in_resync()) {
            self.coverage.hit("resync begun while another replica is in a resync");
        }
        if others().any(|(_, other)| other.flow == Flow::Map(ResyncReason::Overflow)) {
            self.coverage.hit("resync begun while another replica's outbox is in the map");
        }
    }
}
