//! Sums of a campaign.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What befell the rounds, and what was found.
#[derive(Debug, Default)]
pub struct Tally {
    /// How often each fault came.
    pub faults: BTreeMap<&'static str, u64>,
    /// SIGKILLs.
    pub kills: u64,
    /// Replicas that were looked at and held a prefix with all that they had to hold.
    pub looks: u64,
    /// Replicas that were inside a resync, and said so.
    pub windows: u64,
    /// How often sync mode was seen in force.
    pub in_force: u64,
    /// The longest time to be in sync again after all faults of a round.
    pub slowest: Duration,
    /// Operations of each unit.
    operations: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts a fault.
    pub fn count(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Counts operations, all of which were found in the end.
    pub fn acknowledged(&mut self, unit: &'static str, count: u64) {
        *self.operations.entry(unit).or_default() += count;
    }

    /// Adds a round's.
    pub fn add(&mut self, round: &Tally) {
        for (&kind, count) in &round.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (&unit, count) in &round.operations {
            *self.operations.entry(unit).or_default() += count;
        }
        self.kills += round.kills;
        self.looks += round.looks;
        self.windows += round.windows;
        self.in_force += round.in_force;
        self.slowest = self.slowest.max(round.slowest);
    }

    /// Operations in words.
    pub fn operations(&self) -> String {
        let one = |(unit, count): (&&str, &u64)| format!("{count} {unit}");
        self.operations.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.faults {
            writeln!(f, "  {count:>6}  {kind}")?;
        }
        writeln!(f, "  {:>6}  processes killed", self.kills)?;
        writeln!(
            f,
            "  {:>6}  replicas looked at: a prefix, with all that is promised",
            self.looks
        )?;
        writeln!(f, "  {:>6}  looks put off: inside a resync, and said so", self.windows)?;
        if self.in_force > 0 {
            writeln!(f, "  {:>6}  times seen with sync mode in force", self.in_force)?;
        }
        let slowest = self.slowest.as_secs_f64();
        writeln!(f, "  acknowledged: {}; in sync again within {slowest:.1} s", self.operations())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_add_up() {
        let mut round = Tally { kills: 2, looks: 1, windows: 1, ..Tally::default() };
        round.count("link cut");
        round.acknowledged("writes", 10);
        let mut sum = Tally::default();
        sum.add(&round);
        sum.add(&round);
        assert_eq!((sum.kills, sum.looks, sum.windows), (4, 2, 2));
        assert_eq!(sum.faults["link cut"], 2);
        assert_eq!(sum.operations(), "20 writes");
        assert!(sum.to_string().contains("     2  link cut\n"), "{sum}");
    }
}
