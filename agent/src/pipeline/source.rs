//! A group of which this agent is the source: its tap, the threads that serve it, its links.

mod serving;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as Gate, Notify, watch};
use vgship_base::disk::SharedDisk;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, PeerId, ReplicaId, Seq};
use vgship_base::io::{Clock, RealFolder};
use vgship_base::layout::Layout;
use vgship_base::limits::REPLICAS_MAX;
use vgship_snapshot::seal::KeyRing;
use vgship_snapshot::set::{Parts, SnapshotSet};

use super::beat::beat;
use super::drift::{Watched, watch};
use super::view::PeerView;
use super::volumes::{self, Opened as OpenedVolumes};
use crate::api::ControlError;
use crate::api::progress::Progress;
use crate::capture::activity::RegionSize;
use crate::capture::io::{Guard, Tap, report};
use crate::capture::ledger::Ledger;
use crate::capture::source::{Handed, Policy, Source};
use crate::home::{GroupConfig, GroupHome, Home, Settings};
use crate::keys::{self, KnownVeil};
use crate::outbox::queue::Budget;
use crate::outbox::spill::Spill;
use crate::role::handing;
use crate::role::meeting::Meeting;
use crate::ship::io::{check_extents, move_spill, read_extents};
use crate::wire::kept::Kept;

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
    /// Peers that are a source of the group too, and what they are to this one.
    met: Mutex<BTreeMap<PeerId, Meeting>>,
    /// What is known of its veil key.
    veil: Mutex<Option<KnownVeil>>,
}

/// One replica's place at its source.
pub(super) struct ReplicaLink {
    pub(super) peer: PeerId,
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
        let guard = guard(&group_home, &config, &keys, &layout, &volumes)?;
        let tap = Arc::new(Tap::new(core, ledger, volumes, clock).guarded(guard));
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
            met: Mutex::default(),
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
        self.remember_handing()?;
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

    /// An earlier life may have given the role away: nobody writes before that is known.
    fn remember_handing(&self) -> Result<(), ControlError> {
        let noted = handing::load(&self.ledger_folder()?);
        let Some(noted) = noted.map_err(|it| ControlError::from_error(&it))? else { return Ok(()) };
        let mut core = self.tap.core();
        if let Some(to) = core.find(noted.peer) {
            core.was_handing(Handed { to, seq: noted.after.next() });
            tracing::warn!(group = %self.config.name, "the group was being handed over: nothing is                 written before the other side has said whether it took it");
        }
        Ok(())
    }

    /// Where its ledger is, and the note of a handover.
    pub(super) fn ledger_folder(&self) -> Result<RealFolder, ControlError> {
        real_folder(&self.group_home, "source")
    }

    fn met_peers(&self) -> MutexGuard<'_, BTreeMap<PeerId, Meeting>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer showed that it is a source of this group too. Whether that is news.
    pub(super) fn met(&self, peer: PeerId, meeting: Meeting) -> bool {
        self.met_peers().insert(peer, meeting) != Some(meeting)
    }

    /// What peers that are a source of this group too are to this one.
    pub(super) fn meetings(&self) -> Vec<(PeerId, Meeting)> {
        self.met_peers().iter().map(|(peer, meeting)| (*peer, *meeting)).collect()
    }

    /// A peer says hello as a replica.
    fn forget_met(&self, peer: PeerId) {
        self.met_peers().remove(&peer);
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
            peer: self.tap.core().replica(id).peer,
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

/// What preserves for the snapshots that this side kept as a replica, if it has some.
fn guard(
    home: &GroupHome,
    config: &GroupConfig,
    keys: &KeyRing,
    layout: &Arc<Layout>,
    volumes: &[SharedDisk],
) -> Result<Option<Guard>, ControlError> {
    let place = home.folder().join("snapshots");
    if !place.exists() {
        return Ok(None);
    }
    let set = SnapshotSet::open(Parts {
        folder: Arc::new(real_folder(home, "snapshots")?),
        keys: keys.clone(),
        group: config.id,
        layout: Arc::clone(layout),
        volumes: volumes.to_vec(),
        pack_bytes: None,
    });
    let why = match set.and_then(|set| Guard::new(set, place.clone())) {
        Ok(guard) => return Ok(Some(guard)),
        Err(error) => report(&error),
    };
    // Applications come first.
    Guard::give_up(&place, &why).map_err(|error| {
        ControlError::failed(format!("cannot set {} aside: {error}", place.display()))
    })?;
    Ok(None)
}

pub(super) fn real_folder(group: &GroupHome, name: &str) -> Result<RealFolder, ControlError> {
    let path = group.folder().join(name);
    RealFolder::open(&path)
        .map_err(|error| ControlError::failed(format!("cannot open {}: {error}", path.display())))
}
