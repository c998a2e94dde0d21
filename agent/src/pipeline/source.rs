//! A group of which this agent is the source: its tap, the threads that serve it, its links.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as Gate, Notify, watch};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, Name, PeerId, ReplicaId, Seq};
use vgship_base::io::{Clock, RealFolder};
use vgship_base::limits::REPLICAS_MAX;
use vgship_snapshot::seal::KeyRing;

use super::beat::beat;
use super::drift::{Watched, watch};
use super::view::PeerView;
use super::volumes::{self, Opened as OpenedVolumes};
use crate::api::ControlError;
use crate::api::progress::Progress;
use crate::capture::activity::RegionSize;
use crate::capture::io::{Tap, report};
use crate::capture::ledger::Ledger;
use crate::capture::source::{Policy, Source};
use crate::home::{GroupConfig, GroupHome, Home, Settings};
use crate::keys::{self, KnownVeil};
use crate::outbox::queue::Budget;
use crate::outbox::spill::Spill;
use crate::ship::io::{carry, check_extents, move_spill, read_extents};
use crate::ship::verdict::{ReplicaPoint, Verdict};
use crate::wire::frame::Frame;
use crate::wire::hello::{Hello, Refusal};
use crate::wire::io::{Greeting, Link, Opened};
use crate::wire::kept::Kept;
use crate::wire::peers::Role;

/// How long a replica that knows other volumes may take to hear of them.
const TOLD: Duration = Duration::from_secs(10);

/// Threads that read extents for one replica: one reads while the other hashes.
const READERS: usize = 2;

/// A source at work.
pub(super) struct SourceGroup {
    pub(super) config: GroupConfig,
    pub(super) tap: Arc<Tap>,
    pub(super) watched: Arc<Watched>,
    pub(super) progress: Mutex<Progress>,
    /// Held by the command that has its applications frozen.
    pub(super) quiescing: Mutex<()>,
    settings: RwLock<Settings>,
    /// What the self-check reads. Unit: bytes a second.
    check_rate: Arc<AtomicU64>,
    group_home: GroupHome,
    pub(super) keys: KeyRing,
    stop: Arc<AtomicBool>,
    /// No stream is served any more.
    gone: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    replicas: Mutex<BTreeMap<ReplicaId, Arc<ReplicaLink>>>,
    /// What is known of its veil key.
    veil: Mutex<Option<KnownVeil>>,
}

/// One replica's place at its source.
pub(super) struct ReplicaLink {
    pub(super) view: PeerView,
    /// Payload and headers handed to its links. Unit: bytes.
    pub(super) sent: AtomicU64,
    /// Whether its pairing was taken away.
    pub(super) dismissed: AtomicBool,
    /// Held by the link that serves it.
    gate: Gate<()>,
    /// Told when a newer link takes over.
    newer: Notify,
    /// The snapshots that it said it keeps, when it last said so.
    kept: Mutex<Option<Kept>>,
}

impl ReplicaLink {
    /// The snapshots that it keeps, as it last said.
    pub(super) fn kept(&self) -> Option<Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An identity that nobody else has.
pub(super) fn random_generation() -> Result<Generation, ControlError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| {
        ControlError::failed(format!("the system gives no randomness: {error}"))
    })?;
    Ok(Generation(id))
}

fn policy(config: &GroupConfig) -> Policy {
    Policy {
        overflow: config.policy.on_overflow,
        budget: Budget { ram: config.outbox_ram.0.0, spill: config.spill.0.0 },
        epoch: u64::try_from(config.epoch.0.as_millis()).unwrap_or(u64::MAX),
        region: RegionSize::default(),
        sync: config.policy.sync_policy(),
        lag: config.policy.lag_policy(),
    }
}

