//! The agent of one home: its groups, its endpoint, its NBD server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Mutex as Gate, Semaphore};
use vgship_base::ids::{GroupId, Name, PeerId};
use vgship_base::io::Clock;
use vgship_snapshot::seal::KeyId;

use super::control::Controlled;
use super::exports::Served;
use super::links;
use super::past::environments::{Environments, LEASES};
use super::past::reading::Reading;
use super::past::sets::settle;
use super::past::sets::shelf::Shelf;
use super::replica::ReplicaGroup;
use super::roles::{self, Procedures};
use super::source::SourceGroup;
use super::turned_away::TurnedAway;
use crate::api::ControlError;
use crate::api::control::{Answer, SharedControl};
use crate::capture::nbd::io::socket::Listener;
use crate::capture::nbd::io::{NbdClients, NbdServer};
use crate::cli::parts::Running;
use crate::home::{Config, GroupConfig, LockedHome};
use crate::wire::batch::Compression;
use crate::wire::identity::Identity;
use crate::wire::io::{
    Close, Config as EndpointConfig, Endpoint, Link, PairingHost, PeerBook, Tuning,
    load_or_create_identity,
};
use crate::wire::peers::Role;

/// How long a stop waits for connected replicas to take what is in the outbox.
const DRAIN: Duration = Duration::from_secs(2);

/// Streams of orders that are served at once, each by a thread. More are refused.
const ORDERS_MAX: usize = 64;

/// One group of an agent.
#[derive(Clone)]
pub(super) enum Group {
    /// This agent is its source.
    Source(Arc<SourceGroup>),
    /// This agent is a replica of it.
    Replica(Arc<ReplicaGroup>),
    /// It could not be opened; the other groups go on.
    Failed {
        /// As configured.
        config: Arc<GroupConfig>,
        /// Why.
        error: ControlError,
    },
}

impl Group {
    /// As configured.
    pub(super) fn config(&self) -> &GroupConfig {
        match self {
            Group::Source(group) => &group.config,
            Group::Replica(group) => &group.config,
            Group::Failed { config, .. } => config,
        }
    }
}

/// What all tasks of an agent share.
pub(super) struct Inner {
    pub(super) home: LockedHome,
    pub(super) config: Config,
    pub(super) book: Arc<PeerBook>,
    pub(super) peer_id: PeerId,
    /// What it signs with.
    pub(super) identity: Arc<Identity>,
    pub(super) clock: Clock,
    pub(super) served: Arc<Served>,
    pub(super) environments: Environments,
    pub(super) sets: Shelf,
    /// One for each stream of orders that is served.
    pub(super) orders: Semaphore,
    pub(super) turned_away: TurnedAway,
    pub(super) nbd: OnceLock<NbdClients>,
    /// Held while a group goes, or changes its role.
    pub(super) removing: Gate<()>,
    pub(super) procedures: Procedures,
    endpoint: OnceLock<Endpoint>,
    groups: RwLock<BTreeMap<Name, Group>>,
    readings: Mutex<BTreeMap<Name, Arc<Reading>>>,
    links: Mutex<BTreeMap<PeerId, Link>>,
    callers: Mutex<BTreeSet<PeerId>>,
}

/// A running agent.
struct Agent {
    inner: Arc<Inner>,
    nbd: NbdServer,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Inner").field("agent", &self.config.name).finish_non_exhaustive()
    }
}

/// Tells joiners of groups.
#[derive(Debug)]
struct Host(std::sync::Weak<Inner>);

impl PairingHost for Host {
    fn layout(&self, group: GroupId) -> Option<Vec<u8>> {
        match self.0.upgrade()?.group_by_id(group)? {
            Group::Source(source) => Some(source.tap.core().layout().encode()),
            _ => None,
        }
    }

    fn veil(&self, group: GroupId) -> Option<KeyId> {
        match self.0.upgrade()?.group_by_id(group)? {
            Group::Source(source) => source.known_veil().map(|known| known.id),
            _ => None,
        }
    }
}

