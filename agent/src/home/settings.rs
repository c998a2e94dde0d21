//! How a group is replicated: what an operator may change while it runs. The part `[policy]` of
//! `group.toml`, and the changes that `group add` and `group set` make to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vgship_base::ids::PeerId;
use vgship_base::units::ByteLen;

use super::keep::{self, Budget, Schedule, WINDOW_DEFAULT, Window};
use super::quantity::{Amount, Period, QuantityError, Size};
use super::text;
use crate::capture::source::Overflow;
use crate::role::drill::due::{EVERY_DEFAULT, Every};
use crate::ship::pace::{LagLimit, LagPolicy, OnLag};
use crate::ship::standing::{Mode, OnTimeout, SyncPolicy};

/// How long a write waits for a sync replica, unless the group says otherwise: longer than a
/// hiccup of a network or a disk, shorter than what makes databases give up.
pub const SYNC_TIMEOUT_DEFAULT: Period = Period(Duration::from_secs(5));

/// Bounds of that wait: shorter than a tick of the agent's clock cannot be kept, longer is a stall.
pub const SYNC_TIMEOUT_BOUNDS: [Period; 2] =
    [Period(Duration::from_millis(100)), Period(Duration::from_hours(1))];

/// How long applications may be held for a quiesced snapshot, unless the group says otherwise: most
/// clients of a database wait longer.
pub const HOLD_DEFAULT: Period = Period(Duration::from_secs(5));

/// Bounds of that: a hook needs some time, and ten minutes are an outage.
pub const HOLD_BOUNDS: [Period; 2] =
    [Period(Duration::from_millis(100)), Period(Duration::from_mins(10))];

/// What the self-check reads a second, unless the group says otherwise: 1 TiB in 12 days.
pub const SELF_CHECK_DEFAULT: Size = Size(ByteLen(1 << 20));

/// Shortest time between drills: a shorter one is over before a drill is.
pub const DRILL_EVERY_MIN: Period = Period(Duration::from_secs(1));

/// Least bound of a lag in time: half an epoch is noise.
const MAX_LAG_TIME_MIN: Duration = Duration::from_millis(500);

/// Least bound of a lag in bytes: one largest record.
const MAX_LAG_BYTES_MIN: u64 = 1 << 20;

/// How far a replica may be behind, if that is bounded: `none`, `30 s`, `256 MiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxLag(pub Option<Amount>);

impl FromStr for MaxLag {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<MaxLag, QuantityError> {
        match text.trim() {
            "none" => Ok(MaxLag(None)),
            other => other.parse().map(|amount| MaxLag(Some(amount))),
        }
    }
}

impl fmt::Display for MaxLag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => out.write_str("none"),
            Some(amount) => amount.fmt(out),
        }
    }
}

impl Serialize for MaxLag {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        text::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for MaxLag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<MaxLag, D::Error> {
        text::deserialize(from)
    }
}

/// One replica for which a group's mode does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaMode {
    /// Which.
    #[serde(with = "text::id")]
    pub peer: PeerId,
    /// When a write is complete, as far as it is concerned.
    pub mode: Mode,
}

/// What a source lets its replicas' agents do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Leave {
    /// They may not.
    #[default]
    Deny,
    /// They may.
    Allow,
}

