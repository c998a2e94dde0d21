//! One interface for commands, portal and scripts: HTTP with JSON over a unix socket.
//!
//! ```text
//! method  path                   body or query          answer
//! GET     /v1/status             ?group=G               Status
//! GET     /v1/groups             -                      Groups
//! POST    /v1/groups             GroupSpec              GroupSummary
//! POST    /v1/groups/G/pause     -                      Done
//! POST    /v1/groups/G/resume    -                      Done
//! POST    /v1/groups/G/wait      WaitRequest            Done
//! GET     /v1/pairs              -                      Pairings
//! POST    /v1/pairs/invite       InviteRequest          Invitation
//! POST    /v1/pairs/join         JoinRequest            Joined
//! POST    /v1/pairs/revoke       RevokeRequest          Revoked
//! POST    /v1/groups/G/markers   MarkerRequest          Marked
//! GET     /v1/groups/G/snapshots -                      Snapshots
//! POST    /v1/groups/G/snapshots SnapshotRequest        Marked
//! POST    /v1/groups/G/snapshots/change  SnapshotChange  Done
//! GET     /v1/groups/G/history   -                      History
//! POST    /v1/groups/G/rollback  RollbackRequest        RolledBack
//! POST    /v1/groups/G/switchover SwitchoverRequest     Procedure
//! POST    /v1/groups/G/failover  FailoverRequest        Procedure
//! POST    /v1/groups/G/failback  FailbackRequest        Procedure
//! GET     /v1/groups/G/failback  -                      FailbackPreview
//! GET     /v1/groups/G/procedure -                      LastProcedure
//! POST    /v1/groups/G/drills    DrillRequest           Drilled
//! GET     /v1/groups/G/drills    -                      Drills
//! POST    /v1/exports            ExportRequest          Exported
//! POST    /v1/templates          TemplateRequest        TemplateMade
//! GET     /v1/environments       -                      Environments
//! POST    /v1/environments       EnvRequest             Environment
//! GET     /v1/environments/E/log      -               EnvLog
//! POST    /v1/environments/E/extend   {"lease"}         Environment
//! POST    /v1/environments/E/destroy  EnvEnd            Done
//! POST    /v1/keys/list          Which                  Rings
//! POST    /v1/keys/rotate        Which                  Rotated
//! POST    /v1/keys/rewrap        RewrapRequest          Rewrapped
//! POST    /v1/groups/G/keys/end  EndRequest             Ended
//! GET     /v1/sets               -                      SetsList
//! POST    /v1/sets               SetSpec                SetDetails
//! GET     /v1/sets/S             -                      SetDetails
//! POST    /v1/sets/S/change      SetChange              SetDetails
//! POST    /v1/sets/S/delete      -                      Done
//! GET     /v1/sets/S/snapshots   -                      SetSnapshots
//! POST    /v1/sets/S/snapshots   SetSnapshotRequest     SetSnapshotRow
//! POST    /v1/sets/S/snapshots/change  SetSnapshotChange  Done
//! POST    /v1/sets/S/templates   SetTemplateRequest     SetTemplates
//! ```
//!
//! Every refusal is `{"error", "hint", "code"}` with `code` one of `failed`, `usage`, `refused`,
//! `timed-out`. Bodies have at most 64 KiB. Who may open the socket may do everything.

pub mod client;

pub mod control;

pub mod drills;

pub mod environments;

pub mod io;

mod key_routes;

pub mod keys;

pub mod pairs;

pub mod past;

mod past_client;

mod past_routes;

pub mod progress;

pub mod roles;

mod roles_routes;

pub mod routes;

pub mod sets;

mod sets_routes;

pub mod status;

pub use client::Client;
pub use control::{Answer, Control, ControlError, ErrorKind};
pub use status::Status;

#[cfg(test)]
pub(crate) mod tests;
