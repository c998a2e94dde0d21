//! What a drill does with the environment that it made for itself: look at its clones, and run a
//! check on them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vgship_base::ids::{Generation, Name};
use vgship_snapshot::overlay::Overlay;

use super::programs::{Programs, shell};
use super::{Environments, unknown};
use crate::api::ControlError;
use crate::pipeline::past::program::Ran;

/// An environment of one group, as it was made.
pub(in crate::pipeline) struct Rehearsal {
    /// Where the point stands by the source's clock. Unit: microseconds since 1970.
    pub(in crate::pipeline) clock: u64,
    /// The history that the point is of.
    pub(in crate::pipeline) generation: Option<Generation>,
    /// The clones, in the layout's order.
    pub(in crate::pipeline) clones: Vec<(Name, Arc<Overlay>)>,
}

impl Environments {
    /// The clones of the first group of an environment.
    pub(in crate::pipeline) fn rehearsal(&self, name: &Name) -> Result<Rehearsal, ControlError> {
        let state = self.state();
        let env = state.all.get(name).ok_or_else(|| unknown(name))?;
        let (part, facts) =
            env.parts.first().zip(env.facts.parts.first()).ok_or_else(|| unknown(name))?;
        let clones = part.names.iter().cloned().zip(part.clones.iter().cloned()).collect();
        Ok(Rehearsal { clock: facts.clock, generation: part.generation, clones })
    }

    /// Runs a shell command on an environment, with `point` in VGSHIP_POINT. It runs for at most so
    /// long, and what it leaves at work is killed.
    pub(in crate::pipeline) fn check(
        &self,
        name: &Name,
        command: &str,
        point: &str,
        most: Duration,
    ) -> Result<Ran, ControlError> {
        let shown = {
            let state = self.state();
            state.all.get(name).ok_or_else(|| unknown(name))?.as_shown()
        };
        let (socket, folder) = (self.home.nbd_socket(), self.path(name));
        let programs =
            Programs { name, socket: &socket, folder: &folder, stopping: &self.stopping };
        let mut shell = shell(command);
        shell.env("VGSHIP_POINT", point);
        let ran = programs.run(shell, "the check", &shown, most)?;
        // Nothing may read or write what is removed next.
        if ran.left_work() {
            tracing::warn!(environment = %name, "the check left processes at work; they were killed");
        }
        Ok(ran)
    }

    /// Whether the agent stops: whoever takes long gives up.
    pub(in crate::pipeline) fn are_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}
