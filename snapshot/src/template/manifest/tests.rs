use hex_literal::hex;

use super::*;

pub(in crate::template) fn example() -> Manifest {
    let volume = |name: &str, bytes, masked, chunks, tree| VolumeManifest {
        layout: VolumeLayout { name: name.parse().unwrap(), bytes, masked },
        facts: Facts::new(),
        chunks,
        content: [0xcc; 32],
        tree,
    };
    let mut manifest = Manifest {
        name: "gold".parse().unwrap(),
        created: 0x0102,
        source: SourcePoint {
            group: GroupId([0x11; 16]),
            group_name: "erp".parse().unwrap(),
            generation: Generation([0x22; 16]),
            seq: Seq(0x0304),
            clock: 0x0506,
        },
        key: KeyId([9; 8]),
        extent: ExtentSize::from_log2(16).unwrap(),
        chunk: ExtentSize::from_log2(18).unwrap(),
        facts: Facts::new(),
        volumes: vec![
            volume("data", 1 << 20, 512, 3, Some(ObjectId([0xaa; 32]))),
            volume("log", 4096, 0, 0, None),
        ],
    };
    manifest.facts.insert("k".into(), "v".into());
    manifest.volumes[0].facts.insert("fs".into(), "jfs2".into());
    manifest.volumes[0].facts.insert("mount".into(), String::new());
    manifest
}

/// By hand from the table; the layout is the golden one of the base.
const GOLDEN: &[u8] = &hex!(
    "0000000000000102" "12" "00" "0004" "676f6c64"
    "11111111111111111111111111111111" "0003" "657270"
    "22222222222222222222222222222222" "0000000000000304" "0000000000000506"
    "00000033"
    "56474c4d" "0001" "10" "00" "00000002"
    "0004" "64617461" "0000000000100000" "00000200"
    "0003" "6c6f67" "0000000000001000" "00000000"
    "296aeb2f"
    "0001" "0001" "6b" "0001" "76"
    "0002" "0002" "6673" "0004" "6a667332" "0005" "6d6f756e74" "0000"
    "0000000000000003" "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" "0001"
    "0000"
    "0000000000000000" "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" "0000"
);

#[test]
fn golden_bytes_hold_both_ways() {
    let (clear, body) = example().encode().unwrap();
    assert_eq!(clear, Clear { level: ROOT, refs: vec![ObjectId([0xaa; 32])] });
    assert_eq!(body, GOLDEN);
    assert_eq!(Manifest::decode(&clear, GOLDEN, KeyId([9; 8])), Ok(example()));
}

#[test]
fn cuts_are_noticed_and_changes_never_panic() {
    let (clear, _) = example().encode().unwrap();
    for len in 0..GOLDEN.len() {
        assert!(Manifest::decode(&clear, &GOLDEN[..len], KeyId([9; 8])).is_err(), "cut to {len}");
    }
    for bit in 0..GOLDEN.len() * 8 {
        let mut bytes = GOLDEN.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = Manifest::decode(&clear, &bytes, KeyId([9; 8]));
        assert_ne!(found.ok(), Some(example()), "bit {bit}; the node's seal notices");
    }
}

#[test]
fn what_was_never_written_is_refused() {
    let refused = |at: usize, value: u8| {
        let (clear, mut bytes) = example().encode().unwrap();
        bytes[at] = value;
        Manifest::decode(&clear, &bytes, KeyId([9; 8])).unwrap_err().to_string()
    };
    let last = GOLDEN.len() - 1;
    for (at, value, said) in [
        (8, 21, "chunk"),
        (9, 1, "reserved"),
        (12, b'/', "name"),
        (last, 1, "0 if no chunk"),
        (last, 2, "index"),
        (last - 36, 9, "no more than it has"),
    ] {
        let error = refused(at, value);
        assert!(error.contains(said), "{at}: {error}");
    }
    let inner = Clear { level: 0, refs: vec![] };
    assert!(Manifest::decode(&inner, GOLDEN, KeyId([9; 8])).is_err());
}

#[test]
fn facts_have_limits_and_an_order() {
    let with = |key: &str, value: &str| {
        let mut manifest = example();
        manifest.volumes[1].facts.insert(key.into(), value.into());
        manifest.encode().map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(with(&"k".repeat(64), &"v".repeat(4096)), Ok(()));
    assert!(with("", "v").is_err() && with(&"k".repeat(65), "v").is_err());
    assert!(with("k", &"v".repeat(4097)).is_err());
    let mut many = example();
    many.facts = (0..=64).map(|at| (format!("{at}"), String::new())).collect();
    assert!(many.encode().is_err());
    let swapped = hex!("0002" "0001" "62" "0000" "0001" "61" "0000");
    assert!(take_facts(&mut Reader::new(&swapped)).is_err());
    let twice = hex!("0002" "0001" "61" "0000" "0001" "61" "0000");
    assert!(take_facts(&mut Reader::new(&twice)).is_err());
}

#[test]
fn facts_are_bounded_all_together() {
    let mut manifest = example();
    let facts: Facts = (0..64).map(|at| (format!("{at}"), "v".repeat(4096))).collect();
    manifest.volumes = (0..100)
        .map(|at| {
            let mut volume = manifest.volumes[1].clone();
            volume.layout.name = format!("lv{at}").parse().unwrap();
            volume.facts.clone_from(&facts);
            volume
        })
        .collect();
    let error = manifest.encode().unwrap_err().to_string();
    assert!(error.contains("16 MiB"), "{error}");
    manifest.volumes.truncate(60);
    let (clear, body) = manifest.encode().unwrap();
    assert_eq!(Manifest::decode(&clear, &body, manifest.key), Ok(manifest));
}

#[test]
fn a_tree_is_as_high_as_its_volume_needs() {
    let heights = |log2: u8, bytes: u64| height(ExtentSize::from_log2(log2).unwrap(), bytes);
    assert_eq!(heights(18, 512), 0);
    assert_eq!(heights(18, 256 << 20), 0);
    assert_eq!(heights(18, (256 << 20) + 512), 1);
    assert_eq!(heights(18, 256 << 30), 1);
    assert_eq!(heights(18, (256 << 30) + 512), 2);
    assert_eq!(heights(12, 128 << 40), LEVEL_MAX);
    assert_eq!(heights(20, 128 << 40), 2);
}
