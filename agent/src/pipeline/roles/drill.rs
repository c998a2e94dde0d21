//! Drill: a failover is rehearsed on a clone of a point while the stream goes on, and what came of it
//! is kept as a signed report.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use vgship_base::ids::Name;
use vgship_base::units::ByteLen;

use super::drill_book::Kept;
use super::record::Recorder;
use crate::api::ControlError;
use crate::api::drills::{DrillRequest, Drilled};
use crate::api::past::EnvRequest;
use crate::capture::io::report as told;
use crate::history::spec::{At, rfc3339};
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::past::control::{READER, replica};
use crate::pipeline::past::hash::hash;
use crate::pipeline::past::program::How;
use crate::pipeline::replica::ReplicaGroup;
use crate::role::drill::{self, Agent, Check, Outcome, Point, Report, Timed, Volume, page, seal};
use crate::role::procedure::Step;
use crate::wire::signature::sign;

/// How long a check may take, unless it is said.
const CHECK_MAX: Duration = Duration::from_hours(1);

/// What it is called where procedures are shown.
const KIND: &str = "drill";

const FIND: &str = "find the point";
const CLONE: &str = "make a clone of it";
const HASH: &str = "hash the clone";
const CHECK: &str = "run the check";
const REMOVE: &str = "remove the clone";
const KEEP: &str = "sign and keep the report";

/// The steps that a failover would have to do too.
const RECOVERY: [&str; 3] = [FIND, CLONE, CHECK];

/// One drill at work.
struct Drill {
    agent: Arc<Inner>,
    replica: Arc<ReplicaGroup>,
    request: DrillRequest,
    at: At,
    /// Of the environment.
    name: Name,
    point: Option<Point>,
    volumes: Vec<Volume>,
    check: Check,
    outcome: Outcome,
}

/// Does what takes long where nobody waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, ControlError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ControlError::failed(format!("the agent failed: {error}")))?
}

impl Inner {
    /// Rehearses a failover. To be called in a task of its own.
    ///
    /// # Errors
    /// It was not begun, or its report could not be kept. A drill that did not pass is none.
    pub(super) async fn drill(
        self: Arc<Self>,
        group: Name,
        request: DrillRequest,
    ) -> Result<Drilled, ControlError> {
        let is_source = matches!(self.group(&group)?, Group::Source(_));
        let replica = replica(&self, &group).map_err(|error| match is_source {
            true => error.hint(format!("run it there: vgship drill {group} --check COMMAND")),
            false => error,
        })?;
        let at = request.at.as_deref().map_or(Ok(At::Now), str::parse);
        let at = at.map_err(ControlError::usage)?;
        if request.check.contains('\0') {
            return Err(ControlError::usage("a command has no zero byte"));
        }
        if let Some(other) = self.procedures.last(&group).filter(|it| !it.over) {
            let text = format!("a {} of group {group} is under way", other.kind);
            return Err(ControlError::refused(text).hint("wait for its end"));
        }
        let book = Arc::clone(&replica);
        let Some(_running) = book.drills.begin() else {
            let text = format!("a drill of group {group} is under way");
            return Err(ControlError::refused(text).hint("wait for its end"));
        };
        let view = replica.look_at().map_err(ControlError::failed)?;
        let generation = view.durable.generation.map_or_else(String::new, |it| it.to_string());
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%6fZ").to_string();
        let name = format!("drill-{now}").parse().map_err(ControlError::failed)?;
        let home = self.home.group(&group);
        let what = (KIND, &self.config.name);
        let recorder = Recorder::begin(&self.procedures, home.folder(), what, &group, generation);
        let check = Check {
            command: request.check.clone(),
            exit: None,
            ended: None,
            output: String::new(),
        };
        let mut drill = Drill {
            agent: self,
            replica,
            request,
            at,
            name,
            point: None,
            volumes: Vec::new(),
            check,
            outcome: Outcome::Failed,
        };
        let done = drill.run(&recorder).await;
        let kept = drill.keep(&recorder, &now, done.as_ref().err()).await;
        let ended = recorder.end(done.and(kept.as_ref().map(drop).map_err(Clone::clone)));
        kept.map(|kept| Drilled { error: ended.err(), ..kept })
    }
}

