//! `vgship env`: environments, writable clones of points.

use std::path::{Path, PathBuf};

use vgship_base::ids::Name;

use super::{Context, env_show, pause, template};
use crate::api::ControlError;
use crate::api::past::{EnvEnd, EnvRequest, ExportRequest};
use crate::group::{Rename, VolumesSpec};
use crate::home::{Period, Size};

/// Make, list, show, extend and destroy environments
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an environment from snapshots, any points or templates
    Create(Box<Create>),
    /// List environments
    List,
    /// Show an environment, its state and its steps
    Show(One),
    /// Show what an environment's programs said
    Log(One),
    /// Give an environment a new lease, from now on
    Extend(Extend),
    /// End an environment's clients and remove all of it
    Destroy(Destroy),
}

/// Make an environment
///
/// On a blind replica its volumes are veiled: file systems do not mount, and masks and steps that look for
/// content find none.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("form").required(true)))]
pub struct Create {
    /// What it is called
    #[arg(value_name = "E")]
    name: Name,
    /// Which snapshot, point or template; once for each group
    #[arg(long, value_name = "G@NAME|G@POINT|T", required_unless_present = "set")]
    from: Vec<String>,
    /// All groups of a set's snapshot, whose replicas are all on this agent
    #[arg(long, value_name = "S@NAME", conflicts_with_all = ["from", "store", "to_dir"])]
    set: Option<String>,
    /// The templates' store [default: the home's own]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Writable clones at the NBD socket, under env/E/G/LV
    #[arg(long, group = "form")]
    nbd: bool,
    /// Image files in this folder, which is made, or is empty; vgship then knows nothing of them
    #[arg(long, value_name = "DIR", group = "form")]
    to_dir: Option<PathBuf>,
    /// New volumes, which destroy removes: images:DIR, aix-disks:DIR or lvm2:VG
    #[arg(long, value_name = "SPEC", group = "form")]
    to_volumes: Option<VolumesSpec>,
    /// What the VG of aix-disks:DIR is called [default: as its group]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["nbd", "to_dir"])]
    vg: Option<Name>,
    /// How LVs, and file systems on AIX, are renamed: lv:PATTERN=REPLACEMENT or
    /// mount:PATTERN=REPLACEMENT, with one '*'; the first rule that fits counts
    #[arg(long, value_name = "RULE", conflicts_with = "to_dir")]
    rename: Vec<Rename>,
    /// Whose it is
    #[arg(long, value_name = "WHO", conflicts_with = "to_dir")]
    owner: Option<String>,
    /// After which it is destroyed
    #[arg(long, value_name = "DURATION", conflicts_with = "to_dir")]
    lease: Option<Period>,
    /// What may be written to it
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["to_volumes", "to_dir"])]
    quota: Option<Size>,
    /// A program that must succeed before anybody else sees it: see docs/operations.md
    #[arg(long, value_name = "PROGRAM", conflicts_with = "to_dir")]
    mask: Option<PathBuf>,
    /// A shell command that must succeed before it is handed out; several run in their order
    #[arg(long, value_name = "COMMAND", conflicts_with = "to_dir")]
    step: Vec<String>,
    /// How long each step, and the teardown, may take [default: 1 h]
    #[arg(long, value_name = "DURATION", conflicts_with = "to_dir")]
    step_timeout: Option<Period>,
    /// Keep it when a step fails, to look into it
    #[arg(long, requires = "step")]
    keep_failed: bool,
    /// A shell command that runs before it is destroyed
    #[arg(long, value_name = "COMMAND", conflicts_with = "to_dir")]
    teardown: Option<String>,
}

/// Give an environment a new lease
#[derive(Debug, clap::Args)]
pub struct Extend {
    /// Which environment
    #[arg(value_name = "E")]
    name: Name,
    /// How long from now on
    #[arg(long, value_name = "DURATION")]
    lease: Period,
}

