//! What comes about without a command: a replica that was handed the role takes it, a source whose
//! handover was taken gives it up, and sources that meet say so.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use vgship_base::ids::{Name, PeerId};

use crate::api::ControlError;
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::source::SourceGroup;
use crate::role::hearing::took_handover;
use crate::role::meeting::{Ancestry, Meeting, meet};
use crate::wire::hello::Hello;

/// How often it is looked whether a role is to change.
const LOOK: Duration = Duration::from_millis(50);

/// How soon a change that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often a source asks those who should be its replicas, and are not there, what they are.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Runs for as long as the agent does.
pub(in crate::pipeline) async fn look_after(agent: Weak<Inner>) {
    let mut asked = Instant::now();
    let mut failed: BTreeMap<Name, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(agent) = agent.upgrade() else { return };
        failed.retain(|_, since| since.elapsed() < AGAIN);
        for group in agent.groups() {
            let name = group.config().name.clone();
            if failed.contains_key(&name) {
                continue;
            }
            if let Err(error) = agent.look_at_role(group).await {
                tracing::error!(group = %name, %error, "the group's role cannot change");
                failed.insert(name, Instant::now());
            }
        }
        if asked.elapsed() >= ASK_EVERY {
            asked = Instant::now();
            agent.ask_others();
        }
    }
}

impl Inner {
    async fn look_at_role(self: &Arc<Self>, group: Group) -> Result<(), ControlError> {
        let name = group.config().name.clone();
        match group {
            Group::Replica(replica) => {
                let Some(handed) = replica.look_at().ok().and_then(|view| view.handed) else {
                    return Ok(());
                };
                let _alone = self.removing.lock().await;
                let start = replica.settings().start;
                self.become_source(replica, handed.generation, Some(handed.seq)).await?;
                self.hook(&name, "start", start).await.map(drop)
            }
            Group::Source(source) => {
                let to = {
                    let core = source.tap.core();
                    let taken = core.handed().filter(|_| core.is_taken());
                    let Some(handed) = taken else { return Ok(()) };
                    core.replica(handed.to).peer
                };
                let _alone = self.removing.lock().await;
                self.become_replica(source, to, None).await
            }
            Group::Failed { .. } => Ok(()),
        }
    }

    /// Shows every source to the peers that should be its replicas and are not connected as such:
    /// they may have become a source themselves.
    fn ask_others(self: &Arc<Self>) {
        for group in self.groups() {
            let Group::Source(source) = group else { continue };
            for (_, place) in source.links().into_iter().filter(|(_, it)| !it.view.is_connected()) {
                let Some(link) = self.link_to(place.peer) else { continue };
                let ours = source.introduction(&self.config.name);
                // It is always refused: what counts is that the other side heard it.
                tokio::spawn(async move { drop(link.open(&ours).await) });
            }
        }
    }

    /// A peer shows that it is a source of a group of which this agent is one too.
    pub(in crate::pipeline) fn meet(&self, source: &SourceGroup, peer: PeerId, hello: &Hello) {
        let theirs = Ancestry { generation: hello.generation, lineage: hello.lineage.clone() };
        let meeting = meet(&source.ancestry(), &theirs);
        {
            let mut core = source.tap.core();
            let handed = core.handed().filter(|it| core.replica(it.to).peer == peer);
            if handed.is_some_and(|it| took_handover(it, meeting)) {
                core.show_taken();
                return;
            }
        }
        if !source.met(peer, meeting) {
            return;
        }
        let name = self.book.peer(peer).map_or_else(|| peer.to_string(), |it| it.name.to_string());
        let why = told(source.config.name.as_str(), &name, meeting);
        tracing::error!(group = %source.config.name, peer = name, "ALERT: {why}");
        let known = source.tap.core().find(peer);
        if let Some((_, place)) = source.links().into_iter().find(|(id, _)| Some(*id) == known) {
            place.view.diverged(&why, None);
        }
    }

    /// In a group, every peer has the role that this agent has not.
    pub(in crate::pipeline) fn set_book(&self, group: &crate::home::GroupConfig) {
        let role = group.role.other();
        for peer in self.book.peers() {
            let meant = group.peer.is_none_or(|it| it == peer.id);
            if !meant || !self.book.allows(peer.id, group.id, role.other()) {
                continue;
            }
            if let Err(error) = self.book.set_role(peer.id, group.id, role) {
                tracing::error!(group = %group.name, peer = %peer.name, %error,
                    "the book of peers cannot be changed: the peer is refused");
            }
        }
    }
}

/// What two sources are to each other, in words, and what to do.
pub(super) fn told(group: &str, peer: &str, meeting: Meeting) -> String {
    let choose = format!(
        "look at both sides: vgship preview failback {group}; the side whose history is given up \
         runs vgship failback {group} --generation GEN"
    );
    match meeting {
        Meeting::Same => format!(
            "{peer} is a source of the very same history: one of both is a copy of the other's \
             files; stop one for good"
        ),
        Meeting::Deposed(fork) => format!(
            "{peer} has been the source since {fork}, with a history of its own; what was written \
             here since is not there; {choose}"
        ),
        Meeting::Deposes(fork) => format!(
            "{peer} is a source still, with the history before {fork}; what was written there since \
             is not here; {choose}"
        ),
        Meeting::Apart(_, fork) => {
            format!(
                "{peer} and this agent both began a history of their own behind {fork}; {choose}"
            )
        }
        Meeting::Unrelated => {
            format!("{peer} is a source of this group, with a history that has nothing in common")
        }
    }
}
