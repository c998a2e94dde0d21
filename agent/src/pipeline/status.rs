//! What the agent says of itself: reads the cores, decides nothing for them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use vgship_base::ids::{Name, ReplicaId, Seq};
use vgship_base::layout::Layout;
use vgship_base::record::ResyncReason;
use vgship_base::units::{ByteLen, Tick};

use super::agent::{Group, Inner};
use super::replica::ReplicaGroup;
use super::source::{ReplicaLink, SourceGroup};
use crate::api::status::{
    AgentStatus, CheckStatus, GroupStatus, Lag, MismatchStatus, OutboxStatus, PeerStatus, Rpo,
    SeqStatus, State, Status, SyncState, SyncStatus, VeilStatus, VolumeStatus,
};
use crate::apply::rolled::{Phase, Rolled};
use crate::capture::source::Source;
use crate::history::spec::rfc3339;
use crate::home::{GroupConfig, Mode, Settings};
use crate::receive::io::View;
use crate::ship::replica::{Flow, Replica};
use crate::ship::standing::{Out, Standing};
use crate::wire::peers::Role;

/// How far behind a replica may be and still count as in sync, in epochs.
const SYNC_EPOCHS: f64 = 2.5;

const MICROS: f64 = 1e6;

impl Inner {
    /// The agent and all its groups, as they are now.
    pub(super) fn status(&self) -> Status {
        Status {
            agent: AgentStatus {
                name: self.config.name.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                listen: self.endpoint().local_addr().ok().map(|address| address.to_string()),
                peer_id: Some(self.peer_id.to_string()),
            },
            groups: self.groups().iter().map(group_status).collect(),
        }
    }
}

/// How one group is.
pub(super) fn group_status(group: &Group) -> GroupStatus {
    match group {
        Group::Source(source) => source_status(source),
        Group::Replica(replica) => replica_status(replica),
        Group::Failed { config, error } => {
            let mut status = bare(config, config.role, &[]);
            status.reason = Some(match &error.hint {
                Some(hint) => format!("{error}; next: {hint}"),
                None => error.to_string(),
            });
            status
        }
    }
}

fn bare(config: &GroupConfig, role: Role, volumes: &[VolumeStatus]) -> GroupStatus {
    GroupStatus {
        name: config.name.to_string(),
        role,
        generation: String::new(),
        mode: config.policy.mode,
        state: State::Disconnected,
        reason: None,
        volumes: volumes.to_vec(),
        seq: SeqStatus::default(),
        lag: Lag::default(),
        dirty_bytes: 0,
        resync: None,
        rpo: Rpo::default(),
        peers: Vec::new(),
        consistent: false,
        policy: config.policy.on_overflow,
        outbox: OutboxStatus::default(),
        sync: None,
        self_check: None,
        blind: config.blind.is_some(),
        veil: config.blind.map(|key| VeilStatus { key: key.to_string(), escrowed: None }),
        last_drill: None,
        drill_overdue: false,
    }
}

fn volumes(layout: &Layout) -> Vec<VolumeStatus> {
    let status = |volume: &vgship_base::layout::VolumeLayout| VolumeStatus {
        name: volume.name.to_string(),
        bytes: volume.bytes,
    };
    layout.volumes.iter().map(status).collect()
}

/// One replica of a source, as the status shows it.
struct Shown {
    state: State,
    reason: Option<String>,
    seq: SeqStatus,
    lag: Lag,
    rpo: Rpo,
    dirty_bytes: u64,
    resync: Option<(String, u64, u64)>,
    outbox: OutboxStatus,
    consistent: bool,
}

/// How one replica stands, with why, and since when by the source's clock.
fn sync_of(replica: &Replica, settings: &Settings) -> (SyncState, Option<Out>, Tick) {
    let policy = settings.sync_policy();
    let (state, why) = match replica.sync.standing() {
        Standing::Off => (SyncState::Off, None),
        Standing::InForce => (SyncState::InForce, None),
        Standing::Joining { .. } => (SyncState::CatchingUp, None),
        Standing::Out(why) if replica.sync.wants_stability(policy) => {
            (SyncState::Stalled, Some(why))
        }
        Standing::Out(why) => (SyncState::Degraded, Some(why)),
    };
    (state, why, replica.sync.since())
}

