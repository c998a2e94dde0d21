//! The map of a clone: which of its blocks are its own. A header, then frames, each beginning at a
//! sector. Version 1:
//!
//! ```text
//! header
//!  at  size  field     unit    rule
//!   0     4  magic     -       the letters VGOM
//!   4     2  version   -       1
//!   6     8  len       bytes   of the clone and of its base; 0 ..= VOLUME_BYTES_MAX
//!  14     8  promised  frames  that were durable when the file got its name
//!  22   486  reserved  -       0
//! 508     4  crc       CRC-32C of all before
//!
//! frame
//!  at  size  field     unit    rule
//!   0     4  magic     -       the letters VGOF
//!   4     8  number    frames  before it in this file
//!  12     8  promised  frames  that were durable when it was written; 0 ..= number
//!  20     4  count     -       of entries; 0 ..= ENTRIES_MAX
//!  24  16*n  entries   -       as below
//!   +     *  padding   -       0; up to the end of a sector
//!  -4     4  crc       CRC-32C of all before; the last of the sector
//!
//! entry: words of 64 blocks that have the same members
//!  at  size  field     unit    rule
//!   0     4  word      words   the first; its lowest bit is block 64 * word
//!   4     4  words     words   at least 1; none behind the end of the clone
//!   8     8  mask      bits    not 0; none for a block behind the end of the clone
//! ```
//!
//! Integers are big-endian. A block has [`BLOCK`] bytes; block n of the clone lies in the data file
//! where it lies in the clone. Blocks in no entry are the base's. Header and frame begin and end a
//! sector, so writing one never touches another that was promised. Magic, version and checksum of
//! the header keep their place in all versions; frames are of the header's version.

use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::limits::VOLUME_BYTES_MAX;

/// What a clone takes from its base, or has for itself, as one. Unit: bytes. The block size of the
/// file systems meant, and of the one that the data file lies in.
pub const BLOCK: u64 = 4096;

/// Blocks of one word of the map.
pub(super) const WORD_BLOCKS: u64 = 64;
/// Length of the header, and what a frame's length is a multiple of. Unit: bytes. No disk tears it.
pub(super) const SECTOR: usize = 512;
/// Entries of one frame: 64 KiB, read and written as one piece.
pub(super) const ENTRIES_MAX: usize = 4096;

const MAGIC: [u8; 4] = *b"VGOM";
const FRAME_MAGIC: [u8; 4] = *b"VGOF";
const VERSION: u16 = 1;
const CRC: usize = 4;
const FRAME_CLEAR: usize = 24;
const ENTRY: usize = 16;

/// How the file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Unit: bytes.
    pub(super) len: u64,
    pub(super) promised: u64,
}

/// One entry of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) word: u64,
    pub(super) words: u64,
    pub(super) mask: u64,
}

/// What was appended as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) promised: u64,
    pub(super) entries: Vec<Entry>,
}

fn padded(mut out: Writer, len: usize) -> Vec<u8> {
    let left = len - CRC - out.len();
    out.put(&[0; SECTOR][..left]);
    with_checksum(out)
}

fn finish_padding(mut from: Reader<'_>) -> Result<(), FormatError> {
    let left = from.left();
    let padding = from.take("padding", left)?;
    let found = padding.iter().copied().find(|&byte| byte != 0).unwrap_or(0);
    require("padding", found, "0", found == 0)
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Writer::with_capacity(SECTOR);
        out.put(&MAGIC).u16(VERSION).u64(self.len).u64(self.promised);
        padded(out, SECTOR)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Header, FormatError> {
        let mut from = checked(bytes)?;
        if from.array("magic")? != MAGIC {
            return Err(FormatError::Magic { expected: "VGOM" });
        }
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let (len, promised) = (from.u64("len")?, from.u64("promised")?);
        require("len", len, "0 ..= VOLUME_BYTES_MAX", len <= VOLUME_BYTES_MAX)?;
        finish_padding(from)?;
        Ok(Header { len, promised })
    }
}

