//! A clone as a disk.

use std::io;
use std::sync::PoisonError;

use vgship_base::disk::{Allocation, Disk};
use vgship_base::units::Span;

use super::format::BLOCK;
use super::{Overlay, OverlayError};

const ZEROES: &[u8] = &[0; 4096];

const _: () = assert!(ZEROES.len() as u64 == BLOCK, "a block of zeroes");

/// A run of bytes, cut where blocks begin: what lies in one that it covers in part, the whole ones,
/// what lies in another that it covers in part. Each may be empty.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    head: Span,
    whole: Span,
    tail: Span,
}

impl Cut {
    /// Of a run within a clone of `len` bytes, whose last block may be short.
    fn of(span: Span, len: u64) -> Cut {
        let (from, to) = (span.offset, span.end());
        let up = from.next_multiple_of(BLOCK);
        let down = if to == len { to } else { to / BLOCK * BLOCK };
        let run = |from, to| Span::new(from, to - from);
        match up <= down {
            true => Cut { head: run(from, up), whole: run(up, down), tail: run(down, to) },
            false => Cut { head: span, whole: run(to, to), tail: run(to, to) },
        }
    }
}

/// The blocks that a run touches: the first, and the one behind the last.
const fn touched(span: Span) -> (u64, u64) {
    (span.offset / BLOCK, span.end().div_ceil(BLOCK))
}

/// Blocks that are about to become the clone's own. Dropped without [`Claim::own`] they do not.
struct Claim<'a> {
    overlay: &'a Overlay,
    /// First block and the one behind, ascending.
    runs: Vec<(u64, u64)>,
    blocks: u64,
    written: bool,
}

impl Claim<'_> {
    fn has(&self, block: u64) -> bool {
        let after = self.runs.partition_point(|run| run.1 <= block);
        self.runs.get(after).is_some_and(|run| run.0 <= block)
    }

    /// They stand in the data file as a whole.
    fn own(mut self) {
        self.written = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let written: &[_] = if self.written { &self.runs } else { &[] };
        self.overlay.ownership_mut().settle(self.blocks, written);
    }
}

/// Where a slice of `data` that begins at `from` has the run `part`.
fn slice(data: &[u8], from: u64, part: Span) -> &[u8] {
    let place = |at: u64| usize::try_from(at - from).expect("a place within a slice");
    &data[place(part.offset)..place(part.end())]
}

impl Overlay {
    /// The run, or an error of that kind when the clone ends before it does.
    fn within(&self, offset: u64, len: u64, kind: io::ErrorKind) -> io::Result<Span> {
        let span = Span::new(offset, len);
        if span.within(self.len) {
            return Ok(span);
        }
        let text = format!("{len} bytes at {offset} reach behind the end at {}", self.len);
        Err(io::Error::new(kind, text))
    }

    /// Whether all these blocks are owned.
    ///
    /// # Errors
    /// The clone takes no more.
    fn owns_all(&self, first: u64, end: u64) -> io::Result<bool> {
        let ownership = self.ownership();
        match ownership.is_poisoned() {
            true => Err(self.poisoned()),
            false => Ok(ownership.owned().has_all(first, end)),
        }
    }

    /// The runs of blocks within `first..end` that are owned, or are not.
    fn runs_of(&self, owned: bool, first: u64, end: u64) -> Vec<(u64, u64)> {
        self.ownership().owned().runs(owned, first, end).collect()
    }

