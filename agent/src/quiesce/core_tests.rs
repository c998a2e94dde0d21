use proptest::prelude::*;

use super::*;
use Input::{FreezeEnded, MarkNow, Marked, Release, ThawEnded, Timer, Unguarded};

const HOLD: u64 = 1000;

/// Hands events in, with what is to be done after each.
fn play(core: &mut Core, events: &[(u64, Input)]) -> Vec<Output> {
    let mut done: Vec<Output> = std::iter::from_fn(|| core.poll()).collect();
    for (at, input) in events {
        core.handle(Tick(*at), *input);
        done.extend(std::iter::from_fn(|| core.poll()));
    }
    done
}

fn outcome(events: &[(u64, Input)]) -> (Vec<Output>, Option<Why>, bool) {
    let mut core = Core::new(Tick(0), HOLD);
    let done = play(&mut core, events);
    let outcome = core.outcome().expect("it has come to its end");
    (done, outcome.why, outcome.frozen)
}

#[test]
fn frozen_marked_thawed() {
    let mut core = Core::new(Tick(10), HOLD);
    assert_eq!(core.deadline(), Some(Tick(1010)));
    let events =
        [(50, FreezeEnded(Freeze::Frozen)), (51, Marked(true)), (90, ThawEnded(Thaw::Thawed))];
    assert_eq!(play(&mut core, &events), [Output::Freeze, Output::Mark, Output::Thaw]);
    assert_eq!(core.outcome(), Some(Outcome { why: None, frozen: false, held: 80 }));
}

#[test]
fn a_freeze_that_fails_is_thawed_and_nothing_is_marked() {
    let events = [(50, FreezeEnded(Freeze::Failed)), (60, ThawEnded(Thaw::Lapsed))];
    let done = vec![Output::Freeze, Output::Thaw];
    assert_eq!(outcome(&events), (done, Some(Why::FreezeFailed), false));
    let done = vec![Output::Freeze];
    let events = [(1, FreezeEnded(Freeze::NotStarted))];
    assert_eq!(outcome(&events), (done, Some(Why::NotStarted), false));
}

#[test]
fn a_late_freeze_is_killed_before_it_is_thawed() {
    let events =
        [(1000, Timer), (1010, FreezeEnded(Freeze::Failed)), (1020, ThawEnded(Thaw::Thawed))];
    let done = vec![Output::Freeze, Output::Kill, Output::Thaw];
    assert_eq!(outcome(&events), (done, Some(Why::FreezeLate), false));
    // It returned 0, but nobody was there to see it in time.
    let events = [(1000, FreezeEnded(Freeze::Frozen)), (1020, ThawEnded(Thaw::Thawed))];
    let done = vec![Output::Freeze, Output::Thaw];
    assert_eq!(outcome(&events), (done, Some(Why::FreezeLate), false));
}

#[test]
fn a_freeze_that_cannot_be_killed_is_thawed_once_more_behind_it() {
    let mut core = Core::new(Tick(0), HOLD);
    let done = play(&mut core, &[(1000, Timer), (2000, Timer), (2010, ThawEnded(Thaw::Thawed))]);
    assert_eq!(done, [Output::Freeze, Output::Kill, Output::Thaw]);
    assert_eq!((core.outcome(), core.deadline()), (None, Some(Tick(2260))));
    let rest =
        [(2100, FreezeEnded(Freeze::Failed)), (2260, Timer), (2300, ThawEnded(Thaw::Thawed))];
    assert_eq!(play(&mut core, &rest), [Output::Thaw]);
    let outcome = core.outcome().unwrap();
    assert_eq!((outcome.why, outcome.frozen), (Some(Why::FreezeLate), false));
}

#[test]
fn a_marker_that_does_not_hold_is_taken_back() {
    let frozen = (50, FreezeEnded(Freeze::Frozen));
    let all = vec![Output::Freeze, Output::Mark, Output::Thaw, Output::TakeBack];
    let late = [frozen, (1000, Marked(true)), (1010, ThawEnded(Thaw::Thawed))];
    assert_eq!(outcome(&late), (all.clone(), Some(Why::MarkedLate), false));
    let lapsed = [frozen, (60, Marked(true)), (70, ThawEnded(Thaw::Lapsed))];
    assert_eq!(outcome(&lapsed), (all.clone(), Some(Why::Lapsed), false));
    let alone = [frozen, (60, Unguarded), (61, Marked(true)), (70, ThawEnded(Thaw::Thawed))];
    assert_eq!(outcome(&alone), (all, Some(Why::Unguarded), false));
    let refused = [frozen, (60, Marked(false)), (70, ThawEnded(Thaw::Thawed))];
    let done = vec![Output::Freeze, Output::Mark, Output::Thaw];
    assert_eq!(outcome(&refused), (done, Some(Why::NotMarked), false));
}

