//! The ledger's bytes, version 1: what a source must know after a crash. A file begins with a
//! snapshot and goes on with marks, each in a sector of its own, so that a torn one harms no other.
//!
//! ```text
//! snapshot
//! at  size  field      unit   rule
//!  0     4  magic      -      the letters VGLD
//!  4     2  version    -      1
//!  6     2  reserved   -      0
//!  8     8  len        bytes  of everything up to the checksum's end
//! 16    16  group      -      id
//! 32    16  generation -      id
//! 48     2  start      starts the last start that may have numbered records
//! 50     1  clean      -      1 when the source stopped with nothing in doubt, else 0
//! 51     1  replicas   -      0 ..= 8
//! 52     4  regions    -      marked regions
//! 56     2  lineage    -      earlier generations, 0 ..= 64; then each 16 id, 8 fork seq
//!           replica    -      32 peer, 2 last start that it met, 8 acked seq, 1 whole: 1 when a
//!                             resync of it has ever ended, else 0; then per volume
//!             8 extents, 4 runs; then each run 4 first word, 4 words, then the words
//!           region     -      2 volume, 8 index
//!           crc        -      CRC-32C of all before
//!
//! mark, at the next multiple of 512
//!  0     4  magic      -      the letters VGMK
//!  4     2  regions    -      1 ..= 50; then each 2 volume, 8 index
//!  508   4  crc        -      CRC-32C of all before; bytes between are 0
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::extent::BitSet;
use vgship_base::ids::{Generation, GroupId, PeerId, Seq, Start, VolumeId};
use vgship_base::limits::{REPLICAS_MAX, VOLUMES_MAX};
use vgship_base::units::SECTOR;

use super::activity::Region;

const MAGIC: [u8; 4] = *b"VGLD";
const MARK_MAGIC: [u8; 4] = *b"VGMK";
const VERSION: u16 = 1;

/// Generations that a ledger remembers.
pub const LINEAGE_MAX: usize = 64;

/// Regions that one mark holds: what fits a sector.
pub const MARK_REGIONS_MAX: usize = 50;

/// Largest ledger that is read. Unit: bytes. Eight replicas of 64 TiB at 64 KiB each.
pub const LEDGER_BYTES_MAX: u64 = 1 << 30;

/// Everything that a source knows of itself, as of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerState {
    /// The group.
    pub group: GroupId,
    /// The history that the source writes.
    pub generation: Generation,
    /// Earlier generations, oldest first, each with the last seq that was kept of it.
    pub lineage: Vec<(Generation, Seq)>,
    /// The last start that may have numbered records.
    pub start: Start,
    /// Whether the source stopped with nothing in doubt.
    pub clean: bool,
    /// What is known of each replica; the index is its id.
    pub replicas: Vec<ReplicaState>,
    /// Regions marked.
    pub marked: Vec<Region>,
}

/// What a source knows of one replica, as of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// Who it is.
    pub peer: PeerId,
    /// The last start in which it had a link: it cannot have records of a later one (R11). Zero:
    /// it has never begun to hold this group.
    pub met: Start,
    /// The highest seq that it had promised.
    pub acked: Seq,
    /// Whether a resync of it has ever ended.
    pub whole: bool,
    /// The extents in which it may differ, per volume; extents in flight are in here.
    pub dirty: Vec<BitSet>,
}

