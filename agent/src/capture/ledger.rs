//! The ledger: the source's durable memory. One file at a time; marks are appended to it, a
//! checkpoint begins a new one.

use std::io;

use vgship_base::bytes::FormatError;
use vgship_base::disk::Disk;
use vgship_base::folder::{self, SharedFolder};
use vgship_base::layout::Layout;
use vgship_base::units::SECTOR;

use super::activity::Region;
use super::ledger_format::{
    LEDGER_BYTES_MAX, LedgerState, MARK_REGIONS_MAX, decode_mark, encode_mark,
};

const PREFIX: &str = "ledger-";
/// Its presence says that marks could not be written: everything is in doubt.
const DOUBT: &str = "in-doubt";
/// An empty file that becomes [`DOUBT`]: a full disk may have no room for a new name.
const SPARE: &str = "in-doubt.spare";

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The disk refused.
    #[error("cannot {action} the source's ledger {name}")]
    Io {
        /// A verb: read, write, append to, remove.
        action: &'static str,
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The newest ledger is damaged, which no power cut does: what was in doubt is not known, and
    /// an older one that may still be there would be believed wrongly (R11).
    #[error("the source's ledger {name} is damaged; every replica needs a full resync")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A checkpoint failed: marks must not go to a file that may have been replaced.
    #[error("the source's ledger takes no marks since a checkpoint failed")]
    Poisoned,
}

/// The ledger's open file.
pub struct Ledger {
    folder: SharedFolder,
    number: u64,
    open: Option<Open>,
}

struct Open {
    file: Box<dyn Disk>,
    end: u64,
}

impl Ledger {
    /// Reads the newest ledger in `folder`: its state with all later marks in it. Volumes may have
    /// grown since; what they gained is dirty. `None` when there has never been one. When marks
    /// could not be written in the life before, everything is dirty.
    ///
    /// Order: marks are taken only after the first [`Ledger::checkpoint`] of this life.
    pub fn load(
        folder: SharedFolder,
        layout: &Layout,
    ) -> Result<(Ledger, Option<LedgerState>), LedgerError> {
        let io = |name: &str, source| LedgerError::Io { action: "read", name: name.into(), source };
        let names = folder.list().map_err(|source| io("folder", source))?;
        let numbers = names.iter().filter_map(|name| number_of(name));
        let newest = numbers.max();
        let ledger = Ledger { folder, number: newest.unwrap_or(0), open: None };
        let Some(name) = newest.map(name_of) else { return Ok((ledger, None)) };
        match ledger.read(&name, layout).map_err(|source| io(&name, source))? {
            Ok(mut state) => {
                if names.iter().any(|name| name == DOUBT) {
                    state.clean = false;
                    let maps = state.replicas.iter_mut().flat_map(|known| &mut known.dirty);
                    maps.for_each(|map| map.insert_range(0, map.bits()));
                }
                Ok((ledger, Some(state)))
            }
            Err(source) => Err(LedgerError::Damaged { name, source }),
        }
    }

    fn read(&self, name: &str, layout: &Layout) -> io::Result<Result<LedgerState, FormatError>> {
        let file = self.folder.open(name)?;
        if file.len() > LEDGER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 1 GiB"));
        }
        let mut bytes = vec![0; usize::try_from(file.len()).map_err(io::Error::other)?];
        file.read_at(0, &mut bytes)?;
        let head = LedgerState::claimed_len(&bytes)
            .and_then(|len| Ok((len, LedgerState::decode(&bytes[..len], layout)?)));
        let (len, mut state) = match head {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let sector = usize::try_from(SECTOR).map_err(io::Error::other)?;
        let rest = bytes.get(len.next_multiple_of(sector)..).unwrap_or_default();
        for mark in rest.chunks(sector).map_while(|mark| decode_mark(mark).ok()) {
            state.marked.extend(mark);
        }
        state.marked.sort_unstable();
        state.marked.dedup();
        Ok(Ok(state))
    }

