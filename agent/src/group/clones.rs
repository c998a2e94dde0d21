//! New volumes that a clone is written to: image files, the disks of a new AIX VG, LVs of an LVM2
//! VG. Nothing that is there is ever overwritten.

use std::fs::File;
use std::io::Result as IoResult;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgship_base::disk::SharedDisk;
use vgship_base::ids::Name;
use vgship_test_images::{DiskImage, disk_images};

use super::aix::{AixVolume, probe};
use super::aix_disks::{LV_NAME_MAX, lay_out};
use super::error::{GroupError, VolumeProblem};
use super::io::{self, Access, at};
use super::open::{assembled, lvm2_extent, lvm2_lvs, open_lv, refuse, refuse_folder, report};
use super::rootvg::{refuses_lv_name, refuses_vg_name};
use super::spec::VolumesSpec;
use super::{lvm2, lvm2_plan};

/// Longest name of an LV of LVM2. Unit: letters.
const LVM2_NAME_MAX: usize = 127;

/// Volumes that are to be made, and are not yet.
pub struct NewVolumes {
    /// Their names and sizes. Unit: bytes.
    volumes: Vec<(Name, u64)>,
    way: Way,
}

enum Way {
    Images { folder: PathBuf },
    AixDisks { disks: Vec<(PathBuf, DiskImage)> },
    Lvm2 { vg: String, commands: Vec<lvm2::Command> },
}

/// Longest name that an LV may have where it is written to. Unit: letters.
pub const fn name_max(to: &VolumesSpec) -> usize {
    match to {
        VolumesSpec::Images(_) => vgship_base::ids::NAME_MAX,
        VolumesSpec::AixDisks(_) | VolumesSpec::Aix(_) => LV_NAME_MAX,
        VolumesSpec::Lvm2(_) => LVM2_NAME_MAX,
    }
}

impl NewVolumes {
    /// One image file per LV in a folder. Unit of sizes: bytes.
    pub fn images(folder: &Path, volumes: Vec<(Name, u64)>) -> Result<NewVolumes, GroupError> {
        refuse_folder(&VolumesSpec::Images(folder.to_owned()), folder)?;
        let new = NewVolumes { volumes, way: Way::Images { folder: folder.to_owned() } };
        new.refuse_present()?;
        Ok(new)
    }

    /// The disks `VG-1.img` ... of a new AIX VG in a folder. Unit: `stamp`, seconds since 1970 and
    /// nanoseconds; sizes, bytes.
    ///
    /// # Errors
    /// More or larger LVs than such a VG holds; names of a rootvg; files that are there.
    pub fn aix_disks(
        folder: &Path,
        vg: &Name,
        volumes: Vec<(Name, u64)>,
        stamp: (u32, u32),
    ) -> Result<NewVolumes, GroupError> {
        let spec = VolumesSpec::AixDisks(vec![folder.to_owned()]);
        refuse(&spec, refuses_vg_name(vg.as_str()))?;
        for (name, _) in &volumes {
            refuse(&spec, refuses_lv_name(name.as_str()))?;
        }
        let mut random = Ok(());
        let identity = || {
            let mut bytes = [0; 16];
            random = random.and(getrandom::fill(&mut bytes));
            bytes
        };
        let (recipe, plan) = lay_out(&volumes, stamp, identity).map_err(|why| {
            let problems = vec![VolumeProblem::new("its LVs", format!("cannot be held: {why}"))];
            GroupError::Volumes { place: spec.to_string(), problems }
        })?;
        random.map_err(|error| {
            at("draw identities for", folder)(std::io::Error::other(error.to_string()))
        })?;
        let path = |number: usize| folder.join(format!("{vg}-{}.img", number + 1));
        let images = disk_images(&recipe, &plan).into_iter().enumerate();
        let disks = images.map(|(number, image)| (path(number), image)).collect();
        let new = NewVolumes { volumes, way: Way::AixDisks { disks } };
        new.refuse_present()?;
        Ok(new)
    }