#[test]
fn a_thaw_that_fails_is_tried_again_and_then_said() {
    let mut core = Core::new(Tick(0), HOLD);
    let mut done = play(&mut core, &[(50, FreezeEnded(Freeze::Frozen)), (60, Marked(true))]);
    let mut now = 60;
    while core.outcome().is_none() {
        done.extend(play(&mut core, &[(now, ThawEnded(Thaw::Failed))]));
        if let Some(Tick(at)) = core.deadline() {
            now = at;
            done.extend(play(&mut core, &[(now, Timer)]));
        }
    }
    assert_eq!(done.iter().filter(|it| **it == Output::Thaw).count(), 6);
    assert_eq!(done.last(), Some(&Output::TakeBack));
    let outcome = core.outcome().unwrap();
    assert_eq!((outcome.why, outcome.frozen), (Some(Why::NotThawed), true));
}

#[test]
fn one_of_several_waits_for_a_word_before_the_marker_and_before_the_thaw() {
    let mut core = Core::conducted(Tick(10), HOLD);
    let early = [(20, MarkNow), (50, FreezeEnded(Freeze::Frozen))];
    assert_eq!(play(&mut core, &early), [Output::Freeze, Output::TellFrozen]);
    assert_eq!(core.deadline(), Some(Tick(1010)));
    assert_eq!(
        play(&mut core, &[(60, MarkNow), (61, Marked(true))]),
        [Output::Mark, Output::TellMarked]
    );
    let end = [(70, Release(true)), (90, ThawEnded(Thaw::Thawed))];
    assert_eq!(play(&mut core, &end), [Output::Thaw]);
    assert_eq!(core.outcome(), Some(Outcome { why: None, frozen: false, held: 80 }));
}

#[test]
fn one_of_several_waits_no_longer_than_its_hold_and_gives_up_when_told() {
    let frozen = (50, FreezeEnded(Freeze::Frozen));
    let thawed = (2000, ThawEnded(Thaw::Thawed));
    let marked = [frozen, (60, MarkNow), (61, Marked(true))];
    let late = Some(Why::OthersLate);
    let given_up = Some(Why::GivenUp);
    let end = |events: &[(u64, Input)]| {
        let mut core = Core::conducted(Tick(0), HOLD);
        let done = play(&mut core, events);
        let outcome = core.outcome().expect("it has come to its end");
        assert_eq!(done.contains(&Output::TakeBack), done.contains(&Output::Mark));
        assert!(done.contains(&Output::Thaw) && !outcome.frozen, "{done:?}");
        outcome.why
    };
    assert_eq!(end(&[frozen, (1000, Timer), thawed]), late);
    assert_eq!(end(&[frozen, (1000, MarkNow), thawed]), late, "it says so itself");
    assert_eq!(end(&[&marked[..], &[(1000, Timer), thawed]].concat()), late);
    assert_eq!(end(&[&marked[..], &[(1000, Release(true)), thawed]].concat()), late);
    assert_eq!(end(&[&marked[..], &[(70, Release(false)), thawed]].concat()), given_up);
    assert_eq!(end(&[frozen, (70, Release(true)), thawed]), given_up, "its marker is not in");
    assert_eq!(end(&[&marked[..], &[(70, Unguarded), thawed]].concat()), Some(Why::Unguarded));
    let killed = [(10, Release(false)), (20, FreezeEnded(Freeze::Failed)), thawed];
    assert_eq!(end(&killed), given_up);
}

/// What a world of any temper does at one step, as far as it can be at all.
#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Freeze(Freeze),
    Mark(bool),
    Thaw(Thaw),
    Unguarded,
}

fn step() -> impl Strategy<Value = Step> {
    let freeze = prop_oneof![
        1 => Just(Freeze::NotStarted), 6 => Just(Freeze::Frozen), 2 => Just(Freeze::Failed)
    ];
    let thaw = prop_oneof![
        6 => Just(Thaw::Thawed), 1 => Just(Thaw::Lapsed), 2 => Just(Thaw::Failed)
    ];
    prop_oneof![
        4 => prop_oneof![0..200_u64, Just(999_u64), Just(1000_u64), 0..6000_u64].prop_map(Step::Pass),
        4 => freeze.prop_map(Step::Freeze),
        4 => prop::bool::weighted(0.8).prop_map(Step::Mark),
        4 => thaw.prop_map(Step::Thaw),
        1 => Just(Step::Unguarded),
    ]
}

