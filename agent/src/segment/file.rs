//! Writing and reading one segment.

use vgship_base::folder::{self, Folder};
use vgship_base::ids::{GroupId, Seq};
use vgship_base::record::Record;
use vgship_snapshot::seal::{
    self, End, KeyId, KeyRing, Purpose, SealError, SealedReader, SealedWriter,
};

use super::{Batch, Head, SegmentError, batch, head};

const ENDING: &str = ".segment";
const FRESH: &str = ".new";

/// The name of a segment's file; names sort as numbers do.
pub fn name(number: u64) -> String {
    format!("{}{ENDING}", folder::digits_of(number))
}

/// The number in a segment's name; `None` for other files.
pub fn number_of(name: &str) -> Option<u64> {
    folder::number_of(name.strip_suffix(ENDING)?)
}

/// Where a row of segments lies and how it is sealed.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The stage's folder.
    pub folder: &'a dyn Folder,
    /// The group's data keys.
    pub keys: &'a KeyRing,
    /// Journal or spill.
    pub purpose: Purpose,
    /// Whose records they are.
    pub group: GroupId,
}

impl Place<'_> {
    fn failed(action: &'static str, name: &str) -> impl FnOnce(std::io::Error) -> SegmentError {
        move |source| SegmentError::Folder { action, name: name.to_owned(), source }
    }

    /// How much the row may still grow, as far as is known. Unit: bytes.
    pub fn available(&self) -> Result<u64, SegmentError> {
        self.folder.available().map_err(Place::failed("measure the room for", "*"))
    }

    /// How much of the disk a segment takes. Unit: bytes.
    pub fn size_of(&self, number: u64) -> Result<u64, SegmentError> {
        let name = name(number);
        Ok(self.folder.open(&name).map_err(Place::failed("open", &name))?.len())
    }

    /// Which data key a segment needs.
    pub fn key_of(&self, number: u64) -> Result<KeyId, SegmentError> {
        let name = name(number);
        let disk = self.folder.open(&name).map_err(Place::failed("open", &name))?;
        seal::key_of_file(&*disk).map_err(|source| SegmentError::Seal { name, source })
    }

    /// Begins a segment under a passing name; [`SegmentWriter::publish`] gives it its own. What
    /// could not be begun takes no room.
    pub fn create(&self, head: Head) -> Result<SegmentWriter, SegmentError> {
        let name = name(head.number);
        let fresh = format!("{name}{FRESH}");
        self.remove_named(&fresh)?;
        let disk = self.folder.create(&fresh).map_err(Place::failed("create", &name))?;
        let begin = || {
            let mut file =
                SealedWriter::create(disk, &self.keys.current(), self.purpose, self.group)?;
            file.append(head::LEN, |out| head.encode(out))?;
            Ok(file)
        };
        match begin() {
            Ok(file) => Ok(SegmentWriter { file, name, head, last: head.after }),
            Err(source) => {
                // What cannot be removed is in the way of nobody: the next try removes it.
                let _ = self.remove_named(&fresh);
                Err(SegmentError::Seal { name, source })
            }
        }
    }

    /// Opens a segment behind its head.
    ///
    /// # Errors
    /// [`SegmentError::is_damage`] when its head is not whole.
    pub fn open(&self, number: u64) -> Result<(SegmentReader, Head), SegmentError> {
        let name = name(number);
        let disk = self.folder.open(&name).map_err(Place::failed("open", &name))?;
        let begin = || {
            let mut file = SealedReader::open(disk, self.keys, self.purpose, self.group)?;
            let broken = SealError::Broken { what: "head of a segment", offset: 0 };
            let seal::Step::Frame(frame) = file.step()? else { return Err(broken) };
            let what = "head of a segment";
            let head =
                Head::decode(&frame.body).map_err(|source| SealError::Format { what, source })?;
            if head.number != number {
                return Err(broken);
            }
            Ok((file, head))
        };
        let (file, head) =
            begin().map_err(|source| SegmentError::Seal { name: name.clone(), source })?;
        Ok((SegmentReader { file, name }, head))
    }

    /// Takes a segment away, if it is there.
    pub fn remove(&self, number: u64) -> Result<(), SegmentError> {
        self.remove_named(&name(number))
    }

    /// Takes a file away, if it is there.
    pub fn remove_named(&self, name: &str) -> Result<(), SegmentError> {
        match self.folder.remove(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Place::failed("remove", name)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes changes of names durable.
    pub fn sync(&self) -> Result<(), SegmentError> {
        self.folder.sync().map_err(Place::failed("keep the names around", "*"))
    }

    /// The number of the next segment, behind the highest of these.
    pub fn number_after(&self, numbers: &[u64]) -> Result<u64, SegmentError> {
        let highest = numbers.last().copied();
        let number = folder::number_after(highest);
        number.map_err(|source| Place::failed("continue", &name(highest.unwrap_or(0)))(source))
    }

    /// The segments' numbers, ascending, and the names of segments that were never published.
    pub fn list(&self) -> Result<(Vec<u64>, Vec<String>), SegmentError> {
        let names = self.folder.list().map_err(Place::failed("list", "*"))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let passing = |name: &String| name.strip_suffix(FRESH).and_then(number_of).is_some();
        Ok((numbers, names.into_iter().filter(passing).collect()))
    }
}

/// Writes a new segment.
pub struct SegmentWriter {
    file: SealedWriter,
    name: String,
    head: Head,
    last: Seq,
}

impl SegmentWriter {
    /// Appends records as one frame. They ascend from above [`SegmentWriter::last`] and fit a
    /// frame; see [`super::batches`].
    ///
    /// Durable: not before [`SegmentWriter::flush`].
    ///
    /// # Errors
    /// After any error the segment takes no more.
    ///
    /// # Panics
    /// When there are none, or they do not ascend or fit.
    pub fn append(&mut self, records: &[Record], promised: Seq) -> Result<(), SegmentError> {
        let mut last = self.last;
        for record in records {
            assert!(record.seq > last, "{} cannot follow {last}", record.seq);
            last = record.seq;
        }
        assert!(!records.is_empty(), "a frame without records is a promise");
        self.frame(records, promised, last)
    }

    /// Appends a frame without records, which says that all records so far are promised.
    ///
    /// # Errors
    /// After any error the segment takes no more.
    pub fn promise(&mut self) -> Result<(), SegmentError> {
        self.frame(&[], self.last, self.last)
    }

    fn frame(&mut self, records: &[Record], promised: Seq, last: Seq) -> Result<(), SegmentError> {
        let after = std::mem::replace(&mut self.last, last);
        self.file
            .append(batch::encoded_len(records), |out| {
                batch::encode(promised, after, records, out);
            })
            .map_err(|source| SegmentError::Seal { name: self.name.clone(), source })?;
        Ok(())
    }

    /// Makes all records so far durable.
    ///
    /// # Errors
    /// After any error nothing is known of the last records, and the segment takes no more.
    pub fn flush(&mut self) -> Result<(), SegmentError> {
        self.file.flush().map_err(|source| SegmentError::Seal { name: self.name.clone(), source })
    }

    /// Gives the segment its own name.
    ///
    /// Durable: the name, once [`Place::sync`] has returned.
    pub fn publish(&self, place: &Place<'_>) -> Result<(), SegmentError> {
        let fresh = format!("{}{FRESH}", self.name);
        place.folder.rename(&fresh, &self.name).map_err(Place::failed("publish", &self.name))
    }

    /// Takes a segment that was never published away again, as far as the disk lets it: the next
    /// recovery removes what is left.
    pub fn abandon(self, place: &Place<'_>) {
        let _ = place.remove_named(&format!("{}{FRESH}", self.name));
    }

    /// What it began with.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// The last record in it, or before it.
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// How far the file reaches. Unit: bytes.
    pub const fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// Which data key seals it.
    pub const fn key(&self) -> KeyId {
        self.file.key()
    }

    /// How many frames it has, its head among them.
    pub const fn frames(&self) -> u64 {
        self.file.frames()
    }
}

/// What reading on came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next frame, whole.
    Batch {
        /// The frame's number.
        frame: u64,
        /// Unit: bytes from the file's start.
        at: u64,
        /// What it holds.
        batch: Batch,
    },
    /// No whole frame follows here.
    End(End),
}

