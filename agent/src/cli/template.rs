//! `vgship template`: self-contained image sets in a folder or an object store.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use serde::Serialize;
use vgship_base::ids::Name;
use vgship_base::units::ByteLen;
use vgship_snapshot::template::{self, GRACE_DEFAULT, Progress, SharedObjects, Template, Verified};

use super::table::Table;
use super::{Context, output};
use crate::api::ControlError;
use crate::api::past::{TemplateAt, TemplateMade, TemplateRequest};
use crate::api::sets::{SetTemplateRequest, SetTemplates};
use crate::history::spec::{At, GroupPoint, rfc3339};
use crate::home::Period;
use crate::pipeline::stored_template_users;
use crate::templates::{
    confirm_keys, copy_keys, list_keys, open_store, open_template, store_error, template_error,
};

/// Make, list, prove, copy and delete templates
///
/// A store is a folder, or a bucket by its URL (s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, gs://BUCKET/PREFIX) with
/// credentials in the environment; without --store it is the folder "templates" of the home. Agents
/// with the same key file share the templates of a store.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a template of a snapshot or any point
    Create(Create),
    /// List the templates of a store
    List(Of),
    /// Show what a template holds
    Show(One),
    /// Show in what two templates differ
    Diff(Two),
    /// Prove every byte of a template from the hash of its root
    Verify(Verify),
    /// Copy a template to another store: what is missing there; goes on where it stopped
    Push(Copy),
    /// Copy a template from another store
    Pull(Copy),
    /// Delete a template; its room comes back by gc
    Delete(One),
    /// Remove what no template of a store needs
    Gc(Gc),
    /// The keys that seal the templates of a store
    #[command(subcommand)]
    Key(super::template_key::Command),
}

/// Make a template
///
/// That of a blind replica holds veiled volumes.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// What it is called
    #[arg(value_name = "T")]
    name: Name,
    /// Which snapshot or point
    #[arg(long, value_name = "G@NAME|G@POINT", required_unless_present = "set")]
    from: Option<GroupPoint>,
    /// Of all groups of a set's snapshot, as T.G for each group G: all or none
    #[arg(long, value_name = "S@NAME", conflicts_with = "from")]
    set: Option<GroupPoint>,
    #[command(flatten)]
    of: Of,
}

/// Of a store
#[derive(Debug, clap::Args)]
pub struct Of {
    /// Which store [default: the home's own]
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<String>,
}

/// One template
#[derive(Debug, clap::Args)]
pub struct One {
    /// Which template
    #[arg(value_name = "T")]
    name: Name,
    #[command(flatten)]
    of: Of,
}

/// Two templates of one store
#[derive(Debug, clap::Args)]
pub struct Two {
    /// The first
    #[arg(value_name = "T")]
    first: Name,
    /// The second
    #[arg(value_name = "T")]
    second: Name,
    #[command(flatten)]
    of: Of,
}

/// Prove a template
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    one: One,
    /// Without the key: only that all objects are whole
    #[arg(long)]
    blind: bool,
}

/// Copy a template between the home's own store and another
#[derive(Debug, clap::Args)]
pub struct Copy {
    /// Which template
    #[arg(value_name = "T")]
    name: Name,
    /// The other store
    #[arg(long, value_name = "URL")]
    store: String,
    /// It is there, and damaged: read all of it there and write anew what is not whole
    #[arg(long)]
    mend: bool,
}

/// Remove what no template needs
#[derive(Debug, clap::Args)]
pub struct Gc {
    #[command(flatten)]
    of: Of,
    /// After which silence a writer is taken for dead [default: 1 d]
    #[arg(long, value_name = "DURATION")]
    grace: Option<Period>,
}

#[derive(Debug, Serialize)]
struct Listed {
    templates: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// Null where it cannot be read.
    root: Option<String>,
    /// Null where the key is another.
    group: Option<String>,
    at: Option<String>,
    time: Option<String>,
    created: Option<String>,
    bytes: Option<u64>,
    volumes: Option<usize>,
    /// The key that it is sealed with; null where its root is damaged.
    key: Option<String>,
    /// Whether that key is current for the store.
    key_is_current: bool,
    /// Whether that key was destroyed: the template cannot be read again.
    key_is_destroyed: bool,
}

