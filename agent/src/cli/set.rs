//! `vgship set`: groups whose snapshots are taken as one.

use std::fmt::Write as _;

use vgship_base::ids::Name;

use super::table::Table;
use super::{Context, pause, snapshot};
use crate::api::ControlError;
use crate::api::sets::{
    PartRow, SetChange, SetDetails, SetSnapshotRow, SetSnapshots, SetSpec, SetsList,
};
use crate::home::Period;
use crate::sets::config::MemberName;

/// Name groups of several agents whose snapshots are taken as one
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a set of groups that this agent has, as their source or as a replica of it
    ///
    /// A snapshot is then taken with vgship snapshot create --set S [NAME] [--quiesce]. For
    /// --quiesce the source of each group must allow it: vgship group set G --replica-quiesce allow
    Create(Create),
    /// List the sets of this agent
    List,
    /// Show a set: its groups, where they are, its snapshots
    Show(Of),
    /// Make groups members of a set
    Add(Change),
    /// Make groups members no more; snapshots of earlier keep them
    Remove(Change),
    /// Delete a set that has no snapshots; its groups stay
    Delete(Of),
}

/// Make a set
#[derive(Debug, clap::Args)]
pub struct Create {
    /// What it is called
    #[arg(value_name = "S")]
    set: Name,
    /// A group of it; once for each
    #[arg(long = "member", value_name = "G", required = true)]
    members: Vec<Name>,
    /// How long applications of all may be held, from 100 ms to 10 m [default: 5 s]
    #[arg(long, value_name = "DURATION")]
    hold: Option<Period>,
    /// A shell command that makes applications quiet before the groups' own do; it runs here
    #[arg(long, value_name = "COMMAND", default_value = "", hide_default_value = true)]
    freeze: String,
    /// The shell command that lets them go on, behind the groups' own
    #[arg(long, value_name = "COMMAND", default_value = "", hide_default_value = true)]
    thaw: String,
}

/// One set
#[derive(Debug, clap::Args)]
pub struct Of {
    /// Which set
    #[arg(value_name = "S")]
    set: Name,
}

/// Change a set
#[derive(Debug, clap::Args)]
pub struct Change {
    /// Which set
    #[arg(value_name = "S")]
    set: Name,
    /// Which groups
    #[arg(value_name = "G", required = true)]
    groups: Vec<Name>,
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    let client = context.client();
    match command {
        Command::Create(Create { set, members, hold, freeze, thaw }) => {
            let members = members.into_iter().map(MemberName).collect();
            let spec = SetSpec { name: set, members, hold, freeze, thaw };
            let made = super::block_on(async { client.set_create(&spec).await })?;
            context.output.result(&made, shown)
        }
        Command::List => {
            let all = super::block_on(async { client.set_list().await })?;
            context.output.result(&all, listed)
        }
        Command::Show(Of { set }) => {
            let found = super::block_on(async { client.set_show(&set).await })?;
            context.output.result(&found, shown)
        }
        Command::Add(Change { set, groups }) => {
            let add = groups.into_iter().map(MemberName).collect();
            change(&set, &SetChange { add, ..SetChange::default() }, context)
        }
        Command::Remove(Change { set, groups }) => {
            let remove = groups.into_iter().map(MemberName).collect();
            change(&set, &SetChange { remove, ..SetChange::default() }, context)
        }
        Command::Delete(Of { set }) => {
            let done = super::block_on(async { client.set_delete(&set).await })?;
            context.output.result(&done, pause::rendered)
        }
    }
}

fn change(set: &Name, change: &SetChange, context: &Context<'_>) -> Result<(), ControlError> {
    let now = super::block_on(async { context.client().set_change(set, change).await })?;
    context.output.result(&now, shown)
}

fn listed(all: &SetsList) -> String {
    if all.sets.is_empty() {
        return "this agent has no sets".to_owned();
    }
    let mut table = Table::new(["SET", "GROUPS", "SNAPSHOTS"]);
    for set in &all.sets {
        table.row([set.name.clone(), set.members.join(", "), set.snapshots.to_string()]);
    }
    table.to_string().trim_end().to_owned()
}

fn shown(set: &SetDetails) -> String {
    let mut table = Table::new(["GROUP", "HERE", "PEERS", "LINK"]);
    for member in &set.members {
        let link = if member.connected { "stands" } else { "none" };
        let peers = member.peers.join(", ");
        table.row([member.group.clone(), member.role.clone(), peers, link.to_owned()]);
    }
    let mut text = format!("set {}\n{table}held at most {}", set.name, set.hold);
    if !set.freeze.is_empty() {
        let _ = write!(text, "\nquiesced by: {}\ngoes on by: {}", set.freeze, set.thaw);
    }
    if !set.snapshots.is_empty() {
        let _ = write!(text, "\n{}", table_of(&set.snapshots));
    }
    text
}

/// A set's snapshots.
pub(super) fn snapshots(all: &SetSnapshots) -> String {
    match all.snapshots.is_empty() {
        true => format!("set {} has no snapshot yet", all.set),
        false => table_of(&all.snapshots),
    }
}

fn table_of(all: &[SetSnapshotRow]) -> String {
    let mut table = Table::new(["NAME", "TIME", "AGE", "SPREAD", "GROUPS", "NOTES"]);
    for row in all {
        let place = |part: &PartRow| {
            let at = part.at.as_deref().unwrap_or("-");
            format!("{} at {at}", part.group)
        };
        table.row([
            format!("{}@{}", row.set, row.name),
            row.time.clone(),
            snapshot::age(row.age_seconds),
            row.spread_ms.map_or_else(|| "-".to_owned(), |spread| format!("{spread} ms")),
            row.members.iter().map(place).collect::<Vec<_>>().join(", "),
            notes(row),
        ]);
    }
    table.to_string().trim_end().to_owned()
}

fn notes(row: &SetSnapshotRow) -> String {
    let mut notes = Vec::new();
    if row.state != "made" {
        notes.push(row.state.replace('-', " "));
    } else if row.one_instant {
        notes.push("quiesced".to_owned());
    } else {
        notes.push("not one instant".to_owned());
    }
    let missing = row.members.iter().filter(|it| it.kept == Some(false) && row.state == "made");
    notes.extend(missing.map(|part| format!("gone from {}", part.group)));
    notes.join(", ")
}

/// A snapshot that was made.
pub(super) fn made(row: &SetSnapshotRow) -> String {
    let mut table = Table::new(["GROUP", "SNAPSHOT", "AT", "HELD"]);
    for part in &row.members {
        table.row([
            part.group.clone(),
            part.snapshot.clone(),
            part.at.clone().unwrap_or_default(),
            part.held_ms.map_or_else(|| "-".to_owned(), |held| format!("{held} ms")),
        ]);
    }
    let spread = row.spread_ms.unwrap_or_default();
    let end = match row.one_instant {
        true => "one instant: applications of all groups were frozen together".to_owned(),
        false => format!(
            "not one instant: its groups were marked within {spread} ms under running applications"
        ),
    };
    format!("{}@{}\n{table}{end}", row.set, row.name)
}
