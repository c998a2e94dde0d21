//! Replicas whose journal holds more than their volumes: far behind, without room to preserve, or
//! with records lost.

use vgship_base::folder::Folder;
use vgship_base::record::{Marker, Order};
use vgship_base::sim::{Power, Rng};

use super::tests::{BYTES, Host, begin, record, until, write};
use super::*;

/// Puts records into the journal, which the volumes do not hold; each is promised.
fn journal(host: &Host, after: Seq, records: &[Record]) {
    let (folder, keys) = (Arc::new(host.journal.clone()), host.keys.clone());
    let (mut journal, found) = Journal::recover(folder, keys, GroupId([7; 16]), after).unwrap();
    assert_eq!(found.damage, None);
    for record in records {
        journal.append(std::slice::from_ref(record), journal.durable()).unwrap();
        journal.flush().unwrap();
        journal.promise().unwrap();
    }
}

fn end(seq: u64) -> Record {
    let target = vgship_base::record::Target::One(vgship_base::ids::ReplicaId(0));
    let body = Body::ResyncEnd { session: 1 };
    Record { seq: Seq(seq), target, body }
}

fn holds(host: &Host, byte: u8) -> bool {
    host.disk.live().iter().all(|found| *found == byte)
}

/// Goal: a replica far behind opens at once, takes and promises more, and comes to the end.
#[tokio::test]
async fn a_replica_far_behind_takes_more_while_it_catches_up() {
    let host = Host::new();
    let records: Vec<Record> =
        std::iter::once(begin()).chain((2..=60).map(write)).chain([end(61)]).collect();
    journal(&host, Seq(0), &records);
    let engine = Engine::open(host.parts(3 * BYTES), 1).unwrap();
    assert_eq!(engine.view().durable.seq, Seq(61));
    let intake = engine.intake().unwrap();
    let (answers, _judged) = mpsc::channel(16);
    intake.link(1, answers).await.unwrap().await.unwrap();
    intake.batch(1, vec![write(62)]).await.unwrap();
    until("more is durable", || engine.view().durable.seq == Seq(62)).await;
    until("it is to be opened anew", || engine.view().turned).await;
    assert!(engine.view().applied.seq >= Seq(61) && engine.view().fault.is_none());
    drop(intake);
    engine.stop();
    let engine = host.open().unwrap();
    assert_eq!(engine.view().applied.seq, Seq(62));
    assert!(holds(&host, 62));
    engine.stop();
}

/// Goal: a store without room to preserve keeps no replica from opening, taking more, and deleting
/// snapshots; it applies nothing before there is room.
#[tokio::test]
async fn a_full_snapshot_store_keeps_no_replica_from_opening() {
    let host = Host::new();
    let name = "s".parse().unwrap();
    let marker = Marker { name, order: Order::Snapshot, quiesced: false };
    let snapshot = record(4, Body::Marker(marker));
    journal(&host, Seq(0), &[begin(), write(2), end(3), snapshot]);
    host.open().unwrap().stop();
    journal(&host, Seq(4), &[write(5)]);
    host.snapshots.set_capacity(Some(host.snapshots.used()));

    let engine = host.open().unwrap();
    until("it waits for room", || engine.view().holds.is_some()).await;
    assert!(engine.view().fault.is_none() && holds(&host, 2));
    let desk = engine.desk().unwrap();
    let take = move || desk.take("t".parse().unwrap(), Origin::Manual).unwrap();
    let taken = tokio::task::spawn_blocking(take).await.unwrap();
    assert!(taken.unwrap_err().is_refusal(), "nobody waits for what does not come");
    let intake = engine.intake().unwrap();
    let (answers, _judged) = mpsc::channel(16);
    intake.link(1, answers).await.unwrap().await.unwrap();
    for seq in 6..=40 {
        intake.batch(1, vec![write(seq)]).await.unwrap();
    }
    until("more is durable", || engine.view().durable.seq == Seq(40)).await;
    assert_eq!(engine.view().applied.seq, Seq(4));

    host.snapshots.set_capacity(None);
    until("it goes on", || engine.view().turned).await;
    drop(intake);
    engine.stop();
    let engine = host.open().unwrap();
    assert!(engine.view().applied.seq == Seq(40) && holds(&host, 40));
    let set = engine.snapshots();
    let mut found = vec![0; 512];
    let view = set.view(&set.find("s").unwrap()).unwrap();
    view.read(vgship_base::ids::VolumeId(0), 0, &mut found).unwrap();
    assert_eq!(found, [2; 512]);
    drop(view);
    engine.stop();
}

