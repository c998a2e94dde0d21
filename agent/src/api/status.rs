//! What an agent says of itself and its groups. Plain data; the form that scripts rely on.

use serde::{Deserialize, Serialize};

use super::drills::LastDrill;
use crate::home::{Mode, OnTimeout, Overflow, Role};

/// One agent and its groups at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who answers.
    pub agent: AgentStatus,
    /// By name.
    pub groups: Vec<GroupStatus>,
}

/// The agent that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// What it is called.
    pub name: String,
    /// Its program's version.
    pub version: String,
    /// Where peers reach it; with the port that it has, also when it was configured as 0.
    #[serde(default)]
    pub listen: Option<String>,
    /// Its id.
    #[serde(default)]
    pub peer_id: Option<String>,
}

/// How a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The replica is connected, holds all of the past and follows.
    InSync,
    /// The replica follows in order and is behind.
    Streaming,
    /// Differences are being found and shipped; the replica is not consistent.
    Resyncing,
    /// The outbox overflowed: the order is lost, differing extents are noted.
    Map,
    /// An operator stopped it.
    Paused,
    /// The peer cannot be reached, or there is none yet.
    Disconnected,
    /// Both sides have a history of their own; an operator must choose.
    Diverged,
    /// The replica was made writable.
    Promoted,
}

impl State {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::InSync => "in-sync",
            State::Streaming => "streaming",
            State::Resyncing => "resyncing",
            State::Map => "map",
            State::Paused => "paused",
            State::Disconnected => "disconnected",
            State::Diverged => "diverged",
            State::Promoted => "promoted",
        }
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// What this agent calls it.
    pub name: String,
    /// Which side this agent is.
    pub role: Role,
    /// The history it is in: 32 hexadecimal digits, or empty before there is one.
    pub generation: String,
    /// When a write is complete.
    pub mode: Mode,
    /// How it is.
    pub state: State,
    /// Why it is so, when it is not in sync.
    pub reason: Option<String>,
    /// What it consists of, in the order of the layout.
    pub volumes: Vec<VolumeStatus>,
    /// How far records have come.
    pub seq: SeqStatus,
    /// How far the replica is behind.
    pub lag: Lag,
    /// In how many bytes the replica may differ.
    pub dirty_bytes: u64,
    /// A resync, while there is one.
    pub resync: Option<ResyncStatus>,
    /// What would be lost if the source were lost now.
    pub rpo: Rpo,
    /// The other sides.
    pub peers: Vec<PeerStatus>,
    /// Whether the replica's volumes are a state that the source's have been in.
    #[serde(default)]
    pub consistent: bool,
    /// What happens when the outbox is full.
    #[serde(default)]
    pub policy: Overflow,
    /// What the outbox holds.
    #[serde(default)]
    pub outbox: OutboxStatus,
    /// Whether writes wait for sync replicas; `null` when all are async.
    #[serde(default)]
    pub sync: Option<SyncStatus>,
    /// What the self-check has come to; `null` on a replica.
    #[serde(default)]
    pub self_check: Option<CheckStatus>,
    /// Replica: it keeps what it cannot read. Source: one of its replicas does.
    #[serde(default)]
    pub blind: bool,
    /// What veils the content of blind replicas; `null` when there never was one.
    #[serde(default)]
    pub veil: Option<VeilStatus>,
    /// The last drill whose report is kept; `null` on a source, and when there was none.
    #[serde(default)]
    pub last_drill: Option<LastDrill>,
    /// Whether no drill has passed for longer than `drill_every`.
    #[serde(default)]
    pub drill_overdue: bool,
}

/// What veils the content of blind replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeilStatus {
    /// The veil key's id.
    pub key: String,
    /// Source: when an escrow was made last, RFC 3339.
    pub escrowed: Option<String>,
}

/// How a sync group, or one sync replica, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncState {
    /// It is async.
    Off,
    /// Every acknowledged write is durable on the replica: nothing would be lost.
    InForce,
    /// Writes wait for it; earlier ones are still on their way.
    CatchingUp,
    /// Writes go on without it.
    Degraded,
    /// Writes wait until it is in force.
    Stalled,
}

