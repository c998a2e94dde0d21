//! A replica's LVs taken back to a point, and forward again, with real agents.

use std::path::Path;

use super::common::{MIB, Pair, noise, until};

fn image(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// What the replica's LV holds.
fn held(pair: &Pair) -> Vec<u8> {
    image(&pair.replica_image("data"))
}

fn generation(pair: &Pair) -> String {
    pair.replica.group()["generation"].as_str().unwrap()[..8].to_owned()
}

/// Goal: the LVs hold a snapshot, then any point, and then again what they held; the stream goes on
/// into the journal all the while, over restarts of everybody, and nothing of it is lost.
#[test]
fn back_to_a_point_and_forward_again() {
    let mut pair = Pair::new(&[("data", 4 * MIB), ("log", MIB)], &[]);
    pair.source.wait("in-sync");
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 2 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let base = image(&pair.source_image("data"));
    nbd.write(MIB, &noise(2, MIB)).unwrap();
    nbd.zero(0, 65536).unwrap();
    pair.source.ok(&["marker", "g", "middle"]);
    let middle = image(&pair.source_image("data"));
    nbd.write(0, &noise(3, 4 * MIB)).unwrap();
    pair.source.wait("applied");
    let before = held(&pair);
    let known = generation(&pair);
    let replica = &pair.replica;

    let told = replica.json(&["preview", "rollback", "g", "--to", "base"]);
    assert!(told["changed_bytes"].as_u64() >= Some(4 * MIB), "{told}");
    assert!(held(&pair) == before, "a preview does nothing");
    replica
        .run(&["rollback", "g", "--to", "base", "--generation", "0000"])
        .expect(3, &["generation", &known]);
    replica.run(&["rollback", "g", "--to", "base"]).expect(2, &["--generation"]);
    replica.run(&["rollback", "g", "--undo", "--generation", &known]).expect(3, &["not rolled"]);
    pair.source
        .run(&["rollback", "g", "--to", "base", "--generation", &known])
        .expect(3, &["replica"]);

    replica.ok(&["rollback", "g", "--to", "base", "--generation", &known]);
    assert!(held(&pair) == base);
    let shown = replica.group();
    assert_eq!(shown["state"], "paused", "{shown}");
    assert!(shown["reason"].as_str().unwrap().contains("rolled back"), "{shown}");

    // The stream goes on: what is written now is durable over there, and not applied.
    nbd.write(MIB / 2, &noise(4, MIB)).unwrap();
    pair.source.wait("durable");
    assert!(held(&pair) == base);
    replica.run(&["snapshot", "create", "g", "now"]).expect(3, &["rolled back"]);
    replica.run(&["snapshot", "delete", "g@base"]).expect(3, &["rollback"]);

    // From there to another point, also over a crash of its program.
    pair.replica.kill();
    pair.replica.start();
    assert!(held(&pair) == base);
    let replica = &pair.replica;
    replica.ok(&["rollback", "g", "--to", "marker:middle", "--generation", &known]);
    assert!(held(&pair) == middle);
    let exported = replica.path("exported");
    let to = exported.to_str().unwrap();
    replica.ok(&["snapshot", "export", "g@now", "--to", to]);
    assert!(image(&exported.join("data")) == before, "the point of now is where it stood");

    replica.ok(&["rollback", "g", "--undo", "--generation", &known]);
    pair.source.wait("applied");
    assert!(held(&pair) == image(&pair.source_image("data")));
    replica.ok(&["snapshot", "create", "g", "after"]);
    for name in ["base", "after"] {
        replica.ok(&["snapshot", "delete", &format!("g@{name}")]);
    }
    pair.assert_equal();
}

/// Goal: a program that is killed while the LVs are taken back, or forward, goes on by itself.
#[test]
fn a_rollback_goes_on_after_a_crash() {
    let mut pair = Pair::new(&[("data", 64 * MIB)], &[]);
    pair.source.wait("in-sync");
    let mut nbd = pair.open("data");
    for at in 0..16 {
        nbd.write(at * 4 * MIB, &noise(at, 4 * MIB)).unwrap();
    }
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let base = image(&pair.source_image("data"));
    for at in 0..16 {
        nbd.write(at * 4 * MIB, &noise(100 + at, 4 * MIB)).unwrap();
    }
    pair.source.wait("applied");
    let before = held(&pair);
    let known = generation(&pair);
    let rollback = ["rollback", "g", "--to", "base", "--generation", &known];
    let undo = ["rollback", "g", "--undo", "--generation", &known];
    for (order, stands, wanted) in [(&rollback[..], &before, &base), (&undo[..], &base, &before)] {
        let begun = pair.replica.begin(order);
        // A machine that is busy may see it only when it is done: then it is killed there.
        until("the LVs are being written", || held(&pair) != *stands);
        pair.replica.kill();
        begun.end();
        pair.replica.start();
        until("the LVs hold what they are to hold", || held(&pair) == *wanted);
    }
    nbd.write(0, &noise(7, MIB)).unwrap();
    pair.source.wait("applied");
    pair.assert_equal();
}
