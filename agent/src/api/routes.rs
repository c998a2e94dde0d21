//! Which path does what. Holds no state besides the agent that answers.

use std::convert::Infallible;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use vgship_base::ids::Name;

use super::control::{
    ControlError, Done, ErrorKind, GroupSettings, GroupSummary, Groups, Invitation, InviteRequest,
    JoinRequest, Joined, Pairings, RemoveRequest, Removed, RevokeRequest, Revoked, SetRequest,
    SharedControl, WaitRequest,
};
use super::status::{GroupStatus, Status};
use super::{key_routes, past_routes, roles_routes, sets_routes};
use crate::home::GroupSpec;

/// Largest body of a request. Unit: bytes. The largest one meant is a group with its volumes.
pub const BODY_MAX: usize = 64 << 10;

/// What every handler needs.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) control: SharedControl,
    stopping: watch::Receiver<bool>,
}

/// All paths. When `stopping` becomes true, those who still wait are told so.
pub fn router(control: SharedControl, stopping: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/groups", get(group_list).post(group_add))
        .route("/v1/groups/{group}/set", post(group_set))
        .route("/v1/groups/{group}/remove", post(group_remove))
        .route("/v1/groups/{group}/pause", post(pause))
        .route("/v1/groups/{group}/resume", post(resume))
        .route("/v1/groups/{group}/wait", post(wait))
        .route("/v1/pairs", get(pair_list))
        .route("/v1/pairs/invite", post(pair_invite))
        .route("/v1/pairs/join", post(pair_join))
        .route("/v1/pairs/revoke", post(pair_revoke))
        .merge(past_routes::router())
        .merge(key_routes::router())
        .merge(sets_routes::router())
        .merge(roles_routes::router())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Served { control, stopping })
}

/// A handler's answer.
pub(super) type Reply<T> = Result<Json<T>, ControlError>;

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let code = match self.kind {
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Usage => StatusCode::BAD_REQUEST,
            ErrorKind::Refused => StatusCode::CONFLICT,
            ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        };
        (code, Json(self)).into_response()
    }
}

/// A request's body as JSON, or why it is not.
pub(super) struct Body<T>(pub(super) Result<T, ControlError>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Infallible> {
        let bytes: Result<Bytes, BytesRejection> = Bytes::from_request(request, state).await;
        let read = match bytes {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                ControlError::usage(format!("the request's body is not understood: {error}"))
            }),
            Err(rejection) => Err(ControlError::usage(format!(
                "the request's body cannot be read, at most {BODY_MAX} bytes are taken: {}",
                rejection.body_text()
            ))),
        };
        Ok(Body(read))
    }
}

#[derive(Deserialize)]
struct StatusQuery {
    group: Option<String>,
}

async fn status(Shared(served): Shared<Served>, Query(query): Query<StatusQuery>) -> Reply<Status> {
    chosen(&served, query.group.as_deref()).await.map(Json)
}

async fn chosen(served: &Served, group: Option<&str>) -> Result<Status, ControlError> {
    let all = served.control.status().await?;
    let Some(group) = group else { return Ok(all) };
    let known: Vec<_> = all.groups.iter().map(|known| known.name.clone()).collect();
    all.only(group).ok_or_else(|| {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ControlError::refused(format!("there is no group {group} here; there are: {known}"))
    })
}

async fn group_list(Shared(served): Shared<Served>) -> Reply<Groups> {
    served.control.group_list().await.map(Json)
}

async fn group_add(
    Shared(served): Shared<Served>,
    Body(spec): Body<GroupSpec>,
) -> Reply<GroupSummary> {
    served.control.group_add(spec?).await.map(Json)
}

async fn group_set(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<SetRequest>,
) -> Reply<GroupSettings> {
    served.control.group_set(name(&group)?, request?).await.map(Json)
}

async fn group_remove(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<RemoveRequest>,
) -> Reply<Removed> {
    served.control.group_remove(name(&group)?, request?.force).await.map(Json)
}

async fn pause(Shared(served): Shared<Served>, Path(group): Path<String>) -> Reply<Done> {
    served.control.pause(name(&group)?).await.map(Json)
}

async fn resume(Shared(served): Shared<Served>, Path(group): Path<String>) -> Reply<Done> {
    served.control.resume(name(&group)?).await.map(Json)
}

async fn wait(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<WaitRequest>,
) -> Reply<Done> {
    let (group, request) = (name(&group)?, request?);
    let mut stopping = served.stopping.clone();
    let stopped = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let over = async {
        match request.timeout {
            Some(timeout) => tokio::time::sleep(timeout.0).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = served.control.wait(group.clone(), request.what) => done.map(Json),
        () = over => Err(late(&served, &group, request).await),
        () = stopped => Err(ControlError::failed("the agent is stopping")),
    }
}

/// What a caller is told whose time is over: how things stand.
async fn late(served: &Served, group: &Name, request: WaitRequest) -> ControlError {
    let timeout = request.timeout.map_or_else(String::new, |timeout| format!(" within {timeout}"));
    let message = format!("group {group} was not {}{timeout}", request.what.as_str());
    match chosen(served, Some(group.as_str())).await {
        Ok(Status { groups, .. }) => {
            let now = groups.first().map_or_else(String::new, as_it_stands);
            ControlError::timed_out(format!("{message}: {now}"))
                .hint(format!("watch it with: vgship status {group} --watch"))
        }
        Err(error) => ControlError::timed_out(format!("{message}: {error}")),
    }
}

fn as_it_stands(group: &GroupStatus) -> String {
    match &group.reason {
        Some(reason) => format!("it is {}: {reason}", group.state.as_str()),
        None => format!("it is {}", group.state.as_str()),
    }
}

async fn pair_list(Shared(served): Shared<Served>) -> Reply<Pairings> {
    served.control.pair_list().await.map(Json)
}

async fn pair_invite(
    Shared(served): Shared<Served>,
    Body(invite): Body<InviteRequest>,
) -> Reply<Invitation> {
    served.control.pair_invite(invite?).await.map(Json)
}

async fn pair_join(Shared(served): Shared<Served>, Body(join): Body<JoinRequest>) -> Reply<Joined> {
    served.control.pair_join(join?).await.map(Json)
}

async fn pair_revoke(
    Shared(served): Shared<Served>,
    Body(revoke): Body<RevokeRequest>,
) -> Reply<Revoked> {
    served.control.pair_revoke(revoke?.peer).await.map(Json)
}

async fn no_such_path(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let error = ControlError::usage(format!("this agent does not know {method} {path}"))
        .hint("agent and command may be of different versions; compare: vgship --version");
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}

pub(super) fn name(text: &str) -> Result<Name, ControlError> {
    text.parse().map_err(ControlError::usage)
}
