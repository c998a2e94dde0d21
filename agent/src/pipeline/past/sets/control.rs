//! What commands ask of sets.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use vgship_base::ids::Name;

use super::conduct::{self, Wanted};
use super::seats::Seat;
use super::settle;
use super::shelf::Set;
use super::templates;
use crate::api::ControlError;
use crate::api::control::{Answer, Done};
use crate::api::past::SnapshotOrder;
use crate::api::sets::{
    Member, PartRow, SetChange, SetDetails, SetRow, SetSnapshotChange, SetSnapshotRequest,
    SetSnapshotRow, SetSnapshots, SetSpec, SetTemplateRequest, SetTemplates, Sets, SetsList,
};
use crate::history::spec::rfc3339;
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::control::{Controlled, blocking};
use crate::pipeline::past::control::by_time;
use crate::pipeline::past::points::snapshot_error;
use crate::sets::config::{MemberName, SetConfig};
use crate::sets::core::Input;
use crate::sets::record::{Part, Record, State};
use crate::wire::orders::{Change, Order, Said};

/// How long replicas may take to have the snapshots, unless it is said.
const FOLLOW: Duration = Duration::from_secs(30);

/// How long a deletion waits until nothing is left anywhere.
const DELETE_PATIENCE: Duration = Duration::from_secs(15);

impl Sets for Controlled {
    fn set_create(&self, spec: SetSpec) -> Answer<'_, SetDetails> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let config = SetConfig {
                name: spec.name,
                members: spec.members,
                hold: spec.hold.unwrap_or(crate::home::settings::HOLD_DEFAULT),
                freeze: spec.freeze,
                thaw: spec.thaw,
            };
            store(&agent, config, true)
        })
    }

    fn set_list(&self) -> Answer<'_, SetsList> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let row = |set: Set| SetRow {
                name: set.config.name.to_string(),
                members: set.config.members.iter().map(|it| it.0.to_string()).collect(),
                snapshots: set.records.values().filter(|it| it.state == State::Made).count(),
            };
            Ok(SetsList { sets: agent.sets.all().into_iter().map(row).collect() })
        })
    }

    fn set_show(&self, set: Name) -> Answer<'_, SetDetails> {
        let agent = Arc::clone(&self.0);
        blocking(move || Ok(details(&agent, agent.sets.get(&set)?)))
    }

    fn set_change(&self, set: Name, change: SetChange) -> Answer<'_, SetDetails> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let mut config = agent.sets.get(&set)?.config;
            for MemberName(gone) in &change.remove {
                if !config.has(gone) {
                    let why = format!("group {gone} is no member of set {set}");
                    return Err(ControlError::refused(why));
                }
                config.members.retain(|it| it.0 != *gone);
            }
            config.members.extend(change.add);
            store(&agent, config, false)
        })
    }

    fn set_delete(&self, set: Name) -> Answer<'_, Done> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            agent.sets.get(&set)?;
            agent.sets.remove(&set)?;
            tracing::info!(%set, "deleted by an operator");
            Ok(Done { group: set.to_string(), done: "deleted".to_owned() })
        })
    }

    fn set_snapshot_create(
        &self,
        set: Name,
        request: SetSnapshotRequest,
    ) -> Answer<'_, SetSnapshotRow> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let config = agent.sets.get(&set)?.config;
            let name = match &request.name {
                Some(name) => name.parse().map_err(ControlError::usage)?,
                None => by_time(agent.clock.wall())?,
            };
            let patience = request.timeout.map_or(FOLLOW, |timeout| timeout.0);
            let wanted = Wanted { name, quiesce: request.quiesce, patience };
            let made = conduct::create(&agent, &config, &wanted)?;
            Ok(row(&agent, &made))
        })
    }

    fn set_snapshot_list(&self, set: Name) -> Answer<'_, SetSnapshots> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let found = agent.sets.get(&set)?;
            Ok(SetSnapshots { set: set.to_string(), snapshots: rows(&agent, &found) })
        })
    }

    fn set_snapshot_change(&self, set: Name, request: SetSnapshotChange) -> Answer<'_, Done> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let record = agent.sets.record(&set, &request.name)?;
            match request.order {
                SnapshotOrder::Delete => delete(&agent, &record),
                SnapshotOrder::Pin => pin(&agent, &record, true),
                SnapshotOrder::Unpin => pin(&agent, &record, false),
            }
        })
    }

    fn set_template_create(
        &self,
        set: Name,
        request: SetTemplateRequest,
    ) -> Answer<'_, SetTemplates> {
        let agent = Arc::clone(&self.0);
        blocking(move || templates::create(&agent, &set, &request))
    }
}

