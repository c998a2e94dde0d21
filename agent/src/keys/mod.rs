//! The data keys of groups: several each, wrapped by the agent's key-encryption key, in the group's
//! folder; what still needs which of them; and a new key-encryption key.

pub mod escrow;
mod files;
pub mod needs;
pub mod report;
pub mod rewrap;
mod ring;
mod veil;
pub mod veiled;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgship_snapshot::seal::{KeyId, SealError};

use crate::api::ControlError;
use crate::home::HomeError;

pub use files::{KeyFiles, KnownKey};
pub use ring::{check, destroy, find_old, list, ring, rotate};
pub use veil::{KnownVeil, known_veil, lost_veil, veil, veil_or_make};

/// Why keys cannot be had or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The agent's own key, or its configuration.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The folder of the keys.
    #[error("cannot {action} {} in the folder of data keys {}", name, folder.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// Which file.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key does not open with the agent's key, or is damaged.
    #[error("the data key {name} in {} cannot be used", folder.display())]
    Seal {
        /// Which file.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: SealError,
    },
    /// A sealed file does not tell which key it needs.
    #[error("it cannot be told which key {name} in {} needs", folder.display())]
    Sealed {
        /// Which file.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: SealError,
    },
    /// No file of a key is wrapped by the agent's key.
    #[error(
        "the data key {id} in {} is wrapped by {by}, not by this agent's key {ours}: put back the \
         agent's key that wrapped it", folder.display()
    )]
    Wrapped {
        /// The data key.
        id: KeyId,
        /// The folder.
        folder: PathBuf,
        /// What wraps it.
        by: KeyId,
        /// The agent's.
        ours: KeyId,
    },
    /// Its files are not those of a ring.
    #[error("the keys in {} are not whole: {why}", folder.display())]
    Strange {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No such key.
    #[error("there is no key {text} here; there are: {known}")]
    Unknown {
        /// As asked for.
        text: String,
        /// Those that there are.
        known: String,
    },
    /// What is new is sealed with it.
    #[error("key {0} is the current one")]
    Current(KeyId),
    /// It is no more.
    #[error("key {0} was destroyed already")]
    Ended(KeyId),
    /// The new key-encryption key is the one that there is.
    #[error("{0}")]
    Refused(String),
}

impl KeyError {
    /// What a caller is told.
    pub fn told(&self) -> ControlError {
        match self {
            KeyError::Unknown { .. } | KeyError::Ended(_) | KeyError::Refused(_) => {
                ControlError::refused(self)
            }
            KeyError::Current(_) => ControlError::refused(self).hint(
                "make a new one first: vgship key rotate; then nothing new is sealed with it",
            ),
            KeyError::Home(error) => match error.hint() {
                Some(hint) => ControlError::from_error(self).hint(hint),
                None => ControlError::from_error(self),
            },
            _ => ControlError::from_error(self),
        }
    }
}

/// Held by whoever reads or changes files of keys in this process; others are kept out by the home's
/// lock. So no key is made with a key-encryption key that is just being replaced.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
