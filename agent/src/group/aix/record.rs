//! The two records at a PV's beginning.
//!
//! ```text
//! IPL record, sector 0                LVM record, sector 7, backup in sector 70
//! at    size                          at  size  versions 1 to 30
//! 0x00     4  magic C9C2D4C1           0     4  the letters _LVM
//! 0x2C     4  boot LV, psn             4    16  VGID
//! 0x34     4  boot LV, sectors        24     4  descriptor area (VGDA), sectors
//! 0x80    16  PVID, 8 used            28   2x4  its copies, psn, 0 where there is none
//!                                     44     2  PV number, from 1
//!                                     46     2  partition size, log2 of bytes
//!                                     48     4  status area (VGSA), sectors
//!                                     52   2x4  its copies, psn, 0 where there is none
//!                                     60     2  version
//! ```
//!
//! Version 31 is a scalable VG, whose record has the partition size at 62 and the PV's index at 56.
//! 32000 and above belong to other volume managers. Integers are big-endian.
//!
//! Source: the published layout that Linux's partition parser reads, and the interface headers of
//! AIX.

use std::fmt;

use vgship_base::bytes::{FormatError, Reader, require};

/// Sector of the LVM record. Unit: sectors.
pub(super) const RECORD_AT: u64 = 7;
/// Sector of its backup. Unit: sectors.
pub(super) const BACKUP_AT: u64 = 70;

const IPL_MAGIC: [u8; 4] = [0xc9, 0xc2, 0xd4, 0xc1];
const LVM_MAGIC: [u8; 4] = *b"_LVM";
const VERSION_SCALABLE: u16 = 31;
const VERSION_FOREIGN: u16 = 32_000;
/// Disks of one original VG.
pub(super) const PVS_MAX: u16 = 32;

/// Defines a 16-byte identity of which AIX shows the first 8 bytes where the rest is zero.
macro_rules! aix_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                let short = self.0[8..].iter().all(|&byte| byte == 0);
                let shown = if short { &self.0[..8] } else { &self.0[..] };
                shown.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }
    };
}

aix_identity!(
    /// Identity of a VG.
    Vgid
);
aix_identity!(
    /// Identity of a PV.
    Pvid
);

/// What the IPL record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipl {
    /// The disk's identity.
    pub pvid: Pvid,
    /// Where the boot LV begins and how long it is; zeroes on a disk that does not boot. Unit:
    /// sectors.
    pub boot: (u32, u32),
}

impl Ipl {
    /// Reads sector 0.
    pub fn decode(sector: &[u8]) -> Result<Ipl, FormatError> {
        let mut from = Reader::new(sector);
        if from.array("IPL magic")? != IPL_MAGIC {
            return Err(FormatError::Magic { expected: "IBMA (EBCDIC)" });
        }
        from.take("IPL record", 0x2c - 4)?;
        let start = from.u32("boot LV start")?;
        from.take("IPL record", 4)?;
        let len = from.u32("boot LV length")?;
        from.take("IPL record", 0x80 - 0x38)?;
        Ok(Ipl { pvid: Pvid(from.array("PVID")?), boot: (start, len) })
    }

    /// Whether the disk is set up to boot from.
    pub const fn boots(&self) -> bool {
        self.boot.0 != 0 || self.boot.1 != 0
    }
}

/// What every LVM record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The VG's identity.
    pub vgid: Vgid,
    /// Newest feature that the VG uses.
    pub version: u16,
    /// The disk's number in its VG.
    pub pv_number: u32,
    /// Size of a partition. Unit: log2 of bytes.
    pub pp_log2: u8,
}

/// The LVM record of an original or big VG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LvmRecord {
    /// The part that all formats share.
    pub geometry: Geometry,
    /// Length of a descriptor area. Unit: sectors.
    pub vgda_sectors: u32,
    /// Where its copies begin, 0 where there is none. Unit: sectors from the disk's start.
    pub vgda_at: [u32; 2],
    /// Length of a status area. Unit: sectors.
    pub vgsa_sectors: u32,
    /// Where its copies begin, 0 where there is none. Unit: sectors from the disk's start.
    pub vgsa_at: [u32; 2],
}

/// An LVM record of any format that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Original or big VG.
    Classic(LvmRecord),
    /// Scalable VG: only its geometry is public.
    Scalable(Geometry),
}

