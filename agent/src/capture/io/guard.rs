//! Snapshots that a side kept as a replica, once it is the source: what they still share with the
//! volumes is preserved before an application first overwrites it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vgship_base::ids::{Seq, VolumeId};
use vgship_base::units::Span;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::set::{Preserver, SnapshotSet};

use super::report;
use crate::home::io::make_durable;

/// Everything that a source writes is behind every snapshot that it has.
const BEHIND_ALL: Seq = Seq(u64::MAX);

/// The name that a snapshot store gets when it cannot be kept any more.
pub const LOST: &str = "snapshots-lost";

/// Preserves before writes.
pub struct Guard {
    preserver: Mutex<Preserver>,
    place: PathBuf,
    lost: AtomicBool,
}

impl Guard {
    /// The write side of a set whose store is at `place`.
    pub fn new(set: Arc<SnapshotSet>, place: PathBuf) -> Result<Guard, SnapshotError> {
        // A replica that became the source had applied all that it had.
        set.settle(BEHIND_ALL);
        let preserver = Mutex::new(Preserver::new(set, 1, BEHIND_ALL)?);
        Ok(Guard { preserver, place, lost: AtomicBool::new(false) })
    }

    /// The snapshots; `None` when they were given up.
    pub fn set(&self) -> Option<Arc<SnapshotSet>> {
        let preserver = self.preserver.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.lost.load(Ordering::SeqCst)).then(|| Arc::clone(preserver.set()))
    }

    /// Called with a write's range locked, before it goes to the volume. Applications come first:
    /// when nothing can be preserved the snapshots are given up, durably, and that is said.
    ///
    /// # Errors
    /// Not even that could be made durable: the write must not go to the volume.
    pub fn before(&self, volume: VolumeId, span: Span) -> io::Result<()> {
        if self.lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut preserver = self.preserver.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lost.load(Ordering::SeqCst) {
            return Ok(());
        }
        let spans = std::iter::once((volume, span));
        let shared = preserver.shared(spans, BEHIND_ALL, BEHIND_ALL);
        let done = shared.and_then(|shared| match shared.is_empty() {
            true => Ok(()),
            false => preserver.preserve(&shared),
        });
        if let Err(error) = done {
            Guard::give_up(&self.place, &report(&error))?;
            self.lost.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Sets a store aside for good. A new name needs no room on the disk, and nobody opens a store by
    /// it.
    ///
    /// Durable: once this has returned.
    pub fn give_up(place: &Path, why: &str) -> io::Result<()> {
        let lost = place.with_file_name(LOST);
        match std::fs::remove_dir_all(&lost) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match std::fs::rename(place, &lost) {
            // An earlier try got as far as this.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        make_durable(&lost).map_err(io::Error::other)?;
        tracing::error!(why, place = %lost.display(),
            "ALERT: what snapshots share with the LVs cannot be preserved any more; applications go on, \
             and the snapshots of this side are lost");
        Ok(())
    }
}