impl LedgerState {
    /// The snapshot's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).expect("bounded by the volumes' limits");
        let short = |len: usize| u16::try_from(len).expect("bounded by LINEAGE_MAX");
        let words: usize = self.replicas.iter().flat_map(|known| &known.dirty).map(set_bytes).sum();
        let mut body = Writer::with_capacity(words + 4096 + 10 * self.marked.len());
        body.put(&MAGIC).u16(VERSION).u16(0).u64(0);
        body.put(&self.group.0).put(&self.generation.0).u16(self.start.0);
        body.u8(u8::from(self.clean));
        body.u8(u8::try_from(self.replicas.len()).expect("at most REPLICAS_MAX"));
        body.u32(count(self.marked.len())).u16(short(self.lineage.len()));
        for (generation, fork) in &self.lineage {
            body.put(&generation.0).u64(fork.0);
        }
        for replica in &self.replicas {
            body.put(&replica.peer.0).u16(replica.met.0).u64(replica.acked.0);
            body.u8(u8::from(replica.whole));
            replica.dirty.iter().for_each(|set| encode_set(set, &mut body));
        }
        for region in &self.marked {
            body.u16(region.volume.0).u64(region.index);
        }
        let len = body.len() as u64 + 4;
        body.set_u64(8, len);
        with_checksum(body)
    }

    /// How long the snapshot at the front of `bytes` claims to be.
    pub fn claimed_len(bytes: &[u8]) -> Result<usize, FormatError> {
        let mut from = Reader::new(bytes);
        if from.array("magic")? != MAGIC {
            return Err(FormatError::Magic { expected: "VGLD" });
        }
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let reserved = from.u16("reserved")?;
        require("reserved", reserved, "zero", reserved == 0)?;
        let len = from.u64("len")?;
        require("len", len, "within the file", len <= bytes.len() as u64)?;
        Ok(usize::try_from(len).expect("not longer than the bytes at hand"))
    }

    /// Reads a snapshot of volumes of these sizes. Unit: extents.
    pub fn decode(bytes: &[u8], extents: &[u64]) -> Result<LedgerState, FormatError> {
        let mut from = checked(bytes)?;
        from.take("head", 16)?;
        let group = GroupId(from.array("group")?);
        let generation = Generation(from.array("generation")?);
        let (start, clean) = (Start(from.u16("start")?), flag(&mut from, "clean")?);
        let replicas = usize::from(from.u8("replicas")?);
        require("replicas", replicas as u64, "at most 8", replicas <= REPLICAS_MAX)?;
        let (regions, forks) = (from.u32("regions")?, usize::from(from.u16("lineage")?));
        require("lineage", forks as u64, "at most 64", forks <= LINEAGE_MAX)?;
        let mut state = LedgerState {
            group,
            generation,
            lineage: Vec::new(),
            start,
            clean,
            replicas: Vec::new(),
            marked: Vec::new(),
        };
        for _ in 0..forks {
            let generation = Generation(from.array("lineage")?);
            state.lineage.push((generation, Seq(from.u64("fork")?)));
        }
        for _ in 0..replicas {
            let (peer, met) = (PeerId(from.array("peer")?), Start(from.u16("met")?));
            let (acked, whole) = (Seq(from.u64("acked")?), flag(&mut from, "whole")?);
            let sets = extents.iter().map(|&bits| decode_set(&mut from, bits));
            let dirty = sets.collect::<Result<Vec<_>, _>>()?;
            state.replicas.push(ReplicaState { peer, met, acked, whole, dirty });
        }
        for _ in 0..regions {
            state.marked.push(decode_region(&mut from)?);
        }
        from.finish()?;
        Ok(state)
    }
}

fn flag(from: &mut Reader<'_>, field: &'static str) -> Result<bool, FormatError> {
    let value = from.u8(field)?;
    require(field, value, "0 or 1", value <= 1)?;
    Ok(value == 1)
}

/// At most how much a set takes. Unit: bytes. Every second word may begin a run.
fn set_bytes(set: &BitSet) -> usize {
    let words = set.words().iter().filter(|word| **word != 0).count();
    12 + words * 16
}

fn encode_set(set: &BitSet, out: &mut Writer) {
    let small = |value: usize| u32::try_from(value).expect("a volume has fewer words");
    let words = set.words();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (place, _) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == place => *len += 1,
            _ => runs.push((place, 1)),
        }
    }
    out.u64(set.bits()).u32(small(runs.len()));
    for (first, len) in runs {
        out.u32(small(first)).u32(small(len));
        words[first..first + len].iter().for_each(|word| {
            out.u64(*word);
        });
    }
}

fn decode_set(from: &mut Reader<'_>, bits: u64) -> Result<BitSet, FormatError> {
    let stored = from.u64("extents")?;
    require("extents", stored, "as many as the volume has", stored == bits)?;
    let mut words = vec![0; usize::try_from(bits.div_ceil(64)).unwrap_or(usize::MAX)];
    for _ in 0..from.u32("runs")? {
        let (first, len) = (from.u32("first")? as usize, from.u32("words")? as usize);
        let run = first.checked_add(len).and_then(|end| words.get_mut(first..end));
        let rule = "within the volume";
        let outside = FormatError::Field { field: "first", found: first as u64, rule };
        for word in run.ok_or(outside)? {
            *word = from.u64("word")?;
        }
    }
    BitSet::from_words(bits, words).ok_or(FormatError::Field {
        field: "extents",
        found: bits,
        rule: "as many as the volume has",
    })
}

