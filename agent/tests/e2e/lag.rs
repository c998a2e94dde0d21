//! Bounded lag with real agents: writers are slowed smoothly for a replica that does not keep up,
//! and run on when it does; nobody is slowed where that was not chosen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::{MIB, Pair, noise, until};

const STEP: u64 = 64 << 10;

/// Writes over a volume again and again until told to stop; says how many bytes.
fn write_on(pair: &Pair, done: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let (mut nbd, done) = (pair.open("data"), Arc::clone(done));
    std::thread::spawn(move || {
        let mut written = 0;
        while !done.load(Ordering::SeqCst) {
            nbd.write(written % (16 * MIB), &noise(written + 1, STEP)).unwrap();
            written += STEP;
        }
        written
    })
}

fn pair(on_lag: &str) -> Pair {
    let args = ["--max-lag", "1MiB", "--on-lag", on_lag, "--outbox-ram", "512MiB"];
    let pair = Pair::new(&[("data", 16 * MIB)], &args);
    pair.source.until("in sync", |group| group["state"] == "in-sync");
    pair
}

/// Waits until it is so far behind; by how many bytes it is then.
fn behind_by(pair: &Pair, seconds: f64) -> u64 {
    let group = pair.source.until("far behind", |group: &Value| {
        group["lag"]["exceeded"] == true && group["lag"]["seconds"].as_f64() > Some(seconds)
    });
    assert_eq!(group["lag"]["slowed"], true, "{group}");
    group["lag"]["bytes"].as_u64().unwrap()
}

/// Method: the replica's program is stopped for some seconds, within which its link still stands.
/// By the third the source knows that it takes nothing: from then on an application gets little
/// more than the least that it is always given, 64 KiB a second.
#[test]
fn writers_are_slowed_beyond_max_lag_and_go_on() {
    let pair = pair("slow");
    let done = Arc::new(AtomicBool::new(false));
    let writer = write_on(&pair, &done);
    pair.replica.signal(Signal::SIGSTOP);
    let (before, after) = (behind_by(&pair, 3.0), behind_by(&pair, 5.0));
    assert!(after.saturating_sub(before) < 4 * MIB, "from {before} to {after} in two seconds");
    until("it is said", || pair.source.logged("ALERT: the replica is further behind") >= 1);
    pair.replica.signal(Signal::SIGCONT);
    done.store(true, Ordering::SeqCst);
    assert!(writer.join().unwrap() >= MIB, "who is slowed goes on");
    pair.source.until("within max_lag", |group| group["lag"]["exceeded"] == false);
    until("it is said", || pair.source.logged("within max_lag again") >= 1);
    pair.assert_follows();
}

#[test]
fn with_alert_nobody_is_slowed() {
    let pair = pair("alert");
    let done = Arc::new(AtomicBool::new(false));
    let writer = write_on(&pair, &done);
    pair.replica.signal(Signal::SIGSTOP);
    let behind = pair.source.until("far behind", |group| {
        group["lag"]["exceeded"] == true && group["lag"]["bytes"].as_u64() > Some(8 * MIB)
    });
    assert_eq!(behind["lag"]["slowed"], false, "{behind}");
    until("it is said", || pair.source.logged("ALERT: the replica is further behind") >= 1);
    pair.replica.signal(Signal::SIGCONT);
    done.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    pair.source.until("within max_lag", |group| group["lag"]["exceeded"] == false);
    pair.assert_follows();
}
