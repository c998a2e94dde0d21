//! Sets: two groups on two agents, both replicated to a third, which coordinates; hooks that stop a
//! real writer; agents that are stopped and killed in the middle.

mod trio;

mod used;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::{MIB, Nbd, noise, until};
use trio::{Counting, SOURCES, Success, Trio, stop_counting};

/// Goal: what a set's snapshot holds on both sides is of one moment, which one group after the other
/// is not; it can be listed, pinned, used and deleted as one.
#[test]
fn a_set_is_of_one_moment() {
    let trio = Trio::new();
    stop_counting(&trio);
    let counting = Counting::start(&trio);
    counting.passes(20);
    let made = trio.create("noon").json_of_success();
    assert_eq!((&made["one_instant"], &made["quiesced"]), (&Value::Bool(true), &Value::Bool(true)));
    let log = trio.log();
    let place = |line: &str| log.iter().position(|it| it == line).unwrap();
    for name in SOURCES {
        for other in SOURCES {
            assert!(
                place(&format!("frozen {name}")) < place(&format!("thawed {other}")),
                "{log:?}"
            );
        }
    }
    let snapshot = made["members"][0]["snapshot"].as_str().unwrap().to_owned();
    assert!(snapshot.starts_with("set.erp.noon."), "{snapshot}");
    let (app, db) = (trio.number("app", &snapshot), trio.number("db", &snapshot));
    assert!(db >= 20 && (app == db || app == db + 1), "app {app}, db {db}");
    for (member, name) in SOURCES.iter().enumerate() {
        let kept = trio.kept(name);
        assert_eq!((kept.len(), &kept[0]["quiesced"]), (1, &Value::Bool(true)));
        assert_eq!(kept[0]["seq"], made["members"][member]["seq"], "the vector is what is there");
        assert_eq!(kept[0]["generation"], made["members"][member]["generation"]);
    }

    // The same application, one group after the other: each is quiesced, and they do not fit.
    trio.sources[0].ok(&["snapshot", "create", "g", "one", "--quiesce"]);
    counting.passes(2);
    trio.sources[1].ok(&["snapshot", "create", "g", "one", "--quiesce"]);
    assert!(trio.number("db", "one") > trio.number("app", "one"));
    drop(counting);

    // Templates of it: one for each group, of all or of none.
    trio.dr.ok(&["template", "create", "t.db", "--from", &format!("app@{snapshot}")]);
    let create = ["template", "create", "t", "--set", "erp@noon"];
    assert_ne!(trio.dr.run(&create).code, 0, "t.db is another");
    let names = || {
        let all = trio.dr.json(&["template", "list"])["templates"].clone();
        let name = |it: &Value| it["name"].as_str().unwrap().to_owned();
        all.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["t.db"]);
    trio.dr.ok(&["template", "delete", "t.db"]);
    let templates = trio.dr.json(&create)["templates"].clone();
    assert_eq!(names(), ["t.app", "t.db"]);
    for member in 0..SOURCES.len() {
        assert_eq!(templates[member]["group"], made["members"][member]["group"]);
        assert_eq!(templates[member]["at"], made["members"][member]["at"]);
    }

    trio.create("noon").expect(3, &["erp@noon is there already"]);
    trio.dr.ok(&["snapshot", "pin", "--set", "erp@noon"]);
    assert!(SOURCES.iter().all(|name| trio.kept(name)[0]["pinned"] == true));
    let delete = ["snapshot", "delete", "--set", "erp@noon"];
    trio.dr.run(&delete).expect(3, &["of group app is pinned", "snapshot unpin --set erp@noon"]);
    assert!(SOURCES.iter().all(|name| trio.kept(name)[0]["quiesced"] == true));
    trio.dr.ok(&["snapshot", "unpin", "--set", "erp@noon"]);
    let shown = trio.dr.json(&["set", "show", "erp"]);
    assert_eq!(shown["snapshots"][0]["members"][1]["kept"], true, "{shown}");
    trio.dr.run(&["set", "delete", "erp"]).expect(3, &["has snapshots", "erp@noon"]);
    let from = format!("app@{snapshot}");
    trio.dr.ok(&["env", "create", "e", "--from", &from, "--nbd"]);
    trio.dr.run(&delete).expect(3, &["in use by environment e"]);
    trio.dr.ok(&["env", "destroy", "e"]);
    trio.dr.ok(&delete);
    trio.until_nothing_is_left();
    trio.dr.run(&delete).expect(3, &["has no snapshot noon"]);

    // What of one group is gone is not whole any more.
    let made = trio.dr.json(&["snapshot", "create", "--set", "erp", "part"]);
    let snapshot = made["members"][1]["snapshot"].as_str().unwrap();
    trio.dr.ok(&["snapshot", "delete", &format!("db@{snapshot}")]);
    assert_eq!(trio.snapshots()[0]["members"][1]["kept"], false);
    let create = ["template", "create", "u", "--set", "erp@part"];
    trio.dr.run(&create).expect(3, &["is not on the replica of group db"]);
    assert_eq!(names(), ["t.app", "t.db"]);
    trio.dr.ok(&["snapshot", "delete", "--set", "erp@part"]);
    trio.dr.ok(&["set", "delete", "erp"]);
    assert_eq!(trio.dr.json(&["set", "list"])["sets"], serde_json::json!([]));
}

