//! Paired peers whose hellos this agent refuses: a line a minute for each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vgship_base::ids::PeerId;

use crate::wire::knocks::Knocks;

/// Refused hellos by peer. As many as are or were in the book of peers.
#[derive(Debug)]
pub(super) struct TurnedAway {
    begun: Instant,
    peers: Mutex<BTreeMap<PeerId, Knocks>>,
}

impl TurnedAway {
    /// Nobody yet.
    pub(super) fn new() -> TurnedAway {
        TurnedAway { begun: Instant::now(), peers: Mutex::default() }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<PeerId, Knocks>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer's hello was refused. Logged when it is time to.
    pub(super) fn refused(&self, peer: PeerId, from: SocketAddr, why: &str) {
        let mut peers = self.peers();
        let line = peers.entry(peer).or_default().refused(self.begun.elapsed(), from, why);
        drop(peers);
        if let Some(line) = line {
            say(peer, &line);
        } else {
            tracing::debug!(%peer, %from, why, "refused the hello of a peer");
        }
    }

    /// Logs what had to wait, when its time has come.
    pub(super) fn remind(&self) {
        let now = self.begun.elapsed();
        for (peer, knocks) in self.peers().iter_mut() {
            if let Some(line) = knocks.due(now) {
                say(*peer, &line);
            }
        }
    }
}

fn say(peer: PeerId, line: &str) {
    tracing::warn!(%peer, "refused the hello of a peer: {line}");
}
