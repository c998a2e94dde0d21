//! How often a thaw that fails is tried again.

/// How often it is tried at all.
const THAWS: u32 = 6;

/// The first pause; each is twice the one before. Unit: milliseconds.
const PAUSE: u64 = 250;

/// Tries of a thaw so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries(u32);

impl Tries {
    /// One more has begun.
    pub fn begin(&mut self) {
        self.0 += 1;
    }

    /// How long to wait before the next; `None` when there is none. Unit: milliseconds.
    pub fn pause(self) -> Option<u64> {
        (self.0 < THAWS).then(|| PAUSE << self.0.saturating_sub(1))
    }
}

/// How long all tries can take when each takes at most `limit`. Unit of both: milliseconds.
pub fn most(limit: u64) -> u64 {
    u64::from(THAWS) * limit + (PAUSE << (THAWS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut tries = Tries::default();
        let mut pauses = Vec::new();
        loop {
            tries.begin();
            let Some(pause) = tries.pause() else { break };
            pauses.push(pause);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000]);
        assert!(most(100) >= 600 + pauses.iter().sum::<u64>());
    }
}
