//! How commands ask for the past.

use vgship_base::ids::Name;

use super::Client;
use super::control::{ControlError, Done};
use super::past::{
    EnvEnd, EnvLog, EnvRequest, Environment, Environments, ExportRequest, Exported, History,
    Marked, MarkerRequest, RollbackRequest, RolledBack, SnapshotChange, SnapshotRequest, Snapshots,
    TemplateAt, TemplateMade, TemplateRequest, TemplateUsers,
};
use super::past_routes::Extend;
use crate::home::Period;

type Result<T> = std::result::Result<T, ControlError>;

impl Client {
    /// Puts a marker into a group's stream.
    pub async fn marker(&self, group: &Name, request: &MarkerRequest) -> Result<Marked> {
        self.post(&format!("/v1/groups/{group}/markers"), request).await
    }

    /// Takes a snapshot.
    pub async fn snapshot_create(&self, group: &Name, request: &SnapshotRequest) -> Result<Marked> {
        self.post(&format!("/v1/groups/{group}/snapshots"), request).await
    }

    /// A group's snapshots.
    pub async fn snapshot_list(&self, group: &Name) -> Result<Snapshots> {
        self.get(&format!("/v1/groups/{group}/snapshots")).await
    }

    /// Deletes, pins or unpins a snapshot.
    pub async fn snapshot_change(&self, group: &Name, request: &SnapshotChange) -> Result<Done> {
        self.post(&format!("/v1/groups/{group}/snapshots/change"), request).await
    }

    /// Rolls a group's volumes back, or tells what that would write.
    pub async fn rollback(&self, group: &Name, request: &RollbackRequest) -> Result<RolledBack> {
        self.post(&format!("/v1/groups/{group}/rollback"), request).await
    }

    /// Writes a point's volumes to image files.
    pub async fn export(&self, request: &ExportRequest) -> Result<Exported> {
        self.post("/v1/exports", request).await
    }

    /// Makes a template of a point.
    pub async fn template_create(&self, request: &TemplateRequest) -> Result<TemplateMade> {
        self.post("/v1/templates", request).await
    }

    /// The environments that read a template, or are being made of it.
    pub async fn template_users(&self, template: &TemplateAt) -> Result<TemplateUsers> {
        self.post("/v1/templates/users", template).await
    }

    /// The window of points.
    pub async fn history(&self, group: &Name) -> Result<History> {
        self.get(&format!("/v1/groups/{group}/history")).await
    }

    /// Makes an environment.
    pub async fn env_create(&self, request: &EnvRequest) -> Result<Environment> {
        self.post("/v1/environments", request).await
    }

    /// All environments.
    pub async fn env_list(&self) -> Result<Environments> {
        self.get("/v1/environments").await
    }

    /// What an environment's programs said.
    pub async fn env_log(&self, name: &Name) -> Result<EnvLog> {
        self.get(&format!("/v1/environments/{name}/log")).await
    }

    /// Gives an environment a new lease.
    pub async fn env_extend(&self, name: &Name, lease: Period) -> Result<Environment> {
        self.post(&format!("/v1/environments/{name}/extend"), &Extend { lease }).await
    }

    /// Removes an environment.
    pub async fn env_destroy(&self, name: &Name, end: EnvEnd) -> Result<Done> {
        self.post(&format!("/v1/environments/{name}/destroy"), &end).await
    }
}
