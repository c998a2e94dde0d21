//! Memory is bounded by the budgets and the volumes' size.

use std::fs::{self, File};

use super::common::{Agent, MIB, Nbd, noise};

/// Allowed to a running agent without budgets and volumes.
const BASE: u64 = 32 * MIB;

const TIB: u64 = 1 << 40;

#[test]
fn a_tebibyte_costs_four_mebibytes_beyond_the_budgets() {
    let place = tempfile::tempdir().unwrap();
    let mut source = Agent::init(place.path(), "source");
    let mut replica = Agent::init(place.path(), "replica");
    let images = place.path().join("images");
    fs::create_dir(&images).unwrap();
    for name in ["one", "two"] {
        File::create(images.join(name)).unwrap().set_len(TIB / 2).unwrap();
    }
    source.start();
    replica.start();
    let spec = format!("images:{}", images.display());
    let budget = ["--outbox-ram", "8MiB", "--spill", "0"];
    let add = ["group", "add", "g", "--volumes", &spec];
    source.ok(&add.into_iter().chain(budget).collect::<Vec<_>>());
    source.ok(&["pause", "g"]);
    let invited = source.json(&["pair", "invite", "--group", "g", "--role", "replica"]);
    let token = invited["token"].as_str().unwrap();
    let there = format!("images:{}", place.path().join("there").display());
    replica.ok(&["pair", "join", token, "--volumes", &there]);
    source.until("connected", |group| group["peers"][0]["connected"] == true);

    let mut nbd = Nbd::open(&source.nbd_socket(), "two").unwrap();
    let limit = BASE + 8 * MIB + 4 * MIB;
    for part in 0..64 {
        nbd.write(part * (TIB / 128), &noise(part, MIB)).unwrap();
    }
    assert!(source.resident() < limit, "{} MiB resident", source.resident() >> 20);
    source.ok(&["resume", "g"]);
    let begun =
        source.until("resyncing", |group| group["resync"]["done_bytes"].as_u64() > Some(64 * MIB));
    assert_eq!(begun["state"], "resyncing");
    assert!(source.resident() < limit, "{} MiB resident", source.resident() >> 20);
    source.kill();
    replica.kill();
}
