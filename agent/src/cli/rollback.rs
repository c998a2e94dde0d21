//! `vgship rollback` and `vgship preview`: a replica's volumes taken back to a point.

use std::fmt::Write as _;

use vgship_base::ids::Name;
use vgship_base::units::ByteLen;

use super::table::Table;
use super::{Context, roles};
use crate::api::ControlError;
use crate::api::past::{RollbackRequest, RolledBack};
use crate::history::spec::At;

/// Take a replica's LVs back to a point, or forward again
///
/// The stream goes on into the journal meanwhile; nothing of it is lost and nothing applied. A
/// snapshot of where the LVs stood is taken before; --undo takes them back to it, and all that has
/// come since is applied.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// Which snapshot or point
    #[arg(long, value_name = "NAME|POINT", required_unless_present = "undo")]
    to: Option<At>,
    /// Take the LVs to where they stood, and follow the source again
    #[arg(long, conflicts_with = "to")]
    undo: bool,
    /// The group's generation, or its beginning, as vgship status shows it
    #[arg(long, value_name = "GEN")]
    generation: String,
}

/// Show what a command would overwrite, and do nothing
#[derive(Debug, clap::Subcommand)]
pub enum Preview {
    /// What of each LV a rollback may write
    Rollback(PreviewRollback),
    /// What a failback here would give up
    Failback(roles::PreviewFailback),
}

/// What a rollback may write
#[derive(Debug, clap::Args)]
pub struct PreviewRollback {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// Which snapshot or point
    #[arg(long, value_name = "NAME|POINT")]
    to: At,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let Args { group, to, undo, generation } = args;
    let to = to.as_ref().map(ToString::to_string);
    let request = RollbackRequest { to, generation: Some(generation.clone()) };
    let done = super::block_on(async { context.client().rollback(group, &request).await })?;
    context.output.result(&done, |it| match undo {
        true => format!("the LVs of {} hold {} again, and the stream goes on", it.group, it.at),
        false => rolled(it),
    })
}

pub(super) fn preview(command: &Preview, context: &Context<'_>) -> Result<(), ControlError> {
    let PreviewRollback { group, to } = match command {
        Preview::Rollback(args) => args,
        Preview::Failback(args) => return roles::preview(args, context),
    };
    let request = RollbackRequest { to: Some(to.to_string()), generation: None };
    let told = super::block_on(async { context.client().rollback(group, &request).await })?;
    context.output.result(&told, |it| {
        format!(
            "to take {} from {} back to {} ({}):\n{}",
            it.group,
            it.from,
            it.at,
            it.time,
            table(it)
        )
    })
}

fn rolled(done: &RolledBack) -> String {
    let mut text = table(done);
    let _ = write!(
        text,
        "the LVs of {} hold {} ({}) now; the stream goes on into the journal\nback: vgship rollback \
         {} --undo --generation {}",
        done.group,
        done.at,
        done.time,
        done.group,
        done.generation.get(..8).unwrap_or(&done.generation)
    );
    text
}

fn table(done: &RolledBack) -> String {
    let mut table = Table::new(["LV", "SIZE", "DIFFERS AT MOST"]);
    for volume in &done.volumes {
        let (size, changed) = (ByteLen(volume.bytes), ByteLen(volume.changed_bytes));
        table.row([volume.name.clone(), size.to_string(), changed.to_string()]);
    }
    table.to_string()
}
