//! `vgship pair`: who may do what.

use vgship_base::ids::Name;

use super::Context;
use super::table::Table;
use crate::api::control::{Invitation, InviteRequest, JoinRequest, Pairings, RevokeRequest};
use crate::api::{Client, ControlError};
use crate::home::{LockedHome, Period, Role};

/// Pair with other agents
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a one-time token with which a peer joins a group
    ///
    /// Whoever has the token can join until it expires: hand it over like a password.
    ///
    /// Works through the running agent or without one.
    Invite {
        /// For which group
        #[arg(long, value_name = "G")]
        group: Name,
        /// What the peer will be
        #[arg(long)]
        role: Role,
        /// The replica keeps, checks and serves what it cannot read
        ///
        /// Its content is veiled here before it leaves, with a key that stays here. Make an escrow of
        /// that key (vgship key escrow): when this agent is lost, nobody reads the replica without.
        #[arg(long)]
        blind: bool,
        /// How long the token can be used
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        expires: Period,
    },
    /// Use a token that a peer's "pair invite" printed
    ///
    /// Reaches the peer over the network, so the agent must be running.
    ///
    /// As replica it creates the volumes that SPEC lacks.
    Join {
        /// What "pair invite" printed
        token: String,
        /// What this agent calls the group; without it, as the peer does
        #[arg(long, value_name = "G")]
        group: Option<Name>,
        /// Where the volumes are or shall be made
        #[arg(long, value_name = "SPEC")]
        volumes: Option<String>,
    },
    /// List who may do what
    List,
    /// Take away all that a peer may do
    ///
    /// Ends its connections at once when the agent runs.
    Revoke {
        /// The peer's name or id
        peer: String,
    },
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    match command {
        Command::Invite { group, role, blind, expires } => {
            if blind && role != Role::Replica {
                return Err(ControlError::usage("--blind is for --role replica"));
            }
            invite(&InviteRequest { group, role, blind, expires }, context)
        }
        Command::Join { token, group, volumes } => {
            let volumes = volumes.map(|spec| context.parts.resolve_volumes(&spec)).transpose()?;
            let group = group.map(|group| group.to_string());
            join(&JoinRequest { token, group, volumes }, context)
        }
        Command::List => {
            context.home.load_config()?;
            let pairs = context.parts.pair_list(&context.home)?;
            context.output.result(&pairs, rendered)
        }
        Command::Revoke { peer } => revoke(&RevokeRequest { peer }, context),
    }
}

fn invite(invite: &InviteRequest, context: &Context<'_>) -> Result<(), ControlError> {
    let by_agent = async |client: Client| client.pair_invite(invite).await;
    let alone = |home: &LockedHome| {
        // A peer that will be the source brings the group; a replica joins one that is here.
        if invite.role == Role::Replica {
            home.load_group(&invite.group)?;
        }
        context.parts.pair_invite(home, invite.clone())
    };
    let made = context.by_agent_or_alone(by_agent, alone)?;
    if !context.output.is_json() {
        super::output::note(&format!(
            "for one {}{} of group {}, until {}; there: vgship pair join TOKEN",
            if made.blind { "blind " } else { "" },
            made.role.as_str(),
            made.group,
            made.expires
        ));
        if made.wants_escrow {
            super::output::note(&format!(
                "no escrow of the veil key has been made: if this agent is lost, nobody can read \
                 what the replica holds; next: vgship key escrow {} --to FILE",
                made.group
            ));
        }
    }
    context.output.result(&made, |made: &Invitation| made.token.clone())
}

fn join(join: &JoinRequest, context: &Context<'_>) -> Result<(), ControlError> {
    context.home.load_config()?;
    let joined = super::block_on(async { context.client().pair_join(join).await })?;
    let watch = format!("{} status {} --watch", context.home.command(), joined.group);
    context.output.result(&joined, |joined| {
        format!(
            "paired with {}: this agent is the {}{} of group {}\nWatch it with: {watch}",
            joined.peer,
            if joined.blind { "blind " } else { "" },
            joined.role.as_str(),
            joined.group
        )
    })
}

fn revoke(revoke: &RevokeRequest, context: &Context<'_>) -> Result<(), ControlError> {
    let by_agent = async |client: Client| client.pair_revoke(revoke).await;
    let alone = |home: &LockedHome| context.parts.pair_revoke(home, &revoke.peer);
    let revoked = context.by_agent_or_alone(by_agent, alone)?;
    context.output.result(&revoked, |revoked| {
        format!("{} may do nothing here any more ({})", revoked.peer, revoked.groups.join(", "))
    })
}

fn rendered(pairings: &Pairings) -> String {
    if pairings.pairs.is_empty() {
        return "nobody is paired yet".to_owned();
    }
    let mut table = Table::new(["PEER", "ID", "GROUP", "IS THE", "ADDRESS", "SINCE"]);
    for pair in &pairings.pairs {
        table.row([
            pair.peer.clone(),
            pair.peer_id.get(..8).unwrap_or(&pair.peer_id).to_owned(),
            pair.group.clone(),
            format!("{}{}", pair.role.as_str(), if pair.blind { " (blind)" } else { "" }),
            pair.address.clone().unwrap_or_else(|| "-".to_owned()),
            pair.since.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.to_string()
}
