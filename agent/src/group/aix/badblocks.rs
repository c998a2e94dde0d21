//! The bad-block directory of a PV: sectors whose content LVM keeps elsewhere.
//!
//! ```text
//! at   size  sectors 8 to 29, backup in 71 to 92
//!  0      6  the letters DEFECT, or UPDATE while it is being changed
//!  6      2  entries
//!  8   8 x n  4-bit reason and 28-bit bad sector, 4-bit status and 28-bit replacement
//! ```
//!
//! Nothing is read around a bad sector here: an LV that has one is not served. Disks of storage
//! systems have none.
//!
//! Source: the interface headers of AIX.

use vgship_base::bytes::{FormatError, Reader, require};

/// Where the directory and its backup begin. Unit: sectors.
pub(super) const DIRECTORY_AT: [u64; 2] = [8, 71];
/// Length of each. Unit: bytes.
pub(super) const DIRECTORY_BYTES: usize = 22 * 512;
const ENTRIES_MAX: u16 = 1406;

/// The bad sectors of a directory. One of zeroes, as on a disk that was never formatted for it,
/// has none. Unit: sectors from the disk's start.
pub(super) fn decode(directory: &[u8]) -> Result<Vec<u64>, FormatError> {
    let mut from = Reader::new(directory);
    let magic = from.array::<6>("magic")?;
    let count = from.u16("entries")?;
    if magic == [0; 6] && count == 0 {
        return Ok(Vec::new());
    }
    if magic != *b"DEFECT" && magic != *b"UPDATE" {
        return Err(FormatError::Magic { expected: "DEFECT" });
    }
    require("entries", count, "at most 1406", count <= ENTRIES_MAX)?;
    let mut sectors = Vec::new();
    for _ in 0..count {
        sectors.push(u64::from(from.u32("bad sector")? & 0x0fff_ffff));
        from.u32("replacement")?;
    }
    Ok(sectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_bad_sectors_and_a_wrong_count_is_refused() {
        let mut directory = vec![0; DIRECTORY_BYTES];
        assert_eq!(decode(&directory), Ok(vec![]));
        directory[..8].copy_from_slice(b"DEFECT\0\x02");
        directory[8..24]
            .copy_from_slice(&[0xa0, 0, 0x11, 0, 0x10, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0]);
        assert_eq!(decode(&directory), Ok(vec![0x1100, 9]));
        directory[6] = 0xff;
        assert!(decode(&directory).is_err());
        assert!(decode(b"garbage!").is_err());
        assert!(decode(b"DEFECT\0\x02").is_err());
    }
}
