//! Carries out one try to take a set's snapshot. Decides nothing of what `sets::core` decides.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use vgship_base::ids::Name;
use vgship_base::units::Tick;

use super::member::text;
use super::seats::Seat;
use super::settle;
use crate::api::ControlError;
use crate::pipeline::agent::{Group, Inner};
use crate::quiesce::io::Hooks;
use crate::sets::config::SetConfig;
use crate::sets::core::{Core, Input, Outcome, Output, Party, Place, Plan};
use crate::sets::names;
use crate::sets::record::{Part, Record, State};
use crate::wire::orders::{Failure, Order, Quiesce};

/// How long members that freeze nothing may take until all markers are in. Unit: milliseconds.
const HOLD_PLAIN: u64 = 10_000;

/// How long a command that failed waits until everything is taken back.
const TAKE_BACK_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be made.
pub(super) struct Wanted {
    pub(super) name: Name,
    pub(super) quiesce: bool,
    /// How long replicas may take to have the snapshots.
    pub(super) patience: Duration,
}

/// Takes a set's snapshot. It is made as a whole, or nothing of it stays.
///
/// # Errors
/// Who did not take part, and why. What was done by then is taken back.
pub(super) fn create(
    agent: &Arc<Inner>,
    config: &SetConfig,
    wanted: &Wanted,
) -> Result<Record, ControlError> {
    let groups = members(agent, config)?;
    let mut number = [0; 4];
    getrandom::fill(&mut number).map_err(ControlError::failed)?;
    let number = u32::from_be_bytes(number);
    let (set, name) = (config.name.clone(), wanted.name.clone());
    if names::of_member(&set, &name, number).is_none() {
        let why = format!("the names {set} and {name} are too long together: at most 114 bytes");
        return Err(ControlError::usage(why));
    }
    let part = |group: &Group| Part::new(group.config().id, group.config().name.clone());
    let mut record = Record {
        state: State::Begun,
        quiesced: wanted.quiesce,
        time: agent.clock.wall(),
        spread: 0,
        number,
        set,
        name,
        parts: groups.iter().map(part).collect(),
    };
    // Before anybody is asked: whatever happens from here on, the next life knows of it.
    agent.sets.begin(&record)?;
    let outcome = Conductor::begin(agent, config, wanted, &groups, &record).map_or_else(
        |error| Outcome::Failed(vec![(None, Failure::plain(text(&error)))]),
        |conductor| conductor.run(&mut record),
    );
    match outcome {
        Outcome::Made { .. } => {
            tracing::info!(set = %record.set, snapshot = %record.name, quiesced = record.quiesced,
                spread_ms = record.spread, "a snapshot of a set is made");
            Ok(record)
        }
        Outcome::Failed(failures) => {
            agent.sets.give_up(&record);
            Err(told(agent, &record, &failures))
        }
    }
}

fn members(agent: &Inner, config: &SetConfig) -> Result<Vec<Group>, ControlError> {
    let find = |name: &Name| match agent.group(name)? {
        Group::Failed { error, .. } => Err(error),
        group => Ok(group),
    };
    config.members.iter().map(|member| find(&member.0)).collect()
}

/// What the caller is told of a try that failed: who and why, and whether all goes on.
fn told(agent: &Inner, record: &Record, failures: &[(Option<Party>, Failure)]) -> ControlError {
    let who = |party: &Option<Party>| match party {
        Some(party) => record.parts.get(*party).map_or_else(
            || "the set's own commands: ".to_owned(),
            |part| format!("group {}: ", part.name),
        ),
        None => String::new(),
    };
    let mut message = format!("no snapshot {}@{} was made: ", record.set, record.name);
    let frozen = |it: &&(Option<Party>, Failure)| it.1.frozen;
    if let Some((party, failure)) = failures.first() {
        message = format!("{message}{}{}", who(party), failure.text);
    }
    let also = failures.iter().skip(1).filter(frozen);
    let also: Vec<_> = also.map(|it| format!("; {}{}", who(&it.0), it.1.text)).collect();
    message = format!("{message}{}", also.concat());
    let is_late = failures.first().is_some_and(|it| it.1.late);
    let kind = if is_late { ControlError::timed_out } else { ControlError::failed };
    tracing::warn!(set = %record.set, snapshot = %record.name, "{message}");
    let back = match settle::until_gone(agent, record, TAKE_BACK_PATIENCE) {
        Ok(()) => "nothing of it is left".to_owned(),
        Err(left) => format!(
            "what there may be of it in {left} is taken back as soon as that can be reached; do not \
             use it"
        ),
    };
    kind(message).hint(back)
}

