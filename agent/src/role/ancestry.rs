//! What a side knows of how generations follow one another: it needs it on the day on which it
//! becomes the source, also at a point of a history that it has given up since. The file `lineage`,
//! version 1:
//!
//! ```text
//! at  size  field     unit  rule
//!  0     4  magic     -     the letters VGLN
//!  4     2  version   -     1
//!  6     2  reserved  -     0
//!  8     2  count     -     0 ..= 512; then each
//!       16  begun     -     a generation
//!       16  before    -     the one that it came from
//!        8  kept      seq   the last number that was kept of that
//!        4  crc       -     CRC-32C of all before
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Writer, require, with_checksum};
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, Seq};

use super::meeting::Ancestry;
use super::note::{self, NoteError};
use crate::capture::ledger_format::LINEAGE_MAX;

const MAGIC: [u8; 4] = *b"VGLN";
const VERSION: u16 = 1;
const NAME: &str = "lineage";
const STEPS_MAX: usize = 8 * LINEAGE_MAX;
const MAX: u64 = 14 + 40 * STEPS_MAX as u64;

/// That one generation came from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    begun: Generation,
    before: Generation,
    kept: Seq,
}

/// How generations follow one another, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// Those that were heard of last are at the end.
    steps: Vec<Step>,
}

impl Family {
    /// What came before a generation, oldest first, each with the last seq that was kept of it;
    /// nothing when nothing is known.
    pub fn before(&self, generation: Generation) -> Vec<(Generation, Seq)> {
        let mut found = Vec::new();
        let mut at = generation;
        while let Some(step) = self.steps.iter().find(|step| step.begun == at)
            && found.len() < LINEAGE_MAX
        {
            found.push((step.before, step.kept));
            at = step.before;
        }
        found.reverse();
        found
    }

    /// Takes in what a source says of itself. Whether that is news.
    fn learn(&mut self, said: &Ancestry) -> bool {
        let begun = said.lineage.iter().skip(1).map(|(it, _)| *it).chain([said.generation]);
        let mut news = false;
        for (begun, &(before, kept)) in begun.zip(&said.lineage) {
            let step = Step { begun, before, kept };
            if !self.steps.contains(&step) {
                self.steps.retain(|known| known.begun != begun);
                self.steps.push(step);
                news = true;
            }
        }
        let over = self.steps.len().saturating_sub(STEPS_MAX);
        drop(self.steps.drain(..over));
        news
    }
}

fn encode(known: &Family) -> Vec<u8> {
    let mut out = Writer::default();
    out.put(&MAGIC).u16(VERSION).u16(0);
    out.u16(u16::try_from(known.steps.len()).expect("at most STEPS_MAX"));
    for Step { begun, before, kept } in &known.steps {
        out.put(&begun.0).put(&before.0).u64(kept.0);
    }
    with_checksum(out)
}

fn decode(bytes: &[u8]) -> Result<Family, FormatError> {
    let mut from = note::open(bytes, MAGIC, "VGLN", VERSION)?;
    let count = from.u16("count")?;
    require("count", count, "at most 512", usize::from(count) <= STEPS_MAX)?;
    let mut one = || {
        let begun = Generation(from.array("begun")?);
        let before = Generation(from.array("before")?);
        Ok(Step { begun, before, kept: Seq(from.u64("kept")?) })
    };
    let steps = (0..count).map(|_| one()).collect::<Result<_, FormatError>>()?;
    from.finish()?;
    Ok(Family { steps })
}

/// Notes what a source says of itself, beside all that is known already.
///
/// Durable: once this has returned.
pub fn learn(folder: &dyn Folder, said: &Ancestry) -> Result<(), NoteError> {
    let mut known = load(folder)?;
    match known.learn(said) {
        true => note::store(folder, NAME, &encode(&known)),
        false => Ok(()),
    }
}

/// What is known.
pub fn load(folder: &dyn Folder) -> Result<Family, NoteError> {
    Ok(note::load(folder, NAME, MAX, decode)?.unwrap_or_default())
}

/// What comes before a generation that begins behind `fork` of `from`.
pub fn before(known: &Family, from: Generation, fork: Seq) -> Vec<(Generation, Seq)> {
    // Of a strange generation nothing is known: what was before it then counts as unrelated.
    let mut lineage = known.before(from);
    lineage.push((from, fork));
    let over = lineage.len().saturating_sub(LINEAGE_MAX);
    lineage.split_off(over)
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimFolder};

    use super::*;

    const fn of(id: u8) -> Generation {
        Generation([id; 16])
    }

    fn said(generation: u8, lineage: &[(u8, u64)]) -> Ancestry {
        let lineage = lineage.iter().map(|&(id, kept)| (of(id), Seq(kept))).collect();
        Ancestry { generation: of(generation), lineage }
    }

    fn example() -> Family {
        let mut known = Family::default();
        assert!(known.learn(&said(1, &[(2, 5)])));
        known
    }

    /// By hand from the table; the checksum by an independent program.
    const GOLDEN: [u8; 54] = hex_literal::hex!(
        "56474c4e" "0001" "0000" "0001" "01010101010101010101010101010101"
        "02020202020202020202020202020202" "0000000000000005" "4c58e707"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encode(&example()), GOLDEN);
        assert_eq!(decode(&GOLDEN), Ok(example()));
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_was_learned_is_found_beside_what_was_known() {
        let folder = SimFolder::new(&Power::default());
        assert_eq!(load(&folder).unwrap(), Family::default());
        learn(&folder, &said(4, &[(1, 10), (3, 30)])).unwrap();
        learn(&folder, &said(5, &[(1, 10), (2, 20)])).unwrap();
        let known = load(&folder).unwrap();
        assert_eq!(known.before(of(4)), said(4, &[(1, 10), (3, 30)]).lineage);
        assert_eq!(known.before(of(5)), said(5, &[(1, 10), (2, 20)]).lineage);
        assert_eq!(known.before(of(3)), said(3, &[(1, 10)]).lineage, "given up, and known still");
        assert!(known.before(of(1)).is_empty());
        assert!(!known.clone().learn(&said(2, &[(1, 10)])), "no news");
    }

    #[test]
    fn a_lineage_is_that_of_its_generation_or_unknown_and_has_bounds() {
        let full = before(&example(), of(1), Seq(9));
        assert_eq!(full, [(of(2), Seq(5)), (of(1), Seq(9))]);
        assert_eq!(before(&example(), of(2), Seq(3)), [(of(2), Seq(3))]);
        assert_eq!(before(&example(), of(7), Seq(9)), [(of(7), Seq(9))]);
        let id = |number: u64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Generation(bytes)
        };
        let mut long = Family::default();
        for number in 0..=STEPS_MAX as u64 {
            let lineage = vec![(id(number), Seq(number))];
            assert!(long.learn(&Ancestry { generation: id(number + 1), lineage }));
        }
        assert_eq!(long.steps.len(), STEPS_MAX);
        assert_eq!(decode(&encode(&long)), Ok(long.clone()));
        let newest = id(STEPS_MAX as u64 + 1);
        let found = before(&long, newest, Seq(9));
        assert_eq!((found.len(), found.last()), (LINEAGE_MAX, Some(&(newest, Seq(9)))));
    }
}
