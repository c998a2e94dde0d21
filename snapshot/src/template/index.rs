//! What a store holds already under a key: chunks and nodes that a new template may share.

use std::collections::HashMap;
use std::rc::Rc;

use super::TemplateError;
use super::chunk::ChunkId;
use super::lru::Lru;
use super::node::{self, Clear, NodeNamer};
use super::page::{Page, Stored};
use super::place::{Kind, ObjectId, Ref};
use super::session::Session;
use super::table::{At, Table};
use crate::seal::DataKey;

/// Pages that are kept, of 75 KiB each. A volume that changed little finds most of its chunks in
/// the order of their slots, in one page or a few at a time.
const PAGES_KEPT: usize = 64;

/// Chunks and nodes by what they say.
///
/// Of a chunk it is kept where its id stands, not the id: 14 to 18 bytes. The node is read again
/// before a chunk is said to be known, and its id compared as a whole.
pub(super) struct Index {
    chunks: Table,
    /// By number.
    nodes: Vec<ObjectId>,
    /// Their numbers, by what they say.
    names: HashMap<[u8; 32], u32>,
    namer: NodeNamer,
    key: DataKey,
    pages: Lru<u32, Rc<Page>>,
}

impl Index {
    pub(super) fn new(key: &DataKey) -> Index {
        Index {
            chunks: Table::new(),
            nodes: Vec::new(),
            names: HashMap::new(),
            namer: NodeNamer::new(key),
            key: key.clone(),
            pages: Lru::new(PAGES_KEPT),
        }
    }

    /// Reads all nodes that `session` may use, also those of templates that were never finished.
    ///
    /// What does not open is passed over: it is damaged, or sealed with another key.
    pub(super) fn read(session: &Session<'_>, key: &DataKey) -> Result<Index, TemplateError> {
        let mut index = Index::new(key);
        for node in session.nodes() {
            let (id, bytes) = node?;
            let Ok((clear, body)) = node::open(&bytes, key) else { continue };
            if clear.level == node::ROOT {
                continue;
            }
            let number = index.add_node(index.namer.name(&clear, &body), id);
            if let Ok(Page::Chunks(slots)) = Page::decode(&clear, &body) {
                for (slot, stored) in (0..).zip(slots) {
                    if let Some(stored) = stored
                        && session.has(Ref { kind: Kind::Pack, id: stored.pack })
                    {
                        index.chunks.put(&stored.id, At { node: number, slot });
                    }
                }
            }
        }
        Ok(index)
    }

    fn add_node(&mut self, name: [u8; 32], id: ObjectId) -> u32 {
        let number = u32::try_from(self.nodes.len()).expect("no store lists 2^32 nodes");
        self.nodes.push(id);
        self.names.insert(name, number);
        number
    }

    /// Where a chunk lies, if it does and the template may use it there.
    ///
    /// # Errors
    /// What the store refuses. A page that is damaged or gone knows nothing.
    pub(super) fn chunk(
        &mut self,
        id: ChunkId,
        session: &mut Session<'_>,
    ) -> Result<Option<Stored>, TemplateError> {
        let Some(at) = self.chunks.get(&id) else { return Ok(None) };
        let Some(page) = self.page(at.node, session)? else { return Ok(None) };
        let found = match &*page {
            Page::Chunks(slots) => slots.get(usize::from(at.slot)).copied().flatten(),
            Page::Nodes(_) => None,
        };
        // That its id began like this one says little.
        let found = found.filter(|stored| stored.id == id);
        Ok(found.filter(|stored| session.uses(Ref { kind: Kind::Pack, id: stored.pack })))
    }

    fn page(
        &mut self,
        number: u32,
        session: &mut Session<'_>,
    ) -> Result<Option<Rc<Page>>, TemplateError> {
        if let Some(page) = self.pages.get(&number) {
            return Ok(Some(page));
        }
        let Some(bytes) = session.node(self.nodes[number as usize])? else { return Ok(None) };
        let Ok((clear, body)) = node::open(&bytes, &self.key) else { return Ok(None) };
        let Ok(page) = Page::decode(&clear, &body) else { return Ok(None) };
        let page = Rc::new(page);
        self.pages.put(number, Rc::clone(&page));
        Ok(Some(page))
    }

    /// Stores a node, unless there is one that says the same. What it needs is used already.
    pub(super) fn node(
        &mut self,
        clear: &Clear,
        body: &[u8],
        session: &mut Session<'_>,
    ) -> Result<ObjectId, TemplateError> {
        let name = self.namer.name(clear, body);
        if let Some(&number) = self.names.get(&name) {
            let id = self.nodes[number as usize];
            if session.uses(Ref { kind: Kind::Node, id }) {
                return Ok(id);
            }
        }
        let bytes = node::encode(clear, body, &self.key).map_err(TemplateError::Seal)?;
        let id = session.put(Kind::Node, bytes)?;
        self.add_node(name, id);
        Ok(id)
    }

    /// Stores a page of chunks as [`Index::node`] does, and notes those of `slots`, which are new.
    pub(super) fn page_of_chunks(
        &mut self,
        page: Page,
        fresh: &[u16],
        session: &mut Session<'_>,
    ) -> Result<ObjectId, TemplateError> {
        let (clear, body) = page.encode(0);
        let before = self.nodes.len();
        let id = self.node(&clear, &body, session)?;
        if let Page::Chunks(slots) = &page
            && self.nodes.len() > before
        {
            let number = u32::try_from(before).expect("no store lists 2^32 nodes");
            for &slot in fresh {
                if let Some(stored) = slots[usize::from(slot)] {
                    self.chunks.put(&stored.id, At { node: number, slot });
                }
            }
            self.pages.put(number, Rc::new(page));
        }
        Ok(id)
    }
}
