//! Paths that a campaign of roles must reach.

use crate::world::faults::Coverage;

const PATHS: &[&str] = &[
    "I1 checked",
    "I2: nothing is missing after a switchover",
    "I3 checked",
    "I3 checked of a side that gives its history up",
    "I5 checked: a snapshot",
    "I5 checked: a snapshot of a source",
    "I5 checked: a fork or a branch",
    "I7: a failback shipped something",
    "I7: the work of a failback is bounded",
    "settled",
    "write while two nodes are a source",
    "switchover begun",
    "switchover given up before the handover",
    "handed over",
    "a handover that did not happen was taken back",
    "a start does not know whether its handover was taken",
    "the new source showed that it took the handover",
    "failover",
    "failover to an earlier point",
    "failover of a side that had given its history up",
    "failback",
    "a peer that gave a history up was taken in",
    "a history that was given up is kept",
    "promoted",
    "demoted",
    "two sources met",
    "a replica met a replica",
    "nobody was a source for a while",
    "a replica of another history was replaced by an empty one",
    "a replica took a snapshot",
    "a snapshot was deleted",
    "rollback begun",
    "rolled back: the history at that point",
    "came back from a rollback",
    "replica replayed its journal",
    "resync ended",
    "node started",
    "program ended",
    "power cut",
    "power failed inside a start",
    "power failed inside a step",
    "verdict Continue",
    "verdict Diverged",
    "verdict Full { reason: Initial, new_generation: false }",
    "verdict Resync(CleanStart)",
    "verdict Resync(Initial)",
    "verdict Resync(Overflow)",
    "verdict Resync(UncleanStart)",
];

/// What of it was not reached.
pub fn missing(coverage: &Coverage) -> Vec<String> {
    let reached = |path: &&&str| coverage.count(path) == 0;
    PATHS.iter().filter(reached).map(|&path| path.to_owned()).collect()
}
