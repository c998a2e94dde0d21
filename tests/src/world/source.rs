//! The source's machine: disks, folders, and a life between two starts. Does what the agent's
//! shell will do, one step at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use vgship::apply::compare::read_extent;
use vgship::capture::activity::{Barrier, Completion};
use vgship::capture::ledger::{Ledger, LedgerError};
use vgship::capture::source::{Change, Policy, Source, Ticket};
use vgship::outbox::queue::{Life, Moved};
use vgship::outbox::spill::Spill;
use vgship::ship::flight::Job;
use vgship::ship::standing::Mode;
use vgship_base::disk::SharedDisk;
use vgship_base::extent::Extent;
use vgship_base::folder::Folder;
use vgship_base::ids::{Generation, PeerId, ReplicaId, Seq, Start, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::sim::{Power, Rng, SimDisk, SimFolder};

use super::faults::Settings;
use super::promises::{By, Covers, Turns};
use super::replica::{GROUP, key};

/// Files by name.
pub type Files = Vec<(String, Vec<u8>)>;

/// The source's machine.
pub struct SourceHost {
    /// Its power supply.
    pub power: Power,
    /// Its volumes.
    pub disks: Vec<SimDisk>,
    /// Its ledger's folder.
    pub ledger: SimFolder,
    /// The spills' folders, one per replica.
    pub spills: Vec<SimFolder>,
    /// The running program.
    pub life: Option<SourceLife>,
    /// An older copy of the ledger, and the start that it knows.
    pub backup: Option<(Start, Files)>,
    /// Counts how often the source went back to an older ledger.
    pub history: u32,
    /// Whether its starts have run out once, so that it counts from 1 again.
    pub wrapped: bool,
    /// Whether the power has failed since the last start.
    pub lost_power: bool,
    /// Of each replica, as the operator set it.
    pub modes: Vec<Mode>,
    /// Which replicas are blind.
    blind: Vec<bool>,
    spill_room: u64,
    layout: Arc<Layout>,
    policy: Policy,
}

/// A write that an application waits for and that may not go to the LV yet.
pub struct Waiting {
    /// The write.
    pub change: Change,
    /// How often it was refused.
    pub tries: u32,
    /// Whether it met an outbox that was full.
    pub stalled: bool,
    /// Whether it was slowed for a replica that is behind.
    pub slowed: bool,
}

impl Waiting {
    /// A write that was not refused yet.
    pub fn new(change: Change) -> Waiting {
        Waiting { change, tries: 0, stalled: false, slowed: false }
    }
}

/// A write that the LV took, and of which the application is not told yet.
pub struct Acking {
    /// The write.
    pub change: Change,
    /// Its last seq.
    pub seq: Seq,
    /// Which write of its sectors it is.
    pub turns: Turns,
    /// What a flush must cover first.
    pub barrier: Barrier,
    /// Whether one has.
    pub stable: bool,
    /// Whether it has waited for a replica.
    pub waited: bool,
}

/// An extent that is being read for the self-check.
pub struct Checking {
    /// Which.
    pub extent: Extent,
    /// The version that came with it.
    pub version: u64,
    /// What was read.
    pub bytes: Option<Vec<u8>>,
}

/// A write that has its seq.
pub struct Flying {
    /// The duty to report its end.
    pub ticket: Ticket,
    /// The write.
    pub change: Change,
    /// Which write of its sectors it is.
    pub turns: Turns,
    /// How the LV took it, once it did.
    pub written: Option<bool>,
}

/// A flush of a volume, begun.
pub struct Flushing {
    /// Which.
    pub volume: VolumeId,
    /// What it covers.
    pub covers: Completion,
    /// What applications are told when it has ended.
    pub told: Covers,
    /// Who made it.
    pub by: By,
    /// Whether it tells a client of an earlier failure.
    pub owed: bool,
    /// How it ended on the LV.
    pub flushed: Option<bool>,
}

/// An extent that is being read.
pub struct Reading {
    /// For what.
    pub job: Job,
    /// The version that came with it.
    pub version: u64,
    /// Whether writers are kept away.
    pub held: bool,
    /// Whether it must be held before it is read.
    pub again: bool,
    /// What was read.
    pub bytes: Option<Vec<u8>>,
}

/// What the shell holds for one replica.
pub struct Lane {
    /// Extents being read.
    pub readings: Vec<Reading>,
    /// The extent being read for the self-check.
    pub checking: Option<Checking>,
    /// The spill.
    pub spill: Spill,
    /// The outbox's life that the spill's content is of.
    pub life: Life,
    /// Records were to be written to the spill, and how that went.
    pub pushed: Option<(Life, Moved)>,
    /// Records were read back.
    pub popped: Option<(Life, Vec<vgship_base::record::Record>)>,
}

/// A running source.
pub struct SourceLife {
    /// The core.
    pub source: Source,
    /// Its ledger.
    pub ledger: Ledger,
    /// Its first checkpoint was written: applications are served.
    pub serves: bool,
    /// The ledger could not be written, which is noted: writes go on without marks.
    pub doubtful: bool,
    /// Writes that wait.
    pub waiting: VecDeque<Waiting>,
    /// Writes under way.
    pub flying: Vec<Flying>,
    /// Writes that wait for a flush or a sync replica.
    pub acking: Vec<Acking>,
    /// Flushes under way.
    pub flushes: Vec<Flushing>,
    /// One per replica.
    pub lanes: Vec<Lane>,
}

/// The peer that a replica is.
pub fn peer(index: usize) -> PeerId {
    PeerId([u8::try_from(index).expect("few replicas"); 32])
}

impl SourceHost {
    /// A machine with empty disks.
    pub fn new(layout: &Arc<Layout>, policy: Policy, settings: &Settings) -> SourceHost {
        let power = Power::default();
        let disk =
            |volume: &vgship_base::layout::VolumeLayout| SimDisk::volume(&power, volume.bytes);
        SourceHost {
            disks: layout.volumes.iter().map(disk).collect(),
            ledger: SimFolder::new(&power),
            spills: (0..settings.replicas).map(|_| SimFolder::new(&power)).collect(),
            power,
            life: None,
            backup: None,
            history: 0,
            wrapped: false,
            lost_power: false,
            modes: (0..usize::from(settings.replicas))
                .map(|index| settings.modes.get(index).copied().unwrap_or_default())
                .collect(),
            blind: (0..usize::from(settings.replicas)).map(|it| settings.is_blind(it)).collect(),
            spill_room: settings.spill_room,
            layout: Arc::clone(layout),
            policy,
        }
    }

    /// Reads the ledger and begins or goes on. Volumes and ledger are to be flushed next.
    pub fn load(&self, fresh: Generation) -> Result<SourceLife, LedgerError> {
        let folder: Arc<dyn Folder> = Arc::new(self.ledger.clone());
        let (ledger, state) = Ledger::load(folder, &self.layout)?;
        let (layout, policy) = (Arc::clone(&self.layout), self.policy);
        let mut source = if let Some(state) = state {
            Source::resume(state, layout, policy, fresh)
        } else {
            let mut source = Source::create(GROUP, fresh, layout, policy);
            (0..self.spills.len()).for_each(|index| {
                source.add_replica(peer(index));
            });
            source
        };
        for (id, mode) in (0..).map(ReplicaId).zip(&self.modes) {
            source.set_mode(id, *mode);
            source.replica_mut(id).blind = self.blind[usize::from(id.0)];
        }
        let lane = |(index, folder): (usize, &SimFolder)| {
            let folder: Arc<dyn Folder> = Arc::new(folder.clone());
            let spill = Spill::create(folder, key(), GROUP, self.spill_room).ok()?;
            let id = ReplicaId(u8::try_from(index).expect("few replicas"));
            let life = source.replica(id).outbox.life();
            Some(Lane {
                readings: Vec::new(),
                checking: None,
                spill,
                life,
                pushed: None,
                popped: None,
            })
        };
        let lanes: Option<Vec<Lane>> = self.spills.iter().enumerate().map(lane).collect();
        let lanes = lanes.ok_or(LedgerError::Poisoned)?;
        Ok(SourceLife {
            source,
            ledger,
            serves: false,
            doubtful: false,
            waiting: VecDeque::new(),
            flying: Vec::new(),
            acking: Vec::new(),
            flushes: Vec::new(),
            lanes,
        })
    }

    /// The power is cut and comes back.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        self.life = None;
        self.lost_power = true;
        self.power.restore();
        self.disks.iter().for_each(|disk| disk.power_cut(rng));
        self.ledger.power_cut(rng);
        self.spills.iter().for_each(|folder| folder.power_cut(rng));
    }

    /// What its volumes hold now.
    pub fn images(&self) -> super::model::Images {
        self.disks.iter().map(SimDisk::live).collect()
    }

    /// Reads an extent as the shell does.
    pub fn read(&self, extent: Extent) -> Option<Vec<u8>> {
        let share = |disk: &SimDisk| -> SharedDisk { Arc::new(disk.clone()) };
        let volumes: Vec<SharedDisk> = self.disks.iter().map(share).collect();
        read_extent(&self.layout, &volumes, extent, |_, _| {}).ok()
    }

    /// How many reads of its volumes went astray.
    pub fn misdirected(&self) -> u64 {
        self.disks.iter().map(SimDisk::misdirected).sum()
    }

    /// Keeps a copy of the ledger's files.
    pub fn back_up(&mut self, start: Start) {
        let names = self.ledger.list().unwrap_or_default();
        let copy = |name: String| {
            let file = self.ledger.file(&name).expect("it was listed");
            (name, file.live())
        };
        self.backup = Some((start, names.into_iter().map(copy).collect()));
    }

    /// Puts the copy in place of the ledger; whoever does that makes room first.
    pub fn restore(&mut self, files: &[(String, Vec<u8>)]) {
        self.ledger.set_capacity(None);
        for name in self.ledger.list().expect("the power is on") {
            self.ledger.remove(&name).expect("the power is on");
        }
        for (name, bytes) in files {
            let file = self.ledger.create(name).expect("the power is on");
            file.write_at(0, bytes).expect("the power is on");
            file.flush().expect("the power is on");
        }
        self.ledger.sync().expect("the power is on");
        self.history += 1;
    }
}
