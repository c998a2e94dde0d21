//! What the agent keeps on disk for itself: layout, ledger, checkpoint, keys and sealed files.

use std::sync::Arc;

use vgship::apply::checkpoint as format;
use vgship::capture::activity::Region;
use vgship::capture::ledger::Ledger;
use vgship::capture::ledger_format::{
    LedgerState, MARK_REGIONS_MAX, ReplicaState, decode_mark, encode_mark,
};
use vgship::receive::admit::{Point, Window};
use vgship_base::bytes::{Writer, with_checksum};
use vgship_base::disk::Disk;
use vgship_base::extent::{BitSet, ExtentSize};
use vgship_base::ids::{Generation, GroupId, PeerId, Seq, Start, VolumeId};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::record::{Chain, ResyncReason};
use vgship_base::sim::{Power, Rng, SimDisk, SimFolder};
use vgship_base::units::SECTOR;
use vgship_snapshot::seal::{DataKey, KeyEncryptionKey, Purpose, SealedReader, SealedWriter, Step};

use super::Input;
use super::edits::{edit, edit_folder, perhaps_summed, summed};

/// The group of all files here.
pub const GROUP: GroupId = GroupId([7; 16]);

/// The data key of all files here.
pub fn key() -> DataKey {
    DataKey::from_bytes([5; 32])
}

/// Two small volumes, the first with a masked head.
pub fn small_layout() -> Layout {
    let volume = |name: &str, bytes, masked| VolumeLayout {
        name: name.parse().expect("a name"),
        bytes,
        masked,
    };
    Layout {
        extent: ExtentSize::from_log2(13).expect("within the limits"),
        volumes: vec![volume("data", 64 << 10, 512), volume("log", 12 << 10, 0)],
    }
}

/// A layout manifest.
pub fn layout(data: &[u8]) {
    let bytes = perhaps_summed(data);
    if let Ok(found) = Layout::decode(&bytes) {
        assert_eq!(found.encode(), bytes, "bytes have one meaning");
        for (id, volume) in found.ids().zip(&found.volumes) {
            let (known, _) = found.find(volume.name.as_str()).expect("it is there");
            assert_eq!(known, id, "a name is used once");
        }
    }
}

/// Two layouts.
pub fn layout_seeds() -> Vec<Vec<u8>> {
    let mut larger = small_layout();
    larger.volumes[1].bytes = 128 << 40;
    [small_layout(), larger].iter().map(|layout| summed(&layout.encode())).collect()
}

/// A replica's checkpoint.
pub fn checkpoint(data: &[u8]) {
    if let Ok(point) = format::decode(&perhaps_summed(data)) {
        assert_eq!(format::decode(&format::encode(&point)), Ok(point));
        assert!(point.generation.is_some(), "a stored point belongs to a history");
    }
}

/// Points inside and outside a resync.
pub fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let window = Window { session: 3, reason: ResyncReason::Fault, extents: 9 };
    let point = Point { generation: Some(Generation([1; 16])), seq: Seq(7), ..Point::FRESH };
    let chain = Some(Chain { origin: Seq(5), hash: [2; 32] });
    let points = [Point { window: Some(window), ..point }, Point { chain, clock: 11, ..point }];
    points.iter().map(|point| summed(&format::encode(point))).collect()
}

/// Volumes that a ledger's first byte chooses, with extents of 4 KiB; the last extent may be short.
fn volumes(choice: u8) -> Layout {
    let sizes = [1 + u64::from(choice) % 9 * 25 * 8, 1 + u64::from(choice) / 9 * 8];
    let volume = |(number, sectors): (usize, u64)| VolumeLayout {
        name: format!("lv{number}").parse().expect("a name"),
        bytes: sectors * SECTOR,
        masked: 0,
    };
    let extent = ExtentSize::from_log2(12).expect("4 KiB");
    Layout { extent, volumes: sizes.into_iter().enumerate().map(volume).collect() }
}

/// A ledger's snapshot, and a sector of marks.
pub fn ledger(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let (volumes, bytes) = (volumes(choice), perhaps_summed(rest));
    if let Ok(len) = LedgerState::claimed_len(&bytes)
        && let Ok(state) = LedgerState::decode(&bytes[..len], &volumes)
    {
        let again = state.encode();
        assert_eq!(LedgerState::claimed_len(&again), Ok(again.len()));
        assert_eq!(LedgerState::decode(&again, &volumes), Ok(state));
    }
    let mut mark = rest.to_vec();
    mark.resize(508, 0);
    let mark = with_checksum(Writer::reusing(mark));
    for sector in [&bytes, &mark] {
        if let Ok(regions) = decode_mark(sector) {
            assert!((1..=MARK_REGIONS_MAX).contains(&regions.len()));
            assert_eq!(decode_mark(&encode_mark(&regions)), Ok(regions));
        }
    }
}

