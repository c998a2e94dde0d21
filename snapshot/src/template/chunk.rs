//! A chunk of a volume as a frame of a pack holds it, version 1, as the sealed header says.
//!
//! ```text
//! at  size  field    unit  rule
//!  0     1  codec    -     0 as it is, 1 an LZ4 block
//!  1     n  content  -     n >= 1; with codec 1 less than the chunk has
//! ```
//!
//! How long the chunk is, and what it is, says who refers to it: its id is the keyed BLAKE3 of its
//! content. The key of the ids is HKDF-SHA256 of the data key, no salt, info `vgship chunk id v1`.
//! So equal chunks have one id wherever they stand, and nobody without the data key can tell from
//! an id what was stored. A chunk of zeroes has no id and is not stored.

use std::fmt;

use thiserror::Error;
use vgship_base::limits::EXTENT_LOG2_MAX;
use zeroize::Zeroizing;

use super::place::hex;
use crate::seal::{BODY_MAX, DataKey};

/// Chunk size unless a template says otherwise. Unit: log2 of bytes.
///
/// 256 KiB: a scattered change of one extent of 64 KiB costs four times its size, while what is
/// said of all chunks stays at 42 bytes for each, 168 MiB for a TiB, and what is kept in memory of
/// them at 18, 72 MiB. At 64 KiB the first falls to nothing and the others grow to four times as
/// much, which every creation reads, and keeps.
pub const CHUNK_LOG2_DEFAULT: u8 = 18;

const RAW: u8 = 0;
const LZ4: u8 = 1;

const _: () = assert!((1 << EXTENT_LOG2_MAX) < BODY_MAX, "a chunk and its codec must fit a frame");

/// Names a chunk by its content: keyed BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl fmt::Display for ChunkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why what was sealed is not the chunk that is meant.
#[derive(Debug, Error)]
pub enum ChunkError {
    /// Of a newer version.
    #[error("codec {0} is not known to this program")]
    Codec(u8),
    /// Not as long as the chunk.
    #[error("it has {found} bytes, not {expected}")]
    Length {
        /// Unit: bytes.
        found: usize,
        /// Unit: bytes.
        expected: usize,
    },
    /// The LZ4 block is none.
    #[error("it cannot be decompressed")]
    Compression(#[source] lz4_flex::block::DecompressError),
    /// Something else is stored there.
    #[error("its content is not that of chunk {0}")]
    Content(ChunkId),
}

/// Gives chunks their ids.
#[derive(Clone)]
pub(super) struct ChunkNamer(Zeroizing<[u8; 32]>);

impl ChunkNamer {
    pub(super) fn new(key: &DataKey) -> ChunkNamer {
        ChunkNamer(key.derive(None, &[b"vgship chunk id v1"]))
    }

    pub(super) fn name(&self, content: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0, content).as_bytes())
    }
}

/// The frame's body for a chunk: compressed if that makes it smaller.
pub(super) fn encode(content: &[u8]) -> Vec<u8> {
    let worst = lz4_flex::block::get_maximum_output_size(content.len());
    let mut body = vec![LZ4; 1 + worst.max(content.len())];
    let packed = lz4_flex::block::compress_into(content, &mut body[1..]).unwrap_or(usize::MAX);
    if packed < content.len() {
        body.truncate(1 + packed);
    } else {
        body[0] = RAW;
        body[1..=content.len()].copy_from_slice(content);
        body.truncate(1 + content.len());
    }
    body
}

/// The chunk of `len` bytes that a frame's body holds, proven to be `id`.
pub(super) fn decode(
    body: &[u8],
    len: usize,
    id: ChunkId,
    namer: &ChunkNamer,
) -> Result<Vec<u8>, ChunkError> {
    let (codec, stored) = body.split_first().unwrap_or((&RAW, &[]));
    let content = match *codec {
        RAW => stored.to_vec(),
        LZ4 => {
            let mut content = vec![0; len];
            let found = lz4_flex::block::decompress_into(stored, &mut content)
                .map_err(ChunkError::Compression)?;
            content.truncate(found);
            content
        }
        other => return Err(ChunkError::Codec(other)),
    };
    if content.len() != len {
        return Err(ChunkError::Length { found: content.len(), expected: len });
    }
    if namer.name(&content) != id {
        return Err(ChunkError::Content(id));
    }
    Ok(content)
}

