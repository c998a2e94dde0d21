//! Templates: self-contained, sealed, deduplicated, read-only image sets of a volume group's LVs in
//! a store of objects.
//!
//! ```text
//! volumes -> chunks (256 KiB) -> packs (16 MiB)          place.rs: where all of it lies
//!                |                                       chunk.rs, node.rs, page.rs, manifest.rs,
//!                +-> nodes of 1024 -> nodes -> root      slot.rs, keylist.rs: the formats
//!                                               |
//!                            templates/NAME/NUMBER
//! ```
//!
//! **Chunks and packs.** A volume is cut into chunks of one size. A chunk of zeroes is not stored;
//! another is stored once among all templates of a store and a key, whichever group they are from.
//! Chunks of 256 KiB as objects would be four million for a TiB, so they are grouped into packs of
//! about 16 MiB; a pack is kept as long as one of its chunks is needed. What that wastes comes back
//! when the templates that share it are gone, and packs are never rewritten: to collect garbage is
//! to remove whole objects and nothing else.
//!
//! **Proof.** An object is named by the BLAKE3 of its bytes as sealed, nodes refer to objects by
//! name, and a chunk by the keyed BLAKE3 of its content: the id of the root proves every byte. What
//! a node needs it says in clear, so a store without the key can prove that all objects are whole
//! ([`verify_blind`]), copy templates ([`push`]) and collect garbage ([`collect_garbage`]).
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! use vgship_base::disk::{Disk, SharedDisk};
//! use vgship_base::extent::ExtentSize;
//! use vgship_base::ids::{Generation, GroupId, Seq, VolumeId};
//! use vgship_base::layout::{Layout, VolumeLayout};
//! use vgship_base::sim::{Power, SimDisk};
//! use vgship_snapshot::seal::DataKey;
//! use vgship_snapshot::template::{self, Meta, SharedObjects, SourcePoint, Template};
//!
//! let (name, key) = ("gold".parse()?, DataKey::generate()?);
//! let volume = SimDisk::volume(&Power::default(), 1 << 20);
//! volume.write_at(4096, b"data")?;
//! let layout = Layout {
//!     extent: ExtentSize::from_log2(16).ok_or("no extent size")?,
//!     volumes: vec![VolumeLayout { name: "lv00".parse()?, bytes: volume.len(), masked: 0 }],
//! };
//! let meta = Meta {
//!     created: 1_700_000_000_000_000,
//!     source: SourcePoint {
//!         group: GroupId([1; 16]),
//!         group_name: "datavg".parse()?,
//!         generation: Generation([2; 16]),
//!         seq: Seq(3),
//!         clock: 1_700_000_000_000_000,
//!     },
//!     chunk: ExtentSize::from_log2(template::CHUNK_LOG2_DEFAULT).ok_or("no chunk size")?,
//!     facts: template::Facts::new(),
//!     volumes: vec![[("mount".to_owned(), "/data".to_owned())].into()],
//! };
//! let go_on = &mut |_: &template::Progress| ControlFlow::Continue(());
//!
//! // Or a `LocalObjects`, or anything else that is `Objects`.
//! let store: SharedObjects = Arc::new(template::MemoryObjects::default());
//! let source: [SharedDisk; 1] = [Arc::new(volume)];
//! template::create(&*store, &key, &name, &source, &layout, &meta, go_on)?;
//!
//! let gold = Template::open(&store, &key, &name)?;
//! assert!(gold.verify(go_on)?.damage.is_empty());
//! let mut found = [0; 4];
//! gold.volume(VolumeId(0)).ok_or("no volume")?.read_at(4096, &mut found)?;
//! assert_eq!(&found, b"data");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How garbage is collected, and why that is safe
//!
//! A store has no locks and no conditions for removing. It can write an object unless there is one,
//! and what it lists is true. Any process may stand still for any time between any two steps, and
//! end there. What must hold: *an object that a template needs is there as long as the template
//! stands.*
//!
//! A **writer** W, making or copying a template:
//!
//! 1. sees which place NAME/NUMBER is free, and puts `intents/NAME/NUMBER/W`;
//! 2. reads all `condemned/*/list`;
//! 3. then lists `objects/`. It may use what it sees there and no list of step 2 names, and nothing
//!    else but what it writes itself;
//! 4. writes objects, under `objects/W/`, each once. W is random, so no key that was removed is
//!    ever written again;
//! 5. fills `templates/NAME/NUMBER` if nobody has: from then on the template *stands*, if no higher
//!    place of its name is filled. It ends by removing its intent.
//!
//! A **place** that is filled is not empty again while it is the highest of its name; to delete is
//! to overwrite. Higher places are tried for only by who saw this one filled. So filling it decides
//! between W and everybody else, for ever: a writer has *ended* when its place, or a higher one, is
//! filled, whatever it does later. Whoever takes W for dead fills its place with "given up"; a W
//! that lives fails at step 5. The clock that says when is a matter of manners, not of safety.
//!
//! A **collector**:
//!
//! 1. gives up writers that were silent for the grace period;
//! 2. lists objects, then intents, then what standing templates need; condemns what is neither
//!    needed nor of a writer at work: puts `condemned/C/list`;
//! 3. then lists intents, once: puts `condemned/C/waits`, unless there is one;
//! 4. now or in a later run: when all in `waits` have ended, reads anew what standing templates
//!    need;
//! 5. puts `condemned/C/sweep` unless there is one, and looks whether `list` is still there. Only
//!    whoever wrote the one and sees the other goes on: one process in all time;
//! 6. removes what is in the list and was not needed at step 4; then `list`, then the rest.
//!
//! A list whose sweeper ended is removed by others when none of its objects is left; until then
//! what it names is condemned anew by other lists.
//!
//! *Proof.* Let a sweeper of C remove an object o at a time r, and a template T that needs o stand
//! at some time behind r. T's writer W saw o or wrote it. o stood in C, so it was written before C
//! was.
//!
//! - *W's intent came before C.* Then it had ended before the sweeper's step 4: it stood in
//!   `waits`, or it was removed, which happens to intents of ended writers only. So T stood by
//!   then, or never would. As T stands behind r, and what no longer stands never does again, T
//!   stood at step 4, and o was found needed. Contradiction.
//! - *W's intent came after C.* Then W did not write o, so it saw o at its step 3. At its step 2 C
//!   was there, and W would not use o; or C had been removed. If the sweeper removed it, that was
//!   behind r, and o was gone. If another did, o was gone by then too, or the sweeper was done with
//!   it. And what is gone is never there again. So W did not see o. Contradiction.
//!
//! *Why one sweeper in all time.* Two could differ in what they found needed, when a template was
//! deleted in between: then one gives back to all what the other is about to remove. A second one
//! would find `sweep` absent though the first had put it. It is removed only behind `list`, and no
//! list is put twice: so the second one, which looks behind that, sees no list.
//!
//! A writer that crashed leaves its objects, its intent, and, once given up, a place that says so.
//! Its objects are used by whoever does the same again, and are garbage after the grace period.
//! What is left for ever is one small place for each name that was used. Reading protects nothing:
//! whoever deletes a template sees to that nobody reads it.

