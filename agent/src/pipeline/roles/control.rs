//! What commands ask of roles. A procedure that was begun goes on when who asked does not wait.

use std::sync::Arc;

use vgship_base::ids::Name;

use super::drill_book::DrillBook;
use crate::api::ControlError;
use crate::api::control::Answer;
use crate::api::drills::{DrillRequest, Drilled, Drills};
use crate::api::roles::{
    FailbackPreview, FailbackRequest, FailoverRequest, LastProcedure, Roles, SwitchoverRequest,
};
use crate::pipeline::agent::Group;
use crate::pipeline::control::{Controlled, blocking};
use crate::role::procedure::Procedure;

fn spawned<'a, T: Send + 'static>(
    work: impl Future<Output = Result<T, ControlError>> + Send + 'static,
) -> Answer<'a, T> {
    Box::pin(async move {
        let done = tokio::spawn(work).await;
        done.map_err(|error| ControlError::failed(format!("the agent failed: {error}")))?
    })
}

impl Roles for Controlled {
    fn switchover(&self, group: Name, request: SwitchoverRequest) -> Answer<'_, Procedure> {
        spawned(Arc::clone(&self.0).switchover(group, request))
    }

    fn failover(&self, group: Name, request: FailoverRequest) -> Answer<'_, Procedure> {
        spawned(Arc::clone(&self.0).failover(group, request))
    }

    fn failback(&self, group: Name, request: FailbackRequest) -> Answer<'_, Procedure> {
        spawned(Arc::clone(&self.0).failback(group, request))
    }

    fn preview_failback(&self, group: Name) -> Answer<'_, FailbackPreview> {
        let agent = Arc::clone(&self.0);
        blocking(move || agent.preview_failback(&group))
    }

    fn drill(&self, group: Name, request: DrillRequest) -> Answer<'_, Drilled> {
        spawned(Arc::clone(&self.0).drill(group, request))
    }

    fn drills(&self, group: Name) -> Answer<'_, Drills> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let drills = match agent.group(&group)? {
                Group::Replica(replica) => replica.drills.list(),
                // What it did while it was a replica.
                other => DrillBook::open(&agent.home.group(&other.config().name)).list(),
            };
            Ok(Drills { group: group.to_string(), drills: drills? })
        })
    }

    fn procedure(&self, group: Name) -> Answer<'_, LastProcedure> {
        Box::pin(async move {
            self.0.group(&group)?;
            Ok(LastProcedure { procedure: self.0.procedures.last(&group) })
        })
    }
}
