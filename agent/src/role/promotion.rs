//! A replica's files become a source's. Everything is prepared beside what the replica needs; the
//! caller then changes the group's configuration, and that is what counts. A crash before it leaves
//! a replica as it was.

use std::sync::Arc;

use vgship_base::disk::SharedDisk;
use vgship_base::folder::{Folder, SharedFolder};
use vgship_base::ids::{Generation, GroupId, Name, PeerId, Seq, Start};
use vgship_base::layout::Layout;
use vgship_base::record::Record;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::seal::KeyRing;
use vgship_snapshot::set::{NewSnapshot, Origin, Parts, Preserver, SnapshotSet};

use super::note::NoteError;
use super::{ancestry, yields};
use crate::apply::checkpoint::{self, CheckpointError};
use crate::apply::rolled::{self, RolledError};
use crate::capture::ledger::{Ledger, LedgerError};
use crate::capture::ledger_format::LedgerState;
use crate::capture::source::former_source;
use crate::receive::admit::Point;
use crate::receive::journal::{Journal, JournalError};
use crate::ship::dirty::DirtyMap;

/// Why a replica cannot become a source, or a source a replica. It is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Inside a resync, or before the first: what the volumes hold is no point of any history.
    #[error("the volumes hold no consistent point")]
    Inconsistent,
    /// The numbers of starts have run out.
    #[error("no start is left to count above the source's")]
    Worn,
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Whether the volumes are rolled back is not known.
    #[error(transparent)]
    Rolled(#[from] RolledError),
    /// The ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A note cannot be read or written.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The snapshot store failed.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// What an earlier life left cannot be removed.
    #[error("cannot remove what an earlier life left")]
    Old(#[source] std::io::Error),
}

/// Where a group's files are, and its volumes; all of them closed elsewhere.
pub struct Place {
    /// The group.
    pub group: GroupId,
    /// Its volumes.
    pub layout: Arc<Layout>,
    /// The volumes' disks, in the layout's order.
    pub volumes: Vec<SharedDisk>,
    /// What a replica keeps beside its journal.
    pub replica: SharedFolder,
    /// The replica's journal.
    pub journal: SharedFolder,
    /// What a source keeps.
    pub source: SharedFolder,
    /// The snapshot store.
    pub snapshots: SharedFolder,
    /// Of the snapshot store.
    pub keys: KeyRing,
    /// This machine's wall clock. Unit: microseconds since 1970.
    pub now: u64,
}

/// What becomes of a replica.
pub struct Promotion {
    /// The history that begins.
    pub generation: Generation,
    /// The record behind which it begins; without one, where the volumes stand.
    pub fork: Option<Seq>,
    /// Whom it followed.
    pub peer: Option<PeerId>,
}

/// Where a new history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The history before.
    pub from: Generation,
    /// The last record that was kept of it.
    pub fork: Seq,
    /// The source's clock there. Unit: microseconds since 1970.
    pub clock: u64,
}

impl Place {
    pub(super) fn set(&self) -> Result<Arc<SnapshotSet>, SnapshotError> {
        SnapshotSet::open(Parts {
            folder: Arc::clone(&self.snapshots),
            keys: self.keys.clone(),
            group: self.group,
            layout: Arc::clone(&self.layout),
            volumes: self.volumes.clone(),
            pack_bytes: None,
        })
    }

    /// Takes and pins a snapshot of what the volumes hold, outside of any stream. What an earlier
    /// try took by this name goes, and what was taken of this very place: it holds the same.
    pub(super) fn take(
        &self,
        set: &Arc<SnapshotSet>,
        name: &Name,
        (seq, generation): (Seq, Generation),
    ) -> Result<(), SnapshotError> {
        for found in set.list()?.into_iter().filter(|it| it.seq == seq || it.name == *name) {
            set.pin(found.name.as_str(), false)?;
            set.delete(found.name.as_str())?;
        }
        let new = NewSnapshot {
            seq,
            name: name.clone(),
            origin: Origin::Manual,
            guards: false,
            quiesced: false,
            torn: false,
            clock: self.now,
            taken: self.now,
            generation,
            point: seq,
        };
        let mut preserver = Preserver::new(Arc::clone(set), 1, seq)?;
        if preserver.take(&new)?.is_none() {
            preserver.take_again(&new)?;
        }
        set.pin(name.as_str(), true)?;
        Ok(())
    }
}

