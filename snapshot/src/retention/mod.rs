//! Retention: decides which snapshots go, and how far back the journal is kept. Does no I/O and
//! reads no clock.
//!
//! A point S can be opened when a snapshot at or before S is kept and the journal is whole from
//! that snapshot to S. So while the journal reaches back to a kept snapshot A, deleting a later
//! snapshot loses no point, it makes points slower to open; deleting A, the *anchor*, loses the
//! points up to the next kept snapshot. [`decide`] therefore goes in three steps:
//!
//! 1. **Anchor.** The newest snapshot that is at least as old as the window, or else the oldest
//!    from which the journal is whole. The journal is kept from there on. Without a window no
//!    point between snapshots is wanted: the journal is kept as far as replication needs it.
//! 2. **Thinning.** What no row of the [`Grid`] wants goes, except the anchor. Without a grid all
//!    in the window is kept and what is older goes; without either, all is kept.
//! 3. **Budget.** While history takes too much the oldest goes, whichever it is: first snapshots
//!    from before the anchor, one by one, then the points between the anchor and the next kept
//!    snapshot, and so on, at the end all points between snapshots.
//!
//! What never goes: what is pinned or in use, what a person made, the newest snapshot, and for
//! [`UNDO_PERIOD`] the newest that was made before a resync and before a rollback. When the policy
//! cannot be met because of that, [`Plan::short`] says so.

mod decide;
mod grid;
mod thin;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use vgship_base::ids::Seq;
use vgship_base::units::ByteLen;

use crate::set::Origin;

pub use decide::decide;
pub use grid::{Grid, GridError, ROWS_MAX};

/// How long the newest snapshot from before a resync, and the newest from before a rollback, stay
/// whatever the policy says: a day, so that who comes to work the next morning and sees what it did
/// can still take it back.
pub const UNDO_PERIOD: Duration = Duration::from_hours(24);

/// A reading of a wall clock. Unit: microseconds since 1970 UTC, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// How long after `earlier`; zero if it is not after.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `period` earlier, or the first one of all.
    #[must_use]
    pub fn before(self, period: Duration) -> Moment {
        Moment(self.0.saturating_sub(micros(period)))
    }

    /// The moment `period` later, or the last one of all.
    #[must_use]
    pub fn after(self, period: Duration) -> Moment {
        Moment(self.0.saturating_add(micros(period)))
    }
}

/// A duration as a count of microseconds; the largest count for any that is longer.
fn micros(period: Duration) -> u64 {
    u64::try_from(period.as_micros()).unwrap_or(u64::MAX)
}

/// What retention needs to know of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its place in the stream.
    pub seq: Seq,
    /// The last record that it holds, from behind which the journal is needed; before `seq` when
    /// that is the begin of a resync. Ascending, and two snapshots may share one.
    pub point: Seq,
    /// The source's clock at that place.
    pub clock: Moment,
    /// When it was made, by the replica's clock. Later than `clock` where the replica was behind or
    /// cut off.
    pub taken: Moment,
    /// Why it was made.
    pub origin: Origin,
    /// A person said that it stays.
    pub pinned: bool,
    /// A view, an environment, an export or a resync that may have to be undone builds on it.
    pub in_use: bool,
    /// What deleting it gives back once all older ones are gone, which is what was preserved while
    /// it was the newest; `None` if nobody knows.
    pub bytes: Option<ByteLen>,
}

impl Snapshot {
    /// Whether it is from `then` or earlier by both clocks. One that was in 1970 for a moment makes
    /// nothing old, or it would cost the window.
    fn surely_before(&self, then: Moment) -> bool {
        self.clock <= then && self.taken <= then
    }
}

/// A closed segment of the journal. Only whole segments are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its last record.
    pub last: Seq,
    /// Its size.
    pub bytes: ByteLen,
}

/// What the journal holds.
#[derive(Clone, Copy, Debug)]
pub struct Journal<'a> {
    /// It is whole from the record after this one on.
    pub begins_after: Seq,
    /// Up to here it may be trimmed at most: the checkpoint, or the place before the first record
    /// that an open view still reads from it, whichever is earlier. At least `begins_after`.
    pub applied: Seq,
    /// Its closed segments, ascending.
    pub closed: &'a [Segment],
}

