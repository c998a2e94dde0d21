//! The status tells the truth, also where it is unpleasant.

use std::fs;

use serde_json::Value;

use super::common::{MIB, Pair, noise};

#[test]
fn a_replica_in_the_midst_of_a_resync_says_that_it_is_not_consistent() {
    let mut pair = Pair::unpaired(&[("data", 64 * MIB)], &[]);
    fs::write(pair.source_image("data"), noise(5, 64 * MIB)).unwrap();
    pair.join();
    pair.relay.cut_after(16 * MIB);
    let inside = |group: &Value| {
        group["state"] == "resyncing" && group["resync"]["done_bytes"].as_u64() > Some(0)
    };
    let seen = pair.replica.until("resyncing", inside);
    assert_eq!(seen["consistent"], false);
    let text = pair.replica.ok(&["status", "g"]);
    assert!(text.contains("this replica is NOT consistent"), "{text}");
    let seen = pair.source.group();
    assert_eq!(seen["consistent"], false);
    assert!(seen["dirty_bytes"].as_u64() > Some(0), "{seen}");
    pair.replica.run(&["wait", "g", "--for", "applied", "--timeout", "1s"]).expect(4, &[]);
    pair.source.run(&["wait", "g", "--for", "durable", "--timeout", "1s"]).expect(4, &[]);

    pair.replica.kill();
    pair.replica.start();
    let seen = pair.replica.group();
    assert_eq!(seen["consistent"], false, "nor after a restart in its midst");
    let text = pair.replica.ok(&["status"]);
    assert!(text.contains("this replica is NOT consistent"), "{text}");

    pair.relay.restore();
    pair.source.wait("in-sync");
    pair.replica.wait("applied");
    pair.assert_equal();
    let text = pair.replica.ok(&["status"]);
    assert!(!text.contains("NOT consistent"), "{text}");
    assert_eq!(pair.replica.group()["consistent"], true);
}

#[test]
fn the_status_has_all_keys_of_the_contract() {
    let pair = Pair::new(&[("data", 4 * MIB), ("log", MIB)], &[]);
    pair.open("data").write(0, &[1; 4096]).unwrap();
    pair.source.wait("applied");
    for (agent, role) in [(&pair.source, "source"), (&pair.replica, "replica")] {
        let all = agent.json(&["status"]);
        assert!(all["agent"]["name"].is_string() && all["agent"]["version"].is_string(), "{all}");
        let group = agent.until("in sync", |group| group["state"] == "in-sync");
        assert_eq!(group["name"], "g");
        assert_eq!(group["role"], role);
        assert_eq!(group["mode"], "async");
        assert_eq!(group["generation"].as_str().unwrap().len(), 32);
        assert_eq!(group["volumes"][0]["name"], "data");
        assert_eq!(group["volumes"][0]["bytes"], 4 * MIB);
        assert_eq!(group["volumes"][1]["name"], "log");
        for number in ["issued", "sent", "durable", "applied"] {
            assert!(group["seq"][number].as_u64() > Some(0), "{number}: {group}");
        }
        assert!(group["lag"]["bytes"].is_u64() && group["lag"]["seconds"].is_number(), "{group}");
        assert!(group["rpo"]["seconds"].is_number(), "{group}");
        assert!(group["rpo"]["objective_seconds"].is_null(), "{group}");
        assert_eq!(group["dirty_bytes"], 0);
        for key in ["reason", "resync"] {
            assert_eq!(group.get(key), Some(&Value::Null), "{key}");
        }
        let peer = &group["peers"][0];
        assert!(peer["name"].is_string() && peer["address"].is_string(), "{peer}");
        assert!(peer["since"].is_string() && peer["connected"] == true, "{peer}");
        assert!(peer.get("last_error").is_some(), "{peer}");
    }
    let one = pair.source.group();
    let other = pair.replica.group();
    assert_eq!(one["generation"], other["generation"]);
}
