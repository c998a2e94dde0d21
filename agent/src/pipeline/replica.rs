//! A group of which this agent is a replica: its engine, which is opened again when it fails, and
//! the streams that feed it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as Gate, Notify, mpsc, watch};
use tokio::task::JoinSet;
use vgship_base::ids::{Name, PeerId, Seq};
use vgship_base::io::Clock;
use vgship_base::layout::Layout;
use vgship_base::record::Record;
use vgship_snapshot::seal::KeyRing;
use vgship_snapshot::set::SnapshotSet;

mod grow;

use super::opening::Opening;
use super::past::historian::Historian;
use super::past::reading::Reading;
use super::roles::DrillBook;
use super::source::real_folder;
use super::view::PeerView;
use crate::api::ControlError;
use crate::api::progress::Progress;
use crate::apply::applier::Answer as Judged;
use crate::capture::io::report;
use crate::group::open_replica;
use crate::home::{GroupConfig, GroupHome, Home, Settings};
use crate::keys;
use crate::receive::io::{Desk, Engine, Greeting, Intake, Parts, REPLAY, View};
use crate::role::meeting::Ancestry;
use crate::role::{ancestry, yields};
use crate::wire::changed::Changed;
use crate::wire::frame::{Ack, Answer, Frame};
use crate::wire::hello::{Hello, Refusal};
use crate::wire::io::{FrameReceiver, FrameSender, HelloError, Link, Opened};
use crate::wire::kept::Kept;
use crate::wire::peers::Role;
use crate::wire::retry::{Backoff, Ended};

/// Answers that may wait for the link. More than a source has offers in flight in batches.
const ANSWERS: usize = 1024;

/// Threads that judge and write.
const WORKERS: usize = 2;

/// How long those who read snapshots may take to let go of them.
const LET_GO: Duration = Duration::from_secs(10);

/// How often the supervisor looks at the engine.
const LOOK: Duration = Duration::from_millis(100);

/// A replica at work.
pub(super) struct ReplicaGroup {
    pub(super) config: GroupConfig,
    /// As its source told it last, and as its volumes are.
    layout: Mutex<Arc<Layout>>,
    pub(super) peer: PeerId,
    pub(super) view: PeerView,
    pub(super) paused: AtomicBool,
    pub(super) received_bytes: AtomicU64,
    pub(super) progress: Mutex<Progress>,
    pub(super) clock: Clock,
    group_home: GroupHome,
    pub(super) keys: KeyRing,
    /// The drills that were done on it.
    pub(super) drills: DrillBook,
    /// Where its snapshots are read, also when it becomes something else.
    pub(super) reading: Arc<Reading>,
    /// What of it may be changed while it runs.
    settings: Mutex<Settings>,
    /// The snapshots of the engine that works, or worked last.
    last_set: Mutex<Weak<SnapshotSet>>,
    /// From when on any point can be opened (microseconds since 1970), and why history is shorter
    /// than it should be.
    history: Mutex<(Option<u64>, Option<String>)>,
    /// The snapshots that it keeps, for its source.
    pub(super) kept: watch::Sender<Option<Kept>>,
    /// Somebody wants it decided now what of history stays.
    pub(super) history_asked: AtomicBool,
    engine: Mutex<Engined>,
    links: AtomicU64,
    pub(super) stopping: AtomicBool,
    /// It is being removed: nobody holds a snapshot of it anew.
    pub(super) leaving: AtomicBool,
    changed: Notify,
    /// Held by the link that feeds the engine: with two links to one peer, one works.
    turn: Gate<Turn>,
    /// Held while the engine is opened or stopped, which takes long.
    opening: Mutex<Opening>,
}

enum Engined {
    Working(Engine),
    Failed { why: String, since: Instant, wait: Duration },
    Stopped,
}

impl Engined {
    fn failed(opening: &mut Opening, why: String) -> Engined {
        let wait = opening.failed(&why);
        Engined::Failed { why, since: Instant::now(), wait }
    }
}

/// When hello may be said again, whichever link stands then.
struct Turn {
    retry: Backoff,
    due: Instant,
}

