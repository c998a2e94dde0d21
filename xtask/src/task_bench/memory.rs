//! How the agent's memory grows with the size of its volume.

use anyhow::{Context, Result};

use super::agents::{Agent, Memory};
use super::programs::{settle, sparse_file};
use super::report::{Report, Target, Unit, figure};
use super::{Plan, fio};

const PART: &str = "memory";
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Measures a source of 1 GiB and one of 1 TiB under the same load, each with its replica gone, so
/// that everything is dirty and the maps are at their largest.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    if plan.vgship.is_none() {
        return Ok(());
    }
    let small = source_of(plan, GIB).context("memory, 1 GiB")?;
    let large = source_of(plan, TIB).context("memory, 1 TiB")?;
    let mib = |bytes: u64| figure(bytes) / figure(1 << 20);
    for (case, memory) in [("1 GiB volume", small), ("1 TiB volume", large)] {
        report.add(PART, case, "source, resident", mib(memory.resident), Unit::Mebibytes);
        report.add(PART, case, "source, peak", mib(memory.peak), Unit::Mebibytes);
    }
    let grown = mib(large.peak.saturating_sub(small.peak));
    report.add(PART, "for 1 TiB more", "source, peak", grown, Unit::Mebibytes);
    report.ratio(grown / 4.0, "4 MiB", Some(Target::AtMost(1.0)));
    Ok(())
}

fn source_of(plan: &Plan, bytes: u64) -> Result<Memory> {
    let Some(program) = &plan.vgship else { return Ok(Memory { resident: 0, peak: 0 }) };
    let source = Agent::begin(program, &plan.dir, "large")?;
    sparse_file(&source.image(), bytes)?;
    source.add_group()?;
    let mut replica = Agent::begin(program, &plan.dir, "gone")?;
    source.take_replica(&replica)?;
    replica.stop()?;
    fio::scatter(&source.uri(), bytes, 128 << 20)?;
    let memory = source.memory()?;
    source.discard()?;
    replica.discard()?;
    settle(&plan.dir)?;
    Ok(memory)
}
