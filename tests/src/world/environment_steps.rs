//! Steps of environments: made of any point, written, flushed, opened again, destroyed; compared
//! with what they must hold (I8).

use std::io;
use std::sync::Arc;

use vgship::history::keeping;
use vgship::history::roll::{RollError, point_of, roll};
use vgship_base::disk::Disk;
use vgship_base::ids::Seq;
use vgship_snapshot::overlay;
use vgship_snapshot::set::{Snapshot, SnapshotSet};

use super::model::Images;
use super::past::{Content, Environment, HOLDER};
use super::replica::{Ended, stopped};
use super::replica_steps::volume_refuses;
use super::{World, id_of};

/// Environments that a replica has at most.
const MOST: usize = 4;

impl World {
    /// Something happens to some environment.
    pub(super) fn environment_step(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let count = self.replicas[index].past.environments.len();
        if count == 0 || (count < MOST && self.rng.one_in(10)) {
            return self.make_environment(index);
        }
        let which = self.rng.index(count);
        let done = match self.rng.below(24) {
            0 => self.destroy_environment(index, which),
            1..=3 => self.flush_environment(index, which),
            4 | 5 => self.check_environment(index, which, "while it is used"),
            6 => self.reopen_environment(index, which),
            _ => self.write_environment(index, which),
        };
        if let Err(ended) = done {
            self.ended(index, &ended);
        }
    }

    /// An environment of some point.
    fn make_environment(&mut self, index: usize) {
        let set = self.set(index);
        let all = match set.points() {
            Ok(all) => all,
            Err(error) => return self.ended(index, &stopped(&error)),
        };
        let settled: Vec<Snapshot> = all.into_iter().filter(|it| set.is_settled(it)).collect();
        if settled.is_empty() {
            return;
        }
        let mut base = settled[self.rng.index(settled.len())].clone();
        let mut wanted = base.point;
        if self.rng.one_in(2)
            && let Some(point) = self.some_record(index, wanted)
        {
            wanted = point;
            base = keeping::base_of(&settled, wanted).expect("one is before it").clone();
        }
        let name = self.fresh_name("e");
        if let Err(ended) = self.make_of(index, &set, &base, wanted, &name) {
            self.ended(index, &ended);
        }
    }

    /// The seq of some record behind `from` that was applied; `None` when the journal does not reach
    /// back, or is not to be trusted.
    pub(super) fn some_record(&mut self, index: usize, from: Seq) -> Option<Seq> {
        let host = &self.replicas[index];
        let life = host.life.as_ref()?;
        if host.decayed || life.journal.first_after() > from {
            return None;
        }
        let batches = life.journal.replay(from).map_while(Result::ok);
        let seqs = batches.flat_map(|batch| batch.into_iter().map(|record| record.seq));
        let seqs: Vec<Seq> = seqs.take_while(|seq| *seq <= life.applied.seq).collect();
        (!seqs.is_empty()).then(|| seqs[self.rng.index(seqs.len())])
    }

    /// Makes an environment as the agent does: its snapshot is held first, and nobody knows of it
    /// before it is whole.
    ///
    /// # Errors
    /// The snapshots' store failed.
    pub(super) fn make_of(
        &mut self,
        index: usize,
        set: &Arc<SnapshotSet>,
        base: &Snapshot,
        wanted: Seq,
        name: &str,
    ) -> Result<(), Ended> {
        set.hold(base.name.as_str(), &format!("{HOLDER}{name}")).map_err(|it| stopped(&it))?;
        let past = &self.replicas[index].past;
        let before = self.astray(index);
        let made = Environment::create(past, name.to_owned(), base.seq, &self.layout);
        let made = made.map_err(|error| stopped(&error)).and_then(|environment| {
            let rolled = self.roll_clones(index, base, wanted, &environment)?;
            Ok(rolled.then_some(environment))
        });
        let whole = made.and_then(|made| {
            let Some(mut environment) = made else { return Ok(None) };
            let images = environment.read().and_then(|images| {
                environment.flush()?;
                Ok(images)
            });
            environment.made(images.map_err(|error| stopped(&error))?);
            Ok(Some(environment))
        });
        let astray = self.astray(index) != before;
        match whole {
            Ok(Some(environment)) if !astray => {
                self.check_new_environment(index, base, wanted, &environment);
                self.replicas[index].past.environments.push(environment);
                Ok(())
            }
            Ok(_) => self.abandon(index, set, base.seq, name),
            Err(Ended::Stopped(text)) => {
                if self.replicas[index].power.is_off() {
                    return Ok(());
                }
                assert!(volume_refuses(&text), "environment {name}: {text}");
                self.coverage.hit("environment could not be made: a volume cannot be read");
                self.abandon(index, set, base.seq, name)
            }
        }
    }

