//! What an environment has outside of the agent's home: volumes that were written for it, and how
//! to be rid of them.
//!
//! The list is stored before the first of them is made. A file is made under a name that nobody can
//! have chosen, and gets its own once the list knows which file it is: so a crash at any moment
//! leaves no file that the next start does not find, and what others put there is never taken for
//! ours. Of a folder that was made when the crash came, an empty one may stay.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::ids::Name;
use vgship_snapshot::overlay::Overlay;

use super::failed;
use super::folder::is_absent;
use super::import::{self, Import};
use crate::api::ControlError;
use crate::api::past::EnvVolume;
use crate::capture::io::report;
use crate::group::{
    GroupError, NewVolumes, Rename, VolumesSpec, identity_of, lvm2_uuid, name_max, remove_tagged,
    renamed,
};
use crate::home::io as files;
use crate::pipeline::past::export::copy;

/// The list's file.
const OUTSIDE: &str = "outside.json";

/// Longest list that is read. Unit: bytes.
const OUTSIDE_MAX: u64 = 8 << 20;

const VERSION: u32 = 2;

/// What an environment has outside of the agent's home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outside {
    /// Of this list; 2.
    version: u32,
    /// Where it was written to.
    pub(super) spec: String,
    /// All files.
    files: Vec<NewFile>,
    /// Folders that are made for them, those above first.
    folders: Vec<NewFolder>,
    /// LVs of LVM2.
    lvm2: Option<Tagged>,
    /// For those who use it.
    pub(super) volumes: Vec<EnvVolume>,
}

/// A file that is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFile {
    path: PathBuf,
    /// Beside it, where it is made: a name by chance.
    fresh: PathBuf,
    /// Which file it is; nothing before it is made.
    identity: Option<String>,
}

/// A folder that is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFolder {
    path: PathBuf,
    /// Which folder it is; nothing before it is made.
    identity: Option<String>,
}

/// The LVs of a VG that have a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tagged {
    vg: String,
    /// The VG's identity, whatever it is called.
    uuid: String,
    tag: String,
}

/// One group's volumes, as they shall be written. Unit: bytes.
pub(super) struct Wanted {
    pub(super) group: Name,
    pub(super) volumes: Vec<(Name, u64)>,
}

/// What shall be made outside.
pub(super) struct Plan {
    pub(super) outside: Outside,
    /// Per group.
    new: Vec<NewVolumes>,
    /// Of new AIX VGs, per group.
    imports: Vec<Import>,
}

fn group_error(error: &GroupError) -> ControlError {
    match error {
        GroupError::Rootvg { .. } | GroupError::Volumes { .. } => {
            ControlError::refused(ControlError::from_error(error))
        }
        _ => ControlError::from_error(error),
    }
}