mod ahead;
mod behind;
mod chunk;
mod collect;
mod create;
mod diff;
mod error;
mod index;
mod io;
mod keylist;
mod lru;
mod manifest;
mod mark;
mod memory;
mod node;
mod objects;
mod page;
mod place;
mod push;
mod read;
mod session;
mod shelves;
mod show;
mod slot;
mod table;
mod tree;
mod verify;
mod walk;

use std::sync::Arc;

use vgship_base::bytes::FormatError;
use vgship_base::ids::{Name, VolumeId};

use crate::seal::{DataKey, KeyId};
use place::Slot;
use read::Chunks;
use shelves::Shelves;
use slot::{Slots, State};

pub use chunk::{CHUNK_LOG2_DEFAULT, ChunkError, ChunkId};
pub use collect::{Collected, GRACE_DEFAULT, WaitsFor, collect_garbage};
pub use create::{Created, Meta, OnProgress, PACK_BYTES, Progress, create};
pub use diff::{Difference, FieldDifference, VolumeDifference, diff};
pub use error::TemplateError;
pub use io::LocalObjects;
pub use manifest::{
    FACT_KEY_MAX, FACT_VALUE_MAX, FACTS_MAX, Facts, Manifest, SourcePoint, VolumeManifest,
};
pub use memory::{Gate, MemoryObjects};
pub use objects::{KEY_MAX, ObjectError, ObjectInfo, Objects, SharedObjects, key_is_legal};
pub use place::{Kind, ObjectId, WriterId};
pub use push::{Pushed, mend, push};
pub use read::TemplateDisk;
pub use verify::{Damage, Verified, verify_blind};

/// For `map_err`: the object `key` does not decode.
fn in_format(key: &str) -> impl FnOnce(FormatError) -> TemplateError {
    move |source| TemplateError::Format { key: key.to_owned(), source }
}

/// What became of a name, as this place says; `None` when it is empty.
fn state_of(store: &dyn Objects, slot: &Slot) -> Result<Option<State>, TemplateError> {
    let bytes = store.get(&slot.key())?;
    bytes.map(|bytes| State::decode(&bytes).map_err(in_format(&slot.key()))).transpose()
}

/// The place of `name` that counts, and what it says; `None` when the name was never used.
fn current(store: &dyn Objects, name: &Name) -> Result<Option<(Slot, State)>, TemplateError> {
    let mut highest = slot::highest(store, name)?;
    while let Some(slot) = highest {
        let state = state_of(store, &slot)?;
        // A place that was passed by may be removed, and be filled then by who comes too late.
        highest = slot::highest(store, name)?;
        if highest.as_ref() == Some(&slot)
            && let Some(state) = state
        {
            return Ok(Some((slot, state)));
        }
    }
    Ok(None)
}

