use std::collections::BTreeSet;
use std::sync::Arc;

use vgship_base::folder::Folder;
use vgship_base::ids::GroupId;
use vgship_base::sim::{Power, Rng, SimFolder};

use super::{Damage, EXTENT_BYTES_MAX, Opened, Store, StoreError};
use crate::seal::DataKey;

const GROUP: GroupId = GroupId([7; 16]);

fn try_open(folder: &SimFolder) -> Result<(Store, Opened), StoreError> {
    Store::open(Arc::new(folder.clone()), &DataKey::from_bytes([5; 32]), GROUP)
}

fn open(folder: &SimFolder) -> (Store, Opened) {
    try_open(folder).unwrap()
}

fn content(number: u64) -> Vec<u8> {
    let len = 1 + usize::try_from(number * 397 % 3000).unwrap();
    number.to_be_bytes().into_iter().cycle().take(len).collect()
}

fn holds(store: &Store, number: u64) -> bool {
    let id = store.id_of(&content(number));
    let found = store.get(id).unwrap();
    assert!(found.as_ref().is_none_or(|found| *found == content(number)), "{number}");
    assert_eq!(found.is_some(), store.contains(id));
    found.is_some()
}

#[test]
fn an_extent_is_stored_once_and_found_after_a_restart() {
    let folder = SimFolder::new(&Power::default());
    let (mut store, found) = open(&folder);
    assert_eq!((found, store.is_empty()), (Opened::default(), true));
    let ids: BTreeSet<_> =
        (0..10).chain(0..10).map(|number| store.put(&content(number)).unwrap()).collect();
    assert_eq!((ids.len(), store.len()), (10, 10));
    assert!((0..10).all(|number| holds(&store, number)), "readable before the flush");
    store.flush().unwrap();
    for _ in 0..3 {
        let (store, found) = open(&folder);
        assert_eq!(found, Opened { extents: 10, damage: vec![] });
        assert_eq!(store.list().collect::<BTreeSet<_>>(), ids);
        assert!((0..10).all(|number| holds(&store, number)));
        assert!(!holds(&store, 10));
    }
    assert!(folder.list().unwrap().len() <= 2, "opening again and again makes no packs");
}

#[test]
fn ids_of_other_groups_and_keys_differ() {
    let folder = || Arc::new(SimFolder::new(&Power::default()));
    let open = |key, group| {
        Store::open(folder(), &DataKey::from_bytes([key; 32]), GroupId([group; 16])).unwrap().0
    };
    let id = open(1, 1).id_of(b"x");
    assert_eq!(id, open(1, 1).id_of(b"x"));
    assert!(id != open(2, 1).id_of(b"x") && id != open(1, 2).id_of(b"x"));
}

#[test]
fn only_extents_of_a_legal_length_are_taken() {
    let (mut store, _) = open(&SimFolder::new(&Power::default()));
    for len in [0, EXTENT_BYTES_MAX + 1] {
        assert!(matches!(store.put(&vec![1; len]), Err(StoreError::Length(found)) if found == len));
    }
    let largest = vec![1; EXTENT_BYTES_MAX];
    let id = store.put(&largest).unwrap();
    assert_eq!(store.get(id).unwrap(), Some(largest));
}

#[test]
fn packs_end_at_their_size() {
    let folder = SimFolder::new(&Power::default());
    let (mut store, _) = open(&folder);
    store.set_pack_bytes(16 << 10);
    for number in 0..40 {
        store.put(&content(number)).unwrap();
    }
    store.flush().unwrap();
    assert!(folder.list().unwrap().len() > 3);
    assert!((0..40).all(|number| holds(&store, number)));
    assert!((0..40).all(|number| holds(&open(&folder).0, number)));
}

#[test]
fn a_store_of_others_is_refused() {
    let folder = SimFolder::new(&Power::default());
    let (mut store, _) = open(&folder);
    store.put(b"x").unwrap();
    store.flush().unwrap();
    let other = Store::open(Arc::new(folder.clone()), &DataKey::from_bytes([6; 32]), GROUP);
    assert!(other.is_err());
    assert_eq!(open(&folder).1.extents, 1);
}

