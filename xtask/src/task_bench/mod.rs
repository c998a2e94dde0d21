//! `cargo xtask bench`: vgship beside other programs in the same run, as ratios.
//!
//! Absolute figures of a shared machine say little, so every figure of vgship stands beside one of
//! a known program that did the same work on the same disk within seconds: rounds are interleaved,
//! a ratio is taken within its round, and the median of the rounds is shown.

mod agents;
mod environments;
mod fio;
mod foreground;
mod limits;
mod memory;
mod programs;
mod report;
mod roles;
mod snapshots;
mod sync;
mod templates;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::report::Report;
use crate::tree;

/// Measure vgship beside nbdkit, nbdcopy, qemu-img, rsync, restic and borg
///
/// Needs fio, nbdkit, nbdcopy, qemu-img and rsync (`cargo xtask test` installs them), restic and
/// borg (`apt install restic borgbackup`), and about six times `--size` of free disk.
#[derive(clap::Args)]
pub struct Args {
    /// A small run of a minute or two: less data, shorter loads
    #[arg(long)]
    quick: bool,
    /// Print one JSON document instead of the table
    #[arg(long)]
    json: bool,
    /// Measure these parts only
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure the other programs only, without vgship
    #[arg(long)]
    without_agent: bool,
    /// Size of the measured volume. Unit: MiB
    #[arg(long)]
    size: Option<u64>,
    /// Rounds of each measurement [default: 3]
    #[arg(long)]
    rounds: Option<u32>,
    /// Work here, on the disk to be measured [default: bench in the target folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Use this vgship instead of building one
    #[arg(long)]
    vgship: Option<PathBuf>,
}

/// A part of the measurements.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Writes of an application: 4 KiB and 1 MiB, random and sequential
    Foreground,
    /// Initial sync, and resync after scattered changes
    Sync,
    /// What snapshots cost writers, and how long they, clones and points take
    Snapshots,
    /// Environments written out, beside cp and qemu-img
    Environments,
    /// Templates beside restic and borg
    Templates,
    /// How long a switchover and a failover take, and what a failback ships
    Roles,
    /// Memory of the agent, and how it grows with the size of the volume
    Memory,
    /// What the disk and the transport can do by themselves
    Limits,
}

/// Measures one part.
type Measure = fn(&Plan, &mut Report) -> Result<()>;

/// What all parts need to know.
pub struct Plan {
    /// Folder for all files, on the disk that is measured.
    pub dir: PathBuf,
    /// The agent's program; none when only the other programs are measured.
    pub vgship: Option<PathBuf>,
    /// Size of the volume. Unit: bytes.
    pub size: u64,
    /// Rounds of each measurement.
    pub rounds: u32,
    /// Length of one foreground run. Unit: seconds.
    pub seconds: u32,
}

/// Gives whether all that was asked for could be measured; a missed target is no failure.
pub fn run(args: &Args) -> Result<bool> {
    for program in ["fio", "nbdkit", "nbdcopy", "qemu-img", "rsync", "cmp"] {
        if !tree::has_program(program) {
            bail!("{program} is missing; `cargo xtask test` as root installs it");
        }
    }
    let dir = args.dir.clone().unwrap_or_else(|| tree::target().join("bench"));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let dir = dir.canonicalize()?;
    if dir.as_os_str().len() > 70 {
        bail!("{} is too long for the path of a socket; choose another --dir", dir.display());
    }
    let vgship = match (&args.vgship, args.without_agent) {
        (_, true) => None,
        (Some(program), false) => Some(program.canonicalize()?),
        (None, false) => Some(tree::build_agent()?),
    };
    let plan = Plan {
        dir,
        vgship,
        size: args.size.unwrap_or(if args.quick { 256 } else { 2048 }) << 20,
        rounds: args.rounds.unwrap_or(3),
        seconds: if args.quick { 1 } else { 5 },
    };
    let mut report = Report::default();
    let parts: [(Part, Measure); 8] = [
        (Part::Limits, limits::measure),
        (Part::Foreground, foreground::measure),
        (Part::Sync, sync::measure),
        (Part::Snapshots, snapshots::measure),
        (Part::Environments, environments::measure),
        (Part::Templates, templates::measure),
        (Part::Roles, roles::measure),
        (Part::Memory, memory::measure),
    ];
    for (part, measure) in parts {
        let is_wanted = args.only.is_empty() || args.only.contains(&part);
        if is_wanted && let Err(error) = measure(&plan, &mut report) {
            report.fail(format!("{error:#}"));
        }
    }
    if args.json {
        println!("{:#}", report.json(&plan));
    } else {
        report.print(&plan);
    }
    Ok(report.is_complete())
}
