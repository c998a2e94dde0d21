//! Disks that are full, on small file systems: the replica's journal, the source's spill, its
//! ledger, and its LVs. They need root, to mount.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::common::{Agent, MIB, Nbd, Pair, SmallDisk, noise, until};

const STEP: u64 = 256 << 10;

/// Writes noise from a volume's start on.
fn write(nbd: &mut Nbd, seed: u64, mib: u64) {
    for at in (0..mib * MIB).step_by(usize::try_from(STEP).unwrap()) {
        nbd.write(at, &noise(at + seed, STEP)).unwrap();
    }
}

/// The same, on a thread, and how far it came.
fn write_behind(mut nbd: Nbd, mib: u64) -> (JoinHandle<()>, Arc<AtomicU64>) {
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let writer = std::thread::spawn(move || {
        for at in (0..mib * MIB).step_by(usize::try_from(STEP).unwrap()) {
            nbd.write(at, &noise(at + 3, STEP)).unwrap();
            count.fetch_add(STEP, Ordering::SeqCst);
        }
    });
    (writer, written)
}

fn resyncs(agent: &Agent) -> usize {
    agent.logged("a resync runs")
}

fn reason(group: &Value) -> &str {
    group["reason"].as_str().unwrap_or_default()
}

/// A pair in sync whose replica has its journal on a file system of so many MiB.
fn pair_with_small_journal(volume: u64, group: &[&str], mib: u64) -> Option<(Pair, SmallDisk)> {
    let mut pair = Pair::new(&[("data", volume * MIB)], group);
    assert!(pair.replica.stop().success());
    let mount = SmallDisk::over(&pair.replica.path("groups/g/journal"), mib)?;
    pair.replica.start();
    pair.source.wait("in-sync");
    Some((pair, mount))
}

/// A pair in sync whose source has this folder of the group on a file system of so many MiB.
fn pair_with_small(
    folder: &str,
    volume: u64,
    group: &[&str],
    mib: u64,
) -> Option<(Pair, SmallDisk)> {
    let mut pair = Pair::new(&[("data", volume * MIB)], group);
    assert!(pair.source.stop().success());
    let mount = SmallDisk::over(&pair.source.path(&format!("groups/g/{folder}")), mib)?;
    pair.restart_source();
    pair.source.wait("in-sync");
    Some((pair, mount))
}

#[test]
fn a_full_journal_holds_the_stream_up_and_goes_on_when_there_is_room() {
    let Some((pair, mount)) = pair_with_small_journal(32, &[], 40) else { return };
    pair.replica.wait("connected"); // it was started anew on its small disk
    let (before, follows) = (resyncs(&pair.source), pair.replica.logged("connected"));
    mount.fill(9 * MIB); // the reserve and little more
    let mut nbd = pair.open("data");
    write(&mut nbd, 1, 24); // no write waits for the replica
    let waits = pair.replica.until("waiting", |group| reason(group).contains("has no room"));
    let journal = pair.replica.path("groups/g/journal");
    assert!(reason(&waits).contains(journal.to_str().unwrap()), "{waits}");
    assert!(reason(&waits).contains("are needed; free some"), "{waits}");
    assert_eq!(waits["state"], "streaming", "{waits}");
    assert_eq!(waits["peers"][0]["connected"], true, "{waits}");
    assert!(mount.available() >= 8 * MIB, "the reserve is left alone");
    let behind = pair.source.until("behind", |group| group["lag"]["seconds"].as_f64() > Some(2.0));
    assert_eq!(behind["state"], "streaming", "{behind}");
    assert_eq!(behind["peers"][0]["connected"], true, "{behind}");
    mount.free();
    pair.assert_follows();
    pair.replica.until("content", |group| group["state"] == "in-sync" && group["reason"].is_null());
    assert_eq!(resyncs(&pair.source), before, "the outbox sufficed");
    assert_eq!(pair.replica.logged("connected"), follows, "the link stood all the time");
    // Segments that end give room of their own once or twice before the disk is full for good.
    let said = pair.replica.logged("takes nothing from its link");
    assert!((1..=3).contains(&said), "{said}");
}

#[test]
fn behind_a_full_journal_and_a_full_outbox_writes_go_to_the_map() {
    let group = ["--outbox-ram", "4MiB", "--spill", "0"];
    let Some((mut pair, mount)) = pair_with_small_journal(160, &group, 40) else { return };
    let before = resyncs(&pair.source);
    mount.fill(9 * MIB);
    let mut nbd = pair.open("data");
    // More than the replica's queue and the connection hold.
    write(&mut nbd, 2, 160);
    let map = pair.source.until("on the map", |group| group["state"] == "map");
    assert!(reason(&map).contains("outbox"), "{map}");
    pair.replica.until("waiting", |group| reason(group).contains("has no room"));
    // A replica that dies on a full disk recovers from what it has left free.
    pair.replica.kill();
    pair.replica.start();
    mount.free();
    pair.source.wait("in-sync");
    pair.assert_follows();
    assert!(resyncs(&pair.source) > before);
}

