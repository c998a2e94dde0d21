//! Laws of retention: on any history, and over simulated weeks.

use proptest::prelude::*;

use super::tests::{DAY, HOUR, MINUTE, hours};
use super::thin::unwanted;
use super::*;

/// A replica's history, which carries out plans.
#[derive(Clone, Debug)]
struct History {
    snapshots: Vec<Snapshot>,
    begins_after: Seq,
    applied: Seq,
    closed: Vec<Segment>,
    preserved: u64,
    now: Moment,
}

impl History {
    fn new() -> History {
        History {
            snapshots: Vec::new(),
            begins_after: Seq::ZERO,
            applied: Seq::ZERO,
            closed: Vec::new(),
            preserved: 0,
            now: Moment(20_000 * DAY),
        }
    }

    /// Time passes, and fills a segment with records.
    fn pass(&mut self, time: u64, records: u64) {
        self.now = Moment(self.now.0 + time);
        self.applied = Seq(self.applied.0 + records);
        self.closed.push(Segment { last: self.applied, bytes: ByteLen(records) });
    }

    fn snapshot(&mut self, origin: Origin, bytes: u64) -> &mut Snapshot {
        let before = self.applied;
        self.applied = Seq(before.0 + 1);
        self.preserved += bytes;
        let guards = origin == Origin::BeforeResync;
        if guards {
            self.closed.push(Segment { last: self.applied, bytes: ByteLen(0) });
        }
        self.snapshots.push(Snapshot {
            seq: self.applied,
            // The begin of a resync changes nothing, and is no part of what was there before it.
            point: if guards { before } else { self.applied },
            clock: self.now,
            taken: self.now,
            origin,
            pinned: false,
            in_use: false,
            bytes: Some(ByteLen(bytes)),
        });
        self.snapshots.last_mut().expect("it was just made")
    }

    fn used(&self) -> Used {
        let journal = self.closed.iter().map(|segment| segment.bytes.0).sum();
        Used { preserved: ByteLen(self.preserved), journal: ByteLen(journal) }
    }

    fn decide(&self, policy: &Policy) -> Plan {
        let (begins_after, applied) = (self.begins_after, self.applied);
        let journal = Journal { begins_after, applied, closed: &self.closed };
        let (snapshots, used, now) = (&self.snapshots, self.used(), self.now);
        decide(&Input { snapshots, journal, policy, used, now })
    }

    fn carry_out(&mut self, plan: &Plan) {
        let goes = |snapshot: &Snapshot| plan.delete.iter().any(|it| it.seq == snapshot.seq);
        for snapshot in self.snapshots.extract_if(.., |snapshot| goes(snapshot)) {
            self.preserved -= snapshot.bytes.map_or(0, |bytes| bytes.0);
        }
        for segment in self.closed.extract_if(.., |segment| segment.last <= plan.floor) {
            self.begins_after = segment.last;
        }
    }

    /// Whether the point can be opened.
    fn opens(&self, point: Seq) -> bool {
        let newest = self.snapshots.iter().rfind(|snapshot| snapshot.point <= point);
        let whole = |snapshot: &&Snapshot| {
            snapshot.point <= point && snapshot.point >= self.begins_after && point <= self.applied
        };
        newest.is_some_and(|snapshot| snapshot.point == point)
            || self.snapshots.iter().any(|snapshot| whole(&snapshot))
    }

    fn clocks(&self) -> Vec<Moment> {
        self.snapshots.iter().map(|snapshot| snapshot.clock).collect()
    }
}

fn any_origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        12 => Just(Origin::Automatic),
        1 => Just(Origin::Manual),
        1 => Just(Origin::BeforeResync),
        1 => Just(Origin::BeforeRollback),
    ]
}

prop_compose! {
    /// Up to 60 snapshots, minutes to days apart, some of them pinned or in use or with a wrong
    /// clock, in a journal that was trimmed somewhere and whose checkpoint may be behind.
    fn any_history()(
        steps in prop::collection::vec(
            (1..2000_u64, 0..50_u64, any_origin(), 0..20_u8, 0..100_u64),
            0..60,
        ),
        trimmed in 0..30_usize,
        behind in 0..100_u64,
    ) -> History {
        let mut history = History::new();
        for (minutes, records, origin, dice, bytes) in steps {
            history.pass(minutes * MINUTE, records + 1);
            let made = history.snapshot(origin, bytes);
            match dice {
                0 => made.pinned = true,
                1 => made.in_use = true,
                2 => made.clock = Moment(0),
                3 => made.clock = Moment(u64::MAX),
                4 => made.taken = Moment(0),
                5 => made.taken = Moment(u64::MAX),
                _ => {}
            }
        }
        history.pass(MINUTE, 1);
        let trimmed = trimmed.min(history.closed.len() - 1);
        for segment in history.closed.drain(..trimmed) {
            history.begins_after = segment.last;
        }
        let checkpoint = history.applied.0.saturating_sub(behind);
        history.applied = Seq(checkpoint.max(history.begins_after.0));
        history
    }
}

