//! What commands ask of the running agent.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Name, Seq};
use vgship_base::layout::Layout;

use super::agent::{Group, Inner};
use super::replica::ReplicaGroup;
use super::status::group_status;
use crate::api::control::{
    Answer, Control, Done, GroupSettings, GroupSummary, Groups, Invitation, InviteRequest,
    JoinRequest, Joined, Pairings, Removed, Revoked, SetRequest, WaitFor,
};
use crate::api::keys::KeyRoom;
use crate::api::past::Past;
use crate::api::roles::Roles;
use crate::api::sets::Sets;
use crate::api::status::{State, Status};
use crate::api::{ControlError, ErrorKind, pairs};
use crate::group::{GroupError, open_replica, open_source};
use crate::home::{self, GroupSpec};
use crate::wire::io::{ConnectError, JoinError};
use crate::wire::peers::Role;
use crate::wire::token::{Token, TokenError};

/// How often a waiting command looks.
const LOOK: Duration = Duration::from_millis(20);

/// The running agent behind the interface.
pub(super) struct Controlled(pub(super) Arc<Inner>);

impl Control for Controlled {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async { Ok(self.0.status()) })
    }

    fn group_list(&self) -> Answer<'_, Groups> {
        let groups = self.0.groups();
        let groups = groups.iter().map(|group| GroupSummary::from(group.config())).collect();
        Box::pin(async { Ok(Groups { groups }) })
    }

    fn group_add(&self, spec: GroupSpec) -> Answer<'_, GroupSummary> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let volumes = spec.volumes.parse().map_err(ControlError::usage)?;
            let extent = ExtentSize::from_bytes(spec.extent.0.0).ok_or_else(|| {
                ControlError::usage("the extent is a power of two from 4 KiB to 1 MiB")
            })?;
            open_source(&volumes, extent).map_err(|it| group_error(&it))?;
            let config = agent.home.add_group(spec)?;
            let source = agent.open_source(config)?;
            Ok(GroupSummary::from(&source.config))
        })
    }

    fn group_set(&self, group: Name, request: SetRequest) -> Answer<'_, GroupSettings> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let found = agent.group(&group)?;
            let mut config = agent.home.load_group(&group)?;
            request.apply(&mut config, &pairs::list(&agent.book))?;
            agent.home.save_group(&config)?;
            match found {
                Group::Source(source) => source.set(&config.policy),
                Group::Replica(replica) => replica.change_settings(&config.policy),
                Group::Failed { .. } => {}
            }
            Ok(GroupSettings { group: group.to_string(), policy: config.policy })
        })
    }

    fn group_remove(&self, group: Name, force: bool) -> Answer<'_, Removed> {
        let agent = Arc::clone(&self.0);
        Box::pin(async move {
            // Goes on to its end when the one who asked does not wait for it.
            let removed = tokio::spawn(async move { agent.remove_group(&group, force).await });
            removed
                .await
                .map_err(|error| ControlError::failed(format!("the agent failed: {error}")))?
        })
    }

    fn pause(&self, group: Name) -> Answer<'_, Done> {
        Box::pin(async move { self.set_paused(&group, true) })
    }

    fn resume(&self, group: Name) -> Answer<'_, Done> {
        Box::pin(async move { self.set_paused(&group, false) })
    }

    fn wait(&self, group: Name, what: WaitFor) -> Answer<'_, Done> {
        Box::pin(async move {
            let found = self.0.group(&group)?;
            let target = match &found {
                Group::Source(source) => source.tap.core().issued(),
                _ => Seq::ZERO,
            };
            while !holds(&found, what, target)? {
                tokio::time::sleep(LOOK).await;
                self.0.group(&group)?; // it may have been removed
            }
            Ok(Done { group: group.to_string(), done: what.as_str().to_owned() })
        })
    }

    fn pair_invite(&self, request: InviteRequest) -> Answer<'_, Invitation> {
        let agent = Arc::clone(&self.0);
        blocking(move || {
            let bound = agent.endpoint().local_addr().ok();
            let made = pairs::invite(&agent.home, &agent.book, agent.peer_id, bound, &request)?;
            if let (true, Group::Source(source)) = (request.blind, agent.group(&request.group)?) {
                source.learn_veil()?;
            }
            Ok(made)
        })
    }

    fn pair_join(&self, request: JoinRequest) -> Answer<'_, Joined> {
        Box::pin(self.join(request))
    }

    fn pair_list(&self) -> Answer<'_, Pairings> {
        Box::pin(async { Ok(pairs::list(&self.0.book)) })
    }

    fn pair_revoke(&self, peer: String) -> Answer<'_, Revoked> {
        Box::pin(async move {
            let revoked = pairs::revoke(&self.0.book, &peer)?;
            for group in self.0.groups() {
                if let Group::Source(source) = group {
                    self.0.dismiss_revoked(&source);
                }
            }
            Ok(revoked)
        })
    }

    fn past(&self) -> &dyn Past {
        self
    }

    fn keys(&self) -> &dyn KeyRoom {
        self
    }

    fn sets(&self) -> &dyn Sets {
        self
    }

    fn roles(&self) -> &dyn Roles {
        self
    }
}

