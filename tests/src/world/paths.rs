//! Paths that a campaign must reach: rare ones above all. A simulation that has stopped reaching
//! one of them says nothing about it any more.

use vgship_base::record::ResyncReason;

use super::faults::{Coverage, Fault};

/// Paths beside faults and reasons, as [`Coverage::hit`] names them.
const PATHS: &[&str] = &[
    // invariants
    "I1 checked",
    "I4 checked inside a resync",
    "I5 checked: a snapshot",
    "I5 checked: a point in time",
    "I3 checked after a start",
    "I3 checked when a replica came later",
    "nothing acknowledged is lost: checked after a power cut",
    "nothing acknowledged is lost: checked after a kill",
    "settled",
    // verdicts
    "verdict Continue",
    "verdict Diverged",
    "verdict Full { reason: Initial, new_generation: false }",
    "verdict Full { reason: Lost, new_generation: false }",
    "verdict Full { reason: Lost, new_generation: true }",
    "a new generation counts above every start seen",
    "starts ran out: a new generation",
    "a replica of an earlier generation continues from its fork",
    "a replica two generations back",
    // resyncs
    "resync ended",
    "resync begun while a resync of the replica was under way",
    "resync begun while another replica is in a resync",
    "resync begun while another replica's outbox is in the map",
    "outbox overflowed into the map",
    "overflow during a resync",
    "overflow of one replica during another's resync",
    "links come and go in a storm during a resync",
    "answer to an offer of an earlier resync",
    "a job was overtaken before it was read",
    "needed content equals by now",
    "extent held, because it was written while it was read",
    "writer waited for an extent that was held",
    "offer waited for a write older than the resync",
    "offer answered: equal",
    "offer answered: needed in parts",
    "offer answered: needed whole",
    "offers became void with a broken link",
    // sync mode, bounded lag
    "I2 checked at an acknowledgement",
    "I2: RPO 0 checked against the replica's content",
    "sync in force",
    "sync replica joins",
    "sync no longer in force: Paused",
    "sync no longer in force: Disconnected",
    "sync no longer in force: Resyncing",
    "sync no longer in force: Late",
    "write waited for a sync replica",
    "sync write lost its flush: an error",
    "sync write was cut short by a stop",
    "writer slowed",
    // the self-check
    "self-check: equal",
    "self-check: mismatch",
    "self-check found nothing more",
    "self-check passed over an extent that is written all the time",
    "stray write",
    "stray write on the source",
    // the outbox
    "write stalled",
    "stalled write went on",
    "write waited for the spill",
    "spilled",
    "spill full",
    "spill's disk full",
    "spill's disk has room again",
    "spill failed",
    "spill lost",
    "outbox overflowed while records were on their way to the spill",
    "outbox overflowed while records were coming back from the spill",
    "nobody waits for a paused replica",
    "link waits for its window",
    // source
    "clean stop",
    "stop that was not clean",
    "regions unmarked",
    "torn ledger mark",
    "torn ledger checkpoint",
    "power failed inside a step of the source",
    "power failed inside the start of the source",
    "flush of a source volume failed",
    "write on a source volume failed",
    "flush failed during a resync",
    "a flush took a write along that was under way",
    "a client was told of a flush that had failed for the agent",
    "write waited for another",
    "clock went backwards",
    "machine was suspended",
    "ledger in doubt",
    "doubt taken back",
    "source cannot start: its ledger has no room",
    "replica refused: the ledger has no room",
    "stop without a last checkpoint",
    "extent cannot be read",
    "source read what was not asked for",
    // replica
    "replica judged what was not asked for",
    "replica reads nothing: its journal has no room",
    "replica stopped by a full disk",
    "replica cannot start: a disk is full",
    "power failed inside a step of a replica",
    "power failed inside the start of a replica",
    "replica recovered",
    "replica recovered inside a resync",
    "replica replayed its journal",
    "torn journal tail",
    "unflushed records of the journal survived",
    "journal began a segment by itself",
    "damage reported by recovery",
    "replica stopped by a failing volume",
    "replica replaced by an empty one",
    // snapshots
    "marker: Snapshot",
    "marker: Event",
    "marker: Delete",
    "marker: Pin",
    "replica took a snapshot",
    "replica deleted a snapshot",
    "before-images swept",
    "snapshot packs compacted",
    "a point inside a resync was refused",
    // history
    "R12 checked: a point that the history offers",
    "snapshot taken by the schedule",
    "snapshot thinned",
    "snapshot older than the grid went",
    "snapshot older than the window went",
    "snapshot went for the budget",
    "history over its budget, and said",
    "history short of its window, and said",
    "journal trimmed to the history's floor",
    "history gave way to a full disk",
    // environments
    "I5 checked: an environment",
    "I8 checked: an environment",
    "I8 checked: an environment after a crash",
    "environment made of a snapshot",
    "environment made of a point in time",
    "several environments of one snapshot",
    "environment written",
    "environment flushed",
    "environment: a write failed",
    "environment destroyed",
    "environment outlived the replica's life",
    "environment could not be made: a volume cannot be read",
    "an environment half made was removed",
    "a hold without an environment was released",
    "a snapshot that an environment holds was not deleted",
    // rollback
    "I4 checked while volumes are rolled back",
    "rollback begun",
    "rollback begun inside a resync",
    "rollback broken off, and begun anew",
    "rollback waited for room",
    "rollback turned to another point",
    "rollback cannot get there",
    "a way back without a point was pinned",
    "rollback undone",
    "rollback undone before it was there",
    "rolled back: the history at that point",
    "rolled back: found so by a later life",
    "came back from a rollback",
    // the network
    "datagram came early",
    "datagram came again",
    "datagram lost",
    // the veil
    "settled with a blind replica",
];

/// All that a campaign must reach.
pub fn required() -> Vec<String> {
    let faults = Fault::ALL.iter().map(|fault| format!("fault {fault:?}"));
    // Volumes do not change their size here: that is tested beside `Source::grow`. Writes of whole
    // sectors alone are made here: what others cost a blind replica, beside `Source::begin`.
    let here = |reason: &ResyncReason| {
        !matches!(reason, ResyncReason::Grown | ResyncReason::Drifted | ResyncReason::Veil)
    };
    let reasons = (1..).map_while(ResyncReason::from_code).filter(here);
    let begun = reasons.map(|reason| format!("resync begun: {reason:?}"));
    PATHS.iter().map(|&path| path.to_owned()).chain(faults).chain(begun).collect()
}

/// What of it was not reached.
pub fn missing(coverage: &Coverage) -> Vec<String> {
    required().into_iter().filter(|path| coverage.count(path) == 0).collect()
}
