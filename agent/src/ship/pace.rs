//! Bounded lag: how far a replica may fall behind, and how writers are slowed beyond that. Pure.
//!
//! Beyond the limit writers share a budget that is refilled at the rate at which the replica
//! takes records: at the limit they are as fast as it is, further behind they are slower, down to a
//! quarter, so that the lag shrinks. Nobody is slowed for a replica that is away or being resynced:
//! what happens then is the outbox's policy.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use vgship_base::ids::Seq;
use vgship_base::units::Tick;

/// Slowest that writers are made, whatever the replica does. Unit: bytes a second.
const SLOWEST: u64 = 64 << 10;

/// Shortest time over which the replica's rate is measured. Unit: milliseconds.
const MEASURE: u64 = 200;

/// How much of a second's budget may be spent at once. Unit: milliseconds.
const BURST: u64 = 20;

/// Ends of epochs that are remembered: nine hours of one second each.
const EPOCHS_MAX: usize = 32_768;

/// How far a replica may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagLimit {
    /// Unit: bytes of records that are not durable there.
    Bytes(u64),
    /// Unit: milliseconds since the oldest epoch end that is not durable there.
    Millis(u64),
}

/// What is done beyond the limit, besides saying so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnLag {
    /// Nothing.
    #[default]
    Alert,
    /// Writers are slowed.
    Slow,
}

impl OnLag {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnLag::Alert => "alert",
            OnLag::Slow => "slow",
        }
    }
}

/// How far a replica may be behind, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagPolicy {
    /// How far.
    pub limit: LagLimit,
    /// What then.
    pub act: OnLag,
}

/// How far one replica is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Records that are not durable there. Unit: bytes.
    pub bytes: u64,
    /// Age of the oldest epoch end that is not durable there. Unit: milliseconds.
    pub millis: u64,
}

impl Lag {
    /// The lag in thousandths of the limit.
    fn share(self, limit: LagLimit) -> u64 {
        let (value, limit) = match limit {
            LagLimit::Bytes(limit) => (self.bytes, limit),
            LagLimit::Millis(limit) => (self.millis, limit),
        };
        u64::try_from(u128::from(value) * 1000 / u128::from(limit.max(1))).unwrap_or(u64::MAX)
    }
}

/// What one replica's lag is made of, and the writers' budget.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    epochs: VecDeque<(Seq, Tick)>,
    /// What the replica takes. Unit: bytes a second.
    rate: u64,
    /// What it had taken when the rate was last measured, and when that was.
    measured: (u64, Tick),
    /// While writers are slowed: what they may write now, below zero when they are ahead. Unit:
    /// bytes.
    budget: Option<i64>,
    refilled: Tick,
    exceeded: Option<Tick>,
}

impl Pace {
    /// An epoch ended.
    pub fn epoch_ended(&mut self, seq: Seq, now: Tick) {
        if self.epochs.len() < EPOCHS_MAX {
            self.epochs.push_back((seq, now));
        }
    }

    /// Everything up to here is durable on the replica.
    pub fn durable(&mut self, durable: Seq) {
        while self.epochs.front().is_some_and(|(seq, _)| *seq <= durable) {
            self.epochs.pop_front();
        }
    }

    /// The order was lost: what was behind stands in the map now.
    pub fn clear(&mut self) {
        *self = Pace { rate: self.rate, ..Pace::default() };
    }

    /// Age of the oldest epoch end that is not durable there. Unit: milliseconds.
    pub fn age(&self, now: Tick) -> u64 {
        self.epochs.front().map_or(0, |(_, ended)| now.since(*ended))
    }

    /// Since when the lag is beyond the limit.
    pub const fn exceeded(&self) -> Option<Tick> {
        self.exceeded
    }

    /// Whether writers are being slowed.
    pub const fn slows(&self) -> bool {
        self.budget.is_some()
    }