    /// Claims blocks that are not owned, by one who has a turn at them.
    fn claim(&self, runs: Vec<(u64, u64)>) -> io::Result<Claim<'_>> {
        let blocks = runs.iter().map(|run| run.1 - run.0).sum();
        self.ownership_mut().claim(blocks, &self.name)?;
        Ok(Claim { overlay: self, runs, blocks, written: false })
    }

    /// Writes a whole block for the first time: `part` of it is given, the rest is the base's.
    fn fill_block(&self, part: Span, data: &[u8]) -> io::Result<()> {
        let block = part.offset / BLOCK;
        let span = self.bytes_of(block, block + 1);
        let mut bytes = ZEROES.to_vec();
        bytes.truncate(usize::try_from(span.len).map_err(io::Error::other)?);
        self.base.read_at(span.offset, &mut bytes)?;
        let at = usize::try_from(part.offset - span.offset).map_err(io::Error::other)?;
        bytes[at..at + data.len()].copy_from_slice(data);
        self.data.write_at(span.offset, &bytes)
    }

    /// Writes where blocks are claimed or owned. All but the edges is one write.
    fn write_claimed(&self, span: Span, data: &[u8], claim: &Claim<'_>) -> io::Result<()> {
        let cut = Cut::of(span, self.len);
        let (mut from, mut to) = (span.offset, span.end());
        if cut.head.len > 0 && claim.has(cut.head.offset / BLOCK) {
            self.fill_block(cut.head, slice(data, span.offset, cut.head))?;
            from = cut.head.end();
        }
        if cut.tail.len > 0 && claim.has(cut.tail.offset / BLOCK) {
            self.fill_block(cut.tail, slice(data, span.offset, cut.tail))?;
            to = cut.tail.offset;
        }
        if from < to {
            self.data.write_at(from, slice(data, span.offset, Span::new(from, to - from)))?;
        }
        Ok(())
    }

    /// Of the blocks `first..end` those that are not owned and not known to read as zero.
    fn unowned_data(&self, first: u64, end: u64) -> io::Result<Vec<(u64, u64)>> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for (first, end) in self.runs_of(false, first, end) {
            let span = self.bytes_of(first, end);
            let mut at = span.offset;
            while at < span.end() {
                let (kind, to) = known(&*self.base, at, span.end())?;
                if kind == Allocation::Data {
                    let (first, end) = touched(Span::new(at, to - at));
                    match found.last_mut() {
                        Some(last) if last.1 >= first => last.1 = end,
                        _ => found.push((first, end)),
                    }
                }
                at = to;
            }
        }
        Ok(found)
    }

    /// Makes a run in claimed blocks zero where the data file ended at `reach`. Behind that it gets
    /// a hole when the file grows; before it an earlier life may have left something.
    fn zero_claimed(&self, span: Span, reach: u64) -> io::Result<()> {
        let cut = Cut::of(span, self.len);
        for part in [cut.head, cut.tail] {
            if part.len > 0 {
                self.fill_block(part, slice(ZEROES, part.offset, part))?;
            }
        }
        let (from, to) = (cut.whole.offset, cut.whole.end().min(reach));
        if from < to { self.data.zero_at(from, to - from) } else { Ok(()) }
    }

    /// Makes the data file reach behind a block that was made zero.
    fn grow(&self, end: u64) -> io::Result<()> {
        let end = (end * BLOCK).min(self.len);
        if self.data.len() < end { self.data.write_at(end - 1, &[0]) } else { Ok(()) }
    }
}

/// What a disk says of a run, or that it may hold anything when what it says makes no sense.
fn known(disk: &dyn Disk, at: u64, end: u64) -> io::Result<(Allocation, u64)> {
    let (kind, to) = disk.allocation(at, end)?;
    Ok(if at < to && to <= end { (kind, to) } else { (Allocation::Data, end) })
}

