//! The streams of a source's replicas: what a hello is answered with, and the traffic behind it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vgship_base::ids::{Name, ReplicaId};

use super::{ReplicaLink, SourceGroup, random_generation};
use crate::capture::io::report;
use crate::role::handing;
use crate::role::hearing::{Heard, may_follow, of_handover};
use crate::role::meeting::Ancestry;
use crate::ship::dirty::DirtyMap;
use crate::ship::io::carry;
use crate::ship::verdict::{ReplicaPoint, Verdict};
use crate::wire::frame::{Bye, Frame};
use crate::wire::hello::{Hello, Refusal};
use crate::wire::io::{FrameReceiver, Greeting, Link, Opened};
use crate::wire::peers::Role;

/// How long a replica that knows other volumes may take to hear of them.
const TOLD: Duration = Duration::from_secs(10);

/// How long a replica that gives a history up may take to tell where it differs.
const TELLS: Duration = Duration::from_mins(1);

/// Why a stream ended.
enum End {
    Lost(String),
    Diverged(String),
}

/// What a hello came to.
enum Begun {
    /// It goes on, after this was carried out.
    Judged(Verdict),
    /// It gives a history of its own up, and tells first where it differs.
    Yields,
    /// It knows other volumes.
    Layout,
    /// Only one side takes it for a blind one.
    Veil,
    /// It cannot be served now.
    Not(String),
}

impl SourceGroup {
    /// Serves the stream of a replica that said hello, until it ends.
    pub(in crate::pipeline) async fn serve_link(
        &self,
        link: &Link,
        greeting: Greeting,
        name: &Name,
    ) {
        let found = self.tap.core().find(link.peer());
        let place = found.and_then(|id| Some((id, self.replicas().get(&id).cloned()?)));
        let Some((id, place)) = place else {
            // The refusal may not reach the peer; it asks again.
            let _ = greeting.refuse(Refusal::Unavailable, "the replica is not served yet").await;
            return;
        };
        place.newer.notify_waiters();
        let _gate = place.gate.lock().await;
        if *self.gone.borrow() {
            return; // without an answer; when it asks again, the group is unknown
        }
        self.forget_met(link.peer());
        match self.carry(link, greeting, id, &place, name).await {
            Ok(()) => {}
            Err(End::Diverged(why)) => place.view.diverged(&why, None),
            Err(End::Lost(why)) => place.view.lost(&why, None),
        }
    }

    async fn carry(
        &self,
        link: &Link,
        greeting: Greeting,
        id: ReplicaId,
        place: &ReplicaLink,
        name: &Name,
    ) -> Result<(), End> {
        let hello = greeting.hello().clone();
        let verdict = match self.hear_hello(id, &hello)? {
            Begun::Judged(verdict) => verdict,
            Begun::Layout => return Err(self.tell_layout(greeting, id, name).await),
            Begun::Veil => {
                let why = veil_differs(hello.blind);
                let _ = greeting.refuse(Refusal::Veil, why).await;
                return Err(End::Lost(why.into()));
            }
            Begun::Yields => return self.take_in(link, greeting, id, place, name).await,
            Begun::Not(why) => {
                let _ = greeting.refuse(Refusal::Unavailable, &why).await;
                return Err(End::Lost(why));
            }
        };
        if verdict == Verdict::Diverged {
            let text = "both sides have a history of their own; an operator must choose one";
            let _ = greeting.refuse(Refusal::Diverged, text).await;
            return Err(End::Diverged(text.into()));
        }
        if verdict.needs_ledger() && !tokio::task::block_in_place(|| self.tap.checkpoint()) {
            self.tap.core().link_lost(id);
            let _ = greeting.refuse(Refusal::Unavailable, "the ledger fails").await;
            return Err(End::Lost("the ledger cannot be written".into()));
        }
        let ours = self.hello(id, name);
        let opened = match greeting.accept(&ours).await {
            Ok(opened) => opened,
            Err(error) => {
                self.tap.core().link_lost(id);
                return Err(End::Lost(report(&error)));
            }
        };
        if place.view.connected(link.remote_address()) {
            tracing::info!(group = %self.config.name, peer = place.view.name(), ?verdict,
                durable = %hello.durable, "a replica said hello");
        }
        self.run(link, opened, id, place).await
    }

