//! `vgship drill`: a rehearsal of a failover, its reports, and whether they are genuine.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vgship_base::ids::{Name, PeerId};

use super::table::Table;
use super::{Context, output, roles};
use crate::api::ControlError;
use crate::api::drills::{DrillRequest, DrillRow, Drilled, Drills};
use crate::history::spec::At;
use crate::home::text::FromHex;
use crate::home::{Period, io as files};
use crate::role::drill::seal::{self, SEAL_MAX, SealError};
use crate::role::drill::{Outcome, REPORT_MAX, Report};

/// Rehearse a failover on a clone while the stream goes on, and keep a signed report
///
/// Runs at the replica. The clone is at env/drill-TIME/G/LV while the check runs, and goes with it.
/// The check is a program that ends with 0 where all is well. It finds the clone in
/// VGSHIP_NBD_SOCKET and VGSHIP_EXPORTS (a line "LV EXPORT" for each volume), VGSHIP_VOLUMES (a line
/// "G LV EXPORT"), the environment's name in VGSHIP_ENV and the point in VGSHIP_POINT. Ends with 0
/// only when the check passed.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which group
    #[arg(value_name = "G", required = true)]
    group: Option<Name>,
    /// The program, with its arguments, as a shell takes them
    #[arg(long, value_name = "COMMAND", required = true)]
    check: Option<String>,
    /// Which snapshot or point [default: now]
    #[arg(long, value_name = "NAME|POINT")]
    at: Option<At>,
    /// Where to copy the report: a name with .json, with .html, or without an ending for both
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How long the check may take [default: 1 h]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Period>,
    /// Do not hash the clone's LVs before the check
    #[arg(long)]
    no_hash: bool,
}

/// What of drills that are over.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the drills whose reports are kept
    List(List),
    /// Check that a report is what an agent signed; needs no agent
    Verify(Verify),
}

/// Which drills.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Of which group
    #[arg(value_name = "G")]
    group: Name,
}

/// Which report.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The report, as JSON; its signature lies beside it, as FILE.sig
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The id of the agent that must have signed it [default: this home's, or any peer's]
    #[arg(long, value_name = "ID")]
    key: Option<String>,
}

/// A drill that is over.
#[derive(Debug, Serialize)]
struct Done {
    report: Report,
    /// Where the report is kept.
    path: PathBuf,
    /// Why it did not pass.
    error: Option<ControlError>,
}

/// A report that was checked.
#[derive(Debug, Serialize)]
struct Verified {
    /// The signer's id.
    key: String,
    /// Why that is believed.
    known_as: String,
    report: Report,
}

pub(super) fn run(args: Args, context: &Context<'_>) -> Result<(), ControlError> {
    match args.command {
        Some(Command::List(List { group })) => {
            let all = super::block_on(async { context.client().drills(&group).await })?;
            context.output.result(&all, listed)
        }
        Some(Command::Verify(args)) => verify(&args, context),
        None => {
            let needed = || ControlError::usage("a drill needs a group and --check COMMAND");
            let (group, check) = args.group.zip(args.check).ok_or_else(needed)?;
            let copies = args.report.as_deref().map(Copies::to).transpose()?;
            let at = args.at.map(|at| at.to_string());
            let (timeout, no_hash) = (args.timeout, args.no_hash);
            let request = DrillRequest { check, at, timeout, no_hash };
            drill(&group, &request, copies.as_ref(), context)
        }
    }
}

fn drill(
    group: &Name,
    request: &DrillRequest,
    copies: Option<&Copies>,
    context: &Context<'_>,
) -> Result<(), ControlError> {
    let ask = async |client: crate::api::Client| client.drill(group, request).await;
    let done = roles::watched("drill", group, context, ask)?;
    let copied = copies.map_or(Ok(()), |copies| copies.write(&done));
    let Drilled { report, path, error, .. } = done;
    context.output.result(&Done { report, path, error: error.clone() }, summary)?;
    match error {
        Some(error) => {
            // Only one of both can be how it ends.
            if let Err(other) = &copied {
                output::report(other);
            }
            Err(error)
        }
        None => copied,
    }
}

/// Where a report is copied to.
#[derive(Debug, PartialEq, Eq)]
struct Copies {
    json: Option<PathBuf>,
    page: Option<PathBuf>,
}

impl Copies {
    /// By the ending of a name. What cannot be is said before anything is done.
    fn to(file: &Path) -> Result<Copies, ControlError> {
        let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|it| !it.is_dir()) {
            return Err(ControlError::usage(format!("there is no folder {}", folder.display()))
                .hint("make it, or name another file: --report FILE"));
        }
        let named = |ending: &str| Some(file.with_extension(ending));
        match file.extension().and_then(|it| it.to_str()) {
            Some("json") => Ok(Copies { json: named("json"), page: None }),
            Some("html") => Ok(Copies { json: None, page: named("html") }),
            None if file.extension().is_none() && file.file_name().is_some() => {
                Ok(Copies { json: named("json"), page: named("html") })
            }
            _ => {
                let text = format!("{} ends with neither .json nor .html", file.display());
                Err(ControlError::usage(text).hint("without an ending both are written"))
            }
        }
    }

    fn write(&self, done: &Drilled) -> Result<(), ControlError> {
        let replace = |path: &Path, text: &str| files::replace(path, text.as_bytes(), files::PLAIN);
        if let Some(json) = &self.json {
            replace(&beside(json), &done.signature)?;
            replace(json, &done.json)?;
        }
        if let Some(page) = &self.page {
            replace(page, &done.page)?;
        }
        Ok(())
    }
}

