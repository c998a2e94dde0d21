use vgship_base::sim::{Power, Rng, SimFolder};
use vgship_snapshot::seal::Keys;
use zeroize::Zeroizing;

use super::*;

const GROUP: GroupId = GroupId([7; 16]);

fn kek(byte: u8) -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes(Zeroizing::new([byte; 32]))
}

fn files(folder: &SimFolder) -> KeyFiles<'_> {
    KeyFiles { folder, place: PathBuf::from("keys"), group: GROUP }
}

fn ids(folder: &SimFolder) -> Vec<KeyId> {
    files(folder).list().unwrap().iter().map(|it| it.kept.id).collect()
}

#[test]
fn a_ring_is_what_was_made_and_one_that_is_destroyed_is_known_and_gone() {
    let folder = SimFolder::new(&Power::default());
    assert!(files(&folder).load(&kek(1)).unwrap().is_none());
    let made: Vec<DataKey> = (0..3).map(|at| files(&folder).make(&kek(1), at).unwrap()).collect();
    let ring = files(&folder).load(&kek(1)).unwrap().unwrap();
    assert_eq!(ring.current_id(), made[2].id());
    assert!(matches!(files(&folder).destroy(made[2].id(), 9), Err(KeyError::Current(_))));
    let secret = files(&folder).read(&key_name(2, kek(1).id())).unwrap().encode();
    let file = folder.file(&key_name(2, kek(1).id())).unwrap();
    files(&folder).destroy(made[1].id(), 9).unwrap();
    assert!(file.live().iter().all(|byte| *byte == 0), "overwritten, not just taken away");
    assert_eq!(file.live().len(), secret.len());
    assert!(matches!(files(&folder).destroy(made[1].id(), 9), Err(KeyError::Ended(_))));
    let ring = files(&folder).load(&kek(1)).unwrap().unwrap();
    assert!(ring.holds(made[0].id()) && !ring.holds(made[1].id()) && ring.knows(made[1].id()));
    assert!(matches!(ring.find(made[1].id(), "file"), Err(SealError::Destroyed { .. })));
    let known = files(&folder).find(&made[1].id().to_string()[..6]).unwrap();
    assert_eq!((known.kept.key, known.wrappers), (Err(9), Vec::new()));
    assert!(matches!(files(&folder).find("zzzz"), Err(KeyError::Unknown { .. })));
    assert!(matches!(files(&folder).load(&kek(2)), Err(KeyError::Wrapped { .. })));
}

#[test]
fn damage_and_what_is_missing_are_told() {
    let folder = SimFolder::new(&Power::default());
    let (_, second) =
        (files(&folder).make(&kek(1), 1).unwrap(), files(&folder).make(&kek(1), 2).unwrap());
    let name = key_name(1, kek(1).id());
    folder.file(&name).unwrap().decay(100, 0);
    let told = files(&folder).load(&kek(1)).unwrap_err();
    assert!(matches!(told, KeyError::Seal { .. }), "{told}");
    folder.file(&name).unwrap().decay(100, 0);
    let other = KeyFiles { group: GroupId([8; 16]), ..files(&folder) };
    assert!(matches!(other.load(&kek(1)), Err(KeyError::Strange { .. })));
    folder.remove(&key_name(2, kek(1).id())).unwrap();
    let gone = Kept { group: GROUP, id: second.id(), made: 2, key: Err(3) };
    files(&folder).put(&gone_name(2), &gone).unwrap();
    assert!(matches!(files(&folder).load(&kek(1)), Err(KeyError::Strange { .. })));
}

/// Does `work` with the power cut after each number of changes to the disk in turn; after each,
/// `whole` must hold of what is left.
fn cut_everywhere(work: impl Fn(&SimFolder), whole: impl Fn(&SimFolder, bool)) {
    for round in 0.. {
        let (steps, seed) = (round / 16, u64::from(round));
        let power = Power::default();
        let folder = SimFolder::new(&power);
        let first = files(&folder).make(&kek(1), 1).unwrap();
        files(&folder).make(&kek(1), 2).unwrap();
        assert_eq!(ids(&folder)[0], first.id());
        power.fail_after(steps);
        work(&folder);
        let survived = !power.is_off();
        folder.power_cut(&mut Rng::new(seed));
        power.restore();
        whole(&folder, survived);
        if survived && round % 16 == 15 {
            assert!(steps > 3, "it changes something");
            return;
        }
    }
}

#[test]
fn a_crash_while_a_key_is_made_leaves_the_old_ring_or_the_new_one() {
    cut_everywhere(
        |folder| drop(files(folder).make(&kek(1), 3)),
        |folder, done| {
            let ring = files(folder).load(&kek(1)).unwrap().unwrap();
            let count = ids(folder).len();
            assert!(count == 3 || count == 2 && !done);
            assert_eq!(ring.current_id(), *ids(folder).last().unwrap());
            let odd = folder.list().unwrap().into_iter().find(|name| name.ends_with(FRESH));
            assert_eq!(odd, None, "nothing is left over");
        },
    );
}

#[test]
fn a_crash_while_a_key_is_destroyed_leaves_it_whole_or_gone() {
    cut_everywhere(
        |folder| {
            let id = files(folder).list().map(|all| all[0].kept.id);
            drop(id.and_then(|id| files(folder).destroy(id, 9)));
        },
        |folder, done| {
            let ring = files(folder).load(&kek(1)).unwrap().unwrap();
            let first = &files(folder).list().unwrap()[0];
            assert_eq!(ring.holds(first.kept.id), first.is_usable());
            assert!(!done || !first.is_usable());
            let files = folder.list().unwrap();
            let own = files.iter().filter(|name| name.starts_with("0000000000000001"));
            assert_eq!(own.count(), 1, "{files:?}");
        },
    );
}

#[test]
fn a_key_encryption_key_is_replaced_and_at_each_moment_one_of_both_opens_everything() {
    let replace = |folder: &SimFolder| {
        let files = files(folder);
        files.wrap_also(&kek(1), &kek(2)).and_then(|_| files.wrap_only(&kek(2)))
    };
    cut_everywhere(
        |folder| drop(replace(folder)),
        |folder, done| {
            let opens = |by: u8| files(folder).load(&kek(by)).is_ok();
            assert!(opens(1) || opens(2));
            assert!(!done || opens(2) && !opens(1));
            if opens(1) {
                replace(folder).unwrap();
            } else {
                files(folder).wrap_only(&kek(2)).unwrap();
            }
            let ring = files(folder).load(&kek(2)).unwrap().unwrap();
            assert_eq!(ring.current_id(), ids(folder)[1]);
            assert_eq!(folder.list().unwrap().len(), 2, "the former one opens nothing any more");
        },
    );
}
