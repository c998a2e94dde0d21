//! A model of volumes, a stream and snapshots, against the real set on disks that lose power.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, GroupId, Seq, VolumeId};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::sim::{Power, Rng, SimDisk, SimFolder};
use vgship_base::units::Span;

use super::{NewSnapshot, Origin, Parts, Preserver, SnapshotSet};
use crate::SnapshotError;
use crate::seal::{DataKey, KeyId, KeyRing, SealError};

mod damage;
mod holes;

const SIZES: [u64; 2] = [16 * 4096, 5 * 4096 + 512];

type Images = Vec<Vec<u8>>;

#[derive(Clone, Debug)]
enum Record {
    Write { volume: usize, span: Span, fill: u8 },
    Take { name: String },
}

/// What survives: disks, the stream, and what is known of them.
struct World {
    power: Power,
    disks: Vec<SimDisk>,
    folder: SimFolder,
    keys: KeyRing,
    /// All keys that there were, the current one last.
    made: Vec<KeyId>,
    /// How many of them nothing needed, so that they were destroyed.
    retired: usize,
    /// The stream, by seq from 1.
    stream: Vec<Record>,
    /// Up to where the volumes are durable.
    checkpoint: u64,
    /// What the group held at each seq of which a snapshot was tried.
    images: BTreeMap<Seq, Images>,
    names: BTreeMap<String, Seq>,
    /// Snapshots that must be there, and those that were meant to go.
    there: BTreeSet<Seq>,
    going: BTreeSet<Seq>,
    rng: Rng,
}

struct Life {
    set: Arc<SnapshotSet>,
    preserver: Preserver,
    applied: u64,
}

