//! The change itself: one side is closed, its files become the other side's, and it is opened as
//! that.

use std::sync::Arc;

use vgship_base::ids::{Generation, PeerId, Seq};

use super::places::{change_error, know_volumes, place};
use crate::api::ControlError;
use crate::home::{GroupConfig, Role};
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::replica::ReplicaGroup;
use crate::pipeline::source::SourceGroup;
use crate::role::demotion::Demotion;
use crate::role::promotion::{Promoted, Promotion};
use crate::wire::changed::Run;

impl Inner {
    /// Makes the source of a replica. To be called in a task of its own, by one at a time.
    ///
    /// # Errors
    /// It is a replica as before, unless the error says that the group cannot be opened.
    pub(super) async fn become_source(
        self: &Arc<Self>,
        replica: Arc<ReplicaGroup>,
        generation: Generation,
        fork: Option<Seq>,
    ) -> Result<Promoted, ControlError> {
        let config = replica.config.clone();
        self.put(changing(&config));
        let agent = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            replica.close();
            replica.view.ended("it becomes the source");
            replica.await_readers().map_err(ControlError::failed)?;
            let config = &replica.config;
            let place = place(&agent.home, config, &replica.keys, agent.clock.wall())?;
            know_volumes(&agent.home, config, &place.layout)?;
            let promotion = Promotion { generation, fork, peer: config.peer };
            let promoted = promotion.prepare(&place).map_err(|it| change_error(&it))?;
            let new = GroupConfig { role: Role::Source, peer: None, ..config.clone() };
            agent.home.save_group(&new)?;
            Ok((new, promoted))
        });
        let done: Result<_, ControlError> =
            done.await.map_err(|error| ControlError::from_error(&error))?;
        let (new, promoted) = match done {
            Ok(done) => done,
            Err(error) => {
                self.reopen(config).await;
                return Err(error);
            }
        };
        self.open_as(new).await?;
        tracing::warn!(group = %config.name, from = %promoted.from, fork = %promoted.fork,
            %generation, "this agent is the source now");
        Ok(promoted)
    }

    /// Makes a replica of `to` of a source. To be called in a task of its own, by one at a time.
    ///
    /// # Errors
    /// It is a source as before, unless the error says that the group cannot be opened.
    pub(super) async fn become_replica(
        self: &Arc<Self>,
        source: Arc<SourceGroup>,
        to: PeerId,
        gives_up: Option<Vec<Run>>,
    ) -> Result<(), ControlError> {
        let config = source.config.clone();
        self.served.remove(config.name.as_str());
        self.cut_off(&source).await?;
        self.put(changing(&config));
        source.end_streams().await;
        let (ancestry, last) = (source.ancestry(), source.tap.core().ends_at());
        let keys = source.keys.clone();
        self.close_source(source).await?;
        let agent = Arc::clone(self);
        let of = config.clone();
        let done = tokio::task::spawn_blocking(move || {
            let place = place(&agent.home, &of, &keys, agent.clock.wall())?;
            let demotion = Demotion { ancestry, last, gives_up };
            demotion.prepare(&place).map_err(|it| change_error(&it))?;
            let new = GroupConfig { role: Role::Replica, peer: Some(to), ..of };
            agent.home.save_group(&new)?;
            Ok(new)
        });
        let done: Result<_, ControlError> =
            done.await.map_err(|error| ControlError::from_error(&error))?;
        match done {
            Ok(new) => self.open_as(new).await?,
            Err(error) => {
                self.reopen(config).await;
                return Err(error);
            }
        }
        tracing::warn!(group = %config.name, "this agent is a replica now");
        Ok(())
    }

    /// Opens a group in the role that its files say.
    async fn open_as(self: &Arc<Self>, config: GroupConfig) -> Result<(), ControlError> {
        let agent = Arc::clone(self);
        let of = config.clone();
        let opened = tokio::task::spawn_blocking(move || match of.role {
            Role::Source => agent.open_source(of).map(|_| None),
            Role::Replica => agent.open_replica(of).map(Some),
        });
        match opened.await.map_err(|error| ControlError::from_error(&error))? {
            Ok(None) => Ok(()),
            Ok(Some(replica)) => {
                self.begin_replica(&replica);
                Ok(())
            }
            Err(error) => {
                let config = Arc::new(config);
                self.put(Group::Failed { config, error: error.clone() });
                Err(error)
            }
        }
    }

    async fn reopen(self: &Arc<Self>, config: GroupConfig) {
        let name = config.name.clone();
        if let Err(error) = self.open_as(config).await {
            tracing::error!(group = %name, %error, "the group cannot be opened again");
        }
    }
}

/// What stands for a group while its role changes.
fn changing(config: &GroupConfig) -> Group {
    let error = ControlError::refused(format!("the role of group {} changes", config.name))
        .hint("wait a moment");
    Group::Failed { config: Arc::new(config.clone()), error }
}
