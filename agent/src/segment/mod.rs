//! Segments: sealed files of records. The journal and the spill are rows of them.
//!
//! ```text
//! frame 0         the segment's head: its number, its generation, what it continues
//! frame 1, 2 ...  batches of records, each with the seq behind which it stands and the highest
//!                 seq that was promised as durable when it was written
//! ```
//!
//! A segment gets its name only when its head is durable. So a segment whose head cannot be read
//! was damaged, never torn.

mod batch;
mod file;
mod head;

pub use batch::{Batch, batches};
pub use file::{Place, SegmentReader, SegmentWriter, Step, name, number_of};
pub use head::{Head, Previous};

use std::io;

use thiserror::Error;
use vgship_snapshot::seal::SealError;

/// Unless told otherwise a segment ends at this size. Unit: bytes. Small enough to give room back
/// often, large enough that beginning one (two flushes) does not show: 64 MiB.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// What failed on which segment.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The folder refused.
    #[error("cannot {action} segment {name}")]
    Folder {
        /// A verb.
        action: &'static str,
        /// The file's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file refused, or is not ours, or is damaged.
    #[error("segment {name} cannot be used")]
    Seal {
        /// The file's name.
        name: String,
        /// Why.
        source: SealError,
    },
}

impl SegmentError {
    /// Whether the bytes are not what was written, as against: the disk refused.
    pub const fn is_damage(&self) -> bool {
        matches!(self, SegmentError::Seal { source, .. } if source.is_damage())
    }

    /// Whether the disk has no room, which it may have again later.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let source = match self {
            SegmentError::Folder { source, .. }
            | SegmentError::Seal { source: SealError::Io { source, .. }, .. } => source,
            SegmentError::Seal { .. } => return false,
        };
        matches!(source.kind(), StorageFull | QuotaExceeded)
    }
}
