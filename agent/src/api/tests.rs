//! The interface from end to end: a real socket, a real client, an agent made of answers.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vgship_base::ids::Name;

use super::control::{
    Answer, Control, ControlError, Done, ErrorKind, GroupSettings, GroupSummary, Groups,
    Invitation, InviteRequest, JoinRequest, Joined, Pairings, Removed, RevokeRequest, Revoked,
    SetRequest, WaitFor, WaitRequest,
};
use super::drills::{DrillRequest, Drilled, Drills};
use super::io::Server;
use super::keys::{
    EndRequest, Ended, EscrowRequest, Escrowed, KeyRoom, KeyRow, KeyState, Kind, Need, NewKey,
    RewrapRequest, Rewrapped, Ring, Rings, Rotated, To,
};
use super::past::{
    EnvEnd, EnvLog, EnvRequest, Environment, Environments, ExportRequest, Exported, History,
    Marked, MarkerRequest, Past, RollbackRequest, RolledBack, SnapshotChange, SnapshotRequest,
    Snapshots, TemplateAt, TemplateMade, TemplateRequest, TemplateUsers,
};
use super::roles::{
    FailbackPreview, FailbackRequest, FailoverRequest, LastProcedure, Roles, SwitchoverRequest,
};
use super::sets::{
    SetChange, SetDetails, SetSnapshotChange, SetSnapshotRequest, SetSnapshotRow, SetSnapshots,
    SetSpec, SetTemplateRequest, SetTemplates, Sets, SetsList,
};
use super::status::tests::{agent, in_sync};
use super::{Client, Status};
use crate::home::{GroupSpec, Home, Mode, Period, Role, Settings, SettingsChange};
use crate::role::procedure::Procedure;

/// Knows the group payroll, which is paused already and never in sync.
#[derive(Default)]
pub(crate) struct Fake {
    waiting: Arc<AtomicUsize>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn ready<'a, T: Send + 'a>(value: Result<T, ControlError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Past for Fake {
    fn marker(&self, group: Name, request: MarkerRequest) -> Answer<'_, Marked> {
        let (group, name) = (group.to_string(), request.name.to_string());
        let replicas = vec!["dr1".into()];
        let (quiesced, held_ms) = (request.quiesced || request.quiesce, None);
        ready(Ok(Marked { group, name, seq: 9, at: "0.9".into(), replicas, quiesced, held_ms }))
    }

    fn snapshot_create(&self, _: Name, _: SnapshotRequest) -> Answer<'_, Marked> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn snapshot_list(&self, _: Name) -> Answer<'_, Snapshots> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn snapshot_change(&self, _: Name, _: SnapshotChange) -> Answer<'_, Done> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn rollback(&self, _: Name, _: RollbackRequest) -> Answer<'_, RolledBack> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn export(&self, _: ExportRequest) -> Answer<'_, Exported> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn template_create(&self, _: TemplateRequest) -> Answer<'_, TemplateMade> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn history(&self, _: Name) -> Answer<'_, History> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn env_create(&self, _: EnvRequest) -> Answer<'_, Environment> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn template_users(&self, _: TemplateAt) -> Answer<'_, TemplateUsers> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn env_list(&self) -> Answer<'_, Environments> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn env_log(&self, _: Name) -> Answer<'_, EnvLog> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn env_extend(&self, _: Name, _: Period) -> Answer<'_, Environment> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn env_destroy(&self, _: Name, _: EnvEnd) -> Answer<'_, Done> {
        ready(Err(ControlError::refused("not in this test")))
    }
}

impl Sets for Fake {
    fn set_create(&self, _: SetSpec) -> Answer<'_, SetDetails> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn set_list(&self) -> Answer<'_, SetsList> {
        ready(Ok(SetsList { sets: Vec::new() }))
    }

    fn set_show(&self, _: Name) -> Answer<'_, SetDetails> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn set_change(&self, _: Name, _: SetChange) -> Answer<'_, SetDetails> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn set_delete(&self, _: Name) -> Answer<'_, Done> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn set_snapshot_create(&self, _: Name, _: SetSnapshotRequest) -> Answer<'_, SetSnapshotRow> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn set_snapshot_list(&self, _: Name) -> Answer<'_, SetSnapshots> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn set_snapshot_change(&self, _: Name, _: SetSnapshotChange) -> Answer<'_, Done> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn set_template_create(&self, _: Name, _: SetTemplateRequest) -> Answer<'_, SetTemplates> {
        ready(Err(ControlError::refused("not in this test")))
    }
}

