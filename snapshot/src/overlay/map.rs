//! The map file: read when a clone is opened, then appended to, and now and then written anew.
//!
//! A log, not pages that are written in place, because of three things. A frame never touches what
//! was promised before, so nothing can tear it. A flush costs a sector or two wherever in the clone
//! the blocks lie. And frames have an order, so that one which is damaged can be told from one that
//! was torn before anybody was promised it: frames behind it say how far was promised. Behind each
//! flush an empty frame says so for the last one; it is flushed with the next, so until the system
//! writes it by itself, damage to that last frame looks like a torn tail.
//!
//! A file that somebody else wrote, which is one that was just opened, or in which a write or flush
//! failed, is never appended to. The next flush writes a new file with all that is stored and gives
//! it the old one's name. So what lies behind a torn tail never comes to light again, and what only
//! the system's cache showed is stored. The same keeps the file small: it is written anew when it
//! has become twice as long and [`GROWTH`] more.

use std::io;

use vgship_base::bytes::FormatError;
use vgship_base::disk::Disk;
use vgship_base::folder::{Folder, SharedFolder};

use super::OverlayError;
use super::blocks::Blocks;
use super::format::{BLOCK, ENTRIES_MAX, Entry, Frame, Header, SECTOR};

/// How much longer than twice a map may become before it is written anew. Unit: bytes. 1 MiB: a
/// small clone does that once in a thousand flushes.
const GROWTH: u64 = 1 << 20;

/// Gives the entries from a word on, as many as a frame takes; none when there are no more.
pub(super) type Next<'a> = &'a mut dyn FnMut(u64, usize) -> Vec<Entry>;

/// The map of one clone. One owner.
pub(super) struct MapFile {
    folder: SharedFolder,
    name: String,
    /// Of the clone. Unit: bytes.
    len: u64,
    /// The file, if it may be appended to.
    log: Option<Log>,
    /// Entries of one frame.
    pub(super) frame_entries: usize,
    /// Unit: bytes.
    pub(super) growth: u64,
}

struct Log {
    file: Box<dyn Disk>,
    /// Where the next frame goes. Unit: bytes.
    at: u64,
    /// Where it went when the file got its name. Unit: bytes.
    published: u64,
    frames: u64,
    /// How many of them are durable.
    durable: u64,
}

impl Log {
    fn write(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let frame = Frame { number: self.frames, promised: self.durable, entries };
        self.file.write_at(self.at, &frame.encode())?;
        self.at += frame.len() as u64;
        self.frames += 1;
        Ok(())
    }

    fn write_all(&mut self, max: usize, next: Next<'_>) -> io::Result<()> {
        let mut word = 0;
        loop {
            let entries = next(word, max);
            let Some(last) = entries.last() else { return Ok(()) };
            word = last.end();
            self.write(entries)?;
        }
    }

    fn append(&mut self, max: usize, next: Next<'_>) -> io::Result<()> {
        self.write_all(max, next)?;
        self.file.flush()?;
        self.durable = self.frames;
        Ok(())
    }
}

/// The name under which the next map file is written.
pub(super) fn fresh_name(name: &str) -> String {
    format!("{name}.new")
}

/// Takes a name away, if it is there.
pub(super) fn remove_any(folder: &dyn Folder, name: &str) -> Result<(), OverlayError> {
    match folder.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(OverlayError::io("remove", name)(error))
        }
        _ => Ok(()),
    }
}

impl MapFile {
    fn new(folder: SharedFolder, name: String, len: u64) -> MapFile {
        MapFile { folder, name, len, log: None, frame_entries: ENTRIES_MAX, growth: GROWTH }
    }

    /// Begins the map of a clone that has nothing of its own.
    ///
    /// Durable: the map and its name, once this has returned.
    pub(super) fn create(
        folder: SharedFolder,
        name: String,
        len: u64,
    ) -> Result<MapFile, OverlayError> {
        let mut map = MapFile::new(folder, name, len);
        map.publish(&mut |_, _| Vec::new())?;
        Ok(map)
    }

    /// Reads the map of a clone, whose base has `len` bytes.
    pub(super) fn open(
        folder: SharedFolder,
        name: String,
        len: u64,
    ) -> Result<(MapFile, Blocks), OverlayError> {
        let file = folder.open(&name).map_err(OverlayError::io("open", &name))?;
        file.forget_cache();
        let end = file.len();
        let source = Source { file: &*file, name: &name, end, blocks: len.div_ceil(BLOCK) };
        let blocks = source.read(len)?;
        Ok((MapFile::new(folder, name, len), blocks))
    }

