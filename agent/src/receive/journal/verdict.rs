//! What recovery does where the next frame in order is not there, whole: a total table.
//!
//! Three traps. That a later frame is whole proves no damage: unflushed writes survive in any
//! order. Its promise does. That bytes do not decode is the end of the log only if nothing behind
//! was promised. And what lies behind the end may be whole: it is cut off durably, not just left.

/// What is known of the gap behind the last good record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The next whole frame follows a record at or below the checkpoint: what is missing before it
    /// is held by the replica's volumes.
    pub(super) covered: bool,
    /// A later segment continues behind this place, so it had been flushed.
    pub(super) closed: bool,
    /// A frame behind promises records that are missing here.
    pub(super) promised: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Read on behind the gap: history is lost, nothing else.
    Skip,
    /// The row ends here, and records that were promised are lost.
    Damage,
    /// The row ends here: torn, never promised.
    Cut,
}

const T: Option<bool> = Some(true);
const F: Option<bool> = Some(false);
const X: Option<bool> = None; // either

/// The first row that fits decides.
#[rustfmt::skip]
const TABLE: [([Option<bool>; 3], Verdict); 4] = [
    // covered closed promised
    ([ T,      X,     X ], Verdict::Skip),   // the volumes hold what is missing
    ([ F,      T,     X ], Verdict::Damage), // flushed before the next segment was begun
    ([ F,      F,     T ], Verdict::Damage), // a later promise covers what is missing
    ([ F,      F,     F ], Verdict::Cut),    // a torn tail, or unflushed writes out of order
];

impl Evidence {
    pub(super) fn verdict(self) -> Verdict {
        let facts = [self.covered, self.closed, self.promised];
        let row = TABLE.iter().find(|(row, _)| fits(*row, facts));
        row.expect("the table has a row for all evidence").1
    }
}

fn fits(row: [Option<bool>; 3], facts: [bool; 3]) -> bool {
    row.iter().zip(facts).all(|(wanted, fact)| wanted.is_none_or(|wanted| wanted == fact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_evidence_meets_exactly_one_row_and_no_row_is_dead() {
        let mut used = [0; TABLE.len()];
        for bits in 0..8u8 {
            let facts = std::array::from_fn(|at| bits >> at & 1 == 1);
            let rows: Vec<usize> =
                (0..TABLE.len()).filter(|&at| fits(TABLE[at].0, facts)).collect();
            assert_eq!(rows.len(), 1, "{facts:?}");
            used[rows[0]] += 1;
            let [covered, closed, promised] = facts;
            let verdict = Evidence { covered, closed, promised }.verdict();
            assert_eq!(verdict, TABLE[rows[0]].1);
        }
        assert!(used.iter().all(|&times| times > 0));
    }
}
