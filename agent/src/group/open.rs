//! Opens all volumes of a group, for a source or for a replica.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgship_base::disk::SharedDisk;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::Name;
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::limits::VOLUMES_MAX;

use super::aix::{AixVolume, LvState, Member, Vg, assemble, probe};
use super::error::{GroupError, VolumeProblem};
use super::io::{self, Access};
use super::lvm2;
use super::lvm2_plan::{self, Lvm2Use};
use super::rootvg::{RunningRoot, refuses_disk, refuses_lv_name, refuses_vg_name};
use super::spec::VolumesSpec;
use super::{OpenGroup, images};

/// A volume that was opened for a source.
struct Opened {
    name: Name,
    masked: u32,
    disk: SharedDisk,
}

/// Opens all volumes of a source.
///
/// Shape: the layout lists the volumes by name (images, LVM2) or in the order of their LVs (AIX).
/// The first 512 bytes of an AIX LV are masked where they are its control block.
///
/// # Errors
/// A rootvg, always; a volume that cannot be served, so that a group is never replicated in part.
pub fn open_source(spec: &VolumesSpec, extent: ExtentSize) -> Result<OpenGroup, GroupError> {
    let opened = match spec {
        VolumesSpec::Images(dir) => source_images(spec, dir)?,
        VolumesSpec::AixDisks(paths) => source_aix(spec, paths)?,
        VolumesSpec::Lvm2(vg) => source_lvm2(spec, vg)?,
        VolumesSpec::Aix(vg) => return Err(needs_aix(vg)),
    };
    let mut group =
        OpenGroup { layout: Layout { extent, volumes: Vec::new() }, volumes: Vec::new() };
    for Opened { name, masked, disk } in opened {
        group.layout.volumes.push(VolumeLayout { name, bytes: disk.len(), masked });
        group.volumes.push(disk);
    }
    Ok(group)
}

/// Opens the volumes of a replica in the order of the source's layout, guarded against a second
/// agent for as long as they are open. With `create`, makes those that are missing.
///
/// # Errors
/// A rootvg, always; each volume that is missing or smaller; with `create` one that is larger, too;
/// a device in use.
pub fn open_replica(
    spec: &VolumesSpec,
    layout: &Layout,
    create: bool,
) -> Result<Vec<SharedDisk>, GroupError> {
    for volume in &layout.volumes {
        refuse(spec, refuses_lv_name(volume.name.as_str()))?;
    }
    match spec {
        VolumesSpec::Images(dir) => replica_images(spec, dir, layout, create),
        VolumesSpec::AixDisks(paths) => replica_aix(spec, paths, layout, create),
        VolumesSpec::Lvm2(vg) => replica_lvm2(spec, vg, layout, create),
        VolumesSpec::Aix(vg) => Err(needs_aix(vg)),
    }
}

/// Makes the volumes of a replica as large as its source's. What is as large is left as it is.
///
/// Durable: the new sizes, once this has returned.
///
/// # Errors
/// A rootvg, always; each volume that is missing or cannot be made larger from here, with the
/// command that does it.
pub fn grow_replica(spec: &VolumesSpec, layout: &Layout) -> Result<(), GroupError> {
    let place = |problems| GroupError::Volumes { place: spec.to_string(), problems };
    match spec {
        VolumesSpec::Images(dir) => {
            refuse_folder(spec, dir)?;
            let grow = images::to_grow(&io::list_folder(dir, false)?, layout).map_err(place)?;
            io::grow_images(dir, &grow)
        }
        VolumesSpec::AixDisks(paths) => {
            let vg = aix_vg(spec, paths, Access::ReadOnly)?;
            let problems: Vec<_> =
                layout.volumes.iter().filter_map(|volume| aix_growth(&vg, volume)).collect();
            if problems.is_empty() { Ok(()) } else { Err(place(problems)) }
        }
        VolumesSpec::Lvm2(vg) => {
            let lvs = lvm2_lvs(spec, vg, &io::running_root())?;
            let commands = lvm2_plan::to_grow(&lvs, vg, lvm2_extent(vg)?, layout).map_err(place)?;
            commands.iter().try_for_each(|command| io::run(command).map(drop))
        }
        VolumesSpec::Aix(vg) => Err(needs_aix(vg)),
    }
}

/// What must be done on AIX before an LV is as large as its source's.
fn aix_growth(vg: &Vg, wanted: &VolumeLayout) -> Option<VolumeProblem> {
    let name = wanted.name.as_str();
    let why = match vg.lvs.iter().find(|lv| lv.name == name) {
        None => "is missing".to_owned(),
        Some(lv) => {
            let lacks = wanted.bytes.checked_sub(lv.bytes).filter(|lacks| *lacks > 0)?;
            let count = lacks.div_ceil(vg.pp_bytes());
            format!(
                "has {} bytes, its source {}; make it larger on AIX with: extendlv {name} {count}",
                lv.bytes, wanted.bytes
            )
        }
    };
    Some(VolumeProblem::new(name, why))
}