    /// LVs of a VG of LVM2 that is there, each with this tag. Unit of sizes: bytes.
    ///
    /// # Errors
    /// A system's VG; names that are taken.
    pub fn lvm2(vg: &str, volumes: Vec<(Name, u64)>, tag: &str) -> Result<NewVolumes, GroupError> {
        let spec = VolumesSpec::Lvm2(vg.to_owned());
        for (name, _) in &volumes {
            refuse(&spec, refuses_lv_name(name.as_str()))?;
        }
        let lvs = lvm2_lvs(&spec, vg, &io::running_root())?;
        let commands = lvm2_plan::to_clone(&lvs, vg, lvm2_extent(vg)?, &volumes, tag);
        let commands = commands
            .map_err(|problems| GroupError::Volumes { place: spec.to_string(), problems })?;
        Ok(NewVolumes { volumes, way: Way::Lvm2 { vg: vg.to_owned(), commands } })
    }

    /// Their names and sizes, in the order of [`NewVolumes::make`]. Unit: bytes.
    pub fn volumes(&self) -> &[(Name, u64)] {
        &self.volumes
    }

    /// The files that [`NewVolumes::make`] wants.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.way {
            Way::Images { folder } => {
                self.volumes.iter().map(|(name, _)| folder.join(name.as_str())).collect()
            }
            Way::AixDisks { disks } => disks.iter().map(|(path, _)| path.clone()).collect(),
            Way::Lvm2 { .. } => Vec::new(),
        }
    }

    /// Where a volume is: its file or device; of an LV on AIX disks all of them.
    pub fn place(&self, name: &Name) -> String {
        match &self.way {
            Way::Images { folder } => folder.join(name.as_str()).display().to_string(),
            Way::AixDisks { disks } => {
                let paths = disks.iter().map(|(path, _)| path.display().to_string());
                paths.collect::<Vec<_>>().join(",")
            }
            Way::Lvm2 { vg, .. } => format!("/dev/{vg}/{name}"),
        }
    }

    /// Whether they read as zero where nothing was written.
    pub const fn are_zero(&self) -> bool {
        !matches!(self.way, Way::Lvm2 { .. })
    }

    /// Makes them, guarded: in `files`, which are new and empty, are open to read and write, and
    /// stand in the order of [`NewVolumes::files`]. None is opened by its name again, for who may
    /// write into the folder may have put a link to another disk there.
    ///
    /// Durable: their sizes, once this has returned; after an error some may be there.
    pub fn make(&self, files: Vec<File>) -> Result<Vec<SharedDisk>, GroupError> {
        match &self.way {
            Way::Images { folder } => {
                assert_eq!(files.len(), self.volumes.len(), "a file for each volume");
                let make = |((name, bytes), file): (&(Name, u64), File)| {
                    let path = folder.join(name.as_str());
                    resize(&file, *bytes).map_err(at("make larger", &path))?;
                    io::guard_new(&path, file)
                };
                self.volumes.iter().zip(files).map(make).collect()
            }
            Way::AixDisks { disks } => self.make_aix(disks, files),
            Way::Lvm2 { vg, commands } => {
                commands.iter().try_for_each(|command| io::run(command).map(drop))?;
                let open = |(name, _): &(Name, u64)| open_lv(vg, name, Access::Guarded);
                self.volumes.iter().map(open).collect()
            }
        }
    }

    fn make_aix(
        &self,
        disks: &[(PathBuf, DiskImage)],
        files: Vec<File>,
    ) -> Result<Vec<SharedDisk>, GroupError> {
        assert_eq!(files.len(), disks.len(), "a file for each disk");
        let mut members = Vec::new();
        for ((path, image), file) in disks.iter().zip(files) {
            write_disk(&file, image).map_err(at("write", path))?;
            let disk = io::guard_new(path, file)?;
            let member = probe(&path.to_string_lossy(), disk);
            members
                .push(member.map_err(|source| GroupError::Probe { path: path.clone(), source })?);
        }
        // Read back as any VG is: what cannot be found again is not handed out.
        let spec = VolumesSpec::AixDisks(disks.iter().map(|(path, _)| path.clone()).collect());
        let vg = assembled(&spec, &members)?;
        let open = |(name, _): &(Name, u64)| {
            let lv = vg.lvs.iter().find(|lv| lv.name == name.as_str());
            let volume = lv.ok_or_else(|| "is missing".to_owned());
            let volume = volume.and_then(|lv| AixVolume::open(&vg, lv));
            volume.map(|it| Arc::new(it) as SharedDisk).map_err(|why| {
                let problems = vec![VolumeProblem::new(name, why)];
                GroupError::Volumes { place: spec.to_string(), problems }
            })
        };
        self.volumes.iter().map(open).collect()
    }

    fn refuse_present(&self) -> Result<(), GroupError> {
        let there = self.files().into_iter().filter(|path| path.symlink_metadata().is_ok());
        let problem = |path: PathBuf| {
            VolumeProblem::new(path.display(), "is there already; name another folder")
        };
        match there.map(problem).collect::<Vec<_>>() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(GroupError::Volumes { place: "its files".to_owned(), problems }),
        }
    }
}

