//! Calls that come at the same time.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::folder::Folder;
use vgship_base::sim::{Rng, SimFolder};

use super::super::{BLOCK, Overlay};
use super::{World, content};

/// A base in which a reader waits a while for another.
struct Meeting {
    base: SharedDisk,
    readers: AtomicU32,
}

impl Disk for Meeting {
    fn len(&self) -> u64 {
        self.base.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.base.read_at(offset, into)?;
        let before = self.readers.fetch_add(1, Ordering::SeqCst);
        // In pairs; who meets nobody goes on alone.
        for _ in 0..1000 {
            if before % 2 == 1 || self.readers.load(Ordering::SeqCst) > before + 1 {
                break;
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.base.write_at(offset, data)
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.base.zero_at(offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        self.base.flush()
    }
}

/// Goal: two writers in one block keep each other's bytes, also when it becomes own meanwhile.
/// Method: who reads the base's bytes around his own waits a while for others who do so too.
#[test]
fn threads_write_different_bytes_of_the_same_blocks() {
    for round in 0..20 {
        let world = World::new();
        let base = Meeting { base: Arc::clone(&world.base), readers: AtomicU32::new(0) };
        let folder = Arc::new(world.folder.clone());
        let clone = Overlay::create(folder, "a", Arc::new(base)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let clone = &clone;
                scope.spawn(move || {
                    for block in 0..12 {
                        let bytes = [u8::try_from(200 + thread).unwrap(); 700];
                        // The last reaches into the next block.
                        clone.write_at(block * BLOCK + 1000 + thread * 1300, &bytes).unwrap();
                    }
                });
            }
            scope.spawn(|| (0..5).for_each(|_| clone.flush().unwrap()));
        });
        let mut model = world.bytes.clone();
        for (block, thread) in (0..12).flat_map(|block| (0..3).map(move |it| (block, it))) {
            let at = block * 4096 + 1000 + thread * 1300;
            model[at..at + 700].fill(u8::try_from(200 + thread).unwrap());
        }
        assert!(content(&clone) == model, "round {round}");
        clone.flush().unwrap();
        assert!(content(&world.open("a")) == model, "round {round}");
    }
}

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A folder whose data files call a hook, once, behind a flush.
struct Hooked {
    folder: SimFolder,
    hook: Hook,
}

struct HookedDisk {
    disk: Box<dyn Disk>,
    hook: Hook,
}

impl Disk for HookedDisk {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, data)
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.zero_at(offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()?;
        let hook = self.hook.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        Ok(())
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        self.disk.allocation(offset, end)
    }
}

impl Folder for Hooked {
    fn create(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        self.folder.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        let disk = self.folder.open(name)?;
        let hook = if name == "a.data" { Arc::clone(&self.hook) } else { Hook::default() };
        Ok(Box::new(HookedDisk { disk, hook }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn sync(&self) -> io::Result<()> {
        self.folder.sync()
    }

    fn available(&self) -> io::Result<u64> {
        self.folder.available()
    }
}

/// Goal: a block that becomes own while a flush runs is not in the map before its data is stored.
/// Method: it is written behind the flush of the data, before the map is; then power fails. Once
/// the map is appended to, once written anew.
#[test]
fn what_comes_during_a_flush_waits_for_the_next() {
    for (seed, anew) in (0..50).flat_map(|seed| [(seed, true), (seed, false)]) {
        let world = World::new();
        drop(world.create("a"));
        let hook = Hook::default();
        let folder = Arc::new(Hooked { folder: world.folder.clone(), hook: Arc::clone(&hook) });
        let clone = Arc::new(Overlay::open(folder, "a", Arc::clone(&world.base)).unwrap());
        if !anew {
            clone.flush().unwrap();
        }
        clone.write_at(0, &[1; 4096]).unwrap();
        let late = Arc::clone(&clone);
        *hook.lock().unwrap() =
            Some(Box::new(move || late.write_at(5 * BLOCK, &[2; 4096]).unwrap()));
        clone.flush().unwrap();
        assert!(hook.lock().unwrap().is_none());
        let mut model = world.bytes.clone();
        model[..4096].fill(1);
        let mut rng = Rng::new(seed);
        if seed % 2 == 0 {
            clone.flush().unwrap();
            model[5 * 4096..6 * 4096].fill(2);
        }
        world.folder.power_cut(&mut rng);
        assert!(content(&world.open("a")) == model, "seed {seed}");
    }
}
