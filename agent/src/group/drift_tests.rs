use proptest::prelude::*;
use vgship_base::extent::ExtentSize;

use super::*;

type Change = fn(&mut Layout);

fn identity(text: &str) -> Option<Identity> {
    Identity::new(text)
}

fn found(name: &str, bytes: u64, identity: &str) -> Found {
    let name = name.parse().unwrap();
    Found { name, bytes, masked: 0, identity: Identity::new(identity) }
}

/// Two volumes: `one` of 4096 bytes, which is `a`; `two` of 8192, which is `b`.
fn known() -> Known {
    let volume = |name: &str, bytes| VolumeLayout { name: name.parse().unwrap(), bytes, masked: 0 };
    let extent = ExtentSize::from_log2(16).unwrap();
    let layout = Layout { extent, volumes: vec![volume("one", 4096), volume("two", 8192)] };
    Known { layout, identities: vec![identity("a"), identity("b")] }
}

fn inventory(volumes: &[Found]) -> Inventory {
    Inventory { volumes: volumes.to_vec(), unfit: vec![] }
}

fn two() -> Found {
    found("two", 8192, "b")
}

fn specs() -> [VolumesSpec; 3] {
    ["images:/srv/v", "lvm2:vg", "aix-disks:/d"].map(|text| text.parse().unwrap())
}

/// What is said in each kind of place; `None` for nothing.
fn said(known: &Known, found: &Inventory) -> [Option<String>; 3] {
    specs().map(|spec| match judge(Place::Here(&spec), known, found) {
        Drift::Broken(problems) => {
            Some(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
        }
        _ => None,
    })
}

#[test]
fn nothing_changed_whatever_the_order() {
    let found = inventory(&[two(), found("one", 4096, "a")]);
    for spec in specs() {
        assert_eq!(judge(Place::Here(&spec), &known(), &found), Drift::None);
    }
}

#[test]
fn larger_volumes_are_growth_and_keep_their_order() {
    let found = inventory(&[found("two", 8704, "b"), found("one", 1 << 20, "a")]);
    let mut grown = known().layout;
    (grown.volumes[0].bytes, grown.volumes[1].bytes) = (1 << 20, 8704);
    for spec in specs() {
        assert_eq!(judge(Place::Here(&spec), &known(), &found), Drift::Grown(grown.clone()));
    }
}

/// Every row that breaks a group, in each kind of place: which command is named.
#[test]
fn each_break_names_what_mends_it() {
    let one = |bytes, identity| inventory(&[found("one", bytes, identity), two()]);
    let masked = Found { masked: 512, ..found("one", 4096, "a") };
    let rows: [(&str, Inventory, [&str; 3]); 8] = [
        (
            "one has 512 bytes, and had 4096",
            one(512, "a"),
            [
                "truncate -s 4096 /srv/v/one",
                "lvextend -L 4096b vg/one",
                "extendlv one PARTITIONS, as many as make 3584 bytes",
            ],
        ),
        ("had 0: its head was", inventory(&[masked, two()]), ["", "", ""]),
        (
            "at most 128 TiB",
            one((128 << 40) + 512, "a"),
            ["truncate -s 4096 /srv/v/one", "lvreduce -L 4096b vg/one", ""],
        ),
        ("of whole sectors", one(4097, "a"), ["truncate -s 4096", "lvreduce -L 4096b", ""]),
        ("one is not the one that it was", one(8192, "c"), ["restart the agent"; 3]),
        (
            "one was renamed to uno",
            inventory(&[found("uno", 4096, "a"), two()]),
            ["mv /srv/v/uno /srv/v/one", "lvrename vg uno one", "chlv -n one uno"],
        ),
        (
            "one is gone",
            inventory(&[two()]),
            [
                "of 4096 bytes back: /srv/v/one",
                "lvcreate --yes -n one -L 4096b vg; then restart the agent",
                "mklv -y one VG PARTITIONS, as many as make 4096 bytes; then restart the agent",
            ],
        ),
        (
            "tri is new",
            inventory(&[found("one", 4096, "a"), two(), found("tri", 512, "c")]),
            ["mv /srv/v/tri ELSEWHERE", "lvremove vg/tri", "rmlv tri"],
        ),
    ];
    for (what, found, mends) in rows {
        for (said, mends) in said(&known(), &found).into_iter().zip(mends) {
            let said = said.unwrap_or_else(|| panic!("{what}: nothing is said"));
            assert!(said.contains(what) && said.contains(mends), "{what}: {said}");
            assert!(!said.contains(" | "), "said twice: {said}");
        }
    }
}

#[test]
fn what_cannot_be_served_is_said_once() {
    let problem = |name: &str| VolumeProblem::new(name, "is a symbolic link");
    let unfit = vec![problem("one"), problem("tmp")];
    let found = Inventory { volumes: vec![two()], unfit };
    let said = said(&known(), &found)[0].clone().unwrap();
    let expected = "one is a symbolic link; put the file of 4096 bytes back: /srv/v/one | \
                    tmp is a symbolic link";
    assert_eq!(said, expected);
}

#[test]
fn without_identities_a_rename_is_one_gone_and_one_new_of_its_size() {
    let known = Known { identities: vec![None, None], ..known() };
    let said = |volumes: &[Found]| said(&known, &inventory(volumes))[0].clone();
    assert_eq!(said(&[found("one", 4096, "x"), found("two", 8192, "y")]), None);
    assert!(said(&[found("uno", 4096, "x"), two()]).unwrap().contains("renamed to uno"));
    for guess in [
        &[found("uno", 512, "x"), two()][..],
        &[found("uno", 4096, "x"), found("tri", 4096, "y"), two()],
        &[found("uno", 4096, "x")],
    ] {
        let said = said(guess).unwrap();
        assert!(said.contains("one is gone") && said.contains("uno is new"), "{said}");
    }
}

#[test]
fn a_replica_follows_growth_and_says_what_else_there_is() {
    let mine = known().layout;
    let changed = |change: fn(&mut Layout)| {
        let mut theirs = known().layout;
        change(&mut theirs);
        let said = follow(&mine, &theirs).map_err(|problems| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
        });
        said.err()
    };
    assert_eq!(changed(|_| ()), None);
    assert_eq!(changed(|theirs| theirs.volumes[1].bytes += 512), None);
    let rows: [(Change, &str); 5] = [
        (|theirs| theirs.volumes[1].bytes -= 512, "two has 7680 bytes, and had 8192"),
        (|theirs| theirs.volumes.truncate(1), "two is gone"),
        (|theirs| theirs.volumes[1].name = "tri".parse().unwrap(), "two was renamed to tri"),
        (|theirs| theirs.volumes.swap(0, 1), "the volumes are cut into other extents"),
        (|theirs| theirs.extent = ExtentSize::from_log2(12).unwrap(), "cut into other extents"),
    ];
    for (change, text) in rows {
        let said = changed(change).unwrap_or_else(|| panic!("{text}: nothing is said"));
        assert!(said.contains(text) && !said.contains("mend"), "{text}: {said}");
    }
}

