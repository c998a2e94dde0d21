//! How long it takes until the other side is the source, and what a failback ships.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Plan;
use super::agents::{Agent, GROUP, pair};
use super::fio;
use super::programs::{settle, sparse_file, until};
use super::report::{Report, Target, Unit, figure, median};

const PART: &str = "roles";
/// Sizes of volumes that hold little.
const SIZES: [(&str, u64); 2] = [("1 GiB", 1 << 30), ("100 GiB", 100 << 30)];
/// Written just before a switchover, and not waited for. Unit: bytes.
const UNDER_WAY: u64 = 32 << 20;
/// What each side writes that the other never gets. Unit: bytes.
const APART: u64 = 8 << 20;
/// What a source tracks by. Unit: bytes.
const EXTENT: u64 = 64 << 10;
const MIB: f64 = 1_048_576.0;
/// How long both sides may take to meet again.
const MEET: Duration = Duration::from_mins(2);

/// Measures each size.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    if plan.vgship.is_none() {
        return Ok(());
    }
    for (name, bytes) in SIZES {
        size(plan, name, bytes, report).with_context(|| format!("roles, {name}"))?;
    }
    Ok(())
}

#[derive(Default)]
struct Figures {
    /// Until the command has ended: the other side is the source, and this one protected by it.
    switchover: Vec<f64>,
    /// Until a write was taken on the other side.
    failover: Vec<f64>,
    /// From the command until both sides are in sync again.
    failback: Vec<f64>,
    /// What was shipped then, all records and offers. Unit: bytes.
    shipped: Vec<f64>,
}

fn size(plan: &Plan, name: &str, bytes: u64, report: &mut Report) -> Result<()> {
    let Some(program) = &plan.vgship else { return Ok(()) };
    let (mut one, mut other) = pair(program, &plan.dir, |image| sparse_file(image, bytes))?;
    fio::scatter(&one.uri(), bytes, 64 << 20)?;
    one.wait_applied()?;
    let mut figures = Figures::default();
    for _ in 0..plan.rounds {
        settle(&plan.dir)?;
        fio::scatter(&one.uri(), bytes, UNDER_WAY)?;
        figures.switchover.push(one.time(&["switchover", GROUP])?);
        std::mem::swap(&mut one, &mut other);
        apart(&mut one, &mut other, bytes, &mut figures)?;
        std::mem::swap(&mut one, &mut other);
    }
    let Figures { switchover, failover, failback, shipped } = &figures;
    for (what, seconds, target) in [
        ("switchover, protected again", switchover, Some(Target::AtMost(5000.0))),
        ("failover, first write taken", failover, Some(Target::AtMost(2000.0))),
        ("failback, in sync", failback, None),
    ] {
        report.add(PART, name, what, median(seconds) * 1e3, Unit::Milliseconds);
        report.aim(target);
    }
    // Each block of 4 KiB lies in an extent of its own.
    let changed = figure(2 * APART / 4096 * EXTENT);
    report.add(PART, name, "failback, shipped", median(shipped) / MIB, Unit::Mebibytes);
    report.ratio(median(shipped) / changed, "extents changed", Some(Target::AtMost(1.2)));
    one.discard()?;
    other.discard()
}

/// The source dies, the other side takes over, both write, and the first follows the other.
fn apart(source: &mut Agent, replica: &mut Agent, bytes: u64, figures: &mut Figures) -> Result<()> {
    source.wait_applied()?;
    let old = generation(source)?;
    source.kill()?;
    let started = Instant::now();
    replica.say(&["failover", GROUP, "--generation", &old, "--force"])?;
    fio::scatter(&replica.uri(), bytes, 4096)?;
    figures.failover.push(started.elapsed().as_secs_f64());
    fio::scatter(&replica.uri(), bytes, APART)?;
    source.start()?;
    fio::scatter(&source.uri(), bytes, APART)?;
    until(MEET, "the meeting of both sides", || {
        group(source).is_ok_and(|group| group["state"] == "diverged")
    })?;
    let before = replica.sent_bytes()?.unwrap_or_default();
    let started = Instant::now();
    source.say(&["failback", GROUP, "--generation", &old, "--force"])?;
    replica.wait_applied()?;
    figures.failback.push(started.elapsed().as_secs_f64());
    let sent = replica.sent_bytes()?.unwrap_or_default() - before;
    figures.shipped.push(figure(sent));
    Ok(())
}

fn group(agent: &Agent) -> Result<Value> {
    let said = agent.say(&["status", GROUP, "--json"])?;
    let status: Value = serde_json::from_str(&said).context("status --json")?;
    Ok(status["groups"][0].clone())
}

fn generation(agent: &Agent) -> Result<String> {
    let group = group(agent)?;
    Ok(group["generation"].as_str().context("a generation")?.to_owned())
}
