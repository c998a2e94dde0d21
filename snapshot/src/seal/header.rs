//! How a sealed file begins, version 1.
//!
//! ```text
//! at  size  field    unit  rule
//!  0     4  magic    -     the letters VGSF
//!  4     2  version  -     1
//!  6     2  purpose  -     1 journal, 2 spill, 3 pack, 4 template pack, 5 template node
//!  8    16  group    -     whose file it is
//! 24     8  key id   -     of the data key
//! 32    32  salt     -     random for each file
//! 64     4  crc      -     CRC-32C of bytes 0..64
//! ```
//!
//! Integers are big-endian. The file's key is HKDF-SHA256 of the data key with `salt` and the info
//! `vgship file seal v1`, purpose, group: with another header no frame opens.

use vgship_base::bytes::{FormatError, Writer, checked, with_checksum};
use vgship_base::ids::GroupId;

use super::cipher::Cipher;
use super::key::{DataKey, KeyId, version};
use super::ring::Keys;
use super::{Purpose, SealError};

/// Unit: bytes.
pub(super) const LEN: usize = 68;

const MAGIC: [u8; 4] = *b"VGSF";
const VERSION: u16 = 1;
const WHAT: &str = "header of a sealed file";

/// What a sealed file says of itself in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) purpose: Purpose,
    pub(super) group: GroupId,
    pub(super) key: KeyId,
    pub(super) salt: [u8; 32],
}

impl FileHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(LEN);
        out.put(&MAGIC).u16(VERSION).u16(self.purpose.code()).put(&self.group.0);
        out.put(&self.key.0).put(&self.salt);
        with_checksum(out)
    }

    pub(super) fn decode(bytes: &[u8; LEN]) -> Result<FileHeader, FormatError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::Magic { expected: "VGSF" });
        }
        let mut from = checked(bytes)?;
        from.take("magic", MAGIC.len())?;
        version(&mut from, VERSION)?;
        let code = from.u16("purpose")?;
        let rule = "a known purpose";
        let unknown = FormatError::Field { field: "purpose", found: code.into(), rule };
        let purpose = Purpose::from_code(code).ok_or(unknown)?;
        let (group, key) = (GroupId(from.array("group")?), KeyId(from.array("key id")?));
        let salt = from.array("salt")?;
        from.finish()?;
        Ok(FileHeader { purpose, group, key, salt })
    }

    /// Reads a header and refuses files that are not ours.
    pub(super) fn expect(
        bytes: &[u8; LEN],
        purpose: Purpose,
        group: GroupId,
    ) -> Result<FileHeader, SealError> {
        let found =
            FileHeader::decode(bytes).map_err(|source| SealError::Format { what: WHAT, source })?;
        if found.group != group {
            return Err(SealError::OtherGroup { what: "file", found: found.group, ours: group });
        }
        if found.purpose != purpose {
            return Err(SealError::OtherPurpose { found: found.purpose, ours: purpose });
        }
        Ok(found)
    }

    /// The key that it needs, of those that are given.
    pub(super) fn key_of(&self, keys: &impl Keys) -> Result<DataKey, SealError> {
        keys.find(self.key, "file")
    }

    /// The cipher of this one file.
    pub(super) fn cipher(&self, key: &DataKey) -> Cipher {
        let purpose = self.purpose.code().to_be_bytes();
        let info: [&[u8]; 3] = [b"vgship file seal v1", &purpose, &self.group.0];
        Cipher::new(&key.derive(Some(&self.salt), &info))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hex_literal::hex;

    use super::*;

    /// The checksum and the key id were computed by another program.
    pub(in super::super) const GOLDEN: [u8; LEN] = hex!(
        "56475346" "0001" "0001" "07070707070707070707070707070707" "7db280656ffb0448"
        "0909090909090909090909090909090909090909090909090909090909090909" "4e7f8906"
    );

    pub(in super::super) fn key() -> DataKey {
        DataKey::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    fn header() -> FileHeader {
        let (purpose, group) = (Purpose::Journal, GroupId([7; 16]));
        FileHeader { purpose, group, key: key().id(), salt: [9; 32] }
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(header().encode(), GOLDEN);
        assert_eq!(FileHeader::decode(&GOLDEN), Ok(header()));
        let info: [&[u8]; 3] = [b"vgship file seal v1", &[0, 1], &[7; 16]];
        let known = hex!("fbf003b742b0473170dcc4eb6433730e9ec533cbcd9ef390cec57cbee693c670");
        assert_eq!(*key().derive(Some(&[9; 32]), &info), known);
    }

    #[test]
    fn every_flip_is_noticed() {
        for bit in 0..LEN * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_of_others_is_named_not_called_damage() {
        let ours = |purpose, group| FileHeader::expect(&GOLDEN, purpose, group);
        assert!(ours(Purpose::Journal, GroupId([7; 16])).is_ok());
        let found = ours(Purpose::Spill, GroupId([7; 16])).unwrap_err();
        assert!(matches!(found, SealError::OtherPurpose { .. }) && !found.is_damage());
        let found = ours(Purpose::Journal, GroupId([8; 16])).unwrap_err();
        assert!(matches!(found, SealError::OtherGroup { .. }) && !found.is_damage());
        let other = DataKey::from_bytes([1; 32]);
        let whole = ours(Purpose::Journal, GroupId([7; 16])).unwrap();
        assert!(matches!(whole.key_of(&other), Err(SealError::OtherKey { .. })));
        assert_eq!(whole.key_of(&key()).unwrap().id(), key().id());
    }

    #[test]
    fn every_purpose_has_a_number_of_its_own() {
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::from_code(purpose.code()), Some(purpose));
        }
        assert_eq!(Purpose::ALL.map(Purpose::code), [1, 2, 3, 4, 5]);
        assert_eq!(Purpose::from_code(0), None);
    }
}