#[test]
fn a_start_takes_over_what_it_finds_and_says_what_is_strange() {
    let mut known = known();
    let found = inventory(&[found("one", 4096, "c")]);
    assert_eq!(known.adopt(&found), ["one".parse().unwrap()]);
    assert_eq!(known.identities, [identity("c"), identity("b")], "what is gone keeps its own");
    assert_eq!(known.adopt(&found), []);
    let mut known = Known { identities: vec![None, None], ..known };
    assert_eq!(known.adopt(&found), ["one".parse().unwrap()], "not known is strange");
}

/// What may be done to one volume, and to the place.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Grow(u64),
    Shrink,
    Remove,
    Rename,
    Replace,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (1u64..100).prop_map(Deed::Grow),
        Just(Deed::Shrink),
        Just(Deed::Remove),
        Just(Deed::Rename),
        Just(Deed::Replace),
    ]
}

proptest! {
    /// Goal: whatever is done to the volumes of a group, growth is followed only when there was
    /// nothing else, and every volume that was done something else to is named.
    #[test]
    fn every_volume_that_changed_is_named(
        deeds in prop::collection::vec(prop::option::of(deed()), 1..8),
        added in prop::bool::ANY,
        turned in prop::bool::ANY,
    ) {
        let extent = ExtentSize::from_log2(12).unwrap();
        let mut known = Known { layout: Layout { extent, volumes: vec![] }, identities: vec![] };
        let mut grown = Layout { extent, volumes: vec![] };
        let (mut now, mut broken, mut grows) = (vec![], vec![], false);
        for (number, deed) in deeds.iter().enumerate() {
            let (name, id) = (format!("lv{number}"), format!("id{number}"));
            let bytes = 4096;
            let volume = VolumeLayout { name: name.parse().unwrap(), bytes, masked: 0 };
            known.layout.volumes.push(volume.clone());
            known.identities.push(identity(&id));
            let larger = if let Some(Deed::Grow(by)) = deed { by * 512 } else { 0 };
            grows |= larger > 0;
            grown.volumes.push(VolumeLayout { bytes: bytes + larger, ..volume });
            now.extend(match deed {
                None | Some(Deed::Grow(_)) => Some(found(&name, bytes + larger, &id)),
                Some(Deed::Shrink) => Some(found(&name, bytes - 512, &id)),
                Some(Deed::Remove) => None,
                Some(Deed::Rename) => Some(found(&format!("new{number}"), bytes, &id)),
                Some(Deed::Replace) => Some(found(&name, bytes, &format!("other{number}"))),
            });
            if !matches!(deed, None | Some(Deed::Grow(_))) {
                broken.push(name);
            }
        }
        if added {
            now.push(found("added", 512, "added"));
            broken.push("added".to_owned());
        }
        if turned {
            now.reverse();
        }
        let spec = "images:/v".parse().unwrap();
        match judge(Place::Here(&spec), &known, &inventory(&now)) {
            Drift::None => prop_assert!(broken.is_empty() && !grows),
            Drift::Grown(layout) => {
                prop_assert!(broken.is_empty() && grows);
                prop_assert!(known.layout.grows_to(&layout));
                prop_assert_eq!(layout, grown);
            }
            Drift::Broken(problems) => {
                let named: Vec<_> = problems.iter().map(|problem| problem.name.clone()).collect();
                prop_assert_eq!(named, broken);
            }
        }
    }
}