impl Agent {
    /// Opens every group and serves.
    async fn start(home: LockedHome, config: Config) -> Result<Agent, ControlError> {
        let failed = |error: &(dyn std::error::Error + 'static)| ControlError::from_error(error);
        let identity =
            Arc::new(load_or_create_identity(&home.identity()).map_err(|it| failed(&it))?);
        let book = Arc::new(PeerBook::open(home.peers()).map_err(|it| failed(&it))?);
        let served = Arc::new(Served::default());
        let inner = Arc::new(Inner {
            book: Arc::clone(&book),
            peer_id: identity.id(),
            identity: Arc::clone(&identity),
            clock: Clock::start(),
            served: Arc::clone(&served),
            environments: Environments::new(&home),
            sets: Shelf::load(&home)?,
            orders: Semaphore::new(ORDERS_MAX),
            turned_away: TurnedAway::new(),
            nbd: OnceLock::new(),
            removing: Gate::new(()),
            procedures: Procedures::default(),
            endpoint: OnceLock::new(),
            groups: RwLock::default(),
            readings: Mutex::default(),
            links: Mutex::default(),
            callers: Mutex::default(),
            home,
            config,
        });
        let opening = Arc::clone(&inner);
        let opened = tokio::task::spawn_blocking(move || {
            opening.open_groups()?;
            opening.environments.load(|group| opening.reading_of(group), &opening.served);
            opening.release_orphans()
        });
        opened.await.map_err(|error| failed(&error))??;
        let (endpoint, from) = Endpoint::bind(EndpointConfig {
            identity,
            name: inner.config.name.clone(),
            listen: inner.config.listen,
            book: Arc::clone(&book),
            host: Arc::new(Host(Arc::downgrade(&inner))),
            compression: Compression::default(),
            tuning: Tuning::default(),
        })
        .map_err(|it| failed(&it))?;
        if inner.endpoint.set(endpoint).is_err() {
            return Err(ControlError::failed("the agent was started twice"));
        }
        let mut listeners =
            vec![Listener::unix(&inner.home.nbd_socket()).map_err(|it| failed(&it))?];
        if let Some(address) = inner.config.nbd_tcp {
            listeners.push(Listener::tcp(address).map_err(|it| failed(&it))?);
        }
        let nbd = NbdServer::start(listeners, served).map_err(|it| failed(&it))?;
        inner.nbd.get_or_init(|| nbd.handle());
        tokio::spawn(links::arrivals(Arc::clone(&inner), from));
        tokio::spawn(links::remind(Arc::clone(&inner)));
        tokio::spawn(look_after(Arc::clone(&inner)));
        tokio::spawn(settle::run(Arc::downgrade(&inner)));
        tokio::spawn(roles::look_after(Arc::downgrade(&inner)));
        tokio::spawn(roles::look_after_drills(Arc::downgrade(&inner)));
        for group in inner.groups() {
            if let Group::Replica(replica) = group {
                tokio::spawn(replica.supervise());
            }
        }
        for peer in book.peers() {
            inner.call(peer.id);
        }
        Ok(Agent { inner, nbd })
    }

    /// Stops cleanly: clients end, replicas take what they can, everything is closed.
    async fn stop(self) {
        let Agent { inner, nbd } = self;
        inner.environments.stop();
        for group in inner.groups() {
            if let Group::Source(source) = group {
                source.stop_stalling();
            }
        }
        let ended = tokio::task::spawn_blocking(move || nbd.shutdown()).await;
        if ended.is_err() {
            tracing::error!("the NBD server did not end cleanly");
        }
        let flushing = Arc::clone(&inner);
        if tokio::task::spawn_blocking(move || flushing.environments.flush()).await.is_err() {
            tracing::error!("the environments did not end cleanly");
        }
        for group in inner.groups() {
            if let Group::Source(source) = group {
                source.drain(DRAIN).await;
            }
        }
        inner.endpoint().close(Close::Stopping).await;
        let closing = Arc::clone(&inner);
        let closed = tokio::task::spawn_blocking(move || closing.close_groups()).await;
        if closed.is_err() {
            tracing::error!("the groups did not close cleanly");
        }
    }
}

impl Inner {
    /// The endpoint, which stands for as long as anyone can ask.
    pub(super) fn endpoint(&self) -> &Endpoint {
        self.endpoint.get().expect("the endpoint is bound before any task asks for it")
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Name, Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All groups, by name.
    pub(super) fn groups(&self) -> Vec<Group> {
        self.read().values().cloned().collect()
    }

    /// The group of a name.
    pub(super) fn group(&self, name: &Name) -> Result<Group, ControlError> {
        let groups = self.read();
        groups.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = groups.keys().map(Name::as_str).collect();
            let hint = match known.is_empty() {
                true => "this agent has no groups yet: add one with vgship group add".to_owned(),
                false => format!("its groups are: {}", known.join(", ")),
            };
            ControlError::refused(format!("this agent has no group {name}")).hint(hint)
        })
    }

