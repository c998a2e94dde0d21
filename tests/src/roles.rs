//! A second, smaller world: nodes that are a source or a replica, and change that. Writes go on on
//! whichever node is a source, also on two at once; links, power and programs fail at any step, also
//! between every two of a promotion, a demotion and a handover. One seed is one world.

mod changes;
mod checks;
mod life;
mod lines;
mod links;
mod node;
mod past;
pub mod paths;
mod settle;
mod steps;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use vgship::capture::activity::RegionSize;
use vgship::capture::source::{Overflow, Policy};
use vgship::outbox::queue::Budget;
use vgship::ship::standing::SyncPolicy;
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, ReplicaId};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::sim::Rng;
use vgship_base::units::Tick;

use crate::world::faults::Coverage;
use crate::world::model::Images;
use crate::world::replica::Ended;
use crate::world::source::peer;
use lines::{Extents, Lines};
use links::Link;
use node::{Node, Role};

/// How a run is set up.
struct Settings {
    nodes: usize,
    policy: Policy,
    /// After which a region may be unmarked. Unit: milliseconds.
    idle: u64,
    /// Of a journal segment. Unit: bytes.
    segment: u64,
    /// Weight of each action.
    weights: Vec<u64>,
    /// Steps of disorder before each settling.
    steps: u32,
    /// How often disorder and settling come.
    rounds: u32,
}

/// A failback whose work is counted: what was changed on both sides since the fork, and what was
/// shipped.
struct Bounded {
    changed: Extents,
    shipped: Extents,
}

/// The world of one seed.
pub struct World {
    rng: Rng,
    settings: Settings,
    layout: Arc<Layout>,
    now: Tick,
    nodes: Vec<Node>,
    lines: Lines,
    /// One for each node that is a replica: the link to its source.
    links: Vec<Option<Link>>,
    /// One for each node that gave a history up while nothing failed.
    bounded: Vec<Option<Bounded>>,
    /// Whether applications write, and faults strike.
    disorder: bool,
    coverage: Coverage,
    generations: u32,
    names: u64,
    tags: u64,
    verbose: bool,
}

/// What the dice choose from.
const ACTIONS: [fn(&mut World, usize); 27] = [
    World::new_write,
    World::begin_write,
    World::reach,
    World::end_write,
    World::flush,
    World::tick,
    World::ledger,
    World::connect,
    World::send,
    World::deliver,
    World::persist,
    World::apply,
    World::checkpoint,
    World::deliver_back,
    World::next_job,
    World::read_step,
    World::cut,
    World::fails,
    World::start,
    World::switch_over,
    World::fail_over,
    World::fail_back,
    World::meet,
    World::look_at_role,
    World::snapshots,
    World::rollback,
    World::goes_on,
];

impl Settings {
    fn throw(rng: &mut Rng) -> Settings {
        let pick = |rng: &mut Rng, from: &[u64]| from[rng.index(from.len())];
        let policy = Policy {
            overflow: Overflow::Map,
            budget: Budget { ram: pick(rng, &[6 << 10, 24 << 10, 1 << 20]), spill: 0 },
            epoch: pick(rng, &[20, 200]),
            region: RegionSize::from_log2(14),
            sync: SyncPolicy::default(),
            lag: None,
        };
        Settings {
            nodes: 2 + usize::from(rng.one_in(3)),
            policy,
            idle: pick(rng, &[0, 30, 300]),
            segment: pick(rng, &[8 << 10, 64 << 10]),
            weights: ACTIONS.iter().map(|_| 1 + pick(rng, &[0, 3, 9, 20])).collect(),
            steps: 300 + u32::try_from(rng.below(1500)).expect("small"),
            rounds: 1 + u32::try_from(rng.below(3)).expect("small"),
        }
    }
}

fn layout_of(rng: &mut Rng) -> Layout {
    let volume = |index: u64, rng: &mut Rng| VolumeLayout {
        name: format!("lv{index}").parse().expect("a name"),
        bytes: (2 + rng.below(8)) * 8192 + rng.below(2) * 512,
        masked: 0,
    };
    let extent = ExtentSize::from_log2(12).expect("within the limits");
    Layout { extent, volumes: (0..=rng.below(2)).map(|index| volume(index, rng)).collect() }
}

impl World {
    /// The world of a seed: all disks are empty, and node 0 is the source.
    pub fn of_seed(seed: u64, verbose: bool) -> World {
        let mut rng = Rng::new(seed);
        let settings = Settings::throw(&mut rng);
        let layout = Arc::new(layout_of(&mut rng));
        let role = |index| if index == 0 { Role::Source } else { Role::ReplicaOf(0) };
        let nodes =
            (0..settings.nodes).map(|index| Node::new(&layout, settings.segment, role(index)));
        World {
            nodes: nodes.collect(),
            links: (0..settings.nodes).map(|_| None).collect(),
            bounded: (0..settings.nodes).map(|_| None).collect(),
            rng,
            settings,
            layout,
            now: Tick(0),
            lines: Lines::default(),
            disorder: true,
            coverage: Coverage::default(),
            generations: 0,
            names: 0,
            tags: 0,
            verbose,
        }
    }

    /// All of a run: disorder, then peace, some times over.
    fn run(&mut self) {
        let all: u64 = self.settings.weights.iter().sum();
        for _ in 0..self.settings.rounds {
            for _ in 0..self.settings.steps {
                let mut left = self.rng.below(all);
                let weights = &self.settings.weights;
                let action = weights.iter().position(|&weight| {
                    let hit = left < weight;
                    left = left.saturating_sub(weight);
                    hit
                });
                let node = self.rng.index(self.nodes.len());
                ACTIONS[action.expect("the weights add up")](self, node);
                self.notice_power();
            }
            self.settle();
        }
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>6} {}", self.now.0, text());
        }
    }

    /// Snapshots are named by a generation's first digits, so these differ.
    fn fresh_generation(&mut self) -> Generation {
        self.generations += 1;
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.generations.to_be_bytes());
        Generation(bytes)
    }

    fn images(&self, node: usize) -> Images {
        self.nodes[node].host.images()
    }

    /// The id by which a source knows another node.
    fn id(&self, source: usize, other: usize) -> Option<ReplicaId> {
        self.nodes[source].writer.as_ref()?.source.find(peer(other))
    }

    /// Whether two nodes know each other: all know node 0, and nobody else.
    fn paired(one: usize, other: usize) -> bool {
        one != other && (one == 0 || other == 0)
    }

    /// Nodes that are a source now, and run.
    fn sources(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&it| self.nodes[it].writer.is_some() && self.nodes[it].up())
            .collect()
    }

    /// A step that only a cut of power ends early.
    fn done<T>(&mut self, node: usize, done: Result<T, Ended>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(Ended::Stopped(text)) => {
                let off = self.nodes[node].host.power.is_off();
                assert!(off, "node {node} fails with power: {text}");
                None
            }
        }
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
            "seed {seed} of roles failed: {text}; repeat it with: \
             cargo xtask sim --roles --seed {seed} --verbose"
        )
    })
}
