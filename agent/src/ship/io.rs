//! Ship's shell: one link's traffic, the threads that read extents for resyncs, and the one that
//! moves records to the spill and back. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vgship_base::extent::Extent;
use vgship_base::ids::{ReplicaId, Seq};
use vgship_base::layout::Layout;
use vgship_base::record::Record;
use vgship_base::units::Span;

use super::budget::Budget;
use super::flight::{Job, Purpose};
use super::pieces::pieces;
use super::replica::Progress;
use crate::apply::compare::{content_hash, read_extent};
use crate::capture::io::{Tap, report};
use crate::capture::source::{Shipped, Source};
use crate::outbox::queue::Moved;
use crate::outbox::spill::{Spill, SpillError};
use crate::wire::frame::{Answer, Frame};
use crate::wire::io::{FrameReceiver, FrameSender, ReceiveError};
use crate::wire::kept::Kept;

/// How long a link waits for more records before it sends few: an idle replica lags by no more.
const GATHER: Duration = Duration::from_millis(1);

/// How long a thread waits before it looks again, in case nobody told it.
const LOOK: Duration = Duration::from_millis(50);

/// How often a spill that found its disk full looks for room, and how much it wants. Unit: bytes.
const ROOM_EVERY: Duration = Duration::from_secs(1);
const ROOM_BYTES: u64 = 8 << 20;

/// How often a full disk is logged.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// How long the self-check waits before it looks again.
const CHECK_LOOK: Duration = Duration::from_millis(200);

/// Bytes read from the spill at a time.
const REFILL_BYTES: usize = 1 << 20;

