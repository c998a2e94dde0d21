//! The threads that write: one for the chain, one per lane. A connection that is lost is made
//! again, and what was in flight on it is written again.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::chain::{Chain, LVS, Step};
use super::content::{BLOCK, BLOCK_BYTES, Pool, room};
use super::lane::Lane;
use super::nbd::{Client, Command, Request, is_refusal};
use super::pace::Pace;

/// How long a thread that may not write, or cannot connect, waits before it looks again.
const LOOK: Duration = Duration::from_millis(1);

/// The same while there is no server.
const RECONNECT: Duration = Duration::from_millis(20);

/// Writes in flight of a lane of small and of large writes.
const DEPTHS: [usize; 2] = [8, 3];

/// Blocks of a write of a lane.
const UNITS: [u64; 2] = [1, 16];

/// Where and what to write.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The source's NBD socket.
    pub(super) socket: PathBuf,
    /// The exports' names, an LV each.
    pub(super) exports: [String; LVS],
    /// Size of each LV. Unit: bytes.
    pub(super) lv_bytes: u64,
    /// Of all content.
    pub(super) seed: u64,
}

/// The workload, running until [`Workload::end`].
pub(super) struct Workload {
    /// What its threads share.
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads and the observer share.
pub(super) struct Shared {
    target: Target,
    /// How fast to write.
    pub(super) pace: Pace,
    /// The load's bytes.
    pub(super) pool: Pool,
    chain: Mutex<Chain>,
    lanes: Vec<Mutex<Lane>>,
    done_steps: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
    in_doubt: Mutex<Vec<String>>,
    failure: Mutex<Option<String>>,
    stop: AtomicBool,
}

/// Counts since the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Writes that completed.
    pub(super) writes: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Steps of the chain that completed.
    pub(super) steps: u64,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workload {
    /// Connects and waits for a pace.
    pub(super) fn start(target: Target) -> io::Result<Workload> {
        let (slots, blocks) = room(target.lv_bytes);
        // Small writes on the mirrored and the scattered LV, large ones on the others.
        let lane = |lv: usize| Lane::new(lv, UNITS[usize::from(lv == 1 || lv == 2)], blocks);
        let shared = Arc::new(Shared {
            pace: Pace::new(),
            pool: Pool::new(target.seed),
            chain: Mutex::new(Chain::new(target.seed, slots)),
            lanes: (0..LVS).map(|lv| Mutex::new(lane(lv))).collect(),
            done_steps: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            in_doubt: Mutex::default(),
            failure: Mutex::default(),
            stop: AtomicBool::new(false),
            target,
        });
        let mut workload = Workload { shared: Arc::clone(&shared), threads: Vec::new() };
        let run = Arc::clone(&shared);
        workload.spawn("chain", move || run.chain_thread())?;
        for lane in 0..LVS {
            let run = Arc::clone(&shared);
            workload.spawn("lane", move || run.lane_thread(lane))?;
        }
        Ok(workload)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// Ends the threads; what is in flight is waited for, unless its server has gone.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail("a thread of the workload panicked".into());
            }
        }
        self.shared.healthy()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // What went wrong has been told, or something else has.
        let _ = self.end();
    }
}

impl Shared {
    /// The chain as it is now.
    pub(super) fn chain(&self) -> Chain {
        hold(&self.chain).clone()
    }

    /// The lanes as they are now.
    pub(super) fn lanes(&self) -> Vec<Lane> {
        self.lanes.iter().map(|lane| hold(lane).clone()).collect()
    }