/// The root of the template `name`, and where its objects are.
fn standing(store: &SharedObjects, name: &Name) -> Result<(ObjectId, Shelves), TemplateError> {
    match current(&**store, name)? {
        Some((_, State::Template { root, shelves })) => {
            Ok((root, Shelves::new(Arc::clone(store), shelves)))
        }
        _ => Err(TemplateError::Absent(name.clone())),
    }
}

/// Whether there is a template `name`. Reads nothing of what it holds.
///
/// # Errors
/// What the store refuses, and a place that is damaged.
pub fn stands(store: &SharedObjects, name: &Name) -> Result<bool, TemplateError> {
    match standing(store, name) {
        Ok(_) => Ok(true),
        Err(TemplateError::Absent(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An open template.
pub struct Template {
    root: ObjectId,
    manifest: Arc<Manifest>,
    chunks: Arc<Chunks>,
}

impl Template {
    /// Opens the template `name`. Reads its manifest and nothing else.
    ///
    /// It can be read as long as nobody deletes it; whoever uses one sees to that.
    ///
    /// # Errors
    /// [`TemplateError::Absent`]; [`TemplateError::Sealed`] when it needs another key.
    pub fn open(
        store: &SharedObjects,
        key: &DataKey,
        name: &Name,
    ) -> Result<Template, TemplateError> {
        let (root, shelves) = standing(store, name)?;
        let (at, bytes) = shelves.root(root)?;
        let manifest = match node::open(&bytes, key) {
            Ok((clear, body)) => Manifest::decode(&clear, &body, key.id()).map_err(in_format(&at)),
            Err(source) => Err(TemplateError::Sealed { key: at, source }),
        }?;
        if manifest.name != *name {
            return Err(TemplateError::Renamed { name: name.clone(), found: manifest.name });
        }
        let (manifest, chunks) = (Arc::new(manifest), Arc::new(Chunks::new(shelves, key)));
        Ok(Template { root, manifest, chunks })
    }

    /// The id of its root, which proves every byte of it.
    pub const fn root(&self) -> ObjectId {
        self.root
    }

    /// What it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// One of its volumes, to be read.
    pub fn volume(&self, id: VolumeId) -> Option<TemplateDisk> {
        let known = id.index() < self.manifest.volumes.len();
        known.then(|| TemplateDisk {
            chunks: Arc::clone(&self.chunks),
            manifest: Arc::clone(&self.manifest),
            volume: id,
        })
    }
}

/// A template as a store without its key knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTemplate {
    /// Its name.
    pub name: Name,
    /// Its root; `None` when what says so is damaged.
    pub root: Option<ObjectId>,
    /// The key it is sealed with; `None` when its root is damaged.
    pub key: Option<KeyId>,
}

/// All templates of a store, by name.
///
/// # Errors
/// What the store refuses. Damage is told in its entry.
pub fn list(store: &SharedObjects) -> Result<Vec<ListedTemplate>, TemplateError> {
    let mut found = Vec::new();
    for slot in Slots::read(&**store)?.highest() {
        let name = slot.name.clone();
        match state_of(&**store, &slot) {
            Ok(Some(State::Template { root, shelves })) => {
                let key = match Shelves::new(Arc::clone(store), shelves).root(root) {
                    Ok((_, bytes)) => node::key_id(&bytes).ok(),
                    Err(error) if error.is_damage() => None,
                    Err(error) => return Err(error),
                };
                found.push(ListedTemplate { name, root: Some(root), key });
            }
            Err(TemplateError::Format { .. }) => {
                found.push(ListedTemplate { name, root: None, key: None });
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// How many are making or copying templates in a store, those among them that were cut off and whom
/// no collection of garbage has given up yet.
///
/// # Errors
/// What the store refuses.
pub fn writers(store: &dyn Objects) -> Result<u64, TemplateError> {
    let mut count = 0;
    store.list(place::INTENTS, &mut |_| count += 1)?;
    Ok(count)
}

/// Deletes the template `name`, damaged or not. What no other needs goes with the next
/// collection of garbage.
///
/// Durable: that it is no more, once this has returned.
///
/// # Errors
/// [`TemplateError::Absent`] when there is none.
pub fn delete(store: &dyn Objects, name: &Name) -> Result<(), TemplateError> {
    let slot = match current(store, name) {
        Ok(Some((slot, State::Template { .. }))) => Some(slot),
        Ok(_) => None,
        // What cannot be decoded is the place itself.
        Err(TemplateError::Format { key, .. }) => Slot::parse(&key),
        Err(error) => return Err(error),
    };
    let slot = slot.ok_or_else(|| TemplateError::Absent(name.clone()))?;
    Ok(store.put(&slot.key(), &State::Deleted.encode())?)
}

#[cfg(test)]
mod tests;
