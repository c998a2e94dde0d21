//! One scenario per rule of the design; each fails when its guard is taken out (see
//! `docs/simulation.md`).

use vgship::ship::replica::Flow;
use vgship::ship::verdict::Verdict;
use vgship_base::disk::Disk;
use vgship_base::folder::Folder;
use vgship_base::ids::VolumeId;
use vgship_base::record::ResyncReason;
use vgship_base::sim::Rng;
use vgship_tests::world::World;
use vgship_tests::world::faults::{Fault, Settings};

fn world() -> World {
    World::in_sync_with(Settings::plain())
}

fn two() -> World {
    World::in_sync_with(Settings { replicas: 2, ..Settings::plain() })
}

/// A world in which extent 5 of volume 0 differs, is in the fine map, and no region is marked.
fn dirty() -> World {
    let mut world = world();
    world.cut(0);
    world.write(0, 5 * 4096, 4096, 9);
    world.restart_source(false);
    assert_eq!(world.life().source.marked_regions(), 0, "the map took over from the marks");
    assert!(world.known(0).dirty.sets()[0].contains(5));
    world
}

#[test]
fn r1_an_extent_in_flight_is_dirty_on_disk() {
    let mut world = dirty();
    world.connect(0);
    world.begin_resync(0);
    world.read_all(0);
    assert!(!world.known(0).flight.is_empty() && world.known(0).dirty.is_empty());
    world.write_ledger();
    world.restart_source(true); // asserts I3
    world.settle();
}

#[test]
fn r1_a_broken_link_returns_what_was_in_flight_to_the_map() {
    let mut world = dirty();
    world.connect(0);
    world.begin_resync(0);
    world.read_all(0);
    world.ship_out(0);
    world.cut(0);
    assert!(world.known(0).dirty.sets()[0].contains(5));
    world.connect(0);
    world.settle();
}

#[test]
fn r1_an_answer_to_another_offer_ends_no_flight() {
    let mut world = dirty();
    world.connect(0);
    world.begin_resync(0);
    world.read_all(0);
    let (session, last) = (world.known(0).resync.unwrap().session, world.life().source.issued());
    let id = world.known(0).id;
    let before = world.known(0).flight.len();
    world.life().source.answered(id, session, last.next(), None);
    world.life().source.answered(id, session + 1, last, None);
    assert_eq!(world.known(0).flight.len(), before);
    world.settle();
}

#[test]
fn r2_a_link_flap_is_no_resync() {
    let mut world = world();
    world.write(0, 0, 8192, 1);
    world.ship_out(0);
    world.write(0, 4096, 8192, 2);
    let offers = world.offers[0];
    world.cut(0);
    world.write(1, 0, 512, 3);
    world.connect(0);
    assert_eq!(world.coverage.count("verdict Continue"), 1);
    world.settle();
    assert_eq!(world.offers[0], offers, "nothing needed to be offered");
}

#[test]
fn r3_what_the_source_lost_in_a_power_cut_is_found_by_its_marks() {
    let mut world = world();
    for place in 0..12 {
        world.write(0, place * 4096, 4096, 7);
    }
    world.ship_out(0);
    world.apply_all(0);
    world.hear(0);
    world.restart_source(true); // asserts I3
    world.settle();
    assert!(world.coverage.count("offer answered: needed in parts") > 0, "nothing was lost");
}

#[test]
fn r4a_a_region_stays_marked_until_the_replica_has_its_writes() {
    let mut world = world();
    world.cut(0);
    world.write(0, 0, 4096, 1);
    world.tick(50);
    world.checkpoint();
    assert_eq!(world.life().source.marked_regions(), 1);
    world.restart_source(false); // asserts I3: the outbox is gone
    world.settle();
}

