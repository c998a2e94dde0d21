//! A new environment of a replica's volume: at once as a clone, and written out, beside programs
//! that copy its image.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::Plan;
use super::agents::{GROUP, VOLUME, pair};
use super::fio;
use super::programs::{flush, remove, same, settle, sparse_file};
use super::report::{Report, Unit, figure, median, median_ratio};
use crate::tree;

const PART: &str = "environment";

/// Measures a volume of which half holds data, the rest holes.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let Some(program) = &plan.vgship else { return Ok(()) };
    let (source, replica) =
        pair(program, &plan.dir, |image| sparse_file(image, plan.size)).context("environments")?;
    fio::sequential(&source.uri(), plan.size / 2)?;
    source.wait_applied()?;
    replica.say(&["snapshot", "create", GROUP, "s"])?;
    let from = format!("{GROUP}@s");
    let (image, out) = (replica.image(), plan.dir.join("seeded"));
    let copy = out.join(VOLUME);
    let [mut clones, mut written, mut cp, mut qemu]: [Vec<f64>; 4] = Default::default();
    for _ in 0..plan.rounds {
        clones.push(replica.time(&["env", "create", "e", "--from", &from, "--nbd"])?);
        replica.say(&["env", "destroy", "e"])?;
        written.push(timed(plan, &out, &copy, |out| {
            let to = out.to_str().context("the folder's name")?;
            replica.say(&["snapshot", "export", &from, "--to", to]).map(|_| ())
        })?);
        same(&image, &copy)?;
        cp.push(timed(plan, &out, &copy, |out| {
            std::fs::create_dir_all(out)?;
            let mut cp = Command::new("cp");
            tree::run(cp.arg("--sparse=always").arg(&image).arg(out.join(VOLUME)))
        })?);
        qemu.push(timed(plan, &out, &copy, |out| {
            std::fs::create_dir_all(out)?;
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", "raw", "-O", "raw"]);
            tree::run(convert.arg(&image).arg(out.join(VOLUME)))
        })?);
    }
    report.add(PART, "clone", "vgship", median(&clones) * 1e3, Unit::Milliseconds);
    let rate = |seconds: f64| figure(plan.size) / 1e6 / seconds;
    for (name, others) in [("cp --sparse", &cp), ("qemu-img convert", &qemu)] {
        report.add(PART, "written out", name, rate(median(others)), Unit::MegabytesPerSecond);
        report.add(PART, "written out", "vgship", rate(median(&written)), Unit::MegabytesPerSecond);
        // Of times, so the other way round: above 1 vgship is the faster one.
        report.ratio(median_ratio(others, &written), name, None);
    }
    source.discard()?;
    replica.discard()
}

/// How long `make` takes to make `copy` in a new folder `out`, on the disk. Unit: seconds.
fn timed(
    plan: &Plan,
    out: &Path,
    copy: &Path,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<f64> {
    remove(out)?;
    settle(&plan.dir)?;
    let started = Instant::now();
    make(out)?;
    flush(copy)?;
    Ok(started.elapsed().as_secs_f64())
}
