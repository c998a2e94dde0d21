//! What commands ask of the past.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vgship_base::ids::{Name, Seq};
use vgship_base::record::{Marker, Order};
use vgship_snapshot::set::{Listed, Noted, Origin, Snapshot, SnapshotSet};
use vgship_snapshot::template::Facts;

use super::places::refuse_taken;
use super::points::{Found, snapshot_error};
use super::reading::Reading;
use super::{export, historian, marking, quiesced, templates};
use crate::api::ControlError;
use crate::api::control::{Answer, Done};
use crate::api::past::{
    EnvEnd, EnvLog, EnvRequest, Environment, Environments, ExportRequest, Exported, History,
    Marked, MarkerRequest, Past, PointRow, RollbackRequest, RolledBack, SnapshotChange,
    SnapshotOrder, SnapshotRequest, SnapshotRow, Snapshots, TemplateAt, TemplateMade,
    TemplateRequest, TemplateUsers,
};
use crate::capture::nbd::io::NbdClients;
use crate::group::VolumesSpec;
use crate::history::keeping;
use crate::history::spec::{At, GroupPoint, rfc3339};
use crate::home::Period;
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::control::{Controlled, blocking};
use crate::pipeline::replica::ReplicaGroup;
use crate::pipeline::source::SourceGroup;
use crate::receive::admit::Point;
use crate::wire::kept::KeptSnapshot;

/// How long a source waits for its replicas to follow a marker, unless it is told.
const FOLLOW: Duration = Duration::from_secs(30);

/// What holds a snapshot while it is exported, or a template is made of it.
pub(in crate::pipeline) const READER: &str = "reader ";

