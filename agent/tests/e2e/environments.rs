//! Environments of several groups, with steps, renamed, made at once, and killed while they are made.

use std::path::{Path, PathBuf};

use super::common::{Agent, MIB, Nbd, Pair, noise, until};

/// A pair whose replica also follows a group `h` with an LV `data` and one `log`.
fn two_groups() -> Pair {
    let pair = Pair::new(&[("data", 2 * MIB)], &[]);
    let images = pair.place.path().join("h-images");
    std::fs::create_dir(&images).unwrap();
    std::fs::write(images.join("data"), noise(50, MIB)).unwrap();
    std::fs::write(images.join("log"), noise(51, 64 << 10)).unwrap();
    let spec = format!("images:{}", images.display());
    pair.source.ok(&["group", "add", "h", "--volumes", &spec]);
    let made = pair.source.json(&["pair", "invite", "--group", "h", "--role", "replica"]);
    let there = format!("images:{}", pair.place.path().join("h-replica").display());
    pair.replica.ok(&["pair", "join", made["token"].as_str().unwrap(), "--volumes", &there]);
    pair.source.ok(&["wait", "h", "--for", "in-sync", "--timeout", "60s"]);
    pair
}

/// The same with a snapshot `s` of each group.
pub fn with_snapshots() -> Pair {
    let pair = two_groups();
    pair.open("data").write(0, &noise(1, 2 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "s"]);
    pair.source.ok(&["snapshot", "create", "h", "s"]);
    pair
}

pub fn read(agent: &Agent, export: &str, len: u64) -> Vec<u8> {
    let mut nbd = Nbd::open_export(&agent.nbd_socket(), export).unwrap();
    nbd.read(0, usize::try_from(len).unwrap()).unwrap()
}

pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn environments(agent: &Agent) -> Vec<serde_json::Value> {
    agent.json(&["env", "list"])["environments"].as_array().unwrap().clone()
}

/// Fails unless nothing of any environment is left, and its snapshots can go.
#[track_caller]
pub fn assert_nothing_is_left(agent: &Agent) {
    assert_eq!(environments(agent).len(), 0);
    assert_eq!(names_in(&agent.path("environments")), Vec::<String>::new());
    for group in ["g", "h"] {
        let snapshot = format!("{group}@s");
        // Whoever was destroyed by its lease lets go of it last.
        until("it can go", || agent.run(&["snapshot", "delete", &snapshot]).code == 0);
    }
}

/// Goal: one environment has the LVs of several groups, each at its point, and is made whole or
/// not at all; a template is a point like any other.
#[test]
fn an_environment_of_several_groups_is_one() {
    let mut pair = with_snapshots();
    let agent = &pair.replica;
    agent.ok(&["template", "create", "t", "--from", "h@s"]);
    let base = std::fs::read(pair.source_image("data")).unwrap();
    let both = ["--from", "g@s", "--from", "h@s", "--nbd"];
    let made = agent.json(&[&["env", "create", "e"][..], &both].concat());
    let exports = ["env/e/g/data", "env/e/h/data", "env/e/h/log"];
    assert_eq!(made["exports"], serde_json::json!(exports));
    assert_eq!(
        (&made["parts"][0]["group"], &made["parts"][1]["group"]),
        (&"g".into(), &"h".into())
    );
    assert!(read(agent, exports[0], 2 * MIB) == base);
    assert!(read(agent, exports[1], MIB) == noise(50, MIB));
    let mixed = ["--from", "g@s", "--from", "t", "--nbd", "--rename", "lv:*=c_*"];
    let made = agent.json(&[&["env", "create", "m"][..], &mixed].concat());
    assert_eq!(made["exports"][2], "env/m/h/c_log");
    assert!(read(agent, "env/m/h/c_log", 64 << 10) == noise(51, 64 << 10));
    let mut nbd = Nbd::open_export(&agent.nbd_socket(), "env/m/h/c_log").unwrap();
    nbd.write(0, &noise(7, 4096)).unwrap();
    nbd.flush().unwrap();
    drop(nbd);

    // All or nothing: the second point is not there, or of the same group.
    let create = ["env", "create", "x", "--nbd", "--from", "g@s", "--from"];
    agent.run(&[&create[..], &["h@none"]].concat()).expect(3, &["none"]);
    agent.run(&[&create[..], &["g@s"]].concat()).expect(3, &["of group g"]);
    let rename = ["h@s", "--rename", "lv:*=same"];
    agent.run(&[&create[..], &rename].concat()).expect(3, &["two LVs", "--rename"]);
    agent
        .run(&[&create[..], &["h@s", "--rename", "lv:none=x"]].concat())
        .expect(3, &["no LV fits"]);
    agent
        .run(&[&create[..], &["h@s", "--rename", "mount:/a=/b"]].concat())
        .expect(2, &["aix-disks"]);
    assert_eq!(names_in(&agent.path("environments")), ["e", "m"]);

    // It outlives the agent, under the same names.
    pair.replica.kill();
    pair.replica.start();
    let agent = &pair.replica;
    assert!(read(agent, exports[1], MIB) == noise(50, MIB));
    assert!(read(agent, "env/m/h/c_log", 4096) == noise(7, 4096));
    agent.run(&["snapshot", "delete", "h@s"]).expect(3, &["environment e"]);
    agent.run(&["group", "remove", "h"]).expect(3, &["group h is in use by environment e"]);
    agent.ok(&["env", "destroy", "e"]);
    agent.ok(&["env", "destroy", "m"]);
    assert_nothing_is_left(agent);
}