impl ReplicaGroup {
    /// Opens a replica. One whose volumes or journal cannot be opened is kept and tried again.
    pub(super) fn start(
        home: &Home,
        config: GroupConfig,
        (peer, peer_name): (PeerId, &str),
        reading: Arc<Reading>,
    ) -> Result<ReplicaGroup, ControlError> {
        let group_home = home.group(&config.name);
        let keys = keys::ring(home, &group_home, config.id).map_err(|it| it.told())?;
        let path = group_home.layout();
        let bytes = std::fs::read(&path).map_err(|error| {
            ControlError::failed(format!("cannot read {}: {error}", path.display()))
        })?;
        let layout = Layout::decode(&bytes).map_err(|it| {
            ControlError::failed(format!("the layout in {} is damaged: {it}", path.display()))
        })?;
        let group = ReplicaGroup {
            layout: Mutex::new(Arc::new(layout)),
            peer,
            view: PeerView::new(config.name.clone(), peer_name.to_owned()),
            turn: Gate::new(Turn { retry: Backoff::new(seed(&config)), due: Instant::now() }),
            opening: Mutex::new(Opening::new(config.name.clone(), Backoff::new(seed(&config)))),
            paused: AtomicBool::new(false),
            received_bytes: AtomicU64::new(0),
            progress: Mutex::default(),
            clock: Clock::start(),
            drills: DrillBook::open(&group_home),
            group_home,
            keys,
            reading,
            settings: Mutex::new(config.policy.clone()),
            last_set: Mutex::default(),
            history: Mutex::default(),
            kept: watch::Sender::new(None),
            history_asked: AtomicBool::new(false),
            engine: Mutex::new(Engined::Stopped),
            links: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            changed: Notify::new(),
            config,
        };
        let engine = group.try_open(&mut group.opening());
        *group.engine() = engine;
        Ok(group)
    }

