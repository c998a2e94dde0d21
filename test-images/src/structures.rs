//! The bytes of a PV of an original AIX VG.
//!
//! ```text
//! sector        what
//! 0             IPL record: magic, boot LV, PVID
//! 7, 70         LVM record and its backup
//! 8, 71         bad-block directory and its backup, empty
//! 128, 136      status area and descriptor area, first copy
//! 2234, 2242    second copy, only where the disk carries two
//! 4352          first physical partition
//! ```

use vgship_base::sim::Rng;

use crate::Place;
use crate::place::{Plan, Pp};
use crate::recipe::{BitOrder, CopyState, Recipe};

const SECTOR: usize = 512;
const STATUS_SECTORS: u64 = 8;
const DESCRIPTOR_SECTORS: u64 = 2098;
const FIRST_PP_SECTOR: u64 = 4352;
/// Where the copies of the status area lie; each is followed by its descriptor area.
const STATUS_AT: [u64; 2] = [128, 2234];
/// Behind the last partition: room for the bad-block pool. Unit: sectors.
const TAIL_SECTORS: u64 = 256;

/// One disk, as the runs of it that are not zero.
#[derive(Clone, Debug)]
pub struct DiskImage {
    /// Size. Unit: bytes.
    pub bytes: u64,
    /// Offsets and what stands there.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

/// Where a physical partition lies.
pub(crate) fn place_of(recipe: &Recipe, (disk, pp): Pp) -> Place {
    let offset = FIRST_PP_SECTOR * SECTOR as u64 + (u64::from(pp) << recipe.pp_log2);
    Place { disk, offset }
}

impl Recipe {
    /// The VG's identity; of a seed, 8 bytes that look like a machine and a time, then zeroes.
    pub fn vgid(&self) -> [u8; 16] {
        let given = self.identities.as_ref().map(|ids| ids.vgid);
        given.unwrap_or_else(|| identity(self.seed, u64::MAX))
    }

    /// A disk's identity.
    pub fn pvid(&self, disk: usize) -> [u8; 16] {
        let given = self.identities.as_ref().and_then(|ids| ids.pvids.get(disk).copied());
        given.unwrap_or_else(|| identity(self.seed, disk as u64))
    }

    /// Descriptor areas on a disk: a VG of one or two disks keeps two on its first.
    pub fn copies_on(&self, disk: usize) -> usize {
        if disk == 0 && self.disks.len() <= 2 { 2 } else { 1 }
    }

    fn stride(&self) -> usize {
        let sectors = self.stride.unwrap_or(64 * u64::from(self.factor));
        usize::try_from(sectors).expect("a stride is small") * SECTOR
    }
}

fn identity(seed: u64, of: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&Rng::new(seed ^ of.rotate_left(17)).draw().to_be_bytes());
    bytes[0] = 0; // as the identities of real machines begin
    bytes
}

/// The disks of the VG.
pub fn disk_images(recipe: &Recipe, plan: &Plan) -> Vec<DiskImage> {
    (0..recipe.disks.len()).map(|disk| disk_image(recipe, plan, disk)).collect()
}

fn disk_image(recipe: &Recipe, plan: &Plan, disk: usize) -> DiskImage {
    let partitions = u64::from(recipe.disks[disk]) << recipe.pp_log2;
    let bytes = (FIRST_PP_SECTOR + TAIL_SECTORS) * SECTOR as u64 + partitions;
    let mut pieces = vec![
        (0, ipl_record(recipe, disk, bytes)),
        (7 * 512, lvm_record(recipe, disk, bytes)),
        (8 * 512, bad_blocks()),
        (70 * 512, lvm_record(recipe, disk, bytes)),
        (71 * 512, bad_blocks()),
    ];
    for (copy, at) in STATUS_AT.into_iter().enumerate().take(recipe.copies_on(disk)) {
        let damage = recipe.damaged.iter().find(|(which, _)| *which == (disk, copy));
        pieces.push((at * 512, status_area(recipe)));
        let area = descriptor_area(recipe, plan, damage.map(|(_, state)| *state));
        pieces.push(((at + STATUS_SECTORS) * 512, area));
    }
    for (lv, lps) in recipe.lvs.iter().zip(&plan.lvs).filter(|_| recipe.control_blocks) {
        let mine = |pp: &&Pp| pp.0 == disk;
        for &pp in lps.first().into_iter().flatten().filter(mine) {
            pieces.push((place_of(recipe, pp).offset, control_block(&lv.name)));
        }
    }
    DiskImage { bytes, pieces }
}

/// Puts bytes at an offset of a structure.
fn put(area: &mut [u8], at: usize, bytes: &[u8]) {
    area[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put16(area: &mut [u8], at: usize, value: u16) {
    put(area, at, &value.to_be_bytes());
}

fn put32(area: &mut [u8], at: usize, value: u64) {
    let value = u32::try_from(value).expect("a sector number of a test disk fits 32 bits");
    put(area, at, &value.to_be_bytes());
}

fn ipl_record(recipe: &Recipe, disk: usize, bytes: u64) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    put(&mut sector, 0, &[0xc9, 0xc2, 0xd4, 0xc1]);
    put32(&mut sector, 0x18, bytes / 512);
    if let (Some((start, len)), 0) = (recipe.boot, disk) {
        put32(&mut sector, 0x2c, start.into());
        put32(&mut sector, 0x34, len.into());
    }
    put(&mut sector, 0x80, &recipe.pvid(disk));
    sector
}

fn lvm_record(recipe: &Recipe, disk: usize, bytes: u64) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    let second = recipe.copies_on(disk) == 2;
    let [status, other] = STATUS_AT;
    put(&mut sector, 0, b"_LVM");
    put(&mut sector, 4, &recipe.vgid());
    put32(&mut sector, 20, 2 * (DESCRIPTOR_SECTORS + STATUS_SECTORS));
    put32(&mut sector, 24, DESCRIPTOR_SECTORS);
    put32(&mut sector, 28, status + STATUS_SECTORS);
    put32(&mut sector, 32, if second { other + STATUS_SECTORS } else { 0 });
    put32(&mut sector, 36, bytes / 512 - TAIL_SECTORS);
    put32(&mut sector, 40, TAIL_SECTORS);
    put16(&mut sector, 44, u16::try_from(disk + 1).expect("at most 32 disks"));
    put16(&mut sector, 46, recipe.pp_log2.into());
    put32(&mut sector, 48, STATUS_SECTORS);
    put32(&mut sector, 52, status);
    put32(&mut sector, 56, if second { other } else { 0 });
    put16(&mut sector, 60, recipe.version);
    put32(&mut sector, 64, 17);
    sector
}