    /// The traffic of a link that the core was told of, until it ends.
    async fn run(
        &self,
        link: &Link,
        mut opened: Opened,
        id: ReplicaId,
        place: &ReplicaLink,
    ) -> Result<(), End> {
        let kept = |kept| *place.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        let (sender, receiver) = (&mut opened.sender, &mut opened.receiver);
        let end = tokio::select! {
            end = carry(&self.tap, id, &place.sent, &kept, sender, receiver) => report(&end),
            end = link.closed() => report(&end),
            () = self.ended() => "the group is closed here".to_owned(),
            () = place.newer.notified() => "a newer link of the same peer took over".to_owned(),
        };
        self.tap.core().link_lost(id);
        Err(End::Lost(end))
    }

    /// What a hello comes to, and carries it out.
    fn hear_hello(&self, id: ReplicaId, hello: &Hello) -> Result<Begun, End> {
        let fresh = random_generation().map_err(|error| End::Lost(error.to_string()))?;
        let mut core = self.tap.core();
        if let Some(why) = self.watched.stopped() {
            return Ok(Begun::Not(why));
        }
        if let Some(handed) = core.handed() {
            let heard =
                of_handover(handed, id, core.generation(), (&point_of(hello), &hello.lineage));
            if heard == Heard::Taken {
                core.show_taken();
            }
            if heard != Heard::NotTaken {
                return Ok(Begun::Not("the group's role goes to another agent".into()));
            }
            drop(core);
            // First: a note that stays would be believed by a later start.
            if let Err(why) = self.forget_handing() {
                return Ok(Begun::Not(why));
            }
            core = self.tap.core();
            core.take_back();
            self.tap.wake();
        }
        // In one breath with the verdict: content of one replica is wholly veiled or not.
        if hello.blind != core.replica(id).blind {
            return Ok(Begun::Veil);
        }
        if hello.layout != core.layout_hash() {
            return Ok(Begun::Layout);
        }
        if hello.yields {
            return Ok(Begun::Yields);
        }
        Ok(Begun::Judged(core.link_up(id, &point_of(hello), fresh)))
    }

    /// The note of a handover that did not happen goes.
    fn forget_handing(&self) -> Result<(), String> {
        let folder = self.ledger_folder().map_err(|it| it.to_string())?;
        handing::remove(&folder).map_err(|it| report(&it))?;
        tracing::warn!(group = %self.config.name, "the handover did not happen: this agent stays \
            the source, and applications may write");
        Ok(())
    }

    /// Takes in a peer that gives a history of its own up.
    async fn take_in(
        &self,
        link: &Link,
        greeting: Greeting,
        id: ReplicaId,
        place: &ReplicaLink,
        name: &Name,
    ) -> Result<(), End> {
        let hello = greeting.hello().clone();
        let theirs = Ancestry { generation: hello.generation, lineage: hello.lineage.clone() };
        if !may_follow(&self.ancestry(), &theirs) {
            let text = "both sides have no history in common";
            let _ = greeting.refuse(Refusal::Diverged, text).await;
            return Err(End::Diverged(text.into()));
        }
        let lost = |error: &dyn std::error::Error| End::Lost(report(error));
        let mut opened = greeting.accept(&self.hello(id, name)).await.map_err(|it| lost(&it))?;
        let changed = tokio::time::timeout(TELLS, self.hear_changed(&mut opened.receiver)).await;
        let changed = changed.map_err(|_| End::Lost("it does not tell what changed".into()))??;
        let extents = changed.count();
        let taken = self.tap.core().take_in(id, &point_of(&hello), &changed);
        let why = match taken {
            None => Some("no start is left to count above the peer's numbers"),
            Some(()) if tokio::task::block_in_place(|| self.tap.checkpoint()) => None,
            Some(()) => Some("the ledger cannot be written"),
        };
        if let Some(why) = why {
            self.tap.core().link_lost(id);
            let bye = Frame::Bye { code: Bye::Failed, text: why.to_owned() };
            let _ = opened.sender.send(&bye).await;
            return Err(End::Lost(why.to_owned()));
        }
        place.view.connected(link.remote_address());
        tracing::warn!(group = %self.config.name, peer = place.view.name(), extents,
            durable = %hello.durable, "a peer gives up a history of its own and follows");
        self.run(link, opened, id, place).await
    }

