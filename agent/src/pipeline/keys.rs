//! The data keys of groups: each in its group's folder, wrapped by the agent's key.

use std::path::PathBuf;

use vgship_base::folder::{Folder, read_small, replace};
use vgship_base::ids::GroupId;
use vgship_base::io::RealFolder;
use vgship_snapshot::seal::{DataKey, KeyEncryptionKey, SealError};

use crate::home::{GroupHome, Home, HomeError};

const NAME: &str = "data.key";
const WRAPPED_MAX: u64 = 4096;

/// Why a group's data key cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    /// The agent's own key.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The group's folder.
    #[error("cannot read or write the data key in {}", folder.display())]
    Io {
        /// The group's folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key does not open with the agent's key.
    #[error("the data key in {} cannot be used; put back the agent's key that wrapped it",
        folder.display())]
    Seal {
        /// The group's folder.
        folder: PathBuf,
        /// Why.
        source: SealError,
    },
}

/// The data key of a group, made on first use.
///
/// Durable: a new key is on stable storage before anything is sealed with it.
pub(super) fn data_key(home: &Home, group: &GroupHome, id: GroupId) -> Result<DataKey, KeyError> {
    let place = group.folder().to_owned();
    let sealed = |source| KeyError::Seal { folder: place.clone(), source };
    let io = |source| KeyError::Io { folder: place.clone(), source };
    let own = std::fs::read(home.key()).map_err(io)?;
    home.load_key()?;
    let own = KeyEncryptionKey::from_file_bytes(&own).map_err(sealed)?;
    let folder = RealFolder::open(&place).map_err(io)?;
    if let Some(wrapped) = read_small(&folder, NAME, WRAPPED_MAX).map_err(io)? {
        return own.unwrap(id, &wrapped).map_err(sealed);
    }
    let fresh = DataKey::generate().map_err(sealed)?;
    let wrapped = own.wrap(id, &fresh).map_err(sealed)?;
    replace(&folder as &dyn Folder, NAME, &wrapped).map_err(io)?;
    Ok(fresh)
}
