//! Examples: what a policy means for a history that one can read.

use super::*;

pub(super) const MINUTE: u64 = 60_000_000;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
const GIB: u64 = 1 << 30;

/// Midnight of some day, from which the examples count.
const MIDNIGHT: u64 = 20_000 * DAY;

pub(super) fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

/// A snapshot of record `minute * 10` that was made at that minute and preserves 1 GiB.
fn at(minute: u64) -> Snapshot {
    let clock = Moment(MIDNIGHT + minute * MINUTE);
    Snapshot {
        seq: Seq(minute * 10),
        point: Seq(minute * 10),
        clock,
        taken: clock,
        origin: Origin::Automatic,
        pinned: false,
        in_use: false,
        bytes: Some(ByteLen(GIB)),
    }
}

fn every(step: usize, until: u64) -> Vec<Snapshot> {
    (0..=until).step_by(step).map(at).collect()
}

fn grid(text: &str) -> Grid {
    text.parse().unwrap()
}

/// Decides for a journal that is whole from the start, with a segment of 1 GiB for each hour, at
/// minute `now`.
fn plan(snapshots: &[Snapshot], policy: &Policy, now: u64) -> Plan {
    let closed: Vec<Segment> =
        (1..=now / 60).map(|hour| Segment { last: Seq(hour * 600), bytes: ByteLen(GIB) }).collect();
    let journal = Journal { begins_after: Seq::ZERO, applied: Seq(now * 10), closed: &closed };
    let preserved = snapshots.iter().filter_map(|snapshot| snapshot.bytes).map(|it| it.0).sum();
    let used = Used { preserved: ByteLen(preserved), journal: ByteLen(now / 60 * GIB) };
    let now = Moment(MIDNIGHT + now * MINUTE);
    decide(&Input { snapshots, journal, policy, used, now })
}

/// The minutes of the snapshots that go.
fn gone(plan: &Plan) -> Vec<u64> {
    plan.delete.iter().map(|deletion| deletion.seq.0 / 10).collect()
}

#[test]
fn a_grid_keeps_the_oldest_of_each_slot() {
    let policy = Policy { grid: Some(grid("4x15m, 3x1h")), ..Policy::default() };
    let plan = plan(&every(15, 240), &policy, 240);
    // Quarters since 3:15, hours since 2:00.
    assert_eq!(gone(&plan), [0, 15, 30, 45, 60, 75, 90, 105, 135, 150, 165]);
    let reason = |index: usize| plan.delete[index].reason.to_string();
    assert_eq!(reason(0), "it is older than the grid reaches back");
    assert_eq!(reason(8), "it is not needed beside 0.1200 of the same 1 h");
    assert_eq!(plan.short, None);
}

#[test]
fn without_a_window_the_journal_is_kept_as_replication_needs_it() {
    let policy = Policy { grid: Some(grid("4x15m")), ..Policy::default() };
    let some = plan(&every(15, 60), &policy, 65);
    assert_eq!((some.floor, some.reaches), (Seq(650), None));
    let none = plan(&[], &Policy { window: Some(hours(1)), ..policy }, 65);
    assert_eq!((none.floor, none.reaches), (Seq(650), None));
}

#[test]
fn without_any_policy_all_snapshots_stay() {
    assert_eq!(gone(&plan(&every(15, 240), &Policy::default(), 100_000)), []);
}

#[test]
fn the_journal_reaches_back_to_the_newest_snapshot_as_old_as_the_window() {
    let policy = Policy { grid: Some(grid("4x15m, 24x1h")), window: Some(hours(2)), budget: None };
    let hourly = every(60, 360);
    let plan = plan(&hourly, &policy, 390);
    assert_eq!(gone(&plan), [], "the grid wants those that are older than the window");
    assert_eq!((plan.floor, plan.reaches), (Seq(2400), Some(hourly[4].clock)));
}

