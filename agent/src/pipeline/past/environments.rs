//! Environments: writable clones of a point's volumes, with an owner and a lease. They outlive the
//! agent; each is a folder with its facts, its layout and its clones' files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::ids::{Name, Seq};
use vgship_base::io::RealFolder;
use vgship_base::layout::Layout;
use vgship_snapshot::overlay::Overlay;

use super::clone::{CloneVolume, Quota};
use super::export::{clones, stem};
use super::live::LiveVolume;
use super::{mask, templates};
use crate::api::ControlError;
use crate::api::control::Done;
use crate::api::past::{EnvRequest, Environment};
use crate::capture::nbd::io::NbdClients;
use crate::history::spec::{GroupPoint, rfc3339};
use crate::home::{Home, Period, io as files, text};
use crate::pipeline::exports::Served;
use crate::pipeline::replica::ReplicaGroup;

/// What holds a snapshot for an environment.
const HOLDER: &str = "environment ";

/// The file that makes an environment one.
const FACTS: &str = "environment.json";
const LAYOUT: &str = "layout";

/// Longest file of facts that is read. Unit: bytes.
const FACTS_MAX: u64 = 64 << 10;

/// What is known of an environment over restarts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    /// Of these facts; 1.
    version: u32,
    #[serde(with = "text")]
    name: Name,
    #[serde(with = "text")]
    group: Name,
    /// The snapshot that it builds on; 0 for a template.
    base: u64,
    /// The template that it builds on, and its store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    /// The last record that it was made of.
    seq: u64,
    /// The source's clock there. Unit: microseconds since 1970.
    clock: u64,
    owner: Option<String>,
    /// Unit: microseconds since 1970.
    created: u64,
    /// Unit: microseconds since 1970.
    expires: Option<u64>,
    /// Unit: bytes.
    quota: Option<u64>,
}

struct Env {
    facts: Facts,
    layout: Layout,
    clones: Vec<Arc<Overlay>>,
}

