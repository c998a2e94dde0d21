//! `vgship key`: the data keys of groups, and the key that wraps them.

use std::path::PathBuf;

use vgship_base::ids::Name;
use vgship_base::io::Clock;

use super::Context;
use super::table::Table;
use crate::api::ControlError;
use crate::api::keys::{
    EndRequest, Ended, EscrowRequest, Escrowed, KeyRow, Kind, Need, NewKey, RewrapRequest,
    Rewrapped, Ring, Rings, Rotated, To, VeilRow, Which,
};
use crate::home::{GroupConfig, LockedHome};
use crate::keys::needs::scan;
use crate::keys::report::{may_end, ring_of};
use crate::keys::{self, escrow, rewrap};

/// Make, list, retire and destroy data keys; wrap them anew
///
/// A group's journal, spill and preserved extents are sealed with its data keys, of which one is
/// current. They are wrapped by the agent's key: the file "key", or what key_command prints. Keys of
/// templates: vgship template key. A group with blind replicas has a veil key besides, which is never
/// exchanged.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new data key for a group, or for all: what is new is sealed with it
    Rotate(Rotate),
    /// List data keys, and what still needs each
    List(List),
    /// Destroy a data key that nothing needs any more; refused while something does
    Retire(Retire),
    /// Destroy a data key with what it seals, which then nobody can read again
    Destroy(Destroy),
    /// Wrap all data keys by a new key of the agent
    Rewrap(Rewrap),
    /// Write the veil key of a group to a file that is kept elsewhere
    Escrow(Escrow),
}

/// Make a new data key
///
/// Nothing stops for it, and what was sealed before stays readable. The veil key of a group with blind
/// replicas stays what it is.
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// Which group [default: all]
    #[arg(value_name = "G")]
    group: Option<Name>,
}

/// List data keys
#[derive(Debug, clap::Args)]
pub struct List {
    /// Which group [default: all]
    #[arg(value_name = "G")]
    group: Option<Name>,
}

/// Destroy a data key that nothing needs
///
/// It is overwritten and removed. Refused, with what needs it, while something does.
#[derive(Debug, clap::Args)]
pub struct Retire {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// Which key: its id, or the beginning of it
    #[arg(value_name = "KEY")]
    key: String,
}

/// Destroy a data key with what it seals
///
/// Refused unless every kind that needs the key is named. Never lost are records that a replica has
/// not got or not applied yet.
#[derive(Debug, clap::Args)]
pub struct Destroy {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// Which key: its id, or the beginning of it
    #[arg(value_name = "KEY")]
    key: String,
    /// What may be lost with it for good
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', required = true)]
    i_lose: Vec<Kind>,
}

/// Wrap all data keys by a new key of the agent
///
/// Without options it makes a new key file, in one go; the former one is kept beside it. To a command,
/// or back, it takes two: first everything opens with both keys; when config.toml says so, --finish
/// takes away what the former key opens. What was interrupted is repeated.
#[derive(Debug, clap::Args)]
pub struct Rewrap {
    /// The new key is what this command prints
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["to_file", "finish"])]
    to_command: Option<String>,
    /// The new key is the key file; so far it came from a command
    #[arg(long, conflicts_with = "finish")]
    to_file: bool,
    /// The new key is in place: take away what others open
    #[arg(long)]
    finish: bool,
    /// Also the keys of this store of templates; may be given several times
    #[arg(long, value_name = "URL")]
    store: Vec<String>,
}

/// Write the veil key of a group to a file that is kept elsewhere
///
/// Without it nobody can read what blind replicas hold once the source is lost. The file holds the
/// veil key, wrapped, and the group's volumes with their sizes; it opens with the key that wrapped it
/// and with no other: the agent's own, or that of KEYFILE, which is 64 hexadecimal digits (openssl rand
/// -hex 32). Keep file and key apart from each other and away from this machine. Read what a blind
/// replica holds with: vgship unveil
#[derive(Debug, clap::Args)]
pub struct Escrow {
    /// Which group; its source is here
    #[arg(value_name = "G")]
    group: Name,
    /// The file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The key that opens it [default: the agent's]
    #[arg(long, value_name = "KEYFILE")]
    key_file: Option<PathBuf>,
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    match command {
        Command::Rotate(Rotate { group }) => rotate(group.as_ref(), context),
        Command::List(List { group }) => list(group.as_ref(), context),
        Command::Retire(Retire { group, key }) => {
            end(&group, &EndRequest { key, lose: None }, context)
        }
        Command::Destroy(Destroy { group, key, i_lose }) => {
            end(&group, &EndRequest { key, lose: Some(i_lose) }, context)
        }
        Command::Rewrap(args) => run_rewrap(args, context),
        Command::Escrow(args) => run_escrow(&args, context),
    }
}

