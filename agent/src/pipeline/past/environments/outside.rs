//! What an environment has outside of the agent's home: volumes that were written for it, and how
//! to be rid of them.
//!
//! The list is stored before the first of them is made, so that a crash at any moment leaves
//! nothing that the next start does not find.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::ids::Name;
use vgship_snapshot::overlay::Overlay;

use super::failed;
use super::import::{self, Import};
use crate::api::ControlError;
use crate::api::past::EnvVolume;
use crate::capture::io::report;
use crate::group::{GroupError, NewVolumes, Rename, VolumesSpec, name_max, remove_tagged, renamed};
use crate::home::io as files;
use crate::pipeline::past::export::copy;

/// The list's file.
const OUTSIDE: &str = "outside.json";

/// Longest list that is read. Unit: bytes.
const OUTSIDE_MAX: u64 = 8 << 20;

const VERSION: u32 = 1;

/// What an environment has outside of the agent's home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outside {
    /// Of this list; 1.
    version: u32,
    /// Where it was written to.
    pub(super) spec: String,
    /// All files.
    files: Vec<PathBuf>,
    /// Folders that were made for them, those above first.
    folders: Vec<PathBuf>,
    /// LVs of LVM2.
    lvm2: Option<Tagged>,
    /// For those who use it.
    pub(super) volumes: Vec<EnvVolume>,
}

/// The LVs of a VG that have a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tagged {
    vg: String,
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
            let tag = format!("vgship.env.{env}.{now}");
            // All groups' LVs stand side by side there.
            let all = wanted.iter().flat_map(|it| it.volumes.iter().map(|it| it.0.clone()));
            renamed(&[], &all.collect::<Vec<_>>(), name_max(to)).map_err(|it| refused(&it))?;
            let make = |part: &Wanted| NewVolumes::lvm2(vg, part.volumes.clone(), &tag);
            new.extend(wanted.iter().map(make));
            outside.lvm2 = Some(Tagged { vg: vg.clone(), tag });
        }
        VolumesSpec::Aix(_) => {
            let text = "aix:VG cannot be written from here; use aix-disks:DIR for new disks";
            return Err(ControlError::usage(text));
        }
    }
    let new = new.into_iter().collect::<Result<Vec<_>, _>>().map_err(|it| group_error(&it))?;
    for (part, new) in wanted.iter().zip(&new) {
        outside.files.extend(new.files());
        outside.volumes.extend(new.volumes().iter().map(|(lv, bytes)| EnvVolume {
            group: part.group.to_string(),
            lv: lv.to_string(),
            place: new.place(lv),
            bytes: *bytes,
        }));
    }
    outside.files.extend(imports.iter().map(|it| it.path.clone()));
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
    pub(super) fn make(self, folder: &Path) -> Result<Made, ControlError> {
        self.outside.store(folder)?;
        for path in &self.outside.folders {
            let failed = |error| {
                ControlError::failed(format!("cannot make the folder {}: {error}", path.display()))
            };
            std::fs::create_dir(path).map_err(failed)?;
        }
        let mut disks = Vec::new();
        for new in &self.new {
            disks.extend(new.make().map_err(|it| group_error(&it))?);
        }
        let are_zero = self.new.iter().all(NewVolumes::are_zero);
        Ok(Made { outside: self.outside, disks, are_zero, imports: self.imports })
    }
}

