//! Which path of the data keys does what, and how commands ask for it.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::response::Json;
use axum::routing::post;
use vgship_base::ids::Name;

use super::Client;
use super::control::ControlError;
use super::keys::{
    EndRequest, Ended, EscrowRequest, Escrowed, RewrapRequest, Rewrapped, Rings, Rotated, Which,
};
use super::routes::{Body, Reply, Served, name};

/// All of them.
pub(super) fn router() -> Router<Served> {
    Router::new()
        .route("/v1/keys/list", post(list))
        .route("/v1/keys/rotate", post(rotate))
        .route("/v1/keys/rewrap", post(rewrap))
        .route("/v1/groups/{group}/keys/end", post(end))
        .route("/v1/groups/{group}/keys/escrow", post(escrow))
}

fn chosen(which: &Which) -> Result<Option<Name>, ControlError> {
    which.group.as_deref().map(name).transpose()
}

async fn list(Shared(served): Shared<Served>, Body(which): Body<Which>) -> Reply<Rings> {
    served.control.keys().key_list(chosen(&which?)?).await.map(Json)
}

async fn rotate(Shared(served): Shared<Served>, Body(which): Body<Which>) -> Reply<Rotated> {
    served.control.keys().key_rotate(chosen(&which?)?).await.map(Json)
}

async fn rewrap(
    Shared(served): Shared<Served>,
    Body(request): Body<RewrapRequest>,
) -> Reply<Rewrapped> {
    served.control.keys().key_rewrap(request?).await.map(Json)
}

async fn end(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<EndRequest>,
) -> Reply<Ended> {
    served.control.keys().key_end(name(&group)?, request?).await.map(Json)
}

async fn escrow(
    Shared(served): Shared<Served>,
    Path(group): Path<String>,
    Body(request): Body<EscrowRequest>,
) -> Reply<Escrowed> {
    served.control.keys().key_escrow(name(&group)?, request?).await.map(Json)
}

impl Client {
    /// The keys of one group, or of all.
    pub async fn key_list(&self, which: &Which) -> Result<Rings, ControlError> {
        self.post("/v1/keys/list", which).await
    }

    /// Makes new keys.
    pub async fn key_rotate(&self, which: &Which) -> Result<Rotated, ControlError> {
        self.post("/v1/keys/rotate", which).await
    }

    /// Has all keys wrapped by another key-encryption key.
    pub async fn key_rewrap(&self, request: &RewrapRequest) -> Result<Rewrapped, ControlError> {
        self.post("/v1/keys/rewrap", request).await
    }

    /// Has a veil key written to a file that is kept elsewhere.
    pub async fn key_escrow(
        &self,
        group: &Name,
        request: &EscrowRequest,
    ) -> Result<Escrowed, ControlError> {
        self.post(&format!("/v1/groups/{group}/keys/escrow"), request).await
    }

    /// Destroys a key.
    pub async fn key_end(&self, group: &Name, request: &EndRequest) -> Result<Ended, ControlError> {
        self.post(&format!("/v1/groups/{group}/keys/end"), request).await
    }
}
