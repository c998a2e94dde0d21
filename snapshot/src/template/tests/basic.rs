use proptest::prelude::*;

use super::*;

#[test]
fn a_template_reads_as_what_it_was_made_of() {
    let store = MemoryObjects::default();
    let disks = [disk(10, &[1, 2, 0, 1, 3]), disk(3, &[])];
    let made = make(&store, "gold", &disks).unwrap();
    assert_eq!(made.progress.done, 13 * CHUNK);
    assert_eq!(made.progress.data, 4 * CHUNK);
    let template = opened(&store, "gold");
    assert_eq!(template.root(), made.root);
    for (volume, disk) in (0..).zip(&disks) {
        let mut bytes = vec![0; usize::try_from(disk.len()).unwrap()];
        disk.read_at(0, &mut bytes).unwrap();
        assert!(content(&template, volume) == bytes, "volume {volume}");
    }
    assert!(is_whole(&store, "gold"));
    let manifest = template.manifest();
    assert_eq!((manifest.volumes[0].chunks, manifest.volumes[1].tree), (4, None));
    assert_eq!(manifest.layout(), layout(&[10 * CHUNK, 3 * CHUNK]));
    assert_eq!(manifest.key, key().id());
    assert!(template.volume(VolumeId(2)).is_none());
}

#[test]
fn a_template_is_never_written_and_holes_are_told() {
    let store = MemoryObjects::default();
    make(&store, "gold", &[disk(3000, &[0, 0, 1, 2])]).unwrap();
    let disk = opened(&store, "gold").volume(VolumeId(0)).unwrap();
    assert!(disk.write_at(0, b"x").is_err() && disk.zero_at(0, 1).is_err());
    assert!(disk.flush().is_ok() && disk.read_at(3000 * CHUNK - 1, &mut [0; 2]).is_err());
    let end = 3000 * CHUNK;
    assert_eq!(disk.allocation(0, end).unwrap(), (Allocation::Hole, 2 * CHUNK));
    assert_eq!(disk.allocation(CHUNK, CHUNK + 7).unwrap(), (Allocation::Hole, CHUNK + 7));
    assert_eq!(disk.allocation(2 * CHUNK + 5, end).unwrap(), (Allocation::Data, 4 * CHUNK));
    assert_eq!(disk.allocation(4 * CHUNK, end).unwrap(), (Allocation::Hole, end));
}

#[test]
fn a_chunk_is_stored_once_in_all_templates() {
    let store = MemoryObjects::default();
    let texts: Vec<u64> = (1..=1000).collect();
    make(&store, "one", &[disk(1000, &texts)]).unwrap();
    let alone = store.bytes("objects/");
    let objects = |store: &MemoryObjects| {
        store.keys().iter().filter(|key| key.starts_with("objects/")).count()
    };
    let before = objects(&store);
    let made = make(&store, "same", &[disk(1000, &texts)]).unwrap();
    assert!(made.progress.stored < 1000, "nothing but a root: {}", made.progress.stored);
    assert_eq!(objects(&store), before + 1);
    let mut changed = texts.clone();
    changed[500] = 2000;
    let made = make(&store, "changed", &[disk(1000, &changed), disk(1000, &changed)]).unwrap();
    // One chunk, one node and the root; nothing for the second volume.
    assert!(made.progress.stored < 60_000, "{}", made.progress.stored);
    assert!(store.bytes("objects/") < alone + 65_000);
    let (one, same) = (opened(&store, "one"), opened(&store, "same"));
    assert_eq!(one.manifest().volumes[0].tree, same.manifest().volumes[0].tree);
    assert!(["one", "same", "changed"].into_iter().all(|name| is_whole(&store, name)));
}

#[test]
fn what_another_key_sealed_is_neither_shared_nor_opened() {
    let store = MemoryObjects::default();
    make(&store, "one", &[disk(4, &[1, 2, 3, 4])]).unwrap();
    let other = DataKey::from_bytes([6; 32]);
    let (sizes, disks) = (layout(&[4 * CHUNK]), [disk(4, &[1, 2, 3, 4])]);
    let made = create(&store, &other, &name("two"), &disks, &sizes, &meta(1), &mut go_on).unwrap();
    assert!(made.progress.stored > 4 * 2048);
    let refused = Template::open(&shared(&store), &key(), &name("two")).err().unwrap();
    assert!(matches!(refused, TemplateError::Sealed { .. }) && !refused.is_damage());
    let listed = list(&shared(&store)).unwrap();
    let keys: Vec<_> = listed.iter().map(|it| (it.name.as_str(), it.key)).collect();
    assert_eq!(keys, [("one", Some(key().id())), ("two", Some(other.id()))]);
}

