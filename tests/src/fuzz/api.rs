//! Bodies of requests to the agent, and its answers as commands read them.

use std::fmt::Debug;
use std::path::Path;

use serde_json::Value;
use vgship::api::control::{
    ControlError, Done, Groups, Invitation, InviteRequest, JoinRequest, Joined, Pairings,
    RemoveRequest, Removed, RevokeRequest, Revoked, WaitFor, WaitRequest,
};
use vgship::api::status::SyncState;
use vgship::api::status::{
    AgentStatus, CheckStatus, GroupStatus, Lag, OutboxStatus, ResyncStatus, Rpo,
};
use vgship::api::status::{PeerStatus, SeqStatus, State, Status, VolumeStatus};
use vgship::home::{GroupConfig, GroupSpec, Mode, Overflow, Role};
use vgship_base::ids::GroupId;

use super::json::{Json, close};

/// A body as every type that has one.
pub fn run(data: &[u8]) {
    body::<WaitRequest>(data);
    body::<InviteRequest>(data);
    body::<JoinRequest>(data);
    body::<RemoveRequest>(data);
    body::<RevokeRequest>(data);
    body::<Done>(data);
    body::<Groups>(data);
    body::<Invitation>(data);
    body::<Joined>(data);
    body::<Pairings>(data);
    body::<Removed>(data);
    body::<Revoked>(data);
    body::<ControlError>(data);
    body::<Status>(data);
    if let Some(spec) = body::<GroupSpec>(data) {
        new_group(spec);
    }
}

/// What is accepted as a group can be stored and is the same when it is read.
fn new_group(spec: GroupSpec) {
    let checked = spec.check();
    let config = spec.into_config(GroupId([1; 16]), Role::Source);
    let path = Path::new("group.toml");
    assert_eq!(checked.is_ok(), config.check(path).is_ok());
    if checked.is_ok() {
        assert_eq!(GroupConfig::parse(&config.to_text(), path).expect("an own text"), config);
    }
}

/// Reads a body; what it is when it is written again means the same.
fn body<T: Json + Debug>(data: &[u8]) -> Option<T> {
    let found: T = serde_json::from_slice(data).ok()?;
    let text = serde_json::to_vec(&found).expect("plain data");
    let again: T = serde_json::from_slice(&text).expect("an own text");
    let value = |it: &T| serde_json::to_value(it).expect("plain data");
    let (one, two): (Value, Value) = (value(&found), value(&again));
    assert!(close(&one, &two), "{one} became {two}");
    Some(found)
}

fn a_status() -> Status {
    let resync = ResyncStatus {
        reason: "initial sync".into(),
        done_bytes: 1,
        total_bytes: 2,
        eta_seconds: Some(0.5),
        rate_bytes_per_second: 2.0,
        incoming_bytes_per_second: 0.0,
        losing_ground: None,
    };
    let peer = PeerStatus {
        name: "recovery".into(),
        connected: true,
        address: Some("127.0.0.1:7300".into()),
        since: None,
        last_error: None,
        sent_bytes: 7,
        sync: Some(SyncState::InForce),
        blind: true,
        tries: 3,
    };
    let group = GroupStatus {
        name: "payroll".into(),
        role: Role::Source,
        generation: String::new(),
        mode: Mode::Async,
        state: State::Resyncing,
        reason: None,
        volumes: vec![VolumeStatus { name: "data".into(), bytes: 512 }],
        seq: SeqStatus::default(),
        lag: Lag { seconds: 0.25, ..Lag::default() },
        dirty_bytes: 1,
        resync: Some(resync),
        rpo: Rpo::default(),
        peers: vec![peer],
        consistent: true,
        policy: Overflow::Map,
        outbox: OutboxStatus::default(),
        sync: None,
        self_check: Some(CheckStatus::default()),
        blind: true,
        veil: None,
        last_drill: None,
        drill_overdue: true,
    };
    let (name, version) = ("prod".into(), "0.1.0".into());
    let agent = AgentStatus { name, version, listen: None, peer_id: None };
    Status { agent, groups: vec![group] }
}

/// A body of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let spec = GroupSpec::new("payroll".parse().expect("a name"), "images:/srv/payroll");
    let wait = WaitRequest { what: WaitFor::InSync, timeout: "30 s".parse().ok() };
    let invite = InviteRequest {
        group: "payroll".parse().expect("a name"),
        role: Role::Replica,
        blind: true,
        expires: "1 h".parse().expect("a period"),
    };
    let join =
        JoinRequest { token: "vgship1-a".into(), group: None, volumes: Some("lvm2:a".into()) };
    let json = |value: Result<Vec<u8>, serde_json::Error>| value.expect("plain data");
    vec![
        json(serde_json::to_vec(&spec)),
        json(serde_json::to_vec(&wait)),
        json(serde_json::to_vec(&invite)),
        json(serde_json::to_vec(&join)),
        json(serde_json::to_vec(&RemoveRequest { force: true })),
        json(serde_json::to_vec(&RevokeRequest { peer: "recovery".into() })),
        json(serde_json::to_vec(&ControlError::refused("no").hint("yes"))),
        json(serde_json::to_vec(&a_status())),
        b"{\"pairs\":[{\"peer_id\":\"a\",\"peer\":\"b\",\"group\":\"c\",\"role\":\"source\"}]}"
            .to_vec(),
    ]
}
