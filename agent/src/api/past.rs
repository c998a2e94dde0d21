//! What the interface asks of a group's past: markers, snapshots, points, environments.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use super::control::{Answer, Done};
pub use super::environments::{
    EnvEnd, EnvLog, EnvPart, EnvRequest, EnvStep, EnvVolume, Environment, Environments,
};
use crate::home::{Period, text};

/// The past of an agent's groups, as commands and portal see it.
pub trait Past: Send + Sync {
    /// Puts a marker into a group's stream.
    fn marker(&self, group: Name, request: MarkerRequest) -> Answer<'_, Marked>;

    /// Takes a snapshot: on the source by a marker in the stream, on a replica of what is applied.
    fn snapshot_create(&self, group: Name, request: SnapshotRequest) -> Answer<'_, Marked>;

    /// A group's snapshots, oldest first.
    fn snapshot_list(&self, group: Name) -> Answer<'_, Snapshots>;

    /// Deletes, pins or unpins a snapshot.
    fn snapshot_change(&self, group: Name, request: SnapshotChange) -> Answer<'_, Done>;

    /// Rolls a replica's volumes back to a point or, without one, to where they stood. Without a
    /// generation nothing is done, and what it would write is told.
    fn rollback(&self, group: Name, request: RollbackRequest) -> Answer<'_, RolledBack>;

    /// Writes a point's volumes to image files.
    fn export(&self, request: ExportRequest) -> Answer<'_, Exported>;

    /// Makes a template of a point.
    fn template_create(&self, request: TemplateRequest) -> Answer<'_, TemplateMade>;

    /// The environments that read a template, or are being made of it.
    fn template_users(&self, template: TemplateAt) -> Answer<'_, TemplateUsers>;

    /// The window of points.
    fn history(&self, group: Name) -> Answer<'_, History>;

    /// Makes an environment.
    fn env_create(&self, request: EnvRequest) -> Answer<'_, Environment>;

    /// All environments.
    fn env_list(&self) -> Answer<'_, Environments>;

    /// What an environment's programs said.
    fn env_log(&self, name: Name) -> Answer<'_, EnvLog>;

    /// Gives an environment a new lease from now on.
    fn env_extend(&self, name: Name, lease: Period) -> Answer<'_, Environment>;

    /// Ends an environment's clients and removes all of it.
    fn env_destroy(&self, name: Name, end: EnvEnd) -> Answer<'_, Done>;
}

/// Body of a marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkerRequest {
    /// What it is called.
    #[serde(with = "text")]
    pub name: Name,
    /// Whether applications are quiet, by the caller's own doing.
    #[serde(default)]
    pub quiesced: bool,
    /// Make them quiet with the group's hooks.
    #[serde(default)]
    pub quiesce: bool,
}

/// Body of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// What it is called; without it, by the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long a source waits for its replicas; without it half a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Make applications quiet with the group's hooks; only on its source.
    #[serde(default)]
    pub quiesce: bool,
}

/// A marker or snapshot that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// Of which group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Where it stands, as one number.
    pub seq: u64,
    /// Where it stands, as `start.count`.
    pub at: String,
    /// Which replicas have followed it; empty on a replica.
    pub replicas: Vec<String>,
    /// Whether applications were quiet there.
    pub quiesced: bool,
    /// How long the group's hooks held them, if they did. Unit: milliseconds.
    pub held_ms: Option<u64>,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotOrder {
    /// It goes.
    Delete,
    /// It stays until it is unpinned.
    Pin,
    /// It may go.
    Unpin,
}

/// Body of a change of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotChange {
    /// Which.
    #[serde(with = "text")]
    pub name: Name,
    /// What becomes of it.
    pub order: SnapshotOrder,
}

/// Body of a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The snapshot or point; `null`: to where the volumes stood.
    #[serde(default)]
    pub to: Option<String>,
    /// Of which history, or its beginning; `null`: nothing is done.
    #[serde(default)]
    pub generation: Option<String>,
}

/// A rollback that was done, or looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Which group.
    pub group: String,
    /// Its history.
    pub generation: String,
    /// The last record of the point, as one number.
    pub seq: u64,
    /// The same, as `start.count`.
    pub at: String,
    /// The source's clock there, RFC 3339.
    pub time: String,
    /// The last record that the volumes held before, as `start.count`.
    pub from: String,
    /// What may be written at most. Unit: bytes.
    pub changed_bytes: u64,
    /// The same, per LV; empty on the way back.
    pub volumes: Vec<RolledVolume>,
}

/// One LV of a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledVolume {
    /// The LV.
    pub name: String,
    /// How large it was at the point. Unit: bytes.
    pub bytes: u64,
    /// What of it may be written at most. Unit: bytes.
    pub changed_bytes: u64,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each a field of JSON")]
