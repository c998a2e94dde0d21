//! What is replicated: volume groups of any origin as a layout and a disk per LV.
//!
//! Decides what of a folder, of an AIX VG's disks or of an LVM2 VG is a volume of the group, and
//! refuses every rootvg; leaves tracking and shipping to the stages after it.

pub mod aix;

pub mod lvm2;

pub mod lvm2_plan;

pub mod images;

pub mod rootvg;

pub mod error;

pub mod drift;

pub mod identity;

mod aix_disks;

mod clones;

mod rename;

mod spec;

mod open;

mod inventory;

mod list;

mod listing;

mod io;

#[cfg(test)]
mod tests;

pub use clones::{NewVolumes, lvm2_uuid, name_max, remove_tagged};
pub use error::{GroupError, VolumeProblem};
pub use inventory::inventory;
pub use io::identity_of;
pub use list::list;
pub use listing::{LvListing, PvListing, VgKind, VgListing, render_table};
pub use open::{grow_replica, open_replica, open_source};
pub use rename::{MountRule, Rename, RenameError, RuleError, renamed};
pub use spec::{SpecError, VolumesSpec};

use vgship_base::disk::SharedDisk;
use vgship_base::layout::Layout;

/// All volumes of a group, open.
pub struct OpenGroup {
    /// Names, sizes and masked heads.
    pub layout: Layout,
    /// The volumes, in the layout's order.
    pub volumes: Vec<SharedDisk>,
}
