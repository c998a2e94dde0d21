//! Decides which thread of a connection does what next. Does no I/O and knows no threads.
//!
//! The threads of one connection take turns: one reads requests, and whoever has nothing else to
//! do carries them out, first of all the reader itself. So cheap requests pass without any change
//! of thread. A thread that begins something slow *hands on*: another one, woken or started,
//! goes on reading and working. What was thought quick and blocks all the same is found by the
//! watch, which hands on in its place.

use std::collections::VecDeque;
use std::time::Duration;

use super::job::{CLASSES, Class, Job};
use super::limits::{BYTES_MAX, REQUESTS_MAX, SLOW, THREADS_MAX};

/// Time that is put down to copying and not to waiting. Unit: nanoseconds for each byte. Another
/// thread could copy no faster.
const COPY_NS: u64 = 1;

/// What a thread is to do.
#[derive(Debug)]
pub enum Turn {
    /// Carry out the job; it is expected to be slow.
    Slow(Job),
    /// Carry out the job; it is expected to be quick.
    Quick(Job),
    /// Send what waits to be sent, then read requests.
    Read,
    /// Send what waits, then sleep until woken.
    Sleep,
    /// Send what waits, then end.
    Leave,
}

/// How the next thread comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// One that sleeps is to be woken.
    Wake,
    /// One is to be started; it is counted already.
    Start,
    /// None is needed, or none is left.
    None,
}

/// What a finished job gives back.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Memory it held. Unit: bytes.
    pub bytes: u64,
    /// What kind it was.
    pub class: Class,
    /// How long carrying it out took.
    pub took: Duration,
}

/// Turns of one connection.
///
/// Invariant: unless closed, some thread reads, works, or is on its way to ask for its turn.
#[derive(Debug, Default)]
pub struct Turns {
    queue: VecDeque<Job>,
    reading: bool,
    closed: bool,
    running: usize,
    bytes: u64,
    threads: usize,
    asleep: usize,
    woken: usize,
    turns: u64,
    watched: u64,
    usual: [Duration; CLASSES],
}

impl Turns {
    /// The connection with its first thread.
    pub fn new() -> Turns {
        Turns { threads: 1, ..Turns::default() }
    }

    /// The next thing for the thread that asks.
    pub fn take(&mut self) -> Turn {
        self.turns += 1;
        if let Some(job) = self.queue.pop_front() {
            self.running += 1;
            return match job.class() {
                Class::Usual(class) if self.usual[class] < SLOW => Turn::Quick(job),
                _ => Turn::Slow(job),
            };
        }
        if self.closed {
            return Turn::Leave;
        }
        if !self.reading && self.has_room() {
            self.reading = true;
            return Turn::Read;
        }
        Turn::Sleep
    }

    /// Whether more requests may be taken in.
    pub fn has_room(&self) -> bool {
        self.queue.len() + self.running < REQUESTS_MAX && self.bytes < BYTES_MAX
    }

    /// Takes in one request that was read.
    pub fn add(&mut self, job: Job) {
        self.bytes += job.bytes();
        self.queue.push_back(job);
    }

    /// The reader reads no more for now.
    pub fn stop_reading(&mut self) {
        self.reading = false;
    }

    /// A job was carried out and its reply handed over.
    pub fn done(&mut self, done: Done) {
        assert!(self.running > 0, "a job ends only after it began");
        self.running -= 1;
        self.bytes -= done.bytes;
        if let Class::Usual(class) = done.class {
            let waited = done.took.saturating_sub(Duration::from_nanos(done.bytes * COPY_NS));
            // Bounded, so that one job during which the machine did something else tells little.
            self.usual[class] = (self.usual[class] * 7 + waited.min(4 * SLOW)) / 8;
        }
    }

    /// No more requests are read; those in the queue are carried out, or forgotten.
    pub fn close(&mut self, forget: bool) {
        self.closed = true;
        if forget {
            for job in self.queue.drain(..) {
                self.bytes -= job.bytes();
            }
        }
    }

    /// Whether no more requests are read.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Who goes on in place of a thread that begins something slow.
    pub fn hand_on(&mut self) -> Helper {
        let readable = !self.reading && !self.closed && self.has_room();
        if self.queue.is_empty() && !readable {
            return Helper::None;
        }
        if self.asleep > self.woken {
            self.woken += 1;
            return Helper::Wake;
        }
        if self.threads < THREADS_MAX {
            self.threads += 1;
            return Helper::Start;
        }
        Helper::None
    }

