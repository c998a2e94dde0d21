//! One client's connection: the handshake, then threads that take turns.

use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;
use vgship_base::bytes::{FormatError, Writer};

use super::super::backend::Exports;
use super::super::handshake::{
    HandshakeError, OPTION_HEADER_BYTES, decode_client_flags, decode_option, greeting,
};
use super::super::job::{Job, Scratch};
use super::super::limits::{
    HANDSHAKE_DEADLINE, OPTION_BYTES_MAX, PAYLOAD_MAX, SCRATCH_BYTES, THREAD_IDLE,
};
use super::super::negotiate::{Negotiation, Next, Session};
use super::super::pipes::{Front, Inlet, Outlet};
use super::super::request::{Command, Request};
use super::super::turns::{Done, Helper, Turn, Turns};
use super::socket::Stream;
use super::watch::{Watch, Watched};

/// Why a connection was ended by the server.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The handshake went wrong.
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    /// The client was too slow to say what it wants.
    #[error("the handshake took longer than {} s", HANDSHAKE_DEADLINE.as_secs())]
    Slow,
    /// Bytes that are no request; what follows them cannot be understood either.
    #[error("cannot read a request")]
    Request(#[from] FormatError),
    /// A payload that is not read, so that what follows it cannot be found.
    #[error("a write claims {len} bytes of payload, the limit is {PAYLOAD_MAX}")]
    Payload {
        /// As claimed. Unit: bytes.
        len: u32,
    },
    /// The client went away in the middle of something.
    #[error("the client is gone in the middle of a message")]
    Cut,
    /// The socket failed.
    #[error("the socket failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> ConnectionError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ConnectionError::Slow,
            io::ErrorKind::UnexpectedEof => ConnectionError::Cut,
            _ => ConnectionError::Io(error),
        }
    }
}

/// What the reader found.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// Requests, now in the queue.
    Requests,
    /// The client has taken leave and awaits what is under way.
    Leave,
    /// The client is gone.
    Gone,
}

/// A connection whose handshake is done.
pub struct Connection<P> {
    stream: Arc<Stream>,
    session: Session,
    turns: Mutex<Turns>,
    wake: Condvar,
    inlet: Mutex<Inlet>,
    outlet: Mutex<Outlet>,
    watch: Arc<Watch>,
    /// Held for as long as the connection lasts.
    _place: P,
}

/// Serves one client from its first byte to its last. Returns when this thread is not needed any
/// more; others may still serve it. `place` is dropped when all is over; `uses` hears which export
/// the client uses.
pub fn serve<P: Send + Sync + 'static>(
    stream: Arc<Stream>,
    exports: &dyn Exports,
    watch: &Arc<Watch>,
    (place, uses): (P, impl FnOnce(&str)),
) {
    let mut inlet = Inlet::default();
    let session = match shake_hands(&stream, &mut inlet, exports, HANDSHAKE_DEADLINE) {
        Ok(Some(session)) => session,
        Ok(None) => return stream.shutdown(Shutdown::Both),
        Err(error) => {
            report(&error, "");
            return stream.shutdown(Shutdown::Both);
        }
    };
    uses(&session.name);
    // Who takes an export away counts its clients after that: one of both sees the other.
    if exports.find(&session.name).is_none() {
        return stream.shutdown(Shutdown::Both);
    }
    tracing::debug!(export = session.name, "an NBD client is connected");
    let connection = Arc::new(Connection {
        stream,
        session,
        turns: Mutex::new(Turns::new()),
        wake: Condvar::new(),
        inlet: Mutex::new(inlet),
        outlet: Mutex::new(Outlet::default()),
        watch: Arc::clone(watch),
        _place: place,
    });
    let weak = Arc::downgrade(&connection);
    watch.add(weak);
    connection.work();
}

