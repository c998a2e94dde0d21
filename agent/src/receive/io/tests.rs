//! The engine on simulated disks, with its real threads.

use std::path::Path;

use bytes::Bytes;
use vgship_base::disk::Disk;
use vgship_base::extent::ExtentSize;
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, ReplicaId, VolumeId};
use vgship_base::layout::VolumeLayout;
use vgship_base::limits::JOURNAL_RESERVE;
use vgship_base::record::{Body, ResyncBegin, ResyncReason, Target};
use vgship_base::sim::{Power, SimDisk, SimFolder};

use std::time::Instant;

use vgship_snapshot::seal::DataKey;

use super::*;

pub(super) const BYTES: u64 = 64 << 10;

/// Longer than anything takes that is waited for.
const LONG: Duration = Duration::from_secs(30);

/// A replica's machine.
pub(super) struct Host {
    pub(super) keys: KeyRing,
    pub(super) disk: SimDisk,
    pub(super) journal: SimFolder,
    pub(super) state: SimFolder,
    pub(super) snapshots: SimFolder,
}

impl Host {
    pub(super) fn new() -> Host {
        Host::on(&Power::default())
    }

    pub(super) fn on(power: &Power) -> Host {
        Host {
            keys: DataKey::from_bytes([5; 32]).into(),
            disk: SimDisk::volume(power, BYTES),
            journal: SimFolder::new(power),
            state: SimFolder::new(power),
            snapshots: SimFolder::new(power),
        }
    }

    pub(super) fn open(&self) -> Result<Engine, EngineError> {
        Engine::open(self.parts(REPLAY), 1)
    }

    pub(super) fn parts(&self, replay: u64) -> Parts {
        let extent = ExtentSize::from_log2(12).unwrap();
        let volume = VolumeLayout { name: "lv".parse().unwrap(), bytes: BYTES, masked: 0 };
        Parts {
            group: GroupId([7; 16]),
            layout: Arc::new(Layout { extent, volumes: vec![volume] }),
            volumes: vec![Arc::new(self.disk.clone())],
            folder: Arc::new(self.state.clone()),
            journal: Arc::new(self.journal.clone()),
            journal_place: "/the/journal".into(),
            snapshots: Arc::new(self.snapshots.clone()),
            keys: self.keys.clone(),
            floor: Seq(u64::MAX),
            wall: Arc::new(|| 1),
            replay,
        }
    }

    fn newest(&self) -> SimDisk {
        let name = self.journal.list().unwrap().pop().unwrap();
        assert!(Path::new(&name).extension().is_some_and(|ending| ending == "segment"));
        self.journal.file(&name).unwrap()
    }
}

pub(super) fn record(seq: u64, body: Body) -> Record {
    Record { seq: Seq(seq), target: Target::All, body }
}

pub(super) fn begin() -> Record {
    let (generation, reason) = (Generation([1; 16]), ResyncReason::Initial);
    let begin = ResyncBegin { session: 1, after: Seq(0), generation, reason, extents: 1 };
    let target = Target::One(ReplicaId(0));
    Record { seq: Seq(1), target, body: Body::ResyncBegin(begin) }
}

/// A write that fills the volume with a number.
pub(super) fn write(seq: u64) -> Record {
    let data = Bytes::from(vec![u8::try_from(seq).unwrap(); usize::try_from(BYTES).unwrap()]);
    record(seq, Body::Write { volume: VolumeId(0), offset: 0, data })
}

pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < LONG, "it does not come about that {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Goal: who waits for a checkpoint is told at once when none can come.
#[tokio::test]
async fn nothing_settles_where_nothing_is_applied() {
    let engine = Host::new().open().unwrap();
    let view = engine.view();
    assert!(view.settles());
    let why = || Some("a reason".to_owned());
    assert!(!View { rolled: Some(Rolled::came(Seq(1))), ..view.clone() }.settles());
    assert!(!View { holds: why(), ..view.clone() }.settles());
    assert!(!View { turned: true, ..view.clone() }.settles());
    assert!(!View { fault: why(), ..view.clone() }.settles());
    assert!(View { waits: why(), ..view }.settles(), "what was taken is applied all the same");
    engine.stop();
}

/// Goal: on a full disk nothing is taken and nothing given up; when there is room it goes on by
/// itself, where it was; what waits does not keep it from stopping.
#[tokio::test]
async fn a_full_journal_waits_and_goes_on_by_itself() {
    let host = Host::new();
    let engine = host.open().unwrap();
    let intake = engine.intake().unwrap();
    let (answers, _judged) = mpsc::channel(16);
    let greeting = intake.link(1, answers).await.unwrap().await.unwrap();
    assert_eq!(greeting.durable.seq, Seq(0));
    intake.batch(1, vec![begin()]).await.unwrap();
    until("the begin is durable", || engine.view().durable.seq == Seq(1)).await;
    let short = JOURNAL_RESERVE + (50 << 10);
    host.journal.set_capacity(Some(host.journal.used() + short));
    for seq in 2..=9 {
        intake.batch(1, vec![write(seq)]).await.unwrap();
    }
    until("it waits", || engine.view().waits.is_some()).await;
    let said = engine.view().waits.unwrap();
    assert!(said.contains("/the/journal") && said.contains("8 MiB are free"), "{said}");
    assert!(engine.view().fault.is_none());
    // The queue fills up behind it: a link that has more finds no place.
    let more = async {
        for seq in 10..=40 {
            intake.batch(1, vec![write(seq)]).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(50), more).await.is_err());
    assert!(engine.view().durable.seq < Seq(10));
    let free = host.journal.available().unwrap();
    assert!(free >= JOURNAL_RESERVE, "the reserve is left alone: {free}");

    host.journal.set_capacity(None);
    let admitted = || engine.view().received.seq;
    until("it goes on", || engine.view().waits.is_none() && admitted() >= Seq(9)).await;
    let last = admitted().0;
    until("all is applied", || engine.view().applied.seq >= Seq(last)).await;

    host.journal.set_capacity(Some(0));
    let next = engine.view().received.seq.0 + 1;
    intake.batch(1, vec![write(next)]).await.unwrap();
    until("it waits again", || engine.view().waits.is_some()).await;
    drop(intake);
    tokio::task::spawn_blocking(|| engine.stop()).await.unwrap();
    host.journal.set_capacity(None);
    let engine = host.open().unwrap();
    assert_eq!(engine.view().durable.seq, Seq(next - 1), "what waited was promised to nobody");
    engine.stop();
}

