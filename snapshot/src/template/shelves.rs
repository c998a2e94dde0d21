//! Finds a template's objects in one store.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use super::TemplateError;
use super::objects::{Objects, SharedObjects};
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

    fn places(&self) -> Result<&HashMap<Ref, WriterId>, TemplateError> {
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

    /// Where an object lies.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] when it does not.
    pub(super) fn key(&self, object: Ref) -> Result<String, TemplateError> {
        match self.places()?.get(&object) {
            Some(&writer) => Ok(Place { writer, object }.key()),
            None => Err(TemplateError::Missing { kind: object.kind, id: object.id }),
        }
    }

    /// A whole object, proven by its id.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] and [`TemplateError::Changed`] are damage.
    pub(super) fn fetch(&self, object: Ref) -> Result<Vec<u8>, TemplateError> {
        let key = self.key(object)?;
        let missing = TemplateError::Missing { kind: object.kind, id: object.id };
        let bytes = self.store.get(&key)?.ok_or(missing)?;
        match ObjectId::of(&bytes) == object.id {
            true => Ok(bytes),
            false => Err(TemplateError::Changed { key }),
        }
    }

    /// A template's root node, without asking for all else that is there.
    pub(super) fn root(&self, id: ObjectId) -> Result<Vec<u8>, TemplateError> {
        let object = Ref { kind: Kind::Node, id };
        for &writer in &self.writers {
            let key = Place { writer, object }.key();
            match self.store.get(&key)? {
                Some(bytes) if ObjectId::of(&bytes) == id => return Ok(bytes),
                Some(_) => return Err(TemplateError::Changed { key }),
                None => {}
            }
        }
        Err(TemplateError::Missing { kind: Kind::Node, id })
    }
}
