//! The server: accepts clients, counts them, ends them. Decides nothing about what they ask.

mod connection;

pub mod socket;

mod watch;

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::connection::serve;
use self::socket::{Listener, Stream};
use self::watch::Watch;
use super::backend::Exports;
use super::limits::{CONNECTIONS_MAX, STOP_DEADLINE, STOP_GRACE};

/// How long accepting pauses when the system has no room for another client. Unit: time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. Dropping it stops it.
pub struct NbdServer {
    shared: Arc<Shared>,
    listeners: Vec<Arc<Listener>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    exports: Arc<dyn Exports>,
    watch: Arc<Watch>,
    stopping: AtomicBool,
    clients: Mutex<Clients>,
    gone: Condvar,
}

#[derive(Default)]
struct Clients {
    streams: HashMap<u64, Client>,
    next: u64,
}

struct Client {
    stream: Arc<Stream>,
    /// What it uses; `None` before it has said so.
    export: Option<String>,
}

/// Counts and ends a running server's clients. Cheap to clone.
#[derive(Clone)]
pub struct NbdClients(Arc<Shared>);

impl NbdClients {
    /// How many clients use an export of which this holds.
    pub fn using(&self, export: impl Fn(&str) -> bool) -> usize {
        self.0.clients().using(&export).count()
    }

    /// Waits until nobody uses such an export, at most so long; how many still do.
    pub fn wait_until_gone(&self, export: impl Fn(&str) -> bool, at_most: Duration) -> usize {
        self.0.wait_until_gone(|clients| clients.using(&export).count(), at_most)
    }

    /// Ends the connections of those who use such an export, as [`NbdServer::shutdown`] does; how
    /// many have not ended. Nobody new comes in when the exports are not found any more.
    pub fn end(&self, export: impl Fn(&str) -> bool) -> usize {
        let end = |how| {
            let clients = self.0.clients();
            clients.using(&export).for_each(|client| client.stream.shutdown(how));
        };
        let left = |clients: &Clients| clients.using(&export).count();
        end(Shutdown::Read);
        if self.0.wait_until_gone(left, STOP_GRACE) > 0 {
            end(Shutdown::Both);
        }
        self.0.wait_until_gone(left, STOP_DEADLINE)
    }
}

/// One client's place among all, given back when its last thread is done.
struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Clients {
    fn all(&self) -> usize {
        self.streams.len()
    }

    fn using(&self, export: impl Fn(&str) -> bool) -> impl Iterator<Item = &Client> {
        let uses = move |client: &&Client| client.export.as_deref().is_some_and(&export);
        self.streams.values().filter(uses)
    }
}

impl NbdServer {
    /// Serves `exports` to whoever connects.
    ///
    /// # Errors
    /// When the system can start no threads.
    pub fn start(listeners: Vec<Listener>, exports: Arc<dyn Exports>) -> io::Result<NbdServer> {
        let watch = Arc::new(Watch::default());
        let shared = Arc::new(Shared {
            exports,
            watch: Arc::clone(&watch),
            stopping: AtomicBool::new(false),
            clients: Mutex::default(),
            gone: Condvar::new(),
        });
        let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
        let threads = vec![watch::start(&watch)?];
        let mut server = NbdServer { shared, listeners, threads };
        for listener in &server.listeners {
            let (listener, shared) = (Arc::clone(listener), Arc::clone(&server.shared));
            let accept = thread::Builder::new().name("nbd-accept".into());
            server.threads.push(accept.spawn(move || accept_all(&listener, &shared))?);
        }
        Ok(server)
    }

    /// Where clients find it, in the order of the listeners.
    pub fn places(&self) -> Vec<String> {
        self.listeners.iter().map(|listener| listener.place()).collect()
    }

    /// How many clients there are now.
    pub fn clients(&self) -> usize {
        self.shared.clients().streams.len()
    }

    /// To look after its clients while it runs.
    pub fn handle(&self) -> NbdClients {
        NbdClients(Arc::clone(&self.shared))
    }

    /// Ends all connections: what has begun is finished and answered, what has not is dropped.
    /// Returns when all threads are done, or with a line in the log when calls into an export
    /// have not returned after [`STOP_DEADLINE`].
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for listener in self.listeners.drain(..) {
            listener.interrupt();
        }
        self.shared.end_all(Shutdown::Read);
        if self.shared.wait_until_gone(Clients::all, STOP_GRACE) > 0 {
            self.shared.end_all(Shutdown::Both);
            let left = self.shared.wait_until_gone(Clients::all, STOP_DEADLINE);
            if left > 0 {
                tracing::warn!(
                    left,
                    "stopped the NBD server while calls of some clients have not returned"
                );
            }
        }
        self.shared.watch.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic there was reported by the thread
        }
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept_all(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok(stream) => {
                if let Err(error) = begin(shared, stream) {
                    tracing::warn!(place = listener.place(), %error, "refused an NBD client");
                }
            }
            Err(error) => {
                tracing::warn!(place = listener.place(), %error, "cannot accept an NBD client");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn begin(shared: &Arc<Shared>, stream: Stream) -> io::Result<()> {
    let stream = Arc::new(stream);
    let mut clients = shared.clients();
    if clients.streams.len() >= CONNECTIONS_MAX {
        return Err(io::Error::other(format!("there are {CONNECTIONS_MAX} connections already")));
    }
    clients.next += 1;
    let number = clients.next;
    clients.streams.insert(number, Client { stream: Arc::clone(&stream), export: None });
    drop(clients);
    let place = Place { shared: Arc::clone(shared), number };
    thread::Builder::new().name("nbd".into()).spawn(move || {
        let shared = Arc::clone(&place.shared);
        let uses = |export: &str| shared.uses(number, export);
        serve(stream, &*shared.exports, &shared.watch, (place, uses));
    })?;
    Ok(())
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_all(&self, how: Shutdown) {
        self.clients().streams.values().for_each(|client| client.stream.shutdown(how));
    }

    /// A client has said what it uses.
    fn uses(&self, number: u64, export: &str) {
        if let Some(client) = self.clients().streams.get_mut(&number) {
            client.export = Some(export.to_owned());
        }
    }

    /// Waits until none of some clients is left; how many are.
    fn wait_until_gone(&self, left: impl Fn(&Clients) -> usize, at_most: Duration) -> usize {
        let deadline = Instant::now() + at_most;
        let mut clients = self.clients();
        while left(&clients) > 0 {
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() {
                break;
            }
            let waited = self.gone.wait_timeout(clients, time);
            clients = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        left(&clients)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.clients().streams.remove(&self.number);
        self.shared.gone.notify_all();
    }
}
