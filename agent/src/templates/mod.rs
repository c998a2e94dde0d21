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

/// Where a store is: the same text for all names of one folder, and for names of a bucket that differ
/// in their scheme or a closing slash alone.
pub fn store_place(home: &Home, url: Option<&str>) -> String {
    let folder = |path: &Path| {
        let place = path.canonicalize().or_else(|_| std::path::absolute(path));
        let place = place.unwrap_or_else(|_| path.to_owned());
        place.components().collect::<PathBuf>().display().to_string()
    };
    let Some(url) = url else { return folder(&home.templates()) };
    match (url.strip_prefix("file://"), url.split_once("://")) {
        (Some(path), _) => folder(Path::new(path)),
        (None, Some((_, place))) => format!("//{}", place.trim_end_matches('/')),
        (None, None) => folder(Path::new(url)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_one_place_by_whichever_name() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let own = home.templates();
        let of = |url: &str| store_place(&home, Some(url));
        let text = own.display().to_string();
        for there in [false, true] {
            for name in [text.clone(), format!("{text}/"), format!("file://{text}")] {
                assert_eq!(of(&name), store_place(&home, None), "{name}, {there}");
            }
            std::fs::create_dir_all(&own).unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert_eq!(of(&link.display().to_string()), store_place(&home, None));
        assert_ne!(of(&folder.path().display().to_string()), store_place(&home, None));
        assert_eq!(of("s3://bucket/a"), of("s3a://bucket/a/"));
        assert_ne!(of("s3://bucket/a"), of("s3://bucket/b"));
        assert_ne!(of("s3://bucket/a"), of("/bucket/a"));
    }
}
