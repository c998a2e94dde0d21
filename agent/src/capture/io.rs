//! The tap's shell: brings every write past the core, to the LV and back. Decides nothing.
//!
//! The core stands behind one lock, which clients' threads take for about a microsecond twice a
//! write; a task that owned it would cost two hand-overs of the processor instead.

mod guard;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use vgship_base::disk::{Allocation, SharedDisk};
use vgship_base::ids::{ReplicaId, Seq, VolumeId};
use vgship_base::io::Clock;
use vgship_base::layout::Layout;
use vgship_base::units::Span;
use vgship_snapshot::set::SnapshotSet;
use vgship_snapshot::veil::VeilKey;

use super::activity::{Barrier, Stable};
use super::ledger::{Ledger, LedgerError};
use super::nbd::backend::Export;
use super::source::{After, Begin, Change, Complete, Ready, Source, Ticket, Wants};
pub use guard::{Guard, LOST};

/// How long a write waits for the spill before its group falls to the map.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a waiting write waits before it looks again, in case nobody told it.
const LOOK: Duration = Duration::from_millis(50);

/// How long a write that is slowed waits before it asks again.
const PACE: Duration = Duration::from_millis(5);

/// How long a region is idle before its mark is given up. Unit: milliseconds.
const IDLE: u64 = 10_000;

/// A group's source, as all threads of the agent share it.
pub struct Tap {
    core: Mutex<Source>,
    changed: Condvar,
    waiting: AtomicU32,
    hashing: AtomicBool,
    veiling: AtomicBool,
    veil: OnceLock<VeilKey>,
    ledger: Mutex<Ledger>,
    /// Exchanged when volumes grow.
    volumes: RwLock<Arc<[SharedDisk]>>,
    /// One flush of a volume at a time: the system tells a failure to only one of several (R8).
    flushes: Vec<Mutex<()>>,
    clock: Clock,
    doubtful: AtomicBool,
    /// Of snapshots from the time when this side was a replica.
    guard: Option<Guard>,
    /// Told when a link may have something to take.
    pub records: Notify,
    /// Told when a resync may have something to read.
    pub jobs: Condvar,
}

impl Tap {
    /// Shares a core whose ledger has been written in this life.
    pub fn new(core: Source, ledger: Ledger, volumes: Vec<SharedDisk>, clock: Clock) -> Tap {
        Tap {
            core: Mutex::new(core),
            changed: Condvar::new(),
            waiting: AtomicU32::new(0),
            hashing: AtomicBool::new(false),
            veiling: AtomicBool::new(false),
            veil: OnceLock::new(),
            ledger: Mutex::new(ledger),
            flushes: volumes.iter().map(|_| Mutex::default()).collect(),
            volumes: RwLock::new(volumes.into()),
            clock,
            doubtful: AtomicBool::new(false),
            guard: None,
            records: Notify::new(),
            jobs: Condvar::new(),
        }
    }

    /// Preserves for these snapshots before it lets anybody write.
    #[must_use]
    pub fn guarded(self, guard: Option<Guard>) -> Tap {
        Tap { guard, ..self }
    }

    /// The snapshots that this side kept as a replica, if it has some.
    pub fn snapshots(&self) -> Option<Arc<SnapshotSet>> {
        self.guard.as_ref()?.set()
    }

