//! The activity map: which coarse regions may hold writes that a crash of the source would leave
//! in doubt. A region is marked on stable storage before the first write into it.
//!
//! It may be unmarked only when every write into it is (a) durable on every replica, or in that
//! replica's durable map, **and** (b) durable on the local LV (R4). Unmarking happens when a ledger
//! checkpoint is written without the region; a write that comes meanwhile marks it anew (R14).

use std::collections::{BTreeMap, BTreeSet};

use vgship_base::ids::{Seq, VolumeId};
use vgship_base::limits::REGION_LOG2;
use vgship_base::units::{Span, Tick};

/// One region of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// Which volume.
    pub volume: VolumeId,
    /// Which region. Unit: regions from the volume's start; 16 MiB each, see [`RegionSize`].
    pub index: u64,
}

/// Size of every region of a group. The ledger does not hold it: it never changes, only the
/// simulation has smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSize {
    log2: u8,
}

impl Default for RegionSize {
    fn default() -> RegionSize {
        RegionSize { log2: REGION_LOG2 }
    }
}

impl RegionSize {
    /// From the size's log2, below 64. Unit: log2 of bytes.
    pub const fn from_log2(log2: u8) -> RegionSize {
        assert!(log2 < 64, "a region has an end");
        RegionSize { log2 }
    }

    /// The bytes of a region; may reach behind its volume's end.
    pub const fn span(self, region: Region) -> Span {
        Span::new(region.index << self.log2, 1 << self.log2)
    }

    /// The regions that a run touches.
    pub fn touched(self, volume: VolumeId, span: Span) -> impl Iterator<Item = Region> {
        let (first, last) = (span.offset >> self.log2, (span.end().max(1) - 1) >> self.log2);
        (first..=last).map(move |index| Region { volume, index })
    }
}

/// How often writes of a volume have completed: orders them against flushes. Unit: writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Completion(pub u64);

#[derive(Clone, Copy, Debug, Default)]
struct Marked {
    in_flight: u32,
    last_seq: Seq,
    last_completion: Completion,
    last_write: Tick,
}

/// What a flush must cover for something that was written to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// All writes up to here.
    pub completion: Completion,
    /// How many flushes had failed by then: one that fails later may take them along.
    failures: u64,
}

/// What became of the writes before a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stable {
    /// A flush covers them.
    Yes,
    /// None does yet.
    No,
    /// A flush failed that should have: what is stored is not known (R8).
    Lost,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stability {
    completed: Completion,
    flushed: Completion,
    failures: u64,
    /// How many of them a client was told of.
    told: u64,
}

/// What is known of all marked regions.
#[derive(Debug, Default)]
pub struct Activity {
    size: RegionSize,
    marked: BTreeMap<Region, Marked>,
    /// Asked for, not yet on stable storage.
    wanted: BTreeSet<Region>,
    volumes: BTreeMap<VolumeId, Stability>,
}

impl Activity {
    /// Nothing is marked.
    pub fn new(size: RegionSize) -> Activity {
        Activity { size, ..Activity::default() }
    }

    /// Whether all regions of a run are marked durably. If not, they are noted as wanted.
    pub fn ready(&mut self, volume: VolumeId, span: Span) -> bool {
        let mut ready = true;
        for region in self.size.touched(volume, span) {
            if !self.marked.contains_key(&region) {
                self.wanted.insert(region);
                ready = false;
            }
        }
        ready
    }

    /// The regions to append to the ledger; when it is durable, [`Activity::mark`] them.
    pub fn wanted(&self) -> Vec<Region> {
        self.wanted.iter().copied().collect()
    }

    /// These are marked on stable storage now. A mark that is new counts as a write: the one that
    /// it was made for comes next.
    pub fn mark(&mut self, regions: &[Region], now: Tick) {
        for region in regions {
            self.wanted.remove(region);
            let fresh = || {
                let completed = self.volumes.get(&region.volume).map(|known| known.completed);
                let last_completion = completed.unwrap_or_default();
                Marked { last_completion, last_write: now, ..Marked::default() }
            };
            self.marked.entry(*region).or_insert_with(fresh);
        }
    }

    /// Marks from an earlier life: their content is stable only after a flush of this life.
    pub fn inherit(&mut self, regions: &[Region]) {
        for region in regions {
            let known = self.volumes.entry(region.volume).or_default();
            known.completed = known.completed.max(Completion(1));
            let last_completion = known.completed;
            self.marked.insert(*region, Marked { last_completion, ..Marked::default() });
        }
    }