/// Volumes that were made, and hold nothing yet.
pub(super) struct Made {
    pub(super) outside: Outside,
    /// In the order of all groups' layouts.
    disks: Vec<SharedDisk>,
    are_zero: bool,
    imports: Vec<Import>,
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
        let vgs = self.imports.iter().zip(self.groups()).map(|(import, group)| {
            let lvs = clones.iter().zip(&self.outside.volumes);
            let lvs = lvs.filter(|(_, volume)| volume.group == group);
            (import, lvs.map(|(clone, _)| &**clone as &dyn Disk).collect())
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
        missing.retain(|path| !self.folders.contains(path));
        self.folders.extend(missing);
        Ok(())
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
        let path = folder.join(OUTSIDE);
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read_if_any(&path, OUTSIDE_MAX)?.unwrap_or_default();
        let outside: Outside = serde_json::from_str(&text).map_err(|error| {
            ControlError::failed(format!("{} is not understood: {error}", path.display()))
        })?;
        match outside.version {
            VERSION => Ok(Some(outside)),
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

    /// Removes all of it that is there. May be called again after an error.
    pub(super) fn remove(&self) -> Result<(), ControlError> {
        let gone = |path: &Path, done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ControlError::failed(format!("cannot remove {}: {error}", path.display())))
            }
            _ => Ok(()),
        };
        for path in &self.files {
            gone(path, std::fs::remove_file(path))?;
        }
        for path in self.folders.iter().rev() {
            match std::fs::remove_dir(path) {
                // Somebody put something there: it is not ours to remove.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                done => gone(path, done)?,
            }
        }
        match &self.lvm2 {
            Some(Tagged { vg, tag }) => remove_tagged(vg, tag).map_err(|it| group_error(&it)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(group: &str, names: &[&str]) -> Wanted {
        let volumes = names.iter().map(|name| (name.parse().unwrap(), 1 << 20)).collect();
        Wanted { group: group.parse().unwrap(), volumes }
    }

    fn planned(to: &VolumesSpec, vg: Option<&str>, wanted: &[Wanted]) -> Result<Plan, String> {
        plan(to, &"e".parse().unwrap(), vg, wanted, 1_000_001).map_err(|it| it.to_string())
    }

    #[test]
    fn what_was_made_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        let to = VolumesSpec::Images(folder.clone());
        let both = || vec![wanted("g", &["x"]), wanted("h", &["x"])];
        let plan = planned(&to, None, &both()).unwrap();
        assert_eq!(plan.outside.files, [folder.join("g/x"), folder.join("h/x")]);
        let own = place.path().join("own");
        std::fs::create_dir(&own).unwrap();
        // A crash after any number of steps is cleared by the list that was stored first.
        plan.outside.store(&own).unwrap();
        Outside::load(&own).unwrap().unwrap().remove().unwrap();
        for path in &plan.outside.folders {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(folder.join("g/x"), "x").unwrap();
        assert!(planned(&to, None, &both()).map(drop).unwrap_err().contains("is not empty"));
        Outside::load(&own).unwrap().unwrap().remove().unwrap();
        assert!(!place.path().join("a").exists());
        // What others put there stays.
        for path in &plan.outside.folders {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(folder.join("g/other"), "x").unwrap();
        plan.outside.remove().unwrap();
        assert!(folder.join("g/other").exists() && !folder.join("h").exists());
        assert_eq!(Outside::load(&folder).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_planned_says_why() {
        let place = tempfile::tempdir().unwrap();
        let disks = VolumesSpec::AixDisks(vec![place.path().to_owned()]);
        let images = VolumesSpec::Images(place.path().join("x"));
        let one = || vec![wanted("g", &["x"])];
        let error = |to: &VolumesSpec, vg, wanted: Vec<Wanted>| {
            planned(to, vg, &wanted).map(drop).unwrap_err()
        };
        assert!(error(&images, Some("vg"), one()).contains("--vg"));
        let two = vec![wanted("g", &["x"]), wanted("h", &["y"])];
        assert!(error(&disks, Some("vg"), two).contains("--vg"));
        assert!(error(&disks, Some("rootvg"), one()).contains("never replicates a rootvg"));
        let folders = vec![place.path().to_owned(), place.path().join("y")];
        assert!(error(&VolumesSpec::AixDisks(folders), None, one()).contains("one folder"));
        let relative = VolumesSpec::Images(PathBuf::from("x"));
        assert!(error(&relative, None, one()).contains("begin with '/'"));
        let same = vec![wanted("g", &["x"]), wanted("h", &["x"])];
        let lvm2 = VolumesSpec::Lvm2("datavg".to_owned());
        assert!(error(&lvm2, None, same).contains("two LVs would be called x"));
        assert!(error(&VolumesSpec::Aix("v".to_owned()), None, one()).contains("aix:VG"));
    }

    #[test]
    fn the_text_of_the_list_does_not_change() {
        let text = concat!(
            r#"{"version":1,"spec":"lvm2:vg","files":["/a/x"],"folders":["/a"],"#,
            r#""lvm2":{"vg":"vg","tag":"t"},"volumes":[{"group":"g","lv":"x","#,
            r#""place":"/dev/vg/x","bytes":512}]}"#
        );
        let outside: Outside = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&outside).unwrap(), text);
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(OUTSIDE), text.replace(":1,", ":2,")).unwrap();
        let error = Outside::load(place.path()).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
