//! How long a replica takes to become equal: from nothing, and after scattered changes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::agents::{Agent, loopback_bytes};
use super::programs::{Nbdkit, copy_file, flush, random_file, remove, same, settle, sparse_file};
use super::report::{Report, Target, Unit, figure, median, median_ratio};
use super::{Plan, fio, limits};
use crate::tree;

const PART: &str = "sync";
/// Share of the volume that changes before a resync: one part in this many.
const CHANGED: u64 = 20;

/// A program that makes one file equal to another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Nbdcopy,
    QemuImg,
    Rsync,
}

const TOOLS: [Tool; 3] = [Tool::Nbdcopy, Tool::QemuImg, Tool::Rsync];

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Nbdcopy => "nbdcopy",
            Tool::QemuImg => "qemu-img convert",
            Tool::Rsync => "rsync --inplace",
        }
    }

    /// Makes `to` equal to `from`; gives the seconds until the disk has all of it.
    fn copy(self, from: &Path, to: &Path) -> Result<f64> {
        let is_fresh = !to.exists();
        if is_fresh {
            sparse_file(to, from.metadata()?.len())?;
        }
        let started;
        match self {
            Tool::Nbdcopy => {
                let (source, target) = (Nbdkit::serve(from)?, Nbdkit::serve(to)?);
                started = Instant::now();
                let mut command = Command::new("nbdcopy");
                command.args(["--flush", "--", &source.uri(), &target.uri()]);
                tree::output(&mut command)?;
            }
            Tool::QemuImg => {
                started = Instant::now();
                let mut command = Command::new("qemu-img");
                command.args(["convert", "-n", "-W", "-f", "raw", "-O", "raw"]);
                tree::output(command.arg(from).arg(to))?;
            }
            Tool::Rsync => {
                started = Instant::now();
                let mut command = Command::new("rsync");
                command.arg("--inplace").args((!is_fresh).then_some("--no-whole-file"));
                // Its own quick check goes by size and time, which say nothing here.
                tree::output(command.arg("--ignore-times").arg(from).arg(to))?;
            }
        }
        flush(to)?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// Seconds per round.
#[derive(Default)]
struct Times {
    tools: [Vec<f64>; TOOLS.len()],
    vgship: Vec<f64>,
}

/// What a resync sent, per round. Unit: bytes sent per byte changed.
#[derive(Default)]
struct Sent {
    by_agent: Vec<f64>,
    on_wire: Vec<f64>,
}

/// Measures both cases, round by round, every tool in each.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let (mut initial, mut resync) = (Times::default(), Times::default());
    let (mut sent, mut quinn) = (Sent::default(), Vec::new());
    let old = plan.dir.join("old.img");
    let new = plan.dir.join("new.img");
    for _ in 0..plan.rounds {
        random_file(&old, plan.size)?;
        if let Some(program) = &plan.vgship {
            let (first, again) = with_agents(plan, program, &old, &new, &mut sent)?;
            initial.vgship.push(first);
            resync.vgship.push(again);
            match limits::raw_quinn() {
                Ok(rate) => quinn.push(rate),
                Err(error) => report.fail(format!("sync, raw quinn: {error:#}")),
            }
        } else {
            copy_file(&old, &new)?;
            let server = Nbdkit::serve(&new)?;
            fio::scatter(&server.uri(), plan.size, plan.size / CHANGED)?;
        }
        for (index, tool) in TOOLS.into_iter().enumerate() {
            let (first, again) = with_tool(plan, tool, &old, &new)?;
            initial.tools[index].push(first);
            resync.tools[index].push(again);
        }
    }
    remove(&old)?;
    remove(&new)?;
    show("initial", plan, &initial, report);
    if quinn.len() == initial.vgship.len() && !quinn.is_empty() {
        let rates: Vec<f64> =
            initial.vgship.iter().map(|it| figure(plan.size) / it / 1e6).collect();
        report.add(PART, "initial", "vgship", median(&rates), Unit::MegabytesPerSecond);
        let target = Some(Target::AtLeast(0.7));
        report.ratio(median_ratio(&rates, &quinn), "raw quinn", target);
    }
    show("resync of 5 %", plan, &resync, report);
    let changed = plan.size / CHANGED;
    let mut target = Some(Target::AtMost(1.3));
    for (ratios, name) in [(&sent.by_agent, "vgship sent"), (&sent.on_wire, "all on loopback")] {
        if !ratios.is_empty() {
            let ratio = median(ratios);
            let bytes = ratio * figure(changed) / figure(1 << 20);
            report.add(PART, "resync of 5 %", name, bytes, Unit::Mebibytes);
            // What loopback carried is judged only when the agent does not count by itself: it
            // has everybody's traffic in it.
            report.ratio(ratio, "changed bytes", target.take());
        }
    }
    Ok(())
}

