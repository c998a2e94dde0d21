//! The decision: anchor, thinning, budget.

use vgship_base::ids::Seq;
use vgship_base::units::ByteLen;

use super::{
    Deletion, Input, Moment, Origin, Plan, Reason, Short, Snapshot, UNDO_PERIOD, thin::unwanted,
};

/// Decides what goes. Deciding again on what is left deletes nothing more, except that a budget is
/// met in several plans where [`Snapshot::bytes`] are not known.
///
/// # Panics
/// If the snapshots are not strictly ascending, or the journal begins behind its `applied`.
pub fn decide(input: &Input<'_>) -> Plan {
    let ascending = |pair: &[Snapshot]| pair[0].seq < pair[1].seq;
    assert!(input.snapshots.windows(2).all(ascending), "one snapshot per seq, ascending");
    assert!(input.journal.begins_after <= input.journal.applied, "trimmed beyond the checkpoint");
    let mut draft = Draft::new(input);
    draft.thin();
    let short = draft.fit_budget();
    draft.into_plan(short)
}

/// What becomes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It stays, whatever the policy says.
    Safe,
    /// It stays while the budget allows.
    Wanted,
    /// It goes, unless it is the anchor.
    Unwanted(Reason),
    /// It goes.
    Gone(Reason),
}

/// A plan in the making.
struct Draft<'a> {
    input: &'a Input<'a>,
    /// One for each snapshot.
    fates: Vec<Fate>,
    floor: Seq,
    /// What history takes when this is carried out.
    used: ByteLen,
    /// The budget has moved the floor.
    cut: bool,
}

impl<'a> Draft<'a> {
    fn new(input: &'a Input<'a>) -> Draft<'a> {
        let used = input.used.preserved.0.saturating_add(input.used.journal.0);
        let reasons = reasons(input);
        let safe = (0..input.snapshots.len()).map(|index| is_safe(input, index));
        let fates = safe.zip(reasons).map(|(safe, reason)| match reason {
            _ if safe => Fate::Safe,
            Some(reason) => Fate::Unwanted(reason),
            None => Fate::Wanted,
        });
        let floor = input.journal.begins_after;
        Draft { input, fates: fates.collect(), floor, used: ByteLen(used), cut: false }
    }

    /// Steps 1 and 2: the floor comes to the anchor, and all that nobody wants goes.
    fn thin(&mut self) {
        let anchor = anchor(self.input);
        for index in 0..self.fates.len() {
            if Some(index) != anchor {
                self.drop_unwanted(index);
            }
        }
        self.move_floor(anchor.map(|index| self.input.snapshots[index].point));
    }

    /// Step 3. Tells what the budget could not have, or what it took of the window.
    fn fit_budget(&mut self) -> Option<Short> {
        let budget = self.input.policy.budget?;
        while let Some(over) = self.over(budget) {
            let Some(index) = self.oldest_that_may_go() else {
                if self.cut_oldest_points() {
                    continue;
                }
                return Some(Short::Budget { over, budget });
            };
            let known = self.input.snapshots[index].bytes.is_some();
            self.drop(index, Reason::Budget { over, budget });
            if !known {
                return self.short_of_window(); // how much that gave, the next plan will see
            }
        }
        self.short_of_window()
    }

    fn into_plan(self, short: Option<Short>) -> Plan {
        let reaches = self.reaches();
        let with_fate = self.input.snapshots.iter().zip(self.fates);
        let gone = with_fate.filter_map(|(snapshot, fate)| match fate {
            Fate::Gone(reason) => Some(Deletion { seq: snapshot.seq, reason }),
            _ => None,
        });
        Plan { delete: gone.collect(), floor: self.floor, reaches, short }
    }

    /// How much history is over its budget; `None` if it is not.
    fn over(&self, budget: ByteLen) -> Option<ByteLen> {
        self.used.0.checked_sub(budget.0).filter(|over| *over > 0).map(ByteLen)
    }

    /// The oldest snapshot before the floor that the budget may take: no point hangs on it.
    fn oldest_that_may_go(&self) -> Option<usize> {
        let before = self.input.snapshots.iter().take_while(|snapshot| snapshot.point < self.floor);
        before.zip(&self.fates).position(|(_, fate)| *fate == Fate::Wanted)
    }

    /// Gives up the points up to the next kept snapshot, or all if there is none; false if there is
    /// nothing to give up.
    fn cut_oldest_points(&mut self) -> bool {
        if self.floor >= self.input.journal.applied {
            return false;
        }
        let next = self.kept().map(|snapshot| snapshot.point).find(|point| *point > self.floor);
        self.move_floor(next);
        self.cut = true;
        for index in 0..self.fates.len() {
            if self.input.snapshots[index].point < self.floor {
                self.drop_unwanted(index); // it was the anchor, and is none any more
            }
        }
        true
    }

    /// The floor goes up to a kept snapshot, but never beyond the checkpoint (R12).
    fn move_floor(&mut self, kept: Option<Seq>) {
        let applied = self.input.journal.applied;
        let floor = kept.unwrap_or(applied).min(applied).max(self.floor);
        let closed = self.input.journal.closed.iter();
        let trimmed = closed.filter(|segment| self.floor < segment.last && segment.last <= floor);
        let freed = trimmed.map(|segment| segment.bytes.0).fold(0, u64::saturating_add);
        self.floor = floor;
        self.free(freed);
    }

    fn drop_unwanted(&mut self, index: usize) {
        if let Fate::Unwanted(reason) = &self.fates[index] {
            let reason = reason.clone();
            self.drop(index, reason);
        }
    }

    fn drop(&mut self, index: usize, reason: Reason) {
        self.fates[index] = Fate::Gone(reason);
        self.free(self.input.snapshots[index].bytes.map_or(0, |bytes| bytes.0));
    }

    fn free(&mut self, bytes: u64) {
        self.used = ByteLen(self.used.0.saturating_sub(bytes));
    }

    fn kept(&self) -> impl Iterator<Item = &'a Snapshot> {
        let with_fate = self.input.snapshots.iter().zip(&self.fates);
        with_fate.filter(|(_, fate)| !matches!(fate, Fate::Gone(_))).map(|(snapshot, _)| snapshot)
    }

    /// From where on every point can be opened.
    fn reaches(&self) -> Option<Moment> {
        self.kept().find(|snapshot| snapshot.point >= self.floor).map(|snapshot| snapshot.clock)
    }

    fn short_of_window(&self) -> Option<Short> {
        let window = self.input.policy.window.filter(|_| self.cut)?;
        let reach = self.reaches().map(|from| self.input.now.since(from)).unwrap_or_default();
        (reach < window).then_some(Short::Window { reach, window })
    }
}