fn report(error: &ConnectionError, export: &str) {
    let error: &(dyn std::error::Error + 'static) = error;
    tracing::warn!(error, export, "an NBD connection was closed");
}

/// Talks until both sides agree; `None` when the client leaves before.
fn shake_hands(
    stream: &Stream,
    inlet: &mut Inlet,
    exports: &dyn Exports,
    patience: Duration,
) -> Result<Option<Session>, ConnectionError> {
    let deadline = Instant::now() + patience;
    let mut read = |len: usize| -> Result<Option<Vec<u8>>, ConnectionError> {
        loop {
            if let Some(bytes) = inlet.take(len) {
                return Ok(Some(bytes.to_vec()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ConnectionError::Slow);
            }
            stream.set_timeout(Some(left))?;
            if inlet.fill(&mut &*stream)? == 0 {
                return if inlet.is_empty() { Ok(None) } else { Err(ConnectionError::Cut) };
            }
        }
    };
    (&*stream).write_all(&greeting())?;
    let Some(flags) = read(4)? else { return Ok(None) };
    let flags = flags.first_chunk().copied().unwrap_or_default();
    let mut negotiation = Negotiation::new(decode_client_flags(flags)?);
    loop {
        let Some(header) = read(OPTION_HEADER_BYTES)? else { return Ok(None) };
        let header = header.first_chunk().copied().unwrap_or_default();
        let (option, len) = decode_option(header).map_err(HandshakeError::Format)?;
        if len > OPTION_BYTES_MAX {
            return Err(HandshakeError::Long { option, len }.into());
        }
        let Some(data) = read(len as usize)? else { return Err(ConnectionError::Cut) };
        let mut out = Writer::default();
        let next = negotiation.handle(exports, option, &data, &mut out)?;
        let sent = (&*stream).write_all(out.as_slice());
        match next {
            Next::Option => sent?,
            Next::Leave => return Ok(None), // it may have gone without awaiting the answer
            Next::Serve(session) => {
                sent?;
                stream.set_timeout(None)?;
                return Ok(Some(session));
            }
        }
    }
}

impl<P: Send + Sync + 'static> Connection<P> {
    /// What each of its threads does.
    fn work(self: &Arc<Self>) {
        let _seat = Seat(self);
        let mut scratch = Scratch::default();
        // Whether replies may wait to be sent, and whether this thread has slept in vain.
        let (mut waiting, mut rested) = (true, false);
        loop {
            let mut turns = self.turns();
            let turn = match turns.take() {
                Turn::Sleep if !waiting => {
                    if rested {
                        return;
                    }
                    rested = self.sleep(turns);
                    continue;
                }
                turn => turn,
            };
            drop(turns);
            self.watch.rouse();
            rested = false;
            match turn {
                Turn::Quick(job) => {
                    self.carry_out(job, &mut scratch);
                    waiting = true;
                    continue;
                }
                Turn::Slow(job) => {
                    self.hand_on();
                    self.flush();
                    self.carry_out(job, &mut scratch);
                    self.flush();
                    continue;
                }
                Turn::Sleep | Turn::Read | Turn::Leave if waiting => {
                    self.flush();
                    waiting = false;
                }
                Turn::Sleep | Turn::Read | Turn::Leave => {}
            }
            match turn {
                Turn::Read => self.read_on(),
                Turn::Leave => return,
                _ => {}
            }
        }
    }

    fn carry_out(&self, job: Job, scratch: &mut Scratch) {
        let (bytes, class) = (job.bytes(), job.class());
        let begin = Instant::now();
        let head = job.carry_out(&*self.session.export, scratch);
        let took = begin.elapsed();
        let sent = self.outlet().push(&head, scratch.data(), &mut &*self.stream);
        scratch.trim(SCRATCH_BYTES);
        self.turns().done(Done { bytes, class, took });
        self.check_sent(&sent);
    }

    fn flush(&self) {
        let sent = self.outlet().flush(&mut &*self.stream);
        self.check_sent(&sent);
    }

    /// Gives a client up that takes no replies.
    fn check_sent(&self, sent: &io::Result<()>) {
        if sent.is_err() {
            self.close(true);
            self.stream.shutdown(Shutdown::Both);
        }
    }

    fn close(&self, forget: bool) {
        self.turns().close(forget);
        self.wake.notify_all();
    }

    fn read_on(&self) {
        let found = self.read();
        let mut turns = self.turns();
        // In one step with the close: nobody may read on behind a leave.
        turns.stop_reading();
        match &found {
            Ok(Read::Requests) => return,
            Err(error) if !turns.is_closed() => report(error, &self.session.name),
            _ => {}
        }
        turns.close(matches!(found, Ok(Read::Gone)));
        drop(turns);
        self.wake.notify_all();
    }

    /// Reads until there is at least one request, and takes all that have arrived with it.
    fn read(&self) -> Result<Read, ConnectionError> {
        let mut inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = false;
        loop {
            match inlet.front()? {
                Front::Part | Front::Large(_) if taken => return Ok(Read::Requests),
                Front::Part => {
                    if inlet.fill(&mut &*self.stream)? == 0 {
                        let clean = inlet.is_empty();
                        return if clean { Ok(Read::Gone) } else { Err(ConnectionError::Cut) };
                    }
                }
                Front::Large(request) if request.len > PAYLOAD_MAX => {
                    return Err(ConnectionError::Payload { len: request.len });
                }
                Front::Large(request) => {
                    let payload =
                        inlet.take_large(&request, |len, into| self.stream.append(len, into))?;
                    self.add(&request, payload);
                    return Ok(Read::Requests);
                }
                Front::Whole(request) => {
                    let payload = inlet.take_whole(&request);
                    if request.command == Command::Disconnect {
                        return Ok(Read::Leave);
                    }
                    taken = true;
                    if !self.add(&request, payload) {
                        return Ok(Read::Requests);
                    }
                }
            }
        }
    }

    /// Queues a request; whether there is room for another.
    fn add(&self, request: &Request, payload: Bytes) -> bool {
        let job = Job::new(&self.session, request, payload);
        let mut turns = self.turns();
        turns.add(job);
        turns.has_room()
    }

    fn hand_on(self: &Arc<Self>) {
        let helper = self.turns().hand_on();
        match helper {
            Helper::None => {}
            Helper::Wake => self.wake.notify_one(),
            Helper::Start => {
                let next = Arc::clone(self);
                let started = thread::Builder::new().name("nbd".into()).spawn(move || next.work());
                if started.is_err() {
                    self.turns().leave(); // it has to go with the threads there are
                }
            }
        }
    }

    /// Whether nobody needed this thread for long.
    fn sleep(&self, mut turns: MutexGuard<'_, Turns>) -> bool {
        turns.sleep();
        let waited = self.wake.wait_timeout(turns, THREAD_IDLE);
        let (mut turns, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        turns.rise();
        timeout.timed_out()
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outlet(&self) -> MutexGuard<'_, Outlet> {
        self.outlet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Send + Sync + 'static> Watched for Connection<P> {
    fn look(self: Arc<Self>) -> bool {
        let stuck = self.turns().seems_stuck();
        // A client that takes no replies blocks its threads too; more of them would not help.
        if stuck && !matches!(self.outlet.try_lock(), Err(TryLockError::WouldBlock)) {
            self.hand_on();
        }
        self.turns().is_busy()
    }
}

/// A thread's place in its connection, given back however the thread ends.
struct Seat<'a, P: Send + Sync + 'static>(&'a Connection<P>);

impl<P: Send + Sync + 'static> Drop for Seat<'_, P> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close(true);
        }
        if self.0.turns().leave() || thread::panicking() {
            self.0.stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::capture::nbd::testing::Both;

    #[test]
    fn a_client_that_does_not_say_what_it_wants_is_not_awaited_for_ever() {
        for said in [&b""[..], b"\0\0", b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x40abc"] {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(said).unwrap();
            let stream = Stream::Unix(server);
            let patience = Duration::from_millis(20);
            let found = shake_hands(&stream, &mut Inlet::default(), &Both::new(), patience);
            assert!(matches!(found, Err(ConnectionError::Slow)), "{found:?} after {said:?}");
        }
    }

    #[test]
    fn a_client_that_leaves_in_a_handshake_is_no_error_unless_it_breaks_off() {
        for (said, clean) in [(&b"\0\0\0\x03"[..], true), (b"\0\0\0\x03IHAVE", false)] {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(said).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let stream = Stream::Unix(server);
            let patience = Duration::from_secs(20);
            let found = shake_hands(&stream, &mut Inlet::default(), &Both::new(), patience);
            match found {
                Ok(None) => assert!(clean),
                Err(ConnectionError::Cut) => assert!(!clean),
                other => panic!("{other:?}"),
            }
        }
    }
}
