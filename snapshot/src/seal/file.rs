//! Sealed files on a disk: one type that writes a new file, another that reads an existing one.
//!
//! Layout: the header at 0; frames from 512, each on a 512-byte boundary, and the first after a
//! flush on a 4096-byte boundary, so that no write touches a block that a flush has promised: a
//! disk may lose a whole block when power fails while it is written. Bytes between frames are zero.

use std::io;

use vgship_base::bytes::Writer;
use vgship_base::disk::Disk;
use vgship_base::ids::GroupId;

use super::frame::{Frames, HEAD_LEN, Head, OVERHEAD, Seal};
use super::header::FileHeader;
use super::ring::Keys;
use super::{DataKey, KeyId, Purpose, SealError, header};

/// Frames begin on multiples of this. Unit: bytes.
const STEP: u64 = STEP_LEN as u64;
const STEP_LEN: usize = 512;
/// What a disk writes as one piece. Unit: bytes.
const BLOCK: u64 = 4096;
/// How much is searched at once behind a break. Unit: bytes.
const SEARCH_BYTES: u64 = 1 << 20;
/// Memory that a writer keeps between frames. Unit: bytes.
const KEEP_BYTES: usize = 4 << 20;

const HEADER: &str = "header of a sealed file";

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its number in the file.
    pub number: u64,
    /// Unit: bytes from the file's start.
    pub at: u64,
}

/// Writes a new sealed file, frame by frame. There is no way to come by one for an existing file.
pub struct SealedWriter {
    disk: Box<dyn Disk>,
    key: KeyId,
    frames: Frames,
    at: u64,
    buffer: Vec<u8>,
    poisoned: bool,
}

impl SealedWriter {
    /// Begins a file on an empty disk.
    ///
    /// Durable: nothing yet.
    pub fn create(
        disk: Box<dyn Disk>,
        key: &DataKey,
        purpose: Purpose,
        group: GroupId,
    ) -> Result<SealedWriter, SealError> {
        let (frames, header) = Frames::begin(key, purpose, group)?;
        disk.write_at(0, &header).map_err(failed("write", 0))?;
        let (key, buffer) = (key.id(), Vec::new());
        Ok(SealedWriter { disk, key, frames, at: STEP, buffer, poisoned: false })
    }

    /// Appends one frame: `fill` writes its body of exactly `len` bytes into the buffer in which
    /// it is sealed and from which it is written.
    ///
    /// Durable: not before [`SealedWriter::flush`].
    ///
    /// # Errors
    /// After any error the file takes no more: [`SealError::Poisoned`].
    ///
    /// # Panics
    /// When `len` is 0 or over [`super::BODY_MAX`], or `fill` writes another length.
    pub fn append(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<Placed, SealError> {
        self.refuse_when_poisoned()?;
        self.buffer.clear();
        self.buffer.reserve(len + OVERHEAD + STEP_LEN);
        let number = self.frames.seal(&mut self.buffer, len, fill);
        self.buffer.resize(self.buffer.len().next_multiple_of(STEP_LEN), 0);
        let placed = Placed { number, at: self.at };
        if let Err(source) = self.disk.write_at(self.at, &self.buffer) {
            self.poisoned = true;
            return Err(SealError::Io { action: "write", offset: self.at, source });
        }
        self.at += self.buffer.len() as u64;
        self.buffer.shrink_to(KEEP_BYTES);
        Ok(placed)
    }

    /// Makes all frames so far durable.
    ///
    /// # Errors
    /// After an error nothing is known of frames since the last good flush, and the file takes no
    /// more: [`SealError::Poisoned`].
    pub fn flush(&mut self) -> Result<(), SealError> {
        self.refuse_when_poisoned()?;
        if let Err(source) = self.disk.flush() {
            self.poisoned = true;
            return Err(SealError::Io { action: "flush", offset: self.at, source });
        }
        self.at = self.at.next_multiple_of(BLOCK);
        Ok(())
    }

    fn refuse_when_poisoned(&self) -> Result<(), SealError> {
        if self.poisoned { Err(SealError::Poisoned) } else { Ok(()) }
    }

    /// How far the file reaches. Unit: bytes.
    pub const fn bytes(&self) -> u64 {
        self.at
    }

    /// Which data key seals it.
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// How many frames it has.
    pub const fn frames(&self) -> u64 {
        self.frames.next()
    }
}

/// A frame that was found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it lies.
    pub placed: Placed,
    /// What was sealed.
    pub body: Vec<u8>,
}

