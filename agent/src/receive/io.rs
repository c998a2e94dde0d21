//! The replica's engine: one thread admits and journals, one applies. What comes from a link goes
//! in as batches; acknowledgements and answers come out. Decides nothing of the order; that is
//! [`Admit`]'s.
//!
//! ```text
//! link -> journal thread (admit, seal, append, flush) -> acknowledgement
//!              \-> apply thread (coalesce, judge, write, checkpoint) -> answers
//! ```

mod applying;
mod holding;
mod journaling;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use vgship_base::disk::SharedDisk;
use vgship_base::folder::SharedFolder;
use vgship_base::ids::{Generation, GroupId, Name, Seq};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Chain, Record};
use vgship_snapshot::SnapshotError;
use vgship_snapshot::seal::{KeyId, KeyRing};
use vgship_snapshot::set::{Origin, Preserver, Snapshot, SnapshotSet};

use super::admit::{Admit, AdmitError, Point};
use super::journal::{Journal, JournalError, Replay};
use crate::apply::applier::{Answer, Applier, ApplyError};
use crate::apply::checkpoint::{self, CheckpointError};
use crate::apply::keeper::{Keeper, Wall};
use crate::apply::rollback::{self, RollbackError, Step, Target};
use crate::apply::rolled::{self, Phase, Rolled, RolledError};
use crate::capture::io::report;
use applying::Applying;
use holding::Holding;
use journaling::Journaling;

/// Batches that may wait before each thread. A batch is at most 2 MiB: with both queues and the
/// batches at hand a replica holds at most 40 MiB of records.
const QUEUE: usize = 8;

/// How much of the journal is applied before a replica that starts takes more: what a crash may
/// leave, and a little. Unit: bytes.
pub const REPLAY: u64 = 256 << 20;

/// Time between checkpoints while records come; an idle replica makes one at once.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// How long a link that found no place in the queue waits before it looks again, in case nobody
/// told it.
const LOOK: Duration = Duration::from_millis(50);

/// Why a replica cannot go on. It is opened again, which recovers it from what is durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A volume or the checkpoint failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The snapshot store failed.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// The volumes cannot be taken to where they are to be.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// Whether the volumes are rolled back is not known.
    #[error(transparent)]
    Rolled(#[from] RolledError),
    /// What was asked for failed; who asked was told why.
    #[error("what was asked for could not be done")]
    Asked,
    /// The journal holds what may not follow its checkpoint.
    #[error("the journal does not follow the checkpoint")]
    Replay(#[from] AdmitError),
}

/// What a replica is made of.
pub struct Parts {
    /// The group.
    pub group: GroupId,
    /// Its volumes.
    pub layout: Arc<Layout>,
    /// The volumes' disks, in the layout's order, guarded against other writers.
    pub volumes: Vec<SharedDisk>,
    /// Where the checkpoint is.
    pub folder: SharedFolder,
    /// Where the journal is.
    pub journal: SharedFolder,
    /// The same, for people.
    pub journal_place: String,
    /// Where the snapshot store is.
    pub snapshots: SharedFolder,
    /// Of journal and snapshots.
    pub keys: KeyRing,
    /// Up to where the journal may be trimmed, as far as history is concerned, until
    /// [`Engine::set_floor`] says otherwise.
    pub floor: Seq,
    /// This machine's wall clock.
    pub wall: Wall,
    /// How much of the journal is applied before it takes more; the rest is applied meanwhile.
    /// Unit: bytes.
    pub replay: u64,
}

/// What a replica shows of itself.
#[derive(Clone, Debug)]
pub struct View {
    /// The last record admitted and what follows from it.
    pub received: Point,
    /// The last record that is durable in the journal.
    pub durable: Point,
    /// The last record that is durable in the volumes.
    pub applied: Point,
    /// Extents judged since the resync under way began.
    pub judged: u64,
    /// Damage was found that only a full resync mends.
    pub damaged: bool,
    /// Why it takes nothing from its link, though it works.
    pub waits: Option<String>,
    /// Why it applies nothing, though it works.
    pub holds: Option<String>,
    /// The volumes are rolled back, or being taken back or forward.
    pub rolled: Option<Rolled>,
    /// How far that is.
    pub rolling: Option<Step>,
    /// Why it cannot get there, whatever is tried; it waits for another order.
    pub stuck: Option<String>,
    /// The engine is to be opened anew, though nothing failed: what it does has changed.
    pub turned: bool,
    /// The source gave its role to this replica, whose volumes hold all before that.
    pub handed: Option<HandedOver>,
    /// The record behind which the journal begins.
    pub journal_after: Seq,
    /// What the journal takes. Unit: bytes.
    pub journal_bytes: u64,
    /// Why the engine has stopped.
    pub fault: Option<String>,
}

/// The source's role, given to this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// The history that it begins.
    pub generation: Generation,
    /// The record that says so: the last of the history before.
    pub seq: Seq,
}

