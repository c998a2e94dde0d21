//! What the disk and the transport can do by themselves.

use anyhow::{Context, Result};

use super::report::{Report, Unit, median};
use super::{Plan, fio, programs};
use crate::tree;

const PART: &str = "limits";

/// Measures the disk, sequentially and write by write, and one QUIC connection.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let file = plan.dir.join("raw.img");
    let (mut whole, mut synced, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        programs::settle(&plan.dir)?;
        whole.push(fio::whole_file(&file, plan.size)?.bytes / 1e6);
        let each = fio::synced(&file, plan.size, plan.seconds)?;
        synced.push(each.writes);
        waits.push(1e3 / each.writes);
    }
    programs::remove(&file)?;
    report.add(PART, "disk, 1 MiB", "fio, flush at end", median(&whole), Unit::MegabytesPerSecond);
    report.add(PART, "disk, 4 KiB", "fio, flush each", median(&synced), Unit::WritesPerSecond);
    report.add(PART, "disk, 4 KiB", "write and flush", median(&waits), Unit::Milliseconds);
    if plan.vgship.is_some() {
        let rates: Result<Vec<f64>> = (0..plan.rounds).map(|_| raw_quinn()).collect();
        let rates = rates.context("limits, raw quinn")?;
        let rate = median(&rates);
        report.add(PART, "one connection", "raw quinn", rate, Unit::MegabytesPerSecond);
    }
    Ok(())
}

/// What one QUIC connection carries on loopback, without vgship. Unit: MB/s.
pub fn raw_quinn() -> Result<f64> {
    let mut cargo = tree::cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "vgship", "--example", "quinn_raw"]);
    let said = tree::output(&mut cargo)?;
    rate(&said).with_context(|| format!("no rate in what quinn_raw said: {said:?}"))
}

/// The rate in the program's JSON document. Unit: MB/s.
fn rate(text: &str) -> Option<f64> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(document["bytes_per_second"].as_f64()? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_found_in_what_a_program_says() {
        assert_eq!(rate("{\"bytes\": 9, \"bytes_per_second\": 812500000}\n"), Some(812.5));
        assert_eq!(rate("{}"), None);
        assert_eq!(rate("fast"), None);
    }
}
