//! Keys: a group's data key, the key-encryption key from a key file, and the data key wrapped.
//!
//! A key file is 64 hexadecimal digits and may end in a newline (`openssl rand -hex 32`).
//!
//! A wrapped data key, version 1:
//!
//! ```text
//! at  size  field     unit  rule
//!  0     4  magic     -     the letters VGDK
//!  4     2  version   -     1
//!  6     2  reserved  -     0, else refused
//!  8    16  group     -     whose data key it is
//! 24     8  key id    -     of the key-encryption key
//! 32    12  nonce     -     random for each wrapping
//! 44    32  key       -     the data key, AES-256-GCM; bytes 0..32 are authenticated with it
//! 76    16  tag       -     of the seal
//! 92     4  crc       -     CRC-32C of bytes 0..92
//! ```
//!
//! Integers are big-endian. A key id is HKDF-SHA256 of the key (no salt, info `vgship key id v1`),
//! 8 bytes: it names a key without telling anything of it.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::ids::GroupId;
use zeroize::Zeroizing;

use super::cipher::{Cipher, NONCE_LEN, TAG_LEN};
use super::{SealError, random};

/// Length of a wrapped data key. Unit: bytes.
pub const WRAPPED_LEN: usize = 96;

const MAGIC: [u8; 4] = *b"VGDK";
const VERSION: u16 = 1;
const WHAT: &str = "wrapped data key";
const CLEAR_LEN: usize = 32;

/// Names a key without telling anything of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// 32 secret bytes, wiped when dropped. Whoever moves them moves a pointer and leaves no copy behind.
#[derive(Clone)]
struct Secret {
    bytes: Box<Zeroizing<[u8; 32]>>,
    id: KeyId,
}

impl Secret {
    fn new(bytes: Zeroizing<[u8; 32]>) -> Secret {
        let mut id = [0; 8];
        derive(bytes.as_slice(), None, &[b"vgship key id v1"], &mut id);
        Secret { bytes: Box::new(bytes), id: KeyId(id) }
    }

    fn generate() -> Result<Secret, SealError> {
        random().map(|bytes| Secret::new(Zeroizing::new(bytes)))
    }
}

pub(crate) fn derive(key: &[u8], salt: Option<&[u8]>, info: &[&[u8]], into: &mut [u8]) {
    Hkdf::<Sha256>::new(salt, key)
        .expand_multi_info(info, into)
        .expect("at most 32 bytes are derived, HKDF-SHA256 gives 8160");
}

/// A group's data key: what the keys of its sealed files are derived from.
#[derive(Clone)]
pub struct DataKey(Secret);

impl fmt::Debug for DataKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DataKey({})", self.0.id)
    }
}

impl DataKey {
    /// The key that these bytes are.
    pub fn from_bytes(bytes: [u8; 32]) -> DataKey {
        DataKey(Secret::new(Zeroizing::new(bytes)))
    }

    /// A new key.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn generate() -> Result<DataKey, SealError> {
        Secret::generate().map(DataKey)
    }

    /// Names it.
    pub const fn id(&self) -> KeyId {
        self.0.id
    }

    /// A key for one purpose, told apart by `info`: never the key itself.
    pub(crate) fn derive(&self, salt: Option<&[u8]>, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        derive(self.0.bytes.as_slice(), salt, info, key.as_mut());
        key
    }
}

/// What wraps data keys: the content of a key file.
#[derive(Clone)]
pub struct KeyEncryptionKey(Secret);

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyEncryptionKey({})", self.0.id)
    }
}

