//! A node of a template's hash tree, version 1: what it needs in clear, what it says sealed.
//!
//! ```text
//! at       size  field     unit    rule
//!  0          4  magic     -       the letters VGTN
//!  4          2  version   -       1
//!  6          1  level     -       0 needs packs; 1 ..= 3 nodes of the level below; 255 is a root
//!  7          1  reserved  -       0
//!  8          4  refs      -       how many, 0 ..= 4096
//! 12       32*n  ref       BLAKE3  ids of the objects that it needs, no two equal
//! 12+32*n     -  sealed    -       a sealed object: header, then frames of 1 MiB, the last shorter
//! ```
//!
//! Integers are big-endian. What was sealed:
//!
//! ```text
//! at  size  field  unit    rule
//!  0    32  clear  BLAKE3  of the bytes 0 .. 12+32*n above
//! 32     n  body   -       see `page.rs` for levels 0 ..= 3, `root.rs` for roots; at most 16 MiB
//! ```
//!
//! A node is known by the BLAKE3 of all its bytes, with which its parent refers to it: so it needs
//! no checksum, and the id of a root proves everything below it. What is in clear lets a store
//! without the key find, prove, copy and keep all that a template needs; it tells of the data how
//! much there is and what templates share, which a store can see anyway.

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use zeroize::Zeroizing;

use super::place::{Kind, ObjectId, Ref};
use crate::seal::{
    DataKey, HEADER_LEN, KeyId, ObjectOpener, ObjectSealer, Purpose, SealError, key_of,
};

/// Largest level below a root. The largest volume has 2^35 of the smallest chunks, and a node
/// speaks of 2^10: 2^25 nodes of level 0, 2^15, 2^5, 1.
pub(super) const LEVEL_MAX: u8 = 3;
/// The level of a root.
pub(super) const ROOT: u8 = 255;
/// References of one node: a root has one for each volume.
pub(super) const REFS_MAX: usize = 4096;
/// Longest body. Unit: bytes.
pub(super) const BODY_MAX: usize = 16 << 20;

const MAGIC: [u8; 4] = *b"VGTN";
const VERSION: u16 = 1;
const HASH: usize = 32;
/// Unit: bytes.
const FRAME: usize = 1 << 20;

/// What a node says in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clear {
    pub(super) level: u8,
    pub(super) refs: Vec<ObjectId>,
}

impl Clear {
    fn len(&self) -> usize {
        12 + 32 * self.refs.len()
    }

    fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.refs.len()).expect("at most REFS_MAX");
        let mut out = Writer::with_capacity(self.len());
        out.put(&MAGIC).u16(VERSION).u8(self.level).u8(0).u32(count);
        for id in &self.refs {
            out.put(&id.0);
        }
        out.into_vec()
    }

    /// Reads what stands in clear at the head of a node's bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Clear, FormatError> {
        let mut from = Reader::new(bytes);
        if from.array("magic")? != MAGIC {
            return Err(FormatError::Magic { expected: "VGTN" });
        }
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let (level, reserved) = (from.u8("level")?, from.u8("reserved")?);
        require("level", level, "0 ..= 3 or 255", level <= LEVEL_MAX || level == ROOT)?;
        require("reserved", reserved, "0", reserved == 0)?;
        let count = from.u32("refs")?;
        require("refs", count, "0 ..= 4096", count as usize <= REFS_MAX)?;
        let mut refs = Vec::new();
        for _ in 0..count {
            refs.push(ObjectId(from.array("ref")?));
        }
        let mut sorted = refs.clone();
        sorted.sort_unstable();
        require("ref", count, "no two equal", sorted.windows(2).all(|two| two[0] != two[1]))?;
        Ok(Clear { level, refs })
    }

    /// What the node needs.
    pub(super) fn needs(&self) -> impl Iterator<Item = Ref> + '_ {
        let kind = if self.level == 0 { Kind::Pack } else { Kind::Node };
        self.refs.iter().map(move |&id| Ref { kind, id })
    }

    /// Whether a node of this level may be needed by this one.
    pub(super) fn takes(&self, level: u8) -> bool {
        match self.level {
            ROOT => level <= LEVEL_MAX,
            own => level.checked_add(1) == Some(own),
        }
    }
}

/// A node's bytes. `body` is bounded by whoever made it.
pub(super) fn encode(clear: &Clear, body: &[u8], key: &DataKey) -> Result<Vec<u8>, SealError> {
    let mut bytes = clear.encode();
    let proof = blake3::hash(&bytes);
    let mut sealer = ObjectSealer::begin(key, Purpose::TemplateNode)?;
    let whole = [proof.as_bytes(), body].concat();
    for piece in whole.chunks(FRAME) {
        sealer.append(piece.len(), |out| {
            out.put(piece);
        });
    }
    bytes.extend_from_slice(&sealer.finish());
    Ok(bytes)
}