/// A try under way.
struct Conductor<'a> {
    agent: &'a Inner,
    since: Instant,
    core: Core,
    seats: Vec<Seat>,
    inputs: Receiver<Input>,
    begin: Order,
    _tell: Sender<Input>,
}

impl<'a> Conductor<'a> {
    fn begin(
        agent: &'a Arc<Inner>,
        config: &SetConfig,
        wanted: &Wanted,
        groups: &[Group],
        record: &Record,
    ) -> Result<Conductor<'a>, ControlError> {
        let (tell, inputs) = channel();
        let open = |(party, group)| Seat::open(agent, group, party, &tell);
        let mut seats = groups.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        let opener = wanted.quiesce && !config.freeze.is_empty();
        if opener {
            let hooks = Hooks {
                group: config.name.to_string(),
                name: wanted.name.to_string(),
                freeze: config.freeze.clone(),
                thaw: config.thaw.clone(),
                hold: config.hold.0,
            };
            seats.push(Seat::opener(hooks, groups.len(), &tell)?);
        }
        let hold = u32::try_from(config.hold.0.as_millis()).unwrap_or(u32::MAX);
        let quiesce = wanted.quiesce.then_some(Quiesce { hold, without_commands: opener });
        let plan = Plan {
            members: groups.len(),
            opener,
            hold: if wanted.quiesce { hold.into() } else { HOLD_PLAIN },
            patience: u64::try_from(wanted.patience.as_millis()).unwrap_or(u64::MAX),
        };
        let core = Core::new(Tick(0), plan);
        let begin = Order::Begin { name: record.member_name(), quiesce };
        let since = Instant::now();
        Ok(Conductor { agent, since, core, seats, inputs, begin, _tell: tell })
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// To the end. Until all markers are in and applications go on, nothing here writes a file or a
    /// log line: it may be on what is frozen.
    fn run(mut self, record: &mut Record) -> Outcome {
        loop {
            while let Some(output) = self.core.poll() {
                self.carry_out(output, record);
            }
            if let Some(outcome) = self.core.outcome() {
                return outcome;
            }
            let input = self.next();
            let now = self.now();
            self.core.handle(now, input);
        }
    }

    fn next(&self) -> Input {
        let Some(deadline) = self.core.deadline() else {
            return self.inputs.recv().unwrap_or(Input::Timer);
        };
        let patience = Duration::from_millis(deadline.since(self.now()));
        match self.inputs.recv_timeout(patience) {
            Ok(input) => input,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Input::Timer,
        }
    }

    fn carry_out(&mut self, output: Output, record: &mut Record) {
        let (party, order) = match output {
            Output::Begin(party) => (party, self.begin.clone()),
            Output::Mark(party) => (party, Order::Mark),
            Output::Release(party) => (party, Order::Release),
            Output::GiveUp(party) => (party, Order::GiveUp),
            Output::Store(places) => {
                let stored = self.store(&places, record);
                let now = self.now();
                return self.core.handle(now, Input::Stored(stored));
            }
        };
        self.seats[party].order(order);
    }

    fn store(&self, places: &[Place], record: &mut Record) -> Result<(), String> {
        let mut made = record.clone();
        made.state = State::Made;
        made.spread = u32::try_from(self.core.spread()).unwrap_or(u32::MAX);
        for (part, place) in made.parts.iter_mut().zip(places) {
            part.place = *place;
        }
        // Members say what their sources know; what is made of it later is made of what is here.
        self.agent.all_kept(&made)?;
        self.agent.sets.save(&made).map_err(|it| it.to_string())?;
        *record = made;
        Ok(())
    }
}
