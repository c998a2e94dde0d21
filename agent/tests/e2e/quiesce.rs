//! Quiesced snapshots with real agents and hooks that leave traces.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::{MIB, Nbd, Pair, noise, until};

/// Gives the group hooks. In them `LOG` is a file, `HERE` the folder of all files.
fn set_hooks(pair: &Pair, freeze: &str, thaw: &str, hold: &str) {
    let here = pair.place.path().display().to_string();
    let [freeze, thaw] = [freeze, thaw]
        .map(|it| it.replace("LOG", &format!("{here}/hooks.log")).replace("HERE", &here));
    pair.source.ok(&["group", "set", "g", "--freeze", &freeze, "--thaw", &thaw, "--hold", hold]);
}

fn log_of(pair: &Pair) -> Vec<String> {
    let text = fs::read_to_string(pair.place.path().join("hooks.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn snapshot(pair: &Pair, name: &str) -> Option<Value> {
    let all = pair.replica.json(&["snapshot", "list", "g"]);
    all["snapshots"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned()
}

const CREATE: [&str; 5] = ["snapshot", "create", "g", "s", "--quiesce"];

/// Writes until it is told to end, except while a file `stop` is there; then there is one `stopped`.
fn write_on(mut nbd: Nbd, here: &Path, ends: &AtomicBool) {
    let (stop, stopped) = (here.join("stop"), here.join("stopped"));
    let mut turn = 0;
    while !ends.load(Ordering::SeqCst) {
        turn += 1;
        nbd.write(turn % 16 * (MIB / 4), &noise(turn, MIB / 4)).unwrap();
        if stop.exists() {
            fs::write(&stopped, "").unwrap();
            until("it may go on", || !stop.exists());
            fs::remove_file(&stopped).unwrap();
        }
    }
}

/// Goal: the snapshot is what the frozen application left behind, to the byte, and it says so.
#[test]
fn a_snapshot_is_taken_while_applications_are_frozen() {
    let pair = Pair::new(&[("data", 4 * MIB)], &[]);
    pair.source.run(&CREATE).expect(3, &["no freeze command", "--freeze COMMAND"]);
    let (image, copy) = (pair.source_image("data"), pair.place.path().join("as-frozen"));
    let freeze = format!(
        "touch HERE/stop; while [ ! -e HERE/stopped ]; do sleep 0.01; done; cp {} {}; \
         echo freeze $VGSHIP_GROUP $VGSHIP_NAME $VGSHIP_HOLD $(date +%s%N) >> LOG",
        image.display(),
        copy.display()
    );
    let thaw = "echo thaw $VGSHIP_GROUP $VGSHIP_NAME $(date +%s%N) >> LOG; rm -f HERE/stop";
    set_hooks(&pair, &freeze, thaw, "50s");
    let ends = Arc::new(AtomicBool::new(false));
    let (nbd, here) = (pair.open("data"), pair.place.path().to_owned());
    let told = Arc::clone(&ends);
    let application = thread::spawn(move || write_on(nbd, &here, &told));
    let made = pair.source.json(&CREATE);
    ends.store(true, Ordering::SeqCst);
    application.join().unwrap();
    assert_eq!(made["quiesced"], true, "{made}");
    assert!(made["held_ms"].as_u64().unwrap() < 50_000, "{made}");
    let log = log_of(&pair);
    assert!(log[0].starts_with("freeze g s 50 ") && log[1].starts_with("thaw g s "), "{log:?}");
    let time = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(log.len() == 2 && time(&log[0]) < time(&log[1]), "{log:?}");

    assert_eq!(snapshot(&pair, "s").unwrap()["quiesced"], true);
    let to = pair.replica.path("out");
    pair.replica.ok(&["snapshot", "export", "g@s", "--to", to.to_str().unwrap()]);
    assert!(fs::read(to.join("data")).unwrap() == fs::read(copy).unwrap());
}

#[test]
fn what_cannot_be_quiesced_is_refused() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    let set = ["group", "set", "g", "--freeze", "echo f >> LOG"];
    pair.source.run(&set).expect(2, &["--thaw", "freeze command needs one"]);
    pair.replica.run(&set).expect(3, &["replica here"]);
    set_hooks(&pair, "echo f >> LOG", "echo t >> LOG", "5s");
    pair.replica.run(&CREATE).expect(3, &["replica here", "quiesce there"]);
    pair.replica.run(&["marker", "g", "m", "--quiesce"]).expect(3, &["replica here"]);
    pair.source.run(&["marker", "g", "m", "--quiesce", "--quiesced"]).expect(2, &[]);
    assert!(log_of(&pair).is_empty());

    let marked = pair.source.json(&["marker", "g", "m", "--quiesce"]);
    assert_eq!((&marked["quiesced"], marked["held_ms"].is_u64()), (&Value::Bool(true), true));
    assert_eq!(log_of(&pair), ["f", "t"]);
    let marked = pair.source.json(&["marker", "g", "n", "--quiesced"]);
    assert_eq!((&marked["quiesced"], &marked["held_ms"]), (&Value::Bool(true), &Value::Null));
    let plain = pair.source.json(&["snapshot", "create", "g", "plain"]);
    assert_eq!((&plain["quiesced"], &plain["held_ms"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(log_of(&pair).len(), 2);

    // Nobody who could follow: nothing is frozen for it.
    pair.source.ok(&["group", "set", "g", "--freeze", ""]);
    pair.source.run(&CREATE).expect(3, &["no freeze command"]);
}

#[test]
fn a_freeze_that_fails_leaves_nothing_behind() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    set_hooks(&pair, "echo f >> LOG; echo the disk is busy; exit 5", "echo t >> LOG", "50s");
    pair.source.run(&CREATE).expect(1, &["exit status: 5: the disk is busy", "applications go on"]);
    assert_eq!(log_of(&pair), ["f", "t"]);
    set_hooks(&pair, "echo slow >> LOG; sleep 50; echo late >> LOG", "echo t >> LOG", "500ms");
    pair.source.run(&CREATE).expect(1, &["not done after 500 ms", "--hold"]);
    // On a busy machine the guard may thaw as well.
    let mut log = log_of(&pair);
    log.dedup();
    assert_eq!(log, ["f", "t", "slow", "t"]);
    pair.source.wait("applied");
    assert_eq!(snapshot(&pair, "s"), None);
    assert_eq!(pair.source.logged("ALERT"), 0);
}

/// Goal: a snapshot of which the thaw says that it was not frozen to the end is not kept, and an
/// older one that has its name is.
#[test]
fn what_was_not_frozen_to_the_end_is_taken_back() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    set_hooks(&pair, "echo f >> LOG", "echo somebody thawed it; exit 3", "50s");
    let said = ["not frozen any more", "somebody thawed it", "s was taken back"];
    pair.source.run(&CREATE).expect(1, &said);
    assert_eq!(snapshot(&pair, "s"), None);
    assert_eq!(pair.replica.logged("taken back"), 1);

    let older = pair.source.json(&["snapshot", "create", "g", "s"]);
    pair.source.run(&CREATE).expect(1, &said);
    let found = snapshot(&pair, "s").unwrap();
    assert_eq!((&found["seq"], &found["quiesced"]), (&older["seq"], &Value::Bool(false)));
}

/// Goal: that applications may still be frozen is said to the caller and in the log, with what to
/// type.
#[test]
fn a_thaw_that_fails_for_good_is_said_loudly() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    set_hooks(&pair, "echo f >> LOG", "echo t >> LOG; echo stuck; exit 1", "50s");
    let said = ["APPLICATIONS MAY STILL BE FROZEN", "stuck", "thaw them by hand", "echo t >>"];
    pair.source.run(&CREATE).expect(1, &said);
    assert_eq!(log_of(&pair).iter().filter(|it| *it == "t").count(), 6);
    assert_eq!(pair.source.logged("ALERT"), 1);
    pair.source.wait("applied");
    assert_eq!(snapshot(&pair, "s"), None);
}

fn has(pair: &Pair, line: &str) -> bool {
    log_of(pair).iter().any(|it| it == line)
}

/// Goal: applications are thawed when the agent dies, at whatever moment of the hold.
#[test]
fn an_agent_that_dies_leaves_nothing_frozen() {
    let mut pair = Pair::new(&[("data", MIB)], &[]);
    // The freeze is at work: it is ended, so that it does not freeze what was thawed.
    let slow = "echo frozen >> LOG; sleep 50; echo late >> LOG";
    set_hooks(&pair, slow, "echo thawed >> LOG", "10m");
    let asked = pair.source.begin(&CREATE);
    until("it freezes", || has(&pair, "frozen"));
    pair.source.kill();
    until("the guard thaws", || has(&pair, "thawed"));
    assert_eq!(asked.end().code, 1);
    assert_eq!(log_of(&pair), ["frozen", "thawed"]);

    // It is frozen, and the agent's own thaw hangs.
    pair.restart_source();
    pair.source.wait("in-sync");
    let thaw = "[ -e HERE/hung ] || { touch HERE/hung; exec sleep 50; }; echo thawed again >> LOG";
    set_hooks(&pair, "echo frozen >> LOG", thaw, "10m");
    let asked = pair.source.begin(&CREATE);
    let hung = pair.place.path().join("hung");
    until("the agent thaws", || hung.exists());
    pair.source.kill();
    until("the guard thaws", || has(&pair, "thawed again"));
    assert_eq!(asked.end().code, 1);
}

/// Goal: an agent that stands still does not hold applications for longer than the hold, and what it
/// then does is no quiesced snapshot.
#[test]
fn an_agent_that_stands_still_holds_nobody() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    let freeze = "echo frozen >> LOG; until [ -e HERE/stands ]; do sleep 0.01; done";
    set_hooks(&pair, freeze, "echo thawed >> LOG", "2s");
    let asked = pair.source.begin(&CREATE);
    until("it freezes", || has(&pair, "frozen"));
    pair.source.signal(Signal::SIGSTOP);
    fs::write(pair.place.path().join("stands"), "").unwrap();
    until("the guard thaws", || has(&pair, "thawed"));
    pair.source.signal(Signal::SIGCONT);
    asked.end().expect(1, &["not done after 2 s"]);
    pair.source.wait("applied");
    assert_eq!(snapshot(&pair, "s"), None);
}
