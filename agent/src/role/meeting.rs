//! Two sides of a group that are both its source: what their lineages say of each other (R2). A
//! total table.

use vgship_base::ids::{Generation, Seq};

/// Where a side's history comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestry {
    /// The history that it writes.
    pub generation: Generation,
    /// Those before, oldest first, each with the last seq that was kept of it.
    pub lineage: Vec<(Generation, Seq)>,
}

/// What two sources are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Both write one history, which cannot be: one is a copy of the other's files.
    Same,
    /// The other began a history of its own behind this record of ours.
    Deposed(Seq),
    /// We began a history of our own behind this record of the other's.
    Deposes(Seq),
    /// Both began one of their own behind this record of a third.
    Apart(Generation, Seq),
    /// They have no history in common.
    Unrelated,
}

impl Ancestry {
    /// Up to where a generation is part of this history; `None` when it is none of it.
    fn kept(&self, generation: Generation) -> Option<Seq> {
        match self.generation == generation {
            true => Some(Seq(u64::MAX)),
            false => self.lineage.iter().find(|(it, _)| *it == generation).map(|(_, kept)| *kept),
        }
    }

    /// The last record that both histories have.
    pub fn common(&self, other: &Ancestry) -> Option<(Generation, Seq)> {
        let own = std::iter::once(self.generation);
        let mut newest_first = own.chain(self.lineage.iter().rev().map(|(it, _)| *it));
        newest_first.find_map(|it| Some((it, self.kept(it)?.min(other.kept(it)?))))
    }
}

/// Decides.
pub fn meet(ours: &Ancestry, theirs: &Ancestry) -> Meeting {
    match ours.common(theirs) {
        None => Meeting::Unrelated,
        Some((generation, fork)) => {
            match (generation == ours.generation, generation == theirs.generation) {
                (true, true) => Meeting::Same,
                (true, false) => Meeting::Deposed(fork),
                (false, true) => Meeting::Deposes(fork),
                (false, false) => Meeting::Apart(generation, fork),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(generation: u8, lineage: &[(u8, u64)]) -> Ancestry {
        let of = |it: u8| Generation([it; 16]);
        let lineage = lineage.iter().map(|&(it, kept)| (of(it), Seq(kept))).collect();
        Ancestry { generation: of(generation), lineage }
    }

    /// Every way in which two histories can stand to each other.
    #[test]
    fn the_table_holds_both_ways() {
        let one = Generation([1; 16]);
        let rows = [
            (side(1, &[]), side(1, &[]), Meeting::Same, Meeting::Same),
            (
                side(1, &[]),
                side(2, &[(1, 50)]),
                Meeting::Deposed(Seq(50)),
                Meeting::Deposes(Seq(50)),
            ),
            (
                side(1, &[]),
                side(3, &[(1, 50), (2, 60)]),
                Meeting::Deposed(Seq(50)),
                Meeting::Deposes(Seq(50)),
            ),
            (
                side(2, &[(1, 50)]),
                side(3, &[(1, 40)]),
                Meeting::Apart(one, Seq(40)),
                Meeting::Apart(one, Seq(40)),
            ),
            (
                side(4, &[(1, 50), (2, 70)]),
                side(5, &[(1, 50), (2, 60)]),
                Meeting::Apart(Generation([2; 16]), Seq(60)),
                Meeting::Apart(Generation([2; 16]), Seq(60)),
            ),
            (side(1, &[]), side(2, &[]), Meeting::Unrelated, Meeting::Unrelated),
        ];
        for (ours, theirs, here, there) in rows {
            assert_eq!(meet(&ours, &theirs), here, "{ours:?} {theirs:?}");
            assert_eq!(meet(&theirs, &ours), there, "{theirs:?} {ours:?}");
        }
    }
}