/// Why each snapshot is not wanted, if it is not: by the grid, or without one by the window.
fn reasons(input: &Input<'_>) -> Vec<Option<Reason>> {
    if let Some(rows) = input.policy.rows() {
        return unwanted(&rows, input.snapshots, input.now);
    }
    let beyond = |snapshot: &Snapshot| {
        let window = input.policy.window?;
        snapshot.surely_before(input.now.before(window)).then_some(Reason::BeyondWindow { window })
    };
    input.snapshots.iter().map(beyond).collect()
}

/// Whether nothing but a person may delete it.
fn is_safe(input: &Input<'_>, index: usize) -> bool {
    let snapshot = &input.snapshots[index];
    let later = &input.snapshots[index + 1..];
    let is_undo = match snapshot.origin {
        Origin::Automatic => false,
        Origin::Manual => return true,
        Origin::BeforeResync | Origin::BeforeRollback => {
            input.now.since(snapshot.taken) < UNDO_PERIOD
                && !later.iter().any(|other| other.origin == snapshot.origin)
        }
    };
    // The newest too: without it nothing could be opened until the next is taken.
    snapshot.pinned || snapshot.in_use || is_undo || later.is_empty()
}

/// The snapshot that the journal must reach back to; `None` if no point between is wanted, or none
/// can be had.
fn anchor(input: &Input<'_>) -> Option<usize> {
    let oldest = input.now.before(input.policy.window?);
    let first = input.snapshots.partition_point(|it| it.point < input.journal.begins_after);
    let usable = &input.snapshots[first..];
    let newest_old = usable.iter().rposition(|it| it.surely_before(oldest));
    (!usable.is_empty()).then_some(first + newest_old.unwrap_or(0))
}
