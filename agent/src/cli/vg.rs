//! `vgship vg`: what could be replicated.

use std::path::PathBuf;

use super::Context;
use crate::api::ControlError;

/// Look at volume groups
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List volume groups, those that are excluded with the reason
    ///
    /// Shows those of this machine, and of the places named. rootvg is shown and always excluded.
    List {
        /// Further places: disks, disk images, or specs such as images:DIR
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    let Command::List { paths } = command;
    let found = context.parts.find_groups(&paths)?;
    context.output.result(&found.json, |_| found.text)
}
