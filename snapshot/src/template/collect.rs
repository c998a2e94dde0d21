//! Collecting garbage. The protocol, and why it is safe, stand in the module's doc comment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vgship_base::ids::Name;

use super::keylist::{self, KEYS_MAX};
use super::mark::{Lying, Marker};
use super::objects::{Objects, listed};
use super::place::{
    CLOCK, CONDEMNED, Condemned, INTENTS, Intent, Part, Place, Slot, WriterId, hex,
};
use super::slot::{Slots, State};
use super::{TemplateError, in_format};
use crate::seal;

/// A grace period that fits most: no writer is silent for a day.
pub const GRACE_DEFAULT: Duration = Duration::from_hours(24);

/// Somebody for whom what is condemned has to wait.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitsFor {
    /// Of the template that is being made or copied.
    pub name: Name,
    /// Who does it.
    pub writer: WriterId,
}

/// What a collection came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that were removed.
    pub removed: u64,
    /// Objects that are condemned, and go with a later collection when nobody is waited for.
    pub condemned: u64,
    /// Those that are waited for.
    pub waits_for: BTreeSet<WaitsFor>,
    /// Templates whose writers were silent for longer than the grace period.
    pub given_up: BTreeSet<Name>,
}

/// Removes objects that no template needs, without any key.
///
/// May run at any time, also several at once, while templates are made, copied and deleted. What
/// is being made or copied meanwhile is not touched; what could be used by it waits for a later
/// collection. A writer of whom nothing was heard for `grace`, by the store's clock, is given up:
/// should it live all the same, it fails and can begin again. No template that stands is ever
/// touched, whatever the clocks and however short the grace.
///
/// Not known here is who reads: whoever deletes a template sees to that nobody uses it.
///
/// # Errors
/// What the store refuses. A template that is damaged so that it is not known what it needs:
/// nothing more is removed until it is deleted or whole again.
pub fn collect_garbage(store: &dyn Objects, grace: Duration) -> Result<Collected, TemplateError> {
    let mut run = Collector { store, marker: Marker::new(store), found: Collected::default() };
    run.end_writers(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))?;
    for stale in Slots::read(store)?.stale {
        store.delete(&stale.key())?;
    }
    for id in run.lists()?.into_keys() {
        run.advance(id)?;
    }
    for id in run.condemn()? {
        run.advance(id)?;
    }
    Ok(run.found)
}

struct Collector<'a> {
    store: &'a dyn Objects,
    marker: Marker<'a>,
    found: Collected,
}

/// Clocks that were left by a collection that ended are removed after a day. Unit: milliseconds.
const CLOCK_LEFT_OVER: u64 = 24 * 3600 * 1000;

