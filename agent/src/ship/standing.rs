//! How a sync replica stands: whether writes wait for it, and whether it holds every write that an
//! application was told of. Pure: facts come in with the time, the standing goes out.
//!
//! ```text
//! out --(follows, nearly caught up)--> joining --(holds all, source is stable)--> in force
//!  ^                                      |                                           |
//!  +---------- late, away, resyncing, paused --------------------------------------- +
//! ```
//!
//! A write waits for replicas that are in force or joining; under [`OnTimeout::Stall`] also for
//! those that are out, unless an operator stopped them or they have never been whole (R10).

use serde::{Deserialize, Serialize};
use vgship_base::ids::Seq;
use vgship_base::units::Tick;

use crate::capture::activity::Completion;

/// What may still be on its way to a replica when writes begin to wait for it again: so much is
/// there within moments. Unit: bytes.
const JOIN_BACKLOG: u64 = 4 << 20;

/// How long a replica that was late is left alone the first time. Doubles each time. Unit: ms.
const HOLD_FIRST: u64 = 1000;

/// The longest that it is left alone, and how long it must have been in force for its lateness to
/// be forgotten. Unit: ms.
const HOLD_LONGEST: u64 = 60_000;

/// When a write is complete, as far as one replica is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// When it is on the source.
    #[default]
    Async,
    /// When it is in this replica's journal, too.
    Sync,
}

impl Mode {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::Sync => "sync",
        }
    }
}

/// What happens when a sync replica is away or late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// Writes go on without it, which is said aloud; it joins again by itself.
    #[default]
    Degrade,
    /// Writes wait for it.
    Stall,
}

impl OnTimeout {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnTimeout::Degrade => "degrade",
            OnTimeout::Stall => "stall",
        }
    }
}

/// How sync replicas are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPolicy {
    /// How long a write waits, and how long a link may be gone. Unit: milliseconds.
    pub timeout: u64,
    /// What then.
    pub on_timeout: OnTimeout,
}

impl Default for SyncPolicy {
    fn default() -> SyncPolicy {
        SyncPolicy { timeout: 5000, on_timeout: OnTimeout::Degrade }
    }
}

/// Why a sync replica is not in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Out {
    /// Its first sync has not ended.
    FirstSync,
    /// An operator stopped shipping to it.
    Paused,
    /// No link stands.
    Disconnected,
    /// It is inside a resync, or needs one: a failover would fall back behind it.
    Resyncing,
    /// Too much is on its way to it.
    Behind,
    /// A write waited for it for too long.
    Late,
}

impl Out {
    /// Nobody waits for it, whatever the policy says: it never held anything, or a person knows.
    const fn is_excused(self) -> bool {
        matches!(self, Out::FirstSync | Out::Paused)
    }

    /// As shown to people.
    pub const fn text(self) -> &'static str {
        match self {
            Out::FirstSync => "its first sync has not ended",
            Out::Paused => "paused by an operator",
            Out::Disconnected => "it is not connected",
            Out::Resyncing => "it is being resynced",
            Out::Behind => "it is catching up",
            Out::Late => "it took longer than the sync timeout",
        }
    }
}

/// How a replica stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is async.
    #[default]
    Off,
    /// Every acknowledged write is durable there and on the source: nothing would be lost.
    InForce,
    /// Writes wait for it; what was acknowledged before, up to `barrier`, is still on its way.
    Joining {
        /// The last number given when it began to join.
        barrier: Seq,
    },
    /// It is not in force.
    Out(Out),
}

/// What is known of a replica when its standing is reviewed.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Why it cannot be in force, if it cannot.
    pub unfit: Option<Out>,
    /// The last number given.
    pub issued: Seq,
    /// The last record that is durable there.
    pub durable: Seq,
    /// What is not durable there. Unit: bytes.
    pub backlog: u64,
    /// Whether the source's volumes hold durably what they held when it began to join.
    pub stable: bool,
    /// Since when the oldest write waits for this replica.
    pub waiting: Option<Tick>,
}

/// One replica's standing and what it came from.
#[derive(Clone, Debug, Default)]
pub struct Sync {
    mode: Mode,
    standing: Standing,
    since: Tick,
    away: Option<Tick>,
    hold_until: Tick,
    lapses: u32,
    /// Per volume, what a flush must cover before it counts as in force.
    floor: Vec<Completion>,
}

impl Sync {
    /// Sets what the operator wants of the replica.
    pub fn set_mode(&mut self, mode: Mode, now: Tick) {
        if self.mode != mode {
            self.mode = mode;
            let out = Standing::Out(Out::Behind);
            self.enter(if mode == Mode::Sync { out } else { Standing::Off }, now);
        }
    }

