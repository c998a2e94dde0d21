//! Keys with real agents: made while everything runs, kept as long as they are needed, destroyed with
//! what they seal, wrapped anew.

use std::path::Path;

use serde_json::Value;

use super::common::{Agent, MIB, Pair, noise, until};

fn image(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// The keys of group `g`, oldest first.
fn keys(agent: &Agent) -> Vec<Value> {
    agent.json(&["key", "list", "g"])["rings"][0]["keys"].as_array().unwrap().clone()
}

fn ids(agent: &Agent) -> Vec<String> {
    keys(agent).iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
}

/// Which kinds of things need a key.
fn needed_by(key: &Value) -> Vec<String> {
    let needs = key["needs"].as_array().unwrap().iter();
    needs.map(|need| need["kind"].as_str().unwrap().to_owned()).collect()
}

/// The files of the key that was made as the n-th.
fn files_of(agent: &Agent, number: u64) -> Vec<String> {
    let found = std::fs::read_dir(agent.path("groups/g/keys")).unwrap();
    let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&format!("{number:016x}-"))).collect()
}

/// What a snapshot's LV `data` was.
fn exported(agent: &Agent, name: &str) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("images");
    agent.ok(&["snapshot", "export", &format!("g@{name}"), "--to", to.to_str().unwrap()]);
    image(&to.join("data"))
}

/// Goal: a rotation stops nothing and what is old stays readable; a key that something needs is not
/// retired, and it is said what; destroyed it takes what it sealed with it and nothing else.
#[test]
fn keys_are_rotated_and_go_with_what_they_seal() {
    let mut pair = Pair::new(&[("data", 4 * MIB)], &[]);
    pair.source.wait("in-sync");
    pair.replica.ok(&["group", "set", "g", "--snapshots", "none"]);
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 2 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "first"]);
    let first = image(&pair.source_image("data"));
    nbd.write(0, &noise(2, 2 * MIB)).unwrap();
    pair.source.wait("applied");

    // The writer does not notice.
    pair.replica.ok(&["key", "rotate"]);
    pair.source.ok(&["key", "rotate", "g"]);
    nbd.write(MIB, &noise(3, MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "second"]);
    let second = image(&pair.source_image("data"));
    nbd.write(0, &noise(4, 2 * MIB)).unwrap();
    pair.source.wait("applied");
    pair.assert_equal();
    let made = ids(&pair.replica);
    let states: Vec<Value> = keys(&pair.replica).iter().map(|key| key["state"].clone()).collect();
    assert_eq!(states, ["old", "current"]);
    assert_eq!(needed_by(&keys(&pair.replica)[1]), ["journal", "snapshots"]);

    // Everything is opened with its key, by the next process, too.
    pair.replica.kill();
    pair.replica.start();
    pair.assert_follows();
    assert!(exported(&pair.replica, "first") == first);
    assert!(exported(&pair.replica, "second") == second);
    let replica = &pair.replica;
    let needed = ["still needed", "journal", "snapshots", "first"];
    replica.run(&["key", "retire", "g", &made[0]]).expect(3, &needed);
    replica.run(&["key", "retire", "g", &made[1]]).expect(3, &["current"]);
    let lost = ["destroy", "g", &made[0], "--i-lose"];
    let destroy = |agent: &Agent, lose| agent.run(&[&["key"][..], &lost, &[lose]].concat());
    destroy(replica, "journal").expect(3, &["snapshots", "first"]);
    let current = ["key", "destroy", "g", &made[1], "--i-lose", "journal,snapshots"];
    replica.run(&current).expect(3, &["current"]);
    assert_eq!(needed_by(&keys(replica)[0]), ["journal", "snapshots"], "nothing was given up");

    // Not while somebody else's work needs it.
    let known = replica.group()["generation"].as_str().unwrap().to_owned();
    replica.ok(&["rollback", "g", "--to", "second", "--generation", &known]);
    destroy(replica, "journal,snapshots").expect(3, &["rolled back"]);
    replica.ok(&["rollback", "g", "--undo", "--generation", &known]);
    let layout = [replica.path("groups/g/layout"), replica.path("layout")];
    pair.replica.stop();
    std::fs::rename(&layout[0], &layout[1]).unwrap();
    pair.replica.start();
    destroy(&pair.replica, "journal,snapshots").expect(3, &["no replica that works"]);
    pair.replica.stop();
    destroy(&pair.replica, "journal,snapshots").expect(3, &["running agent"]);
    std::fs::rename(&layout[1], &layout[0]).unwrap();
    pair.replica.start();
    pair.assert_follows();

    let replica = &pair.replica;
    destroy(replica, "journal,snapshots").expect(0, &[]);
    assert_eq!(files_of(replica, 1), Vec::<String>::new());
    replica.run(&["key", "retire", "g", &made[0]]).expect(3, &[]);
    let to = replica.path("lost");
    let export = ["snapshot", "export", "g@first", "--to", to.to_str().unwrap()];
    let why =
        ["of the snapshot store cannot be used", &format!("key {}, which was destroyed", made[0])];
    replica.run(&export).expect(1, &why);
    assert!(exported(replica, "second") == second);
    nbd.write(0, &noise(5, MIB)).unwrap();
    pair.assert_follows();
    pair.replica.kill();
    pair.replica.start();
    pair.assert_follows();
    pair.replica.run(&export).expect(1, &why);
    assert!(exported(&pair.replica, "second") == second);

    // On the source nothing needs it: its spill is empty.
    let old = ids(&pair.source)[0].clone();
    pair.source.ok(&["key", "retire", "g", &old[..8]]);
    assert_eq!(files_of(&pair.source, 1), Vec::<String>::new());
    nbd.write(0, &noise(6, MIB)).unwrap();
    pair.assert_follows();
}

