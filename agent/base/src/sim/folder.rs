//! A folder that can lose power: changes of names survive in order, up to some point at or after
//! the last sync. It may have a capacity, which its files share: one that grows beyond it keeps
//! what there was room for.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Power, Rng, SimDisk};
use crate::disk::Disk;
use crate::folder::Folder;

type Names = BTreeMap<String, SimDisk>;

/// A simulated folder; clones are the same folder.
#[derive(Clone, Debug)]
pub struct SimFolder {
    power: Power,
    state: Arc<Mutex<State>>,
    room: Arc<Room>,
}

/// What a folder's files may still take. Unit: bytes.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    capacity: Option<usize>,
    used: usize,
}

impl Room {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes as much of `bytes` as there is; how much that was.
    pub(super) fn take(&self, bytes: usize) -> usize {
        let mut taken = self.taken();
        let left = taken.left();
        let got = bytes.min(left);
        taken.used += got;
        got
    }

    fn give_back(&self, file: &SimDisk) {
        file.live_in(None);
        self.give(size(file));
    }

    /// Takes all of `bytes`, or nothing; which.
    pub(super) fn take_all(&self, bytes: usize) -> bool {
        let mut taken = self.taken();
        let fits = bytes <= taken.left();
        taken.used += if fits { bytes } else { 0 };
        fits
    }

    /// Gives `bytes` back that a file does not take any more.
    pub(super) fn give(&self, bytes: usize) {
        let mut taken = self.taken();
        taken.used = taken.used.saturating_sub(bytes);
    }
}

impl Taken {
    fn left(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used))
    }
}

fn size(file: &SimDisk) -> usize {
    usize::try_from(file.len()).expect("simulated files are small")
}

#[derive(Debug, Default)]
struct State {
    live: Names,
    /// The names after the last sync, then after each change since.
    since_sync: Vec<Names>,
    stable: Names,
}

impl SimFolder {
    /// An empty folder.
    pub fn new(power: &Power) -> SimFolder {
        SimFolder { power: power.clone(), state: Arc::default(), room: Arc::default() }
    }

    /// How much all files together may take, from now on; `None` for no limit. What is there stays,
    /// even if it is more. Unit: bytes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        let bytes = bytes.map(|bytes| usize::try_from(bytes).expect("simulated disks are small"));
        self.room.taken().capacity = bytes;
    }

    /// Whether its capacity is limited.
    pub fn is_limited(&self) -> bool {
        self.room.taken().capacity.is_some()
    }

    /// What all files together take. Unit: bytes.
    pub fn used(&self) -> u64 {
        self.room.taken().used as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while a simulated folder is held")
    }

    /// Cuts the power and turns it on again, for the names and for every file's content.
    pub fn power_cut(&self, rng: &mut Rng) {
        let mut state = self.state();
        let mut since = std::mem::take(&mut state.since_sync);
        let kept = rng.index(since.len() + 1);
        if kept > 0 {
            state.stable = since.swap_remove(kept - 1);
        }
        let found = state.stable.clone();
        let gone = std::mem::replace(&mut state.live, found);
        gone.values().for_each(|file| file.live_in(None));
        state.live.values().for_each(|file| {
            file.power_cut(rng);
            file.live_in(Some(Arc::clone(&self.room)));
        });
        self.room.taken().used = state.live.values().map(size).sum();
    }

    /// One of the files, to damage it.
    pub fn file(&self, name: &str) -> Option<SimDisk> {
        self.state().live.get(name).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut Names) -> io::Result<()>) -> io::Result<()> {
        self.power.spend()?;
        let mut state = self.state();
        change(&mut state.live)?;
        let now = state.live.clone();
        state.since_sync.push(now);
        Ok(())
    }
}

