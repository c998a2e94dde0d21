//! The replica's machine: disks, folders, and a life between two starts. Does what the agent's
//! shell will do, one step at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use vgship::apply::applier::{Applier, ApplyError};
use vgship::apply::checkpoint;
use vgship::apply::keeper::Keeper;
use vgship::apply::rollback;
use vgship::apply::rolled::{self, Phase, Rolled};
use vgship::history::keeping::Wanted;
use vgship::receive::admit::{Admit, Point};
use vgship::receive::io::HandedOver;
use vgship::receive::journal::{Journal, JournalError, Replay};
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
use super::past::Past;
use vgship::capture::source::Change;
use vgship_base::units::Span;

/// The group of every simulation.
pub const GROUP: GroupId = GroupId([7; 16]);

/// The data key of every simulation.
pub fn key() -> DataKey {
    DataKey::from_bytes([9; 32])
}

/// A replica's machine.
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
    /// What is wanted of its history; `None` when the journal is kept for replication alone.
    pub history: Option<Wanted>,
    /// What it has of its past.
    pub past: Past,
    /// What its volumes held before they were rolled back; `None` when they are not.
    pub way_back: Option<Images>,
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
    /// What waits to be applied; while the volumes are rolled back, all behind where they stood.
    pub received: VecDeque<Batch>,
    /// The volumes are rolled back.
    pub hold: Option<Hold>,
    /// Up to where it applied.
    pub applied: Point,
    /// Up to where its volumes hold the stream durably.
    pub checkpointed: Seq,
    /// The same, as the checkpoint has it.
    pub stored: Point,
    /// Up to where history needs no journal.
    pub floor: Seq,
    /// It found that its chain differs.
    pub chain_differs: bool,
    /// The source gave its role to this replica, whose volumes hold all before that.
    pub handed: Option<HandedOver>,
}

/// What a batch that hands the source's role over says; it stands alone.
pub fn handover_of(batch: &[Record]) -> Option<HandedOver> {
    match batch {
        [Record { seq, body: Body::Handover { generation }, .. }] => {
            Some(HandedOver { generation: *generation, seq: *seq })
        }
        _ => None,
    }
}

