//! The beat of a source: tells its core the time, writes its ledger, says what changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vgship_base::ids::{Name, ReplicaId, Seq};
use vgship_base::record::ResyncReason;

use crate::capture::io::Tap;
use crate::ship::replica::{Flow, Replica};
use crate::ship::standing::Standing;

/// How often time is told to the core.
const TICK: Duration = Duration::from_millis(50);

/// How often the ledger is written while there is something to unmark.
const CHECKPOINT: Duration = Duration::from_secs(10);

/// How often it is tried while it cannot be written.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);

/// What an operator should hear of when it changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Map(ResyncReason),
    Resync(ResyncReason),
    Follows,
}

fn heard(replica: &Replica) -> Heard {
    match (replica.flow, replica.resync) {
        (Flow::Map(why), _) => Heard::Map(why),
        (Flow::Stream, Some(resync)) => Heard::Resync(resync.reason),
        (Flow::Stream, None) => Heard::Follows,
    }
}

fn tell(group: &Name, replica: ReplicaId, heard: Heard) {
    let replica = replica.0;
    match heard {
        Heard::Map(why) => tracing::warn!(%group, replica, reason = why.text(),
            "writes go on; what the replica lacks is noted in the map until a resync"),
        Heard::Resync(why) => tracing::info!(%group, replica, reason = why.text(),
            "a resync runs: the replica is not consistent until it ends"),
        Heard::Follows => tracing::info!(%group, replica, "the replica follows and is consistent"),
    }
}

/// What an operator should hear of how writes are acknowledged when it changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Promise {
    standing: Standing,
    lags: bool,
}

fn promise(replica: &Replica) -> Promise {
    // Joining names a number; an operator hears of it once.
    let standing = match replica.sync.standing() {
        Standing::Joining { .. } => Standing::Joining { barrier: Seq::ZERO },
        other => other,
    };
    Promise { standing, lags: replica.pace.exceeded().is_some() }
}

fn tell_promise(group: &Name, replica: ReplicaId, before: Promise, now: Promise) {
    let replica = replica.0;
    match (before.standing, now.standing) {
        (before, now) if before == now => {}
        (_, Standing::InForce) => tracing::info!(%group, replica,
            "sync is in force: every acknowledged write is durable on the replica"),
        (_, Standing::Joining { .. }) => tracing::info!(%group, replica,
            "sync: writes wait for the replica again"),
        (Standing::InForce | Standing::Joining { .. }, Standing::Out(why)) => {
            tracing::warn!(%group, replica, reason = why.text(),
                "ALERT: sync is no longer in force: the replica may lack acknowledged writes");
        }
        (_, Standing::Out(why)) => tracing::info!(%group, replica, reason = why.text(),
            "sync is not in force yet"),
        (_, Standing::Off) => tracing::info!(%group, replica, "writes do not wait for it"),
    }
    match (before.lags, now.lags) {
        (false, true) => tracing::warn!(%group, replica,
            "ALERT: the replica is further behind than max_lag allows"),
        (true, false) => tracing::info!(%group, replica, "the replica is within max_lag again"),
        _ => {}
    }
}

/// Runs until told to stop.
pub(super) fn beat(group: &Name, tap: &Tap, stop: &AtomicBool) {
    let mut checkpointed = Instant::now();
    let (mut last_heard, mut promised) = (BTreeMap::new(), BTreeMap::new());
    let mut resyncing = false;
    while !stop.load(Ordering::SeqCst) {
        let (busy, ended, flush) = {
            let mut core = tap.core();
            core.tick(tap.clock().now(), tap.clock().wall());
            for id in core.ids() {
                let now = heard(core.replica(id));
                if last_heard.insert(id, now).is_some_and(|before| before != now) {
                    tell(group, id, now);
                }
                let now = promise(core.replica(id));
                if let Some(before) = promised.insert(id, now) {
                    tell_promise(group, id, before, now);
                }
            }
            let before = resyncing;
            resyncing = core.ids().any(|id| core.replica(id).resync.is_some());
            (core.marked_regions() > 0 || resyncing, before && !resyncing, core.wants_flush())
        };
        if flush {
            tap.flush_unflushed();
        }
        tap.records.notify_one();
        tap.jobs.notify_all();
        tap.wake();
        let every = if tap.in_doubt() { CHECKPOINT_RETRY } else { CHECKPOINT };
        let due = checkpointed.elapsed() >= every && (busy || tap.in_doubt());
        // What a resync has settled is settled for a crash in the next moment, too.
        if due || ended {
            tap.checkpoint();
            checkpointed = Instant::now();
        }
        std::thread::sleep(TICK);
    }
}
