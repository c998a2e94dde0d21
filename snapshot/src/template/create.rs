//! Making a template: reads volumes, stores what is new, says what it made.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::thread;

use vgship_base::disk::SharedDisk;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::Name;
use vgship_base::layout::Layout;
use vgship_base::spread::spread;

use super::TemplateError;
use super::ahead::{Ahead, Passed, Window};
use super::chunk::{self, ChunkId, ChunkNamer};
use super::index::Index;
use super::manifest::{Facts, Manifest, SourcePoint, VolumeManifest, height};
use super::objects::Objects;
use super::page::{Page, SLOTS, SLOTS_LEN, Stored};
use super::place::{Kind, ObjectId};
use super::session::Session;
use super::tree::Tree;
use crate::seal::{BODY_MAX, DataKey, ObjectSealer, Purpose};

/// A pack ends behind the chunk with which it reaches this. Unit: bytes.
///
/// 16 MiB: a TiB is 65,536 objects at most, which a store lists in seconds and for which it asks
/// little money; a pack is still small enough to be kept in memory while it is built, sent again
/// when a link breaks, and to be kept as a whole while one of its chunks is in use.
pub const PACK_BYTES: usize = 16 << 20;

/// Threads that name chunks, and as many that compress them: as many as the agent gives to other
/// work on volumes.
pub(super) const WORKERS: usize = 2;

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
    let mut session = Session::begin(store, name)?;
    let index = Index::read(&session, key)?;
    let told = Progress { of: layout.bytes(), ..Progress::default() };
    thread::scope(|scope| {
        session.write_behind(scope);
        let ahead = Ahead::begin(scope, source, layout, meta.chunk, ChunkNamer::new(key));
        let mut maker = Maker { session, index, key, ahead, chunk: meta.chunk, told, progress };
        for volume in &mut manifest.volumes {
            maker.volume(volume)?;
        }
        let (clear, body) = manifest.encode().map_err(TemplateError::Manifest)?;
        let root = maker.index.node(&clear, &body, &mut maker.session)?;
        let told = Progress { stored: maker.session.stored(), ..maker.told };
        maker.session.commit(root)?;
        Ok(Created { root, progress: told })
    })
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
    ahead: Ahead,
    chunk: ExtentSize,
    told: Progress,
    progress: OnProgress<'b>,
}

/// A chunk of a stretch whose packs are not all named yet.
#[derive(Clone, Copy)]
enum Draft {
    Zero,
    Known(Stored),
    /// One of those that the stretch stores, counted in their order.
    Fresh(usize),
}

