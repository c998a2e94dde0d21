//! How fast the workload may write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Longest time whose unused share may be used later. Unit: seconds.
const BURST: f64 = 0.1;

/// No bound.
pub(super) const FULL: u64 = u64::MAX;

/// A rate, and a ceiling on all bytes together, which follows the replica's lag: so the load is as
/// fast as this machine replicates, and no slow machine drowns.
pub(super) struct Pace {
    rate: AtomicU64,
    ceiling: AtomicU64,
    taken: AtomicU64,
    credit: Mutex<(Instant, f64)>,
}

impl Pace {
    /// Nothing goes yet.
    pub(super) fn new() -> Pace {
        Pace {
            rate: AtomicU64::new(0),
            ceiling: AtomicU64::new(FULL),
            taken: AtomicU64::new(0),
            credit: Mutex::new((Instant::now(), 0.0)),
        }
    }

    /// So many bytes a second from now on; 0 holds everything, [`FULL`] nothing.
    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::SeqCst);
    }

    /// No more than so many bytes in all; [`FULL`] for no bound.
    pub(super) fn set_ceiling(&self, ceiling: u64) {
        self.ceiling.store(ceiling, Ordering::SeqCst);
    }

    /// All bytes so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Whether so many bytes may be written now; if so they count as written.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let rate = self.rate.load(Ordering::SeqCst);
        let under = self.taken().saturating_add(bytes) <= self.ceiling.load(Ordering::SeqCst);
        if rate == 0 || !under {
            return false;
        }
        if rate != FULL {
            let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earned = now.duration_since(credit.0).as_secs_f64().min(BURST) * as_f64(rate);
            let most = (as_f64(rate) * BURST).max(as_f64(bytes));
            *credit = (now, (credit.1 + earned).min(most));
            if credit.1 < as_f64(bytes) {
                return false;
            }
            credit.1 -= as_f64(bytes);
        }
        self.taken.fetch_add(bytes, Ordering::SeqCst);
        true
    }
}

/// A count for arithmetic with times.
#[expect(clippy::cast_precision_loss, reason = "rates of a demonstration need no 53 bits")]
pub(super) const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_workload_writes_nothing_and_a_ceiling_holds() {
        let pace = Pace::new();
        assert!(!pace.take(1));
        pace.set_rate(FULL);
        pace.set_ceiling(10);
        assert!(pace.take(6) && !pace.take(6) && pace.take(4));
        assert_eq!(pace.taken(), 10);
        pace.set_ceiling(FULL);
        pace.set_rate(1);
        let taken = (0..1000).filter(|_| pace.take(1)).count();
        assert!(taken < 500, "{taken} bytes at one a second");
    }
}
