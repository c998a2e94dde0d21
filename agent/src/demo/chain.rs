//! The order-revealing workload: step n goes to another LV than step n-1, is issued after it was
//! done, and carries its digest. So after every n there is exactly one right content of all LVs.

use vgship_base::sim::Rng;

use super::content::{BLOCK, CHAIN_MARK, SLOT_BLOCKS, chain_block, word};

/// LVs that the chain goes around.
pub(super) const LVS: usize = 4;

/// What was written by a step, as the next one names it.
type Digest = [u8; 32];

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Which LV.
    pub(super) lv: usize,
    /// First block.
    pub(super) block: u64,
    /// How many blocks.
    pub(super) blocks: u64,
    /// Zeroes instead of content.
    pub(super) zero: bool,
    /// Durable when it is done.
    pub(super) durable: bool,
    /// A flush of the LV follows.
    pub(super) flush: bool,
}

/// All steps so far: what they wrote is computed from their digests.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    slots: u64,
    /// The digest of each step; that of step 0 is the seed's.
    digests: Vec<Digest>,
}

/// Where the chain's blocks stand, against what a prefix would show.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prefixes {
    /// Every number of steps after which the LVs would look like this.
    pub(super) fits: Vec<u64>,
    /// The number of steps that fits best, and how many blocks contradict it.
    pub(super) nearest: (u64, usize),
}

impl Chain {
    /// No step yet, on LVs of so many slots each.
    pub(super) fn new(seed: u64, slots: u64) -> Chain {
        let first = *blake3::hash(&seed.to_be_bytes()).as_bytes();
        Chain { slots, digests: vec![first] }
    }

    /// The last step.
    pub(super) fn last(&self) -> u64 {
        self.digests.len() as u64 - 1
    }

    /// Adds a step, which is issued now; gives its number.
    pub(super) fn issue(&mut self) -> u64 {
        let n = self.last() + 1;
        let digest = match self.step(n).zero {
            true => blake3::hash(&[&n.to_be_bytes()[..], self.digest(n - 1)].concat()),
            false => blake3::hash(&self.data(n)),
        };
        self.digests.push(*digest.as_bytes());
        n
    }

    fn digest(&self, n: u64) -> &Digest {
        &self.digests[usize::try_from(n).expect("a step that was issued")]
    }

    /// Where and how step `n` writes.
    pub(super) fn step(&self, n: u64) -> Step {
        let whole = n % 17 == 5 || n % 19 == 11;
        let first = chain_block((n / LVS as u64).wrapping_mul(89) % self.slots);
        Step {
            lv: usize::try_from(n % LVS as u64).expect("below a handful"),
            block: if whole { first } else { first + n / 7 % SLOT_BLOCKS },
            blocks: if whole { SLOT_BLOCKS } else { 1 },
            zero: n % 19 == 11,
            durable: n.is_multiple_of(23),
            flush: n.is_multiple_of(67),
        }
    }

    /// What step `n` writes; its digest need not be known yet.
    pub(super) fn data(&self, n: u64) -> Vec<u8> {
        let step = self.step(n);
        let mut data = Vec::new();
        for part in 0..step.blocks {
            match step.zero {
                true => data.resize(data.len() + BLOCK, 0),
                false => self.put(n, step.block + part, &mut data),
            }
        }
        data
    }

    /// Appends what step `n` writes to a block.
    fn put(&self, n: u64, block: u64, into: &mut Vec<u8>) {
        let end = into.len() + BLOCK;
        let before = self.digest(n - 1);
        for number in [CHAIN_MARK, n, block] {
            into.extend_from_slice(&number.to_be_bytes());
        }
        into.extend_from_slice(before);
        let mut dice = Rng::new(word(before, 0) ^ n << 20 ^ block);
        while into.len() < end {
            into.extend_from_slice(&dice.draw().to_be_bytes());
        }
        into.truncate(end);
    }

    /// Which step wrote this content to a block of an LV; 0 for zeroes.
    pub(super) fn written_by(&self, lv: usize, block: u64, content: &[u8]) -> Result<u64, String> {
        if content.iter().all(|&byte| byte == 0) {
            return Ok(0);
        }
        let at = || format!("block {block} of LV {lv}");
        if word(content, 0) != CHAIN_MARK {
            return Err(format!("{} holds what no step wrote", at()));
        }
        let n = word(content, 1);
        if n == 0 || n > self.last() {
            return Err(format!("{} claims step {n}, which was never issued", at()));
        }
        let step = self.step(n);
        let inside = (step.block..step.block + step.blocks).contains(&block);
        let mut right = Vec::new();
        self.put(n, block, &mut right);
        match step.lv == lv && inside && !step.zero && right == content {
            true => Ok(n),
            false => Err(format!("{} claims step {n}, which wrote something else", at())),
        }
    }