impl Roles for Fake {
    fn switchover(&self, _: Name, _: SwitchoverRequest) -> Answer<'_, Procedure> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn failover(&self, _: Name, _: FailoverRequest) -> Answer<'_, Procedure> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn failback(&self, _: Name, _: FailbackRequest) -> Answer<'_, Procedure> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn preview_failback(&self, _: Name) -> Answer<'_, FailbackPreview> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn drill(&self, _: Name, _: DrillRequest) -> Answer<'_, Drilled> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn drills(&self, _: Name) -> Answer<'_, Drills> {
        ready(Err(ControlError::refused("not in this test")))
    }

    fn procedure(&self, _: Name) -> Answer<'_, LastProcedure> {
        ready(Ok(LastProcedure { procedure: None }))
    }
}

impl Control for Fake {
    fn status(&self) -> Answer<'_, Status> {
        let mut group = in_sync();
        group.reason = Some("this is a test".into());
        ready(Ok(agent(vec![group])))
    }

    fn group_list(&self) -> Answer<'_, Groups> {
        ready(Ok(Groups { groups: Vec::new() }))
    }

    fn group_add(&self, spec: GroupSpec) -> Answer<'_, GroupSummary> {
        let (name, volumes) = (spec.name.to_string(), spec.volumes);
        let (id, role, mode) = ("1f".repeat(16), Role::Source, Mode::Async);
        ready(Ok(GroupSummary { name, id, role, mode, volumes, peer: None }))
    }

    fn group_set(&self, group: Name, request: SetRequest) -> Answer<'_, GroupSettings> {
        let mut policy = Settings::default();
        request.change.apply(&mut policy, None);
        ready(Ok(GroupSettings { group: group.to_string(), policy }))
    }

    fn group_remove(&self, group: Name, force: bool) -> Answer<'_, Removed> {
        let refused = ControlError::refused(format!("2 NBD clients are connected to {group}"));
        ready(if force { Ok(removed(&group)) } else { Err(refused) })
    }

    fn pause(&self, group: Name) -> Answer<'_, Done> {
        let error = ControlError::refused(format!("group {group} is paused already"));
        ready(Err(error.hint("take it up again with: vgship resume payroll")))
    }

    fn resume(&self, group: Name) -> Answer<'_, Done> {
        ready(Ok(Done { group: group.to_string(), done: "resumed".into() }))
    }

    fn wait(&self, group: Name, what: WaitFor) -> Answer<'_, Done> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self.waiting.clone());
        Box::pin(async move {
            let _waiting = waiting;
            if what == WaitFor::InSync {
                std::future::pending::<()>().await;
            }
            Ok(Done { group: group.to_string(), done: what.as_str().into() })
        })
    }

    fn pair_invite(&self, invite: InviteRequest) -> Answer<'_, Invitation> {
        let (token, expires) = ("vg1-token".into(), "2026-02-03T04:05:06Z".into());
        let (group, role, blind) = (invite.group.to_string(), invite.role, invite.blind);
        ready(Ok(Invitation { token, group, role, blind, wants_escrow: blind, expires }))
    }

    fn pair_join(&self, join: JoinRequest) -> Answer<'_, Joined> {
        ready(Err(ControlError::failed(format!("{} is no token", join.token))))
    }

    fn pair_list(&self) -> Answer<'_, Pairings> {
        ready(Ok(Pairings { pairs: Vec::new() }))
    }

    fn pair_revoke(&self, peer: String) -> Answer<'_, Revoked> {
        ready(Ok(Revoked { peer, peer_id: "a0".repeat(32), groups: vec!["payroll".into()] }))
    }

    fn past(&self) -> &dyn Past {
        self
    }

    fn keys(&self) -> &dyn KeyRoom {
        self
    }

    fn roles(&self) -> &dyn Roles {
        self
    }

    fn sets(&self) -> &dyn Sets {
        self
    }
}