/// All environments of an agent.
pub(in crate::pipeline) struct Environments {
    home: Home,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    all: BTreeMap<Name, Env>,
    /// Names of those that are being made or destroyed.
    busy: BTreeSet<Name>,
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ControlError {
    ControlError::from_error(error)
}

impl Environments {
    /// Those of a home.
    pub(in crate::pipeline) fn new(home: &Home) -> Environments {
        let folder = home.environments();
        Environments { home: home.clone(), folder, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens those that there are. What a crash left half made is removed.
    pub(in crate::pipeline) fn load(
        &self,
        replica: impl Fn(&Name) -> Option<Arc<ReplicaGroup>>,
        served: &Served,
    ) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if !path.join(FACTS).exists() {
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    let path = path.display();
                    tracing::warn!(%path, %error, "the rest of an environment cannot be removed");
                }
                continue;
            }
            match self.open(&path, &replica) {
                Ok(env) => {
                    publish(&env, served);
                    self.state().all.insert(env.facts.name.clone(), env);
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "an environment cannot be opened");
                }
            }
        }
    }

    /// Makes an environment. Nobody sees it before it is whole, and masked.
    pub(in crate::pipeline) fn create(
        &self,
        request: &EnvRequest,
        replica: impl Fn(&Name) -> Result<Arc<ReplicaGroup>, ControlError>,
        served: &Served,
        now: u64,
    ) -> Result<Environment, ControlError> {
        let name = &request.name;
        {
            let mut state = self.state();
            if state.all.contains_key(name) || !state.busy.insert(name.clone()) {
                let text = format!("there is an environment {name} already");
                return Err(ControlError::refused(text)
                    .hint("choose another name, or destroy it: vgship env destroy"));
            }
        }
        let made = match request.from.contains('@') {
            true => self.make_of_point(request, replica, served, now),
            false => self.make_of_template(request, served, now),
        };
        let mut state = self.state();
        state.busy.remove(name);
        let env = made?;
        publish(&env, served);
        let shown = shown(&env);
        state.all.insert(name.clone(), env);
        drop(state);
        tracing::info!(environment = %name, from = request.from, "an environment was made");
        Ok(shown)
    }

    fn make_of_point(
        &self,
        request: &EnvRequest,
        replica: impl Fn(&Name) -> Result<Arc<ReplicaGroup>, ControlError>,
        served: &Served,
        now: u64,
    ) -> Result<Env, ControlError> {
        let point: GroupPoint = request.from.parse().map_err(ControlError::usage)?;
        let replica = replica(&point.group)?;
        let holder = format!("{HOLDER}{}", request.name);
        let found = replica.find_point(&point.at)?;
        replica.hold(&found, &holder)?;
        let made = self.in_folder(request, |path| {
            let (clones, at) = clones(&replica, &found, path)?;
            let facts = Facts {
                base: found.base.seq.0,
                seq: at.seq.0,
                clock: at.clock,
                ..facts(request, point.group.clone(), now)
            };
            self.finish(
                path,
                Env { facts, layout: (*found.layout).clone(), clones },
                request,
                served,
            )
        });
        if made.is_err()
            && let Err(error) = replica.release(found.base.seq, &holder)
        {
            tracing::warn!(%error, "a snapshot stays held for an environment that is not there");
        }
        made
    }

    fn make_of_template(
        &self,
        request: &EnvRequest,
        served: &Served,
        now: u64,
    ) -> Result<Env, ControlError> {
        let name: Name = request.from.parse().map_err(ControlError::usage)?;
        let template = templates::open(&self.home, request.store.as_deref(), &name)?;
        let source = template.manifest().source.clone();
        self.in_folder(request, |path| {
            let folder = Arc::new(RealFolder::open(path).map_err(|it| failed(&it))?);
            let create = |(at, base): (usize, SharedDisk)| {
                let clone = Overlay::create(folder.clone(), &stem(at), base);
                clone.map(Arc::new).map_err(|it| failed(&it))
            };
            let volumes = templates::volumes(&template).into_iter().enumerate();
            let clones = volumes.map(create).collect::<Result<Vec<_>, _>>()?;
            let facts = Facts {
                template: Some(name.to_string()),
                store: request.store.clone(),
                seq: source.seq.0,
                clock: source.clock,
                ..facts(request, source.group_name.clone(), now)
            };
            let layout = template.manifest().layout();
            self.finish(path, Env { facts, layout, clones }, request, served)
        })
    }

    /// Makes an environment in its folder, which goes again if that fails.
    fn in_folder(
        &self,
        request: &EnvRequest,
        make: impl FnOnce(&Path) -> Result<Env, ControlError>,
    ) -> Result<Env, ControlError> {
        let path = self.folder.join(request.name.as_str());
        if path.exists() {
            let text = format!("{} is in the way", path.display());
            return Err(ControlError::failed(text).hint("look into it, and remove it"));
        }
        make(&path).inspect_err(|_| {
            // What cannot be removed now is by the next start.
            let _ = std::fs::remove_dir_all(&path);
        })
    }

    /// Masks the clones, then makes them an environment: from here on a restart finds it.
    fn finish(
        &self,
        path: &Path,
        env: Env,
        request: &EnvRequest,
        served: &Served,
    ) -> Result<Env, ControlError> {
        if let Some(program) = &request.mask {
            let socket = self.home.nbd_socket();
            mask::run(program, &env.facts.name, &volumes(&env), served, &socket, path)?;
        }
        for clone in &env.clones {
            clone.flush().map_err(|it| failed(&it))?;
        }
        files::replace(&path.join(LAYOUT), &env.layout.encode(), 0o600)?;
        store(path, &env.facts)?;
        Ok(env)
    }

    fn open(
        &self,
        path: &Path,
        replica: &impl Fn(&Name) -> Option<Arc<ReplicaGroup>>,
    ) -> Result<Env, ControlError> {
        let facts = files::read_if_any(&path.join(FACTS), FACTS_MAX)?.unwrap_or_default();
        let facts: Facts = serde_json::from_str(&facts)
            .map_err(|it| ControlError::failed(format!("its facts are not understood: {it}")))?;
        if facts.version != 1 {
            let text = format!("its facts are of version {}, this agent reads 1", facts.version);
            return Err(ControlError::failed(text));
        }
        let bytes = std::fs::read(path.join(LAYOUT)).map_err(|it| failed(&it))?;
        let layout = Arc::new(Layout::decode(&bytes).map_err(|it| failed(&it))?);
        let bases: Vec<SharedDisk> = if let Some(name) = &facts.template {
            let name = name.parse().map_err(ControlError::usage)?;
            let template = templates::open(&self.home, facts.store.as_deref(), &name)?;
            templates::volumes(&template)
        } else {
            let gone = || ControlError::failed(format!("its group {} is not here", facts.group));
            let replica = replica(&facts.group).ok_or_else(gone)?;
            let live = LiveVolume::all(&replica, Seq(facts.base), &layout).into_iter();
            live.map(|it| Arc::new(it) as SharedDisk).collect()
        };
        let folder = Arc::new(RealFolder::open(path).map_err(|it| failed(&it))?);
        let mut clones = Vec::new();
        for (at, base) in bases.into_iter().enumerate() {
            let clone = Overlay::open(folder.clone(), &stem(at), base);
            clones.push(Arc::new(clone.map_err(|it| failed(&it))?));
        }
        Ok(Env { facts, layout: (*layout).clone(), clones })
    }

    /// All of them, by name.
    pub(in crate::pipeline) fn list(&self) -> Vec<Environment> {
        self.state().all.values().map(shown).collect()
    }

    /// A lease from `now` on.
    pub(in crate::pipeline) fn extend(
        &self,
        name: &Name,
        lease: Period,
        now: u64,
    ) -> Result<Environment, ControlError> {
        let mut state = self.state();
        let env = state.all.get_mut(name).ok_or_else(|| unknown(name))?;
        let facts = Facts { expires: Some(after(now, lease)), ..env.facts.clone() };
        store(&self.folder.join(name.as_str()), &facts)?;
        env.facts = facts;
        Ok(shown(env))
    }

    /// Ends an environment's clients and removes all of it.
    pub(in crate::pipeline) fn destroy(
        &self,
        name: &Name,
        replica: impl Fn(&Name) -> Option<Arc<ReplicaGroup>>,
        served: &Served,
        clients: &NbdClients,
    ) -> Result<Done, ControlError> {
        let env = {
            let mut state = self.state();
            let env = state.all.remove(name).ok_or_else(|| unknown(name))?;
            state.busy.insert(name.clone());
            env
        };
        let prefix = prefix(name);
        served.remove_clones(&prefix);
        let left = clients.end(|export| export.starts_with(&prefix));
        let path = self.folder.join(name.as_str());
        // Without its facts it is none, whatever happens next.
        let gone = std::fs::remove_file(path.join(FACTS))
            .and_then(|()| std::fs::remove_dir_all(&path))
            .map_err(|it| ControlError::failed(format!("cannot remove {}: {it}", path.display())));
        if env.facts.template.is_none()
            && let Some(replica) = replica(&env.facts.group)
            && let Err(error) = replica.release(Seq(env.facts.base), &format!("{HOLDER}{name}"))
        {
            tracing::warn!(%error, "a snapshot stays held until the agent's next look");
        }
        self.state().busy.remove(name);
        gone?;
        if left > 0 {
            tracing::warn!(environment = %name, left, "clients of an environment do not end");
        }
        tracing::info!(environment = %name, "an environment was destroyed");
        Ok(Done {
            group: env.facts.group.to_string(),
            done: format!("environment {name} is destroyed"),
        })
    }

    /// Makes durable what was written to any of them.
    pub(in crate::pipeline) fn flush(&self) {
        let state = self.state();
        for (env, clone) in state.all.values().flat_map(|it| it.clones.iter().map(move |c| (it, c)))
        {
            if let Err(error) = clone.flush() {
                tracing::error!(environment = %env.facts.name, %error, "a clone cannot be flushed");
            }
        }
    }

    /// Those whose lease is over.
    pub(in crate::pipeline) fn expired(&self, now: u64) -> Vec<Name> {
        let over = |env: &&Env| env.facts.expires.is_some_and(|expires| expires <= now);
        self.state().all.values().filter(over).map(|env| env.facts.name.clone()).collect()
    }

    /// Whether a holder of a snapshot is an environment that is not there.
    pub(in crate::pipeline) fn is_orphan(&self, holder: &str) -> bool {
        let Some(name) = holder.strip_prefix(HOLDER) else { return false };
        let state = self.state();
        let known = |it: &Name| it.as_str() == name;
        !state.all.keys().any(known) && !state.busy.iter().any(known)
    }

    /// Environments that build on a group.
    pub(in crate::pipeline) fn of_group(&self, group: &Name) -> Vec<Name> {
        let of = |env: &&Env| env.facts.group == *group && env.facts.template.is_none();
        self.state().all.values().filter(of).map(|env| env.facts.name.clone()).collect()
    }
}