/// Plans what is written to `to`, and looks whether it can be.
///
/// Unit: `now`, microseconds since 1970.
pub(super) fn plan(
    to: &VolumesSpec,
    env: &Name,
    vg: Option<&str>,
    wanted: &[Wanted],
    now: u64,
) -> Result<Plan, ControlError> {
    let several = wanted.len() > 1;
    if vg.is_some() && (several || !matches!(to, VolumesSpec::AixDisks(_))) {
        return Err(ControlError::usage("--vg names the one VG that aix-disks:DIR holds"));
    }
    let mut outside = Outside {
        version: VERSION,
        spec: to.to_string(),
        files: Vec::new(),
        folders: Vec::new(),
        lvm2: None,
        volumes: Vec::new(),
    };
    let (mut new, mut imports) = (Vec::new(), Vec::new());
    let tag = format!("vgship.env.{env}.{now}");
    match to {
        VolumesSpec::Images(folder) => {
            outside.add_folder(folder)?;
            refuse_full(folder)?;
            for part in wanted {
                let folder = match several {
                    true => folder.join(part.group.as_str()),
                    false => folder.clone(),
                };
                outside.add_folder(&folder)?;
                new.push(NewVolumes::images(&folder, part.volumes.clone()));
            }
        }
        VolumesSpec::AixDisks(folders) => {
            let [folder] = &folders[..] else {
                return Err(ControlError::usage("aix-disks:DIR names one folder, for new disks"));
            };
            outside.add_folder(folder)?;
            let nanos = u32::try_from(now % 1_000_000 * 1000).unwrap_or_default();
            let stamp = (u32::try_from(now / 1_000_000).unwrap_or(u32::MAX), nanos);
            for part in wanted {
                let vg = vg.map(str::parse).transpose().map_err(ControlError::usage)?;
                let vg = vg.unwrap_or_else(|| part.group.clone());
                let disks = NewVolumes::aix_disks(folder, &vg, part.volumes.clone(), stamp);
                if let Ok(disks) = &disks {
                    imports.push(Import::new(folder, &vg, disks.files().len())?);
                }
                new.push(disks);
            }
        }
        VolumesSpec::Lvm2(vg) => {
            // All groups' LVs stand side by side there.
            let all = wanted.iter().flat_map(|it| it.volumes.iter().map(|it| it.0.clone()));
            renamed(&[], &all.collect::<Vec<_>>(), name_max(to)).map_err(|it| refused(&it))?;
            let make = |part: &Wanted| NewVolumes::lvm2(vg, part.volumes.clone(), &tag);
            new.extend(wanted.iter().map(make));
        }
        VolumesSpec::Aix(_) => {
            let text = "aix:VG cannot be written from here; use aix-disks:DIR for new disks";
            return Err(ControlError::usage(text));
        }
    }
    let new = new.into_iter().collect::<Result<Vec<_>, _>>().map_err(|it| group_error(&it))?;
    if let VolumesSpec::Lvm2(vg) = to {
        let uuid = lvm2_uuid(vg).map_err(|it| group_error(&it))?;
        outside.lvm2 = Some(Tagged { vg: vg.clone(), uuid, tag });
    }
    for (part, new) in wanted.iter().zip(&new) {
        outside.add_files(new.files())?;
        outside.volumes.extend(new.volumes().iter().map(|(lv, bytes)| EnvVolume {
            group: part.group.to_string(),
            lv: lv.to_string(),
            place: new.place(lv),
            bytes: *bytes,
        }));
    }
    outside.add_files(imports.iter().map(|it| it.path.clone()))?;
    Ok(Plan { outside, new, imports })
}

pub(super) fn refused(error: &dyn std::fmt::Display) -> ControlError {
    ControlError::refused(error).hint("choose other names with --rename 'lv:PATTERN=REPLACEMENT'")
}

fn refuse_full(folder: &Path) -> Result<(), ControlError> {
    let shown = folder.display();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ControlError::failed(format!("cannot look into {shown}: {error}"))),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(ControlError::refused(format!("the folder {shown} is not empty"))
                .hint("name one that is empty, or that is not there yet")),
        },
    }
}

impl Plan {
    /// Makes the volumes, once the environment's folder knows of them.
    pub(super) fn make(mut self, folder: &Path) -> Result<Made, ControlError> {
        self.outside.store(folder)?;
        let made = self.outside.make_folders();
        // Also after an error: what was made goes again.
        self.outside.store(folder)?;
        made?;
        let scripts = self.outside.files.len() - self.imports.len();
        let mode = |number| if number < scripts { 0o600 } else { 0o700 };
        let mut files = self.outside.make_files(mode)?;
        self.outside.store(folder)?;
        self.outside.name_files()?;
        let scripts = files.split_off(scripts);
        let (mut disks, mut files) = (Vec::new(), files.into_iter());
        for new in &self.new {
            let files = files.by_ref().take(new.files().len()).collect();
            disks.extend(new.make(files).map_err(|it| group_error(&it))?);
        }
        let are_zero = self.new.iter().all(NewVolumes::are_zero);
        let Plan { outside, imports, .. } = self;
        Ok(Made { outside, disks, are_zero, imports: imports.into_iter().zip(scripts).collect() })
    }
}

/// Volumes that were made, and hold nothing yet.
pub(super) struct Made {
    pub(super) outside: Outside,
    /// In the order of all groups' layouts.
    disks: Vec<SharedDisk>,
    are_zero: bool,
    /// With the files of their scripts.
    imports: Vec<(Import, File)>,
}

