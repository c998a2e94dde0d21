//! What a replica keeps of its past: the note of a rollback, the snapshots' catalogue, a template's
//! manifest.

use std::sync::Arc;

use vgship::apply::rolled::{self as format, Phase, Rolled};
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, GroupId, Seq, VolumeId};
use vgship_base::layout::VolumeLayout;
use vgship_base::sim::{Power, SimDisk, SimFolder};
use vgship_base::units::Span;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::seal::KeyId;
use vgship_snapshot::set::{NewSnapshot, Noted, Origin, Parts, Preserver, Snapshot, SnapshotSet};
use vgship_snapshot::template::{Facts, Manifest, ObjectId, SourcePoint, VolumeManifest};

use super::Input;
use super::edits::{edit, perhaps_summed, put, summed};
use super::state::{GROUP, key, small_layout};

/// The catalogue's file in the folder of the snapshot store.
const CATALOGUE: &str = "catalogue";

/// The note that a replica's volumes are rolled back.
pub fn rolled(data: &[u8]) {
    let bytes = perhaps_summed(data);
    if let Ok(found) = format::decode(&bytes) {
        assert_eq!(format::encode(&found), bytes, "bytes have one meaning");
    }
}

/// A note of each phase.
pub fn rolled_seeds() -> Vec<Vec<u8>> {
    let note = |phase, broken| Rolled {
        phase,
        broken,
        generation: Generation([1; 16]),
        from: Seq(9),
        base: Seq(2),
        wanted: Seq(5),
        clock: 3,
        since: 4,
    };
    let notes = [
        note(Phase::Going, false),
        note(Phase::There, false),
        note(Phase::Coming, true),
        note(Phase::Came, false),
    ];
    notes.iter().map(|note| summed(&format::encode(note))).collect()
}

/// The body of a template's root node; the first byte is how many nodes it refers to.
pub fn manifest(data: &[u8]) {
    let Some((&count, body)) = data.split_first() else { return };
    let refs = (0..count % 4).map(|number| ObjectId([number; 32])).collect();
    let key = KeyId([9; 8]);
    if let Ok(found) = Manifest::from_body(refs, body, key) {
        let (refs, again) = found.to_body().expect("what was read can be written");
        assert_eq!(Manifest::from_body(refs, &again, key), Ok(found));
    }
}

/// A manifest with facts and without.
pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let volume = |(number, layout): (u8, VolumeLayout)| VolumeManifest {
        layout,
        facts: Facts::from([("fs".to_owned(), "jfs2".to_owned())]),
        chunks: u64::from(number),
        content: [0xcc; 32],
        tree: (number > 0).then_some(ObjectId([0; 32])),
    };
    let layout = small_layout();
    let rich = Manifest {
        name: "gold".parse().expect("a name"),
        created: 1,
        source: SourcePoint {
            group: GroupId([1; 16]),
            group_name: "erp".parse().expect("a name"),
            generation: Generation([2; 16]),
            seq: Seq(3),
            clock: 4,
        },
        key: KeyId([9; 8]),
        extent: layout.extent,
        chunk: ExtentSize::from_log2(12).expect("within the limits"),
        facts: Facts::from([("os".to_owned(), String::new())]),
        volumes: (0..).zip(layout.volumes).map(volume).collect(),
    };
    let plain = Manifest { facts: Facts::new(), volumes: Vec::new(), ..rich.clone() };
    let seed = |manifest: Manifest| {
        let (refs, body) = manifest.to_body().expect("it keeps the rules");
        [&[u8::try_from(refs.len()).expect("few")], &body[..]].concat()
    };
    [rich, plain].map(seed).into()
}

/// All that a set shows: its snapshots, what they hold, its markers.
type Shown = (Vec<(Snapshot, Vec<Vec<u8>>)>, Vec<Noted>);

fn show(set: &Arc<SnapshotSet>) -> Result<Shown, SnapshotError> {
    let image = |snapshot: &Snapshot| -> Result<Vec<Vec<u8>>, SnapshotError> {
        let view = set.view(snapshot)?;
        let layout = Arc::clone(view.layout());
        let read = |(id, volume): (VolumeId, &VolumeLayout)| {
            let mut image = vec![0; usize::try_from(volume.bytes).expect("small")];
            view.read(id, 0, &mut image).map(|()| image)
        };
        layout.ids().zip(&layout.volumes).map(read).collect()
    };
    let all = set.list()?.into_iter();
    let all = all.map(|it| image(&it).map(|image| (it, image))).collect::<Result<_, _>>()?;
    Ok((all, set.markers()?))
}

