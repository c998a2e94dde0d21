//! One seed, one world: time, disks, links, power and dice; a source with its replicas, made of the
//! agent's own cores; a model that says what must be where.

mod calm;
pub mod faults;
mod mishaps;
pub mod model;
pub mod replica;
mod replica_steps;
mod settle;
pub mod source;
mod source_steps;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use vgship::apply::applier::Answer;
use vgship::capture::activity::RegionSize;
use vgship::capture::source::Policy;
use vgship::outbox::queue::Budget;
use vgship::ship::standing::SyncPolicy;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, ReplicaId, Seq};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::record::Record;
use vgship_base::sim::Rng;
use vgship_base::units::Tick;

use faults::{Coverage, Settings};
use model::Model;
use replica::ReplicaHost;
use source::SourceHost;

/// A link that stands: what is under way in both directions, in order.
#[derive(Default)]
pub struct Link {
    /// Records to the replica.
    pub up: VecDeque<Vec<Record>>,
    /// Words to the source.
    pub down: VecDeque<Down>,
}

/// What a replica says.
pub enum Down {
    /// Up to where it holds the stream.
    Ack {
        /// In its journal.
        durable: Seq,
        /// On its volumes.
        applied: Seq,
    },
    /// About offers.
    Answers {
        /// Of this resync.
        session: u64,
        /// In their order.
        answers: Vec<Answer>,
    },
}

/// The world of one seed.
pub struct World {
    /// The dice.
    pub rng: Rng,
    /// How the run is set up.
    pub settings: Settings,
    /// The clock.
    pub now: Tick,
    /// What must be where.
    pub model: Model,
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
    layout: Arc<Layout>,
    generations: u64,
    tags: u64,
    paused: bool,
    verbose: bool,
}

/// What can happen in one step.
#[derive(Clone, Copy, Debug)]
enum Action {
    Begin,
    Retry,
    Write,
    End,
    Flush,
    Tick,
    Checkpoint,
    Start,
    Connect,
    Send,
    Deliver,
    Persist,
    Apply,
    ReplicaCheckpoint,
    Return,
    NextJob,
    Read,
    Spill,
    Refill,
}

const ACTIONS: [Action; 19] = [
    Action::Begin,
    Action::Retry,
    Action::Write,
    Action::End,
    Action::Flush,
    Action::Tick,
    Action::Checkpoint,
    Action::Start,
    Action::Connect,
    Action::Send,
    Action::Deliver,
    Action::Persist,
    Action::Apply,
    Action::ReplicaCheckpoint,
    Action::Return,
    Action::NextJob,
    Action::Read,
    Action::Spill,
    Action::Refill,
];

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
            sync: SyncPolicy::default(),
            lag: None,
        };
        World {
            model: Model::new(Arc::clone(&layout), count),
            source: SourceHost::new(&layout, policy, count),
            replicas: (0..count).map(|_| ReplicaHost::new(&layout, settings.segment)).collect(),
            links: (0..count).map(|_| None).collect(),
            offers: vec![0; count],
            rng,
            settings,
            now: Tick(0),
            coverage: Coverage::default(),
            writing: true,
            layout,
            generations: 0,
            tags: 0,
            paused: false,
            verbose,
        }
    }

    /// The world of a seed.
    pub fn of_seed(seed: u64, verbose: bool) -> World {
        let mut rng = Rng::new(seed);
        let settings = Settings::throw(&mut rng, ACTIONS.len());
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

    /// Disorder and settling in turn, as the settings have it.
    pub fn run(&mut self) {
        if self.verbose {
            println!("{:#?}", self.settings);
        }
        for _ in 0..self.settings.rounds {
            self.writing = true;
            for _ in 0..self.settings.steps {
                if !self.settings.faults.is_empty() && self.rng.one_in(self.settings.fault_every) {
                    self.mishap();
                } else {
                    let action = self.choose();
                    self.act(action);
                }
            }
            self.settle();
        }
    }

    fn choose(&mut self) -> Action {
        let total: u64 = self.settings.weights.iter().sum();
        let mut left = self.rng.below(total);
        for (action, weight) in ACTIONS.iter().zip(&self.settings.weights) {
            if left < *weight {
                return *action;
            }
            left -= weight;
        }
        unreachable!("the dice are below the sum of all weights")
    }

    fn act(&mut self, action: Action) {
        let replica = self.rng.index(self.replicas.len());
        match action {
            Action::Begin => self.write_begins(),
            Action::Retry => self.write_retries(),
            Action::Write => self.write_reaches_volume(),
            Action::End => self.write_ends(),
            Action::Flush => self.flush_step(),
            Action::Tick => {
                let step = 1 + self.rng.below(20);
                self.tick(step);
            }
            Action::Checkpoint => self.checkpoint(),
            Action::Start => self.start_all(),
            Action::Connect => self.connect(replica),
            Action::Send => self.send(replica),
            Action::Deliver => self.deliver(replica),
            Action::Persist => self.persist(replica),
            Action::Apply => self.apply(replica),
            Action::ReplicaCheckpoint => self.replica_checkpoint(replica),
            Action::Return => self.deliver_back(replica),
            Action::NextJob => self.next_job(replica),
            Action::Read => self.read_step(replica),
            Action::Spill => self.spill_step(replica),
            Action::Refill => self.refill_step(replica),
        }
        self.notice_power();
    }

    /// Machines whose power has failed by itself are down and up again.
    pub fn notice_power(&mut self) {
        if self.source.power.is_off() {
            self.coverage.hit("power failed inside a step of the source");
            self.source_crashes(true);
        }
        for index in 0..self.replicas.len() {
            if self.replicas[index].power.is_off() {
                self.coverage.hit("power failed inside a step of a replica");
                self.replica_crashes(index, true);
            }
        }
    }
}

/// Runs one seed; the text of a failure says how to repeat it.
pub fn run_seed(seed: u64, verbose: bool) -> Result<Coverage, String> {
    let mut world = World::of_seed(seed, verbose);
    let done = catch_unwind(AssertUnwindSafe(|| world.run()));
    done.map(|()| world.coverage).map_err(|_| {
        format!(
            "seed {seed} failed; repeat it with: \
             cargo run --release -p vgship-tests --bin sim -- --seed {seed} --verbose"
        )
    })
}
