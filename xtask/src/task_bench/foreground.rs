//! What an application notices: its writes over NBD, beside the same writes to nbdkit.

use std::time::Instant;

use anyhow::{Context, Result};

use super::Plan;
use super::agents::Agent;
use super::fio::{LOADS, Load, Measured, over_nbd};
use super::programs::{Nbdkit, random_file, remove, settle};
use super::report::{Report, Target, Unit, figure, median, median_ratio};

const PART: &str = "foreground";

/// One server under load, and what it gave per load and round.
struct Subject {
    name: &'static str,
    uri: String,
    target: Option<f64>,
    measured: [Vec<Measured>; LOADS.len()],
}

impl Subject {
    fn new(name: &'static str, uri: String, target: Option<f64>) -> Subject {
        Subject { name, uri, target, measured: Default::default() }
    }

    fn figures(&self, load: usize, of: fn(&Measured) -> f64) -> Vec<f64> {
        self.measured[load].iter().map(of).collect()
    }
}

/// The agents of the part. All serve a volume of the same size on the same disk.
struct Agents {
    alone: Agent,
    paired: Agent,
    replica: Agent,
    cut: Agent,
    /// Kept for its home; its process is stopped.
    gone: Agent,
}

/// Measures each load against each server, in turns.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let file = plan.dir.join("nbdkit.img");
    random_file(&file, plan.size)?;
    let nbdkit = Nbdkit::serve(&file)?;
    let mut subjects = vec![Subject::new("nbdkit file", nbdkit.uri(), None)];
    let agents = begin(plan).context("foreground")?;
    if let Some(agents) = &agents {
        subjects.push(Subject::new("vgship, no peer", agents.alone.uri(), Some(1.0)));
        subjects.push(Subject::new("vgship, with peer", agents.paired.uri(), Some(0.6)));
        subjects.push(Subject::new("vgship, link down", agents.cut.uri(), None));
    }
    let mut drains = Vec::new();
    let count = subjects.len();
    for round in 0..plan.rounds as usize {
        for (index, load) in LOADS.iter().enumerate() {
            for turn in 0..count {
                // Another one first each time, so that nobody always follows the same.
                let subject = &mut subjects[(round + index + turn) % count];
                settle(&plan.dir)?;
                let measured = over_nbd(&subject.uri, *load, plan.seconds, plan.size)
                    .with_context(|| format!("foreground, {}, {}", load.name, subject.name))?;
                subject.measured[index].push(measured);
                if let Some(agents) = &agents
                    && subject.uri == agents.paired.uri()
                {
                    let started = Instant::now();
                    agents.paired.wait_applied()?;
                    drains.push(started.elapsed().as_secs_f64());
                }
            }
        }
    }
    for (index, load) in LOADS.iter().enumerate() {
        show(index, *load, &subjects, report);
    }
    if let Some(agents) = agents {
        report.add(PART, "until applied", "after each load", median(&drains), Unit::Seconds);
        for (name, agent) in
            [("no peer", &agents.alone), ("source", &agents.paired), ("replica", &agents.replica)]
        {
            let peak = figure(agent.memory()?.peak) / figure(1 << 20);
            report.add(PART, "memory, peak", name, peak, Unit::Mebibytes);
        }
        for agent in [agents.alone, agents.paired, agents.replica, agents.cut, agents.gone] {
            agent.discard()?;
        }
    }
    drop(nbdkit);
    remove(&file)
}

fn show(index: usize, load: Load, subjects: &[Subject], report: &mut Report) {
    let (of, unit): (fn(&Measured) -> f64, Unit) = match load.is_small {
        true => (|measured| measured.writes, Unit::WritesPerSecond),
        false => (|measured| measured.bytes / 1e6, Unit::MegabytesPerSecond),
    };
    let base = subjects.first().map(|subject| subject.figures(index, of)).unwrap_or_default();
    for (number, subject) in subjects.iter().enumerate() {
        let figures = subject.figures(index, of);
        report.add(PART, load.name, subject.name, median(&figures), unit);
        if number > 0 {
            let target = subject.target.map(Target::AtLeast);
            report.ratio(median_ratio(&figures, &base), "nbdkit file", target);
        }
    }
    for subject in subjects {
        let waits = subject.figures(index, |measured| measured.p99);
        let case = format!("{}, p99", load.name);
        report.add(PART, &case, subject.name, median(&waits), Unit::Milliseconds);
    }
}

/// Starts the agents: one without a peer, one with a replica in sync, one whose replica is gone.
fn begin(plan: &Plan) -> Result<Option<Agents>> {
    let Some(program) = &plan.vgship else { return Ok(None) };
    let source = |name: &str| -> Result<Agent> {
        let agent = Agent::begin(program, &plan.dir, name)?;
        random_file(&agent.image(), plan.size)?;
        agent.add_group()?;
        Ok(agent)
    };
    let alone = source("alone")?;
    let paired = source("paired")?;
    let replica = Agent::begin(program, &plan.dir, "replica")?;
    paired.take_replica(&replica)?;
    let cut = source("cut")?;
    let mut gone = Agent::begin(program, &plan.dir, "gone")?;
    cut.take_replica(&gone)?;
    for agent in [&paired, &cut] {
        agent.wait_applied()?;
    }
    gone.stop()?;
    Ok(Some(Agents { alone, paired, replica, cut, gone }))
}
