//! Blind replicas: they follow like others, and nothing of theirs is in clear.

use vgship_base::disk::Disk;
use vgship_base::folder::Folder;
use vgship_base::ids::VolumeId;
use vgship_base::sim::SimFolder;
use vgship_tests::world::World;
use vgship_tests::world::faults::Settings;

/// A plain replica, and behind it a blind one.
fn world() -> World {
    let settings = Settings { replicas: 2, blind: vec![false, true], ..Settings::plain() };
    World::in_sync_with(settings)
}

fn holds(bytes: &[u8], fill: u8) -> bool {
    bytes.windows(64).any(|run| run.iter().all(|byte| *byte == fill))
}

fn files(folder: &SimFolder) -> Vec<u8> {
    let names = folder.list().expect("the power is on");
    names.iter().flat_map(|name| folder.file(name).expect("it was listed").live()).collect()
}

#[test]
fn writes_and_resyncs_reach_a_blind_replica_veiled() {
    let mut world = world();
    world.write(0, 8192, 4096, 0xa7);
    world.settle();
    world.cut(1);
    world.write(1, 4096, 2048, 0xa7);
    world.restart_source(true);
    world.connect(1);
    world.settle(); // compares with the model's veiled content
    assert!(holds(&world.source.images()[0], 0xa7));
    assert!(holds(&world.replicas[0].images()[1], 0xa7));
    let blind = &world.replicas[1];
    for (place, bytes) in [
        ("volume 0", blind.images()[0].clone()),
        ("volume 1", blind.images()[1].clone()),
        ("journal", files(&blind.journal)),
    ] {
        assert!(!bytes.is_empty() && !holds(&bytes, 0xa7), "in clear in the {place}");
    }
    assert!(holds(&blind.images()[0], 0), "what is zero stays zero");
}

/// Goal: damage of what a blind replica keeps is found by the source's hashes.
#[test]
fn a_stray_write_on_a_blind_replica_is_found_by_the_self_check() {
    let mut world = world();
    world.write(0, 8192, 4096, 0xa7);
    world.settle();
    world.replicas[1].disks[0].write_at(8192 + 512, &[1; 512]).unwrap();
    world.strays[1].insert((VolumeId(0), 2));
    world.replicas[1].strays.insert((VolumeId(0), 2));
    world.settle();
    assert!(world.coverage.count("self-check: mismatch") > 0);
}