fn at(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

fn layout() -> Layout {
    let names = ["data", "log"];
    let volume =
        |(name, bytes): (&str, u64)| VolumeLayout { name: name.parse().unwrap(), bytes, masked: 0 };
    let volumes = names.into_iter().zip(SIZES).map(volume).collect();
    Layout { extent: ExtentSize::from_log2(12).unwrap(), volumes }
}

fn new_snapshot(seq: u64, name: &str) -> NewSnapshot {
    NewSnapshot {
        seq: Seq(seq),
        name: name.parse().unwrap(),
        origin: Origin::Manual,
        guards: false,
        quiesced: false,
        torn: false,
        clock: seq,
        taken: seq,
        generation: Generation([1; 16]),
        point: Seq(seq),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let power = Power::default();
        let key = DataKey::from_bytes([3; 32]);
        World {
            keys: (&key).into(),
            made: vec![key.id()],
            retired: 0,
            disks: SIZES.iter().map(|&bytes| SimDisk::volume(&power, bytes)).collect(),
            folder: SimFolder::new(&power),
            power,
            stream: Vec::new(),
            checkpoint: 0,
            images: BTreeMap::new(),
            names: BTreeMap::new(),
            there: BTreeSet::new(),
            going: BTreeSet::new(),
            rng: Rng::new(seed),
        }
    }

    fn open(&mut self) -> Result<Life, SnapshotError> {
        let share = |disk: &SimDisk| Arc::new(disk.clone()) as SharedDisk;
        let set = SnapshotSet::open(Parts {
            folder: Arc::new(self.folder.clone()),
            keys: self.keys.clone(),
            group: GroupId([7; 16]),
            layout: Arc::new(layout()),
            volumes: self.disks.iter().map(share).collect(),
            pack_bytes: Some(24 << 10),
        })?;
        let mut preserver = Preserver::new(Arc::clone(&set), 1, Seq(self.checkpoint))?;
        preserver.set_reserve(0);
        let mut life = Life { set, preserver, applied: self.checkpoint };
        while life.applied < self.stream.len() as u64 {
            self.apply(&mut life)?;
        }
        for disk in &self.disks {
            disk.flush().map_err(|source| SnapshotError::Folder {
                action: "flush",
                name: "disk".into(),
                source,
            })?;
        }
        self.checkpoint = life.applied;
        life.set.settle(Seq(self.checkpoint));
        Ok(life)
    }

    /// Applies some of what is not applied yet, as a replica does.
    fn apply(&mut self, life: &mut Life) -> Result<(), SnapshotError> {
        let first = at(life.applied);
        if let Record::Take { name } = &self.stream[first] {
            life.preserver.take(&new_snapshot(life.applied + 1, name))?;
            life.applied += 1;
            return Ok(());
        }
        let mut end = first;
        let most = first + 1 + self.rng.index(6);
        while end < self.stream.len().min(most) {
            if matches!(self.stream[end], Record::Take { .. }) {
                break;
            }
            end += 1;
        }
        let (after, mut upto) = (Seq(life.applied), Seq(end as u64));
        if let Some(border) = life.preserver.border(after, upto) {
            upto = border;
        }
        let batch = &self.stream[first..at(upto.0)];
        let spans = batch.iter().filter_map(|record| match record {
            Record::Write { volume, span, .. } => {
                Some((VolumeId(u16::try_from(*volume).unwrap()), *span))
            }
            Record::Take { .. } => None,
        });
        let shared = life.preserver.shared(spans, after, upto)?;
        life.preserver.preserve(&shared)?;
        for record in batch {
            if let Record::Write { volume, span, fill } = record {
                let data = vec![*fill; at(span.len)];
                let done = self.disks[*volume].write_at(span.offset, &data);
                done.map_err(|source| SnapshotError::Folder {
                    action: "write",
                    name: "disk".into(),
                    source,
                })?;
            }
        }
        life.applied = upto.0;
        Ok(())
    }

    fn now(&self) -> Images {
        self.disks.iter().map(SimDisk::live).collect()
    }

    /// What the volumes hold after the whole stream: from nothing.
    fn truth(&self) -> Images {
        let mut images: Images = SIZES.iter().map(|&bytes| vec![0; at(bytes)]).collect();
        for record in &self.stream {
            if let Record::Write { volume, span, fill } = record {
                images[*volume][at(span.offset)..at(span.end())].fill(*fill);
            }
        }
        images
    }

    fn throw_write(&mut self) -> Record {
        let volume = self.rng.index(SIZES.len());
        // Whole sectors: half of one is not safe from a power cut on any disk.
        let offset = self.rng.below(SIZES[volume] / 512) * 512;
        let len = 512 * (1 + self.rng.below((SIZES[volume] - offset).min(9216) / 512));
        let fill = u8::try_from(self.rng.below(5)).unwrap();
        Record::Write { volume, span: Span::new(offset, len), fill }
    }

    fn step(&mut self, life: &mut Life) -> Result<(), SnapshotError> {
        match self.rng.below(16) {
            0 | 1 => {
                let name = format!("m{}", self.stream.len());
                self.stream.push(Record::Take { name: name.clone() });
                let seq = Seq(self.stream.len() as u64);
                self.attempt(seq, name);
                self.apply(life)?;
                self.there.insert(seq);
            }
            2 => {
                let (seq, name) = (life.applied, format!("l{}", self.rng.draw()));
                if seq > life.set.taken()?.0 {
                    self.attempt(Seq(seq), name.clone());
                    life.preserver.take(&new_snapshot(seq, &name))?.expect("it is new");
                    self.there.insert(Seq(seq));
                }
            }
            3 => self.delete(life)?,
            4 => {
                let limit = 1 + self.rng.index(6);
                life.set.sweep(limit)?;
            }
            5 => {
                life.set.compact()?;
            }
            7 => self.rotate(life)?,
            6 => {
                for disk in &self.disks {
                    let done = disk.flush();
                    done.map_err(|source| SnapshotError::Folder {
                        action: "flush",
                        name: "disk".into(),
                        source,
                    })?;
                }
                self.checkpoint = life.applied;
                life.set.settle(Seq(self.checkpoint));
            }
            _ => {
                for _ in 0..=self.rng.index(4) {
                    let write = self.throw_write();
                    self.stream.push(write);
                }
                while life.applied < self.stream.len() as u64 {
                    self.apply(life)?;
                }
            }
        }
        self.compare(life)
    }

    /// Makes a new key current, and destroys those that nothing needs.
    fn rotate(&mut self, life: &Life) -> Result<(), SnapshotError> {
        if self.rng.one_in(2) {
            let key = DataKey::from_bytes([u8::try_from(self.made.len()).unwrap() + 3; 32]);
            self.made.push(key.id());
            self.keys.add(key);
        }
        let needs = life.set.needs()?;
        for key in self.made.iter().filter(|key| self.keys.holds(**key)) {
            if !needs.contains_key(key) && *key != self.keys.current_id() {
                self.keys.destroy(*key);
                self.retired += 1;
            }
        }
        life.set.forget_read();
        Ok(())
    }

    fn attempt(&mut self, seq: Seq, name: String) {
        self.images.insert(seq, self.truth());
        self.names.insert(name, seq);
    }

    fn delete(&mut self, life: &Life) -> Result<(), SnapshotError> {
        let all = life.set.list()?;
        if all.is_empty() {
            return Ok(());
        }
        let victim = &all[self.rng.index(all.len())];
        self.there.remove(&victim.seq);
        self.going.insert(victim.seq);
        life.set.delete(victim.name.as_str()).map(drop)
    }

    /// Every snapshot that is there reads as it must; those that must be there are.
    fn compare(&mut self, life: &Life) -> Result<(), SnapshotError> {
        let mut found = BTreeSet::new();
        for snapshot in life.set.list()? {
            found.insert(snapshot.seq);
            assert_eq!(self.names.get(snapshot.name.as_str()), Some(&snapshot.seq));
            if !life.set.is_settled(&snapshot) {
                assert!(life.set.view(&snapshot).is_err());
                continue;
            }
            let view = life.set.view(&snapshot)?;
            let expected = &self.images[&snapshot.seq];
            for (volume, image) in (0..).map(VolumeId).zip(expected) {
                let from = self.rng.index(image.len());
                let to = from + self.rng.index(image.len() - from + 1);
                let mut read = vec![9; to - from];
                view.read(volume, from as u64, &mut read)?;
                let equal = read == image[from..to];
                assert!(equal, "snapshot {} from {from} to {to}", snapshot.name);
            }
        }
        assert!(found.is_superset(&self.there), "{:?} of {found:?}", self.there);
        Ok(())
    }

    fn crash(&mut self) {
        if self.rng.one_in(4) {
            self.power.restore();
            return;
        }
        self.folder.power_cut(&mut self.rng);
        self.disks.iter().for_each(|disk| disk.power_cut(&mut self.rng));
        self.power.restore();
    }

    fn live(&mut self, steps: u32) -> Result<(), SnapshotError> {
        let mut life = self.open()?;
        assert!(self.now() == self.truth(), "what is replayed is the stream");
        let all: BTreeSet<Seq> = life.set.list()?.into_iter().map(|it| it.seq).collect();
        // What a crash left undecided is decided now.
        self.there.extend(all);
        self.compare(&life)?;
        (0..steps).try_for_each(|_| self.step(&mut life))
    }
}

/// Goal: I5 and R5: whatever is written, taken, deleted, swept, compacted and crashed meanwhile,
/// under whatever keys, a snapshot that is there reads as the group was at its place in the stream.
/// A key that the store says it does not need is not needed.
/// Method: for each seed some lives, each ended after some number of operations of its disks.
#[test]
fn snapshots_read_as_the_group_was_whatever_happens() {
    let (mut crashes, mut snapshots, mut retired) = (0, 0, 0);
    for seed in 0..120 {
        let mut world = World::new(seed);
        for life in 0..6 {
            let operations = 1 + u32::try_from(world.rng.below(900)).unwrap();
            world.power.fail_after(operations);
            let done = world.live(40);
            if let Err(error) = &done {
                assert!(world.power.is_off(), "seed {seed}, life {life}: {error:?}");
                crashes += 1;
            }
            world.crash();
        }
        world.live(30).unwrap();
        snapshots += world.there.len();
        retired += world.retired;
    }
    assert!(retired > 100, "{retired} keys went");
    assert!(crashes > 300 && snapshots > 300, "{crashes} crashes, {snapshots} snapshots");
}

/// Goal: a destroyed key takes with it what it sealed, is named where that is read, and nothing else:
/// what is new goes on, and what it sealed is given back when nothing refers to it any more.
#[test]
fn what_a_destroyed_key_sealed_cannot_be_read_and_all_else_goes_on() {
    let mut world = World::new(1);
    let mut life = world.open().unwrap();
    let fill = |world: &mut World, life: &mut Life, fill: u8| {
        for (volume, &bytes) in SIZES.iter().enumerate() {
            world.stream.push(Record::Write { volume, span: Span::new(0, bytes), fill });
        }
        while life.applied < world.stream.len() as u64 {
            world.apply(life).unwrap();
        }
        life.set.settle(Seq(life.applied));
    };
    let take = |world: &mut World, life: &mut Life, name: &str| {
        world.stream.push(Record::Take { name: name.to_owned() });
        world.apply(life).unwrap();
        life.set.settle(Seq(life.applied));
        life.set.find(name).unwrap()
    };
    let read = |life: &Life, snapshot: &super::Snapshot| {
        let mut content = vec![0; 4096];
        let view = life.set.view(snapshot).unwrap();
        view.read(VolumeId(0), 0, &mut content).map(|()| content[0])
    };
    fill(&mut world, &mut life, 1);
    let first = take(&mut world, &mut life, "first");
    fill(&mut world, &mut life, 2); // preserves under the first key
    let old = world.keys.current_id();
    world.keys.add(DataKey::from_bytes([9; 32]));
    let second = take(&mut world, &mut life, "second");
    fill(&mut world, &mut life, 1); // what "first" holds, too; under another key it is stored anew
    let needs = life.set.needs().unwrap();
    let (names, all) = life.set.readers_of(&needs[&old].packs, 1000).unwrap();
    assert_eq!((names.len(), names[0].seq, all), (1, first.seq, true));
    assert!(!life.set.readers_of(&needs[&old].packs, 0).unwrap().1);
    assert_eq!((read(&life, &first).unwrap(), read(&life, &second).unwrap()), (1, 2));
    world.keys.destroy(old);
    life.set.forget_read();
    let refused = read(&life, &first).unwrap_err();
    let told = matches!(&refused, SnapshotError::Pack { source: SealError::Destroyed { key, .. }, .. }
        if *key == old);
    assert!(told, "{refused:?}");
    assert_eq!(read(&life, &second).unwrap(), 2);
    let third = take(&mut world, &mut life, "third");
    fill(&mut world, &mut life, 3);
    assert_eq!(read(&life, &third).unwrap(), 1);
    drop(life);
    let life = world.open().unwrap();
    assert!(read(&life, &first).is_err() && read(&life, &second).unwrap() == 2);
    for name in ["first", "second", "third"] {
        life.set.delete(name).unwrap();
        while !life.set.sweep(3).unwrap().done {}
        while !life.set.compact().unwrap().done {}
    }
    assert_eq!(life.set.needs().unwrap(), BTreeMap::new());
    assert_eq!(life.set.usage().unwrap(), super::Usage::default());
}

/// Goal: deleting everything gives everything back, at any moment.
#[test]
fn what_no_snapshot_needs_is_given_back() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        world.live(120).unwrap();
        let life = world.open().unwrap();
        for snapshot in life.set.list().unwrap() {
            life.set.delete(snapshot.name.as_str()).unwrap();
            if seed % 2 == 0 {
                while !life.set.sweep(3).unwrap().done {}
            }
        }
        while !life.set.sweep(3).unwrap().done {}
        drop(life);
        world.there.clear();
        let life = world.open().unwrap();
        assert_eq!(life.set.usage().unwrap(), super::Usage::default(), "seed {seed}");
        let names = vgship_base::folder::Folder::list(&world.folder).unwrap();
        assert_eq!(names, ["catalogue"], "seed {seed}");
    }
}

