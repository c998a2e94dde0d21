//! Switchover: the source hands its role to a replica that has everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vgship_base::ids::{Generation, Name, ReplicaId, Seq};

use super::record::Recorder;
use crate::api::ControlError;
use crate::api::roles::SwitchoverRequest;
use crate::capture::io::report;
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::source::{ReplicaLink, SourceGroup, random_generation};
use crate::receive::io::View;
use crate::role::handing::{self, Handing};
use crate::role::procedure::Procedure;

/// How long draining, and the other side's taking over, may take each, unless said otherwise.
const TIMEOUT: Duration = Duration::from_mins(1);

const LOOK: Duration = Duration::from_millis(5);

/// One switchover at work.
struct Switchover {
    agent: Arc<Inner>,
    source: Arc<SourceGroup>,
    to: ReplicaId,
    place: Arc<ReplicaLink>,
    timeout: Duration,
    force: bool,
}

impl Inner {
    /// Hands the role over. To be called in a task of its own.
    pub(super) async fn switchover(
        self: Arc<Self>,
        group: Name,
        request: SwitchoverRequest,
    ) -> Result<Procedure, ControlError> {
        let source = match self.group(&group)? {
            Group::Source(source) => source,
            Group::Replica(_) => {
                return Err(ControlError::refused(format!("group {group} is a replica here"))
                    .hint(
                        "a switchover begins at its source; when that is lost: vgship failover",
                    ));
            }
            Group::Failed { error, .. } => return Err(error),
        };
        let (to, place) = choose(&source, request.to.as_deref())?;
        let timeout = request.timeout.map_or(TIMEOUT, |it| it.0);
        let dry = request.dry_run;
        let generation = source.ancestry().generation.to_string();
        let kind = if dry { "switchover-dry-run" } else { "switchover" };
        let home = self.home.group(&group);
        let recorder = Recorder::begin(
            &self.procedures,
            home.folder(),
            (kind, &self.config.name),
            &group,
            generation,
        );
        recorder.fact("to", &place.view.name());
        let force = request.force;
        let work = Switchover { agent: self, source, to, place, timeout, force };
        let done = if dry { work.look(&recorder).await } else { work.run(&recorder).await };
        recorder.end(done)
    }

    /// Whether clients are connected to a source, and may not be cut off.
    pub(super) fn refuse_clients(
        &self,
        source: &SourceGroup,
        force: bool,
    ) -> Result<(), ControlError> {
        match self.clients_of(source.config.name.as_str()) {
            0 => Ok(()),
            _ if force => Ok(()),
            count => Err(ControlError::refused(format!(
                "{count} NBD clients are connected to group {}",
                source.config.name
            ))
            .hint("stop applications and unmount first, or cut clients off: --force")),
        }
    }
}

fn choose(
    source: &SourceGroup,
    wanted: Option<&str>,
) -> Result<(ReplicaId, Arc<ReplicaLink>), ControlError> {
    let known = source.links();
    let names: Vec<&str> = known.iter().map(|(_, it)| it.view.name()).collect();
    let names = names.join(", ");
    let group = &source.config.name;
    match wanted {
        Some(wanted) => {
            let found = known.iter().find(|(_, it)| it.view.name() == wanted).cloned();
            found.ok_or_else(|| {
                ControlError::refused(format!("group {group} has no replica {wanted}"))
                    .hint(format!("its replicas are: {names}"))
            })
        }
        None => match &known[..] {
            [one] => Ok(one.clone()),
            [] => Err(ControlError::refused(format!("group {group} has no replica"))
                .hint("pair one: vgship pair invite")),
            _ => Err(ControlError::usage(format!("group {group} has several replicas: {names}"))
                .hint("say which becomes the source: --to NAME")),
        },
    }
}

impl Switchover {
    /// What can be seen without changing anything.
    async fn look(&self, recorder: &Recorder) -> Result<(), ControlError> {
        recorder.step("the replica follows and is clean", async { self.follows() }).await?;
        recorder
            .step("no client is connected, or they may be cut off", async {
                self.agent.refuse_clients(&self.source, self.force)?;
                let count = self.agent.clients_of(self.source.config.name.as_str());
                Ok(format!("{count} clients"))
            })
            .await?;
        let (waits, name) = (self.timeout.as_secs(), self.place.view.name());
        for what in [
            "would run the stop hook, if there is one".to_owned(),
            "would keep writes away, flush the LVs and end the epoch".to_owned(),
            format!("would wait up to {waits} s until {name} has applied everything"),
            format!("would hand the role to {name}, and follow it"),
        ] {
            recorder.step(&what, async { Ok(String::new()) }).await?;
        }
        Ok(())
    }

