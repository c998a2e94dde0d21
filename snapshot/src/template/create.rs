//! Making a template: reads volumes, stores what is new, says what it made.

use std::collections::HashMap;
use std::ops::ControlFlow;

use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::Name;
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::units::Span;

use super::TemplateError;
use super::chunk::{self, ChunkId, ChunkNamer};
use super::index::Index;
use super::manifest::{Facts, Manifest, SourcePoint, VolumeManifest, height};
use super::objects::Objects;
use super::page::{Page, SLOTS, SLOTS_LEN, Stored};
use super::place::{Kind, ObjectId};
use super::session::Session;
use super::tree::Tree;
use crate::seal::{DataKey, ObjectSealer, Purpose};

/// A pack ends behind the chunk with which it reaches this. Unit: bytes.
///
/// 16 MiB: a TiB is 65,536 objects at most, which a store lists in seconds and for which it asks
/// little money; a pack is still small enough to be kept in memory while it is built, sent again
/// when a link breaks, and to be kept as a whole while one of its chunks is in use.
pub const PACK_BYTES: usize = 16 << 20;

/// What whoever makes a template says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// When it is made. Unit: microseconds since 1970.
    pub created: u64,
    /// Which point it holds.
    pub source: SourcePoint,
    /// Size of chunks, [`super::CHUNK_LOG2_DEFAULT`] unless there is a reason. Only templates of
    /// one chunk size share chunks.
    pub chunk: ExtentSize,
    /// To be noted of the group.
    pub facts: Facts,
    /// To be noted of each volume: as many as the layout has.
    pub volumes: Vec<Facts>,
}

/// How far making, copying or proving a template has come. Unit: bytes, where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How much of the volumes was passed. 0 without the key, as the next two.
    pub done: u64,
    /// How much the volumes have together.
    pub of: u64,
    /// How much of what was passed is not zero.
    pub data: u64,
    /// How much was written into objects.
    pub stored: u64,
    /// How many objects were looked at, without the key. Unit: objects.
    pub objects: u64,
}

/// Is told of progress, and may break off: the rest is done when the same is asked for again.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

/// Tells how far it is, and hears whether to go on.
///
/// # Errors
/// [`TemplateError::Stopped`].
pub(super) fn tell(told: &Progress, progress: OnProgress<'_>) -> Result<(), TemplateError> {
    match progress(told) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(TemplateError::Stopped),
    }
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The id of the root, which proves every byte: who keeps it elsewhere can tell the template
    /// from any other.
    pub root: ObjectId,
    /// How much was read and stored.
    pub progress: Progress,
}

/// Makes the template `name` of `source`, the volumes of `layout` in its order.
///
/// What the store holds under the same key is not stored again, also what an earlier attempt left
/// that was broken off. The volumes must not change meanwhile: give those of a snapshot.
///
/// Durable: the template, once this has returned.
///
/// # Errors
/// [`TemplateError::Taken`] when there is a template of this name, [`TemplateError::Input`] when
/// what is given does not fit together. After any error the same call may be made again.
pub fn create(
    store: &dyn Objects,
    key: &DataKey,
    name: &Name,
    source: &[SharedDisk],
    layout: &Layout,
    meta: &Meta,
    progress: OnProgress<'_>,
) -> Result<Created, TemplateError> {
    let mut manifest = blank(key, name, layout, meta);
    check(source, &manifest, meta)?;
    let session = Session::begin(store, name)?;
    let index = Index::read(&session, key)?;
    let told = Progress { of: layout.bytes(), ..Progress::default() };
    let namer = ChunkNamer::new(key);
    let mut maker = Maker { session, index, key, namer, chunk: meta.chunk, told, progress };
    for (disk, volume) in source.iter().zip(&mut manifest.volumes) {
        maker.volume(&**disk, volume)?;
    }
    let (clear, body) = manifest.encode().map_err(TemplateError::Manifest)?;
    let root = maker.index.node(&clear, &body, key, &mut maker.session)?;
    let told = Progress { stored: maker.session.stored(), ..maker.told };
    maker.session.commit(root)?;
    Ok(Created { root, progress: told })
}

/// The manifest, but for what the volumes hold.
fn blank(key: &DataKey, name: &Name, layout: &Layout, meta: &Meta) -> Manifest {
    let facts = meta.volumes.iter().cloned().chain(std::iter::repeat(Facts::new()));
    let volumes = layout.volumes.iter().cloned().zip(facts).map(|(layout, facts)| VolumeManifest {
        layout,
        facts,
        chunks: 0,
        content: [0; 32],
        tree: None,
    });
    Manifest {
        name: name.clone(),
        created: meta.created,
        source: meta.source.clone(),
        key: key.id(),
        extent: layout.extent,
        chunk: meta.chunk,
        facts: meta.facts.clone(),
        volumes: volumes.collect(),
    }
}

