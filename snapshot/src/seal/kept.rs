//! A data key as it is kept, wrapped, with when it was made; or what is left of one that is no more.
//! Version 1:
//!
//! ```text
//! at   size  field    unit  rule
//!   0     4  magic    -     the letters VGKR
//!   4     2  version  -     1
//!   6     2  state    -     1 usable, 2 destroyed
//!   8    16  group    -     whose data key it is
//!  24     8  key id   -     of the data key
//!  32     8  made     us    since 1970
//!  40     8  ended    us    since 1970, when it was destroyed; 0 while it is usable
//!  48    96  wrapped  -     the wrapped data key; zeroes when it is destroyed
//! 144     4  crc      -     CRC-32C of bytes 0..144
//! ```
//!
//! Integers are big-endian. What stands in clear is proven when the key is unwrapped: it must have
//! that id and be of that group.

use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};
use vgship_base::ids::GroupId;

use super::key::{KeyId, WRAPPED_LEN, version};
use super::{DataKey, KeyEncryptionKey, SealError};

/// Length of a key as it is kept. Unit: bytes.
pub const KEPT_LEN: usize = 148;

const MAGIC: [u8; 4] = *b"VGKR";
const VERSION: u16 = 1;
const WHAT: &str = "kept data key";
const USABLE: u16 = 1;
const DESTROYED: u16 = 2;

/// A data key that can be unwrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// Wrapped by a key-encryption key.
    pub wrapped: [u8; WRAPPED_LEN],
}

/// A data key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whose it is.
    pub group: GroupId,
    /// Names it.
    pub id: KeyId,
    /// When it was made. Unit: microseconds since 1970.
    pub made: u64,
    /// The key itself, or when it was destroyed. Unit: microseconds since 1970.
    pub key: Result<Usable, u64>,
}

impl Kept {
    /// A data key, wrapped.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn wrap(
        by: &KeyEncryptionKey,
        group: GroupId,
        key: &DataKey,
        made: u64,
    ) -> Result<Kept, SealError> {
        let mut wrapped = [0; WRAPPED_LEN];
        wrapped.copy_from_slice(&by.wrap(group, key)?);
        Ok(Kept { group, id: key.id(), made, key: Ok(Usable { wrapped }) })
    }

    /// The data key.
    ///
    /// # Errors
    /// [`SealError::Destroyed`]; what [`KeyEncryptionKey::unwrap`] says; [`SealError::Broken`] when
    /// it is not the key that it says it is.
    pub fn unwrap(&self, by: &KeyEncryptionKey) -> Result<DataKey, SealError> {
        let Ok(usable) = &self.key else {
            return Err(SealError::Destroyed { what: WHAT, key: self.id });
        };
        let key = by.unwrap(self.group, &usable.wrapped)?;
        match key.id() == self.id {
            true => Ok(key),
            false => Err(SealError::Broken { what: WHAT, offset: 24 }),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(KEPT_LEN);
        let (state, ended, wrapped) = match &self.key {
            Ok(usable) => (USABLE, 0, usable.wrapped),
            Err(ended) => (DESTROYED, *ended, [0; WRAPPED_LEN]),
        };
        out.put(&MAGIC).u16(VERSION).u16(state).put(&self.group.0).put(&self.id.0);
        out.u64(self.made).u64(ended).put(&wrapped);
        with_checksum(out)
    }

    /// From its bytes.
    ///
    /// # Errors
    /// [`SealError::Format`] when that is not what they are.
    pub fn decode(bytes: &[u8]) -> Result<Kept, SealError> {
        Kept::read(bytes).map_err(|source| SealError::Format { what: WHAT, source })
    }

    fn read(bytes: &[u8]) -> Result<Kept, FormatError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::Magic { expected: "VGKR" });
        }
        let mut from = checked(bytes)?;
        from.take("magic", MAGIC.len())?;
        version(&mut from, VERSION)?;
        let state = from.u16("state")?;
        require("state", state, "1 or 2", [USABLE, DESTROYED].contains(&state))?;
        let (group, id) = (GroupId(from.array("group")?), KeyId(from.array("key id")?));
        let (made, ended) = (from.u64("made")?, from.u64("ended")?);
        let wrapped: [u8; WRAPPED_LEN] = from.array("wrapped")?;
        from.finish()?;
        let usable = state == USABLE;
        require("ended", ended, "0 while the key is usable", !usable || ended == 0)?;
        let empty = wrapped == [0; WRAPPED_LEN];
        require("wrapped", u64::from(empty), "zeroes when it is destroyed", usable || empty)?;
        let key = if usable { Ok(Usable { wrapped }) } else { Err(ended) };
        Ok(Kept { group, id, made, key })
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const GROUP: GroupId = GroupId([7; 16]);

    /// The wrapped key of `key.rs`, which another implementation made, as the checksum; the rest by
    /// hand.
    const GOLDEN: [u8; KEPT_LEN] = hex!(
        "56474b52" "0001" "0001" "07070707070707070707070707070707" "7db280656ffb0448"
        "0000000000000003" "0000000000000000"
        "5647444b" "0001" "0000" "07070707070707070707070707070707" "1ec0f4cf29b3fc43"
        "050505050505050505050505"
        "f96bc967bb27db7815be0e503b9439e104f6286a2a3ccf6c6eb48ebcb90bcdd8"
        "fa5fae48c35852b1a31662afb2739b9c" "5116f0f8" "83fc6cb5"
    );

    fn wrapping_key() -> KeyEncryptionKey {
        let text = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf\n";
        KeyEncryptionKey::from_file_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        let found = Kept::decode(&GOLDEN).unwrap();
        assert_eq!((found.group, found.made), (GROUP, 3));
        let key = found.unwrap(&wrapping_key()).unwrap();
        assert_eq!((key.id(), found.id), (KeyId(hex!("7db280656ffb0448")), key.id()));
        assert_eq!(found.encode(), GOLDEN);
        let gone = Kept { key: Err(9), ..found };
        let bytes = gone.encode();
        assert_eq!(bytes[..8], hex!("56474b52" "0001" "0002"));
        assert!(bytes[40..144] == [hex!("0000000000000009").as_slice(), &[0; 96]].concat()[..]);
        assert_eq!(Kept::decode(&bytes).unwrap(), gone);
        assert!(matches!(gone.unwrap(&wrapping_key()), Err(SealError::Destroyed { .. })));
    }

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        for bit in 0..KEPT_LEN * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Kept::decode(&bytes).is_err(), "bit {bit}");
            let crc = crc32c::crc32c(&bytes[..KEPT_LEN - 4]);
            bytes[KEPT_LEN - 4..].copy_from_slice(&crc.to_be_bytes());
            let opened = Kept::decode(&bytes).and_then(|it| it.unwrap(&wrapping_key()));
            // When it was made is told to people and proves nothing.
            let free = (32 * 8..40 * 8).contains(&bit) || bit >= (KEPT_LEN - 4) * 8;
            assert_eq!(opened.is_ok(), free, "bit {bit}, forged");
        }
        for len in 0..KEPT_LEN {
            assert!(Kept::decode(&GOLDEN[..len]).is_err(), "{len}");
        }
    }
}
