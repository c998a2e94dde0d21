//! The source's role goes from one side to the other, and back, with real agents.

use std::path::Path;

use super::common::{Agent, MIB, Nbd, Pair, noise, until};

fn image(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn generation(agent: &Agent) -> String {
    agent.group()["generation"].as_str().unwrap()[..8].to_owned()
}

fn open(agent: &Agent, volume: &str) -> Nbd {
    Nbd::open(&agent.nbd_socket(), volume).unwrap()
}

fn is_role(agent: &Agent, role: &str) {
    agent.until(&format!("it is the {role}"), |group| group["role"] == role);
}

/// Goal: the role goes over and comes back, time and again, with writes on whichever side has it;
/// nothing is lost and nothing is synced as a whole.
#[test]
fn there_and_back_ten_times() {
    let pair = Pair::new(&[("data", 4 * MIB), ("log", MIB)], &[]);
    pair.source.wait("in-sync");
    let mut expected = noise(1, 4 * MIB);
    {
        let mut nbd = pair.open("data");
        nbd.write(0, &expected).unwrap();
    }
    for round in 0..10_u64 {
        let (from, to) = match round % 2 {
            0 => (&pair.source, &pair.replica),
            _ => (&pair.replica, &pair.source),
        };
        let before = generation(from);
        let told = from.json(&["switchover", "g"]);
        assert_eq!(told["kind"], "switchover", "{told}");
        assert!(told["steps"].as_array().unwrap().len() >= 8, "{told}");
        is_role(from, "replica");
        is_role(to, "source");
        assert_ne!(generation(to), before);
        assert!(Nbd::open(&from.nbd_socket(), "data").is_err(), "a replica is not written");
        let mut nbd = open(to, "data");
        assert!(nbd.read(0, expected.len()).unwrap() == expected, "round {round}");
        let (at, data) = (round * 65_536 * 3, noise(10 + round, 100_000));
        nbd.write(at, &data).unwrap();
        let at = usize::try_from(at).unwrap();
        expected[at..at + data.len()].copy_from_slice(&data);
        drop(nbd);
        to.wait("applied");
        let status = to.group();
        assert_eq!(status["dirty_bytes"], 0, "{status}");
    }
    pair.source.wait("in-sync");
    assert!(image(&pair.replica_image("data")) == expected);
    assert!(image(&pair.source_image("data")) == expected);
    assert_eq!(pair.source.logged("initial sync"), pair.source.logged("initial sync").min(1));
}

/// Goal: a source that is lost is followed by its replica with all that it received; when it comes
/// back both histories are there, a person chooses, and what is given up stays as a snapshot.
#[test]
fn a_lost_source_comes_back_and_gives_its_writes_up() {
    let mut pair = Pair::new(&[("data", 4 * MIB), ("log", MIB)], &[]);
    pair.source.wait("in-sync");
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 4 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    pair.source.wait("applied");
    let common = image(&pair.source_image("data"));
    let old = generation(&pair.replica);
    pair.replica
        .run(&["failover", "g", "--generation", &old])
        .expect(3, &["connected", "switchover"]);

    // What the replica never hears of.
    pair.source.ok(&["pause", "g"]);
    nbd.write(MIB, &noise(2, 300_000)).unwrap();
    nbd.flush().unwrap();
    let lost = image(&pair.source_image("data"));
    drop(nbd);
    pair.source.kill();
    pair.replica.run(&["failover", "g", "--generation", "0000"]).expect(3, &["generation", &old]);
    let told = pair.replica.json(&["failover", "g", "--generation", &old, "--dry-run"]);
    assert_eq!(told["kind"], "failover-dry-run", "{told}");
    is_role(&pair.replica, "replica");
    pair.replica.until("the source is gone", |group| group["state"] == "disconnected");
    pair.replica.ok(&["failover", "g", "--generation", &old]);
    is_role(&pair.replica, "source");
    let new = generation(&pair.replica);
    assert_ne!(new, old);
    let mut nbd = open(&pair.replica, "data");
    assert!(nbd.read(0, common.len()).unwrap() == common);
    nbd.write(3 * MIB, &noise(3, 200_000)).unwrap();
    drop(nbd);
    let kept = image(&pair.replica_image("data"));

    pair.restart_source();
    for agent in [&pair.source, &pair.replica] {
        agent.until("both sides say so", |group| group["state"] == "diverged");
    }
    let preview = pair.source.json(&["preview", "failback", "g"]);
    let given_up = preview["peers"][0]["volumes"][0]["changed_bytes"].as_u64().unwrap();
    assert!(given_up >= 300_000, "{preview}");
    pair.source.run(&["failback", "g", "--generation", &new]).expect(3, &["generation"]);
    pair.source.ok(&["failback", "g", "--generation", &old]);
    is_role(&pair.source, "replica");
    pair.replica.wait("in-sync");
    pair.replica.wait("applied");
    assert!(image(&pair.source_image("data")) == kept);
    assert!(image(&pair.replica_image("data")) == kept);

    // Both sides' past can be read still.
    let exported = pair.source.path("exported");
    let branch = format!("g@branch-{old}");
    pair.source.ok(&["snapshot", "export", &branch, "--to", exported.to_str().unwrap()]);
    assert!(image(&exported.join("data")) == lost, "what was given up is kept");

    // And home again.
    pair.replica.ok(&["switchover", "g"]);
    is_role(&pair.source, "source");
    assert!(image(&pair.source_image("data")) == kept);
    let exported = pair.replica.path("exported");
    pair.replica.ok(&["snapshot", "export", "g@base", "--to", exported.to_str().unwrap()]);
    assert!(image(&exported.join("data")) == common, "what was preserved while it was the source");
    until("the source is protected", || pair.source.group()["state"] == "in-sync");
}

/// Goal: whoever dies while the role goes over, and whenever: afterwards one side is the source, the
/// other follows it, and what was acknowledged is there.
#[test]
fn whoever_is_killed_during_a_switchover_one_side_is_the_source_and_nothing_is_lost() {
    let mut pair = Pair::new(&[("data", 2 * MIB), ("log", MIB)], &[]);
    pair.source.wait("in-sync");
    let mut expected = vec![0; usize::try_from(2 * MIB).unwrap()];
    // Spread over what a switchover takes; where each falls does not matter to what must hold.
    for round in 0..6_u64 {
        let from_source = pair.source.group()["role"] == "source";
        let (from, kills_source) = match from_source {
            true => (&pair.source, round % 2 == 0),
            false => (&pair.replica, round % 2 == 1),
        };
        let (at, data) = (round * 150_000, noise(round, 120_000));
        let mut nbd = open(from, "data");
        nbd.write(at, &data).unwrap();
        drop(nbd);
        let at = usize::try_from(at).unwrap();
        expected[at..at + data.len()].copy_from_slice(&data);
        from.wait("applied");
        let begun = from.begin(&["switchover", "g", "--timeout", "3s"]);
        std::thread::sleep(std::time::Duration::from_millis(20 + 61 * round));
        match kills_source {
            true => pair.source.kill(),
            false => pair.replica.kill(),
        }
        begun.end();
        match kills_source {
            true => pair.restart_source(),
            false => pair.replica.start(),
        }
        let role = |agent: &Agent| agent.group()["role"].as_str().unwrap().to_owned();
        let state = |agent: &Agent| agent.group()["state"].as_str().unwrap().to_owned();
        until("one is the source and the other follows", || {
            let roles = [role(&pair.source), role(&pair.replica)];
            let one = roles.iter().filter(|role| *role == "source").count() == 1;
            one && state(&pair.source) == "in-sync" && state(&pair.replica) == "in-sync"
        });
        let now = if role(&pair.source) == "source" { &pair.source } else { &pair.replica };
        until("it is served", || Nbd::open(&now.nbd_socket(), "data").is_ok());
        let mut nbd = open(now, "data");
        assert!(nbd.read(0, expected.len()).unwrap() == expected, "round {round}");
        drop(nbd);
        now.wait("applied");
        assert!(image(&pair.source_image("data")) == image(&pair.replica_image("data")));
    }
}

/// Goal: environments and snapshots of a replica stay what they are when it becomes the source, over
/// writes there, a restart, and the way back.
#[test]
fn environments_and_snapshots_survive_a_takeover() {
    let mut pair = Pair::new(&[("data", 2 * MIB)], &[]);
    pair.source.wait("in-sync");
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 2 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let base = image(&pair.source_image("data"));
    nbd.write(MIB, &noise(2, MIB / 2)).unwrap();
    drop(nbd);
    pair.source.wait("applied");
    pair.replica.ok(&["env", "create", "e", "--from", "g@base", "--nbd"]);
    let env = |agent: &Agent| {
        let mut nbd = Nbd::open_export(&agent.nbd_socket(), "env/e/g/data").unwrap();
        nbd.read(0, base.len()).unwrap()
    };
    assert!(env(&pair.replica) == base);

    pair.source.ok(&["switchover", "g"]);
    is_role(&pair.replica, "source");
    let mut nbd = open(&pair.replica, "data");
    nbd.write(0, &noise(3, 2 * MIB)).unwrap();
    drop(nbd);
    assert!(env(&pair.replica) == base, "what it reads was preserved");
    pair.replica.stop();
    pair.replica.start();
    assert!(env(&pair.replica) == base, "after a restart, too");
    let listed = pair.replica.json(&["snapshot", "list", "g"]);
    let names: Vec<&str> = listed["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    let fork = format!("fork-{}", generation(&pair.replica));
    assert!(names.contains(&"base") && names.contains(&fork.as_str()), "{listed}");
    pair.replica.run(&["snapshot", "delete", "g@base"]).expect(3, &["environment"]);
    let fork = format!("g@{fork}");
    pair.replica.run(&["snapshot", "delete", &fork]).expect(3, &["pinned"]);
    pair.replica.ok(&["snapshot", "unpin", &fork]);
    pair.replica.ok(&["snapshot", "delete", &fork]);

    pair.replica.wait("in-sync");
    pair.replica.ok(&["switchover", "g"]);
    is_role(&pair.source, "source");
    assert!(env(&pair.replica) == base);
    pair.replica.ok(&["env", "destroy", "e"]);
    pair.replica.ok(&["snapshot", "delete", "g@base"]);
}

/// Goal: of two replicas one takes over; the other follows it with all that it holds, also what the
/// one never got, and so does the old source when it is back.
#[test]
fn a_replica_that_was_left_behind_follows_the_new_source() {
    let mut pair = Pair::new(&[("data", 4 * MIB)], &[]);
    let mut third = Agent::init(pair.place.path(), "third");
    third.start();
    let third_images = pair.place.path().join("third-images");
    let spec = format!("images:{}", third_images.display());
    third.ok(&["pair", "join", &pair.invite(), "--volumes", &spec]);
    pair.source.until("both are paired", |group| group["peers"][1].is_object());
    pair.source.wait("in-sync");
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 4 * MIB)).unwrap();
    pair.source.wait("applied");
    pair.replica.ok(&["pause", "g"]);
    // Only the third gets this.
    nbd.write(MIB, &noise(2, 200_000)).unwrap();
    drop(nbd);
    let only_third = image(&pair.source_image("data"));
    until("the third has it", || image(&third_images.join("data")) == only_third);
    let old = generation(&pair.replica);
    pair.source.kill();
    pair.replica.ok(&["failover", "g", "--generation", &old, "--force"]);
    let mut nbd = open(&pair.replica, "data");
    nbd.write(3 * MIB, &noise(3, 100_000)).unwrap();
    drop(nbd);

    let made = pair.replica.json(&["pair", "invite", "--group", "g", "--role", "replica"]);
    let token = made["token"].as_str().unwrap();
    third.run(&["pair", "join", token, "--volumes", &spec]).expect(3, &["--volumes"]);
    third.ok(&["pair", "join", token]);
    let follows = |agent: &Agent| {
        agent.until("it follows", |group| {
            group["role"] == "replica" && group["state"] == "in-sync" && group["consistent"] == true
        });
    };
    until("the third is equal", || {
        image(&third_images.join("data")) == image(&pair.replica_image("data"))
    });
    follows(&third);
    let snapshots = third.json(&["snapshot", "list", "g"]);
    let mut all = snapshots["snapshots"].as_array().unwrap().iter();
    let before = all.rfind(|it| it["origin"] == "before-resync").unwrap();
    let exported = third.path("exported");
    let point = format!("g@{}", before["name"].as_str().unwrap());
    third.ok(&["snapshot", "export", &point, "--to", exported.to_str().unwrap()]);
    assert!(image(&exported.join("data")) == only_third, "what it gave up can be read");

    pair.restart_source();
    pair.source.until("it says so", |group| group["state"] == "diverged");
    pair.source.ok(&["failback", "g", "--generation", &old]);
    follows(&pair.source);
    pair.replica.wait("in-sync");
    pair.replica.wait("applied");
    let now = image(&pair.replica_image("data"));
    assert!(image(&pair.source_image("data")) == now);
    assert!(image(&third_images.join("data")) == now);
}
