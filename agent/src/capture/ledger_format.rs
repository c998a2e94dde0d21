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
//!        2  volumes    -      as many as the layout has; then each 8 its size (bytes)
//!           replica    -      32 peer, 2 last start that it met, 8 acked seq, 1 whole: 1 when a
//!                             resync of it has ever ended, else 0; then per volume
//!             4 runs; then each run 4 first word, 4 words, then the words: a bit per extent
//!           region     -      2 volume, 8 index
//!           crc        -      CRC-32C of all before
//!
//! mark, at the next multiple of 512
//!  0     4  magic      -      the letters VGMK
//!  4     2  regions    -      1 ..= 50; then each 2 volume, 8 index
//!  508   4  crc        -      CRC-32C of all before; bytes between are 0
//! ```
//!
//! A volume may be larger by the time a ledger is read: what it has gained, with the extent that was
//! its last, counts as dirty. Integers are big-endian.

use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::extent::BitSet;
use vgship_base::ids::{Generation, GroupId, PeerId, Seq, Start, VolumeId};
use vgship_base::layout::{Layout, VolumeLayout};
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
    /// The size of each volume. Unit: bytes.
    pub volumes: Vec<u64>,
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
        let short =
            |len: usize| u16::try_from(len).expect("bounded by LINEAGE_MAX and VOLUMES_MAX");
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
        body.u16(short(self.volumes.len()));
        self.volumes.iter().for_each(|bytes| {
            body.u64(*bytes);
        });
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

    /// Reads a snapshot of these volumes, which may have grown since.
    pub fn decode(bytes: &[u8], layout: &Layout) -> Result<LedgerState, FormatError> {
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
            volumes: layout.volumes.iter().map(|volume| volume.bytes).collect(),
            replicas: Vec::new(),
            marked: Vec::new(),
        };
        for _ in 0..forks {
            let generation = Generation(from.array("lineage")?);
            state.lineage.push((generation, Seq(from.u64("fork")?)));
        }
        let sizes = decode_sizes(&mut from, &layout.volumes)?;
        for _ in 0..replicas {
            let (peer, met) = (PeerId(from.array("peer")?), Start(from.u16("met")?));
            let (acked, whole) = (Seq(from.u64("acked")?), flag(&mut from, "whole")?);
            let sets = sizes.iter().zip(&layout.volumes).map(|(&stored, volume)| {
                let mut set = decode_set(&mut from, layout.extent.count(stored))?;
                set.grow(layout.extent.count(volume.bytes));
                if volume.bytes > stored {
                    set.insert_range(stored >> layout.extent.log2(), set.bits());
                }
                Ok(set)
            });
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
    4 + words * 16
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
    out.u32(small(runs.len()));
    for (first, len) in runs {
        out.u32(small(first)).u32(small(len));
        words[first..first + len].iter().for_each(|word| {
            out.u64(*word);
        });
    }
}

/// The sizes that volumes had: of a volume that has become smaller nothing is believed.
fn decode_sizes(from: &mut Reader<'_>, volumes: &[VolumeLayout]) -> Result<Vec<u64>, FormatError> {
    let count = from.u16("volumes")?;
    require("volumes", count, "as many as the layout has", usize::from(count) == volumes.len())?;
    let size = |volume: &VolumeLayout| {
        let stored = from.u64("size")?;
        let fits = (1..=volume.bytes).contains(&stored);
        require("size", stored, "at most what the volume has now", fits)?;
        Ok(stored)
    };
    volumes.iter().map(size).collect()
}