/// What reading on came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next frame, whole.
    Frame(Frame),
    /// No whole frame follows here.
    End(End),
}

/// How the readable part of a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The file ends behind the last frame.
    Clean,
    /// Bytes follow that are not the next frame: torn, garbled, or not its turn.
    Broken {
        /// Unit: bytes from the file's start.
        at: u64,
        /// The frame that should be here.
        number: u64,
    },
}

/// Reads a sealed file, frame by frame. Cannot write.
pub struct SealedReader {
    disk: Box<dyn Disk>,
    key: KeyId,
    seal: Seal,
    at: u64,
    next: u64,
}

impl SealedReader {
    /// Opens a file, with that of the keys that it needs, and stands before its first frame.
    ///
    /// # Errors
    /// [`SealError::is_damage`] tells a broken header from a file of others and a disk that fails.
    pub fn open(
        disk: Box<dyn Disk>,
        keys: &impl Keys,
        purpose: Purpose,
        group: GroupId,
    ) -> Result<SealedReader, SealError> {
        let bytes = head(&*disk)?;
        let seal = Seal::of(&bytes, keys, purpose, group)?;
        let key = FileHeader::expect(&bytes, purpose, group)?.key;
        Ok(SealedReader { disk, key, seal, at: STEP, next: 0 })
    }

    /// Which data key it needs.
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// How many bytes the file has now.
    pub fn bytes(&self) -> u64 {
        self.disk.len()
    }

    /// How far it was read. Unit: bytes from the file's start.
    pub const fn passed(&self) -> u64 {
        self.at
    }

    /// The next frame, or how the file ends. Standing at an end, it looks again.
    ///
    /// # Errors
    /// Only what the disk refuses; damage is an [`End`].
    pub fn step(&mut self) -> Result<Step, SealError> {
        let (near, far) = (self.at, self.at.next_multiple_of(BLOCK));
        for at in [near, far] {
            if let Some(frame) = self.frame_at(at, |number| number == self.next)? {
                return Ok(Step::Frame(self.pass(frame)));
            }
            if near == far {
                break;
            }
        }
        Ok(Step::End(match self.disk.len() <= near {
            true => End::Clean,
            false => End::Broken { at: near, number: self.next },
        }))
    }

    /// Searches behind a break for the next whole frame and goes on behind it.
    ///
    /// # Errors
    /// Only what the disk refuses.
    pub fn resume(&mut self) -> Result<Option<Frame>, SealError> {
        let end = self.disk.len();
        let mut chunk = Vec::new();
        let mut from = self.at;
        while from < end {
            let len = SEARCH_BYTES.min(end - from);
            chunk.resize(usize::try_from(len).expect("at most SEARCH_BYTES"), 0);
            if !read(&*self.disk, from, &mut chunk)? {
                return Ok(None);
            }
            for (place, piece) in (from..).step_by(STEP_LEN).zip(chunk.chunks(STEP_LEN)) {
                let head = piece.first_chunk().and_then(|head| Head::decode(head).ok());
                if head.is_none_or(|head| head.number < self.next) {
                    continue;
                }
                if let Some(frame) = self.frame_at(place, |number| number >= self.next)? {
                    return Ok(Some(self.pass(frame)));
                }
            }
            from += len;
        }
        Ok(None)
    }

    /// The body of a frame whose place is known.
    ///
    /// # Errors
    /// [`SealError::Broken`] when that frame is not there, whole.
    pub fn get(&self, placed: Placed) -> Result<Vec<u8>, SealError> {
        let found = self.frame_at(placed.at, |number| number == placed.number)?;
        let broken = SealError::Broken { what: "frame", offset: placed.at };
        found.map(|frame| frame.body).ok_or(broken)
    }

