//! A UDP relay between two agents that can cut, drop, delay, reorder and damage what it carries.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::spawn;
use std::time::{Duration, Instant};

use vgship_base::sim::Rng;

/// What the relay does to datagrams; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Nothing passes.
    pub cut: bool,
    /// So many in a thousand are lost.
    pub drop: u64,
    /// So many in a thousand have a byte changed.
    pub damage: u64,
    /// Each waits for up to so long, so that later ones overtake. Unit: milliseconds.
    pub delay: u64,
}

/// A relay; it ends with the process.
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    front: UdpSocket,
    faults: Mutex<Faults>,
    target: Mutex<Option<SocketAddr>>,
    rng: Mutex<Rng>,
    passed: AtomicU64,
    damaged: AtomicU64,
    limit: AtomicU64,
    moves: AtomicU64,
    places: AtomicU64,
    waiting: Mutex<BTreeMap<(Instant, u64), Delayed>>,
    news: Condvar,
}

type Delayed = (Arc<UdpSocket>, SocketAddr, Vec<u8>);

impl Relay {
    /// Opens a port of the system's choice; equal seeds roll equal dice.
    pub fn start(seed: u64) -> Relay {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            front,
            faults: Mutex::default(),
            target: Mutex::default(),
            rng: Mutex::new(Rng::new(seed)),
            passed: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            moves: AtomicU64::new(0),
            places: AtomicU64::new(0),
            waiting: Mutex::default(),
            news: Condvar::new(),
        });
        let (forth, late) = (Arc::clone(&shared), Arc::clone(&shared));
        spawn(move || forth.forth());
        spawn(move || late.send_delayed());
        Relay { shared, address }
    }

    /// Where peers reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it sends what comes from peers.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    /// From now on does this to datagrams.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap() = faults;
    }

    /// From now on nothing passes.
    pub fn cut(&self) {
        self.set(Faults { cut: true, ..Faults::default() });
    }

    /// Lets so many more bytes pass, both ways together, then nothing.
    pub fn cut_after(&self, bytes: u64) {
        let limit = self.shared.passed.load(Ordering::SeqCst) + bytes;
        self.shared.limit.store(limit, Ordering::SeqCst);
    }

    /// From now on all pass as they are.
    pub fn restore(&self) {
        self.shared.limit.store(u64::MAX, Ordering::SeqCst);
        self.set(Faults::default());
    }

    /// From now on peers come from other addresses, as after a change of address translation.
    pub fn move_peers(&self) {
        self.shared.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// Addresses that peers have come from, as the target sees them.
    pub fn places(&self) -> u64 {
        self.shared.places.load(Ordering::SeqCst)
    }

    /// Datagrams that were damaged so far.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// From peers to the target: each peer gets a socket of its own there.
    fn forth(self: Arc<Self>) {
        let (mut backs, mut moved) = (HashMap::<SocketAddr, Arc<UdpSocket>>::new(), 0);
        let front = Arc::new(self.front.try_clone().unwrap());
        let mut buffer = vec![0; 65536];
        loop {
            let Ok((len, from)) = self.front.recv_from(&mut buffer) else { continue };
            let Some(target) = *self.target.lock().unwrap() else { continue };
            let moves = self.moves.load(Ordering::SeqCst);
            if moves != moved {
                (moved, backs) = (moves, HashMap::new());
            }
            let back = backs.entry(from).or_insert_with(|| {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                let (this, socket) = (Arc::clone(&self), Arc::clone(&back));
                let front = Arc::clone(&front);
                self.places.fetch_add(1, Ordering::SeqCst);
                spawn(move || {
                    let mut buffer = vec![0; 65536];
                    loop {
                        let Ok((len, _)) = socket.recv_from(&mut buffer) else { continue };
                        this.pass(&front, from, &mut buffer[..len]);
                    }
                });
                back
            });
            self.pass(back, target, &mut buffer[..len]);
        }
    }

    fn pass(&self, by: &Arc<UdpSocket>, to: SocketAddr, data: &mut [u8]) {
        let faults = *self.faults.lock().unwrap();
        if faults.cut || self.passed.load(Ordering::SeqCst) > self.limit.load(Ordering::SeqCst) {
            return;
        }
        let mut late = 0;
        if faults.drop + faults.damage + faults.delay > 0 {
            let mut rng = self.rng.lock().unwrap();
            if rng.below(1000) < faults.drop {
                return;
            }
            if rng.below(1000) < faults.damage && !data.is_empty() {
                let at = usize::try_from(rng.below(data.len() as u64)).unwrap();
                data[at] ^= 1 << rng.below(8);
                self.damaged.fetch_add(1, Ordering::Relaxed);
            }
            late = rng.below(faults.delay * 1000 + 1);
        }
        self.passed.fetch_add(data.len() as u64, Ordering::SeqCst);
        if late == 0 {
            let _ = by.send_to(data, to);
            return;
        }
        let due = Instant::now() + Duration::from_micros(late);
        let mut waiting = self.waiting.lock().unwrap();
        let key = (due, self.passed.load(Ordering::SeqCst));
        waiting.insert(key, (Arc::clone(by), to, data.to_vec()));
        self.news.notify_one();
    }

    fn send_delayed(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        loop {
            let now = Instant::now();
            let rest = match waiting.first_key_value() {
                Some((&(due, _), _)) if due <= now => {
                    let (_, (by, to, data)) = waiting.pop_first().unwrap();
                    let _ = by.send_to(&data, to);
                    continue;
                }
                Some((&(due, _), _)) => due - now,
                None => Duration::from_secs(1),
            };
            waiting = self.news.wait_timeout(waiting, rest).unwrap().0;
        }
    }
}
