//! How fast a resync goes, when it ends, and whether it gains on the writes that come in.

use std::collections::VecDeque;
use std::time::Duration;

use vgship_base::units::ByteLen;

use super::status::ResyncStatus;

/// How far back the rates look. Long enough to smooth a flush, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(20);

/// No verdict is given on less.
const VERDICT_AFTER: Duration = Duration::from_secs(2);

/// No more than two samples are kept in this time, which bounds their number.
const SPACING: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    done: u64,
    total: u64,
}

/// Follows one resync. Knows no clock: the caller says what time it is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    samples: VecDeque<Sample>,
}

/// What can be said of a resync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlook {
    /// Too little has been seen.
    Unknown,
    /// It ends after this time.
    Gains(Duration),
    /// New differences come in as fast as old ones go, or faster.
    LosesGround,
    /// Nothing has moved for the whole window.
    Stands,
}

impl Progress {
    /// Takes one observation: at `at` (since any fixed moment) `done` of `total` bytes were done.
    /// When `done` falls a new resync has begun, and what came before is forgotten.
    pub fn observe(&mut self, at: Duration, done: u64, total: u64) {
        let anew = |last: &Sample| done < last.done || total < last.total || at < last.at;
        if self.samples.back().is_some_and(anew) {
            self.samples.clear();
        }
        let count = self.samples.len();
        let close = count >= 2 && at.saturating_sub(self.samples[count - 2].at) < SPACING;
        if close {
            self.samples.pop_back();
        }
        self.samples.push_back(Sample { at, done, total });
        while self.samples.len() > 2 && at.saturating_sub(self.samples[1].at) >= WINDOW {
            self.samples.pop_front();
        }
    }

    /// Bytes done a second, over the window.
    pub fn rate(&self) -> f64 {
        self.slope(|sample| sample.done)
    }

    /// Bytes a second by which the total grows, over the window.
    pub fn incoming(&self) -> f64 {
        self.slope(|sample| sample.total)
    }

    /// What can be said now.
    pub fn outlook(&self) -> Outlook {
        let Some((first, last)) = self.ends() else { return Outlook::Unknown };
        let left = last.total.saturating_sub(last.done);
        if left == 0 {
            return Outlook::Gains(Duration::ZERO);
        }
        if last.at.saturating_sub(first.at) < VERDICT_AFTER {
            return Outlook::Unknown;
        }
        let gain = self.rate() - self.incoming();
        if self.rate() <= 0.0 && self.incoming() <= 0.0 {
            Outlook::Stands
        } else if gain <= 0.0 {
            Outlook::LosesGround
        } else {
            let seconds = as_f64(left) / gain;
            Duration::try_from_secs_f64(seconds).map_or(Outlook::LosesGround, Outlook::Gains)
        }
    }

    /// Why there is no end in sight, when there is none.
    pub fn losing_ground(&self) -> Option<String> {
        match self.outlook() {
            Outlook::LosesGround => Some(format!(
                "writes come in at {}/s, the resync goes at {}/s",
                whole(self.incoming()),
                whole(self.rate())
            )),
            Outlook::Stands => {
                let seconds = self
                    .ends()
                    .map_or(0, |(first, last)| last.at.saturating_sub(first.at).as_secs());
                Some(format!("nothing has moved for {seconds} s"))
            }
            Outlook::Unknown | Outlook::Gains(_) => None,
        }
    }

    /// The resync as the status shows it, or `None` before the first observation.
    pub fn status(&self, reason: &str) -> Option<ResyncStatus> {
        let (_, last) = self.ends()?;
        let eta_seconds = match self.outlook() {
            Outlook::Gains(left) => Some(left.as_secs_f64()),
            _ => None,
        };
        Some(ResyncStatus {
            reason: reason.to_owned(),
            done_bytes: last.done,
            total_bytes: last.total,
            eta_seconds,
            rate_bytes_per_second: self.rate(),
            incoming_bytes_per_second: self.incoming(),
            losing_ground: self.losing_ground(),
        })
    }

    fn ends(&self) -> Option<(Sample, Sample)> {
        Some((*self.samples.front()?, *self.samples.back()?))
    }

