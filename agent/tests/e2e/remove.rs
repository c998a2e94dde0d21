//! Groups are removed, and added and paired anew.

use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;

use super::common::{Agent, MIB, Nbd, Pair, noise};

/// How many files below a folder a running agent has open.
fn open_below(agent: &Agent, folder: &Path) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|path| path.starts_with(folder)).count()
}

fn names(listed: &Value, list: &str, key: &str) -> Vec<String> {
    let entries = listed[list].as_array().unwrap().iter();
    entries.map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

/// A pair in sync whose agents have a second group `h` too.
fn with_another() -> Pair {
    let pair = Pair::new(&[("data", 4 * MIB)], &[]);
    let images = pair.place.path().join("other-images");
    fs::create_dir(&images).unwrap();
    File::create(images.join("lv")).unwrap().set_len(MIB).unwrap();
    pair.source.ok(&["group", "add", "h", "--volumes", &format!("images:{}", images.display())]);
    let made = pair.source.json(&["pair", "invite", "--group", "h", "--role", "replica"]);
    let copy = format!("images:{}", pair.place.path().join("other-copy").display());
    pair.replica.ok(&["pair", "join", made["token"].as_str().unwrap(), "--volumes", &copy]);
    pair.source.ok(&["wait", "h", "--for", "in-sync", "--timeout", "60s"]);
    pair
}

fn add(pair: &Pair) {
    let spec = format!("images:{}", pair.place.path().join("source-images").display());
    pair.source.ok(&["group", "add", "g", "--volumes", &spec]);
}

#[test]
fn a_removed_group_leaves_the_others_and_can_be_added_and_paired_anew() {
    let pair = with_another();
    pair.open("data").write(0, &noise(1, MIB)).unwrap();
    pair.assert_follows();
    let before = fs::read(pair.source_image("data")).unwrap();
    let old = pair.source.group()["generation"].clone();
    let images = pair.place.path().join("source-images");
    assert!(open_below(&pair.source, &images) > 0);

    let removed = pair.source.json(&["group", "remove", "g"]);
    assert_eq!(removed["revoked"], serde_json::json!(["replica"]), "{removed}");
    assert_eq!(open_below(&pair.source, &images), 0, "its volumes are free");
    let kept = Path::new(removed["kept"].as_str().unwrap());
    assert!(kept.join("layout").exists() && kept.starts_with(pair.source.path("removed")));
    assert!(fs::read(pair.source_image("data")).unwrap() == before);
    assert!(Nbd::open(&pair.source.nbd_socket(), "data").is_err());
    assert_eq!(names(&pair.source.json(&["group", "list"]), "groups", "name"), ["h"]);
    assert_eq!(names(&pair.source.json(&["pair", "list"]), "pairs", "group"), ["h"]);
    pair.source.run(&["status", "g"]).expect(3, &["no group g"]);
    pair.source.run(&["group", "remove", "g"]).expect(3, &["no group g"]);
    pair.replica.until("refused", |group| {
        group["peers"][0]["last_error"].as_str().is_some_and(|why| why.contains("not part of"))
    });
    for side in [&pair.source, &pair.replica] {
        let other = side.json(&["status", "h"])["groups"][0].clone();
        assert_eq!(other["peers"][0]["connected"], true, "{other}");
    }

    add(&pair);
    fs::write(pair.source_image("data"), noise(2, 4 * MIB)).unwrap();
    let copies = pair.place.path().join("replica-images");
    let removed = pair.replica.json(&["group", "remove", "g"]);
    assert_eq!(removed["role"], "replica");
    assert_eq!(open_below(&pair.replica, &copies), 0, "its volumes are free");
    assert_eq!(names(&pair.replica.json(&["pair", "list"]), "pairs", "group"), ["h"]);
    pair.join();
    pair.source.wait("in-sync");
    assert_ne!(pair.source.group()["generation"], old, "a history of its own");
    pair.open("data").write(MIB, &noise(3, MIB)).unwrap();
    pair.assert_follows();
    assert_eq!(pair.source.logged("verdict=Full"), 3, "g, h, and g again as if new");
}

#[test]
fn a_group_in_use_is_removed_by_force_only_and_its_clients_are_cut_off() {
    let pair = with_another();
    let (mut client, token) = (pair.open("data"), pair.invite());
    client.write(0, &noise(1, 65536)).unwrap();
    pair.source.run(&["group", "remove", "g"]).expect(3, &["1 NBD client is connected", "--force"]);
    client.write(65536, &noise(2, 65536)).unwrap();
    pair.source.wait("in-sync");
    let text = pair.source.ok(&["group", "remove", "g", "--force"]);
    assert!(text.contains("group g is removed") && text.contains("Revoked for it: replica"));
    assert!(client.write(0, &[1; 4096]).is_err());
    let written = fs::read(pair.source_image("data")).unwrap();
    assert!(written[..65536] == noise(1, 65536) && written[65536..131_072] == noise(2, 65536));
    let late = format!("images:{}", pair.place.path().join("late").display());
    let joined = pair.replica.run(&["pair", "join", &token, "--group", "late", "--volumes", &late]);
    joined.expect(3, &["no open invite"]);
    add(&pair);
    pair.open("data").write(0, &[1; 4096]).unwrap();
}

#[test]
fn a_group_that_does_not_open_is_removed_and_one_without_a_running_agent() {
    let mut pair = Pair::new(&[("data", MIB)], &[]);
    pair.replica.stop();
    pair.replica.ok(&["group", "remove", "g"]);
    assert_eq!(pair.replica.json(&["pair", "list"])["pairs"], serde_json::json!([]));
    assert!(pair.replica_image("data").exists());
    pair.source.stop();
    File::options().write(true).open(pair.source_image("data")).unwrap().set_len(MIB / 2).unwrap();
    pair.restart_source();
    let why = pair.source.group()["reason"].as_str().unwrap().to_owned();
    assert!(why.contains("vgship group remove g"), "{why}");
    pair.source.ok(&["group", "remove", "g"]);
    add(&pair);
    fs::remove_file(pair.replica_image("data")).unwrap();
    pair.replica.start();
    pair.join();
    pair.source.wait("in-sync");
    pair.assert_follows();
}
