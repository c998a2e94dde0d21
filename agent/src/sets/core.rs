//! One try to take a set's snapshot, from the first freeze to the vector. Does no I/O.
//!
//! Everybody gets ready (frozen, where applications are to be); when *all* have said so, everybody
//! puts the marker in; when *all* have said so, everybody lets applications go on and says whether
//! they were frozen to that moment. So there is a moment in which all were frozen and which all
//! markers stand for. The vector is stored when all replicas that follow have the snapshots, and
//! only then is anything made. What fails earlier is given up by everybody.
//!
//! The set's own commands are the *opener*: frozen before any group is, thawed after all are.

use std::collections::VecDeque;

use vgship_base::ids::{Generation, Seq};
use vgship_base::units::Tick;

use crate::wire::orders::{Failure, Said};

/// How long applications may take to go on before that counts as failed. Unit: milliseconds.
const RELEASE_PATIENCE: u64 = 30_000;

/// How long those who gave up are waited for. Unit: milliseconds.
const FAREWELL: u64 = 5_000;

/// What is to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many groups. At least one.
    pub members: usize,
    /// Whether the set has commands of its own.
    pub opener: bool,
    /// How long from the first freeze to the last marker at most. Unit: milliseconds.
    pub hold: u64,
    /// How long replicas may take to have the snapshots. Unit: milliseconds.
    pub patience: u64,
}

/// Somebody who takes part: a member by its place, or behind the members the opener.
pub type Party = usize;

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A party said something.
    Said(Party, Said),
    /// Nothing more will come from a party, and why.
    Lost(Party, String),
    /// The vector is stored durably, or why it is not.
    Stored(Result<(), String>),
    /// The time that [`Core::deadline`] named has come.
    Timer,
}

/// What must be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a party to get ready.
    Begin(Party),
    /// Have it put the marker in.
    Mark(Party),
    /// Have it let applications go on.
    Release(Party),
    /// Have it give up.
    GiveUp(Party),
    /// Store the vector, one place for each member.
    Store(Vec<Place>),
}

/// Where a member's marker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The history that it belongs to.
    pub generation: Generation,
    /// Its place.
    pub seq: Seq,
    /// How long the member's applications were held. Unit: milliseconds.
    pub held: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vector is stored.
    Made {
        /// One place for each member.
        places: Vec<Place>,
        /// From the moment at which all were ready to that at which all markers were in. Unit:
        /// milliseconds.
        spread: u64,
    },
    /// Nothing is made. What the parties said, the reason first.
    Failed(Vec<(Option<Party>, Failure)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Not asked yet.
    Idle,
    Asked,
    Ready,
    Marking,
    Marked,
    Releasing,
    Released,
    Followed,
    /// It has said its last word, is lost, or is waited for no more.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Readying,
    Marking,
    Releasing,
    Following,
    Storing,
    Failing,
    Made,
    Failed,
}

/// A try.
///
/// It is made only after every member said ready, then every member said marked, then every one that
/// it was frozen until released and that its replicas follow, each asked for only when all had done
/// what comes before; and after the vector was stored. In every other case everybody that was asked
/// is told to give up.
#[derive(Debug)]
pub struct Core {
    plan: Plan,
    phase: Phase,
    stages: Vec<Stage>,
    places: Vec<Option<Place>>,
    hold_ends: Tick,
    deadline: Tick,
    ready_at: Tick,
    spread: u64,
    /// The opener was told to give up.
    opener_told: bool,
    failures: Vec<(Option<Party>, Failure)>,
    outputs: VecDeque<Output>,
}

impl Core {
    /// Begins now.
    pub fn new(now: Tick, plan: Plan) -> Core {
        let hold_ends = Tick(now.0.saturating_add(plan.hold));
        let parties = plan.members + usize::from(plan.opener);
        let mut core = Core {
            plan,
            phase: Phase::Opening,
            stages: vec![Stage::Idle; parties],
            places: vec![None; plan.members],
            hold_ends,
            deadline: hold_ends,
            ready_at: now,
            spread: 0,
            opener_told: false,
            failures: Vec::new(),
            outputs: VecDeque::new(),
        };
        if plan.opener {
            core.ask(plan.members, Stage::Asked, Output::Begin);
        }
        core.advance(now);
        core
    }

