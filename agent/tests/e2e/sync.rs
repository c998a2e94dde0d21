//! Sync mode with real agents: what was acknowledged while it was in force survives the loss of the
//! source; a link that is gone degrades or stalls, and all comes back by itself.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::common::{MIB, Pair, noise, until};

const BLOCK: u64 = 4096;

fn in_force(group: &Value) -> bool {
    group["sync"]["state"] == "in-force"
}

fn sync_pair(args: &[&str]) -> Pair {
    let pair = Pair::new(&[("data", 16 * MIB)], &[&["--mode", "sync"], args].concat());
    let group = pair.source.until("in force", in_force);
    assert_eq!((&group["mode"], &group["peers"][0]["sync"]), (&"sync".into(), &"in-force".into()));
    assert_eq!(group["rpo"]["seconds"], 0.0, "{group}");
    pair
}

/// Goal: no acknowledged write is lost with the source.
/// Method: a client writes block after block; in the middle of it the source is killed; what the
/// replica alone then recovers must hold every block whose write had returned.
#[test]
fn what_was_acknowledged_survives_the_loss_of_the_source() {
    let mut pair = sync_pair(&[]);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (mut nbd, count) = (pair.open("data"), Arc::clone(&acknowledged));
    let writer = std::thread::spawn(move || {
        for block in 0..16 * MIB / BLOCK {
            if nbd.write(block * BLOCK, &noise(block + 1, BLOCK)).is_err() {
                return;
            }
            count.store(block + 1, Ordering::SeqCst);
        }
    });
    until("some writes are acknowledged", || acknowledged.load(Ordering::SeqCst) >= 300);
    pair.source.kill();
    writer.join().unwrap();
    pair.replica.kill();
    pair.replica.start();
    pair.replica.stop();
    let image = File::open(pair.replica_image("data")).unwrap();
    let mut found = vec![0; usize::try_from(BLOCK).unwrap()];
    for block in 0..acknowledged.load(Ordering::SeqCst) {
        image.read_exact_at(&mut found, block * BLOCK).unwrap();
        assert_eq!(found, noise(block + 1, BLOCK), "block {block} was acknowledged and is lost");
    }
}

#[test]
fn a_link_that_is_gone_degrades_and_comes_back_by_itself() {
    let pair = sync_pair(&["--sync-timeout", "300ms"]);
    pair.relay.cut();
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, MIB)).unwrap();
    let group = pair.source.until("degraded", |group| group["sync"]["state"] == "degraded");
    assert!(group["sync"]["reason"].is_string() && group["sync"]["since"].is_string(), "{group}");
    assert!(pair.source.logged("ALERT: sync is no longer in force") >= 1);
    nbd.write(MIB, &noise(2, MIB)).unwrap();
    pair.relay.restore();
    pair.source.until("in force again", in_force);
    nbd.write(2 * MIB, &noise(3, MIB)).unwrap();
    pair.assert_follows();
}

#[test]
fn with_stall_nothing_is_acknowledged_that_the_replica_does_not_hold() {
    let pair = sync_pair(&["--sync-timeout", "300ms", "--on-sync-timeout", "stall"]);
    pair.relay.cut();
    let done = Arc::new(AtomicU64::new(0));
    let (mut nbd, count) = (pair.open("data"), Arc::clone(&done));
    let writer = std::thread::spawn(move || {
        nbd.write(0, &noise(1, MIB)).unwrap();
        count.store(1, Ordering::SeqCst);
    });
    let group = pair.source.until("stalled", |group| {
        group["sync"]["state"] == "stalled" && group["sync"]["waiting_seconds"].as_f64() > Some(0.5)
    });
    assert_eq!(done.load(Ordering::SeqCst), 0, "acknowledged without the replica: {group}");
    pair.relay.restore();
    writer.join().unwrap();
    pair.source.until("in force again", in_force);
    pair.assert_follows();
}

#[test]
fn an_agent_that_stops_acknowledges_no_write_that_still_waits() {
    let mut pair = sync_pair(&["--sync-timeout", "300ms", "--on-sync-timeout", "stall"]);
    pair.relay.cut();
    let mut nbd = pair.open("data");
    let writer = std::thread::spawn(move || nbd.write(0, &noise(1, MIB)));
    pair.source
        .until("a write waits", |group| group["sync"]["waiting_seconds"].as_f64() > Some(0.0));
    pair.source.stop();
    assert!(writer.join().unwrap().is_err(), "a write that no replica holds was acknowledged");
}

#[test]
fn settings_change_while_the_group_runs() {
    let pair = Pair::new(&[("data", 4 * MIB)], &[]);
    assert_eq!(pair.source.group()["sync"], Value::Null);
    let set = |args: &[&str]| pair.source.json(&[&["group", "set", "g"], args].concat());
    set(&["--mode", "sync", "--sync-timeout", "2s"]);
    let group = pair.source.until("in force", in_force);
    assert_eq!(group["sync"]["timeout_seconds"], 2.0);
    set(&["--replica", "replica", "--mode", "async"]);
    pair.source.until("async", |group| group["peers"][0]["sync"] == "off");
    set(&["--mode", "async", "--max-lag", "30s", "--on-lag", "slow", "--self-check", "0"]);
    assert_eq!(pair.source.group()["sync"], Value::Null);
    pair.source.run(&["group", "set", "g"]).expect(2, &["nothing is to be changed"]);
    let wrong = pair.source.run(&["group", "set", "g", "--max-lag", "1ms"]);
    wrong.expect(2, &["--max-lag", "500 ms"]);
    let far = pair.source.run(&["group", "set", "g", "--replica", "nobody", "--mode", "sync"]);
    far.expect(3, &["no replica nobody"]);
    pair.replica.run(&["group", "set", "g", "--mode", "sync"]).expect(3, &["is a replica here"]);
}

/// Goal: somebody who writes into a replica's volume is found out, and it is healed.
#[test]
fn the_self_check_finds_and_heals_what_went_past_the_agent() {
    let pair = Pair::new(&[("data", 4 * MIB)], &["--self-check", "64MiB"]);
    pair.open("data").write(0, &noise(1, 4 * MIB)).unwrap();
    pair.assert_follows();
    let compared = |group: &Value| group["self_check"]["rounds"].as_u64() >= Some(1);
    let group = pair.source.until("compared once", compared);
    assert_eq!(group["self_check"]["mismatches"], 0, "a false alarm: {group}");
    let image = File::options().write(true).open(pair.replica_image("data")).unwrap();
    image.write_all_at(b"somebody was here", MIB + 70_000).unwrap();
    let found = |group: &Value| group["self_check"]["mismatches"].as_u64() >= Some(1);
    let group = pair.source.until("found out", found);
    let last = &group["self_check"]["last"];
    assert_eq!((&last["volume"], last["offset"].as_u64()), (&"data".into(), Some(MIB + 65_536)));
    assert!(pair.source.logged("ALERT: the self-check found") >= 1);
    pair.source.until("healed", |group| group["state"] == "in-sync" && group["dirty_bytes"] == 0);
    pair.assert_follows();
    assert_eq!(pair.source.group()["self_check"]["mismatches"], 1, "one extent differed");
}
