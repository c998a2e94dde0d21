//! The dirty map of one replica: the extents in which it may differ from the source.

use vgship_base::extent::{BitSet, Extent};
use vgship_base::ids::VolumeId;
use vgship_base::layout::Layout;
use vgship_base::units::Span;

/// The extents in which a replica may differ, and how far the present walk over them has come.
#[derive(Clone, Debug)]
pub struct DirtyMap {
    sets: Vec<BitSet>,
    at: Extent,
}

impl DirtyMap {
    /// Nothing differs.
    pub fn empty(layout: &Layout) -> DirtyMap {
        let sizes = layout.volumes.iter().map(|volume| layout.extent.count(volume.bytes));
        DirtyMap::from_sets(sizes.map(BitSet::new).collect())
    }

    /// As read from the ledger: one set per volume.
    pub fn from_sets(sets: Vec<BitSet>) -> DirtyMap {
        DirtyMap { sets, at: Extent { volume: VolumeId(0), index: 0 } }
    }

    /// One set per volume.
    pub fn sets(&self) -> &[BitSet] {
        &self.sets
    }

    /// The sets themselves.
    pub fn into_sets(self) -> Vec<BitSet> {
        self.sets
    }

    /// The volumes have grown: what they gained, and the extent that was short, may differ.
    pub fn grow(&mut self, old: &Layout, new: &Layout) {
        for ((set, old), volume) in self.sets.iter_mut().zip(&old.volumes).zip(&new.volumes) {
            set.grow(new.extent.count(volume.bytes));
            if volume.bytes > old.bytes {
                set.insert_range(old.bytes >> new.extent.log2(), set.bits());
            }
        }
    }

    /// Takes in all that another map of the same volumes has.
    pub fn join(&mut self, other: &DirtyMap) {
        for (set, more) in self.sets.iter_mut().zip(&other.sets) {
            let within = |index: &u64| *index < set.bits();
            let more: Vec<u64> = more.iter().filter(within).collect();
            for index in more {
                set.insert(index);
            }
        }
    }

    /// Everything may differ.
    pub fn fill(&mut self) {
        self.sets.iter_mut().for_each(|set| set.insert_range(0, set.bits()));
    }

    /// These bytes may differ.
    pub fn insert_span(&mut self, layout: &Layout, volume: VolumeId, span: Span) {
        let (first, end) = layout.extent.touched(span);
        if let Some(set) = self.sets.get_mut(volume.index()) {
            set.insert_range(first, end.min(set.bits()));
        }
    }

    /// This extent may differ.
    pub fn insert(&mut self, extent: Extent) {
        self.sets[extent.volume.index()].insert(extent.index);
    }

    /// Takes out the next extent of the walk that `skip` does not refuse. The walk goes round.
    pub fn take_next(&mut self, skip: impl Fn(Extent) -> bool) -> Option<Extent> {
        let start = self.at;
        for lap in 0..2 {
            while let Some(extent) = self.next_from(self.at) {
                if lap == 1 && extent >= start {
                    return None;
                }
                self.at = Extent { index: extent.index + 1, ..extent };
                if !skip(extent) {
                    self.sets[extent.volume.index()].remove(extent.index);
                    return Some(extent);
                }
            }
            self.at = Extent { volume: VolumeId(0), index: 0 };
        }
        None
    }

    fn next_from(&self, from: Extent) -> Option<Extent> {
        let volumes = (0u16..).map(VolumeId).zip(&self.sets).skip(from.volume.index());
        volumes.into_iter().find_map(|(volume, set)| {
            let first = if volume == from.volume { from.index } else { 0 };
            set.next(first).map(|index| Extent { volume, index })
        })
    }

    /// How many extents may differ.
    pub fn count(&self) -> u64 {
        self.sets.iter().map(BitSet::count).sum()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.sets.iter().all(|set| set.count() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(volume: u16, index: u64) -> Extent {
        Extent { volume: VolumeId(volume), index }
    }

    #[test]
    fn growth_makes_dirty_what_was_gained_and_the_extent_that_was_short() {
        let layout = |sizes: [u64; 2]| Layout {
            extent: vgship_base::extent::ExtentSize::from_log2(12).unwrap(),
            volumes: sizes
                .map(|bytes| vgship_base::layout::VolumeLayout {
                    name: "lv".parse().unwrap(),
                    bytes,
                    masked: 0,
                })
                .to_vec(),
        };
        let (old, new) = (layout([4096 + 512, 4096 + 512]), layout([4096 + 512, 3 * 4096]));
        let mut map = DirtyMap::empty(&old);
        map.grow(&old, &new);
        let dirty: Vec<Vec<u64>> = map.sets().iter().map(|set| set.iter().collect()).collect();
        assert_eq!(dirty, [vec![], vec![1, 2]]);
    }

    #[test]
    fn the_walk_goes_round_and_skips() {
        let mut map = DirtyMap::from_sets(vec![BitSet::new(3), BitSet::new(0), BitSet::new(2)]);
        map.fill();
        assert_eq!(map.count(), 5);
        assert_eq!(map.take_next(|_| false), Some(extent(0, 0)));
        assert_eq!(map.take_next(|found| found.volume.0 == 0), Some(extent(2, 0)));
        map.insert(extent(0, 0));
        assert_eq!(map.take_next(|_| false), Some(extent(2, 1)));
        assert_eq!(map.take_next(|_| false), Some(extent(0, 0)));
        assert_eq!(map.take_next(|found| found == extent(0, 1)), Some(extent(0, 2)));
        assert_eq!(map.take_next(|found| found == extent(0, 1)), None);
        assert_eq!(map.take_next(|_| false), Some(extent(0, 1)));
        assert!(map.is_empty());
    }
}
