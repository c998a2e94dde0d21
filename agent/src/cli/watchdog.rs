//! The hidden command that an agent starts beside a freeze: it thaws when the agent does not.

use std::time::Duration;

use crate::api::ControlError;
use crate::quiesce::io::watch;

/// Thaw applications when the agent that froze them does not; started by an agent
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long they may be held. Unit: milliseconds
    #[arg(long)]
    hold_ms: u64,
    /// The shell command that thaws
    #[arg(long)]
    thaw: String,
}

pub(super) fn run(args: &Args) -> Result<(), ControlError> {
    watch(Duration::from_millis(args.hold_ms), &args.thaw).map_err(ControlError::failed)
}
