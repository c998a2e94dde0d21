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
use vgship_snapshot::seal::{DataKey, Purpose};

use crate::segment::{
    self, Head, Place, SEGMENT_BYTES, SegmentError, SegmentReader, SegmentWriter, Step,
};

/// What a frame adds to its records at most, with the space up to the next frame. Unit: bytes.
const FRAME_SLACK: u64 = 1024;
/// What a segment adds to its frames. Unit: bytes.
const HEAD_BYTES: u64 = 4096;
/// A spill is cut into about this many segments, so that room that was read comes back soon.
const SEGMENTS: u64 = 8;

/// Why the spill cannot do what was asked. After [`SpillError::Full`] it is as before; after
/// anything else the group falls to its dirty map and clears the spill.
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
    /// Its size. Unit: bytes.
    bytes: u64,
}

/// A first-in first-out queue of records on disk.
pub struct Spill {
    folder: SharedFolder,
    key: DataKey,
    group: GroupId,
    limit: u64,
    /// Complete segments, the front one perhaps half read.
    complete: VecDeque<Waiting>,
    writer: Option<SegmentWriter>,
    /// The front segment, while it is read.
    reader: Option<(u64, SegmentReader)>,
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
        key: &DataKey,
        group: GroupId,
        limit: u64,
    ) -> Result<Spill, SpillError> {
        let mut spill = Spill {
            folder,
            key: key.clone(),
            group,
            limit,
            complete: VecDeque::new(),
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
        let (folder, key, group) = (&*self.folder, &self.key, self.group);
        Place { folder, key, purpose: Purpose::Spill, group }
    }

    /// Adds records at the back. They ascend from above all that were pushed since the spill was
    /// last empty.
    ///
    /// # Errors
    /// [`SpillError::Full`] and [`SpillError::Order`] take nothing. After any other the spill is
    /// broken until it is cleared.
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
        self.broken = true; // until all of it is in
        for run in runs {
            self.push_run(run)?;
        }
        self.broken = false;
        self.waiting += more;
        Ok(())
    }

    fn refuse_when_broken(&self) -> Result<(), SpillError> {
        if self.broken { Err(SpillError::Broken) } else { Ok(()) }
    }

    fn push_run(&mut self, run: &[Record]) -> Result<(), SpillError> {
        let full = (self.limit / SEGMENTS).min(SEGMENT_BYTES);
        if self.writer.as_ref().is_some_and(|writer| writer.bytes() >= full) {
            self.complete_segment();
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin_segment()?,
        };
        writer.append(run, Seq::ZERO)?;
        self.last = writer.last();
        self.writer = Some(writer);
        self.frames += 1;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<SegmentWriter, SpillError> {
        let generation = Generation::default();
        let head = Head { number: self.next_number, generation, after: Seq::ZERO, previous: None };
        self.next_number += 1;
        let writer = self.place().create(head)?;
        writer.publish(&self.place())?;
        Ok(writer)
    }

    fn complete_segment(&mut self) {
        if let Some(writer) = self.writer.take() {
            let (number, bytes) = (writer.head().number, writer.bytes());
            self.complete.push_back(Waiting { number, bytes });
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
            let (number, mut reader) = match self.reader.take() {
                Some(reader) => reader,
                None => self.open_front()?,
            };
            match reader.step()? {
                Step::Batch { batch, .. } => {
                    self.front.extend(batch.records);
                    self.frames -= 1;
                    self.reader = Some((number, reader));
                }
                Step::End(_) => {
                    let done = self.complete.front().filter(|it| it.number == number);
                    let whole = done.is_some_and(|it| reader.passed() == it.bytes);
                    if !whole {
                        let (segment, offset) = (segment::name(number), reader.passed());
                        return Err(SpillError::Damaged { segment, offset });
                    }
                    self.complete.pop_front();
                    self.place().remove(number)?;
                }
            }
        }
        if self.is_empty() && self.disk_bytes() > 0 {
            self.clear()?;
        }
        Ok(())
    }

    fn open_front(&self) -> Result<(u64, SegmentReader), SpillError> {
        let current = self.writer.as_ref().map(|writer| writer.head().number);
        let number = self.complete.front().map(|it| it.number).or(current);
        let number = number.expect("a frame that waits is in some segment, unless broken");
        match self.place().open(number) {
            Ok((reader, _)) => Ok((number, reader)),
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
        let complete: u64 = self.complete.iter().map(|it| it.bytes).sum();
        complete + self.writer.as_ref().map_or(0, SegmentWriter::bytes)
    }

    /// Drops everything and gives the room back.
    pub fn clear(&mut self) -> Result<(), SpillError> {
        (self.writer, self.reader, self.frames, self.waiting) = (None, None, 0, 0);
        self.complete.clear();
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