impl SourceGroup {
    /// Opens a group and sets it to work. `peers` are those that may be its replicas.
    pub(super) fn start(
        home: &Home,
        config: GroupConfig,
        clock: Clock,
        peers: &[(PeerId, String, bool)],
    ) -> Result<SourceGroup, ControlError> {
        let group_home = home.group(&config.name);
        let keys = keys::ring(home, &group_home, config.id).map_err(|it| it.told())?;
        let veil = keys::veil(home, &group_home, config.id).map_err(|it| it.told())?;
        if veil.is_none() && peers.iter().any(|(.., blind)| *blind) {
            return Err(keys::lost_veil(&group_home).told());
        }
        let extent = ExtentSize::from_bytes(config.extent.0.0)
            .ok_or_else(|| ControlError::usage("extent: a power of two from 4 KiB to 1 MiB"))?;
        let spec = config.volumes.parse().map_err(|it| ControlError::from_error(&it))?;
        let OpenedVolumes { known, volumes, strange } =
            volumes::open(&group_home, &config.name, &spec, extent)?;
        let layout = Arc::new(known.layout.clone());
        let fresh = random_generation()?;
        let folder = real_folder(&group_home, "source")?;
        let (ledger, state) =
            Ledger::load(Arc::new(folder), &layout).map_err(|it| ControlError::from_error(&it))?;
        let policy = policy(&config);
        let mut core = match state {
            Some(state) => Source::resume(state, Arc::clone(&layout), policy, fresh),
            None => Source::create(config.id, fresh, Arc::clone(&layout), policy),
        };
        for (id, volume) in strange.iter().filter_map(|name| layout.find(name.as_str())) {
            tracing::warn!(group = %config.name, volume = %volume.name, "the volume is not the one \
                that was replicated, as after a backup was put back; all of it is compared");
            core.suspect(id);
        }
        let tap = Arc::new(Tap::new(core, ledger, volumes, clock));
        veil.into_iter().for_each(|key| tap.set_veil(key));
        let (name, home) = (config.name.clone(), group_home.clone());
        let watched = Arc::new(Watched::new(name, spec, home, Arc::clone(&tap), known));
        let group = SourceGroup {
            settings: RwLock::new(config.policy.clone()),
            check_rate: Arc::new(AtomicU64::new(config.policy.self_check.0.0)),
            config,
            tap,
            watched,
            progress: Mutex::default(),
            quiescing: Mutex::default(),
            group_home,
            keys,
            stop: Arc::default(),
            gone: watch::Sender::new(false),
            threads: Mutex::default(),
            replicas: Mutex::default(),
            veil: Mutex::default(),
        };
        group.learn_veil()?;
        group.begin(peers)?;
        Ok(group)
    }

    fn begin(&self, peers: &[(PeerId, String, bool)]) -> Result<(), ControlError> {
        // What an earlier life left unflushed must be stable before it is offered (R4), and the
        // new start durable before it numbers anything.
        let ids: Vec<_> = self.tap.core().layout().ids().collect();
        for volume in ids {
            self.tap.flush(volume).map_err(|error| {
                ControlError::failed(format!("cannot flush volume {}: {error}", volume.0))
            })?;
            // A life that ended after a failed flush leaves in the system's cache what was never
            // stored; nothing may be offered by it (R8).
            self.tap.volumes()[volume.index()].forget_cache();
        }
        for (peer, _, blind) in peers {
            let mut core = self.tap.core();
            let id = core.find(*peer).unwrap_or_else(|| core.add_replica(*peer));
            // As when it was paired: another kind of pairing is met by a replica that begins anew.
            core.replica_mut(id).blind = *blind;
        }
        self.must_checkpoint()?;
        self.watched.store_identities()?;
        for (peer, name, _) in peers {
            let id = self.tap.core().find(*peer);
            self.serve(id.expect("it was just added"), name)?;
        }
        let (tap, stop) = (Arc::clone(&self.tap), Arc::clone(&self.stop));
        let name = self.config.name.clone();
        self.spawn("beat", move || beat(&name, &tap, &stop))?;
        let (watched, stop) = (Arc::clone(&self.watched), Arc::clone(&self.stop));
        self.spawn("watch", move || watch(&watched, &stop))
    }

