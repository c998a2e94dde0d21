//! `vgship agent --check`: everything that can be wrong before an agent runs, all at once.

use serde::Serialize;

use super::parts::FoundVolume;
use super::{Context, Output, Parts};
use crate::api::ControlError;
use crate::home::io::check_secret;
use crate::home::{Home, Role};

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    item: String,
    ok: bool,
    detail: String,
    hint: Option<String>,
}

#[derive(Serialize)]
struct Findings {
    ok: bool,
    checks: Vec<Finding>,
}

pub(super) fn run(context: &Context<'_>) -> Result<(), ControlError> {
    let checks = check(&context.home, context.parts);
    let wrong = checks.iter().filter(|finding| !finding.ok).count();
    let findings = Findings { ok: wrong == 0, checks };
    context.output.result(&findings, |findings| rendered(&findings.checks))?;
    match wrong {
        0 => Ok(()),
        1 => Err(ControlError::failed("one check found something wrong; see above")),
        many => {
            Err(ControlError::failed(format!("{many} checks found something wrong; see above")))
        }
    }
}

pub(super) fn check(home: &Home, parts: &dyn Parts) -> Vec<Finding> {
    let mut found = vec![
        finding(
            "config",
            home.load_config()
                .map_err(Into::into)
                .map(|config| format!("agent {} listens at {}", config.name, config.listen)),
        ),
        finding("key", home.load_key().map_err(Into::into).map(|_| "closed to others".to_owned())),
        finding("identity", parts.check_identity(&home.identity()).map(|id| id.to_string())),
        finding("peers", peers(home, parts)),
    ];
    match home.group_names() {
        Err(error) => found.push(finding("groups", Err(error.into()))),
        Ok(names) => found.extend(names.into_iter().map(|name| {
            let group = home.load_group(&name).map_err(ControlError::from);
            let checked = group.and_then(|group| {
                let layout = home.group(&name).layout();
                if group.role == Role::Replica && !layout.exists() {
                    let text = format!("the layout is missing: {}", layout.display());
                    return Err(
                        ControlError::failed(text).hint("pair again, so that the source sends it")
                    );
                }
                let volumes: Vec<FoundVolume> = parts.check_volumes(&group.volumes)?;
                Ok(format!("{}, {}", group.role.as_str(), Output::volumes(&volumes)))
            });
            finding(&format!("group {name}"), checked)
        })),
    }
    found
}

fn peers(home: &Home, parts: &dyn Parts) -> Result<String, ControlError> {
    let path = home.peers();
    if path.exists() {
        check_secret(&path)?;
    }
    let pairs = parts.pair_list(home)?.pairs;
    Ok(match pairs.len() {
        0 => "nobody is paired yet".to_owned(),
        1 => "1 pairing".to_owned(),
        many => format!("{many} pairings"),
    })
}

fn finding(item: &str, result: Result<String, ControlError>) -> Finding {
    let item = item.to_owned();
    match result {
        Ok(detail) => Finding { item, ok: true, detail, hint: None },
        Err(error) => Finding { item, ok: false, detail: error.message, hint: error.hint },
    }
}

fn rendered(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let mark = if finding.ok { "ok   " } else { "WRONG" };
        lines.push(format!("{mark}  {}: {}\n", finding.item, finding.detail));
        lines.extend(finding.hint.iter().map(|hint| format!("       next: {hint}\n")));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{FakeParts, golden};
    use super::*;
    use crate::home::GroupSpec;

    #[test]
    fn everything_wrong_is_found_at_once() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path());
        let locked = home.lock().unwrap();
        locked.make_key().unwrap();
        locked.write_config("name = \"prod\"\ncolour = 1\n").unwrap();
        for (name, volumes) in [("good", "images:/srv/good"), ("bad", "images:/missing")] {
            locked.add_group(GroupSpec::new(name.parse().unwrap(), volumes)).unwrap();
        }
        std::fs::set_permissions(home.key(), Permissions::from_mode(0o644)).unwrap();
        let found = rendered(&check(&home, &FakeParts))
            .replace(&home.config().display().to_string(), "C")
            .replace(&home.key().display().to_string(), "K");
        golden("check.txt", &found);
    }
}
