//! What the demonstration found, for people and for programs.

use std::fmt::Write;

use serde::Serialize;
use vgship_base::units::ByteLen;

use super::pace::as_f64;

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// Whether every check held.
    pub(super) ok: bool,
    /// How long it took. Unit: seconds.
    pub(super) seconds: f64,
    /// The LVs' names.
    pub(super) volumes: Vec<String>,
    /// Their size together. Unit: bytes.
    pub(super) volume_bytes: u64,
    /// The first sync.
    pub(super) initial_sync: Rate,
    /// The workload at full speed, as the application saw it.
    pub(super) foreground: Rate,
    /// The largest lag while both sides ran and were linked.
    pub(super) live_lag: Lag,
    /// The largest lag of all.
    pub(super) largest_lag: Lag,
    /// All that the workload wrote.
    pub(super) written: Rate,
    /// Steps of the chain in which each depends on the one before.
    pub(super) steps: u64,
    /// What was kept of the replica's past.
    pub(super) past: Kept,
    /// The replica's crash.
    pub(super) replica_killed: Crash,
    /// The source's crash.
    pub(super) source_killed: Crash,
    /// The link that was cut shortly.
    pub(super) flap: Outage,
    /// The link that was cut until the outbox overflowed.
    pub(super) overflow: Outage,
    /// Bytes that were compared at the end, source with replica. Unit: bytes.
    pub(super) compared_bytes: u64,
    /// Bytes of second copies that were compared on the replica. Unit: bytes.
    pub(super) mirror_bytes: u64,
    /// What held, in the order of the checks.
    pub(super) checks: Vec<String>,
}

/// So much in so long.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Rate {
    /// Unit: bytes.
    pub(super) bytes: u64,
    /// Writes, where there were some.
    pub(super) writes: u64,
    /// Unit: seconds.
    pub(super) seconds: f64,
}

/// Two snapshots, a point between them, and an environment of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Kept {
    /// How long the first snapshot took under load, until the replica had it. Unit: seconds.
    pub(super) snapshot_seconds: f64,
    /// Of how many steps each of the three is the prefix.
    pub(super) steps: Vec<u64>,
    /// Until the environment was masked, checked and handed out. Unit: seconds.
    pub(super) environment_seconds: f64,
}

/// How far the replica was behind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Lag {
    /// Unit: bytes.
    pub(super) bytes: u64,
    /// Unit: seconds.
    pub(super) seconds: f64,
}

/// A process that was killed, and what its replica held.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Crash {
    /// Steps that were known to be durable on the replica.
    pub(super) durable_steps: u64,
    /// Steps that had been done when it was killed.
    pub(super) done_steps: u64,
    /// After exactly so many steps the replica stood.
    pub(super) replica_steps: u64,
    /// What was shipped until both sides were in sync again. Unit: bytes.
    pub(super) sent_bytes: u64,
    /// Whether that took a resync.
    pub(super) resynced: bool,
    /// What became of the step in flight.
    pub(super) in_flight: Vec<String>,
}

/// A link that was cut under load.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Outage {
    /// Unit: seconds.
    pub(super) cut_seconds: f64,
    /// What was written while it was cut. Unit: bytes.
    pub(super) written_bytes: u64,
    /// What was shipped from then on until both were in sync. Unit: bytes.
    pub(super) sent_bytes: u64,
    /// Whether that took a resync.
    pub(super) resynced: bool,
}

impl Rate {
    fn bytes_a_second(&self) -> f64 {
        as_f64(self.bytes) / self.seconds.max(0.001)
    }

    /// As a person reads it: `83.1 MB/s`.
    pub(super) fn speed(&self) -> String {
        format!("{:.1} MB/s", self.bytes_a_second() / 1e6)
    }

    /// Writes a second.
    pub(super) fn writes_a_second(&self) -> f64 {
        as_f64(self.writes) / self.seconds.max(0.001)
    }
}

impl Lag {
    fn text(&self) -> String {
        format!("{}, {:.1} s", ByteLen(self.bytes), self.seconds)
    }
}

const fn resync(resynced: bool) -> &'static str {
    if resynced { "by a resync" } else { "no resync" }
}

impl Crash {
    fn proof(&self) -> String {
        format!(
            "a prefix: exactly {} steps ({} known durable, {} done)",
            self.replica_steps, self.durable_steps, self.done_steps
        )
    }

    fn recovery(&self) -> String {
        format!("{} shipped, {}", ByteLen(self.sent_bytes), resync(self.resynced))
    }
}

impl Outage {
    fn text(&self) -> String {
        format!(
            "{:.1} s, {} written meanwhile, {} shipped, {}",
            self.cut_seconds,
            ByteLen(self.written_bytes),
            ByteLen(self.sent_bytes),
            resync(self.resynced)
        )
    }
}

impl Report {
    /// The table at the end.
    pub(super) fn table(&self) -> String {
        let rows = [
            ("volumes", format!("{} LVs, {}", self.volumes.len(), ByteLen(self.volume_bytes))),
            (
                "initial sync",
                format!("{:.1} s, {}", self.initial_sync.seconds, self.initial_sync.speed()),
            ),
            (
                "foreground",
                format!(
                    "{:.0} writes/s, {}",
                    self.foreground.writes_a_second(),
                    self.foreground.speed()
                ),
            ),
            ("lag while linked", self.live_lag.text()),
            ("largest lag", self.largest_lag.text()),
            (
                "written in all",
                format!(
                    "{} writes, {}, {} dependent steps",
                    self.written.writes,
                    ByteLen(self.written.bytes),
                    self.steps
                ),
            ),
            (
                "points",
                format!(
                    "a snapshot in {:.0} ms; after {} steps, an environment in {:.1} s",
                    self.past.snapshot_seconds * 1e3,
                    self.past.steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
                    self.past.environment_seconds
                ),
            ),
            ("replica killed", self.replica_killed.proof()),
            ("  caught up", self.replica_killed.recovery()),
            ("source killed", self.source_killed.proof()),
            ("  in flight", self.source_killed.in_flight.join(", ")),
            ("  caught up", self.source_killed.recovery()),
            ("link flap", self.flap.text()),
            ("link cut", self.overflow.text()),
            (
                "compared",
                format!(
                    "{} byte by byte, {} of mirror copies",
                    ByteLen(self.compared_bytes),
                    ByteLen(self.mirror_bytes)
                ),
            ),
        ];
        let mut text = String::from("\n");
        for (name, value) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<17} {value}");
        }
        let _ = writeln!(text, "\n  {} checks, all held", self.checks.len());
        text
    }
}