/// Goal: the facts of an environment that an earlier version made are read.
#[test]
fn an_environment_of_an_earlier_version_is_opened() {
    let mut pair = with_snapshots();
    pair.replica.ok(&["env", "create", "e", "--from", "g@s", "--nbd"]);
    pair.replica.stop();
    let path = pair.replica.path("environments/e/environment.json");
    let facts = std::fs::read(&path).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let part = &facts["parts"][0];
    let old = serde_json::json!({
        "version": 1, "name": "e", "group": "g", "base": part["base"], "seq": part["seq"],
        "clock": part["clock"], "owner": null, "created": facts["created"], "expires": null,
        "quota": null,
    });
    std::fs::write(&path, old.to_string()).unwrap();
    pair.replica.start();
    let base = std::fs::read(pair.source_image("data")).unwrap();
    assert!(read(&pair.replica, "env/e/g/data", 2 * MIB) == base);
    pair.replica.ok(&["env", "extend", "e", "--lease", "1h"]);
    pair.replica.ok(&["env", "destroy", "e"]);
    assert_nothing_is_left(&pair.replica);
}

/// Goal: an environment that cannot be opened is said to be so, and keeps its snapshot until it can.
#[test]
fn an_environment_whose_template_is_away_is_broken_and_comes_back() {
    let mut pair = with_snapshots();
    pair.replica.ok(&["template", "create", "t", "--from", "h@s"]);
    pair.replica.ok(&["env", "create", "e", "--from", "g@s", "--from", "t", "--nbd"]);
    let (store, away) = (pair.replica.path("templates"), pair.replica.path("away"));
    pair.replica.stop();
    std::fs::rename(&store, &away).unwrap();
    for _ in 0..2 {
        // What nobody needs is let go of at a start.
        pair.replica.start();
        let shown = pair.replica.json(&["env", "show", "e"]);
        assert_eq!(shown["state"], "broken");
        assert!(!shown["reason"].as_str().unwrap().is_empty(), "{shown}");
        assert_eq!(shown["exports"], serde_json::json!([]));
        pair.replica.run(&["snapshot", "delete", "g@s"]).expect(3, &["environment e"]);
        pair.replica.stop();
    }
    std::fs::remove_dir_all(&store).ok();
    std::fs::rename(&away, &store).unwrap();
    pair.replica.start();
    assert_eq!(pair.replica.json(&["env", "show", "e"])["state"], "ready");
    let base = std::fs::read(pair.source_image("data")).unwrap();
    assert!(read(&pair.replica, "env/e/g/data", 2 * MIB) == base);
    pair.replica.stop();
    std::fs::rename(&store, &away).unwrap();
    pair.replica.start();
    pair.replica.ok(&["env", "destroy", "e"]);
    assert_nothing_is_left(&pair.replica);
}

