//! A list of keys: what a collector of garbage says in a store, version 1.
//!
//! ```text
//! at  size  field    unit     rule
//!  0     4  magic    -        the letters VGTK
//!  4     2  version  -        1
//!  6     2  zero     -        0
//!  8     4  count    -        0 ..= 65536; then per key:
//!        2  len      bytes    1 ..= 512
//!        n  key      -        of an object, see `place.rs`
//!        4  crc      CRC-32C  of all before
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};

use super::objects::{KEY_MAX, key_is_legal};

/// Keys of one list: 7 MiB. A collector makes several lists when there are more.
pub(super) const KEYS_MAX: usize = 1 << 16;

const MAGIC: [u8; 4] = *b"VGTK";
const VERSION: u16 = 1;

/// The bytes of at most [`KEYS_MAX`] keys.
pub(super) fn encode(keys: &[String]) -> Vec<u8> {
    let mut out = Writer::default();
    let count = u32::try_from(keys.len()).expect("at most KEYS_MAX");
    out.put(&MAGIC).u16(VERSION).u16(0).u32(count);
    for key in keys {
        out.text(key);
    }
    with_checksum(out)
}

/// Reads a list.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<String>, FormatError> {
    let mut from = checked(bytes)?;
    if from.array("magic")? != MAGIC {
        return Err(FormatError::Magic { expected: "VGTK" });
    }
    let version = from.u16("version")?;
    if version != VERSION {
        return Err(FormatError::Version { found: version, known: VERSION });
    }
    let (zero, count) = (from.u16("zero")?, from.u32("count")?);
    require("zero", zero, "0", zero == 0)?;
    require("count", count, "0 ..= 65536", count as usize <= KEYS_MAX)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let key = from.text("key", KEY_MAX)?;
        require("key", key.len() as u64, "the key of an object", key_is_legal(key))?;
        keys.push(key.to_owned());
    }
    from.finish()?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand from the table; the checksum by an independent program.
    const GOLDEN: &[u8] = &hex_literal::hex!(
        "5647544b" "0001" "0000" "00000002" "0003" "612f62" "0001" "63" "4e13559c"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        let keys = ["a/b".to_owned(), "c".to_owned()];
        assert_eq!(encode(&keys), GOLDEN);
        assert_eq!(decode(GOLDEN), Ok(keys.to_vec()));
        assert_eq!(decode(&encode(&[])), Ok(vec![]));
    }

    #[test]
    fn every_bit_flip_and_every_cut_is_noticed() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..GOLDEN.len() {
            assert!(decode(&GOLDEN[..len]).is_err(), "cut to {len}");
        }
    }

    /// Fields out of range, each with a checksum that fits.
    #[test]
    fn what_was_never_written_is_refused() {
        for (at, value, said) in [
            (0, b'X', "VGTK"),
            (5, 2, "version"),
            (7, 1, "zero"),
            (9, 2, "count"),
            (14, b' ', "key"),
        ] {
            let mut bytes = GOLDEN[..GOLDEN.len() - 4].to_vec();
            bytes[at] = value;
            let mut out = Writer::default();
            out.put(&bytes);
            let error = decode(&with_checksum(out)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
