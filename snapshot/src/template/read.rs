//! Reading a template: its chunks, and its volumes as disks.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgship_base::disk::{Allocation, Disk};
use vgship_base::ids::VolumeId;
use vgship_base::units::Span;

use super::TemplateError;
use super::chunk::{self, ChunkNamer};
use super::lru::Lru;
use super::manifest::{Manifest, VolumeManifest};
use super::node;
use super::page::{Page, SLOTS, Stored};
use super::place::{Kind, ObjectId, Ref};
use super::shelves::Shelves;
use crate::seal::{DataKey, HEADER_LEN, ObjectOpener, Purpose};

/// Nodes that are kept: 64 of level 0 speak of 16 GiB of default chunks in 5 MiB.
const NODES_KEPT: usize = 64;
/// Chunks that are kept, 16 MiB of the default size.
const CHUNKS_KEPT: usize = 64;
/// Packs whose keys, and whose pieces that were read ahead, are kept.
const PACKS_KEPT: usize = 8;
/// Most that is read of a pack at once. Unit: bytes.
const AHEAD_MAX: u64 = 4 << 20;

/// One pack that is being read.
#[derive(Clone)]
struct OpenPack {
    opener: Arc<ObjectOpener>,
    key: Arc<str>,
    /// A piece of it, and where it begins. Who reads on in order finds the next chunk here; each
    /// time it ends the next piece is twice as long.
    piece: Arc<(u64, Vec<u8>)>,
    ahead: u64,
}

/// Reads chunks of one template. Proves each.
pub(super) struct Chunks {
    shelves: Shelves,
    key: DataKey,
    namer: ChunkNamer,
    nodes: Mutex<Lru<ObjectId, Arc<Page>>>,
    chunks: Mutex<Lru<chunk::ChunkId, Arc<Vec<u8>>>>,
    packs: Mutex<Lru<ObjectId, OpenPack>>,
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is right whenever it can be seen.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chunks {
    pub(super) fn new(shelves: Shelves, key: &DataKey) -> Chunks {
        Chunks {
            shelves,
            key: key.clone(),
            namer: ChunkNamer::new(key),
            nodes: Mutex::new(Lru::new(NODES_KEPT)),
            chunks: Mutex::new(Lru::new(CHUNKS_KEPT)),
            packs: Mutex::new(Lru::new(PACKS_KEPT)),
        }
    }

    /// What a node of `level` says.
    pub(super) fn page(&self, id: ObjectId, level: u8) -> Result<Arc<Page>, TemplateError> {
        if let Some(page) = lock(&self.nodes).get(&id) {
            return Ok(page);
        }
        let (key, bytes) = self.shelves.fetch(Ref { kind: Kind::Node, id })?;
        let opened = node::open(&bytes, &self.key);
        let page = opened.and_then(|(clear, body)| match clear.level == level {
            true => Page::decode(&clear, &body).map_err(node::in_node),
            false => Err(crate::seal::SealError::Broken { what: "level of a node", offset: 6 }),
        });
        let page = Arc::new(page.map_err(|source| TemplateError::Sealed { key, source })?);
        lock(&self.nodes).put(id, Arc::clone(&page));
        Ok(page)
    }

    /// The content of a chunk of `len` bytes.
    pub(super) fn content(
        &self,
        stored: &Stored,
        len: usize,
    ) -> Result<Arc<Vec<u8>>, TemplateError> {
        if let Some(content) = lock(&self.chunks).get(&stored.id).filter(|kept| kept.len() == len) {
            return Ok(content);
        }
        let pack = self.pack(stored)?;
        let key = || pack.key.to_string();
        let at = usize::try_from(u64::from(stored.at) - pack.piece.0).expect("behind its start");
        let frame = pack.piece.1.get(at..).unwrap_or_default();
        let frame = frame.get(..stored.len as usize).unwrap_or(frame);
        let opened = pack.opener.open(frame);
        let (body, _) = opened.map_err(|source| TemplateError::Sealed { key: key(), source })?;
        let content = chunk::decode(&body, len, stored.id, &self.namer)
            .map_err(|source| TemplateError::Chunk { key: key(), source })?;
        let content = Arc::new(content);
        lock(&self.chunks).put(stored.id, Arc::clone(&content));
        Ok(content)
    }

    /// The pack of a chunk, with the piece that holds it.
    fn pack(&self, stored: &Stored) -> Result<OpenPack, TemplateError> {
        let known = lock(&self.packs).get(&stored.pack);
        let (at, len) = (u64::from(stored.at), u64::from(stored.len));
        let mut pack = match known {
            Some(pack) => pack,
            None => self.open_pack(stored.pack)?,
        };
        let end = pack.piece.0 + pack.piece.1.len() as u64;
        if at < pack.piece.0 || at + len > end {
            // Going on where it ended, or a little before: at a chunk that was cut off by it.
            let goes_on = at <= end && at + len > end;
            pack.ahead = if goes_on { (pack.ahead * 2).clamp(len, AHEAD_MAX) } else { len };
            let (key, piece) = self.read_pack(stored.pack, at, pack.ahead.max(len))?;
            (pack.key, pack.piece) = (Arc::from(key), Arc::new((at, piece)));
            lock(&self.packs).put(stored.pack, pack.clone());
        }
        Ok(pack)
    }

    fn open_pack(&self, id: ObjectId) -> Result<OpenPack, TemplateError> {
        let (key, head) = self.read_pack(id, 0, HEADER_LEN as u64)?;
        let opener = ObjectOpener::of(&head, &self.key, Purpose::TemplatePack)
            .map_err(|source| TemplateError::Sealed { key: key.clone(), source })?;
        let (opener, key) = (Arc::new(opener), Arc::from(key));
        Ok(OpenPack { opener, key, piece: Arc::new((0, head)), ahead: 0 })
    }

    fn read_pack(
        &self,
        id: ObjectId,
        at: u64,
        len: u64,
    ) -> Result<(String, Vec<u8>), TemplateError> {
        let store = self.shelves.store();
        let pack = Ref { kind: Kind::Pack, id };
        self.shelves.find(pack, &mut |key| store.get_range(key, at, len))
    }

    /// The node of level 0 with number `leaf` of a volume, `None` when it is all zero; and the
    /// number of the next one that may be of another kind.
    pub(super) fn leaf(
        &self,
        manifest: &Manifest,
        volume: &VolumeManifest,
        leaf: u64,
    ) -> Result<(Option<ObjectId>, u64), TemplateError> {
        let mut node = volume.tree;
        let mut level = manifest.height(volume);
        // How many nodes of level 0 the node at hand speaks of.
        let mut covers = SLOTS.pow(u32::from(level));
        loop {
            let start = leaf / covers * covers;
            let Some(id) = node.filter(|_| level > 0) else { return Ok((node, start + covers)) };
            let page = self.page(id, level)?;
            covers /= SLOTS;
            level -= 1;
            let slot = usize::try_from((leaf - start) / covers).expect("a slot of a page");
            node = match &*page {
                Page::Nodes(slots) => slots.get(slot).copied().flatten(),
                Page::Chunks(_) => None,
            };
        }
    }

    /// Where chunk `index` of a volume is stored, `None` when it is zero; and the number of the
    /// next one that may be of another kind.
    fn find(
        &self,
        manifest: &Manifest,
        volume: &VolumeManifest,
        index: u64,
    ) -> Result<(Option<Stored>, u64), TemplateError> {
        let (leaf, next) = self.leaf(manifest, volume, index / SLOTS)?;
        let Some(leaf) = leaf else { return Ok((None, next * SLOTS)) };
        let slot = usize::try_from(index % SLOTS).expect("a slot of a page");
        match &*self.page(leaf, 0)? {
            Page::Chunks(slots) => Ok((slots.get(slot).copied().flatten(), index + 1)),
            Page::Nodes(_) => Ok((None, index + 1)),
        }
    }
}

/// A volume of a template as a disk that refuses to be written.
///
/// Every chunk that is read is proven; what is damaged is an error, never other bytes.
#[derive(Clone)]
pub struct TemplateDisk {
    pub(super) chunks: Arc<Chunks>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) volume: VolumeId,
}

