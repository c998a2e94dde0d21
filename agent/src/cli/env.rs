//! `vgship env`: environments, writable clones of a point.

use std::path::PathBuf;

use vgship_base::ids::Name;
use vgship_base::units::ByteLen;

use super::table::Table;
use super::{Context, pause, template};
use crate::api::ControlError;
use crate::api::past::{EnvRequest, Environment, Environments, ExportRequest};
use crate::home::{Period, Size};

/// Make, list, extend and destroy environments
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an environment from a snapshot or any point
    Create(Box<Create>),
    /// List environments
    List,
    /// Give an environment a new lease, from now on
    Extend(Extend),
    /// End an environment's clients and remove all of it
    Destroy(One),
}

/// Make an environment
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("form").required(true)))]
pub struct Create {
    /// What it is called
    #[arg(value_name = "E")]
    name: Name,
    /// Which snapshot, point or template
    #[arg(long, value_name = "G@NAME|G@POINT|T")]
    from: String,
    /// The template's store [default: the home's own]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Writable clones at the NBD socket, under env/E/G/LV
    #[arg(long, group = "form")]
    nbd: bool,
    /// Image files in this folder, which is made, or is empty
    #[arg(long, value_name = "DIR", group = "form")]
    to_dir: Option<PathBuf>,
    /// Whose it is
    #[arg(long, value_name = "WHO", requires = "nbd")]
    owner: Option<String>,
    /// After which it is destroyed
    #[arg(long, value_name = "DURATION", requires = "nbd")]
    lease: Option<Period>,
    /// What may be written to it
    #[arg(long, value_name = "SIZE", requires = "nbd")]
    quota: Option<Size>,
    /// A program that must succeed before anybody else sees it: see docs/operations.md
    #[arg(long, value_name = "PROGRAM", requires = "nbd")]
    mask: Option<PathBuf>,
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
            context.output.result(&all, rendered)
        }
        Command::Extend(extend) => {
            let extended = async { context.client().env_extend(&extend.name, extend.lease).await };
            let env = super::block_on(extended)?;
            context.output.result(&env, |env| {
                let until = env.expires.as_deref().unwrap_or("further notice");
                format!("environment {} stays until {until}", env.name)
            })
        }
        Command::Destroy(one) => {
            let done = super::block_on(async { context.client().env_destroy(&one.name).await })?;
            context.output.result(&done, pause::rendered)
        }
    }
}

fn run_create(create: Create, context: &Context<'_>) -> Result<(), ControlError> {
    let Create { name, from, store, nbd: _, to_dir, owner, lease, quota, mask } = create;
    let store = store.as_deref().map(template::absolute).transpose()?;
    if let Some(to) = to_dir {
        let to = std::path::absolute(&to).map_err(ControlError::usage)?;
        let request = ExportRequest { from, store, to };
        let done = super::block_on(async { context.client().export(&request).await })?;
        return context.output.result(&done, |done| {
            format!(
                "environment {name}: {} images as of {} ({})",
                done.files.len(),
                done.at,
                done.time
            )
        });
    }
    let mask = mask.map(std::path::absolute).transpose().map_err(ControlError::usage)?;
    let request = EnvRequest { name, from, store, owner, lease, quota, mask };
    let env = super::block_on(async { context.client().env_create(&request).await })?;
    let socket = context.home.nbd_socket();
    context.output.result(&env, |env| made(env, &socket.display().to_string()))
}

fn made(env: &Environment, socket: &str) -> String {
    let mut lines = vec![format!(
        "environment {} of group {} as of {} ({})",
        env.name, env.group, env.at, env.time
    )];
    lines.extend(env.exports.iter().map(|export| format!("nbd+unix:///{export}?socket={socket}")));
    lines.join("\n")
}

fn rendered(all: &Environments) -> String {
    if all.environments.is_empty() {
        return "there is no environment".to_owned();
    }
    let mut table =
        Table::new(["ENVIRONMENT", "GROUP", "AT", "TIME", "OWNER", "EXPIRES", "WRITTEN"]);
    for env in &all.environments {
        table.row([
            env.name.clone(),
            env.group.clone(),
            env.at.clone(),
            env.time.clone(),
            env.owner.clone().unwrap_or_else(|| "-".to_owned()),
            env.expires.clone().unwrap_or_else(|| "-".to_owned()),
            ByteLen(env.written_bytes).to_string(),
        ]);
    }
    table.to_string()
}