#[test]
fn the_anchor_stays_though_no_row_wants_it_and_goes_when_the_next_is_old_enough() {
    let policy = Policy { grid: Some(grid("4x15m")), window: Some(hours(8)), budget: None };
    let early = plan(&every(60, 480), &policy, 479);
    assert_eq!((gone(&early), early.floor), (vec![], Seq(0)));
    let later = plan(&every(60, 600), &policy, 539);
    assert_eq!((gone(&later), later.floor), (vec![], Seq(0)), "its points are in the window");
    let last = plan(&every(60, 600), &policy, 600);
    assert_eq!((gone(&last), last.floor), (vec![0, 60], Seq(1200)));
}

#[test]
fn without_a_grid_what_is_older_than_the_window_goes() {
    let policy = Policy { window: Some(hours(2)), ..Policy::default() };
    let plan = plan(&every(60, 300), &policy, 330);
    assert_eq!((gone(&plan), plan.floor), (vec![0, 60, 120], Seq(1800)));
    assert_eq!(plan.delete[0].reason.to_string(), "it is older than the window of 2 h");
}

#[test]
fn the_floor_is_never_beyond_the_checkpoint() {
    let policy = Policy { window: Some(hours(1)), ..Policy::default() };
    let snapshots = every(60, 240);
    let journal = Journal { begins_after: Seq(5), applied: Seq(1000), closed: &[] };
    let now = Moment(MIDNIGHT + 300 * MINUTE);
    let used = Used::default();
    let plan = decide(&Input { snapshots: &snapshots, journal, policy: &policy, used, now });
    assert_eq!((gone(&plan), plan.floor), (vec![0, 60, 120, 180], Seq(1000)));
}

#[test]
fn what_a_person_made_or_pinned_or_uses_never_goes() {
    let mut snapshots = every(60, 300);
    snapshots[0].origin = Origin::Manual;
    snapshots[1].pinned = true;
    snapshots[2].in_use = true;
    let policy = Policy { grid: Some(grid("1x15m")), window: None, budget: Some(ByteLen(GIB)) };
    let plan = plan(&snapshots, &policy, 330);
    assert_eq!(gone(&plan), [180, 240], "the newest stays too");
    let left = ByteLen(3 * GIB); // four snapshots, as the journal is trimmed already
    assert_eq!(plan.short, Some(Short::Budget { over: left, budget: ByteLen(GIB) }));
    let said = plan.short.map(|short| short.to_string()).unwrap_or_default();
    assert!(said.starts_with("history is 3 GiB over its budget of 1 GiB, and what"), "{said}");
}

#[test]
fn what_a_person_made_fills_no_slot() {
    let mut snapshots = every(15, 60);
    snapshots[0].origin = Origin::Manual;
    let policy = Policy { grid: Some(grid("2x1h")), ..Policy::default() };
    assert_eq!(gone(&plan(&snapshots, &policy, 60)), [30, 45]);
}

#[test]
fn over_budget_the_oldest_goes_first() {
    let snapshots = every(60, 360);
    let with = |gib: u64| {
        let budget = Some(ByteLen(gib * GIB));
        plan(&snapshots, &Policy { grid: Some(grid("24x1h")), window: Some(hours(3)), budget }, 360)
    };
    // 7 GiB are preserved; of 6 GiB of journal the window needs 3, those since 3:00.
    let outcome = |gib| {
        let plan = with(gib);
        (gone(&plan), plan.floor.0 / 600, plan.short.is_some())
    };
    assert_eq!(outcome(10), (vec![], 3, false));
    assert_eq!(outcome(9), (vec![0], 3, false));
    assert_eq!(outcome(7), (vec![0, 60, 120], 3, false));
    assert_eq!(outcome(6), (vec![0, 60, 120], 4, true), "points from 3:00 to 4:00");
    assert_eq!(outcome(5), (vec![0, 60, 120, 180], 4, true), "then the snapshot of 3:00");
    assert_eq!(outcome(1), (vec![0, 60, 120, 180, 240, 300], 6, true), "the newest stays");
    let said = with(6).short.map(|short| short.to_string()).unwrap_or_default();
    assert!(
        said.starts_with("any point can be opened for the last 2 h instead of 3 h: "),
        "{said}"
    );
    assert_eq!(
        with(7).delete[1].reason.to_string(),
        "it is the oldest that may go, and history is 2 GiB over its budget of 7 GiB"
    );
}

