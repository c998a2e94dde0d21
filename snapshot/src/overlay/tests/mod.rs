//! Examples of what a clone does; what they share.

mod crash;
mod failures;
mod map;
mod model;
mod threads;

use std::io;
use std::sync::Arc;

use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::folder::{Folder, SharedFolder};
use vgship_base::io::RealFolder;
use vgship_base::limits::VOLUME_BYTES_MAX;
use vgship_base::sim::{Power, Rng, SimDisk, SimFolder};
use vgship_base::units::Span;

use super::{BLOCK, Overlay, OverlayError, remove};

/// A base that knows where it holds nothing, and refuses to be written.
struct Base(SimDisk);

impl Disk for Base {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let place = |at| usize::try_from(at).unwrap();
        let bytes = &self.0.live()[place(offset)..place(end)];
        let is_hole = bytes[0] == 0;
        let len = bytes.iter().position(|&byte| (byte == 0) != is_hole).unwrap_or(bytes.len());
        let kind = if is_hole { Allocation::Hole } else { Allocation::Data };
        Ok((kind, offset + len as u64))
    }
}

/// A base of so many bytes: blocks 2 and 3 of each five, and the middle of each fifth, are holes.
fn base_of(power: &Power, len: u64) -> (SharedDisk, Vec<u8>) {
    let byte = |at: u64| match (at / BLOCK % 5, at % BLOCK) {
        (2 | 3, _) | (4, 1000..3000) => 0,
        _ => u8::try_from(1 + (at / 512 + at) % 251).unwrap(),
    };
    let bytes: Vec<u8> = (0..len).map(byte).collect();
    let disk = SimDisk::volume(power, len);
    disk.write_at(0, &bytes).unwrap();
    disk.flush().unwrap();
    (Arc::new(Base(disk)), bytes)
}

fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(disk.len()).unwrap()];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

/// The odd half block at the end included. Unit: bytes.
const LEN: u64 = 12 * BLOCK + 2048;

struct World {
    folder: SimFolder,
    base: SharedDisk,
    bytes: Vec<u8>,
}

impl World {
    fn new() -> World {
        let power = Power::default();
        let (base, bytes) = base_of(&power, LEN);
        World { folder: SimFolder::new(&power), base, bytes }
    }

    fn shared(&self) -> SharedFolder {
        Arc::new(self.folder.clone())
    }

    fn create(&self, stem: &str) -> Overlay {
        Overlay::create(self.shared(), stem, Arc::clone(&self.base)).unwrap()
    }

    fn try_open(&self, stem: &str) -> Result<Overlay, OverlayError> {
        Overlay::open(self.shared(), stem, Arc::clone(&self.base))
    }

    fn open(&self, stem: &str) -> Overlay {
        self.try_open(stem).unwrap()
    }
}

fn blocks_of(overlay: &Overlay) -> Vec<u64> {
    overlay.runs().flat_map(|run| run.offset / BLOCK..run.end().div_ceil(BLOCK)).collect()
}

#[test]
fn a_clone_begins_as_its_base_and_keeps_what_was_written() {
    let world = World::new();
    let clone = world.create("a");
    assert_eq!((clone.len(), content(&clone)), (LEN, world.bytes.clone()));
    assert_eq!((clone.written_bytes(), clone.runs().next()), (0, None));
    let mut model = world.bytes.clone();
    for (offset, len) in [(5, 1), (4000, 200), (BLOCK * 7, 4096), (LEN - 10, 10), (LEN - 2048, 7)] {
        clone.write_at(offset, &vec![0x77; len]).unwrap();
        let at = usize::try_from(offset).unwrap();
        model[at..at + len].fill(0x77);
        assert_eq!(content(&clone), model);
    }
    let runs = [Span::new(0, 8192), Span::new(7 * BLOCK, BLOCK), Span::new(12 * BLOCK, 2048)];
    assert!(clone.runs().eq(runs));
    assert_eq!(clone.written_bytes(), 4 * BLOCK);
    clone.flush().unwrap();
    drop(clone);
    for _ in 0..2 {
        let clone = world.open("a");
        assert_eq!(content(&clone), model);
        assert!(clone.runs().eq(runs));
        clone.flush().unwrap();
    }
    assert_eq!(world.folder.list().unwrap(), ["a.data", "a.map"]);
    assert_eq!(content(&*world.base), world.bytes);
}

