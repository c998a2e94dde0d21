//! Procedures that change who is the source, as commands ask for them.

use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use super::control::Answer;
use super::drills::{DrillRequest, Drilled, Drills};
use crate::home::Period;
use crate::role::procedure::Procedure;

/// How roles are exchanged.
pub trait Roles: Send + Sync {
    /// Hands the source's role to a replica that has everything. Asked for at the source.
    fn switchover(&self, group: Name, request: SwitchoverRequest) -> Answer<'_, Procedure>;

    /// Makes a source of a replica whose source is lost.
    fn failover(&self, group: Name, request: FailoverRequest) -> Answer<'_, Procedure>;

    /// Gives up what was written here since another side became the source, and follows it.
    fn failback(&self, group: Name, request: FailbackRequest) -> Answer<'_, Procedure>;

    /// What a failback would give up.
    fn preview_failback(&self, group: Name) -> Answer<'_, FailbackPreview>;

    /// Rehearses a failover on a clone. Asked for at the replica; an error means that no report was
    /// kept.
    fn drill(&self, group: Name, request: DrillRequest) -> Answer<'_, Drilled>;

    /// The drills whose reports are kept.
    fn drills(&self, group: Name) -> Answer<'_, Drills>;

    /// What the last procedure of a group has done so far.
    fn procedure(&self, group: Name) -> Answer<'_, LastProcedure>;
}

/// The last procedure of a group, running or over, since the agent started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastProcedure {
    /// Absent when there was none.
    pub procedure: Option<Procedure>,
}

/// Body of a switchover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchoverRequest {
    /// The replica that becomes the source, by name; needed when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How long draining, and the other side's taking over, may take each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Cut off clients that are still connected.
    #[serde(default)]
    pub force: bool,
    /// Only look whether it could be done now.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of a failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverRequest {
    /// The generation that is given up, or its beginning.
    pub generation: String,
    /// To which point; without one, to the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Also while the source is connected.
    #[serde(default)]
    pub force: bool,
    /// Only look whether it could be done now.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of a failback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailbackRequest {
    /// The generation of this side, which is given up, or its beginning.
    pub generation: String,
    /// The peer to follow, by name; needed when several are a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<String>,
    /// Cut off clients that are still connected.
    #[serde(default)]
    pub force: bool,
}

/// What a failback would give up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackPreview {
    /// Of which group.
    pub group: String,
    /// The generation of this side.
    pub generation: String,
    /// The peers that are a source too, and what they are to this side.
    pub peers: Vec<OtherSource>,
}

/// A peer that is a source of the group too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherSource {
    /// What it calls itself.
    pub peer: String,
    /// What its history is to this side's.
    pub relation: String,
    /// What each LV may hold here that is given up when this side follows it, at most.
    pub volumes: Vec<GivenUp>,
}

/// What may be given up of one LV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Its name.
    pub name: String,
    /// Its size. Unit: bytes.
    pub bytes: u64,
    /// What may differ from the last common record, at most. Unit: bytes.
    pub changed_bytes: u64,
}