    fn slope(&self, of: impl Fn(&Sample) -> u64) -> f64 {
        let Some((first, last)) = self.ends() else { return 0.0 };
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        if seconds > 0.0 { as_f64(of(&last).saturating_sub(of(&first))) / seconds } else { 0.0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people needs no more than 53 bits")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// A rate as whole bytes, for printing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive, and the cast saturates"
)]
pub fn whole(rate: f64) -> ByteLen {
    ByteLen(rate.max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Ten samples a second for `seconds`, with rates in MiB/s.
    fn run(seconds: u64, total: u64, rate: u64, incoming: u64) -> Progress {
        let mut progress = Progress::default();
        for tenth in 0..=seconds * 10 {
            let grown = |per_second: u64| per_second * MIB * tenth / 10;
            progress.observe(
                Duration::from_millis(tenth * 100),
                grown(rate),
                total + grown(incoming),
            );
        }
        progress
    }

    fn seconds(outlook: Outlook) -> f64 {
        match outlook {
            Outlook::Gains(left) => left.as_secs_f64(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_counts_what_comes_in() {
        let quiet = run(10, 1000 * MIB, 50, 0);
        assert!((seconds(quiet.outlook()) - 10.0).abs() < 0.1);
        let busy = run(10, 1000 * MIB, 50, 25);
        assert!((seconds(busy.outlook()) - 30.0).abs() < 0.1, "{:?}", busy.outlook());
        assert_eq!(busy.losing_ground(), None);
    }

    #[test]
    fn a_resync_that_loses_ground_says_why() {
        let busy = run(10, 1000 * MIB, 20, 80);
        assert_eq!(busy.outlook(), Outlook::LosesGround);
        let said = busy.losing_ground().unwrap();
        assert_eq!(said, "writes come in at 80 MiB/s, the resync goes at 20 MiB/s");
        let status = busy.status("first sync").unwrap();
        assert_eq!((status.eta_seconds, status.losing_ground), (None, Some(said)));
    }

    #[test]
    fn too_little_is_no_verdict_and_a_standstill_is_one() {
        assert_eq!(Progress::default().outlook(), Outlook::Unknown);
        assert_eq!(run(1, 1000 * MIB, 50, 0).outlook(), Outlook::Unknown);
        let stands = run(5, 1000 * MIB, 0, 0);
        assert_eq!(stands.outlook(), Outlook::Stands);
        assert_eq!(stands.losing_ground().unwrap(), "nothing has moved for 5 s");
        assert_eq!(run(1, 50 * MIB, 50, 0).outlook(), Outlook::Gains(Duration::ZERO));
    }

    #[test]
    fn a_change_of_pace_is_followed_and_samples_stay_few() {
        let mut progress = run(100, 100_000 * MIB, 100, 0);
        let done = 10_000 * MIB;
        for tenth in 1..=400_u64 {
            let at = Duration::from_secs(100) + Duration::from_millis(tenth * 100);
            progress.observe(at, done + MIB * tenth, 100_000 * MIB);
        }
        assert_eq!(whole(progress.rate()), ByteLen(10 * MIB));
        assert!(progress.samples.len() <= 162, "{}", progress.samples.len());
    }

    #[test]
    fn a_new_resync_forgets_the_old_one() {
        let mut progress = run(10, 1000 * MIB, 50, 0);
        progress.observe(Duration::from_secs(11), 0, 10 * MIB);
        assert_eq!(progress.outlook(), Outlook::Unknown);
        assert_eq!(whole(progress.rate()), ByteLen(0));
    }

    proptest::proptest! {
        #[test]
        fn any_observation_gives_finite_rates(
            steps in proptest::collection::vec((0_u64..=u64::MAX, 0_u64..=u64::MAX, 0_u64..100_000), 0..60)
        ) {
            let mut progress = Progress::default();
            let mut at = 0;
            for (done, total, millis) in steps {
                at += millis;
                progress.observe(Duration::from_millis(at), done, total);
                proptest::prop_assert!(progress.rate().is_finite() && progress.rate() >= 0.0);
                proptest::prop_assert!(progress.incoming().is_finite());
                let _ = progress.status("any");
            }
        }
    }
}