#[test]
fn an_anchor_that_no_row_wants_goes_with_its_points() {
    let with = |gib: u64| {
        let budget = Some(ByteLen(gib * GIB));
        let policy = Policy { grid: Some(grid("4x15m")), window: Some(hours(2)), budget };
        plan(&[at(10), at(130), at(300)], &policy, 301)
    };
    assert_eq!((gone(&with(5)), with(5).floor), (vec![10], Seq(1300)));
    let cut = with(4);
    assert_eq!((gone(&cut), cut.floor), (vec![10, 130], Seq(3000)));
    assert!(cut.delete.iter().all(|deletion| deletion.reason == Reason::BeyondGrid));
    let reach = Duration::from_mins(1);
    assert_eq!(cut.short, Some(Short::Window { reach, window: hours(2) }));
}

#[test]
fn what_will_be_the_anchor_stays_until_it_is_as_old_as_the_window() {
    let policy = Policy { grid: Some(grid("2x1h")), window: Some(hours(2)), budget: None };
    assert_eq!(gone(&plan(&[at(0), at(110), at(225)], &policy, 225)), []);
    assert_eq!(gone(&plan(&[at(0), at(110), at(225)], &policy, 230)), [0]);
}

#[test]
fn a_history_that_is_young_is_not_short() {
    let policy = Policy { grid: None, window: Some(hours(8)), budget: Some(ByteLen(10 * GIB)) };
    let plan = plan(&every(60, 120), &policy, 130);
    assert_eq!((plan.short, plan.reaches), (None, Some(Moment(MIDNIGHT))));
}

#[test]
fn a_budget_is_approached_one_by_one_where_sizes_are_unknown() {
    let mut snapshots = every(60, 360);
    snapshots[1].bytes = None;
    snapshots[2].bytes = Some(ByteLen(0));
    let policy = Policy { grid: None, window: None, budget: Some(ByteLen(0)) };
    assert_eq!(gone(&plan(&snapshots, &policy, 360)), [0, 60]);
    assert_eq!(gone(&plan(&snapshots[2..], &policy, 360)), [120, 180, 240, 300]);
}

#[test]
fn the_way_back_from_a_resync_stays_for_a_day_since_it_was_made() {
    let mut snapshots = every(15, 120);
    for (index, origin) in [
        (1, Origin::BeforeResync),
        (2, Origin::BeforeResync),
        (3, Origin::BeforeRollback),
        (5, Origin::Automatic),
    ] {
        snapshots[index].origin = origin;
        snapshots[index].taken = Moment(MIDNIGHT + 3 * DAY); // the replica had been cut off
    }
    let minutes = |day: u64| day * 24 * 60;
    let policy = Policy { grid: Some(grid("4x15m")), window: None, budget: Some(ByteLen(0)) };
    assert_eq!(gone(&plan(&snapshots, &policy, minutes(4) - 1)), [0, 15, 60, 75, 90, 105]);
    assert_eq!(gone(&plan(&snapshots, &policy, minutes(4))), [0, 15, 30, 45, 60, 75, 90, 105]);
}

#[test]
fn a_clock_that_was_wrong_for_a_while_costs_neither_window_nor_disk() {
    let policy = Policy { window: Some(hours(2)), ..Policy::default() };
    let floor = |wrong: Moment, now: u64| {
        let mut snapshots = every(60, 360);
        snapshots[4].clock = wrong;
        plan(&snapshots, &policy, now).floor
    };
    let right = Moment(MIDNIGHT + 240 * MINUTE);
    for wrong in [right, Moment(0), Moment(u64::MAX)] {
        assert_eq!(floor(wrong, 310), Seq(180 * 10), "{wrong:?}");
        assert_eq!(floor(wrong, 430), Seq(300 * 10), "{wrong:?}");
    }
}

#[test]
fn durations_are_shown_short() {
    let shown = |seconds| Shown(Duration::from_secs(seconds)).to_string();
    assert_eq!(["0 s", "59 s", "1.5 m"], [shown(0), shown(59), shown(90)]);
    assert_eq!([shown(3600), shown(172_800), shown(190_080)], ["1 h", "2 d", "2.2 d"]);
}
