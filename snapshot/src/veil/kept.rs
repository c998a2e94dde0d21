//! A veil key as it is kept: wrapped by a key-encryption key. Version 1:
//!
//! ```text
//! at   size  field    unit  rule
//!   0     4  magic    -     the letters VGVK
//!   4     2  version  -     1
//!   6     2  reserved -     0, else refused
//!   8    16  group    -     whose veil key it is
//!  24     8  by       -     id of the key-encryption key
//!  32     8  id       -     of the veil key
//!  40     8  made     us    since 1970
//!  48    12  nonce    -     random for each wrapping
//!  60    64  key      -     the veil key, AES-256-GCM; bytes 0..48 are authenticated with it
//! 124    16  tag      -     of the seal
//! 140     4  crc      -     CRC-32C of bytes 0..140
//! ```
//!
//! Integers are big-endian. The id is HKDF-SHA256 of the key (no salt, info `vgship veil key id v1`).

use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};
use vgship_base::ids::GroupId;
use zeroize::Zeroizing;

use super::{KEY_LEN, VeilKey};
use crate::seal::cipher::{NONCE_LEN, TAG_LEN};
use crate::seal::key::version;
use crate::seal::{KeyEncryptionKey, KeyId, SealError, random};

/// Length of a wrapped veil key. Unit: bytes.
pub const VEIL_LEN: usize = 144;

const MAGIC: [u8; 4] = *b"VGVK";
const VERSION: u16 = 1;
const WHAT: &str = "wrapped veil key";

/// A veil key that only a key-encryption key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedVeil {
    /// Whose it is.
    pub group: GroupId,
    /// The key-encryption key that opens it.
    pub by: KeyId,
    /// Names the veil key.
    pub id: KeyId,
    /// When the veil key was made. Unit: microseconds since 1970.
    pub made: u64,
    nonce: [u8; NONCE_LEN],
    sealed: [u8; KEY_LEN + TAG_LEN],
}

