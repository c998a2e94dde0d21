//! Whether a group's volumes are still those that are replicated. Pure: an inventory comes in, a
//! judgement goes out.
//!
//! ```text
//! a volume of the layout is ...        then it
//! there, of the same size              is as it was
//! there, larger                        has grown
//! there, smaller                       breaks the group
//! there, of another masked head        breaks the group
//! there, larger than any may be        breaks the group
//! there, of another identity           breaks the group
//! there, and not fit to be served      breaks the group
//! gone, and its identity is elsewhere  was renamed: breaks the group
//! gone                                 breaks the group
//! ```
//!
//! What is there beyond the layout breaks the group, too: a volume that is left out would be
//! missed only when it is needed. An identity that is not known equals every other; then a volume
//! was renamed when one is gone, one is new, and both have the same size.

use std::path::Path;

use vgship_base::ids::Name;
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::limits::VOLUME_BYTES_MAX;
use vgship_base::units::SECTOR;

use super::error::VolumeProblem;
use super::identity::Identity;
use super::lvm2::lvcreate_command;
use super::spec::VolumesSpec;

/// A volume that can be served, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: Name,
    /// Its size. Unit: bytes.
    pub bytes: u64,
    /// Its head that belongs to the host's LVM. Unit: bytes.
    pub masked: u32,
    /// What it is, whatever it is called.
    pub identity: Option<Identity>,
}

/// All that a group's place holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Volumes that can be served.
    pub volumes: Vec<Found>,
    /// What lies there and cannot be: why.
    pub unfit: Vec<VolumeProblem>,
}

impl Inventory {
    /// The volume of this name.
    pub fn find(&self, name: &Name) -> Option<&Found> {
        self.volumes.iter().find(|found| found.name == *name)
    }
}

/// What is replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The volumes.
    pub layout: Layout,
    /// What each of them is, in the layout's order; `None` where nobody knows.
    pub identities: Vec<Option<Identity>>,
}

impl Known {
    /// Takes the identities that are found, and tells which volumes had another one, or none that
    /// was known: what they hold is anybody's guess.
    pub fn adopt(&mut self, found: &Inventory) -> Vec<Name> {
        let mut strange = Vec::new();
        for (volume, identity) in self.layout.volumes.iter().zip(&mut self.identities) {
            let now = found.find(&volume.name).and_then(|found| found.identity.clone());
            if now.is_some() && now != *identity {
                *identity = now;
                strange.push(volume.name.clone());
            }
        }
        strange
    }
}

/// What became of a group's volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// They are as they were.
    None,
    /// Some are larger; nothing else changed.
    Grown(Layout),
    /// Something changed that replication cannot follow: what, and the command that mends it.
    Broken(Vec<VolumeProblem>),
}

/// What was found of one volume of the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Evidence {
    Same,
    Larger(u64),
    Smaller(u64),
    Masked(u32),
    TooLarge(u64),
    Other,
    Unfit(String),
    Renamed(Name),
    Missing,
}

/// Whose volumes are judged.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The agent's own, which commands here can mend.
    Here(&'a VolumesSpec),
    /// Those of a replica's source, as that tells them.
    Source,
}

/// Whether a replica of volumes `mine` can follow its source, which tells of `theirs`: it can when
/// they have grown.
pub fn follow(mine: &Layout, theirs: &Layout) -> Result<(), Vec<VolumeProblem>> {
    if mine.grows_to(theirs) {
        return Ok(());
    }
    let found = |volume: &VolumeLayout| Found {
        name: volume.name.clone(),
        bytes: volume.bytes,
        masked: volume.masked,
        identity: None,
    };
    let volumes = theirs.volumes.iter().map(found).collect();
    let known = Known { layout: mine.clone(), identities: vec![None; mine.volumes.len()] };
    match judge(Place::Source, &known, &Inventory { volumes, unfit: Vec::new() }) {
        Drift::Broken(problems) => Err(problems),
        Drift::None | Drift::Grown(_) => {
            let text = "are cut into other extents at the source, or stand there in another order";
            Err(vec![VolumeProblem::new("the volumes", text)])
        }
    }
}

