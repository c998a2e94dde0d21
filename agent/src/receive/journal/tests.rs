use std::sync::Arc;

use bytes::Bytes;
use vgship_base::disk::Disk;
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, GroupId, ReplicaId, Seq, VolumeId};
use vgship_base::record::{Body, Record, ResyncBegin, ResyncReason, Target};
use vgship_base::sim::{Power, Rng, SimFolder};
use vgship_snapshot::seal::DataKey;

use super::{Damage, Journal, JournalError, Recovered};
use crate::segment;

pub(super) const GROUP: GroupId = GroupId([7; 16]);

pub(super) fn key() -> DataKey {
    DataKey::from_bytes([5; 32])
}

/// A write whose data tells its seq and the life that wrote it.
pub(super) fn write(seq: u64, life: u8, len: usize) -> Record {
    let data: Vec<u8> = seq.to_be_bytes().into_iter().chain([life]).cycle().take(len).collect();
    let (volume, data) = (VolumeId(0), Bytes::from(data));
    Record { seq: Seq(seq), target: Target::All, body: Body::Write { volume, offset: 0, data } }
}

fn begin(seq: u64, generation: u8) -> Record {
    let (session, after, reason) = (1, Seq(seq - 1), ResyncReason::Initial);
    let begin = ResyncBegin {
        session,
        after,
        generation: Generation([generation; 16]),
        reason,
        extents: 1,
    };
    let target = Target::One(ReplicaId(0));
    Record { seq: Seq(seq), target, body: Body::ResyncBegin(begin) }
}

pub(super) fn recover(folder: &SimFolder, checkpoint: u64) -> (Journal, Recovered) {
    Journal::recover(Arc::new(folder.clone()), key(), GROUP, Seq(checkpoint)).unwrap()
}

pub(super) fn seqs(journal: &Journal, after: u64) -> Vec<u64> {
    journal.replay(Seq(after)).flat_map(Result::unwrap).map(|record| record.seq.0).collect()
}

/// Appends and flushes records one by one; each is promised with the next.
fn fill(journal: &mut Journal, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        journal.append(&[write(seq, 0, 600)], Seq(seq - 1)).unwrap();
        journal.flush().unwrap();
    }
}

fn segments(folder: &SimFolder) -> Vec<String> {
    folder.list().unwrap()
}

#[test]
fn records_come_back_after_a_restart_in_order() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, found) = recover(&folder, 0);
    assert_eq!(found, Recovered { last: Seq(0), damage: None });
    fill(&mut journal, 1..=5);
    assert_eq!(seqs(&journal, 2), [3, 4, 5]);
    journal.append(&[write(8, 0, 1), write(9, 0, 1)], Seq(5)).unwrap(); // a gap is legal
    assert_eq!((journal.last(), journal.durable()), (Seq(9), Seq(5)));
    journal.flush().unwrap();
    for checkpoint in [0, 3, 9, 12] {
        let (journal, found) = recover(&folder, checkpoint);
        assert_eq!(found, Recovered { last: Seq(checkpoint.max(9)), damage: None });
        let expected = [1, 2, 3, 4, 5, 8, 9].into_iter().filter(|&seq| seq > checkpoint);
        assert!(seqs(&journal, checkpoint).into_iter().eq(expected));
        assert_eq!(journal.durable(), found.last);
    }
}

#[test]
fn order_is_kept_and_nothing_is_taken_otherwise() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 4);
    for wrong in [vec![write(4, 0, 1)], vec![write(6, 0, 1), write(6, 0, 1)]] {
        let refused = journal.append(&wrong, Seq(0));
        assert!(matches!(refused, Err(JournalError::Order { .. })));
    }
    journal.append(&[write(5, 0, 1)], Seq(0)).unwrap();
    assert_eq!(seqs(&journal, 4), [5]);
}

