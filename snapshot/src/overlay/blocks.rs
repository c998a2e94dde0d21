//! A set of blocks that takes memory for where it has members only.

use std::collections::BTreeMap;

use super::format::{Entry, WORD_BLOCKS};

const CHUNK_WORDS: usize = 64;
/// Blocks of one chunk: 16 MiB of a clone in 512 bytes. Small, so that a few blocks far apart take
/// little; large, so that a clone written as a whole takes little more than a bit each.
const CHUNK: u64 = CHUNK_WORDS as u64 * WORD_BLOCKS;

/// A set of block numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    chunks: BTreeMap<u64, Box<[u64; CHUNK_WORDS]>>,
    count: u64,
}

/// Where a block's bit is: chunk, word in it, bit in that.
const fn place(block: u64) -> (u64, usize, u64) {
    (block / CHUNK, (block % CHUNK / WORD_BLOCKS) as usize, block % WORD_BLOCKS)
}

impl Blocks {
    /// How many there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// The block behind the last one.
    pub(super) fn end(&self) -> u64 {
        let Some((chunk, words)) = self.chunks.last_key_value() else { return 0 };
        let last = words.iter().rposition(|&word| word != 0).expect("a chunk has members");
        let bits = u64::from(words[last].ilog2()) + 1;
        chunk * CHUNK + last as u64 * WORD_BLOCKS + bits
    }

    fn contains(&self, block: u64) -> bool {
        let (chunk, word, bit) = place(block);
        self.chunks.get(&chunk).is_some_and(|words| words[word] >> bit & 1 == 1)
    }

    /// Whether `from` is in the set, and up to where, at most `end`, the blocks behind it are of
    /// the same kind.
    pub(super) fn run(&self, from: u64, end: u64) -> (bool, u64) {
        let inside = self.contains(from);
        let mut at = from;
        while at < end {
            let (chunk, word, bit) = place(at);
            match self.chunks.get(&chunk) {
                None if inside => break,
                None => {
                    let next = self.chunks.range(chunk..).next();
                    at = next.map_or(end, |(chunk, _)| chunk * CHUNK);
                }
                Some(words) => {
                    let others = if inside { !words[word] } else { words[word] } >> bit;
                    if others != 0 {
                        at += u64::from(others.trailing_zeros());
                        break;
                    }
                    at += WORD_BLOCKS - bit;
                }
            }
        }
        (inside, at.min(end))
    }

