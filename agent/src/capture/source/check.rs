//! The self-check: extents that are believed clean are hashed on both sides, at one place of the
//! order. A difference means that a write went past the tap, that somebody wrote on the replica, or
//! that a disk forgot: it is said aloud, and healed by a resync of that extent.

use std::collections::BTreeMap;

use vgship_base::extent::Extent;
use vgship_base::ids::{ReplicaId, Seq, VolumeId};
use vgship_base::record::{Body, Hash, ResyncReason};

use super::Source;

/// Checks of one replica under way at once: each is answered within a round trip, and they go
/// slowly on purpose.
pub(super) const CHECKS_MAX: usize = 8;

/// Bytes that may wait for the link before no further check is added: live writes come first.
const CHECK_BACKLOG: u64 = 1 << 20;

/// How often an extent that is written while it is read is tried before the walk passes over it.
pub(super) const TRIES: u8 = 4;

/// Where one replica's self-check is and what it found.
#[derive(Debug, Default)]
pub struct Checks {
    at: Option<Extent>,
    /// An extent to be tried again, and how often it was.
    again: Option<(Extent, u8)>,
    asked: BTreeMap<Seq, Extent>,
    report: CheckReport,
}

/// What the self-check of one replica has come to since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Extents that were found equal or different.
    pub checked: u64,
    /// Extents that were passed over: written whenever they were read.
    pub passed_over: u64,
    /// How often all volumes were gone through.
    pub rounds: u64,
    /// Extents that differed.
    pub mismatches: u64,
    /// The last one that differed, and where in the order.
    pub last: Option<(Extent, Seq)>,
}

impl Checks {
    /// What it has come to.
    pub const fn report(&self) -> CheckReport {
        self.report
    }

    /// Whether no answer is awaited and nothing is to be tried again.
    pub fn is_quiet(&self) -> bool {
        self.asked.is_empty() && self.again.is_none()
    }

    /// The link broke or the order was lost: answers under way will not come, or mean nothing.
    pub(crate) fn clear(&mut self) {
        self.asked.clear();
        self.again = None;
    }

    fn overtaken(&mut self, extent: Extent) {
        let tries = self.again.filter(|(known, _)| *known == extent).map_or(0, |(_, tries)| tries);
        self.again = (tries + 1 < TRIES).then_some((extent, tries + 1));
        self.report.passed_over += u64::from(self.again.is_none());
    }
}

impl Source {
    /// The next extent to read for the self-check of this replica, and the version that
    /// [`Source::check`] compares. `None` while the replica does not follow, or has enough to do.
    pub fn next_check(&mut self, id: ReplicaId) -> Option<(Extent, u64)> {
        let replica = self.replica(id);
        let busy = replica.checks.asked.len() >= CHECKS_MAX
            || replica.outbox.unsent_bytes() > CHECK_BACKLOG;
        if busy || !self.is_checkable(id) {
            return None;
        }
        let extent = match replica.checks.again {
            Some((extent, _)) => extent,
            None => self.walk_on(id)?,
        };
        Some((extent, self.versions.of(extent)))
    }

    fn is_checkable(&self, id: ReplicaId) -> bool {
        let replica = self.replica(id);
        let clean = replica.wants_resync.is_none() && replica.dirty.is_empty();
        self.giving.handed.is_none() && replica.follows() && clean
    }

    /// The extent behind the last one; a round begins anew behind the end.
    fn walk_on(&mut self, id: ReplicaId) -> Option<Extent> {
        let (layout, first) = (self.layout.clone(), Extent { volume: VolumeId(0), index: 0 });
        let checks = &mut self.replica_mut(id).checks;
        let next = match checks.at {
            None => Some(first),
            Some(at) => {
                let next = Extent { index: at.index + 1, ..at };
                let following =
                    Extent { volume: VolumeId(at.volume.0.saturating_add(1)), index: 0 };
                [next, following].into_iter().find(|it| layout.span(*it).is_some())
            }
        };
        checks.report.rounds += u64::from(next.is_none());
        checks.at = Some(next.unwrap_or(first));
        checks.at.filter(|it| layout.span(*it).is_some())
    }

    /// An extent was read for the self-check. The question takes its place in the order only if
    /// nothing was written into it since [`Source::next_check`]: what was read is then what the
    /// order says there, so that no difference is ever reported where none is.
    pub fn check(&mut self, id: ReplicaId, extent: Extent, version: u64, hash: Hash) {
        if !self.is_checkable(id) {
            return;
        }
        let span = self.span(extent);
        if self.versions.of(extent) != version || self.locks.busy(extent.volume, span) {
            return self.replica_mut(id).checks.overtaken(extent);
        }
        let seq = self.push_for(id, Body::Check { extent, hash });
        let checks = &mut self.replica_mut(id).checks;
        checks.again = None;
        checks.asked.insert(seq, extent);
    }

    /// Reading an extent for the self-check failed: the walk passes over it.
    pub fn uncheckable(&mut self, id: ReplicaId) {
        let checks = &mut self.replica_mut(id).checks;
        checks.again = None;
        checks.report.passed_over += 1;
    }

    /// The replica's answer to a check. A difference is dirty from here on, and returned for the
    /// alert.
    pub(super) fn checked(&mut self, id: ReplicaId, question: Seq, equal: bool) -> Option<Extent> {
        let replica = self.replica_mut(id);
        let extent = replica.checks.asked.remove(&question)?;
        let report = &mut replica.checks.report;
        report.checked += 1;
        if equal {
            return None;
        }
        report.mismatches += 1;
        report.last = Some((extent, question));
        replica.dirty.insert(extent);
        replica.wants_resync = Some(ResyncReason::Mismatch);
        Some(extent)
    }
}