    /// Brings clones of a snapshot to a point; whether anything is consistent there.
    fn roll_clones(
        &self,
        index: usize,
        base: &Snapshot,
        wanted: Seq,
        environment: &Environment,
    ) -> Result<bool, Ended> {
        if wanted == base.point {
            return Ok(true);
        }
        let life = self.replicas[index].life.as_ref().expect("it is up");
        let records = life.journal.replay(base.point);
        let rolled = roll(&self.layout, environment.disks(), point_of(base), wanted, records);
        match rolled {
            Ok(point) => {
                assert_eq!(point.seq, wanted, "a point is where it was asked for");
                Ok(true)
            }
            Err(RollError::Inside { .. }) => Ok(false),
            Err(error) => Err(stopped(&error)),
        }
    }

    /// I5: what was made of a point is the source's history there.
    fn check_new_environment(
        &mut self,
        index: usize,
        base: &Snapshot,
        wanted: Seq,
        environment: &Environment,
    ) {
        self.coverage.hit(match wanted == base.point {
            true => "environment made of a snapshot",
            false => "environment made of a point in time",
        });
        let all = &self.replicas[index].past.environments;
        if all.iter().any(|other| other.base == base.seq) {
            self.coverage.hit("several environments of one snapshot");
        }
        let host = &self.replicas[index];
        if host.spoiled || host.decayed || !matches!(host.expected.get(&base.seq), Some(Some(_))) {
            return;
        }
        let Ok(found) = environment.read() else { return };
        let expected = self.model.expected(id_of(index), wanted).clone();
        let places = self.untainted(index, &found, &expected);
        assert!(
            places.is_empty(),
            "I5: {} of replica {index} at {wanted}, from {}, differs in {places:?}",
            environment.name,
            base.name
        );
        self.coverage.hit("I5 checked: an environment");
    }

    /// What was made of an environment that is none goes again.
    fn abandon(
        &mut self,
        index: usize,
        set: &Arc<SnapshotSet>,
        base: Seq,
        name: &str,
    ) -> Result<(), Ended> {
        for volume in self.layout.ids() {
            let stem = format!("{name}.{}", volume.0);
            overlay::remove(&self.replicas[index].past.folder, &stem)
                .map_err(|error| stopped(&error))?;
        }
        set.release(base, &format!("{HOLDER}{name}")).map_err(|error| stopped(&error))
    }

    pub(super) fn destroy_environment(&mut self, index: usize, which: usize) -> Result<(), Ended> {
        let gone = self.replicas[index].past.environments.remove(which);
        self.coverage.hit("environment destroyed");
        let (base, name) = (gone.base, gone.name.clone());
        drop(gone);
        let set = self.set(index);
        self.abandon(index, &set, base, &name)
    }

    fn flush_environment(&mut self, index: usize, which: usize) -> Result<(), Ended> {
        let environment = &mut self.replicas[index].past.environments[which];
        environment.flush().map_err(|error| stopped(&error))?;
        environment.contents.iter_mut().for_each(Content::flushed);
        self.coverage.hit("environment flushed");
        Ok(())
    }