#[test]
fn r4b_a_region_stays_marked_until_its_writes_are_flushed() {
    let mut world = world();
    world.write(0, 0, 16_384, 1);
    world.ship_out(0);
    world.apply_all(0);
    world.hear(0);
    world.tick(50);
    world.write_ledger();
    assert_eq!(world.life().source.marked_regions(), 1);
    world.restart_source(true); // asserts I3: the replica has what the source lost
    world.settle();
}

#[test]
fn r4_after_a_kill_the_volumes_are_flushed_before_anything_is_offered() {
    let mut world = world();
    world.write(0, 0, 16_384, 1);
    world.restart_source(false);
    world.settle(); // the bits and the inherited mark are gone
    world.tick(50);
    world.checkpoint();
    world.restart_source(true); // asserts I3: what the first life wrote is stable
    world.settle();
}

/// Goal: an image that was copied into the replica's volumes beforehand, and still lies in the
/// system's cache, is stored before anything counts on it.
#[test]
fn r4_what_a_resync_finds_equal_is_flushed_before_its_end_counts() {
    let mut world = World::new(Settings::plain(), Rng::new(1), false);
    world.start_all();
    world.write(0, 8192, 8192, 9);
    world.replicas[0].disks[0].write_at(8192, &[9; 8192]).unwrap();
    world.settle();
    world.replica_crashes(0, true);
    world.start_all(); // asserts I1
    world.settle();
}

#[test]
fn r5_a_replica_that_stops_inside_a_resync_knows_it() {
    let mut world = dirty();
    world.connect(0);
    world.begin_resync(0);
    world.exchange(0);
    world.replica_checkpoint(0);
    world.replica_crashes(0, true);
    world.start_all();
    let point = world.replicas[0].life.as_ref().unwrap().applied;
    assert!(!point.consistent(), "no point inside a resync is consistent");
    world.settle();
}

#[test]
fn r6_a_journal_file_is_never_appended_to_after_it_was_reopened() {
    let mut world = world();
    world.write(0, 0, 4096, 1);
    world.ship_out(0);
    world.write(0, 4096, 4096, 2);
    world.send(0);
    world.deliver(0);
    world.replica_crashes(0, true);
    let folder = world.replicas[0].journal.clone();
    let held = |name: &String| (name.clone(), folder.file(name).unwrap().live());
    let old: Vec<_> = folder.list().unwrap().iter().map(held).collect();
    world.settle();
    world.write(0, 8192, 4096, 3);
    world.settle();
    for (name, bytes) in old {
        let same = folder.file(&name).is_none_or(|file| file.live() == bytes);
        assert!(same, "{name} was written to after it was reopened");
    }
}

#[test]
fn r7_a_resync_ends_only_when_what_was_shipped_is_durable() {
    let mut world = dirty();
    world.connect(0);
    world.begin_resync(0);
    world.read_all(0);
    world.tick(1);
    assert_eq!(world.known(0).resync.unwrap().ends, None, "offers are not answered");
    world.ship_out(0);
    world.apply_all(0);
    world.hear(0);
    world.read_all(0);
    world.send(0);
    world.tick(1);
    assert_eq!(world.known(0).resync.unwrap().ends, None, "what was shipped is not durable");
    world.ship_out(0);
    world.hear(0);
    world.tick(1);
    assert!(world.known(0).resync.unwrap().ends.is_some());
    world.settle();
}

#[test]
fn r8_a_failed_write_is_resynced_from_the_device() {
    let mut world = world();
    world.source.disks[0].fail_writes(1);
    world.write(0, 4096, 8192, 5);
    assert_eq!(world.known(0).wants_resync, Some(ResyncReason::Fault));
    world.settle(); // compares with what the device holds
}

#[test]
fn r8_after_a_failed_flush_everything_since_the_last_good_one_is_resynced() {
    let mut world = world();
    world.write(0, 4096, 8192, 5);
    world.source.disks[0].fail_flushes(1);
    world.flush_now(VolumeId(0));
    assert!(world.known(0).dirty.sets()[0].contains(2));
    world.settle();
}