    /// A write took its seq.
    pub fn begin(&mut self, volume: VolumeId, span: Span, seq: Seq, now: Tick) {
        for region in self.size.touched(volume, span) {
            let known = self.marked.get_mut(&region).expect("a write begins in marked regions");
            known.in_flight += 1;
            known.last_seq = known.last_seq.max(seq);
            known.last_write = now;
        }
    }

    /// A write completed on the LV.
    pub fn end(&mut self, volume: VolumeId, span: Span) {
        let stability = self.volumes.entry(volume).or_default();
        stability.completed.0 += 1;
        let completed = stability.completed;
        for region in self.size.touched(volume, span) {
            let known = self.marked.get_mut(&region).expect("a region with a write stays marked");
            known.in_flight -= 1;
            known.last_completion = completed;
        }
    }

    /// What a flush that begins now will cover.
    pub fn completed(&self, volume: VolumeId) -> Completion {
        self.volumes.get(&volume).map(|known| known.completed).unwrap_or_default()
    }

    /// A flush that covers all completions up to `upto` succeeded.
    pub fn flushed(&mut self, volume: VolumeId, upto: Completion) {
        let known = self.volumes.entry(volume).or_default();
        known.flushed = known.flushed.max(upto);
    }

    /// A flush failed: no later one brings back what it lost.
    pub fn flush_failed(&mut self, volume: VolumeId) {
        self.volumes.entry(volume).or_default().failures += 1;
    }

    /// Whether a flush failed of which no client was told. One is now.
    pub fn owes_error(&mut self, volume: VolumeId) -> bool {
        let known = self.volumes.entry(volume).or_default();
        let owed = known.told < known.failures;
        known.told = known.failures;
        owed
    }

    /// What a flush must cover for all that is written by now.
    pub fn barrier(&self, volume: VolumeId) -> Barrier {
        let known = self.volumes.get(&volume).copied().unwrap_or_default();
        Barrier { completion: known.completed, failures: known.failures }
    }

    /// What became of the writes before a barrier.
    pub fn stable(&self, volume: VolumeId, barrier: Barrier) -> Stable {
        let known = self.volumes.get(&volume).copied().unwrap_or_default();
        match (known.failures == barrier.failures, known.flushed >= barrier.completion) {
            (false, _) => Stable::Lost,
            (true, true) => Stable::Yes,
            (true, false) => Stable::No,
        }
    }

    /// What successful flushes cover.
    pub fn covered(&self, volume: VolumeId) -> Completion {
        self.volumes.get(&volume).map(|known| known.flushed).unwrap_or_default()
    }

    /// The regions whose content no successful flush covers.
    pub fn unflushed(&self, volume: VolumeId) -> Vec<Region> {
        let flushed = self.covered(volume);
        self.of(volume)
            .filter(|(_, known)| known.last_completion > flushed || known.in_flight > 0)
            .map(|(region, _)| *region)
            .collect()
    }

    fn of(&self, volume: VolumeId) -> impl Iterator<Item = (&Region, &Marked)> {
        let all = Region { volume, index: 0 }..=Region { volume, index: u64::MAX };
        self.marked.range(all)
    }

    /// Takes out and returns the regions that need no mark any more: idle since before
    /// `idle_since`, flushed, and every write in them accounted for by `settled`. They count as
    /// not marked from here on, whether or not the checkpoint without them succeeds.
    pub fn unmark(&mut self, idle_since: Tick, settled: impl Fn(Seq) -> bool) -> Vec<Region> {
        let volumes = &self.volumes;
        let done = |(region, known): (&Region, &Marked)| {
            let flushed = volumes.get(&region.volume).map(|known| known.flushed);
            known.in_flight == 0
                && known.last_write <= idle_since
                && known.last_completion <= flushed.unwrap_or_default()
                && settled(known.last_seq)
        };
        let gone: Vec<Region> =
            self.marked.iter().filter(|&entry| done(entry)).map(|(region, _)| *region).collect();
        for region in &gone {
            self.marked.remove(region);
        }
        gone
    }

    /// All marked regions, ascending.
    pub fn marked(&self) -> Vec<Region> {
        self.marked.keys().copied().collect()
    }

