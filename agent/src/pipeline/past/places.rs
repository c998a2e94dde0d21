//! Where copies of a point must not be written: into what a group of this agent replicates. A volume
//! that comes there by itself stops the group.

use std::path::{Path, PathBuf};

use vgship_base::ids::Name;

use crate::api::ControlError;
use crate::group::VolumesSpec;
use crate::home::Role;
use crate::pipeline::agent::Inner;

impl Inner {
    /// The groups that have their source here, and where their volumes are.
    pub(super) fn source_places(&self) -> Vec<(Name, VolumesSpec)> {
        let sources = self.groups().into_iter().filter_map(|group| {
            let config = group.config();
            let spec = config.volumes.parse().ok().filter(|_| config.role == Role::Source)?;
            Some((config.name.clone(), spec))
        });
        sources.collect()
    }
}

/// Refuses a place that is, or lies in, one of a source's.
pub(super) fn refuse_taken(
    to: &VolumesSpec,
    sources: &[(Name, VolumesSpec)],
) -> Result<(), ControlError> {
    match sources.iter().find(|(_, source)| lies_in(to, source)) {
        None => Ok(()),
        Some((group, source)) => Err(ControlError::refused(format!(
            "{to} lies where group {group} has its volumes, {source}; new ones there would stop its \
             replication"
        ))
        .hint("name a folder or a VG that no group replicates")),
    }
}

fn lies_in(to: &VolumesSpec, source: &VolumesSpec) -> bool {
    use VolumesSpec::{Aix, AixDisks, Images, Lvm2};
    let is_below = |path: &PathBuf, folder: &Path| real(path).starts_with(real(folder));
    match (to, source) {
        (Lvm2(one), Lvm2(other)) | (Aix(one), Aix(other)) => one == other,
        (Images(path), Images(folder)) => is_below(path, folder),
        (AixDisks(paths), Images(folder)) => paths.iter().any(|path| is_below(path, folder)),
        _ => false,
    }
}

/// The path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|it| Some((it, it.canonicalize().ok()?)));
    match found {
        Some((known, real)) => match path.strip_prefix(known) {
            Ok(rest) if rest.as_os_str().is_empty() => real,
            Ok(rest) => real.join(rest),
            Err(_) => path.to_owned(),
        },
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_replicates_takes_no_copies() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        std::fs::create_dir_all(place.path().join("images/sub")).unwrap();
        std::os::unix::fs::symlink(place.path().join("images/sub"), place.path().join("link"))
            .unwrap();
        let source = |spec: String| ("g".parse::<Name>().unwrap(), spec.parse().unwrap());
        let sources = [
            source(format!("images:{}", at("images"))),
            source("lvm2:datavg".to_owned()),
            source(format!("aix-disks:{}", at("disks/hdisk1"))),
        ];
        let refused = |spec: String| refuse_taken(&spec.parse().unwrap(), &sources).is_err();
        for below in ["images", "images/new", "images/sub", "link", "link/none/x"] {
            assert!(refused(format!("images:{}", at(below))), "{below}");
            assert!(refused(format!("aix-disks:{}", at(below))), "{below}");
        }
        assert!(refused("lvm2:datavg".to_owned()));
        for other in ["images2", "none/x", "disks/hdisk1"] {
            assert!(!refused(format!("images:{}", at(other))), "{other}");
        }
        assert!(!refused("lvm2:datavg2".to_owned()));
        let error = refuse_taken(&"lvm2:datavg".parse().unwrap(), &sources).unwrap_err();
        assert!(error.to_string().contains("group g") && error.hint.is_some(), "{error}");
    }
}
