//! Markers that are put in while applications are frozen.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{MutexGuard, TryLockError};
use std::time::Duration;

use vgship_base::ids::Seq;
use vgship_base::record::{Marker, Order};

use super::marking::{self, Placed};
use crate::api::ControlError;
use crate::api::past::Marked;
use crate::pipeline::agent::Inner;
use crate::pipeline::source::SourceGroup;
use crate::quiesce::io::{Hooks, Stream, hold, own_program};
use crate::quiesce::told;

/// How long to wait until replicas have taken a marker back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes the group's applications, puts the marker in, thaws, and waits until replicas have
/// followed it. Nothing is waited for while applications are frozen.
///
/// # Errors
/// A hook failed, or applications were not surely frozen when the marker was put in: then no
/// replica keeps a snapshot of it.
pub(super) fn put(
    agent: &Inner,
    source: &SourceGroup,
    marker: Marker,
    patience: Duration,
) -> Result<Marked, ControlError> {
    let (group, settings) = (&source.config.name, source.settings());
    if settings.freeze.is_empty() {
        return Err(ControlError::refused(format!("group {group} has no freeze command")).hint(
            format!("set both: vgship group set {group} --freeze COMMAND --thaw COMMAND; see docs/hooks.md"),
        ));
    }
    let _alone = alone(source)?;
    // Better now than with applications frozen.
    marking::check(source, marker.order)?;
    let hooks = Hooks {
        group: group.to_string(),
        name: marker.name.to_string(),
        freeze: settings.freeze,
        thaw: settings.thaw,
        hold: settings.hold.0,
    };
    let guard = own_program().map_err(ControlError::failed)?;
    let marker = Marker { quiesced: true, ..marker };
    let mut places = Places::new(agent, source, &marker);
    let held = hold(&hooks, &guard, &mut places);
    if let Some(error) = told(&held, group.as_str(), &hooks.thaw, settings.hold) {
        return Err(places.failed(error, held.outcome.frozen));
    }
    tracing::info!(%group, name = %marker.name, held_ms = held.outcome.held,
        "applications were frozen for a marker and go on");
    let placed = places.placed.ok_or_else(|| ControlError::failed("no marker was put in"))??;
    let marked = marking::follow(source, &marker, &placed, patience)?;
    Ok(Marked { held_ms: Some(held.outcome.held), ..marked })
}

/// Waits for nobody: one at a time has a group's applications frozen.
pub(super) fn alone(source: &SourceGroup) -> Result<MutexGuard<'_, ()>, ControlError> {
    match source.quiescing.try_lock() {
        Ok(alone) => Ok(alone),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            let group = &source.config.name;
            let why = format!("the applications of group {group} are being quiesced already");
            Err(ControlError::refused(why).hint("wait for that command's end"))
        }
    }
}

/// Where the marker goes.
pub(super) struct Places<'a> {
    agent: &'a Inner,
    source: &'a SourceGroup,
    marker: &'a Marker,
    pub(super) placed: Option<Result<Placed, ControlError>>,
    /// The order that takes it back, if it was to be.
    taken_back: Option<Result<Placed, ControlError>>,
    /// Where it stands, for who conducts.
    pub(super) seen: Rc<Cell<Option<Seq>>>,
}

impl Stream for Places<'_> {
    fn mark(&mut self) -> bool {
        let placed = marking::place(self.agent, self.source, self.marker);
        self.seen.set(placed.as_ref().ok().map(|placed| placed.seq));
        self.placed.insert(placed).is_ok()
    }

    fn take_back(&mut self) {
        let back = self.back();
        self.taken_back = back.map(|back| marking::place(self.agent, self.source, &back));
    }
}

impl<'a> Places<'a> {
    pub(super) fn new(agent: &'a Inner, source: &'a SourceGroup, marker: &'a Marker) -> Places<'a> {
        let seen = Rc::default();
        Places { agent, source, marker, placed: None, taken_back: None, seen }
    }

    /// What takes the marker back; it is meant by its place, for names are used again.
    fn back(&self) -> Option<Marker> {
        let place = self.placed.as_ref()?.as_ref().ok()?.seq;
        let name = place.to_string().parse().expect("digits and a dot");
        Some(Marker { name, order: Order::Delete, quiesced: true })
    }

    /// What the caller is told, and the log; whoever must thaw by hand does not wait for replicas.
    fn failed(&self, error: ControlError, frozen: bool) -> ControlError {
        let (group, name) = (&self.source.config.name, &self.marker.name);
        let hint = error.hint.clone().unwrap_or_default();
        if frozen {
            tracing::error!(%group, %name, %hint, "ALERT: {error}");
        } else {
            tracing::warn!(%group, %name, "{error}");
        }
        if let Some(Err(why)) = &self.placed {
            // A refusal of the stream's; what to do about a freeze that stays goes before it.
            let hint = if frozen { error.hint } else { why.hint.clone() };
            return ControlError {
                message: format!("{why}; {}", error.message),
                hint,
                kind: why.kind,
            };
        }
        let patience = if frozen { Duration::ZERO } else { PATIENCE };
        let (Some(placed), Some(back)) = (&self.taken_back, self.back()) else { return error };
        let back = placed
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|placed| marking::follow(self.source, &back, placed, patience));
        let back = match back {
            Ok(_) => format!("{name} was taken back"),
            Err(why) => format!("{name} is NOT taken back yet, do not use it: {why}"),
        };
        ControlError { message: format!("{error}; {back}"), ..error }
    }
}
