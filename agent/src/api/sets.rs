//! What the interface asks of sets: groups whose snapshots are taken as one.

use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use super::control::{Answer, Done};
use super::past::{SnapshotOrder, TemplateMade};
use crate::home::{Period, text};
use crate::sets::config::MemberName;

/// An agent's sets, as commands and portal see them.
pub trait Sets: Send + Sync {
    /// Makes a set.
    fn set_create(&self, spec: SetSpec) -> Answer<'_, SetDetails>;

    /// All sets.
    fn set_list(&self) -> Answer<'_, SetsList>;

    /// One set, where its members are, and its snapshots.
    fn set_show(&self, set: Name) -> Answer<'_, SetDetails>;

    /// Adds and removes groups.
    fn set_change(&self, set: Name, change: SetChange) -> Answer<'_, SetDetails>;

    /// Deletes a set that has no snapshots; its groups stay.
    fn set_delete(&self, set: Name) -> Answer<'_, Done>;

    /// Takes a snapshot of all members, as a whole or not at all.
    fn set_snapshot_create(
        &self,
        set: Name,
        request: SetSnapshotRequest,
    ) -> Answer<'_, SetSnapshotRow>;

    /// A set's snapshots, oldest first.
    fn set_snapshot_list(&self, set: Name) -> Answer<'_, SetSnapshots>;

    /// Deletes, pins or unpins a snapshot on every member.
    fn set_snapshot_change(&self, set: Name, request: SetSnapshotChange) -> Answer<'_, Done>;

    /// Makes a template of each member of a snapshot, of all or of none.
    fn set_template_create(
        &self,
        set: Name,
        request: SetTemplateRequest,
    ) -> Answer<'_, SetTemplates>;
}

/// Body of a new set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSpec {
    /// What it is called.
    #[serde(with = "text")]
    pub name: Name,
    /// Its groups.
    pub members: Vec<MemberName>,
    /// How long applications may be held; without it 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Period>,
    /// The shell command that freezes before the groups' own; empty for none.
    #[serde(default)]
    pub freeze: String,
    /// The shell command that thaws behind them; empty for none.
    #[serde(default)]
    pub thaw: String,
}

/// Body of a change of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetChange {
    /// Groups that become members.
    #[serde(default)]
    pub add: Vec<MemberName>,
    /// Members that are none any more; snapshots of earlier stay as they are.
    #[serde(default)]
    pub remove: Vec<MemberName>,
}

/// One set of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRow {
    /// Its name.
    pub name: String,
    /// Its groups.
    pub members: Vec<String>,
    /// How many snapshots it has.
    pub snapshots: usize,
}

/// All sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetsList {
    /// By name.
    pub sets: Vec<SetRow>,
}

/// A member, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The group.
    pub group: String,
    /// What this agent is in it: `source`, `replica`; `failed` when it is not open, `missing` when
    /// this agent does not have it any more.
    pub role: String,
    /// Its source's agent, or its replicas'.
    pub peers: Vec<String>,
    /// Whether there is a link to one of them.
    pub connected: bool,
}

impl Member {
    /// One that takes no part now.
    pub(crate) fn without(group: &Name, role: &str) -> Member {
        let (group, role) = (group.to_string(), role.to_owned());
        Member { group, role, peers: Vec::new(), connected: false }
    }
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDetails {
    /// Its name.
    pub name: String,
    /// Its groups.
    pub members: Vec<Member>,
    /// How long applications may be held.
    pub hold: Period,
    /// The shell command that freezes before the groups' own; empty for none.
    pub freeze: String,
    /// The shell command that thaws behind them; empty for none.
    pub thaw: String,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<SetSnapshotRow>,
}

/// Body of a set's snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSnapshotRequest {
    /// What it is called; without it, by the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long replicas may take to have it; without it half a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Freeze applications of all members together.
    #[serde(default)]
    pub quiesce: bool,
}

/// One member of a set's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// The group.
    pub group: String,
    /// What the snapshot is called there.
    pub snapshot: String,
    /// The history that it belongs to; `null` unless made, as what follows.
    pub generation: Option<String>,
    /// Where its marker stands, as one number.
    pub seq: Option<u64>,
    /// The same, as `start.count`.
    pub at: Option<String>,
    /// How long applications were held; `null` without quiescing. Unit: milliseconds.
    pub held_ms: Option<u32>,
    /// Whether the snapshot is there; `null` when that cannot be known now.
    pub kept: Option<bool>,
}

/// One snapshot of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSnapshotRow {
    /// Of which set.
    pub set: String,
    /// Its name.
    pub name: String,
    /// `being-made`, `made`, `being-taken-away`.
    pub state: String,
    /// Whether applications were frozen.
    pub quiesced: bool,
    /// Whether all members stand for one moment.
    pub one_instant: bool,
    /// Between the first marker and the last at most. Unit: milliseconds.
    pub spread_ms: Option<u32>,
    /// When it was begun, by this agent's clock, RFC 3339.
    pub time: String,
    /// How long ago that was. Unit: seconds.
    pub age_seconds: u64,
    /// Its members: the vector.
    pub members: Vec<PartRow>,
}

/// A set's snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSnapshots {
    /// Of which set.
    pub set: String,
    /// Oldest first.
    pub snapshots: Vec<SetSnapshotRow>,
}

/// Body of a change of a set's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSnapshotChange {
    /// Which.
    #[serde(with = "text")]
    pub name: Name,
    /// What becomes of it.
    pub order: SnapshotOrder,
}

/// Body of a set's templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTemplateRequest {
    /// Of which snapshot.
    #[serde(with = "text")]
    pub snapshot: Name,
    /// What all are called; each has a dot and its group's name behind it.
    #[serde(with = "text")]
    pub name: Name,
    /// Which store; without it the home's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// A set's templates that were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTemplates {
    /// Of which set.
    pub set: String,
    /// Of which snapshot.
    pub snapshot: String,
    /// One for each member.
    pub templates: Vec<TemplateMade>,
}
