//! How a running agent takes a group out: clients, streams, threads, book, folder, in this order.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use vgship_base::ids::Name;

use super::agent::{Group, Inner};
use super::exports::is_of;
use super::past::control::READER;
use super::past::environments::HOLDER as ENVIRONMENT;
use super::replica::ReplicaGroup;
use super::source::SourceGroup;
use crate::api::control::Removed;
use crate::api::{ControlError, pairs};
use crate::capture::io::Tap;
use crate::capture::nbd::io::NbdClients;

/// How long tasks that still look at a closed group may take to let go of its volumes.
const LET_GO: Duration = Duration::from_secs(10);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(10);

impl Inner {
    /// Stops a group, revokes its peers' pairing for it and moves its folder away. Its volumes are
    /// closed and stay as they are. To be called in a task of its own: it must not end half way.
    pub(super) async fn remove_group(
        self: &Arc<Inner>,
        name: &Name,
        force: bool,
    ) -> Result<Removed, ControlError> {
        let _alone = self.removing.lock().await;
        let group = self.group(name)?;
        let (agent, looked_at) = (Arc::clone(self), group.clone());
        let looked = tokio::task::spawn_blocking(move || agent.refuse_in_use(&looked_at));
        looked.await.map_err(|error| ControlError::from_error(&error))??;
        if let Group::Source(source) = &group {
            self.end_clients(source, force).await?;
        }
        self.take_out(name);
        let config = group.config().clone();
        self.stop_group(group).await?;
        let agent = Arc::clone(self);
        let removed = tokio::task::spawn_blocking(move || {
            let removed = pairs::remove_group(&agent.home, &agent.book, &config);
            removed.inspect_err(|error| {
                let (config, error) = (Arc::new(config), error.clone());
                agent.put(Group::Failed { config, error });
            })
        });
        let removed = removed.await.map_err(|error| ControlError::from_error(&error))??;
        tracing::info!(group = %name, kept = removed.kept, "removed by an operator");
        Ok(removed)
    }

    /// Nobody builds on the group, or reads its snapshots, when this has returned without an error,
    /// and nobody begins to.
    fn refuse_in_use(&self, group: &Group) -> Result<(), ControlError> {
        let replica = match group {
            Group::Replica(replica) => Some(replica),
            Group::Source(_) | Group::Failed { .. } => None,
        };
        let leaves = |it: bool| {
            if let Some(replica) = replica {
                replica.leaving.store(it, Ordering::SeqCst);
            }
        };
        // First: who begins to hold a snapshot after the look finds it.
        leaves(true);
        let name = &group.config().name;
        let users = self.users_of(name, replica);
        let refused = match &users[..] {
            [] => return Ok(()),
            users => format!("group {name} is in use by {}", users.join(", ")),
        };
        leaves(false);
        Err(ControlError::refused(refused)
            .hint("destroy environments first: vgship env destroy; wait for what reads"))
    }

    /// Environments, as what is kept of them says and as its snapshots know their holders: those
    /// that are being made, or cannot be opened, and who reads for a while.
    fn users_of(&self, name: &Name, replica: Option<&Arc<ReplicaGroup>>) -> Vec<String> {
        let environments = self.environments.of_group(name).into_iter();
        let mut users: BTreeSet<String> =
            environments.map(|it| format!("{ENVIRONMENT}{it}")).collect();
        // A replica that does not work has no list to look into, and can be removed all the same.
        let holders = replica.map(|it| it.holders().unwrap_or_default());
        for holder in holders.unwrap_or_default() {
            if holder.starts_with(READER) {
                users.insert("an export or a template that is being made".to_owned());
            } else if holder.starts_with(ENVIRONMENT) && !self.environments.is_orphan(&holder) {
                users.insert(holder);
            }
        }
        users.into_iter().collect()
    }

    /// No client uses the group when this has returned without an error, and none comes.
    async fn end_clients(
        &self,
        source: &Arc<SourceGroup>,
        force: bool,
    ) -> Result<(), ControlError> {
        let name = source.config.name.clone();
        let connected = || match self.clients_of(name.as_str()) {
            0 => Ok(()),
            count => Err(connected(&name, count)),
        };
        if !force {
            connected()?;
        }
        self.served.remove(name.as_str());
        let ended = match connected() {
            // One came between both looks.
            Err(refused) if !force => Err(refused),
            Err(_) => self.cut_off(source).await,
            Ok(()) => Ok(()),
        };
        ended.inspect_err(|_| self.served.add(name.as_str(), &source.tap))
    }

    fn nbd(&self) -> &NbdClients {
        self.nbd.get().expect("the NBD server serves before any command is heard")
    }

    /// How many NBD clients are connected to a group.
    pub(super) fn clients_of(&self, group: &str) -> usize {
        self.nbd().using(|export| is_of(group, export))
    }

    /// Ends the clients that are connected to a group.
    pub(super) async fn cut_off(&self, source: &Arc<SourceGroup>) -> Result<(), ControlError> {
        let (nbd, name) = (self.nbd().clone(), source.config.name.clone());
        // Nobody may wait for an outbox that will not get room.
        source.stop_stalling();
        let ended = tokio::task::spawn_blocking(move || {
            match nbd.end(|export| is_of(name.as_str(), export)) {
                0 => Ok(()),
                left => Err(ControlError::failed(format!(
                    "calls of {left} NBD clients into volumes of group {name} do not return"
                ))
                .hint("see to the storage, restart the agent and try again")),
            }
        });
        ended.await.map_err(|error| ControlError::from_error(&error))?
    }

    /// Closes a source whose clients and streams have ended, and its volumes.
    pub(super) async fn close_source(&self, source: Arc<SourceGroup>) -> Result<(), ControlError> {
        let tap = Arc::downgrade(&source.tap);
        let closed = tokio::task::spawn_blocking(move || source.close()).await;
        let_go(&tap).await;
        closed.map_err(|error| ControlError::from_error(&error))
    }

    async fn stop_group(&self, group: Group) -> Result<(), ControlError> {
        let closed = match group {
            Group::Source(source) => {
                source.end_streams().await;
                return self.close_source(source).await;
            }
            Group::Replica(replica) => {
                let closed = tokio::task::spawn_blocking(move || {
                    replica.close();
                    replica.view.ended("the group is removed");
                });
                closed.await
            }
            Group::Failed { .. } => Ok(()),
        };
        closed.map_err(|error| ControlError::from_error(&error))
    }
}

fn connected(group: &Name, clients: usize) -> ControlError {
    let clients = match clients {
        1 => "1 NBD client is".to_owned(),
        _ => format!("{clients} NBD clients are"),
    };
    ControlError::refused(format!("{clients} connected to group {group}"))
        .hint(format!("end them first, or cut them off: vgship group remove {group} --force"))
}

/// Waits until the volumes of a closed source are closed too.
async fn let_go(tap: &Weak<Tap>) {
    let since = Instant::now();
    while tap.strong_count() > 0 {
        if since.elapsed() > LET_GO {
            tracing::warn!("something still holds the volumes of a removed group");
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