impl Past for Controlled {
    fn marker(&self, group: Name, request: MarkerRequest) -> Answer<'_, Marked> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let MarkerRequest { name, quiesced, quiesce } = request;
            let source = source(&agent, &group, "a marker is put in where the source is")?;
            let marker = Marker { name, order: Order::Event, quiesced };
            match quiesce {
                true => quiesced::put(&agent, &source, marker, FOLLOW),
                false => marking::put(&agent, &source, &marker, FOLLOW),
            }
        })
    }

    fn snapshot_create(&self, group: Name, request: SnapshotRequest) -> Answer<'_, Marked> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let now = agent.clock.wall();
            let name: Name = match &request.name {
                Some(name) => name.parse().map_err(ControlError::usage)?,
                None => by_time(now)?,
            };
            let patience = request.timeout.map_or(FOLLOW, |timeout| timeout.0);
            match agent.group(&group)? {
                Group::Source(source) => {
                    let marker = Marker { name, order: Order::Snapshot, quiesced: false };
                    match request.quiesce {
                        true => quiesced::put(&agent, &source, marker, patience),
                        false => marking::put(&agent, &source, &marker, patience),
                    }
                }
                Group::Replica(_) if request.quiesce => Err(ControlError::refused(format!(
                    "group {group} is a replica here, and applications run where its source is"
                ))
                .hint("quiesce there: the snapshot is kept here")),
                Group::Replica(replica) => {
                    let taken = replica.take_snapshot(name, Origin::Manual)?;
                    let taken = taken.ok_or_else(|| ControlError::failed("nothing was taken"))?;
                    Ok(marked(&group, &taken))
                }
                Group::Failed { error, .. } => Err(error),
            }
        })
    }

    fn snapshot_list(&self, group: Name) -> Answer<'_, Snapshots> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            if let Group::Source(source) = agent.group(&group)? {
                let now = agent.clock.wall();
                return match source.tap.snapshots() {
                    None => told(&source, now),
                    Some(set) => with_own(&source, &set, now),
                };
            }
            let replica = replica(&agent, &group)?;
            let set = replica.snapshots().map_err(ControlError::failed)?;
            let all = set.list_costs().map_err(|it| snapshot_error(&it))?;
            let usage = set.usage().map_err(|it| snapshot_error(&it))?;
            let now = agent.clock.wall();
            let row = |listed: Listed| {
                let complete = set.is_settled(&listed.snapshot) && !listed.snapshot.torn;
                row(listed, complete, now)
            };
            Ok(Snapshots {
                group: group.to_string(),
                snapshots: all.into_iter().map(row).collect(),
                stored_bytes: usage.total,
                needed_bytes: Some(usage.live),
            })
        })
    }

    fn snapshot_change(&self, group: Name, request: SnapshotChange) -> Answer<'_, Done> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let SnapshotChange { name, order } = request.clone();
            let did = match order {
                SnapshotOrder::Delete => "deleted",
                SnapshotOrder::Pin => "pinned",
                SnapshotOrder::Unpin => "unpinned",
            };
            match agent.group(&group)? {
                Group::Source(source) => {
                    let order = match order {
                        SnapshotOrder::Delete => Order::Delete,
                        SnapshotOrder::Pin => Order::Pin,
                        SnapshotOrder::Unpin => Order::Unpin,
                    };
                    if change_own(&source, &name, request.order)? {
                        let done = format!("{name} is {did} here");
                        return Ok(Done { group: group.to_string(), done });
                    }
                    let marker = Marker { name: name.clone(), order, quiesced: false };
                    let put = marking::put(&agent, &source, &marker, FOLLOW)?;
                    let replicas = put.replicas.join(", ");
                    let done = format!("{name}: the order to have it {did} has reached {replicas}");
                    return Ok(Done { group: group.to_string(), done });
                }
                Group::Replica(replica) => {
                    let set = replica.snapshots().map_err(ControlError::failed)?;
                    let changed = match order {
                        SnapshotOrder::Delete => set.delete(name.as_str()),
                        SnapshotOrder::Pin => set.pin(name.as_str(), true),
                        SnapshotOrder::Unpin => set.pin(name.as_str(), false),
                    };
                    changed.map_err(|it| snapshot_error(&it))?;
                    tracing::info!(%group, snapshot = %name, did, "by an operator");
                }
                Group::Failed { error, .. } => return Err(error),
            }
            Ok(Done { group: group.to_string(), done: format!("{name} is {did}") })
        })
    }

    fn rollback(&self, group: Name, request: RollbackRequest) -> Answer<'_, RolledBack> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let replica = replica(&agent, &group)?;
            let at = request.to.as_deref().map(str::parse::<At>).transpose();
            match (at.map_err(ControlError::usage)?, &request.generation) {
                (Some(at), None) => replica.preview_rollback(&at),
                (Some(at), Some(generation)) => replica.roll_back(&at, generation),
                (None, Some(generation)) => replica.roll_forward(generation),
                (None, None) => Err(ControlError::usage("neither a point nor a generation")),
            }
        })
    }

    fn export(&self, request: ExportRequest) -> Answer<'_, Exported> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            refuse_taken(&VolumesSpec::Images(request.to.clone()), &agent.source_places())?;
            if !request.from.contains('@') {
                let name = request.from.parse().map_err(ControlError::usage)?;
                let template = templates::open(&agent.home, request.store.as_deref(), &name)?;
                return templates::export(&template, &request.to);
            }
            with_point(&agent, &request.from, |replica, found, scratch| {
                export::export(replica, found, &request.to, scratch)
            })
        })
    }

    fn template_create(&self, request: TemplateRequest) -> Answer<'_, TemplateMade> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            with_point(&agent, &request.from, |replica, found, scratch| {
                templates::create(&agent.home, replica, found, &request, Facts::new(), scratch)
            })
        })
    }

    fn template_users(&self, template: TemplateAt) -> Answer<'_, TemplateUsers> {
        let agent = Arc::clone(&self.0);
        blocking(move || agent.environments.template_users(&template))
    }

    fn history(&self, group: Name) -> Answer<'_, History> {
        let agent = Arc::clone(&self.0);
        blocking(move || history(&*replica(&agent, &group)?))
    }

    fn env_create(&self, request: EnvRequest) -> Answer<'_, Environment> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let request = agent.of_set(request)?;
            agent.make_environment(&request)
        })
    }

    fn env_list(&self) -> Answer<'_, Environments> {
        let environments = self.0.environments.list();
        Box::pin(async { Ok(Environments { environments }) })
    }

    fn env_log(&self, name: Name) -> Answer<'_, EnvLog> {
        let agent = Arc::clone(&self.0);
        blocking(move || agent.environments.log(&name))
    }

    fn env_extend(&self, name: Name, lease: Period) -> Answer<'_, Environment> {
        let agent = Arc::clone(&self.0);
        blocking(move || agent.environments.extend(&name, lease, agent.clock.wall()))
    }

    fn env_destroy(&self, name: Name, end: EnvEnd) -> Answer<'_, Done> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let reading = |group: &Name| agent.reading_of(group);
            let (served, nbd) = (&agent.served, agent.nbd_clients());
            agent.environments.destroy(&name, end.forget_volumes, reading, served, nbd)
        })
    }
}