/// The group's sync mode: that of its worst sync replica. A group that should be sync and has no
/// replica is degraded.
fn sync_status(source: &SourceGroup, core: &Source, settings: &Settings) -> Option<SyncStatus> {
    let clock = source.tap.clock();
    let links = source.links();
    let of = |(id, _): &(ReplicaId, Arc<ReplicaLink>)| sync_of(core.replica(*id), settings);
    let worst = links.iter().map(of).max_by_key(|(state, ..)| *state);
    let (state, reason, since) = match worst {
        Some((SyncState::Off, ..)) | None if settings.mode == Mode::Async => return None,
        Some((state, why, since)) => (state, why.map(|why| why.text().to_owned()), since),
        None => (SyncState::Degraded, Some("no replica is paired yet".into()), Tick(0)),
    };
    let now = clock.now();
    let age = i64::try_from(now.since(since)).unwrap_or(i64::MAX);
    let wall = i64::try_from(clock.wall() / 1000).unwrap_or(i64::MAX).saturating_sub(age);
    let seconds = |millis: u64| as_f64(millis) / 1000.0;
    Some(SyncStatus {
        state,
        since: Timestamp::from_millisecond(wall).unwrap_or(Timestamp::MIN).to_string(),
        reason,
        timeout_seconds: settings.sync_timeout.0.as_secs_f64(),
        on_timeout: settings.on_sync_timeout,
        waiting_seconds: core.oldest_waiting().map_or(0.0, |since| seconds(now.since(since))),
    })
}

fn check_status(core: &Source) -> CheckStatus {
    let (layout, mut status) = (core.layout(), CheckStatus::default());
    for report in core.ids().map(|id| core.replica(id).checks.report()) {
        status.checked_bytes += report.checked * layout.extent.bytes();
        status.passed_over_bytes += report.passed_over * layout.extent.bytes();
        status.rounds += report.rounds;
        status.mismatches += report.mismatches;
        if let Some((extent, seq)) = report.last {
            let volume = layout.volume(extent.volume).map(|known| known.name.to_string());
            let offset = layout.span(extent).map_or(0, |span| span.offset);
            let volume = volume.unwrap_or_default();
            status.last = Some(MismatchStatus { volume, offset, seq: seq.0 });
        }
    }
    status
}

fn source_status(source: &SourceGroup) -> GroupStatus {
    let links = source.links();
    let settings = source.settings();
    let core = source.tap.core();
    let mut status = bare(&source.config, Role::Source, &volumes(core.layout()));
    (status.mode, status.policy) = (settings.mode, settings.on_overflow);
    status.sync = sync_status(source, &core, &settings);
    status.self_check = Some(check_status(&core));
    let syncs: Vec<SyncState> =
        links.iter().map(|(id, _)| sync_of(core.replica(*id), &settings).0).collect();
    let blind: Vec<bool> = links.iter().map(|(id, _)| core.replica(*id).blind).collect();
    status.blind = blind.contains(&true);
    status.veil = source.known_veil().map(|known| VeilStatus {
        key: known.id.to_string(),
        escrowed: known.escrow.map(|(_, made)| rfc3339(made)),
    });
    let in_force = core.is_in_force();
    status.generation = core.generation().to_string();
    let issued = core.issued();
    status.seq.issued = issued.0;
    let taken_over = core.is_alone_since_takeover();
    let giving = core.handed().is_some();
    let (now, tick) = (source.tap.clock().wall(), source.tap.clock().now());
    let epoch = source.config.epoch.0.as_secs_f64();
    let extent = core.layout().extent.bytes();
    let shown: Vec<Shown> = links
        .iter()
        .map(|(id, link)| shown(core.replica(*id), link, (issued, now, tick, epoch, extent)))
        .collect();
    drop(core);
    let peer = |(((_, link), sync), blind): ((&(ReplicaId, Arc<ReplicaLink>), SyncState), bool)| {
        PeerStatus {
            sync: Some(sync),
            blind,
            ..link.view.status(link.sent.load(Ordering::Relaxed))
        }
    };
    status.peers = links.iter().zip(syncs).zip(blind).map(peer).collect();
    status.consistent = true;
    // With several replicas, what holds for all of them.
    let least = |of: fn(&SeqStatus) -> u64| shown.iter().map(|one| of(&one.seq)).min();
    let (durable, applied) = (least(|seq| seq.durable), least(|seq| seq.applied));
    let age = shown.iter().map(|one| one.rpo.seconds).fold(0.0, f64::max);
    match shown.into_iter().max_by_key(|shown| worse(shown.state)) {
        None => status.reason = Some("no replica is paired yet: vgship pair invite".into()),
        Some(worst) => {
            status.resync = worst.resync.and_then(|(reason, done, total)| {
                let mut progress = source.progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.observe(source.tap.clock().now_duration(), done, total);
                progress.status(&reason)
            });
            status.state = worst.state;
            status.reason = worst.reason;
            status.seq = worst.seq;
            status.seq.durable = durable.unwrap_or_default();
            status.seq.applied = applied.unwrap_or_default();
            status.lag = Lag { seconds: (age - epoch).max(0.0), ..worst.lag };
            // What is not there yet has not been acknowledged either.
            let seconds = if in_force { 0.0 } else { age };
            status.rpo = Rpo { seconds, objective_seconds: None };
            status.dirty_bytes = worst.dirty_bytes;
            status.outbox = worst.outbox;
            status.consistent = worst.consistent;
        }
    }
    if taken_over && matches!(status.state, State::Disconnected | State::Map) {
        let why = status.reason.map_or_else(String::new, |why| format!(": {why}"));
        let text = format!("this agent took over, and no other side follows it yet{why}");
        (status.state, status.reason) = (State::Promoted, Some(text));
    }
    if giving {
        let text = "the role is being handed over: nothing can be written here before the other \
                    side has said whether it took it";
        status.reason = Some(text.into());
    }
    if let Some(why) = source.watched.stopped() {
        (status.state, status.reason) = (State::Paused, Some(why));
    }
    if source.tap.in_doubt() {
        let text = "the ledger cannot be written: a crash now means a full resync";
        status.reason =
            Some(status.reason.map_or(text.into(), |reason| format!("{text}; {reason}")));
    }
    status
}

