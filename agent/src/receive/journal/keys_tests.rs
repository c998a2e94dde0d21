//! The journal under several keys.

use std::sync::Arc;

use vgship_base::folder::Folder;
use vgship_base::ids::Seq;
use vgship_base::sim::{Power, Rng, SimFolder};
use vgship_snapshot::seal::{DataKey, KeyRing};

use super::tests::{GROUP, key, seqs, write};
use super::{Journal, Recovered};

fn recover(folder: &SimFolder, keys: &KeyRing) -> (Journal, Recovered) {
    recover_behind(folder, keys, Seq(0))
}

fn recover_behind(folder: &SimFolder, keys: &KeyRing, checkpoint: Seq) -> (Journal, Recovered) {
    Journal::recover(Arc::new(folder.clone()), keys, GROUP, checkpoint).unwrap()
}

fn append(journal: &mut Journal, seq: u64) {
    journal.append(&[write(seq, 0, 600)], Seq(seq - 1)).unwrap();
    journal.flush().unwrap();
}

fn other(byte: u8) -> DataKey {
    DataKey::from_bytes([byte; 32])
}

#[test]
fn after_a_rotation_a_segment_of_the_new_key_follows_and_all_of_it_is_read() {
    let folder = SimFolder::new(&Power::default());
    let keys = KeyRing::from(&key());
    let (mut journal, _) = recover(&folder, &keys);
    append(&mut journal, 1);
    append(&mut journal, 2);
    keys.add(other(6));
    assert!(journal.is_stale());
    append(&mut journal, 3);
    assert!(!journal.is_stale());
    assert_eq!(journal.segments(), 2);
    assert_eq!(journal.end_of(key().id()).unwrap(), Some(Seq(2)));
    assert_eq!(journal.end_of(other(6).id()).unwrap(), None, "it is not closed");
    // With nothing to append it is renewed when it is asked to, once.
    keys.add(other(7));
    journal.renew().unwrap();
    journal.renew().unwrap();
    keys.add(other(8));
    journal.renew().unwrap();
    assert_eq!((journal.segments(), journal.is_stale()), (4, false));
    assert_eq!(journal.end_of(other(7).id()).unwrap(), Some(Seq(3)), "an empty one counts too");
    append(&mut journal, 4);
    assert_eq!(seqs(&journal, 0), [1, 2, 3, 4]);
    drop(journal);
    let (mut journal, found) = recover(&folder, &keys);
    assert_eq!(found, Recovered { last: Seq(4), damage: None });
    assert_eq!(seqs(&journal, 0), [1, 2, 3, 4]);
    journal.trim(Seq(2)).unwrap();
    assert_eq!(journal.end_of(key().id()).unwrap(), None);
    keys.destroy(key().id());
    drop(journal);
    let (journal, found) = recover_behind(&folder, &keys, Seq(2));
    assert_eq!((found.last, seqs(&journal, 2)), (Seq(4), vec![3, 4]));
}

#[test]
fn a_segment_whose_key_is_missing_is_told_and_nothing_is_changed() {
    let folder = SimFolder::new(&Power::default());
    let keys = KeyRing::from(&key());
    append(&mut recover(&folder, &keys).0, 1);
    let before = folder.list().unwrap();
    for destroyed in [false, true] {
        let keys = KeyRing::from(&key());
        keys.add(other(6));
        if destroyed {
            keys.destroy(key().id());
        }
        let lacking = if destroyed { keys } else { KeyRing::from(other(6)) };
        let refused = Journal::recover(Arc::new(folder.clone()), lacking, GROUP, Seq(0)).err();
        let text = crate::capture::io::report(&refused.unwrap());
        assert!(text.contains(&key().id().to_string()), "{text}");
        assert_eq!(text.contains("was destroyed"), destroyed, "{text}");
        assert_eq!(folder.list().unwrap(), before);
    }
}

/// Goal: R6 and I1 under rotations: whatever crashes, what was flushed is found, and no file is
/// sealed with two keys.
/// Method: for each number of operations of the disk, a life that rotates and appends in turn.
#[test]
fn a_rotation_may_be_interrupted_anywhere() {
    for operations in 1.. {
        let power = Power::default();
        let folder = SimFolder::new(&power);
        let keys = KeyRing::from(&key());
        let mut flushed = 0;
        let (mut journal, _) = recover(&folder, &keys);
        power.fail_after(operations);
        let mut life = || -> Result<(), super::JournalError> {
            for seq in 1..=6 {
                keys.add(other(10 + u8::try_from(seq).unwrap()));
                if seq % 2 == 0 {
                    journal.renew()?;
                }
                journal.append(&[write(seq, 0, 600)], Seq(flushed))?;
                journal.flush()?;
                flushed = seq;
            }
            Ok(())
        };
        let done = life().is_ok();
        drop(journal);
        folder.power_cut(&mut Rng::new(u64::from(operations)));
        power.restore();
        let (mut journal, found) = recover(&folder, &keys);
        assert!(found.last.0 >= flushed, "{operations} operations: {found:?} of {flushed}");
        assert!(found.damage.is_none_or(|it| !it.promised), "{operations} operations");
        assert_eq!(seqs(&journal, 0), (1..=found.last.0).collect::<Vec<_>>());
        append(&mut journal, found.last.0 + 1);
        if done {
            assert!(operations > 40, "{operations}");
            break;
        }
    }
}
