//! What was measured, as a table for people and as JSON for programs.

use serde_json::{Value, json};

use super::Plan;

/// What a ratio or a value should reach.
#[derive(Clone, Copy)]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// One figure.
struct Row {
    part: &'static str,
    case: String,
    subject: String,
    value: f64,
    unit: &'static str,
    ratio: Option<(f64, String)>,
    target: Option<Target>,
}

/// All figures of a run.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    /// Adds a figure that stands for itself.
    pub fn add(&mut self, part: &'static str, case: &str, subject: &str, value: f64, unit: Unit) {
        let (case, subject) = (case.to_owned(), subject.to_owned());
        let unit = unit.text();
        self.rows.push(Row { part, case, subject, value, unit, ratio: None, target: None });
    }

    /// Gives the last figure its ratio to another subject.
    pub fn ratio(&mut self, ratio: f64, against: &str, target: Option<Target>) {
        if let Some(row) = self.rows.last_mut() {
            row.ratio = Some((ratio, against.to_owned()));
            row.target = target;
        }
    }

    /// Gives the last figure what it should itself reach.
    pub fn aim(&mut self, target: Option<Target>) {
        if let Some(row) = self.rows.last_mut() {
            row.target = target;
        }
    }

    /// Something could not be measured.
    pub fn fail(&mut self, reason: String) {
        eprintln!("bench: {reason}");
        self.failures.push(reason);
    }

    /// Whether all could be measured.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// Prints the table.
    pub fn print(&self, plan: &Plan) {
        println!(
            "{} MiB, {} rounds, {} CPUs; medians, ratios within a round",
            plan.size >> 20,
            plan.rounds,
            cpus()
        );
        println!(
            "{:<11} {:<22} {:<22} {:>12} {:<9} {:>7}  {:<14} target",
            "part", "case", "subject", "value", "unit", "ratio", "to"
        );
        for row in &self.rows {
            let (ratio, against) = match &row.ratio {
                Some((ratio, against)) => (format!("{ratio:.2}"), against.as_str()),
                None => (String::new(), ""),
            };
            let line = format!(
                "{:<11} {:<22} {:<22} {:>12} {:<9} {ratio:>7}  {against:<14} {}",
                row.part,
                row.case,
                row.subject,
                shown(row.value),
                row.unit,
                row.verdict().unwrap_or_default()
            );
            println!("{}", line.trim_end());
        }
        for failure in &self.failures {
            println!("not measured: {failure}");
        }
    }

    /// The report as one document.
    pub fn json(&self, plan: &Plan) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({
            "size_bytes": plan.size,
            "rounds": plan.rounds,
            "cpus": cpus(),
            "rows": rows,
            "not_measured": self.failures,
        })
    }
}

/// What a value counts.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Completed writes in a second.
    WritesPerSecond,
    /// 1,000,000 bytes in a second.
    MegabytesPerSecond,
    /// 1,048,576 bytes.
    Mebibytes,
    /// Seconds.
    Seconds,
    /// Thousandths of a second.
    Milliseconds,
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Unit::WritesPerSecond => "writes/s",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::Mebibytes => "MiB",
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
        }
    }
}

impl Row {
    fn verdict(&self) -> Option<String> {
        let reached = self.ratio.as_ref().map_or(self.value, |(ratio, _)| *ratio);
        let (met, sign, wanted) = match self.target? {
            Target::AtLeast(wanted) => (reached >= wanted, ">=", wanted),
            Target::AtMost(wanted) => (reached <= wanted, "<=", wanted),
        };
        Some(format!("{sign} {wanted} {}", if met { "met" } else { "MISSED" }))
    }

    fn json(&self) -> Value {
        json!({
            "part": self.part,
            "case": self.case,
            "subject": self.subject,
            "value": self.value,
            "unit": self.unit,
            "ratio": self.ratio.as_ref().map(|(ratio, _)| ratio),
            "ratio_to": self.ratio.as_ref().map(|(_, against)| against),
            "target": self.verdict(),
        })
    }
}

/// The middle one of some figures; of an even number the lower of the two.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the ratios of the rounds.
pub fn median_ratio(figures: &[f64], base: &[f64]) -> f64 {
    let ratios: Vec<f64> = figures.iter().zip(base).map(|(figure, base)| figure / base).collect();
    median(&ratios)
}

/// A count of bytes as a figure.
#[expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]
pub fn figure(count: u64) -> f64 {
    count as f64
}

fn shown(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        // A slow second round slows both alike.
        let ratio = median_ratio(&[10.0, 5.0, 11.0], &[10.0, 5.0, 10.0]);
        assert!((ratio - 1.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_target_is_judged_by_the_ratio_when_there_is_one() {
        let mut report = Report::default();
        report.add("sync", "resync", "vgship", 100.0, Unit::Mebibytes);
        report.ratio(1.4, "changed", Some(Target::AtMost(1.3)));
        assert_eq!(report.rows[0].verdict().as_deref(), Some("<= 1.3 MISSED"));
        report.ratio(1.1, "changed", Some(Target::AtMost(1.3)));
        assert_eq!(report.rows[0].verdict().as_deref(), Some("<= 1.3 met"));
        assert!(report.is_complete());
    }
}