impl Folder for SimFolder {
    fn create(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        let file = SimDisk::file(&self.power);
        self.change(|names| {
            if names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if self.room.taken().left() == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.live_in(Some(Arc::clone(&self.room)));
            names.insert(name.to_owned(), file.clone());
            Ok(())
        })?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        self.power.spend()?;
        let file = self.state().live.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.power.spend()?;
        Ok(self.state().live.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|names| {
            let file = names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            self.room.give_back(&file);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|names| {
            let file = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            if let Some(replaced) = names.insert(to.to_owned(), file) {
                self.room.give_back(&replaced);
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.power.spend()?;
        let mut state = self.state();
        state.since_sync.clear();
        state.stable = state.live.clone();
        Ok(())
    }

    fn available(&self) -> io::Result<u64> {
        self.power.spend()?;
        let taken = self.room.taken();
        Ok(taken.capacity.map_or(u64::MAX, |_| taken.left() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::{read_small, replace};

    #[test]
    fn a_replaced_file_is_old_or_new_after_a_cut_at_any_step() {
        let (mut old, mut new) = (0, 0);
        for (seed, steps) in (0..20).flat_map(|seed| (1..9).map(move |steps| (seed, steps))) {
            let (power, mut rng) = (Power::default(), Rng::new(seed * 100 + u64::from(steps)));
            let folder = SimFolder::new(&power);
            replace(&folder, "state", &[1; 2000]).unwrap();
            power.fail_after(steps);
            let done = replace(&folder, "state", &[2; 2000]).is_ok();
            folder.power_cut(&mut rng);
            power.restore();
            let found = read_small(&folder, "state", 5000).unwrap().unwrap();
            if found == [1; 2000] {
                assert!(!done, "seed {seed}, {steps} steps: lost what was promised");
                old += 1;
            } else {
                assert_eq!(found, [2; 2000], "seed {seed}, {steps} steps");
                new += 1;
            }
        }
        assert!(old > 20 && new > 20, "{old} old, {new} new");
    }

    /// Goal: files take from one capacity and give back to it, whatever becomes of their names.
    #[test]
    fn a_full_folder_takes_what_fits_and_has_room_again_when_a_file_goes() {
        let folder = SimFolder::new(&Power::default());
        assert_eq!(folder.available().unwrap(), u64::MAX);
        folder.set_capacity(Some(1000));
        let (one, two) = (folder.create("one").unwrap(), folder.create("two").unwrap());
        one.write_at(0, &[1; 700]).unwrap();
        let full = two.write_at(0, &[2; 400]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(two.len(), 300, "what fitted was written");
        assert_eq!((folder.available().unwrap(), folder.used()), (0, 1000));
        one.write_at(0, &[3; 700]).unwrap(); // what is there can be written again
        assert!(two.write_at(299, &[2; 2]).is_err());
        assert_eq!(folder.create("three").err().unwrap().kind(), io::ErrorKind::StorageFull);
        folder.rename("two", "one").unwrap(); // the first `one` goes
        assert_eq!(folder.available().unwrap(), 700);
        one.write_at(700, &[1; 5000]).unwrap(); // which has no name here any more
        two.write_at(300, &[2; 100]).unwrap();
        folder.remove("one").unwrap();
        assert_eq!(folder.available().unwrap(), 1000);
        folder.set_capacity(None);
        folder.create("four").unwrap().write_at(0, &[4; 5000]).unwrap();
        folder.set_capacity(Some(1000));
        assert_eq!((folder.available().unwrap(), folder.used()), (0, 5000));
    }

    #[test]
    fn after_a_power_cut_what_is_found_is_what_is_taken() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let folder = SimFolder::new(&Power::default());
            folder.set_capacity(Some(10_000));
            let file = folder.create("old").unwrap();
            file.write_at(0, &[1; 3000]).unwrap();
            file.flush().unwrap();
            folder.sync().unwrap();
            folder.remove("old").unwrap();
            folder.create("new").unwrap().write_at(0, &[2; 6000]).unwrap();
            folder.power_cut(&mut rng);
            let found: u64 =
                folder.list().unwrap().iter().map(|it| folder.open(it).unwrap().len()).sum();
            assert_eq!(folder.used(), found, "seed {seed}");
            assert_eq!(folder.available().unwrap(), 10_000 - found, "seed {seed}");
        }
    }
}