pub(super) fn blocking<'a, T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Answer<'a, T> {
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| ControlError::failed(format!("the agent failed: {error}")))?
    })
}

/// A token that is not open any more is a refusal. An agent without any open invite does not even
/// take a joiner's connection.
fn join_error(error: &JoinError) -> ControlError {
    let refused = match error {
        JoinError::Connect(ConnectError::Refused { .. }) => ControlError::refused(
            "the agent that made the token has no open invite: it was used, or has expired",
        ),
        JoinError::Refused(why) => ControlError::refused(why),
        other => return ControlError::from_error(other),
    };
    refused.hint("make a new token there: vgship pair invite --group G --role replica")
}

/// A rootvg is a refusal, anything else a failure.
fn group_error(error: &GroupError) -> ControlError {
    match error {
        GroupError::Rootvg { .. } => ControlError::refused(error),
        _ => ControlError::from_error(error),
    }
}

fn holds(group: &Group, what: WaitFor, target: Seq) -> Result<bool, ControlError> {
    let status = group_status(group);
    if status.peers.is_empty() {
        return Err(ControlError::refused(format!("group {} has no replica", status.name))
            .hint("make a token with vgship pair invite and join with it at the replica"));
    }
    if status.state == State::Diverged {
        let why = status.reason.unwrap_or_default();
        return Err(ControlError::refused(format!("group {} diverged: {why}", status.name)));
    }
    let connected = status.peers.iter().all(|peer| peer.connected);
    let reached = |seq: u64| match group {
        Group::Source(_) => seq >= target.0 && status.consistent,
        _ => connected && status.consistent && seq == status.seq.issued,
    };
    Ok(match what {
        WaitFor::Connected => connected,
        WaitFor::InSync => status.state == State::InSync,
        WaitFor::Durable => reached(status.seq.durable),
        WaitFor::Applied => reached(status.seq.applied),
    })
}

impl Controlled {
    fn set_paused(&self, name: &Name, paused: bool) -> Result<Done, ControlError> {
        match self.0.group(name)? {
            Group::Source(source) => source.pause(paused),
            Group::Replica(replica) => replica.pause(paused),
            Group::Failed { error, .. } => return Err(error),
        }
        let done = if paused { "paused" } else { "resumed" };
        tracing::info!(group = %name, done, "by an operator");
        Ok(Done { group: name.to_string(), done: done.to_owned() })
    }

