//! What becomes of a clone when a disk fails.

use std::io;

use vgship_base::disk::{Allocation, Disk};
use vgship_base::sim::Rng;

use super::super::BLOCK;
use super::{LEN, World, blocks_of, content};

#[test]
fn a_failed_write_leaves_blocks_to_the_base() {
    let world = World::new();
    let clone = world.create("a");
    clone.write_at(0, &[1; 10]).unwrap();
    let before = content(&clone);
    world.folder.file("a.data").unwrap().fail_writes(1);
    assert!(clone.write_at(5 * BLOCK + 7, &[2; 9000]).is_err());
    assert_eq!(content(&clone), before);
    clone.flush().unwrap();
    assert_eq!(content(&world.open("a")), before);
    clone.write_at(5 * BLOCK + 7, &[2; 9000]).unwrap();
    assert_eq!(blocks_of(&clone), [0, 5, 6, 7]);
}

/// Goal: what a failed flush of the data lost is never taken for stored, nor shown.
#[test]
fn a_failed_flush_of_the_data_ends_the_clone_until_it_is_opened_again() {
    let world = World::new();
    let clone = world.create("a");
    clone.write_at(0, &[1; 4096]).unwrap();
    clone.flush().unwrap();
    let stored = content(&clone);
    clone.write_at(10, &[2; 4096]).unwrap();
    world.folder.file("a.data").unwrap().fail_flushes(1);
    assert!(clone.flush().is_err());
    for refused in [clone.flush(), clone.write_at(0, &[3]), clone.zero_at(5 * BLOCK, 5)] {
        assert!(refused.unwrap_err().to_string().contains("a.data"));
    }
    let mut bytes = [0; 4096];
    assert!(clone.read_at(BLOCK, &mut bytes).is_err(), "it may be lost");
    assert_eq!(clone.allocation(BLOCK, LEN).unwrap(), (Allocation::Data, 2 * BLOCK));
    clone.read_at(2 * BLOCK, &mut bytes).unwrap();
    drop(clone);
    let clone = world.open("a"); // though the cache shows still what was never stored
    assert_eq!(content(&clone), stored);
    clone.write_at(BLOCK, &[4; 9]).unwrap();
    clone.flush().unwrap();
}

#[test]
fn what_is_stored_can_be_seen_after_a_failed_flush() {
    let world = World::new();
    let clone = world.create("a");
    clone.write_at(0, &[1; 4096]).unwrap();
    clone.flush().unwrap();
    clone.write_at(0, &[2; 4096]).unwrap();
    world.folder.file("a.data").unwrap().fail_flushes(1);
    assert!(clone.flush().is_err());
    clone.forget_cache();
    assert_eq!(content(&clone)[..4096], [1; 4096]);
}

#[test]
fn a_map_that_only_the_cache_shows_does_not_count() {
    let world = World::new();
    let clone = world.create("a");
    clone.write_at(0, &[1; 4096]).unwrap();
    clone.flush().unwrap();
    clone.write_at(BLOCK, &[2; 4096]).unwrap();
    world.folder.file("a.map").unwrap().fail_flushes(1);
    assert!(clone.flush().is_err());
    assert_eq!(blocks_of(&world.open("a")), [0]);
}

/// Goal: a map that cannot be written loses nothing: the next flush stores what this one did not.
#[test]
fn a_failed_map_is_written_anew() {
    for fails in ["write", "flush", "full"] {
        let world = World::new();
        let clone = world.create("a");
        clone.write_at(0, &[1; 4096]).unwrap();
        clone.flush().unwrap();
        clone.write_at(BLOCK, &[2; 4096]).unwrap();
        let map = world.folder.file("a.map").unwrap();
        match fails {
            "write" => map.fail_writes(1),
            "flush" => map.fail_flushes(1),
            _ => world.folder.set_capacity(Some(world.folder.used())),
        }
        let error = clone.flush().unwrap_err();
        assert!(error.to_string().contains("append to a.map"), "{error}");
        let kind = if fails == "full" { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        assert_eq!(error.kind(), kind, "so that clients know");
        world.folder.set_capacity(None);
        let model = content(&clone);
        clone.flush().unwrap();
        world.folder.power_cut(&mut Rng::new(1));
        assert_eq!(content(&world.open("a")), model, "{fails}");
    }
}
