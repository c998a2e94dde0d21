//! Turns the partitions that the PVs name into the map of each LV, and judges each LV.

use std::collections::BTreeMap;

use vgship_base::ids::Name;
use vgship_base::limits::VOLUME_BYTES_MAX;

use super::SECTOR;
use super::assemble::{Lv, LvState, Pv};
use super::place::MirrorCopy;
use super::probe::Member;
use super::record::LvmRecord;
use super::vgda::{LvEntry, PvEntry, Vgda};
use super::vgsa::{VGSA_SECTORS, Vgsa};

/// Most copies of a partition.
const COPIES_MAX: usize = 3;
/// Mirror policies that leave an LV linear. 5 is striped.
const LINEAR_POLICIES: [u16; 5] = [0, 1, 2, 4, 8];

/// What the map is made from.
pub(super) struct Source<'a> {
    pub(super) vgda: &'a Vgda,
    pub(super) vgsa: Option<&'a Vgsa>,
    /// In the order of the area's descriptors.
    pub(super) pvs: &'a [Pv],
    pub(super) disks: &'a [(&'a Member, &'a LvmRecord)],
    /// Per disk: sectors that LVM keeps elsewhere.
    pub(super) bad: &'a [Vec<u64>],
}

/// One LV on the way.
struct Draft<'a> {
    entry: &'a LvEntry,
    /// By LP number. Holds only what some PV names, so its size is bounded by the PVs' and not by
    /// what the entry claims.
    lps: BTreeMap<u16, Lp>,
    fault: Option<String>,
}

#[derive(Default)]
struct Lp {
    here: Vec<MirrorCopy>,
    elsewhere: usize,
}

/// The map and the state of every LV. What belongs to no LV is noted.
pub(super) fn lv_map(source: &Source<'_>, notes: &mut Vec<String>) -> Vec<Lv> {
    let draft = |entry| Draft { entry, lps: BTreeMap::new(), fault: None };
    let mut drafts: Vec<Draft<'_>> = source.vgda.lvs.iter().map(draft).collect();
    for (pv, known) in source.vgda.pvs.iter().zip(source.pvs) {
        place_partitions(source, pv, known, &mut drafts, notes);
    }
    let twice = |name: &[u8]| source.vgda.lvs.iter().filter(|lv| lv.name == name).count() > 1;
    drafts
        .into_iter()
        .map(|draft| {
            let twice = twice(&draft.entry.name);
            draft.judge(source, twice)
        })
        .collect()
}

