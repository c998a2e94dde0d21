//! What stays of a replica's past: when a snapshot is due, what is to go, how far back the journal
//! is kept for it. Decides on what the replica shows; the store and the journal are handed in.

use std::time::Duration;

use vgship_base::ids::Seq;
use vgship_base::units::ByteLen;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::retention::{
    self, Deletion, Grid, Input, Journal, Moment, Plan, Policy, Segment, Snapshot as Known, Used,
};
use vgship_snapshot::set::{Listed, Origin, Snapshot, SnapshotSet};

use crate::home::keep::Budget;
use crate::receive::admit::Point;

/// What a person wants of history.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// When snapshots are taken, and which of them stay.
    pub grid: Option<Grid>,
    /// How far back any point can be opened.
    pub window: Option<Duration>,
    /// What history may take.
    pub budget: Budget,
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What its volumes hold durably, or held before they were rolled back.
    pub applied: Point,
    /// Its volumes are rolled back.
    pub rolled: bool,
    /// The record behind which its journal begins.
    pub journal_after: Seq,
    /// What its journal takes. Unit: bytes.
    pub journal_bytes: u64,
    /// The journal's closed segments, oldest first: the last record of each, and its bytes.
    pub closed: Vec<(Seq, u64)>,
    /// The replica's own clock. Unit: microseconds since 1970.
    pub wall: u64,
}

impl Standing {
    /// What of the journal is history: no segment that holds only what the volumes do not hold yet,
    /// which history must not pay for.
    fn past(&self) -> ByteLen {
        let (mut begins, mut past) = (self.journal_after, 0);
        let closed: u64 = self.closed.iter().map(|(_, bytes)| bytes).sum();
        let current = (Seq(u64::MAX), self.journal_bytes.saturating_sub(closed));
        for &(last, bytes) in self.closed.iter().chain([&current]) {
            if begins < self.applied.seq {
                past += bytes;
            }
            begins = last;
        }
        ByteLen(past)
    }

    /// How late it is, as far as history is concerned: by the source's clock and by the replica's,
    /// whichever is earlier.
    fn now(&self) -> Moment {
        Moment(self.applied.clock.min(self.wall))
    }
}

/// Whether a snapshot is to be taken by itself now. `all` are those that hold a consistent point.
pub fn is_due(wanted: &Wanted, standing: &Standing, all: &[Snapshot]) -> bool {
    if !standing.applied.consistent() || standing.rolled {
        return false;
    }
    let last = all.iter().rev().find(|it| it.origin == Origin::Automatic);
    let due = match &wanted.grid {
        Some(grid) => grid.due(last.map(|it| Moment(it.clock)), standing.now()),
        // A point needs one to build on.
        None => all.is_empty() && wanted.window.is_some(),
    };
    due && all.last().is_none_or(|it| it.point < standing.applied.seq)
}

/// What is to be kept, as things stand.
///
/// # Errors
/// The store could not be read.
pub fn plan(
    set: &SnapshotSet,
    wanted: &Wanted,
    standing: &Standing,
) -> Result<Plan, SnapshotError> {
    let listed = set.list_costs()?;
    let (preserved, journal) = (ByteLen(set.usage()?.total), standing.past());
    let used = ByteLen(preserved.0 + journal.0);
    let free = ByteLen(set.available()?);
    let policy = Policy {
        grid: wanted.grid.clone(),
        window: wanted.window,
        budget: Some(wanted.budget.bytes(used, free)),
    };
    let inside = !standing.applied.consistent();
    // A torn one is nobody's base: whoever needs it holds it, and takes it away.
    let points = listed.iter().filter(|it| !it.snapshot.torn);
    let last = points.clone().next_back().map(|it| it.snapshot.seq);
    let way_back = |it: &Listed| inside && Some(it.snapshot.seq) == last;
    let known = points.map(|it| known_of(it, way_back(it))).collect::<Vec<_>>();
    let applied = standing.applied.seq.max(standing.journal_after);
    let closed = standing.closed.iter();
    let closed: Vec<Segment> =
        closed.map(|&(last, bytes)| Segment { last, bytes: ByteLen(bytes) }).collect();
    Ok(retention::decide(&Input {
        snapshots: &known,
        journal: Journal { begins_after: standing.journal_after, applied, closed: &closed },
        policy: &policy,
        used: Used { preserved, journal },
        now: standing.now(),
    }))
}

