//! Puts the disks of one VG together: believes the newest whole descriptor area of any of them.

use std::io;

use thiserror::Error;
use vgship_base::disk::SharedDisk;

use super::SECTOR;
use super::badblocks::{self, DIRECTORY_AT, DIRECTORY_BYTES};
use super::map::{Source, lv_map};
use super::place::MirrorCopy;
use super::probe::Member;
use super::record::{Geometry, LvmRecord, Pvid, Record, Vgid};
use super::vgda::{Stamp, VGDA_SECTORS_MAX, VGDA_SECTORS_MIN, Vgda};
use super::vgsa::{VGSA_SECTORS, Vgsa};

/// Why disks do not make a VG that can be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AixError {
    /// No disk at all.
    #[error("no disk was given")]
    NoDisk,
    /// Disks of two VGs.
    #[error("{first} belongs to the VG {first_vg}, {second} to {second_vg}: name one VG's disks")]
    Mixed {
        /// A disk.
        first: String,
        /// Its VG.
        first_vg: Vgid,
        /// Another.
        second: String,
        /// Its VG.
        second_vg: Vgid,
    },
    /// A format whose entries are not public.
    #[error(
        "{vgid} is a {kind} VG (record version {version}): its entries are not public; \
         use live commands"
    )]
    Unserved {
        /// Big or scalable.
        kind: &'static str,
        /// Which VG.
        vgid: Vgid,
        /// As stored.
        version: u16,
    },
    /// One PV by two paths, or a copy of one.
    #[error("{first} and {second} are the same PV {number}: name each disk once, and no copies")]
    Twice {
        /// A disk.
        first: String,
        /// Another.
        second: String,
        /// Their PV number.
        number: u32,
    },
    /// A disk that cannot be read.
    #[error("{label} cannot be read at sector {sector}")]
    Read {
        /// Which disk.
        label: String,
        /// Unit: sectors from the disk's start.
        sector: u64,
        /// What it says.
        source: io::Error,
    },
    /// No descriptor area that is whole.
    #[error("no descriptor area of {vgid} can be used: {reasons}")]
    NoVgda {
        /// Which VG.
        vgid: Vgid,
        /// Each copy, and what is wrong with it.
        reasons: String,
    },
    /// Areas of one time that say different things.
    #[error(
        "descriptor areas of {vgid} have the same stamp and differ, on {labels}: one is damaged"
    )]
    Differ {
        /// Which VG.
        vgid: Vgid,
        /// Where they are.
        labels: String,
    },
    /// A disk that the VG has given up.
    #[error("{label} (PVID {pvid}) is no longer a disk of {vgid}")]
    NotMember {
        /// Which disk.
        label: String,
        /// Its identity.
        pvid: Pvid,
        /// Which VG.
        vgid: Vgid,
    },
}

/// A PV of a VG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pv {
    /// From 1.
    pub number: u16,
    /// Its identity.
    pub pvid: Pvid,
    /// What it is called here; `None` when it is not at hand.
    pub label: Option<String>,
    /// Partitions on it.
    pub pps: usize,
    /// Whether it missed the VG's last changes.
    pub outdated: bool,
}

/// How well an LV is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LvState {
    /// All copies are there.
    Good,
    /// Served, but a copy is missing or stale: what and where.
    Degraded(String),
    /// Not served: why.
    Refused(String),
}

/// An LV of a VG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lv {
    /// Its name; what is no letter is shown as `?`.
    pub name: String,
    /// Its minor number, from 1.
    pub index: u16,
    /// Unit: bytes.
    pub bytes: u64,
    /// Most copies that any of its partitions has.
    pub copies: usize,
    /// Copies at hand per logical partition.
    pub lps: Vec<Vec<MirrorCopy>>,
    /// How well it is.
    pub state: LvState,
}

/// An original VG, as its disks at hand tell it.
#[derive(Clone)]
pub struct Vg {
    /// Its identity.
    pub vgid: Vgid,
    /// Size of a partition. Unit: log2 of bytes.
    pub pp_log2: u8,
    /// Its PVs, also those that are not at hand.
    pub pvs: Vec<Pv>,
    /// Its LVs.
    pub lvs: Vec<Lv>,
    /// What a person should know of its state.
    pub notes: Vec<String>,
    /// The disks at hand, which [`MirrorCopy::disk`] counts.
    pub(super) disks: Vec<SharedDisk>,
}

impl Vg {
    /// Size of a partition. Unit: bytes.
    pub const fn pp_bytes(&self) -> u64 {
        1 << self.pp_log2
    }
}

