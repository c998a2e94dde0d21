//! Joins the commands with the program behind them.

use std::path::{Path, PathBuf};

use vgship_base::extent::ExtentSize;
use vgship_base::ids::PeerId;
use vgship_base::limits::EXTENT_LOG2_DEFAULT;

use super::agent::{Agent, reachable};
use super::control::{Controlled, invitable, invite, pairings, revoke};
use crate::api::control::{Answer, Invitation, InviteRequest, Pairings, Revoked, SharedControl};
use crate::api::{ControlError, ErrorKind};
use crate::cli::parts::{Found, FoundGroup, FoundVolume, Parts, Running};
use crate::group::{self, VgKind, VgListing, VolumesSpec};
use crate::home::{Config, Home, LockedHome};
use crate::wire::io::{PeerBook, load_or_create_identity};

/// The whole program.
pub struct Program;

fn failed(error: &(dyn std::error::Error + 'static)) -> ControlError {
    ControlError::from_error(error)
}

fn refused_if(error: &group::GroupError) -> ControlError {
    let kind = match error {
        group::GroupError::Rootvg { .. } => ErrorKind::Refused,
        _ => ErrorKind::Failed,
    };
    ControlError { kind, ..failed(error) }
}

fn spec_of(text: &str) -> Result<VolumesSpec, ControlError> {
    text.parse()
        .map_err(|it: group::SpecError| ControlError { kind: ErrorKind::Usage, ..failed(&it) })
}

/// Whether the volumes of a group can be opened; nothing stays open.
pub(super) fn check_volumes(spec: &str) -> Result<Vec<FoundVolume>, ControlError> {
    let extent = ExtentSize::from_log2(EXTENT_LOG2_DEFAULT).expect("the default is within limits");
    let open = group::open_source(&spec_of(spec)?, extent).map_err(|it| refused_if(&it))?;
    let found = open.layout.volumes.iter().map(|volume| FoundVolume {
        name: volume.name.to_string(),
        bytes: volume.bytes,
        note: (volume.masked > 0)
            .then(|| format!("first {} bytes belong to AIX and stay on each side", volume.masked)),
    });
    Ok(found.collect())
}

impl Parts for Program {
    fn make_identity(&self, folder: &Path) -> Result<PeerId, ControlError> {
        load_or_create_identity(folder).map(|identity| identity.id()).map_err(|it| failed(&it))
    }

    fn check_identity(&self, folder: &Path) -> Result<PeerId, ControlError> {
        if !folder.exists() {
            let text = format!("there is no identity in {}", folder.display());
            return Err(ControlError::failed(text).hint("make one with vgship init"));
        }
        self.make_identity(folder)
    }

    fn resolve_volumes(&self, spec: &str) -> Result<String, ControlError> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| {
                ControlError::usage(format!("{} is no usable path: {error}", path.display()))
            })
        };
        let resolved = match spec_of(spec)? {
            VolumesSpec::Images(dir) => VolumesSpec::Images(absolute(dir)?),
            VolumesSpec::AixDisks(paths) => {
                VolumesSpec::AixDisks(paths.into_iter().map(absolute).collect::<Result<_, _>>()?)
            }
            other => other,
        };
        Ok(resolved.to_string())
    }

    fn check_volumes(&self, spec: &str) -> Result<Vec<FoundVolume>, ControlError> {
        check_volumes(spec)
    }

    fn find_groups(&self, paths: &[PathBuf]) -> Result<Found, ControlError> {
        let (folders, disks): (Vec<PathBuf>, Vec<PathBuf>) =
            paths.iter().cloned().partition(|path| path.is_dir());
        let mut specs: Vec<VolumesSpec> = folders.into_iter().map(VolumesSpec::Images).collect();
        if !disks.is_empty() {
            specs.push(VolumesSpec::AixDisks(disks));
        }
        let listings = group::list(&specs);
        Ok(Found { groups: listings.into_iter().map(found).collect(), problems: Vec::new() })
    }

    fn pair_invite(
        &self,
        home: &LockedHome,
        request: InviteRequest,
    ) -> Result<Invitation, ControlError> {
        let group = home.load_group(&request.group)?;
        invitable(&group.name, group.role, request.role)?;
        let listen = home.load_config()?.listen;
        if listen.port() == 0 {
            let text = "the agent's port is not known while it is stopped";
            return Err(ControlError::refused(text).hint("start the agent first"));
        }
        let us = self.make_identity(&home.identity())?;
        let book = PeerBook::open(home.peers()).map_err(|it| failed(&it))?;
        invite(&book, us, reachable(listen), &request, group.id)
    }

    fn pair_list(&self, home: &Home) -> Result<Pairings, ControlError> {
        PeerBook::open(home.peers()).map(|book| pairings(&book)).map_err(|it| failed(&it))
    }

    fn pair_revoke(&self, home: &LockedHome, peer: &str) -> Result<Revoked, ControlError> {
        revoke(&PeerBook::open(home.peers()).map_err(|it| failed(&it))?, peer)
    }

    fn start(&self, home: LockedHome, config: Config) -> Answer<'static, Box<dyn Running>> {
        Box::pin(async {
            let agent = Agent::start(home, config).await?;
            Ok(Box::new(Serving { agent }) as Box<dyn Running>)
        })
    }
}

fn found(listing: VgListing) -> FoundGroup {
    let kind = match listing.kind {
        VgKind::Images => "images",
        VgKind::Lvm2 => "lvm2",
        VgKind::Original => "aix original",
        VgKind::Big => "aix big",
        VgKind::Scalable => "aix scalable",
        VgKind::Unknown => "unknown",
    };
    let volume = |lv: group::LvListing| FoundVolume {
        note: Some(match &lv.excluded {
            Some(reason) => format!("not served: {reason}"),
            None => format!("{} copies, {}, {}", lv.copies, lv.placement, lv.state),
        }),
        name: lv.name,
        bytes: lv.bytes,
    };
    let spec = listing.excluded.is_none().then_some(listing.volumes);
    let volumes: Vec<FoundVolume> = listing.lvs.into_iter().map(volume).collect();
    FoundGroup {
        name: listing.name,
        kind: kind.to_owned(),
        bytes: volumes.iter().map(|volume| volume.bytes).sum(),
        disks: listing.pvs.into_iter().map(|pv| pv.name).collect(),
        volumes,
        spec,
        excluded: listing.excluded,
    }
}

struct Serving {
    agent: Agent,
}

impl Running for Serving {
    fn control(&self) -> SharedControl {
        std::sync::Arc::new(Controlled(std::sync::Arc::clone(&self.agent.inner)))
    }

    fn failed(&mut self) -> Answer<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn stop(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin(async move {
            self.agent.stop().await;
            Ok(())
        })
    }
}
