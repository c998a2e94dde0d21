//! A group's source as a member of a set: what one stream of orders makes it do.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use vgship_base::ids::{Name, PeerId, ReplicaId, Seq};
use vgship_base::record::{Marker, Order as Act};

use crate::api::{ControlError, ErrorKind};
use crate::capture::source::Reach;
use crate::home::Period;
use crate::home::settings::Leave;
use crate::pipeline::agent::Inner;
use crate::pipeline::past::marking::{self, Placed};
use crate::pipeline::past::quiesced::{self, Places};
use crate::pipeline::source::{ReplicaLink, SourceGroup};
use crate::quiesce::io::{Conductor, Hooks, hold_conducted, own_program};
use crate::quiesce::{Held, Input, Why, told};
use crate::sets::names;
use crate::wire::orders::{Change, Failure, Order, Quiesce, Said};

/// How long the first order may take, and without quiescing each that follows.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// How long replicas may take to pin or unpin.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);

/// How long replicas may take to take a snapshot back. Each further try puts another marker into the
/// stream, behind all that they have not followed yet.
const TAKE_BACK_PATIENCE: Duration = Duration::from_mins(2);

/// How long a replica that has applied an order may take to say what it keeps by then.
const KEPT_PATIENCE: Duration = Duration::from_secs(5);

/// How long replicas are waited for between two looks at the orders.
const SLICE: Duration = Duration::from_millis(50);

/// What a group without commands of its own is frozen and thawed by.
const NOTHING: &str = ":";

/// What is said when the asker would have no snapshot itself.
const ASKER_AWAY: &str = "the coordinator's own replica does not follow the stream now";

/// A member at work.
pub(super) struct Member<'a> {
    pub(super) agent: &'a Inner,
    pub(super) source: &'a SourceGroup,
    /// The replica whose agent gives the orders; `None` when this agent does.
    pub(super) asker: Option<PeerId>,
    /// When it ends, the coordinator is lost, or has no more to say.
    pub(super) orders: &'a Receiver<Order>,
    pub(super) say: &'a dyn Fn(Said),
}

