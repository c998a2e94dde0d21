//! Drills: a failover is rehearsed on a clone while the source is written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::common::{Agent, MIB, Nbd, Pair, noise, until};
use super::environments::{environments, names_in};

fn pair() -> Pair {
    let pair = Pair::new(&[("data", 2 * MIB), ("log", MIB)], &[]);
    pair.open("data").write(0, &noise(1, 2 * MIB)).unwrap();
    pair.source.wait("applied");
    has_history(&pair);
    pair
}

/// The first snapshot comes a moment after the first sync; before it there is no point to clone.
fn has_history(pair: &Pair) {
    until("there is history", || pair.replica.json(&["history", "g"])["oldest"].is_object());
}

/// The reports that are kept, without their endings.
fn kept(agent: &Agent) -> Vec<String> {
    let names = names_in(&agent.path("groups/g/drills"));
    names.iter().filter_map(|it| it.strip_suffix(".json").map(str::to_owned)).collect()
}

/// Fails unless no clone is left, and no snapshot is held for one.
#[track_caller]
fn assert_no_clone(agent: &Agent) {
    assert_eq!(environments(agent).len(), 0);
    assert_eq!(names_in(&agent.path("environments")), Vec::<String>::new());
    let all = agent.json(&["snapshot", "list", "g"]);
    for snapshot in all["snapshots"].as_array().unwrap() {
        assert_eq!(snapshot["users"], serde_json::json!([]), "{snapshot}");
    }
}

fn steps(report: &Value) -> Vec<&str> {
    report["steps"].as_array().unwrap().iter().map(|it| it["what"].as_str().unwrap()).collect()
}

