//! Write counts of extents: tells whether an extent was written while it was read without a lock.

use vgship_base::extent::Extent;

const SLOTS: usize = 1 << 12;

/// A fixed number of counters that extents share by hash. A shared counter can only claim a write
/// that was another extent's; it never hides one. 32 KiB, whatever the volumes' size.
#[derive(Debug)]
pub struct Versions {
    counts: Vec<u64>,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions { counts: vec![0; SLOTS] }
    }
}

impl Versions {
    fn slot(extent: Extent) -> usize {
        let mixed =
            (extent.index ^ (u64::from(extent.volume.0) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 52) as usize
    }

    /// How often a write of an extent of this slot has ended. One that is under way is known by its
    /// lock.
    pub fn of(&self, extent: Extent) -> u64 {
        self.counts[Versions::slot(extent)]
    }

    /// Notes that a write of the extent ended.
    pub fn bump(&mut self, extent: Extent) {
        self.counts[Versions::slot(extent)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgship_base::ids::VolumeId;

    #[test]
    fn a_write_changes_its_extents_version() {
        let (mut versions, extent) =
            (Versions::default(), Extent { volume: VolumeId(65_535), index: u64::MAX >> 12 });
        let before = versions.of(extent);
        versions.bump(extent);
        assert_ne!(versions.of(extent), before);
    }
}