/// Goal: a huge volume costs what it holds.
#[test]
fn holes_cost_next_to_nothing() {
    let store = MemoryObjects::default();
    let volume = Sparse::new(128 << 40);
    let blocks = [0, 1, 1023, 1024, 1 << 20, (1 << 30) + 5, (1 << 35) - 1];
    for (block, text) in blocks.into_iter().zip(1..) {
        volume.fill(block, text);
    }
    let volume = Arc::new(volume);
    let mut small = meta(1);
    small.chunk = ExtentSize::from_log2(20).unwrap();
    let (sizes, disks) = (layout(&[128 << 40]), [Arc::clone(&volume) as SharedDisk]);
    let (key, gold) = (key(), name("gold"));
    let made = create(&store, &key, &gold, &disks, &sizes, &small, &mut go_on).unwrap();
    assert_eq!(*volume.reads.lock().unwrap(), 6, "as many as chunks that hold something");
    assert!(made.progress.stored < 100_000, "{}", made.progress.stored);
    assert_eq!(made.progress.done, 128 << 40);
    let template = opened(&store, "gold");
    let disk = template.volume(VolumeId(0)).unwrap();
    for (block, text) in blocks.into_iter().zip(1..) {
        let mut found = [1; BLOCK];
        disk.read_at(block * CHUNK, &mut found).unwrap();
        assert_eq!(found, block_of(text), "{block}");
    }
    let first = disk.allocation(0, disk.len()).unwrap();
    assert_eq!(first, (Allocation::Data, 1 << 20));
    assert_eq!(disk.allocation(3 << 20, disk.len()).unwrap(), (Allocation::Data, 5 << 20));
    assert_eq!(disk.allocation(5 << 20, disk.len()).unwrap(), (Allocation::Hole, 4 << 30));
    assert!(template.manifest().volumes[0].tree.is_some());
    assert_eq!(template.manifest().height(&template.manifest().volumes[0]), 2);
}