fn a_state(start: u16, layout: &Layout) -> LedgerState {
    let sizes = layout.volumes.iter().map(|volume| volume.bytes);
    let set = |bytes| BitSet::new(layout.extent.count(bytes));
    let mut dirty: Vec<BitSet> = sizes.clone().map(set).collect();
    let count = dirty[0].bits();
    dirty[0].insert_range(0, count.min(70));
    let (peer, met) = (PeerId([4; 32]), Start(1));
    let replica = ReplicaState { peer, met, acked: Seq(5), whole: start.is_multiple_of(2), dirty };
    LedgerState {
        group: GROUP,
        generation: Generation([2; 16]),
        lineage: vec![(Generation([3; 16]), Seq(77))],
        start: Start(start),
        clean: false,
        volumes: sizes.collect(),
        replicas: vec![replica],
        marked: vec![Region { volume: VolumeId(0), index: 1 }],
    }
}

/// A snapshot and marks.
pub fn ledger_seeds() -> Vec<Vec<u8>> {
    let state = a_state(9, &volumes(31));
    let empty = LedgerState {
        replicas: vec![],
        marked: vec![],
        lineage: vec![],
        ..a_state(1, &volumes(0))
    };
    let mark = encode_mark(&[Region { volume: VolumeId(7), index: 3 }]);
    let with = |choice: u8, bytes: &[u8]| [&[choice], &summed(bytes)[..]].concat();
    vec![
        with(31, &state.encode()),
        with(0, &empty.encode()),
        [&[0], &mark[..24]].concat(),
        with(0, &mark),
    ]
}

/// The life of a ledger: checkpoints and marks, then damage or a power cut, then a start.
pub fn ledger_file(data: &[u8]) {
    let (mut input, sizes) = (Input::new(data), volumes(31));
    let power = Power::default();
    let folder = SimFolder::new(&power);
    let shared = || Arc::new(folder.clone());
    // What must be found: the last state, the marks behind it, and whether doubt was noted.
    let mut known: Option<(LedgerState, bool)> = None;
    let mut start = 0;
    let mut edited = false;
    for _ in 0..6 {
        let (mut ledger, state) = match Ledger::load(shared(), &sizes) {
            Ok(found) => found,
            Err(error) => {
                assert!(edited, "a ledger that nobody damaged cannot be read: {error}");
                return;
            }
        };
        if !edited {
            compare(known.as_ref(), state.as_ref());
        }
        for _ in 0..input.below(6) {
            match input.below(4) {
                0 | 1 => {
                    start += 1;
                    let state = a_state(start, &sizes);
                    if let Err(error) = ledger.checkpoint(&state) {
                        return assert!(edited, "the power is on: {error}");
                    }
                    known = Some((state, false));
                }
                2 => {
                    let index = input.below(5) as u64;
                    let region = Region { volume: VolumeId(1), index };
                    if ledger.mark(&[region]).is_ok() {
                        known.as_mut().expect("written before").0.marked.push(region);
                    }
                }
                _ => {
                    ledger.doubt().expect("the power is on");
                    known = known.map(|(state, _)| (state, true));
                }
            }
        }
        if input.flag() {
            folder.power_cut(&mut Rng::new(input.u8().into()));
        }
        for _ in 0..input.below(3) {
            edit_folder(&mut input, &folder);
            edited = true;
        }
        if input.is_empty() {
            break;
        }
    }
}

/// What was made durable is what is found.
fn compare(known: Option<&(LedgerState, bool)>, found: Option<&LedgerState>) {
    let Some((known, doubted)) = known else { return assert_eq!(found, None) };
    let found = found.expect("a checkpoint is durable");
    assert_eq!((found.start, &found.lineage), (known.start, &known.lineage));
    assert!(known.marked.iter().all(|region| found.marked.contains(region)), "a mark is lost");
    let dirty = &found.replicas[0].dirty;
    match doubted {
        true => assert!(dirty.iter().all(|set| set.count() == set.bits()), "doubt is forgotten"),
        false => assert_eq!(*dirty, known.replicas[0].dirty),
    }
}

/// Lives of a ledger.
pub fn ledger_file_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![4, 0, 2, 1, 0, 2, 2, 1, 7, 0, 3, 2, 4, 0, 3, 1, 9, 0, 2, 0, 2, 3, 0, 0],
        vec![2, 0, 2, 1, 0, 1, 0, 3, 0, 0, 0, 30, 5, 1],
        vec![3, 0, 0, 3, 0, 2, 0, 2, 1, 0, 1, 2, 0, 1, 5, 0],
    ]
}