/// Goal: a journal that is full of records that the volumes hold makes room by itself.
#[tokio::test]
async fn a_disk_of_little_more_than_the_reserve_is_enough() {
    let host = Host::new();
    let engine = host.open().unwrap();
    let intake = engine.intake().unwrap();
    let (answers, _judged) = mpsc::channel(16);
    intake.link(1, answers).await.unwrap().await.unwrap();
    intake.batch(1, vec![begin()]).await.unwrap();
    // More than is ever journaled with one flush, less than all of it.
    host.journal.set_capacity(Some(JOURNAL_RESERVE + (8 << 20)));
    for seq in 2..=250 {
        intake.batch(1, vec![write(seq)]).await.unwrap();
    }
    until("all is applied", || engine.view().applied.seq == Seq(250)).await;
    assert!(host.disk.live().iter().all(|byte| *byte == 250));
    drop(intake);
    engine.stop();
}

/// Goal: a journal that refuses a write or a flush stops the engine; nothing that was promised is
/// lost, though the cache shows more than is stored.
#[tokio::test]
async fn after_a_failed_write_or_flush_what_was_promised_is_there() {
    for flush in [false, true] {
        let host = Host::new();
        let engine = host.open().unwrap();
        let intake = engine.intake().unwrap();
        let (answers, _judged) = mpsc::channel(16);
        intake.link(1, answers).await.unwrap().await.unwrap();
        intake.batch(1, vec![begin(), write(2)]).await.unwrap();
        until("it is durable", || engine.view().durable.seq == Seq(2)).await;
        let segment = host.newest();
        if flush {
            segment.fail_flushes(1);
        } else {
            segment.fail_writes(1);
        }
        intake.batch(1, vec![write(3)]).await.unwrap();
        until("it stops", || engine.view().fault.is_some()).await;
        assert_eq!(engine.view().durable.seq, Seq(2), "nothing more is promised");
        drop(intake);
        engine.stop();
        let engine = host.open().unwrap();
        let again = engine.view().durable.seq;
        assert!(again >= Seq(2), "{again}");
        engine.stop();
        // What it says now must be stored: the volume and the journal lose their caches.
        host.disk.forget_cache();
        for name in host.journal.list().unwrap() {
            host.journal.file(&name).unwrap().forget_cache();
        }
        let engine = host.open().unwrap();
        assert_eq!(engine.view().durable.seq, again);
        let filled = u8::try_from(again.0).unwrap();
        assert!(host.disk.live().iter().all(|byte| *byte == filled));
        engine.stop();
    }
}

/// Goal: a journal leaves a key without a record to append, never gives up what the volumes lack or
/// somebody reads, and gives up the history of a key that is to go, over a restart, too.
#[tokio::test]
async fn the_history_of_a_key_is_given_up_when_nobody_needs_it() {
    let host = Host::new();
    let engine = host.open().unwrap();
    engine.set_floor(Seq(0));
    let intake = engine.intake().unwrap();
    let (answers, _judged) = mpsc::channel(16);
    intake.link(1, answers).await.unwrap().await.unwrap();
    intake.batch(1, vec![begin(), write(2)]).await.unwrap();
    until("it is applied", || engine.view().applied.seq == Seq(2)).await;
    let first = host.keys.current_id();
    host.keys.add(DataKey::from_bytes([6; 32]));
    let desk = engine.desk().unwrap();
    let leave = move |key: Option<KeyId>| {
        let desk = desk.clone();
        async move { tokio::task::spawn_blocking(move || desk.leave(key)).await.unwrap().unwrap() }
    };
    assert_eq!(leave(None).await, Ok(()));
    assert_eq!(engine.journal_segments().len(), 1, "it begins another without a record");
    intake.batch(1, vec![write(3)]).await.unwrap();
    until("it is applied", || engine.view().applied.seq == Seq(3)).await;
    let desk = engine.desk().unwrap();
    let read = tokio::task::spawn_blocking(move || desk.replay(Seq(1))).await.unwrap();
    let (replay, hold) = read.unwrap();
    assert_eq!(replay.flatten().flatten().count(), 2);
    assert_eq!(leave(Some(first)).await, Err(Stays::Read));
    drop(hold);
    assert_eq!(leave(Some(first)).await, Ok(()));
    assert_eq!(leave(Some(first)).await, Ok(()), "it may be repeated");
    until("it is told", || engine.view().journal_after == Seq(2)).await;
    host.keys.destroy(first);
    drop((intake, leave));
    tokio::task::spawn_blocking(|| engine.stop()).await.unwrap();
    let engine = host.open().unwrap();
    assert_eq!(engine.view().durable.seq, Seq(3));
    engine.stop();
}
