//! Rollbacks interleaved at random with writes, snapshots, resyncs and crashes at any step, against a
//! model of what the volumes held after each record.

use std::ops::ControlFlow;
use std::sync::Weak;

use bytes::Bytes;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, ReplicaId, VolumeId};
use vgship_base::layout::VolumeLayout;
use vgship_base::record::{Body, Marker, Order, ResyncBegin, ResyncReason, Target as For};
use vgship_base::sim::{Power, Rng, SimDisk, SimFolder};
use vgship_base::units::Span;
use vgship_snapshot::seal::DataKey;

use super::*;
use crate::history::roll::{point_of, survey};

const SIZES: [u64; 2] = [64 << 10, 20 << 10];
const BLOCK: u64 = 2 << 10;

type Images = Vec<Vec<u8>>;

fn len(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

struct World {
    power: Power,
    disks: Vec<SimDisk>,
    folders: [SimFolder; 3],
    rng: Rng,
    /// What the volumes hold after each record; the first is before any.
    model: Vec<Images>,
    session: u64,
    life: Option<Recovered>,
    /// The store of the last life, which ends with it.
    last: Weak<SnapshotSet>,
    /// How often a rollback came to its point, and back from it.
    reached: [u32; 2],
}

impl World {
    fn new(seed: u64) -> World {
        let power = Power::default();
        let mut world = World {
            disks: SIZES.iter().map(|&bytes| SimDisk::volume(&power, bytes)).collect(),
            folders: [(); 3].map(|()| SimFolder::new(&power)),
            power,
            rng: Rng::new(seed),
            model: vec![SIZES.iter().map(|&bytes| vec![0; len(bytes)]).collect()],
            session: 0,
            life: None,
            last: Weak::new(),
            reached: [0; 2],
        };
        world.start();
        world.resync(true);
        world.resync(false);
        world
    }

    fn start(&mut self) {
        let extent = ExtentSize::from_log2(12).unwrap();
        let volumes = ["data", "log"].into_iter().zip(SIZES).map(|(name, bytes)| VolumeLayout {
            name: name.parse().unwrap(),
            bytes,
            masked: 0,
        });
        let layout = Arc::new(Layout { extent, volumes: volumes.collect() });
        while self.life.is_none() {
            assert_eq!(self.last.strong_count(), 0, "one catalogue is open twice");
            let parts = Parts {
                group: GroupId([7; 16]),
                layout: Arc::clone(&layout),
                volumes: self.disks.iter().map(|it| Arc::new(it.clone()) as SharedDisk).collect(),
                folder: Arc::new(self.folders[0].clone()),
                journal: Arc::new(self.folders[1].clone()),
                journal_place: "there".into(),
                snapshots: Arc::new(self.folders[2].clone()),
                keys: DataKey::from_bytes([5; 32]).into(),
                floor: Seq::ZERO,
                wall: Arc::new(|| 1),
                replay: u64::MAX,
            };
            match recover(parts, 1) {
                Ok(life) => {
                    self.last = Arc::downgrade(&life.snapshots);
                    self.life = Some(life);
                }
                Err(error) => {
                    assert!(self.power.is_off(), "{error:?}");
                    self.cut();
                }
            }
        }
        let durable = self.life().admit.point().seq.0;
        // What was never said to be durable may be lost.
        self.model.truncate(len(durable) + 1);
    }

    fn cut(&mut self) {
        self.life = None;
        self.power.restore();
        self.disks.iter().for_each(|it| it.power_cut(&mut self.rng));
        self.folders.iter().for_each(|it| it.power_cut(&mut self.rng));
    }

    fn life(&mut self) -> &mut Recovered {
        self.life.as_mut().expect("it runs")
    }

    fn rolled(&mut self) -> Option<Rolled> {
        self.life().rolled
    }

    fn inside(&mut self) -> bool {
        !self.life().admit.point().consistent()
    }

    /// One record comes: it is journaled and, unless the volumes are rolled back, applied.
    fn put(&mut self, body: Body, target: For) -> Result<(), EngineError> {
        let seq = Seq(self.model.len() as u64);
        let record = Record { seq, target, body };
        let mut images = self.model.last().unwrap().clone();
        match &record.body {
            Body::Write { volume, offset, data } => {
                let at = len(*offset);
                images[volume.index()][at..at + data.len()].copy_from_slice(data);
            }
            Body::Zero { volume, span } => {
                images[volume.index()][len(span.offset)..len(span.end())].fill(0);
            }
            _ => {}
        }
        self.model.push(images);
        let life = self.life();
        life.admit.admit(&record, Chain::data_hash(&record))?;
        let records = [record];
        life.journal.append(&records, life.journal.durable())?;
        life.journal.flush()?;
        life.journal.promise()?;
        if life.rolled.is_none() {
            life.applier.apply(&records, false)?;
            life.applied = life.admit.point();
        }
        Ok(())
    }

    fn resync(&mut self, begins: bool) {
        let after = Seq(self.model.len() as u64 - 1);
        self.session += u64::from(begins);
        let session = self.session;
        let (generation, reason) = (Generation([1; 16]), ResyncReason::Initial);
        let body = match begins {
            true => {
                Body::ResyncBegin(ResyncBegin { session, after, generation, reason, extents: 1 })
            }
            false => Body::ResyncEnd { session },
        };
        let done = self.put(body, For::One(ReplicaId(0)));
        self.survives(done);
    }

    fn survives<T>(&mut self, done: Result<T, EngineError>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                assert!(self.power.is_off(), "{error:?}");
                self.cut();
                self.start();
                None
            }
        }
    }

    fn write(&mut self) {
        let index = self.rng.index(2);
        let blocks = SIZES[index] / BLOCK;
        let first = self.rng.below(blocks);
        let count = 1 + self.rng.below((blocks - first).min(6));
        let span = Span::new(first * BLOCK, count * BLOCK);
        let volume = VolumeId(u16::try_from(index).unwrap());
        let body = if self.rng.one_in(4) {
            Body::Zero { volume, span }
        } else {
            let byte = self.rng.draw().to_be_bytes()[0];
            Body::Write {
                volume,
                offset: span.offset,
                data: Bytes::from(vec![byte; len(span.len)]),
            }
        };
        let done = self.put(body, For::All);
        self.survives(done);
    }

    fn snapshot(&mut self) {
        let name = format!("s{}", self.model.len()).parse().unwrap();
        let marker = Marker { name, order: Order::Snapshot, quiesced: false };
        let done = self.put(Body::Marker(marker), For::All);
        self.survives(done);
    }

    fn checkpoint(&mut self) {
        let life = self.life.as_mut().unwrap();
        if life.rolled.is_none() {
            let done = life.applier.checkpoint(&*life.folder, &life.applied);
            self.survives(done.map_err(Into::into));
        }
    }

    /// Some snapshot goes, unless something keeps it.
    fn delete(&mut self) {
        let set = Arc::clone(&self.life().snapshots);
        let Ok(all) = set.list() else { return };
        if all.is_empty() {
            return;
        }
        let name = all[self.rng.index(all.len())].name.clone();
        let done = match set.delete(name.as_str()) {
            Err(error) if error.is_refusal() => Ok(()),
            done => done.and_then(|_| set.sweep(1000)).map(drop),
        };
        drop(set);
        self.survives(done.map_err(Into::into));
    }

    /// A rollback to some point is asked for, also where one is under way.
    fn roll_back(&mut self) {
        let set = Arc::clone(&self.life().snapshots);
        let Ok(mut all) = set.points() else { return };
        all.retain(|it| set.is_settled(it));
        if all.is_empty() {
            return;
        }
        let base = all[self.rng.index(all.len())].clone();
        let last = self.model.len() as u64 - 1;
        let wanted = match self.rng.one_in(2) {
            true => base.point,
            false => Seq(base.point.0 + self.rng.below(last - base.point.0 + 1)),
        };
        let life = self.life.as_mut().unwrap();
        let layout = set.layout_of(&base).map(Arc::new);
        let Ok(layout) = layout else { return };
        let records = life.journal.replay(base.point);
        let Ok(point) = survey(&layout, point_of(&base), wanted, records, |_| {}) else { return };
        let target = Target { base: base.seq, point };
        let folder = Arc::clone(&life.folder);
        let begun = match life.rolled {
            None => rollback::begin(&mut life.applier, &*folder, &life.applied, &target, 1),
            Some(now) => rollback::turn(&set, &*folder, &now, &target, 1),
        };
        drop(set);
        match begun {
            Err(error) if error.is_refusal() => {}
            Err(error) => drop(self.survives::<()>(Err(error.into()))),
            Ok(_) => self.restart(),
        }
    }

    /// The program ends and starts, with the power on.
    fn restart(&mut self) {
        self.life = None;
        self.start();
    }

    fn undo(&mut self) {
        let life = self.life.as_mut().unwrap();
        if let Some(rolled) = life.rolled {
            let done = rollback::undo(&*life.folder, &rolled);
            if let Some(next) = self.survives(done.map_err(Into::into)) {
                self.life().rolled = Some(next);
            }
        }
    }

    /// The volumes are taken on, for some steps or to the end.
    fn roll(&mut self, to_the_end: bool) {
        let mut patience = if to_the_end { u64::MAX } else { self.rng.below(4) };
        let life = self.life.as_mut().unwrap();
        let Some(rolled) = life.rolled else { return };
        let done = base_of(&life.snapshots, &rolled).and_then(|after| {
            let records = life.journal.replay(after);
            let rolled =
                rollback::roll(&mut life.applier, &*life.folder, &rolled, records, &mut |_| {
                    patience = patience.saturating_sub(1);
                    if patience == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
            Ok(rolled?)
        });
        let Some(Some(next)) = self.survives(done) else { return };
        self.life().rolled = Some(next);
        if next.phase == Phase::Came {
            self.reached[1] += 1;
            self.restart();
        }
    }

    fn live(&self) -> Images {
        self.disks.iter().map(SimDisk::live).collect()
    }

    /// The volumes hold what they are to hold, and every snapshot what it held.
    fn look(&mut self) {
        let applied = self.life().applied.seq.0;
        match self.rolled() {
            None => assert!(self.live() == self.model[len(applied)], "not at {applied}"),
            Some(rolled) if rolled.phase == Phase::There => {
                self.reached[0] += 1;
                assert!(self.live() == self.model[len(rolled.wanted.0)], "{rolled:?}");
            }
            Some(_) => {}
        }
        let set = Arc::clone(&self.life().snapshots);
        for snapshot in set.list().unwrap_or_default().into_iter().filter(|it| set.is_settled(it)) {
            let Ok(view) = set.view(&snapshot) else { continue };
            for (index, &bytes) in SIZES.iter().enumerate() {
                let mut found = vec![0; len(bytes)];
                let volume = VolumeId(u16::try_from(index).unwrap());
                if view.read(volume, 0, &mut found).is_err() {
                    assert!(self.power.is_off());
                    return;
                }
                let wanted = &self.model[len(snapshot.point.0)][index];
                assert!(found == *wanted, "{snapshot:?} of volume {index}");
            }
        }
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=6 => self.write(),
            7..=8 => self.snapshot(),
            9 => self.checkpoint(),
            10 => self.delete(),
            11..=12 => self.roll_back(),
            13 => self.undo(),
            14..=15 => self.roll(false),
            16 => self.roll(true),
            17 => {
                let begins = !self.inside();
                self.resync(begins);
            }
            18 => self.power.fail_after(u32::try_from(self.rng.below(300)).unwrap()),
            _ if self.rng.one_in(2) => self.restart(),
            _ => {
                self.cut();
                self.start();
            }
        }
    }
}