/// Finds what would make the work vain before it begins.
fn check(source: &[SharedDisk], manifest: &Manifest, meta: &Meta) -> Result<(), TemplateError> {
    let volumes = &manifest.volumes;
    if source.len() != volumes.len() || meta.volumes.len() != volumes.len() {
        let (disks, facts) = (source.len(), meta.volumes.len());
        let text = format!("{} volumes, {disks} disks and {facts} sets of facts", volumes.len());
        return Err(TemplateError::Input(text));
    }
    for (disk, volume) in source.iter().zip(volumes) {
        let (name, needed, found) = (&volume.layout.name, volume.layout.bytes, disk.len());
        if found < needed {
            let text = format!("volume {name} has {found} bytes, the layout says {needed}");
            return Err(TemplateError::Input(text));
        }
    }
    manifest.encode().map(drop).map_err(TemplateError::Manifest)
}

struct Maker<'a, 'b> {
    session: Session<'a>,
    index: Index,
    key: &'a DataKey,
    namer: ChunkNamer,
    chunk: ExtentSize,
    told: Progress,
    progress: OnProgress<'b>,
}

/// A chunk of a stretch whose packs are not all named yet.
#[derive(Clone, Copy)]
enum Draft {
    Zero,
    Known(Stored),
    /// In the pack of this number of the stretch.
    Fresh(usize, Stored),
}

/// The packs of one stretch.
#[derive(Default)]
struct Packs {
    open: Option<ObjectSealer>,
    closed: Vec<ObjectId>,
}

/// What stands for a chunk of zeroes in the hash of a volume.
pub(super) const NO_CHUNK: [u8; 32] = [0; 32];

/// Adds that many chunks of zeroes to the hash of a volume.
pub(super) fn add_zeroes(content: &mut blake3::Hasher, chunks: u64) {
    const MANY: &[u8] = &[0; NO_CHUNK.len() * SLOTS_LEN];
    for first in (0..chunks).step_by(SLOTS_LEN) {
        let chunks = usize::try_from((chunks - first).min(SLOTS)).expect("at most SLOTS");
        content.update(&MANY[..NO_CHUNK.len() * chunks]);
    }
}

/// Until a pack has its name.
const UNNAMED: ObjectId = ObjectId([0; 32]);

impl Maker<'_, '_> {
    fn volume(&mut self, disk: &dyn Disk, into: &mut VolumeManifest) -> Result<(), TemplateError> {
        let mut reader = Reader::new(disk, &into.layout);
        let mut tree = Tree::new(height(self.chunk, into.layout.bytes));
        let mut content = blake3::Hasher::new();
        let count = self.chunk.count(into.layout.bytes);
        let mut first = 0;
        while first < count {
            let end = count.min(first + SLOTS);
            let (page, chunks) = self.stretch(&mut reader, first..end, &mut content)?;
            into.chunks += chunks;
            let leaf = page.map(|page| self.node(0, &page)).transpose()?;
            tree.push(leaf, &mut |level, page| self.node(level, &page))?;
            first = end;
            self.tell()?;
        }
        into.tree = tree.finish(&mut |level, page| self.node(level, &page))?;
        into.content = *content.finalize().as_bytes();
        Ok(())
    }

    fn tell(&mut self) -> Result<(), TemplateError> {
        self.told.stored = self.session.stored();
        tell(&self.told, self.progress)
    }

    fn node(&mut self, level: u8, page: &Page) -> Result<ObjectId, TemplateError> {
        let (clear, body) = page.encode(level);
        self.index.node(&clear, &body, self.key, &mut self.session)
    }

    /// Stores the chunks of one node of level 0; gives its page, `None` when all is zero, and how
    /// many chunks are not. All of its packs are written before it is, and it is the first to say
    /// what they hold: what an attempt leaves that is broken off can be used from there on.
    fn stretch(
        &mut self,
        reader: &mut Reader<'_>,
        range: std::ops::Range<u64>,
        content: &mut blake3::Hasher,
    ) -> Result<(Option<Page>, u64), TemplateError> {
        let start = range.start * self.chunk.bytes();
        let end = self.chunk.span(range.end - 1, reader.layout.bytes).end();
        self.told.done += end - start;
        if reader.is_hole(Span::new(start, end - start))? {
            add_zeroes(content, range.end - range.start);
            return Ok((None, 0));
        }
        let (mut packs, mut drafts) = (Packs::default(), Vec::new());
        let mut fresh = HashMap::new();
        for index in range {
            let span = self.chunk.span(index, reader.layout.bytes);
            let draft = match reader.read(span)? {
                None => {
                    content.update(&NO_CHUNK);
                    Draft::Zero
                }
                Some(bytes) => {
                    content.update(blake3::hash(bytes).as_bytes());
                    self.told.data += span.len;
                    self.session.worked(span.len)?;
                    self.chunk(bytes, &mut packs, &mut fresh)?
                }
            };
            drafts.push(draft);
        }
        self.close(&mut packs)?;
        let chunks = drafts.iter().filter(|draft| !matches!(draft, Draft::Zero)).count();
        let slots: Vec<_> = drafts.into_iter().map(|draft| self.settle(draft, &packs)).collect();
        Ok(((chunks > 0).then_some(Page::Chunks(slots)), chunks as u64))
    }

