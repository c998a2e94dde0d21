//! Looks at the source all the time: how far the replica is behind, which states it passes, and
//! how much the workload may still write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vgship_base::ids::Name;

use super::pace::FULL;
use super::workload::Shared;
use crate::api::Client;
use crate::api::status::{GroupStatus, State};
use crate::home::Home;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// How far the workload may be ahead of the replica. Unit: bytes.
pub(super) const AHEAD: u64 = 48 << 20;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// The largest lag. Unit: bytes.
    pub(super) lag_bytes: u64,
    /// The largest lag. Unit: seconds.
    pub(super) lag_seconds: f64,
    /// Every state, once, in the order of appearance.
    pub(super) states: Vec<State>,
    /// Whether the replica was inconsistent or resyncing at any time.
    pub(super) resynced: bool,
}

impl Seen {
    /// Takes in one more look.
    fn add(&mut self, group: &GroupStatus) {
        self.lag_bytes = self.lag_bytes.max(group.lag.bytes);
        self.lag_seconds = self.lag_seconds.max(group.lag.seconds);
        if !self.states.contains(&group.state) {
            self.states.push(group.state);
        }
        self.resynced |= group.resync.is_some() || !group.consistent;
    }
}

/// The observer; it ends with this value.
pub(super) struct Watch {
    shared: Arc<Watched>,
    thread: Option<JoinHandle<()>>,
}

struct Watched {
    client: Client,
    group: Name,
    workload: Arc<Shared>,
    seen: Mutex<[Seen; 2]>,
    free: AtomicBool,
    stop: AtomicBool,
}

impl Watch {
    /// Looks at the agent of this home, whether it runs or not.
    pub(super) fn start(
        home: &Home,
        group: &Name,
        workload: &Arc<Shared>,
    ) -> std::io::Result<Watch> {
        let shared = Arc::new(Watched {
            client: Client::new(home),
            group: group.clone(),
            workload: Arc::clone(workload),
            seen: Mutex::default(),
            free: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let run = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || run.run())?;
        Ok(Watch { shared, thread: Some(thread) })
    }

    /// What has been seen since the last call.
    pub(super) fn since_last(&self) -> Seen {
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut seen[0])
    }

    /// What has been seen in all.
    pub(super) fn all(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)[1].clone()
    }

    /// With `free` the workload may run away from its replica.
    pub(super) fn set_free(&self, free: bool) {
        self.shared.free.store(free, Ordering::SeqCst);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Watched {
    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let pace = &self.workload.pace;
            let taken = pace.taken();
            let asked = crate::cli::block_on(self.client.status(Some(&self.group)));
            // A source that is down says nothing, and the workload waits at the last ceiling.
            if let Some(group) = asked.ok().and_then(|status| status.groups.into_iter().next()) {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.iter_mut().for_each(|seen| seen.add(&group));
                drop(seen);
                let ceiling = match self.free.load(Ordering::SeqCst) {
                    true => FULL,
                    false => taken + AHEAD.saturating_sub(group.lag.bytes),
                };
                pace.set_ceiling(ceiling);
            }
            std::thread::sleep(LOOK);
        }
    }
}