    /// The runs of one kind within `first..end`, ascending: first block, and the one behind.
    pub(super) fn runs(
        &self,
        kind: bool,
        first: u64,
        end: u64,
    ) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = first;
        std::iter::from_fn(move || {
            while at < end {
                let from = at;
                let (inside, to) = self.run(from, end);
                at = to;
                if inside == kind {
                    return Some((from, to));
                }
            }
            None
        })
    }

    /// Whether all of `first..end` are in the set.
    pub(super) fn has_all(&self, first: u64, end: u64) -> bool {
        self.run(first, end) == (true, end)
    }

    /// Puts `first..end` in.
    pub(super) fn insert(&mut self, first: u64, end: u64) {
        let mut at = first;
        while at < end {
            let bit = at % WORD_BLOCKS;
            let blocks = (WORD_BLOCKS - bit).min(end - at);
            self.insert_word(at / WORD_BLOCKS, (u64::MAX >> (WORD_BLOCKS - blocks)) << bit);
            at += blocks;
        }
    }

    /// Puts in the members of one word: the blocks from `64 * word` on, lowest bit first.
    pub(super) fn insert_word(&mut self, word: u64, mask: u64) {
        if mask == 0 {
            return;
        }
        let (chunk, word, _) = place(word * WORD_BLOCKS);
        let words = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; CHUNK_WORDS]));
        self.count += u64::from((mask & !words[word]).count_ones());
        words[word] |= mask;
    }

    /// Puts in all of `other`.
    pub(super) fn merge(&mut self, other: &Blocks) {
        for (word, mask) in other.words(0) {
            self.insert_word(word, mask);
        }
    }

    /// Words with members, from `word` on.
    fn words(&self, word: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        const WORDS: u64 = CHUNK_WORDS as u64;
        let chunks = self.chunks.range(word / WORDS..);
        let all = chunks.flat_map(|(chunk, words)| (chunk * WORDS..).zip(words.iter().copied()));
        all.filter(move |&(at, mask)| at >= word && mask != 0)
    }

    /// What to store for the members that are not in `without`, from `word` on: at most `max`
    /// entries. The next begin at [`Entry::end`] of the last; without a last one none are left.
    pub(super) fn entries(&self, without: &Blocks, word: u64, max: usize) -> Vec<Entry> {
        let mut found: Vec<Entry> = Vec::new();
        for (word, mask) in self.words(word) {
            let (chunk, at, _) = place(word * WORD_BLOCKS);
            let mask = mask & !without.chunks.get(&chunk).map_or(0, |words| words[at]);
            let full = found.len() == max;
            match found.last_mut() {
                _ if mask == 0 => {}
                Some(last) if last.end() == word && last.mask == mask => last.words += 1,
                _ if full => break,
                _ => found.push(Entry { word, words: 1, mask }),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_far_apart_take_memory_for_themselves_only() {
        let last = (1 << 35) - 1;
        let mut blocks = Blocks::default();
        assert_eq!((blocks.end(), blocks.run(0, last)), (0, (false, last)));
        blocks.insert(last, last + 1);
        blocks.insert(5, 6);
        assert_eq!((blocks.chunks.len(), blocks.count(), blocks.end()), (2, 2, last + 1));
        assert_eq!(blocks.run(6, last + 1), (false, last));
        assert!(blocks.runs(true, 0, last + 1).eq([(5, 6), (last, last + 1)]));
    }

    #[test]
    fn what_was_written_in_a_row_is_one_entry() {
        let mut blocks = Blocks::default();
        blocks.insert(64, 64 * 1000);
        let none = Blocks::default();
        let row = Entry { word: 1, words: 999, mask: u64::MAX };
        assert_eq!(blocks.entries(&none, 0, 9), [row]);
        blocks.insert(64 * 2000, 64 * 2000 + 1);
        let one = Entry { word: 2000, words: 1, mask: 1 };
        assert_eq!(blocks.entries(&none, 0, 1), [row]);
        assert_eq!(blocks.entries(&none, row.end(), 1), [one]);
        assert_eq!(blocks.entries(&none, one.end(), 1), []);
    }

    proptest! {
        /// It does what a set of numbers does, and its entries make it again.
        #[test]
        fn equals_a_set_of_numbers(
            steps in prop::collection::vec((0u64..20_000, 0u64..9000), 0..12),
            other in prop::collection::vec((0u64..20_000, 0u64..300), 0..12),
            asks in prop::collection::vec((0u64..20_000, 1u64..9000), 20),
            max in 1usize..5,
        ) {
            let (mut blocks, mut model) = (Blocks::default(), BTreeSet::new());
            let (mut without, mut missing) = (Blocks::default(), BTreeSet::new());
            for (first, len) in steps {
                blocks.insert(first, first + len);
                model.extend(first..first + len);
            }
            for (first, len) in other {
                without.insert(first, first + len);
                missing.extend(first..first + len);
            }
            prop_assert_eq!(blocks.count(), model.len() as u64);
            prop_assert_eq!(blocks.end(), model.last().map_or(0, |last| last + 1));
            for (first, len) in asks {
                let (inside, end) = blocks.run(first, first + len);
                prop_assert_eq!(inside, model.contains(&first));
                prop_assert!((first..end).all(|it| model.contains(&it) == inside));
                prop_assert!(end == first + len || model.contains(&end) != inside);
                prop_assert_eq!(blocks.has_all(first, end), inside);
            }
            let found: Vec<u64> =
                blocks.runs(true, 0, 40_000).flat_map(|(first, end)| first..end).collect();
            prop_assert!(found.iter().eq(model.iter()));
            let (mut again, mut word) = (Blocks::default(), 0);
            loop {
                let entries = blocks.entries(&without, word, max);
                let Some(last) = entries.last() else { break };
                word = last.end();
                for entry in &entries {
                    (entry.word..entry.end()).for_each(|it| again.insert_word(it, entry.mask));
                }
            }
            let found = again.runs(true, 0, 40_000).flat_map(|(first, end)| first..end);
            prop_assert!(found.eq(model.difference(&missing).copied()));
            blocks.merge(&without);
            let all = blocks.runs(true, 0, 40_000).flat_map(|(first, end)| first..end);
            prop_assert!(all.eq(model.union(&missing).copied()));
        }
    }
}
