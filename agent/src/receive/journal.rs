//! The journal: a replica's durable redo log, a row of sealed segments.
//!
//! A flush promises. What was promised is found again, or its loss is reported; what was not may
//! go, from the end. [`Journal::recover`] therefore begins a new segment that says how far the row
//! before it counts: what lies behind is never read as history again, however whole it looks.

mod recovery;
mod verdict;
mod walk;

use thiserror::Error;
use vgship_base::folder::SharedFolder;
use vgship_base::ids::{Generation, GroupId, Seq};
use vgship_base::record::{Body, Record};
use vgship_snapshot::seal::{KeyId, KeyRing, Purpose};

use crate::segment::{self, Head, Place, SegmentError, SegmentWriter};
use walk::{Link, Walk};

/// Why the journal cannot do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A segment or its folder failed.
    #[error("cannot use the journal")]
    Segment(#[from] SegmentError),
    /// Records that the journal should hold are not what was written.
    #[error("the records after {} at byte {} of segment {} are damaged", .0.after, .0.offset,
        segment::name(.0.segment))]
    Damaged(Damage),
    /// The journal does not reach back to the checkpoint, though nothing in it is damaged.
    #[error(
        "the journal begins after {first}, but the volumes hold only what is up to {checkpoint}: \
        a file of one of them is missing; put it back, or remove the journal and resynchronise"
    )]
    Begins {
        /// The record behind which the journal begins.
        first: Seq,
        /// The checkpoint that was given.
        checkpoint: Seq,
    },
    /// Records must ascend.
    #[error("record {found} cannot follow {after} in the journal")]
    Order {
        /// The last record in the journal.
        after: Seq,
        /// What was to follow.
        found: Seq,
    },
    /// Nothing is known of the last records.
    #[error("the journal takes no more since a write or flush failed: recover it first")]
    Poisoned,
}

/// Where stored records are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// Unit: bytes from the file's start.
    pub offset: u64,
    /// The last good record before it.
    pub after: Seq,
    /// Whether records that were promised as durable, and that the replica's volumes do not hold,
    /// are lost: the journal now ends before them, and the source must heal them. Otherwise only
    /// history before the checkpoint is lost.
    pub promised: bool,
}

/// What recovery found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last record of the unbroken row, or the checkpoint if that is later. It is durable.
    pub last: Seq,
    /// What was lost, if anything was that should not.
    pub damage: Option<Damage>,
}

/// Where the row of segments lies.
#[derive(Clone)]
struct Row {
    folder: SharedFolder,
    keys: KeyRing,
    group: GroupId,
}

impl Row {
    fn place(&self) -> Place<'_> {
        let (folder, keys, group) = (&*self.folder, &self.keys, self.group);
        Place { folder, keys, purpose: Purpose::Journal, group }
    }
}

/// A replica's durable redo log. One owner appends; replays are independent of it.
pub struct Journal {
    row: Row,
    closed: Vec<Link>,
    current: SegmentWriter,
    durable: Seq,
    segment_bytes: u64,
    poisoned: bool,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one. The replica's volumes hold all records up to
    /// `checkpoint` durably.
    ///
    /// Durable: all that [`Recovered::last`] says, and that nothing behind it is ever read again.
    ///
    /// # Errors
    /// [`JournalError::Segment`]: the disk refused, or the files are another group's or need
    /// another key. [`JournalError::Begins`]: it does not belong to this checkpoint. Nothing was
    /// changed in either case. Damage is no error, see [`Recovered::damage`].
    pub fn recover(
        folder: SharedFolder,
        keys: impl Into<KeyRing>,
        group: GroupId,
        checkpoint: Seq,
    ) -> Result<(Journal, Recovered), JournalError> {
        Journal::recover_noting(folder, keys, group, checkpoint, || Ok(()))
    }

    /// The same; `note` is told before what is damaged is cut off when records that were promised
    /// are lost. Afterwards the journal itself says no more of it.
    ///
    /// # Errors
    /// As [`Journal::recover`], or what `note` says; then nothing was changed.
    pub fn recover_noting<E: From<JournalError>>(
        folder: SharedFolder,
        keys: impl Into<KeyRing>,
        group: GroupId,
        checkpoint: Seq,
        note: impl FnOnce() -> Result<(), E>,
    ) -> Result<(Journal, Recovered), E> {
        recovery::recover(Row { folder, keys: keys.into(), group }, checkpoint, note)
    }

    /// Sets the size at which a segment ends. Unit: bytes. Else it is
    /// [`segment::SEGMENT_BYTES`].
    pub fn set_segment_bytes(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
    }

