//! `vgship snapshot`: kept images of a group.

use std::path::PathBuf;

use vgship_base::ids::Name;
use vgship_base::units::ByteLen;

use super::table::Table;
use super::{Context, marker, pause, set};
use crate::api::ControlError;
use crate::api::past::{
    ExportRequest, Exported, SnapshotChange, SnapshotOrder, SnapshotRequest, SnapshotRow, Snapshots,
};
use crate::api::sets::{SetSnapshotChange, SetSnapshotRequest};
use crate::history::spec::{At, GroupPoint};
use crate::home::Period;

/// Take, list, keep, delete and export snapshots
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take a snapshot of the whole group; prints its name and where it stands
    ///
    /// On the source it is put into the stream, and this returns when the replicas have taken it. On
    /// a replica it is taken of what is applied. With --set it is taken of all groups of a set, as a
    /// whole or not at all: vgship snapshot create --set S [NAME] [--quiesce]
    Create(Create),
    /// List a group's or a set's snapshots, oldest first
    List(Of),
    /// Delete a snapshot
    Delete(One),
    /// Keep a snapshot until it is unpinned
    Pin(One),
    /// Let a snapshot go when history has no room for it
    Unpin(One),
    /// Write a snapshot, or any point, to image files: one per LV, sparse
    Export(Export),
}

/// Take a snapshot
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Which group; with --set not given
    #[arg(value_name = "G", required_unless_present = "set")]
    group: Option<Name>,
    /// What it is called [default: by the time]
    #[arg(value_name = "NAME")]
    name: Option<Name>,
    /// Of all groups of this set
    #[arg(long, value_name = "S")]
    set: Option<Name>,
    /// On a source, and with --set: how long to wait for replicas [default: 30 s]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Period>,
    /// Make applications quiet with the groups' freeze and thaw commands; of a group only on its
    /// source
    #[arg(long)]
    quiesce: bool,
}

/// Of a group
#[derive(Debug, clap::Args)]
pub struct Of {
    /// Which group
    #[arg(value_name = "G", required_unless_present = "set")]
    group: Option<Name>,
    /// Which set
    #[arg(long, value_name = "S", conflicts_with = "group")]
    set: Option<Name>,
}

/// One snapshot
#[derive(Debug, clap::Args)]
pub struct One {
    /// Which snapshot
    #[arg(value_name = "G@NAME", required_unless_present = "set")]
    snapshot: Option<GroupPoint>,
    /// That of a set, on each of its groups
    #[arg(long, value_name = "S@NAME", conflicts_with = "snapshot")]
    set: Option<GroupPoint>,
}

/// Write a point to image files
///
/// On a blind replica they are veiled: whoever has the key makes plain ones with vgship unveil.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Which snapshot or point
    #[arg(value_name = "G@NAME|G@POINT")]
    from: GroupPoint,
    /// The folder, which is made, or is empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    match command {
        Command::Create(create) => run_create(create, context),
        Command::List(of) => run_list(of, context),
        Command::Delete(one) => change(one, SnapshotOrder::Delete, context),
        Command::Pin(one) => change(one, SnapshotOrder::Pin, context),
        Command::Unpin(one) => change(one, SnapshotOrder::Unpin, context),
        Command::Export(export) => run_export(&export, context),
    }
}

fn run_create(create: Create, context: &Context<'_>) -> Result<(), ControlError> {
    let Create { group, name, set, timeout, quiesce } = create;
    let (group, name) = match (set, group, name) {
        // With a set there is no group: the first word is the name.
        (Some(set), name, None) => return create_of_set(&set, name, timeout, quiesce, context),
        (None, Some(group), name) => (group, name),
        _ => return Err(ControlError::usage("give a group or --set, and at most one name")),
    };
    let request = SnapshotRequest { name: name.map(|name| name.to_string()), timeout, quiesce };
    let made = super::block_on(async { context.client().snapshot_create(&group, &request).await })?;
    context.output.result(&made, |it| {
        format!("{}@{} at {}{}", it.group, it.name, it.at, marker::followed(it))
    })
}

