//! Far behind its journal, as after a rollback, or where the snapshot store has no room: the volumes
//! take what the journal holds while more of it is journaled and acknowledged. Then the engine is
//! opened anew, behind by little.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use vgship_base::record::{Chain, Record};
use vgship_snapshot::SnapshotError;

use super::super::super::admit::Admit;
use super::super::super::journal::JournalError;
use super::super::{EngineError, Work, handover_of};
use super::Applying;
use crate::apply::rollback::RollbackError;

impl Applying {
    /// Applies all of `records`, which follow what is applied; `admit` stands there.
    pub(in super::super) fn catch_up(
        mut self,
        records: impl Iterator<Item = Result<Vec<Record>, JournalError>>,
        mut admit: Admit,
        from: &Receiver<Work>,
    ) {
        tracing::info!(after = %self.point.seq, "the replica catches up with its journal");
        match self.apply_backlog(records, &mut admit, from) {
            Ok(true) => self.shared.view().turned = true,
            Ok(false) => {}
            Err(error) => self.shared.fail(&error),
        }
    }

    /// Whether it came to the end: not when the engine is being stopped.
    fn apply_backlog(
        &mut self,
        records: impl Iterator<Item = Result<Vec<Record>, JournalError>>,
        admit: &mut Admit,
        from: &Receiver<Work>,
    ) -> Result<bool, EngineError> {
        for batch in records {
            let batch = batch?;
            for record in &batch {
                admit.admit(record, Chain::data_hash(record))?;
            }
            if handover_of(&batch).is_some() {
                break; // the engine that is opened next finds it
            }
            let mut idle = || turn_away(from);
            idle();
            let stops = self.shared.stopping.load(Ordering::SeqCst);
            if stops || self.apply_when_there_is_room(&batch, true, &mut idle)?.is_none() {
                return Ok(false);
            }
            self.point = admit.point();
            self.tell();
            self.checkpoint(false)?;
        }
        self.checkpoint(true)?;
        Ok(true)
    }
}

/// Takes what came meanwhile off the queue: batches are durable in the journal, and nobody waits
/// for their answers, since the link ends with this engine.
fn turn_away(from: &Receiver<Work>) {
    let why = || {
        let why = "the replica catches up with its journal; try again when it has";
        SnapshotError::Inconsistent(why.into())
    };
    // Whoever asked may have gone.
    for work in from.try_iter() {
        match work {
            Work::Batch(_) => {}
            Work::Snapshot { done, .. } => drop(done.send(Err(why()))),
            Work::RollBack { done, .. } => drop(done.send(Err(RollbackError::Snapshots(why())))),
            Work::Undo { done } => drop(done.send(Err(RollbackError::NotRolled))),
        }
    }
}