#[test]
fn damage_inside_is_named_and_costs_one_extent() {
    let folder = SimFolder::new(&Power::default());
    let (mut store, _) = open(&folder);
    for number in 0..5 {
        store.put(&content(number)).unwrap();
        store.flush().unwrap();
    }
    drop(store);
    let name = folder.list().unwrap().remove(0);
    folder.file(&name).unwrap().decay(4096 * 2 + 70, 3); // after each flush a new block
    let (store, found) = open(&folder);
    let damage = &found.damage[..];
    assert!(matches!(damage, [Damage { pack: 1, frame: 2, frames: Some(1), .. }]), "{damage:?}");
    let held: Vec<u64> = (0..5).filter(|&number| holds(&store, number)).collect();
    assert_eq!(held, [0, 1, 3, 4]);
    drop(store);
    folder.file(&name).unwrap().decay(9, 3);
    let whole = Damage { pack: 1, frame: 0, frames: None, offset: 0 };
    assert_eq!(open(&folder).1.damage, [whole]);
}

#[test]
fn damage_after_opening_is_an_error_not_other_content() {
    let folder = SimFolder::new(&Power::default());
    let (mut store, _) = open(&folder);
    let id = store.put(&content(7)).unwrap();
    store.flush().unwrap();
    folder.file(&folder.list().unwrap()[0]).unwrap().decay(600, 0);
    assert!(matches!(store.get(id), Err(StoreError::Pack { .. })));
}

#[test]
fn a_failed_flush_ends_the_store_until_it_is_opened_again() {
    let folder = SimFolder::new(&Power::default());
    let (mut store, _) = open(&folder);
    store.put(&content(1)).unwrap();
    store.flush().unwrap();
    store.put(&content(2)).unwrap();
    folder.file(&folder.list().unwrap()[0]).unwrap().fail_flushes(1);
    assert!(store.flush().is_err());
    assert!(matches!(store.flush(), Err(StoreError::Poisoned)));
    assert!(matches!(store.put(&content(3)), Err(StoreError::Poisoned)));
    let (store, _) = open(&folder);
    let found = [holds(&store, 1), holds(&store, 2)];
    assert_eq!(found, [true, true], "what the cache alone still shows is written anew");
    drop(store);
    folder.power_cut(&mut Rng::new(1));
    let (store, _) = open(&folder);
    assert_eq!([holds(&store, 1), holds(&store, 2)], found, "what opening found is durable");
}

/// Puts, flushes; what was flushed is in `flushed`, what was put in `put`.
fn live(
    folder: &SimFolder,
    rng: &mut Rng,
    put: &mut BTreeSet<u64>,
    flushed: &mut BTreeSet<u64>,
) -> Result<(), StoreError> {
    let (mut store, found) = try_open(folder)?;
    assert_eq!(found.damage, []);
    flushed.extend((0..60).filter(|&number| store.contains(store.id_of(&content(number)))));
    store.set_pack_bytes(12 << 10);
    let mut fresh = BTreeSet::new();
    for _ in 0..20 {
        if rng.one_in(4) {
            store.flush()?;
            flushed.append(&mut fresh);
        } else {
            let number = rng.below(60);
            put.insert(number);
            fresh.insert(number);
            store.put(&content(number))?;
        }
    }
    Ok(())
}

/// Goal: what was flushed, or found at opening, is found again; nothing is invented.
/// Method: for each seed, power fails after every possible number of operations, twice in a row.
#[test]
fn what_was_flushed_survives_a_crash_at_any_step() {
    for seed in 0..200 {
        for operations in 1.. {
            let (power, mut rng) = (Power::default(), Rng::new(seed));
            let folder = SimFolder::new(&power);
            let (mut put, mut flushed) = (BTreeSet::new(), BTreeSet::new());
            power.fail_after(operations);
            let done = live(&folder, &mut rng, &mut put, &mut flushed).is_ok();
            for _ in 0..2 {
                if !rng.one_in(4) {
                    folder.power_cut(&mut rng);
                }
                power.restore();
                power.fail_after(1 + u32::try_from(rng.below(60)).unwrap());
                drop(live(&folder, &mut rng, &mut put, &mut flushed));
            }
            folder.power_cut(&mut rng);
            power.restore();
            let (store, found) = open(&folder);
            assert_eq!(found.damage, [], "seed {seed}, {operations} operations");
            let held: BTreeSet<u64> = (0..60).filter(|&number| holds(&store, number)).collect();
            assert!(held.is_superset(&flushed), "seed {seed}, {operations} operations");
            assert!(held.is_subset(&put), "seed {seed}, {operations} operations");
            assert_eq!(held.len() as u64, store.len());
            if done {
                break;
            }
        }
    }
}
