//! The replica's machine: disks, folders, and a life between two starts. Does what the agent's
//! shell will do, one step at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use vgship::apply::applier::{Answer, Applier, ApplyError};
use vgship::apply::checkpoint;
use vgship::apply::keeper::Keeper;
use vgship::receive::admit::{Admit, AdmitError, Point};
use vgship::receive::journal::{Journal, JournalError};
use vgship::ship::verdict::ReplicaPoint;
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::folder::Folder;
use vgship_base::ids::{GroupId, Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Chain, Record};
use vgship_base::sim::{Power, Rng, SimDisk, SimFolder};
use vgship_snapshot::SnapshotError;
use vgship_snapshot::seal::DataKey;
use vgship_snapshot::set::{Parts, Preserver, SnapshotSet};

use super::model::{Images, change_image};
use vgship::capture::source::Change;
use vgship_base::units::Span;

/// The group of every simulation.
pub const GROUP: GroupId = GroupId([7; 16]);

/// The data key of every simulation.
pub fn key() -> DataKey {
    DataKey::from_bytes([9; 32])
}

/// A replica's machine.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked by itself")]
pub struct ReplicaHost {
    /// Its power supply.
    pub power: Power,
    /// Its volumes.
    pub disks: Vec<SimDisk>,
    /// Its journal's folder.
    pub journal: SimFolder,
    /// Its checkpoint's folder.
    pub state: SimFolder,
    /// Its snapshot store's folder.
    pub snapshots: SimFolder,
    /// What each snapshot that it ever had must hold; `None` when nobody knows.
    pub expected: BTreeMap<Seq, Option<Images>>,
    /// Extents that something wrote into past all order, in any life.
    pub strays: BTreeSet<(VolumeId, u64)>,
    /// It was consistent once.
    pub was_consistent: bool,
    /// History keeps the journal back to its oldest snapshot.
    pub history: bool,
    /// The running program.
    pub life: Option<ReplicaLife>,
    /// The highest seq that it acknowledged as durable.
    pub promised: Seq,
    /// The highest seq that it flushed, whether or not it could say so.
    pub held: Seq,
    /// A file of its journal was damaged on purpose; recovery may find out at any later time.
    pub decayed: bool,
    /// It lost what it had promised: nothing is expected of it until its next resync end.
    pub spoiled: bool,
    /// Which of the source's histories its records are of: each from this seq on.
    pub histories: Vec<(Seq, u32)>,
    /// Up to where the journal was flushed, and up to where it reached, when the power failed.
    cut_at: Option<(Seq, Seq)>,
    segment: u64,
    layout: Arc<Layout>,
}

/// A batch that was admitted and appended and not yet applied, with the point behind it.
pub struct Batch {
    /// Its records.
    pub records: Vec<Record>,
    /// Where the stream stands behind them.
    pub point: Point,
}

/// A running replica.
pub struct ReplicaLife {
    /// Its admission.
    pub admit: Admit,
    /// Its journal.
    pub journal: Journal,
    /// Its applier.
    pub applier: Applier,
    /// What waits to be applied.
    pub received: VecDeque<Batch>,
    /// Up to where it applied.
    pub applied: Point,
    /// Up to where its volumes hold the stream durably.
    pub checkpointed: Seq,
    /// It found that its chain differs.
    pub chain_differs: bool,
}

/// What a start of a replica found.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked by itself")]
pub struct Found {
    /// Where it stands.
    pub point: Point,
    /// It reports that promised records are lost.
    pub damaged: bool,
    /// Its journal reached further than its checkpoint.
    pub replayed: bool,
    /// Records that were not flushed when the power failed are gone.
    pub torn: bool,
    /// Records that were not flushed when the power failed are there all the same.
    pub survived: bool,
}

/// Why a step of a replica ended its life.
#[derive(Debug)]
pub enum Ended {
    /// The power is off, or a disk refused: the program stops and is started again.
    Stopped(String),
}

/// A program that stopped for an error.
pub fn stopped(error: &impl std::fmt::Debug) -> Ended {
    Ended::Stopped(format!("{error:?}"))
}

impl From<JournalError> for Ended {
    fn from(error: JournalError) -> Ended {
        stopped(&error)
    }
}

impl From<SnapshotError> for Ended {
    fn from(error: SnapshotError) -> Ended {
        stopped(&error)
    }
}

impl From<ApplyError> for Ended {
    fn from(error: ApplyError) -> Ended {
        stopped(&error)
    }
}

impl ReplicaHost {
    /// A machine with empty disks.
    pub fn new(layout: &Arc<Layout>, segment: u64, history: bool) -> ReplicaHost {
        let power = Power::default();
        let disk =
            |volume: &vgship_base::layout::VolumeLayout| SimDisk::volume(&power, volume.bytes);
        ReplicaHost {
            disks: layout.volumes.iter().map(disk).collect(),
            journal: SimFolder::new(&power),
            state: SimFolder::new(&power),
            snapshots: SimFolder::new(&power),
            expected: BTreeMap::new(),
            strays: BTreeSet::new(),
            was_consistent: false,
            history,
            power,
            life: None,
            promised: Seq::ZERO,
            held: Seq::ZERO,
            decayed: false,
            spoiled: false,
            histories: Vec::new(),
            cut_at: None,
            segment,
            layout: Arc::clone(layout),
        }
    }