impl SyncState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            SyncState::Off => "off",
            SyncState::InForce => "in-force",
            SyncState::CatchingUp => "catching-up",
            SyncState::Degraded => "degraded",
            SyncState::Stalled => "stalled",
        }
    }
}

/// Whether writes wait for sync replicas. Of several, the worst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// How it stands.
    pub state: SyncState,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why it is not in force.
    pub reason: Option<String>,
    /// How long a write waits. Unit: seconds.
    pub timeout_seconds: f64,
    /// What then.
    pub on_timeout: OnTimeout,
    /// How long the oldest write has been waiting. Unit: seconds.
    pub waiting_seconds: f64,
}

/// What the self-check has come to since the agent started. With several replicas, of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Compared. Unit: bytes.
    pub checked_bytes: u64,
    /// Passed over: written whenever it was read, or not readable. Unit: bytes.
    pub passed_over_bytes: u64,
    /// How often all volumes were gone through.
    pub rounds: u64,
    /// Extents that differed where they should have been equal.
    pub mismatches: u64,
    /// The last of them.
    pub last: Option<MismatchStatus>,
}

/// Where source and replica differed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MismatchStatus {
    /// The LV.
    pub volume: String,
    /// Where in it. Unit: bytes.
    pub offset: u64,
    /// The record at which both were compared.
    pub seq: u64,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// The LV's name.
    pub name: String,
    /// Its size. Unit: bytes.
    pub bytes: u64,
}

/// How far records have come; each number is a record's seq, start in the high 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqStatus {
    /// The last one given.
    pub issued: u64,
    /// The last one handed to the wire.
    pub sent: u64,
    /// The last one in the replica's journal.
    pub durable: u64,
    /// The last one in the replica's volumes.
    pub applied: u64,
}

/// How far the replica is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Payload that is not durable there. Unit: bytes.
    pub bytes: u64,
    /// Age of the newest epoch end that is durable there, less one epoch. Unit: seconds.
    pub seconds: f64,
    /// Whether it is beyond `max_lag`.
    #[serde(default)]
    pub exceeded: bool,
    /// Whether writers are slowed for it.
    #[serde(default)]
    pub slowed: bool,
}

/// A resync.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResyncStatus {
    /// Why there is one.
    pub reason: String,
    /// Compared or shipped so far. Unit: bytes.
    pub done_bytes: u64,
    /// All that is to be compared; grows with writes that come in. Unit: bytes.
    pub total_bytes: u64,
    /// When it ends, if it gains; counts incoming writes. Unit: seconds.
    pub eta_seconds: Option<f64>,
    /// How fast it goes. Unit: bytes a second.
    #[serde(default)]
    pub rate_bytes_per_second: f64,
    /// How fast new differences come in. Unit: bytes a second.
    #[serde(default)]
    pub incoming_bytes_per_second: f64,
    /// Why there is no end in sight, when it does not gain.
    #[serde(default)]
    pub losing_ground: Option<String>,
}

/// What would be lost if the source were lost now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rpo {
    /// Unit: seconds.
    pub seconds: f64,
    /// What is wished for. Unit: seconds.
    pub objective_seconds: Option<f64>,
}

/// One other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// What it calls itself.
    pub name: String,
    /// Whether both talk.
    pub connected: bool,
    /// Where it is.
    pub address: Option<String>,
    /// Since when it is connected or not, RFC 3339.
    pub since: Option<String>,
    /// Why it is not, or was not the last time.
    pub last_error: Option<String>,
    /// Records sent to it or received from it since the agent started. Unit: bytes before
    /// compression.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Source: how this replica stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncState>,
    /// Source: whether this replica is blind.
    #[serde(default)]
    pub blind: bool,
    /// Tries that failed since it last stood soundly; 0 while it is connected.
    #[serde(default)]
    pub tries: u64,
}