    /// Begins a new file with this state and removes the earlier ones.
    ///
    /// Durable: the state, once this has returned. After an error the ledger takes no marks until
    /// a checkpoint succeeds; which state a crash finds is the old or the new one.
    pub fn checkpoint(&mut self, state: &LedgerState) -> Result<(), LedgerError> {
        self.open = None;
        let last = name_of(self.number);
        let none_left = |source| LedgerError::Io { action: "continue", name: last, source };
        self.number = folder::number_after(Some(self.number)).map_err(none_left)?;
        let name = name_of(self.number);
        let failed = |action| {
            let name = name.clone();
            move |source| LedgerError::Io { action, name, source }
        };
        let bytes = state.encode();
        let end = (bytes.len() as u64).next_multiple_of(SECTOR);
        // It gets its name only when it is whole: so one that is not whole was damaged, never torn.
        let fresh = format!("{name}.new");
        match self.folder.remove(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove the remains of")(error));
            }
            _ => {}
        }
        let file = self.folder.create(&fresh).map_err(failed("create"))?;
        file.write_at(0, &bytes).map_err(failed("write"))?;
        file.flush().map_err(failed("flush"))?;
        self.folder.rename(&fresh, &name).map_err(failed("publish"))?;
        self.folder.sync().map_err(failed("name"))?;
        let names = self.folder.list().map_err(failed("list"))?;
        let old = |name: &&String| number_of(name).is_some_and(|number| number < self.number);
        for name in names.iter().filter(old) {
            self.folder.remove(name).map_err(failed("remove what precedes"))?;
        }
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        if has(DOUBT) {
            // Durably: else a power cut brings it back, and everything is compared for nothing.
            let cleared = self.folder.rename(DOUBT, SPARE).and_then(|()| self.folder.sync());
            cleared.map_err(failed("clear the doubt before"))?;
        } else if !has(SPARE) {
            self.folder.create(SPARE).map_err(failed("make a spare name for"))?;
        }
        self.open = Some(Open { file, end });
        Ok(())
    }

    /// Notes that writes go on without marks, with nothing but a name, which needs no room on the
    /// disk. The next checkpoint that succeeds takes it back; a crash before that finds everything
    /// dirty.
    ///
    /// Durable: once this has returned.
    pub fn doubt(&mut self) -> Result<(), LedgerError> {
        self.open = None;
        let created = match self.folder.rename(SPARE, DOUBT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folder.create(DOUBT).map(drop)
            }
            renamed => renamed,
        };
        let created = match created {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.folder.sync(),
        };
        created.map_err(|source| LedgerError::Io { action: "create", name: DOUBT.into(), source })
    }

    /// Marks regions.
    ///
    /// Durable: the marks, once this has returned.
    pub fn mark(&mut self, regions: &[Region]) -> Result<(), LedgerError> {
        let name = name_of(self.number);
        let Some(open) = self.open.as_mut() else { return Err(LedgerError::Poisoned) };
        let sectors: Vec<u8> = regions.chunks(MARK_REGIONS_MAX).flat_map(encode_mark).collect();
        let written = open.file.write_at(open.end, &sectors).and_then(|()| open.file.flush());
        match written {
            Ok(()) => {
                open.end += sectors.len() as u64;
                Ok(())
            }
            Err(source) => {
                self.open = None;
                Err(LedgerError::Io { action: "append to", name, source })
            }
        }
    }
}

fn name_of(number: u64) -> String {
    format!("{PREFIX}{}", folder::digits_of(number))
}

