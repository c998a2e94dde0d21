//! Finds a template's objects in one store.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use super::TemplateError;
use super::objects::{ObjectError, Objects, SharedObjects};
use super::place::{Kind, OBJECTS, ObjectId, Place, Ref, WriterId};

/// The folders of the writers whose objects a template uses.
pub(super) struct Shelves {
    store: SharedObjects,
    writers: BTreeSet<WriterId>,
    /// Who wrote what; read when first needed.
    places: OnceLock<HashMap<Ref, WriterId>>,
}

impl Shelves {
    pub(super) fn new(store: SharedObjects, writers: BTreeSet<WriterId>) -> Shelves {
        Shelves { store, writers, places: OnceLock::new() }
    }

    pub(super) fn store(&self) -> &dyn Objects {
        &*self.store
    }

    /// A folder that the template uses: what lies there is not collected while it stands.
    pub(super) fn shelf(&self) -> Option<WriterId> {
        self.writers.first().copied()
    }

    fn places(&self) -> Result<&HashMap<Ref, WriterId>, ObjectError> {
        if let Some(known) = self.places.get() {
            return Ok(known);
        }
        let mut places = HashMap::new();
        for writer in &self.writers {
            self.store.list(&format!("{OBJECTS}{writer}/"), &mut |found| {
                if let Some(place) = Place::parse(&found.key) {
                    places.insert(place.object, place.writer);
                }
            })?;
        }
        Ok(self.places.get_or_init(|| places))
    }

    /// What `read` finds of an object, and under which key.
    ///
    /// A copy that was condemned before this template could use it may lie in a folder beside those
    /// that it uses, and go: so where one is not, another folder is tried.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] when it is nowhere.
    pub(super) fn find<T>(
        &self,
        object: Ref,
        read: &mut dyn FnMut(&str) -> Result<Option<T>, ObjectError>,
    ) -> Result<(String, T), TemplateError> {
        let known = self.places()?.get(&object);
        for &writer in known.into_iter().chain(&self.writers) {
            let key = Place { writer, object }.key();
            if let Some(found) = read(&key)? {
                return Ok((key, found));
            }
        }
        Err(TemplateError::Missing { kind: object.kind, id: object.id })
    }

    /// A whole object, proven by its id, and its key.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] and [`TemplateError::Changed`] are damage.
    pub(super) fn fetch(&self, object: Ref) -> Result<(String, Vec<u8>), TemplateError> {
        proven(object, self.find(object, &mut |key| self.store.get(key))?)
    }

    /// A template's root node, without asking what else is there.
    pub(super) fn root(&self, id: ObjectId) -> Result<(String, Vec<u8>), TemplateError> {
        let object = Ref { kind: Kind::Node, id };
        for &writer in &self.writers {
            let key = Place { writer, object }.key();
            if let Some(bytes) = self.store.get(&key)? {
                return proven(object, (key, bytes));
            }
        }
        Err(TemplateError::Missing { kind: Kind::Node, id })
    }
}

fn proven(
    object: Ref,
    (key, bytes): (String, Vec<u8>),
) -> Result<(String, Vec<u8>), TemplateError> {
    match ObjectId::of(&bytes) == object.id {
        true => Ok((key, bytes)),
        false => Err(TemplateError::Changed { key }),
    }
}