    /// The core. Hold it for as long as a decision takes.
    ///
    /// # Panics
    /// After a panic inside the core: its invariants are void.
    pub fn core(&self) -> MutexGuard<'_, Source> {
        self.core.lock().expect("the source's core does not panic")
    }

    /// The volumes, in the order of the layout; at least as large as it says at any time before.
    pub fn volumes(&self) -> Arc<[SharedDisk]> {
        Arc::clone(&self.volumes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn volume(&self, id: VolumeId) -> SharedDisk {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&volumes[id.index()])
    }

    /// The volumes have grown to `layout`, whose file has been written; `volumes` are open anew.
    /// Those that are as large as before stay as they are open.
    pub fn grow(&self, layout: Arc<Layout>, mut volumes: Vec<SharedDisk>) {
        let old = Arc::clone(self.core().layout());
        for (id, volume) in old.ids().zip(&mut volumes) {
            if old.volume(id) == layout.volume(id) {
                *volume = self.volume(id);
            }
        }
        // Before the core lets anybody write there.
        *self.volumes.write().unwrap_or_else(PoisonError::into_inner) = volumes.into();
        self.core().grow(layout);
        self.wake();
    }

    /// The clocks.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Waits, with the core, until something changes or `longest` has passed.
    pub fn wait<'a>(
        &self,
        core: MutexGuard<'a, Source>,
        longest: Duration,
    ) -> MutexGuard<'a, Source> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (core, _) =
            self.changed.wait_timeout(core, longest).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        core
    }

    /// Says that a range, room or a mark may have become free.
    pub fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_all();
        }
    }

    fn change(&self, change: &Change, durable: bool) -> io::Result<()> {
        let ticket = self.begin(change)?;
        let seq = ticket.seq;
        self.records.notify_one();
        let guarded = self.guard.as_ref().map(|it| it.before(change.volume, change.span));
        if let Some(Err(error)) = guarded {
            let _ = self.core().end(ticket, false);
            self.wake();
            return Err(error);
        }
        let disk = self.volume(change.volume);
        let written = match &change.data {
            Some(data) => disk.write_at(change.span.offset, data),
            None => disk.zero_at(change.span.offset, change.span.len),
        };
        let after = self.core().end(ticket, written.is_ok());
        self.wake();
        if let Err(error) = &written {
            tracing::error!(%error, volume = change.volume.0, offset = change.span.offset,
                "an LV refused a write; its extents are resynced");
        }
        written?;
        match after {
            After::Done if durable => self.client_flush(change.volume),
            After::Done => Ok(()),
            After::Lost => Err(lost()),
            After::Stabilize(barrier) => {
                self.flush_until(change.volume, barrier)?;
                self.replicated(seq)
            }
        }
    }

    /// Waits until every sync replica that counts holds a write.
    fn replicated(&self, seq: Seq) -> io::Result<()> {
        let mut core = self.core();
        loop {
            match core.completion(seq) {
                Complete::Now => return Ok(()),
                Complete::Wait => core = self.wait(core, LOOK),
                Complete::Stopped => {
                    let text = "the agent stops, and a sync replica may not hold the write";
                    return Err(io::Error::other(text));
                }
            }
        }
    }

    /// Takes the veil key of the group, before any replica is blind. A group has one for life.
    pub fn set_veil(&self, key: VeilKey) {
        let id = key.id();
        let known = self.veil.get_or_init(|| key);
        assert!(known.id() == id, "a group has one veil key for life");
    }

    /// The veil key, when there is one.
    pub fn veil(&self) -> Option<&VeilKey> {
        self.veil.get()
    }

    /// What a replica's content is veiled with; `None` when it is not blind.
    ///
    /// # Panics
    /// When it is blind and there is no key: nothing may be read for it then.
    pub fn veil_of(&self, id: ReplicaId) -> Option<&VeilKey> {
        let blind = self.core().replica(id).blind;
        blind.then(|| self.veil.get().expect("the key came before the blind replica"))
    }

    /// What was wanted of the last write.
    fn wants(&self) -> Wants {
        let (hashes, veil) = (&self.hashing, &self.veiling);
        Wants { hashes: hashes.load(Ordering::Relaxed), veil: veil.load(Ordering::Relaxed) }
    }

    fn ready(&self, change: &Change, wants: Wants) -> Option<Ready> {
        let veil = self.veil.get().filter(|_| wants.veil);
        (change.data.is_some() && wants.any()).then(|| change.ready(veil))
    }

    fn begin(&self, change: &Change) -> io::Result<Ticket> {
        let mut ready = self.ready(change, self.wants());
        let mut waits = None;
        let mut core = self.core();
        loop {
            let patient = waits.is_none_or(|since: Instant| since.elapsed() < PATIENCE);
            match core.begin(change, ready.as_ref(), patient) {
                Begin::Go(ticket) => {
                    let wants = core.wanted();
                    self.hashing.store(wants.hashes, Ordering::Relaxed);
                    self.veiling.store(wants.veil, Ordering::Relaxed);
                    return Ok(ticket);
                }
                Begin::Fenced => return Err(fenced()),
                Begin::Busy => core = self.wait(core, LOOK),
                Begin::Room => {
                    waits.get_or_insert_with(Instant::now);
                    core = self.wait(core, LOOK);
                }
                Begin::Pace => {
                    core = self.wait(core, PACE);
                    core.pace(self.clock.now());
                }
                Begin::Mark => {
                    drop(core);
                    self.mark();
                    core = self.core();
                }
                Begin::Ready => {
                    let wants = core.wanted();
                    drop(core);
                    ready = self.ready(change, wants);
                    core = self.core();
                }
            }
        }
    }

    /// Marks all wanted regions: the first who comes does it for all who wait.
    fn mark(&self) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.core().wanted_marks();
        if wanted.is_empty() {
            return;
        }
        let marked =
            if self.doubtful.load(Ordering::SeqCst) { Ok(()) } else { ledger.mark(&wanted) };
        if let Err(error) = marked {
            self.doubt(&mut ledger, &error);
        }
        self.core().marked(&wanted);
        self.wake();
    }

    /// The ledger cannot be written: applications go on, and a crash finds everything dirty.
    fn doubt(&self, ledger: &mut Ledger, error: &LedgerError) {
        let noted = ledger.doubt();
        self.doubtful.store(true, Ordering::SeqCst);
        tracing::error!(error = %report(error), noted = noted.is_ok(),
            "the ledger cannot be written: if the agent dies now every replica needs a full resync; \
             free room on the disk that holds the agent's home");
    }

    /// A client's flush. It fails also for a flush that the agent made on its own and that failed:
    /// a client that was never told would believe its writes stored.
    fn client_flush(&self, volume: VolumeId) -> io::Result<()> {
        let owed = self.core().owes_error(volume);
        let flushed = self.flush(volume);
        if flushed.is_err() {
            self.core().owes_error(volume); // this very error tells of it
        }
        if owed { Err(lost()) } else { flushed }
    }

    /// Flushes one volume: all its writes that completed before this call are durable after it.
    pub fn flush(&self, volume: VolumeId) -> io::Result<()> {
        let barrier = self.core().barrier(volume);
        let done_before = self.core().stable(volume, barrier) == Stable::Yes;
        let _alone = self.one_flush(volume);
        // Taken out first: the guard would live through the match, and flushing locks again.
        let stable = self.core().stable(volume, barrier);
        match stable {
            Stable::Lost => Err(lost()),
            Stable::Yes if !done_before => Ok(()), // another's flush covered it meanwhile
            Stable::Yes | Stable::No => self.flush_now(volume),
        }
    }

    /// Flushes one volume unless somebody else's flush covers the barrier: writes that wait for
    /// stability together share one.
    fn flush_until(&self, volume: VolumeId, barrier: Barrier) -> io::Result<()> {
        let _alone = self.one_flush(volume);
        let stable = self.core().stable(volume, barrier);
        match stable {
            Stable::Yes => Ok(()),
            Stable::No => self.flush_now(volume),
            Stable::Lost => Err(lost()),
        }
    }

    fn one_flush(&self, volume: VolumeId) -> MutexGuard<'_, ()> {
        self.flushes[volume.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_now(&self, volume: VolumeId) -> io::Result<()> {
        let covers = self.core().flush_begins(volume);
        let disk = self.volume(volume);
        let flushed = disk.flush();
        self.core().flush_ended(volume, covers, flushed.is_ok());
        if flushed.is_err() {
            // What is cached may not be what is stored, and the resync must read what is stored.
            // Noted before, so that no resync ends while reads change, and again after, for what
            // was compared with the cache in between.
            disk.forget_cache();
            self.core().flush_ended(volume, covers, false);
        }
        flushed.inspect_err(|error| {
            tracing::error!(%error, volume = volume.0,
                "an LV failed to flush; everything written since its last flush is resynced");
        })
    }

    /// Flushes every volume with writes that no flush covers. What fails is said in the log, and in
    /// the state that the ledger is given next.
    pub fn flush_unflushed(&self) {
        // Taken out first: the guard must not live through the loop, which locks again.
        let unflushed = self.core().unflushed();
        for volume in unflushed {
            let _ = self.flush(volume);
        }
    }

    /// Flushes what no flush covers and writes the ledger without the regions that are settled.
    /// Whether the ledger was written.
    pub fn checkpoint(&self) -> bool {
        self.flush_unflushed();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.core().begin_checkpoint(IDLE);
        let written = ledger.checkpoint(&state);
        if written.is_ok() {
            self.core().checkpoint_written(state.generation);
        }
        match &written {
            Ok(()) if self.doubtful.swap(false, Ordering::SeqCst) => {
                tracing::info!("the ledger is written again");
            }
            Ok(()) => {}
            Err(error) => self.doubt(&mut ledger, error),
        }
        written.is_ok()
    }

    /// The last checkpoint of a clean stop: no client is connected any more.
    pub fn close(&self) -> Result<(), LedgerError> {
        self.flush_unflushed();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.core().close();
        ledger.checkpoint(&state)
    }

    /// Whether a crash now would find everything dirty.
    pub fn in_doubt(&self) -> bool {
        self.doubtful.load(Ordering::SeqCst)
    }
}

