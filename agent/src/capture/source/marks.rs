//! Markers: named places that the source puts into the stream.

use vgship_base::ids::{ReplicaId, Seq};
use vgship_base::record::{Body, Marker, Record, Target};

use super::Source;
use super::resync::bound;
use crate::ship::replica::Flow;

/// What becomes of a marker at one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It stands in its stream, outside of a resync.
    Follows,
    /// It stands in its stream, inside a resync: no snapshot is taken there.
    Resyncs,
    /// Its stream has broken off: it never hears of it.
    Away,
}

impl Source {
    /// What would become of a marker at each replica.
    pub fn reach(&self) -> Vec<(ReplicaId, Reach)> {
        let reach = |replica: &crate::ship::replica::Replica| match replica.flow {
            Flow::Stream if replica.resync.is_none() => Reach::Follows,
            Flow::Stream => Reach::Resyncs,
            Flow::Map(_) => Reach::Away,
        };
        self.replicas.iter().map(|replica| (replica.id, reach(replica))).collect()
    }

    /// Puts a marker into every stream, behind an epoch end, so that it bears the time of its
    /// place. Where it stands; `None` when no replica has a stream. `clock` is the wall clock in
    /// microseconds since 1970.
    pub fn mark(&mut self, marker: Marker, clock: u64) -> Option<Seq> {
        let over = self.unwritten || self.giving.handed.is_some();
        if over || self.replicas.iter().all(|replica| replica.flow != Flow::Stream) {
            return None;
        }
        self.end_epoch(clock);
        self.last = self.last.next();
        let record = Record { seq: self.last, target: Target::All, body: Body::Marker(marker) };
        for replica in &mut self.replicas {
            bound(replica, &self.layout, self.policy.overflow, record.seq);
            replica.pace.spend(record.encoded_len() as u64);
            replica.take(&self.layout, &record, None);
        }
        Some(record.seq)
    }
}