/// Reads a segment, batch by batch. Payloads stay in the memory of their frame.
pub struct SegmentReader {
    file: SealedReader,
    name: String,
}

impl SegmentReader {
    /// How many bytes the file has now.
    pub fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// How far it was read. Unit: bytes from the file's start.
    pub const fn passed(&self) -> u64 {
        self.file.passed()
    }

    /// The next batch, or how the segment ends. A frame that opens but holds no batch ends it too.
    ///
    /// # Errors
    /// Only what the disk refuses.
    pub fn step(&mut self) -> Result<Step, SegmentError> {
        match self.file.step() {
            Ok(seal::Step::Frame(frame)) => Ok(SegmentReader::batch(frame)),
            Ok(seal::Step::End(end)) => Ok(Step::End(end)),
            Err(source) => Err(SegmentError::Seal { name: self.name.clone(), source }),
        }
    }

    /// The next whole batch behind a break; [`SegmentReader::step`] goes on behind it.
    ///
    /// # Errors
    /// Only what the disk refuses.
    pub fn resume(&mut self) -> Result<Option<Step>, SegmentError> {
        loop {
            let found = self.file.resume();
            match found.map_err(|source| SegmentError::Seal { name: self.name.clone(), source })? {
                None => return Ok(None),
                Some(frame) => {
                    if let step @ Step::Batch { .. } = SegmentReader::batch(frame) {
                        return Ok(Some(step));
                    }
                }
            }
        }
    }

    fn batch(frame: seal::Frame) -> Step {
        let seal::Placed { number, at } = frame.placed;
        match Batch::decode(frame.body) {
            Ok(batch) => Step::Batch { frame: number, at, batch },
            Err(_) => Step::End(End::Broken { at, number }),
        }
    }
}