impl View {
    /// Whether a checkpoint may yet come that holds what a snapshot stands for. None comes while
    /// nothing is applied: the volumes are rolled back, or are to be; or the engine has ended.
    pub const fn settles(&self) -> bool {
        let ends = self.turned || self.handed.is_some() || self.fault.is_some();
        self.rolled.is_none() && self.holds.is_none() && !ends
    }
}

/// How far the replica is, for acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last record admitted.
    pub received: Seq,
    /// Durable in the journal.
    pub durable: Point,
    /// Durable in the volumes.
    pub applied: Point,
}

/// Where a link's answers go; dropped with the link.
pub type Answers = mpsc::Sender<(u64, Vec<Answer>)>;

enum Message {
    Batch {
        link: u64,
        records: Vec<Record>,
    },
    Link {
        link: u64,
        answers: Answers,
        ready: oneshot::Sender<Greeting>,
    },
    Replay {
        after: Seq,
        ready: oneshot::Sender<Replay>,
    },
    /// Leave older keys; then leave the history that needs this one.
    Leave {
        key: Option<KeyId>,
        ready: oneshot::Sender<Result<(), Stays>>,
    },
}

/// Why the journal still needs a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stays {
    /// No segment can be begun.
    #[error("the journal has no room to begin a segment with another key")]
    NoRoom,
    /// Records that are sealed with it are not in the volumes yet.
    #[error("the volumes do not hold all records yet that are sealed with it")]
    Unapplied,
    /// Somebody reads records that are sealed with it.
    #[error("somebody reads records that are sealed with it")]
    Read,
}

/// What the applier is given.
enum Work {
    Batch(Applied),
    Snapshot {
        name: Name,
        origin: Origin,
        done: oneshot::Sender<Result<Option<Snapshot>, SnapshotError>>,
    },
    RollBack {
        target: Target,
        done: Turned,
    },
    Undo {
        done: Turned,
    },
}

/// Hears whether a rollback, or the way back from it, has begun.
type Turned = oneshot::Sender<Result<(), RollbackError>>;

/// What a new link says to the source.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// Everything up to here is durable.
    pub durable: Point,
    /// Up to here in the volumes.
    pub applied: Point,
    /// Damage was found.
    pub damaged: bool,
}

struct Applied {
    records: Vec<Record>,
    point: Point,
    answers: Option<Answers>,
}

/// A replica at work.
pub struct Engine {
    messages: Option<SyncSender<Message>>,
    orders: Option<SyncSender<Work>>,
    taken: Arc<Notify>,
    snapshots: Arc<SnapshotSet>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    view: Mutex<View>,
    progress: watch::Sender<Progress>,
    refused: watch::Sender<Option<(u64, AdmitError)>>,
    /// Up to where the volumes hold the stream.
    settled: AtomicU64,
    /// Up to where history needs no journal.
    floor: AtomicU64,
    /// The journal's closed segments: the last record of each, and its bytes.
    segments: Mutex<Vec<(Seq, u64)>>,
    /// Who reads the journal: from which record on it must stay.
    readers: Mutex<Vec<Seq>>,
    /// Nobody waits for room any more.
    stopping: AtomicBool,
}