impl Inner {
    /// Where the snapshots of a group are read, if there is one of this name.
    pub(in crate::pipeline) fn reading_of(&self, group: &Name) -> Option<Arc<Reading>> {
        self.group(group).is_ok().then(|| self.reading(group))
    }

    /// Makes an environment of points or templates.
    pub(in crate::pipeline) fn make_environment(
        &self,
        request: &EnvRequest,
    ) -> Result<Environment, ControlError> {
        let find = |group: &Name| replica(self, group);
        let (sources, served) = (self.source_places(), &self.served);
        let (nbd, clock) = (self.nbd_clients(), || self.clock.wall());
        self.environments.create(request, find, &sources, served, nbd, &clock)
    }

    pub(in crate::pipeline) fn nbd_clients(&self) -> &NbdClients {
        self.nbd.get().expect("the NBD server serves before any command is heard")
    }

    /// Destroys environments whose lease is over. To be called now and then; does not wait for
    /// teardowns.
    pub(in crate::pipeline) fn look_after_environments(self: &Arc<Self>) {
        for name in self.environments.expired(self.clock.wall()) {
            let agent = Arc::clone(self);
            let end = std::thread::Builder::new().name("lease".to_owned()).spawn(move || {
                let reading = |group: &Name| agent.reading_of(group);
                let (served, nbd, now) = (&agent.served, agent.nbd_clients(), agent.clock.wall());
                let ended = agent.environments.destroy_expired(&name, now, reading, served, nbd);
                if let Err(error) = ended {
                    tracing::warn!(environment = %name, %error, "it cannot be destroyed");
                }
            });
            if let Err(error) = end {
                tracing::warn!(%error, "an environment whose lease is over waits");
            }
        }
    }

