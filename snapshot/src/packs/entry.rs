//! An entry of a pack: the body of each of its sealed frames. Version 2 (1 had no compression):
//!
//! ```text
//! at  size  field    unit   rule
//!  0     1  version  -      2
//!  1     1  codec    -      0 as it is, 1 lz4 block
//!  2     4  length   bytes  of the extent, 1 ..= EXTENT_BYTES_MAX
//!  6    32  id       -      keyed BLAKE3 of the extent
//! 38     -  data     -      the extent, as the codec has it; never longer than the extent
//! ```
//!
//! Integers are big-endian. The key of the ids is HKDF-SHA256 of the data key, no salt, info
//! `vgship extent id v1` and the group.

use std::fmt;

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::limits::EXTENT_LOG2_MAX;

use crate::seal::BODY_MAX;

/// Largest extent. Unit: bytes.
pub const EXTENT_BYTES_MAX: usize = 1 << EXTENT_LOG2_MAX;

const VERSION: u8 = 2;
const CLEAR: usize = 38;
const RAW: u8 = 0;
const LZ4: u8 = 1;

const _: () = assert!(EXTENT_BYTES_MAX + CLEAR <= BODY_MAX, "an extent must fit a frame");

/// Names an extent by its content: keyed BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentId(pub [u8; 32]);

impl fmt::Display for ExtentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ExtentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// An extent as it is stored: compressed where that makes it smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its content's.
    pub id: ExtentId,
    codec: u8,
    length: u32,
    data: Vec<u8>,
}

impl Packed {
    /// Compresses an extent.
    ///
    /// # Panics
    /// When it is empty or longer than [`EXTENT_BYTES_MAX`].
    pub fn new(id: ExtentId, content: &[u8]) -> Packed {
        assert!((1..=EXTENT_BYTES_MAX).contains(&content.len()), "{} bytes", content.len());
        let length = u32::try_from(content.len()).expect("an extent fits 32 bits");
        let small = lz4_flex::block::compress(content);
        let (codec, data) = match small.len() < content.len() {
            true => (LZ4, small),
            false => (RAW, content.to_vec()),
        };
        Packed { id, codec, length, data }
    }

    /// Encoded length. Unit: bytes.
    pub fn encoded_len(&self) -> usize {
        CLEAR + self.data.len()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u8(VERSION).u8(self.codec).u32(self.length).put(&self.id.0).put(&self.data);
    }

    /// The id and the extent of a frame's body.
    pub(super) fn decode(body: &[u8]) -> Result<(ExtentId, Vec<u8>), FormatError> {
        let mut from = Reader::new(body);
        let version = from.u8("version")?;
        if version != VERSION {
            let (found, known) = (u16::from(version), u16::from(VERSION));
            return Err(FormatError::Version { found, known });
        }
        let (codec, length) = (from.u8("codec")?, from.u32("length")?);
        require("codec", codec, "0 or 1", codec <= LZ4)?;
        let fits = (1..=EXTENT_BYTES_MAX).contains(&(length as usize));
        require("length", length, "1 ..= EXTENT_BYTES_MAX bytes", fits)?;
        let id = ExtentId(from.array("id")?);
        let data = from.take("data", from.left())?;
        let short =
            data.len() <= length as usize && (codec != RAW || data.len() == length as usize);
        require("data", data.len() as u64, "no longer than the extent", short)?;
        let wrong = FormatError::Field {
            field: "data",
            found: data.len() as u64,
            rule: "an lz4 block of the extent's length",
        };
        let content = match codec {
            RAW => data.to_vec(),
            _ => match lz4_flex::block::decompress(data, length as usize) {
                Ok(content) if content.len() == length as usize => content,
                _ => return Err(wrong),
            },
        };
        Ok((id, content))
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// By hand from the table; three bytes do not become fewer.
    const GOLDEN: [u8; 41] = hex!(
        "02" "00" "00000003" "abababababababababababababababababababababababababababababababab"
        "010203"
    );

    fn encoded(packed: &Packed) -> Vec<u8> {
        let mut out = Writer::default();
        packed.encode(&mut out);
        assert_eq!(out.len(), packed.encoded_len());
        out.into_vec()
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        let id = ExtentId([0xab; 32]);
        assert_eq!(encoded(&Packed::new(id, &[1, 2, 3])), GOLDEN);
        assert_eq!(Packed::decode(&GOLDEN), Ok((id, vec![1, 2, 3])));
    }

    #[test]
    fn what_repeats_takes_little_and_comes_back_whole() {
        let mut content = vec![7; EXTENT_BYTES_MAX];
        content[5000..5100].fill(8);
        let packed = Packed::new(ExtentId([1; 32]), &content);
        assert!(packed.encoded_len() < content.len() / 50);
        assert_eq!(Packed::decode(&encoded(&packed)).unwrap().1, content);
    }

    #[test]
    fn what_was_never_written_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(Packed::decode(&GOLDEN[..len]).is_err(), "{len}");
        }
        for (at, value) in [(0, 1), (1, 2), (2, 1), (5, 0), (5, 2), (1, 1)] {
            let mut bytes = GOLDEN;
            bytes[at] = value;
            assert!(Packed::decode(&bytes).is_err(), "{value} at {at}");
        }
        let mut bomb = encoded(&Packed::new(ExtentId([1; 32]), &[0; 9000]));
        bomb[2..6].copy_from_slice(&8999u32.to_be_bytes());
        assert!(Packed::decode(&bomb).is_err(), "more than it says");
        bomb[2..6].copy_from_slice(&9001u32.to_be_bytes());
        assert!(Packed::decode(&bomb).is_err(), "less than it says");
    }
}
