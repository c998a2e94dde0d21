//! Environments when a replica starts: they are opened and compared, what was not finished goes.

use vgship::apply::rollback;
use vgship_base::folder::Folder;
use vgship_snapshot::overlay;

use super::World;
use super::past::{Environment, HOLDER};
use super::replica::{Ended, stopped};

impl World {
    /// A replica has started: what an earlier life did not finish goes, the rest is opened.
    pub(super) fn open_environments(&mut self, index: usize) {
        let done = self.forget_unfinished(index).and_then(|()| {
            for which in (0..self.replicas[index].past.environments.len()).rev() {
                self.open_environment(index, which)?;
            }
            Ok(())
        });
        if let Err(ended) = done {
            self.ended(index, &ended);
        }
    }

    fn open_environment(&mut self, index: usize, which: usize) -> Result<(), Ended> {
        let past = &self.replicas[index].past;
        let environment = &past.environments[which];
        if environment.clones.is_empty() {
            let clones = environment.open(past).map_err(|error| stopped(&error))?;
            let environment = &mut self.replicas[index].past.environments[which];
            (environment.clones, environment.doubtful) = (clones, true);
        } else {
            self.coverage.hit("environment outlived the replica's life");
            if !environment.doubtful {
                return self.check_environment(index, which, "after the replica's start");
            }
        }
        match self.read_environment(index, which)? {
            Some(found) => {
                self.found(index, which, &found, "after a crash");
                self.coverage.hit("I8 checked: an environment after a crash");
                Ok(())
            }
            None => self.destroy_environment(index, which),
        }
    }

    /// Files and holds of environments that were never made, or were being destroyed.
    fn forget_unfinished(&mut self, index: usize) -> Result<(), Ended> {
        let set = self.set(index);
        let past = &self.replicas[index].past;
        let known: Vec<String> = past.environments.iter().flat_map(Environment::stems).collect();
        let names = past.folder.list().map_err(|error| stopped(&error))?;
        for name in names {
            let stem = name.trim_end_matches(".new").rsplit_once('.').map_or("", |it| it.0);
            if !known.iter().any(|it| it == stem) {
                overlay::remove(&past.folder, stem).map_err(|error| stopped(&error))?;
                self.coverage.hit("an environment half made was removed");
            }
        }
        for listed in set.list_costs().map_err(|error| stopped(&error))? {
            for holder in listed.holders {
                let Some(name) = holder.strip_prefix(HOLDER) else {
                    assert_eq!(holder, rollback::HOLDER, "nobody else holds a snapshot");
                    continue;
                };
                if !past.environments.iter().any(|it| it.name == name) {
                    let released = set.release(listed.snapshot.seq, &holder);
                    released.map_err(|error| stopped(&error))?;
                    self.coverage.hit("a hold without an environment was released");
                }
            }
        }
        Ok(())
    }
}