fn any_grid() -> impl Strategy<Value = Grid> {
    let texts = ["4x15m, 24x1h, 14x1d, 8x1w", "4x15m", "3x1h, 2x1d", "1x1s", "100x6h"];
    prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    fn any_policy()(
        grid in prop::option::of(any_grid()),
        window in prop::option::of((0..500_u64).prop_map(hours)),
        budget in prop::option::of((0..4000_u64).prop_map(ByteLen)),
    ) -> Policy {
        Policy { grid, window, budget }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// R12, and nothing goes that may not.
    #[test]
    fn the_floor_and_the_safe_hold(history in any_history(), policy in any_policy()) {
        let plan = history.decide(&policy);
        let mut after = history.clone();
        after.carry_out(&plan);
        prop_assert!(history.begins_after <= plan.floor && plan.floor <= history.applied);
        let kept = after.snapshots.iter().any(|snapshot| snapshot.point == plan.floor);
        prop_assert!(kept || plan.floor == history.applied || plan.floor == history.begins_after);
        prop_assert_eq!(after.snapshots.len() + plan.delete.len(), history.snapshots.len());
        let safe = |it: &Snapshot| it.pinned || it.in_use || it.origin == Origin::Manual;
        let count = |of: &History| of.snapshots.iter().filter(|it| safe(it)).count();
        prop_assert_eq!(count(&after), count(&history));
        prop_assert_eq!(after.snapshots.last(), history.snapshots.last());
    }

    /// What could be opened in the window still can.
    #[test]
    fn no_point_of_the_window_is_lost(history in any_history(), mut policy in any_policy()) {
        policy.budget = None;
        let plan = history.decide(&policy);
        let mut after = history.clone();
        after.carry_out(&plan);
        // The window begins somewhere behind the last snapshot that is older.
        let oldest = policy.window.map(|window| history.now.before(window));
        let older = history.snapshots.iter().rfind(|it| Some(it.clock.max(it.taken)) <= oldest);
        let whole = |it: &&Snapshot| history.begins_after <= it.point;
        let first = history.snapshots.iter().find(whole).map(|it| it.point);
        // What was a snapshot only, without the journal behind it, is the grid's to thin.
        let begin = first.filter(|_| oldest.is_some());
        let begin = begin.map(|first| older.map_or(first, |it| it.point.max(first)));
        for point in begin.map_or(1, |it| it.0)..=begin.map_or(0, |_| history.applied.0) {
            let point = Seq(point);
            let holds = |it: &Snapshot| it.point <= point && plan.floor <= it.point;
            prop_assert!(!history.opens(point) || after.snapshots.iter().any(holds), "{}", point);
        }
    }

    /// `reaches` says what is true.
    #[test]
    fn what_is_said_to_be_reached_opens(history in any_history(), policy in any_policy()) {
        let plan = history.decide(&policy);
        let mut after = history.clone();
        after.carry_out(&plan);
        let from = after.snapshots.iter().find(|it| it.point >= plan.floor);
        prop_assert_eq!(from.map(|it| it.clock), plan.reaches);
        for point in from.map_or(1, |it| it.point.0)..=from.map_or(0, |_| after.applied.0) {
            prop_assert!(after.opens(Seq(point)));
        }
    }

    /// Deciding again deletes nothing more, and the budget holds or is said not to.
    #[test]
    fn one_plan_is_enough(mut history in any_history(), policy in any_policy()) {
        let plan = history.decide(&policy);
        history.carry_out(&plan);
        let used = history.used();
        let fits = policy.budget.is_none_or(|budget| used.preserved.0 + used.journal.0 <= budget.0);
        prop_assert_eq!(!fits, matches!(plan.short, Some(Short::Budget { .. })));
        let again = history.decide(&policy);
        prop_assert_eq!(&again.delete, &[]);
        let (closed, begins_after) = (history.closed.len(), history.begins_after);
        history.carry_out(&again);
        prop_assert_eq!((history.closed.len(), history.begins_after), (closed, begins_after));
    }

    /// Goal: it makes no difference how often thinning ran: what the grid wants of all that was
    /// ever taken is there, and besides it at most the newest and the anchor.
    #[test]
    fn thinning_often_or_rarely_comes_to_the_same(
        steps in prop::collection::vec((1..600_u64, any::<bool>(), any::<bool>()), 1..200),
        grid in any_grid(),
        window in prop::option::of((0..100_u64).prop_map(hours)),
    ) {
        let policy = Policy { grid: Some(grid), window, budget: None };
        let mut history = History::new();
        let mut all = Vec::new();
        for (minutes, thin, tight) in steps {
            history.pass(if tight { minutes * MINUTE / 60 } else { minutes * MINUTE }, 10);
            all.push(*history.snapshot(Origin::Automatic, 1));
            if thin {
                history.carry_out(&history.decide(&policy));
            }
        }
        history.carry_out(&history.decide(&policy));
        let reasons = unwanted(&policy.rows().unwrap(), &all, history.now);
        let wanted = all.iter().zip(reasons).filter(|(_, reason)| reason.is_none());
        let wanted: Vec<Moment> = wanted.map(|(snapshot, _)| snapshot.clock).collect();
        let kept = history.clocks();
        prop_assert!(wanted.iter().all(|clock| kept.contains(clock)));
        prop_assert!(kept.len() <= wanted.len() + 1 + usize::from(window.is_some()));
    }
}

/// Twelve weeks of the default grid: a snapshot whenever one is due, and a decision every `often`.
fn weeks(policy: &Policy, often: u64) -> History {
    let mut history = History::new();
    let (grid, mut last) = (policy.grid.clone().unwrap(), None);
    for step in 1..12 * 7 * 24 * 12_u64 {
        history.pass(5 * MINUTE, 10);
        if grid.due(last, history.now) {
            last = Some(history.snapshot(Origin::Automatic, 1).clock);
        }
        if (step * 5 * MINUTE).is_multiple_of(often) {
            history.carry_out(&history.decide(policy));
        }
    }
    history.carry_out(&history.decide(policy));
    history
}

#[test]
fn after_weeks_each_slot_has_its_snapshot() {
    let policy = Policy { grid: Some(Grid::default()), window: Some(hours(48)), budget: None };
    let history = weeks(&policy, 15 * MINUTE);
    for (count, step) in [(4, 15 * MINUTE), (24, HOUR), (14, DAY), (8, 7 * DAY)] {
        let slot = history.now.0 / step;
        for wanted in slot + 1 - count..=slot {
            let found = history.clocks().iter().any(|clock| clock.0 / step == wanted);
            assert!(found, "slot {wanted} of {step} us is empty");
        }
    }
    assert!(history.snapshots.len() <= 4 + 24 + 14 + 8 + 2, "{}", history.snapshots.len());
    for often in [5 * MINUTE, 7 * HOUR, 9 * DAY] {
        let other = weeks(&policy, often).clocks();
        let differ = history.clocks().iter().filter(|clock| !other.contains(clock)).count();
        assert_eq!(differ, 0, "every {often} us");
        assert!(other.len() - history.snapshots.len() <= 1, "the anchor, every {often} us");
    }
}

#[test]
fn the_journal_stays_near_the_window_whatever_the_grid() {
    for (grid, window) in [
        ("4x15m, 24x1h, 14x1d, 8x1w", 48),
        ("4x15m, 24x1h", 24),
        ("4x15m", 48),
        ("1x15m", 500),
        ("2x1d", 24),
    ] {
        let grid: Grid = grid.parse().unwrap();
        let policy = Policy { grid: Some(grid.clone()), window: Some(hours(window)), budget: None };
        let history = weeks(&policy, 15 * MINUTE);
        let plan = history.decide(&policy);
        let reach = history.now.since(plan.reaches.unwrap());
        let slack = hours(48).max(hours(window) / 4);
        assert!(hours(window) <= reach, "{grid}: {reach:?}");
        assert!(reach <= hours(window) + slack, "{grid}: {reach:?}");
        let records = history.applied.0 - history.begins_after.0;
        assert!(records <= 124 * (micros(reach) / HOUR + 2), "{grid}: {records}");
    }
}

#[test]
fn a_tight_budget_is_kept_over_weeks_by_giving_up_the_oldest() {
    let grid = Some(Grid::default());
    let policy = Policy { grid, window: Some(hours(48)), budget: Some(ByteLen(1000)) };
    let history = weeks(&policy, 15 * MINUTE);
    let used = history.used();
    assert!(used.preserved.0 + used.journal.0 <= 1000);
    let reach = history.now.since(history.decide(&policy).reaches.unwrap());
    assert!(hours(4) <= reach && reach <= hours(9), "120 records an hour: {reach:?}");
    let older = history.clocks().iter().filter(|clock| history.now.since(**clock) > reach).count();
    assert!(older <= 1, "points go first, then the snapshot that they hung on: {older}");
}
