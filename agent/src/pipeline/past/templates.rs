//! Templates, as far as they need the running agent: made of a replica's points, opened under
//! environments.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use vgship_base::disk::SharedDisk;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::Name;
use vgship_snapshot::template::{self, CHUNK_LOG2_DEFAULT, Facts, Meta, SourcePoint, Template};

use super::export::{volumes_at, write_images};
use super::points::Found;
use crate::api::ControlError;
use crate::api::past::{Exported, TemplateMade, TemplateRequest};
use crate::history::spec::rfc3339;
use crate::home::Home;
use crate::pipeline::replica::ReplicaGroup;
use crate::templates::{
    confirm_made, open_store, open_template, store_error, template_error, template_key,
};

/// Makes a template of a point that was found, and is held; with facts of the caller's.
pub(super) fn create(
    home: &Home,
    replica: &Arc<ReplicaGroup>,
    found: &Found,
    request: &TemplateRequest,
    mut facts: Facts,
    scratch: &Path,
) -> Result<TemplateMade, ControlError> {
    let store = open_store(home, request.store.as_deref()).map_err(|it| store_error(&it))?;
    let (disks, point) = volumes_at(replica, found, scratch)?;
    // After what may take long: the key that is current now, not the one that was.
    let key = template_key(home, &*store).map_err(|it| store_error(&it))?;
    let group = &replica.config;
    facts.insert("volumes".to_owned(), group.volumes.clone());
    let meta = Meta {
        created: replica.clock.wall(),
        source: SourcePoint {
            group: group.id,
            group_name: group.name.clone(),
            generation: point.generation.unwrap_or_default(),
            seq: point.seq,
            clock: point.clock,
        },
        chunk: ExtentSize::from_log2(CHUNK_LOG2_DEFAULT).expect("the default is within limits"),
        facts,
        volumes: found.layout.volumes.iter().map(|_| Facts::new()).collect(),
    };
    let stop =
        |_: &template::Progress| match replica.stopping.load(std::sync::atomic::Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
    let (name, layout) = (&request.name, &found.layout);
    let made = template::create(&*store, &key, name, &disks, layout, &meta, &mut { stop });
    let made = made.map_err(|it| template_error(&it))?;
    confirm_made(&*store, key.id(), name).map_err(|it| store_error(&it))?;
    tracing::info!(template = %name, group = %group.name, at = %point.seq, "a template was made");
    Ok(TemplateMade {
        name: name.to_string(),
        root: made.root.to_string(),
        group: group.name.to_string(),
        at: point.seq.to_string(),
        time: rfc3339(point.clock),
        bytes: layout.bytes(),
        data_bytes: made.progress.data,
        stored_bytes: made.progress.stored,
    })
}

/// What is told of a template that was there before: nothing was stored for it.
pub(super) fn found(template: &Template) -> TemplateMade {
    let (manifest, source) = (template.manifest(), &template.manifest().source);
    let chunk = manifest.chunk.bytes();
    let data = manifest.volumes.iter().map(|it| (it.chunks * chunk).min(it.layout.bytes));
    TemplateMade {
        name: manifest.name.to_string(),
        root: template.root().to_string(),
        group: source.group_name.to_string(),
        at: source.seq.to_string(),
        time: rfc3339(source.clock),
        bytes: manifest.layout().bytes(),
        data_bytes: data.sum(),
        stored_bytes: 0,
    }
}

/// Opens a template.
pub(super) fn open(
    home: &Home,
    store: Option<&str>,
    name: &Name,
) -> Result<Template, ControlError> {
    open_template(home, &open_store(home, store).map_err(|it| store_error(&it))?, name)
}

/// Looks whether a template that was opened is still there.
///
/// # Errors
/// It was deleted, or another one has its name; or what the store refuses.
pub(super) fn still_stands(
    home: &Home,
    store: Option<&str>,
    name: &Name,
    opened: &Template,
) -> Result<(), ControlError> {
    let now = open(home, store, name).map_err(|error| ControlError {
        message: format!("template {name} is not there any more: {error}"),
        ..error
    })?;
    let text = format!("template {name} was deleted meanwhile, and another one has its name");
    (now.root() == opened.root()).then_some(()).ok_or_else(|| ControlError::refused(text))
}

/// Its volumes, to be read.
pub(super) fn volumes(template: &Template) -> Vec<SharedDisk> {
    let ids = template.manifest().layout().ids();
    ids.filter_map(|id| template.volume(id)).map(|it| Arc::new(it) as SharedDisk).collect()
}

/// Writes a template's volumes into `to`, which is made, or is empty.
pub(super) fn export(template: &Template, to: &Path) -> Result<Exported, ControlError> {
    let manifest = template.manifest();
    let files = write_images(&volumes(template), &manifest.layout(), to)?;
    Ok(Exported {
        group: manifest.source.group_name.to_string(),
        seq: manifest.source.seq.0,
        at: manifest.source.seq.to_string(),
        time: rfc3339(manifest.source.clock),
        files,
    })
}
