//! The wire against strangers, thieves, garbage and damage.

use std::fs::{self, File};
use std::net::UdpSocket;

use serde_json::Value;
use vgship_base::sim::Rng;

use super::common::{Agent, Faults, MIB, Pair, noise, until};

/// Gives a thief all that it could have read at the replica, except the replica's private key.
fn steal_group(pair: &Pair, thief: &Agent) {
    let (from, to) = (pair.replica.path("groups/g"), thief.path("groups/g"));
    let images = thief.path("loot");
    fs::create_dir_all(&to).unwrap();
    fs::create_dir(&images).unwrap();
    File::create(images.join("data")).unwrap().set_len(4 * MIB).unwrap();
    fs::copy(from.join("layout"), to.join("layout")).unwrap();
    let text = fs::read_to_string(from.join("group.toml")).unwrap();
    let text = text.replace(&pair.replica_spec(), &format!("images:{}", images.display()));
    fs::write(to.join("group.toml"), text).unwrap();
}

fn refused(group: &Value) -> bool {
    group["peers"][0]["last_error"].as_str().is_some_and(|why| !why.is_empty())
}

/// Fails unless the thief has nothing and the pair goes on.
fn assert_empty_handed(pair: &Pair, thief: &Agent) {
    pair.open("data").write(0, &noise(9, MIB)).unwrap();
    pair.assert_follows();
    let group = thief.group();
    assert_eq!(group["peers"][0]["connected"], false, "{group}");
    assert_eq!(group["peers"][0]["sent_bytes"], 0, "{group}");
    assert_eq!(group["generation"], "", "{group}");
    assert!(fs::read(thief.path("loot/data")).unwrap().iter().all(|&byte| byte == 0));
    let peers = pair.source.group()["peers"].clone();
    assert_eq!(peers.as_array().unwrap().len(), 1, "{peers}");
    assert_eq!(peers[0]["connected"], true, "{peers}");
}

#[test]
fn an_agent_that_is_not_paired_gets_nothing_whatever_else_it_knows() {
    let pair = Pair::new(&[("data", 4 * MIB)], &[]);
    let mut thief = Agent::init(pair.place.path(), "thief");
    steal_group(&pair, &thief);
    fs::copy(pair.replica.path("peers.toml"), thief.path("peers.toml")).unwrap();
    thief.start();
    let group = thief.until("refused", refused);
    let why = group["peers"][0]["last_error"].as_str().unwrap();
    assert!(why.contains("refuses: this agent is not paired there"), "{why}");
    assert_empty_handed(&pair, &thief);
}

#[test]
fn a_peer_gets_only_the_group_that_it_was_paired_for() {
    let pair = Pair::new(&[("data", 4 * MIB)], &[]);
    let images = pair.place.path().join("other-images");
    fs::create_dir(&images).unwrap();
    File::create(images.join("lv")).unwrap().set_len(MIB).unwrap();
    pair.source.ok(&["group", "add", "h", "--volumes", &format!("images:{}", images.display())]);
    let made = pair.source.json(&["pair", "invite", "--group", "h", "--role", "replica"]);
    let mut thief = Agent::init(pair.place.path(), "thief");
    thief.start();
    let copy = format!("images:{}", thief.path("copy").display());
    thief.ok(&["pair", "join", made["token"].as_str().unwrap(), "--volumes", &copy]);
    thief.ok(&["wait", "h", "--for", "in-sync", "--timeout", "60s"]);
    thief.stop();
    steal_group(&pair, &thief);
    thief.start();
    let group = thief.until("refused", refused);
    let why = group["peers"][0]["last_error"].as_str().unwrap();
    assert!(why.contains("not part of the pairing"), "{why}");
    thief.ok(&["wait", "h", "--for", "in-sync", "--timeout", "60s"]);
    assert_empty_handed(&pair, &thief);
}