impl KeyRoom for Fake {
    fn key_list(&self, group: Option<Name>) -> Answer<'_, Rings> {
        let ring = |group: Name| Ring {
            group: Some(group.to_string()),
            store: None,
            keys: vec![key_row()],
            veil: None,
        };
        ready(Ok(Rings { rings: group.into_iter().map(ring).collect() }))
    }

    fn key_rotate(&self, group: Option<Name>) -> Answer<'_, Rotated> {
        let group = Some(group.map_or("payroll".to_owned(), |it| it.to_string()));
        ready(Ok(Rotated { keys: vec![NewKey { group, store: None, key: "0a".repeat(8) }] }))
    }

    fn key_end(&self, group: Name, request: EndRequest) -> Answer<'_, Ended> {
        let (group, key) = (Some(group.to_string()), request.key);
        ready(match request.lose {
            None => Err(ControlError::refused(format!("key {key} is still needed"))),
            Some(_) => Ok(Ended { group, store: None, key, lost: key_row().needs }),
        })
    }

    fn key_escrow(&self, group: Name, request: EscrowRequest) -> Answer<'_, Escrowed> {
        let (key, opens_with) = ("0d".repeat(8), "0b".repeat(8));
        ready(Ok(Escrowed { group: group.to_string(), key, opens_with, path: request.to }))
    }

    fn key_rewrap(&self, request: RewrapRequest) -> Answer<'_, Rewrapped> {
        let (from, to) = ("0b".repeat(8), "0c".repeat(8));
        let next = (request.to == To::File).then(|| "remove key_command".to_owned());
        ready(Ok(Rewrapped { from, to, wrapped: 3, removed: 0, former: None, next }))
    }
}

fn key_row() -> KeyRow {
    let need = Need {
        kind: Kind::Journal,
        files: 1,
        bytes: Some(4096),
        oldest: None,
        names: Vec::new(),
        all_names: true,
    };
    KeyRow {
        id: "0a".repeat(8),
        state: KeyState::Old,
        made: "2026-01-01T00:00:00Z".into(),
        age_seconds: 1,
        ended: None,
        wrapped_by: vec!["0b".repeat(8)],
        needs: vec![need],
    }
}

fn removed(group: &Name) -> Removed {
    let (volumes, kept) = ("images:/srv/it".into(), "/h/removed/it-1".into());
    let (group, revoked) = (group.to_string(), vec!["recovery".into()]);
    Removed { group, role: Role::Source, volumes, kept, revoked }
}

struct World {
    _place: tempfile::TempDir,
    home: Home,
    server: Server,
    client: Client,
    waiting: Arc<AtomicUsize>,
}

fn world() -> World {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    let fake = Fake::default();
    let waiting = fake.waiting.clone();
    let server = Server::start(&home.api_socket(), Arc::new(fake)).unwrap();
    World { client: Client::new(&home), _place: place, home, server, waiting }
}

fn payroll() -> Name {
    "payroll".parse().unwrap()
}

/// Waits for a condition.
async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), holds).await.expect("it never came to hold");
}

