//! The parts of the program as the commands ask for them.

use std::path::{Path, PathBuf};

use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Name, PeerId};
use vgship_base::layout::Layout;

use super::parts::{Listing, Parts, Running};
use crate::api::control::{Answer, Invitation, InviteRequest, Pairings, Removed, Revoked};
use crate::api::{ControlError, pairs};
use crate::group::{self, GroupError, VolumesSpec};
use crate::home::{Config, Home, LockedHome};
use crate::wire::io::{PeerBook, load_or_create_identity};

/// Starts the agent of a home.
pub type Start = fn(LockedHome, Config) -> Answer<'static, Box<dyn Running>>;

/// The real program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    start: Start,
}

impl Program {
    /// With the function that starts an agent.
    pub const fn new(start: Start) -> Program {
        Program { start }
    }
}

impl Parts for Program {
    fn make_identity(&self, folder: &Path) -> Result<PeerId, ControlError> {
        Ok(load_or_create_identity(folder).map_err(|error| failed(&error))?.id())
    }

    fn check_identity(&self, folder: &Path) -> Result<PeerId, ControlError> {
        if !folder.exists() {
            let text = format!("there is no identity at {}", folder.display());
            return Err(
                ControlError::failed(text).hint("restore it, or set up a new home and pair again")
            );
        }
        self.make_identity(folder)
    }

    fn resolve_volumes(&self, spec: &str) -> Result<String, ControlError> {
        // Without `.` and doubled or closing slashes: one place has one name.
        let absolute = |path: PathBuf| -> Result<PathBuf, ControlError> {
            let path = std::path::absolute(path).map_err(ControlError::usage)?;
            Ok(path.components().collect())
        };
        let spec = match spec.parse().map_err(ControlError::usage)? {
            VolumesSpec::Images(folder) => VolumesSpec::Images(absolute(folder)?),
            VolumesSpec::AixDisks(paths) => {
                let paths: Result<_, _> = paths.into_iter().map(absolute).collect();
                VolumesSpec::AixDisks(paths?)
            }
            named => named,
        };
        Ok(spec.to_string())
    }

    fn check_volumes(
        &self,
        spec: &str,
        extent: ExtentSize,
        replica_of: Option<&Layout>,
    ) -> Result<Layout, ControlError> {
        let spec: VolumesSpec = spec.parse().map_err(ControlError::usage)?;
        match replica_of {
            None => Ok(group::open_source(&spec, extent).map_err(|error| refused(&error))?.layout),
            Some(layout) => {
                group::open_replica(&spec, layout, false).map_err(|error| refused(&error))?;
                Ok(layout.clone())
            }
        }
    }

    fn find_groups(&self, paths: &[PathBuf]) -> Result<Listing, ControlError> {
        let places: Result<Vec<_>, _> = paths.iter().map(|path| place(path)).collect();
        let found = group::list(&together(places?));
        let json = serde_json::json!({ "groups": found });
        Ok(Listing { text: group::render_table(&found), json })
    }

    fn pair_invite(
        &self,
        home: &LockedHome,
        invite: InviteRequest,
    ) -> Result<Invitation, ControlError> {
        let inviter = self.check_identity(&home.identity())?;
        pairs::invite(home, &book(home)?, inviter, None, &invite)
    }

    fn group_remove(&self, home: &LockedHome, group: &Name) -> Result<Removed, ControlError> {
        pairs::remove_group(home, &book(home)?, &home.load_group(group)?)
    }

    fn pair_list(&self, home: &Home) -> Result<Pairings, ControlError> {
        Ok(pairs::list(&book(home)?))
    }

    fn pair_revoke(&self, home: &LockedHome, peer: &str) -> Result<Revoked, ControlError> {
        pairs::revoke(&book(home)?, peer)
    }

    fn start(&self, home: LockedHome, config: Config) -> Answer<'static, Box<dyn Running>> {
        (self.start)(home, config)
    }
}

fn book(home: &Home) -> Result<PeerBook, ControlError> {
    PeerBook::open(home.peers()).map_err(|error| failed(&error))
}

/// Disks that were named one by one, as one place: they may be parts of one volume group.
fn together(places: Vec<VolumesSpec>) -> Vec<VolumesSpec> {
    let (mut disks, mut others) = (Vec::new(), Vec::new());
    for place in places {
        match place {
            VolumesSpec::AixDisks(paths) => disks.extend(paths),
            other => others.push(other),
        }
    }
    others.extend((!disks.is_empty()).then_some(VolumesSpec::AixDisks(disks)));
    others
}