    /// A replica follows another source of its group from now on.
    async fn join_other(
        &self,
        token: &Token,
        replica: Arc<ReplicaGroup>,
    ) -> Result<Joined, ControlError> {
        let local = replica.config.name.clone();
        // A veil key is one source's alone.
        if token.blind || replica.config.blind.is_some() {
            return Err(ControlError::refused(
                "a blind replica begins anew with another source: its content is veiled by the first",
            )
            .hint("remove the group here and join again, with --volumes"));
        }
        let joined = self.0.endpoint().join(token, local.clone(), None, None).await;
        let granted = joined.map_err(|it| join_error(&it))?;
        if granted.group != replica.config.id {
            return Err(ControlError::refused(format!(
                "the token is of another group than the one that is called {local} here"
            ))
            .hint(
                "make a new token there, and choose another name here: --group NAME --volumes SPEC",
            ));
        }
        let (agent, to) = (Arc::clone(&self.0), token.inviter);
        // Goes on to its end when the one who asked does not wait for it.
        let moved = tokio::spawn(async move { agent.follow_other(replica, to).await });
        moved
            .await
            .map_err(|error| ControlError::failed(format!("the agent failed: {error}")))??;
        Ok(Joined {
            group: local.to_string(),
            role: Role::Replica,
            peer: granted.name.to_string(),
            peer_id: token.inviter.to_string(),
            blind: false,
        })
    }

    async fn join(&self, request: JoinRequest) -> Result<Joined, ControlError> {
        let failed = |error: &(dyn std::error::Error + 'static)| ControlError::from_error(error);
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let token = Token::decode(&request.token, now).map_err(|error| {
            let kind = match error {
                TokenError::Expired => ErrorKind::Refused,
                _ => ErrorKind::Usage,
            };
            ControlError { kind, ..failed(&error) }
        })?;
        if token.role != Role::Replica {
            return Err(ControlError::refused("this version joins as a replica only").hint(
                "make the token at the source: vgship pair invite --group G --role replica",
            ));
        }
        let local = match &request.group {
            Some(text) => {
                text.parse().map_err(|it: vgship_base::ids::NameError| ControlError::usage(it))?
            }
            None => token.group.clone(),
        };
        match (self.0.group(&local), &request.volumes) {
            (Err(_), _) => {}
            (Ok(Group::Replica(replica)), None) => return self.join_other(&token, replica).await,
            (Ok(_), _) => {
                return Err(ControlError::refused(format!(
                    "this agent has a group {local} already"
                ))
                .hint(
                    "choose another name here: --group NAME; to have a replica follow another \
                         source of its group, leave out --volumes",
                ));
            }
        }
        let volumes = request.volumes.ok_or_else(|| {
            ControlError::usage("a replica needs --volumes: where its volumes are or shall be made")
        })?;
        let spec = volumes.parse().map_err(|it| failed(&it))?;
        let joined = self.0.endpoint().join(&token, local.clone(), None, None).await;
        let granted = joined.map_err(|it| join_error(&it))?;
        let offer = granted.offer.ok_or_else(|| {
            ControlError::failed("the source did not say what the group consists of")
        })?;
        let layout = Layout::decode(&offer.layout).map_err(|it| failed(&it))?;
        let mut config =
            GroupSpec::new(local.clone(), volumes).into_config(granted.group, Role::Replica);
        config.extent = home::Size(vgship_base::units::ByteLen(layout.extent.bytes()));
        config.peer = Some(token.inviter);
        config.blind = granted.veil;
        let agent = Arc::clone(&self.0);
        let bytes = offer.layout;
        let replica = blocking(move || {
            open_replica(&spec, &layout, true).map_err(|it| {
                group_error(&it).hint("mend that and join with a new token: this one is used up")
            })?;
            let group = agent.home.create_group(&config)?;
            home::io::replace(&group.layout(), &bytes, 0o644)?;
            agent.open_replica(config)
        })
        .await?;
        self.0.begin_replica(&replica);
        Ok(Joined {
            group: local.to_string(),
            role: Role::Replica,
            peer: granted.name.to_string(),
            peer_id: token.inviter.to_string(),
            blind: token.blind,
        })
    }
}
