//! Steps of snapshots and history: taken, deleted, swept, read; points in between rolled forward
//! (I4, I5).

use std::sync::Arc;

use vgship::history::roll::{RollError, point_of, roll};
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::ids::Seq;
use vgship_base::record::{Marker, Order};
use vgship_base::sim::{Power, SimDisk};
use vgship_snapshot::SnapshotError;
use vgship_snapshot::set::{Origin, Snapshot, SnapshotSet};

use super::model::{Images, differing};
use super::past::HOLDER;
use super::replica::{Ended, stopped};
use super::{World, id_of};

impl World {
    /// The source puts a marker into the stream.
    pub(super) fn put_marker(&mut self) {
        if !self.up() {
            return;
        }
        let name = self.fresh_name("m");
        let orders = [Order::Snapshot, Order::Snapshot, Order::Event, Order::Delete, Order::Pin];
        let order = orders[self.rng.index(orders.len())];
        let name = match order {
            Order::Snapshot | Order::Event => name,
            _ => format!("m{}", self.rng.below(self.names + 1)),
        };
        let marker = Marker { name: name.parse().expect("a name"), order, quiesced: false };
        let (before, clock) = (self.look(), self.wall());
        let marked = self.life().source.mark(marker, clock);
        self.note_overflow(&before);
        if marked.is_some() {
            self.coverage.hit(format!("marker: {order:?}"));
        }
    }

