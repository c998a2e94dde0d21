//! The endpoint's doors: who is turned away at them is logged at a pace, however many come.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::knocks::Knocks;

/// How often it is looked whether refusals that had to wait can be logged.
pub(super) const REMIND: Duration = Duration::from_secs(1);

/// Where somebody may come in.
#[derive(Debug)]
pub(super) struct Doors {
    begun: Instant,
    links: Door,
    pairing: Door,
}

#[derive(Debug)]
struct Door {
    refused: &'static str,
    knocks: Mutex<Knocks>,
}

impl Doors {
    /// Nobody came yet.
    pub(super) fn new() -> Doors {
        let door = |refused| Door { refused, knocks: Mutex::default() };
        Doors {
            begun: Instant::now(),
            links: door("refused a connection"),
            pairing: door("refused a pairing"),
        }
    }

    /// A handshake failed. Logged when it is time to.
    pub(super) fn refused(&self, from: SocketAddr, why: &str) {
        self.links.refused(self.begun.elapsed(), from, why);
    }

    /// A pairing came to nothing. Logged when it is time to.
    pub(super) fn refused_pairing(&self, from: SocketAddr, why: &str) {
        self.pairing.refused(self.begun.elapsed(), from, why);
    }

    /// Logs what had to wait, when its time has come.
    pub(super) fn remind(&self) {
        self.links.remind(self.begun.elapsed());
        self.pairing.remind(self.begun.elapsed());
    }
}

impl Door {
    fn refused(&self, now: Duration, from: SocketAddr, why: &str) {
        let mut knocks = self.knocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = knocks.refused(now, from, why) {
            tracing::warn!("{}: {line}", self.refused);
        } else {
            tracing::debug!(%from, why, "{}", self.refused);
        }
    }

    fn remind(&self, now: Duration) {
        let mut knocks = self.knocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = knocks.due(now) {
            tracing::warn!("{}: {line}", self.refused);
        }
    }
}
