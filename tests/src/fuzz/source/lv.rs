//! The model's LV: a number for each page, what a flush made stable, and what was at each seq.

use bytes::Bytes;
use vgship::capture::source::Change;
use vgship_base::ids::Seq;
use vgship_base::units::Span;

use super::VOLUME;

/// Pages of the LV; an extent has two.
pub const PAGES: usize = 16;
/// Unit: bytes.
pub const PAGE: u64 = 4096;

/// What each page holds.
pub type Pages = [u64; PAGES];

/// The LV.
#[derive(Default)]
pub struct Lv {
    now: Pages,
    stable: Pages,
    /// What was before the first change of this life, and each change with its seq.
    base: Pages,
    changes: Vec<(Seq, std::ops::Range<usize>, u64)>,
    /// Pages that a write of an earlier life, or one that failed, may still have changed.
    numbers: u64,
    /// A write or flush failed: what is on the LV is not what the stream says.
    pub faults: bool,
}

fn range(span: Span) -> std::ops::Range<usize> {
    let page = |at: u64| usize::try_from(at / PAGE).expect("a small LV");
    page(span.offset)..page(span.end() - 1) + 1
}

/// The pages and the number that a change gives them.
pub fn effect(span: Span, data: Option<&Bytes>) -> (std::ops::Range<usize>, u64) {
    let number = data.map_or(0, |data| {
        u64::from_be_bytes(*data.first_chunk().expect("a number has eight bytes"))
    });
    (range(span), number)
}

impl Lv {
    /// A new number for one page, or zeroes for some.
    pub fn change(&mut self, first: usize, count: usize) -> Change {
        self.numbers += 1;
        let offset = first as u64 * PAGE;
        match count {
            1 => {
                let data = Some(Bytes::copy_from_slice(&self.numbers.to_be_bytes()));
                Change { volume: VOLUME, span: Span::new(offset, 8), data }
            }
            _ => {
                Change { volume: VOLUME, span: Span::new(offset, PAGE * count as u64), data: None }
            }
        }
    }

    /// A change took its seq.
    pub fn began(&mut self, seq: Seq, change: &Change) {
        let (pages, number) = effect(change.span, change.data.as_ref());
        self.changes.push((seq, pages, number));
    }

    /// A change reaches the LV.
    pub fn write(&mut self, change: &Change) {
        let (pages, number) = effect(change.span, change.data.as_ref());
        self.now[pages].fill(number);
    }

    /// What is there survives.
    pub fn flush(&mut self) {
        self.stable = self.now;
    }

    /// A flush failed: what was cached is gone.
    pub fn lose_cache(&mut self) {
        self.now = self.stable;
        self.faults = true;
    }

    /// The program starts again on what is there.
    pub fn start_again(&mut self) {
        (self.base, self.changes) = (self.now, Vec::new());
        self.faults = false;
    }

    /// What it holds.
    pub fn pages(&self) -> &Pages {
        &self.now
    }

    /// Whether a page of a replica with this number differs for certain: from what is there, and
    /// from every write under way.
    pub fn may_differ(&self, page: usize, number: u64) -> bool {
        self.now[page] != number
    }

    /// What the stream of this life says that the LV held at `seq`.
    pub fn at(&self, seq: Seq) -> Pages {
        let mut pages = self.base;
        for (_, range, number) in self.changes.iter().filter(|(taken, ..)| *taken <= seq) {
            pages[range.clone()].fill(*number);
        }
        pages
    }
}
