//! What is made of a set's snapshot: one environment of all its groups, and a template of each.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::trio::{Counting, SOURCES, Success, Trio, stop_counting};
use crate::common::{Agent, MIB, Nbd, until};

const EXPORTS: [&str; 2] = ["env/e/app/data", "env/e/db/data"];

/// The number that stands at the head of an export.
fn number(agent: &Agent, export: &str) -> u64 {
    let mut nbd = Nbd::open_export(&agent.nbd_socket(), export).unwrap();
    u64::from_be_bytes(nbd.read(0, 8).unwrap().try_into().unwrap())
}

/// Writes a block of this byte to a source's volume.
fn fill(trio: &Trio, source: usize, with: u8) {
    let mut nbd = Nbd::open(&trio.sources[source].nbd_socket(), "data").unwrap();
    nbd.write(0, &vec![with; usize::try_from(MIB).unwrap()]).unwrap();
}

fn environments(agent: &Agent) -> Vec<Value> {
    agent.json(&["env", "list"])["environments"].as_array().unwrap().clone()
}

/// The names and roots of the templates of the home's own store.
fn templates(agent: &Agent) -> Vec<(String, String)> {
    let all = agent.json(&["template", "list"])["templates"].clone();
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(|it| (text(&it["name"]), text(&it["root"]))).collect()
}

fn names(agent: &Agent) -> Vec<String> {
    templates(agent).into_iter().map(|it| it.0).collect()
}

/// Goal: an environment of a set's snapshot is of one moment, over restarts, says of which, and
/// keeps the snapshot for as long as it lives.
#[test]
fn an_environment_of_a_set_is_of_one_moment() {
    let mut trio = Trio::new();
    stop_counting(&trio);
    let counting = Counting::start(&trio);
    counting.passes(20);
    let made = trio.create("noon").json_of_success();
    counting.passes(20);
    drop(counting);
    let env = trio.dr.json(&["env", "create", "e", "--set", "erp@noon", "--nbd", "--lease", "9h"]);
    assert_eq!((&env["set"], &env["exports"]), (&json!("erp@noon"), &json!(EXPORTS)));
    for (member, group) in SOURCES.iter().enumerate() {
        assert_eq!(env["parts"][member]["group"], *group);
        assert_eq!(env["parts"][member]["at"], made["members"][member]["at"]);
    }
    let both = |agent: &Agent| EXPORTS.map(|it| number(agent, it));
    let [app, db] = both(&trio.dr);
    assert!(db >= 20 && (app == db || app == db + 1), "app {app}, db {db}");

    let delete = ["snapshot", "delete", "--set", "erp@noon"];
    let refused = |trio: &Trio| {
        trio.dr.run(&delete).expect(3, &["of group app is in use by environment e"]);
        let one = format!("db@{}", made["members"][1]["snapshot"].as_str().unwrap());
        trio.dr.run(&["snapshot", "delete", &one]).expect(3, &["environment e"]);
        assert_eq!(trio.snapshots()[0]["state"], "made");
    };
    refused(&trio);
    trio.dr.kill();
    trio.dr.start();
    refused(&trio);
    assert_eq!(both(&trio.dr), [app, db]);
    assert_eq!(trio.dr.json(&["env", "show", "e"])["set"], "erp@noon");
    let shown = trio.dr.ok(&["env", "show", "e"]);
    assert!(shown.contains("\nset       erp@noon\n"), "{shown}");
    trio.dr.ok(&["env", "destroy", "e"]);

    // What is written outside needs the snapshot no more.
    let to = trio.file("outside");
    let spec = format!("images:{}", to.display());
    trio.dr.ok(&["env", "create", "o", "--set", "erp@noon", "--to-volumes", &spec]);
    trio.dr.ok(&delete);
    trio.until_nothing_is_left();
    for (group, expected) in SOURCES.iter().zip([app, db]) {
        let image = fs::read(to.join(group).join("data")).unwrap();
        assert_eq!(image[..8], expected.to_be_bytes());
    }
    assert_eq!(trio.dr.json(&["env", "show", "o"])["set"], "erp@noon");
}