/// How a group is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// When a write is complete.
    pub mode: Mode,
    /// How long a write waits for a sync replica.
    pub sync_timeout: Period,
    /// What then.
    pub on_sync_timeout: OnTimeout,
    /// What happens to writes when the outbox is full.
    pub on_overflow: Overflow,
    /// How far a replica may be behind.
    pub max_lag: MaxLag,
    /// What then.
    pub on_lag: OnLag,
    /// What the self-check reads a second; zero means none.
    pub self_check: Size,
    /// The shell command that makes applications quiet; empty for none.
    pub freeze: String,
    /// The shell command that lets them go on; empty for none.
    pub thaw: String,
    /// How long they may be held.
    pub hold: Period,
    /// Whether a replica's agent may have them made quiet, for a set.
    pub replica_quiesce: Leave,
    /// The shell command that stops applications before the role goes to another side; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop: String,
    /// The shell command that starts them once this side is the source; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start: String,
    /// On a replica: how far back any point can be opened.
    pub history_window: Window,
    /// On a replica: what snapshots and the journal behind them may take.
    pub history_budget: Budget,
    /// On a replica: when snapshots are taken by themselves, and which stay.
    pub snapshots: Schedule,
    /// On a replica: how often a drill shall pass.
    pub drill_every: Every,
    /// Replicas for which `mode` does not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replica: Vec<ReplicaMode>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mode: Mode::default(),
            sync_timeout: SYNC_TIMEOUT_DEFAULT,
            on_sync_timeout: OnTimeout::default(),
            on_overflow: Overflow::default(),
            max_lag: MaxLag::default(),
            on_lag: OnLag::default(),
            self_check: SELF_CHECK_DEFAULT,
            freeze: String::new(),
            thaw: String::new(),
            hold: HOLD_DEFAULT,
            replica_quiesce: Leave::default(),
            stop: String::new(),
            start: String::new(),
            history_window: WINDOW_DEFAULT,
            history_budget: Budget::default(),
            snapshots: Schedule::default(),
            drill_every: EVERY_DEFAULT,
            replica: Vec::new(),
        }
    }
}

impl Settings {
    /// What is wrong with a value, and with which.
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        let [least, most] = SYNC_TIMEOUT_BOUNDS;
        if !(least..=most).contains(&self.sync_timeout) {
            let why = format!("{} is not from {least} to {most}", self.sync_timeout);
            return Some(("sync_timeout", why));
        }
        let small = match self.max_lag.0 {
            Some(Amount::Time(time)) => time.0 < MAX_LAG_TIME_MIN,
            Some(Amount::Bytes(size)) => size.0.0 < MAX_LAG_BYTES_MIN,
            None => false,
        };
        if small {
            let (time, bytes) = (Period(MAX_LAG_TIME_MIN), Size(ByteLen(MAX_LAG_BYTES_MIN)));
            return Some(("max_lag", format!("{} is less than {time} or {bytes}", self.max_lag)));
        }
        if let Some(every) = self.drill_every.0.filter(|every| *every < DRILL_EVERY_MIN) {
            return Some(("drill_every", format!("{every} is less than {DRILL_EVERY_MIN}")));
        }
        self.wrong_hooks()
    }

    fn wrong_hooks(&self) -> Option<(&'static str, String)> {
        let [least, most] = HOLD_BOUNDS;
        if !(least..=most).contains(&self.hold) {
            return Some(("hold", format!("{} is not from {least} to {most}", self.hold)));
        }
        let hooks = [
            ("freeze", &self.freeze),
            ("thaw", &self.thaw),
            ("stop", &self.stop),
            ("start", &self.start),
        ];
        if let Some((key, _)) = hooks.into_iter().find(|(_, hook)| hook.contains('\0')) {
            return Some((key, "a command has no zero byte".to_owned()));
        }
        // What nobody could let go on must not be held.
        let lacks = !self.freeze.is_empty() && self.thaw.is_empty();
        lacks.then(|| ("thaw", "a freeze command needs one that undoes it".to_owned()))
    }

    /// When a write is complete, as far as one replica is concerned.
    pub fn mode_of(&self, peer: PeerId) -> Mode {
        let own = self.replica.iter().find(|known| known.peer == peer);
        own.map_or(self.mode, |known| known.mode)
    }

    /// How sync replicas are waited for.
    pub fn sync_policy(&self) -> SyncPolicy {
        let timeout = u64::try_from(self.sync_timeout.0.as_millis()).unwrap_or(u64::MAX);
        SyncPolicy { timeout, on_timeout: self.on_sync_timeout }
    }

    /// How far replicas may be behind.
    pub fn lag_policy(&self) -> Option<LagPolicy> {
        let limit = match self.max_lag.0? {
            Amount::Bytes(size) => LagLimit::Bytes(size.0.0),
            Amount::Time(time) => {
                LagLimit::Millis(u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX))
            }
        };
        Some(LagPolicy { limit, act: self.on_lag })
    }
}

