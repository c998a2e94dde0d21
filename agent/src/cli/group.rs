//! `vgship group`: what is replicated.

use std::fmt::Write as _;
use vgship_base::ids::Name;

use super::table::Table;
use super::{Context, output};
use crate::api::ControlError;
use crate::api::control::{GroupSettings, GroupSummary, Groups, Removed, SetRequest};
use crate::home::{GroupSpec, HomeError, Period, SettingsChange, Size};

/// Add, change, list and remove replicated groups
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a group; this agent becomes its source
    ///
    /// Works through the running agent, which serves the group at once, or without one.
    Add(Add),
    /// Change how a group is replicated, while it runs
    ///
    /// What is not named stays. With --replica the mode is that of this replica alone.
    Set(Set),
    /// List the groups as they are configured
    List,
    /// Stop replicating a group; its volumes and what they hold stay as they are
    ///
    /// Its exports end, its peers' pairing for it is revoked, and its configuration and state are
    /// moved to the folder "removed". To replicate the volumes again, add and pair them anew: all
    /// is compared then. Works through the running agent or without one.
    Remove(Remove),
}

/// Add a group; this agent becomes its source
#[derive(Debug, clap::Args)]
pub struct Add {
    /// What this agent calls the group
    #[arg(value_name = "G")]
    name: Name,
    /// Which volumes: images:DIR, aix-disks:PATH[,PATH...], lvm2:VG or aix:VG
    #[arg(long, value_name = "SPEC")]
    volumes: String,
    /// Unit of dirty tracking: a power of two from 4 KiB to 1 MiB [default: 64 KiB]
    #[arg(long, value_name = "SIZE")]
    extent: Option<Size>,
    /// Memory of the outbox [default: 64 MiB]
    #[arg(long, value_name = "SIZE")]
    outbox_ram: Option<Size>,
    /// Disk of the outbox, 0 for none [default: 1 GiB]
    #[arg(long, value_name = "SIZE")]
    spill: Option<Size>,
    /// How often an epoch ends [default: 1 s]
    #[arg(long, value_name = "DURATION")]
    epoch: Option<Period>,
    #[command(flatten)]
    policy: SettingsChange,
}

/// Change how a group is replicated, while it runs
///
/// What is not named stays. With --replica the mode is that of this replica alone.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// Which group
    #[arg(value_name = "G")]
    name: Name,
    /// The replica whose --mode is set: its name or id as in pair list
    #[arg(long, value_name = "PEER", requires = "mode")]
    replica: Option<String>,
    #[command(flatten)]
    policy: SettingsChange,
}

/// Stop replicating a group
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Which group
    #[arg(value_name = "G")]
    name: Name,
    /// Also while NBD clients are connected: they are cut off
    #[arg(long)]
    force: bool,
}

impl Add {
    fn spec(self) -> GroupSpec {
        let default = GroupSpec::new(self.name, self.volumes);
        let mut policy = default.policy.clone();
        self.policy.apply(&mut policy, None);
        GroupSpec {
            extent: self.extent.unwrap_or(default.extent),
            outbox_ram: self.outbox_ram.unwrap_or(default.outbox_ram),
            spill: self.spill.unwrap_or(default.spill),
            epoch: self.epoch.unwrap_or(default.epoch),
            policy,
            ..default
        }
    }
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    match command {
        Command::Add(add) => run_add(add.spec(), context),
        Command::Set(set) => run_set(set, context),
        Command::Remove(remove) => run_remove(&remove, context),
        Command::List => {
            context.home.load_config()?;
            let groups = context.home.load_groups()?.iter().map(GroupSummary::from).collect();
            context.output.result(&Groups { groups }, rendered)
        }
    }
}

fn run_add(mut spec: GroupSpec, context: &Context<'_>) -> Result<(), ControlError> {
    spec.volumes = context.parts.resolve_volumes(&spec.volumes)?;
    spec.check().map_err(in_argument)?;
    let by_agent = async |client: crate::api::Client| {
        client.group_add(&spec).await.map(|group| (group, "it is served now".to_owned()))
    };
    let alone = |home: &crate::home::LockedHome| {
        let volumes = context.parts.check_volumes(&spec.volumes, spec.extent_size()?, None)?;
        let group = home.add_group(spec.clone())?;
        let when = format!("{}; it will be served when the agent runs", output::volumes(&volumes));
        Ok((GroupSummary::from(&group), when))
    };
    let (group, when) = context.by_agent_or_alone(by_agent, alone)?;
    let invite =
        format!("{} pair invite --group {} --role replica", context.home.command(), group.name);
    context.output.result(&group, |group| {
        format!("group {} is added: {when}\nInvite a replica with: {invite}", group.name)
    })
}