/// A replica's disks, and its snapshots.
struct Store {
    folder: SimFolder,
    disks: Vec<SimDisk>,
}

impl Store {
    fn new() -> Store {
        let power = Power::default();
        let volumes = small_layout().volumes.into_iter();
        let disks = volumes.map(|it| SimDisk::volume(&power, it.bytes)).collect();
        Store { folder: SimFolder::new(&power), disks }
    }

    fn open(&self) -> Result<Arc<SnapshotSet>, SnapshotError> {
        let set = SnapshotSet::open(Parts {
            folder: Arc::new(self.folder.clone()),
            keys: key().into(),
            group: GROUP,
            layout: Arc::new(small_layout()),
            volumes: self.disks.iter().map(|it| Arc::new(it.clone()) as SharedDisk).collect(),
            pack_bytes: Some(32 << 10),
        })?;
        set.settle(Seq(u64::MAX));
        Ok(set)
    }

    /// Takes snapshots, writes, deletes; as the input has it.
    fn live(&self, input: &mut Input<'_>) -> Result<Shown, SnapshotError> {
        let set = self.open()?;
        let mut preserver = Preserver::new(Arc::clone(&set), 1, Seq::ZERO)?;
        preserver.set_reserve(0);
        let mut seq = Seq::ZERO;
        for number in 0..input.below(12) {
            let before = seq;
            seq = Seq(before.0 + 1);
            let name = format!("s{number}").parse().expect("a name");
            match input.below(5) {
                0 => _ = preserver.take(&snapshot(seq, name))?,
                1 => set.mark(&Noted { seq, name, clock: 7, quiesced: input.flag() })?,
                2 => match set.list()?.first() {
                    Some(first) if input.flag() => _ = set.delete(first.name.as_str())?,
                    Some(first) => _ = set.hold(first.name.as_str(), "somebody")?,
                    None => {}
                },
                _ => {
                    let (volume, fill) = (input.below(2), input.u8());
                    let span = Span::new(512 * input.index(16) as u64, 4096);
                    let id = VolumeId(u16::try_from(volume).expect("two volumes"));
                    let shared = preserver.shared([(id, span)].into_iter(), before, seq)?;
                    preserver.preserve(&shared)?;
                    let data = vec![fill; 4096];
                    self.disks[volume].write_at(span.offset, &data).expect("the power is on");
                }
            }
        }
        show(&set)
    }
}

fn snapshot(seq: Seq, name: vgship_base::ids::Name) -> NewSnapshot {
    NewSnapshot {
        seq,
        name,
        origin: Origin::Manual,
        guards: false,
        quiesced: false,
        torn: false,
        clock: 5,
        taken: 6,
        generation: Generation([3; 16]),
        point: seq,
    }
}

/// The life of a snapshot store, whose catalogue is changed after it was closed: what it shows then
/// is what it showed, or an error that says so.
pub fn catalogue(data: &[u8]) {
    let (mut input, store) = (Input::new(data), Store::new());
    let known = match store.live(&mut input) {
        Ok(known) => known,
        Err(error) => {
            assert!(error.is_refusal(), "the power is on: {error:?}");
            return;
        }
    };
    let whole = store.folder.file(CATALOGUE).expect("it was made").live();
    let mut bytes = whole.clone();
    for _ in 0..input.below(4) {
        edit(&mut input, &mut bytes);
    }
    put(&store.folder, CATALOGUE, &bytes);
    match store.open().and_then(|set| show(&set)) {
        Ok(found) => assert_eq!(found, known, "a changed catalogue shows something else"),
        Err(error) => {
            assert!(bytes != whole, "a whole catalogue cannot be read: {error:?}");
            assert!(!error.is_refusal() && !error.to_string().is_empty());
        }
    }
}

/// Lives of a store, with and without damage.
pub fn catalogue_seeds() -> Vec<Vec<u8>> {
    let life = [9, 3, 0, 7, 0, 0, 0, 3, 0, 8, 0, 0, 1, 1, 3, 1, 9, 0, 2, 0, 4, 0, 5, 0, 1, 2, 0];
    let then = |rest: &[u8]| [&life[..], rest].concat();
    vec![
        then(&[]),
        then(&[1, 0, 0, 0, 0, 64, 200, 3]),
        then(&[1, 2, 0, 0, 0, 70, 1]),
        then(&[2, 3, 1, 33, 1, 42, 9, 4, 1, 40, 8]),
        vec![5, 0, 1, 1, 2, 1, 0],
    ]
}
