//! Which path of sets does what, and how commands ask for it.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::response::Json;
use axum::routing::{get, post};
use vgship_base::ids::Name;

use super::Client;
use super::control::{ControlError, Done};
use super::routes::{Body, Reply, Served, name};
use super::sets::{
    SetChange, SetDetails, SetSnapshotChange, SetSnapshotRequest, SetSnapshotRow, SetSnapshots,
    SetSpec, SetTemplateRequest, SetTemplates, SetsList,
};

/// All of them.
pub(super) fn router() -> Router<Served> {
    Router::new()
        .route("/v1/sets", get(list).post(create))
        .route("/v1/sets/{set}", get(show))
        .route("/v1/sets/{set}/change", post(change))
        .route("/v1/sets/{set}/delete", post(delete))
        .route("/v1/sets/{set}/snapshots", get(snapshot_list).post(snapshot_create))
        .route("/v1/sets/{set}/snapshots/change", post(snapshot_change))
        .route("/v1/sets/{set}/templates", post(template_create))
}

async fn list(Shared(served): Shared<Served>) -> Reply<SetsList> {
    served.control.sets().set_list().await.map(Json)
}

async fn create(Shared(served): Shared<Served>, Body(spec): Body<SetSpec>) -> Reply<SetDetails> {
    served.control.sets().set_create(spec?).await.map(Json)
}

async fn show(Shared(served): Shared<Served>, Path(set): Path<String>) -> Reply<SetDetails> {
    served.control.sets().set_show(name(&set)?).await.map(Json)
}

async fn change(
    Shared(served): Shared<Served>,
    Path(set): Path<String>,
    Body(change): Body<SetChange>,
) -> Reply<SetDetails> {
    served.control.sets().set_change(name(&set)?, change?).await.map(Json)
}

async fn delete(Shared(served): Shared<Served>, Path(set): Path<String>) -> Reply<Done> {
    served.control.sets().set_delete(name(&set)?).await.map(Json)
}

async fn snapshot_list(
    Shared(served): Shared<Served>,
    Path(set): Path<String>,
) -> Reply<SetSnapshots> {
    served.control.sets().set_snapshot_list(name(&set)?).await.map(Json)
}

async fn snapshot_create(
    Shared(served): Shared<Served>,
    Path(set): Path<String>,
    Body(request): Body<SetSnapshotRequest>,
) -> Reply<SetSnapshotRow> {
    served.control.sets().set_snapshot_create(name(&set)?, request?).await.map(Json)
}

async fn snapshot_change(
    Shared(served): Shared<Served>,
    Path(set): Path<String>,
    Body(request): Body<SetSnapshotChange>,
) -> Reply<Done> {
    served.control.sets().set_snapshot_change(name(&set)?, request?).await.map(Json)
}

async fn template_create(
    Shared(served): Shared<Served>,
    Path(set): Path<String>,
    Body(request): Body<SetTemplateRequest>,
) -> Reply<SetTemplates> {
    served.control.sets().set_template_create(name(&set)?, request?).await.map(Json)
}

type Result<T> = std::result::Result<T, ControlError>;

impl Client {
    /// Makes a set.
    pub async fn set_create(&self, spec: &SetSpec) -> Result<SetDetails> {
        self.post("/v1/sets", spec).await
    }

    /// All sets.
    pub async fn set_list(&self) -> Result<SetsList> {
        self.get("/v1/sets").await
    }

    /// One set.
    pub async fn set_show(&self, set: &Name) -> Result<SetDetails> {
        self.get(&format!("/v1/sets/{set}")).await
    }

    /// Adds and removes groups.
    pub async fn set_change(&self, set: &Name, change: &SetChange) -> Result<SetDetails> {
        self.post(&format!("/v1/sets/{set}/change"), change).await
    }

    /// Deletes a set.
    pub async fn set_delete(&self, set: &Name) -> Result<Done> {
        self.post(&format!("/v1/sets/{set}/delete"), &()).await
    }

    /// Takes a set's snapshot.
    pub async fn set_snapshot_create(
        &self,
        set: &Name,
        request: &SetSnapshotRequest,
    ) -> Result<SetSnapshotRow> {
        self.post(&format!("/v1/sets/{set}/snapshots"), request).await
    }

    /// A set's snapshots.
    pub async fn set_snapshot_list(&self, set: &Name) -> Result<SetSnapshots> {
        self.get(&format!("/v1/sets/{set}/snapshots")).await
    }

    /// Deletes, pins or unpins a set's snapshot.
    pub async fn set_snapshot_change(
        &self,
        set: &Name,
        request: &SetSnapshotChange,
    ) -> Result<Done> {
        self.post(&format!("/v1/sets/{set}/snapshots/change"), request).await
    }
    /// Makes a template of each member of a set's snapshot.
    pub async fn set_template_create(
        &self,
        set: &Name,
        request: &SetTemplateRequest,
    ) -> Result<SetTemplates> {
        self.post(&format!("/v1/sets/{set}/templates"), request).await
    }
}
