//! Why snapshots cannot do what was asked.

use std::io;

use thiserror::Error;
use vgship_base::bytes::FormatError;
use vgship_base::extent::Extent;
use vgship_base::ids::Seq;
use vgship_base::units::ByteLen;

use crate::packs::ExtentId;
use crate::seal::{KeyId, SealError};

/// Why snapshots cannot do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The folder refused.
    #[error("cannot {action} {name} of the snapshot store")]
    Folder {
        /// A verb.
        action: &'static str,
        /// The file's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A pack refused, or is not ours, or is damaged.
    #[error("pack {name} of the snapshot store cannot be used")]
    Pack {
        /// The file's name.
        name: String,
        /// Why.
        source: SealError,
    },
    /// The catalogue refused.
    #[error("cannot {action} the catalogue of the snapshot store")]
    Catalog {
        /// A verb.
        action: &'static str,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A row of the catalogue is not what was written.
    #[error("the catalogue of the snapshot store is damaged: {what}")]
    Row {
        /// Which row.
        what: &'static str,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The store is another group's, or needs another key or program.
    #[error("the snapshot store {0}")]
    Foreign(String),
    /// What is stored under an id is something else.
    #[error("pack {name} holds under {id} what is not that extent")]
    Content {
        /// The file's name.
        name: String,
        /// What was asked for.
        id: ExtentId,
    },
    /// The catalogue names content that it does not have.
    #[error("the content {id} of extent {} of volume {} is missing", extent.index, extent.volume.0)]
    Missing {
        /// Whose.
        extent: Extent,
        /// What it should be.
        id: ExtentId,
    },
    /// A volume of the group refused.
    #[error("cannot read extent {} of volume {}", extent.index, extent.volume.0)]
    Volume {
        /// Which extent.
        extent: Extent,
        /// What the disk said.
        source: io::Error,
    },
    /// There is too little room to preserve what is about to be overwritten. Nothing was changed.
    #[error("the snapshot store has no room: {} are free and {} are needed", ByteLen(*.free), ByteLen(*.needed))]
    NoRoom {
        /// Unit: bytes.
        needed: u64,
        /// Unit: bytes.
        free: u64,
    },
    /// No snapshot has this name.
    #[error("there is no snapshot {0}")]
    Unknown(String),
    /// A snapshot has this name already.
    #[error("there is a snapshot {name} already, of {seq}: choose another name or delete it first")]
    Named {
        /// The name.
        name: String,
        /// Whose it is.
        seq: Seq,
    },
    /// Pinned, guarding a resync, or in use.
    #[error("snapshot {name} cannot be deleted: {why}")]
    Kept {
        /// The name.
        name: String,
        /// Why.
        why: String,
    },
    /// No consistent point can be had here now.
    #[error("no snapshot can be taken: {0}")]
    Inconsistent(String),
    /// Not durable up to there yet.
    #[error("snapshot {0} is not complete yet: its volumes are still being written")]
    Unsettled(String),
}

impl SnapshotError {
    /// Whether a disk had no room.
    pub fn is_full(&self) -> bool {
        let full = |source: &io::Error| {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        match self {
            SnapshotError::NoRoom { .. } => true,
            SnapshotError::Folder { source, .. }
            | SnapshotError::Pack { source: SealError::Io { source, .. }, .. } => full(source),
            SnapshotError::Catalog { source, .. } => {
                matches!(&**source, redb::Error::Io(source) if full(source))
            }
            _ => false,
        }
    }

    /// Whether it was refused for what was asked, as against: something failed.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            SnapshotError::Unknown(_)
                | SnapshotError::Named { .. }
                | SnapshotError::Kept { .. }
                | SnapshotError::Inconsistent(_)
                | SnapshotError::Unsettled(_)
        )
    }

    /// Whether what was read is not to be had, however often that is tried: it is damaged, or
    /// sealed with a key that is not there.
    pub const fn is_lost(&self) -> bool {
        match self {
            SnapshotError::Pack { source, .. } => !matches!(source, SealError::Io { .. }),
            SnapshotError::Row { .. }
            | SnapshotError::Content { .. }
            | SnapshotError::Missing { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn other_key(found: KeyId, ours: KeyId) -> SnapshotError {
        SnapshotError::Foreign(format!("needs key {found}, not {ours}"))
    }
}
