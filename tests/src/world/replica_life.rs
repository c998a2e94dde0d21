//! What a running replica does, one step at a time.

use vgship::apply::applier::{Answer, ApplyError};
use vgship::apply::rolled::Rolled;
use vgship::receive::admit::AdmitError;
use vgship::ship::verdict::ReplicaPoint;
use vgship_base::ids::Seq;
use vgship_base::record::{Body, Chain, Record};
use vgship_base::sim::SimFolder;
use vgship_snapshot::SnapshotError;

use super::replica::{Batch, Ended, ReplicaLife, handover_of};

impl ReplicaLife {
    /// What it says of itself when a link begins. All that it admitted is durable then.
    pub fn hello(&mut self) -> Result<ReplicaPoint, Ended> {
        self.journal.flush()?;
        let point = self.admit.point();
        Ok(ReplicaPoint {
            fresh: point.generation.is_none(),
            generation: point.generation.unwrap_or_default(),
            durable: point.seq,
            damaged: point.broken() || self.chain_differs,
        })
    }

    /// Records arrived. Those that were admitted are appended; why the rest was not is returned.
    pub fn receive(
        &mut self,
        records: &[Record],
        promised: Seq,
    ) -> Result<Option<AdmitError>, Ended> {
        let mut refused = None;
        let mut batches: Vec<Batch> = Vec::new();
        let mut alone = true;
        for record in records {
            if let Err(error) = self.admit.admit(record, Chain::data_hash(record)) {
                self.chain_differs |= matches!(error, AdmitError::Chain { .. });
                refused = Some(error);
                break;
            }
            let point = self.admit.point();
            let ends = record.is_border();
            match batches.last_mut().filter(|_| !alone && !ends) {
                Some(batch) => {
                    batch.records.push(record.clone());
                    batch.point = point;
                }
                None => batches.push(Batch { records: vec![record.clone()], point }),
            }
            alone = ends;
        }
        for batch in &batches {
            self.journal.append(&batch.records, promised)?;
        }
        self.received.extend(batches);
        Ok(refused)
    }

    /// Applies up to `count` batches that are durable, as one where that is allowed. Returns the
    /// session they belong to, the answers, and whether a resync ended.
    pub fn apply(&mut self, count: usize) -> Result<Option<(u64, Vec<Answer>, bool)>, Ended> {
        if self.hold.is_some() || self.is_handed() {
            return Ok(None);
        }
        let mut whole: Option<Batch> = None;
        let mut ended = false;
        for _ in 0..count {
            let durable = self.journal.durable();
            let border = |batch: &Batch| batch.records[0].is_border();
            let fits =
                |batch: &&Batch| batch.point.seq <= durable && (whole.is_none() || !border(batch));
            if self.received.front().is_none_or(|batch| !fits(&batch)) {
                break;
            }
            let next = self.received.pop_front().expect("it was just seen");
            let last = border(&next);
            ended |= matches!(next.records[0].body, Body::ResyncEnd { .. });
            match &mut whole {
                Some(whole) => {
                    whole.records.extend(next.records);
                    whole.point = next.point;
                }
                None => whole = Some(next),
            }
            if last {
                break;
            }
        }
        let Some(batch) = whole else { return Ok(None) };
        let answers = match self.applier.apply(&batch.records, false) {
            Err(ApplyError::Snapshots(SnapshotError::NoRoom { .. })) => {
                self.received.push_front(batch);
                return Ok(None);
            }
            done => done?,
        };
        self.applied = batch.point;
        let session = batch.point.window.map_or(0, |window| window.session);
        Ok(Some((session, answers, ended)))
    }

    /// Whether the source's role was given to this replica, and nothing is left to apply.
    fn is_handed(&mut self) -> bool {
        let durable = self.journal.durable();
        let next = self.received.front().filter(|batch| batch.point.seq <= durable);
        self.handed = self.handed.or(next.and_then(|batch| handover_of(&batch.records)));
        self.handed.is_some()
    }

    /// Flushes the volumes and moves the checkpoint.
    pub fn checkpoint(&mut self, state: &SimFolder) -> Result<(), Ended> {
        if self.applied.generation.is_none() || self.hold.is_some() {
            return Ok(());
        }
        self.applier.checkpoint(state, &self.applied)?;
        self.checkpointed = self.applied.seq;
        self.stored = self.applied;
        Ok(())
    }

    /// Removes from the journal what the volumes hold, history does not need and nobody reads (R12).
    pub fn trim(&mut self) -> Result<(), Ended> {
        let read = self.readers().min().unwrap_or(Seq(u64::MAX));
        Ok(self.journal.trim(self.checkpointed.min(self.floor).min(read))?)
    }

    /// The records behind which somebody reads the journal.
    pub fn readers(&self) -> impl Iterator<Item = Seq> + use<> {
        self.hold.as_ref().map(|hold| hold.after).into_iter()
    }

    /// How far a rollback is.
    pub fn rolled(&self) -> Option<Rolled> {
        self.hold.as_ref().map(|hold| hold.rolled)
    }
}
