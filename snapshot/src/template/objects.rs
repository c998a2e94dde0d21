//! The seam to object stores: named blobs that are written as a whole.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// A store refused.
#[derive(Debug, Error)]
#[error("cannot {action} the object {key}")]
pub struct ObjectError {
    /// A verb: write, read, list, remove.
    pub action: &'static str,
    /// Which object, or the prefix of those that were to be listed.
    pub key: String,
    /// What the store said.
    pub source: io::Error,
}

impl ObjectError {
    /// For `map_err`: what was tried on which object.
    pub fn of(action: &'static str, key: &str) -> impl FnOnce(io::Error) -> ObjectError {
        move |source| ObjectError { action, key: key.to_owned(), source }
    }
}

/// What a store knows of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its whole key.
    pub key: String,
    /// Unit: bytes.
    pub len: u64,
    /// When it was written last, by the store's clock. Unit: milliseconds since 1970.
    pub modified: u64,
}

/// A store of objects: a folder, S3 and its like. All calls block.
///
/// A key is one or more parts of ASCII letters, digits, `.`, `_` and `-`, not beginning with `.`,
/// with `/` between them ([`key_is_legal`]), and no key has another as its leading parts.
///
/// Order:   a call takes effect at one moment between its beginning and its end, for all who use
///          the store. An implementation that tries again by itself may do so only for a time much
///          shorter than the grace period of [`super::collect_garbage`].
/// Durable: what was written or removed is so once the call has returned.
///
/// After an error a call may have taken effect or not.
pub trait Objects: Send + Sync {
    /// How many objects one writer puts at the same time with profit. Each is in memory until then.
    fn at_once(&self) -> usize {
        1
    }

    /// Writes an object, in place of the one that had the key.
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectError>;

    /// Writes an object unless there is one; gives whether it was written.
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, ObjectError>;

    /// The object's bytes, `None` when there is none.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError>;

    /// At most `len` bytes of the object from `offset` on: fewer where it ends before.
    fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Option<Vec<u8>>, ObjectError>;

    /// What is known of an object, `None` when there is none.
    fn head(&self, key: &str) -> Result<Option<ObjectInfo>, ObjectError>;

    /// Tells `each` of all objects whose key begins with `prefix`, which is empty or ends in `/`.
    ///
    /// Order: ascending by the parts of the keys. The store may be read piece by piece meanwhile,
    /// so of what changes either may be told; but what was there before the call and is still there
    /// behind it is told, and what was removed before the call is not.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), ObjectError>;

    /// Removes an object. That there is none is no error.
    fn delete(&self, key: &str) -> Result<(), ObjectError>;
}

/// A store that several owners share.
pub type SharedObjects = Arc<dyn Objects>;

/// Longest key. Unit: bytes. S3 allows 1024, and a prefix may stand before ours.
pub const KEY_MAX: usize = 512;

/// Whether a text may be the key of an object.
pub fn key_is_legal(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    key.len() <= KEY_MAX && key.split('/').all(part)
}

/// Collects what [`Objects::list`] tells.
pub(super) fn listed(store: &dyn Objects, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
    let mut found = Vec::new();
    store.list(prefix, &mut |info| found.push(info))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_their_store() {
        for good in ["a", "templates/gold-1.2/0000000000000001", "objects/ab/cd.pack"] {
            assert!(key_is_legal(good), "{good}");
        }
        let long = "x".repeat(KEY_MAX + 1);
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".a", "a/.b", "a b", "a\\b", "\u{e9}", &long]
        {
            assert!(!key_is_legal(bad), "{bad}");
        }
    }
}
