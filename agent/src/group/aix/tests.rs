//! The parser against the writer of `vgship-test-images`, which shares no offset with it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::io::FileDisk;
use vgship_test_images::{
    BitOrder, CopyState, ExpectedLv, LvRecipe, Placement, Recipe, Written, content, fill_lv, write,
};

use super::*;

fn members(paths: &[impl AsRef<Path>]) -> Result<Vec<Member>, ProbeError> {
    let open = |path: &Path| -> SharedDisk { Arc::new(FileDisk::open(path).unwrap()) };
    paths.iter().map(|path| probe(&path.as_ref().to_string_lossy(), open(path.as_ref()))).collect()
}

fn read_vg(paths: &[impl AsRef<Path>]) -> Result<Vg, AixError> {
    assemble(&members(paths).expect("the first records can be read"))
}

/// The writer's map and the parser's, in a form that can be compared.
fn same_map(expected: &ExpectedLv, found: &Lv) -> bool {
    let expected = expected
        .lps
        .iter()
        .map(|lp| lp.iter().map(|place| (place.disk, place.offset)).collect::<BTreeSet<_>>());
    let found = found
        .lps
        .iter()
        .map(|lp| lp.iter().map(|copy| (copy.disk, copy.offset)).collect::<BTreeSet<_>>());
    expected.eq(found)
}

fn assert_reads_as_written(written: &Written, vg: &Vg) {
    assert_eq!(vg.vgid.0, written.vgid);
    assert_eq!(vg.pp_bytes(), written.pp_bytes);
    assert_eq!(vg.lvs.len(), written.lvs.len());
    for (expected, found) in written.lvs.iter().zip(&vg.lvs) {
        assert_eq!(found.name, expected.name);
        assert_eq!(found.bytes, written.bytes(expected), "{}", found.name);
        assert!(same_map(expected, found), "{}", found.name);
    }
}

fn lv<'a>(vg: &'a Vg, name: &str) -> &'a Lv {
    vg.lvs.iter().find(|lv| lv.name == name).expect("an LV of this name")
}

/// Two disks, with an LV of every kind.
fn example() -> Recipe {
    Recipe {
        disks: vec![24, 20],
        lvs: vec![
            LvRecipe::new("mirrored", 4, Placement::Contiguous(0)).mirrored(2),
            LvRecipe::new("unused", 0, Placement::Contiguous(0)),
            LvRecipe::new("scattered", 9, Placement::Scattered(3)),
            LvRecipe::new("spanning", 6, Placement::Spanning),
            LvRecipe::new("plain", 3, Placement::Contiguous(1)),
        ],
        ..Recipe::default()
    }
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let placement = prop_oneof![
        (0usize..4).prop_map(Placement::Contiguous),
        any::<u64>().prop_map(Placement::Scattered),
        Just(Placement::Spanning),
    ];
    let lv = (0u16..7, 1u16..4, placement);
    let lvs = prop::collection::vec(lv, 0..12);
    let shape = (1usize..6, 1u16..5, 60u16..90, 20u8..22, 1u16..31);
    (any::<u64>(), shape, lvs).prop_map(|(seed, (disks, factor, pps, pp_log2, version), lvs)| {
        let lvs = lvs.into_iter().enumerate().map(|(at, (lps, copies, placement))| LvRecipe {
            name: format!("lv{at:02}_{}", seed % 10),
            lps,
            copies,
            placement,
        });
        let lvs = lvs.collect();
        Recipe {
            seed,
            pp_log2,
            disks: vec![pps * 4; disks],
            lvs,
            version,
            factor,
            ..Recipe::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever VG the writer makes, the parser finds each partition where it was put.
    #[test]
    fn every_recipe_is_read_as_it_was_written(recipe in recipes()) {
        let place = tempfile::tempdir().unwrap();
        let written = write(&recipe, place.path()).unwrap();
        let vg = read_vg(&written.disks).unwrap();
        assert_reads_as_written(&written, &vg);
        for lv in &vg.lvs {
            prop_assert_eq!(&lv.state, &LvState::Good);
        }
        prop_assert!(vg.notes.is_empty(), "{:?}", vg.notes);
        // The order in which disks are named does not matter.
        let mut reversed = written.disks.clone();
        reversed.reverse();
        prop_assert_eq!(read_vg(&reversed).unwrap().lvs.len(), vg.lvs.len());
    }
}

#[test]
fn an_lv_reads_its_content_from_wherever_it_lies() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&example(), place.path()).unwrap();
    for (expected, seed) in written.lvs.iter().zip(100..) {
        fill_lv(&written, expected, seed).unwrap();
    }
    let vg = read_vg(&written.disks).unwrap();
    for (found, seed) in vg.lvs.iter().zip(100..) {
        let volume = AixVolume::open(&vg, found).unwrap();
        assert_eq!(volume.masked().unwrap(), 512);
        let mut bytes = vec![0; usize::try_from(volume.len()).unwrap()];
        volume.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes[512..], content(seed, 0, bytes.len())[512..], "{}", found.name);
        let mut across = [0; 5000];
        volume.read_at((1 << 20) - 2500, &mut across).unwrap();
        assert_eq!(across[..], content(seed, (1 << 20) - 2500, 5000));
        assert!(volume.read_at(volume.len() - 1, &mut [0; 2]).is_err());
        assert!(volume.write_at(u64::MAX, &[0; 2]).is_err());
    }
}