/// Goal: a peer freezes only what the source's operator lets it; without freezing a set's snapshot
/// says that it is not of one moment.
#[test]
fn nobody_is_frozen_who_does_not_allow_it() {
    let trio = Trio::new();
    trio.create("a").expect(1, &["made: group ", "no freeze command", "nothing of it is left"]);
    trio.set_hooks(0, "echo f >> LOG", "echo t >> LOG", "40s");
    trio.set_hooks(1, "echo f >> LOG", "echo t >> LOG", "40s");
    trio.sources[1].ok(&["group", "set", "g", "--replica-quiesce", "deny"]);
    trio.create("a").expect(1, &["group db: ", "--replica-quiesce allow", "nothing of it is left"]);
    // The other's freeze may have been ended before it said anything.
    let log = trio.log();
    let count = |line: &str| log.iter().filter(|it| *it == line).count();
    assert!(count("f") <= count("t"), "whoever was frozen goes on: {log:?}");
    trio.until_nothing_is_left();
    let frozen = trio.log().len();

    let made = trio.dr.json(&["snapshot", "create", "--set", "erp", "plain"]);
    assert_eq!(
        (&made["one_instant"], &made["quiesced"]),
        (&Value::Bool(false), &Value::Bool(false))
    );
    assert!(made["spread_ms"].as_u64().unwrap() < 10_000, "{made}");
    assert_eq!((trio.kept("app").len(), trio.kept("db").len()), (1, 1));
    assert_eq!(trio.kept("app")[0]["quiesced"], false);
    assert_eq!(trio.log().len(), frozen, "nobody was frozen for it");
    let said = trio.dr.ok(&["snapshot", "list", "--set", "erp"]);
    assert!(said.contains("not one instant"), "{said}");

    // A member that cannot take part now, and one that this agent does not know.
    trio.dr.ok(&["pause", "db"]);
    let ran = trio.dr.run(&["snapshot", "create", "--set", "erp", "b", "--timeout", "1s"]);
    ran.expect(4, &["group db: has no replica yet that has the snapshot", "do not use it"]);
    // Neither it nor another that waits for it keeps what is of other members from being taken away.
    let ran = trio.dr.run(&["snapshot", "create", "--set", "erp", "c", "--timeout", "1s"]);
    ran.expect(4, &["group db: has no replica yet that has the snapshot"]);
    trio.dr.ok(&["set", "create", "web", "--member", "app"]);
    trio.dr.ok(&["snapshot", "create", "--set", "web", "d"]);
    trio.dr.ok(&["snapshot", "delete", "--set", "web@d"]);
    assert_eq!(trio.snapshots().len(), 3, "they wait still");
    trio.dr.ok(&["resume", "db"]);
    until("nothing is left of them", || trio.snapshots().len() == 1);
    assert_eq!((trio.kept("app").len(), trio.kept("db").len()), (1, 1));
    trio.dr.run(&["set", "add", "erp", "web"]).expect(3, &["no group web"]);
    trio.dr.run(&["set", "add", "erp", "db"]).expect(2, &["twice"]);
    trio.dr.ok(&["set", "remove", "erp", "db"]);
    let members = trio.dr.json(&["set", "show", "erp"])["members"].clone();
    assert_eq!((members.as_array().unwrap().len(), &members[0]["peers"][0]), (1, &"app".into()));
}

