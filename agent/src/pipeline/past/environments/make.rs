//! Makes an environment: all of its points first, then its clones, the mask, what is written
//! outside, the steps. Its facts come last and make it one; until then a mark in its folder says
//! that it is half made, and the next start removes it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::ids::{Name, Seq};
use vgship_base::io::RealFolder;
use vgship_base::layout::Layout;
use vgship_snapshot::overlay::{self, Overlay};
use vgship_snapshot::template::Template;

use super::env::{Env, Part};
use super::facts::{Facts, PartFacts, TeardownFacts};
use super::outside::{self, Made, Wanted, refused};
use super::programs::{Hidden, MEND, Programs, STEP_MAX, Shown};
use super::{HOLDER, failed, folder};
use crate::api::ControlError;
use crate::api::past::EnvRequest;
use crate::capture::nbd::io::NbdClients;
use crate::group::{VolumesSpec, name_max, renamed};
use crate::history::spec::GroupPoint;
use crate::home::{Home, Period};
use crate::pipeline::exports::Served;
use crate::pipeline::past::export::{clones, stem};
use crate::pipeline::past::places::refuse_taken;
use crate::pipeline::past::points::Found;
use crate::pipeline::past::templates;
use crate::pipeline::replica::ReplicaGroup;
use crate::receive::admit::Point;

/// What an environment is made with.
pub(super) struct Maker<'a> {
    pub(super) home: &'a Home,
    /// The environment's folder.
    pub(super) folder: &'a Path,
    pub(super) request: &'a EnvRequest,
    /// The groups that have their source here, and where.
    pub(super) sources: &'a [(Name, VolumesSpec)],
    pub(super) served: &'a Served,
    pub(super) clients: &'a NbdClients,
    pub(super) stopping: &'a AtomicBool,
    /// Held from the look whether volumes can be made outside until they are.
    pub(super) outside: &'a Mutex<()>,
    /// When it was asked for. Unit: microseconds since 1970.
    pub(super) now: u64,
    /// Unit: microseconds since 1970.
    pub(super) clock: &'a dyn Fn() -> u64,
}

/// Where one group's volumes come from.
enum Source {
    Point(Held),
    Template(Name, Template),
}

/// A point whose snapshot is held, until this is dropped unless it is kept.
struct Held {
    replica: Arc<ReplicaGroup>,
    found: Found,
    holder: String,
    keep: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.replica.release(self.found.base.seq, &self.holder)
        {
            tracing::warn!(%error, "a snapshot stays held for an environment that is not there");
        }
    }
}

impl Source {
    fn group(&self) -> Name {
        match self {
            Source::Point(held) => held.replica.config.name.clone(),
            Source::Template(_, template) => template.manifest().source.group_name.clone(),
        }
    }

    fn layout(&self) -> Layout {
        match self {
            Source::Point(held) => (*held.found.layout).clone(),
            Source::Template(_, template) => template.manifest().layout(),
        }
    }

    /// Makes clones, counted from `first` on; gives them with where they stand.
    fn clones(
        &self,
        folder: &Path,
        first: usize,
    ) -> Result<(Vec<Arc<Overlay>>, Point), ControlError> {
        match self {
            Source::Point(held) => clones(&held.replica, &held.found, folder, first),
            Source::Template(_, template) => {
                let folder = Arc::new(RealFolder::open(folder).map_err(|it| failed(&it))?);
                let create = |(at, base): (usize, SharedDisk)| {
                    let clone = Overlay::create(folder.clone(), &stem(at), base);
                    clone.map(Arc::new).map_err(|it| failed(&it))
                };
                let volumes = (first..).zip(templates::volumes(template));
                let source = &template.manifest().source;
                let point = Point { seq: source.seq, clock: source.clock, ..Point::FRESH };
                Ok((volumes.map(create).collect::<Result<_, _>>()?, point))
            }
        }
    }
}

