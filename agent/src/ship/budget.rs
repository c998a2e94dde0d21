//! A budget of bytes a second for background reading: nothing is read faster, a pause is not made
//! up for.

use vgship_base::units::Tick;

/// What may be read now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Below zero when more was read than there was.
    bytes: i64,
    filled: Option<Tick>,
}

impl Budget {
    /// Whether something may be read at this time, at `rate` bytes a second; never at 0.
    pub fn allows(&mut self, now: Tick, rate: u64) -> bool {
        let second = i64::try_from(rate).unwrap_or(i64::MAX);
        let time = self.filled.map_or(0, |filled| now.since(filled));
        let more = i64::try_from(rate.saturating_mul(time) / 1000).unwrap_or(i64::MAX);
        if more > 0 || self.filled.is_none() {
            self.bytes = self.bytes.saturating_add(more).min(second);
            self.filled = Some(now);
        }
        rate > 0 && self.bytes >= 0
    }

    /// So much was read.
    pub fn spend(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_rate_allows() {
        for (rate, step) in [(1000, 64), (1 << 20, 65_536), (50, 4096), (500, 64)] {
            let (mut budget, mut read) = (Budget::default(), 0);
            for now in 0..100_000 {
                if budget.allows(Tick(now), rate) {
                    budget.spend(step);
                    read += step;
                }
            }
            let most = rate * 100;
            assert!(read <= most + step + rate && read + step >= most, "{read} of {most}");
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for_and_zero_reads_nothing() {
        assert!(Budget::default().allows(Tick(0), 1000), "the first is due at once");
        let mut budget = Budget::default();
        assert!(!budget.allows(Tick(0), 0));
        assert!(budget.allows(Tick(3_600_000), 1000));
        budget.spend(1001);
        assert!(!budget.allows(Tick(3_600_000), 1000), "an hour gives a second's worth");
    }
}
