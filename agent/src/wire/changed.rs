//! Where a replica that gives up a history of its own differs from what it had of its source's: the
//! body of a frame, of which one or several come before all else.
//!
//! ```text
//! at  size  field    unit     rule
//!  0     1  last     -        1: nothing more follows, else 0
//!  1     4  count    -        0 ..= 65536; then per run
//!        2  volume   -        index in the layout
//!        8  first    extents
//!        8  extents  extents  not 0; first + extents fits 64 bits
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::extent::BitSet;
use vgship_base::ids::VolumeId;

/// Runs of one frame. Unit: runs. With 18 bytes each they fit a body.
pub const RUNS_MAX: usize = 65_536;

/// Neighbouring extents of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which volume.
    pub volume: VolumeId,
    /// The first of them.
    pub first: u64,
    /// How many.
    pub extents: u64,
}

/// Some runs, and whether they are the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Nothing more follows.
    pub last: bool,
    /// Where something differs.
    pub runs: Vec<Run>,
}

impl Run {
    /// Appends the run.
    pub fn encode(&self, out: &mut Writer) {
        out.u16(self.volume.0).u64(self.first).u64(self.extents);
    }

    /// Reads a run.
    pub fn decode(from: &mut Reader<'_>) -> Result<Run, FormatError> {
        let volume = VolumeId(from.u16("volume")?);
        let (first, extents) = (from.u64("first")?, from.u64("extents")?);
        require("extents", extents, "not 0", extents > 0)?;
        let fits = first.checked_add(extents).is_some();
        require("first", first, "a run that ends within 64 bits", fits)?;
        Ok(Run { volume, first, extents })
    }

    /// Enters the run into sets, one for each volume; what lies outside of them is left out.
    pub fn enter(&self, sets: &mut [BitSet]) {
        if let Some(set) = sets.get_mut(self.volume.index()) {
            let bits = set.bits();
            set.insert_range(self.first.min(bits), (self.first + self.extents).min(bits));
        }
    }
}

/// All runs of sets, one for each volume.
pub fn runs(sets: &[BitSet]) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    for (volume, set) in (0..).map(VolumeId).zip(sets) {
        for index in set.iter() {
            match found.last_mut() {
                Some(run) if run.volume == volume && run.first + run.extents == index => {
                    run.extents += 1;
                }
                _ => found.push(Run { volume, first: index, extents: 1 }),
            }
        }
    }
    found
}

impl Changed {
    /// The frames that tell all of it, in order; at least one.
    pub fn all(runs: &[Run]) -> Vec<Changed> {
        let count = runs.len().div_ceil(RUNS_MAX).max(1);
        let part = |at: usize| runs.iter().skip(at * RUNS_MAX).take(RUNS_MAX).copied().collect();
        (0..count).map(|at| Changed { last: at + 1 == count, runs: part(at) }).collect()
    }

    /// Appends the body.
    pub(super) fn encode(&self, out: &mut Writer) {
        assert!(self.runs.len() <= RUNS_MAX, "all() keeps to it");
        let count = u32::try_from(self.runs.len()).expect("RUNS_MAX fits");
        out.u8(u8::from(self.last)).u32(count);
        self.runs.iter().for_each(|run| run.encode(out));
    }

    /// Reads a body.
    pub(super) fn decode(body: &[u8]) -> Result<Changed, FormatError> {
        let mut from = Reader::new(body);
        let (last, count) = (from.u8("last")?, from.u32("count")?);
        require("last", last, "0 or 1", last <= 1)?;
        require("count", count, "at most 65536", count as usize <= RUNS_MAX)?;
        let runs = (0..count).map(|_| Run::decode(&mut from)).collect::<Result<_, _>>()?;
        from.finish()?;
        Ok(Changed { last: last == 1, runs })
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const GOLDEN: [u8; 23] = hex!("01" "00000001" "0003" "0000000000000007" "0000000000000002");

    fn example() -> Changed {
        Changed { last: true, runs: vec![Run { volume: VolumeId(3), first: 7, extents: 2 }] }
    }

    fn encoded(changed: &Changed) -> Vec<u8> {
        let mut out = Writer::default();
        changed.encode(&mut out);
        out.into_vec()
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encoded(&example()), GOLDEN);
        assert_eq!(Changed::decode(&GOLDEN), Ok(example()));
    }

    #[test]
    fn what_no_replica_says_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(Changed::decode(&GOLDEN[..len]).is_err(), "cut to {len}");
        }
        let empty = hex!("01" "00000001" "0003" "0000000000000007" "0000000000000000");
        let far = hex!("01" "00000001" "0003" "ffffffffffffffff" "0000000000000001");
        let other = hex!("02" "00000000");
        let many = hex!("01" "00010001");
        for wrong in [&empty[..], &far, &other, &many] {
            assert!(Changed::decode(wrong).is_err(), "{wrong:02x?}");
        }
    }

    #[test]
    fn runs_and_sets_say_the_same_and_what_lies_outside_is_left_out() {
        let mut sets = vec![BitSet::new(10), BitSet::new(200)];
        for (volume, index) in [(0, 0), (0, 1), (0, 9), (1, 0), (1, 63), (1, 64), (1, 199)] {
            sets[volume].insert(index);
        }
        let found = runs(&sets);
        let lens: Vec<u64> = found.iter().map(|run| run.extents).collect();
        assert_eq!(lens, [2, 1, 1, 2, 1]);
        let mut back = vec![BitSet::new(10), BitSet::new(200)];
        found.iter().for_each(|run| run.enter(&mut back));
        assert!(back.iter().zip(&sets).all(|(one, other)| one.words() == other.words()));
        let mut small = vec![BitSet::new(1)];
        found.iter().for_each(|run| run.enter(&mut small));
        assert_eq!(small[0].count(), 1);
    }

    #[test]
    fn many_runs_come_in_several_frames_of_which_one_is_the_last() {
        let run = |first| Run { volume: VolumeId(0), first, extents: 1 };
        let runs: Vec<Run> = (0..=RUNS_MAX as u64).map(|at| run(at * 2)).collect();
        let frames = Changed::all(&runs);
        let shape: Vec<_> = frames.iter().map(|it| (it.last, it.runs.len())).collect();
        assert_eq!(shape, [(false, RUNS_MAX), (true, 1)]);
        assert!(encoded(&frames[0]).len() <= super::super::frame::BODY_MAX);
        assert_eq!(Changed::all(&[]), [Changed { last: true, runs: Vec::new() }]);
    }
}
