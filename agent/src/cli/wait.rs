//! `vgship wait`: for scripts that go on when a group has got somewhere.

use vgship_base::ids::Name;

use super::{Context, pause};
use crate::api::ControlError;
use crate::api::control::{WaitFor, WaitRequest};
use crate::home::Period;

/// Wait until a group has reached a state
///
/// Exit code 4 when the time is over.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// What to wait for; durable and applied: all that was written before this command
    #[arg(long = "for", value_name = "STATE")]
    what: WaitFor,
    /// How long at most; without it, for ever
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Period>,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let request = WaitRequest { what: args.what, timeout: args.timeout };
    let done = super::block_on(async { context.client().wait(&args.group, request).await })?;
    context.output.result(&done, pause::rendered)
}
