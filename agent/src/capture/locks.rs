//! Range locks: which bytes are being written now. Overlapping writes reach the LV one after
//! another, in the order of their seqs.

use vgship_base::ids::{Seq, VolumeId};
use vgship_base::units::Span;

/// The runs that are being written. Few at a time, as many as clients keep in flight.
#[derive(Debug, Default)]
pub struct RangeLocks {
    held: Vec<(VolumeId, Span, Seq)>,
    /// Runs that a reader waits for: no further write may begin in them.
    awaited: Vec<(VolumeId, Span)>,
}

impl RangeLocks {
    /// Whether a write of this run would have to wait.
    pub fn busy(&self, volume: VolumeId, span: Span) -> bool {
        self.busy_before(volume, span, Seq(u64::MAX))
    }

    /// Whether a write of this run may not begin: somebody writes there, or waits to read there
    /// undisturbed.
    pub fn blocked(&self, volume: VolumeId, span: Span) -> bool {
        let mut awaited = self.awaited.iter();
        self.busy(volume, span)
            || awaited.any(|&(other, awaited)| other == volume && awaited.overlaps(span))
    }

    /// Waits for a run: writes under way end, none begins. Ends with [`RangeLocks::lock`] of the
    /// run or with [`RangeLocks::give_up`].
    pub fn wait(&mut self, volume: VolumeId, span: Span) {
        if !self.awaited.contains(&(volume, span)) {
            self.awaited.push((volume, span));
        }
    }

    /// Waits for a run no longer.
    pub fn give_up(&mut self, volume: VolumeId, span: Span) {
        self.awaited.retain(|&awaited| awaited != (volume, span));
    }

    /// Whether a write of this run that took its seq before `seq` is still under way.
    pub fn busy_before(&self, volume: VolumeId, span: Span, seq: Seq) -> bool {
        let mut held = self.held.iter();
        held.any(|&(other, held, taken)| other == volume && held.overlaps(span) && taken < seq)
    }

    /// Takes a run that is not [`RangeLocks::busy`], for a write that takes `seq`.
    pub fn lock(&mut self, volume: VolumeId, span: Span, seq: Seq) {
        assert!(!self.busy(volume, span), "two writers of {span:?} in volume {}", volume.0);
        self.give_up(volume, span);
        self.held.push((volume, span, seq));
    }

    /// Gives a run back.
    pub fn unlock(&mut self, volume: VolumeId, span: Span) {
        let place = self.held.iter().position(|&(other, held, _)| (other, held) == (volume, span));
        self.held.swap_remove(place.expect("only a held run is given back"));
    }

    /// Whether nothing is being written.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_overlaps_in_the_same_volume_wait() {
        let (mut locks, lv) = (RangeLocks::default(), VolumeId(1));
        locks.lock(lv, Span::new(4096, 4096), Seq(7));
        assert!(!locks.is_empty());
        assert!(locks.busy(lv, Span::new(8191, 1)));
        assert!(!locks.busy(lv, Span::new(8192, 1)));
        assert!(!locks.busy(VolumeId(2), Span::new(4096, 4096)));
        assert!(locks.busy_before(lv, Span::new(8191, 1), Seq(8)));
        assert!(!locks.busy_before(lv, Span::new(8191, 1), Seq(7)));
        locks.unlock(lv, Span::new(4096, 4096));
        assert!(locks.is_empty());
    }

    #[test]
    fn a_reader_that_waits_lets_no_further_write_begin() {
        let (mut locks, lv) = (RangeLocks::default(), VolumeId(0));
        locks.lock(lv, Span::new(0, 512), Seq(1));
        locks.wait(lv, Span::new(0, 4096));
        assert!(locks.blocked(lv, Span::new(2048, 512)) && !locks.busy(lv, Span::new(2048, 512)));
        assert!(!locks.blocked(VolumeId(1), Span::new(2048, 512)), "another volume");
        assert!(!locks.blocked(lv, Span::new(4096, 512)), "another run");
        locks.unlock(lv, Span::new(0, 512));
        locks.lock(lv, Span::new(0, 4096), Seq(1));
        locks.unlock(lv, Span::new(0, 4096));
        assert!(!locks.blocked(lv, Span::new(2048, 512)));
    }
}