fn create_of_set(
    set: &Name,
    name: Option<Name>,
    timeout: Option<Period>,
    quiesce: bool,
    context: &Context<'_>,
) -> Result<(), ControlError> {
    let request = SetSnapshotRequest { name: name.map(|name| name.to_string()), timeout, quiesce };
    let client = context.client();
    let made = super::block_on(async { client.set_snapshot_create(set, &request).await })?;
    context.output.result(&made, set::made)
}

fn run_list(of: Of, context: &Context<'_>) -> Result<(), ControlError> {
    let client = context.client();
    match (of.group, of.set) {
        (Some(group), _) => {
            let all = super::block_on(async { client.snapshot_list(&group).await })?;
            context.output.result(&all, rendered)
        }
        (None, Some(set)) => {
            let all = super::block_on(async { client.set_snapshot_list(&set).await })?;
            context.output.result(&all, set::snapshots)
        }
        (None, None) => Err(ControlError::usage("give a group or --set")),
    }
}

fn change(one: One, order: SnapshotOrder, context: &Context<'_>) -> Result<(), ControlError> {
    let is_set = one.set.is_some();
    let Some(GroupPoint { group, at }) = one.snapshot.or(one.set) else {
        return Err(ControlError::usage("give a snapshot, or that of a set with --set"));
    };
    let At::Snapshot(name) = at else {
        return Err(ControlError::usage(format!("{at} is no snapshot's name")));
    };
    if is_set {
        let (client, request) = (context.client(), SetSnapshotChange { name, order });
        let done = super::block_on(async { client.set_snapshot_change(&group, &request).await })?;
        return context.output.result(&done, pause::rendered);
    }
    let request = SnapshotChange { name, order };
    let done = super::block_on(async { context.client().snapshot_change(&group, &request).await })?;
    context.output.result(&done, pause::rendered)
}

fn run_export(export: &Export, context: &Context<'_>) -> Result<(), ControlError> {
    // The agent has another working folder.
    let to = std::path::absolute(&export.to).map_err(ControlError::usage)?;
    let request = ExportRequest { from: export.from.to_string(), store: None, to };
    let done = super::block_on(async { context.client().export(&request).await })?;
    context.output.result(&done, exported)
}

fn exported(done: &Exported) -> String {
    let mut table = Table::new(["IMAGE", "BYTES", "WRITTEN"]);
    for file in &done.files {
        let (bytes, written) = (ByteLen(file.bytes), ByteLen(file.written_bytes));
        table.row([file.path.display().to_string(), bytes.to_string(), written.to_string()]);
    }
    format!("{table}group {} as it was at {} ({})", done.group, done.at, done.time)
}

/// How old something is, in a word.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} m", seconds / 60),
        6000..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn notes(row: &SnapshotRow) -> String {
    let mut notes: Vec<String> = [
        (row.pinned, "pinned"),
        (row.guards, "way back of the resync"),
        (row.quiesced, "quiesced"),
        (!row.complete, "not complete yet"),
    ]
    .into_iter()
    .filter(|(holds, _)| *holds)
    .map(|(_, note)| note.to_owned())
    .collect();
    notes.extend(row.replica.iter().map(|replica| format!("on {replica}")));
    notes.extend(row.users.iter().cloned());
    notes.join(", ")
}

fn rendered(all: &Snapshots) -> String {
    if all.snapshots.is_empty() {
        return format!("group {} has no snapshot yet", all.group);
    }
    let mut table = Table::new(["NAME", "AT", "TIME", "AGE", "TAKEN", "PRESERVED", "NOTES"]);
    for row in &all.snapshots {
        table.row([
            format!("{}@{}", all.group, row.name),
            row.at.clone(),
            row.time.clone(),
            age(row.age_seconds),
            row.origin.clone(),
            row.bytes.map_or_else(|| "-".to_owned(), |bytes| ByteLen(bytes).to_string()),
            notes(row),
        ]);
    }
    let needed = all
        .needed_bytes
        .map_or_else(String::new, |needed| format!(", of which {} are needed", ByteLen(needed)));
    format!("{table}stored: {}{needed}", ByteLen(all.stored_bytes))
}
