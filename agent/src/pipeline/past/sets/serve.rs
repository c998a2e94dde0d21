//! Streams of orders that peers opened.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use tokio::sync::mpsc;
use vgship_base::ids::PeerId;

use super::member::Member;
use crate::pipeline::agent::{Group, Inner};
use crate::wire::io::{Ordered, Orders};
use crate::wire::orders::{Failure, Said};

/// Answers that may wait for the link; a member says fewer in all.
const ANSWERS: usize = 16;

/// How long an answer may take to be read. Who reads none is lost.
const HEARING_PATIENCE: Duration = Duration::from_secs(5);

/// Does what a peer orders for a group of which it is a replica.
pub(in crate::pipeline) async fn serve(agent: Arc<Inner>, peer: PeerId, ordered: Ordered) {
    let Ordered { group, orders: Orders { mut sender, mut receiver } } = ordered;
    let (say, mut answers) = mpsc::channel(ANSWERS);
    let (give, orders) = channel();
    // A task of its own: a message must not be dropped half way. It ends with the stream, and with
    // it what the member hears.
    let hearing = tokio::spawn(async move {
        while let Ok(order) = receiver.order().await {
            if give.send(order).is_err() {
                return;
            }
        }
    });
    let refused = match (agent.group_by_id(group), agent.orders.try_acquire()) {
        (Some(Group::Source(source)), Ok(_permit)) => {
            let serving = Arc::clone(&agent);
            let working = tokio::task::spawn_blocking(move || {
                let say = |said| {
                    // Only a peer that does not read lets them wait; it is lost then.
                    let _ = say.try_send(said);
                };
                let (agent, source) = (&*serving, &*source);
                let member =
                    Member { agent, source, asker: Some(peer), orders: &orders, say: &say };
                member.serve();
            });
            while let Some(said) = answers.recv().await {
                let told = tokio::time::timeout(HEARING_PATIENCE, sender.say(&said)).await;
                if !matches!(told, Ok(Ok(()))) {
                    break;
                }
            }
            drop(answers);
            if working.await.is_err() {
                tracing::error!(%group, "an order of a set failed");
            }
            None
        }
        (Some(Group::Source(_)), Err(_)) => Some("its source has too many orders at once"),
        _ => Some("its source is not open"),
    };
    if let Some(why) = refused {
        // Who does not hear it sees the end of the stream.
        let refusal = Said::Failed(Failure::plain(why));
        let _ = tokio::time::timeout(HEARING_PATIENCE, sender.say(&refusal)).await;
    }
    let _ = tokio::time::timeout(HEARING_PATIENCE, sender.finish()).await;
    hearing.abort();
}
