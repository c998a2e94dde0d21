//! Templates of a set's snapshot: one for each member, of all or of none.

use vgship_base::ids::Name;
use vgship_snapshot::template;

use crate::api::ControlError;
use crate::api::past::{TemplateMade, TemplateRequest};
use crate::api::sets::{SetTemplateRequest, SetTemplates};
use crate::history::spec::GroupPoint;
use crate::home::Home;
use crate::pipeline::agent::Inner;
use crate::pipeline::past::control::with_point;
use crate::pipeline::past::templates;
use crate::templates::{open_store, store_error, template_error};

/// Makes them, one after the other: each is a copy, and the snapshots stay as they are meanwhile.
///
/// # Errors
/// One cannot be made; those that were made are deleted again.
pub(super) fn create(
    agent: &Inner,
    set: &Name,
    request: &SetTemplateRequest,
) -> Result<SetTemplates, ControlError> {
    let parts = agent.resolve_set_snapshot(set, &request.snapshot)?;
    let wanted = parts.iter().map(|part| one(request, &agent.point_of(part)?));
    // All are looked for before the first is made.
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let mut made: Vec<TemplateMade> = Vec::new();
    for next in &wanted {
        let one_made = with_point(agent, &next.from, |replica, found, scratch| {
            templates::create(&agent.home, replica, found, next, scratch)
        });
        match one_made {
            Ok(next) => made.push(next),
            Err(error) => return Err(take_back(&agent.home, &wanted[..made.len()], error)),
        }
    }
    let (set, snapshot) = (set.to_string(), request.snapshot.to_string());
    Ok(SetTemplates { set, snapshot, templates: made })
}

/// What is asked for one member: a template that has the group's name behind the common one.
fn one(request: &SetTemplateRequest, point: &GroupPoint) -> Result<TemplateRequest, ControlError> {
    let name = format!("{}.{}", request.name, point.group);
    let name = name.parse().map_err(ControlError::usage)?;
    Ok(TemplateRequest { name, from: point.to_string(), store: request.store.clone() })
}

/// Deletes what was made before one failed, and says which failed.
fn take_back(home: &Home, made: &[TemplateRequest], failed: ControlError) -> ControlError {
    let mut error = failed;
    for TemplateRequest { name, store, .. } in made {
        let store = open_store(home, store.as_deref()).map_err(|it| store_error(&it));
        let gone =
            store.and_then(|it| template::delete(&*it, name).map_err(|it| template_error(&it)));
        if let Err(why) = gone {
            error.message = format!("{error}; template {name} was made and stays: {why}");
        }
    }
    error
}
