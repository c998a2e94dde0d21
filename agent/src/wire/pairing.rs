//! Pairing: how a joiner proves to its inviter that it holds the invite's secret, and what both
//! learn of each other. Pure: messages and their checks; `wire::io::pairing` carries them.
//!
//! The joiner pins the inviter's id from the token, so the channel ends at the inviter. Its proof
//! is bound to both ids and to this one TLS session, so nobody can use it elsewhere. The inviter
//! keeps a verifier, from which the secret cannot be found (the way of RFC 5802):
//!
//! ```text
//! verifier   = BLAKE3 derive key ("vgship pairing verifier, version 1", secret)
//! transcript = "vgship pairing proof, version 1" inviter (32) joiner (32) session (32)
//! proof      = secret xor BLAKE3 keyed (verifier, transcript)
//! check        derive key (proof xor BLAKE3 keyed (verifier, transcript)) = verifier
//! ```
//!
//! One bidirectional stream, one message each way, both ended by the end of the stream:
//!
//! ```text
//! join                                      answer
//! at  size  field    rule                   at  size  field    rule
//!  0     4  magic    the letters VGPJ        0     4  magic    the letters VGPA
//!  4     2  version  1; 2 when blind         4     2  version  1; 2 when blind
//!  6     8  invite   id                      6     2  code     0 granted, else why not
//! 14    32  proof                               then, when granted:
//! 46     1  role     1 source, 2 replica          16  group    id
//!                                                  8  veil     version 2: id of the veil key
//!     2+n  name     the joiner's agent          2+n  name     the inviter's agent
//!     2+n  address  its own, may be empty       2+n  called   the group's name there
//!        .  offer                                  .  offer
//!        4  crc     CRC-32C of all before          4  crc      CRC-32C of all before
//!
//! offer: 1 present (0 or 1); if 1: 16 group, 4 length (at most 1 MiB), layout manifest
//! ```
//!
//! A join of version 2 says that the joiner will be a blind replica, and its answer names the key that
//! veils its content; a program that knows no veil refuses that version. The source's side brings the
//! offer: the joiner when its role is source, else the inviter.
//! Integers are big-endian.

use core::net::SocketAddr;

use thiserror::Error;
use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::ids::{GroupId, Name, PeerId};
use vgship_snapshot::seal::KeyId;

use super::hello::name;
use super::peers::Role;

/// Longest message. Unit: bytes. Holds the largest layout manifest and some names.
pub const MESSAGE_MAX: usize = (1 << 20) + 1024;

const LAYOUT_MAX: u32 = 1 << 20;
const ADDRESS_MAX: usize = 64;
const VERSION: u16 = 1;
const VERSION_BLIND: u16 = 2;
const JOIN_MAGIC: [u8; 4] = *b"VGPJ";
const ANSWER_MAGIC: [u8; 4] = *b"VGPA";
const VERIFIER_LABEL: &str = "vgship pairing verifier, version 1";
const PROOF_LABEL: &[u8] = b"vgship pairing proof, version 1";

/// Label under which both sides draw the session's 32 bytes from TLS.
pub const SESSION_LABEL: &[u8] = b"EXPORTER-vgship-pairing";

/// Names an invite; tells nothing about its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InviteId(pub [u8; 8]);

/// What the token carries and the joiner proves to hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret")
    }
}

/// What checks a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verifier(pub [u8; 32]);

/// The two ends of one TLS session, and 32 bytes that only they know.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Who invites.
    pub inviter: PeerId,
    /// Who joins.
    pub joiner: PeerId,
    /// Drawn from TLS under [`SESSION_LABEL`].
    pub bytes: [u8; 32],
}

/// One try to redeem an invite.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Which invite.
    pub invite: InviteId,
    /// As received.
    pub proof: [u8; 32],
    /// As the inviter sees it.
    pub session: Session,
}

impl Secret {
    /// What the inviter keeps.
    pub fn verifier(&self) -> Verifier {
        Verifier(blake3::derive_key(VERIFIER_LABEL, &self.0))
    }

