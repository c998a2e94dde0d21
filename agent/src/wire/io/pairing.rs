//! Pairing over the network: one stream, one message each way.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Connection, ConnectionError, ReadToEndError, WriteError};
use thiserror::Error;
use vgship_base::bytes::FormatError;
use vgship_base::ids::{GroupId, Name, PeerId};
use vgship_snapshot::seal::KeyId;

use super::book::{BookFileError, now};
use super::endpoint::{Config, ConnectError, Endpoint};
use super::link::Close;
use crate::wire::pairing::{
    Answer, Claim, Granted, GroupOffer, Join, MESSAGE_MAX, Refused, SESSION_LABEL, Session,
    decode_answer, encode_answer,
};
use crate::wire::peers::{BookError, Grant, Invite, Peer, Role};
use crate::wire::tls::Purpose;
use crate::wire::token::Token;

/// How long the whole of a pairing may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the inviter's agent tells of its groups.
pub trait PairingHost: std::fmt::Debug + Send + Sync {
    /// The layout manifest's bytes of a group that this agent is the source of.
    fn layout(&self, group: GroupId) -> Option<Vec<u8>>;

    /// The veil key's id of a group that this agent is the source of.
    fn veil(&self, group: GroupId) -> Option<KeyId>;
}

/// A pairing that came about, on the inviter's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paired {
    /// The joiner, as it is in the book now.
    pub peer: Peer,
    /// The group's id.
    pub group: GroupId,
    /// The group's name on this side.
    pub name: Name,
    /// What the joiner is.
    pub role: Role,
    /// The joiner's group, when it is the source: this side makes its volumes of it.
    pub offer: Option<GroupOffer>,
}