    /// After how many steps the LVs show `found`, which gives for each LV and slot block, in
    /// order, what [`Chain::written_by`] said.
    pub(super) fn prefixes(&self, found: &[Vec<u64>; LVS]) -> Prefixes {
        let mut state: Vec<Vec<u64>> = found.iter().map(|lv| vec![0; lv.len()]).collect();
        let mut wrong = found.iter().flatten().filter(|&&step| step != 0).count();
        let mut prefixes = Prefixes { fits: Vec::new(), nearest: (0, wrong) };
        for n in 0..=self.last() {
            if n > 0 {
                let step = self.step(n);
                for block in step.block..step.block + step.blocks {
                    let at = slot_index(block);
                    let (is, was) = (found[step.lv][at], state[step.lv][at]);
                    let now = if step.zero { 0 } else { n };
                    wrong += usize::from(now != is);
                    wrong -= usize::from(was != is);
                    state[step.lv][at] = now;
                }
            }
            if wrong == 0 {
                prefixes.fits.push(n);
            }
            if wrong < prefixes.nearest.1 {
                prefixes.nearest = (n, wrong);
            }
        }
        prefixes
    }
}

/// Which of the chain's blocks of its LV a block is, counted without gaps.
pub(super) fn slot_index(block: u64) -> usize {
    let slot = block / (chain_block(1) - chain_block(0));
    let index = slot * SLOT_BLOCKS + (block - chain_block(slot));
    usize::try_from(index).expect("a block of an LV")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the LVs show after each step but those that were left out.
    fn shown(chain: &Chain, slots: u64, steps: impl Iterator<Item = u64>) -> [Vec<u64>; LVS] {
        let room = usize::try_from(slots * SLOT_BLOCKS).unwrap();
        let mut found = [(); LVS].map(|()| vec![0; room]);
        for n in steps {
            let step = chain.step(n);
            for block in step.block..step.block + step.blocks {
                found[step.lv][slot_index(block)] = if step.zero { 0 } else { n };
            }
        }
        found
    }

    fn chain() -> Chain {
        let mut chain = Chain::new(7, 4);
        for n in 1..=300 {
            assert_eq!(chain.issue(), n);
        }
        chain
    }

    #[test]
    fn a_prefix_is_known_by_its_length() {
        let chain = chain();
        for n in [0, 1, 5, 150, 299, 300] {
            let prefixes = chain.prefixes(&shown(&chain, 4, 1..=n));
            assert!(prefixes.fits.contains(&n), "{n}: {prefixes:?}");
            assert!(prefixes.fits.len() < 4, "{n}: {prefixes:?}");
        }
    }

    #[test]
    fn a_step_that_is_missing_or_too_early_is_no_prefix() {
        let chain = chain();
        for left_out in [290, 299] {
            assert!(!chain.step(left_out).zero);
            let steps = (1..=300).filter(|n| *n != left_out);
            let prefixes = chain.prefixes(&shown(&chain, 4, steps));
            assert!(prefixes.fits.is_empty(), "{prefixes:?}");
            assert!(prefixes.nearest.1 > 0);
        }
    }

    #[test]
    fn content_names_its_step_and_nothing_else_does() {
        let chain = chain();
        let whole = |n: &u64| chain.step(*n).blocks == SLOT_BLOCKS && !chain.step(*n).zero;
        let n = (1..300).find(whole).unwrap();
        let (step, data) = (chain.step(n), chain.data(n));
        let second = &data[BLOCK..2 * BLOCK];
        assert_eq!(chain.written_by(step.lv, step.block + 1, second), Ok(n));
        assert!(chain.written_by(step.lv, step.block, second).is_err());
        assert!(chain.written_by((step.lv + 1) % LVS, step.block + 1, second).is_err());
        assert_eq!(chain.written_by(0, 16, &[0; BLOCK]), Ok(0));
        for at in [0, 8, 30, 60, BLOCK - 1] {
            let mut broken = second.to_vec();
            broken[at] ^= 1;
            assert!(chain.written_by(step.lv, step.block + 1, &broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn each_step_depends_on_the_one_before() {
        let (mut one, mut other) = (Chain::new(1, 4), Chain::new(2, 4));
        for chain in [&mut one, &mut other] {
            chain.issue();
            chain.issue();
        }
        assert_ne!(one.data(2), other.data(2));
        assert_ne!(one.step(1).lv, one.step(2).lv);
    }
}