pub(super) fn needs_aix(vg: &str) -> GroupError {
    match refuses_vg_name(vg) {
        Some(reason) => GroupError::Rootvg { what: format!("aix:{vg}"), reason },
        None => GroupError::NeedsAix { vg: vg.to_owned() },
    }
}

pub(super) fn refuse(spec: &VolumesSpec, reason: Option<String>) -> Result<(), GroupError> {
    let refused = |reason| GroupError::Rootvg { what: spec.to_string(), reason };
    reason.map_or(Ok(()), |reason| Err(refused(reason)))
}

fn unless_problems<T>(
    spec: &VolumesSpec,
    found: Vec<T>,
    problems: Vec<VolumeProblem>,
) -> Result<Vec<T>, GroupError> {
    let place = spec.to_string();
    match (found.len(), problems.len()) {
        (0, _) => Err(GroupError::Nothing { place, problems }),
        (_, 1..) => Err(GroupError::Volumes { place, problems }),
        (VOLUMES_MAX.., _) if found.len() > VOLUMES_MAX => {
            Err(GroupError::TooMany { place, count: found.len() })
        }
        _ => Ok(found),
    }
}

pub(super) fn refuse_folder(spec: &VolumesSpec, dir: &Path) -> Result<(), GroupError> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    refuse(spec, refuses_vg_name(&name))?;
    match io::block_device(dir) {
        Ok(Some(device)) => refuse(spec, io::running_root().refuses_device(device)),
        _ => Ok(()),
    }
}

fn source_images(spec: &VolumesSpec, dir: &Path) -> Result<Vec<Opened>, GroupError> {
    refuse_folder(spec, dir)?;
    let (found, problems) = images::volumes(&io::list_folder(dir, false)?);
    for (name, _) in &found {
        refuse(spec, refuses_lv_name(name.as_str()))?;
    }
    let open = |(name, _): images::Image| {
        let disk = io::open_disk(&dir.join(name.as_str()), Access::Shared)?;
        Ok(Opened { name, masked: 0, disk })
    };
    unless_problems(spec, found, problems)?.into_iter().map(open).collect()
}

fn replica_images(
    spec: &VolumesSpec,
    dir: &Path,
    layout: &Layout,
    create: bool,
) -> Result<Vec<SharedDisk>, GroupError> {
    refuse_folder(spec, dir)?;
    let entries = io::list_folder(dir, create)?;
    match images::missing(&entries, layout, create) {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => io::create_images(dir, &missing)?,
        Err(problems) => {
            return Err(GroupError::Volumes { place: spec.to_string(), problems });
        }
    }
    let open = |name: &Name| io::open_disk(&dir.join(name.as_str()), Access::Guarded);
    layout.volumes.iter().map(|volume| open(&volume.name)).collect()
}

/// Opens and probes the disks of an AIX VG, after the refusal of each that is the system's.
fn aix_members(
    spec: &VolumesSpec,
    paths: &[PathBuf],
    access: Access,
) -> Result<Vec<Member>, GroupError> {
    let root = io::running_root();
    let mut members = Vec::new();
    for path in paths {
        let device = io::block_device(path).map_err(io::at("open", path))?;
        refuse(spec, device.and_then(|device| root.refuses_device(device)))?;
        // Looked at before it is opened for writing: a system's disk is not even locked.
        let look = |access| {
            let disk = io::open_disk(path, access)?;
            probe(&path.to_string_lossy(), disk)
                .map_err(|source| GroupError::Probe { path: path.clone(), source })
        };
        refuse(spec, refuses_disk(&look(Access::ReadOnly)?))?;
        members.push(look(access)?);
    }
    Ok(members)
}

pub(super) fn aix_vg(
    spec: &VolumesSpec,
    paths: &[PathBuf],
    access: Access,
) -> Result<Vg, GroupError> {
    assembled(spec, &aix_members(spec, paths, access)?)
}

/// The VG that these disks make, unless it is a system's.
pub(super) fn assembled(spec: &VolumesSpec, members: &[Member]) -> Result<Vg, GroupError> {
    let vg = assemble(members)?;
    for lv in &vg.lvs {
        refuse(spec, refuses_lv_name(&lv.name))?;
    }
    Ok(vg)
}

fn source_aix(spec: &VolumesSpec, paths: &[PathBuf]) -> Result<Vec<Opened>, GroupError> {
    let vg = aix_vg(spec, paths, Access::Shared)?;
    let (mut opened, mut problems) = (Vec::new(), Vec::new());
    for lv in &vg.lvs {
        match (AixVolume::open(&vg, lv), lv.name.parse()) {
            (Ok(volume), Ok(name)) => {
                let masked = volume.masked().map_err(io::at("read", Path::new(&lv.name)))?;
                opened.push(Opened { name, masked, disk: Arc::new(volume) });
            }
            (Err(reason), _) => {
                problems.push(VolumeProblem::new(&lv.name, format!("is not served: {reason}")));
            }
            (_, Err(error)) => {
                problems.push(VolumeProblem::new(&lv.name, format!("is refused: {error}")));
            }
        }
    }
    unless_problems(spec, opened, problems)
}

