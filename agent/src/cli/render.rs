//! The status as a person reads it. Decides nothing but words.

use jiff::Timestamp;
use vgship_base::ids::Seq;
use vgship_base::units::ByteLen;

use super::table::Table;
use crate::api::Status;
use crate::api::progress::whole;
use crate::api::status::{CheckStatus, GroupStatus, PeerStatus, ResyncStatus, State, SyncStatus};
use crate::home::Role;

/// Width of a progress bar. Unit: characters.
const BAR: usize = 32;

/// Everything: a table of the groups, then what needs more than a row.
pub(super) fn status(status: &Status, now: Timestamp) -> String {
    let agent = &status.agent;
    let listen =
        agent.listen.as_deref().map_or_else(String::new, |at| format!(", listens at {at}"));
    let mut text = format!("agent {} (vgship {}{listen})\n", agent.name, agent.version);
    if status.groups.is_empty() {
        text.push_str(
            "no group yet: add one with vgship group add, or join one with vgship pair join\n",
        );
        return text;
    }
    text.push('\n');
    text.push_str(&overview(&status.groups));
    for group in &status.groups {
        text.push('\n');
        text.push_str(&details(group, now));
    }
    text
}

/// The same for a watcher: all of it in place, or a line per group where lines follow each other.
pub(super) fn watched(all: &Status, now: Timestamp, in_place: bool) -> String {
    match in_place {
        true => status(all, now),
        false => all.groups.iter().map(line).collect(),
    }
}

fn overview(groups: &[GroupStatus]) -> String {
    let mut table =
        Table::new(["GROUP", "ROLE", "STATE", "MODE", "GEN", "SIZE", "LAG", "BEHIND", "DIRTY"]);
    for group in groups {
        let bytes =
            group.volumes.iter().fold(0_u64, |sum, volume| sum.saturating_add(volume.bytes));
        table.row([
            group.name.clone(),
            role(group),
            group.state.as_str().to_owned(),
            group.mode.as_str().to_owned(),
            group.generation.get(..4).unwrap_or("-").to_owned(),
            ByteLen(bytes).to_string(),
            format!("{:.1} s", group.lag.seconds),
            ByteLen(group.lag.bytes).to_string(),
            ByteLen(group.dirty_bytes).to_string(),
        ]);
    }
    table.to_string()
}

fn details(group: &GroupStatus, now: Timestamp) -> String {
    let mut lines = vec![format!("{}: {}", group.name, sentence(group))];
    if let Some(warning) = warning(group) {
        lines.push(format!("  {warning}"));
    }
    if let Some(resync) = &group.resync {
        lines.extend(progress(resync).into_iter().map(|line| format!("  {line}")));
    }
    let seq = |seq| Seq(seq).to_string();
    lines.push(format!(
        "  seq: issued {}, sent {}, durable {}, applied {}",
        seq(group.seq.issued),
        seq(group.seq.sent),
        seq(group.seq.durable),
        seq(group.seq.applied)
    ));
    let objective = group.rpo.objective_seconds;
    let wished = objective.map_or_else(String::new, |wish| format!(" of {wish:.1} s allowed"));
    lines.push(format!("  rpo: {:.1} s{wished}", group.rpo.seconds));
    if group.lag.exceeded {
        let slowed = if group.lag.slowed { ": writers are slowed" } else { "" };
        lines.push(format!("  lag: beyond max_lag{slowed}"));
    }
    lines.extend(group.sync.as_ref().map(|known| format!("  sync: {}", sync(known))));
    lines.extend(group.self_check.as_ref().map(|known| format!("  self-check: {}", check(known))));
    lines.extend(veil(group).map(|text| format!("  veil: {text}")));
    lines.extend(drill(group).map(|text| format!("  drill: {text}")));
    if group.role == Role::Source {
        lines.push(format!(
            "  outbox: {} in memory, {} on disk; when full: {}",
            ByteLen(group.outbox.ram_bytes),
            ByteLen(group.outbox.spill_bytes),
            group.policy.as_str()
        ));
    }
    if group.peers.is_empty() {
        lines.push("  peer: none yet".to_owned());
    }
    lines.extend(group.peers.iter().map(|known| format!("  {}", peer(known, now))));
    lines.join("\n") + "\n"
}

/// What this agent is in it, in a word or two.
fn role(group: &GroupStatus) -> String {
    let blind = group.role == Role::Replica && group.blind;
    format!("{}{}", if blind { "blind " } else { "" }, group.role.as_str())
}