/// What is known so far of the chunks of one node of level 0.
#[derive(Default)]
struct Stretch {
    drafts: Vec<Draft>,
    /// What it stores, counted in the order in which it comes first.
    fresh: HashMap<ChunkId, usize>,
    /// The slots where that comes first.
    first: Vec<u16>,
    /// Where it lies, and the number of the pack among those of the stretch.
    stored: Vec<(usize, Stored)>,
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
    fn volume(&mut self, into: &mut VolumeManifest) -> Result<(), TemplateError> {
        let bytes = into.layout.bytes;
        let mut tree = Tree::new(height(self.chunk, bytes));
        let mut content = blake3::Hasher::new();
        let count = self.chunk.count(bytes);
        let mut first = 0;
        while first < count {
            let end = count.min(first + SLOTS);
            let (leaf, chunks) = self.stretch(end - first, &mut content)?;
            self.told.done =
                self.told.done + self.chunk.span(end - 1, bytes).end() - first * self.chunk.bytes();
            into.chunks += chunks;
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
        self.index.node(&clear, &body, &mut self.session)
    }

    /// Stores the next `count` chunks; gives their node of level 0, `None` when all is zero, and how
    /// many chunks are not. All of its packs are written before it is, and it is the first to say
    /// what they hold: what an attempt leaves that is broken off can be used from there on.
    fn stretch(
        &mut self,
        count: u64,
        content: &mut blake3::Hasher,
    ) -> Result<(Option<ObjectId>, u64), TemplateError> {
        let mut stretch = Stretch::default();
        while (stretch.drafts.len() as u64) < count {
            match self.ahead.next()? {
                Passed::Hole => {
                    add_zeroes(content, count);
                    return Ok((None, 0));
                }
                Passed::Window(mut window) => {
                    self.window(&mut window, &mut stretch, content)?;
                    self.ahead.give_back(window);
                }
            }
        }
        self.close(&mut stretch)?;
        let slots: Vec<_> = stretch.drafts.iter().map(|draft| stretch.settled(*draft)).collect();
        let chunks = slots.iter().flatten().count();
        let page = (chunks > 0).then_some(Page::Chunks(slots));
        let node =
            page.map(|page| self.index.page_of_chunks(page, &stretch.first, &mut self.session));
        Ok((node.transpose()?, chunks as u64))
    }

    /// Stores what is new in a window: finds it in order, compresses it at once, stores it in order.
    fn window(
        &mut self,
        window: &mut Window,
        stretch: &mut Stretch,
        content: &mut blake3::Hasher,
    ) -> Result<(), TemplateError> {
        let mut fresh = Vec::new();
        for chunk in window.chunks() {
            let draft = match chunk.content() {
                None => {
                    content.update(&NO_CHUNK);
                    Draft::Zero
                }
                Some((bytes, named)) => {
                    content.update(&named.plain);
                    self.told.data += bytes.len() as u64;
                    self.session.worked(bytes.len() as u64)?;
                    let draft = self.find(named.id, stretch)?;
                    if matches!(draft, Draft::Fresh(number) if number == stretch.first.len()) {
                        stretch.first.push(short(stretch.drafts.len()));
                        fresh.push((named.id, bytes));
                    }
                    draft
                }
            };
            stretch.drafts.push(draft);
        }
        let encode = |(_, bytes): &(ChunkId, &[u8])| Ok::<_, TemplateError>(chunk::encode(bytes));
        let bodies = spread(&fresh, WORKERS, encode)?;
        for ((id, _), body) in fresh.into_iter().zip(bodies) {
            self.store(id, &body, stretch)?;
        }
        Ok(())
    }

    /// Where a chunk lies, or that the stretch stores it.
    fn find(&mut self, id: ChunkId, stretch: &mut Stretch) -> Result<Draft, TemplateError> {
        if let Some(&number) = stretch.fresh.get(&id) {
            return Ok(Draft::Fresh(number));
        }
        if let Some(stored) = self.index.chunk(id, &mut self.session)? {
            return Ok(Draft::Known(stored));
        }
        let number = stretch.first.len();
        stretch.fresh.insert(id, number);
        Ok(Draft::Fresh(number))
    }

    /// Puts a chunk into the open pack.
    fn store(
        &mut self,
        id: ChunkId,
        body: &[u8],
        stretch: &mut Stretch,
    ) -> Result<(), TemplateError> {
        let mut open = if let Some(open) = stretch.open.take() {
            open
        } else {
            let (memory, room) = (self.session.memory(), PACK_BYTES + BODY_MAX);
            ObjectSealer::begin_in(memory, room, self.key, Purpose::TemplatePack)
                .map_err(TemplateError::Seal)?
        };
        let at = open.append(body.len(), |out| {
            out.put(body);
        });
        let end = open.len();
        let stored = Stored { id, pack: UNNAMED, at: short(at), len: short(end - at) };
        stretch.stored.push((stretch.closed.len(), stored));
        stretch.open = Some(open);
        if end >= PACK_BYTES {
            self.close(stretch)?;
        }
        Ok(())
    }

    fn close(&mut self, stretch: &mut Stretch) -> Result<(), TemplateError> {
        if let Some(open) = stretch.open.take() {
            stretch.closed.push(self.session.put(Kind::Pack, open.finish())?);
        }
        Ok(())
    }
}

impl Stretch {
    /// What a page says of a chunk, when all packs have their names.
    fn settled(&self, draft: Draft) -> Option<Stored> {
        match draft {
            Draft::Zero => None,
            Draft::Known(stored) => Some(stored),
            Draft::Fresh(number) => {
                let (pack, stored) = self.stored[number];
                Some(Stored { pack: self.closed[pack], ..stored })
            }
        }
    }
}

/// A place within a node or a pack.
fn short<T: TryFrom<usize>>(place: usize) -> T {
    let short = T::try_from(place).ok();
    short.expect("a pack is little longer than PACK_BYTES, and a node has at most SLOTS")
}
