//! An entry of a pack: the body of each of its sealed frames, version 1, as the file says.
//!
//! ```text
//! at  size  field    unit    rule
//!  0     8  flushed  frames  of this pack that are durable if this frame is there and the pack
//!                            has its name
//!  8    32  id       -       keyed BLAKE3 of the content
//! 40     -  content  -       1 ..= EXTENT_BYTES_MAX bytes
//! ```
//!
//! Integers are big-endian. The key of the ids is HKDF-SHA256 of the data key, no salt, info
//! `vgship extent id v1` and the group.

use std::fmt;

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::folder;
use vgship_base::limits::EXTENT_LOG2_MAX;

use crate::seal::BODY_MAX;

/// Largest extent. Unit: bytes.
pub const EXTENT_BYTES_MAX: usize = 1 << EXTENT_LOG2_MAX;

const CLEAR: usize = 40;
const ENDING: &str = ".pack";
const FRESH: &str = ".new";

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

/// The name of a pack; names sort as numbers do.
pub(super) fn name(number: u64) -> String {
    format!("{}{ENDING}", folder::digits_of(number))
}

/// The name of a pack before its first flush.
pub(super) fn fresh_name(number: u64) -> String {
    format!("{}{FRESH}", name(number))
}

/// The number in the name of a pack that was never flushed; `None` for other files.
pub(super) fn fresh_number_of(name: &str) -> Option<u64> {
    name.strip_suffix(FRESH).and_then(number_of)
}

/// The number in a pack's name; `None` for other files.
pub(super) fn number_of(name: &str) -> Option<u64> {
    folder::number_of(name.strip_suffix(ENDING)?)
}

/// One stored extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) flushed: u64,
    pub(super) id: ExtentId,
    pub(super) content: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Entry<'a>, FormatError> {
        let mut from = Reader::new(body);
        let (flushed, id) = (from.u64("flushed")?, ExtentId(from.array("id")?));
        let len = from.left();
        let content = from.take("content", len)?;
        let fits = (1..=EXTENT_BYTES_MAX).contains(&len);
        require("content", len as u64, "1 ..= EXTENT_BYTES_MAX bytes", fits)?;
        Ok(Entry { flushed, id, content })
    }
}

pub(super) fn encoded_len(content: &[u8]) -> usize {
    CLEAR + content.len()
}

pub(super) fn encode(flushed: u64, id: ExtentId, content: &[u8], out: &mut Writer) {
    out.u64(flushed).put(&id.0).put(content);
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const GOLDEN: [u8; 43] = hex!(
        "0000000000000005" "abababababababababababababababababababababababababababababababab"
        "010203"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        let entry = Entry { flushed: 5, id: ExtentId([0xab; 32]), content: &[1, 2, 3] };
        let mut out = Writer::default();
        encode(entry.flushed, entry.id, entry.content, &mut out);
        assert_eq!(out.as_slice(), GOLDEN);
        assert_eq!(out.len(), encoded_len(entry.content));
        assert_eq!(Entry::decode(&GOLDEN), Ok(entry));
    }

    #[test]
    fn an_entry_without_content_or_with_too_much_is_refused() {
        for len in 0..=CLEAR {
            assert!(Entry::decode(&GOLDEN[..len]).is_err(), "{len}");
        }
        assert!(Entry::decode(&vec![0; CLEAR + EXTENT_BYTES_MAX]).is_ok());
        assert!(Entry::decode(&vec![0; CLEAR + EXTENT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn only_packs_have_the_names_of_packs() {
        assert_eq!(number_of(&name(0x1f)), Some(0x1f));
        assert_eq!(fresh_number_of(&fresh_name(0x1f)), Some(0x1f));
        assert_eq!((number_of(&fresh_name(1)), fresh_number_of(&name(1))), (None, None));
        for other in ["1f.pack", "000000000000001f", "zz0000000000001f.pack"] {
            assert_eq!(number_of(other), None);
        }
    }
}