/// For writes that a flush should have covered that failed for somebody else: the system tells of
/// a failure once, and the next flush proves nothing for them (R8).
fn lost() -> io::Error {
    io::Error::other("a flush of this LV failed meanwhile; what it should have stored is not known")
}

/// For writes that come when the group is giving its role away, or has.
fn fenced() -> io::Error {
    io::Error::other("the group takes no writes here: its role goes to another agent")
}

/// An error with all its causes, for one line of a log.
pub fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// One LV of a source, as NBD serves it.
pub struct TappedVolume {
    tap: Arc<Tap>,
    volume: VolumeId,
    bytes: u64,
    /// Unit: bytes.
    min_block: u32,
}

impl TappedVolume {
    /// The volume of a tap.
    pub fn new(tap: Arc<Tap>, volume: VolumeId) -> TappedVolume {
        let core = tap.core();
        let bytes = core.layout().volume(volume).map_or(0, |known| known.bytes);
        // Parts of sectors cannot be veiled. Clients that came before keep what they were told.
        let min_block = if core.has_blind() { 512 } else { 1 };
        drop(core);
        TappedVolume { tap, volume, bytes, min_block }
    }
}

impl Export for TappedVolume {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn min_block(&self) -> u32 {
        self.min_block
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.tap.volume(self.volume).read_at(offset, into)
    }

    fn write(&self, offset: u64, data: Bytes, durable: bool) -> io::Result<()> {
        let span = Span::new(offset, data.len() as u64);
        self.tap.change(&Change { volume: self.volume, span, data: Some(data) }, durable)
    }

    fn zero(&self, offset: u64, len: u64, durable: bool) -> io::Result<()> {
        let span = Span::new(offset, len);
        self.tap.change(&Change { volume: self.volume, span, data: None }, durable)
    }

    fn flush(&self) -> io::Result<()> {
        self.tap.client_flush(self.volume)
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        self.tap.volume(self.volume).allocation(offset, end)
    }
}
