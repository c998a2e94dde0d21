//! Crashes at every step, over many seeds.

use std::sync::Arc;

use vgship_base::folder::Folder;
use vgship_base::ids::Seq;
use vgship_base::record::Record;
use vgship_base::sim::{Power, Rng, SimFolder};

use super::tests::{GROUP, key, recover, write};
use super::{Journal, JournalError, Recovered};

/// What the world outside knows of the journal.
#[derive(Default)]
struct Model {
    power: Power,
    /// All that may be found, by seq from 1.
    records: Vec<Record>,
    acked: u64,
    checkpoint: u64,
    life: u8,
}

impl Model {
    fn appended(&self) -> u64 {
        self.records.len() as u64
    }

    fn open(&self, folder: &SimFolder) -> Result<(Journal, Recovered), JournalError> {
        Journal::recover(Arc::new(folder.clone()), key(), GROUP, Seq(self.checkpoint))
    }

    /// Appends, flushes and trims until something fails or the life is over.
    fn live(&mut self, folder: &SimFolder, rng: &mut Rng, steps: u32) -> Result<(), JournalError> {
        let (mut journal, found) = self.open(folder)?;
        self.accept(&journal, found);
        self.life += 1;
        journal.set_segment_bytes(12 << 10);
        for _ in 0..steps {
            match rng.below(6) {
                0 | 1 => {
                    journal.flush()?;
                    self.acked = self.appended();
                    if rng.one_in(2) {
                        journal.promise()?;
                    }
                }
                2 => {
                    self.checkpoint += rng.below(self.acked - self.checkpoint + 1);
                    journal.trim(Seq(self.checkpoint))?;
                }
                _ => {
                    let first = self.appended() + 1;
                    let end = first + 1 + rng.below(3);
                    let record = |seq| write(seq, self.life, 10 + rng.index(1500));
                    let fresh: Vec<Record> = (first..end).map(record).collect();
                    self.records.extend_from_slice(&fresh);
                    journal.append(&fresh, Seq(self.acked))?;
                }
            }
        }
        Ok(())
    }

    /// Compares what was recovered with what is known; from here on that is the history.
    fn accept(&mut self, journal: &Journal, found: Recovered) {
        assert_eq!(found.damage, None);
        assert!(found.last.0 >= self.acked, "{} acked, {} found", self.acked, found.last.0);
        assert!(found.last.0 <= self.appended(), "{} appended", self.appended());
        let (from, to) = (self.checkpoint, found.last.0);
        let expected = &self.records[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
        match journal.replay(Seq(from)).collect::<Result<Vec<_>, _>>() {
            Ok(batches) => assert_eq!(batches.concat(), expected),
            Err(error) => assert!(self.power.is_off(), "{error:?}"),
        }
        self.records.truncate(usize::try_from(to).unwrap());
        self.acked = to; // what recovery reports is durable
    }
}

/// A crash: mostly of the machine, sometimes of the program alone, so that the cache survives.
fn crash(folder: &SimFolder, power: &Power, rng: &mut Rng) {
    if !rng.one_in(4) {
        folder.power_cut(rng);
    }
    power.restore();
}

/// Goal: what was acknowledged is never lost, nothing is invented, order is kept.
/// Method: for each seed, a life is ended after every possible number of operations of its disks;
/// recovery, too, is ended twice somewhere on its way; then another life goes on.
#[test]
fn what_was_flushed_survives_a_crash_at_any_step() {
    let mut crashes = 0;
    for seed in 0..200 {
        for operations in 1.. {
            let mut rng = Rng::new(seed);
            let mut model = Model::default();
            let power = model.power.clone();
            let folder = SimFolder::new(&power);
            power.fail_after(operations);
            let done = model.live(&folder, &mut rng, 24).is_ok();
            let mut rng = Rng::new(seed * 1000 + u64::from(operations));
            crash(&folder, &power, &mut rng);
            crashes += 1;
            for _ in 0..2 {
                power.fail_after(1 + u32::try_from(rng.below(30)).unwrap());
                if let Ok((journal, found)) = model.open(&folder) {
                    power.restore();
                    model.accept(&journal, found);
                }
                crash(&folder, &power, &mut rng);
            }
            model.live(&folder, &mut rng, 8).unwrap();
            crash(&folder, &power, &mut rng);
            let (journal, found) = model.open(&folder).unwrap();
            model.accept(&journal, found);
            let names = folder.list().unwrap();
            assert_eq!(names.len(), journal.segments(), "nothing is left over: {names:?}");
            if done {
                break;
            }
        }
    }
    assert!(crashes > 200 * 20, "{crashes} crashes");
}

/// Goal: a flush that failed never turns into a promise, though the cache still shows the records.
/// Method: flushes fail at random; the journal is recovered in the same life; then power fails.
#[test]
fn what_a_failed_flush_left_is_written_anew() {
    let mut lost = 0;
    for seed in 0..200 {
        let (mut rng, mut model) = (Rng::new(seed), Model::default());
        let folder = SimFolder::new(&model.power);
        model.live(&folder, &mut rng, 10).unwrap();
        let newest = folder.list().unwrap().pop().unwrap();
        folder.file(&newest).unwrap().fail_flushes(1);
        // What the last life left unflushed is now in the cache alone.
        assert!(folder.open(&newest).unwrap().flush().is_err());
        let (journal, found) = recover(&folder, model.checkpoint);
        model.accept(&journal, found);
        drop(journal);
        folder.power_cut(&mut rng);
        let (journal, found) = recover(&folder, model.checkpoint);
        lost += u32::from(found.last.0 < model.acked);
        model.accept(&journal, found);
    }
    assert_eq!(lost, 0);
}
