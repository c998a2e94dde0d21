//! Markers of a source: into the stream, and until replicas have followed.

use std::time::{Duration, Instant};

use vgship_base::ids::{ReplicaId, Seq};
use vgship_base::record::{Marker, Order};

use crate::api::ControlError;
use crate::api::past::Marked;
use crate::capture::source::Reach;
use crate::pipeline::agent::Inner;
use crate::pipeline::source::SourceGroup;

const LOOK: Duration = Duration::from_millis(10);

/// A marker that stands in the stream.
pub(super) struct Placed {
    pub(super) seq: Seq,
    /// Those that will follow it.
    pub(super) follows: Vec<ReplicaId>,
}

/// Puts a marker into the stream and waits until replicas have followed it.
pub(super) fn put(
    agent: &Inner,
    source: &SourceGroup,
    marker: &Marker,
    patience: Duration,
) -> Result<Marked, ControlError> {
    let placed = place(agent, source, marker)?;
    follow(source, marker, &placed, patience)
}

/// Whether a marker would be of use now.
///
/// # Errors
/// Why it would not.
pub(super) fn check(source: &SourceGroup, order: Order) -> Result<(), ControlError> {
    let reach = source.tap.core().reach();
    is_useful(order, &reach).then_some(()).ok_or_else(|| nobody_follows(source, &reach))
}

fn is_useful(order: Order, reach: &[(ReplicaId, Reach)]) -> bool {
    reach.iter().any(|(_, reach)| match order {
        Order::Snapshot | Order::Event => *reach == Reach::Follows,
        _ => *reach != Reach::Away,
    })
}

/// Puts a marker into the stream; waits for nothing.
pub(super) fn place(
    agent: &Inner,
    source: &SourceGroup,
    marker: &Marker,
) -> Result<Placed, ControlError> {
    let (reach, seq) = {
        let mut core = source.tap.core();
        let reach = core.reach();
        let seq = match is_useful(marker.order, &reach) {
            true => core.mark(marker.clone(), agent.clock.wall()),
            false => None,
        };
        (reach, seq)
    };
    source.tap.records.notify_one();
    let seq = seq.ok_or_else(|| nobody_follows(source, &reach))?;
    let follows = reach.into_iter().filter(|it| it.1 == Reach::Follows).map(|it| it.0).collect();
    Ok(Placed { seq, follows })
}

/// Waits until replicas have followed.
pub(super) fn follow(
    source: &SourceGroup,
    marker: &Marker,
    placed: &Placed,
    patience: Duration,
) -> Result<Marked, ControlError> {
    let group = &source.config.name;
    let Placed { seq, follows } = placed;
    let since = Instant::now();
    loop {
        let there = |id: &&ReplicaId| source.tap.core().replica(**id).applied >= *seq;
        let (followed, late): (Vec<&ReplicaId>, Vec<&ReplicaId>) = follows.iter().partition(there);
        if late.is_empty() {
            return Ok(Marked {
                group: group.to_string(),
                name: marker.name.to_string(),
                seq: seq.0,
                at: seq.to_string(),
                replicas: names(source, followed),
                quiesced: marker.quiesced,
                held_ms: None,
            });
        }
        if since.elapsed() >= patience {
            return Err(ControlError::timed_out(format!(
                "{} stands at {seq} in the stream of group {group}, but {} has not followed yet",
                marker.name,
                names(source, late).join(", ")
            ))
            .hint(format!("it will when it has caught up, unless the outbox overflows before: vgship status {group}")));
        }
        std::thread::sleep(LOOK);
    }
}

fn names<'a>(source: &SourceGroup, ids: impl IntoIterator<Item = &'a ReplicaId>) -> Vec<String> {
    let links = source.links();
    let name = |id: &ReplicaId| {
        let place = links.iter().find(|(known, _)| known == id);
        place.map_or_else(|| format!("replica {}", id.0), |(_, place)| place.view.name().to_owned())
    };
    ids.into_iter().map(name).collect()
}

pub(super) fn nobody_follows(source: &SourceGroup, reach: &[(ReplicaId, Reach)]) -> ControlError {
    let group = &source.config.name;
    let resyncs: Vec<&ReplicaId> =
        reach.iter().filter(|it| it.1 == Reach::Resyncs).map(|it| &it.0).collect();
    let why = match (reach.is_empty(), resyncs.is_empty()) {
        (true, _) => "it has no replica".to_owned(),
        (false, true) => "no replica follows its stream".to_owned(),
        (false, false) => format!("{} is being resynchronised", names(source, resyncs).join(", ")),
    };
    ControlError::refused(format!("no snapshot or marker of group {group} can be made now: {why}"))
        .hint(format!("wait for it with: vgship wait {group} --for in-sync"))
}
