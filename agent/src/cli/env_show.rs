//! Environments, as people see them.

use std::path::Path;

use vgship_base::units::ByteLen;

use super::table::Table;
use crate::api::past::{Environment, Environments};

/// A line for each.
pub(super) fn table(all: &Environments) -> String {
    if all.environments.is_empty() {
        return "there is no environment".to_owned();
    }
    let headings =
        ["ENVIRONMENT", "STATE", "GROUP", "AT", "TIME", "OWNER", "EXPIRES", "WRITTEN", "KIND"];
    let mut table = Table::new(headings);
    for env in &all.environments {
        let groups: Vec<&str> = env.parts.iter().map(|part| part.group.as_str()).collect();
        let points: Vec<&str> = env.parts.iter().map(|part| part.at.as_str()).collect();
        table.row([
            env.name.clone(),
            env.state.clone(),
            groups.join(","),
            points.join(","),
            env.time.clone(),
            env.owner.clone().unwrap_or_else(|| "-".to_owned()),
            env.expires.clone().unwrap_or_else(|| "-".to_owned()),
            ByteLen(env.written_bytes).to_string(),
            env.kind.clone(),
        ]);
    }
    table.to_string()
}

/// What was made, and where to find it.
pub(super) fn made(env: &Environment, socket: &Path) -> String {
    let part = |part: &crate::api::past::EnvPart| {
        format!(
            "environment {} of group {} as of {} ({})",
            env.name, part.group, part.at, part.time
        )
    };
    let mut lines: Vec<String> = env.parts.iter().map(part).collect();
    let socket = socket.display();
    lines.extend(env.exports.iter().map(|export| format!("nbd+unix:///{export}?socket={socket}")));
    let volume = |it: &crate::api::past::EnvVolume| format!("{}/{}: {}", it.group, it.lv, it.place);
    lines.extend(env.volumes.iter().map(volume));
    lines.join("\n")
}

/// All that is known of it.
pub(super) fn all(env: &Environment, socket: &Path) -> String {
    let mut lines = vec![made(env, socket)];
    let mut fact = |name: &str, value: &str| lines.push(format!("{name:<9} {value}"));
    fact("state", &env.state);
    if let Some(reason) = &env.reason {
        fact("because", &reason.replace('\n', "; "));
    }
    if let Some(set) = &env.set {
        fact("set", set);
    }
    fact("kind", &env.kind);
    fact("owner", env.owner.as_deref().unwrap_or("-"));
    fact("created", &env.created);
    fact("expires", env.expires.as_deref().unwrap_or("-"));
    let quota = env.quota_bytes.map_or_else(String::new, |it| format!(" of {}", ByteLen(it)));
    fact("written", &format!("{}{quota}", ByteLen(env.written_bytes)));
    for step in &env.steps {
        fact("step", &format!("{} ({:.1} s): {}", step.ended, step.seconds, step.command));
    }
    if let Some(teardown) = &env.teardown {
        fact("teardown", teardown);
    }
    fact("log", &env.log.display().to_string());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::past::{EnvPart, EnvStep, EnvVolume};

    fn env() -> Environment {
        let part = |group: &str| EnvPart {
            group: group.to_owned(),
            template: None,
            at: "1.7".to_owned(),
            time: "2026-05-01T08:00:00Z".to_owned(),
        };
        Environment {
            name: "e".to_owned(),
            state: "failed".to_owned(),
            reason: Some("step 1 ended\nbadly".to_owned()),
            kind: "images:/x".to_owned(),
            set: Some("erp@noon".to_owned()),
            parts: vec![part("g"), part("h")],
            group: "g".to_owned(),
            template: None,
            at: "1.7".to_owned(),
            time: "2026-05-01T08:00:00Z".to_owned(),
            owner: None,
            created: "2026-05-01T09:00:00Z".to_owned(),
            expires: None,
            written_bytes: 4096,
            quota_bytes: Some(1 << 20),
            exports: vec!["env/e/g/lv".to_owned()],
            volumes: vec![EnvVolume {
                group: "h".to_owned(),
                lv: "lv".to_owned(),
                place: "/x/h/lv".to_owned(),
                bytes: 512,
            }],
            steps: vec![EnvStep {
                command: "check".to_owned(),
                seconds: 1.25,
                ended: "exit status: 3".to_owned(),
            }],
            teardown: Some("bye".to_owned()),
            log: "/h/environments/e/log".into(),
        }
    }

    #[test]
    fn all_that_is_known_is_shown() {
        let expected = "\
environment e of group g as of 1.7 (2026-05-01T08:00:00Z)
environment e of group h as of 1.7 (2026-05-01T08:00:00Z)
nbd+unix:///env/e/g/lv?socket=/s
h/lv: /x/h/lv
state     failed
because   step 1 ended; badly
set       erp@noon
kind      images:/x
owner     -
created   2026-05-01T09:00:00Z
expires   -
written   4 KiB of 1 MiB
step      exit status: 3 (1.2 s): check
teardown  bye
log       /h/environments/e/log";
        assert_eq!(all(&env(), Path::new("/s")), expected);
        let listed = table(&Environments { environments: vec![env()] });
        assert!(listed.contains("g,h") && listed.contains("images:/x"), "{listed}");
        assert_eq!(table(&Environments { environments: vec![] }), "there is no environment");
    }
}
