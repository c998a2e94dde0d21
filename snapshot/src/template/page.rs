//! What a node below a root says of a stretch of a volume, version 1, as the node says.
//!
//! ```text
//! at  size  field    unit   rule
//!  0     2  count    slots  1 ..= 1024: chunks at level 0, nodes of the level below at others
//!  2     n  present  -      a bit per slot, the highest of the first byte first; bits behind the
//!                           last slot are 0. A slot that is not present is zero
//!                           then, for each slot that is present, at level 0:
//!        32 id       BLAKE3 keyed, of the chunk's content
//!         2 pack     -      index into the node's references
//!         4 at       bytes  where the chunk's frame begins in the pack, 68 or more
//!         4 len      bytes  of the frame: 38 ..= 37 + 1 MiB
//!                           at other levels:
//!         2 node     -      index into the node's references
//! ```
//!
//! Integers are big-endian. A page does not say of which volume or place it speaks, so that equal
//! stretches are one node wherever they stand.

use std::collections::HashMap;

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::limits::EXTENT_LOG2_MAX;

use super::chunk::ChunkId;
use super::node::Clear;
use super::place::ObjectId;
use crate::seal::{FRAME_OVERHEAD, HEADER_LEN};

/// Slots of one node. At the default chunk size a node of level 0 speaks of 256 MiB in 43 KB, one
/// of level 1 of 256 GiB.
pub(super) const SLOTS: u64 = SLOTS_LEN as u64;
pub(super) const SLOTS_LEN: usize = 1024;

/// Longest frame of a chunk. Unit: bytes.
const FRAME_MAX: usize = FRAME_OVERHEAD + 1 + (1 << EXTENT_LOG2_MAX);
const FRAME_MIN: usize = FRAME_OVERHEAD + 2;

/// Where a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: ChunkId,
    pub(super) pack: ObjectId,
    /// Unit: bytes from the pack's start.
    pub(super) at: u32,
    /// Unit: bytes.
    pub(super) len: u32,
}

/// A stretch of a volume; what is `None` is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Its chunks.
    Chunks(Vec<Option<Stored>>),
    /// The nodes of the level below.
    Nodes(Vec<Option<ObjectId>>),
}

/// Collects references, each once.
#[derive(Default)]
struct Refs {
    ids: Vec<ObjectId>,
    index: HashMap<ObjectId, u16>,
}

impl Refs {
    fn index(&mut self, id: ObjectId) -> u16 {
        *self.index.entry(id).or_insert_with(|| {
            self.ids.push(id);
            u16::try_from(self.ids.len() - 1).expect("a page has at most 1024 slots")
        })
    }
}

impl Page {
    /// What a node of this page and `level` says in clear, and its body.
    pub(super) fn encode(&self, level: u8) -> (Clear, Vec<u8>) {
        let (mut refs, mut out) = (Refs::default(), Writer::default());
        match self {
            Page::Chunks(slots) => {
                put_present(slots, &mut out);
                for stored in slots.iter().flatten() {
                    let pack = refs.index(stored.pack);
                    out.put(&stored.id.0).u16(pack).u32(stored.at).u32(stored.len);
                }
            }
            Page::Nodes(slots) => {
                put_present(slots, &mut out);
                for id in slots.iter().flatten() {
                    let node = refs.index(*id);
                    out.u16(node);
                }
            }
        }
        (Clear { level, refs: refs.ids }, out.into_vec())
    }

    /// Reads the body of a node that says `clear`.
    pub(super) fn decode(clear: &Clear, body: &[u8]) -> Result<Page, FormatError> {
        let mut from = Reader::new(body);
        let present = take_present(&mut from)?;
        let page = match clear.level {
            0 => Page::Chunks(slots(&present, || {
                let id = ChunkId(from.array("id")?);
                let pack = take_ref(&mut from, "pack", clear)?;
                let (at, len) = (from.u32("at")?, from.u32("len")?);
                require("at", at, "behind the header", at as usize >= HEADER_LEN)?;
                let fits = (FRAME_MIN..=FRAME_MAX).contains(&(len as usize));
                require("len", len, "that of a frame with a chunk", fits)?;
                Ok(Stored { id, pack, at, len })
            })?),
            _ => Page::Nodes(slots(&present, || take_ref(&mut from, "node", clear))?),
        };
        from.finish()?;
        Ok(page)
    }
}

fn slots<T>(
    present: &[bool],
    mut take: impl FnMut() -> Result<T, FormatError>,
) -> Result<Vec<Option<T>>, FormatError> {
    present.iter().map(|&present| present.then(&mut take).transpose()).collect()
}