impl Entry {
    /// The word behind its last.
    pub(super) const fn end(&self) -> u64 {
        self.word + self.words
    }

    fn encode(self, out: &mut Writer) {
        let small = |words| u32::try_from(words).expect("VOLUME_BYTES_MAX is 2^29 words");
        out.u32(small(self.word)).u32(small(self.words)).u64(self.mask);
    }

    fn decode(from: &mut Reader<'_>, blocks: u64) -> Result<Entry, FormatError> {
        let (word, words) = (from.u32("word")?.into(), from.u32("words")?.into());
        let entry = Entry { word, words, mask: from.u64("mask")? };
        let words = blocks.div_ceil(WORD_BLOCKS);
        require("words", entry.words, "at least 1", entry.words > 0)?;
        require("word", entry.word, "within the clone", entry.end() <= words)?;
        require("mask", entry.mask, "not 0", entry.mask != 0)?;
        let last = (entry.end() - 1) * WORD_BLOCKS + u64::from(entry.mask.ilog2());
        require("mask", entry.mask, "blocks within the clone", last < blocks)?;
        Ok(entry)
    }
}

impl Frame {
    const fn len_of(entries: usize) -> usize {
        (FRAME_CLEAR + entries * ENTRY + CRC).next_multiple_of(SECTOR)
    }

