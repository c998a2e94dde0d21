//! `vgship demo`: the whole job on this machine, with real processes, crashes and outages; every
//! claim is checked against a model of the workload.

mod agents;
mod chain;
mod content;
mod images;
mod lane;
mod nbd;
mod pace;
mod relay;
mod report;
mod role;
mod scenario;
mod watch;
mod workload;

use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::ControlError;
use crate::cli::Context;
use crate::cli::output::{Output, note};
use agents::Interrupt;
use scenario::Scenario;

/// Longest path of a unix socket, with what homes add to the folder. Unit: bytes.
const FOLDER_MAX: usize = 85;

/// Show the whole job on this machine: replicate, crash, recover, compare
///
/// Makes two AIX volume groups on disk images in a temporary folder, starts two agents as
/// processes of their own, and writes to one group over NBD while it is replicated to the other.
/// Takes snapshots under load, opens a point between them and makes an environment of it. Kills the
/// replica and the source in mid-stream, cuts the link between them, and proves from a model of the
/// workload that the replica, and every point of its past, always was a state that the source has
/// been in.
///
/// Exit code 0 only if every check held. Ends only processes that it started.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long the workload runs at full speed and in outages together
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Leave images, homes and logs in this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Runs inside an environment of the demonstration
    #[arg(long, value_enum, hide = true)]
    inside: Option<role::Role>,
}

/// Progress for people: on stdout, or on stderr when stdout is for the JSON document.
struct Say {
    output: Output,
    since: Instant,
}

impl Say {
    fn line(&self, text: &str) -> Result<(), ControlError> {
        let line = format!("[{:5.1} s] {text}", self.since.elapsed().as_secs_f64());
        match self.output.is_json() {
            true => {
                note(&line);
                Ok(())
            }
            false => self.output.line(&line),
        }
    }
}

/// The folder of all files: removed with this value unless it is to be kept.
enum Place {
    Passing(TempDir),
    Kept(PathBuf),
}

impl Place {
    fn make(keep: Option<&PathBuf>) -> Result<Place, ControlError> {
        let place = match keep {
            None => {
                let made = tempfile::Builder::new().prefix("vgship-demo-").tempdir();
                Place::Passing(made.map_err(|error| {
                    ControlError::failed(format!("cannot make a temporary folder: {error}"))
                })?)
            }
            Some(folder) => {
                let failed = |error: std::io::Error| {
                    let shown = folder.display();
                    ControlError::failed(format!("cannot use the folder {shown}: {error}"))
                };
                std::fs::create_dir_all(folder).map_err(failed)?;
                if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
                    return Err(ControlError::refused(format!(
                        "the folder {} is not empty",
                        folder.display()
                    ))
                    .hint("name a new one"));
                }
                Place::Kept(std::path::absolute(folder).map_err(failed)?)
            }
        };
        if place.path().as_os_str().len() > FOLDER_MAX {
            let shown = place.path().display().to_string();
            return Err(ControlError::failed(format!("the path {shown} is too long for sockets"))
                .hint("choose a shorter one: --keep DIR, or the variable TMPDIR"));
        }
        Ok(place)
    }

    fn path(&self) -> &Path {
        match self {
            Place::Passing(folder) => folder.path(),
            Place::Kept(folder) => folder,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    if let Some(role) = args.inside {
        return role::run(role).map_err(|error| ControlError::failed(format!("{error:#}")));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| ControlError::failed(format!("cannot start: {error}")))?;
    let interrupt = Interrupt::default();
    let told = interrupt.clone();
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut heard = signal(kind)
            .map_err(|error| ControlError::failed(format!("cannot await signals: {error}")))?;
        let told = told.clone();
        runtime.spawn(async move {
            if heard.recv().await.is_some() {
                told.set();
            }
        });
    }
    let say = Say { output: context.output, since: Instant::now() };
    let place = Place::make(args.keep.as_ref())?;
    let mut scenario = Scenario::new(place.path(), args.seconds, &say, &interrupt);
    let report = match scenario.play() {
        Ok(report) => report,
        Err(error) => {
            note(&scenario.logs());
            let failed = ControlError::failed(format!("the demonstration failed: {error:#}"));
            return Err(match (&place, interrupt.check()) {
                (_, Err(_)) => ControlError::failed("interrupted; all processes have been ended"),
                (Place::Kept(folder), _) => {
                    failed.hint(format!("see images, homes and logs in {}", folder.display()))
                }
                (Place::Passing(_), _) => {
                    failed.hint("run it with --keep DIR to look at images, homes and logs")
                }
            });
        }
    };
    context.output.result(&report, report::Report::table)
}