    /// How it is replicated now.
    pub(super) fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replicates it so from now on.
    pub(super) fn set(&self, settings: &Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings.clone();
        self.check_rate.store(settings.self_check.0.0, Ordering::Relaxed);
        let mut core = self.tap.core();
        core.set_overflow(settings.on_overflow);
        core.set_sync_policy(settings.sync_policy());
        core.set_lag_policy(settings.lag_policy());
        for (id, link) in self.links() {
            if !link.dismissed.load(Ordering::SeqCst) {
                let mode = settings.mode_of(core.replica(id).peer);
                core.set_mode(id, mode);
            }
        }
        drop(core);
        self.tap.wake();
    }

    fn must_checkpoint(&self) -> Result<(), ControlError> {
        match self.tap.checkpoint() {
            true => Ok(()),
            false => Err(ControlError::failed(format!(
                "cannot write the ledger of group {}: see the log",
                self.config.name
            ))),
        }
    }

    /// Takes a new replica in, or one that was paired anew.
    pub(super) fn add_replica(
        &self,
        home: &Home,
        peer: PeerId,
        name: &str,
        blind: bool,
    ) -> Result<(), ControlError> {
        if blind && self.tap.veil().is_none() {
            let veil = keys::veil(home, &self.group_home, self.config.id);
            let veil = veil.map_err(|it| it.told())?;
            self.tap.set_veil(veil.ok_or_else(|| keys::lost_veil(&self.group_home).told())?);
            self.learn_veil()?;
        }
        let known = self.tap.core().find(peer);
        if let Some(id) = known.filter(|id| self.replicas().contains_key(id)) {
            self.tap.core().set_blind(id, blind);
            return self.must_checkpoint();
        }
        let full = self.tap.core().ids().count() >= REPLICAS_MAX;
        if known.is_none() && full {
            return Err(ControlError::refused(format!(
                "group {} has had {REPLICAS_MAX} replicas, which is as many as it can know",
                self.config.name
            ))
            .hint("add the volumes as a new group and pair that"));
        }
        let id = {
            let mut core = self.tap.core();
            let id = known.unwrap_or_else(|| core.add_replica(peer));
            core.set_blind(id, blind);
            id
        };
        // A group that an operator paused stays so for those who come later.
        self.watched.tell_paused();
        self.must_checkpoint()?;
        self.serve(id, name)
    }