/// What a person wants of history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which snapshots stay as time goes.
    pub grid: Option<Grid>,
    /// How far back any point in time can be opened.
    pub window: Option<Duration>,
    /// What history may take, see [`Used`].
    pub budget: Option<ByteLen>,
}

/// What history takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Extents preserved for snapshots.
    pub preserved: ByteLen,
    /// The journal.
    pub journal: ByteLen,
}

/// All that [`decide`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// All snapshots, strictly ascending by seq.
    pub snapshots: &'a [Snapshot],
    /// What the journal holds.
    pub journal: Journal<'a>,
    /// What is wanted.
    pub policy: &'a Policy,
    /// What is taken.
    pub used: Used,
    /// The source's clock at the last epoch end that was applied, or the replica's own if that is
    /// earlier. So history ages only as far as both clocks say that time has passed: a replica that
    /// is cut off keeps what it has, and one clock that runs ahead deletes nothing.
    pub now: Moment,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Snapshots to delete, oldest first.
    pub delete: Vec<Deletion>,
    /// The journal may be trimmed up to here, this record included: a kept snapshot's point,
    /// or `begins_after` or `applied` of the journal.
    pub floor: Seq,
    /// Every point from here on can be opened; `None` if the journal is behind no kept snapshot.
    pub reaches: Option<Moment>,
    /// Why the policy is not met. A window that the budget cut is told by the plan that cuts it;
    /// how it stands later, `reaches` tells.
    pub short: Option<Short>,
}

/// A snapshot that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Which.
    pub seq: Seq,
    /// Why.
    pub reason: Reason,
}

/// Why a snapshot goes. Displays as a sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The grid wants one snapshot of each slot, and another one is older.
    Thinned {
        /// The one that stays.
        kept: Seq,
        /// The slot's length.
        step: Duration,
    },
    /// No row of the grid reaches back to it.
    BeyondGrid,
    /// It is older than the window, and there is no grid.
    BeyondWindow {
        /// How long the window is.
        window: Duration,
    },
    /// It is the oldest that may go, and history takes too much.
    Budget {
        /// How much too much before it went.
        over: ByteLen,
        /// What history may take.
        budget: ByteLen,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Thinned { kept, step } => {
                write!(out, "it is not needed beside {kept} of the same {}", Shown(*step))
            }
            Reason::BeyondGrid => out.write_str("it is older than the grid reaches back"),
            Reason::BeyondWindow { window } => {
                write!(out, "it is older than the window of {}", Shown(*window))
            }
            Reason::Budget { over, budget } => write!(
                out,
                "it is the oldest that may go, and history is {over} over its budget of {budget}"
            ),
        }
    }
}

/// Why the policy is not met.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Short {
    /// History takes too much, and no more of it may go.
    #[error(
        "history is {over} over its budget of {budget}, and what is left may not go: it is pinned, \
         in use, made by a person, the newest, or the way back from a resync or rollback"
    )]
    Budget {
        /// How much too much is left.
        over: ByteLen,
        /// What history may take.
        budget: ByteLen,
    },
    /// The budget cut the window.
    #[error(
        "any point can be opened for the last {} instead of {}: the budget has no room for more",
        Shown(*reach),
        Shown(*window)
    )]
    Window {
        /// How far back points reach now.
        reach: Duration,
        /// How far they should.
        window: Duration,
    },
}

/// A duration in the largest unit with at most one decimal: `15 m`, `1.5 h`, `2 d`.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
        let seconds = self.0.as_secs();
        let fitting = UNITS.into_iter().find(|(_, unit)| seconds >= *unit);
        let (name, unit) = fitting.unwrap_or(("s", 1));
        match seconds % unit * 10 / unit {
            0 => write!(out, "{} {name}", seconds / unit),
            tenth => write!(out, "{}.{tenth} {name}", seconds / unit),
        }
    }
}
