//! What became of a name: an object at `templates/NAME/NUMBER`, version 1.
//!
//! ```text
//! at  size  field     unit    rule
//!  0     4  magic     -       the letters VGTS
//!  4     2  version   -       1
//!  6     1  state     -       1 a template, 2 it was deleted, 3 its writer was given up
//!  7     1  reserved  -       0
//!  8    32  root      BLAKE3  id of the root node; 0 unless state is 1
//! 40     4  shelves   -       how many, 0 ..= 4096; 0 unless state is 1
//! 44  16*n  writer    -       whose folders hold the template's objects in this store, ascending
//!        4  crc       CRC-32C of all before
//! ```
//!
//! Integers are big-endian. A place that was filled is never empty again while it is the highest of
//! its name: so to fill it, which is to be the first, decides between a writer and whoever gives it
//! up. The highest place of a name counts, the others mean nothing and are removed.

use std::collections::{BTreeMap, BTreeSet};

use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};
use vgship_base::ids::Name;

use super::objects::{ObjectError, Objects};
use super::place::{ObjectId, Slot, TEMPLATES, WriterId};

const MAGIC: [u8; 4] = *b"VGTS";
const VERSION: u16 = 1;

/// Writers that one template may share objects with, itself among them. What lies in the folder of
/// one more is stored again.
pub(super) const SHELVES_MAX: usize = 4096;

/// What became of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is a template.
    Template {
        /// Its root node.
        root: ObjectId,
        /// Whose folders hold its objects.
        shelves: BTreeSet<WriterId>,
    },
    /// There was one.
    Deleted,
    /// One was begun, and its writer can end it no more.
    GivenUp,
}

