//! A source's volumes at a start: opens them, if they are still those that are replicated.

use std::sync::Arc;

use vgship_base::disk::SharedDisk;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::Name;
use vgship_base::layout::Layout;

use crate::api::ControlError;
use crate::group::drift::{Drift, Inventory, Known, Place, judge};
use crate::group::identity::{self, IDENTITIES_BYTES_MAX};
use crate::group::{GroupError, OpenGroup, VolumeProblem, VolumesSpec, inventory, open_source};
use crate::home::{self, GroupHome};

/// A source's volumes, open.
pub(super) struct Opened {
    /// What is replicated.
    pub(super) known: Known,
    /// The volumes, in the layout's order.
    pub(super) volumes: Vec<SharedDisk>,
    /// Those that are not the ones that were replicated, as far as anybody knows.
    pub(super) strange: Vec<Name>,
}

/// Opens a source's volumes. A new group's layout is stored, and one that has grown; the ledger
/// comes after it. Anything else that changed is refused.
pub(super) fn open(
    group: &GroupHome,
    name: &Name,
    spec: &VolumesSpec,
    extent: ExtentSize,
) -> Result<Opened, ControlError> {
    // Before they are opened: what is exchanged in between shows as another identity later.
    let found = inventory(spec).map_err(|it| ControlError::from_error(&it))?;
    let Some(layout) = stored_layout(group)? else {
        let open = open_source(spec, extent).map_err(|it| ControlError::from_error(&it))?;
        let mut known = unknown(open.layout);
        known.adopt(&found);
        store_layout(group, &known.layout)?;
        return Ok(Opened { known, volumes: open.volumes, strange: Vec::new() });
    };
    let mut known = unknown(layout);
    let text = home::io::read_if_any(&group.identities(), IDENTITIES_BYTES_MAX)?;
    if let Some(identities) = text.and_then(|text| identity::decode(&text, &known.layout)) {
        known.identities = identities;
    }
    let strange = known.adopt(&found);
    let grown = followed(name, spec, &known, &found)?;
    let volumes = open_all(spec, grown.as_ref().unwrap_or(&known.layout))
        .map_err(|it| ControlError::from_error(&it))?;
    if let Some(grown) = grown {
        store_layout(group, &grown)?;
        known.layout = grown;
    }
    Ok(Opened { known, volumes, strange })
}

fn unknown(layout: Layout) -> Known {
    Known { identities: vec![None; layout.volumes.len()], layout }
}

/// The layout that the volumes have grown to, if they have.
fn followed(
    name: &Name,
    spec: &VolumesSpec,
    known: &Known,
    found: &Inventory,
) -> Result<Option<Layout>, ControlError> {
    match judge(Place::Here(spec), known, found) {
        Drift::None => Ok(None),
        Drift::Grown(layout) => {
            tracing::info!(group = %name, "volumes are larger than before; what is new is resynced");
            Ok(Some(layout))
        }
        Drift::Broken(problems) => {
            Err(ControlError::refused(stopped(&problems)).hint(last_resort(name)))
        }
    }
}

/// Why a group is not replicated.
pub(super) fn stopped(problems: &[VolumeProblem]) -> String {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("stopped: {}", problems.join("; "))
}

/// What to do when what changed cannot or shall not be taken back.
pub(super) fn last_resort(name: &Name) -> String {
    format!(
        "do what mends it; if it shall stay as it is, take the group anew: vgship group remove \
         {name}, vgship group add, and pair again"
    )
}

/// Opens the volumes of a layout that has just been found.
pub(super) fn open_all(spec: &VolumesSpec, layout: &Layout) -> Result<Vec<SharedDisk>, GroupError> {
    let open = open_source(spec, layout.extent)?;
    let changed = || GroupError::Volumes {
        place: spec.to_string(),
        problems: vec![VolumeProblem::new("a volume", "changed while it was opened: try again")],
    };
    let same = open.layout.volumes.len() == layout.volumes.len();
    let OpenGroup { layout: found, volumes } = open;
    let place = |volume| found.volumes.iter().position(|found| found == volume);
    let one = |volume| Some(Arc::clone(&volumes[place(volume)?]));
    let all = layout.volumes.iter().map(one).collect::<Option<Vec<_>>>();
    all.filter(|_| same).ok_or_else(changed)
}

fn stored_layout(group: &GroupHome) -> Result<Option<Layout>, ControlError> {
    let path = group.layout();
    match std::fs::read(&path) {
        Ok(bytes) => Layout::decode(&bytes).map(Some).map_err(|it| {
            ControlError::failed(format!("the layout in {} is damaged: {it}", path.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ControlError::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Stores a layout as a whole.
///
/// Durable: once this has returned.
pub(super) fn store_layout(group: &GroupHome, layout: &Layout) -> Result<(), ControlError> {
    Ok(home::io::replace(&group.layout(), &layout.encode(), home::io::PLAIN)?)
}

/// Remembers what the volumes are, once the ledger knows those that were strange as dirty.
///
/// Durable: once this has returned.
pub(super) fn store_identities(group: &GroupHome, known: &Known) -> Result<(), ControlError> {
    let text = identity::encode(&known.layout, &known.identities);
    Ok(home::io::replace(&group.identities(), text.as_bytes(), home::io::PLAIN)?)
}