fn put_present<T>(slots: &[Option<T>], out: &mut Writer) {
    assert!((1..=SLOTS_LEN).contains(&slots.len()), "a page has 1 to 1024 slots");
    out.u16(u16::try_from(slots.len()).expect("at most 1024"));
    for eight in slots.chunks(8) {
        let bits = eight.iter().zip(0..).map(|(slot, at)| u8::from(slot.is_some()) << (7 - at));
        out.u8(bits.sum());
    }
}

fn take_present(from: &mut Reader<'_>) -> Result<Vec<bool>, FormatError> {
    let count = usize::from(from.u16("count")?);
    require("count", count as u64, "1 ..= 1024", (1..=SLOTS_LEN).contains(&count))?;
    let bytes = from.take("present", count.div_ceil(8))?;
    let bit = |at: usize| bytes[at / 8] & (0x80 >> (at % 8)) != 0;
    let beyond = (count..bytes.len() * 8).any(bit);
    require("present", u64::from(beyond), "no bits behind the last slot", !beyond)?;
    Ok((0..count).map(bit).collect())
}

fn take_ref(
    from: &mut Reader<'_>,
    field: &'static str,
    clear: &Clear,
) -> Result<ObjectId, FormatError> {
    let index = from.u16(field)?;
    let rule = "index of a reference";
    let unknown = FormatError::Field { field, found: index.into(), rule };
    clear.refs.get(usize::from(index)).copied().ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::*;

    fn chunks() -> Page {
        let stored = |fill, pack, at| {
            Some(Stored { id: ChunkId([fill; 32]), pack: ObjectId([pack; 32]), at, len: 99 })
        };
        let mut slots = vec![None; 10];
        (slots[0], slots[3]) = (stored(1, 0xaa, 68), stored(2, 0xbb, 0x0102));
        slots[9] = stored(3, 0xaa, 0x1000);
        Page::Chunks(slots)
    }

    /// By hand from the table.
    const CHUNKS: &[u8] = &hex!(
        "000a" "9040"
        "0101010101010101010101010101010101010101010101010101010101010101"
        "0000" "00000044" "00000063"
        "0202020202020202020202020202020202020202020202020202020202020202"
        "0001" "00000102" "00000063"
        "0303030303030303030303030303030303030303030303030303030303030303"
        "0000" "00001000" "00000063"
    );
    const NODES: &[u8] = &hex!("0003" "a0" "0000" "0000");

    #[test]
    fn golden_bytes_hold_both_ways() {
        let refs = vec![ObjectId([0xaa; 32]), ObjectId([0xbb; 32])];
        let clear = Clear { level: 0, refs };
        assert_eq!(chunks().encode(0), (clear.clone(), CHUNKS.to_vec()));
        assert_eq!(Page::decode(&clear, CHUNKS), Ok(chunks()));
        let one = ObjectId([7; 32]);
        let nodes = Page::Nodes(vec![Some(one), None, Some(one)]);
        let clear = Clear { level: 2, refs: vec![one] };
        assert_eq!(nodes.encode(2), (clear.clone(), NODES.to_vec()));
        assert_eq!(Page::decode(&clear, NODES), Ok(nodes));
    }

    #[test]
    fn what_was_never_written_is_refused() {
        let (clear, _) = chunks().encode(0);
        for (at, value, said) in [
            (0, 4, "1 ..= 1024"),
            (1, 0, "1 ..= 1024"),
            (3, 0x41, "behind the last slot"),
            (3, 0xc0, "needs"),
            (3, 0x00, "follow"),
            (37, 2, "index"),
            (41, 67, "header"),
            (43, 0x11, "frame"),
            (45, 37, "frame"),
        ] {
            let mut bytes = CHUNKS.to_vec();
            bytes[at] = value;
            let error = Page::decode(&clear, &bytes).unwrap_err().to_string();
            assert!(error.contains(said), "{at}: {error}");
        }
        for len in 0..CHUNKS.len() {
            assert!(Page::decode(&clear, &CHUNKS[..len]).is_err(), "cut to {len}");
        }
    }

    proptest! {
        /// Any page comes back, and any bytes are refused or read without a panic.
        #[test]
        fn pages_come_back(
            slots in prop::collection::vec(
                prop::option::of((any::<[u8; 32]>(), 0u8..20, 68u32.., 38u32..1_048_613)),
                1..1025,
            ),
            noise in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let slots = slots.into_iter().map(|slot| slot.map(|(id, pack, at, len)| {
                Stored { id: ChunkId(id), pack: ObjectId([pack; 32]), at, len }
            }));
            let page = Page::Chunks(slots.collect());
            let (clear, body) = page.encode(0);
            prop_assert_eq!(Page::decode(&clear, &body), Ok(page));
            let _ = (Page::decode(&clear, &noise), Clear::decode(&noise));
        }
    }
}