    /// Proves knowledge of the secret in this session.
    pub fn proof(&self, session: &Session) -> [u8; 32] {
        xor(self.0, self.verifier().mask(session))
    }
}

impl Verifier {
    /// Whether the claim's proof was made with the secret, for this session. In constant time.
    pub fn accepts(&self, claim: &Claim) -> bool {
        let secret = Secret(xor(claim.proof, self.mask(&claim.session)));
        blake3::Hash::from_bytes(secret.verifier().0) == blake3::Hash::from_bytes(self.0)
    }

    fn mask(&self, session: &Session) -> [u8; 32] {
        let mut transcript = PROOF_LABEL.to_vec();
        transcript.extend_from_slice(&session.inviter.0);
        transcript.extend_from_slice(&session.joiner.0);
        transcript.extend_from_slice(&session.bytes);
        *blake3::keyed_hash(&self.0, &transcript).as_bytes()
    }
}

fn xor(mut one: [u8; 32], other: [u8; 32]) -> [u8; 32] {
    one.iter_mut().zip(other).for_each(|(byte, with)| *byte ^= with);
    one
}

/// A group and its volumes, told by the side that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffer {
    /// The group's id, the same on all sides.
    pub group: GroupId,
    /// The layout manifest's bytes (`vgship_base::layout`), at most 1 MiB; not decoded here.
    pub layout: Vec<u8>,
}

/// What a joiner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Which invite, from the token.
    pub invite: InviteId,
    /// Of the token's secret.
    pub proof: [u8; 32],
    /// What the joiner will be.
    pub role: Role,
    /// The joiner's agent.
    pub name: Name,
    /// Where the joiner listens; `None`: it will call.
    pub address: Option<SocketAddr>,
    /// Whether the joiner will be a blind replica.
    pub blind: bool,
    /// The joiner's group, when it is the source.
    pub offer: Option<GroupOffer>,
}

/// What the inviter answers.
pub type Answer = Result<Granted, Refused>;

/// What a joiner gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The group's id.
    pub group: GroupId,
    /// The inviter's agent.
    pub name: Name,
    /// The group's name at the inviter.
    pub called: Name,
    /// What veils the joiner's content, when it is a blind replica.
    pub veil: Option<KeyId>,
    /// The inviter's group, when it is the source.
    pub offer: Option<GroupOffer>,
}

/// Why a pairing is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Unknown, used, burnt, or the proof is wrong: never said which.
    #[error("the invite is not open: ask for a new token")]
    Invite,
    /// The invite is too old.
    #[error("the invite has expired: ask for a new token")]
    Expired,
    /// The message does not fit the invite: another role, or no group from the source's side.
    #[error(
        "the invite is for the other role, or the source's side names no group: \
         ask for a new token for the right role"
    )]
    Role,
    /// Another agent of this name is paired with the inviter.
    #[error(
        "the inviter knows another agent of this name: rename this agent, or revoke the other, \
         and ask for a new token"
    )]
    NameTaken,
    /// The inviter could not store the pairing, or no longer has the group.
    #[error("the inviter could not carry out the pairing: see its log")]
    Failed,
    /// One side means a blind replica, the other does not; or the inviter has no veil key.
    #[error(
        "one side means a blind replica and the other does not, or the source has lost its veil \
         key: make a new token, and see the source's log"
    )]
    Veil,
    /// A code that this version does not know.
    #[error("refused with code {0}, which this program does not know")]
    Other(u16),
}

impl Refused {
    const fn code(self) -> u16 {
        match self {
            Refused::Invite => 1,
            Refused::Expired => 2,
            Refused::Role => 3,
            Refused::NameTaken => 4,
            Refused::Failed => 5,
            Refused::Veil => 6,
            Refused::Other(code) => code,
        }
    }

    const fn from_code(code: u16) -> Refused {
        match code {
            1 => Refused::Invite,
            2 => Refused::Expired,
            3 => Refused::Role,
            4 => Refused::NameTaken,
            5 => Refused::Failed,
            6 => Refused::Veil,
            code => Refused::Other(code),
        }
    }
}