#[test]
fn a_full_spill_disk_makes_writes_go_to_the_map() {
    let group = ["--outbox-ram", "4MiB", "--spill", "64MiB"];
    let Some((pair, mount)) = pair_with_small("spill-0", 32, &group, 8) else { return };
    let before = resyncs(&pair.source);
    pair.relay.cut();
    pair.source.until("disconnected", |group| group["peers"][0]["connected"] == false);
    write(&mut pair.open("data"), 3, 32); // returns, so no write has waited for the link
    let map = pair.source.until("on the map", |group| group["state"] == "map");
    assert!(reason(&map).contains("outbox"), "{map}");
    assert!(pair.source.logged("the spill's disk is full") > 0);
    until("the spill's room is given back", || mount.available() >= 7 * MIB);
    pair.relay.restore();
    pair.source.wait("in-sync");
    pair.assert_follows();
    assert_eq!(resyncs(&pair.source), before + 1);
}

#[test]
fn with_stall_a_full_spill_disk_makes_writers_wait_until_it_has_room() {
    let group = ["--outbox-ram", "4MiB", "--spill", "64MiB", "--on-overflow", "stall"];
    let Some((pair, mount)) = pair_with_small("spill-0", 32, &group, 64) else { return };
    let before = resyncs(&pair.source);
    pair.relay.cut();
    pair.source.until("disconnected", |group| group["peers"][0]["connected"] == false);
    mount.fill(2 * MIB);
    let (writer, written) = write_behind(pair.open("data"), 32);
    until("the spill's disk is full", || pair.source.logged("the spill's disk is full") > 0);
    let waiting = pair
        .source
        .until("holding all it can", |group| group["outbox"]["ram_bytes"].as_u64() > Some(2 * MIB));
    assert!(written.load(Ordering::SeqCst) <= 8 * MIB, "writers wait: {waiting}");
    assert!(!writer.is_finished());
    mount.free(); // the link is still away
    writer.join().unwrap();
    pair.relay.restore();
    pair.assert_follows();
    assert_eq!(resyncs(&pair.source), before, "nothing was given up");
}

#[test]
fn without_room_for_the_ledger_writes_go_on_in_doubt() {
    let Some((mut pair, mount)) = pair_with_small("source", 1024, &[], 1) else { return };
    let regions = |seed: u64| {
        let mut nbd = pair.open("data");
        for region in 0..64 {
            nbd.write(region * 16 * MIB, &noise(region + seed, 4096)).unwrap();
        }
    };
    mount.fill(0);
    regions(10);
    let doubt = pair.source.until("in doubt", |group| reason(group).contains("ledger"));
    assert!(reason(&doubt).contains("cannot be written"), "{doubt}");
    let note = pair.source.path("groups/g/source/in-doubt");
    assert!(note.exists(), "a crash now finds everything dirty");
    pair.assert_follows();
    mount.free();
    until("the ledger is written", || pair.source.logged("the ledger is written again") > 0);
    pair.source.until("content", |group| group["reason"].is_null());
    assert!(!note.exists());
    // The same again, and a crash in the midst: everything is compared.
    mount.fill(0);
    regions(20);
    until("it is noted", || note.exists());
    pair.source.kill();
    mount.free();
    pair.restart_source();
    pair.source.wait("in-sync");
    pair.assert_follows();
}

#[test]
fn an_lv_that_refuses_writes_is_resynced_when_it_takes_them_again() {
    let mut pair = Pair::new(&[("data", 32 * MIB)], &[]);
    assert!(pair.source.stop().success());
    let images = pair.source_image("data").parent().unwrap().to_owned();
    // Without its file: a copy would have no holes.
    std::fs::remove_file(pair.source_image("data")).unwrap();
    let Some(mount) = SmallDisk::over(&images, 8) else { return };
    std::fs::File::create(pair.source_image("data")).unwrap().set_len(32 * MIB).unwrap();
    pair.restart_source();
    pair.source.wait("in-sync");
    let before = resyncs(&pair.source);
    let mut nbd = pair.open("data");
    let (mut taken, mut refused) = (0, 0);
    for at in (0..16 * MIB).step_by(usize::try_from(STEP).unwrap()) {
        match nbd.write(at, &noise(at + 5, STEP)) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(28), "ENOSPC, as NBD has it: {error}");
                refused += 1;
            }
        }
    }
    assert!(taken >= 30 && refused >= 30, "{taken} taken, {refused} refused");
    until("what is in doubt is resynced", || resyncs(&pair.source) > before);
    pair.source.wait("in-sync");
    pair.assert_follows();
    mount.grow(64);
    write(&mut nbd, 6, 32);
    nbd.flush().unwrap();
    pair.assert_follows();
}

#[test]
fn a_replica_whose_lv_refuses_writes_recovers_when_it_takes_them_again() {
    let mut pair = Pair::new(&[("data", 32 * MIB)], &[]);
    assert!(pair.replica.stop().success());
    let images = pair.replica_image("data").parent().unwrap().to_owned();
    std::fs::remove_file(pair.replica_image("data")).unwrap();
    let Some(mount) = SmallDisk::over(&images, 8) else { return };
    std::fs::File::create(pair.replica_image("data")).unwrap().set_len(32 * MIB).unwrap();
    pair.replica.start();
    pair.source.wait("in-sync");
    let before = resyncs(&pair.source);
    let mut nbd = pair.open("data");
    write(&mut nbd, 7, 20); // the application does not notice
    let stopped = pair.replica.until("stopped", |group| reason(group).contains("cannot write"));
    assert!(reason(&stopped).contains("No space left"), "{stopped}");
    write(&mut nbd, 8, 4);
    mount.grow(64);
    pair.assert_follows();
    assert_eq!(resyncs(&pair.source), before, "the outbox sufficed");
}
