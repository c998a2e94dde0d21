//! Steps of a rollback: a replica's volumes are taken to a point, held there while the stream goes
//! on into the journal, and taken to where they stood.

use std::ops::ControlFlow;

use vgship::apply::applier::ApplyError;
use vgship::apply::rollback::{self, RollbackError, Target};
use vgship::apply::rolled::{Phase, Rolled};
use vgship::history::keeping;
use vgship::history::roll::{RollError, point_of, survey};
use vgship_snapshot::SnapshotError;
use vgship_snapshot::set::Snapshot;

use super::model::Images;
use super::replica::{Ended, ReplicaLife, stopped};
use super::{World, id_of};

impl World {
    /// Something happens to a rollback of a replica, or one begins. When faults have stopped, it
    /// only comes to its end.
    pub(super) fn rollback_step(&mut self, index: usize) {
        if !self.replica_up(index) {
            return;
        }
        let hold = self.replicas[index].life.as_ref().and_then(|life| life.hold.as_ref());
        let at = hold.map(|hold| (hold.rolled.phase, hold.stuck));
        let ends = !self.writing || self.rng.one_in(8);
        let done = match at {
            None if self.writing && self.rng.one_in(12) => self.begin_rollback(index),
            None => Ok(()),
            Some((Phase::Going | Phase::There, _)) if ends => self.undo_rollback(index),
            Some(_) if self.writing && self.rng.one_in(20) => self.turn_rollback(index),
            Some((Phase::Going | Phase::Coming, false)) => self.roll_volumes(index),
            Some(_) => {
                self.check_rolled(index, "while it is held");
                Ok(())
            }
        };
        if let Err(ended) = done {
            self.ended(index, &ended);
        }
    }

    /// Some point as the agent finds one, if there is any: what it builds on, and where the stream
    /// stands there.
    fn some_target(&mut self, index: usize) -> Result<Option<Target>, Ended> {
        let set = self.set(index);
        let settled: Vec<Snapshot> =
            set.points()?.into_iter().filter(|it| set.is_settled(it)).collect();
        if settled.is_empty() {
            return Ok(None);
        }
        let base = settled[self.rng.index(settled.len())].clone();
        let mut target = Target { base: base.seq, point: point_of(&base) };
        if self.rng.one_in(2)
            && let Some(wanted) = self.some_record(index, base.point)
        {
            let base = keeping::base_of(&settled, wanted).expect("one is before it");
            let life = self.replicas[index].life.as_ref().expect("it is up");
            let (from, records) = (point_of(base), life.journal.replay(base.point));
            match survey(&self.layout, from, wanted, records, |_| ()) {
                Ok(point) => target = Target { base: base.seq, point },
                Err(RollError::Inside { .. }) => return Ok(None),
                Err(error) => return Err(stopped(&error)),
            }
        }
        Ok(Some(target))
    }

    fn begin_rollback(&mut self, index: usize) -> Result<(), Ended> {
        match self.some_target(index)? {
            Some(target) => self.roll_back(index, &target),
            None => Ok(()),
        }
    }

    fn roll_back(&mut self, index: usize, target: &Target) -> Result<(), Ended> {
        let host = &mut self.replicas[index];
        host.way_back = Some(host.images());
        let since = host.past.wall()();
        let life = host.life.as_mut().expect("it is up");
        let applied = life.applied;
        match rollback::begin(&mut life.applier, &host.state, &applied, target, since) {
            Ok(rolled) => {
                self.trace(|| format!("replica {index} rolls back: {rolled:?}"));
                self.coverage.hit(match applied.consistent() {
                    true => "rollback begun",
                    false => "rollback begun inside a resync",
                });
                self.turned(index);
                Ok(())
            }
            Err(error) if error.is_refusal() => {
                host.way_back = None;
                Ok(())
            }
            Err(error) => Err(stopped(&error)),
        }
    }

    /// The engine is opened anew, sooner or later: what it does has changed.
    fn turned(&mut self, index: usize) {
        self.note_snapshots(index);
        self.opened_anew(index);
        if self.rng.one_in(2) {
            self.start_replica(index);
        }
    }

    fn rolled(&self, index: usize) -> Rolled {
        let life = self.replicas[index].life.as_ref().expect("it is up");
        life.rolled().expect("its volumes are rolled back")
    }

    fn set_rolled(&mut self, index: usize, rolled: Rolled) {
        let life = self.replicas[index].life.as_mut().expect("it is up");
        let hold = life.hold.as_mut().expect("its volumes are rolled back");
        (hold.rolled, hold.stuck) = (rolled, false);
    }

