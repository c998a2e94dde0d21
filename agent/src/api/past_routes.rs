//! Which path of the past does what.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::response::Json;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::control::Done;
use super::past::{
    EnvEnd, EnvLog, EnvRequest, Environment, Environments, ExportRequest, Exported, History,
    Marked, MarkerRequest, RollbackRequest, RolledBack, SnapshotChange, SnapshotRequest, Snapshots,
    TemplateAt, TemplateMade, TemplateRequest, TemplateUsers,
};
use super::routes::{Body, Reply, Served, name};
use crate::home::Period;

/// All of them.
pub(super) fn router() -> Router<Served> {
    Router::new()
        .route("/v1/groups/{group}/markers", post(marker))
        .route("/v1/groups/{group}/snapshots", get(snapshot_list).post(snapshot_create))
        .route("/v1/groups/{group}/snapshots/change", post(snapshot_change))
        .route("/v1/groups/{group}/history", get(history))
        .route("/v1/groups/{group}/rollback", post(rollback))
        .route("/v1/exports", post(export))
        .route("/v1/templates", post(template_create))
        .route("/v1/templates/users", post(template_users))
        .route("/v1/environments", get(env_list).post(env_create))
        .route("/v1/environments/{name}/log", get(env_log))
        .route("/v1/environments/{name}/extend", post(env_extend))
        .route("/v1/environments/{name}/destroy", post(env_destroy))
}

/// Body of a new lease.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extend {
    pub(super) lease: Period,
}

async fn marker(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<MarkerRequest>,
) -> Reply<Marked> {
    served.control.past().marker(name(&group)?, request?).await.map(Json)
}

async fn rollback(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<RollbackRequest>,
) -> Reply<RolledBack> {
    served.control.past().rollback(name(&group)?, request?).await.map(Json)
}

async fn snapshot_list(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
) -> Reply<Snapshots> {
    served.control.past().snapshot_list(name(&group)?).await.map(Json)
}

async fn snapshot_create(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<SnapshotRequest>,
) -> Reply<Marked> {
    served.control.past().snapshot_create(name(&group)?, request?).await.map(Json)
}

async fn snapshot_change(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<SnapshotChange>,
) -> Reply<Done> {
    served.control.past().snapshot_change(name(&group)?, request?).await.map(Json)
}

async fn history(Shared(served): Shared<Served>, Path(group): Path<String>) -> Reply<History> {
    served.control.past().history(name(&group)?).await.map(Json)
}

async fn export(
    Shared(served): Shared<Served>,
    Body(request): Body<ExportRequest>,
) -> Reply<Exported> {
    served.control.past().export(request?).await.map(Json)
}

async fn template_create(
    Shared(served): Shared<Served>,
    Body(request): Body<TemplateRequest>,
) -> Reply<TemplateMade> {
    served.control.past().template_create(request?).await.map(Json)
}

async fn template_users(
    Shared(served): Shared<Served>,
    Body(template): Body<TemplateAt>,
) -> Reply<TemplateUsers> {
    served.control.past().template_users(template?).await.map(Json)
}

async fn env_list(Shared(served): Shared<Served>) -> Reply<Environments> {
    served.control.past().env_list().await.map(Json)
}

async fn env_create(
    Shared(served): Shared<Served>,
    Body(request): Body<EnvRequest>,
) -> Reply<Environment> {
    served.control.past().env_create(request?).await.map(Json)
}

async fn env_log(Shared(served): Shared<Served>, Path(env): Path<String>) -> Reply<EnvLog> {
    served.control.past().env_log(name(&env)?).await.map(Json)
}

async fn env_extend(
    Shared(served): Shared<Served>,
    Path(env): Path<String>,
    Body(request): Body<Extend>,
) -> Reply<Environment> {
    served.control.past().env_extend(name(&env)?, request?.lease).await.map(Json)
}

async fn env_destroy(
    Shared(served): Shared<Served>,
    Path(env): Path<String>,
    Body(end): Body<EnvEnd>,
) -> Reply<Done> {
    served.control.past().env_destroy(name(&env)?, end?).await.map(Json)
}
