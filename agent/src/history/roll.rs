//! Rolling forward: a snapshot, and the journal's records after it, up to a point.

use std::sync::Arc;

use vgship_base::disk::SharedDisk;
use vgship_base::ids::Seq;
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Record};
use vgship_snapshot::set::Snapshot;

use crate::apply::applier::{Applier, ApplyError};
use crate::receive::admit::{Admit, AdmitError, Point};
use crate::receive::journal::JournalError;

/// Why a point cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RollError {
    /// The journal cannot be read, or does not reach back to the snapshot.
    #[error("the journal cannot be read back to the point")]
    Journal(#[from] JournalError),
    /// The journal holds what may not follow the snapshot.
    #[error("the journal does not follow the snapshot")]
    Order(#[from] AdmitError),
    /// The clone refused.
    #[error("the clone cannot be brought to the point")]
    Apply(#[from] ApplyError),
    /// Nothing is consistent there.
    #[error(
        "{wanted} lies inside a resync, where nothing is consistent; the last point before it is \
         {before}"
    )]
    Inside {
        /// What was asked for.
        wanted: Seq,
        /// The last consistent point before it.
        before: Seq,
    },
    /// Not received yet, or lost.
    #[error("{wanted} is not there; the last point is {last}")]
    Beyond {
        /// What was asked for.
        wanted: Seq,
        /// The last that there is.
        last: Seq,
    },
}

/// Where a snapshot stands in the stream.
pub const fn point_of(snapshot: &Snapshot) -> Point {
    Point {
        generation: Some(snapshot.generation),
        seq: snapshot.point,
        chain: None,
        window: None,
        clock: snapshot.clock,
    }
}

/// The records of a journal, batch by batch, in order.
pub trait Records: Iterator<Item = Result<Vec<Record>, JournalError>> {}

impl<T: Iterator<Item = Result<Vec<Record>, JournalError>>> Records for T {}

/// Follows the records behind a point.
struct Follow {
    admit: Admit,
    /// The last consistent point.
    consistent: Point,
}

impl Follow {
    fn new(layout: &Arc<Layout>, from: Point) -> Follow {
        Follow { admit: Admit::new(Arc::clone(layout), from), consistent: from }
    }

    fn pass(&mut self, record: &Record) -> Result<(), AdmitError> {
        self.admit.admit(record, vgship_base::record::Chain::data_hash(record))?;
        if self.admit.point().consistent() {
            self.consistent = self.admit.point();
        }
        Ok(())
    }

    /// Where it stands, which must be `wanted`, and consistent.
    fn reached(&self, wanted: Seq) -> Result<Point, RollError> {
        let point = self.admit.point();
        if point.seq < wanted {
            return Err(RollError::Beyond { wanted, last: point.seq });
        }
        if !point.consistent() {
            return Err(RollError::Inside { wanted, before: self.consistent.seq });
        }
        Ok(point)
    }
}

/// Looks at the records behind `from` up to `wanted`, each of which `each` is told of: where the
/// stream stands then.
pub fn survey(
    layout: &Arc<Layout>,
    from: Point,
    wanted: Seq,
    records: impl Records,
    mut each: impl FnMut(&Record),
) -> Result<Point, RollError> {
    let mut follow = Follow::new(layout, from);
    for batch in records {
        for record in batch?.iter().take_while(|record| record.seq <= wanted) {
            follow.pass(record)?;
            each(record);
        }
        if follow.admit.point().seq >= wanted {
            break;
        }
    }
    follow.reached(wanted)
}

/// Brings disks that hold `from` to the point of `wanted`: where the stream stands then.
///
/// # Errors
/// The disks then hold something in between; throw them away.
pub fn roll(
    layout: &Arc<Layout>,
    disks: Vec<SharedDisk>,
    from: Point,
    wanted: Seq,
    records: impl Records,
) -> Result<Point, RollError> {
    let mut follow = Follow::new(layout, from);
    let mut applier = Applier::new(Arc::clone(layout), disks, 1);
    if wanted > from.seq {
        for batch in records {
            let mut batch = batch?;
            batch.retain(|record| record.seq <= wanted);
            batch.iter().try_for_each(|record| follow.pass(record))?;
            applier.apply(&batch, true)?;
            if batch.last().is_none_or(|last| last.seq >= wanted) {
                break;
            }
        }
    }
    follow.reached(wanted)
}

/// The last consistent point whose epoch had ended by `clock` on the source; `from` when none had.
/// Unit: microseconds since 1970.
pub fn at_clock(
    layout: &Arc<Layout>,
    from: Point,
    clock: u64,
    records: impl Records,
) -> Result<Point, RollError> {
    let mut follow = Follow::new(layout, from);
    let mut found = from;
    for batch in records {
        for record in &batch? {
            follow.pass(record)?;
            let Body::EpochEnd(end) = &record.body else { continue };
            if end.clock > clock {
                return Ok(found);
            }
            if follow.admit.point().consistent() {
                found = follow.admit.point();
            }
        }
    }
    Ok(found)
}

/// The last epoch end at or before `wanted`, or `from`.
pub fn at_epoch(
    layout: &Arc<Layout>,
    from: Point,
    wanted: Seq,
    records: impl Records,
) -> Result<Point, RollError> {
    let mut follow = Follow::new(layout, from);
    let mut found = from;
    for batch in records {
        for record in batch?.iter().take_while(|record| record.seq <= wanted) {
            follow.pass(record)?;
            let ended = matches!(record.body, Body::EpochEnd(_));
            if ended && follow.admit.point().consistent() {
                found = follow.admit.point();
            }
        }
        if follow.admit.point().seq >= wanted {
            break;
        }
    }
    Ok(found)
}
