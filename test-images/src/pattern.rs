//! Content that says where it belongs.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use vgship_base::sim::Rng;

use crate::{ExpectedLv, Written};

/// Unit of the pattern. Unit: bytes.
const BLOCK: u64 = 4096;

/// The bytes of a seeded pattern from `offset` on: equal for equal seeds, different everywhere.
pub fn content(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut at = offset;
    while bytes.len() < len {
        let block = at / BLOCK;
        let mut rng = Rng::new(seed ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let words = (0..BLOCK / 8).flat_map(|_| rng.draw().to_be_bytes());
        let skip = usize::try_from(at % BLOCK).expect("below a block");
        bytes.extend(words.skip(skip).take(len - bytes.len()));
        at = (block + 1) * BLOCK;
    }
    bytes
}

/// Fills all copies of an LV with the pattern, but for its first 512 bytes, the control block.
///
/// # Errors
/// A disk that cannot be written.
pub fn fill_lv(written: &Written, lv: &ExpectedLv, seed: u64) -> Result<()> {
    let step = usize::try_from(written.pp_bytes)?;
    for (lp, places) in lv.lps.iter().enumerate() {
        let skip = if lp == 0 { 512 } else { 0 };
        let bytes = content(seed, (lp * step + skip) as u64, step - skip);
        for place in places {
            let disk = OpenOptions::new().write(true).open(&written.disks[place.disk])?;
            disk.write_all_at(&bytes, place.offset + skip as u64)?;
        }
    }
    Ok(())
}
