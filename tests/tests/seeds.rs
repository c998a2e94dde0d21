//! A fixed set of seeds of the simulation. More: `cargo run --release -p vgship-tests --bin sim`.

use vgship_tests::world::faults::Coverage;
use vgship_tests::world::run_seed;

fn run(from: u64, count: u64) {
    let mut coverage = Coverage::default();
    for seed in from..from + count {
        match run_seed(seed, false) {
            Ok(found) => coverage.add(&found),
            Err(text) => panic!("{text}"),
        }
    }
    println!("{coverage}");
    for what in ["I1 checked", "I3 checked after a start", "resync ended", "verdict Continue"] {
        assert!(coverage.count(what) > 0, "no seed met: {what}");
    }
}

#[test]
fn seeds_hold_1() {
    run(0, 500);
}

#[test]
fn seeds_hold_2() {
    run(500, 500);
}

#[test]
fn seeds_hold_3() {
    run(1_000_000, 500);
}