fn run_set(set: Set, context: &Context<'_>) -> Result<(), ControlError> {
    let Set { name, replica, policy: change } = set;
    if change.is_empty() {
        return Err(ControlError::usage("nothing is to be changed")
            .hint("see what can be with: vgship group set --help"));
    }
    let request = SetRequest { replica, change };
    let by_agent = async |client: crate::api::Client| client.group_set(&name, &request).await;
    let alone = |home: &crate::home::LockedHome| {
        let mut config = home.load_group(&name)?;
        request.apply(&mut config, &context.parts.pair_list(home)?)?;
        home.save_group(&config)?;
        Ok(GroupSettings { group: name.to_string(), policy: config.policy })
    };
    let set = context.by_agent_or_alone(by_agent, alone)?;
    context.output.result(&set, settings)
}

fn settings(set: &GroupSettings) -> String {
    let GroupSettings { group, policy } = set;
    let mut text = format!(
        "group {group}: mode {}, sync timeout {} then {}, when the outbox is full {}, max lag {} then \
         {}, self-check {} a second\nas a replica: history {}, budget {}, snapshots {}",
        policy.mode.as_str(),
        policy.sync_timeout,
        policy.on_sync_timeout.as_str(),
        policy.on_overflow.as_str(),
        policy.max_lag,
        policy.on_lag.as_str(),
        policy.self_check,
        policy.history_window,
        policy.history_budget,
        policy.snapshots
    );
    if !policy.freeze.is_empty() {
        let (freeze, thaw, hold) = (&policy.freeze, &policy.thaw, policy.hold);
        let _ = write!(text, "\nquiesced by: {freeze}\ngoes on by: {thaw}\nheld at most {hold}");
    }
    for known in &policy.replica {
        let peer = known.peer.to_string();
        let _ = write!(text, "\nreplica {}: mode {}", &peer[..8], known.mode.as_str());
    }
    text
}

fn run_remove(remove: &Remove, context: &Context<'_>) -> Result<(), ControlError> {
    let by_agent =
        async |client: crate::api::Client| client.group_remove(&remove.name, remove.force).await;
    let alone = |home: &crate::home::LockedHome| context.parts.group_remove(home, &remove.name);
    let removed = context.by_agent_or_alone(by_agent, alone)?;
    context.output.result(&removed, gone)
}

fn gone(removed: &Removed) -> String {
    let Removed { group, volumes, kept, .. } = removed;
    let mut lines = vec![
        format!("group {group} is removed; its volumes {volumes} are as they were"),
        format!("Its configuration and state are in {kept}: delete them when nobody needs them"),
    ];
    if !removed.revoked.is_empty() {
        let peers = removed.revoked.join(", ");
        lines.push(format!("Revoked for it: {peers}. Remove the group there too, then pair anew"));
    }
    lines.join("\n")
}

/// A value that cannot be was an argument here, not a line of a file.
fn in_argument(error: HomeError) -> ControlError {
    match error {
        HomeError::Value { key, why, .. } => {
            ControlError::usage(format!("--{}: {why}", key.replace('_', "-")))
        }
        other => other.into(),
    }
}

fn rendered(groups: &Groups) -> String {
    if groups.groups.is_empty() {
        return "there is no group yet".to_owned();
    }
    let mut table = Table::new(["GROUP", "ROLE", "MODE", "PEER", "VOLUMES SPEC"]);
    for group in &groups.groups {
        let peer = group.peer.as_deref().map_or("-", |peer| peer.get(..8).unwrap_or(peer));
        table.row([
            group.name.clone(),
            group.role.as_str().to_owned(),
            group.mode.as_str().to_owned(),
            peer.to_owned(),
            group.volumes.clone(),
        ]);
    }
    table.to_string()
}