#[test]
fn a_token_works_once_until_it_expires_and_only_as_it_was_made() {
    let pair = Pair::unpaired(&[("data", MIB)], &[]);
    let join = |token: &str, name: &str| {
        let volumes = format!("images:{}", pair.place.path().join(name).display());
        pair.replica.run(&["pair", "join", token, "--group", name, "--volumes", &volumes])
    };
    let token = pair.invite();
    let mut damaged = token.clone().into_bytes();
    let at = damaged.len() / 2;
    damaged[at] = if damaged[at] == b'a' { b'b' } else { b'a' };
    join(&String::from_utf8(damaged).unwrap(), "damaged").expect(2, &["token"]);
    join(&token[..token.len() - 8], "short").expect(2, &["token"]);
    join("not-a-token", "odd").expect(2, &["token"]);

    let short = ["pair", "invite", "--group", "g", "--role", "replica", "--expires", "1s"];
    let made = pair.source.json(&short);
    let expires: jiff::Timestamp = made["expires"].as_str().unwrap().parse().unwrap();
    until("the token has expired", || jiff::Timestamp::now() > expires);
    join(made["token"].as_str().unwrap(), "late").expect(3, &["expired"]);

    join(&token, "g").expect(0, &[]);
    join(&token, "again").expect(3, &["pair invite"]);
    for name in ["damaged", "short", "odd", "late", "again"] {
        assert!(!pair.place.path().join(name).exists(), "{name} was made");
    }
    let groups = pair.replica.json(&["group", "list"]);
    assert_eq!(groups["groups"].as_array().unwrap().len(), 1, "{groups}");
    pair.source.wait("in-sync");
}

#[test]
fn revoking_ends_the_link_and_the_replica_says_why() {
    let pair = Pair::new(&[("data", 4 * MIB)], &[]);
    let before = fs::read(pair.replica_image("data")).unwrap();
    pair.source.ok(&["pair", "revoke", "replica"]);
    let seen = pair.replica.until("revoked", |group| {
        let why = group["reason"].as_str().unwrap_or_default();
        group["state"] == "disconnected" && why.contains("revoked")
    });
    assert_eq!(seen["peers"][0]["connected"], false);
    pair.source.until("alone", |group| group["peers"][0]["connected"] == false);
    pair.open("data").write(0, &noise(1, MIB)).unwrap();
    assert_eq!(pair.source.json(&["pair", "list"])["pairs"].as_array().unwrap().len(), 0);
    assert!(fs::read(pair.replica_image("data")).unwrap() == before);
}

#[test]
fn garbage_on_the_port_costs_nothing() {
    let pair = Pair::new(&[("data", 16 * MIB)], &[]);
    let (target, before) = (pair.source.listens(), pair.source.resident());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rng = Rng::new(5);
    for number in 0..20_000_u64 {
        let len = rng.below(1500);
        let mut data = noise(number, len.max(8));
        match number % 4 {
            0 => data[0] = 0x40,                                 // a short header
            1 => data[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]), // an initial packet
            2 => data[..5].copy_from_slice(&[0xff, 0, 0, 0, 0]),
            _ => {}
        }
        let _ = socket.send_to(&data, target);
        if number % 1000 == 0 {
            pair.open("data").write(number / 1000 * 65536, &noise(number, 65536)).unwrap();
        }
    }
    pair.assert_follows();
    let after = pair.source.resident();
    assert!(after < before + 16 * MIB, "from {} to {} MiB", before >> 20, after >> 20);
    assert!(!pair.source.log().contains("not connected"), "{}", pair.source.log());
}

#[test]
fn lost_late_and_damaged_datagrams_only_come_again() {
    let pair = Pair::unpaired(&[("data", 16 * MIB)], &[]);
    pair.relay.set(Faults { drop: 20, damage: 20, delay: 4, cut: false });
    pair.join();
    pair.source.wait("in-sync");
    for round in 0..4 {
        pair.open("data").write(round * 2 * MIB, &noise(round, MIB)).unwrap();
        pair.assert_follows();
    }
    assert!(pair.relay.damaged() > 0);
    assert_eq!(pair.source.logged("said hello"), 1, "{}", pair.source.log());
    assert!(!pair.replica.log().contains("refused a record"), "{}", pair.replica.log());
}