    fn pass(&mut self, frame: Frame) -> Frame {
        let len = (frame.body.len() + OVERHEAD) as u64;
        self.at = frame.placed.at + len.next_multiple_of(STEP);
        self.next = frame.placed.number + 1;
        frame
    }

    fn frame_at(
        &self,
        at: u64,
        wanted: impl FnOnce(u64) -> bool,
    ) -> Result<Option<Frame>, SealError> {
        let mut head = [0; HEAD_LEN];
        if !read(&*self.disk, at, &mut head)? {
            return Ok(None);
        }
        let Ok(Head { len, number }) = Head::decode(&head) else { return Ok(None) };
        if !wanted(number) {
            return Ok(None);
        }
        let mut body = vec![0; Head { len, number }.sealed_len()];
        if !read(&*self.disk, at + HEAD_LEN as u64, &mut body)? {
            return Ok(None);
        }
        let opened = self.seal.open(number, &head, &mut body).is_ok();
        Ok(opened.then_some(Frame { placed: Placed { number, at }, body }))
    }
}

/// Which data key a sealed file needs, from its header in clear.
///
/// # Errors
/// [`SealError::is_damage`] tells a broken header from a disk that fails.
pub fn key_of_file(disk: &dyn Disk) -> Result<KeyId, SealError> {
    let found = FileHeader::decode(&head(disk)?);
    found.map(|it| it.key).map_err(|source| SealError::Format { what: HEADER, source })
}

fn head(disk: &dyn Disk) -> Result<[u8; header::LEN], SealError> {
    let mut bytes = [0; header::LEN];
    match read(disk, 0, &mut bytes)? {
        true => Ok(bytes),
        false => Err(SealError::Broken { what: HEADER, offset: 0 }),
    }
}

/// Whether the file reaches that far.
fn read(disk: &dyn Disk, at: u64, into: &mut [u8]) -> Result<bool, SealError> {
    match disk.read_at(at, into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(source) => Err(SealError::Io { action: "read", offset: at, source }),
    }
}