impl Drill {
    async fn run(&mut self, recorder: &Recorder) -> Result<(), ControlError> {
        let group = self.replica.config.name.clone();
        let holder = format!("{READER}{}", self.name);
        let mut found = None;
        recorder
            .step(FIND, async {
                let (replica, at, holder) =
                    (Arc::clone(&self.replica), self.at.clone(), holder.clone());
                let at = blocking(move || {
                    let found = replica.find_point(&at)?;
                    // So that it does not go before it is cloned.
                    replica.hold(&found, &holder)?;
                    Ok(found)
                })
                .await?;
                let said = At::Seq(at.wanted).to_string();
                found = Some(at);
                Ok(said)
            })
            .await?;
        let found = found.expect("the step has found it");
        let from = format!("{group}@{}", At::Seq(found.wanted));
        let made = recorder.step(CLONE, self.clone_point(&from)).await;
        let (replica, base) = (Arc::clone(&self.replica), found.base.seq);
        let released = blocking(move || replica.release(base, &holder)).await;
        if let Err(error) = released {
            tracing::warn!(%group, %error, "a snapshot stays held until the agent's next start");
        }
        made?;
        let done = self.on_clone(recorder, found.wanted, &from).await;
        let removed = recorder.step(REMOVE, self.remove()).await;
        if removed.is_err() && done.is_ok() {
            self.outcome = Outcome::Failed;
        }
        done.and(removed)
    }

    async fn clone_point(&self, from: &str) -> Result<String, ControlError> {
        let (agent, owner) = (Arc::clone(&self.agent), Some("vgship drill".to_owned()));
        let request = EnvRequest {
            owner,
            fleeting: true,
            ..EnvRequest::of(self.name.clone(), from.to_owned())
        };
        let made = blocking(move || agent.make_environment(&request)).await?;
        Ok(format!("{}, {} LVs", made.name, made.exports.len()))
    }

    /// All that is done while there is a clone.
    async fn on_clone(
        &mut self,
        recorder: &Recorder,
        wanted: vgship_base::ids::Seq,
        point: &str,
    ) -> Result<(), ControlError> {
        let (agent, name) = (Arc::clone(&self.agent), self.name.clone());
        let clones = agent.environments.rehearsal(&name)?;
        let view = self.replica.look_at().map_err(ControlError::failed)?;
        let newest = view.durable;
        let same = wanted.start() == newest.seq.start();
        self.point = Some(Point {
            asked: self.at.to_string(),
            seq: wanted.0,
            at: wanted.to_string(),
            time: rfc3339(clones.clock),
            generation: clones.generation.map(|it| it.to_string()),
            behind_seconds: Duration::from_micros(newest.clock.saturating_sub(clones.clock))
                .as_secs_f64(),
            behind_records: same.then(|| newest.seq.count().saturating_sub(wanted.count())),
        });
        if self.request.no_hash {
            let volume = |(name, clone): &(Name, Arc<_>)| {
                let bytes = vgship_base::disk::Disk::len(&**clone);
                Volume { name: name.to_string(), bytes, blake3: None }
            };
            self.volumes = clones.clones.iter().map(volume).collect();
        } else {
            let mut hashed = Vec::new();
            recorder
                .step(HASH, async {
                    hashed = blocking(move || {
                        let stops = || agent.environments.are_stopping();
                        hash(&clones.clones, &stops)
                    })
                    .await?;
                    let bytes = hashed.iter().map(|it| it.bytes).sum();
                    Ok(ByteLen(bytes).to_string())
                })
                .await?;
            self.volumes = hashed;
        }
        recorder.step(CHECK, self.run_check(point)).await
    }

