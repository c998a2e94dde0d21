//! Range locks: which bytes are being written now. Overlapping writes reach the LV one after
//! another, in the order of their seqs.

use vgship_base::ids::VolumeId;
use vgship_base::units::Span;

/// The runs that are being written. Few at a time, as many as clients keep in flight.
#[derive(Debug, Default)]
pub struct RangeLocks {
    held: Vec<(VolumeId, Span)>,
}

impl RangeLocks {
    /// Whether a write of this run would have to wait.
    pub fn busy(&self, volume: VolumeId, span: Span) -> bool {
        self.held.iter().any(|&(other, held)| other == volume && held.overlaps(span))
    }

    /// Takes a run that is not [`RangeLocks::busy`].
    pub fn lock(&mut self, volume: VolumeId, span: Span) {
        assert!(!self.busy(volume, span), "two writers of {span:?} in volume {}", volume.0);
        self.held.push((volume, span));
    }

    /// Gives a run back.
    pub fn unlock(&mut self, volume: VolumeId, span: Span) {
        let place = self.held.iter().position(|&held| held == (volume, span));
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
        locks.lock(lv, Span::new(4096, 4096));
        assert!(locks.busy(lv, Span::new(8191, 1)));
        assert!(!locks.busy(lv, Span::new(8192, 1)));
        assert!(!locks.busy(VolumeId(2), Span::new(4096, 4096)));
        locks.unlock(lv, Span::new(4096, 4096));
        assert!(locks.is_empty());
    }
}