/// Goal: a check runs on a clone of what the replica holds while writes go on; the stream is not
/// disturbed, and what is left is a report that is believed and can be altered by nobody.
#[test]
fn a_check_passes_while_writes_go_on_and_the_report_is_believed() {
    let pair = pair();
    let stop = AtomicBool::new(false);
    let seen = pair.place.path().join("seen");
    let check = format!(
        "echo hello; test -S \"$VGSHIP_NBD_SOCKET\" && printf '%s\\n' \"$VGSHIP_EXPORTS\" \
         \"$VGSHIP_VOLUMES\" \"$VGSHIP_ENV\" \"$VGSHIP_POINT\" >{}",
        seen.display()
    );
    let copies = pair.place.path().join("evidence");
    let out = std::thread::scope(|scope| {
        let (mut log, stop) = (pair.open("log"), &stop);
        scope.spawn(move || {
            let mut round = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                round += 1;
                log.write(round % 200 * 4096, &noise(round, 4096)).unwrap();
            }
        });
        let ran = pair.replica.run(&[
            "drill",
            "g",
            "--check",
            &check,
            "--report",
            copies.to_str().unwrap(),
        ]);
        let state = pair.source.group();
        stop.store(true, Ordering::SeqCst);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert_eq!(state["peers"][0]["connected"], true, "{state}");
        assert!(["in-sync", "streaming"].contains(&state["state"].as_str().unwrap()), "{state}");
        ran.out
    });
    let lines: Vec<&str> = out.lines().collect();
    for (line, what) in lines.iter().zip([
        " 1  find the point",
        " 2  make a clone of it",
        " 3  hash the clone",
        " 4  run the check",
        " 5  remove the clone",
        " 6  sign and keep the report",
        "drill of g: passed, time to recover ",
    ]) {
        assert!(line.starts_with(what), "{line}");
    }
    pair.source.wait("in-sync");
    pair.assert_follows();
    assert_no_clone(&pair.replica);
    let seen = std::fs::read_to_string(seen).unwrap();
    let env = seen.lines().find(|it| it.starts_with("drill-")).unwrap();
    assert!(seen.contains(&format!("data env/{env}/g/data\nlog env/{env}/g/log\n")), "{seen}");
    assert!(seen.contains(&format!("g data env/{env}/g/data\n")), "{seen}");

    let (json, sig) = (copies.with_extension("json"), copies.with_extension("json.sig"));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&report["result"], &report["check"]["exit"]), (&"passed".into(), &0.into()));
    assert_eq!(report["check"]["output"], "hello", "{report}");
    let data = blake3_of(&noise(1, 2 * MIB));
    assert_eq!(report["volumes"][0]["blake3"], data, "{report}");
    assert_eq!(report["point"]["generation"], pair.source.group()["generation"], "{report}");
    assert!(seen.contains(&format!("g@seq:{}", report["point"]["at"].as_str().unwrap())));
    let recovery: f64 = report["steps"].as_array().unwrap().iter().fold(0.0, |sum, it| {
        sum + it["seconds"].as_f64().filter(|_| it["recovery"] == true).unwrap_or(0.0)
    });
    assert!((recovery - report["rto_seconds"].as_f64().unwrap()).abs() < 1e-6, "{report}");
    let page = std::fs::read_to_string(copies.with_extension("html")).unwrap();
    assert!(page.contains("Drill of g") && page.contains(&data), "{page}");

    // Both sides know the key; nobody else is taken at its word.
    let file = json.to_str().unwrap();
    let key = report["agent"]["key"].as_str().unwrap();
    assert_eq!(key, pair.replica.json(&["status"])["agent"]["peer_id"].as_str().unwrap());
    assert!(pair.replica.ok(&["drill", "verify", file]).contains("this home's agent"));
    assert!(pair.source.ok(&["drill", "verify", file]).contains("the peer replica"));
    let stranger = Agent::init(pair.place.path(), "stranger");
    stranger.run(&["drill", "verify", file]).expect(3, &["not known here", key]);
    stranger.ok(&["drill", "verify", file, "--key", key]);
    let other = "0".repeat(64);
    stranger.run(&["drill", "verify", file, "--key", &other]).expect(3, &["another key", key]);
    verified_by_openssl(pair.place.path(), &json, &sig);

    let page = copies.with_extension("html");
    std::fs::copy(&sig, page.with_extension("html.sig")).unwrap();
    pair.replica
        .run(&["drill", "verify", page.to_str().unwrap()])
        .expect(1, &["no report of a drill", "not its page"]);
    let text = std::fs::read_to_string(&json).unwrap();
    std::fs::write(&json, text.replace("\"seconds\": 0", "\"seconds\": 1")).unwrap();
    pair.replica.run(&["drill", "verify", file]).expect(1, &["altered"]);

    let all = pair.replica.json(&["drill", "list", "g"]);
    let row = &all["drills"][0];
    assert_eq!((&row["time"], &row["result"]), (&report["started"], &"passed".into()), "{all}");
    assert_eq!((&row["at"], &row["rto_seconds"]), (&report["point"]["at"], &report["rto_seconds"]));
    pair.replica.ok(&["drill", "verify", row["path"].as_str().unwrap()]);
    let status = pair.replica.group();
    assert_eq!(status["last_drill"]["passed"], true, "{status}");
    assert_eq!(status["drill_overdue"], false, "{status}");
    // The record is one like that of a switchover.
    let records = names_in(&pair.replica.path("groups/g/procedures"));
    assert!(records.iter().any(|it| it.ends_with("-drill.md")), "{records:?}");
}

fn blake3_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Goal: nobody needs this program to check a signature.
fn verified_by_openssl(place: &Path, json: &Path, sig: &Path) {
    let is_there = Command::new("openssl").arg("version").output();
    if !is_there.is_ok_and(|it| it.status.success()) {
        return eprintln!("skipped: no openssl here");
    }
    let seal: Value = serde_json::from_slice(&std::fs::read(sig).unwrap()).unwrap();
    let bytes = |field: &str| -> Vec<u8> {
        let digits = seal[field].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    };
    let (key, signature) = (place.join("key.der"), place.join("signature.der"));
    std::fs::write(&key, bytes("public_key")).unwrap();
    std::fs::write(&signature, bytes("signature")).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-keyform", "DER", "-verify"]).arg(key);
    let told = openssl.arg("-signature").arg(signature).arg(json).output().unwrap();
    assert!(told.status.success(), "{told:?}");
}