    /// Its length in the file. Unit: bytes.
    pub(super) const fn len(&self) -> usize {
        Frame::len_of(self.entries.len())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.entries.len()).expect("at most ENTRIES_MAX");
        let mut out = Writer::with_capacity(self.len());
        out.put(&FRAME_MAGIC).u64(self.number).u64(self.promised).u32(count);
        self.entries.iter().for_each(|entry| entry.encode(&mut out));
        padded(out, self.len())
    }

    /// How long the frame is that begins with these bytes, at least a sector of them; nothing of it
    /// is proven. Unit: bytes.
    pub(super) fn measure(sector: &[u8]) -> Result<usize, FormatError> {
        let mut from = Reader::new(sector);
        if from.array("magic")? != FRAME_MAGIC {
            return Err(FormatError::Magic { expected: "VGOF" });
        }
        from.take("number and promised", 16)?;
        let count = from.u32("count")?;
        require("count", count, "0 ..= ENTRIES_MAX", count as usize <= ENTRIES_MAX)?;
        Ok(Frame::len_of(count as usize))
    }

    /// Reads a frame of a clone of so many blocks from bytes of the length that it measures.
    pub(super) fn decode(bytes: &[u8], blocks: u64) -> Result<Frame, FormatError> {
        let len = Frame::measure(bytes)?;
        require("length", bytes.len() as u64, "as measured", bytes.len() == len)?;
        let mut from = checked(bytes)?;
        from.take("magic", FRAME_MAGIC.len())?;
        let (number, promised) = (from.u64("number")?, from.u64("promised")?);
        require("promised", promised, "0 ..= number", promised <= number)?;
        let count = from.u32("count")?;
        let entries = (0..count).map(|_| Entry::decode(&mut from, blocks));
        let entries = entries.collect::<Result<_, _>>()?;
        finish_padding(from)?;
        Ok(Frame { number, promised, entries })
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const HEADER: Header = Header { len: 0x0102_0304_0506, promised: 7 };
    /// By hand from the table, as all here; checksums by an independent program.
    const GOLDEN_HEADER: [u8; 22] = hex!("56474f4d" "0001" "0000010203040506" "0000000000000007");
    const GOLDEN_HEADER_CRC: [u8; 4] = hex!("85c66e0a");

    const BLOCKS: u64 = 1000;
    /// The last word is short: 1000 blocks are 15 words and 40 bits.
    const ENTRIES: [Entry; 2] =
        [Entry { word: 3, words: 2, mask: u64::MAX }, Entry { word: 15, words: 1, mask: 1 << 39 }];
    const GOLDEN_FRAME: [u8; 56] = hex!(
        "56474f46" "0000000000000009" "0000000000000008" "00000002"
        "00000003" "00000002" "ffffffffffffffff"
        "0000000f" "00000001" "0000008000000000"
    );
    const GOLDEN_FRAME_CRC: [u8; 4] = hex!("0a0142b1");

    fn frame() -> Frame {
        Frame { number: 9, promised: 8, entries: ENTRIES.to_vec() }
    }

    fn sector(clear: &[u8], crc: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR];
        bytes[..clear.len()].copy_from_slice(clear);
        bytes[SECTOR - 4..].copy_from_slice(&crc);
        bytes
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        let golden = sector(&GOLDEN_HEADER, GOLDEN_HEADER_CRC);
        assert_eq!(HEADER.encode(), golden);
        assert_eq!(Header::decode(&golden), Ok(HEADER));
        let golden = sector(&GOLDEN_FRAME, GOLDEN_FRAME_CRC);
        assert_eq!(frame().encode(), golden);
        assert_eq!(Frame::measure(&golden), Ok(SECTOR));
        assert_eq!(Frame::decode(&golden, BLOCKS), Ok(frame()));
    }

    #[test]
    fn every_bit_flip_and_cut_is_noticed() {
        for (what, golden) in [("header", HEADER.encode()), ("frame", frame().encode())] {
            let fails = |bytes: &[u8]| match what {
                "header" => Header::decode(bytes).is_err(),
                _ => Frame::decode(bytes, BLOCKS).is_err(),
            };
            for bit in 0..golden.len() * 8 {
                let mut bytes = golden.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(fails(&bytes), "{what}, bit {bit}");
            }
            assert!((0..golden.len()).all(|len| fails(&golden[..len])), "{what}");
            assert!(fails(&[&golden[..], &[0]].concat()), "{what}");
        }
    }

    #[test]
    fn frames_are_whole_sectors_up_to_the_largest() {
        for count in [0, 1, 30, 31, 63, ENTRIES_MAX] {
            let frame = Frame { entries: vec![ENTRIES[0]; count], ..frame() };
            let bytes = frame.encode();
            assert_eq!((bytes.len() % SECTOR, bytes.len()), (0, frame.len()), "{count}");
            assert_eq!(Frame::decode(&bytes, BLOCKS), Ok(frame), "{count}");
        }
        let bytes = Frame { entries: vec![ENTRIES[0]; ENTRIES_MAX + 1], ..frame() }.encode();
        assert!(matches!(Frame::measure(&bytes), Err(FormatError::Field { field: "count", .. })));
    }

    /// Goal: what no program of this version writes is refused by name, though the checksum fits.
    #[test]
    fn what_was_never_written_is_refused() {
        let with = |golden: &[u8], at: usize, bytes: &[u8]| {
            let mut out = golden[..SECTOR - CRC].to_vec();
            out[at..at + bytes.len()].copy_from_slice(bytes);
            with_checksum(Writer::reusing(out))
        };
        let huge = (VOLUME_BYTES_MAX + 1).to_be_bytes();
        for (at, bytes, said) in [
            (0, &b"X"[..], "VGOM"),
            (5, &[2], "version 2"),
            (6, &huge, "len"),
            (22, &[1], "padding"),
            (507, &[1], "padding"),
        ] {
            let found = Header::decode(&with(&HEADER.encode(), at, bytes));
            assert!(found.clone().unwrap_err().to_string().contains(said), "{found:?}");
        }
        for (at, bytes, said) in [
            (0, &b"X"[..], "VGOF"),
            (19, &[10], "promised"),
            (31, &[0], "words"),
            (28, &[255; 4], "word "),
            (27, &[15], "word "),
            (32, &[0; 8], "mask"),
            (48, &(1u64 << 40).to_be_bytes(), "mask"),
            (56, &[1], "padding"),
        ] {
            let found = Frame::decode(&with(&frame().encode(), at, bytes), BLOCKS);
            assert!(found.clone().unwrap_err().to_string().contains(said), "{at}: {found:?}");
        }
    }
}