    /// What has completed.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            writes: self.writes.load(Ordering::SeqCst),
            bytes: self.bytes.load(Ordering::SeqCst),
            steps: self.done_steps.load(Ordering::SeqCst),
        }
    }

    /// What became of the steps that were in flight when their server died.
    pub(super) fn in_doubt(&self) -> Vec<String> {
        hold(&self.in_doubt).clone()
    }

    /// Whether nothing went wrong; else what.
    pub(super) fn healthy(&self) -> Result<(), String> {
        hold(&self.failure).clone().map_or(Ok(()), Err)
    }

    fn fail(&self, why: String) {
        hold(&self.failure).get_or_insert(why);
        self.stop.store(true, Ordering::SeqCst);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn connect(&self, lv: usize) -> io::Result<Client> {
        Client::connect(&self.target.socket, &self.target.exports[lv])
    }

    /// A lost connection is made again; a server that refuses ends the workload.
    fn lost(&self, what: &str, error: &io::Error) {
        if is_refusal(error) {
            self.fail(format!("{what}: {error}"));
        } else {
            std::thread::sleep(RECONNECT);
        }
    }

    fn count(&self, bytes: u64) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    fn chain_thread(&self) {
        let mut clients: Vec<Client> = Vec::new();
        let mut open: Option<u64> = None;
        while !self.stopped() {
            if clients.is_empty() {
                match (0..LVS).map(|lv| self.connect(lv)).collect() {
                    Ok(connected) => clients = connected,
                    Err(error) => {
                        self.lost("the chain cannot connect", &error);
                        continue;
                    }
                }
            }
            let done = if let Some(n) = open {
                self.resume_step(&mut clients, n)
            } else {
                let n = self.done_steps.load(Ordering::SeqCst) + 1;
                let step = hold(&self.chain).step(n);
                if !self.pace.take(step.blocks * BLOCK_BYTES) {
                    std::thread::sleep(LOOK);
                    continue;
                }
                open = Some(hold(&self.chain).issue());
                self.do_step(&mut clients, n)
            };
            match done {
                Ok(()) => open = None,
                Err(error) => {
                    clients.clear();
                    self.lost("a step of the chain", &error);
                }
            }
        }
    }

    fn do_step(&self, clients: &mut [Client], n: u64) -> io::Result<()> {
        let (step, data) = {
            let chain = hold(&self.chain);
            (chain.step(n), chain.data(n))
        };
        let client = &mut clients[step.lv];
        let len = u32::try_from(data.len()).map_err(io::Error::other)?;
        let (command, data) = match step.zero {
            true => (Command::Zero, &[][..]),
            false => (Command::Write, &data[..]),
        };
        let offset = step.block * BLOCK_BYTES;
        client.call(&Request { command, offset, len, data, durable: step.durable })?;
        if step.flush {
            client.flush()?;
        }
        self.done_steps.store(n, Ordering::SeqCst);
        self.count(step.blocks * BLOCK_BYTES);
        Ok(())
    }

    /// Finds out what became of a step whose server died, and does it once more: a server that
    /// died within a mirrored write may have left it on one copy alone.
    fn resume_step(&self, clients: &mut [Client], n: u64) -> io::Result<()> {
        let (step, right) = {
            let chain = hold(&self.chain);
            (chain.step(n), chain.data(n))
        };
        let mut found = vec![0; right.len()];
        clients[step.lv].read(step.block * BLOCK_BYTES, &mut found)?;
        hold(&self.in_doubt).push(fate(step, n, &right, &found));
        self.do_step(clients, n)
    }

    fn lane_thread(&self, number: usize) {
        let lane = &self.lanes[number];
        let (lv, bytes) = {
            let lane = hold(lane);
            (lane.lv, lane.bytes())
        };
        let depth = DEPTHS[usize::from(bytes > BLOCK_BYTES)];
        let mut flight: BTreeSet<u64> = BTreeSet::new();
        let mut client: Option<Client> = None;
        while !self.stopped() || !flight.is_empty() {
            let connected = match &mut client {
                Some(client) => self.lane_turn(lane, client, &mut flight, (bytes, depth)),
                // The server has gone and nobody will wait for it.
                None if self.stopped() => return,
                None => self.connect(lv).and_then(|mut fresh| {
                    flight.iter().try_for_each(|&write| self.send(&mut fresh, lane, write))?;
                    client = Some(fresh);
                    Ok(())
                }),
            };
            if let Err(error) = connected {
                client = None;
                self.lost("the load", &error);
            }
        }
    }

    /// Fills the flight, then takes one reply, if one is due.
    fn lane_turn(
        &self,
        lane: &Mutex<Lane>,
        client: &mut Client,
        flight: &mut BTreeSet<u64>,
        (bytes, depth): (u64, usize),
    ) -> io::Result<()> {
        loop {
            let oldest = flight.first().copied().unwrap_or(u64::MAX);
            // The distance is bounded too: two writes to one place are never in flight.
            let near = hold(lane).issued().saturating_sub(oldest) < 2 * depth as u64;
            if self.stopped() || flight.len() >= depth || !near || !self.pace.take(bytes) {
                break;
            }
            let write = hold(lane).issue(self.done_steps.load(Ordering::SeqCst));
            flight.insert(write);
            self.send(client, lane, write)?;
        }
        if flight.is_empty() {
            std::thread::sleep(LOOK);
            return Ok(());
        }
        let write = client.reply()?;
        let issued = hold(&self.chain).last();
        if !flight.remove(&write) {
            return Err(io::Error::other(format!("a reply to write {write}, which is not open")));
        }
        hold(lane).complete(write, issued);
        self.count(bytes);
        Ok(())
    }

    fn send(&self, client: &mut Client, lane: &Mutex<Lane>, write: u64) -> io::Result<()> {
        let (offset, data) = {
            let lane = hold(lane);
            (lane.offset(write), lane.data(&self.pool, write))
        };
        let len = u32::try_from(data.len()).map_err(io::Error::other)?;
        client.send(
            write,
            &Request { command: Command::Write, offset, len, data: &data, durable: false },
        )
    }
}

/// In words, what a crash left of a step.
fn fate(step: Step, n: u64, right: &[u8], found: &[u8]) -> String {
    let blocks = right.chunks(BLOCK).zip(found.chunks(BLOCK));
    let there = blocks.filter(|(right, found)| right == found).count() as u64;
    let fate = match there {
        there if there == step.blocks => "had happened",
        0 => "had not happened",
        _ => "had happened in part",
    };
    format!("step {n} {fate}")
}