impl Member<'_> {
    /// Does what is ordered, to the end. A coordinator that is lost before replicas have followed
    /// cannot have made anything: then what was done is taken back here, without it.
    pub(super) fn serve(&self) {
        let done = match self.orders.recv_timeout(ORDER_PATIENCE) {
            Ok(Order::Begin { name, quiesce }) => self.begin(&name, quiesce),
            Ok(Order::Change(change, name)) => self.change(change, &name),
            Ok(_) => Err(Failure::plain("the first order begins nothing")),
            Err(_) => return,
        };
        if let Err(failure) = done {
            (self.say)(Said::Failed(failure));
        }
    }

    fn begin(&self, name: &Name, quiesce: Option<Quiesce>) -> Result<(), Failure> {
        self.check(name)?;
        let quiesced = quiesce.is_some();
        let marker = Marker { name: name.clone(), order: Act::Snapshot, quiesced };
        let (placed, held) = match quiesce {
            Some(quiesce) => self.hold(&marker, quiesce)?,
            None => (self.mark_when_told(&marker)?, 0),
        };
        // A resync of it may have begun since it was asked; then its replica takes no snapshot.
        if !self.reaches_asker(|own| placed.follows.contains(&own)) {
            return Err(self.gives_up(&placed, Failure::plain(ASKER_AWAY)));
        }
        (self.say)(Said::Released { held: u32::try_from(held).unwrap_or(u32::MAX) });
        self.follow(&marker, &placed)
    }

    /// A peer makes and changes what sets make and nothing else, and only while it follows itself.
    fn check(&self, name: &Name) -> Result<(), Failure> {
        if !names::is_of_set(name) {
            return Err(Failure::plain(format!("{name} is no name of a set's snapshot")));
        }
        marking::check(self.source, Act::Snapshot).map_err(|it| failure(&it))?;
        let reach = self.source.tap.core().reach();
        let follows = self.reaches_asker(|own| reach.contains(&(own, Reach::Follows)));
        follows.then_some(()).ok_or_else(|| Failure::plain(ASKER_AWAY))
    }

    /// Whether what is asked of the asker's replica holds; without one nothing is asked.
    fn reaches_asker(&self, holds: impl FnOnce(ReplicaId) -> bool) -> bool {
        let Some(asker) = self.asker else { return true };
        let own = self.source.tap.core().find(asker);
        own.is_some_and(holds)
    }

    fn hold(&self, marker: &Marker, quiesce: Quiesce) -> Result<(Placed, u64), Failure> {
        let (group, settings) = (&self.source.config.name, self.source.settings());
        let has_commands = !settings.freeze.is_empty();
        if !has_commands && !quiesce.without_commands {
            return Err(Failure::plain(format!(
                "it has no freeze command, and the set has none; set both at its source: \
                 vgship group set {group} --freeze COMMAND --thaw COMMAND"
            )));
        }
        if has_commands && self.asker.is_some() && settings.replica_quiesce == Leave::Deny {
            return Err(Failure::plain(format!(
                "its source does not let replicas' agents quiesce it; allow it there: \
                 vgship group set {group} --replica-quiesce allow"
            )));
        }
        let _alone = quiesced::alone(self.source).map_err(|it| failure(&it))?;
        let limit = Duration::from_millis(quiesce.hold.into()).min(settings.hold.0);
        let command = |own: String| if has_commands { own } else { NOTHING.to_owned() };
        let hooks = Hooks {
            group: group.to_string(),
            name: marker.name.to_string(),
            freeze: command(settings.freeze),
            thaw: command(settings.thaw),
            hold: limit,
        };
        let guard = own_program().map_err(|it| Failure::plain(it.to_string()))?;
        let mut places = Places::new(self.agent, self.source, marker);
        let mut ears = Ears {
            orders: self.orders,
            say: self.say,
            generation: self.source.tap.core().generation(),
            seen: Rc::clone(&places.seen),
            is_lost: false,
        };
        let held = hold_conducted(&hooks, &guard, &mut places, &mut ears);
        match told(&held, group.as_str(), &hooks.thaw, Period(limit)) {
            Some(error) => Err(self.was_not_held(&held, &error, &places)),
            None => match places.placed {
                Some(Ok(placed)) => Ok((placed, held.outcome.held)),
                _ => Err(Failure::plain("no marker was put in")),
            },
        }
    }

    /// What is said of a hold that failed; its marker, if there was one, is taken back already.
    fn was_not_held(&self, held: &Held, error: &ControlError, places: &Places<'_>) -> Failure {
        let group = &self.source.config.name;
        let frozen = held.outcome.frozen;
        if frozen {
            let hint = error.hint.clone().unwrap_or_default();
            tracing::error!(%group, %hint, "ALERT: {error}");
        } else {
            tracing::warn!(%group, "{error}");
        }
        let late = [Why::FreezeLate, Why::MarkedLate, Why::OthersLate].map(Some);
        let why = match &places.placed {
            Some(Err(refused)) => format!("{refused}; {error}"),
            _ => text(error),
        };
        Failure { late: late.contains(&held.outcome.why), frozen, text: why }
    }

    /// Without quiescing: ready at once; the marker goes in when all are.
    fn mark_when_told(&self, marker: &Marker) -> Result<Placed, Failure> {
        (self.say)(Said::Ready);
        self.expect(&Order::Mark)?;
        let generation = self.source.tap.core().generation();
        let placed = marking::place(self.agent, self.source, marker).map_err(|it| failure(&it))?;
        (self.say)(Said::Marked { generation, seq: placed.seq });
        match self.expect(&Order::Release) {
            Ok(()) => Ok(placed),
            Err(why) => Err(self.gives_up(&placed, why)),
        }
    }

    fn expect(&self, wanted: &Order) -> Result<(), Failure> {
        match self.orders.recv_timeout(ORDER_PATIENCE) {
            Ok(order) if order == *wanted => Ok(()),
            Ok(_) => Err(Failure::plain("it was given up")),
            Err(_) => Err(Failure::plain("the coordinator was not heard of any more")),
        }
    }

    /// Until all replicas that follow have the snapshot, as they say themselves.
    fn follow(&self, marker: &Marker, placed: &Placed) -> Result<(), Failure> {
        loop {
            match marking::follow(self.source, marker, placed, SLICE) {
                Ok(_) if self.is_kept(&marker.name, placed) => break,
                Ok(_) => std::thread::sleep(SLICE),
                Err(late) if late.kind == ErrorKind::TimedOut => {}
                Err(error) => return Err(self.gives_up(placed, failure(&error))),
            }
            if !matches!(self.orders.try_recv(), Err(TryRecvError::Empty)) {
                return Err(self.gives_up(placed, Failure::plain("it was given up")));
            }
        }
        (self.say)(Said::Followed);
        // From here on only the coordinator knows whether it was made. When it is lost it says so
        // later, in another stream.
        match self.orders.recv() {
            Ok(_) => Err(self.gives_up(placed, Failure::plain("it was given up"))),
            Err(_) => Ok(()),
        }
    }

    fn is_kept(&self, name: &Name, placed: &Placed) -> bool {
        let links = self.source.links();
        placed.follows.iter().all(|id| {
            let kept = links.iter().find(|it| it.0 == *id).and_then(|it| it.1.kept());
            kept.is_some_and(|kept| kept.snapshots.iter().any(|it| it.name == *name))
        })
    }

    /// Takes its own marker back, which stands in the stream.
    fn gives_up(&self, placed: &Placed, why: Failure) -> Failure {
        let name = placed.seq.to_string().parse().expect("digits and a dot");
        let back = Marker { name, order: Act::Delete, quiesced: true };
        match marking::place(self.agent, self.source, &back) {
            Ok(_) => why,
            Err(error) => {
                let text = format!("{}; its marker cannot be taken back yet: {error}", why.text);
                Failure { text, ..why }
            }
        }
    }

    fn change(&self, change: Change, name: &Name) -> Result<(), Failure> {
        if !names::is_of_set(name) {
            return Err(Failure::plain(format!("{name} is no name of a set's snapshot")));
        }
        let order = match change {
            Change::TakeBack => return self.take_back(name),
            Change::Pin => Act::Pin,
            Change::Unpin => Act::Unpin,
        };
        let marker = Marker { name: name.clone(), order, quiesced: false };
        marking::put(self.agent, self.source, &marker, CHANGE_PATIENCE)
            .map_err(|it| failure(&it))?;
        self.until_known(name, change == Change::Pin)?;
        (self.say)(Said::Done);
        Ok(())
    }

    /// Until no replica says otherwise of a snapshot: what comes next may ask whether it is pinned.
    fn until_known(&self, name: &Name, pinned: bool) -> Result<(), Failure> {
        let since = Instant::now();
        let says_otherwise = |place: &ReplicaLink| {
            let kept = place.kept().unwrap_or_default().snapshots;
            kept.iter().any(|it| it.name == *name && it.pinned != pinned)
        };
        while let Some((_, place)) = self.source.links().iter().find(|it| says_otherwise(&it.1)) {
            if since.elapsed() >= KEPT_PATIENCE {
                let text = format!("its replica {} has not done so yet", place.view.name());
                return Err(Failure { late: true, frozen: false, text });
            }
            std::thread::sleep(SLICE);
        }
        Ok(())
    }

    /// Takes a snapshot back wherever it may be, or may still come to be.
    fn take_back(&self, name: &Name) -> Result<(), Failure> {
        let replicas = self.within_reach()?;
        if !replicas.is_empty() {
            let back = Marker { name: name.clone(), order: Act::Delete, quiesced: true };
            let placed =
                marking::place(self.agent, self.source, &back).map_err(|it| failure(&it))?;
            self.until_gone(name, &replicas, placed.seq)?;
        }
        (self.say)(Said::Done);
        Ok(())
    }

    /// The replicas, if every one of them hears what is put into the stream.
    fn within_reach(&self) -> Result<Vec<ReplicaId>, Failure> {
        let links = self.source.links();
        let is_dismissed = |id: ReplicaId| {
            links.iter().any(|it| it.0 == id && it.1.dismissed.load(Ordering::SeqCst))
        };
        let mut reach = self.source.tap.core().reach();
        reach.retain(|it| !is_dismissed(it.0));
        if let Some((id, _)) = reach.iter().find(|it| it.1 == Reach::Away) {
            let name = links.iter().find(|it| it.0 == *id).map_or("", |it| it.1.view.name());
            return Err(Failure::plain(format!("its replica {name} hears nothing now")));
        }
        Ok(reach.into_iter().map(|it| it.0).collect())
    }

    /// Until all have applied the order and say that they have nothing of that name.
    fn until_gone(&self, name: &Name, replicas: &[ReplicaId], seq: Seq) -> Result<(), Failure> {
        let (since, mut applied_since) = (Instant::now(), None);
        loop {
            let applied = |id: &ReplicaId| self.source.tap.core().replica(*id).applied >= seq;
            if replicas.iter().all(applied) {
                let Some(keeper) = self.keeper(name, replicas) else { return Ok(()) };
                if applied_since.get_or_insert_with(Instant::now).elapsed() >= KEPT_PATIENCE {
                    let why =
                        format!("its replica {keeper} keeps it: it is pinned or in use there");
                    return Err(Failure::plain(why));
                }
            }
            self.within_reach()?;
            if since.elapsed() >= TAKE_BACK_PATIENCE {
                return Err(Failure::plain("its replicas have not followed yet"));
            }
            if !matches!(self.orders.try_recv(), Err(TryRecvError::Empty)) {
                return Err(Failure::plain("the coordinator was not heard of any more"));
            }
            std::thread::sleep(SLICE);
        }
    }

    /// A replica that keeps a snapshot, or has not said yet what it keeps.
    fn keeper(&self, name: &Name, replicas: &[ReplicaId]) -> Option<String> {
        let links = self.source.links();
        let keeps = |place: &ReplicaLink| {
            place.kept().is_none_or(|kept| kept.snapshots.iter().any(|it| it.name == *name))
        };
        let mut meant = links.into_iter().filter(|it| replicas.contains(&it.0));
        meant.find(|it| keeps(&it.1)).map(|it| it.1.view.name().to_owned())
    }
}

