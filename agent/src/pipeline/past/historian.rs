//! The historian: takes snapshots on schedule, lets go of what history need not keep, gives room
//! back. One thread per replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vgship_snapshot::retention::{Deletion, Plan};
use vgship_snapshot::set::{Origin, Snapshot, SnapshotSet};

use super::points::snapshot_error;
use crate::api::ControlError;
use crate::history::keeping::{self, Standing, Wanted};
use crate::history::spec::rfc3339;
use crate::home::Settings;
use crate::pipeline::replica::ReplicaGroup;
use crate::receive::io::View;
use crate::wire::kept::{Kept, KeptSnapshot};

/// How often it is looked whether a snapshot is due.
const LOOK: Duration = Duration::from_millis(250);

/// How often it is decided what stays.
const DECIDE: Duration = Duration::from_secs(30);

/// Before-images that are looked at in one go, so that the applier waits little for the catalogue.
pub(super) const SWEEP: usize = 2000;

/// The historian of one replica.
pub(in crate::pipeline) struct Historian {
    replica: Arc<ReplicaGroup>,
    decided: Option<Instant>,
    short: Option<String>,
}

impl Historian {
    pub(in crate::pipeline) fn new(replica: Arc<ReplicaGroup>) -> Historian {
        Historian { replica, decided: None, short: None }
    }

    /// Works until the group is closed.
    pub(in crate::pipeline) fn run(mut self) {
        while !self.replica.stopping.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
            if let Err(error) = self.look() {
                tracing::debug!(%error, "history waits");
            }
        }
    }

    fn look(&mut self) -> Result<(), ControlError> {
        // An engine that does not work has said so.
        let Ok(set) = self.replica.snapshots() else { return Ok(()) };
        let view = self.replica.look_at().map_err(ControlError::failed)?;
        let settings = self.replica.settings();
        self.take_when_due(&set, &view, &settings)?;
        self.tell_source(&set, &view)?;
        let asked = self.replica.history_asked.swap(false, Ordering::SeqCst);
        if asked || self.decided.is_none_or(|since| since.elapsed() >= DECIDE) {
            self.decided = Some(Instant::now());
            self.decide(&set, &view, &settings)?;
        }
        let failed = |error| snapshot_error(&error);
        if set.sweep(SWEEP).map_err(failed)?.done {
            set.compact().map_err(failed)?;
        }
        Ok(())
    }

    fn take_when_due(
        &self,
        set: &SnapshotSet,
        view: &View,
        settings: &Settings,
    ) -> Result<(), ControlError> {
        let all = set.points().map_err(|it| snapshot_error(&it))?;
        let standing = standing(&self.replica, view);
        // While nothing is applied nobody hears: room is made below, and not waited for here.
        if view.holds.is_some() || !keeping::is_due(&wanted(settings), &standing, &all) {
            return Ok(());
        }
        let name = format!("auto-{}-{}", plain(view.applied.clock), view.applied.seq);
        let name = name.parse().map_err(ControlError::failed)?;
        self.replica.take_snapshot(name, Origin::Automatic).map(drop)
    }

    /// Tells the source which snapshots there are, when that has changed.
    fn tell_source(&self, set: &SnapshotSet, view: &View) -> Result<(), ControlError> {
        let failed = |error| snapshot_error(&error);
        let known = |snapshot: Snapshot| {
            let complete = set.is_settled(&snapshot);
            KeptSnapshot::of(snapshot, complete)
        };
        let snapshots = set.points().map_err(failed)?.into_iter().map(known).collect();
        let stored = set.usage().map_err(failed)?.total;
        let kept = Kept { applied: view.applied.seq, stored, snapshots };
        self.replica.kept.send_if_modified(|said| {
            let changed = said.as_ref().is_none_or(|said| said.snapshots != kept.snapshots);
            if changed {
                *said = Some(kept);
            }
            changed
        });
        Ok(())
    }

    fn decide(
        &mut self,
        set: &SnapshotSet,
        view: &View,
        settings: &Settings,
    ) -> Result<(), ControlError> {
        let plan = plan(&self.replica, set, view, settings)?;
        let gone = |gone: &Snapshot, deletion: &Deletion| {
            tracing::info!(
                group = %self.replica.config.name,
                snapshot = %gone.name,
                why = %deletion.reason,
                "a snapshot leaves the history"
            );
        };
        let floor = |floor| self.replica.set_floor(floor);
        keeping::carry_out(set, &plan, floor, gone).map_err(|it| snapshot_error(&it))?;
        let short = plan.short.map(|short| short.to_string());
        if short != self.short {
            if let Some(why) = &short {
                tracing::warn!(group = %self.replica.config.name, why, "history is short");
            }
            self.short.clone_from(&short);
        }
        self.replica.history_state(plan.reaches.map(|it| it.0), short);
        Ok(())
    }
}

/// A time in a name.
fn plain(micros: u64) -> String {
    let text = rfc3339(micros);
    let whole = text.split('.').next().unwrap_or_default();
    whole.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// What is wanted of history.
fn wanted(settings: &Settings) -> Wanted {
    Wanted {
        grid: settings.snapshots.0.clone(),
        window: settings.history_window.0.map(|period| period.0),
        budget: settings.history_budget,
    }
}

/// How a replica stands.
fn standing(replica: &ReplicaGroup, view: &View) -> Standing {
    Standing {
        applied: view.applied,
        rolled: view.rolled.is_some(),
        journal_after: view.journal_after,
        journal_bytes: view.journal_bytes,
        closed: replica.journal_segments(),
        wall: replica.clock.wall(),
    }
}

/// What is to be kept, as things stand.
pub(in crate::pipeline) fn plan(
    replica: &ReplicaGroup,
    set: &SnapshotSet,
    view: &View,
    settings: &Settings,
) -> Result<Plan, ControlError> {
    let planned = keeping::plan(set, &wanted(settings), &standing(replica, view));
    planned.map_err(|it| snapshot_error(&it))
}
