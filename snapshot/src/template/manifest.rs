//! The manifest: what a template is. It is the body of its root node, version 1, as the node says.
//!
//! ```text
//! at  size  field       unit    rule
//!  0     8  created     us      since 1970
//!  8     1  chunk       log2 B  12 ..= 20
//!  9     1  reserved    -       0
//! 10   2+n  name        -       the template's; at most 128 bytes
//!       16  group       -       id, of what it was made from
//!      2+n  group name  -       at most 128 bytes
//!       16  generation  -       id
//!        8  seq         -       the point that it holds
//!        8  clock       us      the source's at that point
//!      4+n  layout      -       as `layout.rs` of the base says; at most 1 MiB
//!        -  facts       -       of the group; then for each volume of the layout:
//!        -  facts       -       of the volume
//!        8  chunks      -       how many of its chunks are not zero
//!       32  content     BLAKE3  of the volume, see below
//!        2  tree        -       0 if all is zero, else 1 + index into the node's references
//! ```
//!
//! Facts:
//!
//! ```text
//!  0     2  count       -       0 ..= 64; then for each, keys ascending:
//!      2+n  key         -       1 ..= 64 bytes
//!      2+n  value       -       at most 4096 bytes
//! ```
//!
//! Integers are big-endian, texts are UTF-8 behind their length. `content` is the BLAKE3 of one
//! entry for each chunk of the volume in order: 32 zeroes for a chunk of zeroes, else the BLAKE3 of
//! the chunk. It depends on no key, so templates under different keys can be compared, and on no
//! hole being read. A volume's tree has as few levels as its size needs; a node whose slots would
//! all be zero is not there, and is zero where its parent speaks of it.

use std::collections::BTreeMap;

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, GroupId, NAME_MAX, Name, Seq, VolumeId};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::limits::VOLUMES_MAX;

use super::node::{self, Clear, LEVEL_MAX, ROOT};
use super::page::SLOTS;
use super::place::ObjectId;
use crate::seal::KeyId;

/// Facts of a group or volume.
pub const FACTS_MAX: usize = 64;
/// Longest key of a fact. Unit: bytes.
pub const FACT_KEY_MAX: usize = 64;
/// Longest value of a fact. Unit: bytes.
pub const FACT_VALUE_MAX: usize = 4096;

/// Longest layout. Unit: bytes: 4096 volumes have less than 600 KiB.
const LAYOUT_MAX: usize = 1 << 20;

/// What whoever makes a template wants to be told again: mount point, kind of file system, hooks.
pub type Facts = BTreeMap<String, String>;

/// The point of a group's history that a template holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePoint {
    /// The group it was made from.
    pub group: GroupId,
    /// What the group was called there.
    pub group_name: Name,
    /// The history.
    pub generation: Generation,
    /// The last record that is in it.
    pub seq: Seq,
    /// The source's clock there. Unit: microseconds since 1970.
    pub clock: u64,
}

/// One volume of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeManifest {
    /// Name, size and masked head; what lies in the masked head is zero in the template.
    pub layout: VolumeLayout,
    /// What its maker noted.
    pub facts: Facts,
    /// How many of its chunks are not zero.
    pub chunks: u64,
    /// Hash of its content; equal for equal content and chunk size, whatever the key.
    pub content: [u8; 32],
    /// The top node of its chunks; `None` when all is zero.
    pub tree: Option<ObjectId>,
}

/// What a template is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name when it was made.
    pub name: Name,
    /// When. Unit: microseconds since 1970.
    pub created: u64,
    /// Which point of which group it holds.
    pub source: SourcePoint,
    /// The key it is sealed with.
    pub key: KeyId,
    /// The group's size of extents.
    pub extent: ExtentSize,
    /// Size of chunks.
    pub chunk: ExtentSize,
    /// What its maker noted of the group.
    pub facts: Facts,
    /// Its volumes; the index is the id.
    pub volumes: Vec<VolumeManifest>,
}

