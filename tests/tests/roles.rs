//! A fixed set of seeds of the world in which roles change. More: `cargo xtask sim --roles --seeds N`.

use vgship_tests::roles::run_seed;
use vgship_tests::world::faults::Coverage;

fn run(from: u64, count: u64) {
    let mut coverage = Coverage::default();
    for seed in from..from + count {
        match run_seed(seed, false) {
            Ok(found) => coverage.add(&found),
            Err(text) => panic!("{text}"),
        }
    }
    println!("{coverage}");
    for what in [
        "I1 checked",
        "I2: nothing is missing after a switchover",
        "I3 checked of a side that gives its history up",
        "I5 checked: a fork or a branch",
        "a handover that did not happen was taken back",
        "I7: a failback shipped something",
        "settled",
    ] {
        assert!(coverage.count(what) > 0, "no seed met: {what}");
    }
}

#[test]
fn roles_hold_1() {
    run(0, 80);
}

#[test]
fn roles_hold_2() {
    run(1_000_000, 80);
}
