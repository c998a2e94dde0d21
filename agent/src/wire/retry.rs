//! When to try a link again. Pure: time comes in, a wait goes out, chance comes from a seed.

use std::time::Duration;

/// Wait before the second try. Unit: milliseconds.
const FIRST: u64 = 100;

/// Shortest wait once there were many failures, and after a refusal, which more tries do not change.
/// Unit: milliseconds.
const LONGEST: u64 = 30_000;

/// A link that stood this long was sound: the next loss starts from [`FIRST`].
pub(super) const SOUND: Duration = Duration::from_secs(30);

/// How an attempt, or the link that it made, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody answered, or the network failed.
    Unreachable,
    /// The peer answered and does not want us, or is not who it should be.
    Refused,
    /// A link stood and was lost after this time.
    LostAfter(Duration),
}

/// Waits that double from 100 ms to 30 s, each changed by up to a quarter by chance, so that peers
/// cut off together do not come back together. Chance shortens the waits on the way and lengthens
/// those of 30 s: at the end there is at most one try in 30 s.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    state: u64,
}

impl Backoff {
    /// Equal seeds give equal waits.
    pub const fn new(seed: u64) -> Backoff {
        Backoff { failures: 0, state: seed }
    }

    /// How long to wait before the next attempt.
    pub fn after(&mut self, ended: Ended) -> Duration {
        if let Ended::LostAfter(stood) = ended
            && stood >= SOUND
        {
            self.failures = 0;
        }
        let whole = match ended {
            Ended::Refused => LONGEST,
            _ => (FIRST << self.failures.min(16)).min(LONGEST),
        };
        self.failures = self.failures.saturating_add(1);
        let changed = self.chance() % (whole / 4);
        Duration::from_millis(match whole < LONGEST {
            true => whole - changed,
            false => whole + changed,
        })
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn chance(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(found: Duration, millis: u64) -> bool {
        let bounds = if millis < 30_000 { millis * 3 / 4..=millis } else { 30_000..=37_500 };
        bounds.contains(&u64::try_from(found.as_millis()).unwrap())
    }

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let mut backoff = Backoff::new(7);
        for millis in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let found = backoff.after(Ended::Unreachable);
            assert!(within(found, millis), "{found:?} for {millis} ms");
        }
    }

    #[test]
    fn a_sound_link_starts_over_and_a_flapping_one_does_not() {
        let mut backoff = Backoff::new(7);
        for _ in 0..5 {
            backoff.after(Ended::Unreachable);
        }
        assert!(within(backoff.after(Ended::LostAfter(Duration::from_secs(1))), 3200));
        assert!(within(backoff.after(Ended::LostAfter(SOUND)), 100));
    }

    #[test]
    fn at_the_end_no_chance_makes_a_wait_shorter_than_half_a_minute() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            for _ in 0..9 {
                backoff.after(Ended::Unreachable);
            }
            for _ in 0..20 {
                assert!(backoff.after(Ended::Unreachable) >= Duration::from_secs(30));
            }
        }
    }

    #[test]
    fn a_refusal_waits_longest_at_once() {
        assert!(within(Backoff::new(1).after(Ended::Refused), 30_000));
    }

    #[test]
    fn equal_seeds_wait_equally_and_others_do_not() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            [(); 8].map(|()| backoff.after(Ended::Unreachable))
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
