//! What both sides compare: an extent's bytes, its hash, the hashes of its parts.

use std::io;
use std::sync::OnceLock;

use vgship_base::bytes::is_zero;
use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::extent::Extent;
use vgship_base::layout::Layout;
use vgship_base::limits::{EXTENT_LOG2_MAX, PART_BYTES};
use vgship_base::record::Hash;
use vgship_base::units::Span;

/// BLAKE3 of an extent's bytes. That of zeroes, which volumes have many of, is remembered.
pub fn content_hash(bytes: &[u8]) -> Hash {
    static ZEROES: [OnceLock<Hash>; EXTENT_LOG2_MAX as usize + 1] =
        [const { OnceLock::new() }; EXTENT_LOG2_MAX as usize + 1];
    let whole = bytes.len().is_power_of_two() && is_zero(bytes);
    match ZEROES.get(bytes.len().trailing_zeros() as usize) {
        Some(known) if whole => *known.get_or_init(|| *blake3::hash(bytes).as_bytes()),
        _ => *blake3::hash(bytes).as_bytes(),
    }
}

/// Reads an extent as both sides compare it: `overlay` lies over it, masked bytes read as zero.
pub fn read_extent(
    layout: &Layout,
    volumes: &[SharedDisk],
    extent: Extent,
    overlay: impl FnOnce(&mut [u8], Span),
) -> Result<Vec<u8>, (Span, io::Error)> {
    let span = layout.span(extent).expect("the extent was checked against the layout");
    let mut bytes = vec![0; usize::try_from(span.len).expect("an extent fits memory")];
    let disk: &dyn Disk = &*volumes[extent.volume.index()];
    // Reading a hole makes a file system fill pages with zeroes, which costs more than all the rest.
    let hole = (Allocation::Hole, span.end());
    let found = disk.allocation(span.offset, span.end()).map_err(|source| (span, source))?;
    if found != hole {
        disk.read_at(span.offset, &mut bytes).map_err(|source| (span, source))?;
    }
    overlay(&mut bytes, span);
    let masked = layout.volume(extent.volume).map_or(0, |known| u64::from(known.masked));
    let head = masked.saturating_sub(span.offset).min(span.len);
    bytes[..usize::try_from(head).expect("within the extent")].fill(0);
    Ok(bytes)
}

/// A hash of each part of an extent: eight bytes of BLAKE3. Two parts that differ are taken for
/// equal once in 2^64 comparisons.
pub fn part_hashes(extent: &[u8]) -> Vec<u64> {
    let short = |part: &[u8]| {
        let hash = blake3::hash(part);
        hash.as_bytes().iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    extent.chunks(PART_BYTES as usize).map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_hashes_are_those_of_the_bytes() {
        for len in [0, 1, 4095, 4096, 65_536, 1 << 20, (1 << 20) + 1] {
            for fill in [0, 0, 7] {
                let mut bytes = vec![fill; len];
                assert_eq!(content_hash(&bytes), *blake3::hash(&bytes).as_bytes(), "{len}");
                assert_eq!(is_zero(&bytes), fill == 0 || len == 0);
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                    assert_eq!(is_zero(&bytes), fill ^ 1 == 0 && len == 1, "{len}");
                    assert_eq!(content_hash(&bytes), *blake3::hash(&bytes).as_bytes(), "{len}");
                }
            }
        }
    }
}