#[test]
fn r9_the_resync_of_one_replica_is_void_for_the_other() {
    let mut world = two();
    world.cut(0);
    world.replace_replica(0);
    let offers = world.offers.clone();
    world.write(0, 0, 4096, 1);
    world.settle();
    assert!(world.offers[0] > offers[0], "the new one was offered everything");
    assert_eq!(world.offers[1], offers[1], "the other one nothing");
    assert!(world.known(1).chain.is_some(), "its chain went on");
}

#[test]
fn r9_numbers_that_were_never_sent_are_missing_only_before_a_resync_begin() {
    let mut world = World::in_sync_with(Settings { ram: 6000, ..Settings::plain() });
    for place in 0..6 {
        world.write(0, place * 4096, 4096, 6);
    }
    assert!(world.coverage.count("outbox overflowed into the map") > 0);
    world.settle(); // any gap elsewhere is refused by the replica, which panics
}

/// A world whose ledger was replaced by a copy from an earlier start.
fn restored(mut world: World) -> World {
    let start = world.life().source.start();
    world.source.back_up(start);
    world.restart_source(true);
    world.settle();
    world.write(0, 0, 4096, 1);
    world.settle();
    for index in 0..world.replicas.len() {
        world.cut(index);
    }
    world.write(0, 20_480, 4096, 2);
    assert!(world.strike(Fault::LedgerRestored, 0), "the replicas can tell");
    world.start_all();
    world
}

const LOST: &str = "verdict Full { reason: Lost, new_generation: true }";

#[test]
fn r11_a_source_on_an_older_ledger_begins_a_new_generation() {
    let mut world = restored(world());
    let before = world.life().source.generation();
    world.connect(0);
    assert_eq!(world.coverage.count(LOST), 1);
    assert_ne!(world.life().source.generation(), before);
    world.settle();
}

#[test]
fn r11_a_link_that_breaks_after_that_does_not_make_the_replica_diverged() {
    let mut world = restored(world());
    world.connect(0);
    world.cut(0);
    world.connect(0);
    assert_eq!(world.coverage.count("verdict Diverged"), 0);
    world.settle();
}

#[test]
fn r11_starts_that_nobody_met_do_not_hide_an_older_ledger() {
    let mut world = restored(world());
    world.restart_source(true);
    world.restart_source(true);
    world.connect(0);
    assert_eq!(world.coverage.count(LOST), 1);
    world.settle();
}

#[test]
fn r11_the_maps_of_the_other_replicas_are_as_old_as_the_ledger() {
    let mut world = restored(two());
    world.connect(0);
    world.connect(1);
    world.settle();
}

#[test]
fn r11_a_replica_that_lost_what_it_promised_gets_everything() {
    let mut world = world();
    world.write(0, 0, 4096, 1);
    world.settle();
    let mut point = world.replicas[0].life.as_mut().unwrap().hello().unwrap();
    point.durable = vgship_base::ids::Seq(point.durable.0 - 1);
    world.cut(0);
    let (id, fresh) = (world.known(0).id, vgship_base::ids::Generation([9; 16]));
    let verdict = world.life().source.link_up(id, &point, fresh);
    assert_eq!(verdict, Verdict::Full { reason: ResyncReason::Lost, new_generation: true });
}

#[test]
fn r11_a_full_verdict_survives_a_crash_of_the_source() {
    let mut world = world();
    world.write(0, 5 * 4096, 8192, 1);
    world.settle();
    world.tick(50);
    world.checkpoint();
    world.replace_replica(0);
    world.start_all();
    world.connect(0);
    world.begin_resync(0);
    world.ship_out(0);
    world.restart_source(true); // asserts I3: the replica is not new any more
    world.settle();
}