/// Destroy an environment
#[derive(Debug, clap::Args)]
pub struct Destroy {
    /// Which environment
    #[arg(value_name = "E")]
    name: Name,
    /// Do not wait for its LVs in a volume group of LVM2 that is gone for good
    #[arg(long)]
    forget_volumes: bool,
}

/// One environment
#[derive(Debug, clap::Args)]
pub struct One {
    /// Which environment
    #[arg(value_name = "E")]
    name: Name,
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    match command {
        Command::Create(create) => run_create(*create, context),
        Command::List => {
            let all = super::block_on(async { context.client().env_list().await })?;
            context.output.result(&all, env_show::table)
        }
        Command::Show(one) => {
            let all = super::block_on(async { context.client().env_list().await })?;
            let found = all.environments.into_iter().find(|it| it.name == one.name.as_str());
            let env = found.ok_or_else(|| {
                ControlError::refused(format!("there is no environment {}", one.name))
                    .hint("see which there are with: vgship env list")
            })?;
            let socket = context.home.nbd_socket();
            context.output.result(&env, |env| env_show::all(env, &socket))
        }
        Command::Log(one) => {
            let log = super::block_on(async { context.client().env_log(&one.name).await })?;
            context.output.result(&log, |log| log.text.trim_end().to_owned())
        }
        Command::Extend(extend) => {
            let extended = async { context.client().env_extend(&extend.name, extend.lease).await };
            let env = super::block_on(extended)?;
            context.output.result(&env, |env| {
                let until = env.expires.as_deref().unwrap_or("further notice");
                format!("environment {} stays until {until}", env.name)
            })
        }
        Command::Destroy(Destroy { name, forget_volumes }) => {
            let end = EnvEnd { forget_volumes };
            let done = super::block_on(async { context.client().env_destroy(&name, end).await })?;
            context.output.result(&done, pause::rendered)
        }
    }
}

fn run_create(create: Create, context: &Context<'_>) -> Result<(), ControlError> {
    let store = create.store.as_deref().map(template::absolute).transpose()?;
    if let Some(to) = create.to_dir {
        return export(&create.name, create.from, store, &to, context);
    }
    let absolute = |path: PathBuf| std::path::absolute(path).map_err(ControlError::usage);
    let to = match create.to_volumes {
        None => None,
        Some(VolumesSpec::Images(dir)) => Some(VolumesSpec::Images(absolute(dir)?)),
        Some(VolumesSpec::AixDisks(dirs)) => {
            let dirs = dirs.into_iter().map(absolute).collect::<Result<_, _>>()?;
            Some(VolumesSpec::AixDisks(dirs))
        }
        Some(other) => Some(other),
    };
    let request = EnvRequest {
        name: create.name,
        from: create.from,
        set: create.set,
        store,
        to: to.map(|to| to.to_string()),
        vg: create.vg.map(|vg| vg.to_string()),
        rename: create.rename,
        owner: create.owner,
        lease: create.lease,
        quota: create.quota,
        mask: create.mask.map(absolute).transpose()?,
        steps: create.step,
        step_timeout: create.step_timeout,
        keep_failed: create.keep_failed,
        teardown: create.teardown,
        fleeting: false,
    };
    let env = super::block_on(async { context.client().env_create(&request).await })?;
    let socket = context.home.nbd_socket();
    context.output.result(&env, |env| env_show::made(env, &socket))
}

/// Writes image files that belong to nobody.
fn export(
    name: &Name,
    from: Vec<String>,
    store: Option<String>,
    to: &Path,
    context: &Context<'_>,
) -> Result<(), ControlError> {
    let to = std::path::absolute(to).map_err(ControlError::usage)?;
    let [from] = <[String; 1]>::try_from(from).map_err(|_| {
        ControlError::usage("--to-dir takes one point or template")
            .hint(format!("for several groups: --to-volumes images:{}", to.display()))
    })?;
    let request = ExportRequest { from, store, to };
    let done = super::block_on(async { context.client().export(&request).await })?;
    context.output.result(&done, |done| {
        let count = done.files.len();
        format!("environment {name}: {count} images as of {} ({})", done.at, done.time)
    })
}
