//! `vgship agent --check`: everything that can be wrong before an agent runs, all at once.

use std::path::Path;

use serde::Serialize;
use vgship_base::ids::Name;
use vgship_base::layout::Layout;
use vgship_snapshot::seal::KeyEncryptionKey;

use super::{Context, Parts, output};
use crate::api::ControlError;
use crate::home::io::check_secret;
use crate::home::{Home, HomeError, Role};
use crate::keys;

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
    let (own, told) = match key(home) {
        Ok((own, told)) => (Some(own), Ok(told)),
        Err(error) => (None, Err(error)),
    };
    // Without a configuration nobody knows whether it is this one.
    let own = own.filter(|_| home.load_config().is_ok());
    let mut found = vec![
        finding(
            "config",
            home.load_config()
                .map_err(Into::into)
                .map(|config| format!("agent {} listens at {}", config.name, config.listen)),
        ),
        finding("key", told),
        finding("identity", parts.check_identity(&home.identity()).map(|id| id.to_string())),
        finding("peers", peers(home, parts)),
    ];
    match home.group_names() {
        Err(error) => found.push(finding("groups", Err(error.into()))),
        Ok(names) => {
            found.extend((names.iter()).map(|name| {
                finding(&format!("group {name}"), group(home, own.as_ref(), parts, name))
            }));
        }
    }
    found
}

/// The key-encryption key, wherever it comes from, and what is told of it.
fn key(home: &Home) -> Result<(KeyEncryptionKey, String), ControlError> {
    match home.load_config().ok().and_then(|config| config.key_command) {
        Some(_) => {
            let own = home.wrapping_key()?;
            let told = format!("key_command prints key {}", own.id());
            Ok((own, told))
        }
        // A configuration that cannot be read is a finding of its own.
        None => Ok((KeyEncryptionKey::from_bytes(home.load_key()?), "closed to others".to_owned())),
    }
}

fn group(
    home: &Home,
    own: Option<&KeyEncryptionKey>,
    parts: &dyn Parts,
    name: &Name,
) -> Result<String, ControlError> {
    let group = home.load_group(name)?;
    if let Some(own) = own {
        keys::check(own, &home.group(name), group.id).map_err(|it| it.told())?;
    }
    let layout = match group.role {
        Role::Source => None,
        Role::Replica => Some(replica_layout(&home.group(name).layout())?),
    };
    // A running agent holds its replicas' volumes, and no one else can open them.
    if group.role == Role::Replica && matches!(home.lock(), Err(HomeError::Locked { .. })) {
        return Ok("replica, its volumes are held by the running agent".to_owned());
    }
    let found = parts.check_volumes(&group.volumes, group.extent_size()?, layout.as_ref())?;
    Ok(format!("{}, {}", group.role.as_str(), output::volumes(&found)))
}

/// What the source said that the replica consists of.
fn replica_layout(path: &Path) -> Result<Layout, ControlError> {
    let unusable = |why: &dyn std::fmt::Display| {
        ControlError::failed(format!("the layout {} cannot be used: {why}", path.display()))
            .hint("pair again, so that the source sends it anew")
    };
    let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
    Layout::decode(&bytes).map_err(|error| unusable(&error))
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

    use vgship_base::extent::ExtentSize;
    use vgship_base::ids::GroupId;

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
        for name in ["replica", "unpaired"] {
            let volumes = format!("images:/srv/{name}");
            let spec = GroupSpec::new(name.parse().unwrap(), volumes);
            let group = spec.into_config(GroupId::default(), Role::Replica);
            locked.create_group(&group).unwrap();
        }
        let layout = FakeParts.check_volumes("", ExtentSize::from_log2(12).unwrap(), None).unwrap();
        let path = home.group(&"replica".parse().unwrap()).layout();
        std::fs::write(path, layout.encode()).unwrap();
        std::fs::set_permissions(home.key(), Permissions::from_mode(0o644)).unwrap();
        drop(locked);
        let folder = place.path().display().to_string();
        let found = rendered(&check(&home, &FakeParts)).replace(&folder, "H");
        golden("check.txt", &found);
    }
}
