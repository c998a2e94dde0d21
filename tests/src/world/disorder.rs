//! What happens, in an order that is thrown.

use super::World;

/// What can happen in one step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Begin,
    Retry,
    Write,
    End,
    Acknowledge,
    Flush,
    Tick,
    Checkpoint,
    Start,
    Connect,
    NextCheck,
    Check,
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
    Mark,
    TakeSnapshot,
    ForgetSnapshot,
    LookBack,
    KeepHistory,
    Environment,
    RollBack,
}

pub(super) const ACTIONS: [Action; 29] = [
    Action::Begin,
    Action::Retry,
    Action::Write,
    Action::End,
    Action::Acknowledge,
    Action::Flush,
    Action::Tick,
    Action::Checkpoint,
    Action::Start,
    Action::Connect,
    Action::NextCheck,
    Action::Check,
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
    Action::Mark,
    Action::TakeSnapshot,
    Action::ForgetSnapshot,
    Action::LookBack,
    Action::KeepHistory,
    Action::Environment,
    Action::RollBack,
];

impl Action {
    /// Whether it concerns snapshots.
    pub(super) const fn is_of_snapshots(self) -> bool {
        matches!(
            self,
            Action::Mark
                | Action::TakeSnapshot
                | Action::ForgetSnapshot
                | Action::LookBack
                | Action::KeepHistory
                | Action::Environment
                | Action::RollBack
        )
    }
}

impl World {
    /// Disorder and settling in turn, as the settings have it.
    pub fn run(&mut self) {
        if self.verbose {
            println!("{:#?}", self.settings);
        }
        if self.settings.settled {
            self.start_all();
            self.settle();
        }
        for _ in 0..self.settings.rounds {
            self.disorder(self.settings.steps, |_| ());
            self.settle();
        }
    }

    /// So many steps in which anything may happen; `after` looks at the world after each.
    pub fn disorder(&mut self, steps: u32, mut after: impl FnMut(&World)) {
        self.writing = true;
        for _ in 0..steps {
            if !self.settings.faults.is_empty() && self.rng.one_in(self.settings.fault_every) {
                self.mishap();
            } else {
                let action = self.choose();
                self.act(action);
            }
            after(self);
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

    pub(super) fn act(&mut self, action: Action) {
        let replica = self.rng.index(self.replicas.len());
        match action {
            Action::Begin => self.write_begins(),
            Action::Retry => self.write_retries(),
            Action::Write => self.write_reaches_volume(),
            Action::End => self.write_ends(),
            Action::Acknowledge => self.acknowledge_step(),
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
            Action::NextCheck => self.next_check(replica),
            Action::Check => self.check_step(replica),
            Action::Mark if self.writing => self.put_marker(),
            Action::TakeSnapshot if self.writing => self.take_snapshot(replica),
            Action::ForgetSnapshot if self.writing => self.forget_snapshot(replica),
            Action::LookBack if self.writing => self.look_back(replica),
            Action::KeepHistory if self.writing => self.keep_history(replica),
            Action::Environment if self.writing => self.environment_step(replica),
            Action::RollBack => self.rollback_step(replica),
            Action::Mark
            | Action::TakeSnapshot
            | Action::ForgetSnapshot
            | Action::LookBack
            | Action::KeepHistory
            | Action::Environment => {}
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
