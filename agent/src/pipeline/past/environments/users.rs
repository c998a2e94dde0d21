//! Who uses a template: clones read what stands below them for as long as they live.

use std::path::Path;

use vgship_base::ids::Name;

use super::facts::{FACTS, Facts};
use super::outside::Outside;
use crate::api::ControlError;
use crate::api::past::{EnvRequest, TemplateAt};
use crate::history::spec::GroupPoint;
use crate::home::Home;
use crate::templates::store_place;

/// What an environment is made of, while it is being made.
pub(super) struct Making {
    from: Vec<String>,
    store: Option<String>,
}

impl Making {
    pub(super) fn of(request: &EnvRequest) -> Making {
        Making { from: request.from.clone(), store: request.store.clone() }
    }

    /// Whether it reads a template.
    pub(super) fn reads(&self, home: &Home, template: &TemplateAt) -> bool {
        self.from.iter().any(|it| it == template.name.as_str())
            && is_same_store(home, self.store.as_deref(), template)
    }

    /// Whether it builds on a group.
    pub(super) fn builds_on(&self, group: &Name) -> bool {
        self.from.iter().filter_map(|it| it.parse::<GroupPoint>().ok()).any(|it| it.group == *group)
    }
}

fn is_same_store(home: &Home, store: Option<&str>, template: &TemplateAt) -> bool {
    store_place(home, store) == store_place(home, template.store.as_deref())
}

/// The environments of a home whose clones read a template, by what is stored of them; no agent
/// needs to run.
///
/// # Errors
/// What is stored of one cannot be read: whether it needs the template cannot be told.
pub fn stored_template_users(
    home: &Home,
    template: &TemplateAt,
) -> Result<Vec<String>, ControlError> {
    let folder = home.environments();
    let unread = |error| ControlError::failed(format!("cannot list {}: {error}", folder.display()));
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread(error)),
    };
    let mut users = Vec::new();
    for entry in entries {
        let path = entry.map_err(unread)?.path();
        if !path.is_dir() {
            continue;
        }
        match user(home, &path, template) {
            Ok(user) => users.extend(user),
            // It was destroyed meanwhile.
            Err(_) if matches!(path.join(FACTS).try_exists(), Ok(false)) => {}
            Err(error) => {
                let text = format!(
                    "whether the environment in {} needs template {} cannot be told: {error}",
                    path.display(),
                    template.name
                );
                return Err(ControlError::refused(text).hint(
                    "mend what is stored of it, or move its folder away if nobody needs it",
                ));
            }
        }
    }
    users.sort();
    Ok(users)
}

/// The environment of a folder, if it needs a template.
fn user(home: &Home, folder: &Path, template: &TemplateAt) -> Result<Option<String>, ControlError> {
    let (facts, outside) = (Facts::load(folder)?, Outside::load(folder)?);
    let is_meant = facts.parts.iter().any(|part| {
        part.template.as_deref() == Some(template.name.as_str())
            && is_same_store(home, part.store.as_deref(), template)
    });
    // Volumes outside are copies, and of one that ends nothing is read any more.
    let reads = outside.is_none() && !facts.ending;
    Ok((is_meant && reads).then(|| facts.name.to_string()))
}
