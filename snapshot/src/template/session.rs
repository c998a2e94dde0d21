//! The work of one writer: what it may rely on, what it adds, and how its template begins to be.
//!
//! The order of the steps is what collecting garbage is safe by: see the module's doc comment.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::thread::Scope;

use vgship_base::ids::Name;

use super::behind::Behind;
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
    /// Who writes objects meanwhile. Nothing else is done with the store before it is done.
    behind: Option<Behind>,
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
        let (since_renewal, stored, behind) = (0, 0, None);
        Ok(Session { store, intent, present, shelves, since_renewal, stored, behind })
    }

    /// From now on other threads write objects. They end behind this session.
    pub(super) fn write_behind<'scope>(&mut self, scope: &'scope Scope<'scope, '_>)
    where
        'a: 'scope,
    {
        self.behind = Some(Behind::begin(scope, self.store));
    }

    /// Memory for a pack.
    pub(super) fn memory(&self) -> Vec<u8> {
        self.behind.as_ref().map(Behind::memory).unwrap_or_default()
    }

    /// The store, when all that was put is written.
    fn store(&mut self) -> Result<&'a dyn Objects, TemplateError> {
        if let Some(behind) = &self.behind {
            behind.wait()?;
        }
        Ok(self.store)
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
            let read = whole(self.store, Place { writer, object });
            read.map(|bytes| bytes.map(|bytes| (object.id, bytes))).transpose()
        })
    }

    /// The bytes of a node that may be used, `None` when they are not what they should be.
    pub(super) fn node(&mut self, id: ObjectId) -> Result<Option<Vec<u8>>, TemplateError> {
        let object = Ref { kind: Kind::Node, id };
        match self.present.get(&object).copied() {
            Some(writer) => whole(self.store()?, Place { writer, object }),
            None => Ok(None),
        }
    }

    /// Stores an object, unless it is there.
    ///
    /// Durable: with [`Session::write_behind`] not before something else is done with the store.
    pub(super) fn put(&mut self, kind: Kind, bytes: Vec<u8>) -> Result<ObjectId, TemplateError> {
        let object = Ref { kind, id: ObjectId::of(&bytes) };
        if !self.uses(object) {
            let (writer, len) = (self.intent.writer, bytes.len() as u64);
            let place = Place { writer, object };
            match &self.behind {
                Some(behind) => behind.put(place, bytes)?,
                None => self.store.put(&place.key(), &bytes)?,
            }
            self.present.insert(object, writer);
            self.shelves.insert(writer);
            self.stored += len;
            self.worked(len)?;
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
            let store = self.store()?;
            store.put(&self.intent.key(), b"")?;
            let highest = slot::highest(store, &self.intent.slot.name)?;
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
    pub(super) fn commit(mut self, root: ObjectId) -> Result<(), TemplateError> {
        let store = self.store()?;
        let slot = &self.intent.slot;
        let bytes = State::Template { root, shelves: self.shelves.clone() }.encode();
        let won = store.put_if_absent(&slot.key(), &bytes)?
            // Or it was written, and the answer was lost, and the store tried again.
            || store.get(&slot.key())?.is_some_and(|found| found == bytes);
        // A place below the highest was given up and forgotten: that it was empty means nothing.
        let highest = slot::highest(store, &slot.name)?.unwrap_or_else(|| slot.clone());
        let done = if won && highest == *slot { Ok(()) } else { Err(self.lost(&highest)) };
        store.delete(&self.intent.key())?;
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

/// The bytes of an object, `None` when it is not there or they are not what they should be.
fn whole(store: &dyn Objects, place: Place) -> Result<Option<Vec<u8>>, TemplateError> {
    let bytes = store.get(&place.key())?;
    Ok(bytes.filter(|bytes| ObjectId::of(bytes) == place.object.id))
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