/// A place that a person named: a spec, a folder of images, or a disk.
fn place(path: &Path) -> Result<VolumesSpec, ControlError> {
    match path.to_str().map(str::parse) {
        Some(Ok(spec)) => Ok(spec),
        _ if path.is_dir() => Ok(VolumesSpec::Images(path.to_owned())),
        _ if path.exists() => Ok(VolumesSpec::AixDisks(vec![path.to_owned()])),
        _ => Err(ControlError::failed(format!("there is nothing at {}", path.display()))),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ControlError {
    ControlError::from_error(error)
}

fn refused(error: &GroupError) -> ControlError {
    match error {
        GroupError::Rootvg { .. } => ControlError::refused(error),
        error => failed(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::tests::vgship_with;
    use super::*;

    fn program() -> Program {
        Program::new(|_, _| Box::pin(async { Err(ControlError::failed("not in this test")) }))
    }

    /// A home with two images beside it.
    fn world() -> (tempfile::TempDir, Home) {
        let place = tempfile::tempdir().unwrap();
        let images = place.path().join("images");
        std::fs::create_dir(&images).unwrap();
        for name in ["data", "log"] {
            File::create(images.join(name)).unwrap().set_len(1 << 20).unwrap();
        }
        let home = Home::at(place.path().join("h"));
        vgship_with(&program(), &home, "init --name prod --listen 127.0.0.1:7300").unwrap();
        (place, home)
    }

    #[test]
    fn a_home_is_set_up_a_group_added_and_a_replica_invited() {
        let (place, home) = world();
        let run = |args: &str| vgship_with(&program(), &home, args);
        let folder = place.path().join("images");
        run(&format!("group add g --volumes images:{}", folder.display())).unwrap();
        run(&format!("vg list {} --json", folder.display())).unwrap();
        run("pair invite --group g --role replica").unwrap();
        run("pair list").unwrap();
        run("agent --check").unwrap();
        let book = PeerBook::open(home.peers()).unwrap();
        assert_eq!(book.invites().len(), 1);
        run("group remove g --json").unwrap();
        assert_eq!(PeerBook::open(home.peers()).unwrap().invites(), [], "nobody can join it now");
        assert!(folder.join("data").exists() && folder.join("log").exists());
        run(&format!("group add g --volumes images:{}", folder.display())).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(run("agent --check").unwrap_err().0, 1);
        assert_eq!(run("vg list /nowhere/at/all").unwrap_err().0, 1);
        assert_eq!(run("pair revoke nobody").unwrap_err().0, 1);
    }

    #[test]
    fn what_must_not_be_replicated_is_refused_and_a_wrong_spec_is_wrong_usage() {
        let (_place, home) = world();
        let run = |args: &str| vgship_with(&program(), &home, args).unwrap_err();
        let (code, said) = run("group add g --volumes lvm2:rootvg");
        assert!(code == 3 && said.contains("never replicates a rootvg"), "{said}");
        assert_eq!(run("group add g --volumes /srv/lvs").0, 2);
        assert_eq!(run("group add g --volumes zfs:tank").0, 2);
    }

    #[test]
    fn a_port_that_only_a_running_agent_knows_is_not_invented() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path().join("home"));
        let images = place.path().join("images");
        std::fs::create_dir(&images).unwrap();
        File::create(images.join("lv")).unwrap().set_len(4096).unwrap();
        let run = |args: &str| vgship_with(&program(), &home, args);
        run("init --name a --listen 127.0.0.1:0").unwrap();
        run(&format!("group add g --volumes images:{}", images.display())).unwrap();
        let (code, said) = run("pair invite --group g --role replica").unwrap_err();
        assert!(code == 3 && said.contains("no address is known"), "{said}");
        let (code, said) = run("pair invite --group g --role source").unwrap_err();
        assert!(code == 3 && said.contains("has its source here"), "{said}");
    }

    #[test]
    fn disks_named_one_by_one_are_looked_at_together() {
        let disk = |name: &str| VolumesSpec::AixDisks(vec![name.into()]);
        let folder = VolumesSpec::Images("/i".into());
        let found = together(vec![disk("a"), folder.clone(), disk("b")]);
        assert_eq!(found, [folder, VolumesSpec::AixDisks(vec!["a".into(), "b".into()])]);
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let one = program().resolve_volumes("images:/x//lvs/./").unwrap();
        assert_eq!(one, "images:/x/lvs");
        let resolved = program().resolve_volumes("aix-disks:a.img,/b.img").unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(resolved, format!("aix-disks:{}/a.img,/b.img", here.display()));
    }
}