    /// Takes one event; what follows from it waits in [`Core::poll`].
    pub fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Said(party, said) => self.on_said(now, party, said),
            Input::Lost(party, why) => self.on_lost(now, party, why),
            Input::Stored(Ok(())) if self.phase == Phase::Storing => self.phase = Phase::Made,
            Input::Stored(Err(why)) if self.phase == Phase::Storing => {
                self.fail(now, None, Failure::plain(why));
            }
            Input::Stored(_) => {}
            Input::Timer => self.on_timer(now),
        }
        self.advance(now);
    }

    /// The next thing to do. Call until it returns `None`, then wait for an event.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Timer`] if no other event comes first.
    pub fn deadline(&self) -> Option<Tick> {
        match self.phase {
            Phase::Storing | Phase::Made | Phase::Failed => None,
            _ => Some(self.deadline),
        }
    }

    /// What came of it, once it has come to its end.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Made => Some(Outcome::Made { places: self.vector(), spread: self.spread }),
            Phase::Failed => Some(Outcome::Failed(self.failures.clone())),
            _ => None,
        }
    }

    /// From the moment at which all were ready to that at which all markers were in, once they are.
    /// Unit: milliseconds.
    pub fn spread(&self) -> u64 {
        self.spread
    }

    fn vector(&self) -> Vec<Place> {
        self.places.iter().map(|place| place.expect("every member said where")).collect()
    }

    fn members(&self) -> &[Stage] {
        &self.stages[..self.plan.members]
    }

    fn opener(&self) -> Option<Stage> {
        self.stages.get(self.plan.members).copied()
    }

    fn on_said(&mut self, now: Tick, party: Party, said: Said) {
        let Some(stage) = self.stages.get(party).copied() else { return };
        // What does not follow from what was asked, or comes twice, says nothing.
        let next = match (stage, said) {
            (Stage::Ended, _) => return,
            (_, Said::Failed(failure)) => {
                self.stages[party] = Stage::Ended;
                return self.fail(now, Some(party), failure);
            }
            (Stage::Asked, Said::Ready) => Stage::Ready,
            (Stage::Marking, Said::Marked { generation, seq }) => {
                if let Some(place) = self.places.get_mut(party) {
                    *place = Some(Place { generation, seq, held: 0 });
                }
                Stage::Marked
            }
            (Stage::Releasing, Said::Released { held }) => {
                if let Some(Some(place)) = self.places.get_mut(party) {
                    place.held = held;
                }
                Stage::Released
            }
            (Stage::Released, Said::Followed) => Stage::Followed,
            _ => return,
        };
        self.stages[party] = next;
    }

    fn on_lost(&mut self, now: Tick, party: Party, why: String) {
        let Some(stage) = self.stages.get(party).copied() else { return };
        let is_opener = party == self.plan.members;
        // What it had to do, it has done.
        let is_done = stage == Stage::Followed || is_opener && stage == Stage::Released;
        if stage == Stage::Ended || is_done && self.phase != Phase::Failing {
            return;
        }
        self.stages[party] = Stage::Ended;
        if self.phase != Phase::Failing {
            self.fail(now, Some(party), Failure::plain(why));
        }
    }

    fn on_timer(&mut self, now: Tick) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let (wanted, text) = match self.phase {
            Phase::Opening | Phase::Readying => (Stage::Ready, "was not ready within the hold"),
            Phase::Marking => (Stage::Marked, "did not say within the hold that its marker is in"),
            Phase::Releasing => (Stage::Released, "does not say that applications go on"),
            Phase::Following => (Stage::Followed, "has no replica yet that has the snapshot"),
            _ => return self.wait_no_more(),
        };
        // Those who follow are at work; who was late in freezing may never answer.
        let are_waited_for = self.phase == Phase::Following;
        let late = |&party: &Party| {
            let stage = self.stages[party];
            let is_asked = stage != Stage::Idle && (party < self.plan.members || !are_waited_for);
            is_asked && stage < wanted
        };
        let late: Vec<Party> = (0..self.stages.len()).filter(late).collect();
        for &party in &late {
            let failure = Failure { late: true, frozen: false, text: text.to_owned() };
            self.fail(now, Some(party), failure);
            if party < self.plan.members && !are_waited_for {
                self.stages[party] = Stage::Ended;
            }
        }
    }

    /// Who gave no sign of giving up by now may never.
    fn wait_no_more(&mut self) {
        let last = if self.opener_told { self.stages.len() } else { self.plan.members };
        self.stages[..last].fill(Stage::Ended);
    }

    /// What comes next when everybody has done what is under way.
    fn advance(&mut self, now: Tick) {
        let all = |stages: &[Stage], stage: Stage| stages.iter().all(|it| *it == stage);
        if self.phase == Phase::Opening && self.opener().is_none_or(|it| it == Stage::Ready) {
            self.phase = Phase::Readying;
            (0..self.plan.members).for_each(|member| self.ask(member, Stage::Asked, Output::Begin));
        }
        if self.phase == Phase::Readying && all(&self.stages, Stage::Ready) && !self.is_late(now) {
            self.phase = Phase::Marking;
            self.ready_at = now;
            (0..self.stages.len()).for_each(|party| self.ask(party, Stage::Marking, Output::Mark));
        }
        if self.phase == Phase::Marking && all(&self.stages, Stage::Marked) && !self.is_late(now) {
            self.phase = Phase::Releasing;
            self.spread = now.since(self.ready_at);
            self.deadline = Tick(now.0.saturating_add(RELEASE_PATIENCE));
            let members = 0..self.plan.members;
            members.for_each(|member| self.ask(member, Stage::Releasing, Output::Release));
        }
        if self.phase == Phase::Releasing {
            self.release_opener(now);
        }
        if self.phase == Phase::Following && all(self.members(), Stage::Followed) {
            self.phase = Phase::Storing;
            self.outputs.push_back(Output::Store(self.vector()));
        }
        if self.phase == Phase::Failing {
            self.wind_up(now);
        }
    }

    fn release_opener(&mut self, now: Tick) {
        if self.members().iter().any(|it| *it < Stage::Released) {
            return;
        }
        match self.opener() {
            Some(Stage::Marked) => self.ask(self.plan.members, Stage::Releasing, Output::Release),
            Some(Stage::Releasing) => {}
            _ => {
                self.phase = Phase::Following;
                self.deadline = Tick(now.0.saturating_add(self.plan.patience));
            }
        }
    }

    /// Whether it is too late; then it fails.
    fn is_late(&mut self, now: Tick) -> bool {
        let is_late = now >= self.hold_ends;
        if is_late {
            let text = "the hold was over before everybody was as far".to_owned();
            self.fail(now, None, Failure { late: true, frozen: false, text });
        }
        is_late
    }

    fn ask(&mut self, party: Party, stage: Stage, output: impl FnOnce(Party) -> Output) {
        self.stages[party] = stage;
        self.outputs.push_back(output(party));
    }

    /// The first failure is the reason; with it all groups are told to give up, at once.
    fn fail(&mut self, now: Tick, party: Option<Party>, failure: Failure) {
        self.failures.push((party, failure));
        if matches!(self.phase, Phase::Failing | Phase::Failed | Phase::Made) {
            return;
        }
        self.phase = Phase::Failing;
        self.deadline = Tick(now.0.saturating_add(FAREWELL));
        for member in 0..self.plan.members {
            match self.stages[member] {
                Stage::Idle => self.stages[member] = Stage::Ended,
                Stage::Ended => {}
                _ => self.outputs.push_back(Output::GiveUp(member)),
            }
        }
    }

    /// The opener goes last; with it the try ends.
    fn wind_up(&mut self, now: Tick) {
        if self.members().iter().any(|it| *it != Stage::Ended) {
            return;
        }
        match self.opener() {
            None | Some(Stage::Idle | Stage::Ended | Stage::Released) => self.phase = Phase::Failed,
            Some(_) if self.opener_told => {}
            Some(_) => {
                self.opener_told = true;
                self.deadline = Tick(now.0.saturating_add(FAREWELL));
                self.outputs.push_back(Output::GiveUp(self.plan.members));
            }
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
