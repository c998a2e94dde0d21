//! The change itself: one side is closed, its files become the other side's, and it is opened as
//! that.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use vgship_base::ids::{Generation, PeerId, Seq};
use vgship_snapshot::set::SnapshotSet;

use super::places::{change_error, know_volumes, place};
use crate::api::ControlError;
use crate::home::{GroupConfig, Role};
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::replica::ReplicaGroup;
use crate::pipeline::source::SourceGroup;
use crate::role::demotion::{Demotion, yield_all};
use crate::role::promotion::{Promoted, Promotion};
use crate::wire::changed::Run;

/// How long those who read snapshots may take to let go of them.
const LET_GO: Duration = Duration::from_secs(10);

const LOOK: Duration = Duration::from_millis(5);

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
        if config.blind.is_some() {
            // Its source does not give it the role, unless it is not what it was.
            return Err(ControlError::refused("a blind replica cannot become the source"));
        }
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
        let promoted = done.as_ref().ok().map(|(_, promoted)| *promoted);
        self.open_changed(done.map(|(new, _)| new), config.clone()).await?;
        let promoted = promoted.expect("an error has returned");
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
        let set = source.tap.snapshots().map(|set| Arc::downgrade(&set));
        self.close_source(source).await?;
        let_go_of(set).await?;
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
        self.open_changed(done, config.clone()).await?;
        tracing::warn!(group = %config.name, "this agent is a replica now");
        Ok(())
    }

    /// Has a replica follow another source of its group. What it holds is compared as a whole, for
    /// nobody knows what the other has of it. To be called in a task of its own.
    ///
    /// # Errors
    /// It is a replica as before, unless the error says that the group cannot be opened.
    pub(in crate::pipeline) async fn follow_other(
        self: &Arc<Self>,
        replica: Arc<ReplicaGroup>,
        to: PeerId,
    ) -> Result<(), ControlError> {
        let _alone = self.removing.lock().await;
        let config = replica.config.clone();
        self.put(changing(&config));
        let agent = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            replica.close();
            replica.view.ended("it follows another source");
            replica.await_readers().map_err(ControlError::failed)?;
            let config = &replica.config;
            let place = place(&agent.home, config, &replica.keys, agent.clock.wall())?;
            yield_all(&place).map_err(|it| change_error(&it))?;
            let new = GroupConfig { peer: Some(to), ..config.clone() };
            agent.home.save_group(&new)?;
            Ok(new)
        });
        let done: Result<_, ControlError> =
            done.await.map_err(|error| ControlError::from_error(&error))?;
        self.open_changed(done, config.clone()).await?;
        tracing::warn!(group = %config.name, source = %to, "the replica follows another source");
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

    /// Opens a group whose files were changed, or as it was when that failed.
    async fn open_changed(
        self: &Arc<Self>,
        changed: Result<GroupConfig, ControlError>,
        before: GroupConfig,
    ) -> Result<(), ControlError> {
        let error = match changed {
            Ok(new) => return self.open_as(new).await,
            Err(error) => error,
        };
        let name = before.name.clone();
        if let Err(error) = self.open_as(before).await {
            tracing::error!(group = %name, %error, "the group cannot be opened again");
        }
        Err(error)
    }
}

/// The snapshot store is opened once at a time: those who still read it come first.
async fn let_go_of(set: Option<Weak<SnapshotSet>>) -> Result<(), ControlError> {
    let since = Instant::now();
    while set.as_ref().is_some_and(|set| set.strong_count() > 0) {
        if since.elapsed() >= LET_GO {
            return Err(ControlError::timed_out("somebody still reads the snapshots of this side"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What stands for a group while its role changes.
fn changing(config: &GroupConfig) -> Group {
    let error = ControlError::refused(format!("the role of group {} changes", config.name))
        .hint("wait a moment");
    Group::Failed { config: Arc::new(config.clone()), error }
}
