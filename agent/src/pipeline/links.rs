//! Links to peers: who calls whom, and which streams run over a link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vgship_base::ids::PeerId;

use super::agent::{Group, Inner};
use super::past;
use super::replica::ReplicaGroup;
use crate::capture::io::report;
use crate::wire::hello::Refusal;
use crate::wire::io::{Arrival, Arrivals, Heard, HelloError, Knock, Link};
use crate::wire::peers::Role;
use crate::wire::retry::Backoff;

/// How often it is looked whether something that had to wait can be logged.
const REMIND: Duration = Duration::from_secs(1);

/// Takes what comes in until the endpoint is closed.
pub(super) async fn arrivals(agent: Arc<Inner>, mut from: Arrivals) {
    while let Some(arrival) = from.next().await {
        match arrival {
            Arrival::Link(link) => {
                tokio::spawn(run(Arc::clone(&agent), link));
            }
            Arrival::Paired(paired) => {
                tracing::info!(peer = %paired.peer.name, group = %paired.name, "paired");
                let agent = Arc::clone(&agent);
                let added = tokio::task::spawn_blocking(move || {
                    agent.take_replica(paired.group, paired.peer.id, paired.peer.name.as_str())
                });
                if let Ok(Err(error)) = added.await {
                    tracing::error!(%error, "a paired replica cannot be served");
                }
            }
        }
    }
}

/// Opens a replica's stream over a link, if the link leads to its source.
pub(super) fn follow(agent: &Arc<Inner>, replica: &Arc<ReplicaGroup>, link: &Link) {
    if replica.peer == link.peer() {
        let (agent, replica, link) = (Arc::clone(agent), Arc::clone(replica), link.clone());
        tokio::spawn(async move { replica.follow(&link, &agent.config.name).await });
    }
}

/// Calls a peer again and again, for as long as it is in the book with an address.
pub(super) async fn call(agent: Arc<Inner>, peer: PeerId) {
    let mut retry = Backoff::new(u64::from_be_bytes([
        peer.0[0], peer.0[1], peer.0[2], peer.0[3], peer.0[4], peer.0[5], peer.0[6], peer.0[7],
    ]));
    let mut changes = agent.book.changes();
    loop {
        let known = agent.book.peer(peer);
        let Some(address) = known.as_ref().and_then(|known| known.address) else { return };
        let wait = match agent.endpoint().connect(address, peer).await {
            Ok(link) => {
                let since = Instant::now();
                run(Arc::clone(&agent), link.clone()).await;
                retry.after(link.closed().await.ended(since.elapsed()))
            }
            Err(error) => {
                let wait = retry.after(error.ended());
                agent.unreachable(peer, &report(&error), wait);
                wait
            }
        };
        // What an operator changes about the peer is tried at once.
        let changed =
            async { while agent.book.peer(peer) == known && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(wait, changed).await;
    }
}

/// Says what had to wait for its minute, for as long as the agent runs.
pub(super) async fn remind(agent: Arc<Inner>) {
    loop {
        tokio::time::sleep(REMIND).await;
        agent.turned_away.remind();
        for group in agent.groups() {
            match group {
                Group::Source(source) => {
                    source.links().iter().for_each(|(_, place)| place.view.remind());
                }
                Group::Replica(replica) => replica.view.remind(),
                Group::Failed { .. } => {}
            }
        }
    }
}

/// Runs all streams of a link until it ends: those of groups that this agent follows are opened
/// from here, the others come in.
async fn run(agent: Arc<Inner>, link: Link) {
    agent.link_stands(&link);
    for group in agent.groups() {
        if let Group::Replica(replica) = group {
            follow(&agent, &replica, &link);
        }
    }
    while let Ok(knock) = link.accept().await {
        tokio::spawn(answer(Arc::clone(&agent), link.clone(), knock));
    }
}

/// Serves the stream that a peer opened, or refuses it.
async fn answer(agent: Arc<Inner>, link: Link, knock: Knock) {
    let refused = |why: &str| {
        agent.turned_away.refused(link.peer(), link.remote_address(), why);
    };
    let greeting = match knock.hear().await {
        Ok(Heard::Hello(greeting)) => greeting,
        Ok(Heard::Orders(ordered)) => {
            return past::sets::serve::serve(agent, link.peer(), ordered).await;
        }
        // The link's own end is said elsewhere.
        Err(HelloError::Link(_)) => return,
        Err(error) => return refused(&report(&error)),
    };
    let group = greeting.hello().group;
    let (refusal, text) = match agent.group_by_id(group) {
        Some(Group::Source(source)) if greeting.hello().role == Role::Source => {
            agent.meet(&source, link.peer(), greeting.hello());
            let _ = greeting.refuse(Refusal::Role, "both sides are sources").await;
            return;
        }
        Some(Group::Source(source)) => {
            source.serve_link(&link, greeting, &agent.config.name).await;
            return;
        }
        Some(Group::Replica(_)) => (Refusal::Role, "both sides are replicas"),
        Some(Group::Failed { .. }) => (Refusal::Unavailable, "the group is not open"),
        None => (Refusal::NotAllowed, "the group is not known here"),
    };
    refused(&format!("group {group}: {text}"));
    // The refusal may not reach the peer; it asks again.
    let _ = greeting.refuse(refusal, text).await;
}