impl KeyEncryptionKey {
    /// A new key.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn generate() -> Result<KeyEncryptionKey, SealError> {
        Secret::generate().map(KeyEncryptionKey)
    }

    /// From the bytes of a key file. That only its owner may read the file is for the caller to
    /// check.
    ///
    /// # Errors
    /// [`SealError::KeyFile`] unless it is 64 hexadecimal digits and perhaps a newline.
    pub fn from_file_bytes(file: &[u8]) -> Result<KeyEncryptionKey, SealError> {
        let refused = || SealError::KeyFile { len: file.len() };
        let digits = file.strip_suffix(b"\n").unwrap_or(file);
        let (pairs, []) = digits.as_chunks::<2>() else { return Err(refused()) };
        let mut bytes = Zeroizing::new([0; 32]);
        if pairs.len() != bytes.len() {
            return Err(refused());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            let (high, low) = (digit(high).ok_or_else(refused)?, digit(low).ok_or_else(refused)?);
            *byte = high << 4 | low;
        }
        Ok(KeyEncryptionKey(Secret::new(bytes)))
    }

    /// The key that these bytes are.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> KeyEncryptionKey {
        KeyEncryptionKey(Secret::new(bytes))
    }

    /// What its key file holds.
    pub fn to_file_bytes(&self) -> Zeroizing<Vec<u8>> {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        let digits = self.0.bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        Zeroizing::new(digits.chain([b'\n']).collect())
    }

    /// Names it.
    pub const fn id(&self) -> KeyId {
        self.0.id
    }

    /// Encrypts another secret in place; `clear` is authenticated with it. The nonce is random for
    /// each.
    pub(crate) fn cover(
        &self,
        nonce: [u8; NONCE_LEN],
        clear: &[u8],
        secret: &mut [u8],
    ) -> [u8; TAG_LEN] {
        Cipher::new(&self.0.bytes).seal(nonce, clear, secret)
    }

    /// Decrypts such a secret with its tag behind it, in place; `None` when it is not what was
    /// covered.
    pub(crate) fn uncover<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        clear: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        Cipher::new(&self.0.bytes).open(nonce, clear, sealed).ok()
    }

    /// Wraps a group's data key: bytes that may lie beside the data.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn wrap(&self, group: GroupId, key: &DataKey) -> Result<Vec<u8>, SealError> {
        Ok(self.wrap_with(group, key, random()?))
    }

    fn wrap_with(&self, group: GroupId, key: &DataKey, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let mut out = Writer::with_capacity(WRAPPED_LEN);
        out.put(&MAGIC).u16(VERSION).u16(0).put(&group.0).put(&self.0.id.0);
        let mut body = (*key.0.bytes).clone();
        let tag = Cipher::new(&self.0.bytes).seal(nonce, out.as_slice(), body.as_mut());
        out.put(&nonce).put(body.as_ref()).put(&tag);
        with_checksum(out)
    }

    /// Unwraps a group's data key.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] when another key wrapped it, [`SealError::OtherGroup`] when it is
    /// another group's, [`SealError::Format`] or [`SealError::Broken`] when it is damaged.
    pub fn unwrap(&self, group: GroupId, wrapped: &[u8]) -> Result<DataKey, SealError> {
        let found =
            Wrapped::decode(wrapped).map_err(|source| SealError::Format { what: WHAT, source })?;
        if found.group != group {
            return Err(SealError::OtherGroup { what: WHAT, found: found.group, ours: group });
        }
        if found.by != self.id() {
            return Err(SealError::OtherKey { what: WHAT, found: found.by, ours: self.id() });
        }
        let mut sealed = Zeroizing::new(found.sealed);
        let opened = Cipher::new(&self.0.bytes)
            .open(found.nonce, &wrapped[..CLEAR_LEN], sealed.as_mut())
            .map_err(|_| SealError::Broken { what: WHAT, offset: CLEAR_LEN as u64 })?;
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(opened);
        Ok(DataKey(Secret::new(key)))
    }
}

struct Wrapped {
    group: GroupId,
    by: KeyId,
    nonce: [u8; NONCE_LEN],
    sealed: [u8; 32 + TAG_LEN],
}

impl Wrapped {
    fn decode(bytes: &[u8]) -> Result<Wrapped, FormatError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::Magic { expected: "VGDK" });
        }
        let mut from = checked(bytes)?;
        from.take("magic", MAGIC.len())?;
        version(&mut from, VERSION)?;
        let reserved = from.u16("reserved")?;
        require("reserved", reserved, "0", reserved == 0)?;
        let (group, by) = (GroupId(from.array("group")?), KeyId(from.array("key id")?));
        let (nonce, sealed) = (from.array("nonce")?, from.array("key")?);
        from.finish()?;
        Ok(Wrapped { group, by, nonce, sealed })
    }
}