#[test]
fn segments_rotate_and_are_trimmed_only_as_a_whole() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    journal.set_segment_bytes(8192);
    fill(&mut journal, 1..=10);
    let (before, bytes) = (journal.segments(), journal.bytes());
    assert!(before > 4, "{before} segments");
    // The next frame of a segment begins at a multiple of 4 KiB.
    let size = |name: &String| folder.file(name).unwrap().len().next_multiple_of(4096);
    assert_eq!(bytes, segments(&folder).iter().map(size).sum::<u64>());
    journal.trim(Seq(0)).unwrap();
    assert_eq!(journal.segments(), before);
    journal.trim(Seq(6)).unwrap();
    assert!(journal.segments() < before && journal.bytes() < bytes);
    let first = journal.first_after();
    assert!(first <= Seq(6) && first > Seq(2));
    assert_eq!(seqs(&journal, first.0), (first.0 + 1..=10).collect::<Vec<_>>());
    let too_far = journal.replay(Seq(0)).next();
    assert!(matches!(too_far, Some(Err(JournalError::Damaged(_)))));
    let (mut journal, found) = recover(&folder, 6);
    assert_eq!(found, Recovered { last: Seq(10), damage: None });
    assert_eq!(seqs(&journal, 6), [7, 8, 9, 10]);
    journal.trim(Seq(10)).unwrap();
    assert_eq!((journal.segments(), segments(&folder).len()), (1, 1));
}

#[test]
fn remains_of_segments_that_never_began_are_removed() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    fill(&mut journal, 1..=2);
    for number in [1, 9] {
        folder.create(&format!("{}.new", segment::name(number))).unwrap();
    }
    let (journal, found) = recover(&folder, 0);
    assert_eq!(found, Recovered { last: Seq(2), damage: None });
    assert_eq!(segments(&folder).len(), journal.segments(), "{:?}", segments(&folder));
}

#[test]
fn a_generation_begins_a_segment() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    let records = [begin(1, 1), write(2, 0, 9), begin(3, 2), write(4, 0, 9), begin(5, 2)];
    journal.append(&records, Seq(0)).unwrap();
    assert_eq!((journal.generation(), journal.segments()), (Generation([2; 16]), 3));
    journal.flush().unwrap();
    let (journal, _) = recover(&folder, 0);
    assert_eq!(journal.generation(), Generation([2; 16]));
    assert_eq!(journal.replay(Seq(0)).flat_map(Result::unwrap).collect::<Vec<_>>(), records);
}

#[test]
fn large_records_and_long_batches_are_cut_into_frames() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    let mut records: Vec<Record> = (1..=5).map(|seq| write(seq, 0, 1 << 20)).collect();
    records.extend((6..=5000).map(|seq| write(seq, 0, 3)));
    journal.append(&records, Seq(0)).unwrap();
    journal.flush().unwrap();
    assert_eq!(recover(&folder, 0).0.replay(Seq(0)).flat_map(Result::unwrap).count(), 5000);
}

#[test]
fn promised_damage_is_reported_and_recovery_ends_before_it() {
    for victim in 0..3u64 {
        let folder = SimFolder::new(&Power::default());
        fill(&mut recover(&folder, 0).0, 1..=4);
        let name = segments(&folder).remove(0);
        let offset = 4096 * (victim + 1); // after each flush a frame begins on a new block
        folder.file(&name).unwrap().decay(usize::try_from(offset).unwrap() + 40, 1);
        let (mut journal, found) = recover(&folder, 0);
        let offset = offset - 3072; // where the frame before it ends
        let damage = Damage { segment: 1, offset, after: Seq(victim), promised: true };
        assert_eq!(found, Recovered { last: Seq(victim), damage: Some(damage) });
        journal.append(&[write(victim + 1, 9, 70)], Seq(0)).unwrap(); // the source heals it
        journal.flush().unwrap();
        let (journal, found) = recover(&folder, 0);
        assert_eq!(found, Recovered { last: Seq(victim + 1), damage: None });
        let healed = journal.replay(Seq(victim)).flat_map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(healed, [write(victim + 1, 9, 70)], "what lay behind is gone for good");
    }
}

