//! Finding and opening points of a replica.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vgship_base::disk::SharedDisk;
use vgship_base::ids::{Name, Seq};
use vgship_base::layout::Layout;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::set::{Origin, Snapshot, SnapshotSet};

use super::live::LiveVolume;
use crate::api::ControlError;
use crate::history::keeping;
use crate::history::roll::{self, RollError, point_of};
use crate::history::spec::{At, rfc3339};
use crate::pipeline::replica::ReplicaGroup;
use crate::receive::admit::Point;
use crate::receive::io::{Hold, Stopped};
use crate::receive::journal::Replay;

/// How long a snapshot that was just taken may take until the volumes hold it durably.
const SETTLES: Duration = Duration::from_secs(20);

/// How often to look.
const LOOK: Duration = Duration::from_millis(5);

/// A point that was found: the snapshot before it, and where it lies behind that.
pub(in crate::pipeline) struct Found {
    /// The newest snapshot at or before it.
    pub(in crate::pipeline) base: Snapshot,
    /// The layout that the volumes had.
    pub(in crate::pipeline) layout: Arc<Layout>,
    /// The last record that it holds.
    pub(in crate::pipeline) wanted: Seq,
}

pub(in crate::pipeline) fn snapshot_error(error: &SnapshotError) -> ControlError {
    if error.is_refusal() { ControlError::refused(error) } else { ControlError::from_error(error) }
}

pub(super) fn roll_error(error: &RollError) -> ControlError {
    match error {
        RollError::Inside { .. } | RollError::Beyond { .. } => {
            ControlError::refused(error).hint("see which points there are with: vgship history G")
        }
        _ => ControlError::from_error(error),
    }
}

pub(super) fn stopped(_: Stopped) -> ControlError {
    ControlError::failed("the replica stopped meanwhile; see its log, then ask again")
}

impl ReplicaGroup {
    /// Takes a snapshot of what is applied now.
    pub(in crate::pipeline) fn take_snapshot(
        &self,
        name: Name,
        origin: Origin,
    ) -> Result<Option<Snapshot>, ControlError> {
        let desk = self.desk()?;
        desk.take(name, origin).map_err(stopped)?.map_err(|it| snapshot_error(&it))
    }

    /// The records behind a point, and a hold that keeps them for as long as they are read.
    pub(super) fn records(&self, after: Seq) -> Result<(Replay, Hold), ControlError> {
        self.desk()?.replay(after).map_err(stopped)
    }

    /// Finds a point: the snapshot that it builds on, and the record that it ends with.
    pub(in crate::pipeline) fn find_point(&self, at: &At) -> Result<Found, ControlError> {
        if let At::Snapshot(name) = at {
            self.await_settled(name)?;
        }
        let set = self.set()?;
        let all = settled(&set)?;
        let view = self.look_at().map_err(ControlError::failed)?;
        let before = |seq: Seq| {
            let base = keeping::base_of(&all, seq);
            base.cloned().ok_or_else(|| too_old(&self.config.name, &all))
        };
        let reaches = |base: &Snapshot, wanted: Seq| {
            let whole = keeping::reaches(view.journal_after, base, wanted);
            if whole { Ok(()) } else { Err(gone(base, &all)) }
        };
        let (base, wanted) = match at {
            At::Snapshot(name) => {
                let found = set.find(name.as_str()).map_err(|it| snapshot_error(&it))?;
                if found.torn {
                    let why = format!("{name} lies inside a resync, where nothing is consistent");
                    return Err(ControlError::refused(why));
                }
                if !set.is_settled(&found) {
                    return Err(unsettled(&found));
                }
                let wanted = found.point;
                (found, wanted)
            }
            At::Now => {
                let seq = view.applied.seq;
                if !view.applied.consistent() {
                    return Err(inside(&all));
                }
                (before(seq)?, seq)
            }
            At::Seq(seq) => (before(*seq)?, *seq),
            At::Marker(name) => {
                let markers = set.markers().map_err(|it| snapshot_error(&it))?;
                let found = markers.iter().rfind(|it| it.name == *name);
                let unknown = || {
                    ControlError::refused(format!("there is no marker {name} in the history"))
                        .hint("see which there are with: vgship history G")
                };
                let seq = found.ok_or_else(unknown)?.seq;
                (before(seq)?, seq)
            }
            At::Epoch(seq) => {
                let base = before(*seq)?;
                reaches(&base, *seq)?;
                let (records, _hold) = self.records(base.point)?;
                let layout = self.layout();
                let found = roll::at_epoch(&layout, point_of(&base), *seq, records);
                let wanted = found.map_err(|it| roll_error(&it))?.seq;
                (base, wanted)
            }
            At::Time(micros) => {
                let base = all.iter().rev().find(|it| it.clock <= *micros);
                let base = base.cloned().ok_or_else(|| too_old(&self.config.name, &all))?;
                if view.journal_after > base.point {
                    return Err(gone(&base, &all));
                }
                let (records, _hold) = self.records(base.point)?;
                let layout = self.layout();
                let found = roll::at_clock(&layout, point_of(&base), *micros, records);
                let wanted = found.map_err(|it| roll_error(&it))?.seq;
                (base, wanted)
            }
        };
        reaches(&base, wanted)?;
        let layout = set.layout_of(&base).map_err(|it| snapshot_error(&it))?;
        Ok(Found { base, layout: Arc::new(layout), wanted })
    }

