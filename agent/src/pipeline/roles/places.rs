//! Where a group's files are when its role changes.

use std::sync::Arc;

use vgship_base::layout::Layout;
use vgship_snapshot::seal::KeyRing;

use crate::api::ControlError;
use crate::group::drift::Known;
use crate::group::{inventory, open_replica};
use crate::home::{GroupConfig, GroupHome, LockedHome};
use crate::pipeline::source::real_folder;
use crate::pipeline::volumes::store_identities;
use crate::role::promotion::{ChangeError, Place};

/// Opens a closed group's files and volumes.
pub(super) fn place(
    home: &LockedHome,
    config: &GroupConfig,
    keys: &KeyRing,
    now: u64,
) -> Result<Place, ControlError> {
    let group_home = home.group(&config.name);
    let layout = Arc::new(read_layout(&group_home)?);
    let spec = config.volumes.parse().map_err(|it| ControlError::from_error(&it))?;
    let volumes =
        open_replica(&spec, &layout, false).map_err(|it| ControlError::from_error(&it))?;
    let folder = |name| real_folder(&group_home, name).map(|it| Arc::new(it) as _);
    Ok(Place {
        group: config.id,
        layout,
        volumes,
        replica: folder("replica")?,
        journal: folder("journal")?,
        source: folder("source")?,
        snapshots: folder("snapshots")?,
        keys: keys.clone(),
        now,
    })
}

/// Remembers what the volumes are: a source that finds others compares all of them.
pub(super) fn know_volumes(
    home: &LockedHome,
    config: &GroupConfig,
    layout: &Layout,
) -> Result<(), ControlError> {
    let spec = config.volumes.parse().map_err(|it| ControlError::from_error(&it))?;
    let found = inventory(&spec).map_err(|it| ControlError::from_error(&it))?;
    let mut known = Known { identities: vec![None; layout.volumes.len()], layout: layout.clone() };
    known.adopt(&found);
    store_identities(&home.group(&config.name), &known)
}

/// What cannot be now is a refusal.
pub(super) fn change_error(error: &ChangeError) -> ControlError {
    match error {
        ChangeError::Inconsistent | ChangeError::Worn => ControlError::refused(error),
        _ => ControlError::from_error(error),
    }
}

fn read_layout(home: &GroupHome) -> Result<Layout, ControlError> {
    let path = home.layout();
    let bytes = std::fs::read(&path).map_err(|error| {
        ControlError::failed(format!("cannot read {}: {error}", path.display()))
    })?;
    Layout::decode(&bytes).map_err(|it| {
        ControlError::failed(format!("the layout in {} is damaged: {it}", path.display()))
    })
}
