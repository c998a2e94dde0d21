//! Sealed objects: what is written once, as a whole, into a store that knows objects and no disks.
//!
//! Layout: the header of a sealed file, then frames back to back. Each frame says its own number
//! and length and opens by itself, so that one of them can be read without the others. Bound to no
//! group: a template's objects are shared by whatever is sealed with the same key.

use vgship_base::bytes::Writer;
use vgship_base::ids::GroupId;

use super::frame::{Frames, HEAD_LEN, Head, OVERHEAD, Seal};
use super::header::{self, FileHeader};
use super::{DataKey, KeyId, Purpose, SealError};

/// Length of the header that an object begins with. Unit: bytes.
pub(crate) const HEADER_LEN: usize = header::LEN;
/// What a frame adds to its body. Unit: bytes.
pub(crate) const FRAME_OVERHEAD: usize = OVERHEAD;

const HEADER: &str = "header of a sealed object";
const FRAME: &str = "frame of a sealed object";
const NO_GROUP: GroupId = GroupId([0; 16]);

/// Builds one sealed object in memory.
pub(crate) struct ObjectSealer {
    frames: Frames,
    bytes: Vec<u8>,
}

impl ObjectSealer {
    /// Begins an object, with a key of its own.
    pub(crate) fn begin(key: &DataKey, purpose: Purpose) -> Result<ObjectSealer, SealError> {
        let (frames, bytes) = Frames::begin(key, purpose, NO_GROUP)?;
        Ok(ObjectSealer { frames, bytes })
    }

    /// The same in memory that is used again, with room for `bytes` behind the header: a large
    /// object that grows step by step is moved each time.
    pub(crate) fn begin_in(
        mut memory: Vec<u8>,
        bytes: usize,
        key: &DataKey,
        purpose: Purpose,
    ) -> Result<ObjectSealer, SealError> {
        let (frames, header) = Frames::begin(key, purpose, NO_GROUP)?;
        memory.clear();
        memory.reserve_exact(header.len() + bytes);
        memory.extend_from_slice(&header);
        Ok(ObjectSealer { frames, bytes: memory })
    }

    /// Appends a frame, whose body of `len` bytes `fill` writes; gives where it begins.
    pub(crate) fn append(&mut self, len: usize, fill: impl FnOnce(&mut Writer)) -> usize {
        let at = self.bytes.len();
        self.frames.seal(&mut self.bytes, len, fill);
        at
    }

    /// How long the object is. Unit: bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The object's bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Opens the frames of one sealed object.
pub(crate) struct ObjectOpener {
    seal: Seal,
}

impl ObjectOpener {
    /// From the object's header, with which `bytes` begins.
    pub(crate) fn of(
        bytes: &[u8],
        key: &DataKey,
        purpose: Purpose,
    ) -> Result<ObjectOpener, SealError> {
        Ok(ObjectOpener { seal: Seal::of(head_of(bytes)?, key, purpose, NO_GROUP)? })
    }

    /// The body of the frame that stands at the head of `bytes`, and how long the frame is.
    pub(crate) fn open(&self, bytes: &[u8]) -> Result<(Vec<u8>, usize), SealError> {
        let broken = || SealError::Broken { what: FRAME, offset: 0 };
        let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>().ok_or_else(broken)?;
        let found =
            Head::decode(head).map_err(|source| SealError::Format { what: FRAME, source })?;
        let mut body = rest.get(..found.sealed_len()).ok_or_else(broken)?.to_vec();
        self.seal.open(found.number, head, &mut body).map_err(|_| broken())?;
        Ok((body, HEAD_LEN + found.sealed_len()))
    }
}

/// Which key a sealed object needs, from its header in clear.
pub(crate) fn key_of(bytes: &[u8]) -> Result<KeyId, SealError> {
    let found = FileHeader::decode(head_of(bytes)?);
    found.map(|it| it.key).map_err(|source| SealError::Format { what: HEADER, source })
}

fn head_of(bytes: &[u8]) -> Result<&[u8; HEADER_LEN], SealError> {
    bytes.first_chunk().ok_or(SealError::Broken { what: HEADER, offset: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &DataKey) -> (Vec<u8>, [usize; 2]) {
        let mut sealer = ObjectSealer::begin(key, Purpose::TemplatePack).unwrap();
        let places = [b"one", b"two"].map(|text| {
            sealer.append(3, |out| {
                out.put(text);
            })
        });
        assert_eq!(sealer.len(), HEADER_LEN + 2 * (3 + FRAME_OVERHEAD));
        (sealer.finish(), places)
    }

    #[test]
    fn each_frame_opens_by_itself() {
        let key = DataKey::from_bytes([1; 32]);
        let (bytes, [first, second]) = object(&key);
        assert_eq!((first, key_of(&bytes).unwrap()), (HEADER_LEN, key.id()));
        let opener = ObjectOpener::of(&bytes, &key, Purpose::TemplatePack).unwrap();
        let len = 3 + FRAME_OVERHEAD;
        assert_eq!(opener.open(&bytes[second..]).unwrap(), (b"two".to_vec(), len));
        assert_eq!(opener.open(&bytes[first..]).unwrap(), (b"one".to_vec(), len));
        assert!(opener.open(&bytes[first..second - 1]).is_err(), "cut short");
        assert!(opener.open(&bytes[first + 1..]).is_err(), "no frame");
    }

    #[test]
    fn objects_of_others_are_refused() {
        let key = DataKey::from_bytes([1; 32]);
        let (bytes, [first, _]) = object(&key);
        let other = DataKey::from_bytes([2; 32]);
        let refused = ObjectOpener::of(&bytes, &other, Purpose::TemplatePack).err().unwrap();
        assert!(matches!(refused, SealError::OtherKey { .. }));
        assert!(ObjectOpener::of(&bytes, &key, Purpose::TemplateNode).is_err());
        assert!(ObjectOpener::of(&bytes[..HEADER_LEN - 1], &key, Purpose::TemplatePack).is_err());
        let (again, _) = object(&key);
        assert_ne!(again, bytes, "each object has a key of its own");
        let opener = ObjectOpener::of(&again, &key, Purpose::TemplatePack).unwrap();
        assert!(opener.open(&bytes[first..]).is_err());
    }
}
