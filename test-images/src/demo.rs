//! The VG that the demonstration replicates.

use std::path::Path;

use anyhow::Result;

use crate::recipe::{LvRecipe, Placement, Recipe};
use crate::{Written, write};

/// How large the demonstration's LVs are.
#[derive(Clone, Copy, Debug)]
pub struct DemoSizes {
    /// Size of a partition. Unit: log2 of bytes.
    pub pp_log2: u8,
    /// Partitions of each LV.
    pub lps: u16,
}

impl Default for DemoSizes {
    /// Four LVs of 48 MiB: 192 MiB of data.
    fn default() -> DemoSizes {
        DemoSizes { pp_log2: 20, lps: 48 }
    }
}

/// Two disks and four LVs: one mirrored across the disks, one scattered, one contiguous, one that
/// spans both. Different seeds give different identities, so that source and target are two VGs.
pub fn demo_recipe(sizes: DemoSizes, seed: u64) -> Recipe {
    let lps = sizes.lps;
    // Five copies of an LV's size in all, and some air on each disk.
    let per_disk = lps.saturating_mul(5).div_ceil(2).saturating_add(lps / 2 + 4);
    Recipe {
        seed,
        pp_log2: sizes.pp_log2,
        disks: vec![per_disk; 2],
        lvs: vec![
            LvRecipe::new("dbdatalv", lps, Placement::Contiguous(0)).mirrored(2),
            LvRecipe::new("applv", lps, Placement::Contiguous(1)),
            LvRecipe::new("dbloglv", lps, Placement::Spanning),
            LvRecipe::new("jfs2loglv", lps, Placement::Scattered(seed)),
        ],
        ..Recipe::default()
    }
}

/// Writes the demonstration's VG as two sparse files into a folder.
///
/// # Errors
/// Sizes that do not fit an original VG, or a file that cannot be written.
pub fn write_demo_vg(dir: &Path, sizes: DemoSizes, seed: u64) -> Result<Written> {
    write(&demo_recipe(sizes, seed), dir)
}