/// What was seen of one quiescing.
#[derive(Debug, Default)]
struct Seen {
    now: u64,
    freeze: Option<(u64, Freeze)>,
    runs: bool,
    /// Between a mark that was asked for and its answer.
    marking: bool,
    marked: Option<(u64, bool)>,
    thawing: bool,
    thaws: Vec<Thaw>,
    unguarded: Option<u64>,
    taken_back: u32,
}

impl Seen {
    fn drain(&mut self, core: &mut Core) {
        while let Some(output) = core.poll() {
            match output {
                Output::Freeze => self.runs = true,
                Output::Kill => assert!(self.freeze.is_none(), "what has ended is not killed"),
                Output::Mark => {
                    assert_eq!(self.freeze.map(|it| it.1), Some(Freeze::Frozen));
                    assert!(self.now < HOLD && !self.marking && self.marked.is_none());
                    self.marking = true;
                }
                Output::Thaw => {
                    assert!(!self.thawing, "one thaw at a time");
                    assert_ne!(self.freeze.map(|it| it.1), Some(Freeze::NotStarted));
                    self.thawing = true;
                }
                Output::TakeBack => self.taken_back += 1,
                Output::TellFrozen | Output::TellMarked => panic!("nobody conducts it"),
            }
        }
    }

    fn take(&mut self, core: &mut Core, step: Step) {
        let input = match step {
            Step::Pass(by) => {
                self.now += by;
                match core.deadline() {
                    Some(at) if at.0 <= self.now => Timer,
                    _ => return,
                }
            }
            Step::Freeze(how) if self.freeze.is_none() => {
                // One that has run into the hold's end was started.
                let how = match (how, self.thawing || !self.thaws.is_empty() || self.now > 0) {
                    (Freeze::NotStarted, true) => Freeze::Failed,
                    (how, _) => how,
                };
                self.freeze = Some((self.now, how));
                FreezeEnded(how)
            }
            Step::Mark(stands) if self.marking => {
                self.marking = false;
                self.marked = Some((self.now, stands));
                Marked(stands)
            }
            Step::Thaw(thaw) if self.thawing => {
                self.thawing = false;
                self.thaws.push(thaw);
                ThawEnded(thaw)
            }
            Step::Unguarded if self.unguarded.is_none() => {
                self.unguarded = Some(self.now);
                Unguarded
            }
            _ => return,
        };
        core.handle(Tick(self.now), input);
        self.drain(core);
    }
}

proptest! {
    /// Whatever happens in whatever order: it ends; a thaw ran exactly when a freeze was started,
    /// and the last one behind its end; success is said only of a marker that went in while
    /// applications were surely frozen; a marker without success is taken back, once.
    #[test]
    fn thaws_run_and_only_what_held_succeeds(steps in prop::collection::vec(step(), 0..40)) {
        let mut core = Core::new(Tick(0), HOLD);
        let mut seen = Seen::default();
        seen.drain(&mut core);
        for step in steps {
            seen.take(&mut core, step);
        }
        // From here on the world is kind.
        let kind = [
            Step::Freeze(Freeze::Frozen), Step::Mark(true), Step::Thaw(Thaw::Thawed),
            Step::Pass(10_000),
        ];
        for step in kind.into_iter().cycle().take(60) {
            seen.take(&mut core, step);
        }
        let outcome = core.outcome().expect("it has come to its end");
        let (ended, how) = seen.freeze.expect("it was ended");
        prop_assert_eq!(seen.thaws.is_empty(), how == Freeze::NotStarted);
        let stands = seen.marked.filter(|it| it.1);
        if outcome.why.is_none() {
            let (marked, _) = stands.expect("success is of a marker that stands");
            prop_assert!(how == Freeze::Frozen && ended < HOLD && marked < HOLD);
            prop_assert!(seen.unguarded.is_none_or(|at| at >= marked));
            prop_assert!(!seen.thaws.contains(&Thaw::Lapsed));
            prop_assert_eq!(seen.thaws.last(), Some(&Thaw::Thawed));
            prop_assert!(!outcome.frozen);
        }
        let to_take_back = stands.is_some() && outcome.why.is_some();
        prop_assert_eq!(seen.taken_back, u32::from(to_take_back));
        if !outcome.frozen && how != Freeze::NotStarted {
            prop_assert_ne!(seen.thaws.last(), Some(&Thaw::Failed));
        }
    }
}
