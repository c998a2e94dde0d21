//! The VGs on disk images: how they are made and filled, and what they hold. Prefixes are read
//! through the agent's own parser, the last comparison through the map that the maker of the
//! images wrote, which shares no code with it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use vgship_base::disk::Disk;
use vgship_base::io::FileDisk;
use vgship_test_images::{DemoSizes, Written, write_demo_vg};

use super::chain::{Chain, LVS, slot_index};
use super::content::{BLOCK, BLOCK_BYTES, Owner, initial, owner, room};
use super::lane::Lane;
use super::workload::Shared;
use crate::group::aix::{AixVolume, assemble, probe};

/// Bytes at the head of an LV that belong to its own VG.
pub(super) const HEAD: usize = 512;

/// How much is read at a time. Unit: bytes.
const PIECE: usize = 1 << 20;

/// One side's VG.
pub(super) struct Images {
    /// Where everything lies on the disks.
    pub(super) written: Written,
    files: Vec<File>,
}

/// What a side's LVs hold of what was written, each content checked by itself.
pub(super) struct Found {
    chain: [Vec<u64>; LVS],
    load: [Vec<Option<u64>>; LVS],
}

/// Two sides that were compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    /// Bytes of LVs that are equal on both sides.
    pub(super) bytes: u64,
    /// Bytes of further copies that are equal to the first, on the replica.
    pub(super) mirrored: u64,
}

impl Images {
    /// Makes a VG's disks in a new folder.
    pub(super) fn make(dir: &Path, sizes: DemoSizes, seed: u64) -> Result<Images> {
        std::fs::create_dir(dir).with_context(|| format!("make the folder {}", dir.display()))?;
        let written = write_demo_vg(dir, sizes, seed)?;
        ensure!(written.lvs.len() == LVS, "the VG has other LVs than expected");
        let open = |path: &std::path::PathBuf| {
            let file = OpenOptions::new().read(true).write(true).open(path);
            file.with_context(|| format!("open {}", path.display()))
        };
        let files: Result<_> = written.disks.iter().map(open).collect();
        Ok(Images { files: files?, written })
    }

    /// How an agent is told of it.
    pub(super) fn spec(&self) -> String {
        let paths: Vec<String> =
            self.written.disks.iter().map(|path| path.display().to_string()).collect();
        format!("aix-disks:{}", paths.join(","))
    }

    /// Size of each LV. Unit: bytes.
    pub(super) fn lv_bytes(&self) -> u64 {
        self.written.bytes(&self.written.lvs[0])
    }

    /// Fills all LVs, all copies, with their first content, but for the heads.
    pub(super) fn fill(&self, seed: u64) -> Result<()> {
        for (lv, expected) in self.written.lvs.iter().enumerate() {
            let blocks = self.written.pp_bytes / BLOCK_BYTES;
            for (lp, places) in (0..).zip(&expected.lps) {
                let skip = if lp == 0 { HEAD } else { 0 };
                let content: Vec<u8> =
                    (lp * blocks..(lp + 1) * blocks).flat_map(|at| initial(seed, lv, at)).collect();
                for place in places {
                    let file = &self.files[place.disk];
                    file.write_all_at(&content[skip..], place.offset + skip as u64)?;
                }
            }
        }
        Ok(())
    }

    /// The head of each copy of each LV.
    pub(super) fn heads(&self) -> Result<Vec<[u8; HEAD]>> {
        let firsts = self.written.lvs.iter().filter_map(|lv| lv.lps.first());
        firsts
            .flatten()
            .map(|place| {
                let mut head = [0; HEAD];
                self.files[place.disk].read_exact_at(&mut head, place.offset)?;
                Ok(head)
            })
            .collect()
    }

    /// Reads all LVs as the agents do, and checks every block by itself.
    pub(super) fn read(&self, seed: u64, shared: &Shared) -> Result<Found> {
        let members = self.written.disks.iter().map(|path| {
            let disk = FileDisk::open_read_only(path)?;
            Ok(probe(&path.to_string_lossy(), Arc::new(disk))?)
        });
        let vg = assemble(&members.collect::<Result<Vec<_>>>()?)?;
        let volumes = self.written.lvs.iter().map(|expected| {
            let described = vg.lvs.iter().find(|it| it.name == expected.name);
            let described =
                described.with_context(|| format!("LV {} is missing", expected.name))?;
            AixVolume::open(&vg, described).map_err(anyhow::Error::msg)
        });
        let volumes = volumes.collect::<Result<Vec<_>>>()?;
        Found::read(
            seed,
            shared,
            self.lv_bytes(),
            |lv, at, into| Ok(volumes[lv].read_at(at, into)?),
        )
    }