/// A set over `bits` slots, which is a bound for what is read.
fn decode_set(from: &mut Reader<'_>, bits: u64) -> Result<BitSet, FormatError> {
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
    Ok(BitSet::from_words(bits, words).expect("as many words as the bits need"))
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
    use vgship_base::extent::ExtentSize;

    use super::*;

    /// Volumes of these sizes with extents of 4 KiB. Unit: bytes.
    fn layout(sizes: &[u64]) -> Layout {
        let volume = |(number, &bytes): (usize, &u64)| VolumeLayout {
            name: format!("lv{number}").parse().unwrap(),
            bytes,
            masked: 0,
        };
        let extent = ExtentSize::from_log2(12).unwrap();
        Layout { extent, volumes: sizes.iter().enumerate().map(volume).collect() }
    }

    const SIZES: [u64; 2] = [199 * 4096 + 512, 4096];

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
            volumes: SIZES.to_vec(),
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
        assert_eq!(LedgerState::decode(&bytes, &layout(&SIZES)), Ok(example()));
        for other in [&[SIZES[0] - 512, SIZES[1]][..], &SIZES[..1], &[SIZES[0], SIZES[1], 512]] {
            assert!(LedgerState::decode(&bytes, &layout(other)).is_err(), "{other:?}");
        }
    }

    #[test]
    fn what_a_volume_has_gained_since_is_dirty() {
        let mut state = example();
        state.replicas[0].dirty = vec![BitSet::new(200), BitSet::new(1)];
        state.replicas[0].dirty[0].insert(3);
        let bytes = state.encode();
        let dirty = |sizes: [u64; 2]| {
            let state = LedgerState::decode(&bytes, &layout(&sizes)).unwrap();
            assert_eq!(state.volumes, sizes);
            let sets = state.replicas[0].dirty.iter();
            sets.map(|set| (set.bits(), set.iter().collect())).collect::<Vec<(u64, Vec<u64>)>>()
        };
        assert_eq!(dirty(SIZES), [(200, vec![3]), (1, vec![])]);
        // No extent more, but the last one is longer.
        assert_eq!(dirty([SIZES[0] + 512, SIZES[1]]), [(200, vec![3, 199]), (1, vec![])]);
        let both = [201 * 4096, 3 * 4096];
        assert_eq!(dirty(both), [(201, vec![3, 199, 200]), (3, vec![1, 2])]);
    }

    /// The head by hand from the table; the checksum by an independent program.
    #[test]
    fn golden_bytes_of_the_smallest_snapshot() {
        let volumes = vec![SIZES[1]];
        let (replicas, marked, lineage) = (vec![], vec![], vec![]);
        let state = LedgerState { lineage, volumes, replicas, marked, ..example() };
        let golden = hex_literal::hex!(
            "56474c44" "0001" "0000" "0000000000000048"
            "01010101010101010101010101010101" "02020202020202020202020202020202"
            "0009" "00" "00" "00000000" "0000" "0001" "0000000000001000" "1465d5e3"
        );
        assert_eq!(state.encode(), golden);
    }

    #[test]
    fn longer_histories_than_are_kept_are_refused() {
        let forks = |count| LedgerState {
            lineage: vec![(Generation([3; 16]), Seq(1)); count],
            ..example()
        };
        let most = forks(LINEAGE_MAX).encode();
        assert_eq!(LedgerState::decode(&most, &layout(&SIZES)), Ok(forks(LINEAGE_MAX)));
        let more = forks(LINEAGE_MAX + 1).encode();
        assert!(LedgerState::decode(&more, &layout(&SIZES)).is_err());
    }

    /// Fields out of range, each with a checksum that fits.
    #[test]
    fn what_was_never_written_is_refused() {
        let whole = example().encode();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole[..whole.len() - 4].to_vec();
            change(&mut bytes);
            let mut out = Writer::default();
            out.put(&bytes);
            let bytes = with_checksum(out);
            let len = LedgerState::claimed_len(&bytes)?;
            LedgerState::decode(&bytes[..len], &layout(&SIZES))
        };
        assert_eq!(with(&|_| {}), Ok(example()));
        let last = whole.len() - 4 - 10;
        for (at, value, said) in [
            (3, b'X', "VGLD"),
            (5, 9, "version"),
            (7, 1, "reserved"),
            (8, 1, "len"),
            (50, 2, "clean"),
            (last, 0x10, "volume"),
        ] {
            let error = with(&|bytes| bytes[at] = value).unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
        let longer = with(&|bytes| {
            bytes.push(0);
            bytes[15] += 1;
        });
        assert!(longer.is_err(), "something is behind its end");
    }

    #[test]
    fn a_mark_of_no_region_or_of_none_that_can_be_is_refused() {
        let with = |count: u8, volume: u8| {
            let mut bytes = encode_mark(&[Region { volume: VolumeId(7), index: 0 }]);
            bytes.truncate(508);
            (bytes[5], bytes[6]) = (count, volume);
            let mut out = Writer::default();
            out.put(&bytes);
            decode_mark(&with_checksum(out)).map(|regions| regions.len())
        };
        assert_eq!((with(1, 0), with(50, 0)), (Ok(1), Ok(50)));
        assert!(with(0, 0).is_err() && with(51, 0).is_err() && with(1, 0x10).is_err());
    }

    #[test]
    fn more_replicas_than_there_can_be_are_refused() {
        let many = |count| {
            let replicas = vec![example().replicas.remove(0); count];
            LedgerState { replicas, ..example() }
        };
        let most = many(REPLICAS_MAX);
        assert_eq!(LedgerState::decode(&most.encode(), &layout(&SIZES)), Ok(most));
        assert!(LedgerState::decode(&many(REPLICAS_MAX + 1).encode(), &layout(&SIZES)).is_err());
    }

    #[test]
    fn volumes_that_came_or_went_are_refused_though_the_rest_fits() {
        let (replicas, marked) = (vec![], vec![]);
        let state = LedgerState { replicas, marked, volumes: vec![512], ..example() };
        let bytes = state.encode();
        assert!(LedgerState::decode(&bytes, &layout(&[512])).is_ok());
        for other in [&[][..], &[512, 512]] {
            let error = LedgerState::decode(&bytes, &layout(other)).unwrap_err();
            assert!(error.to_string().contains("volumes"), "{error}");
        }
    }

    #[test]
    fn every_bit_flip_and_cut_is_noticed() {
        let bytes = example().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let len = LedgerState::claimed_len(&flipped);
            let read = len.and_then(|len| LedgerState::decode(&flipped[..len], &layout(&SIZES)));
            assert!(read.is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(LedgerState::decode(&bytes[..len], &layout(&SIZES)).is_err(), "cut to {len}");
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
