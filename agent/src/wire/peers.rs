//! The book of peers: who is paired, for which groups and in which role, and which invites are
//! open. Pure; `wire::io::book` keeps it in a file and shares it.
//!
//! The file is TOML, so that a person can read it, with ids and digests in hexadecimal:
//!
//! ```toml
//! version = 1                     # 2 when something in it is blind
//!
//! [[peer]]
//! name = "recovery"
//! id = "6f2a..."                  # SHA-256 of its public key
//! address = "192.0.2.7:7300"      # absent: it calls us
//! since = 1764000000              # seconds since 1970
//! [[peer.grant]]
//! group = "5be1..."
//! name = "datavg"
//! role = "replica"                # what the peer is in that group
//! blind = true                    # the replica of this pair is blind; absent: it is not (version 2)
//!
//! [[invite]]
//! id = "91c0..."
//! verifier = "77aa..."            # derived from the secret, which is not kept
//! name = "datavg"
//! group = "5be1..."               # absent: the joiner brings the group
//! role = "replica"                # what the joiner will be
//! blind = true                    # the replica will be blind; absent: it will not (version 2)
//! expires = 1764003600            # seconds since 1970
//! attempts = 3                    # left
//! ```

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vgship_base::bytes::{FormatError, require};
use vgship_base::ids::{GroupId, Name, PeerId};

use super::pairing::{Claim, InviteId, Refused, Verifier};
use super::text::Hex;

/// Wrong proofs that an invite stands; with the last it is burnt.
pub const ATTEMPTS: u8 = 3;

/// Open invites at a time.
pub const INVITES_MAX: usize = 64;

/// Longest book that is read. Unit: bytes.
pub const BOOK_MAX: u64 = 1 << 20;

const VERSION: u32 = 2;

/// Of books in which nothing is blind, which older programs read too.
const VERSION_PLAIN: u32 = 1;

/// What an agent is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes the applications' writes.
    Source,
    /// Follows the source.
    Replica,
}

impl Role {
    /// The role of the side across.
    #[must_use]
    pub const fn other(self) -> Role {
        match self {
            Role::Source => Role::Replica,
            Role::Replica => Role::Source,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Replica => "replica",
        }
    }

    /// Its number in formats.
    pub const fn code(self) -> u8 {
        match self {
            Role::Source => 1,
            Role::Replica => 2,
        }
    }

    /// The role of a number.
    pub fn decode(code: u8) -> Result<Role, FormatError> {
        require("role", code, "1 or 2", (1..=2).contains(&code))?;
        Ok(if code == 1 { Role::Source } else { Role::Replica })
    }
}

/// A paired agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it calls itself; unique in the book.
    pub name: Name,
    /// Who it is.
    pub id: PeerId,
    /// Where it listens; `None`: it calls us.
    pub address: Option<SocketAddr>,
    /// When it was first paired. Unit: seconds since 1970.
    pub since: u64,
    /// What it may do.
    pub grants: Vec<Grant>,
}

/// What one pairing allows a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// In which group.
    pub group: GroupId,
    /// What the group is called here.
    pub name: Name,
    /// As what.
    pub role: Role,
    /// Whether the replica of the two keeps what it cannot read.
    pub blind: bool,
}

/// An open invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Names it in the token.
    pub id: InviteId,
    /// Checks the proof; does not give the secret away.
    pub verifier: Verifier,
    /// The group, as this side calls it.
    pub name: Name,
    /// The group, when this side has it; `None`: the joiner is the source and brings it.
    pub group: Option<GroupId>,
    /// What the joiner will be.
    pub role: Role,
    /// Whether it will be a blind replica.
    pub blind: bool,
    /// Unit: seconds since 1970.
    pub expires: u64,
    /// Wrong proofs that it still stands.
    pub attempts: u8,
}

/// Everything an agent knows of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    peers: Vec<Peer>,
    invites: Vec<Invite>,
}

/// Why a book's text or a change to it is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BookError {
    /// No TOML, or not of the book's shape.
    #[error("does not read as a book of peers")]
    Text(#[from] toml::de::Error),
    /// A later program wrote it.
    #[error("is of version {0}, this program reads up to version {VERSION}: run the newer program")]
    Version(u32),
    /// Two peers of one name or one id, or two invites of one id.
    #[error("holds {0} twice: remove one of the two entries")]
    Twice(String),
    /// A peer of this name, but of another id, is paired.
    #[error("another agent is paired under the name {0}: revoke it, or name this one otherwise")]
    NameTaken(Name),
    /// Too many invites are open.
    #[error("{INVITES_MAX} invites are open: wait until some expire, or revoke some")]
    TooManyInvites,
}