impl Promotion {
    /// Prepares a source in `place`, whose replica is closed. A snapshot, `fork-GEN`, is taken of
    /// where the history begins: the way back to it, and what is preserved from now on has its era.
    ///
    /// Durable: once this has returned; it counts when the group's configuration says so.
    pub fn prepare(&self, place: &Place) -> Result<Promoted, ChangeError> {
        let point = checkpoint::load(&*place.replica)?;
        let rolled = rolled::load(&*place.replica)?;
        let stood = point.unwrap_or(Point::FRESH);
        let stands = rolled.map_or(stood, |it| Point {
            generation: Some(it.generation),
            seq: it.wanted,
            chain: None,
            window: None,
            clock: it.clock,
        });
        let from = stands.generation.filter(|_| stands.consistent());
        let from = from.ok_or(ChangeError::Inconsistent)?;
        let fork = self.fork.unwrap_or(stands.seq);
        // What it received and did not apply counts too: the source took it for arrived.
        let (last, mut changed) = unapplied(place, stood.seq)?;
        let above = last.max(fork).start();
        let first = above.0.checked_add(1).filter(|it| *it < u16::MAX).ok_or(ChangeError::Worn)?;
        let set = place.set()?;
        // Behind all that the store has of the history before, and before all of the new one.
        let begins = (Seq::before(Start(first)), self.generation);
        place.take(&set, &fork_name(self.generation), begins)?;
        if let Some(it) = rolled {
            changed.join(&DirtyMap::from_sets(set.changed_since(it.from)?));
        }
        drop(set);
        let of = stood.generation.unwrap_or(from);
        let given_up = yields::load(&*place.replica, of)?;
        if let Some(given_up) = &given_up {
            // Whom it was to be told to did not hear it, or not durably: now this side must know.
            let mut sets = changed.into_sets();
            given_up.changed.iter().for_each(|run| run.enter(&mut sets));
            changed = DirtyMap::from_sets(sets);
        }
        let known = ancestry::load(&*place.replica)?;
        // The peer holds what was kept, unless that is of a history that it never followed.
        let has = |(it, kept): &(Generation, Seq)| *it == from && *kept >= fork;
        let shared = given_up.is_none() && (of == from || known.before(of).iter().any(has));
        let acked = if shared { fork } else { Seq::ZERO };
        let former = |peer| former_source(peer, acked, &changed);
        let state = LedgerState {
            group: place.group,
            generation: self.generation,
            lineage: ancestry::before(&known, from, fork),
            start: above,
            clean: true,
            volumes: place.layout.volumes.iter().map(|volume| volume.bytes).collect(),
            replicas: self.peer.into_iter().map(former).collect(),
            marked: Vec::new(),
        };
        clear(&*place.source).map_err(ChangeError::Old)?;
        let (mut ledger, _) = Ledger::load(Arc::clone(&place.source), &place.layout)?;
        ledger.checkpoint(&state)?;
        Ok(Promoted { from, fork, clock: stands.clock })
    }
}

/// How far the journal reaches beyond what the volumes stand at, and what that would change in them:
/// all that its source knows of these records is that they arrived.
fn unapplied(place: &Place, stands: Seq) -> Result<(Seq, DirtyMap), ChangeError> {
    let (folder, keys) = (Arc::clone(&place.journal), place.keys.clone());
    let (journal, found) = Journal::recover(folder, keys, place.group, stands)?;
    let mut changed = DirtyMap::empty(&place.layout);
    if found.damage.is_some_and(|damage| damage.promised) {
        changed.fill();
    }
    for batch in journal.replay(stands) {
        for (volume, span) in batch?.iter().filter_map(Record::changes) {
            changed.insert_span(&place.layout, volume, span);
        }
    }
    Ok((found.last.max(stands), changed))
}

/// What an earlier life left is of no use any more.
pub(super) fn clear(folder: &dyn Folder) -> std::io::Result<()> {
    for name in folder.list()? {
        folder.remove(&name)?;
    }
    folder.sync()
}

/// What the snapshot is called with which a generation begins.
pub fn fork_name(generation: Generation) -> Name {
    named("fork", generation)
}

pub(super) fn named(what: &str, generation: Generation) -> Name {
    let digits = generation.to_string();
    format!("{what}-{}", &digits[..8]).parse().expect("letters and digits")
}