pub(super) fn whole(record: &Record) -> Result<(), ControlError> {
    let (set, name) = (&record.set, &record.name);
    match record.state {
        State::Made => Ok(()),
        State::Begun => Err(ControlError::refused(format!("{set}@{name} is being made"))),
        State::Going => Err(ControlError::refused(format!("{set}@{name} is being taken away"))),
    }
}

fn store(agent: &Inner, config: SetConfig, is_new: bool) -> Result<SetDetails, ControlError> {
    if let Some((key, why)) = config.wrong() {
        return Err(ControlError::usage(format!("{key}: {why}")));
    }
    config.members.iter().try_for_each(|member| agent.group(&member.0).map(drop))?;
    let name = config.name.clone();
    agent.sets.put(config, is_new)?;
    Ok(details(agent, agent.sets.get(&name)?))
}

fn details(agent: &Inner, set: Set) -> SetDetails {
    let snapshots = rows(agent, &set);
    let member = |MemberName(name): MemberName| match agent.group(&name) {
        Ok(Group::Source(source)) => {
            let links = source.links();
            let names = links.iter().map(|it| it.1.view.name().to_owned()).collect();
            let connected = links.iter().any(|it| it.1.view.is_connected());
            Member { group: name.to_string(), role: "source".into(), peers: names, connected }
        }
        Ok(Group::Replica(replica)) => Member {
            group: name.to_string(),
            role: "replica".into(),
            peers: vec![replica.view.name().to_owned()],
            connected: agent.link_to(replica.peer).is_some(),
        },
        Ok(Group::Failed { .. }) => Member::without(&name, "failed"),
        Err(_) => Member::without(&name, "missing"),
    };
    let SetConfig { name, members, hold, freeze, thaw } = set.config;
    let members = members.into_iter().map(member).collect();
    SetDetails { name: name.to_string(), members, hold, freeze, thaw, snapshots }
}

fn rows(agent: &Inner, set: &Set) -> Vec<SetSnapshotRow> {
    let mut records: Vec<&Record> = set.records.values().collect();
    records.sort_by_key(|it| it.time);
    records.into_iter().map(|record| row(agent, record)).collect()
}

fn row(agent: &Inner, record: &Record) -> SetSnapshotRow {
    let called = record.member_name();
    let is_made = record.state == State::Made;
    let part = |part: &Part| PartRow {
        group: part.name.to_string(),
        snapshot: called.to_string(),
        generation: is_made.then(|| part.place.generation.to_string()),
        seq: is_made.then_some(part.place.seq.0),
        at: is_made.then(|| part.place.seq.to_string()),
        held_ms: (is_made && record.quiesced).then_some(part.place.held),
        kept: kept(agent, part, &called),
    };
    SetSnapshotRow {
        set: record.set.to_string(),
        name: record.name.to_string(),
        state: match record.state {
            State::Begun => "being-made",
            State::Made => "made",
            State::Going => "being-taken-away",
        }
        .to_owned(),
        quiesced: record.quiesced,
        one_instant: is_made && record.quiesced,
        spread_ms: is_made.then_some(record.spread),
        time: rfc3339(record.time),
        age_seconds: agent.clock.wall().saturating_sub(record.time) / 1_000_000,
        members: record.parts.iter().map(part).collect(),
    }
}

