//! Takes away what is left of snapshots that are going: those that were deleted, and those that were
//! not made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use vgship_base::ids::Name;

use super::seats::Seat;
use crate::api::ControlError;
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::past::points::snapshot_error;
use crate::pipeline::replica::ReplicaGroup;
use crate::sets::core::Input;
use crate::sets::record::{Part, Record, State};
use crate::wire::orders::{Change, Order, Said};

/// How often it is tried at least, while something is going.
const PAUSE: Duration = Duration::from_secs(5);

/// As many as are taken away at once: each holds a thread here, and one at each source.
const AT_ONCE: usize = 4;

/// How long a member may take to say that nothing is left, which is longer than it tries.
const ANSWER_PATIENCE: Duration = Duration::from_secs(130);

/// How often a command looks whether something is gone.
const LOOK: Duration = Duration::from_millis(10);

/// Works for as long as the agent runs.
pub(in crate::pipeline) async fn run(agent: Weak<Inner>) {
    let (mut work, mut under_way, mut last) = (JoinSet::new(), BTreeSet::new(), None);
    loop {
        let Some(here) = agent.upgrade() else { return };
        for (called, record) in in_turn(going(&here), last.as_ref()) {
            if under_way.len() < AT_ONCE && under_way.insert(called.clone()) {
                last = Some(called.clone());
                work.spawn(settle_apart(Arc::clone(&here), record, called));
            }
        }
        // One that has ended is not begun again before it may be of use.
        let again = tokio::time::Instant::now() + PAUSE;
        loop {
            tokio::select! {
                () = here.sets.kicked() => break,
                () = tokio::time::sleep_until(again) => break,
                Some(Ok(ended)) = work.join_next() => drop(under_way.remove(&ended)),
            }
        }
    }
}

/// Those that were not looked at for longest come first, so that one whose replicas are behind keeps
/// no other waiting for ever.
fn in_turn(mut going: BTreeMap<Name, Record>, last: Option<&Name>) -> Vec<(Name, Record)> {
    let mut later = last.map_or_else(BTreeMap::new, |last| going.split_off(last));
    let latest = last.and_then(|last| later.remove_entry(last));
    later.into_iter().chain(going).chain(latest).collect()
}

async fn settle_apart(agent: Arc<Inner>, record: Record, called: Name) -> Name {
    // One that panicked has said so; the next look comes.
    let _ = tokio::task::spawn_blocking(move || settle(&agent, record)).await;
    called
}

/// What is going, by what it is called on the members.
fn going(agent: &Inner) -> BTreeMap<Name, Record> {
    let all = agent.sets.all().into_iter().flat_map(|set| set.records.into_values());
    let going = all.filter(|record| record.state == State::Going);
    going.map(|record| (record.member_name(), record)).collect()
}

/// Waits until a snapshot is gone everywhere; if it is not by then, why.
pub(super) fn until_gone(agent: &Inner, record: &Record, patience: Duration) -> Result<(), String> {
    let since = Instant::now();
    agent.sets.kick();
    loop {
        let Ok(now) = agent.sets.record(&record.set, &record.name) else { return Ok(()) };
        if now.number != record.number {
            return Ok(()); // it is another one, of the same name
        }
        if since.elapsed() >= patience {
            let left = now.parts.iter().filter(|it| !it.settled).map(|it| it.name.to_string());
            return Err(left.collect::<Vec<_>>().join(", "));
        }
        thread::sleep(LOOK);
    }
}

/// Asks every member in which something may be left, all at once.
fn settle(agent: &Arc<Inner>, mut record: Record) {
    let name = record.member_name();
    let runtime = tokio::runtime::Handle::current();
    let answers: Vec<Result<(), String>> = thread::scope(|scope| {
        let ask = |part: &Part| {
            let (part, name, runtime) = (part.clone(), name.clone(), runtime.clone());
            scope.spawn(move || {
                let _inside = runtime.enter();
                if part.settled { Ok(()) } else { settle_part(agent, &part, &name) }
            })
        };
        let asked: Vec<_> = record.parts.iter().map(ask).collect();
        let died = |_| Err("the agent failed".to_owned());
        asked.into_iter().map(|it| it.join().unwrap_or_else(died)).collect()
    });
    let mut news = false;
    for (part, answer) in record.parts.iter_mut().zip(answers) {
        match answer {
            Ok(()) => news |= !std::mem::replace(&mut part.settled, true),
            Err(why) => {
                tracing::debug!(set = %record.set, snapshot = %record.name, group = %part.name, why,
                    "a snapshot of a set is not gone yet");
            }
        }
    }
    let noted = match record.parts.iter().all(|it| it.settled) {
        true => agent.sets.forget(&record),
        false if news => agent.sets.save(&record),
        false => Ok(()),
    };
    if let Err(error) = noted {
        tracing::warn!(set = %record.set, snapshot = %record.name, %error, "cannot be noted");
    }
}

/// Takes back what is here at once, then has the source take back what is, or may still come to be,
/// anywhere.
fn settle_part(agent: &Arc<Inner>, part: &Part, name: &Name) -> Result<(), String> {
    let Some(group) = agent.group_by_id(part.group) else {
        tracing::warn!(group = %part.name, snapshot = %name,
            "its group is not here any more: what there is of it elsewhere stays");
        return Ok(());
    };
    if let Group::Replica(replica) = &group {
        take_back_here(replica, name).map_err(|it| it.to_string())?;
    }
    let (tell, heard) = channel();
    let seat = Seat::open(agent, &group, 0, &tell).map_err(|it| it.to_string())?;
    drop(tell);
    seat.order(Order::Change(Change::TakeBack, name.clone()));
    loop {
        match heard.recv_timeout(ANSWER_PATIENCE) {
            Ok(Input::Said(_, Said::Done)) => return Ok(()),
            Ok(Input::Said(_, Said::Failed(failure))) => return Err(failure.text),
            Ok(Input::Lost(_, why)) => return Err(why),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return Err("its source does not answer".to_owned()),
            Err(RecvTimeoutError::Disconnected) => return Err("its source is lost".to_owned()),
        }
    }
}

fn take_back_here(replica: &ReplicaGroup, name: &Name) -> Result<(), ControlError> {
    let set = replica.snapshots().map_err(ControlError::failed)?;
    let all = set.list().map_err(|it| snapshot_error(&it))?;
    if all.iter().any(|it| it.name == *name) {
        set.disturb(name.as_str()).map_err(|it| snapshot_error(&it))?;
        set.delete(name.as_str()).map_err(|it| snapshot_error(&it))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn whoever_waited_longest_is_next() {
        let record = |it: &str| Record {
            state: State::Going,
            quiesced: false,
            time: 1,
            spread: 0,
            number: 1,
            set: name("s"),
            name: name(it),
            parts: Vec::new(),
        };
        let going = || ["a", "b", "c"].map(|it| (name(it), record(it))).into();
        let order = |last: Option<&str>| {
            let last = last.map(name);
            in_turn(going(), last.as_ref()).iter().map(|it| it.0.as_str()).collect::<String>()
        };
        assert_eq!([order(None), order(Some("a"))], ["abc", "bca"]);
        assert_eq!([order(Some("c")), order(Some("bb"))], ["abc", "cab"]);
    }
}