impl Manifest {
    /// The layout of the group.
    pub fn layout(&self) -> Layout {
        let volumes = self.volumes.iter().map(|volume| volume.layout.clone()).collect();
        Layout { extent: self.extent, volumes }
    }

    /// The volume of this name.
    pub fn find(&self, name: &str) -> Option<(VolumeId, &VolumeManifest)> {
        let at = self.volumes.iter().position(|volume| volume.layout.name.as_str() == name)?;
        Some((VolumeId(u16::try_from(at).ok()?), &self.volumes[at]))
    }

    /// How many levels the tree of a volume has above level 0.
    pub(super) fn height(&self, volume: &VolumeManifest) -> u8 {
        height(self.chunk, volume.layout.bytes)
    }

    /// What a root node holds: the nodes that it refers to, and its body.
    ///
    /// # Errors
    /// Facts break a rule of the table, or all together are longer than a node's body may be.
    pub fn to_body(&self) -> Result<(Vec<ObjectId>, Vec<u8>), FormatError> {
        self.encode().map(|(clear, body)| (clear.refs, body))
    }

    /// Reads the body of a root node that refers to `refs` and is sealed with `key`.
    ///
    /// # Errors
    /// It is no manifest.
    pub fn from_body(
        refs: Vec<ObjectId>,
        body: &[u8],
        key: KeyId,
    ) -> Result<Manifest, FormatError> {
        Manifest::decode(&Clear { level: ROOT, refs }, body, key)
    }

    /// What the root node says in clear, and its body.
    ///
    /// # Errors
    /// Facts break a rule of the table, or all together are longer than a node's body may be.
    pub(super) fn encode(&self) -> Result<(Clear, Vec<u8>), FormatError> {
        let layout = self.layout().encode();
        let len = u32::try_from(layout.len()).expect("at most LAYOUT_MAX");
        let (mut out, mut refs) = (Writer::default(), Vec::new());
        out.u64(self.created).u8(self.chunk.log2()).u8(0).text(self.name.as_str());
        let source = &self.source;
        out.put(&source.group.0).text(source.group_name.as_str()).put(&source.generation.0);
        out.u64(source.seq.0).u64(source.clock).u32(len).put(&layout);
        put_facts(&self.facts, &mut out)?;
        for volume in &self.volumes {
            put_facts(&volume.facts, &mut out)?;
            out.u64(volume.chunks).put(&volume.content).u16(tree_index(volume.tree, &mut refs));
        }
        let fits = out.len() <= node::BODY_MAX;
        require("facts", out.len() as u64, "all together at most 16 MiB", fits)?;
        Ok((Clear { level: ROOT, refs }, out.into_vec()))
    }

    /// Reads the body of a root node that says `clear` and is sealed with `key`.
    pub(super) fn decode(clear: &Clear, body: &[u8], key: KeyId) -> Result<Manifest, FormatError> {
        require("level", clear.level, "that of a root", clear.level == ROOT)?;
        let mut from = Reader::new(body);
        let created = from.u64("created")?;
        let chunk = size(from.u8("chunk")?)?;
        let reserved = from.u8("reserved")?;
        require("reserved", reserved, "0", reserved == 0)?;
        let name = take_name(&mut from, "name")?;
        let group = GroupId(from.array("group")?);
        let group_name = take_name(&mut from, "group name")?;
        let generation = Generation(from.array("generation")?);
        let (seq, clock) = (Seq(from.u64("seq")?), from.u64("clock")?);
        let source = SourcePoint { group, group_name, generation, seq, clock };
        let len = from.u32("layout")? as usize;
        require("layout", len as u64, "at most 1 MiB", len <= LAYOUT_MAX)?;
        let layout = Layout::decode(from.take("layout", len)?)?;
        let facts = take_facts(&mut from)?;
        let mut volumes = Vec::new();
        for known in layout.volumes {
            volumes.push(take_volume(&mut from, known, chunk, &clear.refs)?);
        }
        from.finish()?;
        let extent = layout.extent;
        Ok(Manifest { name, created, source, key, extent, chunk, facts, volumes })
    }
}