/// Whether a member's snapshot is there; `None` when that cannot be known now.
fn kept(agent: &Inner, part: &Part, called: &Name) -> Option<bool> {
    match agent.group_by_id(part.group)? {
        Group::Replica(replica) => {
            let all = replica.snapshots().ok()?.list().ok()?;
            Some(all.iter().any(|it| it.name == *called))
        }
        Group::Source(source) => {
            let mut said = source.links().into_iter().filter_map(|it| it.1.kept()).peekable();
            said.peek()?;
            Some(said.any(|kept| kept.snapshots.iter().any(|it| it.name == *called)))
        }
        Group::Failed { .. } => None,
    }
}

/// Deletes it on every member. What cannot be reached now is when it can; until then it is going.
fn delete(agent: &Arc<Inner>, record: &Record) -> Result<Done, ControlError> {
    let (set, name) = (&record.set, &record.name);
    match record.state {
        State::Begun => whole(record)?,
        State::Made => {
            refuse_in_use(agent, record)?;
            let going = Record { state: State::Going, ..record.clone() };
            agent.sets.save(&going)?;
            tracing::info!(%set, snapshot = %name, "deleted by an operator");
        }
        State::Going => {}
    }
    settle::until_gone(agent, record, DELETE_PATIENCE).map_err(|left| {
        let why = format!("{set}@{name} is not gone everywhere yet: not of {left}");
        ControlError::failed(why).hint(
            "it goes on by itself as soon as their sources can be reached; repeat this to see",
        )
    })?;
    Ok(Done { group: set.to_string(), done: format!("{name} is deleted") })
}

/// One that is going can be neither used nor unpinned any more.
fn refuse_in_use(agent: &Inner, record: &Record) -> Result<(), ControlError> {
    let (set, name, called) = (&record.set, &record.name, record.member_name());
    for part in &record.parts {
        let is_pinned = match agent.group_by_id(part.group) {
            Some(Group::Replica(replica)) => {
                let snapshots = replica.snapshots().map_err(ControlError::failed)?;
                let all = snapshots.list_costs().map_err(|it| snapshot_error(&it))?;
                let found = all.into_iter().find(|it| it.snapshot.name == called);
                if let Some(user) = found.iter().find_map(|it| it.holders.first()) {
                    let why = format!("{called} of group {} is in use by {user}", part.name);
                    return Err(ControlError::refused(why).hint("end that first"));
                }
                found.is_some_and(|it| it.snapshot.pinned)
            }
            Some(Group::Source(source)) => {
                let said = source.links().into_iter().filter_map(|it| it.1.kept());
                let mut kept = said.flat_map(|it| it.snapshots);
                kept.any(|it| it.name == called && it.pinned)
            }
            _ => false,
        };
        if is_pinned {
            let why = format!("{called} of group {} is pinned", part.name);
            let hint = format!("unpin it first: vgship snapshot unpin --set {set}@{name}");
            return Err(ControlError::refused(why).hint(hint));
        }
    }
    Ok(())
}

fn pin(agent: &Arc<Inner>, record: &Record, pinned: bool) -> Result<Done, ControlError> {
    for part in agent.resolve_set_snapshot(&record.set, &record.name)? {
        pin_one(agent, &part.group, &part.snapshot, pinned)?;
    }
    let did = if pinned { "pinned" } else { "unpinned" };
    Ok(Done { group: record.set.to_string(), done: format!("{} is {did}", record.name) })
}

fn pin_one(
    agent: &Arc<Inner>,
    group: &Name,
    snapshot: &Name,
    pinned: bool,
) -> Result<(), ControlError> {
    let found = agent.group(group)?;
    if let Group::Replica(replica) = &found {
        let set = replica.snapshots().map_err(ControlError::failed)?;
        return set.pin(snapshot.as_str(), pinned).map(drop).map_err(|it| snapshot_error(&it));
    }
    let (tell, heard) = channel();
    let seat = Seat::open(agent, &found, 0, &tell)?;
    drop(tell);
    let change = if pinned { Change::Pin } else { Change::Unpin };
    seat.order(Order::Change(change, snapshot.clone()));
    match heard.recv() {
        Ok(Input::Said(_, Said::Done)) => Ok(()),
        Ok(Input::Said(_, Said::Failed(failure))) => {
            Err(ControlError::failed(format!("group {group}: {}", failure.text)))
        }
        _ => Err(ControlError::failed(format!("group {group}: its source did not answer"))),
    }
}
