//! Looks at a group's volumes without disturbing anybody: opens nothing to write, takes no lock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vgship_base::ids::Name;

use super::aix::{AixVolume, Lv, Vg};
use super::drift::{Found, Inventory};
use super::error::{GroupError, VolumeProblem};
use super::identity::Identity;
use super::io::{self, Access};
use super::lvm2_plan::Lvm2Use;
use super::rootvg::refuses_vg_name;
use super::spec::VolumesSpec;
use super::{images, lvm2, open};

/// How long a report of LVM2 may take: it reads disks that may hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lists what lies in a source's place. A folder that is not there holds nothing.
///
/// # Errors
/// When nothing can be said of the volumes: a folder or disk that cannot be read, a command that
/// fails or takes longer than 20 s.
pub fn inventory(spec: &VolumesSpec) -> Result<Inventory, GroupError> {
    match spec {
        VolumesSpec::Images(dir) => of_folder(dir),
        VolumesSpec::AixDisks(paths) => of_aix(spec, paths),
        VolumesSpec::Lvm2(vg) => of_lvm2(vg),
        VolumesSpec::Aix(vg) => Err(open::needs_aix(vg)),
    }
}

fn of_folder(dir: &Path) -> Result<Inventory, GroupError> {
    let entries = io::list_folder(dir, true)?;
    let (volumes, unfit) = images::volumes(&entries);
    let found = |(name, bytes): images::Image| {
        let entry = entries.iter().find(|entry| entry.name == name.as_str());
        let identity = entry.and_then(|entry| entry.identity.clone());
        Found { name, bytes, masked: 0, identity }
    };
    Ok(Inventory { volumes: volumes.into_iter().map(found).collect(), unfit })
}

fn of_aix(spec: &VolumesSpec, paths: &[PathBuf]) -> Result<Inventory, GroupError> {
    let vg = open::aix_vg(spec, paths, Access::ReadOnly)?;
    let mut inventory = Inventory::default();
    for lv in &vg.lvs {
        match (AixVolume::open(&vg, lv), lv.name.parse()) {
            (Ok(volume), Ok(name)) => inventory.volumes.push(aix_found(&vg, lv, &volume, name)?),
            (Err(why), _) => {
                inventory.unfit.push(VolumeProblem::new(&lv.name, format!("is not served: {why}")));
            }
            (_, Err(error)) => {
                inventory.unfit.push(VolumeProblem::new(&lv.name, format!("is refused: {error}")));
            }
        }
    }
    Ok(inventory)
}

fn aix_found(vg: &Vg, lv: &Lv, volume: &AixVolume, name: Name) -> Result<Found, GroupError> {
    let masked = volume.masked().map_err(io::at("read", Path::new(&lv.name)))?;
    let identity = Identity::new(format!("{}.{}", vg.vgid, lv.index));
    Ok(Found { name, bytes: lv.bytes, masked, identity })
}

fn of_lvm2(vg: &str) -> Result<Inventory, GroupError> {
    if let Some(reason) = refuses_vg_name(vg) {
        return Err(GroupError::Rootvg { what: format!("lvm2:{vg}"), reason });
    }
    let command = lvm2::lvs_peek_command(vg);
    let report = io::run_within(&command, PATIENCE)?;
    let lvs = lvm2::parse_lvs(&report)
        .map_err(|source| GroupError::Report { command: command.join(" "), source })?;
    Ok(lvm2_inventory(lvs))
}

fn lvm2_inventory(lvs: Vec<lvm2::Lvm2Lv>) -> Inventory {
    let mut inventory = Inventory::default();
    for lv in lvs {
        match lv.usage() {
            Lvm2Use::Served(name) => {
                let identity = Identity::new(lv.uuid);
                inventory.volumes.push(Found { name, bytes: lv.bytes, masked: 0, identity });
            }
            Lvm2Use::NoVolume(_) => {}
            Lvm2Use::Unfit(why) => inventory.unfit.push(VolumeProblem::new(&lv.name, why)),
        }
    }
    inventory
}

#[cfg(test)]
mod tests {
    use vgship_base::extent::ExtentSize;
    use vgship_base::layout::{Layout, VolumeLayout};
    use vgship_test_images::{DemoSizes, write_demo_vg};

