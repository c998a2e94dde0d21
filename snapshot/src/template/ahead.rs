//! Reading volumes ahead of whoever stores them: chunks come in order, read and named by other
//! threads while earlier ones are compressed and written.
//!
//! ```text
//!            full windows          one thread reads and names on, with helpers;
//! Runner ---------------------> Ahead      memory is what the windows hold,
//!        <---------------------            of which there are TEMPLATE_WINDOWS
//!           windows to fill anew
//! ```

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::limits::{TEMPLATE_WINDOW_BYTES, TEMPLATE_WINDOWS};
use vgship_base::spread::spread;
use vgship_base::units::Span;

use super::TemplateError;
use super::chunk::{self, ChunkId, ChunkNamer};
use super::create::WORKERS;
use super::page::SLOTS;

/// What a chunk that is not zero is called.
#[derive(Clone, Copy)]
pub(super) struct Named {
    /// Among the chunks of a key.
    pub(super) id: ChunkId,
    /// Among all chunks of the world: the BLAKE3 of its content.
    pub(super) plain: [u8; 32],
}

/// A chunk of a volume that was read.
#[derive(Default)]
pub(super) struct Chunk {
    span: Option<Span>,
    bytes: Vec<u8>,
    named: Option<Named>,
}

impl Chunk {
    /// Its content and what it is called; `None` when all of it is zero.
    pub(super) fn content(&self) -> Option<(&[u8], Named)> {
        self.named.map(|named| (&self.bytes[..], named))
    }

    fn read(&mut self, from: &Volume<'_>, namer: &ChunkNamer) -> Result<(), TemplateError> {
        self.named = None;
        let Some(span) = self.span else { return Ok(()) };
        self.bytes.resize(usize::try_from(span.len).expect("a chunk has 1 MiB at most"), 0);
        from.disk.read_at(span.offset, &mut self.bytes).map_err(from.failed(span))?;
        let masked = u64::from(from.layout.masked).saturating_sub(span.offset).min(span.len);
        self.bytes[..usize::try_from(masked).expect("no longer than the chunk")].fill(0);
        if !chunk::is_zero(&self.bytes) {
            let plain = *blake3::hash(&self.bytes).as_bytes();
            self.named = Some(Named { id: namer.name(&self.bytes), plain });
        }
        Ok(())
    }
}

/// Some chunks that follow each other, in memory that is used again.
#[derive(Default)]
pub(super) struct Window {
    /// Each is taken by one thread at a time, so that nobody waits for a lock.
    chunks: Vec<Mutex<Chunk>>,
    used: usize,
}

impl Window {
    /// Its chunks, in order.
    pub(super) fn chunks(&mut self) -> impl Iterator<Item = &Chunk> {
        let chunks = self.chunks[..self.used].iter_mut();
        chunks.map(|chunk| &*chunk.get_mut().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What comes next.
pub(super) enum Passed {
    /// All chunks of one node of level 0 are known to be zero.
    Hole,
    /// The next chunks of one node of level 0, or all of them.
    Window(Window),
}

/// Where whoever stores the chunks gets them.
pub(super) struct Ahead {
    full: Receiver<Result<Passed, TemplateError>>,
    empty: Sender<Window>,
}

impl Ahead {
    /// Begins to read all volumes of `source` in order, each from its begin to its end.
    pub(super) fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        source: &'scope [SharedDisk],
        layout: &'scope Layout,
        chunk: ExtentSize,
        namer: ChunkNamer,
    ) -> Ahead {
        let (give_full, full) = sync_channel(TEMPLATE_WINDOWS);
        let (empty, take_empty) = channel();
        for _ in 0..TEMPLATE_WINDOWS {
            empty.send(Window::default()).expect("the other end is here");
        }
        let runner = Runner { chunk, namer, full: give_full, empty: take_empty };
        scope.spawn(move || runner.run(source, layout));
        Ahead { full, empty }
    }

    /// What comes next, waited for.
    ///
    /// # Panics
    /// When all was passed, or failed, before.
    pub(super) fn next(&self) -> Result<Passed, TemplateError> {
        self.full.recv().expect("as much comes as the volumes have")
    }

    /// Gives back a window, to be filled anew.
    pub(super) fn give_back(&self, window: Window) {
        // Behind the last one nobody fills them any more.
        let _ = self.empty.send(window);
    }
}

/// Chunks, counted. There are few at once.
fn place(chunks: u64) -> usize {
    usize::try_from(chunks).expect("at most the slots of a node")
}

/// Nobody listens any more, or was told that it failed.
struct Ended;

struct Runner {
    chunk: ExtentSize,
    namer: ChunkNamer,
    full: SyncSender<Result<Passed, TemplateError>>,
    empty: Receiver<Window>,
}

impl Runner {
    fn run(self, source: &[SharedDisk], layout: &Layout) {
        for (disk, layout) in source.iter().zip(&layout.volumes) {
            if self.volume(&mut Volume::new(&**disk, layout)).is_err() {
                return;
            }
        }
    }

    fn give(&self, passed: Result<Passed, TemplateError>) -> Result<(), Ended> {
        let failed = passed.is_err();
        match self.full.send(passed) {
            Ok(()) if !failed => Ok(()),
            _ => Err(Ended),
        }
    }

    fn volume(&self, volume: &mut Volume<'_>) -> Result<(), Ended> {
        let count = self.chunk.count(volume.layout.bytes);
        let step = (TEMPLATE_WINDOW_BYTES as u64 / self.chunk.bytes()).clamp(1, SLOTS);
        for first in (0..count).step_by(place(SLOTS)) {
            let end = count.min(first + SLOTS);
            let start = first * self.chunk.bytes();
            let stop = self.chunk.span(end - 1, volume.layout.bytes).end();
            match volume.is_hole(Span::new(start, stop - start)) {
                Ok(true) => self.give(Ok(Passed::Hole))?,
                Ok(false) => {
                    for from in (first..end).step_by(place(step)) {
                        let mut window = self.empty.recv().map_err(|_| Ended)?;
                        let filled = self.fill(&mut window, volume, from..end.min(from + step));
                        self.give(filled.map(|()| Passed::Window(window)))?;
                    }
                }
                Err(error) => self.give(Err(error))?,
            }
        }
        Ok(())
    }

    fn fill(
        &self,
        window: &mut Window,
        volume: &mut Volume<'_>,
        range: Range<u64>,
    ) -> Result<(), TemplateError> {
        window.used = place(range.end - range.start);
        if window.chunks.len() < window.used {
            window.chunks.resize_with(window.used, Mutex::default);
        }
        for (chunk, index) in window.chunks.iter_mut().zip(range) {
            let span = self.chunk.span(index, volume.layout.bytes);
            let hole = volume.is_hole(span)?;
            let chunk = chunk.get_mut().unwrap_or_else(PoisonError::into_inner);
            chunk.span = (!hole).then_some(span);
        }
        let (volume, namer) = (&*volume, &self.namer);
        spread(&window.chunks[..window.used], WORKERS, |chunk| {
            chunk.lock().unwrap_or_else(PoisonError::into_inner).read(volume, namer)
        })?;
        Ok(())
    }
}

/// One volume, of which nothing is read where it says that there is nothing.
struct Volume<'a> {
    disk: &'a dyn Disk,
    layout: &'a VolumeLayout,
    /// What was asked last: the kind of what lies before this place.
    known: (Allocation, u64),
}

impl<'a> Volume<'a> {
    fn new(disk: &'a dyn Disk, layout: &'a VolumeLayout) -> Volume<'a> {
        Volume { disk, layout, known: (Allocation::Data, 0) }
    }