/// How many levels a volume of `bytes` needs above level 0.
pub(super) fn height(chunk: ExtentSize, bytes: u64) -> u8 {
    let mut nodes = chunk.count(bytes).div_ceil(SLOTS);
    let mut height = 0;
    while nodes > 1 {
        nodes = nodes.div_ceil(SLOTS);
        height += 1;
    }
    assert!(height <= LEVEL_MAX, "the largest volume of the smallest chunks needs LEVEL_MAX");
    height
}

fn size(log2: u8) -> Result<ExtentSize, FormatError> {
    let rule = "12 ..= 20";
    let field = FormatError::Field { field: "chunk", found: log2.into(), rule };
    ExtentSize::from_log2(log2).ok_or(field)
}

/// 1 + the place of a volume's top node among the references, where equal trees are one.
fn tree_index(tree: Option<ObjectId>, refs: &mut Vec<ObjectId>) -> u16 {
    let Some(id) = tree else { return 0 };
    let index = refs.iter().position(|known| *known == id).unwrap_or_else(|| {
        refs.push(id);
        refs.len() - 1
    });
    u16::try_from(index + 1).expect("a root has one reference for each volume at most")
}

fn take_volume(
    from: &mut Reader<'_>,
    layout: VolumeLayout,
    chunk: ExtentSize,
    refs: &[ObjectId],
) -> Result<VolumeManifest, FormatError> {
    let facts = take_facts(from)?;
    let (chunks, content) = (from.u64("chunks")?, from.array("content")?);
    require("chunks", chunks, "no more than it has", chunks <= chunk.count(layout.bytes))?;
    let index = from.u16("tree")?;
    let tree = index.checked_sub(1).map(|at| refs.get(usize::from(at)).copied());
    require("tree", index, "index of a reference", tree != Some(None))?;
    require("tree", index, "0 if no chunk is there", (index == 0) == (chunks == 0))?;
    Ok(VolumeManifest { layout, facts, chunks, content, tree: tree.flatten() })
}

fn take_name(from: &mut Reader<'_>, field: &'static str) -> Result<Name, FormatError> {
    let text = from.text(field, NAME_MAX)?;
    let rule = "letters, digits, '.', '_' and '-'";
    text.parse().map_err(|_| FormatError::Field { field, found: text.len() as u64, rule })
}

/// Refuses facts that no manifest may have.
fn put_facts(facts: &Facts, out: &mut Writer) -> Result<(), FormatError> {
    let count = facts.len();
    require("facts", count as u64, "at most 64", count <= FACTS_MAX)?;
    out.u16(u16::try_from(count).expect("at most 64"));
    for (key, value) in facts {
        check_fact(key, value)?;
        out.text(key).text(value);
    }
    Ok(())
}

fn check_fact(key: &str, value: &str) -> Result<(), FormatError> {
    let fits = (1..=FACT_KEY_MAX).contains(&key.len());
    require("key of a fact", key.len() as u64, "1 to 64 bytes", fits)?;
    let fits = value.len() <= FACT_VALUE_MAX;
    require("value of a fact", value.len() as u64, "at most 4096 bytes", fits)
}

fn take_facts(from: &mut Reader<'_>) -> Result<Facts, FormatError> {
    let count = from.u16("facts")?;
    require("facts", count, "at most 64", usize::from(count) <= FACTS_MAX)?;
    let mut facts = Facts::new();
    for _ in 0..count {
        let key = from.text("key of a fact", FACT_KEY_MAX)?;
        let value = from.text("value of a fact", FACT_VALUE_MAX)?;
        check_fact(key, value)?;
        let ascends = facts.last_key_value().is_none_or(|(last, _)| last.as_str() < key);
        require("key of a fact", count, "ascending", ascends)?;
        facts.insert(key.to_owned(), value.to_owned());
    }
    Ok(facts)
}

const _: () = assert!(VOLUMES_MAX <= node::REFS_MAX, "a root refers to one node per volume");

#[cfg(test)]
pub(super) mod tests;