impl Shared {
    fn readers(&self) -> MutexGuard<'_, Vec<Seq>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where the journal may go: what the volumes hold, history does not need and nobody
    /// reads (R12).
    fn trimmable(&self) -> Seq {
        let settled = self.settled.load(Ordering::SeqCst);
        let floor = self.floor.load(Ordering::SeqCst);
        let read = self.readers().iter().map(|after| after.0).min().unwrap_or(u64::MAX);
        Seq(settled.min(floor).min(read))
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The applier has ended: the engine is to be opened anew.
    fn ends(&self) -> bool {
        let view = self.view();
        view.turned || view.handed.is_some() || view.fault.is_some()
    }

    fn fail(&self, error: &EngineError) {
        // Who opens it again says so, at a pace.
        tracing::debug!(error = %report(error), "the replica stopped");
        self.view().fault.get_or_insert_with(|| report(error));
    }
}

impl Engine {
    /// Recovers a replica from its checkpoint and journal and sets it to work.
    pub fn open(parts: Parts, workers: usize) -> Result<Engine, EngineError> {
        let recovered = recover(parts, workers)?;
        let (applied, rolled, wall) = (recovered.applied, recovered.rolled, recovered.wall.clone());
        let (backlog, handed) = (recovered.backlog, recovered.handed);
        let Recovered { applier, admit, journal, journal_place, folder, snapshots, floor, .. } =
            recovered;
        let point = admit.point();
        let view = View {
            received: point,
            durable: point,
            applied,
            judged: 0,
            damaged: point.broken(),
            waits: None,
            holds: None,
            rolled,
            rolling: None,
            stuck: None,
            turned: false,
            handed,
            journal_after: journal.first_after(),
            journal_bytes: journal.bytes(),
            fault: None,
        };
        let progress = Progress { received: point.seq, durable: point, applied };
        let shared = Arc::new(Shared {
            view: Mutex::new(view),
            progress: watch::Sender::new(progress),
            refused: watch::Sender::new(None),
            settled: AtomicU64::new(applied.seq.0),
            floor: AtomicU64::new(floor.0),
            segments: Mutex::new(journal.closed()),
            readers: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let taken = Arc::new(Notify::new());
        let (messages, from_links) = sync_channel(QUEUE);
        let (to_apply, work) = sync_channel(QUEUE);
        let applying: Box<dyn FnOnce() + Send> = match rolled {
            // There is nothing left to apply, ever.
            None if handed.is_some() => Box::new(move || drop(work)),
            None => {
                let (shared, wall) = (Arc::clone(&shared), wall);
                let applying = Applying::new(applier, folder, shared, applied, wall);
                Box::new(move || match backlog {
                    Some((records, admit)) => applying.catch_up(records, admit, &work),
                    None => applying.run(&work),
                })
            }
            Some(rolled) => {
                // Where its snapshot stands only the store knows; what lies before that is skipped.
                let after = base_of(&snapshots, &rolled)?;
                let records = (Box::new(journal.replays(after)) as _, Hold::new(&shared, after));
                let places = (Arc::clone(&snapshots), folder);
                let notes = (rolled, wall);
                let holding = Holding::new(applier, records, places, Arc::clone(&shared), notes);
                Box::new(move || holding.run(&work))
            }
        };
        let journaling = Journaling::new(
            (admit, journal, journal_place),
            (to_apply.clone(), Arc::clone(&taken)),
            Arc::clone(&shared),
        );
        let threads =
            vec![spawn("journal", move || journaling.run(&from_links)), spawn("apply", applying)];
        let (messages, orders) = (Some(messages), Some(to_apply));
        Ok(Engine { messages, orders, taken, snapshots, threads, shared })
    }

    /// What it shows of itself.
    pub fn view(&self) -> View {
        self.shared.view().clone()
    }

    /// Changes whenever more is durable or applied.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Changes when a record of a link was refused: the number of the link, and why.
    pub fn refused(&self) -> watch::Receiver<Option<(u64, AdmitError)>> {
        self.shared.refused.subscribe()
    }

    /// Its snapshots.
    pub fn snapshots(&self) -> &Arc<SnapshotSet> {
        &self.snapshots
    }

    /// The journal's closed segments, oldest first: the last record of each, and its bytes.
    pub fn journal_segments(&self) -> Vec<(Seq, u64)> {
        self.shared.segments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// History needs no journal up to `floor`.
    pub fn set_floor(&self, floor: Seq) {
        self.shared.floor.store(floor.0, Ordering::SeqCst);
    }

    /// Where to ask for snapshots and for the journal's records. Does not keep the engine from
    /// stopping for longer than a request takes.
    pub fn desk(&self) -> Option<Desk> {
        let (messages, orders) = (self.messages.clone()?, self.orders.clone()?);
        Some(Desk { messages, orders, shared: Arc::clone(&self.shared) })
    }

    /// Where links put what they receive.
    pub fn intake(&self) -> Option<Intake> {
        let taken = Arc::clone(&self.taken);
        self.messages.clone().map(|messages| Intake { messages, taken })
    }

    /// Ends the engine: everything taken in is journaled, applied and checkpointed first, except
    /// what waits for room on the journal's disk, which was acknowledged to nobody.
    pub fn stop(mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        (self.messages, self.orders) = (None, None);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; what is durable is recovered.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(run).expect("the system gives the agent two threads a replica")
}

/// What a replica is once it was recovered.
struct Recovered {
    applier: Applier,
    admit: Admit,
    journal: Journal,
    journal_place: String,
    folder: SharedFolder,
    snapshots: Arc<SnapshotSet>,
    floor: Seq,
    wall: Wall,
    /// Up to where the volumes hold the stream, or held it before they were rolled back.
    applied: Point,
    rolled: Option<Rolled>,
    /// What the journal holds beyond that, for the applier's thread; and how it is admitted.
    backlog: Option<(Replay, Admit)>,
    /// The source gave its role to this replica; the volumes hold all before that.
    handed: Option<HandedOver>,
}

/// The record that the snapshot stands at on which a rollback's point builds.
fn base_of(set: &SnapshotSet, rolled: &Rolled) -> Result<Seq, EngineError> {
    let base = if rolled.phase == Phase::Going { rolled.base } else { rolled.from };
    let found = set.list()?.into_iter().find(|it| it.seq == base);
    Ok(found.ok_or(RollbackError::Gone(base))?.point)
}

/// What a batch that hands the source's role over says; it stands alone.
fn handover_of(batch: &[Record]) -> Option<HandedOver> {
    match batch {
        [Record { seq, body: Body::Handover { generation }, .. }] => {
            Some(HandedOver { generation: *generation, seq: *seq })
        }
        _ => None,
    }
}

/// Brings a replica to where its journal ends.
fn recover(parts: Parts, workers: usize) -> Result<Recovered, EngineError> {
    let Parts { group, layout, volumes, folder, journal, journal_place, .. } = parts;
    let Parts { snapshots, keys, floor, wall, replay, .. } = parts;
    let stored = checkpoint::load(&*folder)?;
    let mut rolled = rolled::load(&*folder)?;
    let held = rolled.is_some_and(|it| it.phase != Phase::Came);
    let start = stored.unwrap_or(Point::FRESH);
    let set = SnapshotSet::open(vgship_snapshot::set::Parts {
        folder: snapshots,
        keys: keys.clone(),
        group,
        layout: Arc::clone(&layout),
        volumes: volumes.clone(),
        pack_bytes: None,
    })?;
    let known_lost = rolled.is_some_and(|it| it.broken);
    // Once what is damaged is cut off, the journal says no more of it.
    let lost = Rolled { broken: true, ..rolled.unwrap_or_else(|| Rolled::came(start.seq)) };
    let note = || rolled::store(&*folder, &lost).map_err(EngineError::from);
    let (journal, recovered) = Journal::recover_noting(journal, keys, group, start.seq, note)?;
    if let Some(damage) = recovered.damage {
        tracing::error!(?damage, "the journal was damaged; the source is asked for what is lost");
        rolled = if damage.promised { Some(lost) } else { rolled };
    }
    let mut preserver = Preserver::new(Arc::clone(&set), workers, start.seq)?;
    for lost in preserver.drop_behind(recovered.last)? {
        tracing::error!(
            snapshot = %lost.name,
            "a snapshot is lost: the journal was damaged before it was complete"
        );
    }
    let mut applier = Applier::new(Arc::clone(&layout), volumes, workers);
    applier.flush_all()?;
    let mut keeper = Keeper::new(preserver, &start, wall.clone());
    if known_lost {
        // The volumes may hold some of what is lost, and the journal the begin of a resync.
        keeper.break_off();
    }
    applier.keep(keeper);
    let mut admit = Admit::new(Arc::clone(&layout), start);
    let (mut applied, mut behind, mut left) = (start, held, replay);
    let mut handed = None;
    for batch in journal.replay(start.seq) {
        let batch = batch?;
        for record in &batch {
            admit.admit(record, Chain::data_hash(record))?;
        }
        behind |= left == 0;
        if behind {
            continue;
        }
        if let Some(handover) = handover_of(&batch) {
            // Not checkpointed: as long as this is a replica the journal says what it is to become.
            handed = Some(handover);
            continue;
        }
        match applier.apply(&batch, true) {
            Err(ApplyError::Snapshots(SnapshotError::NoRoom { .. })) => behind = true,
            done => {
                done?;
                applied = admit.point();
                let changed = batch.iter().filter_map(Record::changes).map(|(_, span)| span.len);
                left = left.saturating_sub(changed.sum());
            }
        }
    }
    let broken = rolled.is_some_and(|it| it.broken);
    if broken {
        admit.break_off();
        if let Some(keeper) = applier.keeper() {
            keeper.break_off();
        }
        applied = if behind { applied } else { admit.point() };
    }
    if applied.generation.is_some() && !held {
        applier.checkpoint(&*folder, &applied)?;
    }
    match (held, behind, rolled) {
        (true, _, _) => set.settle(start.seq),
        // The note stays until the volumes hold all that the journal has.
        (false, true, _) => {}
        (false, false, Some(came)) => rollback::finish(&set, &*folder, &came)?,
        (false, false, None) => rollback::let_go(&set)?,
    }
    let rolled = rolled.filter(|_| held);
    // The role is taken where the history ends, not at the point that the volumes are held at.
    let handed = handed.filter(|_| !held);
    let before = Admit::new(layout, applied);
    let backlog = (behind && !held).then(|| (journal.replay(applied.seq), before));
    let snapshots = set;
    Ok(Recovered {
        applier,
        admit,
        journal,
        journal_place,
        folder,
        snapshots,
        floor,
        wall,
        applied,
        rolled,
        backlog,
        handed,
    })
}

/// Where a replica is asked for what concerns its history.
#[derive(Clone)]
pub struct Desk {
    messages: SyncSender<Message>,
    orders: SyncSender<Work>,
    shared: Arc<Shared>,
}

impl Desk {
    /// Takes a snapshot of what is applied when the request comes up. `None` when one asked for by
    /// the schedule is there already. Waits for the applier.
    pub fn take(
        &self,
        name: Name,
        origin: Origin,
    ) -> Result<Result<Option<Snapshot>, SnapshotError>, Stopped> {
        let (done, result) = oneshot::channel();
        self.orders.send(Work::Snapshot { name, origin, done }).map_err(|_| Stopped)?;
        result.blocking_recv().map_err(|_| Stopped)
    }

    /// Takes the volumes back to a point: begins it. Waits for the applier.
    pub fn roll_back(&self, target: Target) -> Result<Result<(), RollbackError>, Stopped> {
        let (done, result) = oneshot::channel();
        self.orders.send(Work::RollBack { target, done }).map_err(|_| Stopped)?;
        result.blocking_recv().map_err(|_| Stopped)
    }

    /// Takes the volumes to where they stood before they were rolled back: begins it.
    pub fn undo(&self) -> Result<Result<(), RollbackError>, Stopped> {
        let (done, result) = oneshot::channel();
        self.orders.send(Work::Undo { done }).map_err(|_| Stopped)?;
        result.blocking_recv().map_err(|_| Stopped)
    }

    /// The records after `after`, batch by batch, up to what the journal holds when the request
    /// comes up; what of it is to be read stays until the hold is dropped. Waits for the journal.
    pub fn replay(&self, after: Seq) -> Result<(Replay, Hold), Stopped> {
        let hold = Hold::new(&self.shared, after);
        let (ready, replay) = oneshot::channel();
        self.messages.send(Message::Replay { after, ready }).map_err(|_| Stopped)?;
        Ok((replay.blocking_recv().map_err(|_| Stopped)?, hold))
    }

    /// Has the journal begin a segment with the current key. With `give_up` also whatever of its
    /// history needs this key leaves it, with all that is older. Waits for the journal.
    ///
    /// Durable: both, once this has returned.
    pub fn leave(&self, give_up: Option<KeyId>) -> Left {
        let (ready, done) = oneshot::channel();
        self.messages.send(Message::Leave { key: give_up, ready }).map_err(|_| Stopped)?;
        done.blocking_recv().map_err(|_| Stopped)
    }
}

/// What [`Desk::leave`] gives.
type Left = Result<Result<(), Stays>, Stopped>;

/// Keeps the journal from being trimmed behind a record.
pub struct Hold {
    shared: Arc<Shared>,
    after: Seq,
}

impl Hold {
    fn new(shared: &Arc<Shared>, after: Seq) -> Hold {
        shared.readers().push(after);
        Hold { shared: Arc::clone(shared), after }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut readers = self.shared.readers();
        if let Some(place) = readers.iter().position(|&after| after == self.after) {
            readers.swap_remove(place);
        }
    }
}

/// The way into an engine.
#[derive(Clone)]
pub struct Intake {
    messages: SyncSender<Message>,
    /// Told when the engine took a message.
    taken: Arc<Notify>,
}

/// The engine has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the replica has stopped")]
pub struct Stopped;

impl Intake {
    /// Begins a link: what is under way from an earlier one is journaled first, and what of it
    /// comes later is dropped. Waits while the engine is busy.
    pub async fn link(
        &self,
        link: u64,
        answers: Answers,
    ) -> Result<oneshot::Receiver<Greeting>, Stopped> {
        let (ready, greeting) = oneshot::channel();
        self.send(Message::Link { link, answers, ready }).await.map(|()| greeting)
    }

    /// Hands in a batch. Waits while the engine has enough: that is the flow control.
    pub async fn batch(&self, link: u64, records: Vec<Record>) -> Result<(), Stopped> {
        self.send(Message::Batch { link, records }).await
    }

    async fn send(&self, mut message: Message) -> Result<(), Stopped> {
        loop {
            message = match self.messages.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Stopped),
                Err(TrySendError::Full(back)) => back,
            };
            let _ = tokio::time::timeout(LOOK, self.taken.notified()).await;
        }
    }
}

#[cfg(test)]
mod behind_tests;
#[cfg(test)]
mod rollback_tests;
#[cfg(test)]
mod tests;