#[derive(Debug, Serialize)]
struct Proven {
    name: String,
    /// Without the key nothing is known of volumes.
    blind: bool,
    proven_bytes: u64,
    objects: u64,
    damage: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Moved {
    name: String,
    root: String,
    stored_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Swept {
    removed: u64,
    condemned: u64,
    waits_for: Vec<String>,
    given_up: Vec<String>,
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    let store =
        |of: &Of| open_store(&context.home, of.store.as_deref()).map_err(|it| store_error(&it));
    match command {
        Command::Create(create) => run_create(&create, context),
        Command::List(of) => list(&store(&of)?, context),
        Command::Show(one) => {
            let template = open_template(&context.home, &store(&one.of)?, &one.name)?;
            context.output.line(template.manifest().to_string().trim_end())
        }
        Command::Diff(two) => {
            let store = store(&two.of)?;
            let open = |store, name| open_template(&context.home, store, name);
            let (first, second) = (open(&store, &two.first)?, open(&store, &two.second)?);
            let found = template::diff(&first, &second).map_err(|it| template_error(&it))?;
            context.output.line(found.to_string().trim_end())
        }
        Command::Verify(verify) => prove(&store(&verify.one.of)?, &verify, context),
        Command::Push(copy) => {
            let (ours, theirs) = both(&copy, context)?;
            moved(&ours, &theirs, &copy, context)
        }
        Command::Pull(copy) => {
            let (ours, theirs) = both(&copy, context)?;
            moved(&theirs, &ours, &copy, context)
        }
        Command::Delete(one) => {
            delete(&one, &store(&one.of)?, context)?;
            context
                .output
                .line(&format!("template {} is deleted; gc gives its room back", one.name))
        }
        Command::Key(command) => super::template_key::run(command, context),
        Command::Gc(gc) => collect(&store(&gc.of)?, &gc, context),
    }
}

/// A template that an environment of this home reads stays. No agent starts between the look and the
/// deletion.
fn delete(one: &One, store: &SharedObjects, context: &Context<'_>) -> Result<(), ControlError> {
    let url = one.of.store.as_deref().map(absolute).transpose()?;
    let at = TemplateAt { name: one.name.clone(), store: url };
    let go = || template::delete(&**store, &one.name).map_err(|it| template_error(&it));
    // Before there is a configuration there is no environment.
    if !context.home.config().exists() {
        return go();
    }
    let is_done = context.by_agent_or_alone(
        async |client| {
            refuse_when_used(&client.template_users(&at).await?.users)?;
            Ok(false)
        },
        |home| {
            refuse_when_used(&stored_template_users(home, &at)?)?;
            go()?;
            Ok(true)
        },
    )?;
    if is_done { Ok(()) } else { go() }
}

fn refuse_when_used(users: &[String]) -> Result<(), ControlError> {
    let what = match users.len() {
        0 => return Ok(()),
        1 => "environment",
        _ => "environments",
    };
    let (names, verb) = (users.join(", "), if users.len() == 1 { "is" } else { "are" });
    Err(ControlError::refused(format!("{what} {names} {verb} made of it"))
        .hint("destroy that first: vgship env destroy"))
}

fn both(
    copy: &Copy,
    context: &Context<'_>,
) -> Result<(SharedObjects, SharedObjects), ControlError> {
    let open = |url| open_store(&context.home, url).map_err(|it| store_error(&it));
    Ok((open(None)?, open(Some(&copy.store))?))
}

fn run_create(create: &Create, context: &Context<'_>) -> Result<(), ControlError> {
    let store = create.of.store.as_deref().map(absolute).transpose()?;
    let (client, name) = (context.client(), create.name.clone());
    if let Some(GroupPoint { group: set, at }) = &create.set {
        let At::Snapshot(snapshot) = at.clone() else {
            return Err(ControlError::usage(format!("{at} is no name of a set's snapshot")));
        };
        let request = SetTemplateRequest { snapshot, name, store };
        let made = super::block_on(async { client.set_template_create(set, &request).await })?;
        return context.output.result(&made, |made: &SetTemplates| {
            made.templates.iter().map(told).collect::<Vec<_>>().join("\n")
        });
    }
    let from = create.from.as_ref().map(GroupPoint::to_string);
    let from =
        from.ok_or_else(|| ControlError::usage("give a point, or that of a set with --set"))?;
    let request = TemplateRequest { name, from, store };
    let made = super::block_on(async { client.template_create(&request).await })?;
    context.output.result(&made, told)
}

fn told(made: &TemplateMade) -> String {
    format!(
        "template {} of {} as of {} ({}): {} of {} hold data, {} were new in the store\nroot {}",
        made.name,
        made.group,
        made.at,
        made.time,
        ByteLen(made.data_bytes),
        ByteLen(made.bytes),
        ByteLen(made.stored_bytes),
        made.root
    )
}

/// The agent has another working folder.
pub(super) fn absolute(store: &str) -> Result<String, ControlError> {
    if store.contains("://") {
        return Ok(store.to_owned());
    }
    let path = std::path::absolute(store).map_err(ControlError::usage)?;
    Ok(path.display().to_string())
}

/// Shows progress to a person who looks.
fn shows(what: &str) -> impl FnMut(&Progress) -> ControlFlow<()> {
    let (what, mut last) = (what.to_owned(), std::time::Instant::now());
    let looks = std::io::stderr().is_terminal();
    move |progress| {
        if looks && last.elapsed().as_secs() >= 2 {
            last = std::time::Instant::now();
            let (done, of) = (ByteLen(progress.done), ByteLen(progress.of));
            let stored = ByteLen(progress.stored);
            output::note(&format!("{what}: {done} of {of}, {stored} written"));
        }
        ControlFlow::Continue(())
    }
}

fn list(store: &SharedObjects, context: &Context<'_>) -> Result<(), ControlError> {
    let found = template::list(store).map_err(|it| template_error(&it))?;
    let keys = list_keys(&**store).map_err(|it| store_error(&it))?;
    let current = keys.last().filter(|it| it.ended.is_none()).map(|it| it.id);
    let mut templates = Vec::new();
    for listed in found {
        // One that another key sealed is listed by its name.
        let manifest = open_template(&context.home, store, &listed.name).ok();
        let manifest = manifest.as_ref().map(Template::manifest);
        templates.push(Row {
            name: listed.name.to_string(),
            root: listed.root.map(|root| root.to_string()),
            group: manifest.map(|it| it.source.group_name.to_string()),
            at: manifest.map(|it| it.source.seq.to_string()),
            time: manifest.map(|it| rfc3339(it.source.clock)),
            created: manifest.map(|it| rfc3339(it.created)),
            bytes: manifest.map(|it| it.volumes.iter().map(|it| it.layout.bytes).sum()),
            volumes: manifest.map(|it| it.volumes.len()),
            key: listed.key.map(|key| key.to_string()),
            key_is_current: listed.key.is_some() && listed.key == current,
            key_is_destroyed: keys.iter().any(|it| Some(it.id) == listed.key && it.ended.is_some()),
        });
    }
    context.output.result(&Listed { templates }, |listed| {
        if listed.templates.is_empty() {
            return "there is no template".to_owned();
        }
        let mut table =
            Table::new(["TEMPLATE", "GROUP", "AT", "TIME", "MADE", "LVS", "SIZE", "KEY"]);
        for row in &listed.templates {
            let other = match row.key_is_destroyed {
                true => "destroyed key",
                false => "another key",
            };
            let word = |it: &Option<String>| it.clone().unwrap_or_else(|| other.into());
            table.row([
                row.name.clone(),
                word(&row.group),
                word(&row.at),
                word(&row.time),
                word(&row.created),
                row.volumes.map_or_else(|| "-".to_owned(), |it| it.to_string()),
                row.bytes.map_or_else(|| "-".to_owned(), |it| ByteLen(it).to_string()),
                row.key.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table.to_string()
    })
}

fn prove(
    store: &SharedObjects,
    verify: &Verify,
    context: &Context<'_>,
) -> Result<(), ControlError> {
    let name = &verify.one.name;
    let mut progress = shows("proven");
    let (found, volumes): (Verified, Vec<String>) = if verify.blind {
        let found = template::verify_blind(store, name, &mut progress);
        (found.map_err(|it| template_error(&it))?, Vec::new())
    } else {
        let template = open_template(&context.home, store, name)?;
        let names = template.manifest().volumes.iter().map(|it| it.layout.name.to_string());
        let names = names.collect();
        (template.verify(&mut progress).map_err(|it| template_error(&it))?, names)
    };
    let damage: Vec<String> = found
        .damage
        .iter()
        .map(|it| {
            let volume = it.volume.and_then(|id| volumes.get(id.index()));
            let place = volume.map_or_else(String::new, |volume| {
                format!("{volume}, {} bytes at {}: ", it.span.len, it.span.offset)
            });
            format!("{place}{}", crate::capture::io::report(&it.reason))
        })
        .collect();
    let proven = Proven {
        name: name.to_string(),
        blind: verify.blind,
        proven_bytes: found.progress.done,
        objects: found.progress.objects,
        damage,
    };
    context.output.result(&proven, |proven| match proven.damage.is_empty() {
        true if proven.blind => {
            format!("template {}: all {} objects are whole", proven.name, proven.objects)
        }
        true => {
            format!("template {}: all {} are proven", proven.name, ByteLen(proven.proven_bytes))
        }
        false => proven.damage.join("\n"),
    })?;
    match proven.damage.len() {
        0 => Ok(()),
        count => Err(ControlError::failed(format!("template {name} is damaged in {count} places"))
            .hint("mend it from a store that has it whole: vgship template push T --store URL --mend, or pull")),
    }
}

fn moved(
    from: &SharedObjects,
    to: &SharedObjects,
    copy: &Copy,
    context: &Context<'_>,
) -> Result<(), ControlError> {
    let name = &copy.name;
    let keys = copy_keys(from, &**to, name).map_err(|it| store_error(&it))?;
    let pushed = match copy.mend {
        true => template::mend(from, to, name, &mut shows("mended")),
        false => template::push(from, &**to, name, &mut shows("copied")),
    };
    let pushed = pushed.map_err(|it| template_error(&it))?;
    confirm_keys(&**to, &keys, name, !copy.mend).map_err(|it| store_error(&it))?;
    let moved = Moved {
        name: name.to_string(),
        root: pushed.root.to_string(),
        stored_bytes: pushed.progress.stored,
    };
    context.output.result(&moved, |moved| {
        format!("template {} is there: {} were written", moved.name, ByteLen(moved.stored_bytes))
    })
}

fn collect(store: &SharedObjects, gc: &Gc, context: &Context<'_>) -> Result<(), ControlError> {
    let grace = gc.grace.map_or(GRACE_DEFAULT, |grace| grace.0);
    let found = template::collect_garbage(&**store, grace).map_err(|it| template_error(&it))?;
    let swept = Swept {
        removed: found.removed,
        condemned: found.condemned,
        waits_for: found.waits_for.iter().map(|it| format!("{it:?}")).collect(),
        given_up: found.given_up.iter().map(ToString::to_string).collect(),
    };
    context.output.result(&swept, |swept| {
        let waits = match swept.waits_for.len() {
            0 => String::new(),
            count => format!("; {count} writers are waited for"),
        };
        format!(
            "{} objects were removed, {} go with a later run{waits}",
            swept.removed, swept.condemned
        )
    })
}
