//! Steps of the spill.

use vgship::outbox::queue::Moved;
use vgship::outbox::spill::SpillError;
use vgship_base::folder::Folder;

use super::{World, id_of};

/// Room that makes a spill whose disk was full worth another try. Unit: bytes.
const ROOM: u64 = 8 << 10;

impl World {
    /// Records go to the spill, or the outbox hears that they did.
    pub fn spill_step(&mut self, index: usize) {
        if !self.up() || self.settings.spill == 0 {
            return;
        }
        self.renew_spill(index);
        let id = id_of(index);
        let layout = self.layout.clone();
        let life = self.life();
        if let Some((of, moved)) = life.lanes[index].pushed.take() {
            life.source.replica_mut(id).outbox.spilled(of, moved);
            return;
        }
        let of = life.source.replica(id).outbox.life();
        if life.source.replica(id).outbox.lacks_room() && life.lanes[index].spill.has_room(ROOM) {
            life.source.replica_mut(id).outbox.spill_has_room();
            self.coverage.hit("spill's disk has room again");
        }
        let life = self.life();
        let Some(records) = life.source.replica_mut(id).outbox.to_spill(&layout) else { return };
        self.spill_may_fail(index);
        let moved = match self.life().lanes[index].spill.push(&records) {
            Ok(()) => Moved::Written,
            Err(SpillError::Full { .. }) => Moved::Full,
            Err(SpillError::NoRoom(_)) => Moved::NoRoom,
            Err(_) => Moved::Failed,
        };
        if self.source.power.is_off() {
            return;
        }
        self.life().lanes[index].pushed = Some((of, moved));
        self.coverage.hit(match moved {
            Moved::Written => "spilled",
            Moved::Full => "spill full",
            Moved::NoRoom => "spill's disk full",
            Moved::Failed => "spill failed",
        });
    }

    /// Now and then writing to the spill fails, if the run has that fault.
    fn spill_may_fail(&mut self, index: usize) {
        if self.spill_fails() {
            let folder = &self.source.spills[index];
            let last = folder.list().ok().and_then(|names| folder.file(names.last()?));
            last.inspect(|file| file.fail_writes(1));
        }
    }

    /// Records come back from the spill.
    pub fn refill_step(&mut self, index: usize) {
        if !self.up() || self.settings.spill == 0 {
            return;
        }
        self.renew_spill(index);
        let max = 1 + self.rng.index(20_000);
        let life = self.source.life.as_mut().expect("it runs");
        let replica = life.source.replica_mut(id_of(index));
        let lane = &mut life.lanes[index];
        if let Some((of, records)) = lane.popped.take() {
            replica.outbox.refilled(of, records);
            return;
        }
        if lane.pushed.is_some() || !replica.outbox.wants_refill() {
            return;
        }
        let of = replica.outbox.life();
        match lane.spill.pop(max) {
            Ok(records) => lane.popped = Some((of, records)),
            Err(error) => {
                if !self.source.power.is_off() {
                    self.trace(|| format!("the spill is lost: {error}"));
                    self.coverage.hit("spill lost");
                    self.life().source.spill_lost(id_of(index));
                    self.renew_spill(index);
                }
            }
        }
    }

    /// Clears a spill whose content is of an earlier life of the outbox.
    fn renew_spill(&mut self, index: usize) {
        let life = self.source.life.as_mut().expect("it runs");
        let now = life.source.replica(id_of(index)).outbox.life();
        let lane = &mut life.lanes[index];
        if lane.life != now && lane.spill.clear().is_ok() {
            lane.life = now;
        }
    }
}
