//! What is shown of a link to a peer: plain data that its tasks write and the status reads.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::api::status::PeerStatus;

/// A peer as one group sees it.
#[derive(Debug)]
pub(super) struct PeerView {
    name: String,
    state: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    connected: bool,
    address: Option<SocketAddr>,
    since: Timestamp,
    last_error: Option<String>,
    diverged: bool,
}

impl PeerView {
    /// Not connected yet.
    pub(super) fn new(name: String) -> PeerView {
        let since = Timestamp::now();
        let state =
            Seen { connected: false, address: None, since, last_error: None, diverged: false };
        PeerView { name, state: Mutex::new(state) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it calls itself.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A stream to it stands.
    pub(super) fn connected(&self, address: SocketAddr) {
        let mut seen = self.seen();
        seen.connected = true;
        seen.diverged = false;
        seen.address = Some(address);
        seen.since = Timestamp::now();
        tracing::info!(peer = self.name, %address, "connected");
    }

    /// The stream ended or did not come about. Logged when it is news.
    pub(super) fn lost(&self, why: &str) {
        let mut seen = self.seen();
        let news = seen.connected || seen.last_error.as_deref() != Some(why);
        if seen.connected {
            seen.since = Timestamp::now();
        }
        seen.connected = false;
        seen.last_error = Some(why.to_owned());
        if news {
            tracing::warn!(peer = self.name, reason = why, "not connected");
        }
    }

    /// Both sides have a history of their own.
    pub(super) fn diverged(&self, why: &str) {
        self.lost(why);
        self.seen().diverged = true;
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
        }
    }
}