fn number_of(name: &str) -> Option<u64> {
    folder::number_of(name.strip_prefix(PREFIX)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vgship_base::extent::{BitSet, ExtentSize};
    use vgship_base::folder::Folder;
    use vgship_base::ids::{Generation, GroupId, PeerId, Seq, Start, VolumeId};
    use vgship_base::layout::VolumeLayout;
    use vgship_base::sim::{Power, Rng, SimFolder};

    use super::super::ledger_format::ReplicaState;
    use super::*;

    fn state(start: u16, marked: Vec<Region>) -> LedgerState {
        LedgerState {
            group: GroupId([1; 16]),
            generation: Generation([2; 16]),
            lineage: vec![],
            start: Start(start),
            clean: false,
            volumes: vec![],
            replicas: vec![],
            marked,
        }
    }

    fn volumes(sizes: &[u64]) -> Layout {
        let volume = |&bytes: &u64| VolumeLayout { name: "lv".parse().unwrap(), bytes, masked: 0 };
        let extent = ExtentSize::from_log2(12).unwrap();
        Layout { extent, volumes: sizes.iter().map(volume).collect() }
    }

    fn region(index: u64) -> Region {
        Region { volume: VolumeId(0), index }
    }

    /// Goal: a mark or state that was promised is found after a power cut at any step, and none
    /// is found that was never given.
    /// Method: checkpoints and marks in turn, the power failing after each possible number of
    /// operations, for many seeds.
    #[test]
    fn what_was_promised_survives_every_power_cut() {
        for (seed, steps) in (0..40).flat_map(|seed| (1..40).map(move |steps| (seed, steps))) {
            let (power, mut rng) = (Power::default(), Rng::new(seed * 1000 + u64::from(steps)));
            let folder = SimFolder::new(&power);
            let (mut ledger, none) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
            assert_eq!(none, None);
            ledger.checkpoint(&state(1, vec![])).unwrap();
            power.fail_after(steps);
            let (mut start, mut promised) = (1, 0);
            for round in 1..10 {
                if ledger.mark(&[region(round)]).is_ok() {
                    promised = round;
                }
                let marks = (1..=promised).map(region).collect();
                if round % 3 == 0 && ledger.checkpoint(&state(start + 1, marks)).is_ok() {
                    start += 1;
                }
            }
            power.restore();
            folder.power_cut(&mut rng);
            let (_, found) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
            let found = found.expect("the first checkpoint was promised");
            assert!(found.start.0 >= start && found.start.0 <= start + 1, "seed {seed} {steps}");
            for index in 1..=promised {
                assert!(found.marked.contains(&region(index)), "seed {seed} {steps}: {index}");
            }
            assert!(found.marked.iter().all(|found| found.index < 10), "seed {seed} {steps}");
        }
    }

    #[test]
    fn a_region_marked_twice_is_one() {
        let folder: SharedFolder = Arc::new(SimFolder::new(&Power::default()));
        let (mut ledger, _) = Ledger::load(Arc::clone(&folder), &volumes(&[])).unwrap();
        ledger.checkpoint(&state(1, vec![region(3)])).unwrap();
        for regions in [&[region(3)][..], &[region(2), region(3)]] {
            ledger.mark(regions).unwrap();
        }
        let (_, found) = Ledger::load(folder, &volumes(&[])).unwrap();
        assert_eq!(found.unwrap().marked, [region(2), region(3)]);
    }

    #[test]
    fn what_could_not_be_marked_makes_everything_dirty_until_a_checkpoint() {
        let power = Power::default();
        let folder: SharedFolder = Arc::new(SimFolder::new(&power));
        let (mut ledger, _) = Ledger::load(Arc::clone(&folder), &volumes(&[4 << 12])).unwrap();
        let dirty = vec![BitSet::new(4)];
        let replica = ReplicaState {
            peer: PeerId([1; 32]),
            met: Start(1),
            acked: Seq(1),
            whole: true,
            dirty,
        };
        let (replicas, sizes) = (vec![replica], vec![4 << 12]);
        let state = LedgerState { replicas, volumes: sizes, clean: true, ..state(1, vec![]) };
        ledger.checkpoint(&state).unwrap();
        ledger.doubt().unwrap();
        let refused = ledger.mark(&[region(1)]);
        assert!(matches!(refused, Err(LedgerError::Poisoned)), "doubt covers what is not marked");
        ledger.doubt().expect("once is enough");
        let (mut ledger, found) = Ledger::load(Arc::clone(&folder), &volumes(&[4 << 12])).unwrap();
        let found = found.unwrap();
        assert_eq!((found.clean, found.replicas[0].dirty[0].count()), (false, 4));
        ledger.checkpoint(&state).unwrap();
        let (_, found) = Ledger::load(folder, &volumes(&[4 << 12])).unwrap();
        assert_eq!(found.unwrap().replicas[0].dirty[0].count(), 0);
    }

    /// Goal: when the disk is full, neither marks nor the note that they are missing get lost.
    /// Method: a disk with any number of bytes free, down to none.
    #[test]
    fn on_a_full_disk_the_doubt_is_noted_and_taken_back_when_there_is_room() {
        for spare in (0..1200).step_by(50) {
            let disk = SimFolder::new(&Power::default());
            let folder: SharedFolder = Arc::new(disk.clone());
            let (mut ledger, _) = Ledger::load(Arc::clone(&folder), &volumes(&[4 << 12])).unwrap();
            let dirty = vec![BitSet::new(4)];
            let (peer, met, acked) = (PeerId([1; 32]), Start(1), Seq(1));
            let replicas = vec![ReplicaState { peer, met, acked, whole: true, dirty }];
            let state = LedgerState { replicas, volumes: vec![4 << 12], ..state(1, vec![]) };
            ledger.checkpoint(&state).unwrap();
            for _ in 0..2 {
                disk.set_capacity(Some(disk.used() + spare));
                let marked = ledger.mark(&[region(1)]);
                if marked.is_err() {
                    ledger.doubt().unwrap();
                    ledger.doubt().unwrap(); // by another who could not mark
                    assert!(ledger.checkpoint(&state).is_err(), "{spare} bytes free");
                }
                // A mark takes a sector, behind the end of the last.
                let fits = [spare >= 1024, spare >= 512];
                assert!(fits.contains(&marked.is_ok()), "{spare} bytes free");
                disk.power_cut(&mut Rng::new(spare));
                let (found, stored) =
                    Ledger::load(Arc::clone(&folder), &volumes(&[4 << 12])).unwrap();
                let stored = stored.unwrap();
                let known = stored.replicas[0].dirty[0].count() == 4;
                assert!(known || stored.marked == [region(1)], "{spare} bytes free");
                ledger = found;
                disk.set_capacity(None);
                ledger.checkpoint(&state).unwrap();
            }
        }
    }

    #[test]
    fn a_doubt_that_could_not_be_noted_is_an_error() {
        let power = Power::default();
        let folder: SharedFolder = Arc::new(SimFolder::new(&power));
        let (mut ledger, _) = Ledger::load(folder, &volumes(&[])).unwrap();
        power.fail_after(0);
        assert!(matches!(ledger.doubt(), Err(LedgerError::Io { action: "create", .. })));
    }

    #[test]
    fn the_very_first_ledger_is_there_or_not_but_never_torn() {
        for (seed, steps) in (0..20).flat_map(|seed| (1..8).map(move |steps| (seed, steps))) {
            let (power, mut rng) = (Power::default(), Rng::new(seed * 100 + u64::from(steps)));
            let folder = SimFolder::new(&power);
            let (mut ledger, _) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
            power.fail_after(steps);
            let done = ledger.checkpoint(&state(1, vec![])).is_ok();
            power.restore();
            folder.power_cut(&mut rng);
            let (_, found) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
            assert!(found.is_some() || !done, "seed {seed} {steps}");
        }
    }

    #[test]
    fn a_damaged_ledger_is_reported_and_no_older_one_is_believed() {
        let folder = SimFolder::new(&Power::default());
        let (mut ledger, _) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
        ledger.checkpoint(&state(1, vec![])).unwrap();
        let old = folder.file(&name_of(1)).unwrap().live();
        ledger.checkpoint(&state(2, vec![])).unwrap();
        folder.create(&name_of(1)).unwrap().write_at(0, &old).unwrap();
        folder.file(&name_of(2)).unwrap().decay(20, 1);
        let found = Ledger::load(Arc::new(folder), &volumes(&[]));
        assert!(matches!(found, Err(LedgerError::Damaged { .. })));
    }

    #[test]
    fn after_a_failed_checkpoint_no_mark_is_promised() {
        let power = Power::default();
        let folder = SimFolder::new(&power);
        let (mut ledger, _) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
        ledger.checkpoint(&state(1, vec![])).unwrap();
        power.fail_after(2);
        assert!(ledger.checkpoint(&state(2, vec![])).is_err());
        power.restore();
        assert!(matches!(ledger.mark(&[region(1)]), Err(LedgerError::Poisoned)));
        ledger.checkpoint(&state(2, vec![])).unwrap();
        ledger.mark(&[region(1)]).unwrap();
    }

    #[test]
    fn a_ledger_of_the_last_number_is_not_continued() {
        let folder = SimFolder::new(&Power::default());
        let (mut ledger, _) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
        ledger.checkpoint(&state(1, vec![])).unwrap();
        folder.rename(&name_of(1), &name_of(u64::MAX)).unwrap();
        let (mut ledger, found) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
        assert_eq!(found, Some(state(1, vec![])));
        assert!(ledger.checkpoint(&state(2, vec![])).is_err());
        let mut ledgers = folder.list().unwrap();
        ledgers.retain(|name| name.starts_with("ledger-"));
        assert_eq!(ledgers, [name_of(u64::MAX)]);
    }

    #[test]
    fn a_doubt_that_was_taken_back_stays_away() {
        for seed in 0..20 {
            let folder = SimFolder::new(&Power::default());
            let (mut ledger, _) = Ledger::load(Arc::new(folder.clone()), &volumes(&[])).unwrap();
            ledger.checkpoint(&state(1, vec![])).unwrap();
            ledger.doubt().unwrap();
            ledger.checkpoint(&state(2, vec![])).unwrap();
            folder.power_cut(&mut Rng::new(seed));
            let names = folder.list().unwrap();
            assert!(!names.iter().any(|name| name == DOUBT), "seed {seed}: {names:?}");
        }
    }
}
