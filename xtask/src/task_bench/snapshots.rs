//! What snapshots cost those who write, and how long it takes to make one, to clone it, to open a
//! point behind it, and to delete it.

use std::time::Instant;

use anyhow::{Context, Result};

use super::Plan;
use super::agents::{Agent, GROUP, pair};
use super::fio::{self, LOADS, Measured, over_nbd};
use super::programs::{random_file, settle, sparse_file};
use super::report::{Report, Target, Unit, figure, median, median_ratio};

const PART: &str = "snapshots";
/// How many snapshots there are while the volume is overwritten.
const COUNTS: [usize; 4] = [0, 1, 8, 64];
/// Sizes of volumes that hold little.
const SIZES: [(&str, u64); 3] = [("1 GiB", 1 << 30), ("64 GiB", 64 << 30), ("1 TiB", 1 << 40)];
/// Journal between a snapshot and the point that is opened. Unit: bytes.
const WINDOWS: [u64; 4] = [0, 64 << 20, 256 << 20, 1 << 30];
/// Times are taken this often.
const TIMES: usize = 5;

/// Measures all of it.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    if plan.vgship.is_none() {
        return Ok(());
    }
    overwrites(plan, report).context("snapshots, overwrites")?;
    for (name, bytes) in SIZES {
        times(plan, name, bytes, report).with_context(|| format!("snapshots, {name}"))?;
    }
    points(plan, report).context("snapshots, points")
}

/// What was measured with some number of snapshots, by round.
#[derive(Default)]
struct Overwritten {
    /// The first overwrite of all, until it is applied. Unit: bytes a second.
    first: Vec<f64>,
    /// What the application got once all was preserved. Unit: bytes a second.
    after: Vec<f64>,
}

/// Overwrites a whole volume whose replica has some snapshots, and then goes on writing.
fn overwrites(plan: &Plan, report: &mut Report) -> Result<()> {
    let Some(program) = &plan.vgship else { return Ok(()) };
    let size = plan.size.min(1 << 30);
    let (source, replica) = pair(program, &plan.dir, |image| random_file(image, size))?;
    let mut measured: [Overwritten; COUNTS.len()] = Default::default();
    for round in 0..plan.rounds as usize {
        for turn in 0..COUNTS.len() {
            let at = (round + turn) % COUNTS.len();
            let names: Vec<String> = (0..COUNTS[at]).map(|n| format!("bench-{n}")).collect();
            for name in &names {
                source.say(&["snapshot", "create", GROUP, name])?;
            }
            settle(&plan.dir)?;
            let started = Instant::now();
            fio::sequential(&source.uri(), size)?;
            wait(&source)?;
            measured[at].first.push(figure(size) / started.elapsed().as_secs_f64());
            settle(&plan.dir)?;
            let Measured { bytes, .. } = over_nbd(&source.uri(), LOADS[2], plan.seconds, size)?;
            measured[at].after.push(bytes);
            wait(&source)?;
            for name in &names {
                replica.say(&["snapshot", "delete", &format!("{GROUP}@{name}")])?;
            }
        }
    }
    for (at, count) in COUNTS.into_iter().enumerate() {
        let Overwritten { first, after } = &measured[at];
        let case = format!("{count} snapshots");
        report.add(PART, &case, "first overwrite", median(first) / 1e6, Unit::MegabytesPerSecond);
        report.ratio(median_ratio(first, &measured[0].first), "0 snapshots", None);
        report.add(
            PART,
            &case,
            "1 MiB random after",
            median(after) / 1e6,
            Unit::MegabytesPerSecond,
        );
        let target = (count == 1).then_some(Target::AtLeast(0.7));
        report.ratio(median_ratio(after, &measured[0].after), "0 snapshots", target);
    }
    source.discard()?;
    replica.discard()
}

/// How long commands take on a volume of some size, sparse but for 64 MiB here and there.
fn times(plan: &Plan, size: &str, bytes: u64, report: &mut Report) -> Result<()> {
    let Some(program) = &plan.vgship else { return Ok(()) };
    let (source, replica) = pair(program, &plan.dir, |image| sparse_file(image, bytes))?;
    fio::scatter(&source.uri(), bytes, 64 << 20)?;
    wait(&source)?;
    settle(&plan.dir)?;
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..TIMES {
        let from = format!("{GROUP}@s");
        figures[0].push(replica.time(&["snapshot", "create", GROUP, "s"])?);
        // Half of what was there is written anew: deleting then has something to give back.
        fio::scatter(&source.uri(), bytes, 16 << 20)?;
        wait(&source)?;
        figures[1].push(replica.time(&["env", "create", "e", "--from", &from, "--nbd"])?);
        figures[2].push(replica.time(&["env", "destroy", "e"])?);
        figures[3].push(replica.time(&["snapshot", "delete", &from])?);
    }
    let words = [
        ("snapshot", Some(Target::AtMost(50.0))),
        ("clone ready", Some(Target::AtMost(100.0))),
        ("clone destroyed", None),
        ("snapshot deleted", None),
    ];
    for ((what, target), figures) in words.into_iter().zip(&figures) {
        report.add(PART, size, what, median(figures) * 1e3, Unit::Milliseconds);
        report.aim(target);
    }
    source.discard()?;
    replica.discard()
}

/// How long it takes to open the newest point, by how much journal lies behind its snapshot.
fn points(plan: &Plan, report: &mut Report) -> Result<()> {
    let Some(program) = &plan.vgship else { return Ok(()) };
    let size = 1 << 30;
    let (source, replica) = pair(program, &plan.dir, |image| sparse_file(image, size))?;
    let mut written = 0;
    replica.say(&["snapshot", "create", GROUP, "base"])?;
    for window in WINDOWS {
        if window > plan.size {
            break;
        }
        if window > written {
            fio::scatter(&source.uri(), size, window - written)?;
        }
        written = window;
        wait(&source)?;
        settle(&plan.dir)?;
        let mut figures = Vec::new();
        for _ in 0..plan.rounds {
            let from = format!("{GROUP}@now");
            figures.push(replica.time(&["env", "create", "e", "--from", &from, "--nbd"])?);
            replica.say(&["env", "destroy", "e"])?;
        }
        let case = format!("{} MiB of journal", window >> 20);
        report.add(PART, &case, "point opened", median(&figures), Unit::Seconds);
    }
    source.discard()?;
    replica.discard()
}

fn wait(source: &Agent) -> Result<()> {
    source.say(&["wait", GROUP, "--for", "applied", "--timeout", "15m"]).map(|_| ())
}
