//! An application that remembers what it was told is written, and survives its server's end.
//!
//! Each writer owns every so-manieth run of blocks of a volume; a block holds its number and a
//! version in every eight bytes, or zeroes for version 0.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use vgship_base::sim::Rng;

use super::Nbd;

const BLOCK: u64 = 4096;

/// Blocks in a run that one writer owns.
const RUN: u64 = 40;

/// What a block may hold: the version last acknowledged, and those that were asked for since.
#[derive(Clone, Debug, Default)]
struct Versions {
    acknowledged: u64,
    unsure: Vec<u64>,
}

/// What the blocks of a volume may hold.
type Blocks = BTreeMap<u64, Versions>;

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    writers: Vec<JoinHandle<(String, Blocks)>>,
}

/// What the writers know at their end.
pub struct Written {
    volumes: Vec<(String, Blocks)>,
    pub writes: u64,
}

fn content(block: u64, version: u64) -> Vec<u8> {
    let word = match version {
        0 => 0,
        _ => block << 32 | version,
    };
    word.to_be_bytes().repeat(usize::try_from(BLOCK / 8).unwrap())
}

impl Load {
    /// Starts `each` writers for every volume; each does at most about 1,000 writes a second.
    pub fn start(socket: &Path, volumes: &[&str], each: u64, seed: u64) -> Load {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = Vec::new();
        for (number, volume) in volumes.iter().enumerate() {
            for part in 0..each {
                let writer = Writer {
                    socket: socket.to_owned(),
                    volume: (*volume).to_owned(),
                    part: (part, each),
                    rng: Rng::new(seed ^ (number as u64) << 32 ^ part << 48),
                    blocks: Blocks::new(),
                    next: 1,
                    stop: Arc::clone(&stop),
                    writes: Arc::clone(&writes),
                };
                writers.push(spawn(move || writer.run()));
            }
        }
        Load { stop, writes, writers }
    }

    /// Writes acknowledged so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Ends the writers. The server must be up, or they have to be at rest.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        let volumes = self.writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        Written { volumes, writes: self.writes.load(Ordering::SeqCst) }
    }
}

struct Writer {
    socket: PathBuf,
    volume: String,
    part: (u64, u64),
    rng: Rng,
    blocks: Blocks,
    next: u64,
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self) -> (String, Blocks) {
        while !self.stop.load(Ordering::SeqCst) {
            if let Ok(mut nbd) = Nbd::open(&self.socket, &self.volume) {
                self.write_on(&mut nbd);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        (self.volume, self.blocks)
    }

    fn write_on(&mut self, nbd: &mut Nbd) {
        let (part, parts) = self.part;
        let runs = nbd.bytes() / BLOCK / RUN;
        while !self.stop.load(Ordering::SeqCst) {
            let run = self.rng.below(runs / parts) * parts + part;
            let skip = self.rng.below(RUN);
            let count = match self.rng.below(4) {
                0 => 1 + self.rng.below(RUN - skip),
                _ => 1,
            };
            let first = run * RUN + skip;
            let zero = self.rng.one_in(10);
            let version = if zero { 0 } else { self.next };
            self.next += 1;
            for block in first..first + count {
                self.blocks.entry(block).or_default().unsure.push(version);
            }
            let done = if zero {
                nbd.zero(first * BLOCK, usize::try_from(count * BLOCK).unwrap())
            } else {
                let data: Vec<u8> =
                    (first..first + count).flat_map(|block| content(block, version)).collect();
                nbd.write(first * BLOCK, &data)
            };
            if done.is_err() {
                return;
            }
            for block in first..first + count {
                let known = Versions { acknowledged: version, unsure: Vec::new() };
                self.blocks.insert(block, known);
            }
            self.writes.fetch_add(1, Ordering::SeqCst);
            if self.rng.one_in(100) && nbd.flush().is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Written {
    /// Fails unless the image holds every write that was acknowledged, and nothing that was not
    /// asked for.
    #[track_caller]
    pub fn check(&self, image: impl Fn(&str) -> PathBuf) {
        let mut checked = 0;
        for (volume, blocks) in &self.volumes {
            let file = File::open(image(volume)).unwrap();
            let mut found = vec![0; usize::try_from(BLOCK).unwrap()];
            for (&block, versions) in blocks {
                file.read_exact_at(&mut found, block * BLOCK).unwrap();
                let mut may = versions.unsure.iter().chain([&versions.acknowledged]);
                assert!(
                    may.any(|&version| found == content(block, version)),
                    "block {block} of {volume} holds {:02x?}..., not one of {versions:?}",
                    &found[..16]
                );
                checked += 1;
            }
        }
        assert!(checked > 0, "nothing was written");
    }
}