/// Judges what was found in a place.
pub fn judge(place: Place<'_>, known: &Known, found: &Inventory) -> Drift {
    let mut grown = known.layout.clone();
    let (mut problems, mut renamed) = (Vec::new(), Vec::new());
    let volumes = known.layout.volumes.iter().zip(&known.identities);
    for ((volume, identity), new) in volumes.zip(&mut grown.volumes) {
        let evidence = evidence(volume, identity.as_ref(), &known.layout, found);
        match &evidence {
            Evidence::Larger(bytes) => new.bytes = *bytes,
            Evidence::Renamed(to) => renamed.push(to.clone()),
            _ => {}
        }
        problems.extend(problem(place, volume, &evidence));
    }
    let beyond = found.volumes.iter().filter(|volume| {
        known.layout.find(volume.name.as_str()).is_none() && !renamed.contains(&volume.name)
    });
    problems.extend(beyond.map(|volume| extra(place, volume)));
    let unknown = |problem: &&VolumeProblem| known.layout.find(&problem.name).is_none();
    problems.extend(found.unfit.iter().filter(unknown).cloned());
    match problems.is_empty() {
        false => Drift::Broken(problems),
        true if grown == known.layout => Drift::None,
        true => Drift::Grown(grown),
    }
}

fn evidence(
    volume: &VolumeLayout,
    identity: Option<&Identity>,
    layout: &Layout,
    found: &Inventory,
) -> Evidence {
    if let Some(now) = found.find(&volume.name) {
        let other = identity.zip(now.identity.as_ref()).is_some_and(|(old, new)| old != new);
        return match now.bytes {
            _ if other => Evidence::Other,
            _ if now.masked != volume.masked => Evidence::Masked(now.masked),
            bytes if bytes > VOLUME_BYTES_MAX || !bytes.is_multiple_of(SECTOR) => {
                Evidence::TooLarge(bytes)
            }
            bytes if bytes > volume.bytes => Evidence::Larger(bytes),
            bytes if bytes < volume.bytes => Evidence::Smaller(bytes),
            _ => Evidence::Same,
        };
    }
    if let Some(problem) = found.unfit.iter().find(|one| one.name == volume.name.as_str()) {
        return Evidence::Unfit(problem.reason.clone());
    }
    let new = || found.volumes.iter().filter(|found| layout.find(found.name.as_str()).is_none());
    let gone = layout.volumes.iter().filter(|volume| found.find(&volume.name).is_none());
    let moved = match identity {
        Some(identity) => new().find(|found| found.identity.as_ref() == Some(identity)),
        None if gone.count() == 1 && new().count() == 1 => {
            new().find(|found| found.bytes == volume.bytes)
        }
        None => None,
    };
    moved.map_or(Evidence::Missing, |found| Evidence::Renamed(found.name.clone()))
}

/// What is wrong with a volume of the layout, and what mends it.
fn problem(place: Place<'_>, volume: &VolumeLayout, evidence: &Evidence) -> Option<VolumeProblem> {
    let (name, bytes) = (volume.name.as_str(), volume.bytes);
    let mut text = match evidence {
        Evidence::Same | Evidence::Larger(_) => return None,
        Evidence::Smaller(found) => format!("has {found} bytes, and had {bytes}"),
        Evidence::Masked(found) => {
            let (masked, kept) = (volume.masked, "its head was overwritten, or made anew");
            format!("has {found} bytes of LVM's at its head, and had {masked}: {kept}")
        }
        Evidence::TooLarge(found) => {
            format!(
                "has {found} bytes, and had {bytes}: at most 128 TiB of whole sectors are taken"
            )
        }
        Evidence::Other => "is not the one that it was: it was removed and made anew".to_owned(),
        Evidence::Unfit(why) => why.clone(),
        Evidence::Renamed(to) => format!("was renamed to {to}"),
        Evidence::Missing => "is gone".to_owned(),
    };
    if let Some(mends) = mending(place, volume, evidence) {
        text = format!("{text}; {mends}");
    }
    Some(VolumeProblem::new(name, text))
}