#[test]
fn a_write_lands_on_every_copy_and_nowhere_else() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&example(), place.path()).unwrap();
    let vg = read_vg(&written.disks).unwrap();
    for expected in &written.lvs {
        let mut model: Vec<Vec<u8>> =
            written.disks.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let volume = AixVolume::open(&vg, lv(&vg, &expected.name)).unwrap();
        let (offset, data) = (written.pp_bytes * 2 - 3000, content(8, 0, 7000));
        volume.write_at(offset, &data).unwrap();
        volume.zero_at(offset + 2900, 200).unwrap();
        volume.flush().unwrap();
        for (at, byte) in (offset..).zip(&data) {
            let zeroed = (offset + 2900..offset + 3100).contains(&at);
            let lp = usize::try_from(at / written.pp_bytes).unwrap();
            for copy in &expected.lps[lp] {
                let at = usize::try_from(copy.offset + at % written.pp_bytes).unwrap();
                model[copy.disk][at] = if zeroed { 0 } else { *byte };
            }
        }
        for (path, model) in written.disks.iter().zip(&model) {
            assert!(std::fs::read(path).unwrap() == *model, "{}", expected.name);
        }
    }
}

#[test]
fn a_torn_or_older_descriptor_area_loses() {
    let copies = [(0, 0), (0, 1), (1, 0)];
    for damage in [CopyState::Torn, CopyState::Older] {
        for bad in copies {
            let place = tempfile::tempdir().unwrap();
            let recipe = Recipe { damaged: vec![(bad, damage)], ..example() };
            let written = write(&recipe, place.path()).unwrap();
            let vg = read_vg(&written.disks).unwrap();
            assert_reads_as_written(&written, &vg);
            // A disk that holds only an older area missed changes: its copies are not read.
            let behind = bad == (1, 0) && damage == CopyState::Older;
            assert_eq!(vg.pvs[1].outdated, behind, "{bad:?} {damage:?}");
            let mirrored = lv(&vg, "mirrored");
            let fresh = |lp: &Vec<MirrorCopy>| lp.iter().filter(|copy| copy.fresh).count();
            assert!(mirrored.lps.iter().all(|lp| fresh(lp) == if behind { 1 } else { 2 }));
        }
    }
    let place = tempfile::tempdir().unwrap();
    let damaged = copies.map(|copy| (copy, CopyState::Torn)).to_vec();
    let written = write(&Recipe { damaged, ..example() }, place.path()).unwrap();
    let error = read_vg(&written.disks).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("torn"), "{error}");
}

#[test]
fn a_damaged_first_record_is_replaced_by_its_backup() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&example(), place.path()).unwrap();
    let disk = OpenOptions::new().write(true).open(&written.disks[0]).unwrap();
    disk.write_all_at(&[0; 512], 7 * 512).unwrap();
    let vg = read_vg(&written.disks).unwrap();
    assert_reads_as_written(&written, &vg);
    assert!(vg.notes[0].contains("sector 7"), "{:?}", vg.notes);
    disk.write_all_at(&[0; 512], 70 * 512).unwrap();
    assert!(matches!(members(&written.disks), Err(ProbeError::NoRecord { .. })));
    disk.write_all_at(&[0; 512], 0).unwrap();
    assert!(matches!(members(&written.disks), Err(ProbeError::NotAix(_))));
}