impl Book {
    /// All peers.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// All invites, expired ones too.
    pub fn invites(&self) -> &[Invite] {
        &self.invites
    }

    /// The peer of this id.
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// Whether the peer may be `role` in `group`.
    pub fn allows(&self, id: PeerId, group: GroupId, role: Role) -> bool {
        let granted = |grant: &Grant| grant.group == group && grant.role == role;
        self.peer(id).is_some_and(|peer| peer.grants.iter().any(granted))
    }

    /// Whether the replica of a pair is blind: the peer's content of `group`, or ours of its.
    pub fn is_blind(&self, id: PeerId, group: GroupId) -> bool {
        let granted = |grant: &Grant| grant.group == group && grant.blind;
        self.peer(id).is_some_and(|peer| peer.grants.iter().any(granted))
    }

    fn has_blind(&self) -> bool {
        let grants = self.peers.iter().flat_map(|peer| &peer.grants);
        grants.map(|it| it.blind).chain(self.invites.iter().map(|it| it.blind)).any(|blind| blind)
    }

    /// Whether an invite could still be redeemed. Unit of `now`: seconds since 1970.
    pub fn pairing_open(&self, now: u64) -> bool {
        self.invites.iter().any(|invite| now < invite.expires)
    }

    /// Opens an invite and forgets expired ones. Unit of `now`: seconds since 1970.
    pub fn invite(&mut self, invite: Invite, now: u64) -> Result<(), BookError> {
        self.invites.retain(|known| now < known.expires);
        if self.invites.len() >= INVITES_MAX {
            return Err(BookError::TooManyInvites);
        }
        self.invites.push(invite);
        Ok(())
    }

    /// Judges one claim; a right one uses the invite up, a wrong one costs it an attempt. The
    /// caller makes the change durable before it answers. Unit of `now`: seconds since 1970.
    pub fn redeem(&mut self, claim: &Claim, now: u64) -> Result<Invite, Refused> {
        let place = self.invites.iter().position(|invite| invite.id == claim.invite);
        let place = place.ok_or(Refused::Invite)?;
        let invite = &mut self.invites[place];
        if now >= invite.expires {
            self.invites.remove(place);
            return Err(Refused::Expired);
        }
        if !invite.verifier.accepts(claim) {
            invite.attempts = invite.attempts.saturating_sub(1);
            if invite.attempts == 0 {
                self.invites.remove(place);
            }
            return Err(Refused::Invite);
        }
        Ok(self.invites.remove(place))
    }

    /// Enters a peer, or adds a grant and the address to one that is known.
    pub fn admit(&mut self, mut peer: Peer) -> Result<(), BookError> {
        if self.peers.iter().any(|known| known.name == peer.name && known.id != peer.id) {
            return Err(BookError::NameTaken(peer.name));
        }
        let Some(known) = self.peers.iter_mut().find(|known| known.id == peer.id) else {
            self.peers.push(peer);
            return Ok(());
        };
        known.name = peer.name;
        known.address = peer.address.or(known.address);
        known.grants.retain(|old| peer.grants.iter().all(|new| new.group != old.group));
        known.grants.append(&mut peer.grants);
        Ok(())
    }

    /// Sets what a known peer may be in a group, after roles were exchanged. Returns whether the
    /// peer had a grant for the group.
    pub fn set_role(&mut self, id: PeerId, group: GroupId, role: Role) -> bool {
        let grants = self.peers.iter_mut().filter(|peer| peer.id == id);
        let mut grants = grants.flat_map(|peer| &mut peer.grants);
        let found = grants.find(|grant| grant.group == group);
        found.map(|grant| grant.role = role).is_some()
    }

    /// Takes away all that a peer, given by name or id, may do. `None` when it is not known.
    pub fn revoke(&mut self, who: &str) -> Option<Peer> {
        let is = |peer: &Peer| peer.name.as_str() == who || peer.id.to_string() == who;
        let place = self.peers.iter().position(is)?;
        Some(self.peers.remove(place))
    }

    /// Takes away what all peers may do in a group and closes its invites. A peer that may do
    /// nothing else is forgotten. Returns those that lost something, as they were.
    pub fn forget_group(&mut self, group: GroupId) -> Vec<Peer> {
        self.invites.retain(|invite| invite.group != Some(group));
        let has = |peer: &Peer| peer.grants.iter().any(|grant| grant.group == group);
        let had: Vec<Peer> = self.peers.iter().filter(|peer| has(peer)).cloned().collect();
        for peer in self.peers.iter_mut().filter(|peer| has(peer)) {
            peer.grants.retain(|grant| grant.group != group);
        }
        let left = |peer: &Peer| had.iter().any(|had| had.id == peer.id) && peer.grants.is_empty();
        self.peers.retain(|peer| !left(peer));
        had
    }

