//! Proving a template: every byte from its root's id on, or, without the key, every object.

use vgship_base::ids::{Name, VolumeId};
use vgship_base::units::Span;

use super::create::{NO_CHUNK, OnProgress, Progress, add_zeroes, tell};
use super::manifest::VolumeManifest;
use super::objects::SharedObjects;
use super::page::{Page, SLOTS, Stored};
use super::place::{Kind, ObjectId, Ref};
use super::walk::{Found, walk};
use super::{Template, TemplateError, standing};

/// Something that is not what was stored.
#[derive(Debug)]
pub struct Damage {
    /// Which volume cannot be read there; `None` without the key, when that is not known.
    pub volume: Option<VolumeId>,
    /// Where. Empty without the key; the whole volume when nothing but its hash tells.
    pub span: Span,
    /// Which object it is, and what is wrong with it.
    pub reason: TemplateError,
}

/// What proving found.
#[derive(Debug, Default)]
pub struct Verified {
    /// How much was proven or found damaged.
    pub progress: Progress,
    /// All damage, in the order of volumes and places.
    pub damage: Vec<Damage>,
}

/// Proves that all objects of the template `name` are whole, as a store can that has no key.
///
/// What it cannot prove is that they say what they should: [`Template::verify`] does.
///
/// # Errors
/// [`TemplateError::Absent`], what the store refuses, and [`TemplateError::Stopped`]. Damage is
/// found, not an error.
pub fn verify_blind(
    store: &SharedObjects,
    name: &Name,
    progress: OnProgress<'_>,
) -> Result<Verified, TemplateError> {
    let (root, shelves) = standing(store, name)?;
    let mut found = Verified::default();
    walk(&shelves, root, &mut |object| {
        let whole = match object {
            Found::Node(_) => Ok(()),
            Found::Pack(id) => shelves.fetch(Ref { kind: Kind::Pack, id }).map(drop),
            Found::Damaged(error) => Err(error),
        };
        match whole {
            Ok(()) => {}
            Err(reason) if reason.is_damage() => {
                found.damage.push(Damage { volume: None, span: Span::new(0, 0), reason });
            }
            Err(error) => return Err(error),
        }
        found.progress.objects += 1;
        tell(&found.progress, progress)
    })?;
    Ok(found)
}

impl Template {
    /// Proves every byte of every volume from the id of the root on.
    ///
    /// # Errors
    /// What the store refuses, and [`TemplateError::Stopped`]. Damage is found, not an error.
    pub fn verify(&self, progress: OnProgress<'_>) -> Result<Verified, TemplateError> {
        let layout = self.manifest.layout();
        let mut found = Verified::default();
        found.progress.of = layout.bytes();
        for (id, volume) in layout.ids().zip(&self.manifest.volumes) {
            let before = found.damage.len();
            let content = blake3::Hasher::new();
            let mut prover =
                Prover { template: self, id, volume, content, chunks: 0, found, progress };
            prover.node(volume.tree, self.manifest.height(volume), 0)?;
            let same = prover.content.finalize() == volume.content;
            let same = same && prover.chunks == volume.chunks;
            found = prover.found;
            if !same && found.damage.len() == before {
                let reason = TemplateError::Content(volume.layout.name.clone());
                let span = Span::new(0, volume.layout.bytes);
                found.damage.push(Damage { volume: Some(id), span, reason });
            }
        }
        Ok(found)
    }
}

/// Goes through one volume.
struct Prover<'a> {
    template: &'a Template,
    id: VolumeId,
    volume: &'a VolumeManifest,
    content: blake3::Hasher,
    /// Those that are not zero.
    chunks: u64,
    found: Verified,
    progress: OnProgress<'a>,
}

impl Prover<'_> {
    /// Proves a node and all below it. It speaks of the chunks from `first` on.
    fn node(&mut self, node: Option<ObjectId>, level: u8, first: u64) -> Result<(), TemplateError> {
        let each = SLOTS.pow(u32::from(level));
        let end = self.count().min(first + each * SLOTS);
        let Some(id) = node else {
            add_zeroes(&mut self.content, end - first);
            return self.passed(first, end);
        };
        let page = match self.template.chunks.page(id, level) {
            Ok(page) => page,
            Err(error) => {
                self.damage(first, end, error)?;
                return self.passed(first, end);
            }
        };
        match &*page {
            Page::Nodes(slots) => {
                for (&slot, at) in slots.iter().zip(0..) {
                    self.node(slot, level - 1, first + at * each)?;
                }
                Ok(())
            }
            Page::Chunks(slots) => {
                for (slot, index) in slots.iter().zip(first..end) {
                    self.chunk(slot.as_ref(), index)?;
                }
                self.passed(first, end)
            }
        }
    }

    fn chunk(&mut self, slot: Option<&Stored>, index: u64) -> Result<(), TemplateError> {
        let Some(stored) = slot else {
            self.content.update(&NO_CHUNK);
            return Ok(());
        };
        self.chunks += 1;
        let span = self.span(index, index + 1);
        self.found.progress.data += span.len;
        let len = usize::try_from(span.len).expect("a chunk has 1 MiB at most");
        match self.template.chunks.content(stored, len) {
            Ok(bytes) => {
                self.content.update(blake3::hash(&bytes).as_bytes());
                Ok(())
            }
            Err(error) => self.damage(index, index + 1, error),
        }
    }

    fn count(&self) -> u64 {
        self.template.manifest.chunk.count(self.volume.layout.bytes)
    }

    /// The bytes of the chunks `first..end`.
    fn span(&self, first: u64, end: u64) -> Span {
        let (size, bytes) = (self.template.manifest.chunk.bytes(), self.volume.layout.bytes);
        Span::new(first * size, (end * size).min(bytes) - first * size)
    }

    /// Notes damage. What follows right behind damage of the same object is added to it.
    fn damage(&mut self, first: u64, end: u64, reason: TemplateError) -> Result<(), TemplateError> {
        if !reason.is_damage() {
            return Err(reason);
        }
        let (volume, span) = (Some(self.id), self.span(first, end));
        if let Some(last) = self.found.damage.last_mut()
            && (last.volume, last.span.end()) == (volume, span.offset)
            && last.reason.to_string() == reason.to_string()
        {
            last.span.len += span.len;
            return Ok(());
        }
        self.found.damage.push(Damage { volume, span, reason });
        Ok(())
    }

    fn passed(&mut self, first: u64, end: u64) -> Result<(), TemplateError> {
        self.found.progress.done += self.span(first, end).len;
        tell(&self.found.progress, self.progress)
    }
}