#[test]
fn a_promise_behind_the_last_flush_tells_damage_from_a_torn_tail() {
    for promises in [false, true] {
        let folder = SimFolder::new(&Power::default());
        let (mut journal, _) = recover(&folder, 0);
        fill(&mut journal, 1..=2);
        if promises {
            journal.promise().unwrap();
        }
        drop(journal);
        // At once: a recovery would write what was not promised anew, elsewhere.
        let name = segments(&folder).remove(0);
        folder.file(&name).unwrap().decay(8192 + 40, 1); // record 2
        let (mut journal, found) = recover(&folder, 0);
        assert_eq!(found.last, Seq(1));
        assert_eq!(found.damage.map(|damage| damage.promised), promises.then_some(true));
        journal.append(&[write(2, 9, 70)], Seq(1)).unwrap();
        journal.flush().unwrap();
        journal.promise().unwrap();
        let (journal, found) = recover(&folder, 0);
        assert_eq!(found, Recovered { last: Seq(2), damage: None });
        assert_eq!(seqs(&journal, 0), [1, 2]);
        let held = recover(&folder, 2).1;
        assert_eq!(held, Recovered { last: Seq(2), damage: None }, "a checkpoint at the promise");
    }
}

/// Goal: recovery from damage can be cut short anywhere and comes to the same end.
/// Method: several segments, a promised record in the midst damaged; power fails after each
/// possible number of operations of the first recovery.
#[test]
fn recovery_from_damage_may_be_interrupted_anywhere() {
    for operations in 1.. {
        let power = Power::default();
        let folder = SimFolder::new(&power);
        let (mut journal, _) = recover(&folder, 0);
        journal.set_segment_bytes(12 << 10); // two records each
        fill(&mut journal, 1..=9);
        drop(journal);
        let names = segments(&folder);
        folder.file(&names[2]).unwrap().decay(8192 + 40, 1); // record 6
        power.fail_after(operations);
        let done = Journal::recover(Arc::new(folder.clone()), key(), GROUP, Seq(0)).is_ok();
        folder.power_cut(&mut Rng::new(u64::from(operations)));
        power.restore();
        let (mut journal, found) = recover(&folder, 0);
        assert_eq!(found.last, Seq(5), "{operations} operations");
        journal.append(&[write(6, 9, 10)], Seq(5)).unwrap();
        journal.flush().unwrap();
        let (journal, found) = recover(&folder, 0);
        assert_eq!(found, Recovered { last: Seq(6), damage: None });
        assert_eq!(seqs(&journal, 0), [1, 2, 3, 4, 5, 6], "{operations} operations");
        let last = journal.replay(Seq(0)).flat_map(Result::unwrap).last();
        assert_eq!(last, Some(write(6, 9, 10)), "{operations} operations");
        assert_eq!(journal.segments(), segments(&folder).len());
        if done {
            assert!(operations > 20, "{operations}");
            break;
        }
    }
}

#[test]
fn a_journal_that_does_not_reach_the_checkpoint_is_refused_and_left_alone() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    journal.set_segment_bytes(8192);
    fill(&mut journal, 1..=9);
    journal.trim(Seq(6)).unwrap();
    let (first, before) = (journal.first_after(), segments(&folder));
    let shared = Arc::new(folder.clone());
    let refused = Journal::recover(shared, key(), GROUP, Seq(first.0 - 1)).err();
    assert!(matches!(refused, Some(JournalError::Begins { .. })), "{refused:?}");
    assert_eq!(segments(&folder), before);
    assert_eq!(recover(&folder, first.0).1, Recovered { last: Seq(9), damage: None });
}

#[test]
fn a_head_that_was_lost_ends_the_row_before_it() {
    for (victim, checkpoint, last) in [(0, 0, 0), (1, 0, 2), (2, 0, 4), (4, 0, 8), (1, 1, 2)] {
        let folder = SimFolder::new(&Power::default());
        let (mut journal, _) = recover(&folder, 0);
        journal.set_segment_bytes(12 << 10); // two records each
        fill(&mut journal, 1..=9);
        drop(journal);
        folder.file(&segments(&folder)[victim]).unwrap().decay(600, 1);
        let (mut journal, found) = recover(&folder, checkpoint);
        assert_eq!(found.last, Seq(last), "segment {victim}");
        let damage = found.damage.unwrap();
        assert!(damage.promised && damage.segment == victim as u64 + 1, "{damage:?}");
        journal.append(&[write(last + 1, 9, 10)], Seq(0)).unwrap();
        journal.flush().unwrap();
        assert_eq!(seqs(&recover(&folder, 0).0, 0), (1..=last + 1).collect::<Vec<_>>());
    }
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    journal.set_segment_bytes(12 << 10);
    fill(&mut journal, 1..=9);
    folder.file(&segments(&folder)[1]).unwrap().decay(600, 1);
    let (journal, found) = recover(&folder, 4);
    assert_eq!(found.last, Seq(9), "what was lost is in the volumes");
    assert!(found.damage.is_some_and(|damage| !damage.promised && damage.segment == 2));
    assert_eq!(seqs(&journal, 4), [5, 6, 7, 8, 9]);
}

