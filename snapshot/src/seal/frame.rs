//! A frame of a sealed file: a cleartext header, a sealed body, a tag. Version 1, as the file says.
//!
//! ```text
//! at      size  field   unit   rule
//!  0         4  magic   -      the letters VGFR
//!  4         4  len     bytes  of the body, 1 ..= BODY_MAX
//!  8         8  number  -      0, 1, 2 ... in the file; also the nonce (4 zeroes before it)
//! 16         4  crc     -      CRC-32C of bytes 0..16
//! 20       len  body    -      AES-256-GCM with the file's key
//! 20+len    16  tag     -      over the body and: group (16), purpose (2), number (8), bytes 0..20
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Reader, Writer, require, with_checksum};
use vgship_base::ids::GroupId;
use vgship_base::limits::BATCH_BYTES_MAX;

use super::cipher::{Cipher, NONCE_LEN, Refused, TAG_LEN};
use super::header::{self, FileHeader};
use super::ring::Keys;
use super::{DataKey, Purpose, SealError, random};

/// Largest body of a frame. Unit: bytes. A full batch of records and what its container adds.
pub const BODY_MAX: usize = BATCH_BYTES_MAX + 256;

/// Encoded length of a frame's header. Unit: bytes.
pub(super) const HEAD_LEN: usize = 20;
/// What a frame adds to its body. Unit: bytes.
pub(super) const OVERHEAD: usize = HEAD_LEN + TAG_LEN;

const MAGIC: [u8; 4] = *b"VGFR";
const AAD_LEN: usize = 16 + 2 + 8 + HEAD_LEN;

/// What a frame says of itself in clear. Not proven until its body opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) number: u64,
}

impl Head {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Writer::with_capacity(HEAD_LEN);
        out.put(&MAGIC).u32(self.len).u64(self.number);
        with_checksum(out)
    }

    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Result<Head, FormatError> {
        let mut from = Reader::new(bytes);
        if from.array("magic")? != MAGIC {
            return Err(FormatError::Magic { expected: "VGFR" });
        }
        let (len, number, found) = (from.u32("len")?, from.u64("number")?, from.u32("crc")?);
        let computed = crc32c::crc32c(&bytes[..HEAD_LEN - 4]);
        if found != computed {
            return Err(FormatError::Checksum { found, computed });
        }
        require("len", len, "1 ..= BODY_MAX", (1..=BODY_MAX).contains(&(len as usize)))?;
        Ok(Head { len, number })
    }

    /// Body and tag. Unit: bytes.
    pub(super) const fn sealed_len(self) -> usize {
        self.len as usize + TAG_LEN
    }
}

/// The seal of one file's frames, without the file. Gives each number once, ascending.
pub struct Frames {
    seal: Seal,
    next: u64,
}

impl Frames {
    /// The seal of a new file, and the bytes that the file must begin with.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn begin(
        key: &DataKey,
        purpose: Purpose,
        group: GroupId,
    ) -> Result<(Frames, Vec<u8>), SealError> {
        let header = FileHeader { purpose, group, key: key.id(), salt: random()? };
        let bytes = header.encode();
        Ok((Frames { seal: Seal::new(&header, key), next: 0 }, bytes))
    }

    /// The number that the next frame gets.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Appends one frame to `out`: `fill` writes its body of exactly `len` bytes, which is then
    /// sealed where it lies. Returns the frame's number.
    ///
    /// # Panics
    /// When `len` is 0 or over [`BODY_MAX`], or `fill` writes another length.
    pub fn seal(&mut self, out: &mut Vec<u8>, len: usize, fill: impl FnOnce(&mut Writer)) -> u64 {
        assert!((1..=BODY_MAX).contains(&len), "a body of {len} bytes");
        let (start, number) = (out.len(), self.next);
        self.next += 1;
        let len_field = u32::try_from(len).expect("BODY_MAX fits 32 bits");
        let head = Head { len: len_field, number }.encode();
        let mut writer = Writer::reusing(std::mem::take(out));
        writer.put(&head);
        fill(&mut writer);
        *out = writer.into_vec();
        let body = &mut out[start + HEAD_LEN..];
        assert_eq!(body.len(), len, "a body has the length that was told");
        let tag = self.seal.seal(number, &head, body);
        out.extend_from_slice(&tag);
        number
    }
}

/// One file's cipher and what its frames are bound to.
pub(super) struct Seal {
    cipher: Cipher,
    bound: [u8; 18],
}

impl Seal {
    fn new(header: &FileHeader, key: &DataKey) -> Seal {
        let mut bound = [0; 18];
        bound[..16].copy_from_slice(&header.group.0);
        bound[16..].copy_from_slice(&header.purpose.code().to_be_bytes());
        Seal { cipher: header.cipher(key), bound }
    }