    /// Time passed. `taken` is what the replica has taken in all; `lag` is `None` while the limit
    /// does not count, for a replica that is away or being resynced.
    pub fn review(&mut self, now: Tick, taken: u64, lag: Option<Lag>, policy: Option<LagPolicy>) {
        let (before, since) = self.measured;
        let time = now.since(since);
        if time >= MEASURE {
            let fresh = taken.saturating_sub(before).saturating_mul(1000) / time;
            self.rate = (self.rate * 3).saturating_add(fresh) / 4;
            self.measured = (taken, now);
        }
        let share = lag.zip(policy).map_or(0, |(lag, policy)| lag.share(policy.limit));
        if share <= 1000 {
            (self.exceeded, self.budget) = (None, None);
            return;
        }
        self.exceeded.get_or_insert(now);
        if policy.is_none_or(|policy| policy.act == OnLag::Alert) {
            self.budget = None;
            return;
        }
        // From the replica's own rate at the limit down to a quarter of it at twice the limit.
        let share_of_rate = 2000_u64.saturating_sub(share).clamp(250, 1000);
        let speed = (self.rate.saturating_mul(share_of_rate) / 1000).max(SLOWEST);
        let cap = i64::try_from(speed.saturating_mul(BURST) / 1000).unwrap_or(i64::MAX);
        let time = if self.budget.is_some() { now.since(self.refilled) } else { 0 };
        let more = i64::try_from(speed.saturating_mul(time) / 1000).unwrap_or(i64::MAX);
        self.budget = Some(self.budget.unwrap_or(0).saturating_add(more).min(cap));
        self.refilled = now;
    }

    /// Whether a write may begin now, as far as this replica is concerned.
    pub fn allows(&self) -> bool {
        self.budget.is_none_or(|budget| budget > 0)
    }

