//! Snapshots and points, a scenario each for what goes wrong where such things are built.

use vgship_base::record::Order;
use vgship_snapshot::set::Origin;
use vgship_tests::world::World;
use vgship_tests::world::faults::Settings;

fn world() -> World {
    World::in_sync_with(Settings::plain())
}

/// Records go to the replica and are applied; its checkpoint stays where it is.
fn apply(world: &mut World) {
    world.ship_out(0);
    world.apply_all(0);
    world.hear(0);
}

fn snapshot(world: &mut World, name: &str) {
    world.marker(name, Order::Snapshot).expect("the replica follows");
    apply(world);
}

fn names(world: &mut World) -> Vec<String> {
    world.snapshots(0).into_iter().map(|it| it.name.to_string()).collect()
}

fn first_byte(world: &mut World, name: &str) -> u8 {
    world.read_snapshot(0, name)[0][512]
}

/// Another product took the before-image a second time when it replayed its log after a crash, and
/// so kept what the snapshot should not have seen.
#[test]
fn r5_a_before_image_is_taken_once_though_its_write_is_replayed() {
    for power in [false, true] {
        let mut world = world();
        world.write(0, 0, 4096, 1);
        snapshot(&mut world, "monday");
        world.replica_checkpoint(0);
        for fill in [2, 3] {
            world.write(0, 0, 4096, fill);
            apply(&mut world);
        }
        for _ in 0..2 {
            world.replica_crashes(0, power);
            world.start_all();
            assert_eq!(first_byte(&mut world, "monday"), 1);
        }
        world.settle();
        assert_eq!(first_byte(&mut world, "monday"), 1);
    }
}

/// A replay passes a snapshot that an earlier life took, of volumes that are already beyond it.
#[test]
fn r5_what_is_replayed_before_a_snapshot_is_none_of_its_future() {
    let mut world = world();
    world.write(0, 0, 4096, 1);
    apply(&mut world);
    world.replica_checkpoint(0);
    world.write(0, 0, 4096, 2);
    world.write(0, 4096, 4096, 2);
    snapshot(&mut world, "late");
    world.write(0, 0, 4096, 3);
    apply(&mut world);
    world.replica_crashes(0, false); // the volumes' cache is whole: they are ahead of the checkpoint
    world.start_all();
    assert_eq!(first_byte(&mut world, "late"), 2);
    world.look_back(0);
    world.settle();
}

#[test]
fn a_snapshot_that_was_deleted_does_not_come_back_with_a_replay() {
    let mut world = world();
    snapshot(&mut world, "gone");
    world.delete_snapshot(0, "gone");
    world.write(0, 0, 4096, 9);
    apply(&mut world);
    world.replica_crashes(0, true);
    world.start_all();
    assert_eq!(names(&mut world), [""; 0]);
    world.settle();
}

/// The order to delete stands before a later snapshot of the same name.
#[test]
fn an_order_that_is_replayed_does_not_mean_what_came_after_it() {
    let mut world = world();
    snapshot(&mut world, "daily");
    world.marker("daily", Order::Delete).unwrap();
    apply(&mut world);
    assert_eq!(names(&mut world), [""; 0]);
    snapshot(&mut world, "daily");
    world.replica_crashes(0, true);
    world.start_all();
    assert_eq!(names(&mut world), ["daily"]);
    world.settle();
}

/// I4, R7: the way back stands from before the first resync record to the end of a resync, through
/// crashes, replays and nested begins, and cannot be deleted meanwhile.
#[test]
fn r7_the_way_back_stands_until_a_resync_has_ended() {
    let mut world = world();
    world.write(0, 0, 4096, 1);
    world.settle();
    world.cut(0);
    world.write(0, 0, 4096, 2);
    world.restart_source(false);
    world.connect(0);
    world.begin_resync(0);
    world.exchange(0);
    let guards = |world: &mut World| {
        let all = world.snapshots(0).into_iter();
        all.filter(|it| it.guards).map(|it| it.name.to_string()).collect::<Vec<_>>()
    };
    let [name] = &guards(&mut world)[..] else { panic!("there is one way back") };
    assert!(name.starts_with("before-resync-"));
    assert_eq!(first_byte(&mut world, name), 1);
    assert!(!world.delete_snapshot(0, name));
    for power in [true, false] {
        world.replica_crashes(0, power);
        world.start_all();
        world.connect(0);
        world.tick(1);
        world.ship_out(0);
        world.apply_all(0);
        assert_eq!(
            guards(&mut world),
            std::slice::from_ref(name),
            "the resync goes on, the way back too"
        );
    }
    world.settle();
    assert_eq!(guards(&mut world), [""; 0]);
    assert_eq!(first_byte(&mut world, name), 1, "it is a snapshot like others now");
    let kept = world.snapshots(0).into_iter().find(|it| it.name.as_str() == name).unwrap();
    assert_eq!(kept.origin, Origin::BeforeResync);
    assert!(world.delete_snapshot(0, name));
}

#[test]
fn r7_no_snapshot_is_taken_inside_a_resync() {
    let mut world = world();
    world.cut(0);
    world.write(0, 0, 4096, 2);
    world.restart_source(false);
    world.connect(0);
    world.begin_resync(0);
    world.marker("inside", Order::Snapshot);
    apply(&mut world);
    assert!(!names(&mut world).contains(&"inside".to_owned()));
    world.settle();
    snapshot(&mut world, "after");
    assert!(names(&mut world).contains(&"after".to_owned()));
}

/// Without room for before-images the replica applies nothing, loses nothing, and goes on.
#[test]
fn without_room_to_preserve_the_replica_waits() {
    let mut world = world();
    world.write(0, 0, 4096, 1);
    snapshot(&mut world, "kept");
    world.replica_checkpoint(0);
    let folder = world.replicas[0].snapshots.clone();
    folder.set_capacity(Some(folder.used()));
    world.write(0, 0, 4096, 2);
    apply(&mut world);
    let life = world.replicas[0].life.as_ref().expect("it waits, and has not stopped");
    let (applied, durable) = (life.applied.seq, life.journal.durable());
    assert!(applied < durable, "{applied} of {durable}");
    assert_eq!(first_byte(&mut world, "kept"), 1);
    folder.set_capacity(None);
    apply(&mut world);
    assert_eq!(first_byte(&mut world, "kept"), 1);
    assert_eq!(world.replicas[0].images()[0][512], 2);
    world.settle();
}
