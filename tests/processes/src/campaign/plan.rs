//! What a round does to its agents: dice alone, nothing is done here.

use std::fmt;

use vgship_base::sim::Rng;

/// What writes on the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum LoadKind {
    /// Writes with running numbers
    Stamps,
    /// fio, pass after pass, each verified
    Fio,
    /// Transactions with running numbers, and pgbench beside them
    Postgres,
}

/// When the source answers its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When its own volumes have a write.
    Async,
    /// When the replica has it too; after a time-out as in `Async`.
    Degrade,
    /// When the replica has it too, however long that takes.
    Stall,
}

/// A fault that holds on for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// SIGSTOP of the source.
    StopSource,
    /// SIGSTOP of the replica.
    StopReplica,
    /// Nothing passes the link.
    Cut,
    /// The link loses, damages (both in a thousand) and delays (in milliseconds), so reorders.
    Noise { drop: u64, damage: u64, delay: u64 },
    /// The disk of the replica's home, with its journal and checkpoint, is full but for so much.
    FillJournal { left: u64 },
    /// The disk of the replica's volumes is full.
    FillVolumes,
    /// The disk of the source's ledger is full but for so much. Unit: bytes.
    FillLedger { left: u64 },
    /// The disk of the source's spill is full but for so much. Unit: bytes.
    FillSpill { left: u64 },
}

/// A fault of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// SIGKILL of the source, and its start.
    KillSource,
    /// SIGKILL of the replica, and its start.
    KillReplica,
    /// SIGKILL of both, and their start.
    KillBoth,
    /// SIGKILL of the replica, so many bytes of its journal changed, and its start.
    FlipJournal { bytes: u64 },
    /// The replica comes from another address.
    Move,
}

/// How a replica is ended before its volumes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By SIGTERM.
    Term,
    /// By SIGKILL; it is started and ended by SIGTERM, so it recovers.
    Kill,
}

/// When a replica is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// While the fault holds on.
    During,
    /// As soon as it has ended.
    After,
    /// When both sides have found together again.
    Later,
}

/// Faults at a time, and a look at what the replica holds then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long the load has its peace before. Unit: milliseconds.
    pub peace: u64,
    /// What holds on.
    pub held: Vec<Held>,
    /// What comes in the middle of it.
    pub strike: Option<Strike>,
    /// How long it holds on. Unit: milliseconds.
    pub hold: u64,
    /// When and after which end the replica is looked at.
    pub look: (Look, End),
}

/// A pair of agents and what befalls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// For all further dice.
    pub seed: u64,
    /// What writes.
    pub load: LoadKind,
    /// When writes are answered.
    pub mode: Mode,
    /// In order.
    pub steps: Vec<Step>,
}

impl Round {
    /// The round of this number. `small_disks` says whether disks can be filled here.
    pub fn draw(seed: u64, number: u64, load: LoadKind, is_sync: bool, small_disks: bool) -> Round {
        let mut rng = Rng::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mode = match (is_sync, rng.below(2)) {
            (false, _) => Mode::Async,
            (true, 0) => Mode::Degrade,
            (true, _) => Mode::Stall,
        };
        let count = 2 + rng.below(2);
        let steps = (0..count).map(|_| step(&mut rng, small_disks)).collect();
        Round { seed: rng.draw(), load, mode, steps }
    }
}

fn step(rng: &mut Rng, small_disks: bool) -> Step {
    let (mut held, mut strike) = (Vec::new(), None);
    // One alone, of either kind; two that hold on; one that holds on and a strike.
    let (hold_on, strikes) = [(1, 0), (0, 1), (0, 1), (2, 0), (1, 1), (1, 1)][rng.index(6)];
    while held.len() < hold_on {
        let next = holds_on(rng);
        let is_new = held.iter().all(|other| !is_like(*other, next));
        if is_new && (small_disks || !next.is_full_disk()) {
            held.push(next);
        }
    }
    if strikes > 0 {
        strike = Some(strike_of(rng));
    }
    let is_stop = held.iter().any(|it| matches!(it, Held::StopSource | Held::StopReplica));
    let hold = if is_stop { 1000 + rng.below(7000) } else { 200 + rng.below(3800) };
    let end = if rng.one_in(2) { End::Term } else { End::Kill };
    // What holds the replica itself must end before one can look.
    let is_busy = held
        .iter()
        .any(|it| matches!(it, Held::StopReplica | Held::FillJournal { .. } | Held::FillVolumes));
    let look = match rng.below(5) {
        0 | 1 if !is_busy => Look::During,
        4 => Look::Later,
        _ => Look::After,
    };
    Step { peace: 300 + rng.below(1700), held, strike, hold, look: (look, end) }
}

fn holds_on(rng: &mut Rng) -> Held {
    match rng.below(9) {
        0 => Held::StopSource,
        1 => Held::StopReplica,
        2 | 3 => Held::Cut,
        4 => Held::Noise { drop: rng.below(150), damage: rng.below(50), delay: rng.below(60) },
        5 => Held::FillJournal { left: rng.below(64) << 10 },
        6 => Held::FillVolumes,
        7 => Held::FillLedger { left: rng.below(8) << 10 },
        _ => Held::FillSpill { left: rng.below(256) << 10 },
    }
}

