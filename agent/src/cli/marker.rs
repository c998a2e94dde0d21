//! `vgship marker`: a named point in the stream.

use vgship_base::ids::Name;

use super::Context;
use crate::api::ControlError;
use crate::api::past::{Marked, MarkerRequest};

/// Put a named marker into a group's stream
///
/// Returns when the replicas have followed it; points are then found by marker:NAME.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// What the marker is called
    #[arg(value_name = "NAME")]
    name: Name,
    /// Note that applications are quiet, by your own doing
    #[arg(long)]
    quiesced: bool,
    /// Make applications quiet with the group's freeze and thaw commands
    #[arg(long, conflicts_with = "quiesced")]
    quiesce: bool,
}

pub(super) fn run(args: Args, context: &Context<'_>) -> Result<(), ControlError> {
    let Args { group, name, quiesced, quiesce } = args;
    let request = MarkerRequest { name, quiesced, quiesce };
    let marked = super::block_on(async { context.client().marker(&group, &request).await })?;
    context.output.result(&marked, |it| format!("marker:{} at {}{}", it.name, it.at, followed(it)))
}

/// Which replicas have followed, and how long applications were held for it.
pub(super) fn followed(marked: &Marked) -> String {
    let mut text = match marked.replicas.is_empty() {
        true => String::new(),
        false => format!(", followed by {}", marked.replicas.join(", ")),
    };
    if let Some(held) = marked.held_ms {
        text = format!("{text}; applications were held for {held} ms");
    }
    text
}
