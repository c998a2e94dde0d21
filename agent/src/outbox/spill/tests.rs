use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use vgship_base::disk::Disk;
use vgship_base::folder::Folder;
use vgship_base::ids::{GroupId, Seq, VolumeId};
use vgship_base::record::{Body, Record, Target};
use vgship_base::sim::{Power, Rng, SimFolder};
use vgship_snapshot::seal::{DataKey, KeyId, KeyRing, key_of_file};

use super::{Spill, SpillError};

const GROUP: GroupId = GroupId([7; 16]);

fn create(folder: &SimFolder, limit: u64) -> Spill {
    Spill::create(Arc::new(folder.clone()), DataKey::from_bytes([5; 32]), GROUP, limit).unwrap()
}

fn write(seq: u64, len: usize) -> Record {
    let data: Vec<u8> = seq.to_be_bytes().into_iter().cycle().take(len).collect();
    let (volume, data) = (VolumeId(0), Bytes::from(data));
    Record { seq: Seq(seq), target: Target::All, body: Body::Write { volume, offset: 0, data } }
}

#[test]
fn records_leave_in_the_order_in_which_they_came() {
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let folder = SimFolder::new(&Power::default());
        let mut spill = create(&folder, 400 << 10);
        let (mut pushed, mut popped, mut full) = (0, 0, 0);
        for _ in 0..200 {
            if rng.one_in(2) {
                let end = pushed + 1 + rng.below(4);
                let records: Vec<Record> =
                    (pushed + 1..=end).map(|seq| write(seq, 1 + rng.index(9000))).collect();
                match spill.push(&records) {
                    Ok(()) => pushed = end,
                    Err(SpillError::Full { .. }) => full += 1,
                    Err(error) => panic!("{error:?}"),
                }
            } else {
                let front = spill.front_seq().unwrap();
                let records = spill.pop(rng.index(30_000)).unwrap();
                assert_eq!(front, records.first().map(|record| record.seq), "seed {seed}");
                assert_eq!(records.is_empty(), pushed == popped, "seed {seed}");
                for record in records {
                    popped += 1;
                    assert_eq!(record, write(popped, record.encoded_len() - 24), "seed {seed}");
                }
            }
            assert_eq!(spill.is_empty(), pushed == popped);
            assert_eq!(spill.is_empty(), spill.bytes() == 0);
            let on_disk: u64 =
                folder.list().unwrap().iter().map(|name| folder.open(name).unwrap().len()).sum();
            assert_eq!(on_disk, spill.disk_bytes());
            assert!(on_disk <= 400 << 10, "seed {seed}: {on_disk} bytes");
        }
        assert!(popped > 0 && (full == 0 || pushed > 20), "seed {seed}");
    }
}

#[test]
fn a_full_spill_takes_nothing_and_has_room_again_when_read() {
    let folder = SimFolder::new(&Power::default());
    let mut spill = create(&folder, 256 << 10);
    let mut seq = 0;
    while spill.push(&[write(seq + 1, 4096)]).is_ok() {
        seq += 1;
    }
    let bytes = spill.bytes();
    assert!(matches!(spill.push(&[write(seq + 1, 4096)]), Err(SpillError::Full { .. })));
    assert_eq!(spill.bytes(), bytes);
    assert!(bytes > 200 << 10, "{bytes} bytes fit");
    spill.pop(64 << 10).unwrap();
    spill.push(&[write(seq + 1, 4096)]).unwrap();
    while !spill.is_empty() {
        spill.pop(usize::MAX).unwrap();
    }
    assert!(folder.list().unwrap().is_empty(), "an empty spill takes no room");
    spill.push(&[write(1, 10)]).unwrap(); // the next overflow may be another start's
    assert_eq!(spill.pop(0).unwrap(), [write(1, 10)]);
}

#[test]
fn what_an_earlier_life_left_is_discarded() {
    let folder = SimFolder::new(&Power::default());
    create(&folder, 1 << 20).push(&[write(1, 10)]).unwrap();
    assert_eq!(folder.list().unwrap().len(), 1);
    let mut spill = create(&folder, 1 << 20);
    assert!(spill.is_empty() && folder.list().unwrap().is_empty());
    assert_eq!(spill.pop(usize::MAX).unwrap(), []);
    assert_eq!(spill.front_seq().unwrap(), None);
}

#[test]
fn order_is_kept_and_nothing_is_taken_otherwise() {
    let mut spill = create(&SimFolder::new(&Power::default()), 1 << 20);
    spill.push(&[write(5, 10)]).unwrap();
    assert!(matches!(spill.push(&[write(5, 10)]), Err(SpillError::Order { .. })));
    assert_eq!(spill.pop(usize::MAX).unwrap().len(), 1);
}