#[test]
fn a_large_stretch_becomes_several_packs() {
    let store = MemoryObjects::default();
    let volume = Sparse::new(48 << 20);
    let noise = |block: u64| {
        let mut bytes = [0; BLOCK];
        blake3::Hasher::new().update(&block.to_be_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    volume.blocks.lock().unwrap().extend((0..48 << 8).map(|block| (block, noise(block))));
    let (sizes, disks) = (layout(&[48 << 20]), [volume.shared()]);
    let mut large = meta(1);
    large.chunk = ExtentSize::from_log2(16).unwrap();
    create(&store, &key(), &name("gold"), &disks, &sizes, &large, &mut go_on).unwrap();
    assert_eq!(keys_of(&store, Kind::Pack).len(), 3);
    assert!(is_whole(&store, "gold"));
    let volume = opened(&store, "gold").volume(VolumeId(0)).unwrap();
    for block in [0, 1, 15, 16, 17, 5000, 4999, 5016, 12_287] {
        let mut found = [0; BLOCK];
        volume.read_at(block * CHUNK, &mut found).unwrap();
        assert!(found == noise(block), "block {block}");
    }
}

#[test]
fn a_masked_head_is_zero_and_the_last_chunk_may_be_short() {
    let store = MemoryObjects::default();
    let volume = Sparse::new(2 * CHUNK);
    volume.fill(0, 1);
    volume.fill(1, 2);
    let mut masked = layout(&[CHUNK + 512]);
    masked.volumes[0].masked = 512;
    let disks = [volume.shared()];
    create(&store, &key(), &name("gold"), &disks, &masked, &meta(1), &mut go_on).unwrap();
    let mut expected = [block_of(1), block_of(2)].concat();
    expected.truncate(4096 + 512);
    expected[..512].fill(0);
    assert!(content(&opened(&store, "gold"), 0) == expected);
    assert!(is_whole(&store, "gold"));
}

#[test]
fn what_does_not_fit_together_is_refused_before_anything_is_written() {
    let store = MemoryObjects::default();
    let disks = [disk(2, &[1])];
    let refused = |layout: &Layout, meta: &Meta| {
        let made = create(&store, &key(), &name("gold"), &disks, layout, meta, &mut go_on);
        made.unwrap_err().to_string()
    };
    let short = refused(&layout(&[3 * CHUNK]), &meta(1));
    assert!(short.contains("volume lv0 has 8192 bytes"), "{short}");
    let number = refused(&layout(&[CHUNK, CHUNK]), &meta(2));
    assert!(number.contains("2 volumes, 1 disks"), "{number}");
    assert!(refused(&layout(&[CHUNK]), &meta(2)).contains("2 sets of facts"));
    let mut large = meta(1);
    large.facts.insert(String::new(), String::new());
    assert!(refused(&layout(&[CHUNK]), &large).contains("manifest"));
    assert_eq!(store.puts(), 0);
}

#[test]
fn a_name_is_taken_once_and_free_again_when_deleted() {
    let store = MemoryObjects::default();
    make(&store, "gold", &[disk(2, &[1])]).unwrap();
    let taken = make(&store, "gold", &[disk(2, &[2])]);
    assert!(matches!(taken, Err(TemplateError::Taken { .. })));
    delete(&store, &name("gold")).unwrap();
    assert!(matches!(delete(&store, &name("gold")), Err(TemplateError::Absent(_))));
    assert!(Template::open(&shared(&store), &key(), &name("gold")).is_err());
    assert!(list(&shared(&store)).unwrap().is_empty());
    make(&store, "gold", &[disk(2, &[2])]).unwrap();
    assert!(content(&opened(&store, "gold"), 0).starts_with(&block_of(2)));
    assert_eq!(store.keys().iter().filter(|key| key.starts_with("intents/")).count(), 0);
}

#[test]
fn a_failing_volume_is_named() {
    struct Failing;
    impl Disk for Failing {
        fn len(&self) -> u64 {
            1 << 20
        }
        fn read_at(&self, offset: u64, _: &mut [u8]) -> io::Result<()> {
            if offset == 40_960 { Err(io::Error::other("broken")) } else { Ok(()) }
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = make(&MemoryObjects::default(), "gold", &[Arc::new(Failing)]).unwrap_err();
    assert_eq!(error.to_string(), "cannot read volume lv0 at byte 40960");
}

/// Goal: making goes on where it was broken off, whoever broke it off.
/// Method: the store fails after each possible number of steps, or progress says so; then it is
/// made again.
#[test]
fn what_was_broken_off_is_used_again() {
    let texts: Vec<u64> = (1..=2500).collect();
    let disks = [disk(2500, &texts)];
    let whole = {
        let store = MemoryObjects::default();
        make(&store, "gold", &disks).unwrap();
        store.bytes("objects/")
    };
    let mut saved = 0;
    for steps in (0..).step_by(5) {
        let store = MemoryObjects::default();
        let first = make(&store.failing_after(steps), "gold", &disks);
        let there = store.bytes("objects/");
        if first.is_ok() {
            break;
        }
        match make(&store, "gold", &disks) {
            Ok(made) => saved = saved.max(whole - made.progress.stored.min(whole)),
            Err(TemplateError::Taken { .. }) => assert_eq!(there, whole),
            Err(error) => panic!("{error}"),
        }
        assert!(is_whole(&store, "gold"), "{steps} steps");
        assert!(store.bytes("objects/") <= whole + whole / 2, "{steps} steps");
    }
    assert!(saved > whole * 9 / 10, "{saved} of {whole}");
    let (store, mut told) = (MemoryObjects::default(), 0);
    let mut stop = |_: &Progress| {
        told += 1;
        if told == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let (sizes, meta) = (layout(&[2500 * CHUNK]), meta(1));
    let stopped = create(&store, &key(), &name("gold"), &disks, &sizes, &meta, &mut stop);
    assert!(matches!(stopped, Err(TemplateError::Stopped)));
    assert!(make(&store, "gold", &disks).unwrap().progress.stored < whole / 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever volumes hold, their template holds the same.
    #[test]
    fn reading_equals_the_model(
        volumes in prop::collection::vec(
            (1u64..5000, prop::collection::btree_map(0u64..5000, 0u64..40, 0..30)),
            1..4,
        ),
        reads in prop::collection::vec((0usize..3, 0u64..5000 * CHUNK, 0usize..20_000), 0..20),
        log2 in 12u8..=16,
    ) {
        let store = MemoryObjects::default();
        let disks: Vec<SharedDisk> = volumes.iter().map(|(blocks, texts)| {
            let disk = Sparse::new(blocks * CHUNK);
            for (block, text) in texts.range(..blocks) {
                disk.fill(*block, *text);
            }
            disk.shared()
        }).collect();
        let sizes: Vec<u64> = disks.iter().map(|disk| disk.len()).collect();
        let mut meta = meta(disks.len());
        meta.chunk = ExtentSize::from_log2(log2).unwrap();
        create(&store, &key(), &name("gold"), &disks, &layout(&sizes), &meta, &mut go_on).unwrap();
        let template = opened(&store, "gold");
        for (volume, at, len) in reads {
            let volume = volume % disks.len();
            let at = at % sizes[volume];
            let len = len.min(usize::try_from(sizes[volume] - at).unwrap());
            let (mut found, mut expected) = (vec![1; len], vec![2; len]);
            let id = VolumeId(u16::try_from(volume).unwrap());
            template.volume(id).unwrap().read_at(at, &mut found).unwrap();
            disks[volume].read_at(at, &mut expected).unwrap();
            prop_assert!(found == expected, "volume {} at {}", volume, at);
        }
        prop_assert!(is_whole(&store, "gold"));
    }
}