#[test]
fn a_missing_disk_leaves_mirrors_degraded_and_the_rest_refused() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&example(), place.path()).unwrap();
    for left in 0..2 {
        let vg = read_vg(&written.disks[left..=left]).unwrap();
        assert!(vg.notes.iter().any(|note| note.contains("not at hand")), "{:?}", vg.notes);
        assert!(matches!(&lv(&vg, "mirrored").state, LvState::Degraded(_)));
        for name in ["scattered", "spanning"] {
            let LvState::Refused(why) = &lv(&vg, name).state else { panic!("{name} is served") };
            assert!(why.contains("missing") && why.contains("not at hand"), "{why}");
        }
        let plain = matches!(lv(&vg, "plain").state, LvState::Refused(_));
        assert_eq!(plain, left == 0, "plain lies on the second disk");
        AixVolume::open(&vg, lv(&vg, "mirrored")).unwrap().write_at(0, b"still served").unwrap();
    }
}

#[test]
fn a_stale_copy_is_never_read_however_its_bit_is_numbered() {
    for bit_order in [BitOrder::ByteLow, BitOrder::ByteHigh, BitOrder::WordLow] {
        let place = tempfile::tempdir().unwrap();
        // The mirrored LV has the first four partitions of both disks.
        let recipe = Recipe { stale: vec![(1, 2)], bit_order, ..example() };
        let written = write(&recipe, place.path()).unwrap();
        let vg = read_vg(&written.disks).unwrap();
        let mirrored = lv(&vg, "mirrored");
        let third: Vec<_> = mirrored.lps[2].iter().map(|copy| (copy.disk, copy.fresh)).collect();
        assert_eq!(third, [(0, true), (1, false)], "{bit_order:?}");
        assert!(matches!(&mirrored.state, LvState::Degraded(_)));
        let volume = AixVolume::open(&vg, mirrored).unwrap();
        let stale = written.lv("mirrored").unwrap().lps[2][1];
        let disk = OpenOptions::new().write(true).open(&written.disks[1]).unwrap();
        disk.write_all_at(b"stale", stale.offset).unwrap();
        let mut found = [1; 5];
        volume.read_at(2 << 20, &mut found).unwrap();
        assert_eq!(found, [0; 5], "{bit_order:?}");
    }
}

#[test]
fn descriptors_that_lie_elsewhere_are_found_by_their_pvid() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&Recipe { stride: Some(75), ..example() }, place.path()).unwrap();
    let vg = read_vg(&written.disks).unwrap();
    assert_reads_as_written(&written, &vg);
}

#[test]
fn disks_that_do_not_belong_together_are_named() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = write(&example(), one.path()).unwrap();
    let second = write(&Recipe { seed: 2, ..example() }, other.path()).unwrap();
    let mixed = [first.disks[0].clone(), second.disks[1].clone()];
    assert!(matches!(read_vg(&mixed), Err(AixError::Mixed { .. })));
    let twice = [first.disks[0].clone(), first.disks[0].clone()];
    assert!(matches!(read_vg(&twice), Err(AixError::Twice { .. })));
    assert!(matches!(assemble(&[]), Err(AixError::NoDisk)));
}

#[test]
fn big_and_scalable_vgs_are_recognised_and_refused() {
    for (at, bytes, kind) in
        [(24, vec![0, 0, 0x20, 0xe2], "big"), (60, vec![0, 31, 0, 26], "scalable")]
    {
        let place = tempfile::tempdir().unwrap();
        let written = write(&example(), place.path()).unwrap();
        let disk = OpenOptions::new().write(true).open(&written.disks[0]).unwrap();
        for sector in [7, 70] {
            disk.write_all_at(&bytes, sector * 512 + at).unwrap();
        }
        let error = read_vg(&written.disks[..1]).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(kind) && text.contains("use live commands"), "{text}");
    }
}