/// Goal: steps run in order on what nobody else sees, and their first failure is its end.
#[test]
fn an_environment_is_handed_out_when_all_its_steps_are_done() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let seen = agent.path("seen");
    let write = format!(
        "set -e; export=$(echo \"$VGSHIP_VOLUMES\" | sed -n 's/^h log //p')\n\
         qemu-io -f raw -c 'write -P 42 0 4k' -c flush \
         \"nbd+unix:///$export?socket=$VGSHIP_NBD_SOCKET\"\n\
         nbdinfo --list --json \"nbd+unix:///?socket=$VGSHIP_NBD_SOCKET\" > {} || true",
        seen.display()
    );
    let check = "test -d \"$VGSHIP_FOLDER\" && echo all is well with $VGSHIP_ENV";
    let both = ["--from", "g@s", "--from", "h@s", "--nbd"];
    let steps = ["--step", &write, "--step", check];
    let last = agent.path("last");
    let bye = format!("echo \"$VGSHIP_EXPORTS\" > {}; exit 4", last.display());
    let create = [&["env", "create", "e"][..], &both, &steps, &["--teardown", &bye]].concat();
    let made = agent.json(&create);
    assert_eq!(made["steps"].as_array().unwrap().len(), 2, "{made}");
    assert_eq!(made["steps"][1]["ended"], "exit status: 0");
    let hidden = std::fs::read_to_string(seen).unwrap();
    assert!(!hidden.contains("mask-") && !hidden.contains("/h/log"), "{hidden}");
    assert!(read(agent, "env/e/h/log", 4096) == [42; 4096]);
    assert!(agent.ok(&["env", "log", "e"]).contains("all is well with e"));
    let shown = agent.ok(&["env", "show", "e"]);
    assert!(shown.contains("ready") && shown.contains("exit status: 0"), "{shown}");
    agent.run(&["env", "show", "none"]).expect(3, &["no environment none"]);

    // What fails is not handed out.
    let fails = ["--step", "echo one", "--step", "echo no such table; exit 3", "--step", "echo 3"];
    let create = [&["env", "create", "f"][..], &both, &fails].concat();
    agent.run(&create).expect(1, &["step 2", "no such table", "--keep-failed"]);
    assert_eq!(names_in(&agent.path("environments")), ["e"]);
    agent
        .run(&[&create[..], &["--keep-failed"]].concat())
        .expect(1, &["no such table", "env log f"]);
    let failed = agent.json(&["env", "show", "f"]);
    assert_eq!(
        (failed["state"].as_str(), failed["exports"].as_array().unwrap().len()),
        (Some("failed"), 0)
    );
    assert_eq!(failed["steps"].as_array().unwrap().len(), 2, "the third did not run");
    assert!(Nbd::open_export(&agent.nbd_socket(), "env/f/g/data").is_err());
    let log = agent.ok(&["env", "log", "f"]);
    assert!(log.contains("one") && log.contains("exit status: 3"), "{log}");
    let slow = ["--step", "sleep 600", "--step-timeout", "100ms"];
    agent.run(&[&["env", "create", "s"][..], &both, &slow].concat()).expect(1, &["too long"]);
    // Others read the agent's log, and commands and what they say may hold secrets.
    assert!(agent.logged("step 2") > 0);
    assert_eq!(agent.logged("no such table") + agent.logged("exit 3"), 0);

    // The teardown sees it as it was, and cannot hold it up.
    let done = agent.ok(&["env", "destroy", "e"]);
    assert!(done.contains("destroyed, but the teardown") && done.contains("status: 4"), "{done}");
    let last = std::fs::read_to_string(last).unwrap();
    assert_eq!(last, "data env/e/g/data\ndata env/e/h/data\nlog env/e/h/log\n");
    assert_eq!(agent.logged("exit 4"), 0);
    agent.ok(&["env", "destroy", "f"]);
    let over = agent.path("over");
    let bye = format!("touch {}", over.display());
    let leased = ["--teardown", &bye, "--lease", "100ms"];
    agent.ok(&[&["env", "create", "l"][..], &both, &leased].concat());
    until("the lease is over", || environments(agent).is_empty());
    until("all of it is gone", || names_in(&agent.path("environments")).is_empty());
    assert!(over.exists());
    assert_nothing_is_left(agent);
}