/// Goal: a bit flipped anywhere leads to an error or to nothing, never to another record.
#[test]
fn damage_is_an_error_never_other_data() {
    let mut refused = 0;
    for byte in 0..5120 {
        let folder = SimFolder::new(&Power::default());
        let mut spill = create(&folder, 1 << 20);
        let records: Vec<Record> = (1..=4).map(|seq| write(seq, 500)).collect();
        records.iter().for_each(|record| spill.push(std::slice::from_ref(record)).unwrap());
        let name = folder.list().unwrap().remove(0);
        folder.file(&name).unwrap().decay(byte, 2);
        let mut found = Vec::new();
        loop {
            match spill.pop(1) {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => found.extend(batch),
                Err(SpillError::Damaged { .. }) => {
                    refused += 1;
                    break;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(found, records[..found.len()], "byte {byte}");
        spill.clear().unwrap();
        assert!(spill.is_empty() && spill.disk_bytes() == 0);
        spill.push(&records).unwrap();
        assert_eq!(spill.pop(usize::MAX).unwrap(), records);
    }
    assert_eq!(refused, 68 + 92 + 4 * 580, "all but the space between frames is sealed");
}

#[test]
fn a_disk_that_fails_is_told() {
    let power = Power::default();
    let mut spill = create(&SimFolder::new(&power), 1 << 20);
    spill.push(&[write(1, 10)]).unwrap();
    power.fail_after(0);
    assert!(matches!(spill.push(&[write(2, 10)]), Err(SpillError::Io(_))));
    assert!(matches!(spill.pop(1), Err(SpillError::Broken)));
    assert!(matches!(spill.clear(), Err(SpillError::Io(_))));
    power.restore();
    spill.clear().unwrap();
    assert!(spill.is_empty());
    spill.push(&[write(3, 10)]).unwrap();
    power.fail_after(0);
    assert!(matches!(spill.pop(1), Err(SpillError::Io(_))));
}

/// Goal: a disk that is full takes nothing of a push, keeps all of what was pushed before, in
/// order, and is used again when it has room, wherever the room ran out.
/// Method: records are pushed and popped at random on a disk whose room changes at random.
#[test]
fn a_full_disk_takes_all_of_a_push_or_nothing_and_is_used_again() {
    let (mut full, mut later) = (0, 0);
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let folder = SimFolder::new(&Power::default());
        let mut spill = create(&folder, 64 << 10); // segments of 8 KiB
        let (mut pushed, mut popped, mut was_full) = (0, 0, false);
        for _ in 0..150 {
            match rng.below(5) {
                0 => folder.set_capacity(Some(folder.used() + rng.below(20_000))),
                1 | 2 => {
                    let end = pushed + 1 + rng.below(3);
                    // The largest make frames of their own, and new segments within one push.
                    let len = [100, 3000, 9000][rng.index(3)];
                    let records: Vec<Record> =
                        (pushed + 1..=end).map(|seq| write(seq, 1 + rng.index(len))).collect();
                    let before = spill.bytes();
                    match spill.push(&records) {
                        Ok(()) => {
                            later += u32::from(was_full);
                            (pushed, was_full) = (end, false);
                        }
                        Err(SpillError::Full { .. }) => {}
                        Err(SpillError::NoRoom(_)) => {
                            assert_eq!(spill.bytes(), before, "seed {seed}");
                            (full, was_full) = (full + 1, true);
                        }
                        Err(error) => panic!("seed {seed}: {error:?}"),
                    }
                }
                _ => {
                    for record in spill.pop(rng.index(15_000)).unwrap() {
                        popped += 1;
                        assert_eq!(record, write(popped, record.encoded_len() - 24), "seed {seed}");
                    }
                }
            }
            assert_eq!(spill.is_empty(), pushed == popped, "seed {seed}");
            assert!(folder.used() <= 64 << 10, "seed {seed}: {} bytes", folder.used());
            if spill.is_empty() {
                assert_eq!(folder.used(), 0, "seed {seed}: an empty spill takes no room");
            }
        }
    }
    assert!(full > 1000 && later > 300, "{full} times full, {later} times used again");
}

/// A push that begins segments and then finds no room takes all of them back.
#[test]
fn what_a_push_began_before_the_disk_was_full_goes_again() {
    let folder = SimFolder::new(&Power::default());
    let mut spill = create(&folder, 32 << 20); // segments of 4 MiB
    spill.push(&[write(1, 1 << 20)]).unwrap();
    let (used, names) = (folder.used(), folder.list().unwrap());
    let large: Vec<Record> = (2..12).map(|seq| write(seq, 1 << 20)).collect();
    folder.set_capacity(Some(used + (9 << 20)));
    assert!(matches!(spill.push(&large), Err(SpillError::NoRoom(_))));
    assert_eq!(folder.list().unwrap(), names);
    assert!(!spill.has_room(9 << 20));
    folder.set_capacity(None);
    assert!(spill.has_room(9 << 20));
    spill.push(&large).unwrap();
    for seq in 1..12 {
        assert_eq!(spill.pop(1).unwrap(), [write(seq, 1 << 20)]);
    }
    assert!(spill.is_empty() && folder.used() == 0);
}

#[test]
fn a_disk_that_failed_is_tried_again_after_it_was_cleared() {
    let folder = SimFolder::new(&Power::default());
    let mut spill = create(&folder, 1 << 20);
    spill.push(&[write(1, 10)]).unwrap();
    folder.file(&folder.list().unwrap()[0]).unwrap().fail_writes(1);
    assert!(matches!(spill.push(&[write(2, 10)]), Err(SpillError::Io(_))));
    assert!(matches!(spill.push(&[write(2, 10)]), Err(SpillError::Broken)));
    spill.clear().unwrap();
    spill.push(&[write(3, 10)]).unwrap();
    assert_eq!(spill.pop(1).unwrap(), [write(3, 10)]);
}

/// Goal: after a rotation what is spilled is sealed with the new key, and all of it comes back in
/// order; what a destroyed key sealed is lost and said, and the rest goes on once it is cleared.
#[test]
fn a_spill_goes_on_under_a_new_key() {
    let folder = SimFolder::new(&Power::default());
    let keys = KeyRing::from(DataKey::from_bytes([5; 32]));
    let first = keys.current_id();
    let mut spill = Spill::create(Arc::new(folder.clone()), &keys, GROUP, 1 << 20).unwrap();
    let sealed = |folder: &SimFolder| -> Vec<KeyId> {
        let names = folder.list().unwrap();
        names.iter().map(|name| key_of_file(&*folder.open(name).unwrap()).unwrap()).collect()
    };
    spill.push(&[write(1, 100), write(2, 100)]).unwrap();
    keys.add(DataKey::from_bytes([6; 32]));
    spill.push(&[write(3, 100)]).unwrap();
    assert_eq!(sealed(&folder), [first, keys.current_id()]);
    let popped = spill.pop(1 << 20).unwrap();
    assert_eq!(popped, [write(1, 100), write(2, 100), write(3, 100)]);
    assert!(spill.is_empty());
    spill.push(&[write(4, 100)]).unwrap();
    let second = keys.current_id();
    keys.add(DataKey::from_bytes([7; 32]));
    keys.destroy(second);
    assert!(matches!(spill.pop(1), Err(SpillError::Io(_))));
    spill.clear().unwrap();
    spill.push(&[write(5, 100)]).unwrap();
    assert_eq!(spill.pop(1).unwrap(), [write(5, 100)]);
}

/// A folder in which a file gets its name just when a new key becomes current.
struct Turning {
    folder: SimFolder,
    keys: KeyRing,
    next: Mutex<Option<DataKey>>,
}

impl Folder for Turning {
    fn create(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        self.folder.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        self.folder.open(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.next.lock().unwrap().take().into_iter().for_each(|key| self.keys.add(key));
        self.folder.rename(from, to)
    }
    fn sync(&self) -> io::Result<()> {
        self.folder.sync()
    }
    fn available(&self) -> io::Result<u64> {
        self.folder.available()
    }
}

/// Goal: a segment that nobody could see yet when its key became an older one does not need that key:
/// it may be destroyed at once.
#[test]
fn a_segment_is_not_begun_under_a_key_that_may_be_gone() {
    let folder = SimFolder::new(&Power::default());
    let keys = KeyRing::from(DataKey::from_bytes([5; 32]));
    let first = keys.current_id();
    let next = Mutex::new(Some(DataKey::from_bytes([6; 32])));
    let turning = Turning { folder: folder.clone(), keys: keys.clone(), next };
    let mut spill = Spill::create(Arc::new(turning), &keys, GROUP, 1 << 20).unwrap();
    spill.push(&[write(1, 100)]).unwrap();
    keys.destroy(first);
    assert_eq!(spill.pop(1).unwrap(), [write(1, 100)]);
    assert_eq!(folder.list().unwrap(), Vec::<String>::new());
}