    /// Something is written into an environment, or zeroed.
    fn write_environment(&mut self, index: usize, which: usize) -> Result<(), Ended> {
        let fill = 1 + self.tags.to_be_bytes()[7] % 255;
        self.tags += 1;
        let environment = &self.replicas[index].past.environments[which];
        if environment.clones.is_empty() {
            return Ok(());
        }
        let volume = self.rng.index(environment.clones.len());
        let clone = Arc::clone(&environment.clones[volume]);
        let (offset, len) = self.some_run(clone.len());
        let zero = self.rng.one_in(4);
        let before = self.astray(index);
        let data = vec![if zero { 0 } else { fill }; usize::try_from(len).expect("small")];
        let done = match zero {
            true => clone.zero_at(offset, len),
            false => clone.write_at(offset, &data),
        };
        let environment = &mut self.replicas[index].past.environments[which];
        let at = usize::try_from(offset).expect("small");
        environment.contents[volume].change(at, &data, done.is_ok());
        environment.doubtful |= done.is_err();
        if self.astray(index) != before {
            // What it took over from its base was not what it asked for.
            return self.destroy_environment(index, which);
        }
        self.coverage.hit("environment written");
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.write_failed(index, which, &error),
        }
    }

    /// A run of any place and length, often of whole blocks.
    fn some_run(&mut self, bytes: u64) -> (u64, u64) {
        let (mut offset, most) = (self.rng.below(bytes), [1, 700, 4096, 12_288][self.rng.index(4)]);
        if self.rng.one_in(3) {
            offset -= offset % overlay::BLOCK;
        }
        (offset, (1 + self.rng.below(most)).min(bytes - offset))
    }

    /// A write that failed may have changed any of its bytes, and nothing else.
    fn write_failed(&mut self, index: usize, which: usize, error: &io::Error) -> Result<(), Ended> {
        if self.replicas[index].power.is_off() {
            return Ok(());
        }
        let text = format!("{error:?}");
        assert!(volume_refuses(&text), "a clone refuses a write: {text}");
        self.coverage.hit("environment: a write failed");
        match self.read_environment(index, which)? {
            Some(found) => {
                self.found(index, which, &found, "after a write that failed");
                Ok(())
            }
            None => self.destroy_environment(index, which),
        }
    }

    fn reopen_environment(&mut self, index: usize, which: usize) -> Result<(), Ended> {
        let past = &mut self.replicas[index].past;
        past.environments[which].clones.clear();
        past.environments[which].doubtful = true;
        past.environments[which].clones =
            past.environments[which].open(past).map_err(|error| stopped(&error))?;
        match self.read_environment(index, which)? {
            Some(found) => {
                self.found(index, which, &found, "opened again");
                Ok(())
            }
            None => self.destroy_environment(index, which),
        }
    }

    /// All that an environment shows; `None` when some disk read what was not asked for.
    pub(super) fn read_environment(
        &mut self,
        index: usize,
        which: usize,
    ) -> Result<Option<Images>, Ended> {
        let before = self.astray(index);
        let environment = &self.replicas[index].past.environments[which];
        let images = environment.read().map_err(|error| stopped(&error))?;
        Ok((self.astray(index) == before).then_some(images))
    }

    /// Compares an environment with what was found in it, where not all is known.
    pub(super) fn found(&mut self, index: usize, which: usize, found: &Images, when: &str) {
        let environment = &mut self.replicas[index].past.environments[which];
        let cut = std::mem::take(&mut environment.cut);
        environment.doubtful = false;
        let pairs = environment.contents.iter_mut().zip(found).enumerate();
        let odd = pairs.map(|(volume, (content, found))| (volume, content.found(found, cut)));
        let odd: Vec<(usize, Vec<usize>)> = odd.collect();
        self.expect_none(index, which, &odd, when);
    }

    /// I8: an environment holds what its point held and what was written into it, and nothing else.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn check_environment(
        &mut self,
        index: usize,
        which: usize,
        when: &str,
    ) -> Result<(), Ended> {
        if self.replicas[index].past.environments[which].clones.is_empty() {
            return Ok(());
        }
        let Some(found) = self.read_environment(index, which)? else { return Ok(()) };
        let environment = &self.replicas[index].past.environments[which];
        let pairs = environment.contents.iter().zip(&found).enumerate();
        let odd: Vec<(usize, Vec<usize>)> =
            pairs.map(|(volume, (content, found))| (volume, content.differs(found))).collect();
        self.expect_none(index, which, &odd, when);
        self.coverage.hit("I8 checked: an environment");
        let base = self.replicas[index].past.environments[which].base;
        let all = self.set(index).list().map_err(|error| stopped(&error))?;
        assert!(
            all.iter().any(|it| it.seq == base),
            "replica {index} has lost the snapshot at {base}, which an environment builds on"
        );
        Ok(())
    }

    /// Sectors that differ lie where something was written past all order.
    fn expect_none(&self, index: usize, which: usize, odd: &[(usize, Vec<usize>)], when: &str) {
        let (host, size) = (&self.replicas[index], self.layout.extent.bytes());
        let stray = |volume: usize, sector: usize| {
            let id = self.layout.ids().nth(volume).expect("it is a volume's number");
            host.strays.contains(&(id, sector as u64 * 512 / size))
        };
        for (volume, sectors) in odd {
            let own = sectors.iter().filter(|&&sector| !stray(*volume, sector));
            let own: Vec<_> = own.collect();
            assert!(
                own.is_empty(),
                "I8: {} of replica {index} {when} differs on volume {volume} in sectors {own:?}",
                host.past.environments[which].name
            );
        }
    }
}
