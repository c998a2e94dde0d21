//! `vgship init`: a new agent's folder.

use std::net::SocketAddr;

use serde::Serialize;
use vgship_base::ids::Name;

use super::Context;
use crate::api::ControlError;
use crate::home::config::LISTEN_DEFAULT;
use crate::home::{Config, HomeError, command};

/// Set up an agent: its folder, key, identity and configuration
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What peers and operators call this agent
    #[arg(long)]
    name: Name,
    /// Where peers reach it (UDP)
    #[arg(long, value_name = "ADDR:PORT", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// A command that prints the key that wraps the data keys, instead of a key file
    #[arg(long, value_name = "COMMAND")]
    key_command: Option<String>,
}

#[derive(Serialize)]
struct Made {
    name: String,
    peer_id: String,
    listen: String,
    config: String,
    /// The key file, where there is one.
    key: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let home = &context.home;
    let refuse_second = || match home.config() {
        path if path.exists() => Err(HomeError::Exists { path }),
        _ => Ok(()),
    };
    refuse_second()?;
    home.make_folders()?;
    let locked = home.lock()?;
    refuse_second()?;
    match &args.key_command {
        Some(command) => command::key_of(command, command::PATIENCE).map(drop)?,
        None => locked.make_key()?,
    }
    let peer_id = context.parts.make_identity(&home.identity())?;
    // Last, so that an attempt that was cut off can simply be repeated.
    locked.write_config(&Config::sample(&args.name, args.listen, args.key_command.as_deref()))?;
    let made = Made {
        name: args.name.to_string(),
        peer_id: peer_id.to_string(),
        listen: args.listen.to_string(),
        config: home.config().display().to_string(),
        key: args.key_command.is_none().then(|| home.key().display().to_string()),
    };
    let start = format!("{} agent", home.command());
    context.output.result(&made, |made| {
        let key = made.key.as_deref().unwrap_or("what its command prints");
        format!(
            "agent {} is set up\n  id      {}\n  listen  {}\n  config  {}\n  key     {}\n\
             Keep a copy of the key apart from the data: without it nothing sealed can be read.\n\
             Start the agent with: {start}",
            made.name, made.peer_id, made.listen, made.config, key
        )
    })
}
