//! Finds the volume groups of this machine and of the places that were named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::aix::{AixError, LvState, Member, Pv, Record, Vg, Vgid, assemble, probe, shape_of};
use super::error::GroupError;
use super::images;
use super::io::{self, Access};
use super::listing::{LvListing, PvListing, VgKind, VgListing};
use super::lvm2::{self, Lvm2Lv, Lvm2Pv, Lvm2Vg};
use super::lvm2_plan::Lvm2Use;
use super::rootvg::{RunningRoot, refuses_disk, refuses_lv_name, refuses_vg_name};
use super::spec::VolumesSpec;

/// Everything of this machine (VGs of LVM2, AIX disks among its block devices) and of `specs`.
/// Reads only, and says of what it cannot read why.
pub fn list(specs: &[VolumesSpec]) -> Vec<VgListing> {
    let root = io::running_root();
    let (mut groups, mut named) = (Vec::new(), BTreeSet::new());
    let mut lvm2_failure = None;
    for spec in specs {
        match spec {
            VolumesSpec::Images(dir) => groups.push(list_images(spec, dir)),
            VolumesSpec::AixDisks(paths) => {
                groups.extend(list_aix(paths, true, &root));
                named.extend(paths);
            }
            VolumesSpec::Aix(vg) => groups.push(failed(spec, vg, "needs AIX and its LVM commands")),
            VolumesSpec::Lvm2(_) => {}
        }
    }
    let mut others = io::block_devices();
    others.retain(|path| !named.contains(path));
    groups.extend(list_aix(&others, false, &root));
    if io::has_program("vgs") {
        match list_lvm2(&root) {
            Ok(found) => groups.extend(found),
            Err(error) => lvm2_failure = Some(with_causes(&error)),
        }
    } else {
        lvm2_failure = Some("LVM2's commands are not installed".to_owned());
    }
    for spec in specs {
        if let VolumesSpec::Lvm2(vg) = spec
            && !groups.iter().any(|group| group.kind == VgKind::Lvm2 && group.name == *vg)
        {
            groups.push(failed(spec, vg, lvm2_failure.as_deref().unwrap_or("not found")));
        }
    }
    groups
}

