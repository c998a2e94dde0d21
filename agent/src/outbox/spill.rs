//! The spill: records that the RAM ring has no room for wait on disk, first in, first out.
//!
//! It does not survive a restart and is never flushed: after a restart the dirty map knows what
//! the replica lacks. What is read is proven by its seal, so an error never becomes wrong data.

use std::collections::VecDeque;

use thiserror::Error;
use vgship_base::folder::SharedFolder;
use vgship_base::ids::{Generation, GroupId, Seq};
use vgship_base::record::Record;
use vgship_base::units::ByteLen;
use vgship_snapshot::seal::{KeyRing, Purpose};

use crate::segment::{
    self, Head, Place, SEGMENT_BYTES, SegmentError, SegmentReader, SegmentWriter, Step,
};

/// What a frame adds to its records at most, with the space up to the next frame. Unit: bytes.
const FRAME_SLACK: u64 = 1024;
/// What a segment adds to its frames. Unit: bytes.
const HEAD_BYTES: u64 = 4096;
/// A spill is cut into about this many segments, so that room that was read comes back soon.
const SEGMENTS: u64 = 8;

/// Why the spill cannot do what was asked. After [`SpillError::Full`] and [`SpillError::NoRoom`]
/// it is as before; after anything else the group falls to its dirty map and clears the spill.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpillError {
    /// It would take more room than it may.
    #[error("the spill takes {used} and may take {limit}: {more} more do not fit")]
    Full {
        /// What it takes.
        used: ByteLen,
        /// What it may take.
        limit: ByteLen,
        /// What was to be added.
        more: ByteLen,
    },
    /// Its disk has no room, though it may take more.
    #[error("the spill's disk is full")]
    NoRoom(#[source] SegmentError),
    /// The disk refused.
    #[error("cannot use the spill")]
    Io(#[from] SegmentError),
    /// What was spilled is not there as it was written.
    #[error("the spill is damaged at byte {offset} of {segment}")]
    Damaged {
        /// The file's name.
        segment: String,
        /// Unit: bytes from the file's start.
        offset: u64,
    },
    /// It failed before, and what it holds is unknown until it is cleared.
    #[error("the spill takes and gives nothing since it failed, until it is cleared")]
    Broken,
    /// Records must ascend.
    #[error("record {found} cannot follow {after} in the spill")]
    Order {
        /// The last record in the spill.
        after: Seq,
        /// What was to follow.
        found: Seq,
    },
}

/// A segment that waits to be read.
struct Waiting {
    number: u64,
    /// How many of its frames count, without its head; what follows them is torn or was taken back.
    frames: u64,
    /// Its size. Unit: bytes.
    bytes: u64,
}

/// The segment that is read.
struct Reading {
    number: u64,
    reader: SegmentReader,
    /// Frames that were read.
    frames: u64,
}

/// How far the spill was filled before a push.
struct Mark {
    complete: usize,
    /// The segment that was being written, and how many frames it had.
    writing: Option<(u64, u64)>,
    frames: u64,
    last: Seq,
}

fn frames_of(writer: &SegmentWriter) -> u64 {
    writer.frames() - 1 // its head
}

/// A first-in first-out queue of records on disk.
pub struct Spill {
    folder: SharedFolder,
    keys: KeyRing,
    group: GroupId,
    limit: u64,
    /// Complete segments, the front one perhaps half read.
    complete: VecDeque<Waiting>,
    /// Their sizes. Unit: bytes.
    complete_bytes: u64,
    writer: Option<SegmentWriter>,
    /// The front segment, while it is read.
    reader: Option<Reading>,
    /// Records of a frame that was read and not yet popped.
    front: VecDeque<Record>,
    /// Frames that were written and not yet read.
    frames: u64,
    /// Records' bytes that were pushed and not yet popped.
    waiting: u64,
    last: Seq,
    next_number: u64,
    broken: bool,
}

impl Spill {
    /// An empty spill in `folder`; what an earlier life left there is removed. It never takes more
    /// than `limit` bytes of disk.
    pub fn create(
        folder: SharedFolder,
        keys: impl Into<KeyRing>,
        group: GroupId,
        limit: u64,
    ) -> Result<Spill, SpillError> {
        let mut spill = Spill {
            folder,
            keys: keys.into(),
            group,
            limit,
            complete: VecDeque::new(),
            complete_bytes: 0,
            writer: None,
            reader: None,
            front: VecDeque::new(),
            frames: 0,
            waiting: 0,
            last: Seq::ZERO,
            next_number: 1,
            broken: false,
        };
        spill.clear()?;
        Ok(spill)
    }

    fn place(&self) -> Place<'_> {
        let (folder, keys, group) = (&*self.folder, &self.keys, self.group);
        Place { folder, keys, purpose: Purpose::Spill, group }
    }

    /// Adds records at the back. They ascend from above all that were pushed since the spill was
    /// last empty.
    ///
    /// # Errors
    /// [`SpillError::Full`], [`SpillError::NoRoom`] and [`SpillError::Order`] take nothing. After
    /// any other the spill is broken until it is cleared.
    pub fn push(&mut self, records: &[Record]) -> Result<(), SpillError> {
        self.refuse_when_broken()?;
        let mut after = if self.is_empty() { Seq::ZERO } else { self.last };
        let mut more = 0;
        for record in records {
            if record.seq <= after {
                return Err(SpillError::Order { after, found: record.seq });
            }
            after = record.seq;
            more += record.encoded_len() as u64;
        }
        let runs: Vec<&[Record]> = segment::batches(records).collect();
        let room = more + runs.len() as u64 * (FRAME_SLACK + HEAD_BYTES);
        let used = self.disk_bytes();
        if used + room > self.limit {
            let [used, limit, more] = [used, self.limit, room].map(ByteLen);
            return Err(SpillError::Full { used, limit, more });
        }
        let mark = Mark {
            complete: self.complete.len(),
            writing: self.writer.as_ref().map(|it| (it.head().number, frames_of(it))),
            frames: self.frames,
            last: self.last,
        };
        self.broken = true; // until all of it is in, or none
        for run in runs {
            match self.push_run(run) {
                Err(SpillError::Io(error)) if error.is_full() => {
                    self.take_back(&mark)?;
                    self.broken = false;
                    return Err(SpillError::NoRoom(error));
                }
                done => done?,
            }
        }
        self.broken = false;
        self.waiting += more;
        Ok(())
    }

    /// Undoes a push that found no room: what it began goes, and the segment that it went on with
    /// counts as far as it did before.
    fn take_back(&mut self, mark: &Mark) -> Result<(), SpillError> {
        let Mark { complete, writing, frames, last } = *mark;
        let begun = self.complete.drain(complete..).map(|it| it.number);
        let failed = self.writer.take().map(|writer| writer.head().number);
        let begun: Vec<u64> = begun.chain(failed).collect();
        for &number in begun.iter().filter(|number| writing.is_none_or(|(it, _)| it != **number)) {
            self.place().remove(number)?;
        }
        if let Some((number, frames)) = writing {
            let bytes = self.place().size_of(number)?;
            self.complete.push_back(Waiting { number, frames, bytes });
        }
        self.complete_bytes = self.complete.iter().map(|it| it.bytes).sum();
        (self.frames, self.last) = (frames, last);
        // A torn end is given back at once when nothing before it is waited for.
        if self.is_empty() { self.clear() } else { Ok(()) }
    }

    /// Whether the disk had room for `bytes` more just now.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.place().available().is_ok_and(|free| free >= bytes.saturating_add(HEAD_BYTES))
    }

    fn refuse_when_broken(&self) -> Result<(), SpillError> {
        if self.broken { Err(SpillError::Broken) } else { Ok(()) }
    }

    fn push_run(&mut self, run: &[Record]) -> Result<(), SpillError> {
        let full = (self.limit / SEGMENTS).min(SEGMENT_BYTES);
        let key = self.keys.current_id();
        let ends = |writer: &SegmentWriter| writer.bytes() >= full || writer.key() != key;
        if self.writer.as_ref().is_some_and(ends) {
            self.complete_segment();
        }
        if self.writer.is_none() {
            self.writer = Some(self.begin_segment()?);
        }
        let writer = self.writer.as_mut().expect("it was just begun");
        writer.append(run, Seq::ZERO)?;
        self.last = writer.last();
        self.frames += 1;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<SegmentWriter, SpillError> {
        let generation = Generation::default();
        let head = Head { number: self.next_number, generation, after: Seq::ZERO, previous: None };
        self.next_number += 1;
        let writer = self.place().create(head)?;
        writer.publish(&self.place())?;
        if writer.key() == self.keys.current_id() {
            return Ok(writer);
        }
        // Until it had its name nobody could see that it needs this key, which may go any moment.
        self.place().remove(writer.head().number)?;
        self.begin_segment()
    }

    fn complete_segment(&mut self) {
        if let Some(writer) = self.writer.take() {
            let (number, bytes) = (writer.head().number, writer.bytes());
            self.complete.push_back(Waiting { number, frames: frames_of(&writer), bytes });
            self.complete_bytes += bytes;
        }
    }

    /// Takes records from the front, in order: as many as fit `max_bytes` encoded, but one at
    /// least if there is one.
    ///
    /// # Errors
    /// After any error the rest is lost and the spill broken until it is cleared.
    pub fn pop(&mut self, max_bytes: usize) -> Result<Vec<Record>, SpillError> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while self.fill_front()? {
            let Some(len) = self.front.front().map(Record::encoded_len) else { break };
            if !taken.is_empty() && bytes + len > max_bytes {
                break;
            }
            bytes += len;
            self.waiting -= len as u64;
            taken.extend(self.front.pop_front());
        }
        Ok(taken)
    }

    /// The seq of the record that [`Spill::pop`] gives next; may read it from disk.
    ///
    /// # Errors
    /// After any error the rest is lost and the spill broken until it is cleared.
    pub fn front_seq(&mut self) -> Result<Option<Seq>, SpillError> {
        self.fill_front()?;
        Ok(self.front.front().map(|record| record.seq))
    }

    /// Reads a frame when no record is at hand; whether one is now.
    fn fill_front(&mut self) -> Result<bool, SpillError> {
        self.refuse_when_broken()?;
        self.broken = true; // until what is read has proven whole
        self.read_frame()?;
        self.broken = false;
        Ok(!self.front.is_empty())
    }

    fn read_frame(&mut self) -> Result<(), SpillError> {
        while self.front.is_empty() && self.frames > 0 {
            let mut reading = match self.reader.take() {
                Some(reading) => reading,
                None => self.open_front()?,
            };
            let number = reading.number;
            let done = self.complete.front().filter(|it| it.number == number);
            if let Some(done) = done.filter(|it| it.frames == reading.frames) {
                self.complete_bytes -= done.bytes;
                self.complete.pop_front();
                self.place().remove(number)?;
                continue;
            }
            let Step::Batch { batch, .. } = reading.reader.step()? else {
                let (segment, offset) = (segment::name(number), reading.reader.passed());
                return Err(SpillError::Damaged { segment, offset });
            };
            self.front.extend(batch.records);
            self.frames -= 1;
            reading.frames += 1;
            self.reader = Some(reading);
        }
        if self.is_empty() && self.disk_bytes() > 0 {
            self.clear()?;
        }
        Ok(())
    }

    fn open_front(&self) -> Result<Reading, SpillError> {
        let current = self.writer.as_ref().map(|writer| writer.head().number);
        let number = self.complete.front().map(|it| it.number).or(current);
        let number = number.expect("a frame that waits is in some segment, unless broken");
        match self.place().open(number) {
            Ok((reader, _)) => Ok(Reading { number, reader, frames: 0 }),
            Err(error) if error.is_damage() => {
                Err(SpillError::Damaged { segment: segment::name(number), offset: 0 })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.front.is_empty() && self.frames == 0
    }

    /// How many bytes of records wait, as encoded.
    pub const fn bytes(&self) -> u64 {
        self.waiting
    }

    /// How much disk it takes. Unit: bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.complete_bytes + self.writer.as_ref().map_or(0, SegmentWriter::bytes)
    }

    /// Drops everything and gives the room back.
    pub fn clear(&mut self) -> Result<(), SpillError> {
        self.broken = true; // until all of it is gone
        (self.writer, self.reader, self.frames, self.waiting) = (None, None, 0, 0);
        self.complete.clear();
        self.complete_bytes = 0;
        self.front.clear();
        let (numbers, fresh) = self.place().list()?;
        for number in numbers {
            self.place().remove(number)?;
        }
        for name in fresh {
            self.place().remove_named(&name)?;
        }
        self.broken = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