fn failed(action: &'static str, offset: u64) -> impl FnOnce(io::Error) -> SealError {
    move |source| SealError::Io { action, offset, source }
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimDisk};

    use super::super::ring::KeyRing;
    use super::*;

    const GROUP: GroupId = GroupId([7; 16]);

    fn key() -> DataKey {
        DataKey::from_bytes([3; 32])
    }

    fn create(disk: &SimDisk) -> SealedWriter {
        SealedWriter::create(Box::new(disk.clone()), &key(), Purpose::Pack, GROUP).unwrap()
    }

    fn open(disk: &SimDisk) -> Result<SealedReader, SealError> {
        SealedReader::open(Box::new(disk.clone()), &key(), Purpose::Pack, GROUP)
    }

    fn put(file: &mut SealedWriter, body: &[u8]) -> Placed {
        let fill = |out: &mut Writer| {
            out.put(body);
        };
        file.append(body.len(), fill).unwrap()
    }

    fn bodies(reader: &mut SealedReader) -> (Vec<Vec<u8>>, End) {
        let mut found = Vec::new();
        loop {
            match reader.step().unwrap() {
                Step::Frame(frame) => found.push(frame.body),
                Step::End(end) => return (found, end),
            }
        }
    }

    #[test]
    fn frames_come_back_in_order_and_by_place() {
        let disk = SimDisk::file(&Power::default());
        let mut file = create(&disk);
        let first = put(&mut file, &[1; 600]);
        put(&mut file, &[2; 10]);
        file.flush().unwrap();
        let third = put(&mut file, &[3; 9000]);
        assert_eq!((first.at, third), (512, Placed { number: 2, at: 4096 }));
        let mut reader = open(&disk).unwrap();
        let (found, end) = bodies(&mut reader);
        assert_eq!(found, [vec![1; 600], vec![2; 10], vec![3; 9000]]);
        assert_eq!(end, End::Clean);
        assert_eq!(reader.get(third).unwrap(), [3; 9000]);
        assert!(reader.get(Placed { number: 1, at: 512 }).is_err());
        put(&mut file, b"later");
        assert_eq!(bodies(&mut reader).0, [b"later"], "a reader goes on as the file grows");
    }

    #[test]
    fn a_ring_opens_what_any_of_its_keys_sealed() {
        let ring = KeyRing::from(&key());
        let disks = [SimDisk::file(&Power::default()), SimDisk::file(&Power::default())];
        for disk in &disks {
            let disk = Box::new(disk.clone());
            let key = ring.current();
            let mut file = SealedWriter::create(disk, &key, Purpose::Pack, GROUP).unwrap();
            assert_eq!(file.key(), ring.current_id());
            put(&mut file, b"text");
            ring.add(DataKey::from_bytes([4; 32]));
        }
        let open = |disk: &SimDisk| {
            SealedReader::open(Box::new(disk.clone()), &ring, Purpose::Pack, GROUP)
        };
        for disk in &disks {
            let mut reader = open(disk).unwrap();
            assert_eq!(reader.key(), key_of_file(disk).unwrap());
            assert_eq!(bodies(&mut reader).0, [b"text"]);
        }
        ring.destroy(key().id());
        assert!(matches!(open(&disks[0]).err(), Some(SealError::Destroyed { .. })));
        assert!(open(&disks[1]).is_ok());
    }

    #[test]
    fn behind_a_break_the_search_finds_what_is_whole() {
        let disk = SimDisk::file(&Power::default());
        let mut file = create(&disk);
        let placed: Vec<Placed> = (0..5u8).map(|at| put(&mut file, &[at; 700])).collect();
        disk.decay(usize::try_from(placed[1].at).unwrap(), 0); // the header of frame 1
        disk.decay(usize::try_from(placed[2].at).unwrap() + 30, 0); // the body of frame 2
        let mut reader = open(&disk).unwrap();
        let (found, end) = bodies(&mut reader);
        assert_eq!((found.len(), end), (1, End::Broken { at: placed[1].at, number: 1 }));
        assert_eq!(reader.resume().unwrap().unwrap().placed, placed[3]);
        assert_eq!(bodies(&mut reader), (vec![vec![4; 700]], End::Clean));
        assert_eq!(reader.resume().unwrap(), None);
    }

    #[test]
    fn a_bit_flip_anywhere_refuses_a_frame_or_changes_nothing() {
        let disk = SimDisk::file(&Power::default());
        let mut file = create(&disk);
        for at in 0..4u8 {
            put(&mut file, &[at; 300]);
        }
        let whole = bodies(&mut open(&disk).unwrap()).0;
        for byte in 0..usize::try_from(disk.len()).unwrap() {
            disk.decay(byte, 3);
            if let Ok(mut reader) = open(&disk) {
                let (mut found, _) = bodies(&mut reader);
                while let Some(frame) = reader.resume().unwrap() {
                    found.push(frame.body);
                    found.extend(bodies(&mut reader).0);
                }
                assert!(found.iter().all(|body| whole.contains(body)), "byte {byte}");
                assert!(found.len() + 1 >= whole.len(), "byte {byte} took more than one frame");
            } else {
                assert!(byte < header::LEN, "byte {byte}");
            }
            disk.decay(byte, 3);
        }
    }

    #[test]
    fn a_failed_write_or_flush_ends_the_file() {
        let disk = SimDisk::file(&Power::default());
        let mut file = create(&disk);
        disk.fail_flushes(1);
        assert!(matches!(file.flush(), Err(SealError::Io { action: "flush", .. })));
        assert!(matches!(file.flush(), Err(SealError::Poisoned)));
        let disk = SimDisk::file(&Power::default());
        let mut file = create(&disk);
        disk.fail_writes(1);
        let fill = |out: &mut Writer| {
            out.u8(1);
        };
        assert!(matches!(file.append(1, fill), Err(SealError::Io { action: "write", .. })));
        assert!(matches!(file.append(1, fill), Err(SealError::Poisoned)), "no number twice");
    }
}