/// Goal: a source that stands still while it freezes makes the snapshot fail within the limit; the
/// others go on, its guard lets its applications go on, and nothing stays.
#[test]
fn one_that_stands_still_holds_nobody_for_longer_than_the_limit() {
    let trio = Trio::new();
    trio.dr.ok(&["set", "delete", "erp"]);
    trio.dr.ok(&["set", "create", "erp", "--member", "app", "--member", "db", "--hold", "3s"]);
    trio.set_hooks(0, "echo frozen app >> LOG", "echo thawed app >> LOG", "40s");
    let slow = "echo frozen db >> LOG; until [ -e HERE/go ]; do sleep 0.01; done";
    trio.set_hooks(1, slow, "echo thawed db >> LOG", "40s");
    let has = |line: &str| trio.log().iter().any(|it| it == line);
    let since = Instant::now();
    let asked = trio.dr.begin(&["snapshot", "create", "--set", "erp", "s", "--quiesce"]);
    until("both freeze", || has("frozen app") && has("frozen db"));
    trio.sources[1].signal(Signal::SIGSTOP);
    fs::write(trio.file("go"), "").unwrap();
    until("the other goes on", || has("thawed app"));
    let ran = asked.end();
    ran.expect(4, &["no snapshot erp@s was made", "group db: ", "within the hold"]);
    // The hold, and what a failed command waits at most until all is taken back.
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    assert!(ran.err.contains("do not use it"), "{}", ran.err);
    until("the guard thaws", || has("thawed db"));
    trio.sources[0].wait("applied");
    assert_eq!(trio.kept("app"), Vec::<Value>::new());
    assert_eq!(trio.snapshots()[0]["state"], "being-taken-away");
    trio.create("s").expect(3, &["is still being taken away"]);
    trio.sources[1].signal(Signal::SIGCONT);
    trio.until_nothing_is_left();
}

/// Goal: what is made is on the coordinator: one whose replica is left behind after it was asked, while
/// another goes on, makes nothing.
#[test]
fn a_coordinator_that_is_left_behind_makes_nothing() {
    let trio = Trio::with(&["--outbox-ram", "4MiB", "--spill", "4MiB"]);
    let (far, image) = trio.another(0);
    trio.set_hooks(0, "echo frozen app >> LOG", "echo thawed app >> LOG", "40s");
    let hangs = "echo asked db >> LOG; until [ -e HERE/go ]; do sleep 0.01; done";
    trio.set_hooks(1, hangs, "echo thawed db >> LOG", "40s");
    let asked = trio.dr.begin(&["snapshot", "create", "--set", "erp", "s", "--quiesce"]);
    let said = |line: &str| trio.log().iter().any(|it| it == line);
    until("both were asked", || said("frozen app") && said("asked db"));
    trio.dr.ok(&["pause", "app"]);
    let mut nbd = Nbd::open(&trio.sources[0].nbd_socket(), "data").unwrap();
    let mut number = 0;
    until("its replica is left behind", || {
        number += 1;
        let data = noise(number, MIB);
        nbd.write(0, &data).unwrap();
        until("the other has it", || fs::read(&image).unwrap() == data);
        trio.sources[0].group()["state"] == "map"
    });
    fs::write(trio.file("go"), "").unwrap();
    asked.end().expect(1, &["group app: ", "the coordinator's own replica does not follow"]);
    assert!(said("thawed app") && said("thawed db"), "{:?}", trio.log());
    trio.dr.ok(&["resume", "app"]);
    trio.until_nothing_is_left();
    let kept = || far.json(&["snapshot", "list", "g"])["snapshots"].to_string();
    until("nothing is left there", || !kept().contains("set."));
}