/// `way_back`: the newest snapshot while nothing is consistent is the only good copy (I4).
fn known_of(listed: &Listed, way_back: bool) -> Known {
    let Listed { snapshot, bytes, holders, .. } = listed;
    Known {
        seq: snapshot.seq,
        point: snapshot.point,
        clock: Moment(snapshot.clock),
        taken: Moment(snapshot.taken),
        origin: snapshot.origin,
        pinned: snapshot.pinned,
        in_use: way_back || snapshot.guards || !holders.is_empty(),
        bytes: Some(ByteLen(*bytes)),
    }
}

/// Carries a plan out: `floor` is told up to where history needs no journal, then what goes is
/// deleted, each told to `gone`.
///
/// # Errors
/// The store refused; what was not deleted is by the next plan.
pub fn carry_out(
    set: &SnapshotSet,
    plan: &Plan,
    floor: impl FnOnce(Seq),
    mut gone: impl FnMut(&Snapshot, &Deletion),
) -> Result<(), SnapshotError> {
    floor(plan.floor);
    let all = set.list()?;
    for deletion in &plan.delete {
        let Some(found) = all.iter().find(|it| it.seq == deletion.seq) else { continue };
        match set.delete(found.name.as_str()) {
            Ok(found) => gone(&found, deletion),
            // It came into use since.
            Err(error) if error.is_refusal() => {}
            Err(error) => return Err(error),
        }
    }
    set.forget_markers(plan.floor)
}

/// The snapshot from which on any point can be opened. `all` are those that can be read, ascending.
pub fn oldest(all: &[Snapshot], journal_after: Seq) -> Option<&Snapshot> {
    all.iter().find(|it| it.point >= journal_after)
}

/// The snapshot that the point at `wanted` builds on: the newest before it. `all` are those that
/// can be read, ascending.
pub fn base_of(all: &[Snapshot], wanted: Seq) -> Option<&Snapshot> {
    all.iter().rev().find(|it| it.point <= wanted)
}

/// Whether a point can be opened: nothing is missing between the snapshot that it builds on and it.
pub fn reaches(journal_after: Seq, base: &Snapshot, wanted: Seq) -> bool {
    wanted == base.point || journal_after <= base.point
}

/// The new floor when the journal's disk is full and history alone keeps the journal from being
/// trimmed: its oldest segment goes, for the stream comes first. `None` when that cannot help.
///
/// Shape: `floor` as it is; `settled`, up to where the volumes hold the stream; `readers`, the
/// records behind which somebody reads; `oldest`, the last record of the journal's oldest closed
/// segment.
pub fn give_way(
    floor: Seq,
    settled: Seq,
    mut readers: impl Iterator<Item = Seq>,
    oldest: Option<Seq>,
) -> Option<Seq> {
    if floor >= settled || readers.any(|after| after <= floor) {
        return None;
    }
    Some(oldest.unwrap_or(settled).min(settled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_volumes_do_not_hold_yet_is_no_history() {
        let mut standing = Standing {
            applied: Point { seq: Seq(25), ..Point::FRESH },
            rolled: true,
            journal_after: Seq(10),
            journal_bytes: 1111,
            closed: vec![(Seq(20), 1), (Seq(30), 10), (Seq(40), 100)],
            wall: 0,
        };
        assert_eq!(standing.past(), ByteLen(11), "the segment that is applied in part counts");
        standing.applied.seq = Seq(30);
        assert_eq!(standing.past(), ByteLen(11));
        standing.applied.seq = Seq(45);
        assert_eq!(standing.past(), ByteLen(1111));
        standing.applied.seq = Seq(10);
        assert_eq!(standing.past(), ByteLen(0));
    }
}