/// Whether all bytes are zero.
pub(super) fn is_zero(content: &[u8]) -> bool {
    let (words, rest) = content.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    fn namer() -> ChunkNamer {
        ChunkNamer::new(&DataKey::from_bytes([1; 32]))
    }

    /// An LZ4 block by hand from its specification: one literal `a`, then a match of 15 + 44 + 4
    /// bytes at distance 1, then the last five literals. Other blocks may say the same.
    const PACKED: [u8; 12] = hex!("01" "1f" "61" "0100" "2c" "50" "6161616161");

    #[test]
    fn golden_bytes_hold_both_ways() {
        let content = [b'a'; 69];
        let id = namer().name(&content);
        let ours = encode(&content);
        assert!(ours[0] == LZ4 && ours.len() < 20);
        assert_eq!(decode(&ours, 69, id, &namer()).unwrap(), content);
        assert_eq!(decode(&PACKED, 69, id, &namer()).unwrap(), content);
        let short = namer().name(b"xyz");
        assert_eq!(encode(b"xyz"), hex!("00" "78797a"));
        assert_eq!(decode(&hex!("00" "78797a"), 3, short, &namer()).unwrap(), b"xyz");
        // By other implementations of HKDF-SHA256 and BLAKE3.
        assert_eq!(*namer().0, IDS_KEY);
        assert_eq!(short.0, XYZ_ID);
    }

    const IDS_KEY: [u8; 32] =
        hex!("88e8c0f29555ea479db404dcdc5353f77ddbb1eb47e06be04fef60924f6162b4");
    const XYZ_ID: [u8; 32] =
        hex!("4fa64d05f3732215b3a874270be8406d051d288744f939ceadb9eb79f9153020");

    #[test]
    fn what_is_not_the_chunk_is_refused_without_a_panic() {
        let id = namer().name(&[b'a'; 69]);
        let refused = |body: &[u8], len| decode(body, len, id, &namer()).unwrap_err();
        assert!(matches!(refused(&[7, 1], 69), ChunkError::Codec(7)));
        assert!(matches!(refused(&[], 69), ChunkError::Length { found: 0, expected: 69 }));
        assert!(matches!(refused(b"\0abc", 69), ChunkError::Length { found: 3, .. }));
        let other = [&[0][..], &[b'b'; 69]].concat();
        assert!(matches!(refused(&other, 69), ChunkError::Content(found) if found == id));
        assert!(matches!(refused(&PACKED, 68), ChunkError::Compression(_)));
        assert!(matches!(refused(&PACKED, 70), ChunkError::Length { found: 69, .. }));
        for bit in 8..PACKED.len() * 8 {
            let mut bytes = PACKED;
            bytes[bit / 8] ^= 1 << (bit % 8);
            // The distance may also be another that copies the same letters: then nothing changed.
            if let Ok(content) = decode(&bytes, 69, id, &namer()) {
                assert_eq!(content, [b'a'; 69]);
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let noise: Vec<u8> =
            (0..4096_u32).map(|at| blake3::hash(&at.to_be_bytes()).as_bytes()[0]).collect();
        let body = encode(&noise);
        assert_eq!((body.len(), body[0]), (4097, RAW));
        assert_eq!(decode(&body, 4096, namer().name(&noise), &namer()).unwrap(), noise);
        assert!(is_zero(&[0; 4111]) && is_zero(&[]));
        for at in [0, 16, 4095, 4110] {
            let mut content = [0; 4111];
            content[at] = 1;
            assert!(!is_zero(&content), "{at}");
        }
    }
}
