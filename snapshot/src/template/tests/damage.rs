//! Whatever is damaged is found, named, and never read as something else.

use super::*;

/// A template whose second volume has three stretches, one of them a hole.
fn example() -> MemoryObjects {
    let store = MemoryObjects::default();
    let volume = Sparse::new(3100 * CHUNK);
    for (block, text) in [(1, 1), (2, 2), (1025, 3), (3099, 4)] {
        volume.fill(block, text);
    }
    make(&store, "gold", &[disk(3, &[9]), volume.shared()]).unwrap();
    store
}

/// The id of a node of the second volume: the leaf of this number, or the top node.
fn node_of(store: &MemoryObjects, leaf: Option<u64>) -> ObjectId {
    let template = opened(store, "gold");
    let volume = &template.manifest().volumes[1];
    match leaf {
        Some(leaf) => template.chunks.leaf(template.manifest(), volume, leaf).unwrap().0.unwrap(),
        None => volume.tree.unwrap(),
    }
}

fn remove(store: &MemoryObjects, id: ObjectId) {
    let key = store.keys().into_iter().find(|key| key.contains(&id.to_string())).unwrap();
    store.delete(&key).unwrap();
}

/// Proves the template with its key, and sees that it was looked at as a whole.
fn prove(store: &MemoryObjects) -> Verified {
    let found = opened(store, "gold").verify(&mut go_on).unwrap();
    assert_eq!((found.progress.done, found.progress.of), (3103 * CHUNK, 3103 * CHUNK));
    found
}

/// The id of the pack that holds this block of the second volume.
fn pack_of(store: &MemoryObjects, block: u64) -> ObjectId {
    let page = opened(store, "gold").chunks.page(node_of(store, Some(block / 1024)), 0).unwrap();
    let page::Page::Chunks(slots) = &*page else { panic!("level 0 has chunks") };
    slots[usize::try_from(block % 1024).unwrap()].unwrap().pack
}

fn places(found: &Verified) -> Vec<(u16, u64, u64)> {
    let place = |damage: &Damage| {
        let span = damage.span;
        (damage.volume.unwrap().0, span.offset / CHUNK, span.len / CHUNK)
    };
    found.damage.iter().map(place).collect()
}