/// Goal: a coordinator that dies when all markers are in, and before anything was made of them,
/// leaves nothing behind: its next life takes all of it back.
#[test]
fn a_coordinator_that_dies_leaves_nothing_half_made() {
    let mut trio = Trio::new();
    trio.set_hooks(0, "echo frozen app >> LOG", "echo thawed app >> LOG", "40s");
    // It hangs when all markers are in: the coordinator waits for it.
    let hangs = "echo thaws db >> LOG; until [ -e HERE/go ]; do sleep 0.01; done";
    trio.set_hooks(1, "echo frozen db >> LOG", hangs, "40s");
    let asked = trio.dr.begin(&["snapshot", "create", "--set", "erp", "s", "--quiesce"]);
    until("it thaws", || trio.log().iter().any(|it| it == "thaws db"));
    for (name, source) in SOURCES.iter().zip(&trio.sources) {
        source.wait("applied");
        assert_eq!(trio.kept(name).len(), 1, "the markers are in");
    }
    trio.dr.kill();
    assert_eq!(asked.end().code, 1);
    fs::write(trio.file("go"), "").unwrap();
    // Beside it is a set that nobody can read. It holds up nothing but itself.
    let damaged = trio.dr.path("sets/odd");
    fs::create_dir_all(&damaged).unwrap();
    fs::write(damaged.join("set.toml"), "name = 7").unwrap();
    trio.dr.start();
    trio.dr.run(&["set", "show", "odd"]).expect(1, &["set.toml", "name"]);
    trio.dr.run(&["set", "create", "odd", "--member", "db"]).expect(1, &["set.toml", "name"]);
    assert_eq!(trio.dr.json(&["set", "list"])["sets"][0]["name"], "erp");
    assert_eq!(trio.dr.logged("what is there of it is taken back"), 1);
    trio.until_nothing_is_left();

    // It is as if it had never been tried.
    trio.create("s").json_of_success();
    assert_eq!((trio.kept("app").len(), trio.kept("db").len()), (1, 1));
    trio.dr.kill();
    trio.dr.start();
    let made = trio.snapshots();
    assert!(made.len() == 1 && made[0]["state"] == "made", "{made:?}");
}

/// Goal: a member that dies, while it freezes or while it lets applications go on, makes the snapshot
/// fail; its guard lets its applications go on, the others go on, and nothing stays.
#[test]
fn a_member_that_dies_leaves_nothing_half_made() {
    let mut trio = Trio::new();
    trio.set_hooks(0, "echo frozen app >> LOG", "echo thawed app >> LOG", "40s");
    let slow = "echo frozen db >> LOG; until [ -e HERE/go ]; do sleep 0.01; done";
    let hangs = "echo thaws db >> LOG; until [ -e HERE/go-on ]; do sleep 0.01; done; \
                 echo thawed db >> LOG";
    trio.set_hooks(1, slow, hangs, "40s");
    for (snapshot, last) in [("a", "frozen db"), ("b", "thaws db")] {
        let count = |line: &str| trio.log().iter().filter(|it| *it == line).count();
        let (before, thawed) = (count(last), [count("thawed app"), count("thawed db")]);
        let asked = trio.dr.begin(&["snapshot", "create", "--set", "erp", snapshot, "--quiesce"]);
        until("it is that far", || count(last) > before && count("frozen app") > thawed[0]);
        trio.sources[1].kill();
        fs::write(trio.file("go-on"), "").unwrap();
        asked.end().expect(1, &["no snapshot erp@", "group db: its source is not heard of"]);
        let log = trio.log();
        let count = |line: &str| log.iter().filter(|it| *it == line).count();
        assert_eq!(count("frozen app"), count("thawed app"), "{log:?}");
        until("its guard thaws", || {
            trio.log().iter().filter(|it| *it == "thawed db").count() > thawed[1]
        });
        until("nothing is here", || trio.kept("app").is_empty() && trio.kept("db").is_empty());
        assert_eq!(trio.snapshots()[0]["state"], "being-taken-away");
        trio.restart_source(1);
        trio.sources[1].wait("in-sync");
        trio.until_nothing_is_left();
        fs::write(trio.file("go"), "").unwrap();
        fs::remove_file(trio.file("go-on")).unwrap();
    }
    fs::write(trio.file("go-on"), "").unwrap();
    trio.create("b").json_of_success();
    assert_eq!((trio.kept("app").len(), trio.kept("db").len()), (1, 1));
}