    /// Stores `new` besides what is stored; `all` gives both.
    ///
    /// Durable: all of it, once this has returned. After an error what was stored before still is,
    /// and this can be called again.
    pub(super) fn store(&mut self, new: &Blocks, all: Next<'_>) -> Result<(), OverlayError> {
        let max = self.frame_entries;
        match self.log.take() {
            Some(log) if new.count() == 0 => self.log = Some(log),
            Some(mut log) if log.at <= 2 * log.published + self.growth => {
                let none = Blocks::default();
                log.append(max, &mut |word, max| new.entries(&none, word, max))
                    .map_err(OverlayError::io("append to", &self.name))?;
                // When this fails the next flush writes a new file, which says the same.
                self.log = log.write(Vec::new()).is_ok().then_some(log);
            }
            _ => self.publish(all)?,
        }
        Ok(())
    }

    fn publish(&mut self, all: Next<'_>) -> Result<(), OverlayError> {
        let fresh = fresh_name(&self.name);
        remove_any(&*self.folder, &fresh)?;
        let file = self.folder.create(&fresh).map_err(OverlayError::io("create", &fresh))?;
        let at = SECTOR as u64;
        let mut log = Log { file, at, published: at, frames: 0, durable: 0 };
        log.write_all(self.frame_entries, all)
            .and_then(|()| {
                let header = Header { len: self.len, promised: log.frames };
                log.file.write_at(0, &header.encode())
            })
            .and_then(|()| log.file.flush())
            .map_err(OverlayError::io("write", &fresh))?;
        self.folder
            .rename(&fresh, &self.name)
            .and_then(|()| self.folder.sync())
            .map_err(OverlayError::io("publish", &self.name))?;
        (log.durable, log.published) = (log.frames, log.at);
        self.log = Some(log);
        Ok(())
    }
}

/// A map file that is read.
struct Source<'a> {
    file: &'a dyn Disk,
    name: &'a str,
    /// Unit: bytes.
    end: u64,
    /// Of the clone.
    blocks: u64,
}

impl Source<'_> {
    fn bytes(&self, at: u64, len: usize) -> Result<Result<Vec<u8>, FormatError>, OverlayError> {
        let left = self.end.saturating_sub(at);
        if left < len as u64 {
            return Ok(Err(FormatError::Short { field: "frame", needed: len as u64, left }));
        }
        let mut bytes = vec![0; len];
        self.file.read_at(at, &mut bytes).map_err(OverlayError::io("read", self.name))?;
        Ok(Ok(bytes))
    }

    /// The frame at a place, or why there is none.
    fn frame(&self, at: u64) -> Result<Result<Frame, FormatError>, OverlayError> {
        let len = match self.bytes(at, SECTOR)?.and_then(|sector| Frame::measure(&sector)) {
            Ok(len) => len,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.bytes(at, len)?.and_then(|bytes| Frame::decode(&bytes, self.blocks)))
    }

    fn read(&self, len: u64) -> Result<Blocks, OverlayError> {
        let unusable = |at, source| OverlayError::Map { name: self.name.to_owned(), at, source };
        let header = self.bytes(0, SECTOR)?.and_then(|bytes| Header::decode(&bytes));
        let header = header.map_err(|source| unusable(0, source))?;
        if header.len != len {
            let name = self.name.to_owned();
            return Err(OverlayError::Base { name, expected: header.len, found: len });
        }
        let (mut blocks, mut at, mut number) = (Blocks::default(), SECTOR as u64, 0);
        let broken = loop {
            let frame = match self.frame(at)? {
                Ok(frame) if frame.number == number => frame,
                Ok(frame) => {
                    let rule = "the number of frames before it";
                    break FormatError::Field { field: "number", found: frame.number, rule };
                }
                Err(error) => break error,
            };
            for entry in &frame.entries {
                (entry.word..entry.end()).for_each(|word| blocks.insert_word(word, entry.mask));
            }
            at += frame.len() as u64;
            number += 1;
        };
        if number < header.promised || self.promises_behind(at, number)? {
            return Err(unusable(at, broken));
        }
        Ok(blocks)
    }

    /// Whether a frame behind `at` says that frame `number`, which is not there, was durable.
    fn promises_behind(&self, at: u64, number: u64) -> Result<bool, OverlayError> {
        let mut places = (at..self.end).step_by(SECTOR).skip(1);
        places.try_fold(false, |found, at| {
            Ok(found || self.frame(at)?.is_ok_and(|frame| frame.promised > number))
        })
    }
}