    /// The group of an id.
    pub(super) fn group_by_id(&self, id: GroupId) -> Option<Group> {
        self.read().values().find(|group| group.config().id == id).cloned()
    }

    /// Nobody finds a group any more.
    pub(super) fn take_out(&self, name: &Name) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Where the snapshots of the group of a name are read, whatever it is by then.
    pub(super) fn reading(&self, group: &Name) -> Arc<Reading> {
        let mut all = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(group.clone()).or_default())
    }

    pub(super) fn put(&self, group: Group) {
        let name = group.config().name.clone();
        self.reading(&name).follow(&group);
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(name, group);
    }

    fn open_groups(&self) -> Result<(), ControlError> {
        for config in self.home.load_groups()? {
            let name = config.name.clone();
            let opened = match config.role {
                Role::Source => self.open_source(config.clone()).map(drop),
                Role::Replica => self.open_replica(config.clone()).map(drop),
            };
            if let Err(error) = opened {
                tracing::error!(group = %name, %error, "a group cannot be opened");
                self.put(Group::Failed { config: Arc::new(config), error });
            }
        }
        Ok(())
    }

    /// Opens a group of which this agent is the source, and serves its LVs.
    pub(super) fn open_source(
        &self,
        config: GroupConfig,
    ) -> Result<Arc<SourceGroup>, ControlError> {
        self.set_book(&config);
        let peers: Vec<(PeerId, String, bool)> = self
            .book
            .peers()
            .into_iter()
            .filter(|peer| self.book.allows(peer.id, config.id, Role::Replica))
            .map(|it| (it.id, it.name.to_string(), self.book.is_blind(it.id, config.id)))
            .collect();
        let source = Arc::new(SourceGroup::start(&self.home, config, self.clock, &peers)?);
        self.served.add(source.config.name.as_str(), &source.tap);
        self.put(Group::Source(Arc::clone(&source)));
        Ok(source)
    }

    /// Opens a group of which this agent is a replica.
    pub(super) fn open_replica(
        &self,
        config: GroupConfig,
    ) -> Result<Arc<ReplicaGroup>, ControlError> {
        self.set_book(&config);
        let peer = config.peer.ok_or_else(|| {
            ControlError::failed("the group is a replica and has no source")
                .hint("pair it again with a token of its source")
        })?;
        let name = self.book.peer(peer).map_or_else(|| peer.to_string(), |it| it.name.to_string());
        let reading = self.reading(&config.name);
        let named = (peer, name.as_str());
        let replica = Arc::new(ReplicaGroup::start(&self.home, config, named, reading)?);
        self.put(Group::Replica(Arc::clone(&replica)));
        Ok(replica)
    }

    /// A peer was paired as a replica of a group of ours.
    pub(super) fn take_replica(
        &self,
        group: GroupId,
        peer: PeerId,
        name: &str,
    ) -> Result<(), ControlError> {
        match self.group_by_id(group) {
            Some(Group::Source(source)) => {
                let blind = self.book.is_blind(peer, group);
                source.add_replica(&self.home, peer, name, blind)
            }
            _ => Err(ControlError::failed(format!("group {group} is not served here"))),
        }
    }

    /// Keeps nothing any more for replicas of a group whose pairing was taken away.
    pub(super) fn dismiss_revoked(&self, source: &SourceGroup) {
        let peers: Vec<PeerId> = {
            let core = source.tap.core();
            core.ids().map(|id| core.replica(id).peer).collect()
        };
        for peer in peers {
            if !self.book.allows(peer, source.config.id, Role::Replica) {
                source.dismiss(peer);
            }
        }
    }

    /// Begins to follow a source: by the link that stands, and by calling it.
    pub(super) fn begin_replica(self: &Arc<Self>, replica: &Arc<ReplicaGroup>) {
        tokio::spawn(Arc::clone(replica).supervise());
        match self.link_to(replica.peer) {
            Some(link) => links::follow(self, replica, &link),
            None => self.call(replica.peer),
        }
    }

    /// A link to a peer came to stand.
    pub(super) fn link_stands(&self, link: &Link) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.insert(link.peer(), link.clone());
        self.sets.kick();
    }

    /// The link to a peer, if one stands.
    pub(super) fn link_to(&self, peer: PeerId) -> Option<Link> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(&peer).filter(|link| link.stands()).cloned()
    }

    /// Calls a peer from now on, if it has an address and is not called yet.
    pub(super) fn call(self: &Arc<Self>, peer: PeerId) {
        let known = self.book.peer(peer).is_some_and(|known| known.address.is_some());
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if known && callers.insert(peer) {
            let agent = Arc::clone(self);
            tokio::spawn(async move {
                loop {
                    links::call(Arc::clone(&agent), peer).await;
                    let mut callers = agent.callers.lock().unwrap_or_else(PoisonError::into_inner);
                    // It may have been paired anew since.
                    if agent.book.peer(peer).is_none_or(|known| known.address.is_none()) {
                        callers.remove(&peer);
                        return;
                    }
                }
            });
        }
    }

    /// A peer could not be reached: every group that it is part of shows why.
    pub(super) fn unreachable(&self, peer: PeerId, why: &str, wait: Duration) {
        for group in self.groups() {
            match group {
                Group::Replica(replica) if replica.peer == peer && !replica.view.is_connected() => {
                    replica.view.lost(why, Some(wait));
                }
                Group::Source(source) => {
                    let known = source.tap.core().find(peer);
                    let links = source.links();
                    let place = links.iter().find(|(id, _)| Some(*id) == known);
                    if let Some((_, place)) = place.filter(|(_, place)| !place.view.is_connected())
                    {
                        place.view.lost(why, Some(wait));
                    }
                }
                _ => {}
            }
        }
    }

    fn close_groups(&self) {
        for group in self.groups() {
            match group {
                Group::Source(source) => source.close(),
                Group::Replica(replica) => replica.close(),
                Group::Failed { .. } => {}
            }
        }
    }
}

/// Looks after environments for as long as the agent runs.
async fn look_after(agent: Arc<Inner>) {
    let agent = Arc::downgrade(&agent);
    loop {
        tokio::time::sleep(LEASES).await;
        let Some(agent) = agent.upgrade() else { return };
        // One that panicked has said so; the next look comes.
        let _ = tokio::task::spawn_blocking(move || agent.look_after_environments()).await;
    }
}

struct Serving {
    agent: Agent,
}

impl Running for Serving {
    fn control(&self) -> SharedControl {
        Arc::new(Controlled(Arc::clone(&self.agent.inner)))
    }

    fn failed(&mut self) -> Answer<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn stop(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin(async move {
            self.agent.stop().await;
            Ok(())
        })
    }
}

/// Starts the agent of a home. Must be called inside a runtime.
pub fn start(home: LockedHome, config: Config) -> Answer<'static, Box<dyn Running>> {
    Box::pin(async {
        let agent = Agent::start(home, config).await?;
        Ok(Box::new(Serving { agent }) as Box<dyn Running>)
    })
}