    /// Begins the sleep of the thread that asks.
    pub fn sleep(&mut self) {
        self.asleep += 1;
    }

    /// Ends it, whether it was woken or has slept long enough.
    pub fn rise(&mut self) {
        self.asleep -= 1;
        self.woken = self.woken.saturating_sub(1);
    }

    /// The thread that asks ends. Whether it was the last.
    pub fn leave(&mut self) -> bool {
        self.threads -= 1;
        self.threads == 0
    }

    /// Whether jobs are under way or turns were taken since the last call.
    pub fn is_busy(&mut self) -> bool {
        let moved = self.watched != self.turns;
        self.watched = self.turns;
        moved || self.running > 0
    }

    /// Whether jobs are under way and no turn was taken since the last [`Turns::is_busy`].
    pub const fn seems_stuck(&self) -> bool {
        self.running > 0 && self.watched == self.turns
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::capture::nbd::negotiate::Session;
    use crate::capture::nbd::request::{Command, Request};
    use crate::capture::nbd::testing::Memory;

    fn job(command: Command, len: u32) -> Job {
        let export = Arc::new(Memory::new(false));
        let session = Session { export, name: "a".into(), structured: false, allocation: false };
        let request = Request { command, flags: 0, cookie: 1, offset: 0, len };
        Job::new(&session, &request, Bytes::new())
    }

    /// A thread takes a job and ends it after a time.
    fn pass(turns: &mut Turns, len: u32, took: Duration) -> bool {
        turns.add(job(Command::Read, len));
        let (job, slow) = match turns.take() {
            Turn::Quick(job) => (job, false),
            Turn::Slow(job) => (job, true),
            other => panic!("a job waits, not {other:?}"),
        };
        turns.done(Done { bytes: job.bytes(), class: job.class(), took });
        slow
    }

    #[test]
    fn one_thread_reads_and_the_others_sleep() {
        let mut turns = Turns::new();
        assert!(matches!(turns.take(), Turn::Read));
        assert!(matches!(turns.take(), Turn::Sleep));
        turns.stop_reading();
        assert!(matches!(turns.take(), Turn::Read));
        turns.stop_reading();
        turns.add(job(Command::Read, 1));
        turns.close(false);
        assert!(matches!(turns.take(), Turn::Quick(_)), "what was read is carried out");
        assert!(matches!(turns.take(), Turn::Leave));
        assert!(turns.leave());
    }

    #[test]
    fn what_waits_long_is_expected_to_wait_until_it_does_not() {
        let mut turns = Turns::new();
        assert!(!pass(&mut turns, 512, SLOW * 1000));
        assert!(!pass(&mut turns, 512, SLOW / 10), "once is no habit");
        (0..9).for_each(|_| _ = pass(&mut turns, 512, SLOW * 2));
        assert!(pass(&mut turns, 512, SLOW / 10));
        (0..9).for_each(|_| _ = pass(&mut turns, 512, SLOW / 10));
        assert!(!pass(&mut turns, 512, SLOW / 10));
        let copying = Duration::from_millis(1);
        (0..99).for_each(|_| assert!(!pass(&mut turns, 1 << 20, copying)));
    }

    #[test]
    fn a_turn_is_handed_to_a_sleeper_before_a_thread_is_started() {
        let mut turns = Turns::new();
        turns.sleep();
        assert_eq!(turns.hand_on(), Helper::Wake);
        assert_eq!(turns.hand_on(), Helper::Start, "the sleeper is taken already");
        turns.rise();
        assert!(matches!(turns.take(), Turn::Read));
        assert_eq!(turns.hand_on(), Helper::None, "somebody reads and nothing waits");
        turns.add(job(Command::Flush, 0));
        let started = (0..2 * THREADS_MAX).filter(|_| turns.hand_on() == Helper::Start).count();
        assert_eq!(started, THREADS_MAX - 2);
    }

    #[test]
    fn requests_and_bytes_are_bounded() {
        let mut turns = Turns::new();
        (1..REQUESTS_MAX).for_each(|_| turns.add(job(Command::Read, 1)));
        assert!(turns.has_room());
        turns.add(job(Command::Read, 1));
        assert!(!turns.has_room());
        turns.close(true);
        assert_eq!((turns.bytes, turns.queue.len()), (0, 0));
        let mut turns = Turns { bytes: BYTES_MAX, ..Turns::new() };
        assert!(!turns.has_room());
        assert!(matches!(turns.take(), Turn::Sleep));
    }
}