    async fn run(self, recorder: &Recorder) -> Result<(), ControlError> {
        recorder.step("the replica follows and is clean", async { self.follows() }).await?;
        recorder.step("run the stop hook", self.hook("stop", self.source.settings().stop)).await?;
        let looked = recorder
            .step("no client is connected, or they may be cut off", async {
                self.agent.refuse_clients(&self.source, self.force).map(|()| String::new())
            })
            .await;
        let handed = match looked {
            Ok(()) => self.give(recorder).await,
            Err(error) => Err(error),
        };
        if let Err(error) = handed {
            self.open_again(recorder).await;
            return Err(error);
        }
        let (agent, timeout) = (Arc::clone(&self.agent), self.timeout);
        let (group, generation) =
            (self.source.config.name.clone(), self.source.ancestry().generation);
        // Its volumes are closed when nobody holds it any more.
        drop(self);
        let aftermath = Aftermath { agent, group, timeout, generation };
        recorder.step("follow the new source", aftermath.until_replica()).await?;
        recorder.step("protected again", aftermath.until_protected()).await
    }

    async fn give(&self, recorder: &Recorder) -> Result<(), ControlError> {
        self.drain(recorder).await?;
        recorder.step("hand the role over", self.hand()).await?;
        recorder.step("the replica takes the role", self.until_taken()).await
    }

    async fn hook(&self, hook: &'static str, command: String) -> Result<String, ControlError> {
        self.agent.hook(&self.source.config.name, hook, command).await
    }

    /// As long as the handover has not begun, this side stays the source, and goes on as it was.
    async fn open_again(&self, recorder: &Recorder) {
        {
            let mut core = self.source.tap.core();
            if core.handed().is_some() {
                return;
            }
            core.fence(false);
        }
        self.source.tap.wake();
        let start = self.hook("start", self.source.settings().start);
        // It is in the record; what failed first is what the caller hears.
        let _ = recorder.step("go on as before: run the start hook here", start).await;
    }

    fn follows(&self) -> Result<String, ControlError> {
        let core = self.source.tap.core();
        let replica = core.replica(self.to);
        let name = self.place.view.name();
        if replica.blind {
            return Err(ControlError::refused(format!(
                "{name} is a blind replica: it cannot read what it keeps, and nobody can work on it"
            )));
        }
        match replica.unfit() {
            Some(out) => {
                Err(ControlError::refused(format!("{name} does not follow: {}", out.text())).hint(
                    format!(
                        "wait until it does: vgship wait {} --for in-sync",
                        self.source.config.name
                    ),
                ))
            }
            None => Ok(format!("{name} holds {} of {}", replica.durable, core.issued())),
        }
    }

    async fn drain(&self, recorder: &Recorder) -> Result<(), ControlError> {
        let tap = &self.source.tap;
        recorder
            .step("keep writes away", async {
                tap.core().fence(true);
                tap.wake();
                self.until("writes that had begun do not end", || tap.core().is_quiet()).await?;
                Ok(String::new())
            })
            .await?;
        recorder
            .step("flush the LVs and end the epoch", async {
                let ids: Vec<_> = tap.core().layout().ids().collect();
                for id in ids {
                    tokio::task::block_in_place(|| tap.flush(id)).map_err(|error| {
                        ControlError::failed(format!("volume {} cannot be flushed: {error}", id.0))
                    })?;
                }
                let clock = tap.clock().wall();
                let last = tap.core().end_last_epoch(clock);
                tap.records.notify_one();
                Ok(format!("at {last}"))
            })
            .await?;
        recorder
            .step("the replica applies everything, with an equal hash chain", async {
                let said = self.drained().await?;
                Ok(format!("{said} durable and applied on both sides"))
            })
            .await
    }

    /// The replica has everything; an epoch end that it took has proved its hash chain equal.
    async fn drained(&self) -> Result<Seq, ControlError> {
        let tap = &self.source.tap;
        let late = "the replica has not applied everything in time";
        self.until(late, || {
            let core = tap.core();
            core.replica(self.to).applied >= core.issued()
        })
        .await?;
        Ok(tap.core().issued())
    }