#[test]
fn a_missing_pack_is_told_with_all_places_that_need_it() {
    let store = example();
    assert!(prove(&store).damage.is_empty());
    remove(&store, pack_of(&store, 1));
    let found = prove(&store);
    assert_eq!(places(&found), [(1, 1, 2)], "two chunks side by side are one place");
    assert!(matches!(found.damage[0].reason, TemplateError::Missing { kind: Kind::Pack, .. }));
    let blind = verify_blind(&shared(&store), &name("gold"), &mut go_on).unwrap();
    assert!(matches!(&blind.damage[..], [Damage { volume: None, .. }]));
    let disk = opened(&store, "gold").volume(VolumeId(1)).unwrap();
    let error = disk.read_at(2 * CHUNK, &mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    disk.read_at(1025 * CHUNK, &mut [0; BLOCK]).unwrap();
}

#[test]
fn a_missing_node_costs_what_it_speaks_of() {
    let store = example();
    remove(&store, node_of(&store, Some(3)));
    assert_eq!(places(&prove(&store)), [(1, 3072, 28)]);
    let store = example();
    let (leaf, pack) = (node_of(&store, Some(0)), pack_of(&store, 1025));
    remove(&store, leaf);
    remove(&store, pack);
    assert_eq!(places(&prove(&store)), [(1, 0, 1024), (1, 1025, 1)]);
    let blind = verify_blind(&shared(&store), &name("gold"), &mut go_on).unwrap();
    assert_eq!(blind.damage.len(), 2);
    let store = example();
    remove(&store, node_of(&store, None));
    assert_eq!(places(&prove(&store)), [(1, 0, 3100)]);
    let blind = verify_blind(&shared(&store), &name("gold"), &mut go_on).unwrap();
    assert_eq!(blind.damage.len(), 1, "what it needed is not known");
}

/// Goal: no flipped bit of any object goes unnoticed or is read as data.
/// Method: every 61st bit of every object, one after the other; both kinds of proof look.
#[test]
fn every_flip_in_every_object_is_found() {
    let store = MemoryObjects::default();
    let volume = Sparse::new(1030 * CHUNK);
    for (block, text) in [(1, 1), (1029, 2)] {
        volume.fill(block, text);
    }
    make(&store, "gold", &[volume.shared()]).unwrap();
    let (root, sealed_with) = (opened(&store, "gold").root().to_string(), key());
    let expected = content(&opened(&store, "gold"), 0);
    for key in store.keys().into_iter().filter(|key| key.starts_with("objects/")) {
        let bits = store.head(&key).unwrap().unwrap().len * 8;
        for bit in (0..usize::try_from(bits).unwrap()).step_by(61) {
            store.decay(&key, bit / 8, u8::try_from(bit % 8).unwrap());
            let blind = verify_blind(&shared(&store), &name("gold"), &mut go_on).unwrap();
            assert_eq!(blind.damage.len(), 1, "{key}, bit {bit}");
            let template = Template::open(&shared(&store), &sealed_with, &name("gold"));
            if key.contains(&root) {
                assert!(template.err().unwrap().is_damage(), "{key}, bit {bit}");
            } else {
                let template = template.unwrap();
                let found = template.verify(&mut go_on).unwrap();
                assert!(!found.damage.is_empty(), "{key}, bit {bit}");
                let disk = template.volume(VolumeId(0)).unwrap();
                let mut bytes = vec![0; expected.len()];
                assert!(disk.read_at(0, &mut bytes).is_err(), "{key}, bit {bit}");
            }
            store.decay(&key, bit / 8, u8::try_from(bit % 8).unwrap());
        }
    }
    assert!(is_whole(&store, "gold"));
}

#[test]
fn a_place_that_is_damaged_is_told_and_can_be_deleted() {
    let store = MemoryObjects::default();
    make(&store, "gold", &[disk(2, &[1])]).unwrap();
    let place = store.keys().into_iter().find(|key| key.starts_with("templates/")).unwrap();
    store.decay(&place, 20, 0);
    let opened = Template::open(&shared(&store), &key(), &name("gold"));
    assert!(opened.err().unwrap().is_damage());
    let listed = list(&shared(&store)).unwrap();
    assert_eq!(listed, [ListedTemplate { name: name("gold"), root: None, key: None }]);
    assert!(collect_garbage(&store, GRACE_DEFAULT).is_err(), "who knows what it needs");
    assert!(make(&store, "gold", &[disk(2, &[1])]).unwrap_err().is_damage());
    delete(&store, &name("gold")).unwrap();
    make(&store, "gold", &[disk(2, &[1])]).unwrap();
    assert!(is_whole(&store, "gold"));
}

#[test]
fn a_template_put_in_another_ones_place_is_refused() {
    let store = MemoryObjects::default();
    make(&store, "gold", &[disk(2, &[1])]).unwrap();
    let place = "templates/gold/0000000000000001";
    let bytes = store.get(place).unwrap().unwrap();
    store.put(&place.replace("gold", "silver"), &bytes).unwrap();
    let refused = Template::open(&shared(&store), &key(), &name("silver")).err().unwrap();
    assert!(matches!(refused, TemplateError::Renamed { .. }), "{refused}");
}

/// Goal: what is damaged is not relied on.
#[test]
fn a_damaged_node_is_written_anew_by_who_needs_what_it_says() {
    let store = MemoryObjects::default();
    make(&store, "one", &[disk(2, &[1, 2])]).unwrap();
    let whole = store.bytes("objects/");
    for key in keys_of(&store, Kind::Node) {
        store.decay(&key, 100, 1);
    }
    make(&store, "two", &[disk(2, &[1, 2])]).unwrap();
    assert!(is_whole(&store, "two"));
    assert!(store.bytes("objects/") > whole + 4096, "the chunks too: nobody says where they are");
}