    async fn run_check(&mut self, point: &str) -> Result<String, ControlError> {
        let (agent, name) = (Arc::clone(&self.agent), self.name.clone());
        let (command, point) = (self.request.check.clone(), point.to_owned());
        let most = self.request.timeout.map_or(CHECK_MAX, |it| it.0);
        let ran = blocking(move || agent.environments.check(&name, &command, &point, most)).await?;
        self.check.ended = Some(ran.ended());
        self.check.output.clone_from(&ran.said);
        match ran.how {
            How::Ended(status) if status.success() => {
                (self.check.exit, self.outcome) = (Some(0), Outcome::Passed);
                Ok(ran.ended())
            }
            How::Ended(status) => {
                self.check.exit = status.code();
                Err(ControlError::failed(format!("the check ended with {status}: {}", ran.said)))
            }
            How::TooLong => {
                self.outcome = Outcome::TimedOut;
                let seconds = most.as_secs_f64();
                let text = format!("the check was killed after {seconds:.1} s: {}", ran.said);
                Err(ControlError::timed_out(text).hint("give it more: --timeout DURATION"))
            }
            How::Stopping => Err(ControlError::failed("the check was ended: the agent stops")),
        }
    }

    async fn remove(&self) -> Result<String, ControlError> {
        let (agent, name) = (Arc::clone(&self.agent), self.name.clone());
        blocking(move || {
            let reading = |group: &Name| agent.reading_of(group);
            let (served, nbd) = (&agent.served, agent.nbd_clients());
            agent.environments.destroy(&name, false, reading, served, nbd)
        })
        .await?;
        Ok(String::new())
    }

    /// The report, signed and kept.
    async fn keep(
        &self,
        recorder: &Recorder,
        name: &str,
        error: Option<&ControlError>,
    ) -> Result<Drilled, ControlError> {
        let mut kept = None;
        recorder
            .step(KEEP, async {
                let report = self.report(&recorder.so_far(), error);
                let (agent, replica) = (Arc::clone(&self.agent), Arc::clone(&self.replica));
                let name = name.to_owned();
                let drilled = blocking(move || keep(&agent, &replica, &name, report)).await?;
                let said = drilled.path.display().to_string();
                kept = Some(drilled);
                Ok(said)
            })
            .await?;
        let kept = kept.expect("the step has kept it");
        recorder.fact("report", &kept.path.display());
        if let Some(rto) = kept.report.rto_seconds {
            recorder.fact("time to recover", &format!("{rto:.3} s"));
        }
        Ok(kept)
    }

    fn report(
        &self,
        so_far: &crate::role::procedure::Procedure,
        error: Option<&ControlError>,
    ) -> Report {
        let recovery: BTreeSet<&str> = RECOVERY.into();
        // The one that makes the report is none of it.
        let over = so_far.steps.iter().filter(|it| it.what != KEEP);
        let timed = |step: &Step| Timed::new(step, recovery.contains(step.what.as_str()));
        let steps: Vec<Timed> = over.map(timed).collect();
        let agent = &self.agent;
        Report {
            format: drill::FORMAT.to_owned(),
            version: drill::VERSION,
            group: self.replica.config.name.to_string(),
            agent: Agent {
                name: agent.config.name.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                key: agent.peer_id.to_string(),
            },
            started: so_far.started.clone(),
            ended: Timestamp::now().to_string(),
            result: self.outcome,
            error: error.map(ToString::to_string),
            rto_seconds: (self.outcome == Outcome::Passed).then(|| drill::rto(&steps)),
            point: self.point.clone(),
            check: self.check.clone(),
            hashed: !self.request.no_hash,
            volumes: self.volumes.clone(),
            steps,
        }
    }
}

fn keep(
    agent: &Inner,
    replica: &ReplicaGroup,
    name: &str,
    report: Report,
) -> Result<Drilled, ControlError> {
    let json = report.json();
    let signature = sign(&agent.identity, &json).map_err(|error| {
        ControlError::failed(format!("the report cannot be signed: {}", told(&error)))
    })?;
    let (signature, page) = (seal::encode(&signature), page::page(&report, &json));
    let kept = Kept { report: &report, json: &json, signature: &signature, page: &page };
    let path = replica.drills.keep(name, &kept)?;
    let text = |bytes| String::from_utf8(bytes).map_err(ControlError::failed);
    let (json, signature) = (text(json)?, text(signature)?);
    Ok(Drilled { report, path, json, signature, page, error: None })
}
