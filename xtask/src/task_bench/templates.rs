//! Templates beside backups of the same image by restic and borg: time, size and memory, of the
//! first and of one after some changes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Plan;
use super::agents::{Agent, GROUP, pair};
use super::fio;
use super::programs::{fresh, mixed_file, remove, settle, taken, watched};
use super::report::{Report, Target, Unit, figure, median, median_ratio};
use crate::tree;

const PART: &str = "template";
const PASSWORD: &str = "of the bench";
/// Share of the volume that changes between two of them: one part in this many.
const CHANGED: u64 = 20;
const CASES: [&str; 2] = ["first", "5 % changed"];

/// Who makes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    Vgship,
    Restic,
    Borg,
}

impl Maker {
    fn name(self) -> &'static str {
        match self {
            Maker::Vgship => "vgship",
            Maker::Restic => "restic",
            Maker::Borg => "borg",
        }
    }

    /// The commands that make an empty store, and that add `image` to it as `name`.
    fn commands(self, store: &Path, image: &Path, name: &str) -> [Command; 2] {
        let program = || {
            let mut command = Command::new(self.name());
            command.env("RESTIC_PASSWORD", PASSWORD).env("BORG_PASSPHRASE", PASSWORD);
            command.env("BORG_BASE_DIR", store.with_extension("state"));
            command.env("XDG_CACHE_HOME", store.with_extension("state"));
            command
        };
        let (mut begin, mut add) = (program(), program());
        if self == Maker::Borg {
            begin.args(["init", "--encryption", "repokey"]).arg(store);
            add.arg("create").arg(format!("{}::{name}", store.display())).arg(image);
        } else {
            begin.arg("-r").arg(store).arg("init");
            add.arg("-r").arg(store).arg("backup").arg(image);
        }
        [begin, add]
    }
}

/// What one round gave, for the first and for the second of them.
#[derive(Default)]
struct Made {
    seconds: [Vec<f64>; 2],
    /// Of the store. Unit: bytes.
    bytes: [u64; 2],
    /// The highest of all. Unit: bytes.
    memory: u64,
}

/// Measures all three, interleaved.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let Some(program) = &plan.vgship else { return Ok(()) };
    let present = |maker: &Maker| *maker == Maker::Vgship || tree::has_program(maker.name());
    let makers = [Maker::Restic, Maker::Borg, Maker::Vgship].into_iter().filter(present);
    let mut made: Vec<(Maker, Made)> = makers.map(|maker| (maker, Made::default())).collect();
    if made.len() < 3 {
        report.fail("restic or borg is missing: `apt install restic borgbackup`".into());
    }
    let stores = plan.dir.join("stores");
    for round in 0..plan.rounds as usize {
        fresh(&stores)?;
        let (source, mut replica) =
            pair(program, &plan.dir, |image| mixed_file(image, plan.size)).context("templates")?;
        for (case, what) in CASES.into_iter().enumerate() {
            if case > 0 {
                fio::scatter(&source.uri(), plan.size, plan.size / CHANGED)?;
                source.wait_applied()?;
            }
            let count = made.len();
            for turn in 0..count {
                let (maker, made) = &mut made[(round + turn) % count];
                settle(&plan.dir)?;
                make(*maker, &stores, &mut replica, case, made)
                    .with_context(|| format!("{}, {what}", maker.name()))?;
            }
        }
        source.discard()?;
        replica.discard()?;
    }
    remove(&stores)?;
    show(plan, &made, report);
    Ok(())
}

fn make(
    maker: Maker,
    stores: &Path,
    replica: &mut Agent,
    case: usize,
    made: &mut Made,
) -> Result<()> {
    let store: PathBuf = stores.join(maker.name());
    let name = format!("t{case}");
    let (seconds, memory) = if maker == Maker::Vgship {
        if case == 0 {
            // Its highest counts from its start.
            replica.stop()?;
            replica.start()?;
        }
        let (from, url) = (format!("{GROUP}@{name}"), store.display().to_string());
        replica.say(&["snapshot", "create", GROUP, &name])?;
        let took =
            replica.time(&["template", "create", &name, "--from", &from, "--store", &url])?;
        (took, replica.memory()?.peak)
    } else {
        let [mut begin, mut add] = maker.commands(&store, &replica.image(), &name);
        if case == 0 {
            tree::output(&mut begin)?;
        }
        watched(&mut add)?
    };
    made.seconds[case].push(seconds);
    made.bytes[case] = taken(&store)?;
    made.memory = made.memory.max(memory);
    Ok(())
}

fn show(plan: &Plan, made: &[(Maker, Made)], report: &mut Report) {
    let restic = made.iter().find(|(maker, _)| *maker == Maker::Restic).map(|(_, made)| made);
    let mib = |bytes: u64| figure(bytes) / figure(1 << 20);
    for (case, name) in CASES.into_iter().enumerate() {
        for (maker, made) in made {
            let rate = figure(plan.size) / 1e6 / median(&made.seconds[case]);
            report.add(PART, name, maker.name(), rate, Unit::MegabytesPerSecond);
            if *maker == Maker::Vgship
                && let Some(restic) = restic
            {
                // Of times, so the other way round: above 1 vgship is the faster one.
                let ratio = median_ratio(&restic.seconds[case], &made.seconds[case]);
                let target = (case == 0).then_some(Target::AtLeast(2.0));
                report.ratio(ratio, "restic", target);
            }
        }
        for (maker, made) in made {
            let subject = format!("{}, store", maker.name());
            report.add(PART, name, &subject, mib(made.bytes[case]), Unit::Mebibytes);
        }
    }
    for (maker, made) in made {
        let subject = format!("{}, peak", maker.name());
        report.add(PART, "memory", &subject, mib(made.memory), Unit::Mebibytes);
    }
}
