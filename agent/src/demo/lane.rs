//! The concurrent load, one lane per LV: several writes in flight, each noted with what the chain
//! had done when it was issued and when it completed. So a replica's content says of each write
//! whether it may, must or must not be there beside a number of steps.

use super::content::{BLOCK, BLOCK_BYTES, LOAD_MARK, Pool, load_block, word};

/// The mark of a write that has not completed.
const OPEN: u64 = u64::MAX;

/// One write.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Steps that were done when it was first issued.
    before: u64,
    /// Steps that had been issued when it completed.
    after: u64,
}

/// All writes of one lane.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// Which LV, and which lane.
    pub(super) lv: usize,
    /// Blocks of one write.
    unit: u64,
    units: u64,
    stride: u64,
    entries: Vec<Entry>,
}

impl Lane {
    /// No write yet, of `unit` blocks each, on `blocks` load blocks of an LV.
    pub(super) fn new(lv: usize, unit: u64, blocks: u64) -> Lane {
        // Small writes jump about, large ones go on; either way all units are visited in turn.
        let stride = if unit == 1 { 1009 } else { 1 };
        Lane { lv, unit, units: blocks / unit, stride, entries: Vec::new() }
    }

    /// Size of a write. Unit: bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.unit * BLOCK_BYTES
    }

    /// How many writes were issued.
    pub(super) const fn issued(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Notes a new write, issued when `before` steps were done; gives its number, from 0.
    pub(super) fn issue(&mut self, before: u64) -> u64 {
        self.entries.push(Entry { before, after: OPEN });
        self.issued() - 1
    }

    /// Notes that a write completed when `after` steps had been issued.
    pub(super) fn complete(&mut self, number: u64, after: u64) {
        if let Some(entry) = self.entries.get_mut(index(number)) {
            entry.after = after;
        }
    }

    /// Where a write goes. Unit: bytes.
    pub(super) fn offset(&self, number: u64) -> u64 {
        let unit = number.wrapping_mul(self.stride) % self.units;
        load_block(unit * self.unit) * BLOCK_BYTES
    }

    /// What a write writes.
    pub(super) fn data(&self, pool: &Pool, number: u64) -> Vec<u8> {
        let mut data = Vec::new();
        for part in 0..self.unit {
            pool.put(self.lv, number, part, &mut data);
        }
        data
    }

    /// The first write to each unit, by unit.
    fn firsts(&self) -> Vec<u64> {
        let mut firsts = vec![0; index(self.units)];
        for number in 0..self.units {
            firsts[index(number.wrapping_mul(self.stride) % self.units)] = number;
        }
        firsts
    }

    /// Which write wrote a load block: `None` for content that no write's is.
    pub(super) fn written_by(
        &self,
        pool: &Pool,
        block_index: u64,
        content: &[u8],
    ) -> Result<Option<u64>, String> {
        if word(content, 0) != LOAD_MARK {
            return Ok(None);
        }
        let (number, part) = (word(content, 2), block_index % self.unit);
        let mut right = Vec::with_capacity(BLOCK);
        pool.put(self.lv, number, part, &mut right);
        let unit = block_index / self.unit;
        let mine = number < self.issued()
            && number.wrapping_mul(self.stride) % self.units == unit
            && right == content;
        match mine {
            true => Ok(Some(number)),
            false => Err(format!(
                "load block {block_index} of LV {} claims write {number}, which wrote something \
                 else",
                self.lv
            )),
        }
    }

    /// Whether these writes, by load block, can stand beside exactly `steps` steps of the chain.
    /// With `None` for steps: all that completed must be there.
    pub(super) fn check(&self, found: &[Option<u64>], steps: Option<u64>) -> Result<(), String> {
        let (most, least) = (steps.unwrap_or(OPEN), steps.unwrap_or(OPEN - 1));
        for ((unit, shown), first) in found.chunks(index(self.unit)).enumerate().zip(self.firsts())
        {
            let at = || format!("unit {unit} of the load on LV {}", self.lv);
            if shown.iter().any(|write| *write != shown[0]) {
                return Err(format!("{} shows parts of several writes: {shown:?}", at()));
            }
            if let Some(write) = shown[0] {
                let before = self.entries[index(write)].before;
                if before > most {
                    return Err(format!(
                        "{} shows write {write}, issued after step {before} was done, beside only \
                         {most} steps",
                        at()
                    ));
                }
            }
            let mut next = shown[0].map_or(first, |write| write + self.units);
            while let Some(entry) = self.entries.get(index(next)) {
                if entry.after != OPEN && least > entry.after {
                    return Err(format!(
                        "{} lacks write {next}, done before step {} was issued, beside {least} \
                         steps",
                        at(),
                        entry.after + 1
                    ));
                }
                next += self.units;
            }
        }
        Ok(())
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lane of 4 units of 2 blocks with 6 writes: write n was issued after step 10 n was done
    /// and was done before step 10 n + 5; the last one is open.
    fn lane() -> Lane {
        let mut lane = Lane::new(1, 2, 8);
        for number in 0..6 {
            assert_eq!(lane.issue(10 * number), number);
            if number < 5 {
                lane.complete(number, 10 * number + 4);
            }
        }
        lane
    }

    fn shown(writes: [Option<u64>; 4]) -> Vec<Option<u64>> {
        writes.into_iter().flat_map(|write| [write, write]).collect()
    }

    #[test]
    fn what_was_done_before_a_step_must_be_there_and_what_came_after_must_not() {
        let lane = lane();
        let three = shown([Some(0), Some(1), Some(2), None]);
        assert_eq!(lane.check(&three, Some(22)), Ok(()), "write 2 was in flight");
        assert_eq!(lane.check(&three, Some(30)), Ok(()));
        assert!(lane.check(&three, Some(19)).unwrap_err().contains("only 19 steps"));
        assert!(lane.check(&three, Some(35)).unwrap_err().contains("lacks write 3"));
        assert!(lane.check(&three, None).is_err());
        let all = shown([Some(4), Some(5), Some(2), Some(3)]);
        assert_eq!(lane.check(&all, None), Ok(()));
        let open = shown([Some(4), Some(1), Some(2), Some(3)]);
        assert_eq!(lane.check(&open, None), Ok(()), "an open write may be missing");
        let old = shown([Some(0), Some(5), Some(2), Some(3)]);
        assert!(lane.check(&old, None).unwrap_err().contains("lacks write 4"));
    }

    #[test]
    fn half_a_write_is_found() {
        let mut found = shown([Some(4), Some(1), Some(2), Some(3)]);
        found[1] = Some(0);
        assert!(lane().check(&found, None).unwrap_err().contains("several writes"));
    }

    #[test]
    fn content_names_its_write() {
        let (lane, pool) = (lane(), Pool::new(3));
        let data = lane.data(&pool, 5);
        let index = 2; // write 5 goes to unit 1, whose first block this is
        assert_eq!(lane.offset(5), load_block(index) * BLOCK_BYTES);
        let second = &data[BLOCK..];
        assert_eq!(lane.written_by(&pool, index + 1, second), Ok(Some(5)));
        assert!(lane.written_by(&pool, index, second).is_err());
        assert_eq!(lane.written_by(&pool, index, &[0; BLOCK]), Ok(None));
        let mut broken = second.to_vec();
        broken[BLOCK - 1] ^= 1;
        assert!(lane.written_by(&pool, index + 1, &broken).is_err());
    }
}