    /// Waits until the volumes hold durably what a snapshot stands for, which the next checkpoint
    /// does. The set is held while it is looked at, and not while it is waited: who opens the
    /// replica again waits for all that hold it.
    fn await_settled(&self, name: &Name) -> Result<(), ControlError> {
        let since = Instant::now();
        loop {
            {
                let set = self.set()?;
                let found = set.find(name.as_str()).map_err(|it| snapshot_error(&it))?;
                if found.torn || set.is_settled(&found) {
                    return Ok(());
                }
                let goes_on = self.look_at().map_err(ControlError::failed)?.settles();
                let waited = since.elapsed() >= SETTLES;
                if !goes_on || waited || self.stopping.load(Ordering::SeqCst) {
                    return Err(unsettled(&found));
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Holds the snapshot that a point builds on: it stays until `holder` lets go.
    pub(in crate::pipeline) fn hold(
        &self,
        found: &Found,
        holder: &str,
    ) -> Result<(), ControlError> {
        let (set, name) = (self.set()?, found.base.name.as_str());
        let held = set.hold(name, holder).map_err(|it| snapshot_error(&it))?;
        // After it: who removes the group sets this first, and then looks who holds anything.
        let leaving = self.leaving.load(Ordering::SeqCst);
        if held.seq == found.base.seq && !leaving {
            return Ok(());
        }
        set.release(held.seq, holder).map_err(|it| snapshot_error(&it))?;
        if leaving {
            let text = format!("group {} is being removed", self.config.name);
            return Err(ControlError::refused(text));
        }
        // It was deleted meanwhile, and another one got its name.
        Err(snapshot_error(&SnapshotError::Unknown(name.to_owned())))
    }

    /// Who holds snapshots of it, once each.
    pub(in crate::pipeline) fn holders(&self) -> Result<BTreeSet<String>, ControlError> {
        let all = self.set()?.list_costs().map_err(|it| snapshot_error(&it))?;
        Ok(all.into_iter().flat_map(|it| it.holders).collect())
    }

    /// `holder` needs the snapshot of `seq` no more.
    pub(in crate::pipeline) fn release(&self, seq: Seq, holder: &str) -> Result<(), ControlError> {
        self.set()?.release(seq, holder).map_err(|it| snapshot_error(&it))
    }

    /// The volumes of the snapshot that a point builds on.
    pub(in crate::pipeline) fn base_volumes(&self, found: &Found) -> Vec<LiveVolume> {
        LiveVolume::all(&self.reading, found.base.seq, &found.layout)
    }

    /// Brings clones of the snapshot that a point builds on to that point.
    pub(in crate::pipeline) fn roll(
        &self,
        found: &Found,
        clones: Vec<SharedDisk>,
    ) -> Result<Point, ControlError> {
        let from = point_of(&found.base);
        if found.wanted == from.seq {
            return Ok(from);
        }
        let (records, _hold) = self.records(from.seq)?;
        // Between two snapshots the volumes may have grown: what lies behind their old end is of
        // the later layout, and no part of this point's.
        roll::roll(&found.layout, clones, from, found.wanted, records).map_err(|it| roll_error(&it))
    }

    fn set(&self) -> Result<Arc<SnapshotSet>, ControlError> {
        self.snapshots().map_err(|why| {
            ControlError::failed(format!("the replica's snapshots cannot be used now: {why}"))
        })
    }
}

/// The snapshots that can be read.
fn settled(set: &SnapshotSet) -> Result<Vec<Snapshot>, ControlError> {
    let mut all = set.points().map_err(|it| snapshot_error(&it))?;
    all.retain(|it| set.is_settled(it));
    Ok(all)
}

fn unsettled(found: &Snapshot) -> ControlError {
    snapshot_error(&SnapshotError::Unsettled(found.name.to_string()))
}

fn too_old(group: &Name, all: &[Snapshot]) -> ControlError {
    let why = match all.first() {
        None => format!("group {group} has no snapshot yet, and so no history"),
        Some(first) => format!(
            "the history of group {group} begins at {} ({})",
            first.point,
            rfc3339(first.clock)
        ),
    };
    ControlError::refused(why).hint(format!("see its points with: vgship history {group}"))
}

fn gone(base: &Snapshot, all: &[Snapshot]) -> ControlError {
    let next = all.iter().find(|it| it.point > base.point);
    let after = next.map_or_else(
        || "none after it yet".to_owned(),
        |next| format!("{} at {} after it", next.name, next.point),
    );
    ControlError::refused(format!(
        "the records between snapshots have left the history there: nearest are {} at {}, and {after}",
        base.name, base.point
    ))
}

fn inside(all: &[Snapshot]) -> ControlError {
    let error = ControlError::refused(
        "the replica is being resynchronised: what it holds now is no consistent point",
    );
    match all.iter().rev().find(|it| it.guards) {
        Some(guard) => error.hint(format!("the last one is kept as {}", guard.name)),
        None => error,
    }
}