/// What hides the content from blind replicas, and whether somebody keeps the key.
fn veil(group: &GroupStatus) -> Option<String> {
    let veil = group.veil.as_ref()?;
    let escrow = match (&veil.escrowed, group.role) {
        (_, Role::Replica) => "kept by the source; what is read here is veiled".to_owned(),
        (Some(time), _) => format!("an escrow was made at {time}"),
        (None, _) => format!(
            "NO ESCROW has been made: without this agent nobody can read what blind replicas hold; \
             next: vgship key escrow {} --to FILE",
            group.name
        ),
    };
    Some(format!("key {}, {escrow}", veil.key))
}

fn sentence(group: &GroupStatus) -> String {
    match &group.reason {
        Some(reason) => format!("{}, because {reason}", group.state.as_str()),
        None => group.state.as_str().to_owned(),
    }
}

fn sync(sync: &SyncStatus) -> String {
    let why = sync.reason.as_deref().map_or_else(String::new, |why| format!(", because {why}"));
    let waits = match sync.waiting_seconds {
        0.0 => String::new(),
        seconds => format!("; a write has been waiting for {seconds:.1} s"),
    };
    let then = sync.on_timeout.as_str();
    let policy = format!("timeout {:.1} s, then {then}", sync.timeout_seconds);
    format!("{} since {}{why}{waits} ({policy})", sync.state.as_str(), sync.since)
}

fn check(check: &CheckStatus) -> String {
    let found = match (&check.last, check.mismatches) {
        (Some(last), count) => format!(
            "{count} DIFFERENCES, the last in {} at byte {}; they were resynced",
            last.volume, last.offset
        ),
        (None, _) => "no difference".to_owned(),
    };
    format!("{} compared, {} rounds, {found}", ByteLen(check.checked_bytes), check.rounds)
}

/// The last drill, and whether the next is overdue.
fn drill(group: &GroupStatus) -> Option<String> {
    let last = group.last_drill.as_ref().map(|last| {
        let did = if last.passed { "passed" } else { "DID NOT PASS" };
        format!("the last one, at {}, {did}", last.time)
    });
    match (last, group.drill_overdue) {
        (last, false) => last,
        (Some(last), true) => Some(format!("OVERDUE: {last}")),
        (None, true) => Some(format!("OVERDUE: run vgship drill {} --check ...", group.name)),
    }
}

/// What must not be overlooked.
fn warning(group: &GroupStatus) -> Option<&'static str> {
    match (group.consistent, group.role, group.state) {
        (true, _, _) => None,
        (false, Role::Replica, State::Resyncing) => {
            Some("this replica is NOT consistent until the resync ends")
        }
        (false, Role::Source, State::Resyncing) => {
            Some("the replica is NOT consistent until the resync ends")
        }
        (false, Role::Replica, State::Paused) => {
            Some("this replica's LVs are NOT consistent until they are where they are taken")
        }
        (false, Role::Replica, _) => {
            Some("this replica is NOT consistent until a resync has ended")
        }
        (false, Role::Source, _) => Some("the replica is NOT consistent until a resync has ended"),
    }
}

/// A bar with what is done, how fast and until when, or why there is no end in sight.
fn progress(resync: &ResyncStatus) -> Vec<String> {
    let (done, total) = (resync.done_bytes.min(resync.total_bytes), resync.total_bytes);
    let share = |of: usize| match total {
        0 => of,
        _ => usize::try_from(u128::from(done) * of as u128 / u128::from(total)).unwrap_or(of),
    };
    let full = share(BAR);
    let until = match (&resync.losing_ground, resync.eta_seconds) {
        (Some(_), _) => "no end in sight".to_owned(),
        (None, Some(seconds)) => format!("{} left", span(seconds)),
        (None, None) => "end not known yet".to_owned(),
    };
    let mut lines = vec![
        format!("resync: {}", resync.reason),
        format!(
            "[{}{}] {:>3} %  {} of {}  {}/s  {until}",
            "#".repeat(full),
            ".".repeat(BAR - full),
            share(100),
            ByteLen(done),
            ByteLen(total),
            whole(resync.rate_bytes_per_second)
        ),
    ];
    lines.extend(resync.losing_ground.iter().map(|why| format!("losing ground: {why}")));
    lines
}

fn peer(peer: &PeerStatus, now: Timestamp) -> String {
    let since = peer.since.as_deref().map_or_else(String::new, |since| match since.parse() {
        Ok(at) => format!(" for {} (since {since})", span(elapsed(at, now))),
        Err(_) => format!(" since {since}"),
    });
    let state = if peer.connected { "connected" } else { "not connected" };
    let address = peer.address.as_deref().map_or_else(String::new, |at| format!(" at {at}"));
    let error = peer.last_error.as_deref().map_or_else(String::new, |why| match peer.connected {
        true => format!("; before: {why}"),
        false => format!("; {why}"),
    });
    let tries = match peer.tries {
        0 => String::new(),
        1 => ", 1 try".to_owned(),
        tries => format!(", {tries} tries"),
    };
    let blind = if peer.blind { " (blind)" } else { "" };
    format!("peer {}{blind}: {state}{address}{since}{tries}{error}", peer.name)
}

