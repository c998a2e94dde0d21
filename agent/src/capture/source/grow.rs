//! Volumes that become larger, and volumes of which it is not known what they hold.

use std::sync::Arc;

use vgship_base::extent::Extent;
use vgship_base::ids::VolumeId;
use vgship_base::layout::Layout;
use vgship_base::record::ResyncReason;
use vgship_base::units::Span;

use super::Source;

impl Source {
    /// The volumes have grown to `layout`, which the disks have room for and the layout's file
    /// says: a crash from here on finds in the ledger what is new as dirty.
    ///
    /// Every link ends in the same step, so no record that lies behind an old end can go to a
    /// replica that does not know the new one. The caller links only those that show
    /// [`Source::layout_hash`].
    ///
    /// # Panics
    /// When `layout` is anything but growth.
    pub fn grow(&mut self, layout: Arc<Layout>) {
        assert!(self.layout.grows_to(&layout), "volumes only become larger");
        for replica in &mut self.replicas {
            replica.grow(&self.layout, &layout);
        }
        // What was read of an extent that was short says nothing of it any more.
        for ((volume, old), new) in layout.ids().zip(&self.layout.volumes).zip(&layout.volumes) {
            if new.bytes > old.bytes {
                let index = old.bytes >> layout.extent.log2();
                self.versions.bump(Extent { volume, index });
            }
        }
        self.layout_hash = layout.hash();
        self.layout = layout;
    }

    /// Something else than this source may have written into a volume: all of it is dirty for
    /// every replica until a resync has read it back.
    pub fn suspect(&mut self, volume: VolumeId) {
        let Some(known) = self.layout.volume(volume) else { return };
        let all = Span::new(0, known.bytes);
        for replica in &mut self.replicas {
            replica.suspect(&self.layout, volume, all, ResyncReason::Drifted);
        }
    }
}

#[cfg(test)]
#[path = "grow_tests.rs"]
mod tests;
