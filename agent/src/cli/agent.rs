//! `vgship agent`: runs in the foreground until it is told to stop.

use tokio::signal::unix::{SignalKind, signal};

use super::parts::Running;
use super::{Context, check, logging};
use crate::api::ControlError;
use crate::api::io::Server;
use crate::home::Config;

/// Run the agent in the foreground
///
/// Prints one line that begins with "ready" on stdout when it serves.
///
/// SIGTERM and SIGINT stop it cleanly.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only check configuration, key, identity, groups and volumes
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    if args.check {
        return check::run(context);
    }
    let config = context.home.load_config()?;
    logging::start(config.log, context.log_format)?;
    context.home.wrapping_key()?;
    context.home.load_groups()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ControlError::failed(format!("cannot start: {error}")))?;
    runtime.block_on(serve(config, context))
}

async fn serve(config: Config, context: &Context<'_>) -> Result<(), ControlError> {
    let (mut term, mut int) = signals()?;
    let name = config.name.clone();
    let home = &context.home;
    let mut running = context.parts.start(home.lock()?, config).await?;
    let server = match Server::start(&home.api_socket(), running.control()) {
        Ok(server) => server,
        Err(error) => return running.stop().await.and(Err(error)),
    };
    tracing::info!(agent = %name, "the agent serves");
    let ready = format!("ready: agent {name} serves at {}", home.api_socket().display());
    let ended = match context.output.line(&ready) {
        Ok(()) => until_told(&mut term, &mut int, running.as_mut()).await,
        Err(error) => Err(error),
    };
    server.stop().await;
    let stopped = running.stop().await;
    if ended.is_ok() && stopped.is_ok() {
        tracing::info!(agent = %name, "the agent has stopped");
    }
    ended.and(stopped)
}

type Signals = (tokio::signal::unix::Signal, tokio::signal::unix::Signal);

fn signals() -> Result<Signals, ControlError> {
    let listen = |kind| {
        signal(kind).map_err(|error| ControlError::failed(format!("cannot await signals: {error}")))
    };
    Ok((listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
}

async fn until_told(
    term: &mut tokio::signal::unix::Signal,
    int: &mut tokio::signal::unix::Signal,
    running: &mut dyn Running,
) -> Result<(), ControlError> {
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        failed = running.failed() => failed,
    }
}