fn replica_aix(
    spec: &VolumesSpec,
    paths: &[PathBuf],
    layout: &Layout,
    exact: bool,
) -> Result<Vec<SharedDisk>, GroupError> {
    let vg = aix_vg(spec, paths, Access::Guarded)?;
    let (mut volumes, mut problems) = (Vec::new(), Vec::new());
    for wanted in &layout.volumes {
        let name = wanted.name.as_str();
        match aix_replica_volume(&vg, wanted, exact) {
            Ok(volume) => volumes.push(Arc::new(volume) as SharedDisk),
            Err(reason) => problems.push(VolumeProblem::new(name, reason)),
        }
    }
    unless_problems(spec, volumes, problems)
}

fn aix_replica_volume(vg: &Vg, wanted: &VolumeLayout, exact: bool) -> Result<AixVolume, String> {
    let name = wanted.name.as_str();
    let Some(lv) = vg.lvs.iter().find(|lv| lv.name == name) else {
        let count = wanted.bytes.div_ceil(vg.pp_bytes());
        let size = vg.pp_bytes() >> 20;
        return Err(format!(
            "is missing; make it on AIX with: mklv -y {name} VG {count} (partitions of {size} MiB)"
        ));
    };
    if let LvState::Degraded(why) = &lv.state {
        return Err(format!("is not whole, and a replica must be: {why}"));
    }
    let volume = AixVolume::open(vg, lv).map_err(|why| format!("is not served: {why}"))?;
    match images::size_problem(name, lv.bytes, wanted.bytes, exact) {
        Some(problem) => Err(problem.reason),
        None => Ok(volume),
    }
}

/// Runs a command and reads its report.
pub(super) fn report<T>(
    command: &lvm2::Command,
    parse: impl Fn(&[u8]) -> Result<Vec<T>, lvm2::ReportError>,
) -> Result<Vec<T>, GroupError> {
    parse(&io::run(command)?)
        .map_err(|source| GroupError::Report { command: command.join(" "), source })
}

/// All LVs of a VG of LVM2, after the refusal of a system's.
pub(super) fn lvm2_lvs(
    spec: &VolumesSpec,
    vg: &str,
    root: &RunningRoot,
) -> Result<Vec<lvm2::Lvm2Lv>, GroupError> {
    refuse(spec, refuses_vg_name(vg))?;
    refuse(spec, root.refuses_vg(vg))?;
    let lvs = report(&lvm2::lvs_command(Some(vg)), lvm2::parse_lvs)?;
    for lv in &lvs {
        refuse(spec, refuses_lv_name(&lv.name))?;
    }
    Ok(lvs)
}

/// What a VG of LVM2 allocates by. Unit: bytes.
pub(super) fn lvm2_extent(vg: &str) -> Result<u64, GroupError> {
    let found = report(&lvm2::vgs_command(Some(vg)), lvm2::parse_vgs)?;
    Ok(found.first().map_or(1, |vg| vg.extent_bytes))
}

pub(super) fn open_lv(vg: &str, name: &Name, access: Access) -> Result<SharedDisk, GroupError> {
    let path = Path::new("/dev").join(vg).join(name.as_str());
    io::open_disk(&path, access)
}

fn source_lvm2(spec: &VolumesSpec, vg: &str) -> Result<Vec<Opened>, GroupError> {
    let (mut names, mut problems) = (Vec::new(), Vec::new());
    for lv in lvm2_lvs(spec, vg, &io::running_root())? {
        match lv.usage() {
            Lvm2Use::Served(name) => names.push(name),
            Lvm2Use::NoVolume(_) => {}
            Lvm2Use::Unfit(reason) => problems.push(VolumeProblem::new(&lv.name, reason)),
        }
    }
    let open = |name: Name| {
        let disk = open_lv(vg, &name, Access::Shared)?;
        Ok(Opened { name, masked: 0, disk })
    };
    unless_problems(spec, names, problems)?.into_iter().map(open).collect()
}

fn replica_lvm2(
    spec: &VolumesSpec,
    vg: &str,
    layout: &Layout,
    create: bool,
) -> Result<Vec<SharedDisk>, GroupError> {
    let lvs = lvm2_lvs(spec, vg, &io::running_root())?;
    match lvm2_plan::missing(&lvs, vg, lvm2_extent(vg)?, layout, create) {
        Ok(commands) => commands.iter().try_for_each(|command| io::run(command).map(drop))?,
        Err(problems) => {
            return Err(GroupError::Volumes { place: spec.to_string(), problems });
        }
    }
    let open = |name: &Name| open_lv(vg, name, Access::Guarded);
    layout.volumes.iter().map(|volume| open(&volume.name)).collect()
}