impl Maker<'_> {
    /// Makes it, or leaves nothing. An environment whose step failed and that is to be kept comes
    /// with the reason.
    pub(super) fn make(
        &self,
        find: impl Fn(&Name) -> Result<Arc<ReplicaGroup>, ControlError>,
    ) -> Result<(Env, Option<ControlError>), ControlError> {
        // The rest of one that a start could not be rid of, because something of it was in use.
        folder::remove_rest(self.folder)?;
        let to = self.request.to.as_deref().map(str::parse::<VolumesSpec>).transpose();
        let to = to.map_err(ControlError::usage)?;
        to.iter().try_for_each(|to| refuse_taken(to, self.sources))?;
        let mut sources = self.sources(find)?;
        if to.is_some() && self.request.quota.is_some() {
            return Err(ControlError::usage("a quota is for clones, which are served over NBD"));
        }
        let names = self.names(&sources, to.as_ref())?;
        let made = self.make_in_folder(&sources, names, to.as_ref());
        if made.is_err() {
            // What cannot be removed now is by the next start.
            if let Err(error) = folder::remove_rest(self.folder) {
                tracing::warn!(environment = %self.request.name, %error, "the rest of it stays");
            }
        }
        let (env, why) = made?;
        for source in &mut sources {
            if let Source::Point(held) = source {
                held.keep = env.outside.is_none();
            }
        }
        Ok((env, why))
    }

    /// Finds all points and templates, and holds the points' snapshots.
    fn sources(
        &self,
        find: impl Fn(&Name) -> Result<Arc<ReplicaGroup>, ControlError>,
    ) -> Result<Vec<Source>, ControlError> {
        let (mut sources, mut groups) = (Vec::new(), BTreeSet::new());
        for from in &self.request.from {
            let source = if from.contains('@') {
                let point: GroupPoint = from.parse().map_err(ControlError::usage)?;
                let replica = find(&point.group)?;
                let found = replica.find_point(&point.at)?;
                let holder = format!("{HOLDER}{}", self.request.name);
                replica.hold(&found, &holder)?;
                Source::Point(Held { replica, found, holder, keep: false })
            } else {
                let name: Name = from.parse().map_err(ControlError::usage)?;
                let store = self.request.store.as_deref();
                let template = templates::open(self.home, store, &name)?;
                Source::Template(name, template)
            };
            if !groups.insert(source.group()) {
                let text = format!("two of the points are of group {}", source.group());
                return Err(ControlError::refused(text).hint("name one for each group"));
            }
            sources.push(source);
        }
        match sources.is_empty() {
            true => Err(ControlError::usage("an environment is made of at least one point")),
            false => Ok(sources),
        }
    }

    /// Whether the templates are still there: who has not heard of this environment, like another
    /// agent, may have deleted one.
    fn still_stand(&self, sources: &[Source]) -> Result<(), ControlError> {
        sources.iter().try_for_each(|source| match source {
            Source::Point(_) => Ok(()),
            Source::Template(name, template) => {
                let store = self.request.store.as_deref();
                templates::still_stands(self.home, store, name, template)
            }
        })
    }

    /// What the LVs of each group are called.
    fn names(
        &self,
        sources: &[Source],
        to: Option<&VolumesSpec>,
    ) -> Result<Vec<Vec<Name>>, ControlError> {
        let rules = &self.request.rename;
        let old = |it: &Source| -> Vec<Name> {
            it.layout().volumes.into_iter().map(|it| it.name).collect()
        };
        let old: Vec<Vec<Name>> = sources.iter().map(old).collect();
        if let Some(idle) = rules.iter().find(|rule| rule.is_idle(old.iter().flatten())) {
            return Err(ControlError::refused(format!("no LV fits the rule {idle}"))
                .hint("its pattern must fit the whole name; '*' stands for any letters"));
        }
        let is_aix = matches!(to, Some(VolumesSpec::AixDisks(_)));
        if !is_aix && rules.iter().any(|rule| rule.mount().is_some()) {
            let text = "mount points are known where AIX disks are imported, and nowhere else";
            return Err(
                ControlError::usage(text).hint("rename them with --to-volumes aix-disks:DIR")
            );
        }
        let most = to.map_or(vgship_base::ids::NAME_MAX, name_max);
        let new = old.iter().map(|names| renamed(rules, names, most));
        new.collect::<Result<_, _>>().map_err(|it| refused(&it))
    }

    fn make_in_folder(
        &self,
        sources: &[Source],
        names: Vec<Vec<Name>>,
        to: Option<&VolumesSpec>,
    ) -> Result<(Env, Option<ControlError>), ControlError> {
        folder::begin(self.folder)?;
        let outside = to.map(|to| self.make_outside(sources, &names, to)).transpose()?;
        let mut env = Env {
            facts: self.facts(),
            parts: Vec::new(),
            outside: None,
            broken: None,
            stuck: None,
            again: None,
            fleeting: self.request.fleeting,
        };
        let mut first = 0;
        for (source, names) in sources.iter().zip(names) {
            let (clones, point) = source.clones(self.folder, first)?;
            first += clones.len();
            env.facts.parts.push(self.part_facts(source, &names, point.seq.0, point.clock));
            let (group, layout) = (source.group(), source.layout());
            let generation = point.generation;
            env.parts.push(Part { group, layout, names, clones, generation });
        }
        let socket = self.home.nbd_socket();
        let programs = Programs {
            name: &self.request.name,
            socket: &socket,
            folder: self.folder,
            stopping: self.stopping,
        };
        if let Some(mask) = &self.request.mask {
            let hidden = self.hide(&env)?;
            env.facts.steps.push(programs.mask(mask, &hidden.shown)?);
            hidden.close("the masking step").map_err(|it| it.hint(MEND))?;
        }
        let hidden = match outside {
            Some(made) => {
                self.fill(made, &mut env)?;
                None
            }
            // Under other names: what the mask knew is nothing any more.
            None => Some(self.hide(&env)?),
        };
        let shown = match (&hidden, &env.outside) {
            (Some(hidden), _) => &hidden.shown,
            (None, Some(outside)) => &Shown::outside(outside),
            (None, None) => &Shown::default(),
        };
        let (steps, why) = programs.steps(&self.request.steps, shown, self.step_max());
        let closed = hidden.map_or(Ok(()), |it| it.close("the last step"));
        env.facts.steps.extend(steps);
        let why = self.judge(why.and(closed), &mut env)?;
        if env.outside.is_none() {
            self.still_stand(sources)?;
        }
        self.store(&mut env)?;
        Ok((env, why))
    }

    fn hide(&self, env: &Env) -> Result<Hidden<'_>, ControlError> {
        Hidden::serve(&self.request.name, &env.volumes(), self.served, self.clients)
    }

    /// Whether a step's failure is the end of it.
    fn judge(
        &self,
        why: Result<(), ControlError>,
        env: &mut Env,
    ) -> Result<Option<ControlError>, ControlError> {
        let Err(error) = why else { return Ok(None) };
        if !self.request.keep_failed {
            return Err(error.hint("nothing was made; mend the step, or look with --keep-failed"));
        }
        env.facts.failed = Some(error.to_string());
        let name = &self.request.name;
        let hint = format!("look into it: vgship env log {name}; then: vgship env destroy {name}");
        Ok(Some(error.hint(hint)))
    }

    fn make_outside(
        &self,
        sources: &[Source],
        names: &[Vec<Name>],
        to: &VolumesSpec,
    ) -> Result<Made, ControlError> {
        let wanted = sources.iter().zip(names).map(|(source, names)| {
            let sizes = source.layout().volumes.into_iter().map(|it| it.bytes);
            let volumes = names.iter().cloned().zip(sizes).collect();
            Wanted { group: source.group(), volumes }
        });
        let EnvRequest { name, vg, .. } = self.request;
        // Of two at once that want the same files the second sees those of the first.
        let _alone = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<Wanted> = wanted.collect();
        outside::plan(to, name, vg.as_deref(), &wanted, self.now)?.make(self.folder)
    }

    /// Writes the clones' content to the volumes outside; the clones go.
    fn fill(&self, made: Made, env: &mut Env) -> Result<(), ControlError> {
        let clones: Vec<Arc<Overlay>> = env.clones().cloned().collect();
        env.outside = Some(made.fill(&clones, &self.request.rename)?);
        let count = clones.len();
        drop(clones);
        env.parts.clear();
        let folder = RealFolder::open(self.folder).map_err(|it| failed(&it))?;
        (0..count).try_for_each(|at| overlay::remove(&folder, &stem(at)).map_err(|it| failed(&it)))
    }

    /// Makes it an environment: from here on a restart finds it, unless it is a fleeting one, which
    /// keeps the mark of what a start removes.
    fn store(&self, env: &mut Env) -> Result<(), ControlError> {
        for clone in env.clones() {
            clone.flush().map_err(|it| failed(&it))?;
        }
        for (number, part) in env.parts.iter().enumerate() {
            part.store(self.folder, number)?;
        }
        // The signal that stops the agent may have ended a program before the agent knew of it.
        if self.stopping.load(Ordering::SeqCst) {
            return Err(ControlError::failed("the agent stops")
                .hint("nothing was made; make it again when the agent runs"));
        }
        // Counted from now on: it is worth nothing to anybody before.
        env.facts.expires = self.request.lease.map(|lease| after((self.clock)(), lease));
        if !env.fleeting {
            env.facts.store(self.folder)?;
            folder::made(self.folder);
        }
        Ok(())
    }

    fn step_max(&self) -> Duration {
        self.request.step_timeout.map_or(STEP_MAX, |it| it.0)
    }

    /// What is known before the points are.
    fn facts(&self) -> Facts {
        let request = self.request;
        let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let mut facts = Facts::new(request.name.clone(), self.now);
        facts.set.clone_from(&request.set);
        facts.owner.clone_from(&request.owner);
        facts.quota = request.quota.map(|size| size.0.0);
        facts.teardown = request.teardown.as_ref().map(|command| TeardownFacts {
            command: command.clone(),
            most_millis: millis(self.step_max()),
        });
        facts
    }

    fn part_facts(&self, source: &Source, names: &[Name], seq: u64, clock: u64) -> PartFacts {
        let (base, template, store) = match source {
            Source::Point(held) => (held.found.base.seq, None, None),
            Source::Template(name, _) => {
                (Seq::ZERO, Some(name.to_string()), self.request.store.clone())
            }
        };
        let names = match self.request.rename.is_empty() {
            true => Vec::new(),
            false => names.iter().map(Name::to_string).collect(),
        };
        PartFacts { group: source.group(), base: base.0, template, store, seq, clock, names }
    }
}

/// Unit: microseconds since 1970.
pub(super) fn after(now: u64, lease: Period) -> u64 {
    now.saturating_add(u64::try_from(lease.0.as_micros()).unwrap_or(u64::MAX))
}