    /// Appends records in order. `promised` is the highest seq that was acknowledged as durable;
    /// beyond what was flushed it is not believed.
    ///
    /// Durable: not before [`Journal::flush`], but what it closes (a full segment, a generation)
    /// is flushed at once.
    ///
    /// # Errors
    /// [`JournalError::Order`] takes nothing. After any other the journal takes no more and must
    /// be recovered.
    pub fn append(&mut self, records: &[Record], promised: Seq) -> Result<(), JournalError> {
        self.refuse_when_poisoned()?;
        let mut after = self.last();
        for record in records {
            if record.seq <= after {
                return Err(JournalError::Order { after, found: record.seq });
            }
            after = record.seq;
        }
        let done = self.append_ordered(records, promised);
        self.poisoned |= done.is_err();
        done
    }

    fn append_ordered(
        &mut self,
        mut records: &[Record],
        promised: Seq,
    ) -> Result<(), JournalError> {
        while let Some(first) = records.first() {
            let generation = generation_of(first).unwrap_or(self.generation());
            let full = self.current.bytes() >= self.segment_bytes;
            if generation != self.generation() || full || self.is_stale() {
                self.begin_segment(generation)?;
            }
            let other = |record: &Record| generation_of(record).is_some_and(|it| it != generation);
            let end = records.iter().position(other).unwrap_or(records.len());
            let run = segment::batches(&records[..end]).next().unwrap_or(records);
            self.current.append(run, promised.min(self.durable))?;
            records = &records[run.len()..];
        }
        Ok(())
    }

    /// Closes the segment and begins the next one.
    fn begin_segment(&mut self, generation: Generation) -> Result<(), JournalError> {
        self.current.flush()?;
        self.durable = self.current.last();
        let link = Link::closed(&self.current);
        let head = Head {
            number: link.number + 1,
            generation,
            after: self.durable,
            previous: Some(link.as_previous(self.current.frames())),
        };
        let mut next = self.row.place().create(head)?;
        if let Err(error) = next.flush() {
            next.abandon(&self.row.place());
            return Err(error.into());
        }
        next.publish(&self.row.place())?;
        self.row.place().sync()?;
        self.closed.push(link);
        self.current = next;
        Ok(())
    }

    /// Whether its segment is sealed with a key that is not current any more. The next records
    /// begin another.
    pub fn is_stale(&self) -> bool {
        self.current.key() != self.row.keys.current_id()
    }

    /// Ends a segment whose key is not current any more, also when it holds no records, and begins
    /// the next with the current key.
    ///
    /// # Errors
    /// After any error the journal takes no more and must be recovered.
    pub fn renew(&mut self) -> Result<(), JournalError> {
        self.refuse_when_poisoned()?;
        if !self.is_stale() {
            return Ok(());
        }
        let done = self.begin_segment(self.generation());
        self.poisoned |= done.is_err();
        done
    }

    /// Ends the segment, so that trimming can give its room back, and begins the next. Does nothing
    /// when the segment holds no records.
    ///
    /// # Errors
    /// After any error the journal takes no more and must be recovered.
    pub fn rotate(&mut self) -> Result<(), JournalError> {
        self.refuse_when_poisoned()?;
        if self.current.last() == self.current.head().after {
            return Ok(());
        }
        let done = self.begin_segment(self.generation());
        self.poisoned |= done.is_err();
        done
    }

    /// How much it may still grow, as far as is known. Unit: bytes.
    pub fn available(&self) -> Result<u64, JournalError> {
        Ok(self.row.place().available()?)
    }

    /// Whether its last segment has records, and all of them are at or before `upto`: then
    /// [`Journal::rotate`] and [`Journal::trim`] give room back.
    pub fn would_shrink(&self, upto: Seq) -> bool {
        let begun = self.current.head().after;
        self.current.last() > begun && self.current.last() <= upto
    }