    /// Lets go of snapshots that an earlier life of this agent held for what it did not finish.
    pub(in crate::pipeline) fn release_orphans(&self) -> Result<(), ControlError> {
        for group in self.groups() {
            let reading = self.reading(&group.config().name);
            let Ok(set) = reading.snapshots() else { continue };
            for listed in set.list_costs().map_err(|it| snapshot_error(&it))? {
                for holder in listed.holders {
                    // Exports and templates being made do not outlive the agent.
                    if holder.starts_with(READER) || self.environments.is_orphan(&holder) {
                        reading.release(listed.snapshot.seq, &holder)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Finds a point, and holds it while `work` reads it; with a folder for clones, which goes again.
pub(super) fn with_point<T>(
    agent: &Inner,
    from: &str,
    work: impl FnOnce(&Arc<ReplicaGroup>, &Found, &Path) -> Result<T, ControlError>,
) -> Result<T, ControlError> {
    let point: GroupPoint = from.parse().map_err(ControlError::usage)?;
    let replica = replica(agent, &point.group)?;
    let found = replica.find_point(&point.at)?;
    let number = agent.clock.wall();
    let (holder, scratch) = (format!("{READER}{number}"), scratch(agent, number));
    replica.hold(&found, &holder)?;
    let done = work(&replica, &found, &scratch);
    let released = replica.release(found.base.seq, &holder);
    if scratch.exists()
        && let Err(error) = std::fs::remove_dir_all(&scratch)
    {
        tracing::warn!(path = %scratch.display(), %error, "cannot be removed");
    }
    released.and(done)
}

fn scratch(agent: &Inner, number: u64) -> PathBuf {
    agent.home.environments().join(format!(".export-{number}"))
}

pub(super) fn by_time(now: u64) -> Result<Name, ControlError> {
    let text = rfc3339(now);
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("snap-{plain}").parse().map_err(ControlError::failed)
}

fn source(agent: &Inner, group: &Name, why: &str) -> Result<Arc<SourceGroup>, ControlError> {
    match agent.group(group)? {
        Group::Source(source) => Ok(source),
        Group::Replica(_) => {
            Err(ControlError::refused(format!("group {group} is a replica here: {why}")))
        }
        Group::Failed { error, .. } => Err(error),
    }
}

/// The replica of a name; where its points are, when its source is here.
pub(in crate::pipeline) fn replica(
    agent: &Inner,
    group: &Name,
) -> Result<Arc<ReplicaGroup>, ControlError> {
    match agent.group(group)? {
        Group::Replica(replica) => Ok(replica),
        Group::Source(source) => {
            let names: Vec<String> =
                source.links().into_iter().map(|(_, place)| place.view.name().to_owned()).collect();
            let there = if names.is_empty() { "a replica".to_owned() } else { names.join(", ") };
            Err(ControlError::refused(format!(
                "group {group} has its source here; its points are kept by {there}"
            ))
            .hint("ask there"))
        }
        Group::Failed { error, .. } => Err(error),
    }
}

fn marked(group: &Name, snapshot: &Snapshot) -> Marked {
    Marked {
        group: group.to_string(),
        name: snapshot.name.to_string(),
        seq: snapshot.point.0,
        at: snapshot.point.to_string(),
        replicas: Vec::new(),
        quiesced: snapshot.quiesced,
        held_ms: None,
    }
}

fn row(listed: Listed, complete: bool, now: u64) -> SnapshotRow {
    let Listed { snapshot, extents, bytes, holders } = listed;
    SnapshotRow {
        name: snapshot.name.to_string(),
        replica: None,
        seq: snapshot.point.0,
        at: snapshot.point.to_string(),
        origin: snapshot.origin.text().to_owned(),
        pinned: snapshot.pinned,
        guards: snapshot.guards,
        quiesced: snapshot.quiesced,
        complete,
        time: rfc3339(snapshot.clock),
        age_seconds: now.saturating_sub(snapshot.clock) / 1_000_000,
        generation: Some(snapshot.generation.to_string()),
        bytes: Some(bytes),
        extents: Some(extents),
        users: holders,
    }
}

/// The snapshots that a source kept as a replica, beside what its replicas say of theirs.
fn with_own(source: &SourceGroup, set: &SnapshotSet, now: u64) -> Result<Snapshots, ControlError> {
    let all = set.list_costs().map_err(|it| snapshot_error(&it))?;
    let usage = set.usage().map_err(|it| snapshot_error(&it))?;
    let mut snapshots: Vec<SnapshotRow> = all.into_iter().map(|it| row(it, true, now)).collect();
    // Without a replica those here are all there are.
    if let Ok(others) = told(source, now) {
        snapshots.extend(others.snapshots);
    }
    Ok(Snapshots {
        group: source.config.name.to_string(),
        snapshots,
        stored_bytes: usage.total,
        needed_bytes: Some(usage.live),
    })
}

/// Changes a snapshot that a source kept as a replica; whether it has one of this name.
fn change_own(
    source: &SourceGroup,
    name: &Name,
    order: SnapshotOrder,
) -> Result<bool, ControlError> {
    let Some(set) = source.tap.snapshots() else { return Ok(false) };
    if set.find(name.as_str()).is_err() {
        return Ok(false);
    }
    let failed = |error| snapshot_error(&error);
    match order {
        SnapshotOrder::Delete => {
            set.delete(name.as_str()).map_err(failed)?;
            while !set.sweep(historian::SWEEP).map_err(failed)?.done {}
            while !set.compact().map_err(failed)?.done {}
        }
        SnapshotOrder::Pin => drop(set.pin(name.as_str(), true).map_err(failed)?),
        SnapshotOrder::Unpin => drop(set.pin(name.as_str(), false).map_err(failed)?),
    }
    tracing::info!(group = %source.config.name, snapshot = %name, ?order, "by an operator");
    Ok(true)
}

/// What a source's replicas say of their snapshots.
fn told(source: &SourceGroup, now: u64) -> Result<Snapshots, ControlError> {
    let links = source.links();
    if links.is_empty() {
        return Err(marking::nobody_follows(source, &[]));
    }
    let (mut snapshots, mut stored_bytes) = (Vec::new(), 0);
    for (_, place) in links {
        let Some(kept) = place.kept() else { continue };
        stored_bytes += kept.stored;
        let replica = place.view.name().to_owned();
        let row = |it: KeptSnapshot| SnapshotRow {
            name: it.name.to_string(),
            replica: Some(replica.clone()),
            seq: it.point.0,
            at: it.point.to_string(),
            origin: it.origin.text().to_owned(),
            pinned: it.pinned,
            guards: it.guards,
            quiesced: it.quiesced,
            complete: it.complete,
            time: rfc3339(it.clock),
            age_seconds: now.saturating_sub(it.clock) / 1_000_000,
            generation: None,
            bytes: None,
            extents: None,
            users: Vec::new(),
        };
        snapshots.extend(kept.snapshots.into_iter().map(row));
    }
    let group = source.config.name.to_string();
    Ok(Snapshots { group, snapshots, stored_bytes, needed_bytes: None })
}

/// How far a point is from the newest.
fn point_row(name: String, seq: Seq, clock: u64, newest: &Point) -> PointRow {
    let same = seq.start() == newest.seq.start();
    PointRow {
        name,
        seq: seq.0,
        at: seq.to_string(),
        time: rfc3339(clock),
        seconds_ago: newest.clock.saturating_sub(clock) / 1_000_000,
        records_ago: same.then(|| newest.seq.count().saturating_sub(seq.count())),
    }
}

fn history(replica: &ReplicaGroup) -> Result<History, ControlError> {
    let set = replica.snapshots().map_err(ControlError::failed)?;
    let failed = |error| snapshot_error(&error);
    let view = replica.look_at().map_err(ControlError::failed)?;
    let settings = replica.settings();
    let plan = historian::plan(replica, &set, &view, &settings)?;
    let newest = view.applied;
    let all = set.points().map_err(failed)?;
    let of = |it: &Snapshot| point_row(it.name.to_string(), it.point, it.clock, &newest);
    let marker = |it: &Noted| point_row(format!("marker:{}", it.name), it.seq, it.clock, &newest);
    // From the oldest snapshot that the journal reaches back to, any point can be opened.
    let whole: Vec<Snapshot> = all.iter().filter(|it| set.is_settled(it)).cloned().collect();
    let oldest = keeping::oldest(&whole, view.journal_after);
    Ok(History {
        group: replica.config.name.to_string(),
        oldest: oldest.map(of),
        newest: newest
            .generation
            .map(|_| point_row("now".into(), newest.seq, newest.clock, &newest)),
        inside_resync: newest.generation.is_some() && !newest.consistent(),
        snapshots: all.iter().map(of).collect(),
        markers: set.markers().map_err(failed)?.iter().map(marker).collect(),
        window: settings.history_window.to_string(),
        budget: settings.history_budget.to_string(),
        schedule: settings.snapshots.to_string(),
        preserved_bytes: set.usage().map_err(failed)?.total,
        journal_bytes: view.journal_bytes,
        short: replica.history().1.or_else(|| plan.short.map(|it| it.to_string())),
    })
}
