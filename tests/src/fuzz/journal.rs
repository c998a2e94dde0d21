//! The journal's recovery and the spill, over files that the real writer made and a script changed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use vgship::outbox::spill::{Spill, SpillError};
use vgship::receive::journal::{Journal, JournalError, Recovered};
use vgship::segment;
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, ReplicaId, Seq, VolumeId};
use vgship_base::record::{Body, Record, ResyncBegin, ResyncReason, Target};
use vgship_base::sim::{Power, Rng, SimFolder};

use super::Input;
use super::edits::{edit_folder, put};
use super::state::{GROUP, key};

/// A write whose content tells its seq.
fn write(seq: u64, len: usize) -> Record {
    let data: Bytes = seq.to_be_bytes().into_iter().cycle().take(len).collect();
    let body = Body::Write { volume: VolumeId(0), offset: 0, data };
    Record { seq: Seq(seq), target: Target::All, body }
}

fn begin(seq: u64, generation: u8) -> Record {
    let (session, after, reason) = (1, Seq(seq - 1), ResyncReason::Initial);
    let generation = Generation([generation; 16]);
    let begin = ResyncBegin { session, after, generation, reason, extents: 1 };
    Record { seq: Seq(seq), target: Target::One(ReplicaId(0)), body: Body::ResyncBegin(begin) }
}

fn open(folder: &SimFolder, checkpoint: Seq) -> Result<(Journal, Recovered), JournalError> {
    Journal::recover(Arc::new(folder.clone()), key(), GROUP, checkpoint)
}

/// A journal, and what the world knows of it.
struct Made {
    folder: SimFolder,
    written: Vec<Record>,
    durable: Seq,
    trimmed: Seq,
}

impl Made {
    fn last(&self) -> Seq {
        self.written.last().map_or(Seq::ZERO, |record| record.seq)
    }

    fn between(&self, after: Seq, last: Seq) -> Vec<Record> {
        let held = |record: &&Record| record.seq > after && record.seq <= last;
        self.written.iter().filter(held).cloned().collect()
    }
}

fn make(input: &mut Input<'_>) -> Made {
    const POWER: &str = "the power is on";
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = open(&folder, Seq::ZERO).expect("an empty folder");
    journal.set_segment_bytes(4096 * (1 + input.below(4)) as u64);
    let (durable, trimmed) = (Seq::ZERO, Seq::ZERO);
    let mut made = Made { folder, written: Vec::new(), durable, trimmed };
    for step in 0..input.below(24) {
        let first = made.last().0 + 1;
        match input.below(8) {
            0..4 => {
                let gap = u64::from(input.below(8) == 0);
                let count = 1 + input.below(3) as u64;
                let len = 1 + input.index(2000);
                let records: Vec<Record> =
                    (first + gap..first + gap + count).map(|seq| write(seq, len)).collect();
                journal.append(&records, made.durable).expect(POWER);
                made.written.extend(records);
            }
            4 => {
                let generation = u8::try_from(step).expect("few steps");
                let record = begin(first, generation);
                journal.append(std::slice::from_ref(&record), made.durable).expect(POWER);
                made.written.push(record);
            }
            5 => {
                made.trimmed = Seq(made.durable.0 * input.below(5) as u64 / 4).max(made.trimmed);
                journal.trim(made.trimmed).expect(POWER);
            }
            _ => journal.flush().expect(POWER),
        }
        made.durable = journal.durable();
    }
    made
}

/// All files with their content.
fn content(folder: &SimFolder) -> Vec<(String, Vec<u8>)> {
    let names = folder.list().expect("the power is on");
    let file = |name: String| {
        let bytes = folder.file(&name).expect("it was listed").live();
        (name, bytes)
    };
    names.into_iter().map(file).collect()
}

fn copy(folder: &SimFolder) -> SimFolder {
    let twin = SimFolder::new(&Power::default());
    content(folder).iter().for_each(|(name, bytes)| put(&twin, name, bytes));
    twin
}

/// What recovery finds is a row of what was written that begins at the checkpoint: whole, in
/// order, and nothing else; and it stays so.
pub fn recovery(data: &[u8]) {
    let mut input = Input::new(data);
    let made = make(&mut input);
    let folder = &made.folder;
    let cut = input.flag();
    if cut {
        folder.power_cut(&mut Rng::new(input.u8().into()));
    }
    let edits = input.below(5);
    (0..edits).for_each(|_| edit_folder(&mut input, folder));
    for name in folder.list().expect("the power is on") {
        let number = segment::number_of(&name);
        assert!(number.is_none_or(|number| segment::name(number) == name), "{name} is two names");
    }
    let checkpoint = match input.below(8) {
        0 => Seq(input.odd()),
        part => Seq((made.durable.0 * part as u64 / 7).max(made.trimmed.0)),
    };
    let (before, twin) = (content(folder), copy(folder));
    let (journal, found) = match open(folder, checkpoint) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(edits > 0 || checkpoint < made.trimmed, "undamaged, but {error:?}");
            return assert_eq!(content(folder), before, "an error changed something");
        }
    };
    assert_eq!(open(&twin, checkpoint).expect("as before").1, found, "decided by dice");
    assert!(found.last >= checkpoint && journal.durable() == found.last);
    if edits == 0 && checkpoint <= made.durable {
        assert_eq!(found.damage, None);
        assert!(found.last >= made.durable, "what was flushed is lost");
        assert!(cut || found.last == made.last(), "what was written is lost");
    }
    let expected = made.between(checkpoint, found.last);
    assert_eq!(replayed(&journal, checkpoint), expected, "another history");
    go_on(folder, checkpoint, found.last, &expected);
}

