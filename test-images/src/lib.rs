//! Makes volume-group images from recipes in code: AIX VG disks of the original format, with the
//! map of where every byte of every LV must be found. It shares no offset and no type with the
//! parser that it is there to judge. The agent writes the disks of new environments with it, so
//! that there is one writer.

mod demo;
mod pattern;
mod place;
mod recipe;
mod structures;

pub use demo::{DemoSizes, demo_recipe, write_demo_vg};
pub use pattern::{content, fill_lv};
pub use place::Plan;
pub use recipe::{BitOrder, CopyState, Identities, LvRecipe, Placement, Recipe};
pub use structures::{DiskImage, disk_images};

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where one copy of one logical partition lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which disk. Unit: index from 0.
    pub disk: usize,
    /// First byte of the physical partition. Unit: bytes from the disk's start.
    pub offset: u64,
}

/// What must be found of one LV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedLv {
    /// Its name.
    pub name: String,
    /// Per logical partition in order: all copies of it.
    pub lps: Vec<Vec<Place>>,
}

/// A VG as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The image files, in the order of their PV numbers.
    pub disks: Vec<PathBuf>,
    /// The VG's identity.
    pub vgid: [u8; 16],
    /// Size of a partition. Unit: bytes.
    pub pp_bytes: u64,
    /// The LVs, in the order of their slots.
    pub lvs: Vec<ExpectedLv>,
}

impl Written {
    /// The LV of this name.
    pub fn lv(&self, name: &str) -> Option<&ExpectedLv> {
        self.lvs.iter().find(|lv| lv.name == name)
    }

    /// Size of an LV. Unit: bytes.
    pub fn bytes(&self, lv: &ExpectedLv) -> u64 {
        lv.lps.len() as u64 * self.pp_bytes
    }
}

/// Writes the VG's disks as sparse files `hdisk1.img`, `hdisk2.img` ... into a folder.
///
/// # Errors
/// A recipe whose LVs do not fit its disks, or a file that cannot be written.
pub fn write(recipe: &Recipe, dir: &Path) -> Result<Written> {
    let plan = Plan::new(recipe)?;
    let mut disks = Vec::new();
    for (index, image) in disk_images(recipe, &plan).iter().enumerate() {
        let path = dir.join(format!("hdisk{}.img", index + 1));
        image.write(&path)?;
        disks.push(path);
    }
    Ok(plan.written(recipe, disks))
}

impl DiskImage {
    /// Writes the image as a sparse file.
    fn write(&self, path: &Path) -> Result<()> {
        let to = || format!("write {}", path.display());
        let file = File::create(path).with_context(to)?;
        file.set_len(self.bytes).with_context(to)?;
        for (offset, piece) in &self.pieces {
            file.write_all_at(piece, *offset).with_context(to)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