/// What is known before the point is.
fn facts(request: &EnvRequest, group: Name, now: u64) -> Facts {
    Facts {
        version: 1,
        name: request.name.clone(),
        group,
        base: 0,
        template: None,
        store: None,
        seq: 0,
        clock: 0,
        owner: request.owner.clone(),
        created: now,
        expires: request.lease.map(|lease| after(now, lease)),
        quota: request.quota.map(|size| size.0.0),
    }
}

fn unknown(name: &Name) -> ControlError {
    ControlError::refused(format!("there is no environment {name}"))
        .hint("see which there are with: vgship env list")
}

fn after(now: u64, lease: Period) -> u64 {
    now.saturating_add(u64::try_from(lease.0.as_micros()).unwrap_or(u64::MAX))
}

fn prefix(name: &Name) -> String {
    format!("env/{name}/")
}

fn store(path: &Path, facts: &Facts) -> Result<(), ControlError> {
    let text = serde_json::to_vec_pretty(facts).map_err(ControlError::failed)?;
    Ok(files::replace(&path.join(FACTS), &text, 0o600)?)
}

/// The volumes by their LV's name, sharing the environment's quota.
fn volumes(env: &Env) -> Vec<(String, Arc<CloneVolume>)> {
    let quota = Arc::new(Quota { clones: env.clones.clone(), most: env.facts.quota });
    let volume = |(clone, volume): (&Arc<Overlay>, &vgship_base::layout::VolumeLayout)| {
        let served = CloneVolume { clone: Arc::clone(clone), quota: Arc::clone(&quota) };
        (volume.name.to_string(), Arc::new(served))
    };
    env.clones.iter().zip(&env.layout.volumes).map(volume).collect()
}

fn publish(env: &Env, served: &Served) {
    let Facts { name, group, .. } = &env.facts;
    for (volume, clone) in volumes(env) {
        served.add_clone(format!("{}{group}/{volume}", prefix(name)), clone);
    }
}

fn shown(env: &Env) -> Environment {
    let Facts { name, group, owner, .. } = &env.facts;
    let export =
        |it: &vgship_base::layout::VolumeLayout| format!("{}{group}/{}", prefix(name), it.name);
    Environment {
        name: name.to_string(),
        group: group.to_string(),
        template: env.facts.template.clone(),
        at: Seq(env.facts.seq).to_string(),
        time: rfc3339(env.facts.clock),
        owner: owner.clone(),
        created: rfc3339(env.facts.created),
        expires: env.facts.expires.map(rfc3339),
        written_bytes: env.clones.iter().map(|it| it.written_bytes()).sum(),
        quota_bytes: env.facts.quota,
        exports: env.layout.volumes.iter().map(export).collect(),
    }
}

/// How often leases are looked at.
pub(in crate::pipeline) const LEASES: Duration = Duration::from_secs(1);