/// Reads a version and refuses those that this program does not know.
pub(crate) fn version(from: &mut Reader<'_>, known: u16) -> Result<(), FormatError> {
    match from.u16("version")? {
        found if found == known => Ok(()),
        found => Err(FormatError::Version { found, known }),
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const GROUP: GroupId = GroupId([7; 16]);

    /// Made by another implementation of AES-GCM, HKDF and CRC-32C.
    const GOLDEN: [u8; WRAPPED_LEN] = hex!(
        "5647444b" "0001" "0000" "07070707070707070707070707070707" "1ec0f4cf29b3fc43"
        "050505050505050505050505"
        "f96bc967bb27db7815be0e503b9439e104f6286a2a3ccf6c6eb48ebcb90bcdd8"
        "fa5fae48c35852b1a31662afb2739b9c" "5116f0f8"
    );

    fn data_key() -> DataKey {
        DataKey::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    fn wrapping_key() -> KeyEncryptionKey {
        let text = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf\n";
        KeyEncryptionKey::from_file_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(data_key().id(), KeyId(hex!("7db280656ffb0448")));
        assert_eq!(wrapping_key().wrap_with(GROUP, &data_key(), [5; 12]), GOLDEN);
        assert_eq!(wrapping_key().unwrap(GROUP, &GOLDEN).unwrap().id(), data_key().id());
    }

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        for bit in 0..WRAPPED_LEN * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(wrapping_key().unwrap(GROUP, &bytes).is_err(), "bit {bit}");
            let mut forged = bytes[..WRAPPED_LEN - 4].to_vec();
            forged.extend(crc32c::crc32c(&forged).to_be_bytes());
            let kept = bit >= (WRAPPED_LEN - 4) * 8;
            assert_eq!(wrapping_key().unwrap(GROUP, &forged).is_ok(), kept, "bit {bit}, forged");
        }
        for len in 0..WRAPPED_LEN {
            assert!(wrapping_key().unwrap(GROUP, &GOLDEN[..len]).is_err());
        }
    }

    #[test]
    fn another_key_or_group_is_named_not_called_damage() {
        let other = KeyEncryptionKey::generate().unwrap();
        let wrapped = other.wrap(GROUP, &data_key()).unwrap();
        let refused = wrapping_key().unwrap(GROUP, &wrapped).unwrap_err();
        assert!(matches!(refused, SealError::OtherKey { .. }) && !refused.is_damage());
        let refused = other.unwrap(GroupId([8; 16]), &wrapped).unwrap_err();
        assert!(matches!(refused, SealError::OtherGroup { .. }));
        assert_ne!(wrapped, other.wrap(GROUP, &data_key()).unwrap(), "each wrapping has a nonce");
    }

    #[test]
    fn a_key_file_is_read_as_it_was_written_and_nothing_else_is_taken() {
        let file = wrapping_key().to_file_bytes();
        assert_eq!(KeyEncryptionKey::from_file_bytes(&file).unwrap().id(), wrapping_key().id());
        for bad in [&b""[..], &file[..63], &file[..65].repeat(2), &[b'g'; 64], &[b'0'; 32]] {
            let refused = KeyEncryptionKey::from_file_bytes(bad);
            assert!(matches!(refused, Err(SealError::KeyFile { .. })));
        }
    }

    #[test]
    fn a_key_that_moves_leaves_no_copy_behind() {
        let key = data_key();
        let at = key.0.bytes.as_ptr();
        let moved = [key];
        assert_eq!(moved[0].0.bytes.as_ptr(), at);
    }

    #[test]
    fn debug_shows_no_key() {
        let (key, wrapping) = (format!("{:?}", data_key()), format!("{:?}", wrapping_key()));
        assert_eq!(key, "DataKey(7db280656ffb0448)");
        assert_eq!(wrapping, "KeyEncryptionKey(1ec0f4cf29b3fc43)");
    }
}