impl TemplateDisk {
    fn volume(&self) -> &VolumeManifest {
        &self.manifest.volumes[self.volume.index()]
    }

    fn read_chunk(&self, index: u64, skip: usize, into: &mut [u8]) -> io::Result<()> {
        let volume = self.volume();
        let span = self.manifest.chunk.span(index, volume.layout.bytes);
        let (stored, _) = self.chunks.find(&self.manifest, volume, index).map_err(to_io)?;
        let Some(stored) = stored else {
            into.fill(0);
            return Ok(());
        };
        let len = usize::try_from(span.len).expect("a chunk has 1 MiB at most");
        let content = self.chunks.content(&stored, len).map_err(to_io)?;
        into.copy_from_slice(&content[skip..skip + into.len()]);
        Ok(())
    }

    fn refuse<T>(&self) -> io::Result<T> {
        let name = &self.manifest.name;
        let text = format!("template {name} is never written: make an environment of it");
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, text))
    }
}

fn to_io(error: TemplateError) -> io::Error {
    let kind = match error.is_damage() {
        true => io::ErrorKind::InvalidData,
        false => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl Disk for TemplateDisk {
    fn len(&self) -> u64 {
        self.volume().layout.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let (size, len) = (self.manifest.chunk.bytes(), self.len());
        if !Span::new(offset, into.len() as u64).within(len) {
            let text = format!("{} bytes at {offset} reach behind the end at {len}", into.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            let left = size - at % size;
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(step);
            let skip = usize::try_from(at % size).expect("within a chunk");
            self.read_chunk(at / size, skip, now)?;
            at += step as u64;
            rest = later;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        self.refuse()
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        self.refuse()
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let (size, volume) = (self.manifest.chunk.bytes(), self.volume());
        let (mut kind, mut index) = (None, offset / size);
        // Far enough to be of use, and soon answered.
        let enough = index + SLOTS;
        while index * size < end && (index < enough || kind == Some(Allocation::Hole)) {
            let (stored, next) = self.chunks.find(&self.manifest, volume, index).map_err(to_io)?;
            let found = if stored.is_some() { Allocation::Data } else { Allocation::Hole };
            if *kind.get_or_insert(found) != found {
                break;
            }
            index = next;
        }
        Ok((kind.unwrap_or(Allocation::Data), (index * size).min(end)))
    }
}
