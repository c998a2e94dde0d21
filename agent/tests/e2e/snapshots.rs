//! Snapshots, points in time and environments with real agents and real clients.

use std::path::Path;

use super::common::{MIB, Pair, noise, until};

fn image(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn names(pair: &Pair) -> Vec<String> {
    let all = pair.replica.json(&["snapshot", "list", "g"]);
    let all = all["snapshots"].as_array().unwrap();
    all.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

fn export(pair: &Pair, point: &str, to: &str) -> Vec<u8> {
    let to = pair.replica.path(to);
    pair.replica.ok(&["snapshot", "export", point, "--to", to.to_str().unwrap()]);
    image(&to.join("data"))
}

/// Goal: a snapshot made at the source, a marker, and any record between are found on the replica
/// and read as the source was there, whatever is written after.
#[test]
fn what_was_is_there_again() {
    let mut pair = Pair::new(&[("data", 8 * MIB), ("log", MIB)], &[]);
    pair.source.wait("in-sync");
    let mut nbd = pair.open("data");
    let mut states = Vec::new();
    for step in 0..4u64 {
        nbd.write(step * MIB / 2, &noise(step + 1, MIB)).unwrap();
        let name = format!("s{step}");
        let made = match step {
            2 => pair.source.json(&["marker", "g", &name]),
            _ => pair.source.json(&["snapshot", "create", "g", &name]),
        };
        assert_eq!(made["replicas"][0], "replica", "{made}");
        states.push((made["at"].as_str().unwrap().to_owned(), image(&pair.source_image("data"))));
    }
    nbd.write(0, &noise(99, 8 * MIB)).unwrap();
    pair.source.wait("applied");
    until("the first automatic snapshot is there", || {
        names(&pair).iter().any(|it| it.starts_with("auto-"))
    });

    assert!(export(&pair, "g@s0", "e0") == states[0].1);
    assert!(export(&pair, "g@s1", "e1") == states[1].1);
    assert!(export(&pair, "g@marker:s2", "e2") == states[2].1);
    assert!(export(&pair, &format!("g@seq:{}", states[1].0), "e3") == states[1].1);
    assert!(export(&pair, "g@now", "e4") == image(&pair.source_image("data")));

    // The same after both machines' programs were killed.
    pair.replica.kill();
    pair.replica.start();
    pair.source.wait("in-sync");
    assert!(export(&pair, "g@s3", "e5") == states[3].1);
    assert!(export(&pair, "g@marker:s2", "e6") == states[2].1);

    let history = pair.replica.json(&["history", "g"]);
    assert_eq!(history["inside_resync"], false);
    assert_eq!(history["markers"].as_array().unwrap().len(), 4, "{history}");
    assert!(history["oldest"]["seq"].as_u64() < history["newest"]["seq"].as_u64());

    let told = pair.source.json(&["snapshot", "list", "g"]);
    let told = told["snapshots"].as_array().unwrap().clone();
    assert!(told.iter().any(|it| it["name"] == "s1" && it["replica"] == "replica"), "{told:?}");

    // What may not be deleted is not, and says why; what was deleted is gone and gives room back.
    pair.replica.ok(&["snapshot", "pin", "g@s0"]);
    pair.replica.run(&["snapshot", "delete", "g@s0"]).expect(3, &["s0", "pinned"]);
    pair.replica.ok(&["snapshot", "unpin", "g@s0"]);
    for name in names(&pair) {
        pair.replica.ok(&["snapshot", "delete", &format!("g@{name}")]);
    }
    pair.replica.run(&["snapshot", "delete", "g@s0"]).expect(3, &["no snapshot s0"]);
    until("the room is given back", || {
        pair.replica.json(&["snapshot", "list", "g"])["needed_bytes"] == 0
    });
    until("the source knows that they are gone", || {
        let told = pair.source.json(&["snapshot", "list", "g"]);
        let told = told["snapshots"].as_array().unwrap().clone();
        told.iter().all(|it| it["origin"] == "automatic")
    });
    pair.source.run(&["history", "g"]).expect(3, &["replica"]);
    pair.replica.run(&["marker", "g", "x"]).expect(3, &["source"]);
    pair.replica
        .run(&["snapshot", "export", "g@nothing", "--to", "/nowhere"])
        .expect(3, &["nothing"]);
}

/// Goal: an environment is writable at once, changes nothing but itself (I8), outlives the agent,
/// keeps its snapshot, and leaves nothing behind.
#[test]
fn environments_are_their_own() {
    let mut pair = Pair::new(&[("data", 4 * MIB)], &[]);
    pair.source.wait("in-sync");
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 4 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let base = image(&pair.source_image("data"));
    for env in ["one", "two"] {
        let made = pair.replica.json(&["env", "create", env, "--from", "g@base", "--nbd"]);
        assert_eq!(made["exports"][0], format!("env/{env}/g/data"));
    }
    let open = |pair: &Pair, env: &str| {
        super::common::Nbd::open_export(&pair.replica.nbd_socket(), &format!("env/{env}/g/data"))
            .unwrap()
    };
    let mut one = open(&pair, "one");
    assert!(one.read(0, 4 << 20).unwrap() == base);
    one.write(MIB, &noise(7, MIB)).unwrap();
    one.flush().unwrap();
    nbd.write(0, &noise(3, MIB)).unwrap();
    pair.source.wait("applied");
    assert!(open(&pair, "two").read(0, 4 << 20).unwrap() == base);
    drop(one);
    pair.replica.run(&["snapshot", "delete", "g@base"]).expect(3, &["environment one"]);
    pair.assert_equal();

    pair.replica.kill();
    pair.replica.start();
    let mut one = open(&pair, "one");
    let mut changed = base.clone();
    let mib = usize::try_from(MIB).unwrap();
    changed[mib..2 * mib].copy_from_slice(&noise(7, MIB));
    assert!(one.read(0, 4 << 20).unwrap() == changed);
    drop(one);
    pair.replica.ok(&["env", "destroy", "one"]);
    pair.replica.ok(&["env", "extend", "two", "--lease", "100ms"]);
    until("the lease is over", || {
        pair.replica.json(&["env", "list"])["environments"].as_array().unwrap().is_empty()
    });
    let left = || std::fs::read_dir(pair.replica.path("environments")).unwrap().count();
    until("nothing is left behind", || left() == 0);
    until("its snapshot can go", || pair.replica.run(&["snapshot", "delete", "g@base"]).code == 0);
}

/// Goal: what a mask takes out nobody sees, and without it there is no environment.
#[test]
fn nobody_sees_what_is_not_masked() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    pair.open("data").write(0, &noise(1, MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let script = |name: &str, text: &str| {
        let path = pair.replica.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path.display().to_string()
    };
    let bad = script("bad", "echo no such table; exit 3");
    let create = ["env", "create", "e", "--from", "g@base", "--nbd", "--mask"];
    pair.replica.run(&[&create[..], &[&bad]].concat()).expect(1, &["no such table"]);
    assert_eq!(pair.replica.json(&["env", "list"])["environments"].as_array().unwrap().len(), 0);
    pair.replica.run(&["env", "destroy", "e"]).expect(3, &["no environment e"]);

    let seen = pair.replica.path("seen");
    let good = script(
        "good",
        &format!(
            "set -e\nexport=${{VGSHIP_EXPORTS#data }}\n\
             qemu-io -f raw -c 'write -P 42 0 64k' -c flush \
             \"nbd+unix:///$export?socket=$VGSHIP_NBD_SOCKET\"\n\
             nbdinfo --list --json \"nbd+unix:///?socket=$VGSHIP_NBD_SOCKET\" > {} || true",
            seen.display()
        ),
    );
    pair.replica.ok(&[&create[..], &[&good]].concat());
    let hidden = std::fs::read_to_string(seen).unwrap();
    assert!(!hidden.contains("mask-") && !hidden.contains("env/e"), "{hidden}");
    let export = "env/e/g/data";
    let mut env = super::common::Nbd::open_export(&pair.replica.nbd_socket(), export).unwrap();
    assert!(env.read(0, 64 << 10).unwrap().iter().all(|byte| *byte == 42));
}
