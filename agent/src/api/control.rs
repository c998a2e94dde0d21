//! What the interface asks of a running agent, and what it answers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vgship_base::ids::{Name, PeerId};

use super::keys::KeyRoom;
use super::past::Past;
use super::roles::Roles;
use super::sets::Sets;
use super::status::Status;
use crate::home::{
    GroupConfig, GroupSpec, HomeError, Mode, Period, Role, Settings, SettingsChange, text,
};

/// What a method of [`Control`] returns: it runs when awaited and may be dropped at any time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + Send + 'a>>;

/// A running agent, as commands and portal see it.
pub trait Control: Send + Sync + 'static {
    /// The agent and all its groups, as they are now.
    fn status(&self) -> Answer<'_, Status>;

    /// All groups, as they are configured.
    fn group_list(&self) -> Answer<'_, Groups>;

    /// Begins to serve a new group as its source.
    fn group_add(&self, spec: GroupSpec) -> Answer<'_, GroupSummary>;

    /// Changes how a group is replicated.
    fn group_set(&self, group: Name, request: SetRequest) -> Answer<'_, GroupSettings>;

    /// Stops a group and takes it out of the home; its volumes stay as they are. Refused while NBD
    /// clients are connected to it, unless forced: then they are cut off.
    fn group_remove(&self, group: Name, force: bool) -> Answer<'_, Removed>;

    /// Stops shipping or applying a group; applications go on.
    fn pause(&self, group: Name) -> Answer<'_, Done>;

    /// Takes a paused group up again.
    fn resume(&self, group: Name) -> Answer<'_, Done>;

    /// Ends when `what` holds. For [`WaitFor::Durable`] and [`WaitFor::Applied`]: for everything
    /// that was written before this call. The caller bounds the time.
    fn wait(&self, group: Name, what: WaitFor) -> Answer<'_, Done>;

    /// Makes a one-time token with which a peer may join a group.
    fn pair_invite(&self, invite: InviteRequest) -> Answer<'_, Invitation>;

    /// Uses a token that a peer made.
    fn pair_join(&self, join: JoinRequest) -> Answer<'_, Joined>;

    /// Who may do what.
    fn pair_list(&self) -> Answer<'_, Pairings>;

    /// Takes away all that a peer may do. `peer` is its name or id.
    fn pair_revoke(&self, peer: String) -> Answer<'_, Revoked>;

    /// The past of its groups.
    fn past(&self) -> &dyn Past;

    /// The data keys of its groups.
    fn keys(&self) -> &dyn KeyRoom;

    /// Its sets of groups.
    fn sets(&self) -> &dyn Sets;

    /// How roles are exchanged.
    fn roles(&self) -> &dyn Roles;
}

/// An agent that several callers share.
pub type SharedControl = Arc<dyn Control>;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WaitFor {
    /// The replica holds all that the source has, and nothing is being resynced.
    InSync,
    /// The replica's journal holds what was written before.
    Durable,
    /// The replica's volumes hold what was written before.
    Applied,
    /// Both sides talk to each other.
    Connected,
}

impl WaitFor {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitFor::InSync => "in-sync",
            WaitFor::Durable => "durable",
            WaitFor::Applied => "applied",
            WaitFor::Connected => "connected",
        }
    }
}

/// Body of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// What for.
    #[serde(rename = "for")]
    pub what: WaitFor,
    /// How long at most; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

/// Body of a change of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// The replica whose mode is set, by name or id; without it the group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// What is to be otherwise.
    pub change: SettingsChange,
}

impl SetRequest {
    /// Makes the change to a group of which this agent is the source.
    pub fn apply(&self, to: &mut GroupConfig, pairs: &Pairings) -> Result<(), ControlError> {
        if to.role != Role::Source && !self.change.is_of_replica() {
            return Err(ControlError::refused(format!("group {} is a replica here", to.name))
                .hint(
                    "change it where its source is; a replica has --history, --snapshots, \
                       --drill-every, --stop and --start",
                ));
        }
        let peer = self.replica.as_ref().map(|who| pairs.replica(to, who)).transpose()?;
        self.change.apply(&mut to.policy, peer);
        match to.policy.wrong() {
            None => Ok(()),
            Some((key, why)) => {
                Err(ControlError::usage(format!("--{}: {why}", key.replace('_', "-"))))
            }
        }
    }
}

/// How a group is replicated from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    /// Which.
    pub group: String,
    /// How.
    pub policy: Settings,
}

/// Body of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Cut off those who are connected.
    #[serde(default)]
    pub force: bool,
}

/// Body of an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// For which group.
    #[serde(with = "text")]
    pub group: Name,
    /// What the peer will be.
    pub role: Role,
    /// Whether it will be a blind replica: one that keeps what it cannot read.
    #[serde(default)]
    pub blind: bool,
    /// How long the token can be used.
    pub expires: Period,
}

/// Body of a joining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// What the peer's invitation printed.
    pub token: String,
    /// What this agent calls the group; without it, as the peer does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where the replica's volumes are or shall be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<String>,
}

/// Body of a revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The peer's name or id.
    pub peer: String,
}

/// One configured group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// What this agent calls it.
    pub name: String,
    /// What it is on all its sides.
    pub id: String,
    /// Which side this agent is.
    pub role: Role,
    /// When a write is complete.
    pub mode: Mode,
    /// Which volumes.
    pub volumes: String,
    /// The other side's id, once paired.
    pub peer: Option<String>,
}

