//! One environment in memory: its clones, what they are called, what is shown of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::ids::{Generation, Name, Seq};
use vgship_base::io::RealFolder;
use vgship_base::layout::Layout;
use vgship_snapshot::overlay::Overlay;

use super::facts::{Facts, PartFacts};
use super::outside::Outside;
use super::programs::{LOG, Shown};
use super::{HOLDER, failed};
use crate::api::ControlError;
use crate::api::past::{EnvPart, EnvStep, Environment};
use crate::history::spec::rfc3339;
use crate::home::{Home, io as files};
use crate::pipeline::exports::Served;
use crate::pipeline::past::clone::{CloneVolume, Quota};
use crate::pipeline::past::export::stem;
use crate::pipeline::past::live::LiveVolume;
use crate::pipeline::past::reading::Reading;
use crate::pipeline::past::templates;

/// One group's clones.
pub(super) struct Part {
    pub(super) group: Name,
    pub(super) layout: Layout,
    /// What its LVs are called here, in the layout's order.
    pub(super) names: Vec<Name>,
    pub(super) clones: Vec<Arc<Overlay>>,
    /// The history that the point is of, if it was found in this life of the agent.
    pub(super) generation: Option<Generation>,
}

/// An environment.
pub(super) struct Env {
    pub(super) facts: Facts,
    /// None when its volumes are outside, or it is broken.
    pub(super) parts: Vec<Part>,
    pub(super) outside: Option<Outside>,
    /// Why its clones cannot be opened. It keeps its snapshots and can be destroyed.
    pub(super) broken: Option<String>,
    /// Why it could not be destroyed, when that was tried last.
    pub(super) stuck: Option<String>,
    /// Before which its end is not tried again.
    pub(super) again: Option<Instant>,
    /// It has no facts in its folder: the next start removes it.
    pub(super) fleeting: bool,
}

/// A clone as it is served.
pub(super) struct Volume {
    pub(super) group: Name,
    pub(super) name: Name,
    pub(super) clone: Arc<CloneVolume>,
}

/// What is shown of one whose facts cannot be read.
pub(super) fn unread(name: &Name, why: &str, folder: &Path) -> Environment {
    let env = Env {
        facts: Facts::new(name.clone(), 0),
        parts: Vec::new(),
        outside: None,
        broken: Some(why.to_owned()),
        stuck: None,
        again: None,
        fleeting: false,
    };
    env.shown(folder)
}

/// The file of a group's layout, by the group's place.
fn layout_name(part: usize) -> String {
    match part {
        0 => "layout".to_owned(),
        part => format!("layout-{part}"),
    }
}

impl Part {
    /// Durable: the layout, once this has returned.
    pub(super) fn store(&self, folder: &Path, number: usize) -> Result<(), ControlError> {
        Ok(files::replace(&folder.join(layout_name(number)), &self.layout.encode(), 0o600)?)
    }

    /// Opens the clones that begin with the file number `first`.
    fn open(
        folder: &Path,
        number: usize,
        first: usize,
        facts: &PartFacts,
        home: &Home,
        reading: &impl Fn(&Name) -> Option<Arc<Reading>>,
    ) -> Result<Part, ControlError> {
        let bytes = std::fs::read(folder.join(layout_name(number))).map_err(|it| failed(&it))?;
        let layout = Arc::new(Layout::decode(&bytes).map_err(|it| failed(&it))?);
        let bases: Vec<SharedDisk> = if let Some(name) = &facts.template {
            let name = name.parse().map_err(ControlError::usage)?;
            templates::volumes(&templates::open(home, facts.store.as_deref(), &name)?)
        } else {
            let gone = || ControlError::failed(format!("its group {} is not here", facts.group));
            let reading = reading(&facts.group).ok_or_else(gone)?;
            let live = LiveVolume::all(&reading, Seq(facts.base), &layout).into_iter();
            live.map(|it| Arc::new(it) as SharedDisk).collect()
        };
        let names: Vec<Name> = if facts.names.is_empty() {
            layout.volumes.iter().map(|it| it.name.clone()).collect()
        } else {
            let names = facts.names.iter().map(|name| name.parse());
            names.collect::<Result<_, _>>().map_err(|it| failed(&it))?
        };
        if names.len() != layout.volumes.len() || bases.len() != names.len() {
            return Err(ControlError::failed("its facts and its layout name different volumes"));
        }
        let files = Arc::new(RealFolder::open(folder).map_err(|it| failed(&it))?);
        let mut clones = Vec::new();
        for (at, base) in (first..).zip(bases) {
            let clone = Overlay::open(files.clone(), &stem(at), base);
            clones.push(Arc::new(clone.map_err(|it| failed(&it))?));
        }
        let (group, layout) = (facts.group.clone(), (*layout).clone());
        Ok(Part { group, layout, names, clones, generation: None })
    }
}

