//! Extents: the slots of a volume that are tracked, hashed and shipped as one.

use crate::ids::VolumeId;
use crate::limits::{EXTENT_LOG2_MAX, EXTENT_LOG2_MIN};
use crate::units::Span;

/// Size of every extent of a group: a power of two from 4 KiB to 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentSize(u8);

impl ExtentSize {
    /// From the size's log2, or `None` outside the limits.
    pub fn from_log2(log2: u8) -> Option<ExtentSize> {
        (EXTENT_LOG2_MIN..=EXTENT_LOG2_MAX).contains(&log2).then_some(ExtentSize(log2))
    }

    /// From the size in bytes, or `None` unless it is a power of two within the limits.
    pub fn from_bytes(bytes: u64) -> Option<ExtentSize> {
        let log2 = u8::try_from(bytes.checked_ilog2()?).ok()?;
        if bytes.is_power_of_two() { ExtentSize::from_log2(log2) } else { None }
    }

    /// Unit: log2 of bytes.
    pub const fn log2(self) -> u8 {
        self.0
    }

    /// Unit: bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// How many extents a volume of `bytes` has; the last may be short.
    pub const fn count(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// The bytes of extent `index` in a volume of `bytes`.
    pub fn span(self, index: u64, bytes: u64) -> Span {
        let offset = index << self.0;
        Span::new(offset, self.bytes().min(bytes.saturating_sub(offset)))
    }

    /// The extents that `span` touches: first, and the one behind the last.
    pub const fn touched(self, span: Span) -> (u64, u64) {
        match span.len {
            0 => (0, 0),
            _ => (span.offset >> self.0, ((span.end() - 1) >> self.0) + 1),
        }
    }
}

/// One extent of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// Which volume.
    pub volume: VolumeId,
    /// Which slot. Unit: extents from the volume's start.
    pub index: u64,
}

/// A set of slots of one volume, one bit each: 2 MiB for 1 TiB at 64 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitSet {
    words: Vec<u64>,
    bits: u64,
    set: u64,
}

impl BitSet {
    /// The empty set over `bits` slots.
    pub fn new(bits: u64) -> BitSet {
        let words = usize::try_from(bits.div_ceil(64)).expect("a volume's bits fit memory");
        BitSet { words: vec![0; words], bits, set: 0 }
    }

    /// How many slots there are.
    pub const fn bits(&self) -> u64 {
        self.bits
    }

    /// How many slots are in the set.
    pub const fn count(&self) -> u64 {
        self.set
    }

    fn place(&self, bit: u64) -> (usize, u64) {
        assert!(bit < self.bits, "slot {bit} of {}", self.bits);
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    /// Whether `bit` is in the set.
    pub fn contains(&self, bit: u64) -> bool {
        let (word, mask) = self.place(bit);
        self.words[word] & mask != 0
    }

    /// Makes room for `bits` slots; those that are new are not in the set.
    ///
    /// # Panics
    /// When that is fewer than there are.
    pub fn grow(&mut self, bits: u64) {
        assert!(bits >= self.bits, "{} slots become {bits}", self.bits);
        self.words.resize(usize::try_from(bits.div_ceil(64)).expect("as in new"), 0);
        self.bits = bits;
    }

    /// Puts `bit` in; returns whether it was not there.
    pub fn insert(&mut self, bit: u64) -> bool {
        let (word, mask) = self.place(bit);
        let fresh = self.words[word] & mask == 0;
        self.words[word] |= mask;
        self.set += u64::from(fresh);
        fresh
    }

    /// Puts `first..end` in.
    pub fn insert_range(&mut self, first: u64, end: u64) {
        let mut bit = first;
        while bit < end {
            if bit.is_multiple_of(64) && end - bit >= 64 {
                let (word, _) = self.place(bit);
                self.set += u64::from(self.words[word].count_zeros());
                self.words[word] = u64::MAX;
                assert!(bit + 64 <= self.bits, "slot {} of {}", bit + 63, self.bits);
                bit += 64;
            } else {
                self.insert(bit);
                bit += 1;
            }
        }
    }

    /// Takes `bit` out; returns whether it was there.
    pub fn remove(&mut self, bit: u64) -> bool {
        let (word, mask) = self.place(bit);
        let had = self.words[word] & mask != 0;
        self.words[word] &= !mask;
        self.set -= u64::from(had);
        had
    }

    /// The first member at or after `from`.
    pub fn next(&self, from: u64) -> Option<u64> {
        if self.set == 0 || from >= self.bits {
            return None;
        }
        let first = (from / 64) as usize;
        let masked = self.words[first] & (u64::MAX << (from % 64));
        if masked != 0 {
            return Some(first as u64 * 64 + u64::from(masked.trailing_zeros()));
        }
        let rest = self.words[first + 1..].iter().position(|&word| word != 0)?;
        let word = first + 1 + rest;
        Some(word as u64 * 64 + u64::from(self.words[word].trailing_zeros()))
    }

    /// Whether any of `first..end` is in the set.
    pub fn any_in(&self, first: u64, end: u64) -> bool {
        self.next(first).is_some_and(|bit| bit < end)
    }

    /// Members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let bit = self.next(from)?;
            from = bit + 1;
            Some(bit)
        })
    }

    /// The bits as big-endian words, slot 0 in the lowest bit of the first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The set over `bits` slots from its words; bits behind the last slot are dropped. `None`
    /// when the number of words is wrong.
    pub fn from_words(bits: u64, mut words: Vec<u64>) -> Option<BitSet> {
        if words.len() as u64 != bits.div_ceil(64) {
            return None;
        }
        if let (Some(last), true) = (words.last_mut(), !bits.is_multiple_of(64)) {
            *last &= (1 << (bits % 64)) - 1;
        }
        let set = words.iter().map(|word| u64::from(word.count_ones())).sum();
        Some(BitSet { words, bits, set })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_powers_of_two_within_the_limits_are_extent_sizes() {
        assert_eq!(ExtentSize::from_bytes(65_536).map(ExtentSize::log2), Some(16));
        for bad in [0, 1, 2048, 65_537, 2 << 20] {
            assert_eq!(ExtentSize::from_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_last_extent_may_be_short() {
        let size = ExtentSize::from_log2(16).unwrap();
        assert_eq!(size.count(65_537), 2);
        assert_eq!(size.span(1, 65_537), Span::new(65_536, 1));
        assert_eq!(size.touched(Span::new(65_535, 2)), (0, 2));
        assert_eq!(size.touched(Span::new(65_536, 65_536)), (1, 2));
        assert_eq!(size.touched(Span::new(65_536, 0)), (0, 0));
    }

    proptest! {
        /// A bit set does what a set of numbers does.
        #[test]
        fn equals_a_set_of_numbers(bits in 1u64..300, steps in prop::collection::vec((0u8..4, 0u64..300, 0u64..200), 0..60)) {
            let (mut set, mut model) = (BitSet::new(bits), BTreeSet::new());
            let mut bits = bits;
            for (kind, at, len) in steps {
                let at = at % bits;
                let end = (at + len).min(bits);
                match kind {
                    3 => { bits += len; set.grow(bits); }
                    0 => prop_assert_eq!(set.insert(at), model.insert(at)),
                    1 => prop_assert_eq!(set.remove(at), model.remove(&at)),
                    _ => { set.insert_range(at, end); model.extend(at..end); }
                }
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert_eq!(set.next(at), model.range(at..).next().copied());
                prop_assert_eq!(set.any_in(at, end), model.range(at..end).next().is_some());
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            let again = BitSet::from_words(bits, set.words().to_vec());
            prop_assert_eq!(again, Some(set));
        }
    }
}
