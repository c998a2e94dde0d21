//! The descriptor area (VGDA) of an original VG: LVs, PVs, and which partition belongs to what.
//!
//! ```text
//! sector   sectors     what
//! +0             1     header: stamp 8, VGID 16, u16 each: LVs, most LVs, partition size (log2),
//!                      PVs, VGDAs in the VG, length in sectors
//! +1            16     256 LV entries of 32 bytes: index 2, -4, most LPs 2, state 2, copies 2,
//!                      policy 2, LPs 2 (0: unused), -16
//! +17        64 x f    PV descriptor, one per PV number: PVID 16, PPs 2, -2, first PP's psn 4,
//!                      -8, then 32 bytes per PP: LV index 2 (0: free), -4, LP number 2, -24
//! +len-33       32     256 LV names of 64 bytes
//! +len-1         1     trailer: the header's stamp again, unless a write was cut
//! ```
//!
//! f is the VG's factor (`chvg -t`); it is not stored where public documents say, so it is found
//! by looking for the PVIDs that are known. There is no checksum: what can be cross-checked is.

use thiserror::Error;
use vgship_base::bytes::{FormatError, Reader, require};

use super::record::{PVS_MAX, Pvid, Vgid, partition_size};

const SECTOR: usize = 512;
const LV_SLOTS: usize = 256;
const LV_ENTRIES: usize = SECTOR;
const PVS: usize = 17 * SECTOR;
const PV_HEAD: usize = 32;
const PP_ENTRY: usize = 32;
const NAME: usize = 64;
/// Partitions per PV for each step of the factor.
const PPS_PER_FACTOR: u16 = 1016;
/// Largest area of an original VG, and so the most that is read. Unit: sectors.
pub(super) const VGDA_SECTORS_MAX: u32 = 2098;
/// Smallest: header, entries, one descriptor, names, trailer. Unit: sectors.
pub(super) const VGDA_SECTORS_MIN: u32 = 17 + 64 + 33;

/// When an area was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Unit: seconds since 1970.
    pub seconds: u32,
    /// Unit: nanoseconds.
    pub nanoseconds: u32,
}

impl Stamp {
    /// Reads the 8 bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Stamp, FormatError> {
        let mut from = Reader::new(bytes);
        Ok(Stamp { seconds: from.u32("stamp")?, nanoseconds: from.u32("stamp")? })
    }
}

/// Why a copy of the area cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VgdaError {
    /// A field is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A write of it was cut.
    #[error("is torn: its opening stamp is {opening:?}, its closing stamp {closing:?}")]
    Torn {
        /// In the header.
        opening: Stamp,
        /// In the trailer.
        closing: Stamp,
    },
}

/// One LV of the area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LvEntry {
    /// Index from 1: the LV's minor number.
    pub(super) index: u16,
    pub(super) name: Vec<u8>,
    pub(super) copies: u16,
    pub(super) policy: u16,
    pub(super) lps: u16,
}

/// One PV of the area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PvEntry {
    pub(super) number: u16,
    pub(super) pvid: Pvid,
    /// Unit: sectors from the disk's start.
    pub(super) first_pp: u32,
    /// Per PP: LV index and LP number, both from 1; zeroes when it is free.
    pub(super) pps: Vec<(u16, u16)>,
}

/// What one copy of the area says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vgda {
    pub(super) stamp: Stamp,
    pub(super) vgid: Vgid,
    pub(super) pp_log2: u8,
    pub(super) lvs: Vec<LvEntry>,
    pub(super) pvs: Vec<PvEntry>,
    /// `None` when the descriptors do not lie where any factor puts them.
    pub(super) factor: Option<u16>,
    /// What does not agree with itself. A copy with less of it is believed over one with more.
    pub(super) defects: Vec<String>,
}

impl Vgda {
    /// Reads a copy. `known` are the disks at hand: PV number and PVID.
    pub(super) fn decode(area: &[u8], known: &[(u16, Pvid)]) -> Result<Vgda, VgdaError> {
        let sectors = area.len() / SECTOR;
        let fits = (VGDA_SECTORS_MIN as usize..=VGDA_SECTORS_MAX as usize).contains(&sectors);
        require("VGDA length", sectors as u64, "114 to 2098 sectors", fits)?;
        let (opening, closing) =
            (Stamp::decode(area)?, Stamp::decode(&area[(sectors - 1) * SECTOR..])?);
        if opening != closing {
            return Err(VgdaError::Torn { opening, closing });
        }
        let mut header = Reader::new(&area[8..SECTOR]);
        let vgid = Vgid(header.array("VGID")?);
        let lv_count = header.u16("number of LVs")?;
        let max_lvs = header.u16("most LVs")?;
        let pp_log2 = partition_size(header.u16("partition size")?)?;
        let pv_count = header.u16("number of PVs")?;
        header.u16("number of VGDAs")?;
        let length = header.u16("VGDA length")?;
        let counts = usize::from(max_lvs) <= LV_SLOTS && lv_count <= max_lvs;
        require("number of LVs", lv_count, "at most the VG's limit of up to 256", counts)?;
        require("number of PVs", pv_count, "1 to 32", (1..=PVS_MAX).contains(&pv_count))?;
        require("VGDA length", length, "that of the LVM record", usize::from(length) == sectors)?;
        let names = &area[(sectors - 33) * SECTOR..(sectors - 1) * SECTOR];
        let mut defects = Vec::new();
        let lvs = lv_entries(&area[LV_ENTRIES..PVS], names, &mut defects)?;
        if lvs.len() != usize::from(lv_count) {
            defects.push(format!("{} LVs are described, {lv_count} counted", lvs.len()));
        }
        let middle = &area[PVS..(sectors - 33) * SECTOR];
        let (pvs, factor) = pv_entries(middle, known, pv_count);
        if pvs.len() != usize::from(pv_count) {
            defects.push(format!("{} PVs are described, {pv_count} counted", pvs.len()));
        }
        Ok(Vgda { stamp: opening, vgid, pp_log2, lvs, pvs, factor, defects })
    }
}