impl Env {
    /// Opens the environment of a folder. One that is being destroyed needs no clones.
    pub(super) fn open(
        folder: &Path,
        home: &Home,
        reading: &impl Fn(&Name) -> Option<Arc<Reading>>,
    ) -> Result<Env, ControlError> {
        let (facts, outside) = (Facts::load(folder)?, Outside::load(folder)?);
        let parts = match outside.is_some() || facts.ending {
            true => Ok(Vec::new()),
            false => Env::open_parts(&facts, folder, home, reading),
        };
        let (parts, broken) = match parts {
            Ok(parts) => (parts, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Ok(Env { facts, parts, outside, broken, stuck: None, again: None, fleeting: false })
    }

    fn open_parts(
        facts: &Facts,
        folder: &Path,
        home: &Home,
        reading: &impl Fn(&Name) -> Option<Arc<Reading>>,
    ) -> Result<Vec<Part>, ControlError> {
        let (mut parts, mut first) = (Vec::<Part>::new(), 0);
        for (number, part) in facts.parts.iter().enumerate() {
            let part = Part::open(folder, number, first, part, home, reading)?;
            first += part.clones.len();
            parts.push(part);
        }
        Ok(parts)
    }

    /// Whether it is used, or why not, in one word.
    fn state(&self) -> &'static str {
        match self.facts.failed {
            _ if self.facts.ending => "ending",
            _ if self.broken.is_some() => "broken",
            Some(_) => "failed",
            None => "ready",
        }
    }

    /// All its clones.
    pub(super) fn clones(&self) -> impl Iterator<Item = &Arc<Overlay>> {
        self.parts.iter().flat_map(|part| &part.clones)
    }

    /// What exports of it begin with.
    pub(super) fn prefix(&self) -> String {
        format!("env/{}/", self.facts.name)
    }

    fn exports(&self) -> impl Iterator<Item = (&Name, &Name, String)> {
        let prefix = self.prefix();
        let all = self.parts.iter().flat_map(|part| part.names.iter().map(|it| (&part.group, it)));
        all.map(move |(group, lv)| (group, lv, format!("{prefix}{group}/{lv}")))
    }

    /// The clones as they are served, sharing the environment's quota.
    pub(super) fn volumes(&self) -> Vec<Volume> {
        let clones = self.clones().cloned().collect();
        let quota = Arc::new(Quota { clones, most: self.facts.quota });
        let mut all = Vec::new();
        for part in &self.parts {
            for (clone, name) in part.clones.iter().zip(&part.names) {
                let clone = CloneVolume { clone: Arc::clone(clone), quota: Arc::clone(&quota) };
                let (group, name) = (part.group.clone(), name.clone());
                all.push(Volume { group, name, clone: Arc::new(clone) });
            }
        }
        all
    }

    /// Serves its clones, unless it failed or ends: then it is handed out to nobody.
    pub(super) fn publish(&self, served: &Served) {
        if self.is_ready() {
            for ((_, _, export), volume) in self.exports().zip(self.volumes()) {
                served.add_clone(export, volume.clone);
            }
        }
    }

    /// Its volumes, as a program finds them once it was handed out.
    pub(super) fn as_shown(&self) -> Shown {
        match &self.outside {
            Some(outside) => Shown::outside(outside),
            None if !self.is_ready() => Shown::default(),
            None => {
                let mut shown = Shown::default();
                self.exports().for_each(|(group, lv, export)| shown.add_export(group, lv, &export));
                shown
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.facts.failed.is_none() && !self.facts.ending
    }

    /// The snapshots that it holds: group, seq, and as whom.
    pub(super) fn holds(&self) -> Vec<(Name, Seq, String)> {
        let builds = self.facts.parts.iter();
        let builds = builds.filter(|it| self.outside.is_none() && it.template.is_none());
        let holder = format!("{HOLDER}{}", self.facts.name);
        builds.map(|it| (it.group.clone(), Seq(it.base), holder.clone())).collect()
    }

    /// What is shown of it.
    pub(super) fn shown(&self, folder: &Path) -> Environment {
        let Facts { name, owner, failed, .. } = &self.facts;
        let reason = self.stuck.clone().or_else(|| self.broken.clone());
        let reason = reason.or_else(|| failed.clone());
        let part = |it: &PartFacts| EnvPart {
            group: it.group.to_string(),
            template: it.template.clone(),
            at: Seq(it.seq).to_string(),
            time: rfc3339(it.clock),
        };
        let parts: Vec<EnvPart> = self.facts.parts.iter().map(part).collect();
        let first = parts.first().cloned().unwrap_or_else(|| EnvPart {
            group: String::new(),
            template: None,
            at: Seq::ZERO.to_string(),
            time: rfc3339(0),
        });
        let steps = self.facts.steps.iter().map(|it| EnvStep {
            command: it.command.clone(),
            seconds: std::time::Duration::from_millis(it.millis).as_secs_f64(),
            ended: it.ended.clone(),
        });
        let handed_out = self.is_ready();
        let outside = self.outside.as_ref();
        Environment {
            name: name.to_string(),
            state: self.state().to_owned(),
            reason,
            set: self.facts.set.clone(),
            kind: outside.map_or_else(|| "nbd".to_owned(), |it| it.spec.clone()),
            group: first.group,
            template: first.template,
            at: first.at,
            time: first.time,
            parts,
            owner: owner.clone(),
            created: rfc3339(self.facts.created),
            expires: self.facts.expires.map(rfc3339),
            written_bytes: self.clones().map(|it| it.written_bytes()).sum(),
            quota_bytes: self.facts.quota,
            exports: self.exports().filter(|_| handed_out).map(|(_, _, export)| export).collect(),
            volumes: outside.map(|it| it.volumes.clone()).unwrap_or_default(),
            steps: steps.collect(),
            teardown: self.facts.teardown.as_ref().map(|it| it.command.clone()),
            log: folder.join(LOG),
        }
    }

    /// Makes durable what was written to it.
    pub(super) fn flush(&self) {
        for clone in self.clones() {
            if let Err(error) = clone.flush() {
                tracing::error!(environment = %self.facts.name, %error, "a clone cannot be flushed");
            }
        }
    }
}