/// Goal: where promised records are lost, nothing is taken for a way back before a resync has ended,
/// also when its begin is journaled while the replica is behind.
#[tokio::test]
async fn what_is_lost_is_no_way_back_while_a_replica_is_behind() {
    let host = Host::new();
    let name = "s".parse().unwrap();
    let marker = Marker { name, order: Order::Snapshot, quiesced: false };
    let snapshot = record(4, Body::Marker(marker));
    journal(&host, Seq(0), &[begin(), write(2), end(3), snapshot]);
    host.open().unwrap().stop();
    let before = host.journal.list().unwrap();
    journal(&host, Seq(4), &[write(5), write(6), write(7)]);
    let segment = host.journal.list().unwrap().into_iter().find(|it| !before.contains(it));
    let segment = host.journal.file(&segment.unwrap()).unwrap();
    segment.decay(segment.live().len() / 2, 3);
    host.snapshots.set_capacity(Some(host.snapshots.used()));

    let engine = host.open().unwrap();
    until("it waits for room", || engine.view().holds.is_some()).await;
    assert!(engine.view().damaged);
    let last = engine.view().durable.seq;
    let intake = engine.intake().unwrap();
    let (answers, _judged) = mpsc::channel(16);
    intake.link(1, answers).await.unwrap().await.unwrap();
    let mut again = begin();
    again.seq = Seq(9);
    if let Body::ResyncBegin(begin) = &mut again.body {
        begin.after = last;
    }
    intake.batch(1, vec![again]).await.unwrap();
    until("the begin is durable", || engine.view().durable.seq == Seq(9)).await;
    host.snapshots.set_capacity(None);
    until("it is to be opened anew", || engine.view().turned).await;
    drop(intake);
    engine.stop();
    let engine = host.open().unwrap();
    let all = engine.snapshots().list().unwrap();
    let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["s"], "the volumes may hold some of what is lost");
    assert!(engine.view().damaged);
    engine.stop();
}

/// Goal: that promised records are lost is known until it is stored with the checkpoint, whatever
/// ends the recovery that finds it: afterwards the journal is whole and shows nothing.
#[test]
fn what_is_lost_is_not_forgotten_by_a_crash() {
    let mut crashes = 0;
    for operations in 1.. {
        let (power, mut rng) = (Power::default(), Rng::new(operations));
        let host = Host::on(&power);
        journal(&host, Seq(0), &[begin(), write(2), end(3)]);
        host.open().unwrap().stop();
        let before = host.journal.list().unwrap();
        journal(&host, Seq(3), &[write(4), write(5), write(6)]);
        // The volumes hold more than the checkpoint says.
        let segment = host.journal.list().unwrap().into_iter().find(|it| !before.contains(it));
        let segment = host.journal.file(&segment.unwrap()).unwrap();
        let middle = segment.live().len() / 2;
        segment.decay(middle, 3);
        power.fail_after(u32::try_from(operations).unwrap());
        let first = recover(host.parts(REPLAY), 1).map(|it| it.admit.point());
        let done = first.is_ok();
        crashes += u32::from(!done);
        power.restore();
        host.disk.power_cut(&mut rng);
        for folder in [&host.journal, &host.state, &host.snapshots] {
            folder.power_cut(&mut rng);
        }
        for point in
            first.into_iter().chain(recover(host.parts(REPLAY), 1).map(|it| it.admit.point()))
        {
            assert!(point.broken(), "forgotten after {operations} operations: {point:?}");
        }
        let noted = host.state.list().unwrap();
        assert!(!noted.contains(&"rolled".to_owned()), "the note is of no more use");
        if done {
            break;
        }
    }
    assert!(crashes > 10, "{crashes}");
}
