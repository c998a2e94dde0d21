//! The command line as scripts use it: exit codes, one JSON document, errors that help.

use std::fs::{self, File};
use std::path::Path;

use vgship_test_images::{LvRecipe, Placement, Recipe};

use super::common::{Agent, MIB, Pair};

/// A folder with one image of one MiB.
fn images(place: &Path, name: &str) -> String {
    let folder = place.join(name);
    fs::create_dir(&folder).unwrap();
    File::create(folder.join("lv")).unwrap().set_len(MIB).unwrap();
    format!("images:{}", folder.display())
}

#[test]
fn wrong_usage_is_2_and_says_what_is_right() {
    let place = tempfile::tempdir().unwrap();
    let agent = Agent::init(place.path(), "a");
    let good = images(place.path(), "good");
    agent.run(&["no-such-command"]).expect(2, &["no-such-command"]);
    agent.run(&["status", "--no-such-flag"]).expect(2, &["no-such-flag"]);
    for (spec, said) in [
        ("/srv/lvs", "images:DIR"),
        ("zfs:tank", "images:DIR"),
        ("images:", "lacks a name or path"),
        ("aix-disks:/a,,/b", "between commas"),
        ("lvm2:../x", "not the name of a volume group"),
    ] {
        agent.run(&["group", "add", "g", "--volumes", spec]).expect(2, &[said]);
    }
    let add = |flag: &str, value: &str| {
        agent.run(&["group", "add", "g", "--volumes", &good, flag, value])
    };
    add("--extent", "3KiB").expect(2, &["power of two"]);
    add("--extent", "lots").expect(2, &["lots"]);
    add("--spill", "-1").expect(2, &["-1"]);
    add("--outbox-ram", "1MiB").expect(2, &["4 MiB"]);
    add("--epoch", "1d").expect(2, &["1 m"]);
    add("--on-overflow", "panic").expect(2, &["map", "stall"]);
    let groups = agent.json(&["group", "list"]);
    assert_eq!(groups["groups"].as_array().unwrap().len(), 0, "nothing was added");
}

#[test]
fn what_fails_is_1_and_says_what_where_and_why() {
    let place = tempfile::tempdir().unwrap();
    let agent = Agent::init(place.path(), "a");
    let missing = place.path().join("missing");
    let missing = missing.to_str().unwrap();
    let add = |spec: &str| agent.run(&["group", "add", "g", "--volumes", spec]);
    add(&format!("images:{missing}")).expect(1, &[missing, "No such file"]);
    add(&format!("aix-disks:{missing}")).expect(1, &[missing]);
    let junk = place.path().join("junk");
    fs::write(&junk, vec![7; 1 << 20]).unwrap();
    add(&format!("aix-disks:{}", junk.display())).expect(1, &[junk.to_str().unwrap()]);
    agent.run(&["vg", "list", missing]).expect(1, &[missing]);
    agent.run(&["status"]).expect(1, &["agent"]); // it does not run
    let config = agent.path("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("colour = 1\n{text}")).unwrap();
    agent.run(&["agent"]).expect(1, &["config.toml", "line 1", "colour"]);
    agent.run(&["agent", "--check"]).expect(1, &["wrong"]);
    let checks = agent.run(&["agent", "--check", "--json"]);
    assert_eq!(checks.code, 1);
    assert_eq!(checks.json()["ok"], false);
    fs::write(&config, text).unwrap();
    agent.run(&["agent", "--check"]).expect(0, &[]);
}

#[test]
fn what_the_state_forbids_is_3_and_no_time_left_is_4() {
    let pair = Pair::unpaired(&[("data", MIB)], &[]);
    let place = pair.place.path();
    pair.source.run(&["init", "--name", "again"]).expect(3, &["set up"]);
    pair.source.run(&["status", "nowhere"]).expect(3, &["nowhere", "there are: g"]);
    pair.source.run(&["pause", "nowhere"]).expect(3, &["nowhere"]);
    pair.source.run(&["agent"]).expect(1, &["another vgship process"]);
    let wait = ["wait", "g", "--for", "in-sync", "--timeout", "1s"];
    pair.source.run(&wait).expect(3, &["no replica"]);
    let spec = images(place, "more");
    pair.source.run(&["group", "add", "g", "--volumes", &spec]).expect(3, &["g"]);
    let twice = format!("images:{}", place.join("source-images").display());
    pair.source.run(&["group", "add", "twice", "--volumes", &twice]).expect(3, &["group g"]);
    for role in ["replica", "source"] {
        let ran = pair.source.run(&["pair", "invite", "--group", "none", "--role", role]);
        ran.expect(3, &["none"]);
    }
    pair.source.run(&["pair", "revoke", "nobody"]).expect(1, &["nobody"]);
    pair.join();
    pair.source.wait("in-sync");
    pair.relay.cut();
    pair.open("data").write(0, &[1; 4096]).unwrap();
    let wait = ["wait", "g", "--for", "applied", "--timeout", "500ms"];
    pair.source.run(&wait).expect(4, &["500 ms"]);
}

#[test]
fn the_volumes_of_a_running_replica_are_taken() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    let spec = pair.replica_spec();
    let ran = pair.source.run(&["group", "add", "other", "--volumes", &spec]);
    ran.expect(1, &["replica-images/data", "in use by another process"]);
}

