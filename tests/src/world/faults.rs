//! Which faults a run has, how the run is set up, and what was met in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use vgship::capture::source::Overflow;
use vgship::history::keeping::Wanted;
use vgship::home::Size;
use vgship::home::keep::Budget;
use vgship::ship::pace::{LagLimit, LagPolicy, OnLag};
use vgship::ship::standing::{Mode, OnTimeout, SyncPolicy};
use vgship_base::sim::Rng;
use vgship_base::units::ByteLen;

use super::disorder::{ACTIONS, Action};
use super::net::Weather;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is its own sentence")]
pub enum Fault {
    SourcePowerCut,
    SourcePowerFailsSoon,
    SourceKilled,
    SourceStopped,
    SourceRecoveryFails,
    LedgerRestored,
    VolumeWriteFails,
    VolumeFlushFails,
    SpillFails,
    LinkCut,
    LinkStorm,
    Paused,
    ModeChanged,
    ClockJumps,
    ReplicaPowerCut,
    ReplicaPowerFailsSoon,
    ReplicaKilled,
    ReplicaRecoveryFails,
    ReplicaVolumeFails,
    ReplicaReplaced,
    JournalDecays,
    StrayWrite,
    SourceReadFails,
    SourceReadMisdirected,
    LedgerFull,
    SpillFull,
    ReplicaReadFails,
    ReplicaReadMisdirected,
    ReplicaCheckpointFails,
    JournalFull,
    JournalFlushFails,
    SnapshotsFull,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 32] = [
        Fault::SourcePowerCut,
        Fault::SourcePowerFailsSoon,
        Fault::SourceKilled,
        Fault::SourceStopped,
        Fault::SourceRecoveryFails,
        Fault::LedgerRestored,
        Fault::VolumeWriteFails,
        Fault::VolumeFlushFails,
        Fault::SpillFails,
        Fault::LinkCut,
        Fault::LinkStorm,
        Fault::Paused,
        Fault::ModeChanged,
        Fault::ClockJumps,
        Fault::ReplicaPowerCut,
        Fault::ReplicaPowerFailsSoon,
        Fault::ReplicaKilled,
        Fault::ReplicaRecoveryFails,
        Fault::ReplicaVolumeFails,
        Fault::ReplicaReplaced,
        Fault::JournalDecays,
        Fault::StrayWrite,
        Fault::SourceReadFails,
        Fault::SourceReadMisdirected,
        Fault::LedgerFull,
        Fault::SpillFull,
        Fault::ReplicaReadFails,
        Fault::ReplicaReadMisdirected,
        Fault::ReplicaCheckpointFails,
        Fault::JournalFull,
        Fault::JournalFlushFails,
        Fault::SnapshotsFull,
    ];
}

/// How one run is set up; thrown before anything else.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Faults that this run has.
    pub faults: Vec<Fault>,
    /// About one step in so many is a fault.
    pub fault_every: u64,
    /// Replicas.
    pub replicas: u8,
    /// Unit: log2 of bytes.
    pub extent_log2: u8,
    /// Unit: log2 of bytes.
    pub region_log2: u8,
    /// Of each volume. Unit: bytes.
    pub volumes: Vec<(u64, u32)>,
    /// Of each outbox. Unit: bytes.
    pub ram: u64,
    /// Of each outbox. Unit: bytes.
    pub spill: u64,
    /// What the disk has for each spill. Unit: bytes.
    pub spill_room: u64,
    /// When an outbox is full.
    pub overflow: Overflow,
    /// Of each replica.
    pub modes: Vec<Mode>,
    /// Which replicas are blind; those that are not named are not.
    pub blind: Vec<bool>,
    /// How sync replicas are waited for.
    pub sync: SyncPolicy,
    /// How far replicas may be behind.
    pub lag: Option<LagPolicy>,
    /// Of an epoch. Unit: milliseconds.
    pub epoch: u64,
    /// After which a region may be unmarked. Unit: milliseconds.
    pub idle: u64,
    /// Of a journal segment. Unit: bytes.
    pub segment: u64,
    /// The network's.
    pub weather: Weather,
    /// Whether everything is in sync before the first fault.
    pub settled: bool,
    /// Whether replicas leave room free in their journals.
    pub reserve: bool,
    /// Whether the source has few starts left.
    pub old: bool,
    /// What is wanted of history; `None` when journals are kept for replication alone.
    pub history: Option<Wanted>,
    /// Weight of each action.
    pub weights: Vec<u64>,
    /// Steps of disorder before each settling.
    pub steps: u32,
    /// How often disorder and settling come.
    pub rounds: u32,
}