pub struct SnapshotRow {
    /// Its name.
    pub name: String,
    /// Which replica keeps it; `null` where that one is asked.
    pub replica: Option<String>,
    /// The last record that it holds, as one number.
    pub seq: u64,
    /// The same, as `start.count`.
    pub at: String,
    /// `manual`, `automatic`, `before-resync`, `before-rollback`.
    pub origin: String,
    /// Whether it stays until it is unpinned.
    pub pinned: bool,
    /// Whether it is the way back of a resync under way.
    pub guards: bool,
    /// Whether applications were quiet.
    pub quiesced: bool,
    /// Whether it can be read already.
    pub complete: bool,
    /// The source's clock, RFC 3339.
    pub time: String,
    /// How long ago that was, by this machine's clock. Unit: seconds.
    pub age_seconds: u64,
    /// The history that it belongs to; only where the replica is asked, as what follows.
    pub generation: Option<String>,
    /// What was preserved while it was the newest. Unit: bytes as stored.
    pub bytes: Option<u64>,
    /// The same. Unit: extents.
    pub extents: Option<u64>,
    /// Who uses it.
    pub users: Vec<String>,
}

/// A group's snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// Of which group.
    pub group: String,
    /// Oldest first.
    pub snapshots: Vec<SnapshotRow>,
    /// What all take on disk. Unit: bytes.
    pub stored_bytes: u64,
    /// What of that some snapshot needs; the rest is given back as packs are written anew. `null` at
    /// the source.
    pub needed_bytes: Option<u64>,
}

/// Body of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Which point, `G@NAME` or `G@POINT`, or which template.
    pub from: String,
    /// The template's store; without it the home's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The folder, which is made, or is empty.
    pub to: PathBuf,
}

/// One image that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Where.
    pub path: PathBuf,
    /// Its size. Unit: bytes.
    pub bytes: u64,
    /// What of it is not a hole. Unit: bytes.
    pub written_bytes: u64,
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Of which group.
    pub group: String,
    /// The last record that it holds, as one number.
    pub seq: u64,
    /// The same, as `start.count`.
    pub at: String,
    /// The source's clock there, RFC 3339.
    pub time: String,
    /// One image per volume.
    pub files: Vec<ExportedFile>,
}

/// Body of a new template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateRequest {
    /// What it is called.
    #[serde(with = "text")]
    pub name: Name,
    /// Which point: `G@NAME` or `G@POINT`.
    pub from: String,
    /// Which store; without it the home's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// A template by its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateAt {
    /// What it is called.
    #[serde(with = "text")]
    pub name: Name,
    /// In which store; without it the home's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// Who uses a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUsers {
    /// Environments, by name.
    pub users: Vec<String>,
}

/// A template that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateMade {
    /// Its name.
    pub name: String,
    /// The hash that proves every byte.
    pub root: String,
    /// Of which group.
    pub group: String,
    /// The last record that it holds, as `start.count`.
    pub at: String,
    /// The source's clock there, RFC 3339.
    pub time: String,
    /// Of all LVs. Unit: bytes.
    pub bytes: u64,
    /// What of that is not zero. Unit: bytes.
    pub data_bytes: u64,
    /// What was not in the store yet. Unit: bytes as stored.
    pub stored_bytes: u64,
}

/// A point, as far as it is from now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointRow {
    /// How it is named.
    pub name: String,
    /// The last record that it holds, as one number.
    pub seq: u64,
    /// The same, as `start.count`.
    pub at: String,
    /// The source's clock there, RFC 3339.
    pub time: String,
    /// How long before the newest point. Unit: seconds of the source's clock.
    pub seconds_ago: u64,
    /// How many records before it; `null` when the source was started in between.
    pub records_ago: Option<u64>,
}

/// A group's window of points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Of which group.
    pub group: String,
    /// The oldest snapshot from which any later point can be opened.
    pub oldest: Option<PointRow>,
    /// The newest point.
    pub newest: Option<PointRow>,
    /// Whether the newest point is inside a resync, and so none.
    pub inside_resync: bool,
    /// Kept snapshots, oldest first.
    pub snapshots: Vec<PointRow>,
    /// Markers, oldest first.
    pub markers: Vec<PointRow>,
    /// How far back any point shall reach, as configured.
    pub window: String,
    /// What history may take, as configured.
    pub budget: String,
    /// When snapshots are taken, as configured.
    pub schedule: String,
    /// What preserved extents take on disk. Unit: bytes.
    pub preserved_bytes: u64,
    /// What the journal takes. Unit: bytes.
    pub journal_bytes: u64,
    /// Why history is shorter than it should be.
    pub short: Option<String>,
}
