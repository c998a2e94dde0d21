//! A folder that can lose power: changes of names survive in order, up to some point at or after
//! the last sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Power, Rng, SimDisk};
use crate::disk::Disk;
use crate::folder::Folder;

type Names = BTreeMap<String, SimDisk>;

/// A simulated folder; clones are the same folder.
#[derive(Clone, Debug)]
pub struct SimFolder {
    power: Power,
    state: Arc<Mutex<State>>,
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
        SimFolder { power: power.clone(), state: Arc::default() }
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
        state.live = state.stable.clone();
        state.live.values().for_each(|file| file.power_cut(rng));
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
        self.change(|names| names.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|names| {
            let file = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            names.insert(to.to_owned(), file);
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
}
