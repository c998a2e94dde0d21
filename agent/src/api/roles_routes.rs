//! Paths of procedures that change who is the source.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::response::Json;
use axum::routing::{get, post};
use vgship_base::ids::Name;

use super::Client;
use super::control::ControlError;
use super::drills::{DrillRequest, Drilled, Drills};
use super::roles::{
    FailbackPreview, FailbackRequest, FailoverRequest, LastProcedure, SwitchoverRequest,
};
use super::routes::{Body, Reply, Served, name};
use crate::role::procedure::Procedure;

pub(super) fn router() -> Router<Served> {
    Router::new()
        .route("/v1/groups/{group}/switchover", post(switchover))
        .route("/v1/groups/{group}/failover", post(failover))
        .route("/v1/groups/{group}/failback", post(failback).get(preview_failback))
        .route("/v1/groups/{group}/drills", get(drills).post(drill))
        .route("/v1/groups/{group}/procedure", get(procedure))
}

async fn switchover(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<SwitchoverRequest>,
) -> Reply<Procedure> {
    served.control.roles().switchover(name(&group)?, request?).await.map(Json)
}

async fn failover(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<FailoverRequest>,
) -> Reply<Procedure> {
    served.control.roles().failover(name(&group)?, request?).await.map(Json)
}

async fn failback(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<FailbackRequest>,
) -> Reply<Procedure> {
    served.control.roles().failback(name(&group)?, request?).await.map(Json)
}

async fn preview_failback(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
) -> Reply<FailbackPreview> {
    served.control.roles().preview_failback(name(&group)?).await.map(Json)
}

async fn drill(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<DrillRequest>,
) -> Reply<Drilled> {
    served.control.roles().drill(name(&group)?, request?).await.map(Json)
}

async fn drills(Shared(served): Shared<Served>, Path(group): Path<String>) -> Reply<Drills> {
    served.control.roles().drills(name(&group)?).await.map(Json)
}

async fn procedure(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
) -> Reply<LastProcedure> {
    served.control.roles().procedure(name(&group)?).await.map(Json)
}

type Result<T> = std::result::Result<T, ControlError>;

impl Client {
    /// Hands the source's role to a replica.
    pub async fn switchover(&self, group: &Name, request: &SwitchoverRequest) -> Result<Procedure> {
        self.post(&format!("/v1/groups/{group}/switchover"), request).await
    }

    /// Makes a source of a replica.
    pub async fn failover(&self, group: &Name, request: &FailoverRequest) -> Result<Procedure> {
        self.post(&format!("/v1/groups/{group}/failover"), request).await
    }

    /// Gives a history up and follows another side.
    pub async fn failback(&self, group: &Name, request: &FailbackRequest) -> Result<Procedure> {
        self.post(&format!("/v1/groups/{group}/failback"), request).await
    }

    /// What a failback would give up.
    pub async fn preview_failback(&self, group: &Name) -> Result<FailbackPreview> {
        self.get(&format!("/v1/groups/{group}/failback")).await
    }

    /// Rehearses a failover on a clone.
    pub async fn drill(&self, group: &Name, request: &DrillRequest) -> Result<Drilled> {
        self.post(&format!("/v1/groups/{group}/drills"), request).await
    }

    /// The drills whose reports are kept.
    pub async fn drills(&self, group: &Name) -> Result<Drills> {
        self.get(&format!("/v1/groups/{group}/drills")).await
    }

    /// What the last procedure of a group has done so far.
    pub async fn procedure(&self, group: &Name) -> Result<LastProcedure> {
        self.get(&format!("/v1/groups/{group}/procedure")).await
    }
}
