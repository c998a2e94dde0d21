//! What two templates differ in.

use std::sync::Arc;

use vgship_base::ids::Name;

use super::chunk::ChunkId;
use super::manifest::{Facts, Manifest, VolumeManifest};
use super::page::{Page, SLOTS};
use super::place::ObjectId;
use super::{Template, TemplateError};

/// One field that differs, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// Which.
    pub field: String,
    /// What the first says; `None` when it does not have it.
    pub first: Option<String>,
    /// What the second says.
    pub second: Option<String>,
}

/// One volume that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDifference {
    /// Its name.
    pub name: Name,
    /// What of its layout and facts differs; all of it, when only one template has the volume.
    pub fields: Vec<FieldDifference>,
    /// How much lies in chunks that differ; `None` when it differs and nothing tells how much,
    /// because the templates have other keys or chunk sizes. Unit: bytes.
    pub bytes: Option<u64>,
}

/// What two templates differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Of the group: where it is from, its extents and facts. Name and time of the templates do
    /// not count.
    pub fields: Vec<FieldDifference>,
    /// The volumes that differ in anything, in the order of the first, then of the second.
    pub volumes: Vec<VolumeDifference>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.volumes.is_empty()
    }
}

/// Compares two templates, of one store or of two. Volumes are taken for the same by their name.
///
/// Reads nodes where they differ and no chunks.
///
/// # Errors
/// A node is damaged or a store refuses.
pub fn diff(first: &Template, second: &Template) -> Result<Difference, TemplateError> {
    let (one, other) = (first.manifest(), second.manifest());
    let mut found = Difference { fields: group_fields(one, other), volumes: Vec::new() };
    for volume in &one.volumes {
        let name = &volume.layout.name;
        let pair = other.find(name.as_str()).map(|(_, other)| other);
        let fields = volume_fields(Some(volume), pair);
        let bytes = match pair {
            Some(other) => differing((first, volume), (second, other))?,
            None => Some(data(one, volume)),
        };
        if !fields.is_empty() || bytes != Some(0) {
            found.volumes.push(VolumeDifference { name: name.clone(), fields, bytes });
        }
    }
    for volume in &other.volumes {
        let name = &volume.layout.name;
        if one.find(name.as_str()).is_none() {
            let (fields, bytes) = (volume_fields(None, Some(volume)), Some(data(other, volume)));
            found.volumes.push(VolumeDifference { name: name.clone(), fields, bytes });
        }
    }
    Ok(found)
}

/// How much of a volume is not zero, at most. Unit: bytes.
fn data(manifest: &Manifest, volume: &VolumeManifest) -> u64 {
    (volume.chunks * manifest.chunk.bytes()).min(volume.layout.bytes)
}

fn group_fields(one: &Manifest, other: &Manifest) -> Vec<FieldDifference> {
    let fields = |it: &Manifest| {
        let source = &it.source;
        let fields = [
            ("group", source.group.to_string()),
            ("group name", source.group_name.to_string()),
            ("generation", source.generation.to_string()),
            ("seq", source.seq.to_string()),
            ("extent size", it.extent.bytes().to_string()),
            ("chunk size", it.chunk.bytes().to_string()),
            ("key", it.key.to_string()),
            ("volumes", it.volumes.len().to_string()),
        ];
        fields.into_iter().map(|(field, value)| (field.to_owned(), value)).collect::<Facts>()
    };
    let mut found = compare("", &fields(one), &fields(other));
    found.extend(compare("fact ", &one.facts, &other.facts));
    found
}

fn volume_fields(
    one: Option<&VolumeManifest>,
    other: Option<&VolumeManifest>,
) -> Vec<FieldDifference> {
    let fields = |it: Option<&VolumeManifest>| {
        it.map_or_else(Facts::new, |it| {
            let fields = [("bytes", it.layout.bytes), ("masked", it.layout.masked.into())];
            fields.map(|(field, value)| (field.to_owned(), value.to_string())).into()
        })
    };
    let none = Facts::new();
    let mut found = compare("", &fields(one), &fields(other));
    let (one, other) = (one.map_or(&none, |it| &it.facts), other.map_or(&none, |it| &it.facts));
    found.extend(compare("fact ", one, other));
    found
}

fn compare(prefix: &str, one: &Facts, other: &Facts) -> Vec<FieldDifference> {
    let behind = other.keys().filter(|key| !one.contains_key(*key));
    let differs = one.keys().chain(behind).filter(|key| one.get(*key) != other.get(*key));
    let difference = |key: &String| FieldDifference {
        field: format!("{prefix}{key}"),
        first: one.get(key).cloned(),
        second: other.get(key).cloned(),
    };
    differs.map(difference).collect()
}

type Side<'a> = (&'a Template, &'a VolumeManifest);

/// How much lies in chunks that differ.
fn differing(one: Side<'_>, other: Side<'_>) -> Result<Option<u64>, TemplateError> {
    let manifests = (one.0.manifest(), other.0.manifest());
    let same_chunks = manifests.0.chunk == manifests.1.chunk;
    let same_bytes = one.1.layout.bytes == other.1.layout.bytes;
    if same_chunks && same_bytes && one.1.content == other.1.content {
        return Ok(Some(0));
    }
    if !same_chunks || manifests.0.key != manifests.1.key {
        return Ok(None);
    }
    let size = manifests.0.chunk;
    let longest = one.1.layout.bytes.max(other.1.layout.bytes);
    let leaves = size.count(longest).div_ceil(SLOTS);
    let (mut bytes, mut leaf) = (0, 0);
    while leaf < leaves {
        let ((first, next), (second, other_next)) = (node(one, leaf)?, node(other, leaf)?);
        if first != second {
            let (first, second) = (slots(one.0, first)?, slots(other.0, second)?);
            for (slot, index) in (leaf * SLOTS..(leaf + 1) * SLOTS).enumerate() {
                if id_in(first.as_deref(), slot) != id_in(second.as_deref(), slot) {
                    bytes += size.span(index, longest).len;
                }
            }
        }
        leaf = next.min(other_next);
    }
    Ok(Some(bytes))
}

/// The node of level 0 with this number, and the next number that may be of another kind.
fn node((template, volume): Side<'_>, leaf: u64) -> Result<(Option<ObjectId>, u64), TemplateError> {
    let leaves = template.manifest().chunk.count(volume.layout.bytes).div_ceil(SLOTS);
    match leaf < leaves {
        true => template.chunks.leaf(template.manifest(), volume, leaf),
        false => Ok((None, u64::MAX)),
    }
}

fn slots(template: &Template, node: Option<ObjectId>) -> Result<Option<Arc<Page>>, TemplateError> {
    node.map(|id| template.chunks.page(id, 0)).transpose()
}

fn id_in(page: Option<&Page>, slot: usize) -> Option<ChunkId> {
    match page? {
        Page::Chunks(slots) => slots.get(slot).copied().flatten().map(|stored| stored.id),
        Page::Nodes(_) => None,
    }
}