fn decode_region(from: &mut Reader<'_>) -> Result<Region, FormatError> {
    let volume = VolumeId(from.u16("volume")?);
    require("volume", volume.0, "below 4096", volume.index() < VOLUMES_MAX)?;
    Ok(Region { volume, index: from.u64("region")? })
}

/// One sector that marks up to [`MARK_REGIONS_MAX`] regions.
pub fn encode_mark(regions: &[Region]) -> Vec<u8> {
    assert!((1..=MARK_REGIONS_MAX).contains(&regions.len()), "a mark fits a sector");
    let mut out = Writer::with_capacity(512);
    out.put(&MARK_MAGIC).u16(u16::try_from(regions.len()).expect("at most 50"));
    for region in regions {
        out.u16(region.volume.0).u64(region.index);
    }
    out.put(&vec![0; 508 - out.len()]);
    with_checksum(out)
}

/// The regions of one mark.
pub fn decode_mark(sector: &[u8]) -> Result<Vec<Region>, FormatError> {
    require("mark", sector.len() as u64, "one sector", sector.len() as u64 == SECTOR)?;
    let mut from = checked(sector)?;
    if from.array("magic")? != MARK_MAGIC {
        return Err(FormatError::Magic { expected: "VGMK" });
    }
    let count = usize::from(from.u16("regions")?);
    let fits = (1..=MARK_REGIONS_MAX).contains(&count);
    require("regions", count as u64, "1 to 50", fits)?;
    (0..count).map(|_| decode_region(&mut from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> LedgerState {
        let mut dirty = vec![BitSet::new(200), BitSet::new(1)];
        dirty[0].insert_range(60, 130);
        dirty[0].insert(199);
        let region = |volume, index| Region { volume: VolumeId(volume), index };
        LedgerState {
            group: GroupId([1; 16]),
            generation: Generation([2; 16]),
            lineage: vec![(Generation([3; 16]), Seq(77))],
            start: Start(9),
            clean: false,
            replicas: vec![ReplicaState {
                peer: PeerId([4; 32]),
                met: Start(9),
                acked: Seq(5),
                whole: true,
                dirty,
            }],
            marked: vec![region(0, 1), region(1, 0)],
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = example().encode();
        assert_eq!(LedgerState::claimed_len(&bytes), Ok(bytes.len()));
        assert_eq!(LedgerState::decode(&bytes, &[200, 1]), Ok(example()));
        assert!(LedgerState::decode(&bytes, &[201, 1]).is_err(), "another volume's size");
    }

    /// The head by hand from the table; the checksum by an independent program.
    #[test]
    fn golden_bytes_of_the_smallest_snapshot() {
        let state = LedgerState { replicas: vec![], marked: vec![], lineage: vec![], ..example() };
        let golden = hex_literal::hex!(
            "56474c44" "0001" "0000" "000000000000003e"
            "01010101010101010101010101010101" "02020202020202020202020202020202"
            "0009" "00" "00" "00000000" "0000" "84b4d32b"
        );
        assert_eq!(state.encode(), golden);
    }

    #[test]
    fn every_bit_flip_and_cut_is_noticed() {
        let bytes = example().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let len = LedgerState::claimed_len(&flipped);
            let read = len.and_then(|len| LedgerState::decode(&flipped[..len], &[200, 1]));
            assert!(read.is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(LedgerState::decode(&bytes[..len], &[200, 1]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_mark_is_one_sector() {
        let regions: Vec<Region> =
            (0..50).map(|index| Region { volume: VolumeId(7), index }).collect();
        let sector = encode_mark(&regions);
        assert_eq!(sector.len(), 512);
        assert_eq!(decode_mark(&sector), Ok(regions));
        for bit in 0..512 * 8 {
            let mut flipped = sector.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_mark(&flipped).is_err(), "bit {bit}");
        }
    }
}
