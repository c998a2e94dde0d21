//! Sealed files, the extent store and the templates of vgship. Knows nothing of networks, tasks or
//! agents; files come through [`vgship_base::folder::Folder`], objects through
//! [`template::Objects`], so that everything runs on simulated disks and stores too.
//!
//! ```
//! use std::sync::Arc;
//! use vgship_base::ids::GroupId;
//! use vgship_base::sim::{Power, SimFolder};
//! use vgship_snapshot::seal::DataKey;
//! use vgship_snapshot::store::Store;
//!
//! let folder = Arc::new(SimFolder::new(&Power::default()));
//! let (mut store, found) = Store::open(folder, &DataKey::generate()?, GroupId([7; 16]))?;
//! assert!(found.damage.is_empty());
//! let id = store.put(b"what an extent held before")?;
//! store.flush()?; // now it survives a power cut
//! assert_eq!(store.get(id)?.as_deref(), Some(&b"what an extent held before"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod seal;

pub mod store;

pub mod template;