impl WrappedVeil {
    /// A veil key, wrapped.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn wrap(
        by: &KeyEncryptionKey,
        group: GroupId,
        key: &VeilKey,
        made: u64,
    ) -> Result<WrappedVeil, SealError> {
        Ok(WrappedVeil::wrap_with(by, group, key, made, random()?))
    }

    fn wrap_with(
        by: &KeyEncryptionKey,
        group: GroupId,
        key: &VeilKey,
        made: u64,
        nonce: [u8; NONCE_LEN],
    ) -> WrappedVeil {
        let mut wrapped = WrappedVeil {
            group,
            by: by.id(),
            id: key.id(),
            made,
            nonce,
            sealed: [0; KEY_LEN + TAG_LEN],
        };
        let clear = wrapped.clear();
        let mut secret = Zeroizing::new(**key.bytes);
        let tag = by.cover(nonce, clear.as_slice(), secret.as_mut());
        wrapped.sealed[..KEY_LEN].copy_from_slice(secret.as_ref());
        wrapped.sealed[KEY_LEN..].copy_from_slice(&tag);
        wrapped
    }

    fn clear(&self) -> Writer {
        let mut out = Writer::with_capacity(VEIL_LEN);
        out.put(&MAGIC).u16(VERSION).u16(0).put(&self.group.0).put(&self.by.0).put(&self.id.0);
        out.u64(self.made);
        out
    }

    /// The veil key.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] when another key wrapped it, [`SealError::OtherGroup`] when it is
    /// another group's, [`SealError::Broken`] when it is not what was wrapped.
    pub fn unwrap(&self, by: &KeyEncryptionKey, group: GroupId) -> Result<VeilKey, SealError> {
        if self.group != group {
            return Err(SealError::OtherGroup { what: WHAT, found: self.group, ours: group });
        }
        if self.by != by.id() {
            return Err(SealError::OtherKey { what: WHAT, found: self.by, ours: by.id() });
        }
        let broken = || SealError::Broken { what: WHAT, offset: 48 };
        let mut sealed = Zeroizing::new(self.sealed);
        let opened = by.uncover(self.nonce, self.clear().as_slice(), sealed.as_mut());
        let opened = opened.ok_or_else(broken)?;
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        bytes.copy_from_slice(opened);
        let key = VeilKey::from_bytes(bytes);
        if key.id() == self.id { Ok(key) } else { Err(broken()) }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.clear();
        out.put(&self.nonce).put(&self.sealed);
        with_checksum(out)
    }

    /// From its bytes.
    ///
    /// # Errors
    /// [`SealError::Format`] when that is not what they are.
    pub fn decode(bytes: &[u8]) -> Result<WrappedVeil, SealError> {
        WrappedVeil::read(bytes).map_err(|source| SealError::Format { what: WHAT, source })
    }

    fn read(bytes: &[u8]) -> Result<WrappedVeil, FormatError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::Magic { expected: "VGVK" });
        }
        let mut from = checked(bytes)?;
        from.take("magic", MAGIC.len())?;
        version(&mut from, VERSION)?;
        let reserved = from.u16("reserved")?;
        require("reserved", reserved, "0", reserved == 0)?;
        let wrapped = WrappedVeil {
            group: GroupId(from.array("group")?),
            by: KeyId(from.array("by")?),
            id: KeyId(from.array("id")?),
            made: from.u64("made")?,
            nonce: from.array("nonce")?,
            sealed: from.array("key")?,
        };
        from.finish()?;
        Ok(wrapped)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hex_literal::hex;

    use super::*;
    use crate::veil::tests::key;

    pub(in super::super) const GROUP: GroupId = GroupId([7; 16]);

    /// Made by another implementation of AES-GCM, HKDF and CRC-32C.
    pub(in super::super) const GOLDEN: [u8; VEIL_LEN] = hex!(
        "5647564b00010000070707070707070707070707070707071ec0f4cf29b3fc43"
        "2b5a16e13dd750c70000000000000003050505050505050505050505de72e37c"
        "97674d3a3ee4647343e802c876ae4d2e1a594a12eff4c3eec380a5e0aa955aa9"
        "870a69d83274c09b8dcd8c62efc7652c9221958372c2e1e124d6f0d5c7adf5c7"
        "b8b89b0dddf6b73ea40cee908e8c065b"
    );

    pub(in super::super) fn wrapping_key() -> KeyEncryptionKey {
        let text = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf\n";
        KeyEncryptionKey::from_file_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        let wrapped = WrappedVeil::wrap_with(&wrapping_key(), GROUP, &key(), 3, [5; 12]);
        assert_eq!(wrapped.encode(), GOLDEN);
        assert_eq!(WrappedVeil::decode(&GOLDEN).unwrap(), wrapped);
        let opened = wrapped.unwrap(&wrapping_key(), GROUP).unwrap();
        assert_eq!(**opened.bytes, **key().bytes);
    }

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        let opens = |bytes: &[u8]| {
            WrappedVeil::decode(bytes).and_then(|it| it.unwrap(&wrapping_key(), GROUP)).is_ok()
        };
        for bit in 0..VEIL_LEN * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&bytes), "bit {bit}");
            let mut forged = bytes[..VEIL_LEN - 4].to_vec();
            forged.extend(crc32c::crc32c(&forged).to_be_bytes());
            assert_eq!(opens(&forged), bit >= (VEIL_LEN - 4) * 8, "bit {bit}, forged");
        }
        assert!((0..VEIL_LEN).all(|len| !opens(&GOLDEN[..len])));
    }

    #[test]
    fn another_key_or_group_is_named_not_called_damage() {
        let wrapped = WrappedVeil::decode(&GOLDEN).unwrap();
        let other = KeyEncryptionKey::generate().unwrap();
        let refused = wrapped.unwrap(&other, GROUP).unwrap_err();
        assert!(matches!(refused, SealError::OtherKey { .. }), "{refused}");
        let refused = wrapped.unwrap(&wrapping_key(), GroupId([8; 16])).unwrap_err();
        assert!(matches!(refused, SealError::OtherGroup { .. }), "{refused}");
        let again = WrappedVeil::wrap(&wrapping_key(), GROUP, &key(), 3).unwrap();
        assert_ne!(again, wrapped, "each wrapping has a nonce");
    }
}