const fn worse(state: State) -> u8 {
    match state {
        State::InSync | State::Promoted => 0,
        State::Streaming => 1,
        State::Resyncing => 2,
        State::Map => 3,
        State::Paused => 4,
        State::Disconnected => 5,
        State::Diverged => 6,
    }
}

fn shown(
    replica: &Replica,
    link: &ReplicaLink,
    (issued, now, tick, epoch, extent): (Seq, u64, Tick, f64, u64),
) -> Shown {
    let behind = replica.durable < issued;
    let age = match (behind, replica.durable_clock) {
        (false, _) => 0.0,
        // It has told of no epoch's end yet: what waits is as old as the first that it owes.
        (true, 0) => as_f64(replica.pace.age(tick)) / 1000.0 + epoch,
        (true, durable) => as_f64(now.saturating_sub(durable)) / MICROS,
    };
    let dirty_bytes = (replica.dirty.count() + replica.flight.len() as u64) * extent;
    let resync = replica.resync.map(|resync| {
        let total = (resync.total * extent).max(dirty_bytes);
        (resync.reason.text().to_owned(), total - dirty_bytes, total)
    });
    let connected = link.view.is_connected() && replica.linked();
    let (state, reason) = match replica.flow {
        _ if replica.paused => (State::Paused, Some("paused by an operator: vgship resume".into())),
        _ if link.view.is_diverged() => (State::Diverged, link.view.last_error()),
        // Worse than a link that is gone: the order is lost, which only a resync mends.
        Flow::Map(why @ ResyncReason::Overflow) => {
            let link = link.view.last_error().filter(|_| !connected);
            let link = link.map_or_else(String::new, |why| format!("; not connected: {why}"));
            (State::Map, Some(format!("{}{link}", why.text())))
        }
        _ if !connected => (State::Disconnected, link.view.last_error()),
        Flow::Map(why) => (State::Map, Some(why.text().to_owned())),
        Flow::Stream if resync.is_some() => {
            let why = resync.as_ref().map(|(reason, ..)| reason.clone());
            (State::Resyncing, why)
        }
        Flow::Stream if replica.wants_resync.is_some() => {
            (State::Resyncing, replica.wants_resync.map(|why| why.text().to_owned()))
        }
        Flow::Stream if behind && replica.durable_clock == 0 => {
            (State::Streaming, Some("no epoch has ended at the replica yet".into()))
        }
        Flow::Stream if age <= SYNC_EPOCHS * epoch => (State::InSync, None),
        Flow::Stream => (State::Streaming, Some(format!("the replica is {age:.1} s behind"))),
    };
    let outbox = OutboxStatus {
        ram_bytes: replica.outbox.ram_bytes(),
        spill_bytes: replica.outbox.spill_bytes(),
    };
    Shown {
        state,
        reason,
        seq: SeqStatus {
            issued: issued.0,
            sent: replica.sent().0,
            durable: replica.durable.0,
            applied: replica.applied.0,
        },
        lag: Lag {
            bytes: outbox.ram_bytes + outbox.spill_bytes,
            seconds: (age - epoch).max(0.0),
            exceeded: replica.pace.exceeded().is_some(),
            slowed: replica.pace.slows(),
        },
        rpo: Rpo { seconds: age, objective_seconds: None },
        dirty_bytes,
        consistent: resync.is_none()
            && replica.wants_resync.is_none()
            && matches!(replica.flow, Flow::Stream),
        resync,
        outbox,
    }
}