fn failed(spec: &VolumesSpec, name: &str, why: &str) -> VgListing {
    let mut group = VgListing::new(name.to_owned(), VgKind::Unknown, spec.to_string());
    why.clone_into(&mut group.state);
    group.exclude(refuses_vg_name(name));
    group.exclude(Some(why.to_owned()));
    group
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn list_images(spec: &VolumesSpec, dir: &Path) -> VgListing {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = match io::list_folder(dir, false) {
        Ok(entries) => entries,
        Err(error) => return failed(spec, &name, &with_causes(&error)),
    };
    let mut group = VgListing::new(name, VgKind::Images, spec.to_string());
    let (found, problems) = images::volumes(&entries);
    let image = |name: String, bytes, excluded| LvListing {
        name,
        bytes,
        copies: 1,
        placement: "file".to_owned(),
        state: "ok".to_owned(),
        excluded,
    };
    group.exclude(refuses_vg_name(&group.name));
    for (name, bytes) in found {
        group.exclude(refuses_lv_name(name.as_str()));
        group.lvs.push(image(name.to_string(), bytes, None));
    }
    for problem in problems {
        group.lvs.push(image(problem.name, 0, Some(problem.reason)));
    }
    group
}

/// The VGs on these disks. A disk without one is passed over, unless it was named.
fn list_aix(paths: &[PathBuf], named: bool, root: &RunningRoot) -> Vec<VgListing> {
    let mut groups = Vec::new();
    let mut members: BTreeMap<Vgid, Vec<(Member, Option<String>)>> = BTreeMap::new();
    for path in paths {
        let label = path.to_string_lossy();
        let member = io::open_disk(path, Access::ReadOnly).and_then(|disk| {
            let wrong = |source| GroupError::Probe { path: path.clone(), source };
            probe(&label, disk).map_err(wrong)
        });
        match member {
            Ok(member) => {
                let device = io::block_device(path).ok().flatten();
                let refusal = device.and_then(|device| root.refuses_device(device));
                let refusal = refuses_disk(&member).or(refusal);
                members.entry(member.record.geometry().vgid).or_default().push((member, refusal));
            }
            Err(error) if named => {
                let spec = VolumesSpec::AixDisks(vec![path.clone()]);
                groups.push(failed(&spec, &label, &with_causes(&error)));
            }
            Err(_) => {}
        }
    }
    groups.extend(members.into_iter().map(|(vgid, members)| list_aix_vg(vgid, &members)));
    groups
}

fn list_aix_vg(vgid: Vgid, members: &[(Member, Option<String>)]) -> VgListing {
    let spec = members.iter().map(|(member, _)| PathBuf::from(&member.label)).collect();
    let spec = VolumesSpec::AixDisks(spec).to_string();
    let digits = vgid.to_string();
    let name = format!("vg-{}", &digits[..8]);
    let mut group = VgListing::new(name, VgKind::Original, spec);
    group.id = digits;
    let log2s = members.iter().map(|(member, _)| member.record.geometry().pp_log2);
    group.pp_bytes = log2s.max().map(|log2| 1 << log2);
    for (_, refusal) in members {
        group.exclude(refusal.clone());
    }
    let plain: Vec<Member> = members.iter().map(|(member, _)| member.clone()).collect();
    match assemble(&plain) {
        Ok(vg) => describe(&mut group, &vg),
        Err(error) => {
            let scalable = |member: &Member| matches!(member.record, Record::Scalable(_));
            group.kind = match &error {
                AixError::Unserved { .. } if plain.iter().any(scalable) => VgKind::Scalable,
                AixError::Unserved { .. } => VgKind::Big,
                _ => VgKind::Original,
            };
            group.state = with_causes(&error);
            group.exclude(Some(group.state.clone()));
            let known = |member: &Member| PvListing {
                name: member.label.clone(),
                state: format!("PV {}", member.record.geometry().pv_number),
            };
            group.pvs = plain.iter().map(known).collect();
        }
    }
    group
}

fn describe(group: &mut VgListing, vg: &Vg) {
    let pv = |pv: &Pv| match &pv.label {
        Some(label) if pv.outdated => {
            PvListing { name: label.clone(), state: "missed the last changes".to_owned() }
        }
        Some(label) => PvListing { name: label.clone(), state: "ok".to_owned() },
        None => PvListing { name: pv.pvid.to_string(), state: "not at hand".to_owned() },
    };
    group.pvs = vg.pvs.iter().map(pv).collect();
    if !vg.notes.is_empty() {
        group.state = vg.notes.join("; ");
    }
    for lv in &vg.lvs {
        group.exclude(refuses_lv_name(&lv.name));
        let (state, excluded) = match &lv.state {
            LvState::Good => ("ok".to_owned(), None),
            LvState::Degraded(why) => (format!("degraded: {why}"), None),
            LvState::Refused(why) => ("refused".to_owned(), Some(why.clone())),
        };
        group.lvs.push(LvListing {
            name: lv.name.clone(),
            bytes: lv.bytes,
            copies: lv.copies,
            placement: shape_of(&lv.lps, vg.pp_bytes()),
            state,
            excluded,
        });
    }
}

fn list_lvm2(root: &RunningRoot) -> Result<Vec<VgListing>, GroupError> {
    let vgs = super::open::report(&lvm2::vgs_command(None), lvm2::parse_vgs)?;
    let lvs = super::open::report(&lvm2::lvs_command(None), lvm2::parse_lvs)?;
    let pvs = super::open::report(&lvm2::pvs_command(), lvm2::parse_pvs)?;
    Ok(vgs.iter().map(|vg| list_lvm2_vg(vg, &lvs, &pvs, root)).collect())
}

fn list_lvm2_vg(vg: &Lvm2Vg, lvs: &[Lvm2Lv], pvs: &[Lvm2Pv], root: &RunningRoot) -> VgListing {
    let mut group = VgListing::new(vg.name.clone(), VgKind::Lvm2, format!("lvm2:{}", vg.name));
    group.id.clone_from(&vg.uuid);
    group.pp_bytes = Some(vg.extent_bytes);
    group.exclude(refuses_vg_name(&vg.name));
    group.exclude(root.refuses_vg(&vg.name));
    for pv in pvs.iter().filter(|pv| pv.vg == vg.name) {
        let state = if pv.missing { "missing" } else { "ok" };
        group.pvs.push(PvListing { name: pv.name.clone(), state: state.to_owned() });
    }
    for lv in lvs.iter().filter(|lv| lv.vg == vg.name) {
        group.exclude(refuses_lv_name(&lv.name));
        let (state, excluded) = match lv.usage() {
            Lvm2Use::Served(_) if lv.is_open() => ("in use", None),
            Lvm2Use::Served(_) => ("ok", None),
            Lvm2Use::NoVolume(why) => ("no volume", Some(why)),
            Lvm2Use::Unfit(why) => ("unfit", Some(why)),
        };
        let placement = match lv.segments {
            0 | 1 => lv.segtype.clone(),
            count => format!("{}, {count} segments", lv.segtype),
        };
        group.lvs.push(LvListing {
            name: lv.name.clone(),
            bytes: lv.bytes,
            copies: 1,
            placement,
            state: state.to_owned(),
            excluded,
        });
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lvm2_groups_are_listed_with_what_is_not_served_and_why() {
        let vgs = lvm2::parse_vgs(include_bytes!("fixtures/lvm2/vgs.json")).unwrap();
        let lvs = lvm2::parse_lvs(include_bytes!("fixtures/lvm2/lvs.json")).unwrap();
        let pvs = lvm2::parse_pvs(include_bytes!("fixtures/lvm2/pvs.json")).unwrap();
        let root = RunningRoot { devices: Vec::new(), vgs: vec!["sys-a".to_owned()] };
        let groups: Vec<_> = vgs.iter().map(|vg| list_lvm2_vg(vg, &lvs, &pvs, &root)).collect();
        let [data, empty, system] = &groups[..] else { panic!("three groups") };
        assert_eq!((data.pvs.len(), data.excluded.as_ref()), (2, None));
        let served =
            |group: &VgListing| group.lvs.iter().filter(|lv| lv.excluded.is_none()).count();
        assert_eq!((data.lvs.len(), served(data), served(empty)), (10, 3, 0));
        assert_eq!(data.lvs[0].placement, "linear, 2 segments");
        assert!(system.excluded.as_ref().unwrap().contains("running root"));
    }
}
