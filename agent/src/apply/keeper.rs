//! What the stream means for snapshots: where one is taken, what must be preserved before it is
//! overwritten, when the way back of a resync is no longer needed.

use std::sync::Arc;

use vgship_base::ids::{Generation, Name, Seq, VolumeId};
use vgship_base::record::{Body, Marker, Order, Record};
use vgship_base::units::Span;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::set::{NewSnapshot, Noted, Origin, Preserver, Snapshot, SnapshotSet};

use crate::history::spec::parse_seq;
use crate::receive::admit::Point;

/// This machine's wall clock. Unit: microseconds since 1970.
pub type Wall = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What became of a request that concerns snapshots, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A snapshot was taken.
    Taken(Snapshot),
    /// A snapshot was deleted, pinned or unpinned, as the source asked.
    Did(&'static str, Name),
    /// A marker of the source could not be followed.
    Refused {
        /// Its name.
        name: Name,
        /// Why.
        why: String,
    },
    /// What guarded the resync that has ended does so no longer.
    Released,
}

/// Follows the stream for the snapshots of one replica.
pub struct Keeper {
    preserver: Preserver,
    wall: Wall,
    /// Where the volumes stand.
    seq: Seq,
    generation: Option<Generation>,
    clock: u64,
    /// Inside a resync, or behind lost records: no point is consistent.
    inside: bool,
    news: Vec<News>,
}

impl Keeper {
    /// For volumes that stand at `point`.
    pub fn new(preserver: Preserver, point: &Point, wall: Wall) -> Keeper {
        let (seq, generation, clock) = (point.seq, point.generation, point.clock);
        let inside = !point.consistent();
        Keeper { preserver, wall, seq, generation, clock, inside, news: Vec::new() }
    }

    /// The snapshots.
    pub fn set(&self) -> &Arc<SnapshotSet> {
        self.preserver.set()
    }

    /// What happened since this was last asked.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Promised records behind this point are lost: until a resync has ended nothing is consistent.
    pub fn break_off(&mut self) {
        self.inside = true;
    }

    /// How many of the records that come next may be applied together (R5).
    pub fn part(&self, records: &[Record]) -> usize {
        let border = records.iter().position(Record::is_border);
        let whole = match border {
            Some(0) => 1,
            Some(border) => border,
            None => records.len(),
        };
        let Some(last) = records[..whole].last() else { return 0 };
        match self.preserver.border(self.seq, last.seq) {
            // It stands behind some record of an earlier life, which may have come as a void since.
            Some(seq) => records[..whole].partition_point(|record| record.seq <= seq).max(1),
            None => whole,
        }
    }

    /// Preserves what `records` are about to overwrite: `spans`. What of the stream begins or ends
    /// a resync, or is a marker, is followed; it stands alone.
    ///
    /// Durable: all of that, once this has returned.
    pub fn before(
        &mut self,
        records: &[Record],
        spans: impl Iterator<Item = (VolumeId, Span)>,
    ) -> Result<(), SnapshotError> {
        let Some(last) = records.last() else { return Ok(()) };
        let shared = self.preserver.shared(spans, self.seq, last.seq)?;
        self.preserver.preserve(&shared)?;
        if records.len() == 1 {
            self.follow(last)?;
        }
        Ok(())
    }

    /// The records were written to the volumes.
    pub fn passed(&mut self, records: &[Record]) {
        for record in records {
            self.seq = record.seq;
            match &record.body {
                Body::ResyncBegin(begin) => {
                    self.generation = Some(begin.generation);
                    self.inside = true;
                }
                Body::ResyncEnd { .. } => self.inside = false,
                Body::EpochEnd(end) => self.clock = end.clock,
                _ => {}
            }
        }
    }

    /// Preserves what is about to be overwritten while the stream stands still.
    ///
    /// Durable: all of that, once this has returned.
    pub fn preserve(
        &mut self,
        spans: impl Iterator<Item = (VolumeId, Span)>,
    ) -> Result<(), SnapshotError> {
        let shared = self.preserver.shared(spans, self.seq, self.seq)?;
        self.preserver.preserve(&shared)
    }

    /// The snapshot of where the volumes stand, which is settled: taken now unless there is one.
    /// Inside a resync it is no consistent point.
    pub fn way_back(&mut self) -> Result<Snapshot, SnapshotError> {
        if let Some(found) = self.set().list()?.into_iter().find(|it| it.seq == self.seq) {
            return Ok(found);
        }
        let name = format!("before-rollback-{}", self.seq).parse().expect("digits and a dot");
        let new = self.new_snapshot(self.seq, name, Origin::BeforeRollback);
        let taken = self.preserver.take_again(&NewSnapshot { torn: self.inside, ..new })?;
        self.news.push(News::Taken(taken.clone()));
        Ok(taken)
    }

    fn follow(&mut self, record: &Record) -> Result<(), SnapshotError> {
        match &record.body {
            Body::ResyncBegin(_) if !self.inside => {
                let name = format!("before-resync-{}", self.seq);
                let name = name.parse().expect("digits and a dot");
                let new = self.new_snapshot(record.seq, name, Origin::BeforeResync);
                self.note(&NewSnapshot { guards: true, point: self.seq, ..new })
            }
            Body::ResyncEnd { .. } => {
                self.preserver.release_guards(record.seq)?;
                self.news.push(News::Released);
                Ok(())
            }
            Body::Marker(marker) => self.follow_marker(record.seq, marker),
            _ => Ok(()),
        }
    }