fn replayed(journal: &Journal, after: Seq) -> Vec<Record> {
    let batches: Result<Vec<Vec<Record>>, _> = journal.replay(after).collect();
    batches.expect("what recovery left is whole").concat()
}

/// Recovery is final: whatever is lost now was not promised by it, and it can be gone on from.
fn go_on(folder: &SimFolder, checkpoint: Seq, last: Seq, expected: &[Record]) {
    folder.power_cut(&mut Rng::new(last.0));
    let (mut journal, found) = open(folder, checkpoint).expect("it was recovered");
    assert_eq!(found.last, last);
    assert!(found.damage.is_none_or(|damage| !damage.promised), "found again: {found:?}");
    assert_eq!(replayed(&journal, checkpoint), expected);
    let Some(next) = last.0.checked_add(1) else { return };
    journal.append(&[write(next, 9)], last).expect("the power is on");
    journal.flush().expect("the power is on");
    folder.power_cut(&mut Rng::new(last.0));
    let (journal, found) = open(folder, checkpoint).expect("it was recovered");
    assert_eq!(found.last.0, next);
    let expected = [expected, &[write(next, 9)]].concat();
    assert_eq!(replayed(&journal, checkpoint), expected);
}

/// Journals with some segments, whole, cut and changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let append = [0, 1, 2, 3, 0];
    let flush = [6];
    let grow: Vec<u8> =
        [&append[..], &flush, &append, &append, &flush, &[4], &append, &flush].concat();
    let with = |tail: &[u8]| [&[0, 22][..], &grow, &grow, &[5, 1], &append, tail].concat();
    vec![
        with(&[7, 7, 7, 7, 0, 0, 0]),
        with(&[7, 7, 7, 7, 1, 9, 0, 3]),
        with(&[7, 7, 7, 7, 0, 1, 1, 3, 0, 0, 0, 0, 9, 0, 5, 2]),
        with(&[7, 7, 7, 7, 0, 2, 0, 0, 1, 4, 2, 1, 0, 4, 4]),
        with(&[7, 7, 7, 7, 0, 1, 0, 2, 0, 5, 1]),
        vec![3, 0, 0, 0, 0, 1, 2, 3],
    ]
}

/// What comes out of a spill is what went in, first in, first out, or an error.
pub fn spill(data: &[u8]) {
    let mut input = Input::new(data);
    let folder = SimFolder::new(&Power::default());
    let limit = 16_384 * (1 + input.below(16)) as u64;
    let mut spill =
        Spill::create(Arc::new(folder.clone()), key(), GROUP, limit).expect("the power is on");
    let (mut expected, mut next, mut broken) = (VecDeque::new(), 1, false);
    for _ in 0..48 {
        match input.below(8) {
            0..3 => {
                let (count, len) = (input.below(6) as u64, 1 + input.index(3000));
                let records: Vec<Record> =
                    (next..next + count).map(|seq| write(seq, len)).collect();
                match spill.push(&records) {
                    Ok(()) => expected.extend(records),
                    Err(SpillError::Full { .. }) => {}
                    Err(error) => assert!(broken, "{error:?}"),
                }
                next += count;
            }
            3..6 => {
                let popped = spill.pop(input.index(8000));
                match popped {
                    Ok(records) => {
                        assert_eq!(records.is_empty(), expected.is_empty(), "something is lost");
                        for record in records {
                            assert_eq!(Some(record), expected.pop_front());
                        }
                    }
                    Err(error) => {
                        assert!(broken, "{error:?}");
                        assert!(matches!(spill.pop(1), Err(SpillError::Broken)));
                    }
                }
            }
            6 => {
                edit_folder(&mut input, &folder);
                broken = true;
            }
            _ => {
                spill.clear().expect("the power is on");
                (expected, broken) = (VecDeque::new(), false);
                let mut left = content(&folder).into_iter();
                assert!(left.all(|(name, _)| segment::number_of(&name).is_none()));
                assert!(spill.is_empty());
            }
        }
        assert!(spill.disk_bytes() <= limit, "{} of {limit}", spill.disk_bytes());
        if input.is_empty() {
            break;
        }
    }
}

/// Spills that are filled, emptied and damaged.
pub fn spill_seeds() -> Vec<Vec<u8>> {
    let push = |len: u8| vec![0, 5, len, 0];
    let pop = vec![3, 9, 0];
    let fill: Vec<u8> = [push(1), push(8), push(3), pop.clone(), push(11), push(11)].concat();
    vec![
        [&[3][..], &fill, &pop, &pop, &pop, &fill].concat(),
        [&[2][..], &fill, &[6, 0, 0], &pop, &pop, &[7], &fill, &pop].concat(),
        [&[9][..], &fill, &pop, &[6, 0, 5, 1, 0, 0, 0, 3, 4], &pop, &pop, &fill, &[7]].concat(),
    ]
}