/// Goal: a drill that does not pass says so by its end, keeps its report and leaves nothing else.
#[test]
fn what_does_not_pass_is_kept_as_such_and_leaves_no_clone() {
    let pair = pair();
    pair.source.ok(&["snapshot", "create", "g", "s"]);
    pair.source.wait("applied");
    pair.source.run(&["drill", "g", "--check", "true"]).expect(3, &["replica", "run it there"]);
    let replica = &pair.replica;
    replica.run(&["drill", "g"]).expect(2, &["--check"]);
    replica
        .run(&["drill", "g", "--check", "echo the database is broken; exit 7"])
        .expect(1, &["exit status: 7", "the database is broken"]);
    assert_no_clone(replica);
    let status = replica.group();
    assert_eq!(status["last_drill"]["passed"], false, "{status}");

    // What it had started goes with it.
    let check = "sleep 600 & echo starting; sleep 600";
    let ran = replica.run(&["drill", "g", "--check", check, "--timeout", "1s", "--json"]);
    ran.expect(4, &["killed after 1.0 s", "starting"]);
    let done = ran.json();
    assert_eq!(done["report"]["result"], "timed-out", "{done}");
    assert_eq!(done["report"]["rto_seconds"], Value::Null, "{done}");
    assert_no_clone(replica);

    replica.run(&["drill", "g", "--check", "true", "--at", "no-such"]).expect(3, &["no-such"]);
    // At a snapshot; without hashes, and the report says so.
    pair.open("data").write(0, &noise(2, MIB)).unwrap();
    pair.source.wait("applied");
    let drill = ["drill", "g", "--check", "test -n \"$VGSHIP_EXPORTS\"", "--at", "s"];
    let done = replica.json(&drill);
    let report = &done["report"];
    assert_eq!(report["volumes"][0]["blake3"], blake3_of(&noise(1, 2 * MIB)), "{report}");
    assert_eq!(report["point"]["asked"], "s", "{report}");
    assert!(report["point"]["behind_records"].as_u64().unwrap() > 0, "{report}");
    let done = replica.json(&[&drill[..], &["--no-hash"]].concat());
    let report = &done["report"];
    assert_eq!((&report["hashed"], &report["volumes"][0]["blake3"]), (&false.into(), &Value::Null));
    assert!(!steps(report).contains(&"hash the clone"), "{report}");

    let all = replica.json(&["drill", "list", "g"]);
    let results: Vec<&str> =
        all["drills"].as_array().unwrap().iter().map(|it| it["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["failed", "timed-out", "failed", "passed", "passed"]);
    assert_eq!(kept(replica).len(), 5);
    for name in kept(replica) {
        let path = replica.path(&format!("groups/g/drills/{name}.json"));
        replica.ok(&["drill", "verify", path.to_str().unwrap()]);
    }
    assert!(replica.ok(&["drill", "list", "g"]).contains("timed-out"));
}

/// Goal: an agent that dies during a check leaves no environment: the next start removes it.
#[test]
fn an_agent_that_is_killed_during_a_check_leaves_no_environment() {
    let mut pair = pair();
    let pid = pair.place.path().join("pid");
    let check = format!("echo $$ >{0}.new && mv {0}.new {0}; sleep 600", pid.display());
    let begun = pair.replica.begin(&["drill", "g", "--check", &check]);
    until("the check runs", || pid.exists());
    let shown = environments(&pair.replica);
    assert_eq!((shown.len(), &shown[0]["state"]), (1, &"ready".into()), "{shown:?}");
    let name = shown[0]["name"].as_str().unwrap();
    pair.replica.run(&["env", "extend", name, "--lease", "1h"]).expect(3, &["of a drill"]);
    pair.replica
        .run(&["drill", "g", "--check", "true"])
        .expect(3, &["a drill of group g is under way"]);
    assert_eq!(names_in(&pair.replica.path("environments")), [name]);
    pair.replica.kill();
    assert_ne!(begun.end().code, 0);
    // What it had started is nobody's any more.
    let check = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let group = nix::unistd::Pid::from_raw(check);
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(names_in(&pair.replica.path("environments")), [name]);
    pair.replica.start();
    assert_no_clone(&pair.replica);
    assert_eq!(kept(&pair.replica).len(), 0);
    pair.source.wait("in-sync");
    pair.replica.ok(&["drill", "g", "--check", "true"]);
    assert_no_clone(&pair.replica);
}

/// Goal: when no drill has passed for longer than wished it is said, and a good drill ends that.
#[test]
fn an_overdue_drill_is_seen_and_said() {
    let mut pair = pair();
    let replica = &pair.replica;
    let overdue = |agent: &Agent, is: bool| {
        agent.until("as it should be", |group| group["drill_overdue"] == is);
    };
    overdue(replica, false);
    replica.run(&["group", "set", "g", "--drill-every", "10ms"]).expect(2, &["drill-every"]);
    replica.ok(&["group", "set", "g", "--drill-every", "1s"]);
    overdue(replica, true);
    until("it is said", || replica.logged("ALERT: no drill has passed") == 1);
    assert!(replica.ok(&["status"]).contains("drill: OVERDUE"));
    replica.run(&["drill", "g", "--check", "false"]).expect(1, &["exit status: 1"]);
    overdue(replica, true);
    assert!(replica.ok(&["status"]).contains("DID NOT PASS"));
    replica.ok(&["group", "set", "g", "--drill-every", "30d"]);
    overdue(replica, false);
    replica.ok(&["drill", "g", "--check", "true"]);
    overdue(replica, false);
    replica.ok(&["group", "set", "g", "--drill-every", "1s"]);
    overdue(replica, true);
    replica.ok(&["group", "set", "g", "--drill-every", "none"]);
    overdue(replica, false);
    // A start forgets none of it.
    pair.replica.kill();
    pair.replica.start();
    let status = pair.replica.group();
    assert_eq!(status["last_drill"]["passed"], true, "{status}");
    pair.replica.ok(&["group", "set", "g", "--drill-every", "1s"]);
    overdue(&pair.replica, true);
}

/// Copies `env/.../data` of a drill into a file with a client that any system has.
const FETCH: &str = r#"#!/bin/sh
set -e
export=$(printf '%s\n' "$VGSHIP_EXPORTS" | sed -n 's/^data //p')
nbdcopy "nbd+unix:///$export?socket=$VGSHIP_NBD_SOCKET" "$1"
"#;

/// Goal: what a drill is for: fsck finds a file system on the clone that is whole, and one that is not.
#[test]
fn e2fsck_judges_a_file_system_on_the_clone() {
    for program in ["mkfs.ext4", "e2fsck", "nbdcopy"] {
        if Command::new(program)
            .arg(if program == "nbdcopy" { "--version" } else { "-V" })
            .output()
            .is_err()
        {
            return eprintln!("skipped: no {program} here");
        }
    }
    let pair = Pair::new(&[("data", 16 * MIB)], &[]);
    let (image, fetch) = (pair.place.path().join("fs"), pair.place.path().join("fetch"));
    std::fs::write(&fetch, FETCH).unwrap();
    std::fs::set_permissions(&fetch, std::fs::Permissions::from_mode(0o755)).unwrap();
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).arg("16M").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let content = std::fs::read(&image).unwrap();
    let mut data: Nbd = pair.open("data");
    for (at, piece) in content.chunks(1 << 20).enumerate() {
        data.write(at as u64 * MIB, piece).unwrap();
    }
    pair.source.wait("applied");
    has_history(&pair);
    let check = format!(
        "{} {1} && e2fsck -fn {1}",
        fetch.display(),
        pair.place.path().join("fetched").display()
    );
    let done = pair.replica.json(&["drill", "g", "--check", &check]);
    assert_eq!(done["report"]["volumes"][0]["blake3"], blake3_of(&content), "{done}");
    let said = done["report"]["check"]["output"].as_str().unwrap();
    assert!(said.contains("Pass 5"), "{said}");
    // The inode table of the first group is gone.
    data.write(8192, &vec![0xff; 64 << 10]).unwrap();
    pair.source.wait("applied");
    let ran = pair.replica.run(&["drill", "g", "--check", &check]);
    ran.expect(1, &["the check ended with exit status"]);
}