    /// A write of `bytes` began.
    pub fn spend(&mut self, bytes: u64) {
        if let Some(budget) = &mut self.budget {
            *budget = budget.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    const fn slow(limit: LagLimit) -> LagPolicy {
        LagPolicy { limit, act: OnLag::Slow }
    }

    /// A writer as fast as it may be, against a replica that takes `rate`: the largest lag of the
    /// last half of the time. Unit: bytes, bytes a second, milliseconds.
    fn largest_lag(rate: u64, write: u64, limit: u64, time: u64) -> (u64, u64) {
        let (mut pace, mut lag, mut taken, mut largest, mut written) =
            (Pace::default(), 0_u64, 0, 0, 0);
        for now in 0..time {
            let gone = lag.min(rate / 1000);
            (lag, taken) = (lag - gone, taken + gone);
            let known = Some(Lag { bytes: lag, millis: 0 });
            pace.review(Tick(now), taken, known, Some(slow(LagLimit::Bytes(limit))));
            for _ in 0..8 {
                if pace.allows() {
                    pace.spend(write);
                    (lag, written) = (lag + write, written + write);
                }
            }
            if now > time / 2 {
                largest = largest.max(lag);
            }
        }
        (largest, written)
    }

    proptest! {
        #[test]
        fn the_lag_stays_near_its_limit(
            rate in 1_u64..200, write in 9_u64..18, limit in 1_u64..64
        ) {
            let (rate, write, limit) = (rate * MIB, 1 << write, limit * 4 * MIB);
            let (largest, written) = largest_lag(rate, write, limit, 20_000);
            prop_assert!(largest <= limit * 2, "{largest} of {limit}");
            // As long as the lag is at its limit the replica is busy: nothing is given away.
            let offered = 8 * 1000 * write;
            let possible = rate.min(offered) * 20;
            prop_assert!(written >= possible / 10 * 8, "{written} of {possible}");
        }
    }

    #[test]
    fn below_the_limit_and_without_one_nobody_is_slowed() {
        let mut pace = Pace::default();
        let lag = Some(Lag { bytes: 10 * MIB, millis: 900 });
        let limits = [LagLimit::Bytes(10 * MIB), LagLimit::Millis(900)].map(|it| Some(slow(it)));
        for policy in [None, limits[0], limits[1]] {
            pace.review(Tick(5), 0, lag, policy);
            pace.spend(u64::MAX);
            assert!(pace.allows() && pace.exceeded().is_none(), "{policy:?}");
        }
    }

    #[test]
    fn a_replica_that_is_away_slows_nobody() {
        let mut pace = Pace::default();
        let lag = Some(Lag { bytes: 10 * MIB, millis: 0 });
        pace.review(Tick(5), 0, lag, Some(slow(LagLimit::Bytes(MIB))));
        assert!(pace.slows() && !pace.allows());
        pace.review(Tick(6), 0, None, Some(slow(LagLimit::Bytes(MIB))));
        assert!(pace.allows() && pace.exceeded().is_none());
    }

    #[test]
    fn an_alert_is_raised_without_slowing() {
        let mut pace = Pace::default();
        let alert = Some(LagPolicy { limit: LagLimit::Millis(1000), act: OnLag::Alert });
        pace.review(Tick(5), 0, Some(Lag { bytes: 0, millis: 1001 }), alert);
        assert_eq!(pace.exceeded(), Some(Tick(5)));
        assert!(pace.allows());
    }

    #[test]
    fn the_age_is_that_of_the_oldest_epoch_that_is_not_there() {
        let mut pace = Pace::default();
        pace.epoch_ended(Seq(5), Tick(100));
        pace.epoch_ended(Seq(9), Tick(200));
        assert_eq!(pace.age(Tick(250)), 150);
        pace.durable(Seq(5));
        assert_eq!(pace.age(Tick(250)), 50);
        pace.durable(Seq(9));
        assert_eq!(pace.age(Tick(250)), 0);
        pace.epoch_ended(Seq(12), Tick(300));
        pace.clear();
        assert_eq!(pace.age(Tick(400)), 0, "the order was lost: the map knows what is missing");
    }

    /// Goal: smooth, and neither faster nor much slower than the replica: at the limit its own rate,
    /// at twice the limit a quarter of it.
    #[test]
    fn writers_beyond_the_limit_are_as_fast_as_the_replica_takes_records() {
        const RATE: u64 = 8 * MIB;
        for (lag, share) in [(MIB + 2048, 1000), (3 * MIB / 2, 500), (2 * MIB, 250), (9 * MIB, 250)]
        {
            let (mut pace, mut written) = (Pace::default(), 0_u64);
            for now in 0..=20_000 {
                let behind = (now > 10_000).then_some(Lag { bytes: lag, millis: 0 });
                pace.review(Tick(now), RATE * now / 1000, behind, Some(slow(LagLimit::Bytes(MIB))));
                while now > 10_000 && pace.allows() {
                    pace.spend(4096);
                    written += 4096;
                }
            }
            let expected = 10 * RATE * share / 1000;
            assert!(written.abs_diff(expected) < expected / 50, "{written} of {expected} at {lag}");
        }
    }

    /// A pace at the limit of 1 MiB for a replica that took `rate` bytes a second at last, after
    /// ten seconds of 8 MiB a second.
    fn at_the_limit(rate: u64, last: u64) -> Pace {
        let mut pace = Pace::default();
        let mut taken = 0;
        for now in 0..=20_000 {
            taken += if now < 10_000 { 8 * MIB / 1000 } else { rate / 1000 };
            let behind = (now > last).then_some(Lag { bytes: MIB + 2048, millis: 0 });
            pace.review(Tick(now), taken, behind, Some(slow(LagLimit::Bytes(MIB))));
        }
        pace
    }

    #[test]
    fn what_counts_is_what_the_replica_took_lately_and_a_pause_is_not_made_up_for() {
        let mut pace = at_the_limit(MIB, 20_000);
        let behind = Some(Lag { bytes: MIB + 2048, millis: 0 });
        for now in [20_001, 30_000] {
            pace.review(Tick(now), 100 * MIB, behind, Some(slow(LagLimit::Bytes(MIB))));
        }
        let mut written = 0;
        while pace.allows() {
            pace.spend(512);
            written += 512;
        }
        // The replica took nothing in the pause, which the average of the last times shows.
        assert!(written <= MIB * BURST / 1000 + 512, "{written} at once");
        let fast = at_the_limit(8 * MIB, 20_000).rate;
        let now_slow = at_the_limit(MIB, 20_000).rate;
        assert!(fast > 7 * now_slow && now_slow > MIB / 2, "{fast} and {now_slow}");
    }

    #[test]
    fn an_operator_who_wants_an_alert_only_frees_the_writers() {
        let mut pace = at_the_limit(MIB, 19_000);
        assert!(pace.slows());
        let alert = Some(LagPolicy { limit: LagLimit::Bytes(MIB), act: OnLag::Alert });
        pace.review(Tick(20_001), 0, Some(Lag { bytes: 2 * MIB, millis: 0 }), alert);
        assert!(!pace.slows() && pace.exceeded().is_some());
    }

    #[test]
    fn a_stuck_replica_slows_writers_to_a_crawl_not_to_a_stop() {
        let (_, written) = largest_lag(0, 4096, MIB, 10_000);
        assert!(written >= MIB + 8 * SLOWEST, "{written}");
    }
}