#[test]
fn an_lv_with_a_bad_sector_that_lvm_keeps_elsewhere_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&example(), place.path()).unwrap();
    let bad = u32::try_from(written.lv("plain").unwrap().lps[1][0].offset / 512 + 5).unwrap();
    let disk = OpenOptions::new().write(true).open(&written.disks[1]).unwrap();
    let mut directory = b"DEFECT\0\x01".to_vec();
    directory.extend((bad | 0xa000_0000).to_be_bytes());
    disk.write_all_at(&directory, 8 * 512).unwrap();
    let vg = read_vg(&written.disks).unwrap();
    for found in &vg.lvs {
        let refused = matches!(&found.state, LvState::Refused(why) if why.contains("bad sector"));
        assert_eq!(refused, found.name == "plain", "{}", found.name);
    }
}

#[test]
fn a_factor_moves_the_descriptors_and_the_stale_bits() {
    let place = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        factor: 4,
        disks: vec![1500, 1200],
        stale: vec![(1, 2), (0, 1)],
        damaged: vec![((0, 1), CopyState::Older)],
        ..example()
    };
    let written = write(&recipe, place.path()).unwrap();
    let vg = read_vg(&written.disks).unwrap();
    assert_reads_as_written(&written, &vg);
    let fresh = |lp: &Vec<MirrorCopy>| lp.iter().map(|copy| copy.fresh).collect::<Vec<_>>();
    let mirrored: Vec<_> = lv(&vg, "mirrored").lps.iter().map(fresh).collect();
    assert_eq!(mirrored[1..3], [[false, true], [true, false]]);
}

#[test]
fn without_a_whole_status_area_no_mirror_copy_is_trusted() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&example(), place.path()).unwrap();
    for (disk, sector) in [(0, 128), (0, 2234), (1, 128)] {
        let disk = OpenOptions::new().write(true).open(&written.disks[disk]).unwrap();
        disk.write_all_at(&[0xee; 8], sector * 512).unwrap();
    }
    let vg = read_vg(&written.disks).unwrap();
    for found in &vg.lvs {
        let refused = matches!(&found.state, LvState::Refused(why) if why.contains("in sync"));
        assert_eq!(refused, found.name == "mirrored", "{}", found.name);
    }
}

#[test]
fn a_striped_lv_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let lvs = vec![LvRecipe::new("wide", 4, Placement::Contiguous(0))];
    let written = write(&Recipe { lvs, ..Recipe::default() }, place.path()).unwrap();
    let disk = OpenOptions::new().write(true).open(&written.disks[0]).unwrap();
    for area in [136, 2242] {
        disk.write_all_at(&[0, 5], (area + 1) * 512 + 12).unwrap();
    }
    let vg = read_vg(&written.disks).unwrap();
    assert!(matches!(&vg.lvs[0].state, LvState::Refused(why) if why.contains("striped")));
}

#[test]
fn a_partition_with_more_copies_than_its_lv_may_have_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let lvs = vec![LvRecipe::new("plain", 2, Placement::Contiguous(0))];
    let written = write(&Recipe { lvs, ..Recipe::default() }, place.path()).unwrap();
    let disk = OpenOptions::new().write(true).open(&written.disks[0]).unwrap();
    for area in [136, 2242] {
        let fifth = (area + 17) * 512 + 32 + 4 * 32;
        disk.write_all_at(&[0, 1, 0, 0, 0, 0, 0, 2], fifth).unwrap();
    }
    let vg = read_vg(&written.disks).unwrap();
    assert!(matches!(&vg.lvs[0].state, LvState::Refused(why) if why.contains("more copies")));
}

#[test]
fn of_two_records_that_differ_the_one_counts_that_its_area_confirms() {
    for sector in [7, 70] {
        let place = tempfile::tempdir().unwrap();
        let written = write(&example(), place.path()).unwrap();
        let disk = OpenOptions::new().write(true).open(&written.disks[0]).unwrap();
        disk.write_all_at(&[0xff; 4], sector * 512 + 6).unwrap();
        let vg = read_vg(&written.disks).unwrap();
        assert_reads_as_written(&written, &vg);
        assert!(vg.notes[0].contains(&format!("sector {sector}")), "{:?}", vg.notes);
        let other = 77 - sector;
        disk.write_all_at(&[0xee; 4], other * 512 + 6).unwrap();
        assert!(matches!(members(&written.disks), Err(ProbeError::Differ)));
    }
}
