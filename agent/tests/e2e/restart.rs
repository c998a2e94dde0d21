//! Stops, restarts and changes of address without loss.

use super::common::{MIB, Pair, noise};

#[test]
fn a_clean_stop_of_either_side_costs_no_resync() {
    let mut pair = Pair::new(&[("data", 64 * MIB), ("log", MIB)], &[]);
    pair.open("data").write(0, &noise(1, 16 * MIB)).unwrap();
    pair.open("log").write(4096, &noise(2, 8192)).unwrap();
    assert!(pair.source.stop().success());
    pair.assert_equal();
    pair.restart_source();
    pair.source.wait("in-sync");
    let after = pair.source.group();
    assert_eq!(after["dirty_bytes"], 0);
    let sent = after["peers"][0]["sent_bytes"].as_u64().unwrap();
    assert!(sent < 65536, "{sent} bytes were sent for nothing");

    assert!(pair.replica.stop().success());
    pair.open("data").write(MIB, &noise(3, MIB)).unwrap();
    pair.replica.start();
    pair.source.wait("in-sync");
    pair.assert_follows();
    let sent = pair.source.group()["peers"][0]["sent_bytes"].as_u64().unwrap();
    assert!(sent < MIB + 131_072, "{sent} bytes were sent for one MiB");
    assert_eq!(pair.source.logged("verdict=Continue"), 1, "{}", pair.source.log());
}

#[test]
fn the_replica_finds_a_source_that_was_killed_and_came_back_elsewhere() {
    let mut pair = Pair::new(&[("data", 32 * MIB)], &[]);
    let generation = pair.source.group()["generation"].clone();
    let before = pair.source.listens();
    pair.open("data").write(0, &noise(1, MIB)).unwrap();
    pair.source.kill();
    pair.restart_source();
    assert_ne!(pair.source.listens(), before);
    assert!(pair.open("data").read(0, 1 << 20).unwrap() == noise(1, MIB));
    pair.source.wait("in-sync");
    pair.assert_follows();
    assert_eq!(pair.source.group()["generation"], generation);
    let log = pair.replica.log();
    assert!(log.contains("reset by peer") && !log.contains("timed out"), "{log}");
}

#[test]
fn a_link_goes_on_when_the_address_of_a_peer_changes() {
    let pair = Pair::new(&[("data", 32 * MIB)], &[]);
    for round in 0..4 {
        pair.relay.move_peers();
        pair.open("data").write(round * MIB, &noise(round, MIB)).unwrap();
        pair.assert_follows();
    }
    let log = pair.source.log();
    assert!(!log.contains("not connected"), "{log}");
    assert_eq!(pair.relay.places(), 5, "each move gave the peer another address");
}