    /// The seal of an existing file, to open its frames.
    pub(super) fn of(
        bytes: &[u8; header::LEN],
        keys: &impl Keys,
        purpose: Purpose,
        group: GroupId,
    ) -> Result<Seal, SealError> {
        let header = FileHeader::expect(bytes, purpose, group)?;
        Ok(Seal::new(&header, &header.key_of(keys)?))
    }

    fn aad(&self, number: u64, head: &[u8]) -> [u8; AAD_LEN] {
        let mut aad = [0; AAD_LEN];
        aad[..18].copy_from_slice(&self.bound);
        aad[18..26].copy_from_slice(&number.to_be_bytes());
        aad[26..].copy_from_slice(head);
        aad
    }

    fn seal(&self, number: u64, head: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        self.cipher.seal(nonce(number), &self.aad(number, head), body)
    }

    /// Opens body and tag of frame `number` in place; what is left is the body.
    pub(super) fn open(
        &self,
        number: u64,
        head: &[u8; HEAD_LEN],
        sealed: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let len = self.cipher.open(nonce(number), &self.aad(number, head), sealed)?.len();
        sealed.truncate(len);
        Ok(())
    }
}

fn nonce(number: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::super::header::tests::{GOLDEN as HEADER, key};
    use super::*;

    const GROUP: GroupId = GroupId([7; 16]);

    /// Frame 3 of the golden header's file, made by another implementation.
    const GOLDEN: [u8; 47] = hex!(
        "56474652" "0000000b" "0000000000000003" "e35eb59f"
        "e85c176df0c6d5ccb15429" "f074ba43464ff57930ae058cd6137214"
    );

    fn golden_seal() -> Seal {
        Seal::of(&HEADER, &key(), Purpose::Journal, GROUP).unwrap()
    }

    fn open(seal: &Seal, frame: &[u8], number: u64) -> Option<Vec<u8>> {
        let (head, sealed) = frame.split_first_chunk::<HEAD_LEN>()?;
        let found = Head::decode(head).ok().filter(|found| found.number == number)?;
        let mut body = sealed.get(..found.sealed_len())?.to_vec();
        seal.open(number, head, &mut body).ok().map(|()| body)
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        let mut frames = Frames { seal: golden_seal(), next: 3 };
        let mut out = Vec::new();
        let number = frames.seal(&mut out, 11, |body| {
            body.put(b"sealed body");
        });
        assert_eq!((number, frames.next()), (3, 4));
        assert_eq!(out, GOLDEN);
        assert_eq!(open(&golden_seal(), &GOLDEN, 3).as_deref(), Some(&b"sealed body"[..]));
    }

    #[test]
    fn every_flip_and_every_cut_is_refused() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&golden_seal(), &bytes, 3), None, "bit {bit}");
        }
        for len in 0..GOLDEN.len() {
            assert_eq!(open(&golden_seal(), &GOLDEN[..len], 3), None, "{len} bytes");
        }
    }

    #[test]
    fn a_frame_opens_nowhere_but_in_its_place() {
        let begin = |purpose, group| {
            let (mut frames, header) = Frames::begin(&key(), purpose, group).unwrap();
            let mut out = Vec::new();
            frames.seal(&mut out, 4, |body| {
                body.put(b"here");
            });
            let header: [u8; header::LEN] = header.try_into().unwrap();
            (Seal::of(&header, &key(), purpose, group).unwrap(), out)
        };
        let (seal, frame) = begin(Purpose::Journal, GROUP);
        assert!(open(&seal, &frame, 0).is_some());
        assert!(open(&begin(Purpose::Journal, GROUP).0, &frame, 0).is_none(), "another file");
        assert!(open(&begin(Purpose::Spill, GROUP).0, &frame, 0).is_none(), "another purpose");
        let other = GroupId([8; 16]);
        assert!(open(&begin(Purpose::Journal, other).0, &frame, 0).is_none(), "another group");
        let mut moved = Head { len: 4, number: 1 }.encode();
        moved.extend_from_slice(&frame[HEAD_LEN..]);
        assert!(open(&seal, &moved, 1).is_none(), "another number");
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_use() {
        for len in [0, u32::try_from(BODY_MAX).unwrap() + 1, u32::MAX] {
            let bytes: [u8; HEAD_LEN] = Head { len, number: 0 }.encode().try_into().unwrap();
            assert!(matches!(Head::decode(&bytes), Err(FormatError::Field { .. })), "{len}");
        }
    }
}