    /// What the operator wants of it.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// How it stands.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Since when it stands so. Unit: the source's clock.
    pub const fn since(&self) -> Tick {
        self.since
    }

    /// Per volume, what must have been flushed for it to be in force; empty when it is not joining.
    pub fn floor(&self) -> &[Completion] {
        &self.floor
    }

    /// Whether a write with this number must wait, when the replica is durable up to `durable`.
    pub fn holds_back(&self, seq: Seq, durable: Seq, policy: SyncPolicy) -> bool {
        match self.standing {
            Standing::Off => false,
            Standing::InForce | Standing::Joining { .. } => durable < seq,
            Standing::Out(why) => policy.on_timeout == OnTimeout::Stall && !why.is_excused(),
        }
    }

    /// Whether acknowledged writes must be durable on the source, too: a source that lost them in a
    /// power cut would take them from the replica by its resync (R10).
    pub fn wants_stability(&self, policy: SyncPolicy) -> bool {
        self.holds_back(Seq(u64::MAX), Seq::ZERO, policy)
    }

    /// Looks at the facts. `completed` gives, per volume, what a flush must cover for all that was
    /// acknowledged by now.
    pub fn review(
        &mut self,
        now: Tick,
        policy: SyncPolicy,
        facts: &Facts,
        completed: impl FnOnce() -> Vec<Completion>,
    ) {
        let disconnected = facts.unfit == Some(Out::Disconnected);
        self.away = disconnected.then(|| self.away.unwrap_or(now));
        match self.standing {
            Standing::Off => {}
            Standing::InForce | Standing::Joining { .. } => {
                if let Some(why) = self.lapse(now, policy, facts) {
                    self.leave(why, now, policy);
                } else if let Standing::Joining { barrier } = self.standing
                    && facts.durable >= barrier
                    && facts.stable
                {
                    self.enter(Standing::InForce, now);
                } else if self.standing == Standing::InForce
                    && now.0.saturating_sub(self.since.0) >= HOLD_LONGEST
                {
                    self.lapses = 0;
                }
            }
            Standing::Out(before) => {
                let near = policy.on_timeout == OnTimeout::Stall || facts.backlog <= JOIN_BACKLOG;
                if facts.unfit.is_none() && near && now >= self.hold_until {
                    self.enter(Standing::Joining { barrier: facts.issued }, now);
                    self.floor = completed();
                } else {
                    let held = if now < self.hold_until { before } else { Out::Behind };
                    self.standing = Standing::Out(facts.unfit.unwrap_or(held));
                }
            }
        }
    }

    /// Why it cannot stay in force, if it cannot.
    fn lapse(&self, now: Tick, policy: SyncPolicy, facts: &Facts) -> Option<Out> {
        let over = |since: Tick| now.0.saturating_sub(since.0) >= policy.timeout;
        let late = policy.on_timeout == OnTimeout::Degrade && facts.waiting.is_some_and(over);
        match facts.unfit {
            Some(Out::Disconnected) => {
                (late || self.away.is_some_and(over)).then_some(Out::Disconnected)
            }
            Some(why) => Some(why),
            None => late.then_some(Out::Late),
        }
    }

    fn leave(&mut self, why: Out, now: Tick, policy: SyncPolicy) {
        if policy.on_timeout == OnTimeout::Degrade && matches!(why, Out::Late | Out::Disconnected) {
            let hold = (HOLD_FIRST << self.lapses.min(16)).min(HOLD_LONGEST);
            self.hold_until = Tick(now.0 + hold);
            self.lapses = self.lapses.saturating_add(1);
        }
        self.enter(Standing::Out(why), now);
    }