#[test]
fn rootvg_is_refused_in_every_shape() {
    let place = tempfile::tempdir().unwrap();
    let agent = Agent::init(place.path(), "a");
    let by_name = images(place.path(), "rootvg");
    let add = |spec: &str| agent.run(&["group", "add", "g", "--volumes", spec]);
    add(&by_name).expect(3, &["rootvg"]);
    add("lvm2:rootvg").expect(3, &["rootvg"]);
    add("aix:rootvg").expect(3, &["rootvg"]);
    let disks = place.path().join("disks");
    fs::create_dir(&disks).unwrap();
    let written = vgship_test_images::write(&Recipe::rootvg_like(), &disks).unwrap();
    let spec = format!("aix-disks:{}", written.disks[0].display());
    add(&spec).expect(3, &["hd5"]);
    let mut agent = agent;
    agent.start();
    agent.run(&["group", "add", "g", "--volumes", &spec]).expect(3, &["hd5"]);
    let listed = agent.json(&["vg", "list", &spec]);
    let group = &listed["groups"][0];
    assert!(group["excluded"].as_str().unwrap().contains("hd5"), "{group}");
}

#[test]
fn vg_list_shows_an_aix_vg_on_images() {
    let place = tempfile::tempdir().unwrap();
    let agent = Agent::init(place.path(), "a");
    let lv = |name: &str, lps| LvRecipe::new(name, lps, Placement::Scattered(3));
    let recipe = Recipe {
        disks: vec![16, 16],
        lvs: vec![lv("datalv", 5), lv("loglv", 2).mirrored(2)],
        ..Recipe::default()
    };
    let written = vgship_test_images::write(&recipe, place.path()).unwrap();
    let disks: Vec<_> = written.disks.iter().map(|disk| disk.display().to_string()).collect();
    let spec = format!("aix-disks:{}", disks.join(","));
    let text = agent.ok(&["vg", "list", &spec]);
    assert!(text.contains("datalv") && text.contains("loglv"), "{text}");
    let listed = agent.json(&["vg", "list", &spec]);
    let volumes = &listed["groups"][0]["lvs"];
    assert_eq!(volumes[0]["name"], "datalv", "{listed}");
    assert_eq!(volumes[0]["bytes"], 5 * MIB, "{listed}");
    agent.ok(&["group", "add", "g", "--volumes", &spec]);
    agent.run(&["agent", "--check"]).expect(0, &[]);
}

#[test]
fn every_command_prints_one_json_document() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    for args in [
        &["status"][..],
        &["status", "g"],
        &["group", "list"],
        &["pair", "list"],
        &["pair", "invite", "--group", "g", "--role", "replica"],
        &["vg", "list"],
        &["wait", "g", "--for", "durable"],
        &["pause", "g"],
        &["resume", "g"],
        &["agent", "--check"],
    ] {
        assert!(pair.source.json(args).is_object(), "{args:?}");
    }
    assert!(pair.source.json(&["pair", "revoke", "replica"]).is_object());
    pair.replica.run(&["agent", "--check"]).expect(0, &[]);
}

#[test]
fn pause_stops_shipping_and_resume_goes_on() {
    let pair = Pair::new(&[("data", 4 * MIB)], &[]);
    for side in [&pair.source, &pair.replica] {
        side.ok(&["pause", "g"]);
        side.until("paused", |group| group["state"] == "paused");
        let before = fs::read(pair.replica_image("data")).unwrap();
        let fill = before[0] + 1;
        pair.open("data").write(0, &vec![fill; 1 << 20]).unwrap();
        let wait = ["wait", "g", "--for", "applied", "--timeout", "500ms"];
        pair.source.run(&wait).expect(4, &[]);
        assert!(fs::read(pair.replica_image("data")).unwrap() == before);
        side.ok(&["resume", "g"]);
        pair.assert_follows();
    }
    assert_eq!(pair.source.logged("verdict=Resync"), 0, "a pause is no resync");
}
