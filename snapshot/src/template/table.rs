//! Where chunks lie, by their ids, in little memory: not the ids, but enough of each to find the
//! node that has it.
//!
//! An entry has 12 bytes: 48 bits of the id, the number of a node and a slot of its page. 10 more
//! bits of the id choose one of 1024 shards, which grow one by one, so that growing takes no room
//! to speak of. A shard is filled to seven eighths at most and grows by a quarter, so a chunk takes
//! 14 to 18 bytes: 56 to 72 MiB for a TiB of different chunks of 256 KiB.
//!
//! What is found is a guess, right but for one id in 2^58 for each chunk that is known. Whoever asks
//! compares the whole id with that in the node.

use super::chunk::ChunkId;

const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 10;

/// The slot of an entry that holds nothing.
const FREE: u16 = u16::MAX;

/// A slot of a node of level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Number of the node.
    pub(super) node: u32,
    /// Less than [`super::page::SLOTS`].
    pub(super) slot: u16,
}

/// What is kept of an id.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    shard: usize,
    low: u32,
    high: u16,
}

impl Mark {
    fn of(id: &ChunkId) -> Mark {
        let (first, _) = id.0.split_first_chunk().expect("32 bytes are more than 8");
        let bits = u64::from_be_bytes(*first);
        let cut = |by: u32, mask: u64| (bits >> by) & mask;
        Mark {
            shard: usize::try_from(cut(64 - SHARD_BITS, u64::MAX)).expect("10 bits"),
            low: u32::try_from(cut(22, u32::MAX.into())).expect("32 bits"),
            high: u16::try_from(cut(6, u16::MAX.into())).expect("16 bits"),
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    low: u32,
    node: u32,
    high: u16,
    slot: u16,
}

const NOTHING: Entry = Entry { low: 0, node: 0, high: 0, slot: FREE };

/// Entries where they fit best, or in the next free place behind that.
#[derive(Default)]
struct Shard {
    entries: Box<[Entry]>,
    used: usize,
}

impl Shard {
    /// Where the entry of a mark is, or would be. There is always a free place.
    fn place(&self, low: u32, high: u16) -> usize {
        let len = self.entries.len();
        // The higher half of the product: even over all places, for a length of any kind.
        let mut at =
            usize::try_from((u64::from(low) * len as u64) >> 32).expect("below its length");
        loop {
            let found = &self.entries[at];
            if found.slot == FREE || (found.low == low && found.high == high) {
                return at;
            }
            at = if at + 1 == len { 0 } else { at + 1 };
        }
    }

    fn grow(&mut self) {
        let len = self.entries.len() + self.entries.len() / 4 + 8;
        let full = std::mem::replace(&mut self.entries, vec![NOTHING; len].into());
        for entry in full.iter().filter(|entry| entry.slot != FREE) {
            let at = self.place(entry.low, entry.high);
            self.entries[at] = *entry;
        }
    }
}

/// Where chunks lie.
pub(super) struct Table(Vec<Shard>);

impl Table {
    pub(super) fn new() -> Table {
        Table((0..SHARDS).map(|_| Shard::default()).collect())
    }

    /// Notes where a chunk lies. What was noted before of it, or of one whose id begins alike, is
    /// forgotten: that is stored again when it comes again, and nothing else is lost by it.
    pub(super) fn put(&mut self, id: &ChunkId, at: At) {
        let Mark { shard, low, high } = Mark::of(id);
        let shard = &mut self.0[shard];
        if (shard.used + 1) * 8 > shard.entries.len() * 7 {
            shard.grow();
        }
        let place = shard.place(low, high);
        shard.used += usize::from(shard.entries[place].slot == FREE);
        shard.entries[place] = Entry { low, high, node: at.node, slot: at.slot };
    }

    /// Where a chunk lies, if it lies anywhere: what is there must be compared.
    pub(super) fn get(&self, id: &ChunkId) -> Option<At> {
        let Mark { shard, low, high } = Mark::of(id);
        let shard = &self.0[shard];
        if shard.used == 0 {
            return None;
        }
        let found = shard.entries[shard.place(low, high)];
        (found.slot != FREE).then_some(At { node: found.node, slot: found.slot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_be_bytes()).as_bytes())
    }

    fn at(number: u64) -> At {
        let (node, slot) = (number / 1024, number % 1024);
        At { node: u32::try_from(node).unwrap(), slot: u16::try_from(slot).unwrap() }
    }

    /// What is allocated. Unit: bytes.
    fn memory(table: &Table) -> usize {
        let entries: usize = table.0.iter().map(|shard| shard.entries.len()).sum();
        entries * size_of::<Entry>() + table.0.capacity() * size_of::<Shard>()
    }

    /// The target is 1 GiB for 10 TiB of chunks of 256 KiB, which is 25.6 bytes for each.
    #[test]
    fn a_chunk_takes_little_memory_however_many_there_are() {
        assert_eq!(size_of::<Entry>(), 12);
        let (mut table, mut most) = (Table::new(), 0);
        for number in 0..1 << 20 {
            table.put(&id(number), at(number));
            let count = usize::try_from(number + 1).unwrap();
            if count >= 1 << 16 && count.is_multiple_of(1 << 10) {
                most = most.max(memory(&table) * 10 / count);
            }
        }
        assert!((140..=190).contains(&most), "{most} tenths of a byte");
        assert!((0..1 << 20).all(|number| table.get(&id(number)) == Some(at(number))));
        assert!((1 << 20..1 << 21).all(|number| table.get(&id(number)).is_none()));
    }

    #[test]
    fn what_is_noted_last_of_a_chunk_counts() {
        let mut table = Table::new();
        assert_eq!(table.get(&id(1)), None);
        table.put(&id(1), at(5000));
        table.put(&id(1), at(3));
        assert_eq!(table.get(&id(1)), Some(at(3)));
        assert_eq!(table.0.iter().map(|shard| shard.used).sum::<usize>(), 1);
    }

    /// All ids of one shard want the same place, so that each but one has to go round its end.
    #[test]
    fn ids_that_want_one_place_find_another() {
        let crowded = |number: u8| {
            let mut id = [0xff; 32];
            (id[6], id[7]) = (number, number);
            ChunkId(id)
        };
        let mut table = Table::new();
        for number in 0..200 {
            table.put(&crowded(number), at(number.into()));
        }
        assert!((0..200).all(|number| table.get(&crowded(number)) == Some(at(number.into()))));
        assert_eq!(table.get(&crowded(200)), None);
    }
}