/// Keys and sealed files, as they are and changed.
pub fn sealed(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => {
            let file = input.rest();
            if let Ok(kek) = KeyEncryptionKey::from_file_bytes(file) {
                assert_eq!(kek.to_file_bytes()[..64].to_vec(), file[..64].to_ascii_lowercase());
            }
        }
        1 => wrapped_key(&mut input),
        2 => {
            let disk = SimDisk::file(&Power::default());
            disk.write_at(0, &perhaps_summed(input.rest())).expect("the power is on");
            // It names a key by a hash that nobody can guess; what opens has no frames.
            if let Ok(mut file) = SealedReader::open(Box::new(disk), &key(), Purpose::Pack, GROUP) {
                assert!(file.resume().expect("the power is on").is_none());
            }
        }
        _ => sealed_file(&mut input),
    }
}

fn wrapped_key(input: &mut Input<'_>) {
    let kek = KeyEncryptionKey::from_file_bytes(&[b'a'; 64]).expect("a key file");
    let whole = kek.wrap(GROUP, &key()).expect("the system has random bytes");
    let mut bytes = whole.clone();
    for _ in 0..input.below(4) {
        edit(input, &mut bytes);
    }
    match kek.unwrap(GROUP, &bytes) {
        Ok(found) => assert!(found.id() == key().id() && bytes == whole, "a changed key opens"),
        Err(_) => assert_ne!(bytes, whole),
    }
}

/// Frames come back as they were sealed and in order, or not at all.
fn sealed_file(input: &mut Input<'_>) {
    let disk = SimDisk::file(&Power::default());
    let create = SealedWriter::create(Box::new(disk.clone()), &key(), Purpose::Spill, GROUP);
    let mut writer = create.expect("the power is on");
    let mut bodies = Vec::new();
    for number in 0..input.below(8) {
        let len = 1 + input.index(3000);
        let body = vec![u8::try_from(number).expect("few"); len];
        let fill = |out: &mut Writer| _ = out.put(&body);
        writer.append(len, fill).expect("the power is on");
        bodies.push(body);
        if input.flag() {
            writer.flush().expect("the power is on");
        }
    }
    let mut bytes = disk.live();
    let whole = bytes.clone();
    for _ in 0..input.below(5) {
        edit(input, &mut bytes);
    }
    let changed = SimDisk::file(&Power::default());
    changed.write_at(0, &bytes).expect("the power is on");
    let Ok(mut reader) = SealedReader::open(Box::new(changed), &key(), Purpose::Spill, GROUP)
    else {
        return assert_ne!(bytes, whole);
    };
    let mut found = Vec::new();
    loop {
        let frame = match reader.step().expect("the power is on") {
            Step::Frame(frame) => frame,
            Step::End(_) => match reader.resume().expect("the power is on") {
                Some(frame) => frame,
                None => break,
            },
        };
        let number = frame.placed.number;
        assert!(found.last().is_none_or(|last| *last < number), "frames out of order");
        assert_eq!(Some(&frame.body), bodies.get(usize::try_from(number).expect("few")));
        found.push(number);
    }
    assert!(bytes != whole || found.len() == bodies.len(), "frames of a whole file are lost");
}

/// A key file, a wrapped key, a header, and files with frames.
pub fn sealed_seeds() -> Vec<Vec<u8>> {
    let kek = KeyEncryptionKey::from_file_bytes(&[b'7'; 64]).expect("a key file");
    let disk = SimDisk::file(&Power::default());
    let file = SealedWriter::create(Box::new(disk.clone()), &key(), Purpose::Pack, GROUP);
    drop(file.expect("the power is on"));
    vec![
        [&[0], &kek.to_file_bytes()[..]].concat(),
        vec![1, 1, 0, 0, 0, 0, 50, 0, 3],
        vec![1],
        [&[2], &summed(&disk.live()[..68])[..]].concat(),
        vec![3, 4, 0, 9, 1, 7, 0, 0, 0, 60, 1, 5, 5, 0, 2, 3, 1, 0, 3, 1, 0, 5, 2],
        vec![3, 3, 1, 0, 1, 1, 0, 0, 2, 0, 1, 1, 0, 0, 0, 2, 9, 4],
        vec![3, 6, 0, 9, 0, 9, 9, 0, 1, 0, 0, 2, 0, 0, 2, 0, 0, 2, 2, 2, 1, 0, 9],
    ]
}
