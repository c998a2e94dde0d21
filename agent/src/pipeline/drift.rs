//! Watches over a source's volumes: follows those that grow, stops replication while they are not
//! what is replicated, and goes on when they are again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vgship_base::ids::Name;
use vgship_base::layout::Layout;

use super::volumes::{last_resort, open_all, stopped, store_identities, store_layout};
use crate::api::ControlError;
use crate::capture::io::{Tap, report};
use crate::group::drift::{Drift, Known, Place, judge};
use crate::group::{VolumeProblem, VolumesSpec, inventory};
use crate::home::GroupHome;

/// How often volumes are looked at: operators wait for it, and `lvs` takes up to a second.
const LOOK: Duration = Duration::from_secs(5);

/// When something changed it is looked at again so soon, and believed when it is the same then: a
/// file that is being made larger piece by piece is followed once.
const AGAIN: Duration = Duration::from_secs(1);

/// How often a group that stays stopped says so.
const REMIND: Duration = Duration::from_mins(1);

/// How soon the thread notices that it shall end.
const STEP: Duration = Duration::from_millis(100);

/// What to do after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing: all is as it was known.
    Rest,
    /// Look again soon.
    Again,
    /// Follow growth.
    Grow(Layout),
    /// Stop, or stay stopped, for these reasons.
    Stop(Vec<VolumeProblem>),
    /// Go on, and compare these volumes as a whole: nobody knows what happened to them.
    GoOn(BTreeSet<String>),
}

/// Decides what follows from looks at the volumes.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: Option<Drift>,
    stopped: bool,
    suspects: BTreeSet<String>,
}

impl Watch {
    /// What was judged of one more look.
    pub(super) fn looked(&mut self, drift: Drift) -> Act {
        if let Drift::Broken(problems) = &drift {
            self.suspects.extend(problems.iter().map(|problem| problem.name.clone()));
        }
        let certain = drift == Drift::None || self.last.as_ref() == Some(&drift);
        self.last = Some(drift.clone());
        match drift {
            _ if !certain => Act::Again,
            Drift::None if self.stopped || !self.suspects.is_empty() => {
                self.stopped = false;
                Act::GoOn(std::mem::take(&mut self.suspects))
            }
            Drift::None => Act::Rest,
            Drift::Grown(layout) => Act::Grow(layout),
            Drift::Broken(problems) => {
                self.stopped = true;
                Act::Stop(problems)
            }
        }
    }
}

/// What the watcher and the group share.
pub(super) struct Watched {
    pub(super) name: Name,
    pub(super) spec: VolumesSpec,
    pub(super) home: GroupHome,
    pub(super) tap: Arc<Tap>,
    pub(super) known: Mutex<Known>,
    /// By an operator.
    pub(super) paused: AtomicBool,
    stopped: Mutex<Option<String>>,
}

impl Watched {
    /// Nothing is wrong yet.
    pub(super) fn new(
        name: Name,
        spec: VolumesSpec,
        home: GroupHome,
        tap: Arc<Tap>,
        known: Known,
    ) -> Watched {
        let (known, paused, stopped) =
            (Mutex::new(known), AtomicBool::new(false), Mutex::default());
        Watched { name, spec, home, tap, known, paused, stopped }
    }

    /// Why nothing is replicated although no operator asked for it.
    pub(super) fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the core whether it may ship: unless an operator or the volumes' state forbid it.
    pub(super) fn tell_paused(&self) {
        let mut core = self.tap.core();
        let paused = self.paused.load(Ordering::SeqCst) || self.stopped().is_some();
        core.set_paused(paused);
        drop(core);
        self.tap.records.notify_one();
        self.tap.wake();
    }

    /// Stops replication, or tells another reason why it is stopped.
    fn stop(&self, problems: &[VolumeProblem]) {
        let why = Some(stopped(problems));
        let mut core = self.tap.core();
        {
            // Under the core's lock, under which links begin.
            let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            if *stopped == why {
                return;
            }
            *stopped = why;
        }
        for id in core.ids() {
            core.link_lost(id);
        }
        drop(core);
        self.tell_paused();
        self.suspect(problems.iter().map(|problem| problem.name.as_str()));
    }

    fn go_on(&self, suspects: &BTreeSet<String>) {
        self.suspect(suspects.iter().map(String::as_str));
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.tell_paused();
    }

    /// These are compared as a whole, also when the agent dies before that.
    fn suspect<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut core = self.tap.core();
        let layout = Arc::clone(core.layout());
        for (id, _) in names.filter_map(|name| layout.find(name)) {
            core.suspect(id);
        }
        drop(core);
        // When that fails it says so, and it is tried again each second.
        self.tap.checkpoint();
    }

    /// The layout's file comes first: a crash behind it finds in the ledger what is new as dirty.
    fn grow(&self, layout: Layout) -> Result<(), String> {
        let volumes = open_all(&self.spec, &layout).map_err(|it| report(&it))?;
        store_layout(&self.home, &layout).map_err(|it| it.to_string())?;
        self.known().layout = layout.clone();
        self.tap.grow(Arc::new(layout), volumes);
        self.tap.checkpoint();
        Ok(())
    }

    /// Remembers what the volumes are.
    pub(super) fn store_identities(&self) -> Result<(), ControlError> {
        store_identities(&self.home, &self.known())
    }

    fn look(&self) -> Result<Drift, String> {
        let found = inventory(&self.spec).map_err(|it| report(&it))?;
        Ok(judge(Place::Here(&self.spec), &self.known(), &found))
    }
}