/// What an operator wants to be otherwise; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsChange {
    /// When a write is complete: on the source, or in its sync replicas' journals too
    #[arg(long, value_name = "async|sync", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How long a write waits for a sync replica [default: 5 s]
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_timeout: Option<Period>,
    /// Then: go on without it and let it join again by itself, or wait
    #[arg(long, value_name = "degrade|stall", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_sync_timeout: Option<OnTimeout>,
    /// When the outbox is full: go on and resync later, or let writes wait [default: map]
    #[arg(long, value_name = "map|stall", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_overflow: Option<Overflow>,
    /// How far a replica may be behind, in time or bytes [default: none]
    #[arg(long, value_name = "DURATION|SIZE|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<MaxLag>,
    /// Beyond that: only say so, or slow writers down [default: alert]
    #[arg(long, value_name = "alert|slow", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_lag: Option<OnLag>,
    /// What the self-check reads a second, 0 for none [default: 1 MiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_check: Option<Size>,
    /// The shell command that makes applications quiet for a quiesced snapshot, '' for none
    #[arg(long, value_name = "COMMAND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<String>,
    /// The shell command that lets them go on; it must also do when they are not quiet
    #[arg(long, value_name = "COMMAND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thaw: Option<String>,
    /// How long they may be held, from 100 ms to 10 m [default: 5 s]
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Period>,
    /// Whether the agent of a replica may have them made quiet, for a set [default: deny]
    #[arg(long, value_name = "deny|allow", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_quiesce: Option<Leave>,
    /// The shell command that stops applications here before the role goes to another side, '' for
    /// none
    #[arg(long, value_name = "COMMAND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// The shell command that starts them here once this side is the source, '' for none
    #[arg(long, value_name = "COMMAND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// On a replica: how far back any point can be opened, in time, or what history may take, in
    /// bytes [default: 24 h, and half of what its disk has for it]
    #[arg(long, value_name = "SIZE|DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Amount>,
    /// On a replica: when snapshots are taken by themselves, and which stay [default: "4x15m, 24x1h,
    /// 14x1d, 8x1w"]
    #[arg(long, value_name = "GRID|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Schedule>,
    /// On a replica: how often a drill shall pass; beyond that there is an alert [default: 30 d]
    #[arg(long, value_name = "DURATION|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill_every: Option<Every>,
}

impl SettingsChange {
    /// Whether it concerns what a replica's side has of its own: its history, its drills, and its
    /// hooks for the day on which it becomes the source.
    pub fn is_of_replica(&self) -> bool {
        let none = SettingsChange::default();
        let SettingsChange { stop, start, history, snapshots, drill_every, .. } = none;
        let rest = SettingsChange { stop, start, history, snapshots, drill_every, ..self.clone() };
        rest.is_empty() && !self.is_empty()
    }

    /// Whether nothing is to be otherwise.
    pub fn is_empty(&self) -> bool {
        *self == SettingsChange::default()
    }

