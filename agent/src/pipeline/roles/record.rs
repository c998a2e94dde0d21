//! Procedures as they run: each step is timed, shown to whoever asks, and stored before the next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use vgship_base::ids::Name;

use crate::api::ControlError;
use crate::home;
use crate::role::procedure::{Procedure, Step};

/// The last procedure of each group, running or over.
#[derive(Default)]
pub(in crate::pipeline) struct Procedures(Mutex<BTreeMap<Name, Arc<Mutex<Procedure>>>>);

impl Procedures {
    /// What the last procedure of a group has done.
    pub(in crate::pipeline) fn last(&self, group: &Name) -> Option<Procedure> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(group).map(|it| it.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn put(&self, group: Name, procedure: Arc<Mutex<Procedure>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(group, procedure);
    }
}

/// Keeps the record of one procedure.
pub(super) struct Recorder {
    procedure: Arc<Mutex<Procedure>>,
    begun: Instant,
    /// Where the record is kept, without its ending.
    place: PathBuf,
}

impl Recorder {
    /// Begins a procedure; `folder` is the group's.
    pub(super) fn begin(
        all: &Procedures,
        folder: &std::path::Path,
        (kind, agent): (&str, &Name),
        group: &Name,
        generation: String,
    ) -> Recorder {
        let now = Timestamp::now();
        let procedure = Procedure {
            kind: kind.to_owned(),
            group: group.to_string(),
            agent: agent.to_string(),
            generation,
            started: now.to_string(),
            seconds: 0.0,
            over: false,
            error: None,
            steps: Vec::new(),
            facts: Vec::new(),
        };
        let procedure = Arc::new(Mutex::new(procedure));
        all.put(group.clone(), Arc::clone(&procedure));
        let name = format!("{}-{kind}", now.strftime("%Y%m%dT%H%M%S%3fZ"));
        let place = folder.join("procedures").join(name);
        Recorder { procedure, begun: Instant::now(), place }
    }

    fn now(&self) -> MutexGuard<'_, Procedure> {
        self.procedure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a step. What it says of itself is its outcome.
    pub(super) async fn step(
        &self,
        what: &str,
        work: impl Future<Output = Result<String, ControlError>>,
    ) -> Result<(), ControlError> {
        let since = Instant::now();
        let number = {
            let mut procedure = self.now();
            let number = procedure.steps.len() + 1;
            procedure.steps.push(Step {
                number,
                what: what.to_owned(),
                started: Timestamp::now().to_string(),
                seconds: None,
                outcome: None,
            });
            number
        };
        self.store();
        let done = work.await;
        {
            let mut procedure = self.now();
            let step = &mut procedure.steps[number - 1];
            step.seconds = Some(since.elapsed().as_secs_f64());
            step.outcome = match &done {
                Ok(said) if said.is_empty() => None,
                Ok(said) => Some(said.clone()),
                Err(error) => Some(format!("failed: {error}")),
            };
            tracing::info!(
                group = procedure.group,
                procedure = procedure.kind,
                step = number,
                what,
                ok = done.is_ok(),
                "a step of a procedure"
            );
        }
        self.store();
        done.map(drop)
    }

    /// What was done so far.
    pub(super) fn so_far(&self) -> Procedure {
        self.now().clone()
    }

    /// Notes what is worth knowing.
    pub(super) fn fact(&self, name: &str, what: &impl ToString) {
        self.now().facts.push((name.to_owned(), what.to_string()));
    }

    /// The procedure is over. Gives its record, or the error that ended it.
    pub(super) fn end(self, done: Result<(), ControlError>) -> Result<Procedure, ControlError> {
        {
            let mut procedure = self.now();
            procedure.over = true;
            procedure.seconds = self.begun.elapsed().as_secs_f64();
            procedure.error = done.as_ref().err().map(ToString::to_string);
        }
        self.store();
        let procedure = self.now().clone();
        done.map(|()| procedure)
    }

    /// What cannot be kept is said and changes nothing of the procedure.
    fn store(&self) {
        let procedure = {
            let mut procedure = self.now();
            if !procedure.over {
                procedure.seconds = self.begun.elapsed().as_secs_f64();
            }
            procedure.clone()
        };
        let json = serde_json::to_vec_pretty(&procedure).expect("plain fields");
        let folder = self.place.parent().unwrap_or(&self.place);
        let stored = home::io::make_folder(folder)
            .and_then(|()| home::io::replace(&self.ending("json"), &json, home::io::PLAIN))
            .and_then(|()| {
                let text = procedure.markdown();
                home::io::replace(&self.ending("md"), text.as_bytes(), home::io::PLAIN)
            });
        if let Err(error) = stored {
            tracing::warn!(%error, "the record of a procedure cannot be kept");
        }
    }

    fn ending(&self, ending: &str) -> PathBuf {
        self.place.with_extension(ending)
    }
}