    /// Looks anew at what is known of its veil key.
    pub(super) fn learn_veil(&self) -> Result<(), ControlError> {
        let known = keys::known_veil(&self.group_home, self.config.id).map_err(|it| it.told())?;
        *self.veil.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// What is known of its veil key; `None` when it has none.
    pub(super) fn known_veil(&self) -> Option<KnownVeil> {
        self.veil.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, id: ReplicaId, name: &str) -> Result<(), ControlError> {
        let link = ReplicaLink {
            view: PeerView::new(self.config.name.clone(), name.to_owned()),
            sent: AtomicU64::new(0),
            dismissed: AtomicBool::new(false),
            gate: Gate::new(()),
            newer: Notify::new(),
            kept: Mutex::default(),
        };
        self.replicas().insert(id, Arc::new(link));
        let mode = self.settings().mode_of(self.tap.core().replica(id).peer);
        self.tap.core().set_mode(id, mode);
        let (tap, stop, rate) =
            (Arc::clone(&self.tap), Arc::clone(&self.stop), Arc::clone(&self.check_rate));
        self.spawn("self-check", move || check_extents(&tap, id, &rate, &stop))?;
        for _ in 0..READERS {
            let (tap, stop) = (Arc::clone(&self.tap), Arc::clone(&self.stop));
            self.spawn("resync", move || read_extents(&tap, id, &stop))?;
        }
        let limit = self.config.spill.0.0;
        if limit > 0 {
            let folder = real_folder(&self.group_home, &format!("spill-{}", id.0))?;
            let spill = Spill::create(Arc::new(folder), &self.keys, self.config.id, limit)
                .map_err(|it| ControlError::from_error(&it))?;
            let (tap, stop) = (Arc::clone(&self.tap), Arc::clone(&self.stop));
            self.spawn("spill", move || move_spill(&tap, id, spill, &stop))?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), ControlError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread
            .map_err(|error| ControlError::failed(format!("cannot start a thread: {error}")))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn replicas(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Arc<ReplicaLink>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its replicas' links.
    pub(super) fn links(&self) -> Vec<(ReplicaId, Arc<ReplicaLink>)> {
        self.replicas().iter().map(|(id, link)| (*id, Arc::clone(link))).collect()
    }

    /// Serves the stream of a replica that said hello, until it ends.
    pub(super) async fn serve_link(&self, link: &Link, greeting: Greeting, name: &Name) {
        let found = self.tap.core().find(link.peer());
        let place = found.and_then(|id| Some((id, self.replicas().get(&id).cloned()?)));
        let Some((id, place)) = place else {
            // The refusal may not reach the peer; it asks again.
            let _ = greeting.refuse(Refusal::Unavailable, "the replica is not served yet").await;
            return;
        };
        place.newer.notify_waiters();
        let _gate = place.gate.lock().await;
        if *self.gone.borrow() {
            return; // without an answer; when it asks again, the group is unknown
        }
        match self.carry(link, greeting, id, &place, name).await {
            Ok(()) => {}
            Err(End::Diverged(why)) => place.view.diverged(&why, None),
            Err(End::Lost(why)) => place.view.lost(&why, None),
        }
    }

    async fn carry(
        &self,
        link: &Link,
        greeting: Greeting,
        id: ReplicaId,
        place: &ReplicaLink,
        name: &Name,
    ) -> Result<(), End> {
        let hello = greeting.hello().clone();
        let point = ReplicaPoint {
            fresh: hello.fresh,
            generation: hello.generation,
            durable: hello.durable,
            damaged: hello.damaged,
        };
        let fresh = random_generation().map_err(|error| End::Lost(error.to_string()))?;
        let begun = {
            let mut core = self.tap.core();
            match self.watched.stopped() {
                Some(why) => Err(Unfit::Stopped(why)),
                // In one breath with the verdict: content of one replica is wholly veiled or not.
                None if hello.blind != core.replica(id).blind => Err(Unfit::Veil),
                None if hello.layout != core.layout_hash() => Err(Unfit::Layout),
                None => Ok(core.link_up(id, &point, fresh)),
            }
        };
        let verdict = match begun {
            Ok(verdict) => verdict,
            Err(Unfit::Layout) => return Err(self.tell_layout(greeting, id, name).await),
            Err(Unfit::Veil) => {
                let why = veil_differs(hello.blind);
                let _ = greeting.refuse(Refusal::Veil, why).await;
                return Err(End::Lost(why.into()));
            }
            Err(Unfit::Stopped(why)) => {
                let _ = greeting.refuse(Refusal::Unavailable, &why).await;
                return Err(End::Lost(why));
            }
        };
        if verdict == Verdict::Diverged {
            let text = "both sides have a history of their own; an operator must choose one";
            let _ = greeting.refuse(Refusal::Diverged, text).await;
            return Err(End::Diverged(text.into()));
        }
        if verdict.needs_ledger() && !tokio::task::block_in_place(|| self.tap.checkpoint()) {
            self.tap.core().link_lost(id);
            let _ = greeting.refuse(Refusal::Unavailable, "the ledger fails").await;
            return Err(End::Lost("the ledger cannot be written".into()));
        }
        let ours = self.hello(id, name);
        let mut opened = match greeting.accept(&ours).await {
            Ok(opened) => opened,
            Err(error) => {
                self.tap.core().link_lost(id);
                return Err(End::Lost(report(&error)));
            }
        };
        if place.view.connected(link.remote_address()) {
            tracing::info!(group = %self.config.name, peer = place.view.name(), ?verdict,
                durable = %hello.durable, "a replica said hello");
        }
        let kept = |kept| *place.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        let (sender, receiver) = (&mut opened.sender, &mut opened.receiver);
        let end = tokio::select! {
            end = carry(&self.tap, id, &place.sent, &kept, sender, receiver) => report(&end),
            end = link.closed() => report(&end),
            () = self.ended() => "the group is removed here".to_owned(),
            () = place.newer.notified() => "a newer link of the same peer took over".to_owned(),
        };
        self.tap.core().link_lost(id);
        Err(End::Lost(end))
    }

    fn hello(&self, id: ReplicaId, name: &Name) -> Hello {
        let core = self.tap.core();
        Hello {
            group: self.config.id,
            role: Role::Source,
            consistent: true,
            damaged: false,
            fresh: false,
            blind: core.replica(id).blind,
            generation: core.generation(),
            start: core.start(),
            durable: core.issued(),
            applied: core.replica(id).durable,
            layout: core.layout_hash(),
            name: name.clone(),
        }
    }

    /// Tells a replica that knows other volumes what the group consists of. It gets no record: it
    /// makes its volumes larger and comes again, or says why it cannot.
    async fn tell_layout(&self, greeting: Greeting, id: ReplicaId, name: &Name) -> End {
        let (ours, layout) = (self.hello(id, name), Arc::clone(self.tap.core().layout()));
        let telling = async {
            let Opened { mut sender, .. } =
                greeting.accept(&ours).await.map_err(|error| report(&error))?;
            let told = sender.send(&Frame::Layout((*layout).clone())).await;
            told.map_err(|error| report(&error))?;
            sender.finish().await.map_err(|error| report(&error))
        };
        End::Lost(match tokio::time::timeout(TOLD, telling).await {
            Ok(Err(why)) => why,
            Ok(Ok(())) | Err(_) => {
                "its volumes are not as large as those here; it was told, and says why if it cannot \
                 make them larger"
                    .to_owned()
            }
        })
    }

    /// Stops or restarts shipping.
    pub(super) fn pause(&self, paused: bool) {
        self.watched.paused.store(paused, Ordering::SeqCst);
        self.watched.tell_paused();
    }

    /// A peer may be no replica any more.
    pub(super) fn dismiss(&self, peer: PeerId) {
        let mut core = self.tap.core();
        if let Some(id) = core.find(peer) {
            core.dismiss(id);
            if let Some(link) = self.replicas().get(&id) {
                link.dismissed.store(true, Ordering::SeqCst);
            }
        }
        drop(core);
        self.tap.wake();
    }

    /// The agent stops: no client may wait for an outbox.
    pub(super) fn stop_stalling(&self) {
        self.tap.core().stop_stalling();
        self.tap.wake();
    }

    /// Waits, for as long as `longest`, until every connected replica has everything.
    pub(super) async fn drain(&self, longest: Duration) {
        let since = Instant::now();
        let behind = || {
            let core = self.tap.core();
            let issued = core.issued();
            let behind = |seq: Seq| seq < issued;
            core.ids().any(|id| {
                let replica = core.replica(id);
                replica.linked() && !replica.paused && behind(replica.durable)
            })
        };
        while behind() && since.elapsed() < longest {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn ended(&self) {
        // The sender lives as long as this group.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    /// Ends the streams of its replicas for good. Returns when none runs.
    pub(super) async fn end_streams(&self) {
        self.gone.send_replace(true);
        for (_, place) in self.links() {
            drop(place.gate.lock().await);
        }
    }

    /// Ends its threads and writes its last word. No client is connected any more.
    pub(super) fn close(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.tap.jobs.notify_all();
        self.tap.wake();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        if let Err(error) = self.tap.close() {
            tracing::error!(group = %self.config.name, error = %report(&error),
                "the group could not be closed cleanly; the next start resyncs what is in doubt");
        }
    }
}

/// Why a hello gets no verdict.
enum Unfit {
    /// The group does not replicate now.
    Stopped(String),
    /// It knows other volumes.
    Layout,
    /// Only one side takes the replica for a blind one.
    Veil,
}

/// Why a hello is refused of which `theirs` says whether it is blind.
fn veil_differs(theirs: bool) -> &'static str {
    match theirs {
        true => {
            "the replica was paired as a blind one, and here it is none: remove the group there and \
             pair it again"
        }
        false => {
            "the replica was not paired as a blind one, and here it is one: remove the group there \
             and pair it again with a token of pair invite --blind"
        }
    }
}

enum End {
    Lost(String),
    Diverged(String),
}

pub(super) fn real_folder(group: &GroupHome, name: &str) -> Result<RealFolder, ControlError> {
    let path = group.folder().join(name);
    RealFolder::open(&path)
        .map_err(|error| ControlError::failed(format!("cannot open {}: {error}", path.display())))
}
