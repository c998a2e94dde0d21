//! Templates with real agents: made of a point, proven, copied, used.

use std::path::Path;

use super::common::{MIB, Nbd, Pair, noise};

fn image(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Damages the largest object of a store.
fn damage(store: &Path) {
    let mut folders = vec![store.join("objects")];
    let mut largest = (0, None);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let found = entry.metadata().unwrap();
            match found.is_dir() {
                true => folders.push(entry.path()),
                false if found.len() > largest.0 => largest = (found.len(), Some(entry.path())),
                false => {}
            }
        }
    }
    let path = largest.1.unwrap();
    let mut bytes = image(&path);
    // All over it: an object may hold chunks that this template does not need.
    bytes.iter_mut().step_by(64 << 10).for_each(|byte| *byte ^= 1);
    std::fs::write(path, bytes).unwrap();
}

/// Goal: a template is the point that it was made of, stored once, in any store, for any agent with
/// the key; what is damaged is found and what is in use stays.
#[test]
fn a_template_is_the_point_that_it_was_made_of() {
    let pair = Pair::new(&[("data", 6 * MIB), ("log", MIB)], &[]);
    let mut nbd = pair.open("data");
    nbd.write(0, &noise(1, 3 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let base = image(&pair.source_image("data"));
    nbd.write(MIB, &noise(2, MIB)).unwrap();
    pair.source.ok(&["marker", "g", "later"]);
    let later = image(&pair.source_image("data"));

    let agent = &pair.replica;
    let first = agent.json(&["template", "create", "one", "--from", "g@base"]);
    assert!(first["stored_bytes"].as_u64() >= Some(3 * MIB), "{first}");
    let second = agent.json(&["template", "create", "two", "--from", "g@marker:later"]);
    let stored = second["stored_bytes"].as_u64().unwrap();
    assert!(stored < 2 * MIB, "what both hold is stored once: {second}");
    agent.run(&["template", "create", "one", "--from", "g@base"]).expect(3, &["one"]);

    let other = pair.place.path().join("bucket");
    let url = format!("file://{}", other.display());
    let pushed = agent.json(&["template", "push", "two", "--store", &url]);
    assert!(pushed["stored_bytes"].as_u64() >= Some(3 * MIB));
    let again = agent.json(&["template", "push", "two", "--store", &url]);
    assert_eq!(again["stored_bytes"], 0, "what is there is not sent again");
    agent.ok(&["template", "verify", "two", "--store", &url]);
    agent.ok(&["template", "verify", "two", "--store", &url, "--blind"]);
    let listed = agent.json(&["template", "list", "--store", &url]);
    assert_eq!(listed["templates"].as_array().unwrap().len(), 1);

    // Any point's images and environments come from it as from the replica.
    let to = agent.path("images");
    let dir = to.to_str().unwrap();
    agent.ok(&["env", "create", "e", "--from", "two", "--store", &url, "--to-dir", dir]);
    assert!(image(&to.join("data")) == later);
    agent.ok(&["env", "create", "e", "--from", "one", "--nbd"]);
    let mut env = Nbd::open_export(&agent.nbd_socket(), "env/e/g/data").unwrap();
    assert!(env.read(0, 6 << 20).unwrap() == base);
    env.write(0, &noise(9, MIB)).unwrap();
    drop(env);
    agent.run(&["template", "delete", "one"]).expect(3, &["environment e"]);
    agent.ok(&["env", "destroy", "e"]);

    // The source's agent has another key: it sees that there is one, and can prove its objects.
    let listed = pair.source.json(&["template", "list", "--store", &url]);
    assert!(listed["templates"][0]["group"].is_null(), "{listed}");
    pair.source.ok(&["template", "verify", "two", "--store", &url, "--blind"]);
    std::fs::copy(agent.path("key"), pair.source.path("key")).unwrap();
    pair.source.ok(&["template", "verify", "two", "--store", &url]);

    damage(&other);
    agent.run(&["template", "verify", "two", "--store", &url]).expect(1, &["damaged"]);
    agent.run(&["template", "verify", "two", "--store", &url, "--blind"]).expect(1, &["damaged"]);
    agent.ok(&["template", "push", "two", "--store", &url, "--mend"]);
    agent.ok(&["template", "verify", "two", "--store", &url]);
}

/// Goal: the last point at which a check passes is found to the record.
#[test]
fn bisect_finds_the_write_that_broke_it() {
    let pair = Pair::new(&[("data", MIB)], &[]);
    let mut nbd = pair.open("data");
    nbd.write(0, &vec![7; 4096]).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "good"]);
    for step in 1..40u64 {
        nbd.write(8192, &noise(step, 4096)).unwrap();
        if step == 23 {
            nbd.write(0, &vec![8; 512]).unwrap();
            nbd.write(16_384, &noise(99, 512)).unwrap();
        }
    }
    pair.source.wait("applied");
    let check = "test \"$(qemu-io -f raw -c 'read -P 7 0 512' \
                 \"nbd+unix:///${VGSHIP_EXPORTS#data }?socket=$VGSHIP_NBD_SOCKET\" | \
                 grep -c 'Pattern verification failed')\" = 0";
    let found = pair.replica.json(&["bisect", "g", "--check", check, "--from", "good"]);
    let seq = |field: &str| {
        let text = found[field].as_str().unwrap();
        text.split_once('.').unwrap().1.parse::<u64>().unwrap()
    };
    assert_eq!(seq("first_bad"), seq("last_good") + 1, "{found}");
    let bad = format!("g@seq:{}", found["first_bad"].as_str().unwrap());
    let to = pair.replica.path("bad");
    pair.replica.ok(&["snapshot", "export", &bad, "--to", to.to_str().unwrap()]);
    let bad = image(&to.join("data"));
    assert!(bad[..512] == [8; 512] && bad[16_384..16_896] == [0; 512], "it is that very write");
    let left = pair.replica.json(&["env", "list"]);
    assert_eq!(left["environments"].as_array().unwrap().len(), 0);
}