/// Says the same thing at most once a minute.
#[derive(Default)]
struct Said {
    last: Option<(String, Instant)>,
}

impl Said {
    fn news(&mut self, text: &str) -> bool {
        let known = |(last, at): &(String, Instant)| last == text && at.elapsed() < REMIND;
        let news = !self.last.as_ref().is_some_and(known);
        if news {
            self.last = Some((text.to_owned(), Instant::now()));
        }
        news
    }
}

/// Runs until told to stop.
pub(super) fn watch(watched: &Watched, stop: &AtomicBool) {
    let (mut decides, mut said) = (Watch::default(), Said::default());
    let group = &watched.name;
    let mut wait = LOOK;
    loop {
        let since = Instant::now();
        while since.elapsed() < wait {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(STEP);
        }
        wait = LOOK;
        let act = match watched.look() {
            Ok(drift) => decides.looked(drift),
            Err(why) => {
                if said.news(&why) {
                    tracing::warn!(%group, reason = why, "the volumes cannot be looked at; \
                        replication goes on as before");
                }
                continue;
            }
        };
        match act {
            Act::Rest => {}
            Act::Again => wait = AGAIN,
            Act::Grow(layout) => match watched.grow(layout) {
                Ok(()) => {
                    tracing::info!(%group, "volumes have grown; what is new is resynced, and \
                    a client that connects from now on sees the new size");
                }
                Err(why) if said.news(&why) => {
                    tracing::warn!(%group, reason = why, "volumes have grown and cannot be opened");
                }
                Err(_) => {}
            },
            Act::Stop(problems) => {
                let why = stopped(&problems);
                if said.news(&why) {
                    tracing::error!(%group, reason = why, next = last_resort(group),
                        "replication is stopped: the volumes are not those that are replicated; \
                         applications go on, and it goes on by itself when that is mended");
                }
                watched.stop(&problems);
            }
            Act::GoOn(suspects) => {
                said = Said::default();
                let compared: Vec<&str> = suspects.iter().map(String::as_str).collect();
                tracing::warn!(%group, compared = compared.join(", "),
                    "the volumes are again those that are replicated; what they hold is compared");
                watched.go_on(&suspects);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vgship_base::extent::ExtentSize;

    use super::*;

    fn broken(name: &str, why: &str) -> Drift {
        Drift::Broken(vec![VolumeProblem::new(name, why)])
    }

    fn stop(name: &str, why: &str) -> Act {
        Act::Stop(vec![VolumeProblem::new(name, why)])
    }

    fn go_on(names: &[&str]) -> Act {
        Act::GoOn(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn grown(log2: u8) -> Layout {
        Layout { extent: ExtentSize::from_log2(log2).unwrap(), volumes: vec![] }
    }

    #[test]
    fn what_is_seen_once_is_looked_at_again() {
        let mut watch = Watch::default();
        assert_eq!(watch.looked(Drift::None), Act::Rest);
        assert_eq!(watch.looked(Drift::Grown(grown(12))), Act::Again);
        assert_eq!(watch.looked(Drift::Grown(grown(13))), Act::Again, "it grows still");
        assert_eq!(watch.looked(Drift::Grown(grown(13))), Act::Grow(grown(13)));
        assert_eq!(watch.looked(Drift::Grown(grown(13))), Act::Grow(grown(13)), "it failed");
        assert_eq!(watch.looked(Drift::None), Act::Rest);
        assert_eq!(watch.looked(broken("one", "is gone")), Act::Again);
        assert_eq!(watch.looked(broken("one", "is gone")), stop("one", "is gone"));
    }

    #[test]
    fn what_was_broken_is_compared_when_it_is_mended() {
        let mut watch = Watch::default();
        for (name, why) in [("one", "is gone"), ("two", "is small")] {
            assert_eq!(watch.looked(broken(name, why)), Act::Again);
            assert_eq!(watch.looked(broken(name, why)), stop(name, why));
            assert_eq!(watch.looked(broken(name, why)), stop(name, why));
        }
        assert_eq!(watch.looked(Drift::None), go_on(&["one", "two"]));
        assert_eq!(watch.looked(Drift::None), Act::Rest);
        // Cut and made large again between two looks: nobody knows what it holds.
        assert_eq!(watch.looked(broken("one", "is small")), Act::Again);
        assert_eq!(watch.looked(Drift::None), go_on(&["one"]));
    }

    #[test]
    fn growth_is_followed_first_when_it_comes_out_of_a_stop() {
        let mut watch = Watch::default();
        watch.looked(broken("one", "is small"));
        watch.looked(broken("one", "is small"));
        assert_eq!(watch.looked(Drift::Grown(grown(12))), Act::Again);
        assert_eq!(watch.looked(Drift::Grown(grown(12))), Act::Grow(grown(12)));
        assert_eq!(watch.looked(Drift::None), go_on(&["one"]));
    }

    #[test]
    fn the_same_is_said_once_a_minute() {
        let mut said = Said::default();
        assert!(said.news("one") && !said.news("one") && said.news("two"));
    }
}
