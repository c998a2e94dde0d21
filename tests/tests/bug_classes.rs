//! Known bug classes of the field, a scenario each. `xtask/mutants.toml` names the guards that it
//! watches; `cargo xtask mutants --guards` takes them out one at a time and sees it fail.

use vgship::ship::verdict::{ReplicaPoint, Verdict};
use vgship_base::extent::Extent;
use vgship_base::ids::{Generation, Seq};
use vgship_base::record::ResyncReason;
use vgship_base::sim::Rng;
use vgship_tests::world::World;
use vgship_tests::world::faults::Settings;

fn world() -> World {
    World::in_sync_with(Settings::plain())
}

/// A world in which some extents of volume 0 differ and stand in the map; no region is marked.
fn dirty(extents: std::ops::Range<u64>) -> World {
    let mut world = world();
    world.cut(0);
    for extent in extents {
        world.write(0, extent * 4096, 4096, 9);
    }
    world.restart_source(false);
    world.connect(0);
    world.begin_resync(0);
    world
}

/// What the replica said when it was last asked.
fn point(world: &mut World, index: usize) -> ReplicaPoint {
    world.replicas[index].life.as_mut().expect("it runs").hello().expect("its disk is well")
}

/// Another replication system forgot an extent when it was offered or sent; then a crash of the
/// source, before the replica had it, left them different for good.
#[test]
fn map_cleared_too_early() {
    for sent in [false, true] {
        let mut world = dirty(5..6);
        world.read_all(0);
        if sent {
            world.ship_out(0);
            world.apply_all(0);
            world.hear(0);
            world.read_all(0); // asked for, read, in the outbox
        }
        assert!(world.known(0).dirty.is_empty(), "it is in flight");
        world.write_ledger();
        world.restart_source(true); // asserts I3
        world.settle();
    }
}

/// Another one forgot a write when the replica had it; then a power cut of the source took it out
/// of the system's cache, and the replica was ahead without anybody knowing.
#[test]
fn source_page_cache_lost_after_shipping() {
    let mut lost = 0;
    for place in 0..4 {
        let mut world = world();
        for extent in 0..3 {
            world.write(0, (place * 4 + extent) * 4096, 4096, 3);
        }
        world.ship_out(0);
        world.apply_all(0);
        world.hear(0);
        world.replica_checkpoint(0);
        world.hear(0);
        world.tick(1000);
        for _ in 0..3 {
            world.write_ledger(); // no client flushes
        }
        world.restart_source(true); // asserts I3
        world.settle();
        lost += world.coverage.count("offer answered: needed in parts");
    }
    assert!(lost > 0, "no power cut took anything");
}

/// A source never writes over a history that is not its own: a replica that belongs to another, or
/// that went on by itself behind the fork, is left alone until a person chooses.
#[test]
fn resync_in_the_wrong_direction() {
    let mut world = world();
    world.write(0, 0, 4096, 1);
    world.settle();
    let (id, before) = (world.known(0).id, world.replicas[0].images());
    let ours = point(&mut world, 0);
    world.cut(0);
    let other = ReplicaPoint { generation: Generation([0xee; 16]), ..ours };
    // A source that began a new generation: what the replica wrote behind the fork is its own.
    let fresh = Generation([0xdd; 16]);
    let ahead = ReplicaPoint { durable: Seq(world.life().source.issued().0 + 9), ..ours };
    let verdict = world.life().source.link_up(id, &ahead, fresh);
    assert!(matches!(verdict, Verdict::Full { new_generation: true, .. }));
    world.life().source.link_lost(id);
    let beyond = ReplicaPoint { durable: ahead.durable.next(), ..ours };
    for point in [other, beyond] {
        let verdict = world.life().source.link_up(id, &point, Generation([0xcc; 16]));
        assert_eq!(verdict, Verdict::Diverged, "{point:?}");
        world.tick(1);
        assert!(!world.known(0).linked() && world.known(0).resync.is_none());
    }
    assert_eq!(world.replicas[0].images(), before);
}

