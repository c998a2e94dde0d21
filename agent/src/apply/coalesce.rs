//! Coalescing: of everything that a batch writes, only the last version of each byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use vgship_base::ids::VolumeId;
use vgship_base::units::Span;

/// New content of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Data(Bytes),
    /// Zeroes.
    Zero,
}

impl Content {
    fn slice(&self, from: u64, len: u64) -> Content {
        match self {
            Content::Zero => Content::Zero,
            Content::Data(data) => {
                let at = |value: u64| usize::try_from(value).expect("within a buffer");
                Content::Data(data.slice(at(from)..at(from + len)))
            }
        }
    }
}

/// What a batch writes to one volume: runs that do not overlap, by their offset.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    runs: BTreeMap<u64, (u64, Content)>,
}

impl Pending {
    /// Writes over whatever is pending there.
    pub fn put(&mut self, span: Span, content: Content) {
        let (start, end) = (span.offset, span.end());
        let before = self.runs.range(..start).next_back().map(|(&at, (len, _))| (at, *len));
        if let Some((at, len)) = before.filter(|(at, len)| at + len > start) {
            let (_, old) = self.runs.remove(&at).expect("it was just found");
            self.runs.insert(at, (start - at, old.slice(0, start - at)));
            if at + len > end {
                self.runs.insert(end, (at + len - end, old.slice(end - at, at + len - end)));
            }
        }
        while let Some((&at, &(len, _))) = self.runs.range(start..end).next() {
            let (_, old) = self.runs.remove(&at).expect("it was just found");
            if at + len > end {
                self.runs.insert(end, (at + len - end, old.slice(end - at, at + len - end)));
            }
        }
        self.runs.insert(start, (span.len, content));
    }

    /// What is pending within a run, without copying data.
    #[must_use]
    pub fn within(&self, span: Span) -> Pending {
        let first = self.runs.range(..=span.offset).next_back().map_or(span.offset, |(&at, _)| at);
        let runs =
            self.runs.range(first..span.end()).filter(|(at, (len, _))| *at + len > span.offset);
        Pending { runs: runs.map(|(at, run)| (*at, run.clone())).collect() }
    }

    /// Lays what is pending over `bytes`, which were read from `offset`.
    pub fn overlay(&self, offset: u64, bytes: &mut [u8]) {
        let whole = Span::new(offset, bytes.len() as u64);
        let first = self.runs.range(..=offset).next_back().map_or(offset, |(&at, _)| at);
        for (&at, (len, content)) in self.runs.range(first..whole.end()) {
            let (from, to) = (at.max(offset), (at + len).min(whole.end()));
            if from >= to {
                continue;
            }
            let place = |value: u64| usize::try_from(value).expect("within a buffer");
            let into = &mut bytes[place(from - offset)..place(to - offset)];
            match content.slice(from - at, to - from) {
                Content::Data(data) => into.copy_from_slice(&data),
                Content::Zero => into.fill(0),
            }
        }
    }

    /// Takes away what is pending below `head`: it is never overwritten (R13).
    pub fn mask(&mut self, head: u64) {
        while let Some((&at, &(len, _))) = self.runs.range(..head).next() {
            let (_, old) = self.runs.remove(&at).expect("it was just found");
            if at + len > head {
                self.runs.insert(head, (at + len - head, old.slice(head - at, at + len - head)));
            }
        }
    }

    /// The runs, ascending.
    pub fn runs(&self) -> impl Iterator<Item = (Span, &Content)> {
        self.runs.iter().map(|(&at, (len, content))| (Span::new(at, *len), content))
    }
}

/// What a batch writes, per volume.
pub type Writes = BTreeMap<VolumeId, Pending>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As an index.
    fn at(value: u64) -> usize {
        usize::try_from(value).unwrap()
    }

    proptest! {
        /// Whatever overlaps whatever, laying the pending runs over a volume gives what writing
        /// all of them in order gives; the runs never overlap.
        #[test]
        fn equals_writing_in_order(
            steps in prop::collection::vec((0u64..64, 1u64..40, prop::option::of(1u8..)), 0..40),
            window in (0u64..64, 0u64..40),
            head in 0u64..64,
        ) {
            let (mut pending, mut model) = (Pending::default(), vec![0xee; 128]);
            for (start, len, fill) in steps {
                let content = fill.map_or(Content::Zero, |fill| {
                    Content::Data(Bytes::from(vec![fill; at(len)]))
                });
                pending.put(Span::new(start, len), content);
                model[at(start)..at(start + len)].fill(fill.unwrap_or(0));
            }
            let mut found = vec![0xee; 128];
            pending.overlay(0, &mut found);
            prop_assert_eq!(&found, &model);
            let (from, len) = (at(window.0), at(window.1));
            let mut part = vec![0xee; len];
            pending.overlay(window.0, &mut part);
            prop_assert_eq!(&part[..], &model[from..from + len]);
            let mut cut = vec![0xee; len];
            pending.within(Span::new(window.0, window.1)).overlay(window.0, &mut cut);
            prop_assert_eq!(&cut[..], &model[from..from + len]);
            let spans: Vec<Span> = pending.runs().map(|(span, _)| span).collect();
            prop_assert!(spans.windows(2).all(|pair| pair[0].end() <= pair[1].offset));
            pending.mask(head);
            let mut masked = vec![0xee; 128];
            pending.overlay(0, &mut masked);
            model[..at(head)].fill(0xee);
            prop_assert_eq!(masked, model);
        }
    }
}
