//! What lies where on the LVs, and what is written there: every block can be computed again.
//!
//! ```text
//! extent % 4  blocks 0-3 of it      the rest
//! 0           never written         never written
//! 1           chain                 never written
//! 2, 3        load                  load
//! ```

use vgship_base::sim::Rng;
use vgship_test_images::content as random_block;

/// Unit of all content. Unit: bytes.
pub(super) const BLOCK: usize = 4096;

/// [`BLOCK`] as an address counts. Unit: bytes.
pub(super) const BLOCK_BYTES: u64 = BLOCK as u64;

/// Blocks of one extent of 64 KiB.
pub(super) const EXTENT_BLOCKS: u64 = 16;

/// Blocks of one slot of the chain.
pub(super) const SLOT_BLOCKS: u64 = 4;

/// Size of the load's source of bytes. Unit: bytes.
const POOL: usize = 1 << 20;

/// Who writes a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody, after the image was made.
    Nobody,
    /// The chain: which slot of the LV, which block of it.
    Chain { slot: u64, part: u64 },
    /// The load: which of the LV's load blocks, counted without gaps.
    Load { index: u64 },
}

/// Who writes a block of an LV.
pub(super) const fn owner(block: u64) -> Owner {
    let (extent, part) = (block / EXTENT_BLOCKS, block % EXTENT_BLOCKS);
    match extent % 4 {
        1 if part < SLOT_BLOCKS => Owner::Chain { slot: extent / 4, part },
        2 | 3 => {
            let before = extent / 4 * 2 + extent % 4 - 2;
            Owner::Load { index: before * EXTENT_BLOCKS + part }
        }
        _ => Owner::Nobody,
    }
}

/// The first block of a slot of the chain.
pub(super) const fn chain_block(slot: u64) -> u64 {
    (slot * 4 + 1) * EXTENT_BLOCKS
}

/// The block of the load of this index.
pub(super) const fn load_block(index: u64) -> u64 {
    let extent = index / EXTENT_BLOCKS;
    (extent / 2 * 4 + 2 + extent % 2) * EXTENT_BLOCKS + index % EXTENT_BLOCKS
}

/// Slots of the chain, and blocks of the load, in an LV of this size.
pub(super) const fn room(lv_bytes: u64) -> (u64, u64) {
    let fours = lv_bytes / (BLOCK_BYTES * EXTENT_BLOCKS * 4);
    (fours, fours * 2 * EXTENT_BLOCKS)
}

/// What a block holds when the image is new: random, text or zero by extents; zero for the chain.
pub(super) fn initial(seed: u64, lv: usize, block: u64) -> Vec<u8> {
    let zero = || vec![0; BLOCK];
    if let Owner::Chain { .. } = owner(block) {
        return zero();
    }
    let salt = seed ^ (lv as u64 + 1) << 56;
    match Rng::new(salt ^ (block / EXTENT_BLOCKS)).below(4) {
        0 => zero(),
        1 => text(block),
        _ => random_block(salt, block * BLOCK_BYTES, BLOCK),
    }
}

fn text(block: u64) -> Vec<u8> {
    let row = format!("block {block:>12}: account, amount, currency, posted, by whom and why\n");
    row.bytes().cycle().take(BLOCK).collect()
}

/// The bytes that the load writes: cheap to take, and no two writes are equal.
pub(super) struct Pool {
    bytes: [Vec<u8>; 2],
}

impl Pool {
    /// Equal seeds give equal bytes.
    pub(super) fn new(seed: u64) -> Pool {
        let text = (0..).flat_map(text).take(POOL).collect();
        Pool { bytes: [random_block(seed, 0, POOL), text] }
    }

    /// Appends the block `part` of write `number` of lane `lane`; every second lane writes text.
    pub(super) fn put(&self, lane: usize, number: u64, part: u64, into: &mut Vec<u8>) {
        let head = [LOAD_MARK, lane as u64, number, part].map(u64::to_be_bytes).concat();
        let from = &self.bytes[lane % 2];
        let dice = number.wrapping_mul(31).wrapping_add(part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = Rng::new(dice).index(POOL - BLOCK);
        into.extend_from_slice(&head);
        into.extend_from_slice(&from[at..at + BLOCK - head.len()]);
    }
}

/// First word of each block that the load writes.
pub(super) const LOAD_MARK: u64 = u64::from_be_bytes(*b"VGSHLOAD");

/// First word of each block that the chain writes.
pub(super) const CHAIN_MARK: u64 = u64::from_be_bytes(*b"VGSHSTEP");

/// The `index`-th big-endian word of a block.
pub(super) fn word(block: &[u8], index: usize) -> u64 {
    block[index * 8..].iter().take(8).fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_one_owner_and_is_found_again() {
        let (slots, load) = room(1 << 20);
        assert_eq!((slots, load), (4, 128));
        let blocks = 0..(1 << 20) / BLOCK_BYTES;
        let owners: Vec<Owner> = blocks.clone().map(owner).collect();
        for slot in 0..slots {
            for part in 0..SLOT_BLOCKS {
                let at = usize::try_from(chain_block(slot) + part).unwrap();
                assert_eq!(owners[at], Owner::Chain { slot, part });
            }
        }
        for index in 0..load {
            let at = usize::try_from(load_block(index)).unwrap();
            assert_eq!(owners[at], Owner::Load { index });
        }
        let nobody = owners.iter().filter(|owner| **owner == Owner::Nobody).count();
        assert_eq!(nobody as u64, blocks.count() as u64 - load - slots * SLOT_BLOCKS);
    }
}