/// Goal: that applications were quiet is taken back for good, of one that is kept, too.
#[test]
fn what_was_not_quiet_after_all_is_not_said_to_be() {
    let mut world = World::new(1);
    let mut life = world.open().unwrap();
    let quiet = NewSnapshot { quiesced: true, ..new_snapshot(1, "still") };
    assert!(life.preserver.take(&quiet).unwrap().unwrap().quiesced);
    life.set.pin("still", true).unwrap();
    assert!(!life.set.disturb("still").unwrap().quiesced);
    assert!(life.set.disturb("other").is_err());
    drop(life);
    let found = world.open().unwrap().set.find("still").unwrap();
    assert!(found.pinned && !found.quiesced);
}

/// A volume at the first read of which a new key becomes current.
struct Turning {
    disk: SimDisk,
    keys: KeyRing,
    next: Mutex<Option<DataKey>>,
}

impl Disk for Turning {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.next.lock().unwrap().take().into_iter().for_each(|key| self.keys.add(key));
        self.disk.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, data)
    }
    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.zero_at(offset, len)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

/// Goal: what is preserved after a rotation never refers to what an older key sealed, also when the
/// rotation came while it was read: whoever destroys that key was not told of it.
#[test]
fn what_is_preserved_while_keys_are_rotated_needs_the_new_key() {
    let (power, keys) = (Power::default(), KeyRing::from(DataKey::from_bytes([3; 32])));
    let old = keys.current_id();
    let volumes: Vec<Arc<Turning>> = (SIZES.iter())
        .map(|&bytes| Turning {
            disk: SimDisk::volume(&power, bytes),
            keys: keys.clone(),
            next: Mutex::default(),
        })
        .map(Arc::new)
        .collect();
    volumes[0].write_at(0, &[7; 8192]).unwrap();
    let set = SnapshotSet::open(Parts {
        folder: Arc::new(SimFolder::new(&power)),
        keys: keys.clone(),
        group: GroupId([7; 16]),
        layout: Arc::new(layout()),
        volumes: volumes.iter().map(|it| Arc::clone(it) as SharedDisk).collect(),
        pack_bytes: None,
    });
    let set = set.unwrap();
    let mut preserver = Preserver::new(Arc::clone(&set), 1, Seq(0)).unwrap();
    preserver.set_reserve(0);
    let first = preserver.take(&new_snapshot(1, "first")).unwrap().unwrap();
    let mut preserve = |index: u64, after: u64| {
        let span = [(VolumeId(0), Span::new(index * 4096, 4096))];
        let shared = preserver.shared(span.into_iter(), Seq(after), Seq(after + 1)).unwrap();
        assert_eq!(shared.len(), 1);
        preserver.preserve(&shared).unwrap();
    };
    preserve(0, 1);
    *volumes[0].next.lock().unwrap() = Some(DataKey::from_bytes([4; 32]));
    preserve(1, 2); // the same content, which is known
    assert_ne!(keys.current_id(), old);
    set.settle(Seq(3));
    keys.destroy(old);
    set.forget_read();
    let (view, mut content) = (set.view(&first).unwrap(), [0; 4096]);
    assert!(view.read(VolumeId(0), 0, &mut content).is_err(), "the old key sealed it");
    view.read(VolumeId(0), 4096, &mut content).unwrap();
    assert_eq!(content, [7; 4096]);
}
