//! Snapshots of volume groups, sealed files, and the veil over what blind replicas hold. Knows nothing of networks, tasks or agents; files
//! come through [`vgship_base::folder::Folder`], so that everything runs on simulated disks too.
//!
//! ```
//! use std::sync::Arc;
//! use vgship_base::disk::{Disk, SharedDisk};
//! use vgship_base::extent::ExtentSize;
//! use vgship_base::ids::{Generation, GroupId, Seq, VolumeId};
//! use vgship_base::layout::{Layout, VolumeLayout};
//! use vgship_base::sim::{Power, SimDisk, SimFolder};
//! use vgship_base::units::Span;
//! use vgship_snapshot::seal::DataKey;
//! use vgship_snapshot::set::{NewSnapshot, Origin, Parts, Preserver, SnapshotSet};
//!
//! let power = Power::default();
//! let disk = SimDisk::volume(&power, 1 << 20);
//! let volumes = vec![VolumeLayout { name: "data".parse()?, bytes: 1 << 20, masked: 0 }];
//! let set = SnapshotSet::open(Parts {
//!     folder: Arc::new(SimFolder::new(&power)),
//!     keys: DataKey::generate()?.into(),
//!     group: GroupId([7; 16]),
//!     layout: Arc::new(Layout { extent: ExtentSize::from_log2(16).expect("64 KiB"), volumes }),
//!     volumes: vec![Arc::new(disk.clone()) as SharedDisk],
//!     pack_bytes: None,
//! })?;
//! let mut preserver = Preserver::new(Arc::clone(&set), 1, Seq(0))?;
//! disk.write_at(0, b"first")?; // record 1
//! let monday = preserver.take(&NewSnapshot {
//!     seq: Seq(1),
//!     name: "monday".parse()?,
//!     origin: Origin::Manual,
//!     guards: false,
//!     quiesced: false,
//!     torn: false,
//!     clock: 0,
//!     taken: 0,
//!     generation: Generation([1; 16]),
//!     point: Seq(1),
//! })?;
//!
//! // Record 2 overwrites it: what a snapshot shares with the volume is preserved before.
//! let written = [(VolumeId(0), Span::new(0, 6))];
//! let shared = preserver.shared(written.into_iter(), Seq(1), Seq(2))?;
//! preserver.preserve(&shared)?;
//! disk.write_at(0, b"second")?;
//!
//! set.settle(Seq(1));
//! let mut found = [0; 6];
//! set.view(&monday.expect("it is new"))?.read(VolumeId(0), 0, &mut found)?;
//! assert_eq!(&found, b"first\0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod catalog;
mod error;
mod packs;

pub mod overlay;

pub mod retention;

pub mod seal;

pub mod set;

pub mod template;

pub mod veil;

pub use error::SnapshotError;
pub use packs::{EXTENT_BYTES_MAX, ExtentId, PACK_BYTES};