    /// Makes all records so far durable: group commit.
    ///
    /// # Errors
    /// After any error nothing is known of records since the last good flush; the journal takes no
    /// more and must be recovered.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.refuse_when_poisoned()?;
        let done = self.current.flush();
        self.poisoned |= done.is_err();
        done?;
        self.durable = self.current.last();
        Ok(())
    }

    /// Notes in the journal that all records are durable. Called after [`Journal::flush`] and before
    /// anybody acts on what it says: the volumes may soon hold more than a checkpoint tells, and
    /// damage to those records must not look like a torn tail. Not flushed: a power cut may take
    /// the note, but not the records.
    ///
    /// # Errors
    /// After any error the journal takes no more and must be recovered.
    ///
    /// # Panics
    /// When records are not flushed.
    pub fn promise(&mut self) -> Result<(), JournalError> {
        self.refuse_when_poisoned()?;
        assert_eq!(self.durable, self.last(), "only what was flushed is promised");
        let done = self.current.promise();
        self.poisoned |= done.is_err();
        Ok(done?)
    }

    fn refuse_when_poisoned(&self) -> Result<(), JournalError> {
        if self.poisoned { Err(JournalError::Poisoned) } else { Ok(()) }
    }

    /// Removes the segments that hold nothing after `upto`, which is at most the checkpoint (R12).
    ///
    /// # Errors
    /// What could not be removed is removed by the next call.
    pub fn trim(&mut self, upto: Seq) -> Result<(), JournalError> {
        let end_of =
            |at: usize| self.closed.get(at + 1).map_or(self.current.head().after, |it| it.after);
        let gone = (0..self.closed.len()).take_while(|&at| end_of(at) <= upto).count();
        if gone == 0 {
            return Ok(());
        }
        for _ in 0..gone {
            self.row.place().remove(self.closed[0].number)?;
            self.closed.remove(0);
        }
        Ok(self.row.place().sync()?)
    }

    /// Reads the records after `after` that the journal holds now, batch by batch, in order. Goes
    /// its own way: appending may go on meanwhile, trimming what it has still to read may not.
    /// Yields [`JournalError::Damaged`] where records are missing, also when the journal does not
    /// reach back to `after`.
    pub fn replay(&self, after: Seq) -> Replay {
        self.replays(after)()
    }

    /// The same, as often as asked, each time from the first record on.
    pub fn replays(&self, after: Seq) -> impl Fn() -> Replay + Send + use<> {
        let links = self.closed.iter().cloned().chain([Link::closed(&self.current)]);
        let (row, links) = (self.row.clone(), links.collect::<std::collections::VecDeque<Link>>());
        move || Replay { walk: Walk::new(row.clone(), after, links.clone()), after }
    }

    /// The last record, durable or not.
    pub const fn last(&self) -> Seq {
        self.current.last()
    }

    /// The last record that is durable.
    pub const fn durable(&self) -> Seq {
        self.durable
    }

    /// The history of the last record; all zeroes in a new journal.
    pub const fn generation(&self) -> Generation {
        self.current.head().generation
    }

    /// The record behind which the journal begins.
    pub fn first_after(&self) -> Seq {
        self.closed.first().map_or(self.current.head().after, |link| link.after)
    }

    /// The last record of its oldest segment; `None` when it has one only.
    pub fn oldest_end(&self) -> Option<Seq> {
        self.closed.first()?;
        Some(self.closed.get(1).map_or(self.current.head().after, |link| link.after))
    }

    /// The last record of the newest closed segment that needs this key; `None` when none does.
    ///
    /// # Errors
    /// The disk refused, or a segment's header is damaged.
    pub fn end_of(&self, key: KeyId) -> Result<Option<Seq>, JournalError> {
        for (at, link) in self.closed.iter().enumerate().rev() {
            if self.row.place().key_of(link.number)? == key {
                let next = self.closed.get(at + 1).map(|next| next.after);
                return Ok(Some(next.unwrap_or(self.current.head().after)));
            }
        }
        Ok(None)
    }

    /// Its closed segments, oldest first: the last record of each, and its bytes.
    pub fn closed(&self) -> Vec<(Seq, u64)> {
        let ends = self.closed.iter().skip(1).map(|link| link.after);
        let ends = ends.chain([self.current.head().after]);
        ends.zip(&self.closed).map(|(end, link)| (end, link.bytes)).collect()
    }

    /// How much room it takes. Unit: bytes.
    pub fn bytes(&self) -> u64 {
        self.closed.iter().map(|link| link.bytes).sum::<u64>() + self.current.bytes()
    }

    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.closed.len() + 1
    }
}

/// The history that begins with this record.
fn generation_of(record: &Record) -> Option<Generation> {
    match &record.body {
        Body::ResyncBegin(begin) => Some(begin.generation),
        _ => None,
    }
}

/// Reads a journal's records, batch by batch. After an error it ends.
pub struct Replay {
    walk: Walk,
    after: Seq,
}

impl Iterator for Replay {
    type Item = Result<Vec<Record>, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.walk.step() {
                Ok(Some(found)) => {
                    let mut records = found.batch.records;
                    records.retain(|record| record.seq > self.after);
                    if !records.is_empty() {
                        return Some(Ok(records));
                    }
                }
                Ok(None) => {
                    return self.walk.take_damage().map(|it| Err(JournalError::Damaged(it)));
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tests;