/// Goal: nobody who still masks, or takes a step, is connected to what is handed out.
#[test]
fn an_environment_is_not_handed_out_while_a_program_is_connected() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let (told, go) = (agent.path("told"), agent.path("go"));
    let text = format!(
        "echo \"$VGSHIP_EXPORTS\" > {told}.new; mv {told}.new {told}\n\
         while test ! -e {go} && kill -0 $PPID; do sleep 0.05; done",
        told = told.display(),
        go = go.display()
    );
    let mask = agent.path("mask");
    std::fs::write(&mask, format!("#!/bin/sh\n{text}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&mask, mode).unwrap();
    let (folder, to) = place(agent, "out");
    let to = format!("images:{to}");
    let mask = ["--mask", mask.to_str().unwrap()];
    let kinds: [&[&str]; 3] = [
        &["--nbd", mask[0], mask[1]],
        &["--to-volumes", &to, mask[0], mask[1]],
        &["--nbd", "--step", &text],
    ];
    for kind in kinds {
        let create = [&["env", "create", "e", "--from", "g@s"][..], kind].concat();
        let begun = agent.begin(&create);
        until("the program runs", || told.exists());
        let export = std::fs::read_to_string(&told).unwrap();
        let export = export.trim().strip_prefix("data ").unwrap();
        let mut nbd = Nbd::open_export(&agent.nbd_socket(), export).unwrap();
        nbd.write(0, &[42; 4096]).unwrap();
        std::fs::write(&go, "").unwrap();
        begun.end().expect(1, &["1 NBD clients", "detach them before it ends"]);
        assert!(nbd.read(0, 4096).is_err(), "it is ended");
        assert!(Nbd::open_export(&agent.nbd_socket(), export).is_err());
        assert!(environments(agent).is_empty() && !folder.exists());
        // One that detached is good.
        std::fs::remove_file(&told).unwrap();
        agent.ok(&create);
        agent.ok(&["env", "destroy", "e"]);
        std::fs::remove_file(&told).unwrap();
        std::fs::remove_file(&go).unwrap();
    }
    assert_nothing_is_left(agent);
}

/// Goal: a lease is time with the environment, not the time that it takes to make it.
#[test]
fn a_lease_begins_when_the_environment_is_handed_out() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let create = ["env", "create", "e", "--from", "g@s", "--nbd", "--lease", "1h"];
    let made = agent.json(&[&create[..], &["--step", "sleep 1.1"]].concat());
    let minutes = |what: &str| made[what].as_str().unwrap()[13..19].to_owned();
    assert_ne!(minutes("created"), minutes("expires"), "{made}");
    agent.ok(&["env", "destroy", "e"]);
    assert_nothing_is_left(agent);
}

/// Goal: an environment whose facts cannot be looked at is not taken for the rest of one.
#[test]
fn an_environment_that_cannot_be_read_is_left_alone() {
    let mut pair = with_snapshots();
    let create = ["env", "create", "e", "--from", "g@s", "--nbd"];
    pair.replica.ok(&create);
    let folder = pair.replica.path("environments/e");
    let (facts, away) = (folder.join("environment.json"), pair.replica.path("away"));
    for kind in 0..3 {
        pair.replica.stop();
        let moved = if kind == 2 { &folder } else { &facts };
        std::fs::rename(moved, &away).unwrap();
        if kind > 0 {
            std::os::unix::fs::symlink("/nowhere/at/all", moved).unwrap();
        }
        for _ in 0..2 {
            pair.replica.start();
            let shown = pair.replica.json(&["env", "show", "e"]);
            assert_eq!(shown["state"], "broken", "{kind}");
            assert!(shown["reason"].as_str().unwrap().contains("environment.json"), "{shown}");
            pair.replica.run(&["env", "destroy", "e"]).expect(3, &["cannot be read"]);
            pair.replica.run(&create).expect(3, &["cannot be read"]);
            pair.replica.run(&["snapshot", "delete", "g@s"]).expect(3, &["environment e"]);
            pair.replica.stop();
        }
        if kind > 0 {
            std::fs::remove_file(moved).unwrap();
        }
        std::fs::rename(&away, moved).unwrap();
        pair.replica.start();
        assert_eq!(pair.replica.json(&["env", "show", "e"])["state"], "ready");
    }
    pair.replica.ok(&["env", "destroy", "e"]);
    assert_nothing_is_left(&pair.replica);
}

pub fn place(agent: &Agent, name: &str) -> (PathBuf, String) {
    let folder = agent.path(name);
    let text = folder.display().to_string();
    (folder, text)
}

/// A step that says that it runs, and ends when the agent does.
pub fn waiting(started: &Path) -> String {
    format!("touch {}; while kill -0 $PPID 2>/dev/null; do sleep 0.1; done", started.display())
}