#[test]
fn a_tail_that_was_never_promised_is_cut_without_alarm() {
    let folder = SimFolder::new(&Power::default());
    fill(&mut recover(&folder, 0).0, 1..=4);
    folder.file(&segments(&folder)[0]).unwrap().decay(4096 * 4 + 50, 0);
    assert_eq!(recover(&folder, 0).1, Recovered { last: Seq(3), damage: None });
}

#[test]
fn damage_below_the_checkpoint_costs_history_only() {
    let folder = SimFolder::new(&Power::default());
    fill(&mut recover(&folder, 0).0, 1..=6);
    folder.file(&segments(&folder)[0]).unwrap().decay(4096 * 2 + 50, 0); // record 2
    let damage = Damage { segment: 1, offset: 4096 + 1024, after: Seq(1), promised: false };
    let expected = Recovered { last: Seq(6), damage: Some(damage) };
    assert_eq!(recover(&folder, 2).1, expected, "up to the record behind the gap");
    let (journal, found) = recover(&folder, 3);
    assert_eq!(found, expected);
    assert_eq!(seqs(&journal, 3), [4, 5, 6]);
    let history: Vec<_> = journal.replay(Seq(0)).collect();
    assert!(history.last().unwrap().is_err(), "the gap is not passed over in silence");
}

/// Nine records in segments of two; what one life left.
fn nine() -> SimFolder {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    journal.set_segment_bytes(12 << 10);
    fill(&mut journal, 1..=9);
    folder
}

#[test]
fn history_is_read_from_any_record_on() {
    for checkpoint in 0..=9 {
        let (journal, found) = recover(&nine(), checkpoint);
        assert_eq!(found, Recovered { last: Seq(9), damage: None });
        assert_eq!(journal.first_after(), Seq(0), "{checkpoint}");
        for after in 0..=9 {
            let expected: Vec<u64> = (after + 1..=9).collect();
            assert_eq!(seqs(&journal, after), expected, "from {checkpoint}, after {after}");
        }
    }
}

#[test]
fn a_closed_segment_below_the_checkpoint_is_not_read() {
    for checkpoint in 2..=4 {
        let folder = nine();
        folder.file(&segments(&folder)[0]).unwrap().decay(4096 + 50, 0); // record 1
        let (journal, found) = recover(&folder, checkpoint);
        assert_eq!(found, Recovered { last: Seq(9), damage: None }, "{checkpoint}");
        assert_eq!(seqs(&journal, 2), [3, 4, 5, 6, 7, 8, 9]);
    }
}