/// Extents of a repair that was interrupted at any stage are repaired by the next one.
#[test]
fn repair_interrupted_in_the_middle() {
    type Interrupt = fn(&mut World);
    let interrupts: [Interrupt; 4] = [
        |world| world.cut(0),
        |world| {
            let id = world.known(0).id;
            world.life().source.spill_lost(id);
        },
        |world| world.restart_source(true),
        |world| {
            world.replica_checkpoint(0);
            world.replica_crashes(0, true);
            world.start_all();
        },
    ];
    for (place, interrupt) in interrupts.iter().enumerate() {
        let mut world = dirty(0..8);
        for _ in 0..3 {
            world.next_job(0);
            world.read_step(0);
            world.read_step(0);
        }
        world.ship_out(0);
        world.apply_all(0);
        world.hear(0); // asked for
        for _ in 0..4 {
            world.next_job(0);
            world.read_step(0);
        }
        world.send(0); // some are shipped, some are being read
        let known = world.known(0);
        let open: Vec<Extent> = known.flight.extents().collect();
        assert!(open.len() > 3 && !known.dirty.is_empty(), "in the middle");
        interrupt(&mut world);
        assert!(world.known(0).flight.is_empty(), "interrupt {place} ends all that was in flight");
        let map = world.known(0).durable_dirty();
        let lost = |extent: &&Extent| !map.sets()[extent.volume.index()].contains(extent.index);
        assert_eq!(open.iter().find(lost), None, "interrupt {place}");
        world.start_all();
        world.connect(0);
        world.settle();
    }
}

/// A write that overlaps an extent under resync is neither lost nor overwritten by what was read
/// before it, whether it came while the extent was read or is still under way.
#[test]
fn write_overlapping_an_extent_under_resync() {
    for whole in [true, false] {
        let mut world = dirty(5..6);
        world.exchange(0); // asked for
        if whole {
            world.next_job(0);
            world.read_step(0); // read
            world.write(0, 5 * 4096 + 512, 1024, 10);
        } else {
            world.begin_write(0, 5 * 4096 + 512, 1024, 10);
            world.next_job(0);
            world.read_step(0); // read without what is under way
        }
        let held = "extent held, because it was written while it was read";
        world.read_step(0);
        assert_eq!(world.coverage.count(held), 1, "shipped what was overtaken");
        world.end_writes();
        world.settle();
    }
}

/// A replica that was away while two generations began is known by the lineage, and resynced.
#[test]
fn stale_peer_returning_after_two_generations() {
    let mut world = World::in_sync_with(Settings { replicas: 2, ..Settings::plain() });
    world.cut(0);
    world.write(0, 0, 8192, 1);
    let other = point(&mut world, 1);
    world.cut(1);
    let id = world.known(1).id;
    let mut generation = other.generation;
    for fresh in [Generation([0xa1; 16]), Generation([0xa2; 16])] {
        let durable = Seq(world.life().source.issued().0 + 1);
        let ahead = ReplicaPoint { durable, generation, ..other };
        let verdict = world.life().source.link_up(id, &ahead, fresh);
        let lost = Verdict::Full { reason: ResyncReason::Lost, new_generation: true };
        assert_eq!(verdict, lost);
        world.life().source.link_lost(id);
        world.write_ledger();
        generation = fresh;
    }
    world.write(0, 3 * 4096, 4096, 2);
    world.connect(0);
    assert_eq!(world.coverage.count("verdict Diverged"), 0, "its generation is an ancestor");
    assert!(world.known(0).linked());
    let all: u64 = world.known(0).dirty.sets().iter().map(vgship_base::extent::BitSet::bits).sum();
    assert_eq!(world.known(0).dirty.count(), all, "nothing that it holds is believed");
    world.settle();
}

/// A power cut tears a record of the journal and keeps later ones whole: none of them is read, none
/// comes back when the journal has gone on, and nobody calls it damage.
#[test]
fn torn_journal_tail_with_later_whole_records() {
    let mut torn = 0;
    for place in 0..60 {
        let mut world = world();
        world.rng = Rng::new(place);
        world.write(0, place % 16 * 4096, 4096, 1);
        world.ship_out(0);
        for step in 0..12 {
            // As short as can be: so that a record of few sectors survives behind one that is torn.
            world.write(0, (place + step) % 16 * 4096, 512, 2);
            world.send(0);
            world.deliver(0); // in the journal, not flushed
        }
        let before = world.replicas[0].life.as_ref().expect("it runs").admit.point().seq;
        world.replica_crashes(0, true);
        world.start_all(); // asserts that what was promised is there, and no damage is reported
        let after = world.replicas[0].life.as_ref().expect("it runs").applied.seq;
        torn += u32::from(after < before);
        world.settle();
        world.write(0, place % 16 * 4096, 4096, 3);
        world.ship_out(0);
        world.replica_crashes(0, true);
        world.settle();
    }
    assert!(torn > 10, "{torn} of 60");
}