/// Goal: a key that nothing needs any more is retired, without giving anything up.
#[test]
fn a_key_is_retired_when_its_history_is_over() {
    let pair = Pair::new(&[("data", 2 * MIB)], &[]);
    pair.source.wait("in-sync");
    let replica = &pair.replica;
    replica.ok(&["group", "set", "g", "--snapshots", "none"]);
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "first"]);
    nbd.write(0, &noise(2, MIB)).unwrap();
    pair.source.wait("applied");
    let old = ids(replica)[0].clone();
    replica.ok(&["key", "rotate", "g"]);
    replica.run(&["key", "retire", "g", &old]).expect(3, &["still needed"]);
    for snapshot in replica.json(&["snapshot", "list", "g"])["snapshots"].as_array().unwrap() {
        let name = format!("g@{}", snapshot["name"].as_str().unwrap());
        replica.ok(&["snapshot", "delete", &name]);
    }
    replica.ok(&["group", "set", "g", "--history", "1s"]);
    let mut round = 3;
    until("its history is over", || {
        round += 1;
        nbd.write(0, &noise(round, 65536)).unwrap();
        let ran = replica.run(&["key", "retire", "g", &old]);
        assert!(ran.code == 0 || ran.code == 3, "{ran:?}");
        ran.code == 0
    });
    assert_eq!(keys(replica)[0]["state"], "destroyed");
    pair.assert_follows();
}

/// Goal: what wraps the keys is replaced while the agent runs: by a new file, by a command, and each
/// start finds it.
#[test]
fn keys_are_wrapped_anew_while_the_agent_runs() {
    let mut pair = Pair::new(&[("data", MIB)], &[]);
    pair.source.wait("in-sync");
    pair.open("data").write(0, &noise(1, MIB)).unwrap();
    let key = image(&pair.replica.path("key"));
    let done = pair.replica.json(&["key", "rewrap"]);
    assert!(image(&pair.replica.path("key")) != key, "{done}");
    let wrapped = |agent: &Agent| keys(agent)[0]["wrapped_by"].clone();
    assert_eq!(wrapped(&pair.replica), serde_json::json!([done["to"]]));
    pair.replica.kill();
    pair.replica.start();
    pair.assert_follows();

    let secret = pair.place.path().join("elsewhere");
    std::fs::write(&secret, format!("{}\n", "7e".repeat(32))).unwrap();
    let command = format!("cat {}", secret.display());
    pair.replica.ok(&["key", "rewrap", "--to-command", &command]);
    assert_eq!(wrapped(&pair.replica).as_array().unwrap().len(), 2);
    pair.replica.run(&["key", "rotate"]).expect(3, &["wrapped anew"]);
    pair.replica.configure(&format!("key_command = \"{command}\""));
    pair.replica.ok(&["key", "rewrap", "--finish"]);
    assert_eq!(wrapped(&pair.replica).as_array().unwrap().len(), 1);
    std::fs::remove_file(pair.replica.path("key")).unwrap();
    pair.replica.ok(&["key", "rotate"]);
    pair.replica.stop();
    pair.replica.start();
    pair.assert_follows();

    // One that gives nothing is told, stops nothing that runs, and what it said is not repeated.
    std::fs::write(&secret, "5ec7e7").unwrap();
    let ran = pair.replica.run(&["key", "rotate"]);
    ran.expect(1, &["key_command gives no key"]);
    assert!(!ran.err.contains("5ec7e7"), "{ran:?}");
    pair.open("data").write(0, &noise(2, MIB)).unwrap();
    pair.assert_follows();
    pair.replica.run(&["agent", "--check"]).expect(1, &[]);
}

/// Goal: templates are sealed with their store's current key and name it; a key goes when no template
/// needs it, or with those that do.
#[test]
fn templates_name_their_keys() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    pair.source.wait("in-sync");
    pair.open("data").write(0, &noise(1, MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let agent = &pair.replica;
    agent.ok(&["template", "create", "one", "--from", "g@base"]);
    agent.ok(&["template", "key", "rotate"]);
    agent.ok(&["template", "create", "two", "--from", "g@base"]);
    let ring = agent.json(&["template", "key", "list"])["rings"][0]["keys"].clone();
    assert_eq!((&ring[0]["state"], &ring[1]["state"]), (&"old".into(), &"current".into()));
    let listed = agent.json(&["template", "list"])["templates"].clone();
    let sealed: Vec<&Value> = listed.as_array().unwrap().iter().map(|it| &it["key"]).collect();
    assert_eq!(sealed, [&ring[0]["id"], &ring[1]["id"]]);
    let old = ring[0]["id"].as_str().unwrap();
    agent.run(&["template", "key", "retire", old]).expect(3, &["still needed", "one"]);
    agent.run(&["template", "key", "destroy", old, "--i-lose", "journal"]).expect(3, &["one"]);
    agent.ok(&["template", "key", "destroy", old, "--i-lose", "templates"]);
    agent.run(&["template", "verify", "one"]).expect(3, &["destroyed"]);
    agent.ok(&["template", "verify", "two"]);
    agent.ok(&["template", "delete", "one"]);
    agent.ok(&["template", "key", "rotate"]);
    let second = ring[1]["id"].as_str().unwrap();
    agent.run(&["template", "key", "retire", second]).expect(3, &["two"]);
    agent.ok(&["template", "delete", "two"]);
    agent.ok(&["template", "key", "retire", second]);
}