#[test]
fn a_gap_in_a_closed_segment_that_the_volumes_hold_is_passed_over() {
    let folder = nine();
    folder.file(&segments(&folder)[0]).unwrap().decay(4096 + 50, 0); // record 1
    let (journal, found) = recover(&folder, 1);
    assert_eq!(found.last, Seq(9));
    assert!(found.damage.is_some_and(|damage| !damage.promised && damage.segment == 1));
    assert_eq!(seqs(&journal, 1), [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_closed_segment_that_ends_too_early_is_damaged_there() {
    let folder = nine();
    let file = folder.file(&segments(&folder)[1]).unwrap();
    file.zero_at(8192, 1024).unwrap(); // record 4
    let (_, found) = recover(&folder, 0);
    assert_eq!(found.last, Seq(3));
    let damage = found.damage.unwrap();
    assert!(damage.promised && damage.segment == 2 && damage.after == Seq(3), "{damage:?}");
}

#[test]
fn any_whole_frame_behind_a_gap_may_promise_what_is_in_it() {
    for (promise, promised) in [(3, true), (1, false)] {
        let folder = SimFolder::new(&Power::default());
        let (mut journal, _) = recover(&folder, 0);
        for (seq, promise) in [(1, 0), (2, 1), (3, 1), (4, promise), (5, 1)] {
            journal.append(&[write(seq, 0, 600)], Seq(promise)).unwrap();
            journal.flush().unwrap();
        }
        drop(journal);
        folder.file(&segments(&folder)[0]).unwrap().decay(8192 + 50, 0); // record 2
        let (_, found) = recover(&folder, 0);
        assert_eq!((found.last, found.damage.is_some()), (Seq(1), promised), "{promise}");
    }
}

#[test]
fn damage_in_a_closed_segment_is_promised() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    for seq in 1..=2 {
        journal.append(&[write(seq, 0, 600)], Seq(0)).unwrap(); // flushed by the rotation alone
    }
    journal.set_segment_bytes(1);
    journal.append(&[write(3, 0, 600)], Seq(0)).unwrap();
    journal.flush().unwrap();
    drop(journal);
    let first = segment::name(1);
    let end = folder.file(&first).unwrap().live().len();
    folder.file(&first).unwrap().decay(end - 500, 0);
    let (journal, found) = recover(&folder, 0);
    assert_eq!(found.last, Seq(1));
    assert!(found.damage.is_some_and(|damage| damage.promised && damage.segment == 1));
    assert_eq!(seqs(&journal, 0), [1]);
}

#[test]
fn a_journal_of_others_is_refused_and_left_alone() {
    let folder = SimFolder::new(&Power::default());
    fill(&mut recover(&folder, 0).0, 1..=4);
    let before = segments(&folder);
    let shared = || Arc::new(folder.clone());
    let other = DataKey::from_bytes([6; 32]);
    assert!(Journal::recover(shared(), &other, GROUP, Seq(0)).is_err());
    assert!(Journal::recover(shared(), key(), GroupId([8; 16]), Seq(0)).is_err());
    assert_eq!(segments(&folder), before);
    assert_eq!(recover(&folder, 0).1.last, Seq(4));
}

#[test]
fn after_a_failed_flush_nothing_is_taken_and_nothing_is_believed() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    fill(&mut journal, 1..=3);
    journal.append(&[write(4, 0, 600)], Seq(3)).unwrap();
    folder.file(&segments(&folder)[0]).unwrap().fail_flushes(1);
    assert!(journal.flush().is_err());
    assert!(matches!(journal.flush(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.append(&[], Seq(3)), Err(JournalError::Poisoned)));
    drop(journal);
    let (_, found) = recover(&folder, 0); // reads record 4 from the cache
    folder.power_cut(&mut Rng::new(1));
    let (journal, again) = recover(&folder, 0);
    assert_eq!(again, Recovered { last: found.last, damage: None });
    assert_eq!(seqs(&journal, 0), (1..=found.last.0).collect::<Vec<_>>());
}

/// Goal: a recovery that writes records anew has them under a name that lasts before it removes
/// where they were.
/// Method: power fails after each step of a recovery; what is unstable of the folder is kept or
/// lost by chance.
#[test]
fn a_recovery_that_moves_records_may_be_cut_short_anywhere() {
    for (seed, steps) in (0..60).flat_map(|seed| (1..30).map(move |steps| (seed, steps))) {
        let power = Power::default();
        let folder = SimFolder::new(&power);
        let (mut journal, _) = recover(&folder, 0);
        fill(&mut journal, 1..=1); // flushed, and promised by no record that follows
        drop(journal);
        power.fail_after(steps);
        let _ = Journal::recover(Arc::new(folder.clone()), key(), GROUP, Seq(0));
        power.restore();
        folder.power_cut(&mut Rng::new(seed));
        let (journal, found) = recover(&folder, 0);
        assert_eq!((found.damage, seqs(&journal, 0)), (None, vec![1]), "seed {seed}, {steps}");
    }
}

/// Goal: after any failure nothing is known of the files, and nothing is written behind it.
#[test]
fn after_any_failure_the_journal_takes_no_more() {
    type Action = fn(&mut Journal) -> Result<(), JournalError>;
    let actions: [Action; 3] = [
        |journal| journal.append(&[write(4, 0, 64 << 10)], Seq(3)),
        Journal::rotate,
        Journal::promise,
    ];
    for (place, fails) in actions.into_iter().enumerate() {
        let folder = SimFolder::new(&Power::default());
        let (mut journal, _) = recover(&folder, 0);
        fill(&mut journal, 1..=3);
        let name = journal_file(&folder);
        match place {
            2 => folder.file(&name).unwrap().fail_writes(1),
            _ => folder.set_capacity(Some(folder.used())),
        }
        assert!(fails(&mut journal).is_err(), "{place}");
        folder.set_capacity(None);
        assert_eq!(segments(&folder), [name], "{place}: nothing half begun takes room");
        for action in actions {
            assert!(matches!(action(&mut journal), Err(JournalError::Poisoned)), "{place}");
        }
        assert!(matches!(journal.flush(), Err(JournalError::Poisoned)), "{place}");
        let (journal, found) = recover(&folder, 0);
        assert_eq!((found.damage, seqs(&journal, 0)), (None, vec![1, 2, 3]), "{place}");
    }
}

/// Its one file.
fn journal_file(folder: &SimFolder) -> String {
    let mut names = segments(folder);
    assert_eq!(names.len(), 1);
    names.remove(0)
}

#[test]
fn a_promise_beyond_what_was_flushed_is_not_believed() {
    let folder = SimFolder::new(&Power::default());
    let (mut journal, _) = recover(&folder, 0);
    fill(&mut journal, 1..=1);
    journal.append(&[write(2, 0, 600)], Seq(9)).unwrap();
    journal.flush().unwrap();
    let (_, found) = recover(&folder, 0);
    assert_eq!(found, Recovered { last: Seq(2), damage: None });
}

/// Goal: no single flipped bit makes the journal yield what was not appended, nor hides the loss
/// of what a later frame promises.
/// Method: four flushed records, each promised with the next; one bit flipped in each byte.
#[test]
fn a_bit_flip_anywhere_is_refused_or_changes_nothing() {
    let (mut whole, mut cut) = (0, 0);
    for byte in 0..4096 * 4 + 700 {
        let folder = SimFolder::new(&Power::default());
        fill(&mut recover(&folder, 0).0, 1..=4);
        let name = segments(&folder).remove(0);
        folder.file(&name).unwrap().decay(byte, 5);
        let (journal, found) = recover(&folder, 0);
        let records: Vec<Record> = journal.replay(Seq(0)).flat_map(Result::unwrap).collect();
        let expected: Vec<Record> = (1..=found.last.0).map(|seq| write(seq, 0, 600)).collect();
        assert_eq!(records, expected, "byte {byte}");
        let promised = found.damage.is_some_and(|damage| damage.promised);
        assert_eq!(promised, found.last < Seq(3), "byte {byte}: {found:?}");
        match found.last {
            Seq(4) => whole += 1,
            _ => cut += 1,
        }
    }
    assert!(cut > 4 * 650 && whole > 3 * 3000, "{cut} cut, {whole} whole");
}

#[test]
fn other_writings_of_a_number_are_other_files_and_the_last_number_is_refused() {
    let folder = SimFolder::new(&Power::default());
    fill(&mut recover(&folder, 0).0, 1..=3);
    for other in ["000000000000000A.segment", "+00000000000000f.segment"] {
        folder.create(other).unwrap();
    }
    assert_eq!(recover(&folder, 0).1, Recovered { last: Seq(3), damage: None });
    folder.create("ffffffffffffffff.segment").unwrap();
    let before = segments(&folder);
    let refused = Journal::recover(Arc::new(folder.clone()), key(), GROUP, Seq(0)).map(drop);
    assert!(matches!(refused, Err(JournalError::Segment(_))), "{refused:?}");
    assert_eq!(segments(&folder), before);
}