fn elapsed(since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).as_secs_f64().max(0.0)
}

/// A duration in its two largest units.
fn span(seconds: f64) -> String {
    let whole = whole(seconds).0;
    match whole {
        0 => "less than 1 s".to_owned(),
        1..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// One group on one line.
fn line(group: &GroupStatus) -> String {
    let bar = group.resync.as_ref().map_or_else(String::new, |resync| {
        let total = resync.total_bytes.max(1);
        let percent = u128::from(resync.done_bytes.min(total)) * 100 / u128::from(total);
        format!(", resync {percent} %")
    });
    let warning = if group.consistent { "" } else { ", NOT consistent" };
    format!(
        "{} {}: {}{warning}, lag {:.1} s, behind {}, dirty {}{bar}\n",
        role(group),
        group.name,
        sentence(group),
        group.lag.seconds,
        ByteLen(group.lag.bytes),
        ByteLen(group.dirty_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::tests::{agent, in_sync};
    use crate::api::status::{Lag, OutboxStatus};
    use crate::home::Overflow;

    const MIB: u64 = 1 << 20;

    fn resyncing() -> GroupStatus {
        let resync = ResyncStatus {
            reason: "first sync".into(),
            done_bytes: 144 * MIB,
            total_bytes: 576 * MIB,
            eta_seconds: Some(754.0),
            rate_bytes_per_second: 0.75 * 1_048_576.0,
            incoming_bytes_per_second: 0.0,
            losing_ground: None,
        };
        GroupStatus {
            name: "orders".into(),
            role: Role::Replica,
            state: State::Resyncing,
            reason: Some("this replica has nothing yet".into()),
            dirty_bytes: 432 * MIB,
            lag: Lag { bytes: 3 * MIB / 2, seconds: 12.34, ..Lag::default() },
            resync: Some(resync),
            consistent: false,
            ..in_sync()
        }
    }

    fn losing() -> GroupStatus {
        let mut group = GroupStatus { name: "busy".into(), role: Role::Source, ..resyncing() };
        let resync = group.resync.as_mut().unwrap();
        resync.eta_seconds = None;
        resync.losing_ground =
            Some("writes come in at 80 MiB/s, the resync goes at 20 MiB/s".into());
        group
    }

    fn disconnected(state: State, reason: &str) -> GroupStatus {
        let mut group = in_sync();
        group.state = state;
        group.reason = Some(reason.into());
        group.outbox = OutboxStatus { ram_bytes: 64 * MIB, spill_bytes: 512 * MIB };
        group.policy = Overflow::Stall;
        group.rpo.objective_seconds = None;
        group.peers[0].connected = false;
        group.peers[0].last_error = Some("no answer within 10 s".into());
        group.peers[0].tries = 37;
        group
    }

    #[test]
    fn every_state_reads_as_the_golden_file_shows() {
        let now = "2026-02-03T06:05:06Z".parse().unwrap();
        let mut map = disconnected(State::Map, "the outbox overflowed at 05:00");
        map.name = "archive".into();
        map.dirty_bytes = 10 * MIB;
        let mut alone = in_sync();
        alone.name = "new".into();
        alone.generation.clear();
        alone.peers.clear();
        alone.state = State::Disconnected;
        alone.reason = Some("no replica is paired yet".into());
        let gone = disconnected(State::Disconnected, "the link to recovery is down");
        let mut parts = Vec::new();
        for (title, groups) in [
            ("in sync", vec![in_sync()]),
            ("resyncing", vec![resyncing()]),
            ("losing ground", vec![losing()]),
            ("disconnected", vec![gone.clone()]),
            ("map", vec![map.clone()]),
            ("no peer yet", vec![alone]),
            ("no group yet", vec![]),
            ("several groups", vec![in_sync(), resyncing(), map.clone()]),
        ] {
            parts.push(format!("== {title}\n{}\n", status(&agent(groups), now)));
        }
        let lines = watched(&agent(vec![in_sync(), resyncing(), map]), now, false);
        parts.push(format!("== watched where lines follow each other\n{lines}"));
        super::super::tests::golden("status.txt", &parts.concat());
    }

    #[test]
    fn numbers_that_cannot_be_do_no_harm() {
        let resync = ResyncStatus {
            done_bytes: u64::MAX,
            total_bytes: 0,
            eta_seconds: Some(f64::NAN),
            rate_bytes_per_second: f64::INFINITY,
            ..resyncing().resync.unwrap()
        };
        assert!(progress(&resync)[1].contains("100 %"));
        assert_eq!(span(f64::INFINITY), span(1.9e19));
        assert_eq!(span(90_061.0), "1 d 1 h");
    }
}
