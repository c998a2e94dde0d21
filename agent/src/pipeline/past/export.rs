//! Writing a point's volumes to image files: one per LV, named as the LV, holes where nothing is.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgship_base::bytes::is_zero as only_zeroes;
use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::io::{FileDisk, RealFolder};
use vgship_base::layout::Layout;
use vgship_base::spread::spread;
use vgship_snapshot::overlay::Overlay;

use super::points::Found;
use crate::api::ControlError;
use crate::api::past::{Exported, ExportedFile};
use crate::capture::io::report;
use crate::history::spec::rfc3339;
use crate::keys::veiled::Veiled;
use crate::pipeline::replica::ReplicaGroup;
use crate::receive::admit::Point;

/// What is read and written at once. Unit: bytes.
const PIECE: usize = 1 << 20;

/// What is looked at for being zero. Unit: bytes.
const GRAIN: usize = 64 << 10;

/// Volumes that are written at once.
const WORKERS: usize = 2;

/// Clones of the snapshot that a point builds on, brought to that point. Their files are counted
/// from `first` on.
pub(in crate::pipeline) fn clones(
    replica: &Arc<ReplicaGroup>,
    found: &Found,
    folder: &Path,
    first: usize,
) -> Result<(Vec<Arc<Overlay>>, Point), ControlError> {
    let failed = |error: &(dyn std::error::Error + 'static)| ControlError::from_error(error);
    let folder = Arc::new(RealFolder::open(folder).map_err(|it| failed(&it))?);
    let mut clones = Vec::new();
    for (at, base) in (first..).zip(replica.base_volumes(found)) {
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
        let (clones, point) = clones(replica, found, scratch, 0)?;
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
    if let Some(veil) = replica.config.blind {
        Veiled::new(replica.config.id, veil).write(to)?;
    }
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
            let why = report(&error);
            ControlError::failed(format!("cannot write {}: {why}", path.display()))
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
    let written = copy(disk, &FileDisk::fixed(file.try_clone()?)?, true)?;
    file.sync_all()?;
    Ok(written)
}

/// Writes all of a disk to another that is as large or larger; how much is not zero. What is not
/// written reads as zero: by itself if the other `is_zero`. Unit: bytes.
///
/// Durable: once this has returned.
pub(super) fn copy(from: &dyn Disk, to: &dyn Disk, is_zero: bool) -> io::Result<u64> {
    let (mut at, mut written) = (0, 0);
    let mut piece = vec![0; PIECE];
    let clear = |at: u64, len: u64| if is_zero { Ok(()) } else { to.zero_at(at, len) };
    while at < from.len() {
        let (kind, end) = from.allocation(at, from.len())?;
        if kind == Allocation::Hole {
            clear(at, end - at)?;
            at = end;
            continue;
        }
        let len = usize::try_from((end - at).min(PIECE as u64)).map_err(io::Error::other)?;
        from.read_at(at, &mut piece[..len])?;
        for (place, grain) in (at..).step_by(GRAIN).zip(piece[..len].chunks(GRAIN)) {
            if only_zeroes(grain) {
                clear(place, grain.len() as u64)?;
            } else {
                to.write_at(place, grain)?;
                written += grain.len() as u64;
            }
        }
        at += len as u64;
    }
    if to.len() > at {
        clear(at, to.len() - at)?;
    }
    to.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimDisk};

    use super::*;

    #[test]
    fn a_copy_covers_what_was_there_and_more() {
        let from = SimDisk::volume(&Power::default(), 300 << 10);
        from.write_at(100 << 10, &[1; 512]).unwrap();
        for is_zero in [false, true] {
            let to = SimDisk::volume(&Power::default(), 400 << 10);
            if !is_zero {
                to.write_at(0, &vec![9; 400 << 10]).unwrap();
            }
            assert_eq!(copy(&from, &to, is_zero).unwrap(), 64 << 10);
            let (mut found, mut expected) = (vec![0; 400 << 10], vec![0; 400 << 10]);
            expected[100 << 10..][..512].fill(1);
            to.read_at(0, &mut found).unwrap();
            assert!(found == expected, "{is_zero}");
        }
    }
}