#[test]
fn nothing_reaches_behind_the_end() {
    let world = World::new();
    let clone = world.create("a");
    let kind = |done: io::Result<()>| done.unwrap_err().kind();
    for (offset, len) in [(LEN, 1), (LEN - 1, 2), (u64::MAX, 2), (u64::MAX - 1, 1)] {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        assert_eq!(kind(clone.write_at(offset, &bytes)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(clone.zero_at(offset, len)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(clone.read_at(offset, &mut bytes)), io::ErrorKind::UnexpectedEof);
    }
    clone.write_at(LEN, &[]).unwrap();
    clone.zero_at(LEN, 0).unwrap();
    clone.read_at(LEN, &mut []).unwrap();
    assert_eq!(clone.allocation(LEN, LEN).unwrap().1, LEN);
    assert_eq!(clone.written_bytes(), 0);
}

/// Goal: clones of one base never see each other, and the base never changes.
#[test]
fn clones_of_one_base_are_apart() {
    let world = World::new();
    let (one, two) = (world.create("one"), world.create("two"));
    let (mut first, mut second) = (world.bytes.clone(), world.bytes.clone());
    let mut rng = Rng::new(1);
    for step in 0..300 {
        let (clone, model, byte) =
            if rng.one_in(2) { (&one, &mut first, 1) } else { (&two, &mut second, 2) };
        let (offset, len) = (rng.below(LEN), rng.below(6000));
        let len = len.min(LEN - offset);
        let (at, end) = (offset, offset + len);
        let places = usize::try_from(at).unwrap()..usize::try_from(end).unwrap();
        match step % 4 {
            0 => clone.zero_at(offset, len).unwrap(),
            1 => clone.flush().unwrap(),
            _ => clone.write_at(offset, &vec![byte; places.len()]).unwrap(),
        }
        match step % 4 {
            0 => model[places].fill(0),
            1 => {}
            _ => model[places].fill(byte),
        }
        assert!(content(&one) == first && content(&two) == second, "step {step}");
    }
    assert_eq!(content(&*world.base), world.bytes);
    remove(&world.folder, "one").unwrap();
    assert_eq!(content(&two), second);
    assert_eq!(world.folder.list().unwrap(), ["two.data", "two.map"]);
}

#[test]
fn a_write_beyond_the_quota_changes_nothing() {
    let world = World::new();
    let clone = world.create("a");
    clone.set_quota(Some(2 * BLOCK));
    clone.write_at(100, &[1; 4096]).unwrap();
    let before = content(&clone);
    for refused in [clone.write_at(4000, &[2; 4300]), clone.zero_at(0, LEN)] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert!(error.to_string().contains("a.data"), "{error}");
        assert_eq!((content(&clone), clone.written_bytes()), (before.clone(), 2 * BLOCK));
    }
    clone.set_quota(Some(0));
    clone.write_at(0, &[3; 8192]).unwrap(); // what it has can be written again
    clone.zero_at(2 * BLOCK, 2 * BLOCK).unwrap(); // nothing stands there
    assert_eq!(clone.written_bytes(), 2 * BLOCK);
    world.folder.file("a.data").unwrap().fail_writes(1);
    clone.set_quota(Some(3 * BLOCK));
    assert!(clone.write_at(5 * BLOCK, &[4; 10]).is_err());
    clone.write_at(6 * BLOCK, &[4; 10]).unwrap(); // a failed write takes nothing
    assert!(clone.write_at(5 * BLOCK, &[4; 10]).is_err());
    clone.set_quota(None);
    clone.write_at(5 * BLOCK, &[4; 10]).unwrap();
    assert_eq!(blocks_of(&clone), [0, 1, 5, 6]);
}

#[test]
fn zeroing_takes_blocks_only_where_the_base_has_something() {
    let world = World::new();
    let clone = world.create("a");
    clone.zero_at(0, LEN).unwrap();
    assert!(content(&clone).iter().all(|&byte| byte == 0));
    assert_eq!(blocks_of(&clone), [0, 1, 4, 5, 6, 9, 10, 11]);
    assert_eq!(clone.allocation(2 * BLOCK + 5, LEN).unwrap(), (Allocation::Hole, 4 * BLOCK));
    clone.flush().unwrap();
    assert!(content(&world.open("a")).iter().all(|&byte| byte == 0));
}

/// Goal: zeroes take no room in a real file, not even where something stood, and the clone says so.
#[test]
fn zeroes_take_no_room_in_a_real_file() {
    let place = tempfile::tempdir().unwrap();
    let folder: SharedFolder = Arc::new(RealFolder::open(place.path()).unwrap());
    let len = 256 * BLOCK;
    let (base, bytes) = base_of(&Power::default(), len);
    let clone = Overlay::create(Arc::clone(&folder), "a", Arc::clone(&base)).unwrap();
    clone.write_at(64 * BLOCK, &vec![1; 64 << 12]).unwrap();
    clone.zero_at(10, len - 20).unwrap();
    let mut model = vec![0; bytes.len()];
    model[..10].copy_from_slice(&bytes[..10]);
    let tail = bytes.len() - 10;
    model[tail..].copy_from_slice(&bytes[tail..]);
    assert_eq!(content(&clone), model);
    clone.flush().unwrap();
    if cfg!(target_os = "linux") {
        let (mut holes, mut at) = (0, 0);
        while at < len {
            let (kind, to) = clone.allocation(at, len).unwrap();
            holes += if kind == Allocation::Hole { to - at } else { 0 };
            at = to;
        }
        assert!(holes >= len - 3 * BLOCK, "{holes} of {len}");
    }
    drop(clone);
    assert_eq!(content(&Overlay::open(folder, "a", base).unwrap()), model);
}

#[test]
fn only_what_belongs_together_is_opened() {
    let world = World::new();
    let clone = world.create("a");
    let again = Overlay::create(world.shared(), "a", Arc::clone(&world.base)).err().unwrap();
    assert!(matches!(again, OverlayError::Exists { .. }), "{again}");
    clone.write_at(0, &[1; 8192]).unwrap();
    clone.flush().unwrap();
    let (other, _) = base_of(&Power::default(), LEN + 512);
    let error = Overlay::open(world.shared(), "a", other).err().unwrap();
    assert!(matches!(error, OverlayError::Base { expected: LEN, .. }), "{error}");
    assert!(matches!(world.try_open("b").err().unwrap(), OverlayError::Io { .. }));
    world.folder.remove("a.data").unwrap();
    world.folder.create("a.data").unwrap().write_at(0, &[1; 8191]).unwrap();
    let error = world.try_open("a").err().unwrap();
    assert!(matches!(error, OverlayError::Data { expected: 8192, found: 8191, .. }), "{error}");
    remove(&world.folder, "a").unwrap();
    remove(&world.folder, "a").unwrap();
    assert_eq!(world.folder.list().unwrap(), Vec::<String>::new());
    world.folder.create("a.data").unwrap().write_at(0, &[9; 8192]).unwrap(); // of a crash
    assert_eq!(content(&world.create("a")), world.bytes);
}

/// A base of any length, which holds the same everywhere.
struct Even(u64);

impl Disk for Even {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(7);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Goal: a clone of the largest volume has a small map, wherever it is written.
#[test]
fn the_largest_volume_has_a_small_map() {
    let place = tempfile::tempdir().unwrap();
    let folder: SharedFolder = Arc::new(RealFolder::open(place.path()).unwrap());
    let error = Overlay::create(Arc::clone(&folder), "a", Arc::new(Even(VOLUME_BYTES_MAX + 1)))
        .err()
        .unwrap();
    assert!(matches!(error, OverlayError::Size(_)), "{error}");
    // File systems end earlier than that; most take files of a terabyte.
    let far = 1 << 40;
    let clone =
        Overlay::create(Arc::clone(&folder), "a", Arc::new(Even(VOLUME_BYTES_MAX))).unwrap();
    clone.write_at(far - 1, &[1; 2]).unwrap();
    clone.write_at(5, &[2]).unwrap();
    clone.flush().unwrap();
    assert!(folder.open("a.map").unwrap().len() < 4096);
    let clone = Overlay::open(folder, "a", Arc::new(Even(VOLUME_BYTES_MAX))).unwrap();
    let mut found = [0; 4];
    clone.read_at(far - 2, &mut found).unwrap();
    assert_eq!((found, clone.written_bytes()), ([7, 1, 1, 7], 3 * BLOCK));
}
