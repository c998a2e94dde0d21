//! Copies between stores, differences between templates.

use super::*;

fn push_to(from: &MemoryObjects, to: &MemoryObjects, text: &str) -> Result<Pushed, TemplateError> {
    push(&shared(from), to, &name(text), &mut go_on)
}

#[test]
fn a_copy_is_the_same_template_and_sends_what_is_missing() {
    let (from, to) = (MemoryObjects::default(), MemoryObjects::default());
    let texts: Vec<u64> = (1..=1500).collect();
    let one = make(&from, "one", &[disk(1500, &texts)]).unwrap();
    let sent = push_to(&from, &to, "one").unwrap();
    assert_eq!((sent.root, sent.progress.stored), (one.root, from.bytes("objects/")));
    assert!(is_whole(&to, "one"));
    assert!(content(&opened(&to, "one"), 0) == content(&opened(&from, "one"), 0));
    let again = push_to(&from, &to, "one").unwrap();
    assert_eq!((again.root, again.progress.stored), (one.root, 0), "it is there already");
    let mut changed = texts.clone();
    changed[1400] = 9999;
    make(&from, "two", &[disk(1500, &changed)]).unwrap();
    let sent = push_to(&from, &to, "two").unwrap();
    assert!(sent.progress.stored < to.bytes("objects/") / 20, "{}", sent.progress.stored);
    assert!(is_whole(&to, "two") && is_whole(&to, "one"));
    // And back: to pull is to push the other way round.
    delete(&from, &name("two")).unwrap();
    collect_garbage(&from, GRACE_DEFAULT).unwrap();
    push_to(&to, &from, "two").unwrap();
    assert!(is_whole(&from, "two"));
}

#[test]
fn another_template_of_the_name_is_not_overwritten() {
    let (from, to) = (MemoryObjects::default(), MemoryObjects::default());
    make(&from, "gold", &[disk(2, &[1])]).unwrap();
    make(&to, "gold", &[disk(2, &[2])]).unwrap();
    assert!(matches!(push_to(&from, &to, "gold"), Err(TemplateError::Taken { .. })));
    assert!(matches!(push_to(&from, &to, "none"), Err(TemplateError::Absent(_))));
    assert!(content(&opened(&to, "gold"), 0).starts_with(&block_of(2)));
}

/// Goal: copying goes on where it was broken off.
/// Method: the other store fails after each possible number of steps, then it is copied again.
#[test]
fn a_copy_that_was_broken_off_goes_on() {
    let from = MemoryObjects::default();
    let volume = Sparse::new(9000 * CHUNK);
    (0..9).for_each(|at| volume.fill(at * 1024, at + 1));
    make(&from, "gold", &[volume.shared()]).unwrap();
    let (whole, mut sent_again) = (from.bytes("objects/"), Vec::new());
    for steps in 0.. {
        let to = MemoryObjects::default();
        if push_to(&from, &to.failing_after(steps), "gold").is_ok() {
            break;
        }
        let there = to.bytes("objects/");
        let sent = push_to(&from, &to, "gold").unwrap();
        assert_eq!(there + sent.progress.stored, whole, "{steps} steps");
        sent_again.push(sent.progress.stored);
        assert!(is_whole(&to, "gold"));
    }
    assert!(sent_again.is_sorted_by(|one, next| one >= next), "{sent_again:?}");
    assert_eq!(sent_again.last(), Some(&0));
}

#[test]
fn what_is_damaged_is_not_copied() {
    let (from, to) = (MemoryObjects::default(), MemoryObjects::default());
    make(&from, "gold", &[disk(2, &[1])]).unwrap();
    from.decay(&keys_of(&from, Kind::Pack)[0], 200, 3);
    assert!(push_to(&from, &to, "gold").unwrap_err().is_damage());
    assert!(list(&shared(&to)).unwrap().is_empty());
}

