//! What fails again and again is tried less and less, and logged once a minute.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use vgship::wire::batch::Compression;
use vgship::wire::identity::Identity;
use vgship::wire::io::{Config, ConnectError, Endpoint, PairingHost, PeerBook, Tuning};
use vgship_base::ids::GroupId;
use vgship_snapshot::seal::KeyId;

use super::common::{Agent, MIB, Pair};

/// Lines of an agent's log from a point in time on.
struct Lines<'a> {
    agent: &'a Agent,
    before: usize,
    since: Instant,
}

impl<'a> Lines<'a> {
    fn of(agent: &'a Agent) -> Lines<'a> {
        Lines { agent, before: agent.log().lines().count(), since: Instant::now() }
    }

    fn with(&self, words: &str) -> Vec<String> {
        let log = self.agent.log();
        let new = log.lines().skip(self.before).filter(|line| line.contains(words));
        new.map(str::to_owned).collect()
    }

    /// Fails unless these words were logged once, and once more a minute on a slow machine.
    #[track_caller]
    fn assert_one_a_minute(&self, words: &str) -> String {
        let lines = self.with(words);
        let most = 1 + self.since.elapsed().as_secs() / 60;
        assert!(!lines.is_empty() && lines.len() as u64 <= most, "{words}: {lines:#?}");
        lines[0].clone()
    }
}

#[test]
fn a_refusal_that_passes_is_tried_quickly_told_once_and_over_when_it_has_passed() {
    let mut pair = Pair::new(&[("data", 4 * MIB)], &[]);
    pair.replica.stop();
    pair.source.stop();
    let (images, away) = (pair.place.path().join("source-images"), pair.place.path().join("away"));
    fs::rename(&images, &away).unwrap();
    pair.restart_source();
    let (replica_log, source_log) = (pair.replica.path("log"), pair.source.path("log"));
    let before = |path| fs::read_to_string(path).unwrap().lines().count();
    let (replica_before, source_before) = (before(&replica_log), before(&source_log));
    let since = Instant::now();
    pair.replica.start();

    let seen = pair
        .replica
        .until("refused again and again", |group| group["peers"][0]["tries"].as_u64() >= Some(6));
    let why = seen["peers"][0]["last_error"].as_str().unwrap();
    assert!(why.contains("the group is not open"), "{seen}");
    let text = pair.replica.ok(&["status", "g"]);
    assert!(text.contains(" tries; "), "{text}");
    let replica = Lines { agent: &pair.replica, before: replica_before, since };
    let line = replica.assert_one_a_minute("not connected: ");
    assert!(line.contains("(1 try, next in "), "{line}");
    let source = Lines { agent: &pair.source, before: source_before, since };
    source.assert_one_a_minute("refused the hello of a peer: ");
    assert!(source.with("refused the hello of a peer: ")[0].contains("the group is not open"));

    pair.source.stop();
    fs::rename(&away, &images).unwrap();
    pair.restart_source();
    let seen = pair.replica.until("connected", |group| group["peers"][0]["connected"] == true);
    assert_eq!(seen["peers"][0]["tries"], 0);
    let replica = Lines { agent: &pair.replica, before: replica_before, since };
    let line = replica.assert_one_a_minute(" connected after ");
    assert!(line.contains(" tries in "), "{line}");
    replica.assert_one_a_minute("not connected: ");
    pair.assert_follows();
}

#[test]
fn a_revoked_peer_waits_long_and_however_often_it_is_started_that_is_one_line() {
    let mut pair = Pair::new(&[("data", MIB)], &[]);
    let (before, since) = (pair.source.log().lines().count(), Instant::now());
    pair.source.ok(&["pair", "revoke", "replica"]);
    for _ in 0..4 {
        pair.replica.stop();
        let fresh = pair.replica.log().lines().count();
        let started = Instant::now();
        pair.replica.start();
        let seen = pair.replica.until("refused", |group| group["peers"][0]["tries"] == 1);
        let why = seen["peers"][0]["last_error"].as_str().unwrap();
        assert!(why.contains("revoked"), "{seen}");
        let lines = Lines { agent: &pair.replica, before: fresh, since: started };
        let line = lines.assert_one_a_minute("not connected: ");
        assert!(line.contains("(1 try, next in 3"), "half a minute at least: {line}");
    }
    let source = Lines { agent: &pair.source, before, since };
    source.assert_one_a_minute("refused a connection: ");
}

#[derive(Debug)]
struct NoHost;

impl PairingHost for NoHost {
    fn layout(&self, _: GroupId) -> Option<Vec<u8>> {
        None
    }

    fn veil(&self, _: GroupId) -> Option<KeyId> {
        None
    }
}

fn stranger(pair: &Pair, number: u64) -> Endpoint {
    let book = PeerBook::open(pair.place.path().join(format!("stranger-{number}"))).unwrap();
    let (endpoint, _) = Endpoint::bind(Config {
        identity: Arc::new(Identity::generate().unwrap()),
        name: "stranger".parse().unwrap(),
        listen: "127.0.0.1:0".parse().unwrap(),
        book: Arc::new(book),
        host: Arc::new(NoHost),
        compression: Compression::default(),
        tuning: Tuning::default(),
    })
    .unwrap();
    endpoint
}

#[tokio::test]
async fn a_storm_of_strangers_is_one_line() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    let peer = PeerBook::open(pair.replica.path("peers.toml")).unwrap().peers()[0].id;
    let address = pair.source.listens();
    let lines = Lines::of(&pair.source);
    for number in 0..4 {
        let stranger = stranger(&pair, number);
        for _ in 0..25 {
            let refused = stranger.connect(address, peer).await;
            assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
        }
    }
    let line = lines.assert_one_a_minute("refused a connection: ");
    assert!(line.contains("(1 try from 127.0.0.1:"), "{line}");
    lines.assert_one_a_minute("WARN");
    pair.assert_follows();
}
