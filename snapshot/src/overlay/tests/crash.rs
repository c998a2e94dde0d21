//! A clone whose machine fails.

use std::io;
use std::sync::Arc;

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::folder::Folder;
use vgship_base::sim::{Power, Rng, SimFolder};

use super::super::{BLOCK, Overlay};
use super::{base_of, content};

const SECTOR: usize = 512;
/// Unit: bytes.
const LEN: u64 = 9 * BLOCK + 1536;

/// What a disk may show, for each sector.
struct Model {
    /// Whether somebody was promised that the clone is there.
    exists: bool,
    /// What a reader sees.
    live: Vec<u8>,
    /// What was promised.
    stable: Vec<u8>,
    /// What else was written since: the sector and what it became.
    since: Vec<(usize, Vec<u8>)>,
    /// Sectors that were found to be torn or lost.
    lost: u64,
}

/// What [`Disk::write_at`] and [`Disk::zero_at`] may do to some bytes.
type Change<'a> = (u64, &'a [u8]);

impl Model {
    fn change(&mut self, (offset, data): Change<'_>) {
        let at = usize::try_from(offset).unwrap();
        self.live[at..at + data.len()].copy_from_slice(data);
        for sector in at / SECTOR..(at + data.len()).div_ceil(SECTOR) {
            self.since.push((sector, self.live[sector * SECTOR..][..SECTOR].to_vec()));
        }
    }

    fn flushed(&mut self) {
        self.stable.clone_from(&self.live);
        self.since.clear();
    }

    /// Compares with what a new life found; `cut` if power was, so that nothing is unflushed now.
    fn found(&mut self, found: Vec<u8>, cut: bool, what: &str) {
        for (sector, bytes) in found.chunks(SECTOR).enumerate() {
            let since = || self.since.iter().filter(|it| it.0 == sector).map(|it| &it.1[..]);
            let stable = &self.stable[sector * SECTOR..][..SECTOR];
            let garbled = |written: &[u8]| {
                let bits = written.iter().zip(bytes).map(|(one, other)| one ^ other);
                cut && bits.filter(|&bits| bits != 0).eq([0x40])
            };
            let fits = stable == bytes || since().any(|it| it == bytes || garbled(it));
            assert!(fits, "sector {sector}: {what}");
            self.lost += u64::from(self.live[sector * SECTOR..][..SECTOR] != *bytes);
        }
        self.live = found;
        if cut {
            self.flushed();
        }
    }
}

/// One seed's world, in which power fails after some operation.
struct World {
    power: Power,
    folder: SimFolder,
    base: SharedDisk,
    rng: Rng,
    model: Model,
    /// Whether power was cut since the last life.
    cut: bool,
    what: String,
}

impl World {
    fn new(seed: u64, operations: u32) -> World {
        let power = Power::default();
        let (base, bytes) = base_of(&power, LEN);
        let (live, stable) = (bytes.clone(), bytes);
        let model = Model { exists: false, live, stable, since: Vec::new(), lost: 0 };
        let (folder, rng) = (SimFolder::new(&power), Rng::new(seed));
        let what = format!("seed {seed}, {operations} operations");
        World { power, folder, base, rng, model, cut: false, what }
    }

    fn open(&mut self) -> io::Result<Overlay> {
        let folder = || Arc::new(self.folder.clone());
        let base = Arc::clone(&self.base);
        let is_there = self.folder.list()?.iter().any(|name| name == "a.map");
        assert!(is_there || !self.model.exists, "{}", self.what);
        let opened = match is_there {
            true => Overlay::open(folder(), "a", base),
            false => Overlay::create(folder(), "a", base),
        };
        let clone = match opened {
            Ok(clone) => clone,
            Err(error) => {
                assert!(self.power.is_off(), "{}: {error:?}", self.what);
                return Err(error.into());
            }
        };
        // A name that is only found may still be lost with power.
        self.model.exists |= !is_there;
        let mut found = vec![0; usize::try_from(LEN).unwrap()];
        clone.read_at(0, &mut found)?;
        self.model.found(found, self.cut, &self.what);
        self.cut = false;
        let mut map = clone.map.lock().unwrap();
        map.frame_entries = 1 + self.rng.index(2);
        map.growth = self.rng.below(2) * 4096;
        drop(map);
        Ok(clone)
    }

    /// A run of any place and length, often of whole blocks.
    fn run(&mut self) -> (u64, u64) {
        let (mut offset, len) = (self.rng.below(LEN), [1, 700, 4096, 12_288][self.rng.index(4)]);
        if self.rng.one_in(3) {
            offset = offset / BLOCK * BLOCK;
        }
        (offset, (1 + self.rng.below(len)).min(LEN - offset))
    }

    fn live(&mut self, number: u8) -> io::Result<()> {
        let clone = self.open()?;
        for step in 0..14 {
            let (offset, len) = self.run();
            let len = usize::try_from(len).unwrap();
            match self.rng.below(8) {
                0 => {
                    let mut found = vec![0; len];
                    clone.read_at(offset, &mut found)?;
                    let at = usize::try_from(offset).unwrap();
                    assert!(found == self.model.live[at..at + len], "{}", self.what);
                }
                1 => {
                    self.model.change((offset, &vec![0; len]));
                    clone.zero_at(offset, len as u64)?;
                }
                2 | 3 => {
                    clone.flush()?;
                    self.model.flushed();
                    self.model.exists = true;
                }
                _ => {
                    let bytes = vec![number * 16 + step; len];
                    self.model.change((offset, &bytes));
                    clone.write_at(offset, &bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Ends a life: with the system's cache whole, or with power.
    fn end(&mut self, cut: bool) {
        if cut {
            self.folder.power_cut(&mut self.rng);
            self.cut = true;
        }
        self.power.restore();
    }
}

/// Goal: what was flushed survives; what was not is, sector by sector, something that was written
/// there or what was there before; the base never changes; a map that was torn is no damage.
/// Method: for each seed, power or the program fails after every possible number of operations, and
/// then twice more.
#[test]
fn what_was_flushed_survives_a_crash_at_any_step() {
    let mut lost = 0;
    for seed in 0..150 {
        for operations in 1.. {
            let mut world = World::new(seed, operations);
            let base = content(&*world.base);
            world.power.fail_after(operations);
            let done = world.live(1).is_ok();
            for life in 2..4 {
                let cut = !world.rng.one_in(4);
                world.end(cut);
                let operations = 1 + u32::try_from(world.rng.below(70)).unwrap();
                world.power.fail_after(operations);
                let _ = world.live(life);
            }
            world.end(true);
            world.open().unwrap();
            assert!(content(&*world.base) == base, "{}", world.what);
            lost += world.model.lost;
            if done {
                break;
            }
        }
    }
    assert!(lost > 10_000, "power cuts must tear: {lost}");
}