impl State {
    fn code(&self) -> u8 {
        match self {
            State::Template { .. } => 1,
            State::Deleted => 2,
            State::GivenUp => 3,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let none = (ObjectId([0; 32]), BTreeSet::new());
        let (root, shelves) = match self {
            State::Template { root, shelves } => (root, shelves),
            State::Deleted | State::GivenUp => (&none.0, &none.1),
        };
        let mut out = Writer::default();
        out.put(&MAGIC).u16(VERSION).u8(self.code()).u8(0).put(&root.0);
        out.u32(u32::try_from(shelves.len()).expect("at most SHELVES_MAX"));
        for shelf in shelves {
            out.put(&shelf.0);
        }
        with_checksum(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<State, FormatError> {
        let mut from = checked(bytes)?;
        if from.array("magic")? != MAGIC {
            return Err(FormatError::Magic { expected: "VGTS" });
        }
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let (state, reserved) = (from.u8("state")?, from.u8("reserved")?);
        require("reserved", reserved, "0", reserved == 0)?;
        let (root, count) = (ObjectId(from.array("root")?), from.u32("shelves")?);
        require("shelves", count, "0 ..= 4096", count as usize <= SHELVES_MAX)?;
        let mut shelves = BTreeSet::new();
        for _ in 0..count {
            let shelf = WriterId(from.array("writer")?);
            let ascends = shelves.last().is_none_or(|last| *last < shelf);
            require("writer", count, "ascending", ascends)?;
            shelves.insert(shelf);
        }
        from.finish()?;
        let found = match state {
            1 => return Ok(State::Template { root, shelves }),
            2 => State::Deleted,
            3 => State::GivenUp,
            _ => {
                let rule = "1, 2 or 3";
                return Err(FormatError::Field { field: "state", found: state.into(), rule });
            }
        };
        require("root", root.0[0], "0 without a template", root.0 == [0; 32])?;
        require("shelves", count, "0 without a template", count == 0)?;
        Ok(found)
    }
}

/// The highest place that is filled for `name`.
pub(super) fn highest(store: &dyn Objects, name: &Name) -> Result<Option<Slot>, ObjectError> {
    let mut highest: Option<Slot> = None;
    store.list(&format!("{TEMPLATES}{name}/"), &mut |found| {
        let found = Slot::parse(&found.key);
        highest = highest.take().max(found);
    })?;
    Ok(highest)
}

/// The places of all names.
#[derive(Debug, Default)]
pub(super) struct Slots {
    highest: BTreeMap<Name, u64>,
    /// Lower ones, which mean nothing.
    pub(super) stale: Vec<Slot>,
}

impl Slots {
    pub(super) fn read(store: &dyn Objects) -> Result<Slots, ObjectError> {
        let mut slots = Slots::default();
        store.list(TEMPLATES, &mut |found| {
            if let Some(slot) = Slot::parse(&found.key) {
                slots.add(slot);
            }
        })?;
        Ok(slots)
    }

    fn add(&mut self, slot: Slot) {
        let known = self.highest.entry(slot.name.clone()).or_insert(slot.number);
        if *known != slot.number {
            let lower = slot.number.min(*known);
            *known = slot.number.max(*known);
            self.stale.push(Slot { name: slot.name, number: lower });
        }
    }

    /// The place that counts of each name.
    pub(super) fn highest(&self) -> impl Iterator<Item = Slot> + '_ {
        self.highest.iter().map(|(name, &number)| Slot { name: name.clone(), number })
    }

    /// Whether a writer who wants this place has got it, or can get it no more.
    pub(super) fn is_decided(&self, slot: &Slot) -> bool {
        self.highest.get(&slot.name).is_some_and(|&highest| highest >= slot.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        let shelves = [WriterId([1; 16]), WriterId([2; 16])].into();
        State::Template { root: ObjectId([0xab; 32]), shelves }
    }

    /// By hand from the table; the checksums by an independent program.
    const GOLDEN: &[u8] = &hex_literal::hex!(
        "56475453" "0001" "01" "00"
        "abababababababababababababababababababababababababababababababab"
        "00000002" "01010101010101010101010101010101" "02020202020202020202020202020202"
        "58f12643"
    );
    const DELETED: &[u8] = &hex_literal::hex!(
        "56475453" "0001" "02" "00"
        "0000000000000000000000000000000000000000000000000000000000000000"
        "00000000" "5a7ab65b"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(example().encode(), GOLDEN);
        assert_eq!(State::decode(GOLDEN), Ok(example()));
        assert_eq!(State::Deleted.encode(), DELETED);
        assert_eq!(State::decode(DELETED), Ok(State::Deleted));
        assert_eq!(State::decode(&State::GivenUp.encode()), Ok(State::GivenUp));
    }

    #[test]
    fn every_bit_flip_and_every_cut_is_noticed() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(State::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..GOLDEN.len() {
            assert!(State::decode(&GOLDEN[..len]).is_err(), "cut to {len}");
        }
    }

    /// Fields out of range, each with a checksum that fits.
    #[test]
    fn what_was_never_written_is_refused() {
        let with = |at: usize, value: u8| {
            let mut out = Writer::default();
            let mut bytes = GOLDEN[..GOLDEN.len() - 4].to_vec();
            bytes[at] = value;
            out.put(&bytes);
            State::decode(&with_checksum(out)).map_err(|error| error.to_string())
        };
        assert_eq!(with(0, GOLDEN[0]), Ok(example()));
        for (at, value, said) in [
            (3, b'X', "VGTS"),
            (5, 2, "version"),
            (6, 4, "state"),
            (6, 2, "root"),
            (7, 1, "reserved"),
            (42, 0x20, "4096"),
            (43, 3, "writer"),
            (44, 3, "ascending"),
        ] {
            let error = with(at, value).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_highest_place_of_each_name_counts() {
        let slot = |name: &str, number| Slot { name: name.parse().unwrap(), number };
        let mut slots = Slots::default();
        for (name, number) in [("a", 2), ("b", 1), ("a", 3), ("a", 1)] {
            slots.add(slot(name, number));
        }
        assert!(slots.highest().eq([slot("a", 3), slot("b", 1)]));
        assert_eq!(slots.stale, [slot("a", 2), slot("a", 1)]);
        assert!(slots.is_decided(&slot("a", 3)) && slots.is_decided(&slot("a", 1)));
        assert!(!slots.is_decided(&slot("a", 4)) && !slots.is_decided(&slot("c", 1)));
    }
}