impl Join {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.put(&JOIN_MAGIC).u16(version_of(self.blind)).put(&self.invite.0).put(&self.proof);
        out.u8(self.role.code()).text(self.name.as_str());
        out.text(&self.address.map(|address| address.to_string()).unwrap_or_default());
        encode_offer(self.offer.as_ref(), &mut out);
        with_checksum(out)
    }

    /// Reads and checks a message.
    pub fn decode(bytes: &[u8]) -> Result<Join, FormatError> {
        let (mut from, blind) = opened(bytes, JOIN_MAGIC, "VGPJ")?;
        let join = Join {
            invite: InviteId(from.array("invite")?),
            proof: from.array("proof")?,
            role: Role::decode(from.u8("role")?)?,
            name: name(&mut from, "name")?,
            address: decode_address(&mut from)?,
            blind,
            offer: decode_offer(&mut from)?,
        };
        from.finish()?;
        Ok(join)
    }
}

/// The message that carries an answer.
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    let mut out = Writer::default();
    let veil = answer.as_ref().ok().and_then(|granted| granted.veil);
    out.put(&ANSWER_MAGIC).u16(version_of(veil.is_some()));
    match answer {
        Ok(granted) => {
            out.u16(0).put(&granted.group.0);
            if let Some(KeyId(id)) = &veil {
                out.put(id);
            }
            out.text(granted.name.as_str());
            out.text(granted.called.as_str());
            encode_offer(granted.offer.as_ref(), &mut out);
        }
        Err(refused) => {
            out.u16(refused.code());
        }
    }
    with_checksum(out)
}

/// Reads and checks an answer.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, FormatError> {
    let (mut from, blind) = opened(bytes, ANSWER_MAGIC, "VGPA")?;
    let code = from.u16("code")?;
    let answer = if code == 0 {
        Ok(Granted {
            group: GroupId(from.array("group")?),
            veil: blind.then(|| from.array("veil").map(KeyId)).transpose()?,
            name: name(&mut from, "name")?,
            called: name(&mut from, "called")?,
            offer: decode_offer(&mut from)?,
        })
    } else {
        Err(Refused::from_code(code))
    };
    from.finish()?;
    Ok(answer)
}

const fn version_of(blind: bool) -> u16 {
    if blind { VERSION_BLIND } else { VERSION }
}

/// The fields of a message, and whether its version is that of blind replicas.
fn opened<'a>(
    bytes: &'a [u8],
    magic: [u8; 4],
    expected: &'static str,
) -> Result<(Reader<'a>, bool), FormatError> {
    if bytes.get(..4) != Some(&magic) {
        return Err(FormatError::Magic { expected });
    }
    let mut from = checked(bytes)?;
    from.take("magic", 4)?;
    match from.u16("version")? {
        VERSION => Ok((from, false)),
        VERSION_BLIND => Ok((from, true)),
        found => Err(FormatError::Version { found, known: VERSION_BLIND }),
    }
}

fn decode_address(from: &mut Reader<'_>) -> Result<Option<SocketAddr>, FormatError> {
    let text = from.text("address", ADDRESS_MAX)?;
    if text.is_empty() {
        return Ok(None);
    }
    let rule = "an IP address and a port";
    let wrong = FormatError::Field { field: "address", found: text.len() as u64, rule };
    text.parse().map(Some).map_err(|_| wrong)
}

fn encode_offer(offer: Option<&GroupOffer>, out: &mut Writer) {
    let Some(offer) = offer else {
        out.u8(0);
        return;
    };
    let len = u32::try_from(offer.layout.len()).expect("layout manifests are below 1 MiB");
    out.u8(1).put(&offer.group.0).u32(len).put(&offer.layout);
}

fn decode_offer(from: &mut Reader<'_>) -> Result<Option<GroupOffer>, FormatError> {
    let present = from.u8("present")?;
    require("present", present, "0 or 1", present <= 1)?;
    if present == 0 {
        return Ok(None);
    }
    let (group, len) = (GroupId(from.array("group")?), from.u32("length")?);
    require("length", len, "at most 1 MiB", len <= LAYOUT_MAX)?;
    let layout = from.take("layout", len as usize)?.to_vec();
    Ok(Some(GroupOffer { group, layout }))
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
