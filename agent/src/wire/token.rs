//! The one-time pairing token: `vgship1-` and the base32 of these bytes. That of a blind replica is
//! of version 2 and begins with `vgship2-`, so that a program that knows no veil does not take it.
//!
//! ```text
//! at  size  field      unit   rule
//!  0     1  version    -      1; 2 for a blind replica
//!  1     1  role       -      the joiner's: 1 source, 2 replica
//!  2     8  invite     -      id
//! 10    32  secret     -
//! 42    32  inviter    -      id: SHA-256 of its public key
//! 74     8  expires    s      since 1970
//!     2+n  group      -      its name at the inviter
//!        1  addresses  -      1 ..= 8; then each:
//!             1 family (4 or 6), 4 or 16 address, 2 port
//!        4  crc        CRC-32C of all before
//! ```
//!
//! Integers are big-endian. Letters may be typed in either case, and blanks and line breaks that
//! a terminal put in are skipped.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::ids::{Name, PeerId};

use super::hello::name;
use super::pairing::{InviteId, Secret};
use super::peers::Role;
use super::text::{from_base32, to_base32};

/// What every token begins with; a later format would begin otherwise.
pub const PREFIX: &str = "vgship1-";

/// What the token of a blind replica begins with.
pub const PREFIX_BLIND: &str = "vgship2-";

/// Longest text that is looked at. Unit: bytes.
const TEXT_MAX: usize = 1024;

/// Addresses that one token names.
pub const ADDRESSES_MAX: usize = 8;

const VERSION: u8 = 1;

const VERSION_BLIND: u8 = 2;

/// All that a joiner needs. Whoever holds it can join, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where the inviter listens, best first; 1 to [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// Who the inviter is.
    pub inviter: PeerId,
    /// Which invite.
    pub invite: InviteId,
    /// What to prove.
    pub secret: Secret,
    /// Unit: seconds since 1970.
    pub expires: u64,
    /// The group's name at the inviter.
    pub group: Name,
    /// What the joiner will be.
    pub role: Role,
    /// Whether it will be a blind replica.
    pub blind: bool,
}

/// Why a text is no token that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Something else was pasted.
    #[error("this is not a pairing token: one begins with {PREFIX}")]
    NotAToken,
    /// Letters are missing or wrong.
    #[error("the token is damaged, copy it again")]
    Damaged(#[source] Option<FormatError>),
    /// It was whole once, but is too old.
    #[error("the token has expired, ask for a new one (vgship pair invite)")]
    Expired,
}

impl Token {
    /// The token's text. A secret.
    ///
    /// # Panics
    /// When there are no addresses, or more than [`ADDRESSES_MAX`].
    pub fn encode(&self) -> String {
        let count = self.addresses.len();
        assert!(
            (1..=ADDRESSES_MAX).contains(&count),
            "a token names 1 to {ADDRESSES_MAX} addresses"
        );
        let mut out = Writer::default();
        let (version, prefix) = match self.blind {
            true => (VERSION_BLIND, PREFIX_BLIND),
            false => (VERSION, PREFIX),
        };
        out.u8(version).u8(self.role.code()).put(&self.invite.0).put(&self.secret.0);
        out.put(&self.inviter.0).u64(self.expires).text(self.group.as_str());
        out.u8(u8::try_from(count).expect("at most 8"));
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => out.u8(4).put(&ip.octets()),
                IpAddr::V6(ip) => out.u8(6).put(&ip.octets()),
            };
            out.u16(address.port());
        }
        format!("{prefix}{}", to_base32(&with_checksum(out)))
    }

    /// Reads and checks a token. Unit of `now`: seconds since 1970.
    pub fn decode(text: &str, now: u64) -> Result<Token, TokenError> {
        if text.len() > TEXT_MAX {
            return Err(TokenError::NotAToken);
        }
        let text: String = text.split_whitespace().collect();
        let text = text.to_ascii_lowercase();
        let (digits, version) = match (text.strip_prefix(PREFIX), text.strip_prefix(PREFIX_BLIND)) {
            (Some(digits), _) => (digits, VERSION),
            (None, Some(digits)) => (digits, VERSION_BLIND),
            (None, None) => return Err(TokenError::NotAToken),
        };
        let bytes = from_base32(digits).ok_or(TokenError::Damaged(None))?;
        let token =
            Token::decode_bytes(&bytes, version).map_err(|why| TokenError::Damaged(Some(why)))?;
        if now >= token.expires { Err(TokenError::Expired) } else { Ok(token) }
    }

    fn decode_bytes(bytes: &[u8], expected: u8) -> Result<Token, FormatError> {
        let mut from = checked(bytes)?;
        let version = from.u8("version")?;
        require("version", version, "that of the letters before it", version == expected)?;
        let role = Role::decode(from.u8("role")?)?;
        let (invite, secret) = (InviteId(from.array("invite")?), Secret(from.array("secret")?));
        let (inviter, expires) = (PeerId(from.array("inviter")?), from.u64("expires")?);
        let group = name(&mut from, "group")?;
        let count = from.u8("addresses")?;
        let fits = (1..=ADDRESSES_MAX).contains(&usize::from(count));
        require("addresses", count, "1 to 8", fits)?;
        let addresses = (0..count).map(|_| address(&mut from)).collect::<Result<_, _>>()?;
        from.finish()?;
        Ok(Token {
            addresses,
            inviter,
            invite,
            secret,
            expires,
            group,
            role,
            blind: version == VERSION_BLIND,
        })
    }
}

fn address(from: &mut Reader<'_>) -> Result<SocketAddr, FormatError> {
    let family = from.u8("family")?;
    require("family", family, "4 or 6", family == 4 || family == 6)?;
    let ip = match family {
        4 => IpAddr::V4(Ipv4Addr::from(from.array::<4>("address")?)),
        _ => IpAddr::V6(Ipv6Addr::from(from.array::<16>("address")?)),
    };
    Ok(SocketAddr::new(ip, from.u16("port")?))
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