    use super::super::drift::{Drift, Known, Place, judge};
    use super::*;

    fn known(found: &Inventory) -> Known {
        let volume = |found: &Found| VolumeLayout {
            name: found.name.clone(),
            bytes: found.bytes,
            masked: found.masked,
        };
        Known {
            layout: Layout {
                extent: ExtentSize::from_log2(16).unwrap(),
                volumes: found.volumes.iter().map(volume).collect(),
            },
            identities: found.volumes.iter().map(|found| found.identity.clone()).collect(),
        }
    }

    #[test]
    fn a_file_keeps_its_identity_under_another_name_and_another_file_has_another() {
        let place = tempfile::tempdir().unwrap();
        let (one, two) = (place.path().join("one"), place.path().join("two"));
        std::fs::write(&one, [0; 512]).unwrap();
        let spec = VolumesSpec::Images(place.path().to_owned());
        let look = || inventory(&spec).unwrap();
        let before = known(&look());
        assert!(before.identities[0].is_some());
        std::fs::rename(&one, &two).unwrap();
        let Drift::Broken(renamed) = judge(Place::Here(&spec), &before, &look()) else { panic!() };
        assert!(renamed[0].reason.contains("renamed to two"), "{renamed:?}");
        std::fs::rename(&two, &one).unwrap();
        assert_eq!(judge(Place::Here(&spec), &before, &look()), Drift::None);
        // Made anew: whether or not the file system gives the same inode number again.
        std::fs::remove_file(&one).unwrap();
        std::fs::write(&one, [0; 512]).unwrap();
        let Drift::Broken(other) = judge(Place::Here(&spec), &before, &look()) else { panic!() };
        assert!(other[0].reason.contains("is not the one"), "{other:?}");
        let nowhere = VolumesSpec::Images(place.path().join("absent"));
        assert_eq!(inventory(&nowhere).unwrap(), Inventory::default());
    }

    #[test]
    fn an_aix_group_is_looked_at_while_an_agent_has_it() {
        let place = tempfile::tempdir().unwrap();
        let sizes = DemoSizes { pp_log2: 20, lps: 4 };
        let written = write_demo_vg(place.path(), sizes, 1).unwrap();
        let spec = VolumesSpec::AixDisks(written.disks);
        let held = super::super::open_source(&spec, ExtentSize::from_log2(16).unwrap()).unwrap();
        let found = inventory(&spec).unwrap();
        let known = known(&found);
        assert_eq!(known.layout, held.layout);
        let mut identities: Vec<_> = known.identities.iter().flatten().collect();
        identities.sort();
        identities.dedup();
        assert_eq!(identities.len(), 4, "each LV is another: {identities:?}");
        held.volumes[1].write_at(0, &[7; 512]).unwrap();
        let Drift::Broken(problems) = judge(Place::Here(&spec), &known, &inventory(&spec).unwrap())
        else {
            panic!("an overwritten control block is passed over")
        };
        assert!(problems[0].reason.contains("had 512"), "{problems:?}");
    }

    #[test]
    fn an_lvm2_group_is_read_from_its_report() {
        let lvs = lvm2::parse_lvs(include_bytes!("fixtures/lvm2/lvs.json")).unwrap();
        let lvs = lvs.into_iter().filter(|lv| lv.vg == "datavg").collect();
        let found = lvm2_inventory(lvs);
        let known = known(&found);
        let (id, volume) = known.layout.find("dbdatalv").unwrap();
        assert_eq!(volume.bytes, 8 << 30);
        let uuid = Identity::new("qPkRg1-Xn2d-5vU0-3sZb-h1Gc-Dk7m-Yt4wLe");
        assert_eq!(known.identities[id.index()], uuid);
        assert!(found.unfit.iter().any(|problem| problem.name == "idlelv"));
        let mut grown = found.clone();
        grown.unfit.clear();
        grown.volumes[id.index()].bytes += 4 << 20;
        let spec = "lvm2:datavg".parse().unwrap();
        let Drift::Grown(layout) = judge(Place::Here(&spec), &known, &grown) else {
            panic!("growth is not seen")
        };
        assert_eq!(layout.volumes[id.index()].bytes, (8 << 30) + (4 << 20));
    }
}
