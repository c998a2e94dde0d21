//! The replica's engine: one thread admits and journals, one applies. What comes from a link goes
//! in as batches; acknowledgements and answers come out. Decides nothing of the order; that is
//! [`Admit`]'s.
//!
//! ```text
//! link -> journal thread (admit, seal, append, flush) -> acknowledgement
//!              \-> apply thread (coalesce, judge, write, checkpoint) -> answers
//! ```

mod journaling;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use vgship_base::disk::SharedDisk;
use vgship_base::folder::SharedFolder;
use vgship_base::ids::{GroupId, Seq};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Chain, Record};
use vgship_snapshot::seal::DataKey;

use super::admit::{Admit, AdmitError, Point};
use super::journal::{Journal, JournalError};
use crate::apply::applier::{Answer, Applier, ApplyError};
use crate::apply::checkpoint::{self, CheckpointError};
use crate::capture::io::report;
use journaling::Journaling;

/// Batches that may wait before each thread. A batch is at most 2 MiB: with both queues and the
/// batches at hand a replica holds at most 40 MiB of records.
const QUEUE: usize = 8;

/// Bytes applied before a checkpoint.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Time between checkpoints while records come; an idle replica makes one at once.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(100);

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
    /// Of the journal.
    pub key: DataKey,
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
    /// Why the engine has stopped.
    pub fault: Option<String>,
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
    Batch { link: u64, records: Vec<Record> },
    Link { link: u64, answers: Answers, ready: oneshot::Sender<Greeting> },
}

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
    taken: Arc<Notify>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    view: Mutex<View>,
    progress: watch::Sender<Progress>,
    refused: watch::Sender<Option<(u64, AdmitError)>>,
    trim: AtomicU64,
    /// Nobody waits for room any more.
    stopping: AtomicBool,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Parts { group, layout, volumes, folder, journal, journal_place, key } = parts;
        let stored = checkpoint::load(&*folder)?;
        let start = stored.unwrap_or(Point::FRESH);
        let (journal, recovered) = Journal::recover(journal, &key, group, start.seq)?;
        let mut applier = Applier::new(Arc::clone(&layout), volumes, workers);
        applier.flush_all()?;
        let mut admit = Admit::new(layout, start);
        for batch in journal.replay(start.seq) {
            let batch = batch?;
            for record in &batch {
                admit.admit(record, Chain::data_hash(record))?;
            }
            applier.apply(&batch, true)?;
        }
        if let Some(damage) = recovered.damage {
            tracing::error!(
                ?damage,
                "the journal was damaged; the source is asked for what is lost"
            );
            if damage.promised {
                admit.break_off();
            }
        }
        let point = admit.point();
        if point.generation.is_some() {
            applier.checkpoint(&*folder, &point)?;
        }
        let damaged = point.broken();
        let view = View {
            received: point,
            durable: point,
            applied: point,
            judged: 0,
            damaged,
            waits: None,
            fault: None,
        };
        let progress = Progress { received: point.seq, durable: point, applied: point };
        let shared = Arc::new(Shared {
            view: Mutex::new(view),
            progress: watch::Sender::new(progress),
            refused: watch::Sender::new(None),
            trim: AtomicU64::new(point.seq.0),
            stopping: AtomicBool::new(false),
        });
        let taken = Arc::new(Notify::new());
        let (messages, from_links) = sync_channel(QUEUE);
        let (to_apply, from_journal) = sync_channel(QUEUE);
        let journaling = Journaling::new(
            (admit, journal, journal_place),
            (to_apply, Arc::clone(&taken)),
            Arc::clone(&shared),
        );
        let applying = Applying {
            applier,
            folder,
            shared: Arc::clone(&shared),
            point,
            stored: point,
            since: Instant::now(),
        };
        let threads = vec![
            spawn("journal", move || journaling.run(&from_links)),
            spawn("apply", move || applying.run(&from_journal)),
        ];
        Ok(Engine { messages: Some(messages), taken, threads, shared })
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

    /// Where links put what they receive.
    pub fn intake(&self) -> Option<Intake> {
        let taken = Arc::clone(&self.taken);
        self.messages.clone().map(|messages| Intake { messages, taken })
    }

    /// Ends the engine: everything taken in is journaled, applied and checkpointed first, except
    /// what waits for room on the journal's disk, which was acknowledged to nobody.
    pub fn stop(mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.messages = None;
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

struct Applying {
    applier: Applier,
    folder: SharedFolder,
    shared: Arc<Shared>,
    point: Point,
    stored: Point,
    since: Instant,
}

impl Applying {
    fn run(mut self, from: &Receiver<Applied>) {
        loop {
            let (batch, ended) = match from.recv_timeout(IDLE) {
                Ok(batch) => (Some(batch), false),
                Err(RecvTimeoutError::Timeout) => (None, false),
                Err(RecvTimeoutError::Disconnected) => (None, true),
            };
            let idle = batch.is_none();
            let done = batch.map_or(Ok(()), |batch| self.apply(batch));
            if let Err(error) = done.and_then(|()| self.checkpoint(idle)) {
                self.shared.fail(&error);
                return;
            }
            if ended {
                return;
            }
        }
    }

    fn apply(&mut self, batch: Applied) -> Result<(), EngineError> {
        let Applied { records, point, answers } = batch;
        let session = point.window.map_or(0, |window| window.session);
        let judged = self.applier.apply(&records, false)?;
        let begins = records.iter().any(|record| matches!(record.body, Body::ResyncBegin(_)));
        {
            let mut view = self.shared.view();
            view.judged = if begins { 0 } else { view.judged } + judged.len() as u64;
        }
        self.point = point;
        if let (Some(answers), false) = (answers, judged.is_empty()) {
            // A link that is gone needs no answers: its source asks anew.
            let _ = answers.blocking_send((session, judged));
        }
        Ok(())
    }

    fn checkpoint(&mut self, idle: bool) -> Result<(), EngineError> {
        let due = idle
            || self.since.elapsed() >= CHECKPOINT_EVERY
            || self.applier.unflushed() >= CHECKPOINT_BYTES;
        if self.point == self.stored || !due {
            return Ok(());
        }
        self.applier.checkpoint(&*self.folder, &self.point)?;
        self.stored = self.point;
        self.since = Instant::now();
        self.shared.trim.store(self.point.seq.0, Ordering::SeqCst);
        self.shared.view().applied = self.point;
        let applied = self.point;
        self.shared.progress.send_modify(|progress| progress.applied = applied);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
