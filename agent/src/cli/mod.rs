//! The command line, a file per command; a command's help text is its type's documentation.
//!
//! Every command prints for people or, with `--json`, one JSON document; messages go to stderr.
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 timed out.

pub mod agent;

pub mod bisect;

pub mod check;

pub mod drill;

pub mod env;

mod env_show;

pub mod group;

pub mod history;

pub mod init;

pub mod key;

pub mod logging;

pub mod marker;

pub mod output;

pub mod pair;

pub mod parts;

pub mod pause;

pub mod program;

pub mod render;

pub mod roles;
pub mod rollback;

pub mod set;

pub mod snapshot;

pub mod status;

pub mod table;

pub mod template;

pub mod template_key;

pub mod unveil;

pub mod vg;

pub mod wait;

pub mod watchdog;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::api::{Client, ControlError};
use crate::home::config::LogFormat;
use crate::home::{HOME_VARIABLE, Home, HomeError, LockedHome};

pub use output::Output;
pub use parts::Parts;
pub use program::Program;

/// Replicates volume groups to a peer: live, in order, encrypted.
#[derive(Debug, Parser)]
#[command(name = "vgship", version, subcommand_required = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
struct Globals {
    /// The agent's folder; without it VGSHIP_HOME, else the platform's places
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// How log lines on stderr are written; without it as configured
    #[arg(long, global = true, value_name = "text|json", hide_possible_values = true)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Agent(agent::Args),
    #[command(subcommand)]
    Vg(vg::Command),
    #[command(subcommand)]
    Group(group::Command),
    #[command(subcommand)]
    Pair(pair::Command),
    Status(status::Args),
    Wait(wait::Args),
    /// Stop shipping or applying a group; applications go on
    Pause(pause::Args),
    /// Take a paused group up again
    Resume(pause::Args),
    Marker(marker::Args),
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    #[command(subcommand)]
    Set(set::Command),
    History(history::Args),
    #[command(subcommand)]
    Template(template::Command),
    #[command(subcommand)]
    Key(key::Command),
    Unveil(unveil::Args),
    #[command(subcommand)]
    Env(env::Command),
    Bisect(bisect::Args),
    Switchover(roles::Switchover),
    Failover(roles::Failover),
    Failback(roles::Failback),
    Drill(drill::Args),
    Rollback(rollback::Args),
    #[command(subcommand)]
    Preview(rollback::Preview),
    Demo(crate::demo::Args),
    #[command(name = crate::quiesce::io::COMMAND, hide = true)]
    Watchdog(watchdog::Args),
}

/// How long a command waits for another one that holds the home, or for an agent that starts.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What a command works with.
pub(crate) struct Context<'a> {
    pub(crate) home: Home,
    pub(crate) output: Output,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) parts: &'a dyn Parts,
}

impl Context<'_> {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.home)
    }

    /// Does a piece of work through the running agent, else on the home itself, under its lock.
    pub(crate) fn by_agent_or_alone<T>(
        &self,
        by_agent: impl AsyncFnOnce(Client) -> Result<T, ControlError>,
        alone: impl FnOnce(&LockedHome) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        self.home.load_config()?;
        let asked = Instant::now();
        loop {
            let held = match self.home.lock() {
                Ok(locked) => return alone(&locked),
                Err(held @ HomeError::Locked { .. }) => held,
                Err(error) => return Err(error.into()),
            };
            let client = self.client();
            if block_on(async { Ok(client.answers().await) })? {
                return block_on(by_agent(client));
            }
            if asked.elapsed() >= LOCK_PATIENCE {
                return Err(held.into());
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }
}

/// Runs what asks an agent.
pub(crate) fn block_on<T>(
    work: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ControlError::failed(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

/// Runs the command that the process was started with.
pub fn main(parts: &dyn Parts) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let variable = std::env::var_os(HOME_VARIABLE).map(PathBuf::from);
    let context = Context {
        home: Home::choose(cli.globals.home, variable),
        output: Output::new(cli.globals.json),
        log_format: cli.globals.log_format,
        parts,
    };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Agent(args) => agent::run(&args, context),
        Command::Vg(command) => vg::run(command, context),
        Command::Group(command) => group::run(command, context),
        Command::Pair(command) => pair::run(command, context),
        Command::Status(args) => status::run(&args, context),
        Command::Wait(args) => wait::run(&args, context),
        Command::Pause(args) => pause::pause(&args, context),
        Command::Resume(args) => pause::resume(&args, context),
        Command::Marker(args) => marker::run(args, context),
        Command::Snapshot(command) => snapshot::run(command, context),
        Command::Set(command) => set::run(command, context),
        Command::History(args) => history::run(&args, context),
        Command::Template(command) => template::run(command, context),
        Command::Key(command) => key::run(command, context),
        Command::Unveil(args) => unveil::run(&args, context),
        Command::Env(command) => env::run(command, context),
        Command::Bisect(args) => bisect::run(&args, context),
        Command::Switchover(args) => roles::switchover(args, context),
        Command::Failover(args) => roles::failover(args, context),
        Command::Failback(args) => roles::failback(args, context),
        Command::Drill(args) => drill::run(args, context),
        Command::Rollback(args) => rollback::run(&args, context),
        Command::Preview(command) => rollback::preview(&command, context),
        Command::Demo(args) => crate::demo::run(&args, context),
        Command::Watchdog(args) => watchdog::run(&args),
    }
}

#[cfg(test)]
mod tests;