    /// Whether all of `span` is known to hold nothing. Spans are asked for in order.
    fn is_hole(&mut self, span: Span) -> Result<bool, TemplateError> {
        if self.known.1 <= span.offset {
            let known = self.disk.allocation(span.offset, self.layout.bytes);
            self.known = known.map_err(self.failed(span))?;
        }
        Ok(self.known.0 == Allocation::Hole && self.known.1 >= span.end())
    }

    fn failed(&self, span: Span) -> impl FnOnce(std::io::Error) -> TemplateError + use<> {
        let (volume, offset) = (self.layout.name.clone(), span.offset);
        move |source| TemplateError::Source { volume, offset, source }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::seal::DataKey;

    const CHUNK: u64 = 4096;
    const CHUNKS: u64 = 20 * SLOTS;
    const PER_WINDOW: usize = TEMPLATE_WINDOW_BYTES / 4096;

    /// Looks how far ahead of its reader it is read.
    #[derive(Default)]
    struct Watched {
        reads: AtomicUsize,
        given_back: AtomicUsize,
    }

    impl Disk for Watched {
        fn len(&self) -> u64 {
            CHUNKS * CHUNK
        }
        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            let windows = self.given_back.load(Ordering::SeqCst) + TEMPLATE_WINDOWS;
            if self.reads.fetch_add(1, Ordering::SeqCst) >= windows * PER_WINDOW {
                return Err(io::Error::other("more is in memory than there may be"));
            }
            into.fill(0);
            into[..8].copy_from_slice(&(offset / CHUNK).to_be_bytes());
            Ok(())
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("a source is only read")
        }
        fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
            unreachable!("a source is only read")
        }
        fn flush(&self) -> io::Result<()> {
            unreachable!("a source is only read")
        }
    }

    /// Goal: chunks come in order, and never more are in memory than the windows hold.
    #[test]
    fn chunks_come_in_order_and_memory_is_bounded() {
        let disk = Arc::new(Watched::default());
        let source: [SharedDisk; 1] = [Arc::clone(&disk) as SharedDisk];
        let volumes =
            vec![VolumeLayout { name: "lv".parse().unwrap(), bytes: disk.len(), masked: 0 }];
        let layout = Layout { extent: ExtentSize::from_log2(16).unwrap(), volumes };
        let namer = ChunkNamer::new(&DataKey::from_bytes([1; 32]));
        std::thread::scope(|scope| {
            let chunk = ExtentSize::from_bytes(CHUNK).unwrap();
            let ahead = Ahead::begin(scope, &source, &layout, chunk, namer.clone());
            let mut next = 0_u64;
            while next < CHUNKS {
                let Passed::Window(mut window) = ahead.next().unwrap() else { panic!("no hole") };
                for chunk in window.chunks() {
                    // The first is zero.
                    if let Some((bytes, named)) = chunk.content() {
                        assert_eq!(bytes[..8], next.to_be_bytes());
                        assert_eq!(named.id, namer.name(bytes));
                        assert_eq!(named.plain, *blake3::hash(bytes).as_bytes());
                    }
                    assert_eq!(chunk.content().is_none(), next == 0);
                    next += 1;
                }
                disk.given_back.fetch_add(1, Ordering::SeqCst);
                ahead.give_back(window);
            }
        });
    }
}
