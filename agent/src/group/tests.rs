//! Opening groups of every kind, for source and replica.

use std::path::Path;

use vgship_base::extent::ExtentSize;
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_test_images::{DemoSizes, LvRecipe, Placement, Recipe, Written, write, write_demo_vg};

use super::*;

fn extent() -> ExtentSize {
    ExtentSize::from_log2(16).unwrap()
}

fn images(dir: &Path) -> VolumesSpec {
    VolumesSpec::Images(dir.to_owned())
}

fn aix(written: &Written) -> VolumesSpec {
    VolumesSpec::AixDisks(written.disks.clone())
}

fn source_error(spec: &VolumesSpec) -> String {
    open_source(spec, extent()).map(|_| ()).unwrap_err().to_string()
}

fn replica_error(spec: &VolumesSpec, layout: &Layout, create: bool) -> String {
    open_replica(spec, layout, create).map(|_| ()).unwrap_err().to_string()
}

fn layout(volumes: &[(&str, u64)]) -> Layout {
    let volume = |&(name, bytes): &(&str, u64)| VolumeLayout {
        name: str::parse(name).unwrap(),
        bytes,
        masked: 0,
    };
    Layout { extent: extent(), volumes: volumes.iter().map(volume).collect() }
}

#[test]
fn a_folder_is_a_group_and_its_replica_is_made_like_it() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("loglv"), [1; 4096]).unwrap();
    std::fs::write(from.join("datalv"), [2; 8192]).unwrap();
    std::fs::write(from.join(".hidden"), [3; 3]).unwrap();
    let source = open_source(&images(&from), extent()).unwrap();
    let expected = layout(&[("datalv", 8192), ("loglv", 4096)]);
    assert_eq!(source.layout, expected);
    source.volumes[1].write_at(4000, b"written").unwrap();
    assert_eq!(std::fs::read(from.join("loglv")).unwrap()[4000..4007], *b"written");

    assert!(replica_error(&images(&to), &expected, false).contains("list"));
    let replica = open_replica(&images(&to), &expected, true).unwrap();
    assert_eq!(replica.iter().map(|volume| volume.len()).collect::<Vec<_>>(), [8192, 4096]);
    drop(replica);
    // An order that is not that of the names is kept.
    let turned = layout(&[("loglv", 4096), ("datalv", 8192)]);
    let replica = open_replica(&images(&to), &turned, false).unwrap();
    assert_eq!(replica[0].len(), 4096);
}

#[test]
fn a_second_agent_does_not_get_a_replica() {
    let place = tempfile::tempdir().unwrap();
    let (spec, wanted) = (images(place.path()), layout(&[("datalv", 4096)]));
    let first = open_replica(&spec, &wanted, true).unwrap();
    assert!(replica_error(&spec, &wanted, true).contains("in use by another process"));
    drop(first);
    assert!(open_replica(&spec, &wanted, false).is_ok());
}

#[test]
fn a_folder_with_anything_else_is_refused_as_a_whole() {
    let place = tempfile::tempdir().unwrap();
    let spec = images(place.path());
    assert!(source_error(&spec).contains("holds no volume"));
    std::fs::write(place.path().join("datalv"), [0; 512]).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path().join("out")).unwrap();
    std::fs::write(place.path().join("odd"), [0; 100]).unwrap();
    let error = source_error(&spec);
    assert!(error.contains("out is a symbolic link"), "{error}");
    assert!(error.contains("odd has 100 bytes"), "{error}");
    let wanted = layout(&[("out", 512)]);
    assert!(replica_error(&spec, &wanted, true).contains("symbolic link"));
}

#[test]
fn an_aix_group_masks_its_control_blocks_and_takes_writes() {
    let place = tempfile::tempdir().unwrap();
    let written = write_demo_vg(place.path(), DemoSizes { pp_log2: 20, lps: 4 }, 1).unwrap();
    let group = open_source(&aix(&written), extent()).unwrap();
    let names: Vec<_> = group.layout.volumes.iter().map(|lv| lv.name.as_str()).collect();
    assert_eq!(names, ["dbdatalv", "applv", "dbloglv", "jfs2loglv"]);
    for (known, disk) in group.layout.volumes.iter().zip(&group.volumes) {
        assert_eq!((known.bytes, known.masked, disk.len()), (4 << 20, 512, 4 << 20));
    }
    // An application that has overwritten the control block owns the first block.
    group.volumes[1].write_at(0, &[7; 512]).unwrap();
    let again = open_source(&aix(&written), extent()).unwrap();
    assert_eq!(again.layout.volumes[1].masked, 0);
    // The VG reads back as it was laid out: nothing but data was written.
    drop((group, again));
    let target = tempfile::tempdir().unwrap();
    let other = write_demo_vg(target.path(), DemoSizes { pp_log2: 20, lps: 4 }, 2).unwrap();
    let wanted = layout(&[("dbloglv", 4 << 20), ("dbdatalv", 4 << 20)]);
    let replica = open_replica(&aix(&other), &wanted, true).unwrap();
    assert_eq!(replica.len(), 2);
    assert!(replica_error(&aix(&other), &wanted, true).contains("in use"));
}

