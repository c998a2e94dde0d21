//! Reads the first structures of one disk.

use std::io;

use thiserror::Error;
use vgship_base::bytes::FormatError;
use vgship_base::disk::{Disk, SharedDisk};

use super::SECTOR;
use super::record::{BACKUP_AT, Ipl, RECORD_AT, Record};

/// Why a disk is no PV that can be used.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// It cannot be read.
    #[error("sector {sector} cannot be read")]
    Read {
        /// Unit: sectors from the disk's start.
        sector: u64,
        /// What the disk says.
        source: io::Error,
    },
    /// No IPL record.
    #[error("is no AIX disk: sector 0 has no IPL record")]
    NotAix(#[source] FormatError),
    /// A PVID, but no VG.
    #[error("holds no LVM record: sector 7: {first}; its backup in sector 70: {backup}")]
    NoRecord {
        /// Why not the first.
        first: FormatError,
        /// Why not the backup.
        backup: FormatError,
    },
    /// Two records, of which none can be believed.
    #[error(
        "the LVM record in sector 7 and its backup in sector 70 differ, \
         and no descriptor area agrees with one of them"
    )]
    Differ,
}

/// A disk of some VG.
#[derive(Clone)]
pub struct Member {
    /// What it is called here: a path.
    pub label: String,
    /// The disk.
    pub disk: SharedDisk,
    /// Its IPL record.
    pub ipl: Ipl,
    /// Its LVM record.
    pub record: Record,
    /// What is wrong with the record or its backup, if one of them is.
    pub record_damage: Option<String>,
}

/// Reads a disk's IPL and LVM records; the backup where the first is damaged.
pub fn probe(label: &str, disk: SharedDisk) -> Result<Member, ProbeError> {
    let ipl = Ipl::decode(&sector(&*disk, 0)?).map_err(ProbeError::NotAix)?;
    let first = Record::decode(&sector(&*disk, RECORD_AT)?);
    let backup = Record::decode(&sector(&*disk, BACKUP_AT)?);
    let (record, record_damage) = match (first, backup) {
        (Ok(first), Ok(backup)) if first != backup => {
            let fits = |record: &Record| describes_its_area(record, &*disk);
            let differ = "differs from the other record".to_owned();
            match (fits(&first), fits(&backup)) {
                (true, _) => (first, Some(format!("the backup in sector 70 {differ}"))),
                (false, true) => (backup, Some(format!("sector 7 {differ}"))),
                (false, false) => return Err(ProbeError::Differ),
            }
        }
        (Ok(first), _) => (first, None),
        (Err(first), Ok(backup)) if !is_foreign(&first) => {
            (backup, Some(format!("sector 7 {first}")))
        }
        (Err(first), Ok(_)) => return Err(ProbeError::NoRecord { backup: first.clone(), first }),
        (Err(first), Err(backup)) => return Err(ProbeError::NoRecord { first, backup }),
    };
    Ok(Member { label: label.to_owned(), disk, ipl, record, record_damage })
}

/// Whether the descriptor area that a record points to says the same of the VG.
fn describes_its_area(record: &Record, disk: &dyn Disk) -> bool {
    let Record::Classic(record) = record else { return false };
    record.vgda_at.iter().filter(|at| **at != 0).any(|&at| {
        sector(disk, at.into()).is_ok_and(|header| {
            let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            header[8..24] == record.geometry.vgid.0
                && word(28) == u16::from(record.geometry.pp_log2)
                && u32::from(word(34)) == record.vgda_sectors
        })
    })
}

/// A record of another volume manager is not a damaged one.
fn is_foreign(error: &FormatError) -> bool {
    matches!(error, FormatError::Field { field: "LVM record version", found: 32_000.., .. })
}

fn sector(disk: &dyn Disk, sector: u64) -> Result<[u8; 512], ProbeError> {
    let mut bytes = [0; 512];
    match disk.read_at(sector * SECTOR, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(source) => Err(ProbeError::Read { sector, source }),
    }
}