fn strike_of(rng: &mut Rng) -> Strike {
    match rng.below(9) {
        0 | 1 => Strike::KillSource,
        2 | 3 => Strike::KillReplica,
        4 => Strike::KillBoth,
        5 => Strike::FlipJournal { bytes: 1 },
        6 | 7 => Strike::FlipJournal { bytes: 2 + rng.below(7) },
        _ => Strike::Move,
    }
}

/// Two of one kind at a time are one.
fn is_like(one: Held, other: Held) -> bool {
    one.kind() == other.kind() || one.is_link() && other.is_link()
}

impl Held {
    /// What it is called in the sums.
    pub fn kind(self) -> &'static str {
        match self {
            Held::StopSource => "SIGSTOP source",
            Held::StopReplica => "SIGSTOP replica",
            Held::Cut => "link cut",
            Held::Noise { .. } => "link noisy",
            Held::FillJournal { .. } => "full disk: journal",
            Held::FillVolumes => "full disk: replica's volumes",
            Held::FillLedger { .. } => "full disk: ledger",
            Held::FillSpill { .. } => "full disk: spill",
        }
    }

    /// Whether it is one of the link.
    pub fn is_link(self) -> bool {
        matches!(self, Held::Cut | Held::Noise { .. })
    }

    fn is_full_disk(self) -> bool {
        matches!(
            self,
            Held::FillJournal { .. }
                | Held::FillVolumes
                | Held::FillLedger { .. }
                | Held::FillSpill { .. }
        )
    }
}

impl Strike {
    /// What it is called in the sums.
    pub fn kind(self) -> &'static str {
        match self {
            Strike::KillSource => "SIGKILL source",
            Strike::KillReplica => "SIGKILL replica",
            Strike::KillBoth => "SIGKILL both",
            Strike::FlipJournal { .. } => "journal bytes flipped",
            Strike::Move => "address moved",
        }
    }

    /// Whether the source's process ends.
    pub fn kills_source(self) -> bool {
        matches!(self, Strike::KillSource | Strike::KillBoth)
    }

    /// Whether the replica's process ends.
    pub fn kills_replica(self) -> bool {
        matches!(self, Strike::KillReplica | Strike::KillBoth | Strike::FlipJournal { .. })
    }
}

impl Step {
    /// The names of its faults.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.held.iter().map(|held| held.kind()).chain(self.strike.map(Strike::kind))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kinds().collect::<Vec<_>>().join(" + "))?;
        if !self.held.is_empty() {
            let tenths = self.hold / 100;
            write!(f, " {}.{} s", tenths / 10, tenths % 10)?;
        }
        Ok(())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Async => "async",
            Mode::Degrade => "sync, degrade",
            Mode::Stall => "sync, stall",
        })
    }
}

impl fmt::Display for LoadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoadKind::Stamps => "stamps",
            LoadKind::Fio => "fio",
            LoadKind::Postgres => "postgres",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rounds(small_disks: bool) -> Vec<Round> {
        let draw = |number| Round::draw(7, number, LoadKind::Stamps, true, small_disks);
        (0..200).map(draw).collect()
    }

    #[test]
    fn equal_seeds_give_equal_rounds_and_others_do_not() {
        assert_eq!(rounds(true), rounds(true));
        let other = Round::draw(8, 0, LoadKind::Stamps, true, true);
        assert_ne!(rounds(true)[0], other);
    }

    #[test]
    fn every_fault_and_every_look_comes() {
        let rounds = rounds(true);
        let steps = || rounds.iter().flat_map(|round| &round.steps);
        let kinds: BTreeSet<_> = steps().flat_map(Step::kinds).collect();
        assert_eq!(kinds.len(), 13, "{kinds:?}");
        let looks: BTreeSet<_> = steps().map(|step| format!("{:?}", step.look)).collect();
        assert_eq!(looks.len(), 6, "{looks:?}");
        assert!(steps().all(|step| step.kinds().next().is_some()));
        assert!(rounds.iter().any(|round| round.mode == Mode::Stall));
        assert!(rounds.iter().any(|round| round.mode == Mode::Degrade));
    }

    #[test]
    fn without_small_disks_none_is_filled() {
        let rounds = rounds(false);
        let mut held = rounds.iter().flat_map(|round| &round.steps).flat_map(|step| &step.held);
        assert!(!held.any(|held| held.is_full_disk()));
    }

    #[test]
    fn nobody_looks_at_a_replica_that_is_held() {
        for step in rounds(true).iter().flat_map(|round| &round.steps) {
            let is_busy = step.held.iter().any(|held| held.kind().contains("replica"));
            assert!(!(is_busy && step.look.0 == Look::During), "{step}");
        }
    }
}