    /// What the group consists of, as its source told it.
    pub(super) fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn engine(&self) -> MutexGuard<'_, Engined> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<Engine, String> {
        let text = |error: &dyn std::error::Error| report(error);
        let spec = self.config.volumes.parse().map_err(|it| text(&it))?;
        let layout = self.layout();
        let volumes = open_replica(&spec, &layout, false).map_err(|it| text(&it))?;
        let folder = real_folder(&self.group_home, "replica").map_err(|it| text(&it))?;
        let journal = real_folder(&self.group_home, "journal").map_err(|it| text(&it))?;
        let snapshots = real_folder(&self.group_home, "snapshots").map_err(|it| text(&it))?;
        let journal_place = journal.path().display().to_string();
        self.await_readers()?;
        let parts = Parts {
            group: self.config.id,
            layout,
            volumes,
            folder: Arc::new(folder),
            journal: Arc::new(journal),
            journal_place,
            snapshots: Arc::new(snapshots),
            keys: self.keys.clone(),
            // Nothing goes before the historian has looked.
            floor: Seq::ZERO,
            wall: Arc::new({
                let clock = self.clock;
                move || clock.wall()
            }),
            replay: REPLAY,
        };
        let engine = Engine::open(parts, WORKERS).map_err(|it| text(&it))?;
        *self.last_set() = Arc::downgrade(engine.snapshots());
        Ok(engine)
    }

    fn last_set(&self) -> MutexGuard<'_, Weak<SnapshotSet>> {
        self.last_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot store is opened once at a time: those who still read the last one come first.
    pub(super) fn await_readers(&self) -> Result<(), String> {
        let since = Instant::now();
        while self.last_set().strong_count() > 0 {
            if since.elapsed() > LET_GO {
                return Err("somebody still reads the snapshots of the engine that failed".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its snapshots, or why there are none now.
    pub(super) fn snapshots(&self) -> Result<Arc<SnapshotSet>, String> {
        match &*self.engine() {
            Engined::Working(engine) => Ok(Arc::clone(engine.snapshots())),
            Engined::Failed { why, .. } => Err(why.clone()),
            Engined::Stopped => Err("stopped".into()),
        }
    }

    /// Where to ask for snapshots and records.
    pub(super) fn desk(&self) -> Result<Desk, ControlError> {
        let desk = match &*self.engine() {
            Engined::Working(engine) => engine.desk().ok_or_else(|| "stopped".to_owned()),
            Engined::Failed { why, .. } => Err(why.clone()),
            Engined::Stopped => Err("stopped".to_owned()),
        };
        desk.map_err(|why| ControlError::failed(format!("the replica does not work now: {why}")))
    }

    /// History needs no journal up to `floor`.
    pub(super) fn set_floor(&self, floor: Seq) {
        if let Engined::Working(engine) = &*self.engine() {
            engine.set_floor(floor);
        }
    }

    /// The journal's closed segments.
    pub(super) fn journal_segments(&self) -> Vec<(Seq, u64)> {
        match &*self.engine() {
            Engined::Working(engine) => engine.journal_segments(),
            _ => Vec::new(),
        }
    }

    /// What of it may be changed while it runs, as it is now.
    pub(super) fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these count.
    pub(super) fn change_settings(&self, settings: &Settings) {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone_from(settings);
        self.history_asked.store(true, Ordering::SeqCst);
    }

    /// From when on any point can be opened, and why history is short.
    pub(super) fn history_state(&self, reaches: Option<u64>, short: Option<String>) {
        *self.history.lock().unwrap_or_else(PoisonError::into_inner) = (reaches, short);
    }

    /// The same, as it was last told.
    pub(super) fn history(&self) -> (Option<u64>, Option<String>) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_open(&self, opening: &mut Opening) -> Engined {
        match self.open() {
            Ok(engine) => {
                opening.works();
                Engined::Working(engine)
            }
            Err(why) => Engined::failed(opening, why),
        }
    }

    /// What stands for the engine while it is opened, which takes as long as it takes.
    fn being_opened() -> Engined {
        Engined::Failed {
            why: "the replica is being opened".into(),
            since: Instant::now(),
            wait: Duration::MAX,
        }
    }

    /// Opens the engine again whenever it has failed, until the group is closed.
    pub(super) async fn supervise(self: Arc<Self>) {
        let historian = Historian::new(Arc::clone(&self));
        let name = format!("history {}", self.config.name);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(|| historian.run()) {
            tracing::error!(%error, "no thread for the history: no snapshots are taken");
        }
        while !self.stopping.load(Ordering::SeqCst) {
            tokio::time::sleep(LOOK).await;
            let this = Arc::clone(&self);
            // Opening replays the journal, which takes as long as it takes.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    fn look(&self) {
        let mut opening = self.opening();
        opening.remind();
        let taken = {
            let mut engine = self.engine();
            let due = match &*engine {
                Engined::Working(working) => {
                    let view = working.view();
                    view.turned || view.fault.is_some()
                }
                Engined::Failed { since, wait, .. } => since.elapsed() >= *wait,
                Engined::Stopped => false,
            };
            if !due {
                return;
            }
            std::mem::replace(&mut *engine, Self::being_opened())
        };
        // Both take as long as they take; status and links are not kept waiting.
        let next = match taken {
            Engined::Working(working) => {
                let fault = working.view().fault;
                working.stop();
                match fault {
                    Some(why) => Engined::failed(&mut opening, why),
                    None => self.try_open(&mut opening),
                }
            }
            Engined::Failed { .. } => self.try_open(&mut opening),
            Engined::Stopped => Engined::Stopped,
        };
        *self.engine() = next;
        self.changed.notify_waiters();
    }

    /// What the engine shows, or why there is none.
    pub(super) fn look_at(&self) -> Result<View, String> {
        match &*self.engine() {
            Engined::Working(engine) => Ok(engine.view()),
            Engined::Failed { why, .. } => Err(why.clone()),
            Engined::Stopped => Err("stopped".into()),
        }
    }

    /// Stops or restarts receiving.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Feeds the engine from a link for as long as it stands.
    pub(super) async fn follow(&self, link: &Link, name: &Name) {
        let mut turn = tokio::select! {
            turn = self.turn.lock() => turn,
            _ = link.closed() => return,
        };
        while link.stands() && !self.stopping.load(Ordering::SeqCst) {
            if self.paused.load(Ordering::SeqCst) {
                let _ = tokio::time::timeout(LOOK, self.changed.notified()).await;
                turn.due = Instant::now();
                continue;
            }
            // A refusal is not forgotten with the link over which it came.
            let wait = turn.due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = link.closed() => {}
                    () = self.changed.notified() => turn.due = Instant::now(),
                }
                continue;
            }
            let Err(trouble) = self.session(link, name).await;
            let wait = self.troubled(trouble, &mut turn.retry);
            turn.due = Instant::now() + wait;
        }
    }

    /// Shows why a stream ended; gives the wait before the next.
    fn troubled(&self, trouble: Trouble, retry: &mut Backoff) -> Duration {
        match trouble {
            Trouble::Refused(refusal, text) => {
                let passes = refusal.passes();
                let wait = retry.after(if passes { Ended::Unreachable } else { Ended::Refused });
                match refusal {
                    Refusal::Diverged => self.view.diverged(&text, Some(wait)),
                    _ => self.view.lost(&text, Some(wait)),
                }
                wait
            }
            Trouble::Lost(why) => {
                let wait = retry.after(self.view.how_lost());
                self.view.lost(&why, Some(wait));
                wait
            }
            Trouble::Here(why) => {
                self.view.ended(&why);
                LOOK
            }
            Trouble::Layout(layout) => match tokio::task::block_in_place(|| self.grow(&layout)) {
                Ok(()) => LOOK,
                Err(why) => {
                    let wait = retry.after(Ended::Unreachable);
                    self.view.lost(&why, Some(wait));
                    wait
                }
            },
        }
    }

    async fn session(&self, link: &Link, name: &Name) -> Result<Infallible, Trouble> {
        let number = self.links.fetch_add(1, Ordering::SeqCst) + 1;
        let (answers, judged) = mpsc::channel(ANSWERS);
        let (intake, progress, refused) = match &*self.engine() {
            Engined::Working(engine) if engine.view().handed.is_some() => {
                return Err(Trouble::Here("it becomes the source".into()));
            }
            Engined::Working(engine) => {
                let intake = engine.intake().ok_or_else(|| Trouble::Here("stopped".into()))?;
                (intake, engine.progress(), engine.refused())
            }
            Engined::Failed { why, .. } => return Err(Trouble::Here(why.clone())),
            Engined::Stopped => return Err(Trouble::Here("stopped".into())),
        };
        let stopped = || Trouble::Here("the replica's engine has stopped".into());
        let greeting = async {
            let greeting = intake.link(number, answers).await.map_err(|_| stopped())?;
            greeting.await.map_err(|_| stopped())
        };
        // An engine that waits for room on its disk says nothing for as long as that takes.
        let greeting = tokio::select! {
            greeting = greeting => greeting?,
            ended = link.closed() => return Err(Trouble::Lost(report(&ended))),
            () = self.until_paused() => return Err(Trouble::Lost("paused".into())),
        };
        let (ours, changed) = self.hello(&greeting, name)?;
        let Opened { theirs, mut sender, receiver, .. } = link.open(&ours).await?;
        if theirs.role != Role::Source {
            return Err(Trouble::Lost("the peer is no source of this group".into()));
        }
        if theirs.blind != ours.blind {
            let text = "one side takes this replica for a blind one and the other does not: remove \
                        the group here and pair it again";
            return Err(Trouble::Refused(Refusal::Veil, text.into()));
        }
        if theirs.layout != ours.layout {
            return Err(self.hear_layout(receiver).await);
        }
        self.remember(&theirs);
        for changed in changed {
            let told = sender.send(&Frame::Changed(changed)).await;
            told.map_err(|error| Trouble::Lost(report(&error)))?;
        }
        self.view.connected(link.remote_address());
        // A task of its own: what comes in must not keep acknowledgements from going out.
        let mut speaking = JoinSet::new();
        let kept = self.kept.subscribe();
        speaking.spawn(speak(sender, progress, judged, refused, kept, number));
        tokio::select! {
            ended = self.hear(receiver, &intake, number) => ended,
            ended = speaking.join_next() => match ended {
                Some(Ok(ended)) => ended,
                _ => Err(stopped()),
            },
            ended = link.closed() => Err(Trouble::Lost(report(&ended))),
            () = self.until_paused() => Err(Trouble::Here("paused".into())),
        }
    }

    /// What it says of itself, and what follows that when it gives up a history of its own.
    fn hello(&self, greeting: &Greeting, name: &Name) -> Result<(Hello, Vec<Changed>), Trouble> {
        let Greeting { durable, applied, damaged } = *greeting;
        let generation = durable.generation.unwrap_or_default();
        let notes = || {
            let folder = real_folder(&self.group_home, "replica").map_err(|it| it.to_string())?;
            let known = ancestry::load(&folder).map_err(|it| report(&it))?;
            let yields = yields::load(&folder, generation).map_err(|it| report(&it))?;
            Ok((known, yields))
        };
        let (known, yields) = notes().map_err(Trouble::Lost)?;
        let hello = Hello {
            group: self.config.id,
            role: Role::Replica,
            consistent: durable.consistent(),
            damaged,
            fresh: durable.generation.is_none(),
            blind: self.config.blind.is_some(),
            generation,
            start: durable.seq.start(),
            durable: durable.seq,
            applied: applied.seq,
            layout: self.layout().hash(),
            name: name.clone(),
            yields: yields.is_some(),
            lineage: known.before(generation),
        };
        Ok((hello, yields.map_or_else(Vec::new, |it| Changed::all(&it.changed))))
    }

    /// Remembers where the source's history comes from, for the day on which this side becomes the
    /// source.
    fn remember(&self, theirs: &Hello) {
        let (generation, lineage) = (theirs.generation, theirs.lineage.clone());
        let stored = real_folder(&self.group_home, "replica").map_err(|it| it.to_string());
        let stored = stored.and_then(|folder| {
            ancestry::learn(&folder, &Ancestry { generation, lineage }).map_err(|it| report(&it))
        });
        if let Err(error) = stored {
            tracing::warn!(group = %self.config.name, error,
                "the source's lineage cannot be noted; it is tried again with the next link");
        }
    }

    async fn hear(
        &self,
        mut receiver: FrameReceiver,
        intake: &Intake,
        number: u64,
    ) -> Result<Infallible, Trouble> {
        loop {
            let frame = receiver.next().await.map_err(|error| Trouble::Lost(report(&error)))?;
            match frame {
                Some(Frame::Batch(records)) => {
                    let bytes: usize = records.iter().map(Record::encoded_len).sum();
                    self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    let taken = intake.batch(number, records).await;
                    taken.map_err(|error| Trouble::Lost(report(&error)))?;
                    // A source that sends without a pause leaves no other point at which the end
                    // of the link or a pause is noticed.
                    tokio::task::yield_now().await;
                }
                Some(Frame::Ping(_) | Frame::Pong(_)) => {}
                Some(Frame::Bye { text, .. }) => return Err(Trouble::Lost(text)),
                Some(Frame::Layout(_)) => {
                    return Err(Trouble::Lost("the source changed its layout on a link".into()));
                }
                Some(Frame::Ack(_) | Frame::Answers(_) | Frame::Kept(_) | Frame::Changed(_)) => {
                    return Err(Trouble::Lost("the peer sent what only a replica sends".into()));
                }
                None => return Err(Trouble::Lost("the source ended the stream".into())),
            }
        }
    }

    async fn until_paused(&self) {
        while !self.paused.load(Ordering::SeqCst) && !self.stopping.load(Ordering::SeqCst) {
            let _ = tokio::time::timeout(LOOK, self.changed.notified()).await;
        }
    }

    /// Ends streams, then the engine: what was taken is applied and checkpointed.
    pub(super) fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
        let _alone = self.opening();
        let engine = std::mem::replace(&mut *self.engine(), Engined::Stopped);
        if let Engined::Working(engine) = engine {
            engine.stop();
        }
    }
}

fn seed(config: &GroupConfig) -> u64 {
    config.id.0.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}

/// Why a stream ended.
enum Trouble {
    Refused(Refusal, String),
    Lost(String),
    /// This side wants no stream now, and wakes itself up when it does.
    Here(String),
    /// The source's volumes are others than were known here.
    Layout(Layout),
}

impl From<HelloError> for Trouble {
    fn from(error: HelloError) -> Trouble {
        match error {
            HelloError::Refused { refusal, text } => Trouble::Refused(refusal, text),
            other => Trouble::Lost(report(&other)),
        }
    }
}

type Refused = Option<(u64, crate::receive::admit::AdmitError)>;

async fn speak(
    mut sender: FrameSender,
    mut progress: watch::Receiver<crate::receive::io::Progress>,
    mut judged: mpsc::Receiver<(u64, Vec<Judged>)>,
    mut refused: watch::Receiver<Refused>,
    mut kept: watch::Receiver<Option<Kept>>,
    number: u64,
) -> Result<Infallible, Trouble> {
    let stopped = || Trouble::Here("the replica's engine has stopped".into());
    let lost = |error: &dyn std::error::Error| Trouble::Lost(report(error));
    progress.mark_changed();
    kept.mark_changed();
    loop {
        tokio::select! {
            // First: a refusal also ends the answers, and says why.
            biased;
            changed = refused.changed() => {
                changed.map_err(|_| stopped())?;
                let refusal = refused.borrow_and_update().clone();
                if let Some((_, error)) = refusal.filter(|(link, _)| *link == number) {
                    return Err(Trouble::Lost(format!("refused a record of the source: {error}")));
                }
            }
            changed = progress.changed() => {
                changed.map_err(|_| stopped())?;
                let now = *progress.borrow_and_update();
                let ack = Ack {
                    received: now.received,
                    durable: now.durable.seq,
                    applied: now.applied.seq,
                    durable_clock: now.durable.clock,
                    applied_clock: now.applied.clock,
                };
                sender.send(&Frame::Ack(ack)).await.map_err(|error| lost(&error))?;
            }
            changed = kept.changed() => {
                changed.map_err(|_| stopped())?;
                let said = kept.borrow_and_update().clone();
                if let Some(said) = said {
                    sender.send(&Frame::Kept(said)).await.map_err(|error| lost(&error))?;
                }
            }
            answers = judged.recv() => {
                let (session, answers) = answers.ok_or_else(stopped)?;
                let frame = |judged: Judged| match judged.need {
                    None => Answer::Match { session, seq: judged.offer },
                    Some(parts) => Answer::Need { session, seq: judged.offer, parts },
                };
                sender.queue_answers(answers.into_iter().map(frame).collect());
                sender.flush().await.map_err(|error| lost(&error))?;
            }
        }
    }
}