fn bad_blocks() -> Vec<u8> {
    let mut area = vec![0; 22 * SECTOR];
    put(&mut area, 0, b"DEFECT\0\0");
    put(&mut area, 22 * SECTOR - 8, b"DEFECT\0\0");
    area
}

fn stamp(area: &mut [u8], at: usize, (seconds, nanoseconds): (u32, u32)) {
    put(area, at, &seconds.to_be_bytes());
    put(area, at + 4, &nanoseconds.to_be_bytes());
}

fn status_area(recipe: &Recipe) -> Vec<u8> {
    let mut area = vec![0; 8 * SECTOR];
    stamp(&mut area, 0, recipe.stamp);
    for &(disk, pp) in &recipe.stale {
        let bit = disk * 1016 * usize::from(recipe.factor) + usize::from(pp);
        let (byte, shift) = match recipe.bit_order {
            BitOrder::ByteLow => (bit / 8, bit % 8),
            BitOrder::ByteHigh => (bit / 8, 7 - bit % 8),
            BitOrder::WordLow => (bit / 32 * 4 + 3 - bit % 32 / 8, bit % 8),
        };
        area[12 + byte] |= 1 << shift;
    }
    stamp(&mut area, 4088, recipe.stamp);
    area
}

fn descriptor_area(recipe: &Recipe, plan: &Plan, damage: Option<CopyState>) -> Vec<u8> {
    let sectors = usize::try_from(DESCRIPTOR_SECTORS).expect("a small number");
    let mut area = vec![0; sectors * SECTOR];
    let (seconds, nanoseconds) = recipe.stamp;
    let (opening, closing) = match damage {
        None => (seconds, seconds),
        Some(CopyState::Older) => (seconds - 1, seconds - 1),
        Some(CopyState::Torn) => (seconds + 1, seconds),
    };
    let last = recipe.lvs.len() - usize::from(damage == Some(CopyState::Older));
    let lvs = &plan.lvs[..last];
    let disks = recipe.disks.len();
    stamp(&mut area, 0, (opening, nanoseconds));
    put(&mut area, 8, &recipe.vgid());
    let used = lvs.iter().filter(|lps| !lps.is_empty()).count();
    let fields =
        [used, 256, recipe.pp_log2.into(), disks, if disks <= 2 { disks + 1 } else { disks }, 2098];
    for (index, field) in fields.into_iter().enumerate() {
        put16(&mut area, 24 + 2 * index, u16::try_from(field).expect("counts are small"));
    }
    for (slot, (lps, lv)) in lvs.iter().zip(&recipe.lvs).enumerate() {
        if !lps.is_empty() {
            let index = u16::try_from(slot + 1).expect("at most 255 LVs");
            let at = SECTOR + 32 * slot;
            let policy = if lv.copies > 1 { 2 } else { 1 };
            put16(&mut area, at, index);
            put16(&mut area, at + 6, lv.lps.max(512));
            put16(&mut area, at + 10, lv.copies);
            put16(&mut area, at + 12, policy);
            put16(&mut area, at + 14, lv.lps);
            if damage != Some(CopyState::Torn) {
                put(&mut area, (sectors - 33) * SECTOR + 64 * slot, lv.name.as_bytes());
            }
        }
    }
    for (disk, &pps) in recipe.disks.iter().enumerate() {
        let at = 17 * SECTOR + disk * recipe.stride();
        put(&mut area, at, &recipe.pvid(disk));
        put16(&mut area, at + 16, pps);
        put32(&mut area, at + 20, FIRST_PP_SECTOR);
    }
    for (slot, lps) in lvs.iter().enumerate() {
        for (lp, &(disk, pp)) in
            lps.iter().enumerate().flat_map(|(lp, copies)| copies.iter().map(move |pp| (lp, pp)))
        {
            let at = 17 * SECTOR + disk * recipe.stride() + 32 + 32 * usize::from(pp);
            put16(&mut area, at, u16::try_from(slot + 1).expect("at most 255 LVs"));
            put16(&mut area, at + 6, u16::try_from(lp + 1).expect("LPs fit 16 bits"));
        }
    }
    stamp(&mut area, (sectors - 1) * SECTOR, (closing, nanoseconds));
    area
}

/// The LV's own first block: the tag, then filler, because its inner layout is nobody's business.
fn control_block(name: &str) -> Vec<u8> {
    let mut block = vec![0; SECTOR];
    put(&mut block, 0, b"AIX LVCB");
    let mut rng = Rng::new(name.bytes().fold(7, |sum: u64, byte| sum * 31 + u64::from(byte)));
    for chunk in block[8..].chunks_mut(8) {
        chunk.copy_from_slice(&rng.draw().to_be_bytes());
    }
    block
}