impl Made {
    /// Writes the clones' content into them, and lets go of them.
    pub(super) fn fill(
        self,
        clones: &[Arc<Overlay>],
        rules: &[Rename],
    ) -> Result<Outside, ControlError> {
        for ((disk, clone), volume) in self.disks.iter().zip(clones).zip(&self.outside.volumes) {
            copy(&**clone, &**disk, self.are_zero).map_err(|error| {
                let why = report(&error);
                ControlError::failed(format!("cannot write {}: {why}", volume.place))
            })?;
        }
        let vgs = self.imports.iter().zip(self.groups()).map(|((import, file), group)| {
            let lvs = clones.iter().zip(&self.outside.volumes);
            let lvs = lvs.filter(|(_, volume)| volume.group == group);
            (import, file, lvs.map(|(clone, _)| &**clone as &dyn Disk).collect())
        });
        import::write(&vgs.collect::<Vec<_>>(), rules)?;
        Ok(self.outside)
    }

    fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self.outside.volumes.iter().map(|it| &*it.group).collect();
        groups.dedup();
        groups
    }
}

impl Outside {
    /// The folder, and those above it that are missing, are to be made.
    fn add_folder(&mut self, folder: &Path) -> Result<(), ControlError> {
        if !folder.is_absolute() {
            let text = format!("{} does not begin with '/'", folder.display());
            return Err(ControlError::usage(text));
        }
        let missing = folder.ancestors().take_while(|path| path.symlink_metadata().is_err());
        let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        missing.reverse();
        missing.retain(|path| self.folders.iter().all(|known| known.path != *path));
        let new = missing.into_iter().map(|path| NewFolder { path, identity: None });
        self.folders.extend(new);
        Ok(())
    }

    /// These are to be made.
    fn add_files(&mut self, all: impl IntoIterator<Item = PathBuf>) -> Result<(), ControlError> {
        for path in all {
            let mut chance = [0; 16];
            getrandom::fill(&mut chance)
                .map_err(|it| ControlError::failed(format!("cannot get a name by chance: {it}")))?;
            let name = format!(".vgship-{:032x}", u128::from_be_bytes(chance));
            self.files.push(NewFile { fresh: path.with_file_name(name), path, identity: None });
        }
        Ok(())
    }

    fn make_folders(&mut self) -> Result<(), ControlError> {
        for NewFolder { path, identity } in &mut self.folders {
            std::fs::create_dir(&*path)
                .and_then(|()| path.symlink_metadata())
                .and_then(|found| which(&found))
                .map(|found| *identity = Some(found))
                .map_err(|it| cannot("make the folder", path, &it))?;
        }
        Ok(())
    }

    /// Makes the files under their names by chance.
    ///
    /// Shape: `mode` is asked with a file's number.
    fn make_files(&mut self, mode: impl Fn(usize) -> u32) -> Result<Vec<File>, ControlError> {
        let mut files = Vec::new();
        for (number, NewFile { path, fresh, identity }) in self.files.iter_mut().enumerate() {
            // A link in its place is not followed, and is an error.
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(mode(number));
            let file = options.open(&*fresh).map_err(|it| cannot("create", path, &it))?;
            let found = file.metadata().and_then(|found| which(&found));
            *identity = Some(found.map_err(|it| cannot("look at", fresh, &it))?);
            files.push(file);
        }
        Ok(files)
    }

    /// Gives the files their own names, unless something has them.
    ///
    /// Durable: once this has returned.
    fn name_files(&self) -> Result<(), ControlError> {
        for NewFile { path, fresh, .. } in &self.files {
            // Unlike a change of its name this never replaces what is there.
            std::fs::hard_link(fresh, path)
                .and_then(|()| std::fs::remove_file(fresh))
                .map_err(|it| cannot("create", path, &it))?;
        }
        let mut folders: Vec<&Path> = self.files.iter().filter_map(|it| it.path.parent()).collect();
        folders.extend(self.folders.iter().filter_map(|it| it.path.parent()));
        folders.dedup();
        folders.into_iter().try_for_each(|folder| Ok(files::sync_folder(folder)?))
    }