/// Goal: a set of groups whose source is this agent; its own commands freeze first and thaw last.
#[test]
fn a_set_has_commands_of_its_own_and_its_groups_may_be_here() {
    let trio = Trio::new();
    let log = trio.file("hooks.log").display().to_string();
    let [freeze, thaw] =
        ["freeze", "thaw"].map(|it| format!("echo set {it} $VGSHIP_NAME >> {log}"));
    let app = &trio.sources[0];
    let create = ["set", "create", "here", "--member", "g", "--freeze", &freeze];
    app.run(&create).expect(2, &["freeze and thaw commands come together"]);
    app.ok(&[&create[..], &["--thaw", &thaw]].concat());
    app.run(&[&create[..], &["--thaw", &thaw]].concat()).expect(3, &["a set here already"]);
    let make = ["snapshot", "create", "--set", "here", "s", "--quiesce"];
    // Its group has none; it does not need any.
    app.json(&make);
    assert_eq!(trio.log(), ["set freeze s", "set thaw s"]);
    app.ok(&["snapshot", "delete", "--set", "here@s"]);
    assert_eq!(trio.kept("app"), Vec::<Value>::new());
    app.ok(&[
        "group",
        "set",
        "g",
        "--freeze",
        &format!("echo g freeze >> {log}"),
        "--thaw",
        &format!("echo g thaw >> {log}"),
    ]);
    app.json(&make);
    assert_eq!(trio.log()[2..], ["set freeze s", "g freeze", "g thaw", "set thaw s"]);
    app.ok(&["snapshot", "pin", "--set", "here@s"]);
    assert_eq!(trio.kept("app")[0]["pinned"], true);
    app.run(&["snapshot", "delete", "--set", "here@s"]).expect(3, &["of group g is pinned"]);
    app.ok(&["snapshot", "unpin", "--set", "here@s"]);
    app.ok(&["snapshot", "delete", "--set", "here@s"]);

    // It is not gone before it is gone from the replica, whose agent lets somebody use it.
    app.json(&make);
    let from = format!("app@{}", trio.kept("app")[0]["name"].as_str().unwrap());
    trio.dr.ok(&["env", "create", "e", "--from", &from, "--nbd"]);
    let create = ["template", "create", "t", "--set", "here@s"];
    app.run(&create).expect(3, &["group g has no replica here"]);
    let delete = ["snapshot", "delete", "--set", "here@s"];
    app.run(&delete).expect(1, &["here@s is not gone everywhere yet"]);
    trio.dr.ok(&["env", "destroy", "e"]);
    until("it is gone", || app.run(&delete).code != 1);
    assert_eq!(trio.kept("app"), Vec::<Value>::new());

    // One of its commands fails: the groups' are not even begun.
    app.ok(&["set", "delete", "here"]);
    let create = ["set", "create", "here", "--member", "g", "--freeze", "echo no; exit 7"];
    app.ok(&[&create[..], &["--thaw", &thaw]].concat());
    let before = trio.log().len();
    app.run(&make).expect(1, &["the set's own commands: ", "exit status: 7: no"]);
    assert_eq!(trio.log()[before..], ["set thaw s"]);
    assert_eq!(trio.kept("app"), Vec::<Value>::new());
}
