//! Rolling a replica's volumes back, as commands ask for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vgship_base::extent::BitSet;
use vgship_base::layout::Layout;
use vgship_base::record::Record;

use super::points::{Found, roll_error, snapshot_error, stopped};
use crate::api::ControlError;
use crate::api::past::{RolledBack, RolledVolume};
use crate::apply::rollback::{RollbackError, Target};
use crate::apply::rolled::{Phase, Rolled};
use crate::history::roll::{self, point_of};
use crate::history::spec::{At, rfc3339};
use crate::pipeline::replica::ReplicaGroup;
use crate::receive::admit::Point;
use crate::receive::io::{Hold, View};
use crate::role::generation::is_meant;

/// How often it is looked how far the volumes are.
const LOOK: Duration = Duration::from_millis(20);

impl ReplicaGroup {
    /// What a rollback to a point would overwrite.
    pub(in crate::pipeline) fn preview_rollback(
        &self,
        at: &At,
    ) -> Result<RolledBack, ControlError> {
        let found = self.find_point(at)?;
        let (point, volumes, _) = self.survey(&found)?;
        let view = self.look_at().map_err(ControlError::failed)?;
        Ok(self.told(&view, &point, volumes))
    }

    /// Takes the volumes back to a point; returns when they hold it.
    pub(in crate::pipeline) fn roll_back(
        &self,
        at: &At,
        generation: &str,
    ) -> Result<RolledBack, ControlError> {
        let view = self.of_generation(generation)?;
        let found = self.find_point(at)?;
        // Whether it is a consistent point at all is known before anything is touched.
        let (point, volumes, _hold) = self.survey(&found)?;
        let target = Target { base: found.base.seq, point };
        let begun = self.desk()?.roll_back(target).map_err(stopped)?;
        begun.map_err(|it| rollback_error(&it))?;
        tracing::warn!(group = %self.config.name, to = %point.seq, "a rollback was asked for");
        self.until(|rolled| rolled.is_some_and(|it| it.phase == Phase::There))?;
        Ok(self.told(&view, &point, volumes))
    }

    /// Takes the volumes to where they stood; returns when the replica follows its source again.
    pub(super) fn roll_forward(&self, generation: &str) -> Result<RolledBack, ControlError> {
        let view = self.of_generation(generation)?;
        if view.rolled.is_none() {
            return Err(rollback_error(&RollbackError::NotRolled));
        }
        let begun = self.desk()?.undo().map_err(stopped)?;
        begun.map_err(|it| rollback_error(&it))?;
        tracing::warn!(group = %self.config.name, "the way back from a rollback was asked for");
        self.until(|rolled| rolled.is_none())?;
        Ok(self.told(&view, &view.applied, Vec::new()))
    }

    /// Sees that the caller means the history that there is.
    fn of_generation(&self, meant: &str) -> Result<View, ControlError> {
        let view = self.look_at().map_err(ControlError::failed)?;
        let name = &self.config.name;
        let Some(generation) = view.durable.generation else {
            return Err(ControlError::refused(format!("group {name} has received nothing yet")));
        };
        if is_meant(generation, meant) {
            return Ok(view);
        }
        let text = format!("group {name} is of generation {generation} by now, not {meant}");
        Err(ControlError::refused(text).hint("look at its state, and give this generation"))
    }

    /// The point that was found, and how much of each volume may be written on the way there; and
    /// what keeps the records that are needed for it.
    fn survey(
        &self,
        found: &Found,
    ) -> Result<(Point, Vec<RolledVolume>, Option<Hold>), ControlError> {
        let set = self.snapshots().map_err(ControlError::failed)?;
        let layout = &found.layout;
        let mut changed = set.changed_since(found.base.seq).map_err(|it| snapshot_error(&it))?;
        let from = point_of(&found.base);
        let (mut point, mut kept) = (from, None);
        if found.wanted > from.seq {
            let (records, hold) = self.records(from.seq)?;
            kept = Some(hold);
            let add = |record: &Record| add(&mut changed, layout, record);
            let reached = roll::survey(layout, from, found.wanted, records, add);
            point = reached.map_err(|it| roll_error(&it))?;
        }
        let volumes = layout.volumes.iter().zip(&changed).map(|(volume, changed)| RolledVolume {
            name: volume.name.to_string(),
            bytes: volume.bytes,
            changed_bytes: (changed.count() * layout.extent.bytes()).min(volume.bytes),
        });
        Ok((point, volumes.collect(), kept))
    }

    /// Waits until the volumes are where they are to be. The engine is opened anew meanwhile.
    fn until(&self, reached: impl Fn(Option<Rolled>) -> bool) -> Result<(), ControlError> {
        let name = &self.config.name;
        while !self.stopping.load(Ordering::SeqCst) {
            if let Ok(view) = self.look_at() {
                if let Some(fault) = view.fault {
                    let text = format!("the volumes of {name} cannot be written now: {fault}");
                    let hint = "it goes on by itself when that is mended; see vgship status";
                    return Err(ControlError::failed(text).hint(hint));
                }
                if let Some(why) = view.stuck {
                    let text = format!("the LVs of {name} cannot be taken there: {why}");
                    let hint = format!("take them back: vgship rollback {name} --undo");
                    return Err(ControlError::failed(text).hint(hint));
                }
                if !view.turned && reached(view.rolled) {
                    return Ok(());
                }
            }
            std::thread::sleep(LOOK);
        }
        Err(ControlError::failed("the agent is being stopped; this goes on when it starts again"))
    }

    fn told(&self, view: &View, point: &Point, volumes: Vec<RolledVolume>) -> RolledBack {
        RolledBack {
            group: self.config.name.to_string(),
            generation: view.durable.generation.unwrap_or_default().to_string(),
            seq: point.seq.0,
            at: point.seq.to_string(),
            time: rfc3339(point.clock),
            from: view.applied.seq.to_string(),
            changed_bytes: volumes.iter().map(|it| it.changed_bytes).sum(),
            volumes,
        }
    }
}

/// Adds the extents that a record writes.
fn add(changed: &mut [BitSet], layout: &Arc<Layout>, record: &Record) {
    let Some((volume, span)) = record.changes() else { return };
    let (first, end) = layout.extent.touched(span);
    if let Some(set) = changed.get_mut(volume.index()) {
        set.insert_range(first, end.min(set.bits()));
    }
}

fn rollback_error(error: &RollbackError) -> ControlError {
    match error.is_refusal() {
        true => ControlError::refused(crate::capture::io::report(error)),
        false => ControlError::from_error(error),
    }
}
