//! Templates as a whole, over a store in memory.

mod basic;
mod copies;
mod damage;
mod garbage;
mod race;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, GroupId, Name, Seq};
use vgship_base::layout::{Layout, VolumeLayout};

use super::objects::listed;
use super::*;

/// Chunks are as small as they may be.
pub(super) const CHUNK: u64 = BLOCK as u64;
const BLOCK: usize = 4096;

/// A disk that holds nothing but some blocks, and says so.
#[derive(Default)]
pub(super) struct Sparse {
    pub(super) bytes: u64,
    pub(super) blocks: Mutex<BTreeMap<u64, [u8; BLOCK]>>,
    pub(super) reads: Mutex<u64>,
}

impl Sparse {
    pub(super) fn new(bytes: u64) -> Sparse {
        Sparse { bytes, ..Sparse::default() }
    }

    /// Fills the block of this number with a text of its own; 0 is nothing.
    pub(super) fn fill(&self, block: u64, text: u64) {
        let mut blocks = self.blocks.lock().unwrap();
        blocks.insert(block, block_of(text));
        if text == 0 {
            blocks.remove(&block);
        }
    }

    pub(super) fn shared(self) -> SharedDisk {
        Arc::new(self)
    }
}

/// What a block is filled with.
pub(super) fn block_of(text: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    if text != 0 {
        blake3::Hasher::new().update(&text.to_be_bytes()).finalize_xof().fill(&mut block[..2048]);
    }
    block
}

impl Disk for Sparse {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        assert!(offset + into.len() as u64 <= self.bytes);
        *self.reads.lock().unwrap() += 1;
        let blocks = self.blocks.lock().unwrap();
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            let skip = usize::try_from(at % CHUNK).unwrap();
            let len = (BLOCK - skip).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            match blocks.get(&(at / CHUNK)) {
                Some(block) => now.copy_from_slice(&block[skip..skip + len]),
                None => now.fill(0),
            }
            (at, rest) = (at + len as u64, later);
        }
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

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let blocks = self.blocks.lock().unwrap();
        let next = blocks.range(offset / CHUNK..).next().map_or(u64::MAX / CHUNK, |it| *it.0);
        Ok(match next == offset / CHUNK {
            true => (Allocation::Data, ((next + 1) * CHUNK).min(end)),
            false => (Allocation::Hole, (next * CHUNK).min(end)),
        })
    }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn key() -> DataKey {
    DataKey::from_bytes([5; 32])
}

/// A layout of volumes `lv0`, `lv1` and so on of these sizes.
pub(super) fn layout(sizes: &[u64]) -> Layout {
    let volume = |(at, &bytes)| VolumeLayout { name: name(&format!("lv{at}")), bytes, masked: 0 };
    let volumes = sizes.iter().enumerate().map(volume).collect();
    Layout { extent: ExtentSize::from_log2(16).unwrap(), volumes }
}

pub(super) fn meta(volumes: usize) -> Meta {
    Meta {
        created: 1_700_000_000_000_000,
        source: SourcePoint {
            group: GroupId([7; 16]),
            group_name: name("erp"),
            generation: Generation([8; 16]),
            seq: Seq(9),
            clock: 10,
        },
        chunk: ExtentSize::from_bytes(CHUNK).unwrap(),
        facts: Facts::new(),
        volumes: vec![Facts::new(); volumes],
    }
}

pub(super) fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Makes a template of these disks.
pub(super) fn make(
    store: &MemoryObjects,
    text: &str,
    disks: &[SharedDisk],
) -> Result<Created, TemplateError> {
    let sizes: Vec<u64> = disks.iter().map(|disk| disk.len()).collect();
    let (layout, meta) = (layout(&sizes), meta(disks.len()));
    create(store, &key(), &name(text), disks, &layout, &meta, &mut go_on)
}

/// One disk of `blocks` blocks, filled with these texts in order.
pub(super) fn disk(blocks: u64, texts: &[u64]) -> SharedDisk {
    let disk = Sparse::new(blocks * CHUNK);
    for (block, &text) in (0..).zip(texts) {
        disk.fill(block, text);
    }
    disk.shared()
}

pub(super) fn shared(store: &MemoryObjects) -> SharedObjects {
    Arc::new(store.clone())
}

pub(super) fn opened(store: &MemoryObjects, text: &str) -> Template {
    Template::open(&shared(store), &key(), &name(text)).unwrap()
}

pub(super) fn content(template: &Template, volume: u16) -> Vec<u8> {
    let disk = template.volume(VolumeId(volume)).unwrap();
    let mut bytes = vec![1; usize::try_from(disk.len()).unwrap()];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

/// The keys of all packs, or of all nodes.
pub(super) fn keys_of(store: &MemoryObjects, kind: Kind) -> Vec<String> {
    let is_one = |key: &String| place::Place::parse(key).is_some_and(|it| it.object.kind == kind);
    store.keys().into_iter().filter(is_one).collect()
}

pub(super) fn is_whole(store: &MemoryObjects, text: &str) -> bool {
    let found = opened(store, text).verify(&mut go_on).unwrap();
    let blind = verify_blind(&shared(store), &name(text), &mut go_on).unwrap();
    assert_eq!(found.progress.done, found.progress.of);
    found.damage.is_empty() && blind.damage.is_empty()
}
