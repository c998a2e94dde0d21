//! What commands ask of the data keys while the agent runs: nothing stops for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vgship_base::ids::Name;
use vgship_snapshot::seal::{KeyId, KeyRing};
use vgship_snapshot::set::SnapshotSet;

use super::agent::{Group, Inner};
use super::control::{Controlled, blocking};
use super::past::points::snapshot_error;
use super::replica::ReplicaGroup;
use crate::api::ControlError;
use crate::api::control::Answer;
use crate::api::keys::{
    EndRequest, Ended, EscrowRequest, Escrowed, KeyRoom, Kind, Need, NewKey, RewrapRequest,
    Rewrapped, Ring, Rings, Rotated,
};
use crate::keys::needs::{Needs, scan};
use crate::keys::report::{may_end, ring_of};
use crate::keys::{self, KeyError, escrow, rewrap};
use crate::receive::io::Stays;

/// Before-images that are looked at to name snapshots.
const NAMES_FROM: usize = 1 << 20;

/// How long to wait until the volumes hold what a key seals in the journal.
const APPLIED: Duration = Duration::from_secs(20);

/// How often to look.
const LOOK: Duration = Duration::from_millis(50);

impl KeyRoom for Controlled {
    fn key_list(&self, group: Option<Name>) -> Answer<'_, Rings> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let list = |group: Group| agent.ring(&group);
            let rings = agent.chosen(group.as_ref())?.into_iter().map(list);
            Ok(Rings { rings: rings.collect::<Result<_, _>>()? })
        })
    }

    fn key_rotate(&self, group: Option<Name>) -> Answer<'_, Rotated> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let mut made = Vec::new();
            for group in agent.chosen(group.as_ref())? {
                let (config, open) = (group.config(), open_ring(&group));
                let home = agent.home.group(&config.name);
                let key = keys::rotate(&agent.home, &home, config.id, open);
                let key = key.map_err(|it| it.told())?.id().to_string();
                tracing::info!(group = %config.name, key, "a new data key is current");
                made.push(NewKey { group: Some(config.name.to_string()), store: None, key });
            }
            Ok(Rotated { keys: made })
        })
    }

    fn key_end(&self, group: Name, request: EndRequest) -> Answer<'_, Ended> {
        let agent = Arc::clone(&self.0);
        blocking(move || agent.end_key(&agent.group(&group)?, &request))
    }

    fn key_escrow(&self, group: Name, request: EscrowRequest) -> Answer<'_, Escrowed> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let group = agent.group(&group)?;
            let done = escrow::escrow(&agent.home, group.config(), &request)?;
            if let Group::Source(source) = &group {
                source.learn_veil()?;
            }
            tracing::info!(group = done.group, key = done.key, to = %done.path.display(),
                "an escrow of the veil key was made");
            Ok(done)
        })
    }

    fn key_rewrap(&self, request: RewrapRequest) -> Answer<'_, Rewrapped> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let done = rewrap::rewrap(&agent.home, &request)?;
            tracing::info!(from = done.from, to = done.to, "the data keys are wrapped anew");
            Ok(done)
        })
    }
}

/// The keys of a group that is at work.
fn open_ring(group: &Group) -> Option<&KeyRing> {
    match group {
        Group::Source(source) => Some(&source.keys),
        Group::Replica(replica) => Some(&replica.keys),
        Group::Failed { .. } => None,
    }
}

impl Inner {
    fn chosen(&self, group: Option<&Name>) -> Result<Vec<Group>, ControlError> {
        match group {
            Some(name) => Ok(vec![self.group(name)?]),
            None => Ok(self.groups()),
        }
    }

    fn ring(&self, group: &Group) -> Result<Ring, ControlError> {
        let config = group.config();
        let known = keys::list(&self.home.group(&config.name), config.id);
        let known = known.map_err(|it| it.told())?;
        let veil = keys::known_veil(&self.home.group(&config.name), config.id);
        let (veil, needs) = (veil.map_err(|it| it.told())?, self.needs(group)?);
        Ok(ring_of(config.name.as_str(), (&known, veil.as_ref()), &needs, self.clock.wall()))
    }

    /// What of a group needs which key.
    fn needs(&self, group: &Group) -> Result<Needs, ControlError> {
        let mut needs = scan(&self.home.group(&group.config().name)).map_err(|it| it.told())?;
        // A store that is open knows better: which packs count, and who reads them.
        if let Group::Replica(replica) = group
            && let Ok(set) = replica.snapshots()
        {
            name_snapshots(&set, &mut needs, replica.keys.current_id())?;
        }
        Ok(needs)
    }