/// Goal: it is made of all groups of the set or not at all, and of nothing else.
#[test]
fn an_environment_of_a_set_that_is_not_whole_is_refused() {
    let trio = Trio::new();
    let make = |name: &str| trio.dr.json(&["snapshot", "create", "--set", "erp", name]);
    make("noon");
    let create = ["env", "create", "e", "--nbd", "--set"];
    let run = |more: &[&str]| trio.dr.run(&[&create[..], more].concat());
    run(&["erp@none"]).expect(3, &["set erp has no snapshot none"]);
    run(&["erp@now"]).expect(2, &["now is no name of a set's snapshot"]);
    run(&["erp@noon", "--from", "app@now"]).expect(2, &["--set", "--from"]);
    run(&["erp@noon", "--store", "/s"]).expect(2, &["--set", "--store"]);
    let to_dir = ["env", "create", "e", "--set", "erp@noon", "--to-dir", "/d"];
    trio.dr.run(&to_dir).expect(2, &["--set", "--to-dir"]);
    let body = r#"{"name": "e", "set": "erp@noon", "from": ["app@now"]}"#;
    let mut socket = UnixStream::connect(trio.dr.path("api.sock")).unwrap();
    let head = "POST /v1/environments HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\
                content-type: application/json\r\n";
    write!(socket, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("erp@noon stands for all points"), "{answer}");

    // What of one group is gone: nothing is made, and the other's snapshot is not held.
    let part = make("part");
    let snapshot = part["members"][1]["snapshot"].as_str().unwrap();
    trio.dr.ok(&["snapshot", "delete", &format!("db@{snapshot}")]);
    run(&["erp@part"]).expect(3, &["is not on the replica of group db"]);
    assert_eq!(environments(&trio.dr), Vec::<Value>::new());
    trio.dr.ok(&["snapshot", "delete", "--set", "erp@part"]);

    // The replica is on another agent, where its snapshot has the same name.
    let app = &trio.sources[0];
    app.ok(&["set", "create", "here", "--member", "g"]);
    let made = app.json(&["snapshot", "create", "--set", "here", "s"]);
    let snapshot = made["members"][0]["snapshot"].as_str().unwrap();
    let there = format!("--from G@{snapshot}, where G is what g is called there");
    app.run(&["env", "create", "e", "--nbd", "--set", "here@s"])
        .expect(3, &["group g has no replica here", "its replica is on dr", &there]);
    assert_eq!(environments(app), Vec::<Value>::new());
    trio.dr.ok(&["env", "create", "e", "--nbd", "--from", &format!("app@{snapshot}")]);
    assert_eq!(trio.dr.json(&["env", "show", "e"])["set"], Value::Null);
}

