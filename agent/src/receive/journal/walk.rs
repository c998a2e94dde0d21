//! Walks along a row of segments, record by record in order, and says why it cannot go on.

use std::collections::VecDeque;

use vgship_base::ids::{Generation, Seq};
use vgship_snapshot::seal::End;

use super::verdict::{Evidence, Verdict};
use super::{Damage, Row};
use crate::segment::{Batch, Head, Previous, SegmentError, SegmentReader, SegmentWriter, Step};

/// One segment of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) generation: Generation,
    /// The last record before it.
    pub(super) after: Seq,
    /// How many of its frames count; `None` for the newest, which counts as far as it is whole.
    pub(super) frames: Option<u64>,
    /// Unit: bytes.
    pub(super) bytes: u64,
}

impl Link {
    pub(super) fn of(head: Head, frames: Option<u64>, bytes: u64) -> Link {
        let Head { number, generation, after, .. } = head;
        Link { number, generation, after, frames, bytes }
    }

    pub(super) fn closed(writer: &SegmentWriter) -> Link {
        Link::of(writer.head(), Some(writer.frames()), writer.bytes())
    }

    pub(super) fn as_previous(&self, frames: u64) -> Previous {
        Previous { number: self.number, frames }
    }
}

/// A batch that stands in order.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) frame: u64,
    pub(super) batch: Batch,
}

/// A segment that is being read.
struct Reading {
    reader: SegmentReader,
    link: Link,
    next: u64,
}

/// How far a walk came in a segment.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) link: Link,
    /// How many of its frames, its head among them; `None` when nothing in it was needed.
    pub(super) frames: Option<u64>,
}

/// Where a walk is.
pub(super) struct Walk {
    row: Row,
    from: Seq,
    links: VecDeque<Link>,
    reading: Option<Reading>,
    passed: Option<Passed>,
    last: Seq,
    stop: Option<Damage>,
    skipped: Option<Damage>,
    ended: bool,
}

impl Walk {
    /// From the record after `from`, which someone else holds together with all before it.
    pub(super) fn new(row: Row, from: Seq, links: VecDeque<Link>) -> Walk {
        let (reading, passed, stop, skipped) = (None, None, None, None);
        Walk { row, from, links, reading, passed, last: Seq::ZERO, stop, skipped, ended: false }
    }

    /// The last record of the unbroken row.
    pub(super) const fn last(&self) -> Seq {
        self.last
    }

    /// The last segment of the unbroken row so far.
    pub(super) const fn passed(&self) -> Option<&Passed> {
        self.passed.as_ref()
    }

    /// What ended the walk too early; told once.
    pub(super) fn take_damage(&mut self) -> Option<Damage> {
        self.stop.take()
    }

    /// The first gap in history that was passed over.
    pub(super) const fn skipped(&self) -> Option<Damage> {
        self.skipped
    }

    /// The next batch in order; may begin at or before `from`. `None` at the end, whatever it is.
    pub(super) fn step(&mut self) -> Result<Option<Found>, SegmentError> {
        while !self.ended {
            if self.reading.is_none() {
                self.enter()?;
            } else if let Some(found) = self.read()? {
                self.last = found.batch.last();
                if let Some(passed) = &mut self.passed {
                    passed.frames = Some(found.frame + 1);
                }
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn damage(&self, segment: u64, offset: u64, promised: bool) -> Damage {
        Damage { segment, offset, after: self.last.max(self.from), promised }
    }

    fn halt(&mut self, damage: Option<Damage>) {
        (self.stop, self.ended, self.reading) = (damage, true, None);
    }

    /// Goes to the next segment that has something to read.
    fn enter(&mut self) -> Result<(), SegmentError> {
        let Some(link) = self.links.pop_front() else {
            self.ended = true;
            return Ok(());
        };
        if link.after > self.last.max(self.from) {
            self.halt(Some(self.damage(link.number, 0, true)));
            return Ok(());
        }
        self.last = link.after;
        if let Some(next) = self.links.front()
            && next.after <= self.from
        {
            self.last = next.after;
            self.passed = Some(Passed { link, frames: None });
            return Ok(());
        }
        match self.row.place().open(link.number) {
            Ok((reader, _)) => {
                self.passed = Some(Passed { link: link.clone(), frames: Some(1) });
                self.reading = Some(Reading { reader, link, next: 1 });
            }
            Err(error) if error.is_damage() => {
                self.halt(Some(self.damage(link.number, 0, true)));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The next batch of the segment; `None` when it has no more or the walk has ended.
    fn read(&mut self) -> Result<Option<Found>, SegmentError> {
        let Some(reading) = &mut self.reading else { return Ok(None) };
        if reading.link.frames.is_some_and(|frames| reading.next >= frames) {
            self.reading = None;
            return Ok(None);
        }
        let (at, behind) = match reading.reader.step()? {
            Step::Batch { frame, batch, .. } if batch.after == self.last => {
                reading.next = frame + 1;
                return Ok(Some(Found { frame, batch }));
            }
            Step::Batch { frame, at, batch } => (at, Some(Found { frame, batch })),
            Step::End(End::Clean) if reading.link.frames.is_none() => {
                self.reading = None;
                return Ok(None);
            }
            Step::End(End::Clean) => (reading.reader.bytes(), None),
            Step::End(End::Broken { at, .. }) => (at, reading.resume()?),
        };
        self.judge(at, behind)
    }

    /// Decides what a gap at `at` means, from the first whole frame behind it.
    fn judge(&mut self, at: u64, behind: Option<Found>) -> Result<Option<Found>, SegmentError> {
        let (last, from) = (self.last, self.from);
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let follows = |found: &Found| found.batch.after <= from && found.batch.after > last;
        let covered = behind.as_ref().is_some_and(follows);
        let mut promised = behind.as_ref().map_or(Seq::ZERO, |found| found.batch.promised);
        while !covered && let Some(found) = reading.resume()? {
            promised = promised.max(found.batch.promised);
        }
        let evidence = Evidence {
            covered,
            closed: reading.link.frames.is_some(),
            promised: promised > last.max(from),
        };
        let segment = reading.link.number;
        match evidence.verdict() {
            Verdict::Skip => {
                if let Some(found) = &behind {
                    reading.next = found.frame + 1;
                }
                let gap = Damage { segment, offset: at, after: last, promised: false };
                self.skipped.get_or_insert(gap);
                return Ok(behind);
            }
            Verdict::Damage => self.halt(Some(self.damage(segment, at, true))),
            Verdict::Cut => self.halt(None),
        }
        Ok(None)
    }
}

impl Reading {
    /// The next whole batch behind a gap, of those that count.
    fn resume(&mut self) -> Result<Option<Found>, SegmentError> {
        let counts = |frame| self.link.frames.is_none_or(|frames| frame < frames);
        match self.reader.resume()? {
            Some(Step::Batch { frame, batch, .. }) if counts(frame) => {
                Ok(Some(Found { frame, batch }))
            }
            _ => Ok(None),
        }
    }
}