    async fn until(&self, late: &str, done: impl Fn() -> bool) -> Result<(), ControlError> {
        let since = Instant::now();
        while !done() {
            if since.elapsed() >= self.timeout {
                let text = format!("{late}: {} s", self.timeout.as_secs());
                return Err(ControlError::timed_out(text)
                    .hint("nothing has changed; applications may write again"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn hand(&self) -> Result<String, ControlError> {
        let tap = &self.source.tap;
        let generation = random_generation()?;
        let since = Instant::now();
        // An epoch may have ended since it was looked last.
        let seq = loop {
            let reserved = tap.core().reserve_handover(self.to);
            match reserved {
                Ok(seq) => break seq,
                Err(_) if since.elapsed() < self.timeout => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(ControlError::refused(error)),
            }
        };
        let peer = tap.core().replica(self.to).peer;
        let noted = tokio::task::block_in_place(|| {
            let folder = self.source.ledger_folder()?;
            let after = Seq(seq.0 - 1);
            handing::store(&folder, &Handing { peer, generation, after })
                .map_err(|it| ControlError::failed(report(&it)))
        });
        if let Err(error) = noted {
            // It may be there all the same. The replica, asked anew, does not have the handover: then
            // the note goes, and the role is taken back.
            tap.core().link_lost(self.to);
            let back = || tap.core().handed().is_none();
            // In time or not, what failed first is what the caller hears.
            let _ = self.until("the role is not taken back", back).await;
            return Err(error);
        }
        tap.core().hand_over(generation);
        tap.records.notify_one();
        Ok(format!("generation {generation} begins behind {seq}"))
    }

    /// Whether it took the role only the replica knows. If it does not say so in time, the link ends
    /// and its next hello tells.
    async fn until_taken(&self) -> Result<String, ControlError> {
        let tap = &self.source.tap;
        let since = Instant::now();
        let mut asked = false;
        loop {
            {
                let mut core = tap.core();
                if core.is_taken() {
                    return Ok(String::new());
                }
                if core.handed().is_none() {
                    let text = "the replica did not get the handover; this agent stays the source";
                    return Err(
                        ControlError::failed(text).hint("see why its link broke, and try again")
                    );
                }
                if !asked && since.elapsed() >= self.timeout {
                    asked = true;
                    core.link_lost(self.to);
                }
            }
            if since.elapsed() >= 2 * self.timeout {
                let name = self.place.view.name();
                let text =
                    format!("it is not known whether {name} took the role: it does not answer");
                return Err(ControlError::timed_out(text).hint(
                    "nothing can be written here until it answers; this goes on by itself then",
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What is left to see to when this side is no source any more.
pub(super) struct Aftermath {
    pub(super) agent: Arc<Inner>,
    pub(super) group: Name,
    pub(super) timeout: Duration,
    /// The history that has ended.
    pub(super) generation: Generation,
}

impl Aftermath {
    async fn until_replica(&self) -> Result<String, ControlError> {
        let name = &self.group;
        let since = Instant::now();
        loop {
            match self.agent.group(name)? {
                Group::Replica(_) => return Ok(String::new()),
                Group::Failed { error, .. } if since.elapsed() >= self.timeout => {
                    return Err(error);
                }
                _ if since.elapsed() >= 2 * self.timeout => {
                    return Err(ControlError::timed_out("the role was not given up in time"));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The new source ships to this side, and all that differed has come.
    async fn until_protected(&self) -> Result<String, ControlError> {
        let in_sync = |view: &View| view.durable.consistent();
        self.until_shipped(in_sync).await.map(|_| "the reverse stream is in sync".to_owned())
    }

    /// The new source ships to this side; what differs may be on its way.
    pub(super) async fn until_following(&self) -> Result<String, ControlError> {
        let view = self.until_shipped(|_| true).await?;
        Ok(match view.durable.window {
            Some(window) => format!("{} extents are compared", window.extents),
            None => "nothing is left to compare".to_owned(),
        })
    }

    async fn until_shipped(&self, done: impl Fn(&View) -> bool) -> Result<View, ControlError> {
        let name = &self.group;
        let since = Instant::now();
        loop {
            if let Group::Replica(replica) = self.agent.group(name)? {
                let ships = |view: &View| view.durable.generation != Some(self.generation);
                let view = replica.look_at().ok().filter(|view| ships(view) && done(view));
                if let Some(view) = view {
                    return Ok(view);
                }
            }
            if since.elapsed() >= self.timeout {
                let text = "this side follows, but the new source does not ship yet";
                return Err(ControlError::timed_out(text)
                    .hint(format!("look at it with: vgship status {name}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
