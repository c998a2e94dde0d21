//! Volumes that change under the agent: those that grow are followed, anything else stops the
//! group until it is mended.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use super::common::{MIB, Pair, Stamps, noise, until};

/// The last extent of `data` is short, and becomes longer.
const ODD: u64 = 16 * MIB + 512;

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn resize(path: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// Puts bytes where no stream wrote them.
fn spoil(path: &Path, at: u64) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&[9; 4096], at).unwrap();
}

fn reason(group: &Value) -> &str {
    group["reason"].as_str().unwrap_or_default()
}

/// Waits until the source has stopped for a reason that has all these words.
#[track_caller]
fn until_stopped(pair: &Pair, words: &[&str]) {
    let stopped = |group: &Value| {
        group["state"] == "paused"
            && reason(group).starts_with("stopped: ")
            && words.iter().all(|words| reason(group).contains(words))
    };
    pair.source.until(&format!("stopped with {words:?}"), stopped);
}

#[test]
fn a_volume_that_grows_under_load_grows_on_the_replica_and_stays_equal() {
    let pair = Pair::new(&[("data", ODD), ("log", 4 * MIB)], &[]);
    let mut load = Stamps::start(&pair.source.nbd_socket(), &["data", "log"], 2, 7);
    let mut old = pair.open("data");
    until("the load writes", || load.writes() > 200);
    // Whatever is behind the old end by then must get there, too.
    append(&pair.source_image("data"), &noise(1, 3 * MIB - 512));
    until("a new client sees the new size", || pair.open("data").bytes() == 19 * MIB);
    assert_eq!(old.bytes(), ODD);
    old.write(16 * MIB, &[5; 512]).unwrap(); // behind what the load owns
    assert!(old.write(18 * MIB, &[6; 512]).is_err(), "a client writes behind the end it was told");
    pair.open("data").write(18 * MIB, &noise(2, MIB / 2)).unwrap();
    let before = load.writes();
    until("the load goes on", || load.writes() > before + 200);
    load.rest();
    let written = load.acknowledged();
    pair.source.wait("in-sync");
    pair.assert_follows();
    // The load knows nothing of what lies behind the old end.
    let known = |volume: &str| {
        let copy = pair.place.path().join(format!("{volume}-as-the-load-knows-it"));
        fs::copy(pair.replica_image(volume), &copy).unwrap();
        resize(&copy, fs::metadata(&copy).unwrap().len().min(16 * MIB));
        copy
    };
    assert_eq!(load.check(known, &written), Ok(written.clone()));
    let sizes = |group: &Value| group["volumes"][0]["bytes"].as_u64();
    assert_eq!(sizes(&pair.source.group()), Some(19 * MIB));
    assert_eq!(sizes(&pair.replica.group()), Some(19 * MIB));
    assert_eq!(pair.source.logged("reason=\"the volumes have grown\""), 1, "{}", pair.source.log());
}

#[test]
fn what_is_no_growth_stops_the_group_and_it_goes_on_when_that_is_mended() {
    let mut pair = Pair::new(&[("data", 8 * MIB), ("log", 4 * MIB)], &[]);
    let (data, log) = (pair.source_image("data"), pair.source_image("log"));
    let images = data.parent().unwrap().to_owned();
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 8 * MIB)).unwrap();

    fs::rename(&data, images.join("moved")).unwrap();
    let mv = format!("mv {0}/moved {0}/data", images.display());
    until_stopped(&pair, &["data was renamed to moved", &mv]);
    let words = "stopped: data was renamed";
    pair.replica.until("told why", |group| reason(group).contains(words));
    nbd.write(MIB, &noise(2, MIB)).unwrap(); // the application goes on
    nbd.flush().unwrap();
    fs::rename(images.join("moved"), &data).unwrap();
    pair.source.until("in sync", |group| group["state"] == "in-sync");
    pair.assert_follows();

    File::create(images.join("newlv")).unwrap().set_len(MIB).unwrap();
    until_stopped(&pair, &["newlv is new", "ELSEWHERE"]);
    fs::remove_file(images.join("newlv")).unwrap();
    pair.source.until("in sync", |group| group["state"] == "in-sync");

    // What was cut off is lost on the source, and no write says so: the volume is compared.
    resize(&data, 4 * MIB);
    let truncate = format!("truncate -s {} {}", 8 * MIB, data.display());
    until_stopped(&pair, &["data has 4194304 bytes, and had 8388608", &truncate]);
    resize(&data, 8 * MIB);
    pair.source.until("in sync", |group| group["state"] == "in-sync");
    pair.assert_follows();

    fs::remove_file(&log).unwrap();
    until_stopped(&pair, &["log is gone", "put the file of 4194304 bytes back"]);
    fs::write(&log, noise(3, 4 * MIB)).unwrap();
    until_stopped(&pair, &["log is not the one that it was", "restart the agent"]);
    let said = pair.source.logged("replication is stopped");
    assert!((5..=8).contains(&said), "once for each reason, and once a minute: {said}");
    pair.source.stop();
    pair.restart_source();
    pair.source.until("in sync", |group| group["state"] == "in-sync");
    pair.assert_follows();
}

#[test]
fn a_volume_that_was_exchanged_while_the_agent_was_stopped_is_compared() {
    let mut pair = Pair::new(&[("data", 8 * MIB), ("log", 4 * MIB)], &[]);
    pair.open("data").write(0, &noise(1, 8 * MIB)).unwrap();
    pair.assert_follows();
    pair.source.stop();
    // As one does who puts a backup back; and once where the inode's number may come again.
    let backup = pair.place.path().join("backup");
    fs::write(&backup, noise(2, 8 * MIB)).unwrap();
    fs::rename(&backup, pair.source_image("data")).unwrap();
    fs::remove_file(pair.source_image("log")).unwrap();
    fs::write(pair.source_image("log"), noise(3, 4 * MIB)).unwrap();
    pair.restart_source();
    pair.source.wait("in-sync");
    pair.assert_follows();
    assert_eq!(pair.source.logged("is not the one that was replicated"), 2);
    // Which is remembered: once.
    pair.source.stop();
    pair.restart_source();
    pair.source.wait("in-sync");
    assert_eq!(pair.source.logged("is not the one that was replicated"), 2);
}

#[test]
fn a_start_follows_growth_and_refuses_anything_else() {
    let mut pair = Pair::new(&[("data", ODD), ("log", 4 * MIB)], &[]);
    pair.source.stop();
    pair.replica.stop();
    append(&pair.source_image("data"), &noise(1, MIB - 512));
    // As far as a replica was that died before it stored the new layout.
    resize(&pair.replica_image("data"), 17 * MIB);
    spoil(&pair.replica_image("data"), 16 * MIB + 4096);
    pair.replica.start();
    pair.restart_source();
    pair.source.wait("in-sync");
    pair.assert_follows();
    pair.source.stop();
    fs::rename(pair.source_image("log"), pair.source_image("moved")).unwrap();
    pair.restart_source();
    let refused = pair.source.group();
    assert!(reason(&refused).contains("log was renamed to moved; mend it with: mv"), "{refused}");
    assert!(reason(&refused).contains("vgship group remove g"), "{refused}");
    fs::rename(pair.source_image("moved"), pair.source_image("log")).unwrap();
    pair.source.stop();
    pair.restart_source();
    pair.source.wait("in-sync");
    pair.assert_follows();
}
