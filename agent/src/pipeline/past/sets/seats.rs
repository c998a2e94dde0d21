//! Where a coordinator reaches a member: its source in this agent, or over the link to it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender, channel};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::mpsc as link;
use vgship_base::ids::{Generation, GroupId, Seq};

use super::member::{Ears, Member, text};
use crate::api::ControlError;
use crate::capture::io::report;
use crate::home::Period;
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::source::SourceGroup;
use crate::quiesce::io::{Hooks, Stream, hold_conducted, own_program};
use crate::quiesce::told;
use crate::sets::core::{Input, Party};
use crate::wire::io::{Link, Orders};
use crate::wire::orders::{Failure, Order, Said};

/// Orders that may wait for a link; a member gets fewer in all.
const ORDERS: usize = 8;

/// A place at which somebody takes orders. Dropping it ends that: who is not done gives up.
pub(super) enum Seat {
    /// In this agent.
    Here(Sender<Order>),
    /// Over a link.
    There(link::Sender<Order>),
}

impl Seat {
    /// Gives an order. One that cannot be given is one to somebody who is lost, which is said.
    pub(super) fn order(&self, order: Order) {
        match self {
            Seat::Here(to) => drop(to.send(order)),
            Seat::There(to) => drop(to.try_send(order)),
        }
    }

    /// A member's. Must be called inside the runtime.
    ///
    /// # Errors
    /// There is nobody now who would take orders.
    pub(super) fn open(
        agent: &Arc<Inner>,
        group: &Group,
        party: Party,
        tell: &Sender<Input>,
    ) -> Result<Seat, ControlError> {
        match group {
            Group::Source(source) => here(agent, source, party, tell.clone()),
            Group::Replica(replica) => {
                let link = agent.link_to(replica.peer).ok_or_else(|| {
                    let (group, source) = (&replica.config.name, replica.view.name());
                    ControlError::failed(format!(
                        "group {group} has no link to its source {source}"
                    ))
                    .hint(format!("wait for it with: vgship wait {group} --for connected"))
                })?;
                let (to, orders) = link::channel(ORDERS);
                Handle::current().spawn(there(
                    link,
                    replica.config.id,
                    orders,
                    party,
                    tell.clone(),
                ));
                Ok(Seat::There(to))
            }
            Group::Failed { error, .. } => Err(error.clone()),
        }
    }

    /// That of a set's own commands.
    pub(super) fn opener(
        hooks: Hooks,
        party: Party,
        tell: &Sender<Input>,
    ) -> Result<Seat, ControlError> {
        let tell = tell.clone();
        begin("set", move |orders| {
            let say = |said| drop(tell.send(Input::Said(party, said)));
            if let Err(failure) = open_the_way(&hooks, orders, &say) {
                say(Said::Failed(failure));
            }
        })
    }
}

/// Begins a thread that takes orders.
fn begin(
    name: &str,
    work: impl FnOnce(&mpsc::Receiver<Order>) + Send + 'static,
) -> Result<Seat, ControlError> {
    let (to, orders) = channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&orders));
    thread.map_err(|error| ControlError::failed(format!("cannot start a thread: {error}")))?;
    Ok(Seat::Here(to))
}

fn here(
    agent: &Arc<Inner>,
    source: &Arc<SourceGroup>,
    party: Party,
    tell: Sender<Input>,
) -> Result<Seat, ControlError> {
    let (agent, source) = (Arc::clone(agent), Arc::clone(source));
    begin("member", move |orders| {
        let say = |said| drop(tell.send(Input::Said(party, said)));
        Member { agent: &agent, source: &source, asker: None, orders, say: &say }.serve();
        drop(tell.send(Input::Lost(party, "it has ended".to_owned())));
    })
}

async fn there(
    link: Link,
    group: GroupId,
    mut orders: link::Receiver<Order>,
    party: Party,
    tell: Sender<Input>,
) {
    let lost = |why: String| drop(tell.send(Input::Lost(party, why)));
    let Orders { mut sender, mut receiver } = match link.open_orders(group).await {
        Ok(opened) => opened,
        Err(error) => return lost(report(&error)),
    };
    let heard = tell.clone();
    // A task of its own: a message must not be dropped half way.
    let hearing = tokio::spawn(async move {
        let ended = loop {
            match receiver.said().await {
                Ok(said) => drop(heard.send(Input::Said(party, said))),
                Err(error) => break report(&error),
            }
        };
        let why = format!("its source is not heard of any more: {ended}");
        drop(heard.send(Input::Lost(party, why)));
    });
    while let Some(order) = orders.recv().await {
        if let Err(error) = sender.order(&order).await {
            lost(format!("its source cannot be told: {}", report(&error)));
            break;
        }
    }
    // What was ordered last still arrives; then the member sees the end.
    sender.finish().await;
    hearing.abort();
}

/// Into which no marker goes.
struct NoStream;

impl Stream for NoStream {
    fn mark(&mut self) -> bool {
        true
    }

    fn take_back(&mut self) {}
}

/// Holds what a set's own commands freeze for as long as the members are at work.
fn open_the_way(
    hooks: &Hooks,
    orders: &mpsc::Receiver<Order>,
    say: &dyn Fn(Said),
) -> Result<(), Failure> {
    if !matches!(orders.recv(), Ok(Order::Begin { .. })) {
        return Err(Failure::plain("it was given up"));
    }
    let guard = own_program().map_err(|it| Failure::plain(it.to_string()))?;
    let seen = Rc::new(Cell::new(Some(Seq::ZERO)));
    let mut ears = Ears { orders, say, generation: Generation::default(), seen, is_lost: false };
    let held = hold_conducted(hooks, &guard, &mut NoStream, &mut ears);
    match told(&held, &hooks.group, &hooks.thaw, Period(hooks.hold)) {
        None => {
            say(Said::Released { held: u32::try_from(held.outcome.held).unwrap_or(u32::MAX) });
            Ok(())
        }
        Some(error) => {
            let frozen = held.outcome.frozen;
            if frozen {
                let hint = error.hint.clone().unwrap_or_default();
                tracing::error!(set = %hooks.group, %hint, "ALERT: {error}");
            }
            Err(Failure { late: false, frozen, text: text(&error) })
        }
    }
}