#[test]
fn r13_masked_heads_are_neither_compared_nor_overwritten() {
    let mut world = world();
    world.source.disks[0].write_at(0, &[1; 512]).unwrap();
    world.replicas[0].disks[0].write_at(0, &[2; 512]).unwrap();
    world.write(0, 0, 4096, 3);
    world.settle();
    assert_eq!(world.replicas[0].disks[0].live()[..512], [2; 512]);
    let needed = |world: &World| world.coverage.count("offer answered: needed in parts");
    let before = needed(&world);
    world.restart_source(false);
    world.settle();
    assert_eq!(needed(&world), before, "the heads differ, and that does not count");
}

#[test]
fn r14_a_region_is_marked_before_the_first_write_into_it() {
    let mut world = world();
    world.write(0, 0, 4096, 3);
    world.settle();
    world.tick(50);
    world.checkpoint();
    assert_eq!(world.life().source.marked_regions(), 0);
    world.begin_write(0, 0, 4096, 4);
    world.ship_out(0);
    world.restart_source(true); // asserts I3: the replica has a write that the source never did
    world.settle();
}

#[test]
fn r14_content_that_was_written_while_it_was_read_is_read_again() {
    let mut world = dirty();
    world.connect(0);
    world.begin_resync(0);
    world.exchange(0);
    world.next_job(0);
    world.read_step(0); // read, not yet shipped
    world.write(0, 5 * 4096, 4096, 10);
    let held = "extent held, because it was written while it was read";
    world.read_step(0);
    assert_eq!(world.coverage.count(held), 1);
    world.settle();
}

#[test]
fn r15_offers_are_judged_with_the_writes_before_them_in_the_batch() {
    let mut world = world();
    world.cut(0);
    world.restart_source(false);
    world.connect(0);
    world.write(0, 0, 4096, 11);
    world.tick(1);
    world.settle();
    world.source.disks[0].fail_writes(1);
    world.write(0, 3 * 4096, 4096, 12); // extent 3 is to be offered
    world.tick(200);
    world.write(0, 3 * 4096, 4096, 13);
    world.read_all(0);
    let needed = |world: &World| world.coverage.count("offer answered: needed in parts");
    let before = needed(&world);
    world.settle();
    assert_eq!(needed(&world), before, "the write stood before the offer");
}

#[test]
fn i7_an_interrupted_resync_goes_on_where_it_stopped() {
    let mut world = world();
    world.replace_replica(0);
    world.start_all();
    world.connect(0);
    world.begin_resync(0);
    let all = world.known(0).dirty.count();
    for _ in 0..40 {
        world.next_job(0);
        world.read_step(0);
    }
    world.ship_out(0);
    world.apply_all(0);
    world.hear(0);
    let left = all - world.offers_settled(0);
    let before = world.offers[0];
    world.cut(0);
    world.connect(0);
    world.settle();
    assert!(left < all && world.offers[0] - before <= left, "{left} of {all} were left");
}

#[test]
fn i7_stalled_writes_go_on_when_the_link_is_back() {
    let overflow = vgship::capture::source::Overflow::Stall;
    let mut world = World::in_sync_with(Settings { ram: 6000, overflow, ..Settings::plain() });
    world.cut(0);
    world.writing = true;
    for _ in 0..40 {
        world.write_begins();
        world.write_retries();
        world.write_reaches_volume();
        world.write_ends();
    }
    assert!(world.coverage.count("write stalled") > 0);
    assert!(!world.life().waiting.is_empty());
    world.settle(); // every waiting write ends
}

/// Found by the simulation: a write that began while writes went to the map, and was still under
/// way when the resync began, stood neither in the stream nor in what was read for the offer.
#[test]
fn a_write_under_way_when_a_resync_begins_is_not_lost() {
    let mut world = dirty();
    world.begin_write(0, 9 * 4096, 4096, 21);
    world.connect(0);
    world.begin_resync(0);
    world.exchange(0);
    world.end_writes();
    world.settle();
}

