//! Environments: writable clones of points' volumes, or copies of them outside, with an owner and
//! a lease. They outlive the agent; each is a folder with its facts, its layouts and its clones'
//! files.

mod env;

mod facts;

mod folder;

mod import;

mod make;

mod outside;

mod programs;

mod rehearsal;

mod users;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vgship_base::ids::Name;

use self::env::Env;
use self::folder::Kind;
use self::make::{Maker, after};
use self::outside::Outside;
use self::programs::{LOG, Programs, is_hidden_of};
use self::users::Making;
use super::program::tail;
use crate::api::ControlError;
use crate::api::control::Done;
use crate::api::past::{EnvLog, EnvRequest, Environment, TemplateAt, TemplateUsers};
use crate::capture::nbd::io::NbdClients;
use crate::group::VolumesSpec;
use crate::home::{Home, Period};
use crate::pipeline::exports::Served;
use crate::pipeline::past::reading::Reading;
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
    /// Those whose facts or lists cannot be read, and why. They are left alone.
    unread: BTreeMap<Name, String>,
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
        reading: impl Fn(&Name) -> Option<Arc<Reading>>,
        served: &Served,
    ) {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            // The first environment makes it.
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                let path = self.folder.display();
                tracing::error!(%path, %error, "environments cannot be looked for");
                return;
            }
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let opened = match folder::kind(&path) {
                Kind::Rest => folder::remove(&path).map(|()| None),
                Kind::Environment => Env::open(&path, &self.home, &reading).map(Some),
                Kind::Unknown(why) => Err(ControlError::failed(why)),
            };
            match opened {
                Ok(None) => {}
                Ok(Some(env)) => {
                    if let Some(error) = &env.broken {
                        let name = &env.facts.name;
                        tracing::error!(environment = %name, error, "its clones cannot be opened");
                    }
                    env.publish(served);
                    self.state().all.insert(env.facts.name.clone(), env);
                }
                Err(error) => self.cannot_read(&path, &error),
            }
        }
    }

    /// One that is left alone until the next start, and said to be there.
    fn cannot_read(&self, path: &Path, error: &ControlError) {
        tracing::error!(path = %path.display(), %error, "an environment, or its rest, is left alone");
        let name = path.file_name().and_then(|name| name.to_str()?.parse::<Name>().ok());
        // The rest of one that was not made is nobody's to see: making it again removes it.
        if let Some(name) = name
            && !matches!(folder::kind(path), Kind::Rest)
        {
            self.state().unread.insert(name, error.to_string());
        }
    }

    /// Makes an environment. Nobody sees it before it is whole, masked, and all its steps are done.
    pub(in crate::pipeline) fn create(
        &self,
        request: &EnvRequest,
        replica: impl Fn(&Name) -> Result<Arc<ReplicaGroup>, ControlError>,
        sources: &[(Name, VolumesSpec)],
        served: &Served,
        clients: &NbdClients,
        clock: &dyn Fn() -> u64,
    ) -> Result<Environment, ControlError> {
        let name = &request.name;
        {
            let mut state = self.state();
            state.refuse_unread(name)?;
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
            sources,
            served,
            clients,
            stopping: &self.stopping,
            outside: &self.outside,
            now: clock(),
            clock,
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
                let look = format!("vgship env log {name}");
                tracing::warn!(environment = %name, from, look, "an environment is kept as failed");
                Err(error)
            }
        }
    }

    /// All of them, by name.
    pub(in crate::pipeline) fn list(&self) -> Vec<Environment> {
        let state = self.state();
        let unread = state.unread.iter();
        let unread = unread.map(|(name, why)| env::unread(name, why, &self.path(name)));
        let read = state.all.iter().map(|(name, env)| env.shown(&self.path(name)));
        let mut all: Vec<Environment> = read.chain(unread).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// What an environment's programs said.
    pub(in crate::pipeline) fn log(&self, name: &Name) -> Result<EnvLog, ControlError> {
        self.state().refuse_unread(name)?;
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
        state.refuse_unread(name)?;
        let env = state.all.get_mut(name).ok_or_else(|| unknown(name))?;
        if env.facts.ending {
            return Err(ControlError::refused(format!("environment {name} is being destroyed")));
        }
        if env.fleeting {
            return Err(ControlError::refused(format!("environment {name} is of a drill"))
                .hint("it goes with the drill; make one that stays: vgship env create"));
        }
        let mut facts = env.facts.clone();
        facts.expires = Some(after(now, lease));
        facts.store(&folder)?;
        env.facts = facts;
        Ok(env.shown(&folder))
    }

    /// Runs an environment's teardown, ends its clients and removes all of it, here and outside.
    /// Volumes of a VG that is gone are forgotten if that is wanted.
    pub(in crate::pipeline) fn destroy(
        &self,
        name: &Name,
        forget: bool,
        reading: impl Fn(&Name) -> Option<Arc<Reading>>,
        served: &Served,
        clients: &NbdClients,
    ) -> Result<Done, ControlError> {
        self.state().refuse_unread(name)?;
        let env = self.take(name, |_| true).ok_or_else(|| unknown(name))?;
        self.end(env, forget, reading, served, clients)
    }

    /// The same for one whose lease is over, or whose end was interrupted; nothing if that is not
    /// so any more, for its lease may be another since it was looked at.
    pub(in crate::pipeline) fn destroy_expired(
        &self,
        name: &Name,
        now: u64,
        reading: impl Fn(&Name) -> Option<Arc<Reading>>,
        served: &Served,
        clients: &NbdClients,
    ) -> Result<(), ControlError> {
        let Some(env) = self.take(name, |env| is_over(env, now)) else { return Ok(()) };
        tracing::info!(environment = %name, "its lease is over, or its end was interrupted");
        self.end(env, false, reading, served, clients).map(drop)
    }

    fn end(
        &self,
        mut env: Env,
        forget: bool,
        reading: impl Fn(&Name) -> Option<Arc<Reading>>,
        served: &Served,
        clients: &NbdClients,
    ) -> Result<Done, ControlError> {
        let name = &env.facts.name.clone();
        let mut done = format!("environment {name} is destroyed");
        if let Err(error) = self.tear_down(&env) {
            if self.stopping.load(Ordering::SeqCst) {
                self.give_back(env, None);
                let text = format!("the agent stops, and environment {name} stays");
                return Err(ControlError::failed(text)
                    .hint("destroy it again when the agent runs; its teardown runs again then"));
            }
            done = format!("{done}, but {error}");
        }
        // From here on parts of it may be missing, and a crash leaves it to the next start.
        env.facts.ending = true;
        if let Err(error) = env.facts.store(&self.path(name)) {
            env.facts.ending = false;
            self.give_back(env, None);
            return Err(error);
        }
        let prefix = env.prefix();
        served.remove_clones(&prefix);
        let of_it = |export: &str| export.starts_with(&prefix) || is_hidden_of(name, export);
        let left = clients.end(of_it);
        let path = self.path(name);
        let removed = env.outside.as_ref().map(|outside| {
            outside.remove(forget)?;
            Outside::forget(&path)
        });
        if let Some(Err(error)) = removed {
            let try_again = "end what uses it, then try again; the agent does, too";
            let hint = error.hint.clone().unwrap_or_else(|| try_again.to_owned());
            self.give_back(env, Some(&error));
            return Err(error.hint(hint));
        }
        let gone = folder::remove(&path);
        if let Err(error) = &gone
            && !folder::is_absent(&path)
        {
            self.give_back(env, Some(error));
            return Err(error.clone());
        }
        for (group, seq, holder) in env.holds() {
            if let Some(reading) = reading(&group)
                && let Err(error) = reading.release(seq, &holder)
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

    /// Takes an environment out if it is to be, so that nobody else destroys it meanwhile.
    fn take(&self, name: &Name, is_to_be: impl Fn(&Env) -> bool) -> Option<Env> {
        let mut state = self.state();
        if !is_to_be(state.all.get(name)?) {
            return None;
        }
        let env = state.all.remove(name)?;
        state.busy.insert(name.clone());
        Some(env)
    }

    /// One that could not be destroyed is there again.
    fn give_back(&self, mut env: Env, why: Option<&ControlError>) {
        env.stuck = why.map(|error| match &error.hint {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        });
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
        let over = |env: &&Env| is_over(env, now);
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
            // One that cannot be read may need it, and what cannot be looked for may be there.
            None => self.folder.is_dir() && folder::is_absent(&self.path(&name)),
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

impl State {
    fn refuse_unread(&self, name: &Name) -> Result<(), ControlError> {
        match self.unread.get(name) {
            None => Ok(()),
            Some(why) => Err(ControlError::refused(format!(
                "environment {name} is there, but cannot be read: {why}"
            ))
            .hint("mend what keeps it from being read, then start the agent again")),
        }
    }
}

/// Whether its lease is over or its end was interrupted, and it is to be looked at now.
///
/// Unit: `now`, microseconds since 1970.
fn is_over(env: &Env, now: u64) -> bool {
    let looks = Instant::now();
    (env.facts.ending || env.facts.expires.is_some_and(|expires| expires <= now))
        && env.again.is_none_or(|again| again <= looks)
}

fn unknown(name: &Name) -> ControlError {
    ControlError::refused(format!("there is no environment {name}"))
        .hint("see which there are with: vgship env list")
}
