//! An application whose every write carries a running number, so that a copy of its volumes shows
//! exactly how far it had come; it survives its server's end.
//!
//! Each writer has a share of a volume's runs of blocks and one write under way. A block holds its
//! own number and that of the write in every eight bytes, or zeroes. A write that was not answered
//! is done again, with its number, until it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use vgship_base::sim::Rng;

use crate::{Nbd, Order};

const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;

/// Blocks in a run that one writer owns.
const RUN: u64 = 40;

/// Writers at work.
pub struct Stamps {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    /// Nobody waits for an answer any more.
    given_up: AtomicBool,
    order: Mutex<Order>,
    lanes: Vec<Lane>,
}

/// What one writer did, on which blocks.
struct Lane {
    volume: String,
    /// Of so many writers on the volume this is that one.
    part: u64,
    parts: u64,
    writes: Mutex<Vec<Write>>,
}

/// A write. The one with number N stands at N - 1.
#[derive(Clone, Copy)]
struct Write {
    first: u64,
    count: u64,
    zero: bool,
    /// It was once not answered, so it may have been done in part.
    torn: bool,
}

impl Write {
    fn covers(&self, block: u64) -> bool {
        (self.first..self.first + self.count).contains(&block)
    }
}

impl Lane {
    fn owns(&self, block: u64) -> bool {
        block / RUN % self.parts == self.part
    }
}

/// What a block holds after a write of this number, 0 for zeroes.
fn content(block: u64, number: u64) -> Vec<u8> {
    let word = match number {
        0 => 0,
        _ => block << 32 | number,
    };
    word.to_be_bytes().repeat(BLOCK_LEN / 8)
}

impl Stamps {
    /// Starts `each` writers for every volume; each does at most about 1,000 writes a second.
    pub fn start(socket: &Path, volumes: &[&str], each: u64, seed: u64) -> Stamps {
        let lane = |volume: &str, part| Lane {
            volume: volume.to_owned(),
            part,
            parts: each,
            writes: Mutex::default(),
        };
        let parts = |volume| (0..each).map(move |part| lane(volume, part));
        let lanes: Vec<Lane> = volumes.iter().flat_map(|volume| parts(*volume)).collect();
        let order = Mutex::new(Order::new(lanes.len()));
        let (stop, given_up) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { stop, given_up, order, lanes });
        let mut rng = Rng::new(seed);
        let writer = |stream| Writer {
            socket: socket.to_owned(),
            shared: Arc::clone(&shared),
            stream,
            rng: rng.fork(),
            holds: BTreeMap::new(),
        };
        let writers: Vec<Writer> = (0..shared.lanes.len()).map(writer).collect();
        let writers = writers.into_iter().map(|writer| spawn(move || writer.run())).collect();
        Stamps { shared, writers }
    }

    /// Writes that each writer was told are done.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.shared.order.lock().unwrap().acknowledged()
    }

    /// Writes acknowledged so far.
    pub fn writes(&self) -> u64 {
        self.acknowledged().iter().sum()
    }

    /// Ends the writers. The server must be up.
    pub fn rest(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for writer in self.writers.drain(..) {
            writer.join().unwrap();
        }
    }

    /// Gives how many writes of each writer the images hold, or why that is no prefix of all that
    /// was written, with the first `floor` writes of each.
    pub fn check(
        &self,
        image: impl Fn(&str) -> PathBuf,
        floor: &[u64],
    ) -> Result<Vec<u64>, String> {
        let mut found = Vec::new();
        for (lane, &floor) in self.shared.lanes.iter().zip(floor) {
            let file = File::open(image(&lane.volume)).map_err(|error| error.to_string())?;
            found.push(lane.found_in(&file, floor)?);
        }
        self.shared.order.lock().unwrap().judge(&found, floor)?;
        Ok(found)
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.given_up.store(true, Ordering::SeqCst);
    }
}

