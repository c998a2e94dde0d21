//! Environments: writable clones of points' volumes, or copies of them outside, with an owner and
//! a lease. They outlive the agent; each is a folder with its facts, its layouts and its clones'
//! files.

mod env;

mod facts;

mod import;

mod make;

mod outside;

mod programs;

mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vgship_base::ids::Name;

use self::env::Env;
use self::facts::FACTS;
use self::make::{Maker, after, remove};
use self::programs::{LOG, Programs};
use self::users::Making;
use super::program::tail;
use crate::api::ControlError;
use crate::api::control::Done;
use crate::api::past::{EnvLog, EnvRequest, Environment, TemplateAt, TemplateUsers};
use crate::capture::nbd::io::NbdClients;
use crate::home::{Home, Period};
use crate::pipeline::exports::Served;
use crate::pipeline::replica::ReplicaGroup;

pub use self::users::stored_template_users;

/// What holds a snapshot for an environment.
pub(in crate::pipeline) const HOLDER: &str = "environment ";

/// How often leases are looked at.
pub(in crate::pipeline) const LEASES: Duration = Duration::from_secs(1);

/// How long one that cannot be destroyed when its lease is over is left alone.
const AGAIN: Duration = Duration::from_mins(1);

/// How much of a log is shown. Unit: bytes.
const LOG_SHOWN: u64 = 1 << 20;

/// All environments of an agent.
pub(in crate::pipeline) struct Environments {
    home: Home,
    folder: PathBuf,
    state: Mutex<State>,
    outside: Mutex<()>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct State {
    all: BTreeMap<Name, Env>,
    /// Names of those that are being made or destroyed.
    busy: BTreeSet<Name>,
    /// What those that are being made are made of.
    making: BTreeMap<Name, Making>,
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ControlError {
    ControlError::from_error(error)
}

impl Environments {
    /// Those of a home.
    pub(in crate::pipeline) fn new(home: &Home) -> Environments {
        Environments {
            home: home.clone(),
            folder: home.environments(),
            state: Mutex::default(),
            outside: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(name.as_str())
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
                if let Err(error) = remove(&path) {
                    let path = path.display();
                    tracing::warn!(%path, %error, "the rest of an environment cannot be removed");
                }
                continue;
            }
            match Env::open(&path, &self.home, &replica) {
                Ok(env) => {
                    if let Some(error) = &env.broken {
                        let name = &env.facts.name;
                        tracing::error!(environment = %name, error, "its clones cannot be opened");
                    }
                    env.publish(served);
                    self.state().all.insert(env.facts.name.clone(), env);
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "an environment cannot be opened");
                }
            }
        }
    }