impl Record {
    /// Reads sector 7 or 70.
    pub fn decode(sector: &[u8]) -> Result<Record, FormatError> {
        let mut from = Reader::new(sector);
        if from.array("LVM magic")? != LVM_MAGIC {
            return Err(FormatError::Magic { expected: "_LVM" });
        }
        let vgid = Vgid(from.array("VGID")?);
        let body = from.take("LVM record", 56 - 20)?;
        let pv_index = from.u32("PV index or VGSA")?;
        let version = from.u16("version")?;
        let last = from.u16("partition size or VG type")?;
        let ours = (1..VERSION_FOREIGN).contains(&version);
        require("LVM record version", version, "not ours: of another volume manager", ours)?;
        require("LVM record version", version, "1 to 31", version <= VERSION_SCALABLE)?;
        if version == VERSION_SCALABLE {
            let pp_log2 = partition_size(last)?;
            let pv_number = pv_index;
            return Ok(Record::Scalable(Geometry { vgid, version, pv_number, pp_log2 }));
        }
        let mut from = Reader::new(body);
        from.take("LVM area length", 4)?;
        let vgda_sectors = from.u32("VGDA length")?;
        let vgda_at = [from.u32("VGDA")?, from.u32("VGDA")?];
        from.take("bad-block pool", 8)?;
        let number = from.u16("PV number")?;
        // A big VG holds up to 128 disks.
        require("PV number", number, "1 to 128", (1..=128).contains(&number))?;
        let pp_log2 = partition_size(from.u16("partition size")?)?;
        let vgsa_sectors = from.u32("VGSA length")?;
        let vgsa_at = [from.u32("VGSA")?, pv_index];
        let geometry = Geometry { vgid, version, pv_number: number.into(), pp_log2 };
        Ok(Record::Classic(LvmRecord { geometry, vgda_sectors, vgda_at, vgsa_sectors, vgsa_at }))
    }

    /// The part that all formats share.
    pub const fn geometry(&self) -> &Geometry {
        match self {
            Record::Classic(record) => &record.geometry,
            Record::Scalable(geometry) => geometry,
        }
    }
}

/// Checks the log2 of a partition's size: 1 MiB to 128 GiB.
pub(super) fn partition_size(log2: u16) -> Result<u8, FormatError> {
    require("partition size", log2, "log2 of 20 to 37", (20..=37).contains(&log2))?;
    Ok(u8::try_from(log2).expect("at most 37"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u16) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[..4].copy_from_slice(b"_LVM");
        sector[4..12].copy_from_slice(&[0, 0xf6, 0, 1, 2, 3, 4, 5]);
        sector[24..32].copy_from_slice(&[0, 0, 8, 0x32, 0, 0, 0, 136]);
        sector[44..48].copy_from_slice(&[0, 2, 0, 24]);
        sector[48..56].copy_from_slice(&[0, 0, 0, 8, 0, 0, 0, 128]);
        sector[60..62].copy_from_slice(&version.to_be_bytes());
        sector[62..64].copy_from_slice(&[0, 26]);
        sector
    }

    #[test]
    fn a_record_is_read_as_its_table_has_it() {
        let Ok(Record::Classic(found)) = Record::decode(&record(30)) else { panic!("classic") };
        assert_eq!(found.geometry.vgid.to_string(), "00f6000102030405");
        assert_eq!((found.geometry.pv_number, found.geometry.pp_log2), (2, 24));
        assert_eq!((found.vgda_sectors, found.vgda_at), (2098, [136, 0]));
        assert_eq!((found.vgsa_sectors, found.vgsa_at), (8, [128, 0]));
    }

    #[test]
    fn the_version_decides_whose_disk_it_is() {
        let scalable = Record::decode(&record(31)).unwrap();
        assert!(matches!(scalable, Record::Scalable(geometry) if geometry.pp_log2 == 26));
        let foreign = Record::decode(&record(32_001)).unwrap_err().to_string();
        assert!(foreign.contains("not ours"), "{foreign}");
        assert!(Record::decode(&record(0)).is_err());
        assert!(Record::decode(&record(32)).is_err());
    }

    #[test]
    fn a_cut_record_is_an_error() {
        for len in 0..64 {
            assert!(Record::decode(&record(30)[..len]).is_err(), "{len}");
        }
        assert!(Ipl::decode(&[0xc9, 0xc2, 0xd4, 0xc1]).is_err());
        assert!(Ipl::decode(&[0; 512]).is_err());
    }
}
