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

#[cfg(test)]
mod tests {
    use super::super::MemoryObjects;
    use super::*;

    fn id(last: u8) -> ChunkId {
        let mut id = [9; 32];
        id[31] = last;
        ChunkId(id)
    }

    /// Goal: a chunk whose id begins like that of a known one is not taken for it, nor is it lost
    /// what is stored of it then.
    #[test]
    fn an_id_that_only_begins_alike_is_no_match() {
        let (store, key) = (MemoryObjects::default(), DataKey::from_bytes([1; 32]));
        let mut session = Session::begin(&store, &"gold".parse().unwrap()).unwrap();
        let mut index = Index::new(&key);
        let pack = session.put(Kind::Pack, b"some chunks".to_vec()).unwrap();
        let stored = |last, at| Stored { id: id(last), pack, at, len: 99 };
        let page = |stored| Page::Chunks(vec![None, Some(stored)]);
        assert_eq!(index.chunk(id(1), &mut session).unwrap(), None);
        index.page_of_chunks(page(stored(1, 100)), &[1], &mut session).unwrap();
        assert_eq!(index.chunk(id(1), &mut session).unwrap(), Some(stored(1, 100)));
        assert_eq!(index.chunk(id(2), &mut session).unwrap(), None);
        index.page_of_chunks(page(stored(2, 200)), &[1], &mut session).unwrap();
        assert_eq!(index.chunk(id(2), &mut session).unwrap(), Some(stored(2, 200)));
        assert_eq!(index.chunk(id(1), &mut session).unwrap(), None, "the last one counts");
        // The next writer reads the pages that this one left.
        let mut session = Session::begin(&store, &"other".parse().unwrap()).unwrap();
        let mut index = Index::read(&session, &key).unwrap();
        let found = [1, 2].map(|last| index.chunk(id(last), &mut session).unwrap());
        let known = [Some(stored(1, 100)), Some(stored(2, 200))];
        assert!(found == [known[0], None] || found == [None, known[1]], "{found:?}");
    }

    /// Goal: a page that cannot be read any more costs its chunks, and nobody gets something else.
    #[test]
    fn a_page_that_went_bad_knows_nothing() {
        let (store, key) = (MemoryObjects::default(), DataKey::from_bytes([1; 32]));
        let mut session = Session::begin(&store, &"gold".parse().unwrap()).unwrap();
        let pack = session.put(Kind::Pack, b"some chunks".to_vec()).unwrap();
        let page = Page::Chunks(vec![Some(Stored { id: id(1), pack, at: 100, len: 99 })]);
        let node = Index::new(&key).page_of_chunks(page, &[0], &mut session).unwrap();
        let mut index = Index::read(&session, &key).unwrap();
        let at = store.keys().into_iter().find(|key| key.contains(&node.to_string())).unwrap();
        store.decay(&at, 200, 1);
        assert_eq!(index.chunk(id(1), &mut session).unwrap(), None);
    }
}
