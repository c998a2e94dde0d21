//! Starts of the source's machine, and what must hold right after one.

use vgship::ship::standing::Standing;
use vgship_base::ids::{Generation, Seq, Start, VolumeId};
use vgship_base::sim::SimFolder;

use super::model::{Images, differing};
use super::{Owed, World, id_of};

impl World {
    /// Starts the source: ledger, flush, first checkpoint. Power may fail meanwhile.
    pub fn start_source(&mut self) {
        self.begin_life();
        if self.source.power.is_off() {
            self.coverage.hit("power failed inside the start of the source");
        }
    }

    fn begin_life(&mut self) {
        if self.settings.old && !self.aged && !self.age() {
            return;
        }
        let fresh = self.fresh_generation();
        let life = match self.source.load(fresh) {
            Ok(life) => life,
            Err(error) => {
                let full = self.source.spills.iter().any(SimFolder::is_limited);
                assert!(full || self.source.power.is_off(), "the ledger is lost: {error:?}");
                return;
            }
        };
        let found = self.source.images();
        let power = std::mem::take(&mut self.source.lost_power);
        self.promises.check(&found, power);
        self.coverage.hit(match power {
            true => "nothing acknowledged is lost: checked after a power cut",
            false => "nothing acknowledged is lost: checked after a kill",
        });
        self.promises.restart(found.clone());
        self.model.truth = found;
        self.source.life = Some(life);
        self.windows.fill(false);
        self.told = Seq::ZERO;
        self.standings.fill(Standing::Off);
        let start = self.life().source.start();
        self.trace(|| format!("source starts {}", start.0));
        if self.lineage.last().is_some_and(|known| *known != self.generation()) && start.0 == 1 {
            self.coverage.hit("starts ran out: a new generation");
            self.source.wrapped = true;
            self.model.fork();
        }
        self.note_generation();
        for volume in self.layout.ids() {
            self.flush_now(volume);
        }
        if self.write_ledger() {
            self.check_dirty_superset();
        } else if self.up() {
            self.coverage.hit("source cannot start: its ledger has no room");
            self.source.life = None;
        }
    }

    /// Gives a source that has never run a ledger in which few starts are left. Whether it could.
    fn age(&mut self) -> bool {
        const LEFT: u16 = 3;
        let fresh = self.fresh_generation();
        let Ok(mut life) = self.source.load(fresh) else { return false };
        let mut state = life.source.begin_checkpoint(0);
        state.start = Start(u16::MAX - LEFT);
        self.aged = life.ledger.checkpoint(&state).is_ok();
        self.aged
    }

    fn generation(&self) -> Generation {
        self.source.life.as_ref().expect("it runs").source.generation()
    }

    /// Keeps the row of generations that this source has written.
    pub(super) fn note_generation(&mut self) {
        let now = self.generation();
        match self.lineage.iter().position(|known| *known == now) {
            Some(place) => self.lineage.truncate(place + 1),
            None => self.lineage.push(now),
        }
    }

    /// I3: right after a start, every extent in which a replica differs is in its dirty map. A
    /// replica that is down is looked at when it has recovered.
    fn check_dirty_superset(&mut self) {
        self.owed.fill_with(|| None);
        if self.ledger_is_old() {
            return;
        }
        for index in 0..self.replicas.len() {
            let known = self.known(index);
            let images = self.model.seen(id_of(index), self.source.images());
            let owed = Owed { images, dirty: known.durable_dirty() };
            if self.replicas[index].life.is_some() {
                self.check_owed(index, &owed);
                self.coverage.hit("I3 checked after a start");
            } else {
                self.owed[index] = Some(owed);
            }
        }
    }

    /// Where two contents differ that should not: not in extents that something wrote into past all
    /// order.
    pub(super) fn differing(
        &self,
        index: usize,
        one: &Images,
        other: &Images,
    ) -> Vec<(VolumeId, u64)> {
        let mut found = differing(&self.layout, one, other);
        found.retain(|place| !self.strays[index].contains(place));
        found
    }

    /// I3: what this replica holds differs only where the map says so.
    pub(super) fn check_owed(&self, index: usize, owed: &Owed) {
        let host = &self.replicas[index];
        let fresh = host.life.as_ref().is_none_or(|life| life.admit.point().generation.is_none());
        if fresh || host.spoiled {
            return;
        }
        for durable in [true, false] {
            let theirs = host.coming(durable);
            for (volume, extent) in self.differing(index, &owed.images, &theirs) {
                assert!(
                    owed.dirty.sets()[volume.index()].contains(extent),
                    "I3: extent {extent} of volume {} differs on replica {index} (durable only: \
                     {durable}) and is in no map after the source's start",
                    volume.0
                );
            }
        }
    }
}