impl From<&GroupConfig> for GroupSummary {
    fn from(group: &GroupConfig) -> GroupSummary {
        GroupSummary {
            name: group.name.to_string(),
            id: group.id.to_string(),
            role: group.role,
            mode: group.policy.mode,
            volumes: group.volumes.clone(),
            peer: group.peer.map(|peer| peer.to_string()),
        }
    }
}

/// All configured groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// By name.
    pub groups: Vec<GroupSummary>,
}

/// A group that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// What this agent called it.
    pub group: String,
    /// Which side this agent was.
    pub role: Role,
    /// Its volumes, which were left as they are.
    pub volumes: String,
    /// Where its configuration and state are kept.
    pub kept: String,
    /// The peers whose pairing for it was revoked.
    pub revoked: Vec<String>,
}

/// A command was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// On which group.
    pub group: String,
    /// What holds now, in words: `paused`, `in-sync`.
    pub done: String,
}

/// A token that a peer can use once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// What the peer gives to `pair join`.
    pub token: String,
    /// For which group.
    pub group: String,
    /// What the peer will be.
    pub role: Role,
    /// Whether it will be a blind replica.
    #[serde(default)]
    pub blind: bool,
    /// A blind replica, and no escrow of the veil key has been made yet.
    #[serde(default)]
    pub wants_escrow: bool,
    /// Until when, RFC 3339.
    pub expires: String,
}

/// What became of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// What this agent calls the group.
    pub group: String,
    /// What this agent is in it.
    pub role: Role,
    /// What the peer calls itself.
    pub peer: String,
    /// The peer's id.
    pub peer_id: String,
    /// Whether this agent is a blind replica.
    #[serde(default)]
    pub blind: bool,
}

/// One thing that one peer may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// The peer's id.
    pub peer_id: String,
    /// What it calls itself.
    pub peer: String,
    /// In which group.
    pub group: String,
    /// What it is there.
    pub role: Role,
    /// Whether the replica of the two is blind.
    #[serde(default)]
    pub blind: bool,
    /// Where it was last reached or came from.
    pub address: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairings {
    /// By peer and group.
    pub pairs: Vec<Pairing>,
}

impl Pairings {
    /// The replica of a group that a person names by name or id.
    fn replica(&self, group: &GroupConfig, who: &str) -> Result<PeerId, ControlError> {
        let is = |pair: &&Pairing| {
            let known = pair.peer == who || pair.peer_id.starts_with(who) && who.len() >= 8;
            known && pair.role == Role::Replica
        };
        let id = self.pairs.iter().find(is).and_then(|pair| text::hex(&pair.peer_id));
        id.map(PeerId).ok_or_else(|| {
            ControlError::refused(format!("group {} has no replica {who}", group.name))
                .hint("see them with: vgship pair list")
        })
    }
}

/// A peer that may do nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// What it called itself.
    pub peer: String,
    /// Its id.
    pub peer_id: String,
    /// In which groups.
    pub groups: Vec<String>,
}

/// Of what kind a failure is: what a script does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// It did not work.
    Failed,
    /// It was asked for wrongly.
    Usage,
    /// The state or the generation does not allow it.
    Refused,
    /// It did not happen in time.
    TimedOut,
}

impl ErrorKind {
    /// The command's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Refused => 3,
            ErrorKind::TimedOut => 4,
        }
    }
}

/// Why a command was not carried out, for a person and for a script. Also the answer's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlError {
    /// What, where and why.
    #[serde(rename = "error")]
    pub message: String,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
    /// Of what kind.
    #[serde(rename = "code")]
    pub kind: ErrorKind,
}

impl ControlError {
    /// It did not work.
    pub fn failed(message: impl fmt::Display) -> ControlError {
        ControlError { message: message.to_string(), hint: None, kind: ErrorKind::Failed }
    }

    /// It was asked for wrongly.
    pub fn usage(message: impl fmt::Display) -> ControlError {
        ControlError { kind: ErrorKind::Usage, ..ControlError::failed(message) }
    }

    /// The state does not allow it.
    pub fn refused(message: impl fmt::Display) -> ControlError {
        ControlError { kind: ErrorKind::Refused, ..ControlError::failed(message) }
    }

    /// It did not happen in time.
    pub fn timed_out(message: impl fmt::Display) -> ControlError {
        ControlError { kind: ErrorKind::TimedOut, ..ControlError::failed(message) }
    }

    /// Any error with all its causes on one line.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> ControlError {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            message = format!("{message}: {next}");
            cause = next.source();
        }
        ControlError::failed(message)
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> ControlError {
        ControlError { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for ControlError {}

impl From<HomeError> for ControlError {
    fn from(error: HomeError) -> ControlError {
        let kind = match error {
            HomeError::Extent { .. } => ErrorKind::Usage,
            _ if error.is_refusal() => ErrorKind::Refused,
            _ => ErrorKind::Failed,
        };
        ControlError { kind, hint: error.hint(), ..ControlError::from_error(&error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    #[test]
    fn an_error_keeps_its_causes_its_hint_and_its_kind() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = ControlError::from(HomeError::io("open", "/h/lock")(source));
        assert_eq!(error.message, "cannot open /h/lock: permission denied");
        assert!(error.hint.unwrap().contains("--home"));
        let path = Home::at("/h").config();
        let error = ControlError::from(HomeError::Exists { path });
        assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::Refused, 3));
    }
}