/// Puts the members of one VG together.
///
/// # Errors
/// When they are not one original VG, or its descriptor areas cannot be believed.
pub fn assemble(members: &[Member]) -> Result<Vg, AixError> {
    let first = members.first().ok_or(AixError::NoDisk)?;
    let geometry = *first.record.geometry();
    let mut disks = Vec::new();
    for member in members {
        disks.push((member, original(first, member, geometry)?));
    }
    refuse_twice(members)?;
    let (vgda, stamps, mut notes) = believed_vgda(&disks, geometry)?;
    let (vgsa, damaged) = newest_vgsa(&disks)?;
    notes.extend(damaged);
    for member in members {
        let pvid = member.ipl.pvid;
        if vgda.pvs.iter().all(|pv| pv.pvid != pvid) {
            let label = member.label.clone();
            return Err(AixError::NotMember { label, pvid, vgid: geometry.vgid });
        }
        notes.extend(member.record_damage.iter().map(|why| format!("{}: {why}", member.label)));
    }
    let marked_missing = vgsa.as_ref().is_none_or(|vgsa| vgsa.any_missing);
    let pvs: Vec<Pv> = (vgda.pvs.iter())
        .map(|pv| {
            let disk = members.iter().position(|member| member.ipl.pvid == pv.pvid);
            let stamp = disk.and_then(|disk| stamps[disk]);
            Pv {
                number: pv.number,
                pvid: pv.pvid,
                label: disk.map(|disk| members[disk].label.clone()),
                pps: pv.pps.len(),
                outdated: stamp.map_or(marked_missing, |stamp| stamp < vgda.stamp),
            }
        })
        .collect();
    for pv in pvs.iter().filter(|pv| pv.label.is_none()) {
        notes.push(format!("PV {} (PVID {}) is not at hand", pv.number, pv.pvid));
    }
    notes.extend(vgda.defects.iter().cloned());
    let mut bad = Vec::new();
    for member in members {
        bad.push(bad_sectors(member, &mut notes)?);
    }
    let source = Source { vgda: &vgda, vgsa: vgsa.as_ref(), pvs: &pvs, disks: &disks, bad: &bad };
    let lvs = lv_map(&source, &mut notes);
    let disks = members.iter().map(|member| member.disk.clone()).collect();
    Ok(Vg { vgid: geometry.vgid, pp_log2: geometry.pp_log2, pvs, lvs, notes, disks })
}

/// The member's record, if it is an original VG's and the first member's.
fn original<'a>(
    first: &Member,
    member: &'a Member,
    geometry: Geometry,
) -> Result<&'a LvmRecord, AixError> {
    let Geometry { vgid, version, .. } = *member.record.geometry();
    if vgid != geometry.vgid {
        return Err(AixError::Mixed {
            first: first.label.clone(),
            first_vg: geometry.vgid,
            second: member.label.clone(),
            second_vg: vgid,
        });
    }
    match &member.record {
        Record::Scalable(_) => Err(AixError::Unserved { kind: "scalable", vgid, version }),
        Record::Classic(record) if record.vgda_sectors > VGDA_SECTORS_MAX => {
            Err(AixError::Unserved { kind: "big", vgid, version })
        }
        Record::Classic(record) => Ok(record),
    }
}

fn refuse_twice(members: &[Member]) -> Result<(), AixError> {
    for (at, second) in members.iter().enumerate() {
        let number = second.record.geometry().pv_number;
        let same = |first: &&Member| {
            first.ipl.pvid == second.ipl.pvid || first.record.geometry().pv_number == number
        };
        if let Some(first) = members[..at].iter().find(same) {
            let (first, second) = (first.label.clone(), second.label.clone());
            return Err(AixError::Twice { first, second, number });
        }
    }
    Ok(())
}

/// Per member: the newest stamp of its whole copies.
type Stamps = Vec<Option<Stamp>>;