/// Runs a seed; how often points were reached, and left again.
fn run(seed: u64) -> [u32; 2] {
    let mut world = World::new(seed);
    for _ in 0..120 {
        world.step();
        world.look();
    }
    world.power.restore();
    while world.rolled().is_some() {
        world.undo();
        world.roll(true);
    }
    let last = world.model.len() - 1;
    assert_eq!(world.life().applied.seq.0, last as u64, "all that was journaled is applied");
    world.look();
    assert!(world.life().snapshots.list().unwrap().iter().all(|it| !it.torn));
    let costs = world.life().snapshots.list_costs().unwrap();
    assert!(costs.iter().all(|it| it.holders.is_empty()), "nothing is held for nobody");
    world.reached
}

/// Goal: whatever is written, kept, deleted, resynced and broken off meanwhile, a rollback ends at
/// its point, the way back at what the volumes held, and no snapshot and no record is lost. To
/// repeat one seed: `VGSHIP_SEED=N cargo test -p vgship --lib rollback_tests`.
#[test]
fn rolled_back_and_forward_at_any_time() {
    let seeds = match std::env::var("VGSHIP_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..200).collect::<Vec<u64>>(),
    };
    let mut reached = [0; 2];
    for &seed in &seeds {
        let ran = std::panic::catch_unwind(|| run(seed));
        let ran = ran.unwrap_or_else(|_| panic!("seed {seed}"));
        reached = [reached[0] + ran[0], reached[1] + ran[1]];
    }
    assert!(seeds.len() == 1 || reached.iter().all(|&times| times > 50), "{reached:?}");
}
