//! Failover: a replica becomes the source without being handed the role.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vgship_base::ids::Name;

use super::must_mean;
use super::record::Recorder;
use crate::api::ControlError;
use crate::api::roles::FailoverRequest;
use crate::apply::rolled::Phase;
use crate::history::spec::{At, rfc3339};
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::replica::ReplicaGroup;
use crate::pipeline::source::random_generation;
use crate::receive::io::View;
use crate::role::procedure::Procedure;

/// How long what the journal holds may take to be applied.
const SETTLE: Duration = Duration::from_mins(30);

const LOOK: Duration = Duration::from_millis(5);

/// One failover at work.
struct Failover {
    agent: Arc<Inner>,
    replica: Arc<ReplicaGroup>,
    request: FailoverRequest,
}

impl Inner {
    /// Makes a source of a replica. To be called in a task of its own.
    pub(super) async fn failover(
        self: Arc<Self>,
        group: Name,
        request: FailoverRequest,
    ) -> Result<Procedure, ControlError> {
        let replica = match self.group(&group)? {
            Group::Replica(replica) => replica,
            Group::Source(_) => {
                return Err(ControlError::refused(format!("this agent is the source of {group}"))
                    .hint("it can be written already; to give the role away: vgship switchover"));
            }
            Group::Failed { error, .. } => return Err(error),
        };
        if replica.config.blind.is_some() {
            return Err(ControlError::refused(format!(
                "group {group} is a blind replica here: it cannot read what it keeps"
            ))
            .hint(
                "export a point, and make plain images where the escrow is: vgship snapshot export, \
                 vgship unveil",
            ));
        }
        let view = replica.look_at().map_err(ControlError::failed)?;
        let Some(generation) = view.durable.generation else {
            return Err(ControlError::refused(format!("group {group} has received nothing yet")));
        };
        must_mean(&group, generation, &request.generation)?;
        if replica.view.is_connected() && !request.force && !request.dry_run {
            return Err(ControlError::refused(format!("the source of group {group} is connected"))
                .hint(
                    "planned, without losing anything: vgship switchover there; if it must be so: \
                     --force",
                ));
        }
        let kind = if request.dry_run { "failover-dry-run" } else { "failover" };
        let home = self.home.group(&group);
        let recorder = Recorder::begin(
            &self.procedures,
            home.folder(),
            (kind, &self.config.name),
            &group,
            generation.to_string(),
        );
        recorder.fact("received up to", &view.received.seq);
        recorder.fact("source's clock there", &rfc3339(view.durable.clock));
        let work = Failover { agent: self, replica, request };
        let done = match work.request.dry_run {
            true => work.look(&recorder, &view).await,
            false => work.run(&recorder).await,
        };
        recorder.end(done)
    }
}

impl Failover {
    async fn look(&self, recorder: &Recorder, view: &View) -> Result<(), ControlError> {
        let to = self.request.to.as_deref().map(str::parse::<At>).transpose();
        let to = to.map_err(ControlError::usage)?;
        let replica = Arc::clone(&self.replica);
        let where_to = match (to, view.durable.window.is_some()) {
            (Some(at), _) => {
                let found = tokio::task::block_in_place(|| replica.preview_rollback(&at))?;
                format!("would roll the LVs back to {} ({})", found.at, found.time)
            }
            (None, true) => {
                let name = self.newest_consistent()?;
                format!("would roll the LVs back to {name}: the replica is being resynchronised")
            }
            (None, false) => format!("would apply up to {}", view.durable.seq),
        };
        for what in [
            "would stop following the source".to_owned(),
            where_to,
            "would begin a new generation and serve the LVs for writing".to_owned(),
            "would run the start hook, if there is one".to_owned(),
        ] {
            recorder.step(&what, async { Ok(String::new()) }).await?;
        }
        Ok(())
    }

    async fn run(&self, recorder: &Recorder) -> Result<(), ControlError> {
        let paused = self.replica.paused.load(Ordering::SeqCst);
        recorder
            .step("stop following the source", async {
                self.replica.pause(true);
                Ok(String::new())
            })
            .await?;
        let done = self.prepare(recorder).await;
        if let Err(error) = done {
            self.replica.pause(paused);
            return Err(error);
        }
        recorder.step("begin a new generation and serve the LVs", self.promote(recorder)).await?;
        let (group, start) = (&self.replica.config.name, self.replica.settings().start);
        recorder.step("run the start hook", self.agent.hook(group, "start", start)).await
    }

    async fn prepare(&self, recorder: &Recorder) -> Result<(), ControlError> {
        let at = self.request.to.as_deref().map(str::parse::<At>).transpose();
        let at = at.map_err(ControlError::usage)?;
        let view = self.replica.look_at().map_err(ControlError::failed)?;
        let broken = view.durable.window.is_some();
        let at = match (at, view.rolled) {
            (Some(at), _) => Some(at),
            (None, None) if broken => Some(At::Snapshot(self.newest_consistent()?)),
            // Where the journal ends, or where an operator has taken it.
            (None, _) => None,
        };
        match at {
            None => recorder.step("apply what the journal holds", self.settle()).await,
            Some(at) => {
                let generation = self.request.generation.clone();
                let what = format!("roll the LVs back to {at}");
                let replica = Arc::clone(&self.replica);
                recorder
                    .step(&what, async {
                        let done = tokio::task::spawn_blocking(move || {
                            replica.roll_back(&at, &generation)
                        });
                        let done =
                            done.await.map_err(|error| ControlError::from_error(&error))??;
                        Ok(format!("{} ({})", done.at, done.time))
                    })
                    .await
            }
        }
    }

    /// The newest snapshot that holds a consistent point: inside a resync there is no other.
    fn newest_consistent(&self) -> Result<Name, ControlError> {
        let set = self.replica.snapshots().map_err(ControlError::failed)?;
        let points = set.points().map_err(|it| ControlError::from_error(&it))?;
        let newest = points.into_iter().rfind(|it| set.is_settled(it));
        newest.map(|it| it.name).ok_or_else(|| {
            ControlError::refused(
                "the replica holds no consistent point: its first sync has not ended",
            )
            .hint("there is nothing to fail over to yet")
        })
    }

    async fn settle(&self) -> Result<String, ControlError> {
        let since = Instant::now();
        loop {
            let view = self.replica.look_at().map_err(ControlError::failed)?;
            match view.rolled {
                Some(rolled) if rolled.phase == Phase::There => {
                    return Ok(format!(
                        "the LVs are rolled back to {}, and stay there",
                        rolled.wanted
                    ));
                }
                None if view.applied.seq == view.durable.seq && view.applied == view.received => {
                    return Ok(format!("up to {}", view.applied.seq));
                }
                _ => {}
            }
            let late = since.elapsed() >= SETTLE;
            if let Some(why) = view.fault.or(view.holds).filter(|_| late) {
                return Err(ControlError::failed(why));
            }
            if late {
                return Err(ControlError::timed_out("the journal is not applied yet")
                    .hint("see vgship status; the replica goes on as before"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn promote(&self, recorder: &Recorder) -> Result<String, ControlError> {
        let _alone = self.agent.removing.lock().await;
        let generation = random_generation()?;
        let replica = Arc::clone(&self.replica);
        let promoted = self.agent.become_source(replica, generation, None).await?;
        recorder.fact("new generation", &generation);
        recorder.fact("kept up to", &promoted.fork);
        recorder
            .fact("what came after this is lost, by the source's clock", &rfc3339(promoted.clock));
        Ok(format!("generation {generation} begins behind {}", promoted.fork))
    }
}
