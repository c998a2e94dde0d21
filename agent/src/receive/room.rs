//! Whether the journal may grow: a replica whose disk fills up stops reading from its link before
//! it has to give up, so that the source's outbox takes what comes. Recovery needs room too, which
//! is therefore left free.

use vgship_base::limits::JOURNAL_RESERVE;
use vgship_base::record::Record;

use crate::segment;

/// What sealing adds to the records of a frame at most, with the space up to the next. Unit: bytes.
const FRAME_BYTES: u64 = 1024;

/// A segment that has to be begun meanwhile, and what a flush leaves empty. Unit: bytes.
pub(super) const SEGMENT_BYTES: u64 = 16 << 10;

/// What is known when records are to be journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Unit: bytes.
    pub(super) free: u64,
    /// What the records take. Unit: bytes.
    pub(super) wanted: u64,
    /// The journal's last segment has records, and the volumes hold all of them.
    pub(super) settled: bool,
}

/// What to do with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Journal them.
    Enough,
    /// Begin a new segment first: that gives the last one's room back.
    Rotate,
    /// Wait, and trim as the volumes take records, until so much is free. Unit: bytes.
    Wait {
        /// With the reserve.
        needed: u64,
    },
}

impl Disk {
    pub(super) fn room(self) -> Room {
        let needed = self.wanted.saturating_add(JOURNAL_RESERVE);
        if self.free >= needed {
            Room::Enough
        } else if self.settled && self.free >= SEGMENT_BYTES {
            Room::Rotate
        } else {
            Room::Wait { needed }
        }
    }
}

/// What records take in the journal at most, when they are appended at once. Unit: bytes.
pub(super) fn journaled(records: &[Record]) -> u64 {
    let encoded: usize = records.iter().map(Record::encoded_len).sum();
    let frames = segment::batches(records).count() as u64;
    encoded as u64 + frames * FRAME_BYTES
}

/// The same of all that one flush takes.
pub(super) fn wanted<'a>(runs: impl Iterator<Item = &'a [Record]>) -> u64 {
    SEGMENT_BYTES + runs.map(journaled).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use vgship_base::folder::Folder;
    use vgship_base::ids::{GroupId, Seq, VolumeId};
    use vgship_base::record::{Body, Target};
    use vgship_base::sim::{Power, Rng, SimFolder};
    use vgship_snapshot::seal::DataKey;

    use super::super::journal::{Journal, JournalError};
    use super::*;

    fn write(seq: u64, len: usize) -> Record {
        let (volume, data) = (VolumeId(0), Bytes::from(vec![7; len]));
        Record { seq: Seq(seq), target: Target::All, body: Body::Write { volume, offset: 0, data } }
    }

    fn recover(folder: &SimFolder) -> Result<(Journal, Seq), JournalError> {
        let key = DataKey::from_bytes([5; 32]);
        let opened = Journal::recover(Arc::new(folder.clone()), &key, GroupId([7; 16]), Seq(0));
        opened.map(|(journal, found)| (journal, found.last))
    }

    #[test]
    fn records_are_taken_while_the_reserve_stays_free() {
        let disk = |free, settled| Disk { free, wanted: 1000, settled }.room();
        let needed = JOURNAL_RESERVE + 1000;
        assert_eq!(disk(needed, false), Room::Enough);
        assert_eq!(disk(needed, true), Room::Enough, "nothing is begun without need");
        assert_eq!(disk(needed - 1, false), Room::Wait { needed });
        assert_eq!(disk(needed - 1, true), Room::Rotate);
        assert_eq!(disk(0, false), Room::Wait { needed });
        assert_eq!(disk(SEGMENT_BYTES - 1, true), Room::Wait { needed }, "no room to begin one");
        assert_eq!(disk(SEGMENT_BYTES, true), Room::Rotate);
        let endless = Disk { free: u64::MAX, wanted: u64::MAX, settled: false };
        assert_eq!(endless.room(), Room::Enough);
    }

    /// Goal: what is believed to have room has it, and the reserve is enough to recover after a
    /// crash at that moment, whether or not the last flush was promised.
    /// Method: a disk that has exactly the room that is asked for; groups of records as large as
    /// they come, and as small.
    #[test]
    fn what_is_believed_to_fit_fits_and_the_reserve_recovers_it() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let folder = SimFolder::new(&Power::default());
            let (mut journal, _) = recover(&folder).unwrap();
            let (mut seq, mut acked) = (0, Seq(0));
            for _ in 0..4 {
                let len = [1, 700, 64 << 10, 1 << 20][rng.index(4)];
                let (mut group, mut bytes) = (Vec::new(), 0);
                while bytes < 4 << 20 && group.len() < 400 {
                    let run: Vec<Record> =
                        (0..=rng.below(2)).map(|at| write(seq + 1 + at, len)).collect();
                    seq += run.len() as u64;
                    bytes += run.iter().map(Record::encoded_len).sum::<usize>();
                    group.push(run);
                }
                let wanted = wanted(group.iter().map(Vec::as_slice));
                assert!(wanted <= JOURNAL_RESERVE, "seed {seed}: {wanted}");
                folder.set_capacity(Some(folder.used() + wanted));
                let promised = acked;
                group.iter().for_each(|run| journal.append(run, promised).unwrap());
                journal.flush().unwrap();
                acked = Seq(seq);
            }
            drop(journal);
            folder.power_cut(&mut rng);
            folder.set_capacity(Some(folder.used() + JOURNAL_RESERVE));
            assert_eq!(recover(&folder).unwrap().1, acked, "seed {seed}");
        }
    }

    /// Goal: a recovery that has no room changes nothing, leaves no room taken, and succeeds once
    /// there is some.
    #[test]
    fn recovery_on_a_full_disk_fails_cleanly_and_can_be_tried_again() {
        let folder = SimFolder::new(&Power::default());
        let (mut journal, _) = recover(&folder).unwrap();
        journal.append(&[write(1, 5000), write(2, 5000)], Seq(0)).unwrap();
        journal.flush().unwrap();
        drop(journal);
        let before = (folder.list().unwrap(), folder.used());
        for spare in (0..10_000).step_by(100) {
            folder.set_capacity(Some(folder.used() + spare));
            let refused = recover(&folder).err().unwrap();
            assert!(
                matches!(&refused, JournalError::Segment(error) if error.is_full()),
                "{refused:?}"
            );
            assert_eq!((folder.list().unwrap(), folder.used()), before, "{spare} bytes to spare");
        }
        folder.set_capacity(Some(folder.used() + (20 << 10)));
        assert_eq!(recover(&folder).unwrap().1, Seq(2));
    }

    #[test]
    fn a_segment_whose_records_are_settled_gives_its_room_back() {
        let folder = SimFolder::new(&Power::default());
        let (mut journal, _) = recover(&folder).unwrap();
        assert!(!journal.would_shrink(Seq(9)), "it holds nothing");
        journal.append(&[write(1, 50_000), write(2, 50_000)], Seq(0)).unwrap();
        journal.flush().unwrap();
        assert!(!journal.would_shrink(Seq(1)) && journal.would_shrink(Seq(2)));
        let full = folder.used();
        journal.rotate().unwrap();
        journal.rotate().unwrap();
        assert_eq!(journal.segments(), 2, "an empty segment is not ended");
        journal.trim(Seq(2)).unwrap();
        assert!(folder.used() + 100_000 < full);
        journal.append(&[write(3, 10)], Seq(2)).unwrap();
        journal.flush().unwrap();
    }
}
