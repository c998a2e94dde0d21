//! The historian: takes snapshots on schedule, lets go of what history need not keep, gives room
//! back. One thread per replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vgship_base::units::ByteLen;
use vgship_snapshot::retention::{
    self, Input, Journal, Moment, Plan, Policy, Segment, Snapshot as Known, Used,
};
use vgship_snapshot::set::{Listed, Origin, Snapshot, SnapshotSet};

use crate::api::ControlError;
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
const SWEEP: usize = 2000;

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
        let failed = |error| super::points::snapshot_error(&error);
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
        if !view.applied.consistent() || view.rolled.is_some() {
            return Ok(());
        }
        let failed = |error| super::points::snapshot_error(&error);
        let all = set.points().map_err(failed)?;
        let last = all.iter().rev().find(|it| it.origin == Origin::Automatic);
        let due = match &settings.snapshots.0 {
            Some(grid) => grid.due(last.map(|it| Moment(it.clock)), now(&self.replica, view)),
            // A point needs one to build on.
            None => all.is_empty() && settings.history_window.0.is_some(),
        };
        let fresh = all.last().is_none_or(|it| it.point < view.applied.seq);
        if !due || !fresh {
            return Ok(());
        }
        let name = format!("auto-{}-{}", plain(view.applied.clock), view.applied.seq);
        let name = name.parse().map_err(ControlError::failed)?;
        self.replica.take_snapshot(name, Origin::Automatic).map(drop)
    }

    /// Tells the source which snapshots there are, when that has changed.
    fn tell_source(&self, set: &SnapshotSet, view: &View) -> Result<(), ControlError> {
        let failed = |error| super::points::snapshot_error(&error);
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
        let failed = |error| super::points::snapshot_error(&error);
        let all = set.list().map_err(failed)?;
        // One that was taken before a resync builds on the record before the resync's begin.
        let floor = all.iter().find(|it| it.seq == plan.floor).map_or(plan.floor, |it| it.point);
        self.replica.set_floor(floor);
        for deletion in &plan.delete {
            let Some(found) = all.iter().find(|it| it.seq == deletion.seq) else { continue };
            match set.delete(found.name.as_str()) {
                Ok(gone) => tracing::info!(
                    group = %self.replica.config.name,
                    snapshot = %gone.name,
                    why = %deletion.reason,
                    "a snapshot leaves the history"
                ),
                // It came into use since.
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        set.forget_markers(plan.floor).map_err(failed)?;
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

/// How late it is, as far as history is concerned: by the source's clock and by ours, whichever is
/// earlier.
fn now(replica: &ReplicaGroup, view: &View) -> Moment {
    Moment(view.applied.clock.min(replica.clock.wall()))
}

/// A time in a name.
fn plain(micros: u64) -> String {
    let text = rfc3339(micros);
    let whole = text.split('.').next().unwrap_or_default();
    whole.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// What is to be kept, as things stand.
pub(in crate::pipeline) fn plan(
    replica: &ReplicaGroup,
    set: &SnapshotSet,
    view: &View,
    settings: &Settings,
) -> Result<Plan, ControlError> {
    let failed = |error| super::points::snapshot_error(&error);
    let listed = set.list_costs().map_err(failed)?;
    let usage = set.usage().map_err(failed)?;
    let (preserved, journal) = (ByteLen(usage.total), ByteLen(view.journal_bytes));
    let used = ByteLen(preserved.0 + journal.0);
    let free = ByteLen(set.available().map_err(failed)?);
    let policy = Policy {
        grid: settings.snapshots.0.clone(),
        window: settings.history_window.0.map(|period| period.0),
        budget: Some(settings.history_budget.bytes(used, free)),
    };
    let inside = !view.applied.consistent();
    let last = listed.iter().rfind(|it| !it.snapshot.torn).map(|it| it.snapshot.seq);
    let way_back = |it: &Listed| inside && Some(it.snapshot.seq) == last;
    let known = listed.iter().map(|it| known_of(it, way_back(it))).collect::<Vec<_>>();
    let applied = view.applied.seq.max(view.journal_after);
    let closed = replica.journal_segments().into_iter();
    let closed: Vec<Segment> =
        closed.map(|(last, bytes)| Segment { last, bytes: ByteLen(bytes) }).collect();
    Ok(retention::decide(&Input {
        snapshots: &known,
        journal: Journal { begins_after: view.journal_after, applied, closed: &closed },
        policy: &policy,
        used: Used { preserved, journal },
        now: now(replica, view),
    }))
}

/// `way_back`: the newest snapshot while nothing is consistent is the only good copy (I4).
fn known_of(listed: &Listed, way_back: bool) -> Known {
    let Listed { snapshot, bytes, holders, .. } = listed;
    Known {
        seq: snapshot.seq,
        clock: Moment(snapshot.clock),
        taken: Moment(snapshot.taken),
        origin: snapshot.origin,
        pinned: snapshot.pinned,
        in_use: way_back || snapshot.guards || !holders.is_empty(),
        bytes: Some(ByteLen(*bytes)),
    }
}