    /// Destroys a key of a group.
    fn end_key(&self, group: &Group, request: &EndRequest) -> Result<Ended, ControlError> {
        let config = group.config();
        let home = self.home.group(&config.name);
        let key = keys::find_old(&home, config.id, &request.key).map_err(|it| it.told())?;
        // After a rotation that failed half way the files may name another current key.
        if open_ring(group).is_some_and(|ring| ring.current_id() == key) {
            return Err(KeyError::Current(key).told());
        }
        if let Group::Replica(replica) = group {
            leave(replica, None)?;
        }
        let lost = self.needs(group)?.remove(&key).unwrap_or_default();
        may_end(key, &lost, request.lose.as_deref())?;
        match group {
            _ if lost.is_empty() => {}
            Group::Replica(replica) => give_up(replica, key)?,
            // What is not applied yet may be among it.
            Group::Source(_) | Group::Failed { .. } => {
                let text = format!("group {} is no replica that works now", config.name);
                return Err(ControlError::refused(text)
                    .hint("history is given up by a replica that works: see vgship status"));
            }
        }
        keys::destroy(&home, config.id, key, open_ring(group)).map_err(|it| it.told())?;
        if let Group::Replica(replica) = group
            && let Ok(set) = replica.snapshots()
        {
            set.forget_read();
        }
        let texts: Vec<String> = lost.iter().map(Need::text).collect();
        tracing::warn!(group = %config.name, %key, lost = texts.join("; "),
            "a data key was destroyed, by an operator");
        let (group, store) = (Some(config.name.to_string()), None);
        Ok(Ended { group, store, key: key.to_string(), lost })
    }
}

/// What an open store knows takes the place of what its files tell.
fn name_snapshots(
    set: &SnapshotSet,
    needs: &mut Needs,
    current: KeyId,
) -> Result<(), ControlError> {
    let known = set.needs().map_err(|it| snapshot_error(&it))?;
    for (key, needs) in needs.iter_mut().filter(|(key, _)| !known.contains_key(key)) {
        // Those of the current key may have been begun since.
        needs.retain(|it| it.kind != Kind::Snapshots || *key == current);
    }
    needs.retain(|_, needs| !needs.is_empty());
    for (key, packs) in known {
        let (readers, all_names) = match key == current {
            true => (Vec::new(), false),
            false => set.readers_of(&packs.packs, NAMES_FROM).map_err(|it| snapshot_error(&it))?,
        };
        let needs = needs.entry(key).or_default();
        let told = needs.iter().find(|it| it.kind == Kind::Snapshots);
        let oldest = told.and_then(|it| it.oldest.clone());
        needs.retain(|it| it.kind != Kind::Snapshots);
        needs.push(Need {
            kind: Kind::Snapshots,
            files: packs.packs.len() as u64,
            bytes: Some(packs.bytes),
            oldest,
            names: readers.into_iter().map(|it| it.name.to_string()).collect(),
            all_names,
        });
    }
    Ok(())
}

/// Has the journal leave older keys, and with `give_up` the history that needs this one.
fn leave(replica: &ReplicaGroup, give_up: Option<KeyId>) -> Result<(), ControlError> {
    let desk = replica.desk()?;
    let since = Instant::now();
    loop {
        match desk.leave(give_up).map_err(|it| ControlError::from_error(&it))? {
            Ok(()) => return Ok(()),
            Err(Stays::Unapplied) if since.elapsed() < APPLIED => std::thread::sleep(LOOK),
            Err(why) => {
                let text = format!("the journal of group {} stays: {why}", replica.config.name);
                return Err(ControlError::refused(text)
                    .hint("see to that (vgship status, vgship env list) and try again"));
            }
        }
    }
}

/// Gives up the history that a key seals, as far as it is not given up with the key itself.
fn give_up(replica: &ReplicaGroup, key: KeyId) -> Result<(), ControlError> {
    if replica.look_at().map_err(ControlError::failed)?.rolled.is_some() {
        let text = "the LVs are rolled back, and need their history on the way forward";
        return Err(ControlError::refused(text).hint("end that first: vgship rollback --undo"));
    }
    let set = replica.snapshots().map_err(ControlError::failed)?;
    let all = set.list().map_err(|it| snapshot_error(&it))?;
    if let Some(guard) = all.iter().find(|it| it.guards) {
        let text = format!("a resync is under way, and snapshot {} is its way back", guard.name);
        return Err(ControlError::refused(text).hint("wait until it has ended: vgship wait"));
    }
    leave(replica, Some(key))
}
