//! `vgship pause` and `vgship resume`.

use vgship_base::ids::Name;

use super::Context;
use crate::api::ControlError;
use crate::api::control::Done;

/// Which group
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
}

pub(super) fn pause(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let done = super::block_on(async { context.client().pause(&args.group).await })?;
    context.output.result(&done, rendered)
}

pub(super) fn resume(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let done = super::block_on(async { context.client().resume(&args.group).await })?;
    context.output.result(&done, rendered)
}

pub(super) fn rendered(done: &Done) -> String {
    format!("group {}: {}", done.group, done.done)
}
