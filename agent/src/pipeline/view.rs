//! What is shown of a link to a peer: plain data that its tasks write and the status reads.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use vgship_base::ids::Name;

use crate::api::status::PeerStatus;
use crate::wire::complaint::Complaint;
use crate::wire::retry::Ended;

/// A peer as one group sees it.
#[derive(Debug)]
pub(super) struct PeerView {
    group: Name,
    name: String,
    begun: Instant,
    state: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    connected: bool,
    address: Option<SocketAddr>,
    since: Timestamp,
    last_error: Option<String>,
    diverged: bool,
    complaint: Complaint,
}

impl PeerView {
    /// Not connected yet.
    pub(super) fn new(group: Name, name: String) -> PeerView {
        let since = Timestamp::now();
        let state = Seen {
            connected: false,
            address: None,
            since,
            last_error: None,
            diverged: false,
            complaint: Complaint::default(),
        };
        PeerView { group, name, begun: Instant::now(), state: Mutex::new(state) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it calls itself.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A stream to it stands. Whether that is news, which is logged.
    pub(super) fn connected(&self, address: SocketAddr) -> bool {
        let mut seen = self.seen();
        seen.connected = true;
        seen.diverged = false;
        seen.address = Some(address);
        seen.since = Timestamp::now();
        let news = seen.complaint.succeeded(self.begun.elapsed());
        if let Some(after) = &news {
            tracing::info!(group = %self.group, peer = self.name, %address, "connected{after}");
        }
        news.is_some()
    }

    /// The stream ended or did not come about; the next try begins `wait` from now, if this side
    /// tries. Logged when it is time to.
    pub(super) fn lost(&self, why: &str, wait: Option<Duration>) {
        let mut seen = self.seen();
        seen.disconnected(why);
        if let Some(line) = seen.complaint.failed(self.begun.elapsed(), why, wait) {
            self.complain(&line);
        } else {
            tracing::debug!(group = %self.group, peer = self.name, why, "not connected");
        }
    }

    /// Both sides have a history of their own.
    pub(super) fn diverged(&self, why: &str, wait: Option<Duration>) {
        self.lost(why, wait);
        self.seen().diverged = true;
    }

    /// The stream was ended on purpose, or is not wanted now.
    pub(super) fn ended(&self, why: &str) {
        let mut seen = self.seen();
        seen.disconnected(why);
        seen.complaint.ended();
    }

    /// Logs a failure that had to wait, when its time has come.
    pub(super) fn remind(&self) {
        let line = self.seen().complaint.due(self.begun.elapsed());
        if let Some(line) = line {
            self.complain(&line);
        }
    }

    fn complain(&self, line: &str) {
        tracing::warn!(group = %self.group, peer = self.name, "not connected: {line}");
    }

    /// How its loss counts for the next try: after the time for which it stood, if it did.
    pub(super) fn how_lost(&self) -> Ended {
        let stood = self.seen().complaint.stood(self.begun.elapsed());
        stood.map_or(Ended::Unreachable, Ended::LostAfter)
    }

    /// Whether a stream stands.
    pub(super) fn is_connected(&self) -> bool {
        self.seen().connected
    }

    /// Whether the last try found that the histories went apart.
    pub(super) fn is_diverged(&self) -> bool {
        self.seen().diverged
    }

    /// Why it is not connected, or was not the last time.
    pub(super) fn last_error(&self) -> Option<String> {
        self.seen().last_error.clone()
    }

    /// For the status.
    pub(super) fn status(&self, sent_bytes: u64) -> PeerStatus {
        let seen = self.seen();
        PeerStatus {
            name: self.name.clone(),
            connected: seen.connected,
            address: seen.address.map(|address| address.to_string()),
            since: Some(seen.since.to_string()),
            last_error: seen.last_error.clone(),
            sent_bytes,
            sync: None,
            blind: false,
            tries: seen.complaint.tries(),
        }
    }
}

impl Seen {
    fn disconnected(&mut self, why: &str) {
        if std::mem::take(&mut self.connected) {
            self.since = Timestamp::now();
        }
        self.last_error = Some(why.to_owned());
    }
}
