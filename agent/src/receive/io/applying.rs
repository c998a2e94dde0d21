//! The thread that applies: batches in order, snapshots where they are asked for, checkpoints.

mod behind;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use vgship_base::folder::SharedFolder;
use vgship_base::record::{Body, Record};
use vgship_snapshot::SnapshotError;

use super::super::admit::Point;
use super::{Applied, CHECKPOINT_EVERY, EngineError, LOOK, Shared, Turned, Work, handover_of};
use crate::apply::applier::{Answer, Applier, ApplyError};
use crate::apply::keeper::{News, Wall};
use crate::apply::rollback::{self, RollbackError, Target};

/// Bytes applied before a checkpoint.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// How long nothing may come before a checkpoint is made at once.
const IDLE: Duration = Duration::from_millis(100);

/// How often a wait for room is logged.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// The applier's thread.
pub(super) struct Applying {
    applier: Applier,
    folder: SharedFolder,
    shared: Arc<Shared>,
    point: Point,
    stored: Point,
    since: Instant,
    wall: Wall,
    /// Somebody waits for a marker or a snapshot: the next checkpoint is due.
    awaited: bool,
    /// It applies nothing any more: the engine is being stopped, or opened anew.
    given_up: bool,
}

impl Applying {
    pub(super) fn new(
        applier: Applier,
        folder: SharedFolder,
        shared: Arc<Shared>,
        point: Point,
        wall: Wall,
    ) -> Applying {
        let (stored, since) = (point, Instant::now());
        let (awaited, given_up) = (false, false);
        Applying { applier, folder, shared, point, stored, since, wall, awaited, given_up }
    }

    pub(super) fn run(mut self, from: &Receiver<Work>) {
        loop {
            let (work, ended) = match from.recv_timeout(IDLE) {
                Ok(work) => (Some(work), false),
                Err(RecvTimeoutError::Timeout) => (None, false),
                Err(RecvTimeoutError::Disconnected) => (None, true),
            };
            let idle = work.is_none();
            let done = match work {
                Some(Work::Batch(batch)) => self.apply(batch),
                Some(Work::Snapshot { name, origin, done }) => {
                    let taken = self
                        .applier
                        .keeper()
                        .map_or(Ok(None), |keeper| keeper.take_here(name, origin));
                    let failed = taken.as_ref().is_err_and(|error| !error.is_refusal());
                    self.awaited |= taken.is_ok();
                    // Who asked may have gone.
                    let _ = done.send(taken);
                    if failed { Err(EngineError::Asked) } else { Ok(()) }
                }
                Some(Work::RollBack { target, done }) => self.roll_back(&target, done),
                Some(Work::Undo { done }) => {
                    let _ = done.send(Err(RollbackError::NotRolled));
                    Ok(())
                }
                None => Ok(()),
            };
            self.tell();
            let turned = self.shared.view().turned;
            let settled = done.and_then(|()| if turned { Ok(()) } else { self.checkpoint(idle) });
            if let Err(error) = settled {
                self.shared.fail(&error);
                return;
            }
            if ended || turned || self.given_up {
                return;
            }
        }
    }

    /// Begins a rollback. Then nothing is applied before the engine is opened anew.
    fn roll_back(&mut self, target: &Target, done: Turned) -> Result<(), EngineError> {
        let since = (self.wall)();
        match rollback::begin(&mut self.applier, &*self.folder, &self.point, target, since) {
            Ok(rolled) => {
                let mut view = self.shared.view();
                (view.applied, view.rolled, view.turned) = (self.point, Some(rolled), true);
                let _ = done.send(Ok(()));
                Ok(())
            }
            Err(error) => {
                let refused = error.is_refusal();
                let _ = done.send(Err(error));
                if refused { Ok(()) } else { Err(EngineError::Asked) }
            }
        }
    }

    fn apply(&mut self, batch: Applied) -> Result<(), EngineError> {
        let Applied { records, point, answers } = batch;
        if let Some(handover) = handover_of(&records) {
            // What comes before is in the volumes for good; the journal keeps saying the rest.
            self.checkpoint(true)?;
            self.shared.view().handed = Some(handover);
            self.given_up = true;
            return Ok(());
        }
        let session = point.window.map_or(0, |window| window.session);
        let Some(judged) = self.apply_when_there_is_room(&records, false, &mut || {})? else {
            self.given_up = true;
            return Ok(());
        };
        self.awaited |= records.iter().any(|record| matches!(record.body, Body::Marker(_)));
        let begins = records.iter().any(|record| matches!(record.body, Body::ResyncBegin(_)));
        {
            let mut view = self.shared.view();
            view.judged = if begins { 0 } else { view.judged } + judged.len() as u64;
        }
        self.point = point;
        if let (Some(answers), false) = (answers, judged.is_empty()) {
            // A link that is gone needs no answers: its source asks anew.
            let _ = answers.blocking_send((session, judged));
        }
        Ok(())
    }

    /// Applies a batch; waits while what it overwrites cannot be preserved, doing `idle` now and
    /// then. `None` when the engine is being stopped meanwhile: the journal has the batch.
    fn apply_when_there_is_room(
        &mut self,
        records: &[Record],
        replay: bool,
        idle: &mut dyn FnMut(),
    ) -> Result<Option<Vec<Answer>>, EngineError> {
        let mut said: Option<Instant> = None;
        loop {
            let why = match self.applier.apply(records, replay) {
                Err(ApplyError::Snapshots(why @ SnapshotError::NoRoom { .. })) => why,
                done => {
                    if said.is_some() {
                        self.shared.view().holds = None;
                        tracing::info!("the snapshot store has room again");
                    }
                    return Ok(Some(done?));
                }
            };
            if self.shared.stopping.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let text = format!(
                "{why}; free some, or delete snapshots: the replica goes on by itself, and no \
                 point that a snapshot holds is given up for it"
            );
            if said.is_none_or(|since| since.elapsed() >= SAY_EVERY) {
                tracing::warn!(reason = text, "the replica applies nothing");
                said = Some(Instant::now());
            }
            self.shared.view().holds = Some(text);
            idle();
            std::thread::sleep(LOOK);
        }
    }

    /// Says what became of snapshots.
    fn tell(&mut self) {
        let news = self.applier.keeper().map(crate::apply::keeper::Keeper::news);
        for news in news.unwrap_or_default() {
            match news {
                News::Taken(snapshot) => tracing::info!(
                    snapshot = %snapshot.name,
                    seq = %snapshot.point,
                    origin = snapshot.origin.text(),
                    "a snapshot was taken"
                ),
                News::Did(did, name) => tracing::info!(snapshot = %name, "a snapshot was {did}"),
                News::Refused { name, why } => {
                    tracing::warn!(marker = %name, why, "a marker of the source was not followed");
                }
                News::Released => tracing::debug!("the resync's way back is no longer guarded"),
            }
        }
    }

    fn checkpoint(&mut self, idle: bool) -> Result<(), EngineError> {
        let due = idle
            || self.awaited
            || self.since.elapsed() >= CHECKPOINT_EVERY
            || self.applier.unflushed() >= CHECKPOINT_BYTES;
        if self.point == self.stored || !due {
            return Ok(());
        }
        self.applier.checkpoint(&*self.folder, &self.point)?;
        (self.stored, self.awaited) = (self.point, false);
        self.since = Instant::now();
        self.shared.settled.store(self.point.seq.0, Ordering::SeqCst);
        self.shared.view().applied = self.point;
        let applied = self.point;
        self.shared.progress.send_modify(|progress| progress.applied = applied);
        Ok(())
    }
}
