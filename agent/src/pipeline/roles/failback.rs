//! Failback: a side that is a source beside another gives up what it wrote itself, and follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vgship_base::extent::BitSet;
use vgship_base::ids::{Name, PeerId};

use super::meeting::told;
use super::must_mean;
use super::record::Recorder;
use super::switchover::Aftermath;
use crate::api::ControlError;
use crate::api::roles::{FailbackPreview, FailbackRequest, GivenUp, OtherSource};
use crate::pipeline::agent::{Group, Inner};
use crate::pipeline::source::SourceGroup;
use crate::role::meeting::Meeting;
use crate::role::procedure::Procedure;
use crate::wire::changed::runs;

/// How long writes that have begun may take to end.
const QUIET: Duration = Duration::from_secs(30);

/// How long the other side may take until it ships.
const SHIPS: Duration = Duration::from_mins(1);

const LOOK: Duration = Duration::from_millis(5);

impl Inner {
    /// Gives up what was written here, and follows another side. To be called in a task of its own.
    pub(super) async fn failback(
        self: Arc<Self>,
        group: Name,
        request: FailbackRequest,
    ) -> Result<Procedure, ControlError> {
        let source = self.source_of(&group)?;
        let generation = source.ancestry().generation;
        must_mean(&group, generation, &request.generation)?;
        let (peer, meeting) = self.other_source(&source, request.follow.as_deref())?;
        self.refuse_clients(&source, request.force)?;
        let home = self.home.group(&group);
        let recorder = Recorder::begin(
            &self.procedures,
            home.folder(),
            ("failback", &self.config.name),
            &group,
            generation.to_string(),
        );
        recorder.fact("follows", &self.peer_name(peer));
        recorder.fact("relation", &format!("{meeting:?}"));
        let quiet = recorder.step("keep writes away", quiet(&source)).await;
        if let Err(error) = quiet {
            source.tap.core().fence(false);
            source.tap.wake();
            return recorder.end(Err(error));
        }
        let done = match self.give_up(source, peer, &recorder).await {
            Ok(()) => {
                let agent = Arc::clone(&self);
                let aftermath = Aftermath { agent, group, timeout: SHIPS, generation };
                recorder.step("follow the other side", aftermath.until_following()).await
            }
            Err(error) => Err(error),
        };
        recorder.end(done)
    }

    async fn give_up(
        self: &Arc<Self>,
        source: Arc<SourceGroup>,
        peer: PeerId,
        recorder: &Recorder,
    ) -> Result<(), ControlError> {
        let tap = &source.tap;
        let changed = {
            let mut core = tap.core();
            let id = core.find(peer).ok_or_else(|| {
                ControlError::refused("the peer is not known as a replica of this group")
            })?;
            core.differs(id)
        };
        let (extents, size) = (changed.count(), tap.core().layout().extent.bytes());
        recorder.fact("given up at most", &vgship_base::units::ByteLen(extents * size));
        let gives_up = Some(runs(changed.sets()));
        recorder
            .step("keep what is given up as a snapshot, and become a replica", async {
                let _alone = self.removing.lock().await;
                self.become_replica(source, peer, gives_up).await?;
                Ok(String::new())
            })
            .await
    }

    fn source_of(&self, group: &Name) -> Result<Arc<SourceGroup>, ControlError> {
        match self.group(group)? {
            Group::Source(source) => Ok(source),
            Group::Replica(_) => Err(ControlError::refused(format!(
                "group {group} is a replica here: it has no history of its own to give up"
            ))
            .hint("failback is run on the side that gives its history up, while it is a source")),
            Group::Failed { error, .. } => Err(error),
        }
    }

    fn peer_name(&self, peer: PeerId) -> String {
        self.book.peer(peer).map_or_else(|| peer.to_string(), |it| it.name.to_string())
    }

    fn other_source(
        &self,
        source: &SourceGroup,
        wanted: Option<&str>,
    ) -> Result<(PeerId, Meeting), ControlError> {
        let can = |meeting: &Meeting| !matches!(meeting, Meeting::Same | Meeting::Unrelated);
        let others: Vec<(PeerId, Meeting)> =
            source.meetings().into_iter().filter(|(_, meeting)| can(meeting)).collect();
        let named = |(peer, _): &&(PeerId, Meeting)| {
            wanted.is_none_or(|wanted| self.peer_name(*peer) == wanted)
        };
        let mut found = others.iter().filter(named);
        let group = &source.config.name;
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(*one),
            (Some(_), Some(_)) => {
                Err(ControlError::usage(format!("several peers are a source of group {group}"))
                    .hint("say which to follow: --follow NAME"))
            }
            (None, _) => Err(ControlError::refused(format!(
                "no connected peer is a source of group {group} with a history in common"
            ))
            .hint("see that the other agent runs and is reached: vgship status")),
        }
    }

    /// What a failback would give up.
    pub(super) fn preview_failback(&self, group: &Name) -> Result<FailbackPreview, ControlError> {
        let source = self.source_of(group)?;
        let peers = source.meetings().into_iter().map(|(peer, meeting)| {
            let name = self.peer_name(peer);
            OtherSource {
                relation: told(group.as_str(), &name, meeting),
                peer: name,
                volumes: given_up(&source, peer),
            }
        });
        Ok(FailbackPreview {
            group: group.to_string(),
            generation: source.ancestry().generation.to_string(),
            peers: peers.collect(),
        })
    }
}

/// Keeps writes away, and waits for those that have begun.
async fn quiet(source: &SourceGroup) -> Result<String, ControlError> {
    source.tap.core().fence(true);
    source.tap.wake();
    let since = Instant::now();
    while !source.tap.core().is_quiet() {
        if since.elapsed() >= QUIET {
            return Err(ControlError::timed_out("writes that had begun do not end"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(String::new())
}

fn given_up(source: &SourceGroup, peer: PeerId) -> Vec<GivenUp> {
    let mut core = source.tap.core();
    let layout = Arc::clone(core.layout());
    let Some(id) = core.find(peer) else { return Vec::new() };
    if core.replica(id).linked() {
        return Vec::new(); // it came back as a replica meanwhile
    }
    let sets = core.differs(id).into_sets();
    drop(core);
    let one = |(volume, set): (&vgship_base::layout::VolumeLayout, &BitSet)| GivenUp {
        name: volume.name.to_string(),
        bytes: volume.bytes,
        changed_bytes: (set.count() * layout.extent.bytes()).min(volume.bytes),
    };
    layout.volumes.iter().zip(&sets).map(one).collect()
}
