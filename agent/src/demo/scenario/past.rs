//! The replica's past: a snapshot under load, a point between two snapshots, and an environment of
//! it that is masked, checked, leased and destroyed. Every image is proven to be a prefix.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use vgship_base::disk::Disk;
use vgship_base::io::FileDisk;

use super::super::images::Found;
use super::super::nbd::Client;
use super::super::report::Kept;
use super::super::role;
use super::{GROUP, MID_STREAM, SEED, Scenario};

/// The environment's name.
const ENV: &str = "check";

/// A point that was kept while the workload ran.
struct Moment {
    name: &'static str,
    /// Steps that were done before it was asked for.
    least: u64,
    /// Steps that had been issued when it was there.
    most: u64,
}

impl Scenario<'_> {
    /// Everything of the past that is shown.
    pub(super) fn past(&mut self) -> Result<()> {
        let begun = Instant::now();
        let first = self.keep(&["snapshot", "create"], "before")?;
        let took = begun.elapsed().as_secs_f64();
        let between = self.keep(&["marker"], "between")?;
        let second = self.keep(&["snapshot", "create"], "after")?;
        self.say(&format!("took two snapshots under load, the first in {:.0} ms", took * 1e3))?;
        self.world()?.wait("applied")?;
        let points = [("before", &first), ("marker:between", &between), ("after", &second)];
        let mut steps = Vec::new();
        for (point, moment) in points {
            steps.push(self.exported(point, moment)?);
        }
        ensure!(steps.is_sorted(), "points are not in order: {steps:?}");
        self.held("two snapshots under load, and a point between them, are prefixes");
        self.say(&format!(
            "all three are prefixes: exactly {} steps, {} at the point between, {} steps",
            steps[0], steps[1], steps[2]
        ))?;
        let ready = self.environment(&between, steps[1])?;
        self.report.past = Kept { snapshot_seconds: took, steps, environment_seconds: ready };
        Ok(())
    }

    /// Names the present moment with a command at the source, and lets the workload go on.
    fn keep(&mut self, words: &[&str], name: &'static str) -> Result<Moment> {
        let world = self.world()?;
        let least = world.counts().steps;
        world.source.say(&[words, &[GROUP, name]].concat())?;
        let most = world.shared().chain().last();
        self.until("the next steps", |world| Ok(world.counts().steps >= most + MID_STREAM))?;
        Ok(Moment { name, least, most })
    }

    /// Writes a point to files and proves what it is; gives its number of steps.
    fn exported(&mut self, point: &str, moment: &Moment) -> Result<u64> {
        let folder = self.dir.join(moment.name);
        let world = self.world()?;
        let to = folder.to_str().context("the folder's name")?;
        world.replica.say(&["snapshot", "export", &format!("{GROUP}@{point}"), "--to", to])?;
        let names = world.images[0].written.lvs.iter().map(|lv| folder.join(&lv.name));
        let disks = names.map(|path| {
            FileDisk::open_read_only(&path).with_context(|| path.display().to_string())
        });
        let disks = disks.collect::<Result<Vec<_>>>()?;
        let bytes = world.images[0].lv_bytes();
        let found = Found::read(SEED, world.shared(), bytes, |lv, at, into| {
            Ok(disks[lv].read_at(at, into)?)
        })?;
        let steps = prove(&found, moment, world.shared())?;
        fs::remove_dir_all(&folder)?;
        Ok(steps)
    }

    /// Makes an environment, looks at it, destroys it; how long it took until it was ready. Unit:
    /// seconds.
    fn environment(&mut self, moment: &Moment, steps: u64) -> Result<f64> {
        let mask = self.dir.join("mask.sh");
        let program = std::env::current_exe().context("find this program")?;
        let own = |role: &str| format!("exec '{}' demo --inside {role}", program.display());
        fs::write(&mask, format!("#!/bin/sh\n{}\n", own("mask")))?;
        fs::set_permissions(&mask, fs::Permissions::from_mode(0o700))?;
        let world = self.world()?;
        let from = format!("{GROUP}@marker:{}", moment.name);
        let mask = mask.to_str().context("the program's path")?;
        let begun = Instant::now();
        world.replica.say(&[
            "env",
            "create",
            ENV,
            "--from",
            &from,
            "--nbd",
            "--owner",
            "demo",
            "--lease",
            "1h",
            "--mask",
            mask,
            "--step",
            &own("check"),
        ])?;
        let ready = begun.elapsed().as_secs_f64();
        let log = world.replica.say(&["env", "log", ENV])?;
        ensure!(log.contains(role::CHECKED), "the environment's log lacks the check: {log}");
        let socket = world.replica.home().nbd_socket();
        let lvs = &world.images[0].written.lvs;
        let exports: Vec<String> =
            lvs.iter().map(|lv| format!("env/{ENV}/{GROUP}/{}", lv.name)).collect();
        let clients = exports.iter().map(|export| Client::connect(&socket, export));
        let mut clients = clients.collect::<std::io::Result<Vec<_>>>()?;
        let bytes = world.images[0].lv_bytes();
        let found = Found::read(SEED, world.shared(), bytes, |lv, at, into| {
            clients[lv].read(at, into)?;
            role::unmask(SEED, lv, at, into)
        })?;
        ensure!(prove(&found, moment, world.shared())? == steps, "it is another point");
        drop(clients);
        world.replica.say(&["env", "extend", ENV, "--lease", "2h"])?;
        world.replica.say(&["env", "destroy", ENV])?;
        for export in &exports {
            ensure!(Client::connect(&socket, export).is_err(), "{export} is still served");
        }
        ensure!(!world.replica.home().environments().join(ENV).exists(), "its files are left");
        // What was written to it is nowhere else.
        let again = self.exported(&format!("marker:{}", moment.name), moment)?;
        ensure!(again == steps, "the point has changed");
        self.held("an environment of the point was masked, checked, leased and destroyed");
        self.say(&format!(
            "an environment of the point between was ready in {ready:.1} s: masked, checked, \
             leased, destroyed; the point itself is as it was"
        ))?;
        Ok(ready)
    }
}

/// Proves that an image is a prefix, and of the right length.
fn prove(found: &Found, moment: &Moment, shared: &super::Shared) -> Result<u64> {
    let steps = found.prove_prefix(moment.least, shared).context(moment.name)?;
    let Moment { name, most, .. } = moment;
    ensure!(steps <= *most, "{name} shows {steps} steps, and {most} had been issued");
    Ok(steps)
}