/// The command that mends it, where there is one.
fn mending(place: Place<'_>, volume: &VolumeLayout, evidence: &Evidence) -> Option<String> {
    let Place::Here(spec) = place else { return None };
    match (spec, evidence) {
        (_, Evidence::Same | Evidence::Larger(_) | Evidence::Masked(_)) => None,
        // Only a start of the agent opens a volume anew.
        (_, Evidence::Other) => Some(
            "put the old one back, or restart the agent, which then compares all of it".to_owned(),
        ),
        (VolumesSpec::Images(dir), evidence) => Some(mends_image(dir, volume, evidence)),
        (VolumesSpec::Lvm2(vg), evidence) => mends_lvm2(vg, volume, evidence),
        (VolumesSpec::AixDisks(_) | VolumesSpec::Aix(_), evidence) => mends_aix(volume, evidence),
    }
}

fn mends_image(dir: &Path, volume: &VolumeLayout, evidence: &Evidence) -> String {
    let (dir, name, bytes) = (dir.display(), &volume.name, volume.bytes);
    match evidence {
        Evidence::Renamed(to) => format!("mend it with: mv {dir}/{to} {dir}/{name}"),
        Evidence::Smaller(_) | Evidence::TooLarge(_) => {
            format!("mend it with: truncate -s {bytes} {dir}/{name}")
        }
        _ => format!("put the file of {bytes} bytes back: {dir}/{name}"),
    }
}

fn mends_lvm2(vg: &str, volume: &VolumeLayout, evidence: &Evidence) -> Option<String> {
    let (name, bytes) = (&volume.name, volume.bytes);
    match evidence {
        Evidence::Renamed(to) => Some(format!("mend it with: lvrename {vg} {to} {name}")),
        Evidence::Smaller(_) => Some(format!("mend it with: lvextend -L {bytes}b {vg}/{name}")),
        Evidence::TooLarge(_) => Some(format!("mend it with: lvreduce -L {bytes}b {vg}/{name}")),
        Evidence::Missing => {
            let make = lvcreate_command(vg, name, bytes).join(" ");
            Some(format!("make it with: {make}; then restart the agent, which compares all of it"))
        }
        // The reason names the command.
        _ => None,
    }
}

fn mends_aix(volume: &VolumeLayout, evidence: &Evidence) -> Option<String> {
    let (name, bytes) = (&volume.name, volume.bytes);
    match evidence {
        Evidence::Renamed(to) => Some(format!("mend it on AIX with: chlv -n {name} {to}")),
        Evidence::Smaller(found) => {
            let lacks = bytes - found;
            Some(format!(
                "mend it on AIX with: extendlv {name} PARTITIONS, as many as make {lacks} bytes"
            ))
        }
        Evidence::Missing => Some(format!(
            "make it on AIX with: mklv -y {name} VG PARTITIONS, as many as make {bytes} bytes; \
             then restart the agent, which compares all of it"
        )),
        _ => None,
    }
}

/// A volume that the layout does not name.
fn extra(place: Place<'_>, volume: &Found) -> VolumeProblem {
    let name = &volume.name;
    let what = "is new, and a group is replicated whole";
    let Place::Here(spec) = place else { return VolumeProblem::new(name, what) };
    let mends = match spec {
        VolumesSpec::Images(dir) => {
            let dir = dir.display();
            format!("mend it with: mv {dir}/{name} ELSEWHERE")
        }
        VolumesSpec::Lvm2(vg) => format!("if nothing needs it: lvremove {vg}/{name}"),
        VolumesSpec::AixDisks(_) | VolumesSpec::Aix(_) => {
            format!("if nothing needs it, on AIX: rmlv {name}")
        }
    };
    VolumeProblem::new(name, format!("{what}; {mends}"))
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
