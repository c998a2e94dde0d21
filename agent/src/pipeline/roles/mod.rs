//! Who is the source: how a group's role goes from one side to the other, and comes back.

mod change;
mod control;
mod drill;
mod drill_book;
mod failback;
mod failover;
mod hook;
mod meeting;
mod places;
mod record;
mod switchover;

pub(super) use drill_book::{DrillBook, look_after as look_after_drills};
pub(super) use meeting::look_after;
pub(super) use record::Procedures;

use vgship_base::ids::{Generation, Name};

use crate::api::ControlError;
use crate::role::generation::is_meant;

/// Sees that the caller means the history that there is.
fn must_mean(group: &Name, generation: Generation, meant: &str) -> Result<(), ControlError> {
    if is_meant(generation, meant) {
        return Ok(());
    }
    let text = format!("group {group} is of generation {generation} by now, not {meant}");
    Err(ControlError::refused(text).hint("look at its state, and give this generation"))
}