fn which(group: Option<&Name>) -> Which {
    Which { group: group.map(Name::to_string) }
}

fn chosen(home: &LockedHome, group: Option<&Name>) -> Result<Vec<GroupConfig>, ControlError> {
    match group {
        Some(name) => Ok(vec![home.load_group(name)?]),
        None => Ok(home.load_groups()?),
    }
}

fn rotate(group: Option<&Name>, context: &Context<'_>) -> Result<(), ControlError> {
    let request = which(group);
    let made = context.by_agent_or_alone(
        async |client| client.key_rotate(&request).await,
        |home| {
            let new = |config: GroupConfig| {
                let key = keys::rotate(home, &home.group(&config.name), config.id, None);
                let key = key.map_err(|it| it.told())?.id().to_string();
                Ok(NewKey { group: Some(config.name.to_string()), store: None, key })
            };
            let made: Result<_, ControlError> = chosen(home, group)?.into_iter().map(new).collect();
            Ok(Rotated { keys: made? })
        },
    )?;
    context.output.result(&made, rotated)
}

/// A rotation in words.
pub(super) fn rotated(made: &Rotated) -> String {
    let line = |it: &NewKey| {
        let of = it.group.as_ref().map_or("the store".to_owned(), |it| format!("group {it}"));
        format!("{of}: what is new is sealed with key {}", it.key)
    };
    match made.keys.is_empty() {
        true => "there is no group".to_owned(),
        false => made.keys.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

fn list(group: Option<&Name>, context: &Context<'_>) -> Result<(), ControlError> {
    let request = which(group);
    let rings = context.by_agent_or_alone(
        async |client| client.key_list(&request).await,
        |home| {
            let ring = |config: GroupConfig| -> Result<Ring, ControlError> {
                let group = home.group(&config.name);
                let known = keys::list(&group, config.id).map_err(|it| it.told())?;
                let veil = keys::known_veil(&group, config.id).map_err(|it| it.told())?;
                let needs = scan(&group).map_err(|it| it.told())?;
                let now = Clock::start().wall();
                Ok(ring_of(config.name.as_str(), (&known, veil.as_ref()), &needs, now))
            };
            let rings: Result<_, _> = chosen(home, group)?.into_iter().map(ring).collect();
            Ok(Rings { rings: rings? })
        },
    )?;
    context.output.result(&rings, listed)
}

/// Keys in a table.
pub(super) fn listed(rings: &Rings) -> String {
    let mut table = Table::new(["OF", "KEY", "STATE", "MADE", "WRAPPED BY", "NEEDED BY"]);
    for ring in &rings.rings {
        let of = ring.group.clone().or_else(|| ring.store.clone()).unwrap_or_default();
        for key in &ring.keys {
            let state = match &key.ended {
                Some(time) => format!("{} {time}", key.state.as_str()),
                None => key.state.as_str().to_owned(),
            };
            let wrapped = match key.wrapped_by.is_empty() {
                true => "-".to_owned(),
                false => key.wrapped_by.join(", "),
            };
            table.row([of.clone(), key.id.clone(), state, key.made.clone(), wrapped, needed(key)]);
        }
        if let Some(veil) = &ring.veil {
            let (id, made) = (veil.id.clone(), veil.made.clone());
            table.row([of, id, "veil".into(), made, veil.wrapped_by.join(", "), escrowed(veil)]);
        }
    }
    table.to_string()
}

fn escrowed(veil: &VeilRow) -> String {
    let escrow = match &veil.escrowed {
        Some(time) => format!("escrow of {time}"),
        None => "NO ESCROW YET: vgship key escrow".to_owned(),
    };
    format!("blind replicas; {escrow}")
}

fn needed(key: &KeyRow) -> String {
    match key.needs.is_empty() {
        true => "-".to_owned(),
        false => key.needs.iter().map(Need::text).collect::<Vec<_>>().join("; "),
    }
}

fn end(group: &Name, request: &EndRequest, context: &Context<'_>) -> Result<(), ControlError> {
    let ended = context.by_agent_or_alone(
        async |client| client.key_end(group, request).await,
        |home| end_alone(home, group, request),
    )?;
    context.output.result(&ended, ended_text)
}

/// A key's end in words.
pub(super) fn ended_text(ended: &Ended) -> String {
    let lost: Vec<String> = ended.lost.iter().map(Need::text).collect();
    let lost = match lost.is_empty() {
        true => "nothing needed it".to_owned(),
        false => format!("nobody can read again: {}", lost.join("; ")),
    };
    format!("key {} is destroyed; {lost}", ended.key)
}

/// Without an agent nobody can give up history, so only a key goes that nothing needs.
fn end_alone(home: &LockedHome, name: &Name, request: &EndRequest) -> Result<Ended, ControlError> {
    let (config, group) = (home.load_group(name)?, home.group(name));
    let key = keys::find_old(&group, config.id, &request.key).map_err(|it| it.told())?;
    let mut needs = scan(&group).map_err(|it| it.told())?.remove(&key).unwrap_or_default();
    // A spill does not outlive its agent.
    needs.retain(|it| it.kind != Kind::Spill);
    may_end(key, &needs, request.lose.as_deref())?;
    if !needs.is_empty() {
        return Err(ControlError::refused("history is given up by the running agent alone")
            .hint(format!("start it and try again: {} agent", home.command())));
    }
    keys::destroy(&group, config.id, key, None).map_err(|it| it.told())?;
    let (group, store) = (Some(name.to_string()), None);
    Ok(Ended { group, store, key: key.to_string(), lost: Vec::new() })
}

fn run_rewrap(args: Rewrap, context: &Context<'_>) -> Result<(), ControlError> {
    let Rewrap { to_command, to_file, finish, store } = args;
    let to = match to_command {
        Some(command) => To::Command(command),
        None if to_file => To::File,
        None if finish => To::Finish,
        None => To::NewFile,
    };
    // The agent has another working folder.
    let stores = store.iter().map(|it| super::template::absolute(it)).collect::<Result<_, _>>()?;
    let request = RewrapRequest { to, stores };
    let done = context.by_agent_or_alone(
        async |client| client.key_rewrap(&request).await,
        |home| rewrap::rewrap(home, &request),
    )?;
    context.output.result(&done, |done: &Rewrapped| {
        let mut lines = vec![format!(
            "{} data keys are wrapped by {}, {} wrapped keys of others were removed",
            done.wrapped, done.to, done.removed
        )];
        if let Some(former) = &done.former {
            lines.push(format!(
                "The former key is kept in {}: for stores of templates that were not named, and \
                 for backups. Remove it when nobody needs it.\nKeep a copy of the new key apart \
                 from the data.",
                former.display()
            ));
        }
        lines.extend(done.next.iter().map(|next| format!("next: {next}")));
        lines.join("\n")
    })
}

fn run_escrow(args: &Escrow, context: &Context<'_>) -> Result<(), ControlError> {
    // The agent has another working folder.
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(ControlError::usage);
    let (to, key_file) = (absolute(&args.to)?, args.key_file.as_ref().map(absolute).transpose()?);
    let request = EscrowRequest { to, key_file };
    let done = context.by_agent_or_alone(
        async |client| client.key_escrow(&args.group, &request).await,
        |home| escrow::escrow(home, &home.load_group(&args.group)?, &request),
    )?;
    context.output.result(&done, |done: &Escrowed| {
        format!(
            "{} holds the veil key {} of group {} and opens with key {}\nKeep both away from this \
             machine and apart from each other; try them: vgship unveil",
            done.path.display(),
            done.key,
            done.group,
            done.opens_with
        )
    })
}