fn lv_entries(
    entries: &[u8],
    names: &[u8],
    defects: &mut Vec<String>,
) -> Result<Vec<LvEntry>, FormatError> {
    let mut lvs = Vec::new();
    for (slot, (entry, name)) in (1u16..).zip(entries.chunks(PP_ENTRY).zip(names.chunks(NAME))) {
        let mut from = Reader::new(entry);
        let stored = from.u16("LV index")?;
        from.take("LV entry", 8)?;
        let (copies, policy) = (from.u16("copies")?, from.u16("policy")?);
        let lps = from.u16("number of LPs")?;
        if lps > 0 {
            if stored != slot {
                defects.push(format!("the LV in slot {slot} says that its index is {stored}"));
            }
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            let name = name[..end].to_vec();
            lvs.push(LvEntry { index: slot, name, copies, policy, lps });
        }
    }
    Ok(lvs)
}

/// Finds the descriptors: by the factor that puts most of the known disks where they belong, then
/// as many disks as are counted, then the smallest; else each known PVID at whatever sector.
fn pv_entries(middle: &[u8], known: &[(u16, Pvid)], count: u16) -> (Vec<PvEntry>, Option<u16>) {
    let hits = |pvs: &[PvEntry]| {
        known.iter().filter(|(_, pvid)| pvs.iter().any(|pv| pv.pvid == *pvid)).count()
    };
    let by_factor = (1..=PVS_MAX).rev().map(|factor| (at_factor(middle, known, factor), factor));
    let best = by_factor
        .max_by_key(|(pvs, _)| (hits(pvs), pvs.len() == usize::from(count)))
        .map(|(pvs, factor)| (pvs, Some(factor)))
        .unwrap_or_default();
    if hits(&best.0) == known.len() {
        return best;
    }
    let scanned = known.iter().filter_map(|&(number, pvid)| {
        let at = middle.chunks(SECTOR).position(|sector| sector[..8] == pvid.0[..8])?;
        pv_entry(&middle[at * SECTOR..], number, Some(pvid), u16::MAX)
    });
    let scanned: Vec<_> = scanned.collect();
    if scanned.len() > hits(&best.0) { (scanned, None) } else { best }
}

/// The descriptors that lie where this factor puts them.
fn at_factor(middle: &[u8], known: &[(u16, Pvid)], factor: u16) -> Vec<PvEntry> {
    let stride = usize::from(factor) * 64 * SECTOR;
    let entry = |number: u16| {
        let expected = known.iter().find(|(other, _)| *other == number).map(|(_, pvid)| *pvid);
        let bytes = middle.get(usize::from(number - 1) * stride..)?;
        pv_entry(bytes, number, expected, PPS_PER_FACTOR * factor)
    };
    (1..=PVS_MAX / factor).filter_map(entry).collect()
}

/// The descriptor that begins here, if one does.
fn pv_entry(bytes: &[u8], number: u16, known: Option<Pvid>, most: u16) -> Option<PvEntry> {
    let mut from = Reader::new(bytes);
    let pvid = Pvid(from.array("PVID").ok()?);
    let count = from.u16("number of PPs").ok()?;
    from.take("PV descriptor", 2).ok()?;
    let first_pp = from.u32("first PP").ok()?;
    from.take("PV descriptor", PV_HEAD - 24).ok()?;
    let is_it = match known {
        Some(known) => pvid.0[..8] == known.0[..8],
        None => pvid.0[..8] != [0; 8] && pvid.0[8..] == [0; 8],
    };
    let fits =
        (1..=most).contains(&count) && first_pp > 0 && from.left() >= usize::from(count) * PP_ENTRY;
    if !is_it || !fits {
        return None;
    }
    let entries = from.take("PP entries", usize::from(count) * PP_ENTRY).ok()?;
    let word = |two: &[u8]| u16::from_be_bytes([two[0], two[1]]);
    let pps = entries.chunks_exact(PP_ENTRY).map(|entry| (word(&entry[0..2]), word(&entry[6..8])));
    let pvid = known.unwrap_or(pvid);
    Some(PvEntry { number, pvid, first_pp, pps: pps.collect() })
}
