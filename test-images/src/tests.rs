use std::collections::BTreeSet;

use super::*;

#[test]
fn no_partition_is_given_twice_and_copies_lie_apart() {
    for seed in 0..50 {
        let recipe = demo_recipe(DemoSizes { pp_log2: 20, lps: 12 }, seed);
        let plan = Plan::new(&recipe).unwrap();
        let mut seen = BTreeSet::new();
        for (lv, lps) in recipe.lvs.iter().zip(&plan.lvs) {
            assert_eq!(lps.len(), usize::from(lv.lps), "{}", lv.name);
            for copies in lps {
                assert_eq!(copies.len(), usize::from(lv.copies), "{}", lv.name);
                let disks: BTreeSet<_> = copies.iter().map(|pp| pp.0).collect();
                assert_eq!(disks.len(), copies.len(), "{}", lv.name);
                assert!(copies.iter().all(|&pp| seen.insert(pp)), "{}", lv.name);
            }
        }
        let spans = |at: usize| plan.lvs[at].iter().any(|lp| lp[0].0 != plan.lvs[at][0][0].0);
        assert!(!spans(1) && spans(2), "applv is on one disk, dbloglv on two");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let lvs = vec![LvRecipe::new("big", 17, Placement::Contiguous(0))];
    assert!(Plan::new(&Recipe { lvs, ..Recipe::default() }).is_err());
    assert!(Plan::new(&Recipe { disks: vec![1017], ..Recipe::default() }).is_err());
    assert!(Plan::new(&Recipe { disks: vec![1; 33], ..Recipe::default() }).is_err());
}

#[test]
fn the_files_hold_the_magic_letters_where_the_disk_layout_has_them() {
    let place = tempfile::tempdir().unwrap();
    let written = write(&Recipe::rootvg_like(), place.path()).unwrap();
    let bytes = std::fs::read(&written.disks[0]).unwrap();
    let at = |sector: usize, len: usize| &bytes[sector * 512..sector * 512 + len];
    assert_eq!(at(0, 4), [0xc9, 0xc2, 0xd4, 0xc1]);
    assert_eq!((at(7, 4), at(70, 4)), (&b"_LVM"[..], &b"_LVM"[..]));
    assert_eq!((at(8, 6), at(71, 6)), (&b"DEFECT"[..], &b"DEFECT"[..]));
    assert_eq!((at(4352, 8), at(136 + 2065, 4)), (&b"AIX LVCB"[..], &b"hd5\0"[..]));
    assert_eq!(at(136, 512), at(2242, 512));
    assert_eq!(at(136, 8), at(136 + 2097, 8));
}

#[test]
fn a_pattern_is_the_same_from_wherever_it_is_read() {
    let whole = content(5, 0, 10_000);
    assert_eq!(content(5, 4095, 3), whole[4095..4098]);
    assert_ne!(content(6, 0, 10_000), whole);
    let place = tempfile::tempdir().unwrap();
    let written = write_demo_vg(place.path(), DemoSizes { pp_log2: 20, lps: 2 }, 1).unwrap();
    let lv = written.lv("dbdatalv").unwrap();
    fill_lv(&written, lv, 5).unwrap();
    for copy in &lv.lps[1] {
        let bytes = std::fs::read(&written.disks[copy.disk]).unwrap();
        let at = usize::try_from(copy.offset).unwrap();
        assert_eq!(bytes[at..at + 9000], content(5, 1 << 20, 9000));
    }
    let head = std::fs::read(&written.disks[lv.lps[0][0].disk]).unwrap();
    let at = usize::try_from(lv.lps[0][0].offset).unwrap();
    assert_eq!(head[at..at + 8], *b"AIX LVCB");
}