    fn follow_marker(&mut self, seq: Seq, marker: &Marker) -> Result<(), SnapshotError> {
        let name = marker.name.clone();
        if self.inside && matches!(marker.order, Order::Snapshot | Order::Event) {
            let why = "it stands inside a resync, where nothing is consistent".into();
            self.news.push(News::Refused { name, why });
            return Ok(());
        }
        let done = match marker.order {
            Order::Event | Order::Snapshot => {
                let quiesced = marker.quiesced;
                let noted = Noted { seq, name: name.clone(), clock: self.clock, quiesced };
                self.set().mark(&noted)?;
                if marker.order == Order::Event {
                    return Ok(());
                }
                let new = self.new_snapshot(seq, name.clone(), Origin::Manual);
                self.note(&NewSnapshot { quiesced, ..new })
            }
            Order::Delete if marker.quiesced => self.take_back(seq, &name),
            Order::Delete => self.change(seq, &name, "deleted", |set| set.delete(name.as_str())),
            Order::Pin => self.change(seq, &name, "pinned", |set| set.pin(name.as_str(), true)),
            Order::Unpin => {
                self.change(seq, &name, "unpinned", |set| set.pin(name.as_str(), false))
            }
        };
        match done {
            Err(error) if error.is_refusal() => {
                self.news.push(News::Refused { name, why: error.to_string() });
                Ok(())
            }
            done => done,
        }
    }

    /// Changes a snapshot that stood before the order did: another one that got its name later, in
    /// a life before this replay, is not meant.
    fn change(
        &mut self,
        seq: Seq,
        name: &Name,
        did: &'static str,
        change: impl FnOnce(&SnapshotSet) -> Result<Snapshot, SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let found = self.set().find(name.as_str())?;
        if found.seq < seq {
            change(self.set())?;
            self.news.push(News::Did(did, name.clone()));
        }
        Ok(())
    }

    /// Takes back that applications were quiet at a marker, with the snapshot that was taken there.
    /// It is named by its place, whatever that is called by now; a set's by its name, which is used
    /// once.
    fn take_back(&mut self, at: Seq, what: &Name) -> Result<(), SnapshotError> {
        let place = parse_seq(what.as_str());
        let is_meant = |seq: Seq, name: &Name| match place {
            Some(place) => seq == place,
            None => name == what && seq < at,
        };
        let markers = self.set().markers()?.into_iter();
        for noted in markers.filter(|it| it.quiesced && is_meant(it.seq, &it.name)) {
            self.set().mark(&Noted { quiesced: false, ..noted })?;
        }
        let found = self.set().list()?.into_iter().find(|it| is_meant(it.seq, &it.name));
        let Some(found) = found else { return Ok(()) };
        // First, so that one which is kept is not taken for what it is not.
        self.set().disturb(found.name.as_str())?;
        self.set().delete(found.name.as_str())?;
        self.news.push(News::Did("taken back: applications were not quiet", found.name));
        Ok(())
    }

    fn new_snapshot(&self, seq: Seq, name: Name, origin: Origin) -> NewSnapshot {
        NewSnapshot {
            seq,
            name,
            origin,
            guards: false,
            quiesced: false,
            torn: false,
            clock: self.clock,
            taken: (self.wall)(),
            generation: self.generation.unwrap_or_default(),
            point: seq,
        }
    }

    fn note(&mut self, new: &NewSnapshot) -> Result<(), SnapshotError> {
        let taken = self.preserver.take(new)?;
        self.news.extend(taken.map(News::Taken));
        Ok(())
    }

    /// Takes a snapshot of where the volumes stand, outside the stream. Where one stands that the
    /// schedule took, that one gets the name; `None` when the schedule asks for one that is there.
    ///
    /// # Errors
    /// [`SnapshotError::Inconsistent`] inside a resync or before the first one has ended.
    pub fn take_here(
        &mut self,
        name: Name,
        origin: Origin,
    ) -> Result<Option<Snapshot>, SnapshotError> {
        if self.inside {
            let why = "the replica is being resynchronised: nothing is consistent until that has \
                       ended"
                .into();
            return Err(SnapshotError::Inconsistent(why));
        }
        let here = |it: &Snapshot| it.seq == self.seq || (it.guards && it.point == self.seq);
        if let Some(found) = self.set().list()?.into_iter().rfind(here) {
            return match (origin, found.origin) {
                (Origin::Automatic, _) => Ok(None),
                (_, Origin::Manual) => {
                    Err(SnapshotError::Named { name: found.name.to_string(), seq: found.seq })
                }
                _ => self.set().adopt(found.name.as_str(), name).map(Some),
            };
        }
        if self.seq <= self.set().taken()? {
            let why = "a snapshot of this very point was deleted; it comes back with the next \
                       record of the source";
            return Err(SnapshotError::Inconsistent(why.into()));
        }
        let new = self.new_snapshot(self.seq, name, origin);
        self.preserver.take(&new)
    }

    /// The volumes hold everything up to `seq` durably.
    pub fn settle(&self, seq: Seq) {
        self.set().settle(seq);
    }
}