fn show(case: &str, plan: &Plan, times: &Times, report: &mut Report) {
    let rate = |seconds: &f64| figure(plan.size) / seconds / 1e6;
    for (tool, seconds) in TOOLS.iter().zip(&times.tools) {
        let rates: Vec<f64> = seconds.iter().map(rate).collect();
        report.add(PART, case, tool.name(), median(&rates), Unit::MegabytesPerSecond);
    }
    for (tool, seconds) in TOOLS.iter().zip(&times.tools) {
        if !times.vgship.is_empty() {
            let mine: Vec<f64> = times.vgship.iter().map(rate).collect();
            let theirs: Vec<f64> = seconds.iter().map(rate).collect();
            report.add(PART, case, "vgship", median(&mine), Unit::MegabytesPerSecond);
            report.ratio(median_ratio(&mine, &theirs), tool.name(), None);
        }
    }
}

/// One round of a tool: seconds of the first copy, and of the copy over the old content.
fn with_tool(plan: &Plan, tool: Tool, old: &Path, new: &Path) -> Result<(f64, f64)> {
    let copy = plan.dir.join("copy.img");
    remove(&copy)?;
    settle(&plan.dir)?;
    let first = tool.copy(old, &copy).with_context(|| format!("sync, {}", tool.name()))?;
    same(old, &copy)?;
    settle(&plan.dir)?;
    let again = tool.copy(new, &copy).with_context(|| format!("sync, {}", tool.name()))?;
    same(new, &copy)?;
    remove(&copy)?;
    Ok((first, again))
}

/// One round of two agents: seconds of both syncs. Leaves the changed volume in `new`.
///
/// The source is restarted, cleanly, before the resync, so that what its outbox still held in
/// memory is gone and the dirty map alone says what differs.
fn with_agents(
    plan: &Plan,
    program: &Path,
    old: &Path,
    new: &Path,
    sent: &mut Sent,
) -> Result<(f64, f64)> {
    let mut source = Agent::begin(program, &plan.dir, "source")?;
    copy_file(old, &source.image())?;
    source.add_group()?;
    let mut replica = Agent::begin(program, &plan.dir, "target")?;
    settle(&plan.dir)?;
    let started = Instant::now();
    source.take_replica(&replica)?;
    source.wait_applied().context("sync, initial sync")?;
    let first = started.elapsed().as_secs_f64();
    let image: PathBuf = replica.image();
    same(&source.image(), &image).context("sync, after the initial sync")?;

    replica.stop()?;
    let written = fio::scatter(&source.uri(), plan.size, plan.size / CHANGED)?;
    source.stop()?;
    source.start()?;
    settle(&plan.dir)?;
    let (said, carried) = (source.sent_bytes()?, loopback_bytes()?);
    let started = Instant::now();
    replica.start()?;
    source.wait_applied().context("sync, resync")?;
    let again = started.elapsed().as_secs_f64();
    let carried = loopback_bytes()? - carried;
    same(&source.image(), &image).context("sync, after the resync")?;
    sent.on_wire.push(figure(carried) / figure(written.total));
    if let Some(after) = source.sent_bytes()? {
        let before = said.unwrap_or(0).min(after);
        sent.by_agent.push(figure(after - before) / figure(written.total));
    }
    copy_file(&source.image(), new)?;
    source.discard()?;
    replica.discard()?;
    Ok((first, again))
}