    /// Durable: once this has returned.
    fn store(&self, folder: &Path) -> Result<(), ControlError> {
        let text = serde_json::to_vec_pretty(self).map_err(|it| failed(&it))?;
        if text.len() as u64 > OUTSIDE_MAX {
            return Err(ControlError::refused("these are too many LVs for one environment")
                .hint("make several environments"));
        }
        Ok(files::replace(&folder.join(OUTSIDE), &text, 0o600)?)
    }

    /// What the environment in this folder has outside, if anything.
    pub(super) fn load(folder: &Path) -> Result<Option<Outside>, ControlError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = folder.join(OUTSIDE);
        if is_absent(&path) {
            return Ok(None);
        }
        let text = files::read_if_any(&path, OUTSIDE_MAX)?.unwrap_or_default();
        let unknown = |it: serde_json::Error| {
            ControlError::failed(format!("{} is not understood: {it}", path.display()))
        };
        let Versioned { version } = serde_json::from_str(&text).map_err(unknown)?;
        match version {
            VERSION => serde_json::from_str(&text).map(Some).map_err(unknown),
            other => Err(ControlError::failed(format!(
                "{} is of version {other}, this agent reads {VERSION}",
                path.display()
            ))),
        }
    }

    /// The environment in this folder has nothing outside any more: what others put there with the
    /// same names from now on is theirs.
    pub(super) fn forget(folder: &Path) -> Result<(), ControlError> {
        let path = folder.join(OUTSIDE);
        std::fs::remove_file(&path).map_err(|error| {
            ControlError::failed(format!("cannot remove {}: {error}", path.display()))
        })
    }

    /// Removes all of it that is there, and nothing that others put in its place. May be called
    /// again after an error.
    ///
    /// # Errors
    /// Something is in use; a VG that is gone, unless its volumes are to be forgotten.
    pub(super) fn remove(&self, forget: bool) -> Result<(), ControlError> {
        let gone = |path: &Path, done: io::Result<()>| match done {
            Err(error) if !is_away(&error) => Err(cannot("remove", path, &error)),
            _ => Ok(()),
        };
        for NewFile { path, fresh, identity } in &self.files {
            gone(fresh, std::fs::remove_file(fresh))?;
            if is_ours(path, identity.as_deref())? {
                gone(path, std::fs::remove_file(path))?;
            }
        }
        for NewFolder { path, identity } in self.folders.iter().rev() {
            if !is_ours(path, identity.as_deref())? {
                continue;
            }
            match std::fs::remove_dir(path) {
                // Somebody put something there: it is not ours to remove.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                done => gone(path, done)?,
            }
        }
        let Some(Tagged { vg, uuid, tag }) = &self.lvm2 else { return Ok(()) };
        match remove_tagged(uuid, tag).map_err(|it| group_error(&it))? {
            true => Ok(()),
            false if forget => {
                tracing::warn!(vg, uuid, tag, "LVs of a VG that is gone are forgotten");
                Ok(())
            }
            false => Err(ControlError::refused(format!(
                "volume group {vg} with its LVs is gone: none has its identity {uuid}"
            ))
            .hint(
                "bring its disks back; if it is gone for good: \
                 vgship env destroy E --forget-volumes",
            )),
        }
    }
}

/// Which file or folder it is.
fn which(found: &Metadata) -> io::Result<String> {
    let identity = identity_of(found).ok_or_else(|| io::Error::other("it has no identity"))?;
    Ok(identity.to_string())
}

fn is_away(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether what has this name now is what was made.
fn is_ours(path: &Path, made: Option<&str>) -> Result<bool, ControlError> {
    let found = match path.symlink_metadata() {
        Err(error) if is_away(&error) => return Ok(false),
        found => found.and_then(|it| which(&it)).map_err(|it| cannot("look at", path, &it))?,
    };
    let ours = made == Some(&*found);
    if !ours {
        tracing::warn!(path = %path.display(), "left alone: the environment did not make it");
    }
    Ok(ours)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> ControlError {
    ControlError::failed(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
#[path = "outside_tests.rs"]
mod tests;