/// Goal: whenever the agent is killed while it makes an environment, nothing stays, here or
/// outside, and it can be made then.
#[test]
fn an_agent_that_is_killed_leaves_no_half_made_environment() {
    let mut pair = with_snapshots();
    let (folder, text) = place(&pair.replica, "out/x");
    let spec = format!("images:{text}");
    for to in [&["--nbd"][..], &["--to-volumes", &spec]] {
        let started = pair.replica.path("started");
        let wait = waiting(&started);
        let create = [&["env", "create", "e", "--from", "g@s", "--from", "h@s"][..], to].concat();
        let begun = pair.replica.begin(&[&create[..], &["--step", &wait]].concat());
        until("a step runs", || started.exists());
        assert_eq!(names_in(&pair.replica.path("environments")), ["e"]);
        pair.replica.kill();
        assert_eq!(begun.end().code, 1);
        std::fs::remove_file(started).unwrap();
        pair.replica.start();
        assert_eq!(environments(&pair.replica).len(), 0);
        assert_eq!(names_in(&pair.replica.path("environments")), Vec::<String>::new());
        assert!(!folder.exists() && !pair.replica.path("out").exists());
        pair.replica.ok(&create);
        pair.replica.ok(&["env", "destroy", "e"]);
    }
    assert_nothing_is_left(&pair.replica);
}

/// A step that says that it runs, and ends when it may.
fn gated(agent: &Agent, name: &str) -> (String, PathBuf, PathBuf) {
    let (started, go) = (agent.path(&format!("{name}-runs")), agent.path(&format!("{name}-go")));
    let wait = "until [ -e GO ]; do sleep 0.05; done".replace("GO", &go.display().to_string());
    (format!("touch {}; {wait}", started.display()), started, go)
}

/// Goal: a template stays for as long as clones read it, or will, whether the agent runs or not; one
/// that only has its name, and one that volumes outside were copied from, does not.
#[test]
fn a_template_stays_while_an_environment_reads_it() {
    let mut pair = with_snapshots();
    let agent = &pair.replica;
    let (_, bucket) = place(agent, "bucket");
    agent.ok(&["template", "create", "tg", "--from", "g@s"]);
    agent.ok(&["template", "create", "th", "--from", "h@s"]);
    agent.ok(&["template", "push", "tg", "--store", &bucket]);
    agent.ok(&["template", "push", "th", "--store", &bucket]);

    // While it is being made.
    let create = ["env", "create", "e", "--from", "tg", "--from", "th", "--nbd", "--step"];
    let (step, started, go) = gated(agent, "e");
    let begun = agent.begin(&[&create[..], &[&step]].concat());
    until("a step runs", || started.exists());
    let delete = ["template", "delete", "th"];
    agent.run(&delete).expect(3, &["environment e is made of it", "env destroy"]);
    std::fs::write(go, "").unwrap();
    begun.end().expect(0, &[]);
    // It is not its first part.
    agent.run(&delete).expect(3, &["environment e is made of it"]);
    agent.ok(&["template", "delete", "th", "--store", &bucket]);
    let (_, out) = place(agent, "copied");
    agent.ok(&[
        "env",
        "create",
        "c",
        "--from",
        "tg",
        "--store",
        &bucket,
        "--to-volumes",
        &format!("images:{out}"),
    ]);
    agent.ok(&["template", "delete", "tg", "--store", &bucket]);

    // Another home knows nothing of it: then it does not become one.
    agent.ok(&["template", "create", "tx", "--from", "g@s", "--store", &bucket]);
    let (step, started, go) = gated(agent, "x");
    let from = ["env", "create", "x", "--from", "tx", "--store", &bucket, "--nbd", "--step", &step];
    let begun = agent.begin(&from);
    until("a step runs", || started.exists());
    pair.source.ok(&["template", "delete", "tx", "--store", &bucket]);
    std::fs::write(go, "").unwrap();
    begun.end().expect(3, &["tx is not there any more"]);
    assert_eq!(names_in(&agent.path("environments")), ["c", "e"]);

    // Without the agent, by what is stored; what cannot be read may need it.
    pair.replica.stop();
    let agent = &pair.replica;
    agent.run(&delete).expect(3, &["environment e is made of it"]);
    let facts = agent.path("environments/c/environment.json");
    let kept = std::fs::read(&facts).unwrap();
    std::fs::write(&facts, "{").unwrap();
    agent.run(&delete).expect(3, &["environments/c", "cannot be told"]);
    std::fs::write(&facts, kept).unwrap();
    pair.replica.start();
    let agent = &pair.replica;
    assert!(read(agent, "env/e/h/data", MIB) == noise(50, MIB));
    agent.ok(&["env", "destroy", "e"]);
    agent.ok(&["env", "destroy", "c"]);
    pair.replica.stop();
    pair.replica.ok(&delete);
    pair.replica.start();
    assert_nothing_is_left(&pair.replica);
}

