//! The other end of the interface, as commands use it: one connection per request.

use std::io;
use std::path::PathBuf;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use vgship_base::ids::Name;

use super::control::{
    ControlError, Done, GroupSettings, GroupSummary, Groups, Invitation, InviteRequest,
    JoinRequest, Joined, Pairings, RemoveRequest, Removed, RevokeRequest, Revoked, SetRequest,
    WaitRequest,
};
use super::status::Status;
use crate::home::{GroupSpec, Home};

/// Largest answer. Unit: bytes. Fits the status of hundreds of groups of thousands of volumes.
const ANSWER_MAX: usize = 64 << 20;

/// Asks the agent that runs in one home.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    start: String,
}

impl Client {
    /// For the agent of this home, whether it runs or not.
    pub fn new(home: &Home) -> Client {
        Client { socket: home.api_socket(), start: format!("{} agent", home.command()) }
    }

    /// Whether an agent answers.
    pub async fn answers(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// The agent and its groups, or one of them.
    pub async fn status(&self, group: Option<&Name>) -> Result<Status, ControlError> {
        match group {
            Some(group) => self.get(&format!("/v1/status?group={group}")).await,
            None => self.get("/v1/status").await,
        }
    }

    /// All groups as configured.
    pub async fn group_list(&self) -> Result<Groups, ControlError> {
        self.get("/v1/groups").await
    }

    /// Adds a group.
    pub async fn group_add(&self, spec: &GroupSpec) -> Result<GroupSummary, ControlError> {
        self.post("/v1/groups", spec).await
    }

    /// Changes how a group is replicated.
    pub async fn group_set(
        &self,
        group: &Name,
        request: &SetRequest,
    ) -> Result<GroupSettings, ControlError> {
        self.post(&format!("/v1/groups/{group}/set"), request).await
    }

    /// Takes a group out.
    pub async fn group_remove(&self, group: &Name, force: bool) -> Result<Removed, ControlError> {
        self.post(&format!("/v1/groups/{group}/remove"), &RemoveRequest { force }).await
    }

    /// Stops shipping or applying a group.
    pub async fn pause(&self, group: &Name) -> Result<Done, ControlError> {
        self.post(&format!("/v1/groups/{group}/pause"), &()).await
    }

    /// Takes it up again.
    pub async fn resume(&self, group: &Name) -> Result<Done, ControlError> {
        self.post(&format!("/v1/groups/{group}/resume"), &()).await
    }

    /// Ends when what is asked for holds, or its time is over.
    pub async fn wait(&self, group: &Name, what: WaitRequest) -> Result<Done, ControlError> {
        self.post(&format!("/v1/groups/{group}/wait"), &what).await
    }

    /// Makes a one-time token.
    pub async fn pair_invite(&self, invite: &InviteRequest) -> Result<Invitation, ControlError> {
        self.post("/v1/pairs/invite", invite).await
    }

    /// Uses one.
    pub async fn pair_join(&self, join: &JoinRequest) -> Result<Joined, ControlError> {
        self.post("/v1/pairs/join", join).await
    }

    /// Who may do what.
    pub async fn pair_list(&self) -> Result<Pairings, ControlError> {
        self.get("/v1/pairs").await
    }

    /// Takes away all that a peer may do.
    pub async fn pair_revoke(&self, revoke: &RevokeRequest) -> Result<Revoked, ControlError> {
        self.post("/v1/pairs/revoke", revoke).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(body).map_err(ControlError::failed)?;
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ControlError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.nobody(&error))?;
        let (code, answer) = exchange(stream, method, path, body).await.map_err(|error| {
            let lost = format!("the agent at {} broke off", self.socket.display());
            ControlError::failed(format!("{lost}: {}", ControlError::from_error(&*error)))
                .hint("see its log, then ask again")
        })?;
        if code.is_success() {
            serde_json::from_slice(&answer).map_err(|error| self.foreign(code, &error))
        } else {
            Err(serde_json::from_slice(&answer).unwrap_or_else(|error| self.foreign(code, &error)))
        }
    }

    fn nobody(&self, error: &io::Error) -> ControlError {
        let path = self.socket.display();
        let message = format!("no agent answers at {path}: {error}");
        match error.kind() {
            io::ErrorKind::PermissionDenied => ControlError::failed(message)
                .hint("ask as the user that runs the agent, or choose another --home"),
            _ => ControlError::failed(message).hint(format!("start it with: {}", self.start)),
        }
    }

    fn foreign(&self, code: StatusCode, error: &serde_json::Error) -> ControlError {
        let path = self.socket.display();
        ControlError::failed(format!("the answer of {path} ({code}) is not understood: {error}"))
            .hint("agent and command may be of different versions; compare: vgship --version")
    }
}

type ExchangeError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "vgship")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let driver = tokio::spawn(connection);
    let answered = async {
        let response = sender.send_request(request).await?;
        let code = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_MAX).collect().await?;
        Ok((code, answer.to_bytes()))
    };
    let result = answered.await;
    driver.abort();
    result
}