#[test]
fn an_aix_replica_must_have_every_lv_whole_and_of_the_same_size() {
    let place = tempfile::tempdir().unwrap();
    let written = write_demo_vg(place.path(), DemoSizes { pp_log2: 20, lps: 4 }, 1).unwrap();
    let wanted = layout(&[("dbdatalv", 4 << 20), ("applv", 5 << 20), ("newlv", 3 << 20)]);
    let error = replica_error(&aix(&written), &wanted, true);
    assert!(error.contains("applv has 4194304 bytes, its source 5242880"), "{error}");
    assert!(error.contains("mklv -y newlv VG 3"), "{error}");
    let half = VolumesSpec::AixDisks(written.disks[..1].to_vec());
    let error = replica_error(&half, &layout(&[("dbdatalv", 4 << 20)]), true);
    assert!(error.contains("not whole"), "{error}");
    let error = source_error(&half);
    assert!(error.contains("applv is not served"), "{error}");
}

#[test]
fn a_rootvg_is_refused_by_every_sign_of_it() {
    let refused = |error: String| {
        assert!(error.contains("never replicates a rootvg"), "{error}");
        error
    };
    for text in ["lvm2:rootvg", "aix:altinst_rootvg", "aix:old_rootvg", "images:/srv/rootvg"] {
        let spec: VolumesSpec = text.parse().unwrap();
        refused(source_error(&spec));
        refused(replica_error(&spec, &layout(&[("datalv", 512)]), true));
    }
    let place = tempfile::tempdir().unwrap();
    let by_lv = aix(&write(&Recipe::rootvg_like(), place.path()).unwrap());
    assert!(refused(source_error(&by_lv)).contains("hd5"));
    refused(replica_error(&by_lv, &layout(&[("hd4", 2 << 20)]), true));
    refused(replica_error(&images(place.path()), &layout(&[("hd5", 512)]), true));

    let lvs = vec![LvRecipe::new("datalv", 2, Placement::Contiguous(0))];
    let boots = Recipe { lvs, boot: Some((4352, 2048)), ..Recipe::default() };
    let by_boot = aix(&write(&boots, place.path()).unwrap());
    assert!(refused(source_error(&by_boot)).contains("IPL record"));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alt_hd5"), [0; 512]).unwrap();
    refused(source_error(&images(folder.path())));
}

#[test]
fn live_aix_says_that_it_needs_aix() {
    let spec = "aix:datavg".parse().unwrap();
    assert!(source_error(&spec).contains("needs AIX"));
    assert!(replica_error(&spec, &layout(&[("datalv", 512)]), true).contains("needs AIX"));
}

#[test]
fn what_was_named_is_listed_even_when_it_cannot_be_served() {
    let place = tempfile::tempdir().unwrap();
    let demo = write_demo_vg(place.path(), DemoSizes { pp_log2: 20, lps: 4 }, 1).unwrap();
    let other = tempfile::tempdir().unwrap();
    let root = write(&Recipe { seed: 9, ..Recipe::rootvg_like() }, other.path()).unwrap();
    let plain = other.path().join("plain");
    std::fs::write(&plain, vec![0; 1 << 16]).unwrap();
    let specs = [
        aix(&demo),
        aix(&root),
        VolumesSpec::AixDisks(vec![plain]),
        images(&other.path().join("absent")),
        "aix:datavg".parse().unwrap(),
        "lvm2:no_such_group_here".parse().unwrap(),
    ];
    let groups = list(&specs);
    let find = |volumes: &VolumesSpec| {
        let text = volumes.to_string();
        groups.iter().find(|group| group.volumes == text).unwrap_or_else(|| panic!("{text}"))
    };
    let found = find(&specs[0]);
    assert_eq!(
        (found.kind, found.pp_bytes, &found.excluded),
        (VgKind::Original, Some(1 << 20), &None)
    );
    let shapes: Vec<_> = found.lvs.iter().map(|lv| (lv.copies, lv.placement.as_str())).collect();
    assert_eq!(shapes[..3], [(2, "contiguous"), (1, "contiguous"), (1, "scattered, 2 runs")]);
    assert!(shapes[3].1.starts_with("scattered"));
    assert!(find(&specs[1]).excluded.as_ref().unwrap().contains("boot LV"));
    assert!(find(&specs[2]).state.contains("no AIX disk"));
    for spec in &specs[3..] {
        assert_eq!((find(spec).kind, find(spec).excluded.is_some()), (VgKind::Unknown, true));
    }
    assert!(render_table(&groups).contains("dbdatalv"));
}