/// What the outbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxStatus {
    /// In memory. Unit: bytes.
    pub ram_bytes: u64,
    /// On disk. Unit: bytes.
    pub spill_bytes: u64,
}

impl Status {
    /// The same with one group alone, or `None` when there is no such group.
    #[must_use]
    pub fn only(mut self, group: &str) -> Option<Status> {
        self.groups.retain(|known| known.name == group);
        (!self.groups.is_empty()).then_some(self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A source in sync.
    pub(crate) fn in_sync() -> GroupStatus {
        GroupStatus {
            name: "payroll".into(),
            role: Role::Source,
            generation: "4f2a9c0d1e2f30415263748596a7b8c9".into(),
            mode: Mode::Async,
            state: State::InSync,
            reason: None,
            volumes: vec![
                VolumeStatus { name: "data".into(), bytes: 512 * MIB },
                VolumeStatus { name: "log".into(), bytes: 64 * MIB },
            ],
            seq: SeqStatus {
                issued: 0x0001_0000_0000_07d0,
                sent: 0x0001_0000_0000_07d0,
                durable: 0x0001_0000_0000_07d0,
                applied: 0x0001_0000_0000_07cf,
            },
            lag: Lag::default(),
            dirty_bytes: 0,
            resync: None,
            rpo: Rpo { seconds: 0.25, objective_seconds: Some(15.0) },
            peers: vec![PeerStatus {
                name: "recovery".into(),
                connected: true,
                address: Some("127.0.0.1:7300".into()),
                since: Some("2026-02-03T04:05:06Z".into()),
                last_error: None,
                sent_bytes: 0,
                sync: None,
                blind: false,
                tries: 0,
            }],
            consistent: true,
            policy: Overflow::Map,
            outbox: OutboxStatus::default(),
            sync: None,
            self_check: None,
            blind: false,
            veil: None,
            last_drill: None,
            drill_overdue: false,
        }
    }

    /// An agent with these groups.
    pub(crate) fn agent(groups: Vec<GroupStatus>) -> Status {
        let agent = AgentStatus {
            name: "prod".into(),
            version: "0.1.0".into(),
            listen: Some("127.0.0.1:7300".into()),
            peer_id: None,
        };
        Status { agent, groups }
    }

    #[test]
    fn the_form_that_scripts_rely_on_holds() {
        let mut group = in_sync();
        group.resync = Some(ResyncStatus {
            reason: "first sync".into(),
            done_bytes: 1,
            total_bytes: 2,
            eta_seconds: None,
            rate_bytes_per_second: 0.0,
            incoming_bytes_per_second: 0.0,
            losing_ground: None,
        });
        let json = serde_json::to_value(agent(vec![group])).unwrap();
        let keys = |at: &str| -> Vec<String> {
            let object = json.pointer(at).and_then(|value| value.as_object());
            object.unwrap_or_else(|| panic!("{at}")).keys().cloned().collect()
        };
        for (at, contract) in [
            ("", "agent groups"),
            ("/agent", "name version"),
            (
                "/groups/0",
                "name role generation mode state reason volumes seq lag dirty_bytes resync rpo peers",
            ),
            ("/groups/0/volumes/0", "name bytes"),
            ("/groups/0/seq", "issued sent durable applied"),
            ("/groups/0/lag", "bytes seconds"),
            ("/groups/0/resync", "reason done_bytes total_bytes eta_seconds"),
            ("/groups/0/rpo", "seconds objective_seconds"),
            ("/groups/0/peers/0", "name connected address since last_error"),
        ] {
            let found = keys(at);
            for key in contract.split(' ') {
                assert!(found.iter().any(|known| known == key), "{at} lacks {key}");
            }
        }
        assert_eq!(json["groups"][0]["state"], "in-sync");
        assert_eq!(json["groups"][0]["role"], "source");
        let back: Status = serde_json::from_value(json).unwrap();
        assert_eq!(back.only("payroll").unwrap().groups.len(), 1);
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        assert!(agent(vec![in_sync()]).only("pay").is_none());
    }
}