/// Reads every copy on every disk. Of those of the newest stamp the ones with the fewest defects
/// count; the majority of them is believed, and without one nothing.
fn believed_vgda(
    disks: &[(&Member, &LvmRecord)],
    geometry: Geometry,
) -> Result<(Vgda, Stamps, Vec<String>), AixError> {
    let vgid = geometry.vgid;
    let known = disks.iter().map(|(member, record)| {
        (u16::try_from(record.geometry.pv_number).unwrap_or(u16::MAX), member.ipl.pvid)
    });
    let known: Vec<(u16, Pvid)> = known.collect();
    let (mut whole, mut broken) = (Vec::new(), Vec::new());
    let mut stamps = vec![None; disks.len()];
    for (index, (member, record)) in disks.iter().enumerate() {
        for (copy, &at) in record.vgda_at.iter().enumerate().filter(|(_, at)| **at != 0) {
            let found = read_area(member, at, record.vgda_sectors)?
                .ok_or_else(|| "does not lie on the disk".to_owned())
                .and_then(|area| Vgda::decode(&area, &known).map_err(|error| error.to_string()))
                .and_then(|vgda| {
                    let same = (vgda.vgid, vgda.pp_log2) == (vgid, record.geometry.pp_log2);
                    if same { Ok(vgda) } else { Err("is of another VG".to_owned()) }
                });
            match found {
                Ok(vgda) => {
                    stamps[index] = stamps[index].max(Some(vgda.stamp));
                    whole.push((member.label.as_str(), vgda));
                }
                Err(why) => {
                    broken.push(format!("descriptor area {copy} of {} {why}", member.label));
                }
            }
        }
    }
    let newest = whole.iter().map(|(_, vgda)| vgda.stamp).max();
    whole.retain(|(_, vgda)| Some(vgda.stamp) == newest);
    let fewest = whole.iter().map(|(_, vgda)| vgda.defects.len()).min();
    whole.retain(|(_, vgda)| Some(vgda.defects.len()) == fewest);
    if whole.is_empty() {
        return Err(AixError::NoVgda { vgid, reasons: broken.join("; ") });
    }
    let votes = |vgda: &Vgda| whole.iter().filter(|(_, other)| other == vgda).count();
    let Some((_, vgda)) = whole.iter().find(|(_, vgda)| votes(vgda) * 2 > whole.len()) else {
        let labels: Vec<&str> = whole.iter().map(|(label, _)| *label).collect();
        return Err(AixError::Differ { vgid, labels: labels.join(", ") });
    };
    let outvoted = whole.iter().filter(|(_, other)| other != vgda);
    broken.extend(outvoted.map(|(label, _)| format!("a descriptor area of {label} is damaged")));
    Ok((vgda.clone(), stamps, broken))
}

/// The newest status area that is whole, and what is wrong with the others.
fn newest_vgsa(disks: &[(&Member, &LvmRecord)]) -> Result<(Option<Vgsa>, Vec<String>), AixError> {
    let (mut newest, mut notes): (Option<Vgsa>, _) = (None, Vec::new());
    for (member, record) in disks {
        for &at in record.vgsa_at.iter().filter(|at| **at != 0) {
            let area = match record.vgsa_sectors {
                VGSA_SECTORS => read_area(member, at, VGSA_SECTORS)?,
                _ => None,
            };
            let found = area.and_then(|area| Vgsa::decode(area.first_chunk()?));
            match found {
                None => notes.push(format!("a status area of {} is damaged", member.label)),
                Some(found) if newest.as_ref().is_none_or(|best| best.stamp < found.stamp) => {
                    newest = Some(found);
                }
                Some(_) => {}
            }
        }
    }
    Ok((newest, notes))
}

/// The bad sectors that a disk's directory or its backup names.
fn bad_sectors(member: &Member, notes: &mut Vec<String>) -> Result<Vec<u64>, AixError> {
    let mut sectors = Vec::new();
    for sector in DIRECTORY_AT {
        let mut directory = vec![0; DIRECTORY_BYTES];
        member.disk.read_at(sector * SECTOR, &mut directory).map_err(|source| AixError::Read {
            label: member.label.clone(),
            sector,
            source,
        })?;
        match badblocks::decode(&directory) {
            Ok(found) => sectors.extend(found),
            Err(error) => notes.push(format!(
                "the bad-block directory at sector {sector} of {} is damaged: {error}",
                member.label
            )),
        }
    }
    Ok(sectors)
}

/// An area of bounded length, or `None` when it does not lie on the disk or is too short.
fn read_area(member: &Member, at: u32, sectors: u32) -> Result<Option<Vec<u8>>, AixError> {
    let (offset, len) = (u64::from(at) * SECTOR, u64::from(sectors) * SECTOR);
    let allowed =
        sectors == VGSA_SECTORS || (VGDA_SECTORS_MIN..=VGDA_SECTORS_MAX).contains(&sectors);
    if !allowed || offset + len > member.disk.len() {
        return Ok(None);
    }
    let mut area = vec![0; usize::try_from(len).expect("about 1 MiB")];
    match member.disk.read_at(offset, &mut area) {
        Ok(()) => Ok(Some(area)),
        Err(source) => {
            Err(AixError::Read { label: member.label.clone(), sector: at.into(), source })
        }
    }
}