fn place_partitions(
    source: &Source<'_>,
    pv: &PvEntry,
    known: &Pv,
    drafts: &mut [Draft<'_>],
    notes: &mut Vec<String>,
) {
    let disk = source.disks.iter().position(|(member, _)| member.ipl.pvid == pv.pvid);
    let overlap = disk.is_some_and(|disk| u64::from(pv.first_pp) < reserved(source.disks[disk].1));
    let (mut strays, pp_bytes) = (0, 1u64 << source.vgda.pp_log2);
    for (pp, &(index, lp)) in (0u16..).zip(&pv.pps).filter(|(_, (index, _))| *index != 0) {
        let draft = drafts.iter_mut().find(|draft| draft.entry.index == index);
        let Some(draft) = draft.filter(|draft| (1..=draft.entry.lps).contains(&lp)) else {
            strays += 1;
            continue;
        };
        let slot = draft.lps.entry(lp).or_default();
        let Some(disk) = disk else {
            slot.elsewhere += 1;
            continue;
        };
        let offset = u64::from(pv.first_pp) * SECTOR + u64::from(pp) * pp_bytes;
        let (member, _) = source.disks[disk];
        if overlap || offset + pp_bytes > member.disk.len() {
            let fault = format!("partition {lp} does not lie in the data area of {}", member.label);
            draft.fault.get_or_insert(fault);
        }
        let sectors = offset / SECTOR..(offset + pp_bytes) / SECTOR;
        if let Some(bad) = source.bad[disk].iter().find(|bad| sectors.contains(bad)) {
            let fault = format!("LVM keeps the bad sector {bad} of {} elsewhere", member.label);
            draft.fault.get_or_insert(fault);
        }
        let fresh = !known.outdated && is_in_sync(source, pv.number, pp);
        slot.here.push(MirrorCopy { disk, offset, fresh });
    }
    if strays > 0 {
        notes.push(format!("{strays} partitions of PV {} belong to no LV's map", pv.number));
    }
}

/// First sector that may belong to a partition.
fn reserved(record: &LvmRecord) -> u64 {
    let end = |at: &u32, len: u32| u64::from(*at) + u64::from(len);
    let vgda = record.vgda_at.iter().map(|at| end(at, record.vgda_sectors));
    let vgsa = record.vgsa_at.iter().map(|at| end(at, VGSA_SECTORS));
    vgda.chain(vgsa).max().unwrap_or(0)
}

/// Whether a partition is known not to be stale.
fn is_in_sync(source: &Source<'_>, pv_number: u16, pp: u16) -> bool {
    let Some(vgsa) = source.vgsa else { return false };
    let known = |factor| !vgsa.may_be_stale(pv_number, factor, pp);
    !vgsa.any_stale() || source.vgda.factor.is_some_and(known)
}

impl Draft<'_> {
    fn judge(mut self, source: &Source<'_>, name_is_twice: bool) -> Lv {
        for lp in self.lps.values_mut() {
            // LVM never marks the last copy: what is left of one is all there is.
            if let (0, [only]) = (lp.elsewhere, &mut lp.here[..]) {
                only.fresh = true;
            }
            lp.here.sort();
        }
        let bytes = u64::from(self.entry.lps) << source.vgda.pp_log2;
        let text: String = (self.entry.name.iter())
            .map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' })
            .collect();
        let state = match self.refusal(source, name_is_twice, &text, bytes) {
            Some(why) => LvState::Refused(why),
            None => self.weakness().map_or(LvState::Good, LvState::Degraded),
        };
        let copies = self.lps.values().map(Lp::copies).max().unwrap_or(0);
        let index = self.entry.index;
        let lps = self.lps.into_values().map(|lp| lp.here).collect();
        let name = if text.is_empty() { format!("lv-{index}") } else { text };
        Lv { name, index, bytes, copies, lps, state }
    }

    /// Why the LV is not served, if so: the first reason found.
    fn refusal(
        &self,
        source: &Source<'_>,
        name_is_twice: bool,
        text: &str,
        bytes: u64,
    ) -> Option<String> {
        let stated = usize::from(self.entry.copies);
        let find = |wrong: &dyn Fn(&Lp) -> bool| {
            self.lps.iter().find(|(_, lp)| wrong(lp)).map(|(number, _)| number)
        };
        let here = self.lps.values().filter(|lp| !lp.here.is_empty()).count();
        let total = usize::from(self.entry.lps);
        let lost = total - here;
        if text.parse::<Name>().is_err() {
            Some("its name cannot be used".to_owned())
        } else if name_is_twice {
            Some("another LV has the same name".to_owned())
        } else if !LINEAR_POLICIES.contains(&self.entry.policy) {
            Some(format!("it is striped (policy {})", self.entry.policy))
        } else if bytes > VOLUME_BYTES_MAX {
            Some("it is larger than 128 TiB".to_owned())
        } else if let Some(fault) = &self.fault {
            Some(fault.clone())
        } else if let Some(number) = find(&|lp| lp.copies() > stated.min(COPIES_MAX)) {
            Some(format!("partition {number} has more copies than the {stated} that it may have"))
        } else if lost > 0 {
            let absent = source.pvs.iter().filter(|pv| pv.label.is_none());
            let numbers: Vec<String> = absent.map(|pv| pv.number.to_string()).collect();
            let hint = match numbers.is_empty() {
                true => String::new(),
                false => format!("; PV {} is not at hand", numbers.join(", ")),
            };
            Some(format!("{lost} of {total} partitions are missing{hint}"))
        } else {
            find(&|lp| lp.here.iter().all(|copy| !copy.fresh)).map(|number| {
                format!("no copy of partition {number} is known to be in sync; run syncvg on AIX")
            })
        }
    }

    /// What is wrong with an LV that can be served, if anything is.
    fn weakness(&self) -> Option<String> {
        let stated = usize::from(self.entry.copies);
        let count = |wrong: &dyn Fn(&Lp) -> bool| self.lps.values().filter(|lp| wrong(lp)).count();
        let away = count(&|lp| lp.elsewhere > 0);
        let stale = count(&|lp| lp.here.iter().any(|copy| !copy.fresh));
        let fewer = count(&|lp| lp.copies() < stated);
        if away > 0 {
            let advice = "resynchronise it before it is used again";
            Some(format!("{away} partitions lack a copy whose disk is not at hand; {advice}"))
        } else if stale > 0 {
            Some(format!("{stale} partitions have a copy that may be stale"))
        } else if fewer > 0 {
            Some(format!("{fewer} partitions have fewer than {stated} copies"))
        } else {
            None
        }
    }
}

impl Lp {
    fn copies(&self) -> usize {
        self.here.len() + self.elsewhere
    }
}
