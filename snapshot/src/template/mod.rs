//! Templates.

mod chunk;
mod create;
mod diff;
mod error;
mod index;
mod io;
mod keylist;
mod lru;
mod manifest;
mod memory;
mod node;
mod objects;
mod page;
mod place;
mod push;
mod read;
mod session;
mod shelves;
mod show;
mod slot;
mod tree;
mod verify;
mod walk;

use std::sync::Arc;

use vgship_base::bytes::FormatError;
use vgship_base::ids::{Name, VolumeId};

use crate::seal::{DataKey, KeyId};
use read::Chunks;
use shelves::Shelves;
use slot::{Slots, State};

pub use chunk::{CHUNK_LOG2_DEFAULT, ChunkError, ChunkId};
pub use create::{Created, Meta, OnProgress, PACK_BYTES, Progress, create};
pub use diff::{Difference, FieldDifference, VolumeDifference, diff};
pub use error::TemplateError;
pub use io::LocalObjects;
pub use manifest::{
    FACT_KEY_MAX, FACT_VALUE_MAX, FACTS_MAX, Facts, Manifest, SourcePoint, VolumeManifest,
};
pub use memory::{Gate, MemoryObjects};
pub use objects::{KEY_MAX, ObjectError, ObjectInfo, Objects, SharedObjects, key_is_legal};
pub use place::{Kind, ObjectId, WriterId};
pub use push::{Pushed, push};
pub use read::TemplateDisk;
pub use verify::{Damage, Verified, verify_blind};

/// For `map_err`: the object `key` does not decode.
fn in_format(key: &str) -> impl FnOnce(FormatError) -> TemplateError {
    move |source| TemplateError::Format { key: key.to_owned(), source }
}

/// What became of a name, as this place says; `None` when it is empty.
fn state_of(store: &dyn Objects, slot: &place::Slot) -> Result<Option<State>, TemplateError> {
    let bytes = store.get(&slot.key())?;
    bytes.map(|bytes| State::decode(&bytes).map_err(in_format(&slot.key()))).transpose()
}

/// The root of the template `name`, and where its objects are.
fn standing(store: &SharedObjects, name: &Name) -> Result<(ObjectId, Shelves), TemplateError> {
    let state = match slot::highest(&**store, name)? {
        Some(slot) => state_of(&**store, &slot)?,
        None => None,
    };
    match state {
        Some(State::Template { root, shelves }) => {
            Ok((root, Shelves::new(Arc::clone(store), shelves)))
        }
        _ => Err(TemplateError::Absent(name.clone())),
    }
}

/// An open template.
pub struct Template {
    root: ObjectId,
    manifest: Arc<Manifest>,
    chunks: Arc<Chunks>,
}

impl Template {
    /// Opens the template `name`. Reads its manifest and nothing else.
    ///
    /// It can be read as long as nobody deletes it; whoever uses one sees to that.
    ///
    /// # Errors
    /// [`TemplateError::Absent`]; [`TemplateError::Sealed`] when it needs another key.
    pub fn open(
        store: &SharedObjects,
        key: &DataKey,
        name: &Name,
    ) -> Result<Template, TemplateError> {
        let (root, shelves) = standing(store, name)?;
        let bytes = shelves.root(root)?;
        let in_root = |source| TemplateError::Sealed { key: root.to_string(), source };
        let (clear, body) = node::open(&bytes, key).map_err(in_root)?;
        let manifest = Manifest::decode(&clear, &body, key.id())
            .map_err(|source| TemplateError::Format { key: root.to_string(), source })?;
        if manifest.name != *name {
            return Err(TemplateError::Renamed { name: name.clone(), found: manifest.name });
        }
        let (manifest, chunks) = (Arc::new(manifest), Arc::new(Chunks::new(shelves, key)));
        Ok(Template { root, manifest, chunks })
    }

    /// The id of its root, which proves every byte of it.
    pub const fn root(&self) -> ObjectId {
        self.root
    }

    /// What it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// One of its volumes, to be read.
    pub fn volume(&self, id: VolumeId) -> Option<TemplateDisk> {
        let known = id.index() < self.manifest.volumes.len();
        known.then(|| TemplateDisk {
            chunks: Arc::clone(&self.chunks),
            manifest: Arc::clone(&self.manifest),
            volume: id,
        })
    }
}

/// A template as a store without its key knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTemplate {
    /// Its name.
    pub name: Name,
    /// Its root; `None` when what says so is damaged.
    pub root: Option<ObjectId>,
    /// The key it is sealed with; `None` when its root is damaged.
    pub key: Option<KeyId>,
}

/// All templates of a store, by name.
///
/// # Errors
/// What the store refuses. Damage is told in its entry.
pub fn list(store: &SharedObjects) -> Result<Vec<ListedTemplate>, TemplateError> {
    let mut found = Vec::new();
    for slot in Slots::read(&**store)?.highest() {
        let name = slot.name.clone();
        match state_of(&**store, &slot) {
            Ok(Some(State::Template { root, shelves })) => {
                let key = match Shelves::new(Arc::clone(store), shelves).root(root) {
                    Ok(bytes) => node::key_id(&bytes).ok(),
                    Err(error) if error.is_damage() => None,
                    Err(error) => return Err(error),
                };
                found.push(ListedTemplate { name, root: Some(root), key });
            }
            Err(TemplateError::Format { .. }) => {
                found.push(ListedTemplate { name, root: None, key: None });
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Deletes the template `name`, damaged or not. What no other needs goes with the next
/// collection of garbage.
///
/// Durable: that it is no more, once this has returned.
///
/// # Errors
/// [`TemplateError::Absent`] when there is none.
pub fn delete(store: &dyn Objects, name: &Name) -> Result<(), TemplateError> {
    loop {
        let slot =
            slot::highest(store, name)?.ok_or_else(|| TemplateError::Absent(name.clone()))?;
        match state_of(store, &slot) {
            // It was below the highest by then.
            Ok(None) => {}
            Ok(Some(State::Deleted | State::GivenUp)) => {
                return Err(TemplateError::Absent(name.clone()));
            }
            Ok(Some(State::Template { .. })) | Err(TemplateError::Format { .. }) => {
                return Ok(store.put(&slot.key(), &State::Deleted.encode())?);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
