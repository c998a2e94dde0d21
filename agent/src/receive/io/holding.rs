//! The applier's thread while the volumes are rolled back: it takes them to where they are to be,
//! and applies nothing. What comes is in the journal, and is applied when the rollback is over.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};

use vgship_base::folder::SharedFolder;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::set::SnapshotSet;

use super::super::journal::Replay;
use super::{Hold, LOOK, Shared, Work};
use crate::apply::applier::{Applier, ApplyError};
use crate::apply::keeper::Wall;
use crate::apply::rollback::{self, RollbackError};
use crate::apply::rolled::{Phase, Rolled};
use crate::capture::io::report;

/// Gives the journal's records behind the point's snapshot, from the first on, as often as asked.
pub(super) type Records = Box<dyn Fn() -> Replay + Send>;

/// The thread.
pub(super) struct Holding {
    applier: Applier,
    records: Records,
    /// Keeps them.
    _hold: Hold,
    talks: Talks,
}

/// Hears what is asked of the thread meanwhile.
struct Talks {
    set: Arc<SnapshotSet>,
    folder: SharedFolder,
    shared: Arc<Shared>,
    wall: Wall,
    rolled: Rolled,
    /// The engine is to be opened anew: what it does has changed.
    turned: bool,
    /// Nobody asks any more.
    ended: bool,
}

impl Holding {
    pub(super) fn new(
        applier: Applier,
        (records, hold): (Records, Hold),
        (set, folder): (Arc<SnapshotSet>, SharedFolder),
        shared: Arc<Shared>,
        (rolled, wall): (Rolled, Wall),
    ) -> Holding {
        let talks = Talks { set, folder, shared, wall, rolled, turned: false, ended: false };
        Holding { applier, records, _hold: hold, talks }
    }

    pub(super) fn run(mut self, from: &Receiver<Work>) {
        while self.talks.goes_on() {
            let done = match self.talks.rolled.phase {
                Phase::Going | Phase::Coming if !self.talks.is_stuck() => self.roll(from),
                Phase::Going | Phase::Coming | Phase::There => {
                    self.talks.hear(from);
                    Ok(())
                }
                Phase::Came => {
                    self.talks.turned = true;
                    Ok(())
                }
            };
            match done {
                Err(error) if error.is_final() => {
                    let why = report(&error);
                    tracing::error!(why, "the volumes cannot be taken to the point");
                    self.talks.shared.view().stuck = Some(why);
                }
                Err(error) => {
                    self.talks.shared.fail(&error.into());
                    return;
                }
                Ok(()) => {}
            }
        }
        self.talks.shared.view().turned |= self.talks.turned;
    }

    /// Takes the volumes to where they are to be; when there is no room to preserve what that
    /// overwrites, waits a little.
    fn roll(&mut self, from: &Receiver<Work>) -> Result<(), RollbackError> {
        let Holding { applier, records, talks, .. } = self;
        let (folder, rolled) = (Arc::clone(&talks.folder), talks.rolled);
        let done = rollback::roll(applier, &*folder, &rolled, records(), &mut |step| {
            talks.shared.view().rolling = Some(step);
            talks.drain(from);
            let same = talks.rolled == rolled && talks.goes_on();
            if same { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let why = match done {
            Ok(Some(next)) => {
                talks.there(next);
                return Ok(());
            }
            Ok(None) => return Ok(()),
            Err(RollbackError::Apply(ApplyError::Snapshots(
                why @ SnapshotError::NoRoom { .. },
            ))) => why,
            Err(error) => return Err(error),
        };
        let text = format!("{why}; free some, or delete snapshots: the rollback goes on by itself");
        talks.shared.view().holds = Some(text);
        talks.drain(from);
        std::thread::sleep(LOOK);
        Ok(())
    }
}

impl Talks {
    fn goes_on(&self) -> bool {
        !self.turned && !self.ended && !self.shared.stopping.load(Ordering::SeqCst)
    }

    fn is_stuck(&self) -> bool {
        self.shared.view().stuck.is_some()
    }

    fn there(&mut self, next: Rolled) {
        self.rolled = next;
        let mut view = self.shared.view();
        (view.rolled, view.rolling, view.holds) = (Some(next), None, None);
        let (at, from) = (next.wanted, next.from);
        if next.phase == Phase::There {
            tracing::info!(%at, %from, "the volumes are rolled back");
        } else {
            tracing::info!(at = %from, "the volumes hold again what they held");
        }
    }

    /// Hears what is there.
    fn drain(&mut self, from: &Receiver<Work>) {
        while self.goes_on() {
            match from.try_recv() {
                Ok(work) => self.take(work),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.ended = true,
            }
        }
    }

    /// Waits for something to hear.
    fn hear(&mut self, from: &Receiver<Work>) {
        match from.recv_timeout(super::CHECKPOINT_EVERY) {
            Ok(work) => self.take(work),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.ended = true,
        }
    }

    fn take(&mut self, work: Work) {
        match work {
            // It is durable in the journal, and nobody waits for its answers: the link ends with
            // this engine.
            Work::Batch(_) => {}
            Work::Snapshot { done, .. } => {
                let why = "the volumes are rolled back; take it when they follow the source again";
                let _ = done.send(Err(SnapshotError::Inconsistent(why.into())));
            }
            Work::RollBack { target, done } => {
                let since = (self.wall)();
                let next = rollback::turn(&self.set, &*self.folder, &self.rolled, &target, since);
                // Its records are others.
                self.turned |= next.is_ok();
                let _ = done.send(next.map(|next| self.go(next)));
            }
            Work::Undo { done } => {
                let next = rollback::undo(&*self.folder, &self.rolled);
                let _ = done.send(next.map(|next| self.go(next)).map_err(Into::into));
            }
        }
    }

    fn go(&mut self, next: Rolled) {
        self.rolled = next;
        let mut view = self.shared.view();
        (view.rolled, view.rolling, view.stuck) = (Some(next), None, None);
    }
}