    /// Makes an environment. Nobody sees it before it is whole, masked, and all its steps are done.
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
            state.making.insert(name.clone(), Making::of(request));
        }
        let folder = self.path(name);
        let maker = Maker {
            home: &self.home,
            folder: &folder,
            request,
            served,
            stopping: &self.stopping,
            outside: &self.outside,
            now,
        };
        let made = maker.make(replica);
        let mut state = self.state();
        state.busy.remove(name);
        state.making.remove(name);
        let (env, why) = made?;
        env.publish(served);
        let shown = env.shown(&folder);
        state.all.insert(name.clone(), env);
        drop(state);
        let from = request.from.join(", ");
        match why {
            None => {
                tracing::info!(environment = %name, from, "an environment was made");
                Ok(shown)
            }
            Some(error) => {
                tracing::warn!(environment = %name, from, %error, "an environment is kept as failed");
                Err(error)
            }
        }
    }

    /// All of them, by name.
    pub(in crate::pipeline) fn list(&self) -> Vec<Environment> {
        let state = self.state();
        state.all.iter().map(|(name, env)| env.shown(&self.path(name))).collect()
    }

    /// What an environment's programs said.
    pub(in crate::pipeline) fn log(&self, name: &Name) -> Result<EnvLog, ControlError> {
        if !self.state().all.contains_key(name) {
            return Err(unknown(name));
        }
        let log = self.path(name).join(LOG);
        let (text, whole) = tail(&log, LOG_SHOWN).map_err(|error| {
            ControlError::failed(format!("cannot read {}: {error}", log.display()))
        })?;
        Ok(EnvLog { name: name.to_string(), text, whole })
    }

    /// A lease from `now` on.
    pub(in crate::pipeline) fn extend(
        &self,
        name: &Name,
        lease: Period,
        now: u64,
    ) -> Result<Environment, ControlError> {
        let folder = self.path(name);
        let mut state = self.state();
        let env = state.all.get_mut(name).ok_or_else(|| unknown(name))?;
        if env.facts.ending {
            return Err(ControlError::refused(format!("environment {name} is being destroyed")));
        }
        let mut facts = env.facts.clone();
        facts.expires = Some(after(now, lease));
        facts.store(&folder)?;
        env.facts = facts;
        Ok(env.shown(&folder))
    }

    /// Runs an environment's teardown, ends its clients and removes all of it, here and outside.
    pub(in crate::pipeline) fn destroy(
        &self,
        name: &Name,
        replica: impl Fn(&Name) -> Option<Arc<ReplicaGroup>>,
        served: &Served,
        clients: &NbdClients,
    ) -> Result<Done, ControlError> {
        let mut env = self.take(name).ok_or_else(|| unknown(name))?;
        let mut done = format!("environment {name} is destroyed");
        if let Err(error) = self.tear_down(&env) {
            if self.stopping.load(Ordering::SeqCst) {
                self.give_back(env);
                return Err(error);
            }
            tracing::warn!(environment = %name, %error, "an environment's teardown failed");
            done = format!("{done}, but {error}");
        }
        // From here on parts of it may be missing, and a crash leaves it to the next start.
        env.facts.ending = true;
        if let Err(error) = env.facts.store(&self.path(name)) {
            env.facts.ending = false;
            self.give_back(env);
            return Err(error);
        }
        let prefix = env.prefix();
        served.remove_clones(&prefix);
        let left = clients.end(|export| export.starts_with(&prefix));
        if let Some(outside) = &env.outside
            && let Err(error) = outside.remove()
        {
            self.give_back(env);
            return Err(error.hint("end what uses it, then try again; the agent does, too"));
        }
        let path = self.path(name);
        // Without its facts it is none, whatever happens next.
        let gone = std::fs::remove_file(path.join(FACTS))
            .map_err(|it| ControlError::failed(format!("cannot remove {}: {it}", path.display())))
            .and_then(|()| remove(&path));
        for (group, seq, holder) in env.holds() {
            if let Some(replica) = replica(&group)
                && let Err(error) = replica.release(seq, &holder)
            {
                tracing::warn!(%error, "a snapshot stays held until the agent's next look");
            }
        }
        self.state().busy.remove(name);
        gone?;
        if left > 0 {
            tracing::warn!(environment = %name, left, "clients of an environment do not end");
        }
        tracing::info!(environment = %name, "an environment was destroyed");
        let groups = env.facts.parts.iter().map(|part| part.group.to_string());
        Ok(Done { group: groups.collect::<Vec<_>>().join(", "), done })
    }

    /// Takes an environment out, so that nobody else destroys it meanwhile.
    fn take(&self, name: &Name) -> Option<Env> {
        let mut state = self.state();
        let env = state.all.remove(name)?;
        state.busy.insert(name.clone());
        Some(env)
    }

    /// One that could not be destroyed is there again.
    fn give_back(&self, mut env: Env) {
        env.again = Some(Instant::now() + AGAIN);
        let mut state = self.state();
        state.busy.remove(&env.facts.name);
        state.all.insert(env.facts.name.clone(), env);
    }

    fn tear_down(&self, env: &Env) -> Result<(), ControlError> {
        let teardown = env.facts.teardown.as_ref().filter(|_| !env.facts.ending);
        let Some(teardown) = teardown else { return Ok(()) };
        let (socket, folder) = (self.home.nbd_socket(), self.path(&env.facts.name));
        let programs = Programs {
            name: &env.facts.name,
            socket: &socket,
            folder: &folder,
            stopping: &self.stopping,
        };
        programs.teardown(teardown, &env.as_shown())
    }

    /// Ends programs that run for environments; no more is begun.
    pub(in crate::pipeline) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Makes durable what was written to any of them.
    pub(in crate::pipeline) fn flush(&self) {
        self.state().all.values().for_each(Env::flush);
    }

    /// Those whose lease is over, or whose end was interrupted.
    pub(in crate::pipeline) fn expired(&self, now: u64) -> Vec<Name> {
        let looks = Instant::now();
        let over = |env: &&Env| {
            (env.facts.ending || env.facts.expires.is_some_and(|expires| expires <= now))
                && env.again.is_none_or(|again| again <= looks)
        };
        self.state().all.values().filter(over).map(|env| env.facts.name.clone()).collect()
    }

    /// Whether a holder of a snapshot is an environment that is not there, or needs none.
    pub(in crate::pipeline) fn is_orphan(&self, holder: &str) -> bool {
        let Some(name) = holder.strip_prefix(HOLDER) else { return false };
        let Ok(name) = name.parse::<Name>() else { return true };
        let state = self.state();
        match state.all.get(&name) {
            _ if state.busy.contains(&name) => false,
            Some(env) => env.outside.is_some(),
            // One that could not be read may need it.
            None => !self.path(&name).exists(),
        }
    }

    /// Environments that build on a group, those that are being made among them.
    pub(in crate::pipeline) fn of_group(&self, group: &Name) -> Vec<Name> {
        let of = |env: &&Env| env.holds().iter().any(|(held, ..)| held == group);
        let state = self.state();
        let made = state.all.values().filter(of).map(|env| &env.facts.name);
        let making = state.making.iter().filter(|it| it.1.builds_on(group)).map(|it| it.0);
        made.chain(making).cloned().collect()
    }

    /// The environments that read a template, or will.
    pub(in crate::pipeline) fn template_users(
        &self,
        template: &TemplateAt,
    ) -> Result<TemplateUsers, ControlError> {
        // First: one that is made meanwhile is stored before it is no more being made.
        let making: Vec<String> = {
            let state = self.state();
            let reads = state.making.iter().filter(|it| it.1.reads(&self.home, template));
            reads.map(|it| it.0.to_string()).collect()
        };
        let mut users = stored_template_users(&self.home, template)?;
        users.extend(making);
        users.sort();
        users.dedup();
        Ok(TemplateUsers { users })
    }
}

fn unknown(name: &Name) -> ControlError {
    ControlError::refused(format!("there is no environment {name}"))
        .hint("see which there are with: vgship env list")
}