/// Why the traffic of a link ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The replica ended its stream.
    #[error("the replica ended the stream: {0}")]
    Left(String),
    /// The replica sent what a replica does not send.
    #[error("the replica sent a frame that only a source sends")]
    Protocol,
    /// The core gave the link up: the volumes changed.
    #[error("the source gave the link up, for its volumes have changed")]
    GivenUp,
    /// The link broke in sending.
    #[error("the link broke")]
    Send(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The link broke in receiving.
    #[error("the link broke")]
    Receive(#[from] ReceiveError),
}

/// Carries one replica's link until it ends, counting in `sent` the records' bytes; `kept` is told
/// of the snapshots that the replica says it keeps. The core was told of the link before, and is told
/// of its end by the caller.
pub async fn carry(
    tap: &Tap,
    id: ReplicaId,
    sent: &AtomicU64,
    kept: &(dyn Fn(Kept) + Send + Sync),
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
) -> LinkEnd {
    tokio::select! {
        end = hear(tap, id, kept, receiver) => end,
        end = send(tap, id, sent, sender) => end,
    }
}

async fn hear(
    tap: &Tap,
    id: ReplicaId,
    kept: &(dyn Fn(Kept) + Send + Sync),
    receiver: &mut FrameReceiver,
) -> LinkEnd {
    loop {
        match receiver.next().await {
            Ok(Some(Frame::Ack(ack))) => {
                let progress = Progress {
                    durable: ack.durable,
                    applied: ack.applied,
                    durable_clock: ack.durable_clock,
                };
                tap.core().replica_mut(id).acked(&progress);
            }
            Ok(Some(Frame::Answers(answers))) => {
                let mut core = tap.core();
                for answer in answers {
                    let (session, seq, need) = match answer {
                        Answer::Match { session, seq } => (session, seq, None),
                        Answer::Need { session, seq, parts } => (session, seq, Some(parts)),
                    };
                    if let Some(extent) = core.answered(id, session, seq, need) {
                        differs(&core, extent, seq);
                    }
                }
            }
            Ok(Some(Frame::Kept(said))) => kept(said),
            Ok(Some(Frame::Ping(_) | Frame::Pong(_))) => {}
            Ok(Some(Frame::Bye { text, .. })) => return LinkEnd::Left(text),
            Ok(Some(Frame::Batch(_) | Frame::Layout(_) | Frame::Changed(_))) => {
                return LinkEnd::Protocol;
            }
            Ok(None) => return LinkEnd::Left("without a word".into()),
            Err(error) => return error.into(),
        }
        tap.wake();
        tap.jobs.notify_all();
        tap.records.notify_one();
    }
}

/// The self-check found what should not be.
fn differs(core: &Source, extent: Extent, seq: Seq) {
    let layout = core.layout();
    let name = layout.volume(extent.volume).map_or("", |volume| volume.name.as_str());
    let offset = layout.span(extent).map_or(0, |span| span.offset);
    tracing::error!(volume = name, offset, bytes = layout.extent.bytes(), %seq,
        "ALERT: the self-check found that source and replica differ where they should be equal; \
         the extent is resynced. Somebody wrote past the agent, or a disk gave wrong data");
}

async fn send(tap: &Tap, id: ReplicaId, sent: &AtomicU64, sender: &mut FrameSender) -> LinkEnd {
    loop {
        let batch = {
            let mut core = tap.core();
            if !core.replica(id).linked() {
                return LinkEnd::GivenUp;
            }
            core.replica_mut(id).batch()
        };
        // Sending may find room for ever; what comes in must be heard too.
        tokio::task::yield_now().await;
        if batch.is_empty() {
            // A record that came between is told by the permit that the notification leaves.
            let _ = tokio::time::timeout(LOOK, tap.records.notified()).await;
            tokio::time::sleep(GATHER).await;
            continue;
        }
        tap.jobs.notify_all();
        if let Err(error) = sender.send_batch(&batch).await {
            return LinkEnd::Send(error.into());
        }
        let bytes: usize = batch.iter().map(Record::encoded_len).sum();
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
        // A link that takes everything at once leaves no other point at which this very task hears
        // the replica.
        tokio::task::yield_now().await;
    }
}

/// Reads extents for one replica's self-check until told to stop, at most `rate` bytes a second; 0
/// for none.
pub fn check_extents(tap: &Tap, id: ReplicaId, rate: &AtomicU64, stop: &AtomicBool) {
    let mut budget = Budget::default();
    while !stop.load(Ordering::SeqCst) {
        let allowed = budget.allows(tap.clock().now(), rate.load(Ordering::Relaxed));
        let job = if allowed { tap.core().next_check(id) } else { None };
        let Some((extent, version)) = job else {
            std::thread::sleep(CHECK_LOOK);
            continue;
        };
        let layout = Arc::clone(tap.core().layout());
        match read_for(tap, id, &layout, extent) {
            Ok(bytes) => {
                budget.spend(bytes.len() as u64);
                let hash = content_hash(&bytes);
                tap.core().check(id, extent, version, hash);
                tap.records.notify_one();
            }
            Err((span, error)) => {
                tracing::error!(%error, volume = extent.volume.0, offset = span.offset,
                    "an LV cannot be read for the self-check");
                budget.spend(layout.extent.bytes());
                tap.core().uncheckable(id);
            }
        }
    }
}

/// Reads extents for one replica's resyncs until told to stop.
pub fn read_extents(tap: &Tap, id: ReplicaId, stop: &AtomicBool) {
    while let Some((job, version)) = next_job(tap, id, stop) {
        match &job.purpose {
            Purpose::Offer => offer(tap, id, &job),
            Purpose::Ship(parts) => ship(tap, id, &job, version, parts),
        }
        tap.records.notify_one();
    }
}

fn next_job(tap: &Tap, id: ReplicaId, stop: &AtomicBool) -> Option<(Job, u64)> {
    let mut core = tap.core();
    while !stop.load(Ordering::SeqCst) {
        if let Some(job) = core.next_job(id) {
            return Some(job);
        }
        (core, _) = tap.jobs.wait_timeout(core, LOOK).expect("the source's core does not panic");
    }
    None
}

/// Reads an extent as a replica has it: veiled when it is blind.
fn read_for(
    tap: &Tap,
    id: ReplicaId,
    layout: &Layout,
    extent: Extent,
) -> Result<Vec<u8>, (Span, std::io::Error)> {
    let mut bytes = read_extent(layout, &tap.volumes(), extent, |_, _| ())?;
    if let (Some(veil), Some(span)) = (tap.veil_of(id), layout.span(extent)) {
        veil.veil(extent.volume, span.offset, &mut bytes);
    }
    Ok(bytes)
}

fn read(tap: &Tap, id: ReplicaId, job: &Job) -> Option<Bytes> {
    let layout = Arc::clone(tap.core().layout());
    match read_for(tap, id, &layout, job.extent) {
        Ok(bytes) => Some(bytes.into()),
        Err((span, error)) => {
            tracing::error!(%error, volume = job.extent.volume.0, offset = span.offset,
                "an LV cannot be read for a resync; the extent stays dirty");
            tap.core().unreadable(id, job.extent, job.key);
            std::thread::sleep(LOOK);
            None
        }
    }
}

fn offer(tap: &Tap, id: ReplicaId, job: &Job) {
    if let Some(bytes) = read(tap, id, job) {
        let hash = content_hash(&bytes);
        tap.core().offer(id, job.extent, job.key, hash);
    }
}

fn ship(tap: &Tap, id: ReplicaId, job: &Job, version: u64, parts: &[u64]) {
    let span = tap.core().layout().span(job.extent).expect("jobs lie within the layout");
    let Some(bytes) = read(tap, id, job) else { return };
    let bodies = pieces(job.extent, span, &bytes, parts);
    let shipped = tap.core().ship(id, job, version, false, bodies);
    if shipped == Shipped::Done {
        return;
    }
    let Some(version) = hold(tap, id, job) else { return };
    let bodies = read(tap, id, job).map(|bytes| pieces(job.extent, span, &bytes, parts));
    let mut core = tap.core();
    if let Some(bodies) = bodies {
        core.ship(id, job, version, true, bodies);
    }
    core.release(job.extent);
    drop(core);
    tap.wake();
}

/// Keeps writers away from a job's extent; `None` when it need not be read any more.
fn hold(tap: &Tap, id: ReplicaId, job: &Job) -> Option<u64> {
    let mut core = tap.core();
    while core.wants(id, job) {
        if let Some(version) = core.hold(job.extent) {
            return Some(version);
        }
        core = tap.wait(core, LOOK);
    }
    core.give_up(job.extent);
    drop(core);
    tap.wake();
    None
}

/// Moves one replica's records to its spill and back until told to stop.
pub fn move_spill(tap: &Tap, id: ReplicaId, mut spill: Spill, stop: &AtomicBool) {
    let mut life = tap.core().replica(id).outbox.life();
    let (mut looked, mut said) = (Instant::now(), None);
    while !stop.load(Ordering::SeqCst) {
        let (out, wants, now, full) = {
            let mut core = tap.core();
            let layout = Arc::clone(core.layout());
            let outbox = &mut core.replica_mut(id).outbox;
            let out = outbox.to_spill(&layout);
            (out, outbox.wants_refill(), outbox.life(), outbox.lacks_room())
        };
        if full && looked.elapsed() >= ROOM_EVERY {
            looked = Instant::now();
            if spill.has_room(ROOM_BYTES) {
                tap.core().replica_mut(id).outbox.spill_has_room();
                tap.wake();
            }
        }
        if now != life {
            life = now;
            if let Err(error) = spill.clear() {
                tracing::warn!(error = %report(&error), "the spill cannot be cleared");
            }
        }
        let idle = out.is_none() && !wants;
        if let Some(records) = out {
            let moved = match spill.push(&records) {
                Ok(()) => Moved::Written,
                Err(error @ SpillError::Full { .. }) => {
                    tracing::warn!(%error, "the spill is full; when the memory is full too the \
                        group's policy acts");
                    Moved::Full
                }
                Err(error @ SpillError::NoRoom(_)) => {
                    looked = Instant::now();
                    if said.is_none_or(|since: Instant| since.elapsed() >= SAY_EVERY) {
                        said = Some(looked);
                        tracing::warn!(error = %report(&error), "the spill's disk is full; it is \
                            used again when there is room; until then, when the memory is full \
                            the group's policy acts");
                    }
                    Moved::NoRoom
                }
                Err(error) => {
                    tracing::error!(error = %report(&error), "the spill cannot be written; when \
                        the outbox's memory is full its policy acts");
                    Moved::Failed
                }
            };
            tap.core().replica_mut(id).outbox.spilled(life, moved);
            tap.wake();
        } else if wants {
            match spill.pop(REFILL_BYTES) {
                Ok(records) => tap.core().replica_mut(id).outbox.refilled(life, records),
                Err(error) => {
                    tracing::error!(error = %report(&error),
                        "the spill cannot be read; what it held is resynced");
                    let mut core = tap.core();
                    if core.replica(id).outbox.life() == life {
                        core.spill_lost(id);
                    }
                }
            }
            tap.records.notify_one();
        }
        if idle {
            drop(tap.wait(tap.core(), LOOK));
        }
    }
}