    /// Makes the change. With `peer` the mode is that of this replica alone.
    pub fn apply(&self, to: &mut Settings, peer: Option<PeerId>) {
        match (self.mode, peer) {
            (Some(mode), Some(peer)) => {
                to.replica.retain(|known| known.peer != peer);
                if mode != to.mode {
                    to.replica.push(ReplicaMode { peer, mode });
                }
            }
            (Some(mode), None) => {
                to.mode = mode;
                to.replica.retain(|known| known.mode != mode);
            }
            (None, _) => {}
        }
        set(&mut to.sync_timeout, self.sync_timeout);
        set(&mut to.on_sync_timeout, self.on_sync_timeout);
        set(&mut to.on_overflow, self.on_overflow);
        set(&mut to.max_lag, self.max_lag);
        set(&mut to.on_lag, self.on_lag);
        set(&mut to.self_check, self.self_check);
        set(&mut to.freeze, self.freeze.clone());
        set(&mut to.thaw, self.thaw.clone());
        set(&mut to.hold, self.hold);
        set(&mut to.replica_quiesce, self.replica_quiesce);
        set(&mut to.stop, self.stop.clone());
        set(&mut to.start, self.start.clone());
        if let Some(amount) = self.history {
            keep::apply(amount, &mut to.history_window, &mut to.history_budget);
        }
        set(&mut to.snapshots, self.snapshots.clone());
        set(&mut to.drill_every, self.drill_every);
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_changes_what_it_names() {
        let mut settings = Settings::default();
        let change = SettingsChange {
            mode: Some(Mode::Sync),
            max_lag: Some("30 s".parse().unwrap()),
            self_check: Some("0".parse().unwrap()),
            ..SettingsChange::default()
        };
        change.apply(&mut settings, None);
        assert_eq!((settings.mode, settings.on_lag), (Mode::Sync, OnLag::Alert));
        assert_eq!(settings.max_lag.to_string(), "30 s");
        let limit = LagLimit::Millis(30_000);
        assert_eq!(settings.lag_policy(), Some(LagPolicy { limit, act: OnLag::Alert }));
        let none = SettingsChange { max_lag: Some("none".parse().unwrap()), ..Default::default() };
        none.apply(&mut settings, None);
        assert_eq!((settings.lag_policy(), settings.mode), (None, Mode::Sync));
    }

    #[test]
    fn one_replica_may_differ_from_the_group() {
        let (one, other) = (PeerId([1; 32]), PeerId([2; 32]));
        let mut settings = Settings::default();
        let mode = |mode| SettingsChange { mode: Some(mode), ..Default::default() };
        mode(Mode::Sync).apply(&mut settings, Some(one));
        assert_eq!((settings.mode_of(one), settings.mode_of(other)), (Mode::Sync, Mode::Async));
        mode(Mode::Sync).apply(&mut settings, None);
        assert!(settings.replica.is_empty(), "what does not differ is not kept");
        mode(Mode::Async).apply(&mut settings, Some(other));
        assert_eq!((settings.mode_of(one), settings.mode_of(other)), (Mode::Sync, Mode::Async));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let wrong = |text: SettingsChange| {
            let mut settings = Settings::default();
            text.apply(&mut settings, None);
            settings.wrong().map(|(key, _)| key)
        };
        let lag = |text: &str| SettingsChange {
            max_lag: Some(text.parse().unwrap()),
            ..Default::default()
        };
        assert_eq!(wrong(lag("100 ms")), Some("max_lag"));
        assert_eq!(wrong(lag("64 KiB")), Some("max_lag"));
        assert_eq!(wrong(lag("1 s")), None);
        let timeout = |text: &str| SettingsChange {
            sync_timeout: Some(text.parse().unwrap()),
            ..Default::default()
        };
        assert_eq!(wrong(timeout("0")), Some("sync_timeout"));
        assert_eq!(wrong(timeout("2 h")), Some("sync_timeout"));
        let every = |text: &str| SettingsChange {
            drill_every: Some(text.parse().unwrap()),
            ..Default::default()
        };
        assert!(every("7 d").is_of_replica());
        for (text, key) in [("999 ms", Some("drill_every")), ("1 s", None), ("none", None)] {
            assert_eq!(wrong(every(text)), key, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_thawed_is_not_frozen() {
        let mut settings = Settings::default();
        let hooks = |freeze: Option<&str>, thaw: Option<&str>| SettingsChange {
            freeze: freeze.map(str::to_owned),
            thaw: thaw.map(str::to_owned),
            ..Default::default()
        };
        assert!(!hooks(Some("f"), None).is_of_replica(), "they belong to the source");
        hooks(Some("f"), None).apply(&mut settings, None);
        assert_eq!(settings.wrong().map(|it| it.0), Some("thaw"));
        hooks(None, Some("t")).apply(&mut settings, None);
        assert_eq!((settings.wrong(), settings.freeze.as_str()), (None, "f"));
        hooks(Some(""), None).apply(&mut settings, None);
        assert_eq!((settings.wrong(), settings.freeze.as_str()), (None, ""));
        for (hold, wrong) in [("100 ms", None), ("10 m", None), ("99 ms", Some("hold"))] {
            let change = SettingsChange { hold: Some(hold.parse().unwrap()), ..Default::default() };
            change.apply(&mut settings, None);
            assert_eq!(settings.wrong().map(|it| it.0), wrong, "{hold}");
        }
        settings.hold = "11 m".parse().unwrap();
        assert_eq!(settings.wrong().map(|it| it.0), Some("hold"));
    }
}
