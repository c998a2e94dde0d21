//! Bounded lag: writers are slowed for a replica that is behind, and for no other.

use vgship::ship::pace::{LagLimit, LagPolicy, OnLag};
use vgship_base::sim::Rng;
use vgship_tests::world::World;
use vgship_tests::world::faults::Settings;

const LIMIT: u64 = 64 << 10;

/// The largest write, with its record: it may begin while any budget is left.
const WRITE: u64 = (8 << 10) + 64;

fn world(seed: u64, act: OnLag) -> World {
    let lag = Some(LagPolicy { limit: LagLimit::Bytes(LIMIT), act });
    let mut settings = Settings { lag, ram: 64 << 20, ..Settings::lively() };
    // Far more is written than the link takes.
    settings.weights[0] = 30;
    let mut world = World::new(settings, Rng::new(seed), false);
    world.start_all();
    world.settle();
    world
}

/// The most that was ever on its way.
fn worst(act: OnLag) -> (u64, u64) {
    let (mut worst, mut slowed) = (0, 0);
    for seed in 0..20 {
        let mut world = world(seed, act);
        world.disorder(10_000, |world| worst = worst.max(world.known(0).outbox.held_bytes()));
        slowed += world.coverage.count("writer slowed");
        world.settle();
    }
    (worst, slowed)
}

#[test]
fn the_lag_of_a_connected_replica_stays_bounded() {
    let (free, never) = worst(OnLag::Alert);
    let (slow, often) = worst(OnLag::Slow);
    assert!(never == 0 && often > 1000, "{never}, {often}");
    assert!(free > 3 * LIMIT, "writers are too slow to show anything: {free}");
    assert!(slow <= 2 * LIMIT + WRITE, "{slow} bytes behind, with a limit of {LIMIT}");
}

#[test]
fn nobody_is_slowed_for_a_replica_that_is_away() {
    let mut world = world(1, OnLag::Slow);
    world.cut(0);
    world.tick(1);
    for place in 0..200 {
        world.write(0, (place % 16) * 4096, 4096, 1);
        world.tick(1);
    }
    assert!(world.known(0).outbox.held_bytes() > 4 * LIMIT);
    assert_eq!(world.coverage.count("writer slowed"), 0);
    world.connect(0);
    world.settle();
}