/// Goal: templates of a set that a crash cut off are completed by the same command, which takes
/// nothing else for one of them.
#[test]
fn templates_of_a_set_are_completed_after_a_crash() {
    let mut trio = Trio::new();
    fill(&trio, 0, 1);
    fill(&trio, 1, 2);
    let made = trio.dr.json(&["snapshot", "create", "--set", "erp", "noon"]);
    trio.dr.json(&["snapshot", "create", "--set", "erp", "later"]);
    let create = ["template", "create", "t", "--set", "erp@noon"];
    let asked = trio.dr.begin(&create);
    let first = trio.dr.path("templates/templates/t.app");
    until("the first is made", || {
        fs::read_dir(&first).is_ok_and(|mut entries| entries.next().is_some())
    });
    trio.dr.kill();
    asked.end();
    trio.dr.start();
    if names(&trio.dr) == ["t.app", "t.db"] {
        // It came too late, but this is what it would have left.
        trio.dr.ok(&["template", "delete", "t.db"]);
    }
    assert_eq!(names(&trio.dr), ["t.app"]);
    let root = templates(&trio.dr)[0].1.clone();

    // Something else is in the place of one, and of another snapshot it is not.
    let one = format!("db@{}", made["members"][1]["snapshot"].as_str().unwrap());
    trio.dr.ok(&["template", "create", "t.db", "--from", &one]);
    trio.dr.run(&create).expect(3, &["a template t.db already", "was not made of db@set.erp.noon"]);
    trio.dr.ok(&["template", "delete", "t.db"]);
    let later = ["template", "create", "t", "--set", "erp@later"];
    trio.dr.run(&later).expect(3, &["a template t.app already"]);
    assert_eq!(names(&trio.dr), ["t.app"]);

    let done = trio.dr.json(&create)["templates"].clone();
    assert_eq!(names(&trio.dr), ["t.app", "t.db"]);
    assert_eq!((&done[0]["root"], &done[0]["stored_bytes"]), (&json!(root), &json!(0)));
    assert_eq!(done[0]["data_bytes"], json!(MIB));
    for member in 0..SOURCES.len() {
        assert_eq!(done[member]["at"], made["members"][member]["at"]);
    }
    let shown = trio.dr.ok(&["template", "show", "t.db"]);
    assert!(shown.contains("\"set\" = \"erp@noon\""), "{shown}");
    let all = templates(&trio.dr);
    trio.dr.ok(&create);
    assert_eq!(templates(&trio.dr), all, "nothing is made twice");
    // A later snapshot may have the name of one that was deleted.
    trio.dr.ok(&["snapshot", "delete", "--set", "erp@noon"]);
    trio.dr.json(&["snapshot", "create", "--set", "erp", "noon"]);
    trio.dr.run(&create).expect(3, &["a template t.app already"]);

    // One fails that nobody could foresee: what this call made goes, what was there stays.
    let intents = trio.dr.path("templates/intents/u.db");
    fs::write(&intents, "in the way").unwrap();
    let other = ["template", "create", "u", "--set", "erp@noon"];
    trio.dr.run(&other).expect(1, &["u.db"]);
    assert_eq!(names(&trio.dr), ["t.app", "t.db"]);
    fs::remove_file(&intents).unwrap();
    trio.dr.ok(&other);
    trio.dr.ok(&["template", "delete", "u.db"]);
    fs::remove_dir_all(&intents).unwrap();
    fs::write(&intents, "in the way").unwrap();
    trio.dr.run(&other).expect(1, &["template u.app was there before and stays"]);
    assert_eq!(names(&trio.dr), ["t.app", "t.db", "u.app"]);
}

/// Goal: of two calls at once that make templates of one name the second is refused: each would
/// take back, or take for whole, what is the other's.
#[test]
fn templates_of_a_set_are_made_by_one_at_a_time() {
    let trio = Trio::new();
    trio.dr.json(&["snapshot", "create", "--set", "erp", "noon"]);
    let create = |name| ["template", "create", name, "--set", "erp@noon"];
    trio.dr.ok(&create("t"));
    // Where it says what became of the name, whoever comes first waits until somebody writes it.
    let all = trio.dr.path("templates/templates");
    let slot = fs::read_dir(all.join("t.app")).unwrap().next().unwrap().unwrap().file_name();
    let slot = all.join("u.app").join(slot);
    fs::create_dir(slot.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&slot, Mode::S_IRWXU).unwrap();
    let (tell, ended) = channel();
    for asked in [trio.dr.begin(&create("u")), trio.dr.begin(&create("u"))] {
        let tell = tell.clone();
        thread::spawn(move || tell.send(asked.end()));
    }
    let mut first = None;
    until("one is refused", || {
        first = ended.try_recv().ok();
        first.is_some()
    });
    first.unwrap().expect(3, &["templates u of a set are being made already"]);
    trio.dr.ok(&create("v"));
    until("the other can go on", || {
        let mut options = fs::OpenOptions::new();
        options.write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&slot).is_ok()
    });
    ended.recv().unwrap().expect(1, &["templates/u.app"]);
    fs::remove_file(&slot).unwrap();
    trio.dr.ok(&create("u"));
    assert_eq!(names(&trio.dr), ["t.app", "t.db", "u.app", "u.db", "v.app", "v.db"]);
}