/// What a running replica needs while its volumes are rolled back.
pub struct Hold {
    /// How far that is.
    pub rolled: Rolled,
    /// The record behind which the journal is read.
    pub after: Seq,
    /// The journal's records behind that, as often as asked.
    pub records: Box<dyn Fn() -> Replay + Send>,
    /// It cannot get there.
    pub stuck: bool,
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
    pub fn new(layout: &Arc<Layout>, segment: u64, history: Option<Wanted>) -> ReplicaHost {
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
            past: Past::new(&power),
            way_back: None,
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

    /// Starts the program: checkpoint, journal, replay; nothing is replayed into volumes that are
    /// rolled back.
    pub fn start(&mut self) -> Result<Found, Ended> {
        let stored = checkpoint::load(&self.state).map_err(|error| stopped(&error))?;
        let noted = rolled::load(&self.state).map_err(|error| stopped(&error))?;
        let held = noted.is_some_and(|it| it.phase != Phase::Came);
        let point = stored.unwrap_or(Point::FRESH);
        let folder: Arc<dyn Folder> = Arc::new(self.journal.clone());
        let (mut journal, recovered) = Journal::recover(folder, key(), GROUP, point.seq)?;
        journal.set_segment_bytes(self.segment);
        self.held = self.held.max(recovered.last);
        let share = |disk: &SimDisk| -> SharedDisk { Arc::new(disk.clone()) };
        let volumes: Vec<SharedDisk> = self.disks.iter().map(share).collect();
        assert!(!self.past.is_read(), "the snapshots of the life before are still open");
        let set = SnapshotSet::open(Parts {
            folder: Arc::new(self.snapshots.clone()),
            keys: key().into(),
            group: GROUP,
            layout: Arc::clone(&self.layout),
            volumes: volumes.clone(),
            pack_bytes: Some(32 << 10),
        })?;
        self.past.serves(&set);
        let mut preserver = Preserver::new(Arc::clone(&set), 1, point.seq)?;
        preserver.set_reserve(0);
        preserver.drop_behind(recovered.last)?;
        let mut applier = Applier::new(Arc::clone(&self.layout), volumes, 1);
        applier.flush_all()?;
        applier.keep(Keeper::new(preserver, &point, Arc::new(self.past.wall())));
        let mut admit = Admit::new(Arc::clone(&self.layout), point);
        let mut received = VecDeque::new();
        let (mut applied, mut handed) = (point, None);
        for batch in journal.replay(point.seq) {
            let batch = batch?;
            for record in &batch {
                let admitted = admit.admit(record, Chain::data_hash(record));
                admitted.expect("what was admitted once is admitted in replay");
            }
            if let Some(handover) = handover_of(&batch) {
                handed = Some(handover);
            } else if held {
                received.push_back(Batch { records: batch, point: admit.point() });
            } else {
                applier.apply(&batch, true)?;
                applied = admit.point();
            }
        }
        assert_eq!(admit.point().seq, recovered.last, "replay reaches what recovery reports");
        let lost = recovered.damage.is_some_and(|damage| damage.promised);
        let lost = lost || noted.is_some_and(|it| it.broken);
        if lost && admit.point().generation.is_some() {
            admit.break_off();
            applier.keeper().expect("it was given one").break_off();
            applied = admit.point();
        }
        let mut stored_point = point;
        if admit.point().generation.is_some() {
            if !held && (lost || noted.is_some()) {
                stored_point = applied;
                applier.checkpoint(&self.state, &stored_point)?;
            } else {
                applier.keeper().expect("it was given one").settle(point.seq);
            }
        }
        let hold = self.hold(noted, lost, &set, &journal)?;
        let applied = if held { stored_point } else { applied };
        let point = admit.point();
        while self.histories.last().is_some_and(|(begin, _)| *begin > point.seq) {
            self.histories.pop();
        }
        let checkpointed = stored.map_or(Seq::ZERO, |point| point.seq);
        self.life = Some(ReplicaLife {
            admit,
            journal,
            applier,
            received,
            hold,
            applied,
            stored: stored_point,
            checkpointed,
            // As in the agent: nothing goes before the historian has looked.
            floor: if self.history.is_some() { Seq::ZERO } else { Seq(u64::MAX) },
            chain_differs: false,
            handed: handed.filter(|_| !held),
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

    /// What a life needs whose volumes are rolled back; whatever is left of a rollback that came back
    /// is cleared away.
    fn hold(
        &self,
        noted: Option<Rolled>,
        lost: bool,
        set: &SnapshotSet,
        journal: &Journal,
    ) -> Result<Option<Hold>, Ended> {
        let Some(noted) = noted else {
            rollback::let_go(set)?;
            return Ok(None);
        };
        if noted.phase == Phase::Came {
            rollback::finish(set, &self.state, &noted).map_err(|error| stopped(&error))?;
            return Ok(None);
        }
        let rolled = Rolled { broken: lost, ..noted };
        rolled::store(&self.state, &rolled).map_err(|error| stopped(&error))?;
        let base = if rolled.phase == Phase::Going { rolled.base } else { rolled.from };
        let found = set.list()?.into_iter().find(|it| it.seq == base);
        let after = found.expect("a rollback holds its snapshots").point;
        let records = Box::new(journal.replays(after));
        Ok(Some(Hold { rolled, after, records, stuck: false }))
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
        self.past.power_cut(rng);
    }

    /// What its volumes hold now.
    pub fn images(&self) -> Images {
        self.disks.iter().map(SimDisk::live).collect()
    }

    /// What its volumes will hold when everything that it received has been applied, and they are
    /// not rolled back any more; only what is durable counts if `durable`.
    pub fn coming(&self, durable: bool) -> Images {
        let mut images = self.way_back.clone().unwrap_or_else(|| self.images());
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