#[test]
fn differences_are_counted_in_chunks() {
    let store = MemoryObjects::default();
    let texts: Vec<u64> = (1..=3000).collect();
    let mut changed = texts.clone();
    (changed[5], changed[2999]) = (0, 7777);
    make(&store, "one", &[disk(3000, &texts), disk(9, &[1])]).unwrap();
    make(&store, "two", &[disk(3000, &changed), disk(10, &[1])]).unwrap();
    make(&store, "three", &[disk(3000, &texts)]).unwrap();
    let compare =
        |one: &str, other: &str| diff(&opened(&store, one), &opened(&store, other)).unwrap();
    assert!(compare("one", "one").is_empty());
    let found = compare("one", "two");
    assert_eq!(found.fields, []);
    let [first, second] = &found.volumes[..] else { panic!("{found}") };
    assert_eq!(
        (first.name.as_str(), &first.fields[..], first.bytes),
        ("lv0", &[][..], Some(2 * CHUNK))
    );
    assert_eq!((second.bytes, second.fields[0].second.as_deref()), (Some(0), Some("40960")));
    let found = compare("three", "one");
    assert_eq!(found.fields[0].field, "volumes");
    let [added] = &found.volumes[..] else { panic!("{found}") };
    assert_eq!((added.name.as_str(), added.bytes), ("lv1", Some(CHUNK)));
    assert_eq!(added.fields[0].first, None);
    let found = compare("one", "three");
    assert_eq!(found.volumes[0].fields[0].second, None);
}

#[test]
fn differences_under_other_keys_are_seen_but_not_counted() {
    let store = MemoryObjects::default();
    let other = DataKey::from_bytes([6; 32]);
    make(&store, "one", &[disk(5, &[1, 2]), disk(5, &[3])]).unwrap();
    let disks = [disk(5, &[1, 2]), disk(5, &[4])];
    let sizes = layout(&[5 * CHUNK, 5 * CHUNK]);
    let mut facts = meta(2);
    facts.facts.insert("os".to_owned(), "aix".to_owned());
    create(&store, &other, &name("two"), &disks, &sizes, &facts, &mut go_on).unwrap();
    let two = Template::open(&shared(&store), &other, &name("two")).unwrap();
    let found = diff(&opened(&store, "one"), &two).unwrap();
    let fields: Vec<_> = found.fields.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, ["key", "fact os"]);
    let [second] = &found.volumes[..] else { panic!("{found}") };
    assert_eq!((second.name.as_str(), second.bytes), ("lv1", None));
}

#[test]
fn what_is_damaged_is_mended_from_another_store_and_nothing_else_is_written() {
    let (from, to) = (MemoryObjects::default(), MemoryObjects::default());
    let texts: Vec<u64> = (1..=1500).collect();
    let one = make(&from, "one", &[disk(1500, &texts)]).unwrap();
    let mend_to = || mend(&shared(&from), &shared(&to), &name("one"), &mut go_on);
    assert!(matches!(mend_to(), Err(TemplateError::Absent(_))));
    push_to(&from, &to, "one").unwrap();
    assert_eq!(mend_to().unwrap().progress.stored, 0);

    let objects: Vec<String> = to.keys().into_iter().filter(|key| key.starts_with("obj")).collect();
    assert!(objects.len() > 2);
    for key in &objects {
        let len = to.get(key).unwrap().unwrap().len() as u64;
        to.decay(key, 9, 3);
        assert_eq!(mend_to().unwrap().progress.stored, len, "{key} is written anew");
        to.delete(key).unwrap();
        assert_eq!(mend_to().unwrap().progress.stored, len, "{key} is written anew");
        assert!(is_whole(&to, "one"));
    }
    // Damage is not carried over.
    let theirs = from.keys().into_iter().filter(|key| key.starts_with("obj"));
    theirs.for_each(|key| from.decay(&key, 9, 3));
    assert!(mend_to().unwrap_err().is_damage());
    assert!(is_whole(&to, "one"));

    let other = MemoryObjects::default();
    make(&other, "one", &[disk(3, &[1])]).unwrap();
    let refused = mend(&shared(&other), &shared(&to), &name("one"), &mut go_on).unwrap_err();
    assert!(matches!(refused, TemplateError::Taken { root, .. } if root == one.root));
}