    /// Closes an invite by its id in hexadecimal. Returns whether it was open.
    pub fn revoke_invite(&mut self, id: &str) -> bool {
        let before = self.invites.len();
        self.invites.retain(|invite| Hex(invite.id.0).to_string() != id);
        self.invites.len() < before
    }

    /// The book's text.
    pub fn encode(&self) -> String {
        let file = File {
            version: if self.has_blind() { VERSION } else { VERSION_PLAIN },
            peer: self.peers.iter().map(PeerEntry::from).collect(),
            invite: self.invites.iter().map(InviteEntry::from).collect(),
        };
        toml::to_string(&file).expect("strings, numbers and lists of tables are always TOML")
    }

    /// Reads and checks a book's text.
    pub fn decode(text: &str) -> Result<Book, BookError> {
        let file: File = toml::from_str(text)?;
        if !(VERSION_PLAIN..=VERSION).contains(&file.version) {
            return Err(BookError::Version(file.version));
        }
        let mut book = Book::default();
        for peer in file.peer.into_iter().map(Peer::from) {
            let is = |known: &Peer| known.id == peer.id || known.name == peer.name;
            if book.peers.iter().any(is) {
                return Err(BookError::Twice(format!("peer {}", peer.name)));
            }
            book.peers.push(peer);
        }
        for invite in file.invite.into_iter().map(Invite::from) {
            if book.invites.iter().any(|known| known.id == invite.id) {
                return Err(BookError::Twice(format!("invite {}", Hex(invite.id.0))));
            }
            book.invites.push(invite);
        }
        Ok(book)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    peer: Vec<PeerEntry>,
    #[serde(default)]
    invite: Vec<InviteEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerEntry {
    name: NameText,
    id: Hex<32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    since: u64,
    #[serde(default)]
    grant: Vec<GrantEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantEntry {
    group: Hex<16>,
    name: NameText,
    role: Role,
    #[serde(default, skip_serializing_if = "is_false")]
    blind: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteEntry {
    id: Hex<8>,
    verifier: Hex<32>,
    name: NameText,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Hex<16>>,
    role: Role,
    #[serde(default, skip_serializing_if = "is_false")]
    blind: bool,
    expires: u64,
    attempts: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde wants")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A [`Name`] in text files.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct NameText(Name);

impl TryFrom<String> for NameText {
    type Error = vgship_base::ids::NameError;

    fn try_from(text: String) -> Result<NameText, Self::Error> {
        text.parse().map(NameText)
    }
}

impl From<NameText> for String {
    fn from(name: NameText) -> String {
        name.0.to_string()
    }
}

impl From<&Peer> for PeerEntry {
    fn from(peer: &Peer) -> PeerEntry {
        let grant = |grant: &Grant| GrantEntry {
            group: Hex(grant.group.0),
            name: NameText(grant.name.clone()),
            role: grant.role,
            blind: grant.blind,
        };
        PeerEntry {
            name: NameText(peer.name.clone()),
            id: Hex(peer.id.0),
            address: peer.address,
            since: peer.since,
            grant: peer.grants.iter().map(grant).collect(),
        }
    }
}

impl From<PeerEntry> for Peer {
    fn from(entry: PeerEntry) -> Peer {
        let grant = |grant: GrantEntry| Grant {
            group: GroupId(grant.group.0),
            name: grant.name.0,
            role: grant.role,
            blind: grant.blind,
        };
        Peer {
            name: entry.name.0,
            id: PeerId(entry.id.0),
            address: entry.address,
            since: entry.since,
            grants: entry.grant.into_iter().map(grant).collect(),
        }
    }
}

impl From<&Invite> for InviteEntry {
    fn from(invite: &Invite) -> InviteEntry {
        InviteEntry {
            id: Hex(invite.id.0),
            verifier: Hex(invite.verifier.0),
            name: NameText(invite.name.clone()),
            group: invite.group.map(|group| Hex(group.0)),
            role: invite.role,
            blind: invite.blind,
            expires: invite.expires,
            attempts: invite.attempts,
        }
    }
}

impl From<InviteEntry> for Invite {
    fn from(entry: InviteEntry) -> Invite {
        Invite {
            id: InviteId(entry.id.0),
            verifier: Verifier(entry.verifier.0),
            name: entry.name.0,
            group: entry.group.map(|group| GroupId(group.0)),
            role: entry.role,
            blind: entry.blind,
            expires: entry.expires,
            attempts: entry.attempts,
        }
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
