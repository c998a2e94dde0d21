//! The watch: one thread of a server that finds calls which block although they were expected to
//! be quick, and hands their connection's turn on. It sleeps while no client works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::super::limits::{WATCH_LINGER, WATCH_TICK};

/// What is watched.
pub trait Watched: Send + Sync {
    /// Looks whether it is stuck and helps; whether it has work under way or had since last asked.
    fn look(self: Arc<Self>) -> bool;
}

/// The watch of one server.
#[derive(Default)]
pub struct Watch {
    state: Mutex<State>,
    wake: Condvar,
    asleep: AtomicBool,
}

#[derive(Default)]
struct State {
    watched: Vec<Weak<dyn Watched>>,
    stopped: bool,
}

impl Watch {
    /// Also watches this one, until it is dropped.
    pub fn add(&self, watched: Weak<dyn Watched>) {
        self.lock().watched.push(watched);
    }

    /// Called by a connection after each turn that it has taken. Costs nothing unless all slept.
    pub fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            let _held = self.lock(); // so that it does not slip between look and sleep
            self.wake.notify_all();
        }
    }

    /// Ends [`Watch::run`].
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.wake.notify_all();
    }

    /// Watches until stopped.
    pub fn run(&self) {
        let mut last_busy = Instant::now();
        let mut state = self.lock();
        while !state.stopped {
            let resting = last_busy.elapsed() > WATCH_LINGER;
            if resting {
                // Announced first: whoever begins after the look below sees it and rouses.
                self.asleep.store(true, Ordering::SeqCst);
            }
            state.watched.retain(|watched| watched.strong_count() > 0);
            let watched: Vec<Arc<dyn Watched>> =
                state.watched.iter().filter_map(Weak::upgrade).collect();
            drop(state);
            let busy = watched.into_iter().map(Watched::look).filter(|&busy| busy).count() > 0;
            state = self.lock();
            if busy {
                last_busy = Instant::now();
                self.asleep.store(false, Ordering::SeqCst);
            }
            if state.stopped {
                break;
            }
            let nap = match resting && self.asleep.load(Ordering::SeqCst) {
                true => Duration::MAX,
                false => WATCH_TICK,
            };
            state = self.nap(state, nap);
            if nap == Duration::MAX {
                last_busy = Instant::now();
            }
        }
    }

    fn nap<'a>(&self, state: MutexGuard<'a, State>, nap: Duration) -> MutexGuard<'a, State> {
        if nap == Duration::MAX {
            return self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let waited = self.wake.wait_timeout(state, nap);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the watch's thread.
pub fn start(watch: &Arc<Watch>) -> std::io::Result<thread::JoinHandle<()>> {
    let watch = Arc::clone(watch);
    thread::Builder::new().name("nbd-watch".into()).spawn(move || watch.run())
}