    /// Compares all LVs with those of `replica` byte by byte, and the replica's copies with each
    /// other.
    pub(super) fn compare(&self, replica: &Images) -> Result<Compared> {
        let mut compared = Compared { bytes: 0, mirrored: 0 };
        let step = self.written.pp_bytes;
        for (ours, theirs) in self.written.lvs.iter().zip(&replica.written.lvs) {
            ensure!(ours.lps.len() == theirs.lps.len(), "{} has another size", ours.name);
            for (lp, (from, to)) in ours.lps.iter().zip(&theirs.lps).enumerate() {
                let skip = if lp == 0 { HEAD } else { 0 };
                let piece = |images: &Images, place: &vgship_test_images::Place| {
                    let mut bytes = vec![0; size(step) - skip];
                    images.files[place.disk]
                        .read_exact_at(&mut bytes, place.offset + skip as u64)?;
                    anyhow::Ok(bytes)
                };
                let first = from.first().context("a partition without a copy")?;
                let right = piece(self, first)?;
                for (copy, place) in to.iter().enumerate() {
                    let found = piece(replica, place)?;
                    if let Some(at) = right.iter().zip(&found).position(|(one, two)| one != two) {
                        let at = lp as u64 * step + (skip + at) as u64;
                        bail!("{}, copy {copy}: byte {at} differs on the replica", ours.name);
                    }
                    let count =
                        if copy == 0 { &mut compared.bytes } else { &mut compared.mirrored };
                    *count += found.len() as u64;
                }
            }
        }
        Ok(compared)
    }
}

/// Checks the blocks of one LV.
struct Judge<'a> {
    lv: usize,
    seed: u64,
    chain: &'a Chain,
    lane: &'a Lane,
    shared: &'a Shared,
}

impl Judge<'_> {
    fn volume(
        &self,
        bytes: u64,
        found: &mut Found,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = vec![0; PIECE];
        for at in (0..bytes).step_by(PIECE) {
            let len = size((bytes - at).min(PIECE as u64));
            read(at, &mut piece[..len])?;
            for (block, content) in (at / BLOCK_BYTES..).zip(piece[..len].chunks(BLOCK)) {
                self.block(block, content, found).map_err(anyhow::Error::msg)?;
            }
        }
        Ok(())
    }

    fn block(&self, block: u64, content: &[u8], found: &mut Found) -> Result<(), String> {
        match owner(block) {
            Owner::Chain { .. } => {
                let step = self.chain.written_by(self.lv, block, content)?;
                found.chain[self.lv][slot_index(block)] = step;
                return Ok(());
            }
            Owner::Load { index } => {
                let write = self.lane.written_by(&self.shared.pool, index, content)?;
                found.load[self.lv][size(index)] = write;
                if write.is_some() {
                    return Ok(());
                }
            }
            Owner::Nobody => {}
        }
        let skip = if block == 0 { HEAD } else { 0 };
        match initial(self.seed, self.lv, block)[skip..] == content[skip..] {
            true => Ok(()),
            false => Err(format!("block {block} holds what nobody wrote there")),
        }
    }
}

impl Found {
    /// Reads all LVs, each of so many bytes, and checks every block by itself.
    pub(super) fn read(
        seed: u64,
        shared: &Shared,
        lv_bytes: u64,
        mut read: impl FnMut(usize, u64, &mut [u8]) -> Result<()>,
    ) -> Result<Found> {
        let (chain, lanes) = (shared.chain(), shared.lanes());
        let (slots, load) = room(lv_bytes);
        let mut found = Found {
            chain: [(); LVS].map(|()| vec![0; size(slots * 4)]),
            load: [(); LVS].map(|()| vec![None; size(load)]),
        };
        for (lv, lane) in lanes.iter().enumerate() {
            let judge = Judge { lv, seed, chain: &chain, lane, shared };
            judge
                .volume(lv_bytes, &mut found, |at, into| read(lv, at, into))
                .with_context(|| format!("LV {lv} is wrong"))?;
        }
        Ok(found)
    }

    /// Proves that this is a state that the source was in: exactly the first so many steps of the
    /// chain, between `least` and all that were issued, and beside them no write of the load that
    /// came later, and every one that was done before.
    pub(super) fn prove_prefix(&self, least: u64, shared: &Shared) -> Result<u64> {
        let (chain, lanes) = (shared.chain(), shared.lanes());
        let prefixes = chain.prefixes(&self.chain);
        let (nearest, wrong) = prefixes.nearest;
        let Some(most) = prefixes.fits.last().copied() else {
            bail!(
                "this is no prefix of the {} steps: {wrong} blocks contradict the nearest, {nearest}",
                chain.last()
            );
        };
        ensure!(most >= least, "only {most} steps are there; {least} were durable on the replica");
        let mut why = None;
        for steps in prefixes.fits.into_iter().rev().filter(|steps| *steps >= least) {
            let mut checked = lanes.iter().zip(&self.load);
            match checked.try_for_each(|(lane, found)| lane.check(found, Some(steps))) {
                Ok(()) => return Ok(steps),
                Err(error) => why = Some(error),
            }
        }
        bail!("the load contradicts the prefix of {most} steps: {}", why.unwrap_or_default())
    }

    /// Proves that everything is there.
    pub(super) fn prove_whole(&self, shared: &Shared) -> Result<()> {
        let chain = shared.chain();
        let prefixes = chain.prefixes(&self.chain);
        ensure!(
            prefixes.fits.contains(&chain.last()),
            "{} steps were done; the LVs show {:?}",
            chain.last(),
            prefixes.nearest
        );
        for (lane, found) in shared.lanes().iter().zip(&self.load) {
            lane.check(found, None).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }
}

/// A count that fits this machine's memory.
fn size(count: u64) -> usize {
    usize::try_from(count).expect("an LV of the demonstration fits the memory")
}