/// Found by the simulation: a region that was just marked counted as idle for ever.
#[test]
fn a_checkpoint_leaves_a_fresh_mark_to_its_write() {
    let mut world = World::in_sync_with(Settings { idle: 30, ..Settings::plain() });
    world.tick(100);
    world.checkpoint();
    let source = &mut world.life().source;
    let data = Some(bytes::Bytes::from(vec![1; 512]));
    let volume = VolumeId(0);
    let span = vgship_base::units::Span::new(0, 512);
    let change = vgship::capture::source::Change { volume, span, data };
    let ready = change.ready(None);
    assert!(matches!(
        source.begin(&change, Some(&ready), true),
        vgship::capture::source::Begin::Mark
    ));
    let wanted = source.wanted_marks();
    source.marked(&wanted);
    world.checkpoint();
    assert_eq!(world.life().source.marked_regions(), 1);
}

/// Promised records that decayed are reported, counted as inconsistent, and healed.
#[test]
fn damage_in_promised_records_is_reported_and_healed() {
    let mut reported = 0;
    for byte in 0..60 {
        let mut world = world();
        world.replica_checkpoint(0);
        // What is damaged is of these writes, wherever the segment before them ended.
        world.replicas[0].life.as_mut().unwrap().journal.rotate().unwrap();
        for place in 0..4 {
            world.write(0, place * 4096, 4096, 30);
            world.ship_out(0);
        }
        let names = world.replicas[0].journal.list().unwrap();
        let file = world.replicas[0].journal.file(names.last().unwrap()).unwrap();
        let len = usize::try_from(file.len()).unwrap();
        file.decay(len * byte / 60, 2);
        world.replicas[0].decayed = true;
        world.replica_crashes(0, false);
        world.start_all();
        let point = world.replicas[0].life.as_ref().unwrap().applied;
        reported += u32::from(point.broken());
        world.settle();
    }
    assert!(reported > 10, "{reported} of 60");
}

/// Resync records of one replica are void for the other, but they take room in its outbox.
#[test]
fn the_resync_of_one_replica_does_not_empty_the_outbox_of_another_that_is_there() {
    let mut world =
        World::in_sync_with(Settings { replicas: 2, ram: 6 << 10, ..Settings::plain() });
    for index in 0..2 {
        world.replace_replica(index);
        world.start_all();
        world.connect(index);
    }
    world.begin_resync(0);
    for _ in 0..20 {
        world.next_job(0);
        world.read_step(0);
    }
    assert_eq!(world.known(1).flow, Flow::Stream, "it would only begin its resync again");
    world.settle();
}

/// The self-check asks outside of resyncs, and a broken link takes its questions back.
#[test]
fn a_check_that_a_broken_link_made_void_does_not_end_the_next_link() {
    let mut world = world();
    world.next_check(0);
    world.check_step(0);
    world.check_step(0);
    world.send(0);
    world.cut(0);
    world.connect(0);
    world.settle();
    assert_eq!(world.coverage.count("verdict Continue"), 1);
}

/// A write that reached the cache before a flush that failed, and was reported after it, is not
/// brought back by the next flush.
#[test]
fn r8_a_flush_that_fails_takes_along_a_write_that_is_under_way() {
    let mut world = world();
    world.begin_write(0, 0, 4096, 7);
    world.write_reaches_volume();
    world.source.disks[0].fail_flushes(1);
    world.flush_now(VolumeId(0));
    world.write_ends();
    assert_eq!(world.coverage.count("a flush took a write along that was under way"), 1);
    world.flush_client(VolumeId(0));
    world.restart_source(true); // asserts what applications were told
    world.settle();
}

/// A flush of the agent's own that failed is told to the next client who asks for one.
#[test]
fn r8_a_failed_flush_that_no_client_asked_for_is_told_to_the_next_one() {
    let mut world = world();
    world.write(0, 0, 4096, 7);
    world.source.disks[0].fail_flushes(1);
    world.flush_now(VolumeId(0));
    world.flush_client(VolumeId(0));
    world.restart_source(true); // asserts what applications were told
    world.settle();
}
