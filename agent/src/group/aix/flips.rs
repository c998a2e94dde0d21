//! Every single bit of the structures that are decoded, turned over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::sim::Rng;
use vgship_test_images::{LvRecipe, Placement, Plan, Recipe, disk_images};

use super::*;

/// Behind the structures: all zeroes. Unit: bytes.
const PARTITIONS_AT: usize = 4352 * 512;
/// The longest area that is ever read. Unit: bytes.
const READ_MAX: usize = 2098 * 512;

/// A disk of which one bit is turned over.
struct FlippedDisk {
    head: Arc<Vec<u8>>,
    len: u64,
    flip: Option<usize>,
    longest: Arc<AtomicUsize>,
}

impl Disk for FlippedDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.longest.fetch_max(into.len(), Ordering::Relaxed);
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let end = at + into.len();
        if end as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into.fill(0);
        let head = &self.head[at.min(self.head.len())..end.min(self.head.len())];
        into[..head.len()].copy_from_slice(head);
        if let Some(bit) = self.flip.filter(|bit| (at..end).contains(&(bit / 8))) {
            into[bit / 8 - at] ^= 1 << (bit % 8);
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other("nothing is written here"))
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::Error::other("nothing is written here"))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Disks in memory, to be read again and again with another bit wrong.
struct Bench {
    heads: Vec<(Arc<Vec<u8>>, u64)>,
    longest: Arc<AtomicUsize>,
}

impl Bench {
    fn new(recipe: &Recipe) -> Bench {
        let images = disk_images(recipe, &Plan::new(recipe).unwrap());
        let heads = images.into_iter().map(|image| {
            let mut head = vec![0; PARTITIONS_AT];
            for (at, piece) in image.pieces {
                let at = usize::try_from(at).unwrap();
                if at < PARTITIONS_AT {
                    head[at..at + piece.len()].copy_from_slice(&piece);
                }
            }
            (Arc::new(head), image.bytes)
        });
        Bench { heads: heads.collect(), longest: Arc::default() }
    }

    /// Reads the first `disks` disks, the first of them with a bit turned over.
    fn read(&self, disks: usize, flip: Option<usize>) -> Result<Vg, String> {
        let mut members = Vec::new();
        for (index, (head, len)) in self.heads[..disks].iter().enumerate() {
            let flip = flip.filter(|_| index == 0);
            let (head, longest) = (head.clone(), self.longest.clone());
            let disk: SharedDisk = Arc::new(FlippedDisk { head, len: *len, flip, longest });
            members.push(probe("disk", disk).map_err(|error| error.to_string())?);
        }
        assemble(&members).map_err(|error| error.to_string())
    }
}

fn recipe(disks: usize) -> Recipe {
    Recipe {
        disks: vec![10; disks],
        lvs: vec![
            LvRecipe::new("one", 3, Placement::Contiguous(0)),
            LvRecipe::new("none", 0, Placement::Contiguous(0)),
            LvRecipe::new("two", 4, Placement::Scattered(1)),
        ],
        ..Recipe::default()
    }
}

/// All bits of `len` bytes from a byte on.
fn bits(at: usize, len: usize) -> impl Iterator<Item = usize> {
    at * 8..(at + len) * 8
}

/// The bits of one descriptor area: header, LV entries, names, trailer, a whole PV descriptor.
fn area_bits(at: usize) -> impl Iterator<Item = usize> {
    let (entries, names) = (at + 512, at + 2065 * 512);
    bits(at, 64)
        .chain(bits(entries, 5 * 32))
        .chain(bits(names, 4 * 64))
        .chain(bits(at + 2097 * 512, 16))
        .chain(bits(at + 17 * 512, 32 + 11 * 32))
}