    pub(super) fn fresh_name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}{}", self.names)
    }

    /// A replica takes a snapshot of its own.
    pub(super) fn take_snapshot(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let name = self.fresh_name("r").parse().expect("a name");
        let origin = if self.rng.one_in(2) { Origin::Manual } else { Origin::Automatic };
        let life = self.replicas[index].life.as_mut().expect("it is up");
        if life.hold.is_some() {
            return; // as the agent refuses it
        }
        let keeper = life.applier.keeper().expect("replicas keep snapshots");
        match keeper.take_here(name, origin) {
            Ok(Some(_)) => self.coverage.hit("replica took a snapshot"),
            Ok(None) => {}
            Err(error) if error.is_refusal() => {}
            Err(error) => return self.ended(index, &stopped(&error)),
        }
        self.note_snapshots(index);
    }

    /// A snapshot of a replica is deleted, or what deleted ones leave is swept.
    pub(super) fn forget_snapshot(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let set = self.set(index);
        let done = match self.rng.below(4) {
            0 => set.list().and_then(|all| {
                if all.is_empty() {
                    return Ok(());
                }
                let found = &all[self.rng.index(all.len())];
                let name = found.name.clone();
                if found.torn && self.rng.one_in(2) {
                    self.coverage.hit("a way back without a point was pinned");
                    return set.pin(name.as_str(), true).map(drop);
                }
                match set.delete(name.as_str()) {
                    Err(SnapshotError::Kept { why, .. }) => {
                        if why.contains(HOLDER) {
                            self.coverage
                                .hit("a snapshot that an environment holds was not deleted");
                        }
                        Ok(())
                    }
                    done => {
                        self.coverage.hit("replica deleted a snapshot");
                        done.map(drop)
                    }
                }
            }),
            1 => set.compact().map(|it| {
                if it.freed > 0 {
                    self.coverage.hit("snapshot packs compacted");
                }
            }),
            _ => set.sweep(1 + self.rng.index(20)).map(|swept| {
                if swept.removed > 0 {
                    self.coverage.hit("before-images swept");
                }
            }),
        };
        if let Err(error) = done {
            self.ended(index, &stopped(&error));
        }
    }

    pub(super) fn set(&mut self, index: usize) -> Arc<SnapshotSet> {
        let life = self.replicas[index].life.as_mut().expect("it is up");
        Arc::clone(life.applier.keeper().expect("replicas keep snapshots").set())
    }

    /// The source puts this marker into the stream; `None` when no replica has one.
    pub fn marker(&mut self, name: &str, order: Order) -> Option<Seq> {
        let marker = Marker { name: name.parse().expect("a name"), order, quiesced: false };
        let clock = self.wall();
        self.life().source.mark(marker, clock)
    }

    /// A replica's snapshots.
    ///
    /// # Panics
    /// When it is down.
    pub fn snapshots(&mut self, index: usize) -> Vec<Snapshot> {
        self.set(index).list().expect("its disk is well")
    }

    /// Deletes a snapshot of a replica; whether it could be.
    pub fn delete_snapshot(&mut self, index: usize, name: &str) -> bool {
        let done = self.set(index).delete(name);
        assert!(done.as_ref().err().is_none_or(SnapshotError::is_refusal), "{done:?}");
        done.is_ok()
    }

    /// What a snapshot of a replica holds.
    ///
    /// # Panics
    /// When there is none, or it cannot be read.
    pub fn read_snapshot(&mut self, index: usize, name: &str) -> Images {
        let set = self.set(index);
        let found = set.find(name).expect("it is there");
        set.settle(found.point); // what is not stored yet is in the volumes' cache
        read_all(&set, &found).expect("it can be read")
    }

    /// Remembers what new snapshots must hold: the source's history at their points.
    pub(super) fn note_snapshots(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let Ok(all) = self.set(index).list() else { return };
        for snapshot in all {
            if self.replicas[index].expected.contains_key(&snapshot.seq) {
                continue;
            }
            let known = !self.replicas[index].spoiled && !snapshot.torn;
            let images = known.then(|| self.model.expected(id_of(index), snapshot.point).clone());
            self.replicas[index].expected.insert(snapshot.seq, images);
        }
    }

    /// I4 and I5: what a replica has of its past is read and compared.
    pub fn look_back(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let set = self.set(index);
        let all = match set.list() {
            Ok(all) => all,
            Err(error) => return self.ended(index, &stopped(&error)),
        };
        let points = all.iter().filter(|it| set.is_settled(it) && !it.torn);
        let settled: Vec<Snapshot> = points.cloned().collect();
        if !settled.is_empty() {
            let snapshot = &settled[self.rng.index(settled.len())];
            let done = self.read_back(index, &set, snapshot);
            let done = done.and_then(|images| match images {
                Some(images) => self.roll_on(index, snapshot, &images),
                None => Ok(()),
            });
            if let Err(ended) = done {
                return self.ended(index, &ended);
            }
        }
        self.check_good_copy(index, &all);
        if let Err(ended) = self.check_reach(index, &set) {
            self.ended(index, &ended);
        }
    }

    /// I5: a snapshot reads as the source's history at its point. `None` when the disk read what was
    /// not asked for.
    pub(super) fn read_back(
        &mut self,
        index: usize,
        set: &Arc<SnapshotSet>,
        snapshot: &Snapshot,
    ) -> Result<Option<Images>, Ended> {
        let before = self.astray(index);
        let images = read_all(set, snapshot).map_err(|error| stopped(&error))?;
        if self.astray(index) != before {
            return Ok(None);
        }
        if let Some(Some(expected)) = self.replicas[index].expected.get(&snapshot.seq) {
            let places = self.untainted(index, &images, expected);
            assert!(
                places.is_empty(),
                "I5: snapshot {} ({:?}) of replica {index} at {} differs in {places:?}",
                snapshot.name,
                snapshot.origin,
                snapshot.point
            );
            self.coverage.hit("I5 checked: a snapshot");
        }
        Ok(Some(images))
    }

    /// I5: a snapshot with the journal's records behind it is the history up to any point.
    fn roll_on(&mut self, index: usize, snapshot: &Snapshot, images: &Images) -> Result<(), Ended> {
        let host = &self.replicas[index];
        let life = host.life.as_ref().expect("it is up");
        let (from, to) = (snapshot.point, life.applied.seq);
        if host.decayed || life.journal.first_after() > from || from.start() != to.start() {
            return Ok(());
        }
        let wanted = Seq(from.0 + self.rng.below(to.0 - from.0 + 1));
        self.roll_to(index, snapshot, images, wanted)
    }

    /// I5: the same with a point that was chosen.
    pub(super) fn roll_to(
        &mut self,
        index: usize,
        snapshot: &Snapshot,
        images: &Images,
        wanted: Seq,
    ) -> Result<(), Ended> {
        let host = &self.replicas[index];
        let life = host.life.as_ref().expect("it is up");
        let (from, to) = (snapshot.point, life.applied.seq);
        let disks: Vec<SimDisk> = images.iter().map(|image| disk_of(image)).collect();
        let shared = disks.iter().map(|disk| Arc::new(disk.clone()) as SharedDisk).collect();
        let records = life.journal.replay(from);
        let rolled = roll(&self.layout, shared, point_of(snapshot), wanted, records);
        match rolled {
            Err(RollError::Inside { .. }) => {
                self.coverage.hit("a point inside a resync was refused");
                return Ok(());
            }
            // Numbers are missing before a resync begins.
            Err(RollError::Beyond { last, .. }) if last < to => return Ok(()),
            Err(error) => return Err(stopped(&error)),
            Ok(point) if point.seq != wanted => return Ok(()),
            Ok(_) => {}
        }
        let Some(Some(_)) = host.expected.get(&snapshot.seq) else { return Ok(()) };
        let found: Images = disks.iter().map(SimDisk::live).collect();
        if self.replicas[index].spoiled {
            return Ok(());
        }
        let expected = self.model.expected(id_of(index), wanted).clone();
        let places = self.untainted(index, &found, &expected);
        assert!(
            places.is_empty(),
            "I5: replica {index} at {wanted}, from {}, differs in {places:?}",
            snapshot.name
        );
        self.coverage.hit("I5 checked: a point in time");
        Ok(())
    }

    /// I4: a replica that was ever consistent is, or holds a snapshot that is.
    fn check_good_copy(&mut self, index: usize, all: &[Snapshot]) {
        let host = &mut self.replicas[index];
        let life = host.life.as_ref().expect("it is up");
        if let Some(rolled) = life.rolled() {
            let there = |it: &Snapshot| it.seq == rolled.from;
            assert!(
                all.iter().any(there),
                "I4: replica {index} has no way back: {rolled:?}, {all:?}"
            );
            self.coverage.hit("I4 checked while volumes are rolled back");
        }
        if life.applied.consistent() {
            host.was_consistent = true;
        } else if host.was_consistent && !host.spoiled && !host.decayed {
            let kept = all.iter().any(|it| it.guards && it.point <= life.applied.seq);
            assert!(kept, "I4: replica {index} is inside a resync and holds no way back: {all:?}");
            self.coverage.hit("I4 checked inside a resync");
        }
    }

    pub(super) fn astray(&self, index: usize) -> u64 {
        self.replicas[index].disks.iter().map(SimDisk::misdirected).sum()
    }

    /// Where images differ, but for what was written past all order.
    pub(super) fn untainted(
        &self,
        index: usize,
        found: &Images,
        expected: &Images,
    ) -> Vec<(u16, u64)> {
        let places = differing(&self.layout, found, expected);
        let strays = &self.replicas[index].strays;
        let own = places.into_iter().filter(|place| !strays.contains(place));
        own.map(|(volume, extent)| (volume.0, extent)).collect()
    }
}

fn read_all(set: &Arc<SnapshotSet>, snapshot: &Snapshot) -> Result<Images, SnapshotError> {
    let view = set.view(snapshot)?;
    let layout = Arc::clone(view.layout());
    let read = |(id, volume): (_, &vgship_base::layout::VolumeLayout)| {
        let mut image = vec![0; usize::try_from(volume.bytes).expect("small")];
        view.read(id, 0, &mut image).map(|()| image)
    };
    layout.ids().zip(&layout.volumes).map(read).collect()
}

fn disk_of(image: &[u8]) -> SimDisk {
    let disk = SimDisk::volume(&Power::default(), image.len() as u64);
    disk.write_at(0, image).expect("it has power");
    disk
}
