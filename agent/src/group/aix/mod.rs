//! AIX volume groups on disk: what the structures of a PV say, several PVs put together to one VG,
//! and its LVs as disks.
//!
//! Only the original format is served. Big and scalable VGs are recognised, but how they store
//! their entries is not public. Nothing here writes outside of an LV's partitions.
//!
//! ```text
//! record -> vgda, vgsa, badblocks -> map -> assemble -> volume
//! ```

mod assemble;
mod badblocks;
mod map;
mod place;
mod probe;
mod record;
mod vgda;
mod vgsa;
mod volume;

#[cfg(test)]
mod flips;

#[cfg(test)]
mod tests;

pub use assemble::{AixError, Lv, LvState, Pv, Vg, assemble};
pub use place::{MirrorCopy, shape_of};
pub use probe::{Member, ProbeError, probe};
pub use record::{Geometry, Ipl, LvmRecord, Pvid, Record, Vgid};
pub use volume::AixVolume;

/// A sector number's unit. Unit: bytes.
const SECTOR: u64 = vgship_base::units::SECTOR;
