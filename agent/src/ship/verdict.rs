//! What a replica's hello means: whether it goes on, what it must be given first, or why it is
//! refused. A total table over what both sides know (R2, R3, R11).

use vgship_base::ids::{Generation, Seq, Start};
use vgship_base::record::ResyncReason;

/// What a replica says of itself when a link begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaPoint {
    /// It holds nothing of the group yet.
    pub fresh: bool,
    /// The history that its records belong to.
    pub generation: Generation,
    /// The last record that it holds durably.
    pub durable: Seq,
    /// It found damage in what it had promised, or its hash chain does not match.
    pub damaged: bool,
}

/// What the source knows when a replica says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePoint<'a> {
    /// The history that the source writes.
    pub generation: Generation,
    /// Earlier generations, each with the last seq that was kept of it.
    pub lineage: &'a [(Generation, Seq)],
    /// The present start.
    pub start: Start,
    /// The last number given.
    pub issued: Seq,
    /// The highest number that this replica ever promised.
    pub acked: Seq,
    /// The last start in which this replica had a link, as far as the ledger knows.
    pub met: Start,
    /// Whether the outbox holds everything behind the replica's durable seq.
    pub covered: bool,
    /// Why the outbox does not hold everything, if it does not.
    pub gap: ResyncReason,
}

/// What to do with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send what follows its durable seq.
    Continue,
    /// Resync the extents of its map.
    Resync(ResyncReason),
    /// Offer everything; `new_generation` when numbers of this history cannot be trusted (R11).
    Full {
        /// Shown to people.
        reason: ResyncReason,
        /// Whether a new generation begins first.
        new_generation: bool,
    },
    /// Its history and this one went apart: a person must choose (R2).
    Diverged,
}

/// Whether a replica shows that the source's memory is older than the replica's: numbers above
/// what was given, or of a start that the replica cannot have seen (R11). What the source believes
/// of its other replicas is as old then.
pub fn ahead(replica: &ReplicaPoint, source: &SourcePoint<'_>) -> bool {
    let start = replica.durable.start();
    let unmet = if replica.generation == source.generation {
        start > source.met
    } else {
        // Numbers of another history may be another source's; its starts are all below.
        start >= source.start && source.met < source.start
    };
    replica.durable > source.issued || unmet
}

impl Verdict {
    /// Whether the ledger must hold what was decided before anything is sent: a crash would find
    /// the map as it was, and a replica that has begun to follow it.
    pub const fn needs_ledger(self) -> bool {
        match self {
            Verdict::Resync(_) | Verdict::Full { .. } => true,
            Verdict::Continue | Verdict::Diverged => false,
        }
    }
}

/// Decides. The first row that fits counts.
pub fn judge(replica: &ReplicaPoint, source: &SourcePoint<'_>) -> Verdict {
    let ours = replica.generation == source.generation;
    let fork = source.lineage.iter().find(|(known, _)| *known == replica.generation);
    let ancestor = fork.is_some_and(|(_, kept)| replica.durable <= *kept);
    let ahead = ahead(replica, source);
    let last_start = replica.durable.start().max(source.start) == Start(u16::MAX);
    let behind = replica.durable < source.acked;
    let lost = |new_generation| Verdict::Full { reason: ResyncReason::Lost, new_generation };
    match () {
        () if replica.fresh => {
            Verdict::Full { reason: ResyncReason::Initial, new_generation: false }
        }
        () if !ours && !ancestor => Verdict::Diverged,
        () if ahead && last_start => Verdict::Diverged, // no start is left to count above it
        () if ahead || behind => lost(true),
        () if replica.damaged => lost(false),
        () if ours && source.covered => Verdict::Continue,
        () => Verdict::Resync(source.gap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Generation = Generation([1; 16]);
    const OLD: Generation = Generation([2; 16]);
    const LINEAGE: [(Generation, Seq); 1] = [(OLD, Seq(50))];

    fn source() -> SourcePoint<'static> {
        SourcePoint {
            generation: OURS,
            lineage: &LINEAGE,
            start: Start(3),
            issued: Seq(Seq::before(Start(3)).0 + 100),
            acked: Seq(40),
            met: Start(3),
            covered: true,
            gap: ResyncReason::Overflow,
        }
    }

    fn replica() -> ReplicaPoint {
        ReplicaPoint { fresh: false, generation: OURS, durable: source().issued, damaged: false }
    }

    #[test]
    fn every_row_is_reached() {
        let (r, s) = (replica(), source());
        let lost = |new_generation| Verdict::Full { reason: ResyncReason::Lost, new_generation };
        let initial = Verdict::Full { reason: ResyncReason::Initial, new_generation: false };
        let rows = [
            ("a link flap is no resync (R2)", r, s, Verdict::Continue),
            ("new", ReplicaPoint { fresh: true, ..r }, s, initial),
            ("away too long", r, SourcePoint { covered: false, ..s }, Verdict::Resync(s.gap)),
            (
                "unrelated",
                ReplicaPoint { generation: Generation([9; 16]), ..r },
                s,
                Verdict::Diverged,
            ),
            (
                "beyond the fork",
                ReplicaPoint { generation: OLD, durable: Seq(51), ..r },
                s,
                Verdict::Diverged,
            ),
            (
                "an ancestor",
                ReplicaPoint { generation: OLD, durable: Seq(50), ..r },
                s,
                Verdict::Resync(s.gap),
            ),
            ("went backwards (R11)", ReplicaPoint { durable: Seq(39), ..r }, s, lost(true)),
            (
                "ahead of the source (R11)",
                ReplicaPoint { durable: Seq(s.issued.0 + 1), ..r },
                s,
                lost(true),
            ),
            (
                "a start that it cannot have seen (R11)",
                r,
                SourcePoint { met: Start(2), ..s },
                lost(true),
            ),
            (
                "an ancestor of the very start, which it cannot have met (R11)",
                ReplicaPoint { generation: OLD, durable: Seq::before(s.start).next(), ..r },
                SourcePoint { lineage: &[(OLD, Seq(u64::MAX))], met: Start(2), ..s },
                lost(true),
            ),
            (
                "ahead, and no start is left",
                ReplicaPoint { durable: Seq(u64::MAX), ..r },
                s,
                Verdict::Diverged,
            ),
            (
                "ahead, and the source has no start left",
                r,
                SourcePoint { start: Start(u16::MAX), met: Start(2), ..s },
                Verdict::Diverged,
            ),
            ("damage", ReplicaPoint { damaged: true, ..r }, s, lost(false)),
        ];
        for (name, replica, source, expected) in rows {
            assert_eq!(judge(&replica, &source), expected, "{name}");
        }
    }
}