impl Collector<'_> {
    /// What time it is for the store. Unit: milliseconds since 1970.
    fn now(&self) -> Result<u64, TemplateError> {
        let key = format!("{CLOCK}{}", hex(&draw()?));
        self.store.put(&key, b"")?;
        let now = self.store.head(&key)?.map_or(0, |found| found.modified);
        self.store.delete(&key)?;
        for found in listed(self.store, CLOCK)? {
            if now.saturating_sub(found.modified) >= CLOCK_LEFT_OVER {
                self.store.delete(&found.key)?;
            }
        }
        Ok(now)
    }

    /// Gives up writers that were silent for too long, and forgets those that have ended.
    ///
    /// A place is given up when nobody who wants it was heard: a new attempt is not given up
    /// because an old one of the same name was broken off.
    fn end_writers(&mut self, grace: u64) -> Result<(), TemplateError> {
        let now = self.now()?;
        let mut wanted: BTreeMap<Slot, (u64, Vec<Intent>)> = BTreeMap::new();
        self.store.list(INTENTS, &mut |found| {
            if let Some(intent) = Intent::parse(&found.key) {
                let (heard, intents) = wanted.entry(intent.slot.clone()).or_default();
                *heard = found.modified.max(*heard);
                intents.push(intent);
            }
        })?;
        let slots = Slots::read(self.store)?;
        for (slot, (heard, intents)) in wanted {
            if !slots.is_decided(&slot) {
                if now.saturating_sub(heard) < grace {
                    continue;
                }
                if self.store.put_if_absent(&slot.key(), &State::GivenUp.encode())? {
                    self.found.given_up.insert(slot.name);
                }
            }
            for intent in intents {
                self.store.delete(&intent.key())?;
            }
        }
        Ok(())
    }

    /// All lists, and whether somebody sweeps them.
    fn lists(&self) -> Result<BTreeMap<Condemned, bool>, TemplateError> {
        let mut lists = BTreeMap::new();
        for found in listed(self.store, CONDEMNED)? {
            if let Some((id, part)) = Condemned::parse(&found.key) {
                *lists.entry(id).or_insert(false) |= part == Part::Sweep;
            }
        }
        Ok(lists)
    }

    fn keys(&self, id: Condemned, part: Part) -> Result<Option<Vec<String>>, TemplateError> {
        let key = id.key(part);
        let bytes = self.store.get(&key)?;
        bytes.map(|bytes| keylist::decode(&bytes).map_err(in_format(&key))).transpose()
    }

    /// Takes a list as far as it gets.
    fn advance(&mut self, id: Condemned) -> Result<(), TemplateError> {
        let Some(keys) = self.keys(id, Part::List)? else {
            // It is always the first to be written, so it was there, and was removed.
            return self.forget(id);
        };
        let condemned = || keys.iter().filter_map(|key| Place::parse(key));
        let Some(waits) = self.waits(id)? else { return Ok(()) };
        let slots = Slots::read(self.store)?;
        let waits = waits.iter().filter_map(|key| Intent::parse(key));
        let mut waits = waits.filter(|intent| !slots.is_decided(&intent.slot)).peekable();
        if waits.peek().is_some() {
            let waits = waits.map(|it| WaitsFor { name: it.slot.name, writer: it.writer });
            self.found.waits_for.extend(waits);
            self.found.condemned += condemned().count() as u64;
            return Ok(());
        }
        let mut lying = Lying::default();
        lying.extend(condemned());
        self.marker.take_needed(&mut lying)?;
        if !self.store.put_if_absent(&id.key(Part::Sweep), b"")? {
            return self.forget_if_gone(id, &condemned().collect::<Vec<_>>());
        }
        if self.store.head(&id.key(Part::List))?.is_some() {
            for place in lying.into_sorted() {
                self.store.delete(&place.key())?;
                self.found.removed += 1;
            }
        }
        self.forget(id)
    }

    /// Who must have ended before the list is swept: all that were at work at some moment behind
    /// its writing. `None` when it was swept meanwhile.
    fn waits(&self, id: Condemned) -> Result<Option<Vec<String>>, TemplateError> {
        if let Some(known) = self.keys(id, Part::Waits)? {
            return Ok(Some(known));
        }
        let intents = listed(self.store, INTENTS)?.into_iter().map(|found| found.key);
        let intents: Vec<_> = intents.filter(|key| Intent::parse(key).is_some()).collect();
        if intents.len() > KEYS_MAX {
            let text = format!("{} writers at work: it takes {KEYS_MAX} at most", intents.len());
            return Err(TemplateError::Input(text));
        }
        self.store.put_if_absent(&id.key(Part::Waits), &keylist::encode(&intents))?;
        self.keys(id, Part::Waits)
    }

    /// Removes what is left of a list, the list first: while it is there, so is the mark that
    /// somebody sweeps it.
    fn forget(&self, id: Condemned) -> Result<(), TemplateError> {
        for part in [Part::List, Part::Waits, Part::Sweep] {
            self.store.delete(&id.key(part))?;
        }
        Ok(())
    }

    /// Whoever sweeps it may have ended. Its list can be removed when nothing is left for it to do.
    fn forget_if_gone(&self, id: Condemned, keys: &[Place]) -> Result<(), TemplateError> {
        let lying = Lying::all(self.store)?;
        match keys.iter().any(|place| lying.contains(place)) {
            true => Ok(()),
            false => self.forget(id),
        }
    }

    /// Condemns what no template needs and no writer at work may have written. What another list
    /// condemns whose sweeper may have ended is condemned again.
    fn condemn(&mut self) -> Result<Vec<Condemned>, TemplateError> {
        let mut lying = Lying::all(self.store)?;
        let mut waiting = Lying::default();
        for (id, _) in self.lists()?.into_iter().filter(|(_, swept)| !swept) {
            let keys = self.keys(id, Part::List)?.unwrap_or_default();
            waiting.extend(keys.iter().filter_map(|key| Place::parse(key)));
        }
        let mut at_work = BTreeSet::new();
        self.store.list(INTENTS, &mut |found| {
            at_work.extend(Intent::parse(&found.key).map(|intent| intent.writer));
        })?;
        lying.retain(|place| !at_work.contains(&place.writer) && !waiting.contains(place));
        self.marker.take_needed(&mut lying)?;
        let mut lists = Vec::new();
        for places in lying.into_sorted().chunks(KEYS_MAX) {
            let keys: Vec<_> = places.iter().map(Place::key).collect();
            let id = Condemned(draw()?);
            self.store.put(&id.key(Part::List), &keylist::encode(&keys))?;
            lists.push(id);
        }
        Ok(lists)
    }
}

fn draw() -> Result<[u8; 16], TemplateError> {
    seal::random().map_err(TemplateError::Random)
}
