//! Where templates are kept: a folder, or an object store by its URL; and the key that seals them.

mod key;
mod remote;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgship_base::bytes::FormatError;
use vgship_snapshot::seal::{KeyId, SealError};
use vgship_snapshot::template::{LocalObjects, ObjectError, SharedObjects, TemplateError};

use crate::api::ControlError;
use crate::home::{Home, HomeError};

pub use key::{
    StoreKey, confirm_keys, confirm_made, copy_keys, end_key, list_keys, open_template, rotate_key,
    template_key, wrap_keys_also, wrap_keys_only,
};
pub use remote::RemoteObjects;

/// Why templates cannot be got at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL names no store.
    #[error("{url:?} is no store of templates: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A folder cannot be used.
    #[error("cannot use the folder {} for templates", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent's own key.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The store refused.
    #[error("the store of templates refused")]
    Object(#[from] ObjectError),
    /// The key of the store's templates cannot be opened, or made.
    #[error("the key of the store's templates cannot be used: {0}")]
    Key(#[from] SealError),
    /// A key that was destroyed is not brought back.
    #[error("the template's key {0} was destroyed in that store: it does not come back")]
    Gone(KeyId),
    /// A key may be about to be destroyed.
    #[error(
        "the template's key {0} is being retired or destroyed in that store: when that is over, or \
         was refused, try again"
    )]
    Going(KeyId),
    /// Something in the store is no key.
    #[error("the store's key of templates is not what was stored")]
    Format(#[from] FormatError),
}

/// Opens the store of a URL: `file:///DIR` or a path; `s3://BUCKET/PREFIX`, `az://`, `gs://` and
/// the like, with credentials from the environment. Without one, the home's own folder.
pub fn open_store(home: &Home, url: Option<&str>) -> Result<SharedObjects, StoreError> {
    let folder = |path: &Path| -> Result<SharedObjects, StoreError> {
        let opened = LocalObjects::open(path);
        opened
            .map(|it| Arc::new(it) as SharedObjects)
            .map_err(|source| StoreError::Folder { path: path.to_owned(), source })
    };
    match url {
        None => folder(&home.templates()),
        Some(url) => match (url.strip_prefix("file://"), url.contains("://")) {
            (Some(path), _) => folder(Path::new(path)),
            (None, true) => RemoteObjects::open(url).map(|it| Arc::new(it) as SharedObjects),
            (None, false) => folder(Path::new(url)),
        },
    }
}

/// What a caller is told of a store that cannot be used: a wrong URL is a wrong word of theirs.
pub fn store_error(error: &StoreError) -> ControlError {
    match error {
        StoreError::Url { .. } => ControlError::usage(error),
        StoreError::Gone(_) | StoreError::Going(_) => ControlError::refused(error),
        _ => ControlError::from_error(error),
    }
}

/// What a caller is told of a template that cannot be had: what the state forbids is a refusal.
pub fn template_error(error: &TemplateError) -> ControlError {
    match error {
        TemplateError::Taken { .. } | TemplateError::Absent(_) => ControlError::refused(error),
        _ => ControlError::from_error(error),
    }
}