#[tokio::test]
async fn every_command_arrives_and_its_answer_comes_back() {
    let World { client, home, server, _place, .. } = world();
    let mode = std::fs::metadata(home.api_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(client.answers().await);
    assert_eq!(client.status(None).await.unwrap().agent.name, "prod");
    assert_eq!(client.status(Some(&payroll())).await.unwrap().groups.len(), 1);
    let spec = GroupSpec::new("new".parse().unwrap(), "images:/srv/new");
    assert_eq!(client.group_add(&spec).await.unwrap().volumes, "images:/srv/new");
    assert_eq!(client.group_list().await.unwrap().groups, []);
    let change = SettingsChange { mode: Some(Mode::Sync), ..Default::default() };
    let set = SetRequest { replica: None, change };
    assert_eq!(client.group_set(&payroll(), &set).await.unwrap().policy.mode, Mode::Sync);
    assert_eq!(client.group_remove(&payroll(), true).await.unwrap(), removed(&payroll()));
    let refused = client.group_remove(&payroll(), false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused);
    assert_eq!(client.resume(&payroll()).await.unwrap().done, "resumed");
    let expires: Period = "1 h".parse().unwrap();
    let invite = InviteRequest { group: payroll(), role: Role::Replica, blind: true, expires };
    assert_eq!(client.pair_invite(&invite).await.unwrap().role, Role::Replica);
    assert_eq!(client.pair_list().await.unwrap().pairs, []);
    let revoke = RevokeRequest { peer: "recovery / 2".into() };
    assert_eq!(client.pair_revoke(&revoke).await.unwrap().peer, "recovery / 2");
    server.stop().await;
    assert!(!home.api_socket().exists());
}

#[tokio::test]
async fn refusals_keep_kind_message_and_hint() {
    let World { client, server, _place, .. } = world();
    let error = client.pause(&payroll()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(error.message, "group payroll is paused already");
    assert!(error.hint.unwrap().starts_with("take it up again"));
    let error = client.status(Some(&"other".parse().unwrap())).await.unwrap_err();
    assert_eq!(error.message, "there is no group other here; there are: payroll");
    let join = JoinRequest { token: "x".into(), group: None, volumes: None };
    assert_eq!(client.pair_join(&join).await.unwrap_err().message, "x is no token");
    server.stop().await;
}

#[tokio::test]
async fn a_wait_ends_by_its_condition_by_time_or_with_the_agent() {
    let World { client, server, waiting, _place, .. } = world();
    let request = |what, timeout: Option<u64>| WaitRequest {
        what,
        timeout: timeout.map(|millis| Period(Duration::from_millis(millis))),
    };
    let durable = request(WaitFor::Durable, None);
    assert_eq!(client.wait(&payroll(), durable).await.unwrap().done, "durable");

    let late = client.wait(&payroll(), request(WaitFor::InSync, Some(1))).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::TimedOut);
    let said = "group payroll was not in-sync within 1 ms: it is in-sync: this is a test";
    assert_eq!(late.message, said);
    until(|| waiting.load(Ordering::SeqCst) == 0).await;

    let ever = tokio::spawn({
        let client = client.clone();
        async move { client.wait(&payroll(), request(WaitFor::InSync, None)).await }
    });
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    server.stop().await;
    let error = ever.await.unwrap().unwrap_err();
    assert_eq!(error.message, "the agent is stopping");
    assert!(!client.answers().await);
}

#[tokio::test]
async fn a_caller_who_leaves_is_no_longer_waited_for() {
    let World { client, server, waiting, _place, .. } = world();
    let request = WaitRequest { what: WaitFor::InSync, timeout: None };
    let task = tokio::spawn(async move { client.wait(&payroll(), request).await });
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    task.abort();
    until(|| waiting.load(Ordering::SeqCst) == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn without_an_agent_the_way_to_start_one_is_said() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    let error = Client::new(&home).status(None).await.unwrap_err();
    let path = home.api_socket();
    assert!(error.message.starts_with(&format!("no agent answers at {}", path.display())));
    let hint = format!("start it with: vgship --home {} agent", place.path().display());
    assert_eq!(error.hint, Some(hint));
}

#[tokio::test]
async fn a_socket_that_an_agent_left_behind_is_replaced() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    drop(std::os::unix::net::UnixListener::bind(home.api_socket()).unwrap());
    assert!(!Client::new(&home).answers().await);
    let server = Server::start(&home.api_socket(), Arc::new(Fake::default())).unwrap();
    assert!(Client::new(&home).answers().await);
    server.stop().await;
    let far = place.path().join("x".repeat(120));
    let error = Server::start(&far, Arc::new(Fake::default())).unwrap_err();
    assert!(error.hint.unwrap().contains("shorter --home"));
}

/// Sends raw bytes and returns the first line and the body of the answer.
async fn raw(home: &Home, text: String) -> (String, String) {
    let path = home.api_socket();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn post(path: &str, body: &str) -> String {
    let head = "host: x\r\nconnection: close\r\ncontent-type: application/json";
    format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn odd_requests_get_an_answer_in_the_same_form() {
    let World { home, server, _place, .. } = world();
    let huge = format!("{{\"token\": \"{}\"}}", "x".repeat(70_000));
    for (request, code, said) in [
        (post("/v2/status", ""), "404", "does not know POST /v2/status"),
        (post("/v1/status", ""), "404", "does not know POST /v1/status"),
        (post("/v1/pairs/join", "{"), "400", "body is not understood"),
        (post("/v1/pairs/join", "{\"token\": \"x\", \"colour\": 1}"), "400", "unknown field"),
        (post("/v1/pairs/join", &huge), "400", "at most 65536 bytes"),
        (post("/v1/groups/-x/pause", ""), "400", "is not a name"),
        (post("/v1/groups/a%2Fb/pause", ""), "400", "is not a name"),
        (post("/v1/groups/g/wait", "{\"for\": \"ever\"}"), "400", "unknown variant `ever`"),
    ] {
        let (line, body) = raw(&home, request).await;
        assert!(line.contains(code), "{said}: {line}");
        let error: ControlError = serde_json::from_str(&body).unwrap();
        assert!(error.message.contains(said), "{}", error.message);
        assert_eq!(error.kind, ErrorKind::Usage);
    }
    server.stop().await;
}