    /// How many regions are marked.
    pub fn len(&self) -> usize {
        self.marked.len()
    }

    /// Whether no region is marked.
    pub fn is_empty(&self) -> bool {
        self.marked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LV: VolumeId = VolumeId(0);
    const RUN: Span = Span::new(5, 10);

    fn written() -> Activity {
        let mut map = Activity::default();
        assert!(!map.ready(LV, RUN));
        let wanted = map.wanted();
        map.mark(&wanted, Tick(1));
        assert!(map.ready(LV, RUN));
        map.begin(LV, RUN, Seq(7), Tick(1));
        map
    }

    #[test]
    fn a_region_stays_marked_until_both_conditions_hold() {
        let mut map = written();
        let none: Vec<Region> = Vec::new();
        assert_eq!(map.unmark(Tick(9), |_| true), none, "a write is in flight");
        map.end(LV, RUN);
        assert_eq!(map.unmark(Tick(9), |_| true), none, "not flushed: R4 (b)");
        map.flushed(LV, map.completed(LV));
        assert_eq!(map.unmark(Tick(9), |seq| seq < Seq(7)), none, "not replicated: R4 (a)");
        assert_eq!(map.unmark(Tick(0), |_| true), none, "not idle");
        assert_eq!(map.unmark(Tick(9), |_| true), [Region { volume: LV, index: 0 }]);
        assert!(!map.ready(LV, RUN), "the next write marks anew");
    }

    #[test]
    fn a_region_is_wanted_until_it_is_marked_and_busy_since_its_last_write() {
        let mut map = written();
        assert!(map.wanted().is_empty());
        map.end(LV, RUN);
        map.begin(LV, RUN, Seq(8), Tick(20));
        map.end(LV, RUN);
        map.flushed(LV, map.completed(LV));
        assert!(map.unflushed(LV).is_empty());
        assert!(map.unmark(Tick(19), |_| true).is_empty(), "written since");
        assert_eq!(map.unmark(Tick(20), |_| true).len(), 1);
    }

    #[test]
    fn a_client_is_told_once_of_flushes_that_failed() {
        let mut map = written();
        assert!(!map.owes_error(LV));
        map.flush_failed(LV);
        map.flush_failed(LV);
        assert!(map.owes_error(LV) && !map.owes_error(LV));
        map.flush_failed(LV);
        assert!(map.owes_error(LV));
    }

    #[test]
    fn a_fresh_mark_waits_for_its_write() {
        let mut map = Activity::default();
        assert!(!map.ready(LV, RUN));
        let wanted = map.wanted();
        map.mark(&wanted, Tick(5));
        assert!(map.unmark(Tick(4), |_| true).is_empty(), "the write would mark for ever");
        assert!(map.ready(LV, RUN));
    }

    #[test]
    fn a_flush_that_began_before_the_last_write_ended_does_not_count() {
        let mut map = written();
        let before = map.completed(LV);
        map.end(LV, RUN);
        map.flushed(LV, before);
        assert!(map.unmark(Tick(9), |_| true).is_empty());
        assert_eq!(map.unflushed(LV).len(), 1);
    }

    #[test]
    fn a_flush_that_fails_takes_what_waited_for_it_along() {
        let mut map = written();
        map.end(LV, RUN);
        let barrier = map.barrier(LV);
        assert_eq!(map.stable(LV, barrier), Stable::No);
        map.flush_failed(LV);
        map.flushed(LV, map.completed(LV));
        assert_eq!(map.stable(LV, barrier), Stable::Lost, "R8: the next flush proves nothing");
        let barrier = map.barrier(LV);
        assert_eq!(map.stable(LV, barrier), Stable::Yes);
    }

    #[test]
    fn inherited_marks_wait_for_a_flush_of_this_life() {
        let (mut map, region) = (Activity::default(), Region { volume: LV, index: 3 });
        map.inherit(&[region]);
        assert!(map.unmark(Tick(9), |_| true).is_empty());
        map.flushed(LV, map.completed(LV));
        assert_eq!(map.unmark(Tick(9), |_| true), [region]);
    }

    #[test]
    fn a_run_over_a_border_touches_both_regions() {
        let border = 1 << REGION_LOG2;
        let touched =
            |offset, len| RegionSize::default().touched(LV, Span::new(offset, len)).count();
        assert_eq!(touched(border - 1, 2), 2);
        assert_eq!(touched(border, 1), 1);
    }
}