    /// The volumes go on to where they are to be, for a while.
    fn roll_volumes(&mut self, index: usize) -> Result<(), Ended> {
        let rolled = self.rolled(index);
        let mut left = if self.rng.one_in(2) { u64::MAX } else { self.rng.below(8) };
        let before = self.astray(index);
        let host = &mut self.replicas[index];
        let life = host.life.as_mut().expect("it is up");
        let records = (life.hold.as_ref().expect("it is rolled back").records)();
        let done = rollback::roll(&mut life.applier, &host.state, &rolled, records, &mut |_| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            ControlFlow::Continue(())
        });
        if self.astray(index) > before {
            self.everything_strays(index);
        }
        match done {
            Ok(None) => {
                self.coverage.hit("rollback broken off, and begun anew");
                Ok(())
            }
            Ok(Some(next)) => {
                self.set_rolled(index, next);
                self.check_rolled(index, "when it is there");
                if next.phase == Phase::Came {
                    self.turned(index);
                }
                Ok(())
            }
            Err(RollbackError::Apply(ApplyError::Snapshots(SnapshotError::NoRoom { .. }))) => {
                self.coverage.hit("rollback waited for room");
                Ok(())
            }
            Err(error) if error.is_final() && !self.replicas[index].power.is_off() => {
                let known = self.replicas[index].decayed;
                assert!(known, "replica {index} cannot get to {rolled:?}: {error:?}");
                self.coverage.hit("rollback cannot get there");
                let life = self.replicas[index].life.as_mut().expect("it is up");
                life.hold.as_mut().expect("it is rolled back").stuck = true;
                Ok(())
            }
            Err(error) => Err(stopped(&error)),
        }
    }

    fn undo_rollback(&mut self, index: usize) -> Result<(), Ended> {
        let rolled = self.rolled(index);
        let next = rollback::undo(&self.replicas[index].state, &rolled);
        let next = next.map_err(|error| stopped(&error))?;
        self.coverage.hit(match rolled.phase {
            Phase::There => "rollback undone",
            _ => "rollback undone before it was there",
        });
        self.set_rolled(index, next);
        Ok(())
    }

    fn turn_rollback(&mut self, index: usize) -> Result<(), Ended> {
        let Some(target) = self.some_target(index)? else { return Ok(()) };
        let (set, rolled) = (self.set(index), self.rolled(index));
        let host = &self.replicas[index];
        let since = host.past.wall()();
        let turned = rollback::turn(&set, &host.state, &rolled, &target, since);
        drop(set); // it is opened once at a time
        match turned {
            Ok(next) => {
                self.trace(|| format!("replica {index} turns: {next:?}"));
                self.coverage.hit("rollback turned to another point");
                self.turned(index);
                Ok(())
            }
            Err(error) if error.is_refusal() => Ok(()),
            Err(error) => Err(stopped(&error)),
        }
    }

    /// A replica has started: whether its volumes are rolled back.
    pub(super) fn note_rollback(&mut self, index: usize) {
        let host = &mut self.replicas[index];
        let Some(rolled) = host.life.as_ref().and_then(ReplicaLife::rolled) else {
            host.way_back = None;
            return;
        };
        assert!(host.way_back.is_some(), "replica {index} is rolled back by itself: {rolled:?}");
        if rolled.phase == Phase::There {
            self.coverage.hit("rolled back: found so by a later life");
        }
        self.check_rolled(index, "after recovery");
    }

    /// I5: volumes that are rolled back hold the source's history at that point; those that came
    /// back hold what they held.
    fn check_rolled(&mut self, index: usize, when: &str) {
        let rolled = self.rolled(index);
        let host = &self.replicas[index];
        let (expected, what): (Images, _) = match rolled.phase {
            Phase::Going | Phase::Coming => return,
            Phase::Came => {
                let held = host.way_back.clone().expect("it was noted");
                (held, "came back from a rollback")
            }
            Phase::There => {
                let known = matches!(host.expected.get(&rolled.base), Some(Some(_)));
                if !known || host.spoiled || host.decayed {
                    return;
                }
                let expected = self.model.expected(id_of(index), rolled.wanted).clone();
                (expected, "rolled back: the history at that point")
            }
        };
        let found = self.replicas[index].images();
        let places = self.untainted(index, &found, &expected);
        assert!(
            places.is_empty(),
            "I5: replica {index} {when} differs from what {rolled:?} says in {places:?}"
        );
        self.coverage.hit(what);
    }
}