impl Disk for Overlay {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        let span = self.within(offset, into.len() as u64, io::ErrorKind::UnexpectedEof)?;
        let (mut at, (_, last)) = (offset, touched(span));
        while !into.is_empty() {
            let block = at / BLOCK;
            let (owned, end) = {
                let ownership = self.ownership();
                let (owned, end) = ownership.owned().run(block, last);
                if owned && ownership.is_lost(block, end) {
                    return Err(self.poisoned());
                }
                (owned, end)
            };
            let len = usize::try_from(end * BLOCK - at).unwrap_or(usize::MAX).min(into.len());
            let (now, rest) = into.split_at_mut(len);
            let from: &dyn Disk = if owned { &*self.data } else { &*self.base };
            from.read_at(at, now)?;
            at += len as u64;
            into = rest;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let span = self.within(offset, data.len() as u64, io::ErrorKind::InvalidInput)?;
        if data.is_empty() {
            return Ok(());
        }
        let (first, end) = touched(span);
        if self.owns_all(first, end)? {
            return self.data.write_at(offset, data);
        }
        let _turn = self.turns.take(first, end);
        let claim = self.claim(self.runs_of(false, first, end))?;
        self.write_claimed(span, data, &claim)?;
        claim.own();
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        let span = self.within(offset, len, io::ErrorKind::InvalidInput)?;
        if len == 0 {
            return Ok(());
        }
        let (first, end) = touched(span);
        if self.owns_all(first, end)? {
            return self.data.zero_at(offset, len);
        }
        let clip = |(first, end)| {
            let run = self.bytes_of(first, end);
            let from = run.offset.max(span.offset);
            Span::new(from, run.end().min(span.end()) - from)
        };
        let _turn = self.turns.take(first, end);
        let claim = self.claim(self.unowned_data(first, end)?)?;
        for run in self.runs_of(true, first, end).into_iter().map(clip) {
            self.data.zero_at(run.offset, run.len)?;
        }
        let reach = self.data.len();
        for run in claim.runs.iter().copied().map(clip) {
            self.zero_claimed(run, reach)?;
        }
        if let Some(last) = claim.runs.last() {
            self.grow(last.1)?;
        }
        claim.own();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        // A panic within leaves the map without a file, so that it is written anew.
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = {
            let mut ownership = self.ownership_mut();
            if ownership.is_poisoned() {
                return Err(self.poisoned());
            }
            ownership.take_fresh()
        };
        if let Err(error) = self.data.flush() {
            self.ownership_mut().give_back(&taken, true);
            return Err(error);
        }
        let stored = map.store(&taken, &mut |word, max| self.ownership().stored(word, max));
        stored.map_err(|error: OverlayError| {
            self.ownership_mut().give_back(&taken, false);
            error.into()
        })
    }

    fn forget_cache(&self) {
        self.data.forget_cache();
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let end = end.min(self.len);
        if offset >= end {
            return Ok((Allocation::Data, end));
        }
        let (owned, to, poisoned) = {
            let (ownership, last) = (self.ownership(), end.div_ceil(BLOCK));
            let (owned, to) = ownership.owned().run(offset / BLOCK, last);
            (owned, (to * BLOCK).min(end), ownership.is_poisoned())
        };
        match owned {
            true if poisoned => Ok((Allocation::Data, to)),
            true => known(&*self.data, offset, to),
            false => known(&*self.base, offset, to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_cut_where_blocks_begin() {
        let lens = |from, to, len| {
            let Cut { head, whole, tail } = Cut::of(Span::new(from, to - from), len);
            assert_eq!((head.offset, head.end(), whole.end()), (from, whole.offset, tail.offset));
            assert_eq!(tail.end(), to);
            (head.len, whole.len, tail.len)
        };
        assert_eq!(lens(0, 4096, 9000), (0, 4096, 0));
        assert_eq!(lens(100, 200, 9000), (100, 0, 0));
        assert_eq!(lens(0, 200, 9000), (0, 0, 200));
        assert_eq!(lens(100, 4096, 9000), (3996, 0, 0));
        assert_eq!(lens(4000, 8300, 9000), (96, 4096, 108));
        assert_eq!(lens(4000, 9000, 9000), (96, 4904, 0));
        assert_eq!(lens(8192, 9000, 9000), (0, 808, 0));
        assert_eq!(lens(8200, 9000, 9000), (800, 0, 0));
    }
}