impl Lane {
    /// How many writes an image holds.
    fn found_in(&self, image: &File, floor: u64) -> Result<u64, String> {
        let stamps = self.stamps_in(image)?;
        let writes = self.writes.lock().unwrap().clone();
        let mut writers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (write, number) in writes.iter().zip(1..) {
            for block in write.first..write.first + write.count {
                writers.entry(block).or_default().push(number);
            }
        }
        let newest = stamps.values().copied().max().unwrap_or(0);
        let write = |number: u64| writes.get(usize::try_from(number).unwrap().checked_sub(1)?);
        let is_state = |after: u64| {
            let torn = write(after).filter(|write| write.torn && after > floor);
            for (&block, &stamp) in &stamps {
                let numbers = writers.get(&block).map_or(&[][..], Vec::as_slice);
                let done = numbers.partition_point(|&number| number <= after);
                let holds = |number: u64| match write(number) {
                    Some(write) if !write.zero => number,
                    _ => 0,
                };
                let wanted = holds(done.checked_sub(1).map_or(0, |last| numbers[last]));
                let before = holds(done.checked_sub(2).map_or(0, |last| numbers[last]));
                let may_be_older = torn.is_some_and(|write| write.covers(block));
                if stamp != wanted && !(may_be_older && stamp == before) {
                    return Err(format!(
                        "{} holds write {newest} of writer {}, but block {block} holds write \
                         {stamp} instead of {wanted}",
                        self.volume, self.part
                    ));
                }
            }
            Ok(after)
        };
        // Zeroes have no number; a writer never sends them twice in a row.
        let is_zero = write(newest + 1).is_some_and(|write| write.zero);
        is_state(newest).or_else(|said| match is_zero {
            true => is_state(newest + 1).map_err(|_| said),
            false => Err(said),
        })
    }

    /// The number in each block of this writer, 0 for zeroes.
    fn stamps_in(&self, image: &File) -> Result<BTreeMap<u64, u64>, String> {
        let blocks = image.metadata().map_err(|error| error.to_string())?.len() / BLOCK;
        let (mut stamps, mut found) = (BTreeMap::new(), vec![0; BLOCK_LEN]);
        for block in (0..blocks).filter(|&block| self.owns(block)) {
            image.read_exact_at(&mut found, block * BLOCK).map_err(|error| error.to_string())?;
            let word = u64::from_be_bytes(found[..8].try_into().unwrap());
            let number = word & 0xffff_ffff;
            if found != content(block, number) {
                let (volume, head) = (&self.volume, &found[..16]);
                return Err(format!("block {block} of {volume} holds {head:02x?}..., no write"));
            }
            stamps.insert(block, number);
        }
        Ok(stamps)
    }
}

struct Writer {
    socket: PathBuf,
    shared: Arc<Shared>,
    stream: usize,
    rng: Rng,
    /// The last write of each block that is not zero.
    holds: BTreeMap<u64, u64>,
}