    /// Starts the program: checkpoint, journal, replay.
    pub fn start(&mut self) -> Result<Found, Ended> {
        let stored = checkpoint::load(&self.state).map_err(|error| stopped(&error))?;
        let point = stored.unwrap_or(Point::FRESH);
        let folder: Arc<dyn Folder> = Arc::new(self.journal.clone());
        let (mut journal, recovered) = Journal::recover(folder, key(), GROUP, point.seq)?;
        journal.set_segment_bytes(self.segment);
        self.held = self.held.max(recovered.last);
        let share = |disk: &SimDisk| -> SharedDisk { Arc::new(disk.clone()) };
        let volumes: Vec<SharedDisk> = self.disks.iter().map(share).collect();
        let set = SnapshotSet::open(Parts {
            folder: Arc::new(self.snapshots.clone()),
            keys: key().into(),
            group: GROUP,
            layout: Arc::clone(&self.layout),
            volumes: volumes.clone(),
            pack_bytes: Some(32 << 10),
        })?;
        let mut preserver = Preserver::new(set, 1, point.seq)?;
        preserver.set_reserve(0);
        preserver.drop_behind(recovered.last)?;
        let mut applier = Applier::new(Arc::clone(&self.layout), volumes, 1);
        applier.flush_all()?;
        applier.keep(Keeper::new(preserver, &point, Arc::new(|| 0)));
        let mut admit = Admit::new(Arc::clone(&self.layout), point);
        for batch in journal.replay(point.seq) {
            let batch = batch?;
            for record in &batch {
                let admitted = admit.admit(record, Chain::data_hash(record));
                admitted.expect("what was admitted once is admitted in replay");
            }
            applier.apply(&batch, true)?;
        }
        assert_eq!(admit.point().seq, recovered.last, "replay reaches what recovery reports");
        let lost = recovered.damage.is_some_and(|damage| damage.promised);
        if lost && admit.point().generation.is_some() {
            admit.break_off();
            applier.keeper().expect("it was given one").break_off();
            applier.checkpoint(&self.state, &admit.point())?;
        } else if point.generation.is_some() {
            applier.keeper().expect("it was given one").settle(point.seq);
        }
        let point = admit.point();
        while self.histories.last().is_some_and(|(begin, _)| *begin > point.seq) {
            self.histories.pop();
        }
        let checkpointed = stored.map_or(Seq::ZERO, |point| point.seq);
        self.life = Some(ReplicaLife {
            admit,
            journal,
            applier,
            received: VecDeque::new(),
            applied: point,
            checkpointed,
            chain_differs: false,
        });
        let (durable, last) = self.cut_at.take().unwrap_or((recovered.last, recovered.last));
        Ok(Found {
            point,
            damaged: lost,
            replayed: recovered.last > checkpointed,
            torn: recovered.last < last,
            survived: recovered.last > durable,
        })
    }

    /// The power is cut and comes back.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        if let Some(life) = self.life.take() {
            self.cut_at = Some((life.journal.durable(), life.journal.last()));
        }
        self.power.restore();
        self.disks.iter().for_each(|disk| disk.power_cut(rng));
        self.journal.power_cut(rng);
        self.state.power_cut(rng);
        self.snapshots.power_cut(rng);
    }

    /// What its volumes hold now.
    pub fn images(&self) -> Images {
        self.disks.iter().map(SimDisk::live).collect()
    }

    /// What its volumes will hold when everything that it received has been applied; only what is
    /// durable counts if `durable`.
    pub fn coming(&self, durable: bool) -> Images {
        let mut images = self.images();
        let Some(life) = &self.life else { return images };
        let counts = |record: &&Record| !durable || record.seq <= life.journal.durable();
        for record in life.received.iter().flat_map(|batch| &batch.records).filter(counts) {
            let change = match &record.body {
                Body::Write { volume, offset, data } => {
                    let span = Span::new(*offset, data.len() as u64);
                    Change { volume: *volume, span, data: Some(data.clone()) }
                }
                Body::Zero { volume, span } => Change { volume: *volume, span: *span, data: None },
                _ => continue,
            };
            change_image(&mut images, &change);
        }
        images
    }

    /// The point up to which its journal is durable.
    pub fn durable_point(&self) -> Option<Point> {
        let life = self.life.as_ref()?;
        let durable = life.journal.durable();
        let last = life.received.iter().rev().find(|batch| batch.point.seq <= durable);
        Some(last.map_or(life.applied, |batch| batch.point))
    }

    /// Whether it holds nothing of the group.
    pub fn is_blank(&self) -> bool {
        self.held == Seq::ZERO
    }

    /// A byte of some journal file decays.
    pub fn decay(&mut self, rng: &mut Rng) {
        let Ok(names) = self.journal.list() else { return };
        if names.is_empty() {
            return;
        }
        let file = self.journal.file(&names[rng.index(names.len())]).expect("it was listed");
        if !file.is_empty() {
            let len = usize::try_from(file.len()).expect("simulated files are small");
            file.decay(rng.index(len), 3);
            self.decayed = true;
        }
    }
}

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

    /// Flushes the volumes and moves the checkpoint, then trims the journal.
    pub fn checkpoint(
        &mut self,
        state: &SimFolder,
        trim: bool,
        history: bool,
    ) -> Result<(), Ended> {
        if self.applied.generation.is_none() {
            return Ok(());
        }
        self.applier.checkpoint(state, &self.applied)?;
        self.checkpointed = self.applied.seq;
        if trim {
            let keeper = self.applier.keeper().expect("replicas keep snapshots");
            let oldest = keeper.set().list()?.first().map(|it| it.point);
            let floor = oldest.filter(|_| history).unwrap_or(self.checkpointed);
            self.journal.trim(self.checkpointed.min(floor))?;
        }
        Ok(())
    }
}