/// Why joining failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// None of the token's addresses led to the inviter.
    #[error("cannot reach the agent that made the token")]
    Connect(#[source] ConnectError),
    /// The inviter took too long.
    #[error("the agent that made the token did not answer in time")]
    Silent,
    /// The connection broke.
    #[error("the pairing broke off: the token may be used up, see vgship pair list there")]
    Lost(#[from] ConnectionError),
    /// The message could not be sent.
    #[error("cannot send the pairing's message")]
    Send(#[from] WriteError),
    /// The answer broke off.
    #[error("the pairing's answer broke off: see vgship pair list at the other agent")]
    Receive(#[from] ReadToEndError),
    /// The answer is none.
    #[error("the pairing's answer is not one")]
    Format(#[from] FormatError),
    /// TLS gives no key for the proof.
    #[error("TLS gives no key for the proof")]
    NoKey,
    /// The inviter refused.
    #[error("the pairing was refused")]
    Refused(#[from] Refused),
    /// The inviter's side of the bargain is missing: a source must tell its layout.
    #[error("the other agent did not say what the group consists of")]
    NoOffer,
    /// The pairing could not be stored here.
    #[error("the pairing was granted, but cannot be stored here: revoke it there and try again")]
    Book(#[from] BookFileError),
}

impl Endpoint {
    /// Redeems a token and enters the inviter into the book, with the group called `local` here.
    /// `offer` is this side's group when the token makes it the source; `address` is where this
    /// agent can be called, if it can.
    ///
    /// Durable: the pairing on both sides, once this has returned. To drop it half way may use up
    /// the token without a pairing.
    pub async fn join(
        &self,
        token: &Token,
        local: Name,
        address: Option<SocketAddr>,
        offer: Option<GroupOffer>,
    ) -> Result<Granted, JoinError> {
        let (at, connection) = self.reach(token).await?;
        let join = Join {
            invite: token.invite,
            proof: [0; 32],
            role: token.role,
            name: self.config().name.clone(),
            address,
            blind: token.blind,
            offer,
        };
        let asked = ask(&connection, join, token, self.id());
        let granted =
            tokio::time::timeout(PATIENCE, asked).await.map_err(|_| JoinError::Silent)??;
        connection.close(Close::Done.code(), b"");
        if token.role == Role::Replica && granted.offer.is_none() {
            return Err(JoinError::NoOffer);
        }
        if token.blind != granted.veil.is_some() {
            return Err(JoinError::Refused(Refused::Veil));
        }
        let (group, role, blind) = (granted.group, token.role.other(), token.blind);
        let grant = Grant { group, name: local, role, blind };
        self.config().book.admit(Peer {
            name: granted.name.clone(),
            id: token.inviter,
            address: Some(at),
            since: now(),
            grants: vec![grant],
        })?;
        Ok(granted)
    }

    async fn reach(&self, token: &Token) -> Result<(SocketAddr, Connection), JoinError> {
        let mut last = None;
        for &address in &token.addresses {
            let made = self.handshake(address, token.inviter, Purpose::Pair);
            match tokio::time::timeout(PATIENCE, made).await {
                Ok(Ok(connection)) => return Ok((address, connection)),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(ConnectError::Unreachable { address, source: None }),
            }
        }
        Err(JoinError::Connect(last.expect("a token names at least one address")))
    }
}

async fn ask(
    connection: &Connection,
    mut join: Join,
    token: &Token,
    joiner: PeerId,
) -> Result<Granted, JoinError> {
    let session = session(connection, token.inviter, joiner).ok_or(JoinError::NoKey)?;
    join.proof = token.secret.proof(&session);
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&join.encode()).await?;
    send.finish().map_err(|_| WriteError::ClosedStream)?;
    Ok(decode_answer(&receive.read_to_end(MESSAGE_MAX).await?)??)
}

/// The inviter's side. Everything that fails ends the connection; then the text says why.
pub(super) async fn serve_pairing(
    config: &Config,
    connection: &Connection,
    joiner: PeerId,
) -> Result<Paired, String> {
    let from = connection.remote_address();
    match serve(config, connection, joiner).await {
        Ok(Ok(paired)) => {
            tracing::info!(%from, peer = %joiner, group = %paired.name, "paired");
            Ok(paired)
        }
        Ok(Err(refused)) => Err(format!("{refused}; peer {joiner}")),
        Err(error) => Err(format!("it broke off: {error}; peer {joiner}")),
    }
}

async fn serve(
    config: &Config,
    connection: &Connection,
    joiner: PeerId,
) -> Result<Result<Paired, Refused>, JoinError> {
    let heard = async {
        let (send, mut receive) = connection.accept_bi().await?;
        Ok::<_, JoinError>((send, receive.read_to_end(MESSAGE_MAX).await?))
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await;
    let (mut send, message) = heard.map_err(|_| JoinError::Silent)??;
    let join = Join::decode(&message)?;
    let session = session(connection, config.identity.id(), joiner).ok_or(JoinError::NoKey)?;
    let decided = decide(config, join, session);
    let answer: Answer = match &decided {
        Ok((_, granted)) => Ok(granted.clone()),
        Err(refused) => Err(*refused),
    };
    let sent = async {
        send.write_all(&encode_answer(&answer)).await?;
        send.finish().map_err(|_| WriteError::ClosedStream)?;
        let _ = send.stopped().await; // the joiner has it all, or is gone
        Ok::<_, JoinError>(())
    };
    // A granted pairing stands in the book, whether the joiner hears of it or not.
    if !matches!(tokio::time::timeout(PATIENCE, sent).await, Ok(Ok(()))) {
        tracing::warn!(peer = %joiner, "the joiner may not have heard the answer");
    }
    Ok(decided.map(|(paired, _)| paired))
}

fn decide(config: &Config, join: Join, session: Session) -> Result<(Paired, Granted), Refused> {
    let claim = Claim { invite: join.invite, proof: join.proof, session };
    let invite = config.book.redeem(&claim).map_err(|error| failed(&error))??;
    let offer = bargain(config, &invite, &join)?;
    let group = invite.group.or(join.offer.as_ref().map(|offer| offer.group));
    let group = group.ok_or(Refused::Role)?;
    let (name, role) = (invite.name, join.role);
    let blind = invite.blind;
    let veil = blind.then(|| config.host.veil(group).ok_or(Refused::Veil)).transpose()?;
    let grant = Grant { group, name: name.clone(), role, blind };
    let peer = Peer {
        name: join.name,
        id: session.joiner,
        address: join.address,
        since: now(),
        grants: vec![grant],
    };
    config.book.admit(peer.clone()).map_err(|error| match error {
        BookFileError::Change(BookError::NameTaken(_)) => Refused::NameTaken,
        error => failed(&error),
    })?;
    let peer = config.book.peer(peer.id).unwrap_or(peer);
    let paired = Paired { peer, group, name: name.clone(), role, offer: join.offer };
    Ok((paired, Granted { group, name: config.name.clone(), called: name, veil, offer }))
}

/// Exactly the source's side brings the group.
fn bargain(config: &Config, invite: &Invite, join: &Join) -> Result<Option<GroupOffer>, Refused> {
    match (invite.role, invite.group) {
        (role, _) if role != join.role => Err(Refused::Role),
        _ if invite.blind != join.blind => Err(Refused::Veil),
        (Role::Replica, Some(group)) if join.offer.is_none() => {
            let layout = config.host.layout(group).ok_or(Refused::Failed)?;
            Ok(Some(GroupOffer { group, layout }))
        }
        (Role::Source, known) => {
            let brought = join.offer.as_ref().map(|offer| offer.group);
            let fits = brought.is_some() && known.is_none_or(|known| brought == Some(known));
            if fits { Ok(None) } else { Err(Refused::Role) }
        }
        _ => Err(Refused::Role),
    }
}

fn failed(error: &BookFileError) -> Refused {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, cause, "cannot store a pairing");
    Refused::Failed
}

fn session(connection: &Connection, inviter: PeerId, joiner: PeerId) -> Option<Session> {
    let mut bytes = [0; 32];
    connection.export_keying_material(&mut bytes, SESSION_LABEL, b"").ok()?;
    Some(Session { inviter, joiner, bytes })
}
