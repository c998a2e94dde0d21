//! What a store holds already under a key: chunks and nodes that a new template may share.

use std::collections::HashMap;

use super::TemplateError;
use super::chunk::ChunkId;
use super::node::{self, Clear, NodeNamer};
use super::page::{Page, Stored};
use super::place::{Kind, ObjectId, Ref};
use super::session::Session;
use crate::seal::DataKey;

/// Chunks and nodes by what they say. About 110 bytes of memory for each chunk: 440 MiB for a TiB
/// of different chunks of the default size.
pub(super) struct Index {
    chunks: HashMap<ChunkId, Stored>,
    nodes: HashMap<[u8; 32], ObjectId>,
    namer: NodeNamer,
}

impl Index {
    /// Reads all nodes that `session` may use, also those of templates that were never finished.
    ///
    /// What does not open is passed over: it is damaged, or sealed with another key.
    pub(super) fn read(session: &Session<'_>, key: &DataKey) -> Result<Index, TemplateError> {
        let namer = NodeNamer::new(key);
        let mut index = Index { chunks: HashMap::new(), nodes: HashMap::new(), namer };
        for node in session.nodes() {
            let (id, bytes) = node?;
            let Ok((clear, body)) = node::open(&bytes, key) else { continue };
            if clear.level == node::ROOT {
                continue;
            }
            index.nodes.insert(index.namer.name(&clear, &body), id);
            if let Ok(Page::Chunks(slots)) = Page::decode(&clear, &body) {
                for stored in slots.into_iter().flatten() {
                    if session.has(Ref { kind: Kind::Pack, id: stored.pack }) {
                        index.chunks.insert(stored.id, stored);
                    }
                }
            }
        }
        Ok(index)
    }

    /// Where a chunk lies, if it does and the template may use it there.
    pub(super) fn chunk(&self, id: ChunkId, session: &mut Session<'_>) -> Option<Stored> {
        let stored = *self.chunks.get(&id)?;
        session.uses(Ref { kind: Kind::Pack, id: stored.pack }).then_some(stored)
    }

    /// Notes a chunk that was stored.
    pub(super) fn add_chunk(&mut self, stored: Stored) {
        self.chunks.insert(stored.id, stored);
    }

    /// Stores a node, unless there is one that says the same. What it needs is used already.
    pub(super) fn node(
        &mut self,
        clear: &Clear,
        body: &[u8],
        key: &DataKey,
        session: &mut Session<'_>,
    ) -> Result<ObjectId, TemplateError> {
        let name = self.namer.name(clear, body);
        if let Some(&id) = self.nodes.get(&name)
            && session.uses(Ref { kind: Kind::Node, id })
        {
            return Ok(id);
        }
        let bytes = node::encode(clear, body, key).map_err(TemplateError::Seal)?;
        let id = session.put(Kind::Node, &bytes)?;
        self.nodes.insert(name, id);
        Ok(id)
    }
}
