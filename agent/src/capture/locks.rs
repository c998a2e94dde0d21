//! Range locks: which bytes are being written now. Overlapping writes reach the LV one after
//! another, in the order of their seqs.

use vgship_base::ids::{Seq, VolumeId};
use vgship_base::units::Span;

/// The runs that are being written. Few at a time, as many as clients keep in flight.
#[derive(Debug, Default)]
pub struct RangeLocks {
    held: Vec<(VolumeId, Span, Seq)>,
}

impl RangeLocks {
    /// Whether a write of this run would have to wait.
    pub fn busy(&self, volume: VolumeId, span: Span) -> bool {
        self.busy_before(volume, span, Seq(u64::MAX))
    }

    /// Whether a write of this run that took its seq before `seq` is still under way.
    pub fn busy_before(&self, volume: VolumeId, span: Span, seq: Seq) -> bool {
        let mut held = self.held.iter();
        held.any(|&(other, held, taken)| other == volume && held.overlaps(span) && taken < seq)
    }

    /// Takes a run that is not [`RangeLocks::busy`], for a write that takes `seq`.
    pub fn lock(&mut self, volume: VolumeId, span: Span, seq: Seq) {
        assert!(!self.busy(volume, span), "two writers of {span:?} in volume {}", volume.0);
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
        assert!(locks.busy(lv, Span::new(8191, 1)));
        assert!(!locks.busy(lv, Span::new(8192, 1)));
        assert!(!locks.busy(VolumeId(2), Span::new(4096, 4096)));
        assert!(locks.busy_before(lv, Span::new(8191, 1), Seq(8)));
        assert!(!locks.busy_before(lv, Span::new(8191, 1), Seq(7)));
        locks.unlock(lv, Span::new(4096, 4096));
        assert!(locks.is_empty());
    }
}