    async fn hear_changed(&self, receiver: &mut FrameReceiver) -> Result<DirtyMap, End> {
        let mut sets = DirtyMap::empty(self.tap.core().layout()).into_sets();
        loop {
            match receiver.next().await.map_err(|it| End::Lost(report(&it)))? {
                Some(Frame::Changed(changed)) => {
                    changed.runs.iter().for_each(|run| run.enter(&mut sets));
                    if changed.last {
                        return Ok(DirtyMap::from_sets(sets));
                    }
                }
                Some(Frame::Ping(_) | Frame::Pong(_)) => {}
                _ => return Err(End::Lost("the peer did not tell what changed".into())),
            }
        }
    }

    /// Where the history that is written here comes from.
    pub(in crate::pipeline) fn ancestry(&self) -> Ancestry {
        let core = self.tap.core();
        Ancestry { generation: core.generation(), lineage: core.lineage().to_vec() }
    }

    fn hello(&self, id: ReplicaId, name: &Name) -> Hello {
        let introduction = self.introduction(name);
        let core = self.tap.core();
        let replica = core.replica(id);
        Hello { applied: replica.durable, blind: replica.blind, ..introduction }
    }

    /// What it says of itself as a source.
    pub(in crate::pipeline) fn introduction(&self, name: &Name) -> Hello {
        let core = self.tap.core();
        Hello {
            group: self.config.id,
            role: Role::Source,
            consistent: true,
            damaged: false,
            fresh: false,
            blind: false,
            generation: core.generation(),
            start: core.start(),
            durable: core.issued(),
            applied: core.issued(),
            layout: core.layout_hash(),
            name: name.clone(),
            yields: false,
            lineage: core.lineage().to_vec(),
        }
    }

    /// Tells a replica that knows other volumes what the group consists of. It gets no record: it
    /// makes its volumes larger and comes again, or says why it cannot.
    async fn tell_layout(&self, greeting: Greeting, id: ReplicaId, name: &Name) -> End {
        let (ours, layout) = (self.hello(id, name), Arc::clone(self.tap.core().layout()));
        let telling = async {
            let Opened { mut sender, .. } =
                greeting.accept(&ours).await.map_err(|error| report(&error))?;
            let told = sender.send(&Frame::Layout((*layout).clone())).await;
            told.map_err(|error| report(&error))?;
            sender.finish().await.map_err(|error| report(&error))
        };
        End::Lost(match tokio::time::timeout(TOLD, telling).await {
            Ok(Err(why)) => why,
            Ok(Ok(())) | Err(_) => {
                "its volumes are not as large as those here; it was told, and says why if it cannot \
                 make them larger"
                    .to_owned()
            }
        })
    }
}

/// Why a hello is refused of which `theirs` says whether it is blind.
fn veil_differs(theirs: bool) -> &'static str {
    match theirs {
        true => {
            "the replica was paired as a blind one, and here it is none: remove the group there and \
             pair it again"
        }
        false => {
            "the replica was not paired as a blind one, and here it is one: remove the group there \
             and pair it again with a token of pair invite --blind"
        }
    }
}

fn point_of(hello: &Hello) -> ReplicaPoint {
    let Hello { fresh, generation, durable, damaged, .. } = *hello;
    ReplicaPoint { fresh, generation, durable, damaged }
}
