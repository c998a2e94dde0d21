//! Writing a point's volumes to image files: one per LV, named as the LV, holes where nothing is.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgship_base::bytes::is_zero;
use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::io::RealFolder;
use vgship_base::layout::Layout;
use vgship_base::spread::spread;
use vgship_snapshot::overlay::Overlay;

use super::points::Found;
use crate::api::ControlError;
use crate::api::past::{Exported, ExportedFile};
use crate::history::spec::rfc3339;
use crate::pipeline::replica::ReplicaGroup;
use crate::receive::admit::Point;

/// What is read and written at once. Unit: bytes.
const PIECE: usize = 1 << 20;

/// What is looked at for being zero. Unit: bytes.
const GRAIN: usize = 64 << 10;

/// Volumes that are written at once.
const WORKERS: usize = 2;

/// Clones of the snapshot that a point builds on, brought to that point.
pub(in crate::pipeline) fn clones(
    replica: &Arc<ReplicaGroup>,
    found: &Found,
    folder: &Path,
) -> Result<(Vec<Arc<Overlay>>, Point), ControlError> {
    let failed = |error: &(dyn std::error::Error + 'static)| ControlError::from_error(error);
    let folder = Arc::new(RealFolder::open(folder).map_err(|it| failed(&it))?);
    let mut clones = Vec::new();
    for (at, base) in replica.base_volumes(found).into_iter().enumerate() {
        let clone = Overlay::create(folder.clone(), &stem(at), Arc::new(base));
        clones.push(Arc::new(clone.map_err(|it| failed(&it))?));
    }
    let disks = clones.iter().map(|it| Arc::clone(it) as SharedDisk).collect();
    let point = replica.roll(found, disks)?;
    Ok((clones, point))
}

/// The name that a clone's files begin with.
pub(in crate::pipeline) fn stem(volume: usize) -> String {
    format!("lv{volume}")
}

/// A point's volumes, to be read; clones of them in `scratch` where the point is no snapshot.
pub(in crate::pipeline) fn volumes_at(
    replica: &Arc<ReplicaGroup>,
    found: &Found,
    scratch: &Path,
) -> Result<(Vec<SharedDisk>, Point), ControlError> {
    Ok(if found.wanted == found.base.point {
        let shared = |it| Arc::new(it) as SharedDisk;
        let disks = replica.base_volumes(found).into_iter().map(shared).collect();
        (disks, crate::history::roll::point_of(&found.base))
    } else {
        let (clones, point) = clones(replica, found, scratch)?;
        (clones.into_iter().map(|it| it as SharedDisk).collect(), point)
    })
}

/// Writes a point's volumes into `to`, which is made, or is empty.
pub(in crate::pipeline) fn export(
    replica: &Arc<ReplicaGroup>,
    found: &Found,
    to: &Path,
    scratch: &Path,
) -> Result<Exported, ControlError> {
    let (disks, point) = volumes_at(replica, found, scratch)?;
    let files = write_images(&disks, &found.layout, to)?;
    Ok(Exported {
        group: replica.config.name.to_string(),
        seq: point.seq.0,
        at: point.seq.to_string(),
        time: rfc3339(point.clock),
        files,
    })
}

pub(super) fn write_images(
    disks: &[SharedDisk],
    layout: &Layout,
    to: &Path,
) -> Result<Vec<ExportedFile>, ControlError> {
    let shown = to.display();
    let failed = |action: &str, error: io::Error| {
        ControlError::failed(format!("cannot {action} {shown}: {error}"))
    };
    std::fs::create_dir_all(to).map_err(|it| failed("make the folder", it))?;
    let mut entries = std::fs::read_dir(to).map_err(|it| failed("look into", it))?;
    if entries.next().is_some() {
        return Err(ControlError::refused(format!("the folder {shown} is not empty"))
            .hint("name one that is empty, or that is not there yet"));
    }
    let jobs: Vec<(PathBuf, &SharedDisk)> =
        layout.volumes.iter().map(|it| to.join(it.name.as_str())).zip(disks).collect();
    let written = spread(&jobs, WORKERS, |(path, disk)| {
        let written = write_image(&***disk, path).map_err(|error| {
            ControlError::failed(format!("cannot write {}: {error}", path.display()))
        })?;
        Ok(ExportedFile { path: path.clone(), bytes: disk.len(), written_bytes: written })
    });
    if written.is_err() {
        for (path, _) in &jobs {
            // What was made here goes again; that it cannot is seen by who looks.
            let _ = std::fs::remove_file(path);
        }
    }
    written
}

/// Writes one image; how much of it is no hole.
fn write_image(disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(disk.len())?;
    let (mut at, mut written) = (0, 0);
    let mut piece = vec![0; PIECE];
    while at < disk.len() {
        let (kind, end) = disk.allocation(at, disk.len())?;
        if kind == Allocation::Hole {
            at = end;
            continue;
        }
        let len = usize::try_from((end - at).min(PIECE as u64)).map_err(io::Error::other)?;
        disk.read_at(at, &mut piece[..len])?;
        for (place, grain) in (at..).step_by(GRAIN).zip(piece[..len].chunks(GRAIN)) {
            if !is_zero(grain) {
                file.write_all_at(grain, place)?;
                written += grain.len() as u64;
            }
        }
        at += len as u64;
    }
    file.sync_all()?;
    Ok(written)
}
