//! The work of one writer: what it may rely on, what it adds, and how its template begins to be.
//!
//! The order of the steps is what collecting garbage is safe by: see the module's doc comment.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use vgship_base::ids::Name;

use super::keylist;
use super::objects::{Objects, listed};
use super::place::{
    CONDEMNED, Condemned, Intent, Kind, OBJECTS, ObjectId, Part, Place, Ref, Slot, WriterId,
};
use super::slot::{self, SHELVES_MAX, State};
use super::{TemplateError, in_format, state_of};
use crate::seal;

/// After so much work a writer says again that it is alive. Unit: bytes. Far less than a grace
/// period of hours, at any speed that anybody waits for; in tests, within any test.
const RENEW_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 1 << 30 };

/// A writer of one template.
pub(super) struct Session<'a> {
    store: &'a dyn Objects,
    intent: Intent,
    /// What lies in the store and was not condemned when this writer began.
    present: BTreeMap<Ref, WriterId>,
    /// Whose objects the template has so far.
    shelves: BTreeSet<WriterId>,
    since_renewal: u64,
    stored: u64,
}

impl<'a> Session<'a> {
    /// Begins to write the template `name`.
    ///
    /// # Errors
    /// [`TemplateError::Taken`] when there is one of this name.
    pub(super) fn begin(store: &'a dyn Objects, name: &Name) -> Result<Session<'a>, TemplateError> {
        let slot = free_slot(store, name)?;
        let writer = WriterId(seal::random().map_err(TemplateError::Random)?);
        let intent = Intent { slot, writer };
        store.put(&intent.key(), b"")?;
        // First what is condemned, then what is there: what was removed between must not be seen.
        let condemned = all_condemned(store)?;
        let mut present = BTreeMap::new();
        store.list(OBJECTS, &mut |found| {
            if !condemned.contains(&found.key)
                && let Some(place) = Place::parse(&found.key)
            {
                present.insert(place.object, place.writer);
            }
        })?;
        let shelves = BTreeSet::new();
        Ok(Session { store, intent, present, shelves, since_renewal: 0, stored: 0 })
    }

    /// Whether the template may use `object` as it lies in the store; then it does.
    pub(super) fn uses(&mut self, object: Ref) -> bool {
        let Some(&shelf) = self.present.get(&object) else { return false };
        let fits = self.shelves.len() < SHELVES_MAX - 1 || self.shelves.contains(&shelf);
        if fits {
            self.shelves.insert(shelf);
        }
        fits
    }

    /// Whether `object` may be used.
    pub(super) fn has(&self, object: Ref) -> bool {
        self.present.contains_key(&object)
    }

    /// All nodes that may be used and are what they should be, with their bytes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Result<(ObjectId, Vec<u8>), TemplateError>> {
        let nodes = self.present.iter().filter(|(object, _)| object.kind == Kind::Node);
        nodes.filter_map(|(&object, &writer)| {
            let read = self.store.get(&Place { writer, object }.key());
            match read.map(|bytes| bytes.filter(|bytes| ObjectId::of(bytes) == object.id)) {
                Ok(bytes) => bytes.map(|bytes| Ok((object.id, bytes))),
                Err(error) => Some(Err(error.into())),
            }
        })
    }

    /// Stores an object, unless it is there.
    pub(super) fn put(&mut self, kind: Kind, bytes: &[u8]) -> Result<ObjectId, TemplateError> {
        let object = Ref { kind, id: ObjectId::of(bytes) };
        if !self.uses(object) {
            let writer = self.intent.writer;
            self.store.put(&Place { writer, object }.key(), bytes)?;
            self.present.insert(object, writer);
            self.shelves.insert(writer);
            self.stored += bytes.len() as u64;
            self.worked(bytes.len() as u64)?;
        }
        Ok(object.id)
    }

    /// Notes work, and says from time to time that this writer is alive.
    ///
    /// # Errors
    /// [`TemplateError::GivenUp`] when it was given up all the same: what it does is in vain.
    pub(super) fn worked(&mut self, bytes: u64) -> Result<(), TemplateError> {
        self.since_renewal += bytes;
        if self.since_renewal >= RENEW_BYTES {
            self.since_renewal = 0;
            self.store.put(&self.intent.key(), b"")?;
            let highest = slot::highest(self.store, &self.intent.slot.name)?;
            if let Some(highest) = highest.filter(|highest| *highest >= self.intent.slot) {
                return Err(self.lost(&highest));
            }
        }
        Ok(())
    }

    /// How much was stored. Unit: bytes.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Lets the template begin to be, if nobody was faster.
    ///
    /// # Errors
    /// [`TemplateError::Taken`] or [`TemplateError::GivenUp`]; the store's own leave open whether
    /// it is there now.
    pub(super) fn commit(self, root: ObjectId) -> Result<(), TemplateError> {
        let slot = &self.intent.slot;
        let bytes = State::Template { root, shelves: self.shelves.clone() }.encode();
        let won = self.store.put_if_absent(&slot.key(), &bytes)?
            // Or it was written, and the answer was lost, and the store tried again.
            || self.store.get(&slot.key())?.is_some_and(|found| found == bytes);
        // A place below the highest was given up and forgotten: that it was empty means nothing.
        let highest = slot::highest(self.store, &slot.name)?.unwrap_or_else(|| slot.clone());
        let done = if won && highest == *slot { Ok(()) } else { Err(self.lost(&highest)) };
        self.store.delete(&self.intent.key())?;
        done
    }

    /// Why the place that counts is not ours.
    fn lost(&self, highest: &Slot) -> TemplateError {
        let name = self.intent.slot.name.clone();
        match state_of(self.store, highest) {
            Ok(Some(State::Template { root, .. })) => TemplateError::Taken { name, root },
            Ok(_) => TemplateError::GivenUp { name },
            Err(error) => error,
        }
    }
}

/// The place that a new template of this name would fill.
fn free_slot(store: &dyn Objects, name: &Name) -> Result<Slot, TemplateError> {
    let Some(highest) = slot::highest(store, name)? else {
        return Ok(Slot { name: name.clone(), number: 1 });
    };
    let number = vgship_base::folder::number_after(Some(highest.number))
        .map_err(|source| TemplateError::Numbers { key: highest.key(), source })?;
    match state_of(store, &highest)? {
        Some(State::Template { root, .. }) => {
            Err(TemplateError::Taken { name: name.clone(), root })
        }
        _ => Ok(Slot { name: name.clone(), number }),
    }
}

/// The keys of all objects that will be removed.
fn all_condemned(store: &dyn Objects) -> Result<HashSet<String>, TemplateError> {
    let mut keys = HashSet::new();
    for found in listed(store, CONDEMNED)? {
        if let Some((_, Part::List)) = Condemned::parse(&found.key)
            && let Some(bytes) = store.get(&found.key)?
        {
            keys.extend(keylist::decode(&bytes).map_err(in_format(&found.key))?);
        }
    }
    Ok(keys)
}