/// Where the signature of a report lies.
fn beside(report: &Path) -> PathBuf {
    let mut name = report.as_os_str().to_owned();
    name.push(".");
    name.push(seal::ENDING);
    name.into()
}

fn summary(done: &Done) -> String {
    let Report { group, result, rto_seconds, point, .. } = &done.report;
    let rto = rto_seconds.map_or_else(String::new, |it| format!(", time to recover {it:.3} s"));
    let mut text = format!("drill of {group}: {}{rto}", result.as_str());
    if let Some(point) = point {
        let (at, time, behind) = (&point.at, &point.time, point.behind_seconds);
        text = format!("{text}\npoint: {at} ({time}), {behind:.3} s behind the newest");
    }
    format!("{text}\nreport: {}", done.path.display())
}

fn listed(all: &Drills) -> String {
    if all.drills.is_empty() {
        return format!(
            "no drill of {} yet: vgship drill {} --check COMMAND",
            all.group, all.group
        );
    }
    let mut table = Table::new(["TIME", "POINT", "RESULT", "RTO", "REPORT"]);
    for DrillRow { time, at, result, rto_seconds, path, .. } in &all.drills {
        let or = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            or(time),
            or(at),
            result.map_or("unreadable", Outcome::as_str).to_owned(),
            rto_seconds.map_or_else(|| "-".to_owned(), |it| format!("{it:.3} s")),
            path.display().to_string(),
        ]);
    }
    table.to_string()
}

fn verify(args: &Verify, context: &Context<'_>) -> Result<(), ControlError> {
    let wanted = args.key.as_deref().map(|key| {
        PeerId::from_hex(key)
            .ok_or_else(|| ControlError::usage(format!("{key} is not {}", PeerId::WHAT)))
    });
    let wanted = wanted.transpose()?;
    let (json, signature) = (read(&args.file, REPORT_MAX)?, read(&beside(&args.file), SEAL_MAX)?);
    let (report, signer) = seal::verify(&json, &signature).map_err(|error| {
        let text = ControlError::from_error(&error);
        let told = ControlError::failed(format!("{}: {text}", args.file.display()));
        match error {
            SealError::NotAReport(_) => told.hint("name the report's JSON, not its page"),
            _ => told,
        }
    })?;
    let known_as = known_as(signer, wanted, context)?;
    let verified = Verified { key: signer.to_string(), known_as, report };
    context.output.result(&verified, |it| {
        let Report { group, agent, started, result, .. } = &it.report;
        format!(
            "genuine: drill of {group} by {} at {started}: {}\nsigned by: {} ({})",
            agent.name,
            result.as_str(),
            it.key,
            it.known_as
        )
    })
}

/// Whose key it is. Anybody can sign with some key: it must be one that is known.
fn known_as(
    signer: PeerId,
    wanted: Option<PeerId>,
    context: &Context<'_>,
) -> Result<String, ControlError> {
    if let Some(wanted) = wanted {
        return match wanted == signer {
            true => Ok("as it was named".to_owned()),
            false => Err(ControlError::refused(format!(
                "the report is signed by another key: {signer}, not {wanted}"
            ))),
        };
    }
    let identity = context.home.identity();
    if identity.exists() && context.parts.check_identity(&identity).is_ok_and(|it| it == signer) {
        return Ok("the key of this home's agent".to_owned());
    }
    // A home that cannot be read knows nobody.
    let pairs = context.parts.pair_list(&context.home).map(|it| it.pairs).unwrap_or_default();
    let known = pairs.into_iter().find(|it| it.peer_id == signer.to_string());
    known.map(|it| format!("the key of the peer {}", it.peer)).ok_or_else(|| {
        ControlError::refused(format!(
            "the report is signed by a key that is not known here: {signer}"
        ))
        .hint(
            "compare it with the agent's id, as its vgship status --json shows it, then: --key ID",
        )
    })
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, ControlError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|error| ControlError::failed(format!("cannot read {}: {error}", path.display())))?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => Err(ControlError::failed(format!(
            "{}: it is no report of a drill: it is longer than {most} bytes",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_what_is_copied() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let of = |name: &str| Copies::to(&path(name));
        let (json, page) = (Some(path("r.json")), Some(path("r.html")));
        assert_eq!(of("r.json").unwrap(), Copies { json: json.clone(), page: None });
        assert_eq!(of("r.html").unwrap(), Copies { json: None, page: page.clone() });
        assert_eq!(of("r").unwrap(), Copies { json, page });
        assert!(of("r.pdf").is_err());
        assert!(of("missing/r").unwrap_err().to_string().contains("missing"));
        assert_eq!(beside(Path::new("a/r.json")), Path::new("a/r.json.sig"));
    }
}