    /// Stores one chunk, unless it is there.
    fn chunk(
        &mut self,
        content: &[u8],
        packs: &mut Packs,
        fresh: &mut HashMap<ChunkId, (usize, Stored)>,
    ) -> Result<Draft, TemplateError> {
        let id = self.namer.name(content);
        if let Some(&(pack, stored)) = fresh.get(&id) {
            return Ok(Draft::Fresh(pack, stored));
        }
        if let Some(stored) = self.index.chunk(id, &mut self.session) {
            return Ok(Draft::Known(stored));
        }
        let body = chunk::encode(content);
        let mut open = match packs.open.take() {
            Some(open) => open,
            None => {
                ObjectSealer::begin(self.key, Purpose::TemplatePack).map_err(TemplateError::Seal)?
            }
        };
        let at = open.append(body.len(), |out| {
            out.put(&body);
        });
        let end = open.len();
        let short = |bytes| u32::try_from(bytes).expect("a pack is little longer than PACK_BYTES");
        let stored = Stored { id, pack: UNNAMED, at: short(at), len: short(end - at) };
        let pack = packs.closed.len();
        fresh.insert(id, (pack, stored));
        packs.open = Some(open);
        if end >= PACK_BYTES {
            self.close(packs)?;
        }
        Ok(Draft::Fresh(pack, stored))
    }

    fn close(&mut self, packs: &mut Packs) -> Result<(), TemplateError> {
        if let Some(open) = packs.open.take() {
            packs.closed.push(self.session.put(Kind::Pack, &open.finish())?);
        }
        Ok(())
    }

    /// What a page says of a chunk whose pack has its name.
    fn settle(&mut self, draft: Draft, packs: &Packs) -> Option<Stored> {
        match draft {
            Draft::Zero => None,
            Draft::Known(stored) => Some(stored),
            Draft::Fresh(pack, stored) => {
                let stored = Stored { pack: packs.closed[pack], ..stored };
                self.index.add_chunk(stored);
                Some(stored)
            }
        }
    }
}

/// Reads one volume, and nothing where it says that there is nothing.
struct Reader<'a> {
    disk: &'a dyn Disk,
    layout: &'a VolumeLayout,
    /// What was asked last: the kind of what lies before this place.
    known: (Allocation, u64),
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn new<'a>(disk: &'a dyn Disk, layout: &'a VolumeLayout) -> Reader<'a> {
        Reader { disk, layout, known: (Allocation::Data, 0), buffer: Vec::new() }
    }

    /// Whether all of `span` is known to hold nothing. Spans are asked for in order.
    fn is_hole(&mut self, span: Span) -> Result<bool, TemplateError> {
        if self.known.1 <= span.offset {
            let known = self.disk.allocation(span.offset, self.layout.bytes);
            self.known = known.map_err(self.failed(span))?;
        }
        Ok(self.known.0 == Allocation::Hole && self.known.1 >= span.end())
    }

    /// The bytes of a chunk, without the masked head; `None` when all are zero.
    fn read(&mut self, span: Span) -> Result<Option<&[u8]>, TemplateError> {
        if self.is_hole(span)? {
            return Ok(None);
        }
        self.buffer.resize(usize::try_from(span.len).expect("a chunk has 1 MiB at most"), 0);
        let read = self.disk.read_at(span.offset, &mut self.buffer);
        read.map_err(self.failed(span))?;
        let masked = u64::from(self.layout.masked).saturating_sub(span.offset).min(span.len);
        self.buffer[..usize::try_from(masked).expect("no longer than the chunk")].fill(0);
        Ok((!chunk::is_zero(&self.buffer)).then_some(&self.buffer[..]))
    }

    fn failed(&self, span: Span) -> impl FnOnce(std::io::Error) -> TemplateError + use<> {
        let (volume, offset) = (self.layout.name.clone(), span.offset);
        move |source| TemplateError::Source { volume, offset, source }
    }
}
