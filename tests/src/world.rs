//! One seed, one world: time, disks, links, power and dice; a source with its replicas, made of the
//! agent's own cores; a model that says what must be where.

mod calm;
mod check_steps;
mod disorder;
mod environment_start;
mod environment_steps;
pub mod faults;
mod history_steps;
mod link_steps;
mod mishaps;
pub mod model;
pub mod net;
pub mod past;
pub mod paths;
pub mod promises;
pub mod replica;
mod replica_life;
mod replica_steps;
mod resync_steps;
mod rollback_steps;
mod settle;
mod snapshot_steps;
pub mod source;
mod source_start;
mod source_steps;
mod spill_steps;
mod sync_steps;
mod watch;
mod write_steps;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use vgship::capture::activity::RegionSize;
use vgship::capture::source::Policy;
use vgship::outbox::queue::Budget;
use vgship::ship::dirty::DirtyMap;
use vgship::ship::standing::Standing;
use vgship::wire::batch::{BatchEncoder, Compression};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, ReplicaId, Seq, VolumeId};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::sim::Rng;
use vgship_base::units::Tick;

use faults::{Coverage, Settings};
use model::{Images, Model};
use net::Pipe;
use promises::Promises;
use replica::ReplicaHost;
use source::SourceHost;

/// A link that stands: what is under way in both directions.
pub struct Link {
    /// To the replica.
    pub up: Pipe,
    /// To the source.
    pub down: Pipe,
    /// Of the records that go up.
    pub encoder: BatchEncoder,
}

impl Default for Link {
    fn default() -> Link {
        let encoder = BatchEncoder::new(Compression::Adaptive);
        Link { up: Pipe::default(), down: Pipe::default(), encoder }
    }
}

/// What a replica that was down when the source started must be held against when it is up again:
/// the source's content then, and the map for this replica.
pub struct Owed {
    /// What the source's volumes held.
    pub images: Images,
    /// Where the replica may differ.
    pub dirty: DirtyMap,
}

/// The world of one seed.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked by itself")]
pub struct World {
    /// The dice.
    pub rng: Rng,
    /// How the run is set up.
    pub settings: Settings,
    /// The clock.
    pub now: Tick,
    /// What must be where.
    pub model: Model,
    /// What applications were told.
    pub promises: Promises,
    /// One for each replica that was down when the source started.
    pub owed: Vec<Option<Owed>>,
    /// How far the wall clock is off. Unit: microseconds.
    pub skew: i64,
    /// The source's machine.
    pub source: SourceHost,
    /// The replicas' machines.
    pub replicas: Vec<ReplicaHost>,
    /// The links that stand.
    pub links: Vec<Option<Link>>,
    /// What was met.
    pub coverage: Coverage,
    /// Whether applications write.
    pub writing: bool,
    /// Offers that were made, per replica.
    pub offers: Vec<u64>,
    /// Whether a resync of this replica began and did not end, in this life of the source.
    pub windows: Vec<bool>,
    /// Extents of each replica that something wrote into, or read, past all order: they may differ
    /// until the self-check has been through.
    pub strays: Vec<BTreeSet<(VolumeId, u64)>>,
    /// The highest seq of which an application was told, in this life of the source.
    pub told: Seq,
    /// How each replica stood when that was last looked at.
    standings: Vec<Standing>,
    /// Generations that were seen, in their order.
    pub lineage: Vec<Generation>,
    /// Whether the source has been given the age that the settings say.
    aged: bool,
    layout: Arc<Layout>,
    generations: u64,
    tags: u64,
    names: u64,
    paused: bool,
    verbose: bool,
}

/// A replica's id from its place.
pub fn id_of(index: usize) -> ReplicaId {
    ReplicaId(u8::try_from(index).expect("few replicas"))
}

fn layout_of(settings: &Settings) -> Layout {
    let volume = |(index, (bytes, masked)): (usize, &(u64, u32))| VolumeLayout {
        name: format!("lv{index}").parse().expect("a name"),
        bytes: *bytes,
        masked: *masked,
    };
    let extent = ExtentSize::from_log2(settings.extent_log2).expect("within the limits");
    Layout { extent, volumes: settings.volumes.iter().enumerate().map(volume).collect() }
}

impl World {
    /// A world at rest: nothing has started, all disks are empty.
    pub fn new(settings: Settings, rng: Rng, verbose: bool) -> World {
        let layout = Arc::new(layout_of(&settings));
        let count = usize::from(settings.replicas);
        let policy = Policy {
            overflow: settings.overflow,
            budget: Budget { ram: settings.ram, spill: settings.spill },
            epoch: settings.epoch,
            region: RegionSize::from_log2(settings.region_log2),
            sync: settings.sync,
            lag: settings.lag,
        };
        World {
            model: Model::new(
                Arc::clone(&layout),
                (0..count).map(|index| settings.is_blind(index)).collect(),
            ),
            promises: Promises::new(&layout),
            owed: (0..count).map(|_| None).collect(),
            skew: 0,
            source: SourceHost::new(&layout, policy, &settings),
            replicas: (0..count)
                .map(|_| ReplicaHost::new(&layout, settings.segment, settings.history.clone()))
                .collect(),
            links: (0..count).map(|_| None).collect(),
            offers: vec![0; count],
            windows: vec![false; count],
            strays: vec![BTreeSet::new(); count],
            told: Seq::ZERO,
            standings: vec![Standing::Off; count],
            lineage: Vec::new(),
            aged: false,
            rng,
            settings,
            now: Tick(0),
            coverage: Coverage::default(),
            writing: true,
            layout,
            generations: 0,
            tags: 0,
            names: 0,
            paused: false,
            verbose,
        }
    }

    /// The world of a seed.
    pub fn of_seed(seed: u64, verbose: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut settings = Settings::throw(&mut rng, disorder::ACTIONS.len());
        settings.throw_blind(seed);
        World::new(settings, rng, verbose)
    }

    /// The group's layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>6} {}", self.now.0, text());
        }
    }

    fn fresh_generation(&mut self) -> Generation {
        self.generations += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.generations.to_be_bytes());
        Generation(bytes)
    }
}

/// Runs one seed; the text of a failure says how to repeat it.
pub fn run_seed(seed: u64, verbose: bool) -> Result<Coverage, String> {
    let mut world = World::of_seed(seed, verbose);
    let done = catch_unwind(AssertUnwindSafe(|| world.run()));
    done.map(|()| world.coverage).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        format!(
            "seed {seed} failed: {text}; repeat it with: \
             cargo run --release -p vgship-tests --bin sim -- --seed {seed} --verbose"
        )
    })
}
