//! From a set's snapshot to what it consists of: the vector of its members.

use vgship_base::ids::{Generation, Name, Seq};

use super::control::whole;
use crate::api::ControlError;
use crate::api::past::EnvRequest;
use crate::history::spec::{At, GroupPoint};
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::past::points::snapshot_error;
use crate::pipeline::replica::ReplicaGroup;
use crate::pipeline::source::SourceGroup;
use crate::sets::record::{Part, Record};

/// One member of a set's snapshot.
pub(in crate::pipeline) struct SetPart {
    /// The group, as this agent calls it now.
    pub(in crate::pipeline) group: Name,
    /// What the snapshot is called there.
    pub(in crate::pipeline) snapshot: Name,
    /// The history that its place belongs to.
    pub(in crate::pipeline) generation: Generation,
    /// Its place.
    pub(in crate::pipeline) seq: Seq,
}

impl Inner {
    /// What a set's snapshot consists of, one for each member.
    ///
    /// # Errors
    /// There is no such snapshot; it is not whole: not made yet, or on its way out; a group is not
    /// here any more.
    pub(in crate::pipeline) fn resolve_set_snapshot(
        &self,
        set: &Name,
        name: &Name,
    ) -> Result<Vec<SetPart>, ControlError> {
        let record = self.sets.record(set, name)?;
        whole(&record)?;
        let part = |part: &Part| {
            let group = self.group_by_id(part.group).ok_or_else(|| {
                let why = format!("group {} of {set}@{name} is not here any more", part.name);
                ControlError::refused(why)
            })?;
            Ok(SetPart {
                group: group.config().name.clone(),
                snapshot: record.member_name(),
                generation: part.place.generation,
                seq: part.place.seq,
            })
        };
        record.parts.iter().map(part).collect()
    }

    /// A request of an environment, of points alone: a set's snapshot is the points of its members.
    ///
    /// # Errors
    /// A member is not here, or not what it was; there are points beside the set's.
    pub(in crate::pipeline) fn of_set(
        &self,
        request: EnvRequest,
    ) -> Result<EnvRequest, ControlError> {
        let Some(of) = &request.set else { return Ok(request) };
        if !request.from.is_empty() {
            let why = format!("{of} stands for all points of an environment: name no other");
            return Err(ControlError::usage(why));
        }
        let GroupPoint { group: set, at } = of.parse().map_err(ControlError::usage)?;
        let At::Snapshot(name) = at else {
            return Err(ControlError::usage(format!("{at} is no name of a set's snapshot")));
        };
        let parts = self.resolve_set_snapshot(&set, &name)?;
        let points = parts.iter().map(|part| Ok(self.point_of(part)?.to_string()));
        Ok(EnvRequest { from: points.collect::<Result<_, ControlError>>()?, ..request })
    }

    /// Whether the replicas here have exactly what the vector of a set's snapshot says.
    ///
    /// # Errors
    /// Which has not, or cannot tell.
    pub(super) fn all_kept(&self, record: &Record) -> Result<(), String> {
        let name = record.member_name();
        record.parts.iter().try_for_each(|part| {
            let (group, place) = (&part.name, &part.place);
            match self.group_by_id(part.group) {
                Some(Group::Source(_)) => return Ok(()),
                Some(Group::Replica(replica)) => {
                    let kept = replica.keeps(&name, place.generation, place.seq);
                    if kept.map_err(|it| format!("group {group}: {it}"))? {
                        return Ok(());
                    }
                }
                Some(Group::Failed { error, .. }) => return Err(format!("group {group}: {error}")),
                None => return Err(format!("group {group} is not here any more")),
            }
            Err(format!("group {group}: its replica here has no {name} at {}", place.seq))
        })
    }

    /// The point that a member is, for what is made of it here.
    ///
    /// # Errors
    /// This agent has no replica of the group, or its replica has not exactly what the vector says.
    pub(in crate::pipeline) fn point_of(&self, part: &SetPart) -> Result<GroupPoint, ControlError> {
        let SetPart { group, snapshot, .. } = part;
        let replica = match self.group(group)? {
            Group::Replica(replica) => replica,
            Group::Source(source) => return Err(elsewhere(&source, snapshot)),
            Group::Failed { error, .. } => return Err(error),
        };
        let is_meant = replica.keeps(snapshot, part.generation, part.seq)?;
        let gone = || {
            let why = format!("{snapshot} at {} is not on the replica of group {group}", part.seq);
            ControlError::refused(why).hint("somebody deleted it there; take another of the set")
        };
        is_meant.then_some(()).ok_or_else(gone)?;
        Ok(GroupPoint { group: group.clone(), at: At::Snapshot(snapshot.clone()) })
    }
}

/// A member's snapshots are with its replicas, of which none is here.
fn elsewhere(source: &SourceGroup, snapshot: &Name) -> ControlError {
    let (group, links) = (&source.config.name, source.links());
    let names: Vec<&str> = links.iter().map(|it| it.1.view.name()).collect();
    let error = ControlError::refused(format!("group {group} has no replica here"));
    if names.is_empty() {
        return error.hint("nobody is its replica any more, so nobody keeps its snapshots");
    }
    error.hint(format!(
        "its replica is on {}: do it there, --from G@{snapshot}, where G is what {group} is called there",
        names.join(", ")
    ))
}

impl ReplicaGroup {
    /// Whether it has a snapshot of that name at exactly that place.
    fn keeps(&self, name: &Name, generation: Generation, seq: Seq) -> Result<bool, ControlError> {
        let all = self.snapshots().map_err(ControlError::failed)?;
        let all = all.list().map_err(|it| snapshot_error(&it))?;
        Ok(all.iter().any(|it| it.name == *name && (it.generation, it.seq) == (generation, seq)))
    }
}