impl Settings {
    /// Throws the dice of a run.
    pub fn throw(rng: &mut Rng, actions: usize) -> Settings {
        let density = 1 + rng.below(4);
        let faults = Fault::ALL.into_iter().filter(|_| rng.below(5) < density).collect();
        let volumes = |rng: &mut Rng| {
            let masked = [0, 0, 512, 4096][rng.index(4)];
            ((1 + rng.below(8)) * 8192 + rng.below(3) * 512, masked)
        };
        let pick = |rng: &mut Rng, from: &[u64]| from[rng.index(from.len())];
        let spill = pick(rng, &[0, 32 << 10, 1 << 20]);
        let replicas = 1 + u8::from(rng.one_in(3));
        let syncs = rng.one_in(2);
        let mode = |rng: &mut Rng| if syncs && !rng.one_in(3) { Mode::Sync } else { Mode::Async };
        Settings {
            faults,
            fault_every: pick(rng, &[25, 80, 250, 800]),
            replicas,
            extent_log2: 12 + u8::from(rng.one_in(4)),
            region_log2: 14 + u8::from(rng.one_in(2)),
            volumes: (0..=rng.below(3)).map(|_| volumes(rng)).collect(),
            ram: pick(rng, &[6 << 10, 24 << 10, 1 << 20]),
            spill,
            spill_room: if rng.one_in(2) { spill / 2 } else { 64 << 20 },
            overflow: if rng.one_in(3) { Overflow::Stall } else { Overflow::Map },
            modes: (0..replicas).map(|_| mode(rng)).collect(),
            blind: Vec::new(),
            sync: SyncPolicy {
                timeout: pick(rng, &[20, 200, 2000]),
                on_timeout: if rng.one_in(3) { OnTimeout::Stall } else { OnTimeout::Degrade },
            },
            lag: Settings::lag(rng),
            epoch: pick(rng, &[20, 200]),
            idle: pick(rng, &[0, 30, 300]),
            segment: pick(rng, &[8 << 10, 64 << 10]),
            weather: Settings::weather(rng),
            settled: rng.one_in(2),
            reserve: rng.one_in(2),
            old: rng.one_in(16),
            history: Settings::history(rng),
            weights: (0..actions).map(|_| 1 + pick(rng, &[0, 3, 9, 20])).collect(),
            steps: 1000 + u32::try_from(rng.below(4000)).unwrap_or(0),
            rounds: 1 + u32::try_from(rng.below(3)).unwrap_or(0),
        }
    }

    fn history(rng: &mut Rng) -> Option<Wanted> {
        if rng.one_in(3) {
            return None;
        }
        let grid = ["", "2x1s", "3x1s, 3x5s", "4x15m, 24x1h"][rng.index(4)];
        let window = [0, 200, 2000, 3_600_000][rng.index(4)];
        let budget = [4, 16, 64, u64::MAX >> 10][rng.index(4)] << 10;
        Some(Wanted {
            grid: (!grid.is_empty()).then(|| grid.parse().expect("a grid")),
            window: (window > 0).then(|| Duration::from_millis(window)),
            budget: Budget::Size(Size(ByteLen(budget))),
        })
    }

    fn lag(rng: &mut Rng) -> Option<LagPolicy> {
        let limit = match rng.below(4) {
            0 => LagLimit::Bytes(8 << 10),
            1 => LagLimit::Millis(300),
            _ => return None,
        };
        Some(LagPolicy { limit, act: if rng.one_in(3) { OnLag::Alert } else { OnLag::Slow } })
    }

    fn weather(rng: &mut Rng) -> Weather {
        let (datagram, window) = ([600, 1200, 8192], [16 << 10, 256 << 10, usize::MAX]);
        Weather {
            reorders: rng.one_in(2),
            duplicates: rng.one_in(2),
            drops: rng.one_in(2),
            datagram: datagram[rng.index(3)],
            window: window[rng.index(3)],
        }
    }

    /// The same with every action as likely as any other, but for those that concern snapshots.
    pub fn lively() -> Settings {
        let weight = |action: &Action| u64::from(!action.is_of_snapshots());
        Settings { weights: ACTIONS.iter().map(weight).collect(), ..Settings::plain() }
    }

    /// A quiet run with everything at its plainest, for scenarios.
    pub fn plain() -> Settings {
        Settings {
            faults: Vec::new(),
            fault_every: 1,
            replicas: 1,
            extent_log2: 12,
            region_log2: 14,
            volumes: vec![(64 << 10, 512), (32 << 10, 0)],
            ram: 1 << 20,
            spill: 0,
            spill_room: 64 << 20,
            overflow: Overflow::Map,
            modes: Vec::new(),
            blind: Vec::new(),
            sync: SyncPolicy::default(),
            lag: None,
            epoch: 100,
            idle: 0,
            segment: 64 << 10,
            weather: Weather { datagram: 1200, window: usize::MAX, ..Weather::default() },
            settled: false,
            reserve: false,
            old: false,
            history: None,
            weights: Vec::new(),
            steps: 0,
            rounds: 0,
        }
    }

    /// Whether a fault starts a replica's content anew: too many of these, and nothing else is met.
    pub fn is_radical(fault: Fault) -> bool {
        matches!(fault, Fault::ReplicaReplaced | Fault::LedgerRestored | Fault::JournalDecays)
    }

    /// Makes replicas blind in some runs. These dice are others than those of the rest, which tell what
    /// a seed is.
    pub fn throw_blind(&mut self, seed: u64) {
        let mut rng = Rng::new(!seed);
        let some = rng.one_in(3);
        self.blind = (0..self.replicas).map(|_| some && !rng.one_in(4)).collect();
    }

    /// Whether a replica is blind.
    pub fn is_blind(&self, index: usize) -> bool {
        self.blind.get(index).copied().unwrap_or_default()
    }

    /// Whether the run has this fault.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// How often what was met.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<Cow<'static, str>, u64>,
}

impl Coverage {
    /// Met once more.
    pub fn hit(&mut self, what: impl Into<Cow<'static, str>>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Coverage) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
    }

    /// How often.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts.iter().try_for_each(|(what, count)| writeln!(out, "{count:>9}  {what}"))
    }
}