#[test]
fn a_bit_of_one_copy_never_changes_what_an_lv_is() {
    let bench = Bench::new(&recipe(1));
    let truth = bench.read(1, None).unwrap();
    assert!(truth.notes.is_empty() && truth.lvs.len() == 2);
    let (mut read, mut refused) = (0, 0);
    for bit in bits(0, 0x90).chain(bits(7 * 512, 96)).chain(area_bits(136 * 512)) {
        match bench.read(1, Some(bit)) {
            Ok(vg) if vg.lvs == truth.lvs => read += 1,
            Ok(vg) => {
                for (found, known) in vg.lvs.iter().zip(&truth.lvs) {
                    let harmless = matches!(found.state, LvState::Refused(_)) || found == known;
                    assert!(harmless, "byte {}: {found:?}", bit / 8);
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 1000 && refused > 100, "{read} read, {refused} refused");
    assert!(bench.longest.load(Ordering::Relaxed) <= READ_MAX);
}

#[test]
fn two_whole_copies_outvote_a_damaged_one() {
    let bench = Bench::new(&recipe(2));
    let truth = bench.read(2, None).unwrap();
    for bit in area_bits(2242 * 512).step_by(3) {
        let vg = bench.read(2, Some(bit)).unwrap_or_else(|why| panic!("byte {}: {why}", bit / 8));
        assert_eq!(vg.lvs, truth.lvs, "byte {}", bit / 8);
    }
}

/// Whatever is served lies within its disk and behind the structures.
fn assert_leads_into_the_data_area(vg: &Vg, bytes: u64, what: impl std::fmt::Display) {
    assert!(vg.lvs.iter().map(|lv| lv.lps.len()).sum::<usize>() <= 32 * 2096, "{what}");
    for lv in vg.lvs.iter().filter(|lv| !matches!(lv.state, LvState::Refused(_))) {
        assert_eq!(lv.bytes, lv.lps.len() as u64 * vg.pp_bytes(), "{what}");
        for copy in lv.lps.iter().flatten() {
            let end = copy.offset.checked_add(vg.pp_bytes());
            assert!(copy.offset >= (136 + 2098) * 512, "{what}");
            assert!(end.is_some_and(|end| end <= bytes), "{what}");
        }
    }
}

#[test]
fn a_bit_of_the_only_copy_never_leads_out_of_the_data_area() {
    let bench = Bench::new(&recipe(3));
    for bit in area_bits(136 * 512).chain(bits(128 * 512, 16)) {
        if let Ok(vg) = bench.read(1, Some(bit)) {
            assert_leads_into_the_data_area(&vg, bench.heads[0].1, format!("byte {}", bit / 8));
        }
    }
    assert!(bench.longest.load(Ordering::Relaxed) <= READ_MAX);
}

#[test]
fn bytes_by_dice_never_lead_out_of_the_data_area() {
    let bench = Bench::new(&recipe(3));
    let (clean, len) = (&bench.heads[0].0, bench.heads[0].1);
    let area = 136 * 512;
    let targets = [(7 * 512, 70), (128 * 512, 40), (area, 40), (area + 512, 160)];
    let more = [(area + 17 * 512, 700), (area + 2065 * 512, 256), (8 * 512, 32)];
    let targets: Vec<(usize, usize)> = targets.into_iter().chain(more).collect();
    let mut served = 0;
    for seed in 0..1000 {
        let (mut rng, mut head) = (Rng::new(seed), clean.to_vec());
        for _ in 0..=rng.index(8) {
            let (at, span) = targets[rng.index(targets.len())];
            let value = [0, 1, 0x7f, 0xff, rng.draw().to_be_bytes()[0]][rng.index(5)];
            head[at + rng.index(span)] = value;
        }
        let wrong = Bench { heads: vec![(Arc::new(head), len)], longest: bench.longest.clone() };
        if let Ok(vg) = wrong.read(1, None) {
            assert_leads_into_the_data_area(&vg, len, format!("seed {seed}"));
            served += 1;
        }
    }
    assert!(served > 30, "the dice must leave something to serve: {served}");
    assert!(bench.longest.load(Ordering::Relaxed) <= READ_MAX);
}

#[test]
fn any_bytes_at_all_are_refused_without_a_panic() {
    for seed in 0..1000 {
        let mut rng = Rng::new(seed);
        let sectors = rng.index(130);
        let mut bytes: Vec<u8> = Vec::new();
        while bytes.len() < sectors * 512 + rng.index(40) {
            let draw = if rng.one_in(3) { 0 } else { rng.draw() };
            bytes.extend(draw.to_be_bytes());
        }
        for magic in [&[0xc9, 0xc2, 0xd4, 0xc1][..], b"_LVM", b"DEFECT"] {
            let len = magic.len().min(bytes.len());
            bytes[..len].copy_from_slice(&magic[..len]);
            let _ = (Ipl::decode(&bytes), Record::decode(&bytes), badblocks::decode(&bytes));
        }
        if bytes.len() > 1024 {
            let (opening, last) = (bytes[..8].to_vec(), bytes.len() / 512 - 1);
            bytes[last * 512..last * 512 + 8].copy_from_slice(&opening);
        }
        let _ = vgda::Vgda::decode(&bytes, &[(1, Pvid([7; 16]))]);
    }
}

#[test]
fn counts_at_their_largest_are_refused_or_clamped() {
    let bench = Bench::new(&recipe(3));
    let area = 136 * 512;
    let places = [24, 26, 30, 34, 512 + 14, 512 + 10, 17 * 512 + 16, 17 * 512 + 32 + 6];
    for at in
        places.map(|at| area + at).into_iter().chain([7 * 512 + 24, 7 * 512 + 28, 7 * 512 + 48])
    {
        let (mut head, len) = (bench.heads[0].0.to_vec(), bench.heads[0].1);
        head[at..at + 2].fill(0xff);
        let heads = vec![(Arc::new(head), len)];
        let wrong = Bench { heads, longest: bench.longest.clone() };
        match wrong.read(1, None) {
            Err(why) => assert!(!why.is_empty()),
            Ok(vg) => assert!(vg.lvs.iter().all(|lv| lv.lps.len() <= 2096), "at {at}"),
        }
    }
    assert!(bench.longest.load(Ordering::Relaxed) <= READ_MAX);
}
