//! A source's files become a replica's. Everything is prepared beside what the source needs; the
//! caller then changes the group's configuration, and that is what counts. A crash before it leaves
//! a source as it was.

use vgship_base::ids::{Generation, Name, Seq};

use super::ancestry;
use super::meeting::Ancestry;
use super::promotion::{ChangeError, Place, clear, named};
use super::yields::{self, Yields};
use crate::apply::{checkpoint, rolled};
use crate::receive::admit::Point;
use crate::ship::dirty::DirtyMap;
use crate::wire::changed::{Run, runs};

/// What becomes of a source.
pub struct Demotion {
    /// The history that it wrote.
    pub ancestry: Ancestry,
    /// The last number that it gave.
    pub last: Seq,
    /// Where its volumes may differ from what the other side had of its history, when it gives up
    /// what it wrote; `None` when the other side has everything.
    pub gives_up: Option<Vec<Run>>,
}

impl Demotion {
    /// Prepares a replica in `place`, whose source is closed. What is given up stays as a snapshot,
    /// `branch-GEN`, until somebody deletes it.
    ///
    /// Durable: once this has returned; it counts when the group's configuration says so.
    pub fn prepare(self, place: &Place) -> Result<(), ChangeError> {
        let generation = self.ancestry.generation;
        let folder = &*place.replica;
        match self.gives_up {
            None => yields::remove(folder)?,
            Some(changed) => {
                let branch = branch_name(generation);
                place.take(&place.set()?, &branch, (self.last, generation))?;
                yields::store(folder, &Yields { generation, changed })?;
            }
        }
        ancestry::learn(folder, &self.ancestry)?;
        // It ends where this side became the source: what was written since leads on from nothing.
        clear(&*place.journal).map_err(ChangeError::Old)?;
        if rolled::load(folder)?.is_some() {
            rolled::remove(folder)?;
        }
        let point = Point {
            generation: Some(generation),
            seq: self.last,
            chain: None,
            window: None,
            clock: place.now,
        };
        Ok(checkpoint::store(folder, &point)?)
    }
}

/// A replica that is to follow another source than before tells that it may differ everywhere.
///
/// Durable: once this has returned.
pub fn yield_all(place: &Place) -> Result<(), ChangeError> {
    let point = checkpoint::load(&*place.replica)?;
    let Some(generation) = point.and_then(|it| it.generation) else { return Ok(()) };
    let mut all = DirtyMap::empty(&place.layout);
    all.fill();
    Ok(yields::store(&*place.replica, &Yields { generation, changed: runs(all.sets()) })?)
}

/// What the snapshot is called that holds a history that was given up.
pub fn branch_name(generation: Generation) -> Name {
    named("branch", generation)
}
