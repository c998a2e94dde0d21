//! What can go wrong with templates.

use std::io;

use thiserror::Error;
use vgship_base::bytes::FormatError;
use vgship_base::ids::Name;

use super::chunk::ChunkError;
use super::objects::ObjectError;
use super::place::{Kind, ObjectId};
use crate::seal::SealError;

/// Why a template cannot be made, read, copied or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The store refused.
    #[error("the store of templates refused")]
    Store(#[from] ObjectError),
    /// There is a template of this name.
    #[error("there is a template {name} already: choose another name, or delete it")]
    Taken {
        /// The name.
        name: Name,
        /// The root of the one that is there.
        root: ObjectId,
    },
    /// There is no template of this name.
    #[error("there is no template {0}")]
    Absent(Name),
    /// It took so long that a collection of garbage took its maker for dead.
    #[error(
        "template {name} was given up by a collection of garbage before it was whole: do the same \
         again, what was stored is used where it is still there"
    )]
    GivenUp {
        /// The name.
        name: Name,
    },
    /// A place names a template that was made under another name.
    #[error("what stands as template {name} was made as {found}: somebody put it in its place")]
    Renamed {
        /// The name.
        name: Name,
        /// What it says of itself.
        found: Name,
    },
    /// What is given does not fit together.
    #[error("no template can be made of {0}")]
    Input(String),
    /// What is to be noted does not fit into a manifest.
    #[error("the template's manifest cannot be written")]
    Manifest(#[source] FormatError),
    /// A volume cannot be read.
    #[error("cannot read volume {volume} at byte {offset}")]
    Source {
        /// Its name.
        volume: Name,
        /// Unit: bytes from the volume's start.
        offset: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// Whoever was told of the progress wanted no more.
    #[error("it was broken off; done again, it goes on where it stopped")]
    Stopped,
    /// The system gives no random bytes.
    #[error("a writer of templates needs a number")]
    Random(#[source] SealError),
    /// Nothing can be sealed.
    #[error("cannot seal an object of the template")]
    Seal(#[source] SealError),
    /// The places of a name have run out.
    #[error("no place behind {key} can be numbered")]
    Numbers {
        /// The key of the last place.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// An object that is needed is not in the store.
    #[error("{kind:?} {id} is not in the store")]
    Missing {
        /// What it is.
        kind: Kind,
        /// Its id.
        id: ObjectId,
    },
    /// An object's bytes are not those that its id is made of, or it stands in a wrong place.
    #[error("the object {key} is not what was stored")]
    Changed {
        /// Its key.
        key: String,
    },
    /// An object cannot be decoded.
    #[error("the object {key} cannot be decoded")]
    Format {
        /// Its key.
        key: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// An object cannot be opened.
    #[error("the object {key} cannot be opened")]
    Sealed {
        /// Its key.
        key: String,
        /// Why.
        source: SealError,
    },
    /// What a pack holds is not the chunk that is meant.
    #[error("a chunk in {key} is not what was stored")]
    Chunk {
        /// The pack's key.
        key: String,
        /// Why.
        source: ChunkError,
    },
    /// All chunks are whole, and together not what the manifest says.
    #[error("volume {0} is not what its template's manifest says")]
    Content(Name),
}

impl TemplateError {
    /// Whether something is not what was once stored, as against: refused, or meant for others.
    pub const fn is_damage(&self) -> bool {
        match self {
            TemplateError::Missing { .. }
            | TemplateError::Changed { .. }
            | TemplateError::Content(_) => true,
            TemplateError::Format { source, .. } => !matches!(source, FormatError::Version { .. }),
            TemplateError::Sealed { source, .. } => source.is_damage(),
            TemplateError::Chunk { source, .. } => !matches!(source, ChunkError::Codec(_)),
            _ => false,
        }
    }
}
