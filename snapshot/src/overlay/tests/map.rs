//! What becomes of a map: damage, cuts, growth.

use vgship_base::disk::Disk;
use vgship_base::folder::Folder;

use super::super::{BLOCK, OverlayError};
use super::{World, blocks_of};

impl World {
    fn map(&self) -> Vec<u8> {
        self.folder.file("a.map").unwrap().live()
    }

    /// Puts other bytes into the place of the map of `a`.
    fn set_map(&self, bytes: &[u8]) {
        self.folder.remove("a.map").unwrap();
        self.folder.create("a.map").unwrap().write_at(0, bytes).unwrap();
    }
}

/// Three flushes, and what was owned after each.
fn three_flushes(world: &World) -> Vec<Vec<u64>> {
    let clone = world.create("a");
    let mut owned = vec![vec![]];
    for (block, len) in [(0, 1), (3, 3 * 4096), (9, 4096)] {
        clone.write_at(block * BLOCK, &vec![1; len]).unwrap();
        clone.flush().unwrap();
        owned.push(blocks_of(&clone));
    }
    owned
}

/// Goal: damage to a map is noticed, or concerns nothing.
#[test]
fn every_bit_flip_in_a_map_is_noticed_or_harmless() {
    let world = World::new();
    let owned = three_flushes(&world).pop().unwrap();
    let golden = world.map();
    let mut harmless = 0;
    for bit in 0..golden.len() * 8 {
        let mut bytes = golden.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        world.set_map(&bytes);
        match world.try_open("a") {
            Ok(clone) => {
                assert_eq!(blocks_of(&clone), owned, "bit {bit}");
                harmless += 1;
            }
            Err(OverlayError::Map { name, at, .. }) => {
                assert_eq!((name.as_str(), at), ("a.map", (bit / 4096 * 512) as u64));
            }
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    assert_eq!(harmless, 4096, "those of the last frame, which is empty");
}

#[test]
fn a_map_that_was_cut_is_refused_or_that_of_an_earlier_flush() {
    let world = World::new();
    let owned = three_flushes(&world);
    world.open("a").flush().unwrap(); // written anew: its header says how much there is
    let anew = world.map();
    for len in 0..anew.len() {
        world.set_map(&anew[..len]);
        assert!(matches!(world.try_open("a"), Err(OverlayError::Map { .. })), "{len}");
    }
    let other = World::new();
    three_flushes(&other);
    let appended = other.map();
    for len in 0..appended.len() {
        other.set_map(&appended[..len]);
        match other.try_open("a") {
            Ok(clone) => assert!(owned.contains(&blocks_of(&clone)), "{len}"),
            Err(error) => assert!(matches!(error, OverlayError::Map { .. }), "{len}: {error}"),
        }
    }
}

#[test]
fn a_map_of_another_version_is_refused_by_name() {
    let world = World::new();
    three_flushes(&world);
    let mut bytes = world.map();
    bytes[5] = 2;
    let crc = crc32c::crc32c(&bytes[..508]).to_be_bytes();
    bytes[508..512].copy_from_slice(&crc);
    world.set_map(&bytes);
    let Err(OverlayError::Map { at: 0, source, .. }) = world.try_open("a") else { panic!() };
    assert!(source.to_string().contains("version 2"), "{source}");
}

/// Goal: a map is as long as what it says, whatever number of flushes made it.
#[test]
fn a_map_is_written_anew_when_it_has_grown() {
    let world = World::new();
    let clone = world.create("a");
    clone.map.lock().unwrap().growth = 2048;
    let (mut shrank, mut before) = (0, 0);
    for block in 0..13 {
        clone.write_at(block * BLOCK, &[1; 10]).unwrap();
        clone.flush().unwrap();
        let len = world.map().len();
        assert!(len <= 2 * 1024 + 2048 + 1024, "{len}");
        shrank += u32::from(len < before);
        before = len;
        clone.write_at(block * BLOCK, &[2; 10]).unwrap(); // owned already
        clone.flush().unwrap();
        assert_eq!(world.map().len(), len);
    }
    assert!(shrank > 1, "{shrank}");
    assert_eq!(blocks_of(&world.open("a")), (0..13).collect::<Vec<_>>());
}