fn replica_status(replica: &ReplicaGroup) -> GroupStatus {
    let mut status = bare(&replica.config, Role::Replica, &volumes(&replica.layout()));
    status.peers = vec![replica.view.status(replica.received_bytes.load(Ordering::Relaxed))];
    status.last_drill = replica.drills.last();
    status.drill_overdue =
        replica.drills.are_overdue(replica.settings().drill_every, replica.clock.wall());
    let view = match replica.look_at() {
        Ok(view) => view,
        Err(why) => {
            status.reason = Some(why);
            return status;
        }
    };
    show(&mut status, &view);
    let connected = replica.view.is_connected();
    (status.state, status.reason) = if replica.paused.load(Ordering::SeqCst) {
        (State::Paused, Some("paused by an operator: vgship resume".into()))
    } else if let Some(rolled) = view.rolled {
        let text = rolled_text(&replica.config.name, &view, &rolled);
        let stuck = view.stuck.map(|why| format!("{text}; cannot get there: {why}"));
        (State::Paused, Some(stuck.unwrap_or(text)))
    } else if let Some(fault) = view.fault {
        (State::Disconnected, Some(fault))
    } else if replica.view.is_diverged() {
        (State::Diverged, replica.view.last_error())
    } else if !connected {
        (State::Disconnected, replica.view.last_error())
    } else if let Some(window) = view.durable.window {
        let extent = replica.layout().extent.bytes();
        let total = window.extents.max(view.judged) * extent;
        let mut progress = replica.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.observe(replica.clock.now_duration(), view.judged * extent, total);
        status.resync = progress.status(window.reason.text());
        (State::Resyncing, Some(window.reason.text().to_owned()))
    } else if view.durable.generation.is_none() {
        (State::Resyncing, Some("waits for the first sync to begin".into()))
    } else {
        (State::InSync, None)
    };
    if let Some(waits) = view.waits.or(view.holds) {
        if status.state == State::InSync {
            status.state = State::Streaming;
        }
        status.reason =
            Some(status.reason.map_or(waits.clone(), |reason| format!("{waits}; {reason}")));
    }
    status
}

/// What the volumes are doing while nothing is applied.
fn rolled_text(group: &Name, view: &View, rolled: &Rolled) -> String {
    let (to, from, step) = (rolled.wanted, rolled.from, view.rolling);
    let far =
        step.map_or_else(String::new, |step| format!(", {} of {} extents", step.done, step.of));
    match rolled.phase {
        Phase::Going => format!("the LVs are being rolled back from {from} to {to}{far}"),
        Phase::There => format!(
            "the LVs are rolled back to {to}; the stream goes into the journal, which takes {} by now: vgship \
             rollback {group} --undo",
            ByteLen(view.journal_bytes)
        ),
        Phase::Coming | Phase::Came => {
            format!("the LVs are being taken from {to} to {from} again{far}")
        }
    }
}

fn show(status: &mut GroupStatus, view: &View) {
    status.generation = view.durable.generation.map_or(String::new(), |it| it.to_string());
    status.seq = SeqStatus {
        issued: view.received.seq.0,
        sent: view.received.seq.0,
        durable: view.durable.seq.0,
        applied: view.applied.seq.0,
    };
    status.consistent = match view.rolled {
        None => view.durable.consistent(),
        // The LVs themselves are meant, not what the journal has.
        Some(rolled) => rolled.phase == Phase::There,
    };
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a lag need no 53 bits")]
fn as_f64(micros: u64) -> f64 {
    micros as f64
}
