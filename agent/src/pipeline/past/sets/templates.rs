//! Templates of a set's snapshot: one for each member, of all or of none.
//!
//! Each bears a fact `set`, which says of which snapshot it is. When the agent dies in between, those
//! that were made stay: the same command, given again, knows them by that and makes the rest.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgship_base::ids::Name;
use vgship_snapshot::template::{self, Facts, SharedObjects, Template};

use super::resolve::SetPart;
use crate::api::ControlError;
use crate::api::past::{TemplateMade, TemplateRequest};
use crate::api::sets::{SetTemplateRequest, SetTemplates};
use crate::history::spec::GroupPoint;
use crate::pipeline::agent::Inner;
use crate::pipeline::past::control::with_point;
use crate::pipeline::past::templates;
use crate::templates::{open_store, open_template, store_error, template_error};

/// The fact that says of which set's snapshot a template is.
const SET: &str = "set";

/// What templates of sets that are being made now are called, each without its group.
#[derive(Debug, Default)]
pub(super) struct Making(Mutex<BTreeSet<Name>>);

/// Nobody else makes those of this name meanwhile.
#[derive(Debug)]
struct Alone<'a>(&'a Making, Name);

impl Making {
    fn names(&self) -> MutexGuard<'_, BTreeSet<Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// Somebody does: of two at once one would take for whole what the other takes back.
    fn begin(&self, name: &Name) -> Result<Alone<'_>, ControlError> {
        if self.names().insert(name.clone()) {
            return Ok(Alone(self, name.clone()));
        }
        let why = format!("templates {name} of a set are being made already");
        Err(ControlError::refused(why).hint("wait for that command's end"))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.names().remove(&self.1);
    }
}

/// Makes them, one after the other: each is a copy, and the snapshots stay as they are meanwhile.
/// What an earlier call made of the same snapshot under the same name is one of them.
///
/// # Errors
/// One cannot be made; those that were made by this call are deleted again.
pub(super) fn create(
    agent: &Inner,
    set: &Name,
    request: &SetTemplateRequest,
) -> Result<SetTemplates, ControlError> {
    let _alone = agent.sets.making.begin(&request.name)?;
    let store = open_store(&agent.home, request.store.as_deref()).map_err(|it| store_error(&it))?;
    let facts = Facts::from([(SET.to_owned(), format!("{set}@{}", request.snapshot))]);
    let parts = agent.resolve_set_snapshot(set, &request.snapshot)?;
    // All are looked for before the first is made.
    let wanted = parts.iter().map(|part| {
        let one = one(request, &agent.point_of(part)?)?;
        let found = find(agent, &store, &one, part, &facts)?;
        Ok((one, found))
    });
    let wanted = wanted.collect::<Result<Vec<_>, ControlError>>()?;
    let (mut all, mut fresh) = (Vec::new(), Vec::new());
    for (one, found) in &wanted {
        let made = found.clone().map_or_else(|| make(agent, one, &facts), Ok);
        match made {
            Ok(made) => all.push(made),
            Err(error) => {
                let before = wanted.iter().filter(|it| it.1.is_some()).map(|it| &it.0.name);
                return Err(take_back(&store, &fresh, before, error));
            }
        }
        if found.is_none() {
            fresh.push(&one.name);
        }
    }
    let (set, snapshot) = (set.to_string(), request.snapshot.to_string());
    Ok(SetTemplates { set, snapshot, templates: all })
}

/// What is asked for one member: a template that has the group's name behind the common one.
fn one(request: &SetTemplateRequest, point: &GroupPoint) -> Result<TemplateRequest, ControlError> {
    let name = format!("{}.{}", request.name, point.group);
    let name = name.parse().map_err(ControlError::usage)?;
    Ok(TemplateRequest { name, from: point.to_string(), store: request.store.clone() })
}

/// What an earlier call made for a member.
///
/// # Errors
/// There is a template of that name which is something else, or cannot be read.
fn find(
    agent: &Inner,
    store: &SharedObjects,
    one: &TemplateRequest,
    part: &SetPart,
    facts: &Facts,
) -> Result<Option<TemplateMade>, ControlError> {
    let name = &one.name;
    if !template::stands(store, name).map_err(|it| template_error(&it))? {
        return Ok(None);
    }
    let found = open_template(&agent.home, store, name)?;
    if is_of(&found, part, facts) {
        return Ok(Some(templates::found(&found)));
    }
    let (of, root) = (one.from.as_str(), found.root());
    let why =
        format!("there is a template {name} already, {root}, which was not made of {of} for a set");
    Err(ControlError::refused(why).hint("choose another name, or delete it"))
}

fn is_of(found: &Template, part: &SetPart, facts: &Facts) -> bool {
    let (source, noted) = (&found.manifest().source, &found.manifest().facts);
    noted.get(SET) == facts.get(SET)
        && source.group_name == part.group
        && (source.generation, source.seq) == (part.generation, part.seq)
}

fn make(agent: &Inner, one: &TemplateRequest, facts: &Facts) -> Result<TemplateMade, ControlError> {
    with_point(agent, &one.from, |replica, found, scratch| {
        templates::create(&agent.home, replica, found, one, facts.clone(), scratch)
    })
}

/// Deletes what this call made before one failed, and says what is there all the same.
fn take_back<'a>(
    store: &SharedObjects,
    fresh: &[&Name],
    before: impl Iterator<Item = &'a Name>,
    failed: ControlError,
) -> ControlError {
    let mut error = failed;
    for name in fresh {
        if let Err(why) = template::delete(&**store, name).map_err(|it| template_error(&it)) {
            error.message = format!("{error}; template {name} was made and stays: {why}");
        }
    }
    for name in before {
        error.message = format!("{error}; template {name} was there before and stays");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_makes_the_same_templates_twice_at_once() {
        let (making, name) = (Making::default(), |it: &str| it.parse::<Name>().unwrap());
        let first = making.begin(&name("t")).unwrap();
        let refused = making.begin(&name("t")).unwrap_err();
        assert!(refused.to_string().contains("being made already"), "{refused}");
        let other = making.begin(&name("u")).unwrap();
        drop(first);
        drop(making.begin(&name("t")).unwrap());
        drop(other);
    }
}