/// What went wrong and what to do, in one line.
pub(super) fn text(error: &ControlError) -> String {
    match &error.hint {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

fn failure(error: &ControlError) -> Failure {
    let late = error.kind == ErrorKind::TimedOut;
    Failure { late, frozen: false, text: text(error) }
}

/// What is heard of a coordinator while applications are frozen.
pub(super) struct Ears<'a> {
    pub(super) orders: &'a Receiver<Order>,
    pub(super) say: &'a dyn Fn(Said),
    pub(super) generation: vgship_base::ids::Generation,
    /// Where the marker stands.
    pub(super) seen: Rc<Cell<Option<Seq>>>,
    pub(super) is_lost: bool,
}

impl Conductor for Ears<'_> {
    fn frozen(&mut self) {
        (self.say)(Said::Ready);
    }

    fn marked(&mut self) {
        let (generation, seq) = (self.generation, self.seen.get().unwrap_or(Seq::ZERO));
        (self.say)(Said::Marked { generation, seq });
    }

    fn word(&mut self) -> Option<Input> {
        match self.orders.try_recv() {
            Ok(Order::Mark) => Some(Input::MarkNow),
            Ok(Order::Release) => Some(Input::Release(true)),
            Ok(_) => Some(Input::Release(false)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let is_news = !std::mem::replace(&mut self.is_lost, true);
                is_news.then_some(Input::Release(false))
            }
        }
    }
}
