//! A link that is gone while the application writes: within the outbox, beyond it, and with an
//! outbox that makes writers wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::common::{MIB, Pair, noise, until};

/// Writes noise from a volume's start on, a quarter of a MiB at a time.
fn write(pair: &Pair, from: u64, mib: u64) {
    let mut nbd = pair.open("data");
    for at in (from * MIB..(from + mib) * MIB).step_by(256 << 10) {
        nbd.write(at, &noise(at + 1, 256 << 10)).unwrap();
    }
}

fn is_disconnected(group: &Value) -> bool {
    group["peers"][0]["connected"] == false
}

/// How often the source found that a replica has to be compared with it.
fn resyncs(pair: &Pair) -> usize {
    pair.source.logged("verdict=Resync") + pair.source.logged("verdict=Full")
}

#[test]
fn what_the_outbox_holds_is_sent_later_without_a_resync() {
    let sizes = ["--outbox-ram", "4MiB", "--spill", "64MiB"];
    let pair = Pair::new(&[("data", 32 * MIB)], &sizes);
    assert_eq!(resyncs(&pair), 1, "the initial one");
    pair.relay.cut();
    write(&pair, 0, 16);
    let spilled = |group: &Value| group["outbox"]["spill_bytes"].as_u64() > Some(8 * MIB);
    let held = pair.source.until("spilling", spilled);
    assert!(held["outbox"]["ram_bytes"].as_u64() <= Some(4 * MIB), "{held}");
    let gone = pair.source.until("disconnected", is_disconnected);
    assert_eq!(gone["state"], "disconnected");
    assert!(gone["lag"]["bytes"].as_u64() >= Some(16 * MIB), "{gone}");
    write(&pair, 16, 4);
    pair.relay.restore();
    pair.assert_follows();
    assert_eq!(resyncs(&pair), 1, "a link flap is no resync");
    let after = pair.source.until("in sync", |group| group["state"] == "in-sync");
    assert_eq!(after["outbox"]["spill_bytes"], 0);
    assert_eq!(after["dirty_bytes"], 0);
}

#[test]
fn more_than_the_outbox_holds_goes_to_the_map_and_the_application_goes_on() {
    let sizes = ["--outbox-ram", "4MiB", "--spill", "4MiB"];
    let pair = Pair::new(&[("data", 64 * MIB)], &sizes);
    pair.relay.cut();
    // A link that seems to stand would begin the resync at once.
    pair.source.until("disconnected", is_disconnected);
    write(&pair, 0, 32); // returns, so no write has waited for the link
    let map = pair.source.until("on the map", |group| group["state"] == "map");
    assert!(map["reason"].as_str().unwrap().contains("outbox"), "{map}");
    assert!(map["dirty_bytes"].as_u64() >= Some(32 * MIB), "{map}");
    assert!(map["dirty_bytes"].as_u64() <= Some(33 * MIB), "{map}");
    pair.relay.restore();
    pair.source.wait("in-sync");
    pair.assert_follows();
    assert_eq!(resyncs(&pair), 2, "the initial one and this");
}

#[test]
fn with_stall_writers_wait_for_the_link_and_nothing_is_resynced() {
    let sizes = ["--outbox-ram", "4MiB", "--spill", "0", "--on-overflow", "stall"];
    let pair = Pair::new(&[("data", 32 * MIB)], &sizes);
    pair.relay.cut();
    let written = Arc::new(AtomicU64::new(0));
    let (mut nbd, count) = (pair.open("data"), Arc::clone(&written));
    let writer = std::thread::spawn(move || {
        for at in (0..24 * MIB).step_by(65536) {
            nbd.write(at, &noise(at + 7, 65536)).unwrap();
            count.fetch_add(65536, Ordering::SeqCst);
        }
    });
    until("the outbox is nearly full", || written.load(Ordering::SeqCst) >= 3 * MIB);
    pair.source.until("disconnected", is_disconnected);
    assert!(written.load(Ordering::SeqCst) <= 4 * MIB, "writers wait while there is no room");
    pair.relay.restore();
    writer.join().unwrap();
    pair.assert_follows();
    assert_eq!(resyncs(&pair), 1, "the initial one");
}