impl Writer {
    fn run(mut self) {
        let mut unsure = false;
        let is_set = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        while (unsure || !is_set(&self.shared.stop)) && !is_set(&self.shared.given_up) {
            let lane = &self.shared.lanes[self.stream];
            if let Ok(mut nbd) = Nbd::open(&self.socket, &lane.volume) {
                unsure = self.write_on(&mut nbd, unsure).is_err();
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Writes until it shall end. On an error the last write is not answered.
    fn write_on(&mut self, nbd: &mut Nbd, mut again: bool) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        while again || !shared.stop.load(Ordering::SeqCst) {
            let (number, write) = match again {
                true => self.last_again(),
                false => self.next(nbd.bytes()),
            };
            again = false;
            let Write { first, count, zero, .. } = write;
            if zero {
                nbd.zero(first * BLOCK, usize::try_from(count * BLOCK).unwrap())?;
            } else {
                let blocks = first..first + count;
                let data: Vec<u8> = blocks.flat_map(|block| content(block, number)).collect();
                nbd.write(first * BLOCK, &data)?;
            }
            shared.order.lock().unwrap().acknowledge(self.stream);
            if self.rng.one_in(100) {
                // A flush that fails leaves no write unsure.
                let _ = nbd.flush();
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn last_again(&self) -> (u64, Write) {
        let mut writes = self.shared.lanes[self.stream].writes.lock().unwrap();
        let number = writes.len() as u64;
        let last = writes.last_mut().unwrap();
        last.torn = true;
        (number, *last)
    }

    fn next(&mut self, bytes: u64) -> (u64, Write) {
        let lane = &self.shared.lanes[self.stream];
        let runs = bytes / BLOCK / RUN;
        let run = self.rng.below(runs / lane.parts) * lane.parts + lane.part;
        let skip = self.rng.below(RUN);
        let count = match self.rng.below(4) {
            0 => 1 + self.rng.below(RUN - skip),
            _ => 1,
        };
        let first = run * RUN + skip;
        let mut writes = lane.writes.lock().unwrap();
        let may_zero = writes.last().is_none_or(|write| !write.zero);
        let zero = may_zero && self.holds.contains_key(&first) && self.rng.one_in(3);
        writes.push(Write { first, count, zero, torn: false });
        // Under the lock, so that whoever looks finds no number without its write.
        let number = self.shared.order.lock().unwrap().issue(self.stream);
        assert_eq!(number, writes.len() as u64);
        for block in first..first + count {
            match zero {
                true => self.holds.remove(&block),
                false => self.holds.insert(block, number),
            };
        }
        (number, writes[writes.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six blocks: 2 to 3 written, 3 to 4 written, 2 to 3 zeroed, 5 written.
    fn lane() -> Lane {
        let write = |first, count, zero| Write { first, count, zero, torn: false };
        let writes =
            vec![write(2, 2, false), write(3, 2, false), write(2, 2, true), write(5, 1, false)];
        Lane { volume: "v".into(), part: 0, parts: 1, writes: Mutex::new(writes) }
    }

    fn found(lane: &Lane, stamps: [u64; 6], floor: u64) -> Result<u64, String> {
        let file = tempfile::tempfile().unwrap();
        for (block, &stamp) in stamps.iter().enumerate() {
            let block = block as u64;
            file.write_all_at(&content(block, stamp), block * BLOCK).unwrap();
        }
        lane.found_in(&file, floor)
    }

    #[test]
    fn each_prefix_is_told_from_the_others() {
        let states = [[0; 6], [0, 0, 1, 1, 0, 0], [0, 0, 1, 2, 2, 0], [0, 0, 0, 0, 2, 0]];
        for (state, number) in states.into_iter().zip(0..) {
            assert_eq!(found(&lane(), state, 0), Ok(number));
        }
        assert_eq!(found(&lane(), [0, 0, 0, 0, 2, 4], 0), Ok(4));
    }

    #[test]
    fn what_is_no_prefix_is_said() {
        let wrong = [
            [0, 0, 1, 0, 0, 0], // the first in part
            [0, 0, 0, 2, 2, 0], // the second without the first
            [0, 0, 1, 2, 2, 4], // the fourth without the zeroes
            [1, 0, 1, 1, 0, 0], // where nobody wrote
        ];
        for state in wrong {
            assert!(found(&lane(), state, 0).is_err(), "{state:?}");
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(6 * BLOCK).unwrap();
        file.write_all_at(&content(3, 1), 2 * BLOCK).unwrap();
        assert!(lane().found_in(&file, 0).unwrap_err().contains("no write"));
    }

    #[test]
    fn only_the_last_write_may_be_torn_and_only_if_it_was() {
        let lane = lane();
        lane.writes.lock().unwrap()[1].torn = true;
        assert_eq!(found(&lane, [0, 0, 1, 1, 2, 0], 0), Ok(2));
        assert!(found(&lane, [0, 0, 1, 1, 2, 0], 2).is_err(), "it was promised whole");
        assert!(found(&lane, [0, 0, 1, 1, 2, 4], 0).is_err());
        lane.writes.lock().unwrap()[2].torn = true;
        assert_eq!(found(&lane, [0, 0, 0, 2, 2, 0], 0), Ok(3));
    }
}