    fn enter(&mut self, standing: Standing, now: Tick) {
        self.standing = standing;
        self.since = now;
        self.floor = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGRADE: SyncPolicy = SyncPolicy { timeout: 100, on_timeout: OnTimeout::Degrade };
    const STALL: SyncPolicy = SyncPolicy { timeout: 100, on_timeout: OnTimeout::Stall };

    fn facts() -> Facts {
        let (issued, durable) = (Seq(9), Seq(9));
        Facts { unfit: None, issued, durable, backlog: 0, stable: true, waiting: None }
    }

    fn review(sync: &mut Sync, now: u64, policy: SyncPolicy, facts: Facts) -> Standing {
        sync.review(Tick(now), policy, &facts, || vec![Completion(3)]);
        sync.standing()
    }

    fn in_force(policy: SyncPolicy) -> Sync {
        let mut sync = Sync::default();
        sync.set_mode(Mode::Sync, Tick(0));
        review(&mut sync, 1, policy, facts());
        assert_eq!(review(&mut sync, 2, policy, facts()), Standing::InForce);
        sync
    }

    #[test]
    fn it_joins_only_when_it_holds_all_and_the_source_is_stable() {
        let mut sync = Sync::default();
        sync.set_mode(Mode::Sync, Tick(0));
        let far = Facts { backlog: JOIN_BACKLOG + 1, ..facts() };
        assert_eq!(review(&mut sync, 1, DEGRADE, far), Standing::Out(Out::Behind));
        assert!(!sync.wants_stability(DEGRADE) && sync.wants_stability(STALL));
        let joining = Standing::Joining { barrier: Seq(9) };
        let near = Facts { durable: Seq(8), ..facts() };
        assert_eq!(review(&mut sync, 2, DEGRADE, near), joining);
        assert_eq!(sync.floor(), [Completion(3)]);
        assert!(sync.holds_back(Seq(9), Seq(8), DEGRADE), "writes wait for it already");
        assert_eq!(review(&mut sync, 3, DEGRADE, near), joining, "not all is there");
        let unstable = Facts { stable: false, ..facts() };
        assert_eq!(review(&mut sync, 4, DEGRADE, unstable), joining, "R10: the source may lose it");
        assert_eq!(review(&mut sync, 5, DEGRADE, facts()), Standing::InForce);
    }

    #[test]
    fn a_late_replica_is_left_alone_for_longer_and_longer() {
        let (mut sync, mut now) = (in_force(DEGRADE), 1000);
        for hold in [1000, 2000, 4000] {
            let waiting = Some(Tick(now - 99));
            assert_eq!(
                review(&mut sync, now, DEGRADE, Facts { waiting, ..facts() }),
                Standing::InForce
            );
            let waiting = Some(Tick(now - 100));
            let late = Facts { waiting, ..facts() };
            assert_eq!(review(&mut sync, now, DEGRADE, late), Standing::Out(Out::Late));
            assert!(!sync.holds_back(Seq(99), Seq(0), DEGRADE), "writes go on");
            let before = review(&mut sync, now + hold - 1, DEGRADE, facts());
            assert_eq!(before, Standing::Out(Out::Late));
            now += hold;
            assert!(matches!(review(&mut sync, now, DEGRADE, facts()), Standing::Joining { .. }));
            assert_eq!(review(&mut sync, now, DEGRADE, facts()), Standing::InForce);
            now += 1000;
        }
        review(&mut sync, now + HOLD_LONGEST, DEGRADE, facts());
        assert_eq!(sync.lapses, 0, "a minute in force is forgiven");
    }

    #[test]
    fn a_link_may_be_gone_for_as_long_as_a_write_may_wait() {
        let mut sync = in_force(DEGRADE);
        let gone = Facts { unfit: Some(Out::Disconnected), ..facts() };
        assert_eq!(review(&mut sync, 10, DEGRADE, gone), Standing::InForce);
        assert_eq!(review(&mut sync, 109, DEGRADE, gone), Standing::InForce);
        assert_eq!(review(&mut sync, 110, DEGRADE, gone), Standing::Out(Out::Disconnected));
    }

    #[test]
    fn a_resync_ends_it_at_once() {
        for policy in [DEGRADE, STALL] {
            let mut sync = in_force(policy);
            let resyncing = Facts { unfit: Some(Out::Resyncing), ..facts() };
            assert_eq!(review(&mut sync, 3, policy, resyncing), Standing::Out(Out::Resyncing));
            let stalls = policy == STALL;
            assert_eq!(sync.holds_back(Seq(1), Seq(99), policy), stalls, "R10");
        }
    }

    #[test]
    fn stalled_writes_wait_for_a_slow_replica_but_not_for_a_paused_or_new_one() {
        let mut sync = in_force(STALL);
        let late = Facts { waiting: Some(Tick(0)), ..facts() };
        assert_eq!(review(&mut sync, 5000, STALL, late), Standing::InForce);
        assert!(sync.holds_back(Seq(10), Seq(9), STALL));
        for (why, waits) in [(Out::Paused, false), (Out::FirstSync, false), (Out::Behind, true)] {
            review(&mut sync, 6000, STALL, Facts { unfit: Some(why), ..facts() });
            assert_eq!(sync.holds_back(Seq(10), Seq(9), STALL), waits, "{why:?}");
        }
    }

    #[test]
    fn an_async_replica_holds_nobody_back() {
        let mut sync = in_force(DEGRADE);
        sync.set_mode(Mode::Async, Tick(9));
        assert_eq!(review(&mut sync, 10, STALL, facts()), Standing::Off);
        assert!(!sync.holds_back(Seq(99), Seq(0), STALL) && !sync.wants_stability(STALL));
    }
}