/// Goal: a group is not removed from under an environment that is being made, or cannot be read.
#[test]
fn a_group_stays_while_an_environment_builds_on_it() {
    let mut pair = with_snapshots();
    let agent = &pair.replica;
    let (step, started, go) = gated(agent, "e");
    let create = ["env", "create", "e", "--from", "g@s", "--from", "h@s", "--nbd", "--step", &step];
    let begun = agent.begin(&create);
    until("a step runs", || started.exists());
    let remove = ["group", "remove", "h"];
    agent.run(&remove).expect(3, &["group h is in use by environment e"]);
    std::fs::write(go, "").unwrap();
    begun.end().expect(0, &[]);
    // A refusal leaves it as it was.
    assert!(read(agent, "env/e/h/data", MIB) == noise(50, MIB));
    agent.ok(&["env", "create", "f", "--from", "h@s", "--nbd"]);
    agent.ok(&["env", "destroy", "f"]);

    pair.replica.stop();
    let facts = pair.replica.path("environments/e/environment.json");
    let kept = std::fs::read(&facts).unwrap();
    std::fs::write(&facts, "{").unwrap();
    pair.replica.start();
    assert_eq!(pair.replica.json(&["env", "show", "e"])["state"], "broken");
    pair.replica.run(&remove).expect(3, &["group h is in use by environment e"]);
    pair.replica.stop();
    std::fs::write(&facts, kept).unwrap();
    // Nor when the group itself cannot be opened.
    let (layout, away) = (pair.replica.path("groups/h/layout"), pair.replica.path("away"));
    std::fs::rename(&layout, &away).unwrap();
    pair.replica.start();
    pair.replica.run(&remove).expect(3, &["group h is in use by environment e"]);
    pair.replica.stop();
    std::fs::rename(&away, &layout).unwrap();
    pair.replica.start();
    pair.replica.ok(&["env", "destroy", "e"]);
    pair.replica.ok(&remove);
}

/// Goal: several environments of one point, made at once, are whole and their own.
#[test]
fn several_environments_of_one_point_are_made_at_once() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let (folder, text) = place(agent, "disks");
    let spec = format!("aix-disks:{text}");
    std::fs::create_dir(&folder).unwrap();
    let begun: Vec<_> = (0..6)
        .map(|number| {
            let (name, vg) = (format!("e{number}"), format!("vg{}", number / 2));
            let to: &[&str] = match number % 2 {
                0 => &["--nbd"],
                _ => &["--to-volumes", &spec, "--vg", &vg],
            };
            agent.begin(&[&["env", "create", &name, "--from", "g@s"][..], to].concat())
        })
        .collect();
    for begun in begun {
        begun.end().expect(0, &[]);
    }
    let base = std::fs::read(pair.source_image("data")).unwrap();
    for number in 0..3 {
        assert!(read(agent, &format!("env/e{}/g/data", 2 * number), 2 * MIB) == base);
    }
    let disks = ["vg0-1.img", "vg0-import.sh", "vg1-1.img", "vg1-import.sh"];
    assert_eq!(names_in(&folder)[..4], disks);
    // Two that want the same files: one gets them, the other leaves them alone.
    let create = |name| ["env", "create", name, "--from", "g@s", "--to-volumes", &spec];
    let two = [agent.begin(&create("x")), agent.begin(&create("y"))];
    let mut codes = two.map(|begun| begun.end().code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 3]);
    assert!(folder.join("g-1.img").exists());
    for env in environments(agent) {
        agent.ok(&["env", "destroy", env["name"].as_str().unwrap()]);
    }
    assert_eq!(names_in(&folder), Vec::<String>::new());
    assert_nothing_is_left(agent);
}
