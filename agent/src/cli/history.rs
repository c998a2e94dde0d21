//! `vgship history`: the window of points.

use std::fmt::Write as _;

use vgship_base::ids::Name;
use vgship_base::units::ByteLen;

use super::Context;
use super::snapshot::age;
use super::table::Table;
use crate::api::ControlError;
use crate::api::past::{History, PointRow};

/// Show the window of points: oldest, newest, snapshots, markers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let history = super::block_on(async { context.client().history(&args.group).await })?;
    context.output.result(&history, rendered)
}

fn rendered(history: &History) -> String {
    let mut text = String::new();
    let any = match (&history.oldest, &history.newest) {
        (Some(oldest), Some(newest)) => format!(
            "any point from {} ({}) to {} ({}) can be opened",
            oldest.at, oldest.time, newest.at, newest.time
        ),
        _ => "no point can be opened yet: there is no snapshot".to_owned(),
    };
    let _ = writeln!(text, "group {}: {any}", history.group);
    if history.inside_resync {
        text.push_str("the newest lies inside a resync and is no consistent point\n");
    }
    if let Some(short) = &history.short {
        let _ = writeln!(text, "short: {short}");
    }
    let mut points: Vec<&PointRow> = history.snapshots.iter().chain(&history.markers).collect();
    points.sort_by_key(|point| point.seq);
    points.extend(&history.newest);
    let mut table = Table::new(["POINT", "AT", "TIME", "AGO", "RECORDS AGO"]);
    for point in points {
        let records = point.records_ago.map_or_else(|| "-".to_owned(), |it| it.to_string());
        table.row([
            point.name.clone(),
            point.at.clone(),
            point.time.clone(),
            age(point.seconds_ago),
            records,
        ]);
    }
    let (preserved, journal) = (ByteLen(history.preserved_bytes), ByteLen(history.journal_bytes));
    let _ = write!(
        text,
        "{table}window {}, budget {}, snapshots {}; preserved {preserved}, journal {journal}",
        history.window, history.budget, history.schedule
    );
    text
}