/// Unit: bytes; what is new reads as zero.
fn resize(file: &File, bytes: u64) -> IoResult<()> {
    file.set_len(bytes)?;
    file.sync_all()
}

fn write_disk(file: &File, image: &DiskImage) -> IoResult<()> {
    file.set_len(image.bytes)?;
    for (offset, piece) in &image.pieces {
        file.write_all_at(piece, *offset)?;
    }
    file.sync_all()
}

/// The identity of a VG of LVM2, whatever it is called.
pub fn lvm2_uuid(vg: &str) -> Result<String, GroupError> {
    let found = report(&lvm2::vgs_command(Some(vg)), lvm2::parse_vgs)?;
    let gone = || GroupError::Nothing { place: format!("lvm2:{vg}"), problems: Vec::new() };
    found.into_iter().next().map(|vg| vg.uuid).ok_or_else(gone)
}

/// Removes the LVs that have this tag, and no others, of the VG with this identity; whether there
/// is such a VG.
///
/// # Errors
/// An LV of which others have a snapshot; then none is removed. One that is in use.
pub fn remove_tagged(uuid: &str, tag: &str) -> Result<bool, GroupError> {
    let vgs = report(&lvm2::vgs_command(None), lvm2::parse_vgs)?;
    let Some(lvm2::Lvm2Vg { name: vg, .. }) = vgs.iter().find(|vg| vg.uuid == uuid) else {
        return Ok(false);
    };
    let lvs = report(&lvm2::lv_tags_command(vg), |json| lvm2::parse_tagged(json, tag))?;
    let commands = lvm2_plan::to_remove(&lvs, vg)
        .map_err(|problems| GroupError::Volumes { place: format!("lvm2:{vg}"), problems })?;
    commands.iter().try_for_each(|command| io::run(command).map(drop))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use vgship_base::extent::ExtentSize;

    use super::super::open::aix_vg;
    use super::super::{OpenGroup, open_source};
    use super::*;

    fn new_files(new: &NewVolumes) -> Vec<File> {
        let make = |path: &PathBuf| File::create_new(path).unwrap();
        new.files().iter().map(make).collect()
    }

    fn volumes(all: &[(&str, u64)]) -> Vec<(Name, u64)> {
        all.iter().map(|&(name, bytes)| (name.parse().unwrap(), bytes)).collect()
    }

    /// A program that another test begins at this moment has our locks until it is executed.
    fn opened(spec: &VolumesSpec) -> OpenGroup {
        let since = std::time::Instant::now();
        loop {
            match open_source(spec, ExtentSize::from_log2(16).unwrap()) {
                Err(GroupError::InUse { .. }) if since.elapsed().as_secs() < 60 => {
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }

    /// Goal: a new VG is read back with the names, sizes and content that were written, and is
    /// another VG each time.
    #[test]
    fn new_aix_disks_are_a_vg_of_their_own() {
        let place = tempfile::tempdir().unwrap();
        let vg: Name = "clonevg".parse().unwrap();
        let all = volumes(&[("c_data", 3 << 20), ("c_log", 1100 << 20), ("odd", 4096)]);
        let mut vgids = Vec::new();
        for folder in ["one", "two"] {
            let folder = place.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            let new = NewVolumes::aix_disks(&folder, &vg, all.clone(), (9, 9)).unwrap();
            let files = new.files();
            assert_eq!(files.len(), 2);
            assert!(files[0].ends_with("clonevg-1.img"));
            for (disk, seed) in new.make(new_files(&new)).unwrap().iter().zip(1u8..) {
                assert!(disk.len() >= 4096);
                disk.write_at(disk.len() - 4096, &[seed; 4096]).unwrap();
                disk.write_at(0, &[seed; 512]).unwrap();
            }
            let spec = VolumesSpec::AixDisks(files.clone());
            let read = opened(&spec);
            for (((name, bytes), known), seed) in all.iter().zip(&read.layout.volumes).zip(1u8..) {
                assert_eq!(
                    (&known.name, known.bytes, known.masked),
                    (name, bytes.next_multiple_of(1 << 20), 0)
                );
                let mut found = [0; 512];
                read.volumes[usize::from(seed) - 1].read_at(0, &mut found).unwrap();
                assert_eq!(found, [seed; 512], "{name}");
            }
            drop(read);
            let found = aix_vg(&spec, &files, Access::ReadOnly).unwrap();
            assert!(found.notes.is_empty(), "{:?}", found.notes);
            vgids.push((found.vgid, found.pvs[0].pvid, found.pvs[1].pvid));
            assert!(NewVolumes::aix_disks(&folder, &vg, all.clone(), (9, 9)).is_err());
        }
        let (one, two) = (vgids[0], vgids[1]);
        assert!(one.0 != two.0 && one.1 != two.1 && one.1 != one.2 && one.2 != two.2);
    }

    /// Goal: whoever may write into the folder cannot have us write to another disk.
    #[test]
    fn a_link_in_the_place_of_a_new_file_leads_nobody_to_another() {
        let place = tempfile::tempdir().unwrap();
        let origin = place.path().join("origin");
        let before = vec![7; 32 << 20];
        std::fs::write(&origin, &before).unwrap();
        let all = volumes(&[("data", 1 << 20)]);
        let vg: Name = "clonevg".parse().unwrap();
        for number in 0..2 {
            let folder = place.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            let new = match number {
                0 => NewVolumes::images(&folder, all.clone()),
                _ => NewVolumes::aix_disks(&folder, &vg, all.clone(), (9, 9)),
            };
            let new = new.unwrap();
            let files = new_files(&new);
            let path = &new.files()[0];
            std::fs::rename(path, folder.join("ours")).unwrap();
            std::os::unix::fs::symlink(&origin, path).unwrap();
            let disks = new.make(files).unwrap();
            disks[0].write_at(0, &[42; 4096]).unwrap();
            assert!(std::fs::read(&origin).unwrap() == before);
            assert!(std::fs::read(folder.join("ours")).unwrap().contains(&42));
        }
    }

    #[test]
    fn what_would_be_a_rootvg_is_not_made() {
        let place = tempfile::tempdir().unwrap();
        let refused = |vg: &str, lv: &str| {
            let all = volumes(&[(lv, 1 << 20)]);
            let new = NewVolumes::aix_disks(place.path(), &vg.parse().unwrap(), all, (1, 1));
            new.map(|_| ()).unwrap_err().to_string()
        };
        assert!(refused("rootvg", "data").contains("never replicates a rootvg"));
        assert!(refused("datavg", "hd5").contains("never replicates a rootvg"));
        let hd5 = volumes(&[("hd5", 512)]);
        assert!(NewVolumes::lvm2("datavg", hd5, "t").is_err());
    }
}
