//! Complaints and waits together, in virtual time.

use proptest::prelude::*;

use super::*;
use crate::wire::retry::{Backoff, Ended};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_first_failure_is_told_at_once_then_one_a_minute_with_the_count() {
    let mut peer = Complaint::default();
    assert_eq!(
        peer.failed(at(0), "no answer", Some(ms(100))).unwrap(),
        "no answer (1 try, next in 100 ms)"
    );
    for second in 1..60 {
        assert_eq!(peer.failed(at(second), "no answer", Some(at(30))), None, "{second}");
    }
    assert_eq!(
        peer.failed(at(60), "refused", Some(at(30))).unwrap(),
        "refused (61 tries in 60 s, next in 30 s)"
    );
    assert_eq!(peer.tries(), 61);
}

#[test]
fn what_had_to_wait_is_told_when_its_minute_is_over_also_without_another_try() {
    let mut peer = Complaint::default();
    peer.failed(at(0), "lost", None);
    assert_eq!(peer.failed(at(1), "gone", Some(at(80))), None);
    assert_eq!(peer.due(at(59)), None);
    assert_eq!(peer.due(at(60)).unwrap(), "gone (2 tries in 60 s, next in 21 s)");
    assert_eq!(peer.due(at(1000)), None, "nothing happened since");
}

#[test]
fn a_recovery_is_told_once_and_a_sound_link_starts_the_count_over() {
    let mut peer = Complaint::default();
    assert_eq!(peer.succeeded(at(0)).unwrap(), "", "the first time is news");
    assert_eq!(peer.stood(at(40)), Some(at(40)));
    assert_eq!(peer.failed(at(40), "lost", Some(ms(100))).unwrap(), "lost (next in 100 ms)");
    assert_eq!((peer.tries(), peer.stood(at(41))), (0, None), "a loss is no try");
    for second in 41..45 {
        peer.failed(at(second), "no answer", None);
    }
    assert_eq!(peer.tries(), 4);
    assert_eq!(peer.succeeded(at(45)).unwrap(), " after 4 tries in 5 s");
    assert_eq!((peer.succeeded(at(46)), peer.tries()), (None, 0));
    assert_eq!(peer.failed(at(200), "lost", None).unwrap(), "lost");
}

#[test]
fn a_flapping_link_is_two_lines_a_minute_and_the_log_ends_with_the_truth() {
    let (mut peer, mut lines) = (Complaint::default(), Vec::new());
    for second in 0..600 {
        lines.extend(peer.succeeded(ms(second * 1000)));
        lines.extend(peer.failed(ms(second * 1000 + 500), "reset", None));
    }
    assert!(lines.len() <= 21, "{lines:#?}");
    let last = lines.iter().rfind(|line| line.starts_with("reset")).unwrap();
    assert_eq!(last, "reset (541 tries in 9 min)");
    peer.succeeded(at(600));
    assert_eq!(peer.failed(at(601), "gone", None).unwrap(), "gone (601 tries in 10 min)");
}

#[test]
fn an_end_on_purpose_is_neither_told_nor_counted() {
    let mut peer = Complaint::default();
    peer.succeeded(at(0));
    peer.ended();
    assert_eq!((peer.tries(), peer.stood(at(1)), peer.due(at(100))), (0, None, None));
    peer.failed(at(100), "no", None);
    peer.failed(at(101), "no", None);
    peer.ended();
    assert_eq!(peer.due(at(1000)), None, "what is over is not told late");
}

#[test]
fn times_read_as_a_person_says_them() {
    for (time, said) in [
        (ms(100), "100 ms"),
        (ms(1999), "1 s"),
        (at(119), "119 s"),
        (at(120), "2 min"),
        (at(7199), "119 min"),
        (at(7260), "2 h 1 min"),
    ] {
        assert_eq!(span(time), said);
    }
}

/// One try: how long it took, and what came of it. A link that stood did so for a time.
#[derive(Clone, Debug)]
enum Try {
    Unreachable(u64),
    Refused(u64),
    Stood(u64),
}

fn a_try() -> impl Strategy<Value = Try> {
    prop_oneof![
        4 => (0_u64..11_000).prop_map(Try::Unreachable),
        4 => (0_u64..11_000).prop_map(Try::Refused),
        1 => (0_u64..29_999).prop_map(Try::Stood),
        1 => (30_000_u64..600_000).prop_map(Try::Stood),
    ]
}

/// Hours of one peer, with a look at what is due each second.
struct Hours {
    now: Duration,
    peer: Complaint,
    retry: Backoff,
    complaints: Vec<Duration>,
    recoveries: usize,
    /// Since it was last sound, counted here.
    tries: u64,
}

impl Hours {
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now + at(1) <= until {
            self.now += at(1);
            let line = self.peer.due(self.now);
            self.note(line);
        }
        self.now = until;
    }

    fn note(&mut self, line: Option<String>) {
        let Some(line) = line else { return };
        self.complaints.push(self.now);
        match self.tries {
            0 => assert!(!line.contains("tr"), "{line}"),
            1 => assert!(line.contains("(1 try"), "{line}"),
            tries => assert!(line.contains(&format!("({tries} tries in ")), "{line}"),
        }
    }

    fn run(&mut self, attempt: &Try) -> Duration {
        let ended = match *attempt {
            Try::Unreachable(took) | Try::Refused(took) => {
                self.pass(ms(took));
                self.tries += 1;
                match attempt {
                    Try::Refused(_) => Ended::Refused,
                    _ => Ended::Unreachable,
                }
            }
            Try::Stood(stood) => {
                self.recoveries += usize::from(self.peer.succeeded(self.now).is_some());
                self.pass(ms(stood));
                self.tries = if ms(stood) >= SOUND { 0 } else { self.tries + 1 };
                Ended::LostAfter(ms(stood))
            }
        };
        let wait = self.retry.after(ended);
        let line = self.peer.failed(self.now, "x", Some(wait));
        self.note(line);
        assert_eq!(self.peer.tries(), self.tries);
        wait
    }
}

proptest! {
    #[test]
    fn hours_of_any_failures_are_a_complaint_a_minute_and_a_try_in_half_a_minute(
        seed: u64,
        tries in prop::collection::vec(a_try(), 1..300),
    ) {
        let mut hours = Hours {
            now: Duration::ZERO,
            peer: Complaint::default(),
            retry: Backoff::new(seed),
            complaints: Vec::new(),
            recoveries: 0,
            tries: 0,
        };
        let mut failing = 0;
        for attempt in &tries {
            let wait = hours.run(attempt);
            failing = match attempt {
                Try::Stood(stood) if ms(*stood) >= SOUND => 0,
                _ => failing + 1,
            };
            // The tenth wait of a row is the cap, and a refusal's is at once.
            if failing > 9 || matches!(attempt, Try::Refused(_)) {
                prop_assert!(wait >= at(30) && wait <= ms(37_500), "{:?}", wait);
            }
            if failing == 0 {
                prop_assert!(wait <= ms(100), "a sound link comes back at once: {:?}", wait);
            }
            hours.pass(wait);
        }
        for two in hours.complaints.windows(2) {
            prop_assert!(two[1].saturating_sub(two[0]) >= PACE, "{:?}", two);
        }
        prop_assert!(hours.recoveries <= hours.complaints.len() + 1);
    }
}
