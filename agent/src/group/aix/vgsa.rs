//! The status area of an original VG: which PVs are missing, which partitions are stale.
//!
//! ```text
//! at    size  8 sectors
//!    0     8  opening stamp: seconds, nanoseconds
//!    8     4  a bit per missing PV
//!   12  4064  a bit per stale partition: (PV number - 1) * 1016 * factor + partition number - 1
//! 4088     8  closing stamp, equal to the opening one unless a write was cut
//! ```
//!
//! Source: published dumps. They do not say how bits are numbered within bytes, so a partition
//! counts as stale when any of the three usual numberings says it is: a good copy may be passed
//! over, a stale one is never read.

use super::vgda::Stamp;

/// Length of the area. Unit: sectors.
pub(super) const VGSA_SECTORS: u32 = 8;
const BYTES: usize = 4096;
const MISSING: std::ops::Range<usize> = 8..12;
const STALE: std::ops::Range<usize> = 12..4076;
const CLOSING: usize = 4088;

/// What a status area says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vgsa {
    pub(super) stamp: Stamp,
    pub(super) any_missing: bool,
    stale: Vec<u8>,
}

impl Vgsa {
    /// Reads an area; `None` when a write of it was cut.
    pub(super) fn decode(area: &[u8; BYTES]) -> Option<Vgsa> {
        let stamp = |at| Stamp::decode(area.get(at..)?).ok();
        let (opening, closing) = (stamp(0)?, stamp(CLOSING)?);
        (opening == closing).then(|| Vgsa {
            stamp: opening,
            any_missing: area[MISSING].iter().any(|&byte| byte != 0),
            stale: area[STALE].to_vec(),
        })
    }

    /// Whether any partition of the VG is stale.
    pub(super) fn any_stale(&self) -> bool {
        self.stale.iter().any(|&byte| byte != 0)
    }

    /// Whether this partition is stale in any numbering of the bits.
    pub(super) fn may_be_stale(&self, pv_number: u16, factor: u16, pp: u16) -> bool {
        let per_pv = 1016 * usize::from(factor);
        let bit = usize::from(pv_number).saturating_sub(1) * per_pv + usize::from(pp);
        let byte_low = (bit / 8, bit % 8);
        let byte_high = (bit / 8, 7 - bit % 8);
        let word_low = (bit / 32 * 4 + 3 - bit % 32 / 8, bit % 8);
        [byte_low, byte_high, word_low]
            .into_iter()
            .any(|(byte, shift)| self.stale.get(byte).is_none_or(|found| found >> shift & 1 == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_write_is_noticed_and_any_numbering_counts() {
        let mut area = [0; BYTES];
        area[7] = 9;
        assert_eq!(Vgsa::decode(&area), None);
        area[CLOSING + 7] = 9;
        assert!(!Vgsa::decode(&area).unwrap().any_stale());
        area[12] = 1;
        let found = Vgsa::decode(&area).unwrap();
        let stale: Vec<u16> = (0..1016).filter(|&pp| found.may_be_stale(1, 1, pp)).collect();
        assert_eq!(stale, [0, 7, 24]);
        assert!(!found.may_be_stale(2, 1, 0));
        assert!(found.may_be_stale(33, 1, 0), "what lies outside the area counts as stale");
    }
}
