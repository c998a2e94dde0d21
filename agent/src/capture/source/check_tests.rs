//! The self-check: what is asked, when it is asked again, and what it is told.

use super::check::{CHECKS_MAX, TRIES};
use super::tests::{LV, ME, layout, streaming, write};
use super::*;
use crate::ship::replica::Progress;
use vgship_base::extent::Extent;

const HASH: Hash = [9; 32];

fn source() -> Source {
    streaming(Overflow::Map)
}

fn extent(index: u64) -> Extent {
    Extent { volume: LV, index }
}

fn report(source: &Source) -> CheckReport {
    source.replica(ME).checks.report()
}

/// Asks about the next extent; which it is, and the question's place in the order.
fn ask(source: &mut Source) -> Option<(Extent, Seq)> {
    let (extent, version) = source.next_check(ME)?;
    source.check(ME, extent, version, HASH);
    Some((extent, source.issued()))
}

pub(super) fn end_write(source: &mut Source, at: u64) {
    write(source, at);
    drain(source);
}

/// The replica has everything.
pub(super) fn drain(source: &mut Source) {
    source.replica_mut(ME).batch();
    let durable = source.issued();
    source.replica_mut(ME).acked(&Progress { durable, ..Progress::default() });
}

#[test]
fn it_goes_through_everything_again_and_again() {
    let mut source = source();
    let extents = layout().extent.count(layout().volumes[0].bytes);
    for round in 0..2 {
        for index in 0..extents {
            let (asked, question) = ask(&mut source).unwrap_or_else(|| panic!("{index}"));
            assert_eq!((asked, report(&source).rounds), (extent(index), round));
            assert!(!source.replica(ME).checks.is_quiet());
            assert_eq!(source.answered(ME, 0, question, None), None);
            assert!(source.replica(ME).checks.is_quiet());
            drain(&mut source);
        }
    }
    let found = report(&source);
    assert_eq!((found.checked, found.mismatches, found.passed_over), (2 * extents, 0, 0));
}

#[test]
fn only_so_many_questions_are_under_way_at_once() {
    let mut source = source();
    let asked: Vec<_> = std::iter::from_fn(|| ask(&mut source)).collect();
    assert_eq!(asked.len(), CHECKS_MAX);
    source.answered(ME, 0, asked[0].1, None);
    assert_eq!(ask(&mut source).map(|(extent, _)| extent.index), Some(CHECKS_MAX as u64));
    assert_eq!(ask(&mut source), None);
}

#[test]
fn a_difference_is_dirty_and_begins_a_resync() {
    let mut source = source();
    let (asked, question) = ask(&mut source).unwrap();
    let need = Some(vec![]);
    assert_eq!(source.answered(ME, 0, Seq(question.0 + 1), need.clone()), None, "not asked");
    assert_eq!(source.answered(ME, 0, question, need), Some(asked));
    assert_eq!(source.replica(ME).wants_resync, Some(ResyncReason::Mismatch));
    assert!(source.replica(ME).dirty.sets()[0].contains(asked.index));
    let found = report(&source);
    assert_eq!((found.checked, found.mismatches), (1, 1));
    assert_eq!(found.last, Some((asked, question)));
    assert_eq!(source.next_check(ME), None, "nothing is asked before it is healed");
}

/// Goal: no false alarm for what was written while it was read, and no standing still there.
#[test]
fn an_extent_that_is_always_written_is_tried_some_times_and_passed_over() {
    let mut source = source();
    for tried in 0..TRIES {
        assert_eq!(report(&source).passed_over, 0, "{tried}");
        let (next, version) = source.next_check(ME).unwrap();
        assert_eq!(next, extent(0), "{tried}");
        end_write(&mut source, 512);
        source.check(ME, next, version, HASH);
        assert_eq!(source.replica(ME).checks.is_quiet(), tried + 1 == TRIES, "{tried}");
    }
    assert_eq!(report(&source).passed_over, 1);
    assert_eq!(ask(&mut source).unwrap().0, extent(1));
}

#[test]
fn what_was_tried_again_and_asked_is_done_with() {
    let mut source = source();
    let (next, version) = source.next_check(ME).unwrap();
    end_write(&mut source, 512);
    source.check(ME, next, version, HASH);
    assert_eq!(ask(&mut source).unwrap().0, extent(0));
    assert_eq!(ask(&mut source).unwrap().0, extent(1));
    assert_eq!(report(&source).passed_over, 0);
}

#[test]
fn an_extent_that_cannot_be_read_is_passed_over() {
    let mut source = source();
    let (next, version) = source.next_check(ME).unwrap();
    end_write(&mut source, 512);
    source.check(ME, next, version, HASH);
    assert_eq!(source.next_check(ME).unwrap().0, extent(0), "to be tried again");
    source.uncheckable(ME);
    assert_eq!(report(&source).passed_over, 1);
    assert_eq!(ask(&mut source).unwrap().0, extent(1));
}

#[test]
fn a_broken_link_ends_what_was_asked() {
    let mut source = source();
    let (asked, question) = ask(&mut source).unwrap();
    let (next, version) = source.next_check(ME).unwrap();
    assert_ne!(asked, next);
    end_write(&mut source, 4096 + 512);
    source.check(ME, next, version, HASH);
    source.link_lost(ME);
    assert!(source.replica(ME).checks.is_quiet(), "neither awaited nor to be tried again");
    assert_eq!(source.answered(ME, 0, question, Some(vec![])), None, "a late answer");
    assert_eq!(source.next_check(ME), None);
}
