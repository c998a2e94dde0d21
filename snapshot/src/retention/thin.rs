//! What the rows of a grid say of each snapshot.

use std::collections::HashMap;

use vgship_base::ids::Seq;

use super::grid::Row;
use super::{Moment, Origin, Policy, Reason, Snapshot, micros};

/// Into how many slots a window is cut that is longer than the grid reaches. The journal can only
/// be trimmed to a snapshot, so some must last until they are as old as the window, or it would
/// grow for ever. It then reaches up to two slots further back than the window: with eight of them,
/// a quarter.
const WINDOW_SLOTS: u32 = 8;

impl Policy {
    /// The rows of the grid, and one more if they do not reach as far as the window.
    pub(super) fn rows(&self) -> Option<Vec<Row>> {
        let grid = self.grid.as_ref()?;
        let mut rows = grid.rows().to_vec();
        let coarsest = rows.last().map(|row| row.step).unwrap_or_default();
        if let Some(window) = self.window.filter(|window| *window > grid.reach()) {
            let step = coarsest.max(window / WINDOW_SLOTS);
            rows.push(Row { count: micros(window).div_ceil(micros(step)) + 1, step });
        }
        Some(rows)
    }
}

/// Why the rows want none of a snapshot, one answer for each; `None` where a row wants it.
///
/// The oldest of a slot is the first in the order of the stream, so that a source whose clock was
/// set back changes nothing about what was decided before. What a person made fills no slot: it may
/// go any moment.
pub(super) fn unwanted(rows: &[Row], snapshots: &[Snapshot], now: Moment) -> Vec<Option<Reason>> {
    let mut reasons = vec![Some(Reason::BeyondGrid); snapshots.len()];
    for row in rows {
        let oldest = row.slot(now).saturating_sub(row.count.saturating_sub(1));
        let mut first: HashMap<u64, Seq> = HashMap::new();
        for (snapshot, reason) in snapshots.iter().zip(&mut reasons) {
            let slot = row.slot(snapshot.clock);
            if slot < oldest || snapshot.origin == Origin::Manual {
                continue;
            }
            let kept = *first.entry(slot).or_insert(snapshot.seq);
            if kept == snapshot.seq {
                *reason = None;
            } else if *reason == Some(Reason::BeyondGrid) {
                *reason = Some(Reason::Thinned { kept, step: row.step });
            }
        }
    }
    reasons
}
