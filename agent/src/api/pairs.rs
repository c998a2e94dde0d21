//! Invitations and the book of peers, as commands see them. A running agent and a command without
//! one both come here, each with the book that it holds.

use std::net::SocketAddr;

use jiff::Timestamp;
use vgship_base::ids::PeerId;
use vgship_base::layout::Layout;
use vgship_snapshot::veil::is_whole;

use super::control::{
    ControlError, Invitation, InviteRequest, Pairing, Pairings, Removed, Revoked,
};
use crate::home::io::own_address;
use crate::home::{GroupConfig, Home, LockedHome, Role};
use crate::keys;
use crate::wire::io::PeerBook;
use crate::wire::peers::{Grant, Peer};

/// Opens an invite and gives its token. `bound` is where the agent really listens, if it runs.
///
/// Durable: the invite, once this has returned.
pub fn invite(
    home: &Home,
    book: &PeerBook,
    inviter: PeerId,
    bound: Option<SocketAddr>,
    request: &InviteRequest,
) -> Result<Invitation, ControlError> {
    let group = home.load_group(&request.group)?;
    invitable(&group, request.role)?;
    let wants_escrow = request.blind && veil_of(home, &group)?;
    let at = home.load_config()?.reachable_at(bound, own_address()).ok_or_else(|| {
        ControlError::refused("no address is known at which a peer reaches this agent")
            .hint("start the agent first, or name an address in config.toml: listen or advertise")
    })?;
    let name = (request.group.clone(), Some(group.id));
    let token = book
        .invite(inviter, vec![at], name, (request.role, request.blind), request.expires.0)
        .map_err(|error| ControlError::from_error(&error))?;
    Ok(Invitation {
        token: token.encode(),
        group: request.group.to_string(),
        role: request.role,
        blind: request.blind,
        wants_escrow,
        expires: moment(token.expires),
    })
}

/// Whether a token for this role can be made here.
fn invitable(group: &GroupConfig, theirs: Role) -> Result<(), ControlError> {
    let name = &group.name;
    match (group.role, theirs) {
        (Role::Source, Role::Replica) => Ok(()),
        (Role::Source, Role::Source) => Err(ControlError::refused(format!(
            "group {name} has its source here; a peer can only be its replica"
        ))
        .hint("use --role replica")),
        (Role::Replica, _) => Err(ControlError::refused(format!(
            "group {name} is a replica here: tokens are made at its source"
        ))
        .hint("run vgship pair invite there")),
    }
}

/// Makes the veil key of a group that has none yet, before anybody can be told that there is one.
/// Whether no escrow was made of it.
///
/// Durable: the key, once this has returned.
fn veil_of(home: &Home, group: &GroupConfig) -> Result<bool, ControlError> {
    let place = home.group(&group.name);
    let path = place.layout();
    if let Ok(bytes) = std::fs::read(&path) {
        let layout = Layout::decode(&bytes).map_err(|it| {
            ControlError::failed(format!("the layout in {} is damaged: {it}", path.display()))
        })?;
        if let Some(volume) = layout.volumes.iter().find(|it| !is_whole(0, it.masked.into())) {
            // What is masked is never written there, and half a sector cannot be veiled.
            return Err(ControlError::refused(format!(
                "volume {} of group {} has a masked head of {} bytes, which is no whole sectors",
                volume.name, group.name, volume.masked
            )));
        }
    }
    keys::veil_or_make(home, &place, group.id).map_err(|it| it.told())?;
    let known = keys::known_veil(&place, group.id).map_err(|it| it.told())?;
    Ok(known.is_none_or(|known| known.escrow.is_none()))
}

/// Who may do what.
pub fn list(book: &PeerBook) -> Pairings {
    let peers = book.peers();
    let pairs = peers.iter().flat_map(|peer| peer.grants.iter().map(|grant| pairing(peer, grant)));
    Pairings { pairs: pairs.collect() }
}

/// Takes away all that a peer may do.
///
/// Durable: once this has returned.
pub fn revoke(book: &PeerBook, peer: &str) -> Result<Revoked, ControlError> {
    let gone = book.revoke(peer).map_err(|error| ControlError::from_error(&error))?;
    let gone = gone.ok_or_else(|| {
        ControlError::failed(format!("no peer of the name or id {peer} is paired"))
            .hint("see them with: vgship pair list")
    })?;
    Ok(Revoked {
        peer: gone.name.to_string(),
        peer_id: gone.id.to_string(),
        groups: gone.grants.iter().map(|grant| grant.name.to_string()).collect(),
    })
}

/// Takes a group that nobody serves out of book and home; its volumes are not touched.
///
/// Durable: once this has returned. Stopped in the middle, the group is there without its peers,
/// and can be removed again.
pub fn remove_group(
    home: &LockedHome,
    book: &PeerBook,
    group: &GroupConfig,
) -> Result<Removed, ControlError> {
    let lost = book.forget_group(group.id).map_err(|error| ControlError::from_error(&error))?;
    let kept = home.remove_group(&group.name)?;
    Ok(Removed {
        group: group.name.to_string(),
        role: group.role,
        volumes: group.volumes.clone(),
        kept: kept.display().to_string(),
        revoked: lost.iter().map(|peer| peer.name.to_string()).collect(),
    })
}

fn pairing(peer: &Peer, grant: &Grant) -> Pairing {
    Pairing {
        peer_id: peer.id.to_string(),
        peer: peer.name.to_string(),
        group: grant.name.to_string(),
        role: grant.role,
        blind: grant.blind,
        address: peer.address.map(|address| address.to_string()),
        since: Some(moment(peer.since)),
    }
}

/// Seconds since 1970 as RFC 3339.
fn moment(seconds: u64) -> String {
    let second = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX).to_string()
}
