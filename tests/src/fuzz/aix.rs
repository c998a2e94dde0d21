//! Disks of AIX volume groups: images of the test writer, changed where they say something.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, OnceLock};

use vgship::group::aix::{AixVolume, LvState, Member, Vg, assemble, probe};
use vgship_base::disk::{Disk, SharedDisk};
use vgship_test_images::{
    BitOrder, CopyState, DiskImage, LvRecipe, Placement, Plan, Recipe, disk_images,
};

use super::Input;

/// A changed image that cannot be written.
struct Patched {
    bytes: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Disk for Patched {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into.fill(0);
        let to = |bytes: u64| usize::try_from(bytes).expect("within a buffer");
        for (at, piece) in &self.pieces {
            let first = (*at).max(offset);
            let last = (at + piece.len() as u64).min(offset + into.len() as u64);
            if first < last {
                let from = &piece[to(first - at)..to(last - at)];
                into[to(first - offset)..to(last - offset)].copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// VGs that are changed: small, mirrored over three disks, and with damage and stale partitions.
fn recipes() -> Vec<Recipe> {
    let lv = |name, lps, placement| LvRecipe::new(name, lps, placement);
    let plain = Recipe {
        disks: vec![8],
        lvs: vec![
            lv("datalv", 3, Placement::Contiguous(0)),
            lv("loglv", 2, Placement::Scattered(3)),
        ],
        ..Recipe::default()
    };
    let mirrored = Recipe {
        disks: vec![6, 6, 6],
        lvs: vec![
            lv("mirrorlv", 3, Placement::Contiguous(0)).mirrored(2),
            lv("widelv", 4, Placement::Spanning),
        ],
        ..Recipe::default()
    };
    let worn = Recipe {
        disks: vec![6, 6],
        factor: 2,
        bit_order: BitOrder::ByteHigh,
        stale: vec![(1, 0), (0, 2)],
        damaged: vec![((0, 1), CopyState::Older)],
        ..mirrored.clone()
    };
    vec![plain, mirrored, worn]
}

fn images() -> &'static [Vec<DiskImage>] {
    static IMAGES: OnceLock<Vec<Vec<DiskImage>>> = OnceLock::new();
    let make = |recipe: &Recipe| disk_images(recipe, &Plan::new(recipe).expect("the LVs fit"));
    IMAGES.get_or_init(|| recipes().iter().map(make).collect())
}

/// Changes one field of one structure, on one disk or on all.
fn change(input: &mut Input<'_>, disks: &mut [Patched]) {
    let disk = input.below(disks.len());
    let all = input.flag();
    let piece = input.below(disks[disk].pieces.len());
    let len = disks[disk].pieces[piece].1.len();
    let at = place(input, len);
    let (width, value) = ([1, 2, 4, 8][input.below(4)], input.odd().to_be_bytes());
    let end = len.min(at + width);
    let set = |disk: &mut Patched| {
        if let Some((_, bytes)) = disk.pieces.get_mut(piece)
            && let Some(field) = bytes.get_mut(at..end)
        {
            field.copy_from_slice(&value[8 - (end - at)..]);
        }
    };
    match all {
        true => disks.iter_mut().for_each(set),
        false => set(&mut disks[disk]),
    }
}

/// Where the fields of a structure are, roughly: in its head, in tables of entries, at its end.
fn place(input: &mut Input<'_>, len: usize) -> usize {
    let at = match input.below(6) {
        0 => input.below(64),
        1 => 512 + 2 * input.below(256),
        2 => 17 * 512 + 2 * input.below(256),
        3 => (17 + 64 * input.below(8)) * 512 + 2 * input.below(64),
        4 => len.saturating_sub(33 * 512) + input.below(256),
        _ => len.saturating_sub(8) + input.below(8),
    };
    at.min(len - 1)
}

/// A changed VG is refused with a reason, or served without harm: within its disks, no partition
/// to two LVs.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let base = &images()[input.below(images().len())];
    let patched = |image: &DiskImage| Patched { bytes: image.bytes, pieces: image.pieces.clone() };
    let mut disks: Vec<Patched> = base.iter().map(patched).collect();
    for _ in 0..input.below(12) {
        change(&mut input, &mut disks);
    }
    if input.flag() {
        let disk = input.below(disks.len());
        disks[disk].bytes = u64::from(input.u16()) << input.below(12);
    }
    let gone = input.below(8);
    let mut members: Vec<Member> = Vec::new();
    for (index, disk) in disks.into_iter().enumerate().filter(|(index, _)| *index != gone) {
        let disk: SharedDisk = Arc::new(disk);
        if let Ok(member) = probe(&format!("hdisk{index}"), disk) {
            members.push(member);
        }
    }
    let Ok(vg) = assemble(&members) else { return };
    let again = assemble(&members).expect("as before");
    assert_eq!((&again.lvs, &again.pvs, &again.notes), (&vg.lvs, &vg.pvs, &vg.notes));
    check(&vg, &members);
}

fn check(vg: &Vg, members: &[Member]) {
    let mut used = BTreeSet::new();
    for lv in &vg.lvs {
        let volume = match (AixVolume::open(vg, lv), &lv.state) {
            (Err(_), LvState::Refused(_)) => continue,
            (Ok(volume), LvState::Good | LvState::Degraded(_)) => volume,
            _ => panic!("{} is refused and served", lv.name),
        };
        assert_eq!(lv.bytes, lv.lps.len() as u64 * vg.pp_bytes(), "{} lacks partitions", lv.name);
        for copy in lv.lps.iter().flatten() {
            let end = copy.offset + vg.pp_bytes();
            assert!(end <= members[copy.disk].disk.len(), "{} leaves its disk", lv.name);
            assert!(used.insert((copy.disk, copy.offset)), "{} shares a partition", lv.name);
        }
        let last = volume.len().checked_sub(512).expect("a partition has 1 MiB");
        for at in [0, last] {
            volume.read_at(at, &mut [0; 512]).expect("a served LV can be read");
        }
        assert!(volume.read_at(last + 1, &mut [0; 512]).is_err(), "reads behind the end");
    }
}

/// Unchanged VGs, one without a disk, and some changes.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0],
        vec![1],
        vec![2],
        vec![1, 0, 0, 1],
        vec![0, 1, 0, 0, 7, 1, 5, 0, 7, 0, 0, 9],
        vec![1, 2, 1, 1, 6, 0, 12, 2, 4, 9, 0, 1, 8, 2, 30, 1, 3, 0, 0, 9],
        vec![2, 1, 0, 0, 2, 0, 14, 2, 7, 0, 1, 0, 0x40, 0, 8, 9],
    ]
}