/// Opens a node: what it says in clear, proven, and its body.
///
/// # Errors
/// [`SealError::Format`] and [`SealError::Broken`] are damage, [`SealError::OtherKey`] is none.
pub(super) fn open(bytes: &[u8], key: &DataKey) -> Result<(Clear, Vec<u8>), SealError> {
    let clear = Clear::decode(bytes).map_err(in_node)?;
    let (head, mut sealed) = bytes.split_at(clear.len());
    let opener = ObjectOpener::of(sealed, key, Purpose::TemplateNode)?;
    sealed = &sealed[HEADER_LEN..];
    let mut whole = Vec::new();
    while !sealed.is_empty() {
        let (piece, len) = opener.open(sealed)?;
        whole.extend_from_slice(&piece);
        sealed = &sealed[len..];
        let fits = whole.len() <= HASH + BODY_MAX;
        require("body", whole.len() as u64, "at most 16 MiB", fits).map_err(in_node)?;
    }
    let proven = whole.split_first_chunk::<HASH>();
    match proven.filter(|(proof, _)| *proof == blake3::hash(head).as_bytes()) {
        Some((_, body)) => Ok((clear, body.to_vec())),
        None => Err(SealError::Broken { what: WHAT, offset: 0 }),
    }
}

/// Which key a node needs.
pub(super) fn key_id(bytes: &[u8]) -> Result<KeyId, SealError> {
    let clear = Clear::decode(bytes).map_err(in_node)?;
    key_of(&bytes[clear.len()..])
}

const WHAT: &str = "node of a template";

/// For `map_err`: the format that does not fit is a node's.
pub(super) fn in_node(source: FormatError) -> SealError {
    SealError::Format { what: WHAT, source }
}

/// Tells nodes that say the same, though each was sealed with a key of its own.
#[derive(Clone)]
pub(super) struct NodeNamer(Zeroizing<[u8; 32]>);

impl NodeNamer {
    pub(super) fn new(key: &DataKey) -> NodeNamer {
        NodeNamer(key.derive(None, &[b"vgship template node v1"]))
    }

    pub(super) fn name(&self, clear: &Clear, body: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&clear.encode()).update(body);
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::Rng;

    use super::*;
    use crate::seal::dice;

    fn key() -> DataKey {
        DataKey::from_bytes([1; 32])
    }

    fn clear() -> Clear {
        Clear { level: 1, refs: vec![ObjectId([0xaa; 32]), ObjectId([0xbb; 32])] }
    }

    /// By hand from the table.
    const GOLDEN: [u8; 76] = hex_literal::hex!(
        "5647544e" "0001" "01" "00" "00000002"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(clear().encode(), GOLDEN);
        assert_eq!(Clear::decode(&GOLDEN), Ok(clear()));
        let bytes = encode(&clear(), b"what it says", &key()).unwrap();
        assert_eq!(bytes[..76], GOLDEN);
        // Behind it a header and one frame, whose bytes the seal has golden ones for.
        let opener = ObjectOpener::of(&bytes[76..], &key(), Purpose::TemplateNode).unwrap();
        let (whole, _) = opener.open(&bytes[76 + HEADER_LEN..]).unwrap();
        assert_eq!(whole, [blake3::hash(&GOLDEN).as_bytes(), &b"what it says"[..]].concat());
        assert_eq!(open(&bytes, &key()).unwrap(), (clear(), b"what it says".to_vec()));
        assert_eq!(key_id(&bytes).unwrap(), key().id());
    }

    #[test]
    fn every_bit_flip_and_every_cut_is_noticed() {
        let bytes = encode(&clear(), b"what it says", &key()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&changed, &key()).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len], &key()).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn what_was_never_written_is_refused() {
        for (at, value, said) in [
            (0, b'X', "VGTN"),
            (5, 2, "version"),
            (6, 4, "level"),
            (7, 1, "reserved"),
            (10, 0x20, "refs"),
            (11, 3, "ref needs"),
        ] {
            let mut bytes = GOLDEN;
            bytes[at] = value;
            let error = Clear::decode(&bytes).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let twice = Clear { level: 0, refs: vec![ObjectId([1; 32]); 2] };
        assert!(Clear::decode(&twice.encode()).is_err());
    }

    #[test]
    fn a_long_body_is_cut_into_frames_and_found_whole() {
        let body: Vec<u8> = (0..FRAME * 2 + 7).map(|at| at.to_be_bytes()[7]).collect();
        let bytes = encode(&clear(), &body, &key()).unwrap();
        assert_eq!(open(&bytes, &key()).unwrap().1, body);
        let short = bytes.len() - 7 - HASH - crate::seal::FRAME_OVERHEAD;
        assert_eq!(open(&bytes[..short], &key()).unwrap().1.len(), 2 * FRAME - HASH, "see page.rs");
    }

    #[test]
    fn equal_nodes_have_one_name_and_different_bytes() {
        dice::take(Rng::new(1));
        let namer = NodeNamer::new(&key());
        let [one, other] = [(), ()].map(|()| encode(&clear(), b"x", &key()).unwrap());
        assert_ne!(one, other);
        let name = |bytes: &[u8]| {
            let (clear, body) = open(bytes, &key()).unwrap();
            namer.name(&clear, &body)
        };
        assert_eq!(name(&one), name(&other));
        assert_ne!(name(&one), namer.name(&clear(), b"y"));
        assert_ne!(name(&one), namer.name(&Clear { level: 2, ..clear() }, b"x"));
        let other = NodeNamer::new(&DataKey::from_bytes([2; 32]));
        assert_ne!(name(&one), other.name(&clear(), b"x"));
    }

    #[test]
    fn levels_descend() {
        let takes = |level, child| Clear { level, refs: vec![] }.takes(child);
        assert!(takes(1, 0) && takes(3, 2) && takes(ROOT, 0) && takes(ROOT, 3));
        assert!(!takes(1, 1) && !takes(2, 0) && !takes(0, 0) && !takes(ROOT, ROOT));
    }
}
