//! R10, what sync mode waits for: a scenario for each of its guards (see `docs/simulation.md`).

use vgship::ship::standing::{Mode, OnTimeout, Out, Standing, SyncPolicy};
use vgship_tests::world::World;
use vgship_tests::world::faults::Settings;

/// Longer than a sync replica that was late is left alone the first time. Unit: milliseconds.
const HOLD: u64 = 1500;

const TIMEOUT: u64 = 200;

fn in_force(on_timeout: OnTimeout) -> World {
    let sync = SyncPolicy { timeout: TIMEOUT, on_timeout };
    let world =
        World::in_sync_with(Settings { modes: vec![Mode::Sync], sync, ..Settings::plain() });
    assert_eq!(standing(&world), Standing::InForce);
    world
}

fn standing(world: &World) -> Standing {
    world.known(0).sync.standing()
}

/// A write that its volume has taken.
fn write(world: &mut World, offset: u64, fill: u8) {
    world.begin_write(0, offset, 8192, fill);
    world.write_reaches_volume();
    world.write_ends();
}

/// Whether applications have been told of all that they wrote, as far as it goes by now.
fn all_told(world: &mut World) -> bool {
    for _ in 0..20 {
        world.acknowledge_step();
    }
    world.life().acking.is_empty()
}

/// A world whose link is gone for so long that sync is not in force, and is back.
fn joining() -> World {
    let mut world = in_force(OnTimeout::Degrade);
    world.cut(0);
    world.tick(1);
    world.tick(TIMEOUT);
    assert_eq!(standing(&world), Standing::Out(Out::Disconnected));
    write(&mut world, 8192, 1);
    assert!(all_told(&mut world), "nobody waits for it");
    world.tick(HOLD);
    world.connect(0);
    world.tick(1);
    assert!(matches!(standing(&world), Standing::Joining { .. }), "{:?}", standing(&world));
    world
}

#[test]
fn r10_a_write_is_acknowledged_when_a_sync_replica_holds_it_durably() {
    let mut world = in_force(OnTimeout::Degrade);
    write(&mut world, 8192, 1);
    assert!(!all_told(&mut world), "the replica has heard nothing of it");
    world.ship_out(0);
    assert!(!all_told(&mut world), "the source does not know it yet");
    world.hear(0);
    assert!(all_told(&mut world)); // asserts I2
    assert_eq!(world.coverage.count("write waited for a sync replica"), 1);
    world.settle();
}

#[test]
fn r10_a_sync_write_is_stable_on_the_source_as_well() {
    let mut world = in_force(OnTimeout::Degrade);
    write(&mut world, 8192, 1);
    world.ship_out(0);
    world.hear(0);
    assert!(all_told(&mut world));
    world.restart_source(true); // asserts that it is there: a resync would take it from the replica
    world.settle();
}

#[test]
fn r10_a_sync_write_whose_flush_failed_is_an_error() {
    let mut world = in_force(OnTimeout::Degrade);
    world.source.disks[0].fail_flushes(1);
    write(&mut world, 8192, 1);
    world.ship_out(0);
    world.hear(0);
    assert!(all_told(&mut world));
    assert_eq!(world.coverage.count("sync write lost its flush: an error"), 1);
    world.settle();
}

#[test]
fn r10_a_replica_inside_a_resync_does_not_count() {
    let mut world = in_force(OnTimeout::Degrade);
    write(&mut world, 8192, 1);
    world.restart_source(false); // what was marked is offered
    world.connect(0);
    world.begin_resync(0);
    assert_eq!(standing(&world), Standing::Out(Out::Resyncing));
    world.settle();
    assert_eq!(standing(&world), Standing::InForce);
}

#[test]
fn r10_sync_is_in_force_again_only_when_all_that_was_acknowledged_is_there() {
    let mut world = joining();
    world.tick(1);
    world.tick(1); // asserts I2
    assert!(matches!(standing(&world), Standing::Joining { .. }), "a write is still on its way");
    world.exchange(0);
    world.tick(1);
    assert_eq!(standing(&world), Standing::InForce);
    world.settle();
}

#[test]
fn r10_writes_wait_for_a_replica_that_joins() {
    let mut world = joining();
    write(&mut world, 32_768, 2);
    assert!(!all_told(&mut world), "it would be in force without it");
    world.exchange(0);
    assert!(all_told(&mut world));
    world.settle();
}

#[test]
fn r10_with_stall_writes_wait_however_long_the_link_is_gone() {
    let mut world = in_force(OnTimeout::Stall);
    world.cut(0);
    world.tick(1);
    world.tick(100 * TIMEOUT);
    write(&mut world, 8192, 1);
    assert!(!all_told(&mut world));
    world.tick(100 * TIMEOUT);
    assert!(!all_told(&mut world));
    world.connect(0);
    world.tick(1);
    world.exchange(0);
    world.tick(1);
    assert!(all_told(&mut world));
    world.settle();
}
