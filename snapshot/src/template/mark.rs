//! Which objects of a store templates need, as a store knows that has no key.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::node::{Clear, ROOT};
use super::objects::{ObjectError, Objects};
use super::place::{Kind, OBJECTS, ObjectId, Place, Ref, Slot, WriterId};
use super::slot::{Slots, State};
use super::{TemplateError, current, in_format, state_of};

/// Reads what templates need. Nodes never change, so each is read once.
pub(super) struct Marker<'a> {
    store: &'a dyn Objects,
    nodes: HashMap<ObjectId, Rc<Clear>>,
}

/// All objects of a store, or some of them.
#[derive(Default)]
pub(super) struct Lying(HashMap<Ref, BTreeSet<WriterId>>);

impl Lying {
    /// All that lie in the store.
    pub(super) fn all(store: &dyn Objects) -> Result<Lying, ObjectError> {
        let mut found = Lying::default();
        store.list(OBJECTS, &mut |object| found.extend(Place::parse(&object.key)))?;
        Ok(found)
    }

    pub(super) fn extend(&mut self, places: impl IntoIterator<Item = Place>) {
        for place in places {
            self.0.entry(place.object).or_default().insert(place.writer);
        }
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        self.0.get(&place.object).is_some_and(|writers| writers.contains(&place.writer))
    }

    /// Takes out what does not fit.
    pub(super) fn retain(&mut self, mut fits: impl FnMut(&Place) -> bool) {
        for (&object, writers) in &mut self.0 {
            writers.retain(|&writer| fits(&Place { writer, object }));
        }
    }

    /// In the order of their keys' parts.
    pub(super) fn into_sorted(self) -> Vec<Place> {
        let places = self.0.into_iter().flat_map(|(object, writers)| {
            writers.into_iter().map(move |writer| Place { writer, object })
        });
        let mut places: Vec<_> = places.collect();
        places.sort_unstable();
        places
    }
}

impl<'a> Marker<'a> {
    pub(super) fn new(store: &'a dyn Objects) -> Marker<'a> {
        Marker { store, nodes: HashMap::new() }
    }

    /// Takes out of `lying` what the templates need that stand now.
    ///
    /// # Errors
    /// A template is damaged so that nobody knows what it needs.
    pub(super) fn take_needed(&mut self, lying: &mut Lying) -> Result<(), TemplateError> {
        for slot in Slots::read(self.store)?.highest() {
            let Some(State::Template { root, shelves }) = state_of(self.store, &slot)? else {
                continue;
            };
            match self.take(root, &shelves, lying) {
                // Unless it was deleted meanwhile, and somebody removed what it needed.
                Err(error) if error.is_damage() && !self.stands(&slot, root)? => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn stands(&self, slot: &Slot, root: ObjectId) -> Result<bool, TemplateError> {
        let Some((highest, state)) = current(self.store, &slot.name)? else { return Ok(false) };
        let same = matches!(state, State::Template { root: found, .. } if found == root);
        Ok(same && highest == *slot)
    }

    fn take(
        &mut self,
        root: ObjectId,
        shelves: &BTreeSet<WriterId>,
        lying: &mut Lying,
    ) -> Result<(), TemplateError> {
        let root = Ref { kind: Kind::Node, id: root };
        let (mut open, mut seen) = (vec![(root, None)], HashSet::from([root]));
        while let Some((object, parent)) = open.pop() {
            if let Some(writers) = lying.0.get_mut(&object) {
                writers.retain(|writer| !shelves.contains(writer));
            }
            if object.kind == Kind::Pack {
                continue;
            }
            let clear = self.node(object, parent.as_deref(), shelves)?;
            let needed = clear.needs().filter(|needed| seen.insert(*needed));
            open.extend(needed.map(|needed| (needed, Some(Rc::clone(&clear)))));
        }
        Ok(())
    }

    fn node(
        &mut self,
        object: Ref,
        parent: Option<&Clear>,
        shelves: &BTreeSet<WriterId>,
    ) -> Result<Rc<Clear>, TemplateError> {
        let clear = match self.nodes.get(&object.id) {
            Some(known) => Rc::clone(known),
            None => Rc::new(self.read(object, shelves)?),
        };
        let fits = parent.map_or(clear.level == ROOT, |parent| parent.takes(clear.level));
        if !fits {
            return Err(TemplateError::Changed { key: object.id.to_string() });
        }
        self.nodes.insert(object.id, Rc::clone(&clear));
        Ok(clear)
    }

    /// A node from whichever folder has it.
    fn read(&self, object: Ref, shelves: &BTreeSet<WriterId>) -> Result<Clear, TemplateError> {
        for &writer in shelves {
            let key = Place { writer, object }.key();
            if let Some(bytes) = self.store.get(&key)? {
                return match ObjectId::of(&bytes) == object.id {
                    true => Clear::decode(&bytes).map_err(in_format(&key)),
                    false => Err(TemplateError::Changed { key }),
                };
            }
        }
        Err(TemplateError::Missing { kind: object.kind, id: object.id })
    }
}
