//! Rolling a replica's volumes back to a point, and to where they stood again.
//!
//! ```text
//! begin    checkpoint, snapshot of it (the way back), hold both snapshots, note: going
//! roll     what changed since the point's snapshot is written from it, each before-image first;
//!          then the journal's records up to the point; flush; note: there
//! undo     note: coming; the same from the way back; note: came
//! finish   let go of both snapshots, no note
//! ```
//!
//! The journal is appended to meanwhile and nothing of it is applied: the checkpoint stays where it
//! is. Every step may be repeated after a crash, for all that is written is absolute, and what it
//! overwrites is kept by the way back.

use std::ops::ControlFlow;

use vgship_base::extent::{BitSet, Extent};
use vgship_base::folder::Folder;
use vgship_base::ids::Seq;
use vgship_base::record::Record;
use vgship_snapshot::SnapshotError;
use vgship_snapshot::set::{Snapshot, SnapshotSet, View};

use super::applier::{Applier, ApplyError};
use super::coalesce::{Content, Writes};
use super::rolled::{self, Phase, Rolled, RolledError};
use crate::receive::admit::Point;
use crate::receive::journal::JournalError;

/// What holds the snapshots that a rollback needs.
pub const HOLDER: &str = "rollback";

/// What is compared and written at once. Unit: bytes.
const AT_ONCE: u64 = 4 << 20;

/// Why volumes cannot be rolled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RollbackError {
    /// A volume, the checkpoint or the snapshot store refused.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The note refused.
    #[error(transparent)]
    Rolled(#[from] RolledError),
    /// The snapshot store refused.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// The journal cannot be read.
    #[error("the journal cannot be read up to the point")]
    Journal(#[from] JournalError),
    /// A snapshot that is held is not there.
    #[error(
        "the snapshot of {0} is not there any more; if the volumes are rolled back, they cannot \
             be taken on from there: force a full resync"
    )]
    Gone(Seq),
    /// The journal ends before the point.
    #[error("the journal ends at {last}, before {wanted}")]
    Short {
        /// The last record that there is.
        last: Seq,
        /// The point's last record.
        wanted: Seq,
    },
    /// It is no replica's applier.
    #[error("snapshots are not kept here")]
    NoSnapshots,
    /// There is nothing to come back from.
    #[error("the volumes are not rolled back")]
    NotRolled,
}

impl RollbackError {
    /// Whether the state does not allow it, and nothing has changed.
    pub fn is_refusal(&self) -> bool {
        match self {
            RollbackError::Snapshots(error) => error.is_refusal(),
            RollbackError::Gone(_) | RollbackError::NotRolled => true,
            _ => false,
        }
    }

    /// Whether the point cannot be reached, however often that is tried.
    pub const fn is_final(&self) -> bool {
        match self {
            RollbackError::Gone(_) | RollbackError::Short { .. } | RollbackError::Journal(_) => {
                true
            }
            // What the point's snapshot needs is damaged, or sealed with a key that is no more.
            RollbackError::Snapshots(error)
            | RollbackError::Apply(ApplyError::Snapshots(error)) => error.is_lost(),
            _ => false,
        }
    }
}

/// How far the snapshot's part is. Unit: extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Compared, and written where they differ.
    pub done: u64,
    /// To be compared.
    pub of: u64,
}

/// A point that volumes are to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The seq of the snapshot that it builds on.
    pub base: Seq,
    /// Where the stream stood there. Only its generation, seq and clock count.
    pub point: Point,
}

impl Target {
    fn noted(&self, from: Seq, since: u64) -> Rolled {
        Rolled {
            phase: Phase::Going,
            broken: false,
            generation: self.point.generation.unwrap_or_default(),
            from,
            base: self.base,
            wanted: self.point.seq,
            clock: self.point.clock,
            since,
        }
    }
}

/// Begins: from here on nothing of the journal may be applied before [`finish`].
///
/// Durable: the way back, and that the volumes go to `target`, once this has returned.
///
/// # Errors
/// [`RollbackError::Gone`] and refusals of the snapshot store have changed nothing.
pub fn begin(
    applier: &mut Applier,
    folder: &dyn Folder,
    point: &Point,
    target: &Target,
    since: u64,
) -> Result<Rolled, RollbackError> {
    applier.checkpoint(folder, point)?;
    let keeper = applier.keeper().ok_or(RollbackError::NoSnapshots)?;
    let base = at(keeper.set(), target.base)?;
    keeper.set().hold(base.name.as_str(), HOLDER)?;
    let way_back = keeper.way_back()?;
    keeper.set().hold(way_back.name.as_str(), HOLDER)?;
    let rolled = target.noted(way_back.seq, since);
    rolled::store(folder, &rolled)?;
    Ok(rolled)
}

/// Turns a rollback to another point; it begins anew.
///
/// Durable: that, once this has returned.
pub fn turn(
    set: &SnapshotSet,
    folder: &dyn Folder,
    now: &Rolled,
    target: &Target,
    since: u64,
) -> Result<Rolled, RollbackError> {
    set.hold(at(set, target.base)?.name.as_str(), HOLDER)?;
    let next = Rolled { broken: now.broken, ..target.noted(now.from, since) };
    rolled::store(folder, &next)?;
    if now.base != next.base && now.base != next.from {
        set.release(now.base, HOLDER)?;
    }
    Ok(next)
}

/// Writes what the volumes are to hold by `rolled`, and notes that they do. `records` are the
/// journal's behind the point's snapshot. Whether it is done: `tell` may break off, and the same is
/// begun anew later.
///
/// # Errors
/// [`SnapshotError::NoRoom`] may be tried again; after any other, open the replica anew.
pub fn roll(
    applier: &mut Applier,
    folder: &dyn Folder,
    rolled: &Rolled,
    records: impl Iterator<Item = Result<Vec<Record>, JournalError>>,
    tell: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<Option<Rolled>, RollbackError> {
    let (phase, seq, wanted) = match rolled.phase {
        Phase::Going => (Phase::There, rolled.base, Some(rolled.wanted)),
        // The way back holds all that the volumes held, and needs no journal, which may be trimmed
        // up to there, or damaged.
        Phase::Coming => (Phase::Came, rolled.from, None),
        Phase::There | Phase::Came => return Ok(Some(*rolled)),
    };
    let set = std::sync::Arc::clone(applier.keeper().ok_or(RollbackError::NoSnapshots)?.set());
    let base = at(&set, seq)?;
    let (view, changed) = (set.view(&base)?, set.changed_since(seq)?);
    let layout = std::sync::Arc::clone(view.layout());
    let part = usize::try_from((AT_ONCE / layout.extent.bytes()).max(1)).unwrap_or(1);
    let mut step = Step { done: 0, of: changed.iter().map(BitSet::count).sum() };
    for (volume, changed) in layout.ids().zip(&changed) {
        // What volumes have grown by since is no part of the point, and stays.
        let known = layout.extent.count(layout.volumes[volume.index()].bytes);
        let mut left = changed.iter().take_while(|&index| index < known);
        loop {
            let turn: Vec<Extent> =
                left.by_ref().take(part).map(|index| Extent { volume, index }).collect();
            if tell(step).is_break() {
                return Ok(None);
            }
            if turn.is_empty() {
                break;
            }
            write_back(applier, &view, &turn)?;
            step.done += turn.len() as u64;
        }
    }
    if let Some(wanted) = wanted.filter(|&wanted| wanted > base.point)
        && !forward(applier, base.point, wanted, records, &mut || tell(step))?
    {
        return Ok(None);
    }
    applier.flush_touched()?;
    let next = Rolled { phase, ..*rolled };
    rolled::store(folder, &next)?;
    Ok(Some(next))
}

/// The volumes go to where they stood: the rollback is over once they are there.
///
/// Durable: that, once this has returned.
pub fn undo(folder: &dyn Folder, rolled: &Rolled) -> Result<Rolled, RolledError> {
    let phase = if rolled.phase == Phase::Came { Phase::Came } else { Phase::Coming };
    let next = Rolled { phase, ..*rolled };
    rolled::store(folder, &next)?;
    Ok(next)
}

/// Clears away what is left of a rollback that came back. What the checkpoint says of lost records
/// is durable by now.
pub fn finish(
    set: &SnapshotSet,
    folder: &dyn Folder,
    rolled: &Rolled,
) -> Result<(), RollbackError> {
    rolled::store(folder, &Rolled { broken: false, ..*rolled })?;
    let_go(set)?;
    Ok(rolled::remove(folder)?)
}

/// Lets go of all snapshots that a rollback held, also of one that ended before its note: none is
/// under way.
pub fn let_go(set: &SnapshotSet) -> Result<(), SnapshotError> {
    let held = set.list_costs()?.into_iter();
    let held = held.filter(|it| it.holders.iter().any(|holder| holder == HOLDER));
    held.map(|it| it.snapshot.seq).try_for_each(|seq| set.release(seq, HOLDER))?;
    // A way back that holds no consistent point is of no use to anybody else.
    let mut torn = set.list()?.into_iter().filter(|it| it.torn);
    torn.try_for_each(|it| {
        // Whoever pinned it meant another.
        if it.pinned {
            set.pin(it.name.as_str(), false)?;
        }
        set.delete(it.name.as_str()).map(drop)
    })
}

fn at(set: &SnapshotSet, seq: Seq) -> Result<Snapshot, RollbackError> {
    set.list()?.into_iter().find(|it| it.seq == seq).ok_or(RollbackError::Gone(seq))
}

/// Writes extents as a snapshot has them.
fn write_back(applier: &mut Applier, view: &View, extents: &[Extent]) -> Result<(), RollbackError> {
    let mut writes = Writes::new();
    for &extent in extents {
        let Some(span) = view.layout().span(extent) else { continue };
        let mut content = vec![0; usize::try_from(span.len).expect("an extent fits memory")];
        view.read(extent.volume, span.offset, &mut content)?;
        if applier.holds(extent.volume, span, &content)? {
            continue;
        }
        let content = match vgship_base::bytes::is_zero(&content) {
            true => Content::Zero,
            false => Content::Data(content.into()),
        };
        applier.put(&mut writes, extent.volume, span, content);
    }
    Ok(applier.overwrite(&writes)?)
}

/// Writes the records behind `after` up to `wanted`. Whether it came that far.
fn forward(
    applier: &mut Applier,
    after: Seq,
    wanted: Seq,
    records: impl Iterator<Item = Result<Vec<Record>, JournalError>>,
    tell: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<bool, RollbackError> {
    let mut last = after;
    for batch in records {
        if tell().is_break() {
            return Ok(false);
        }
        let mut batch = batch?;
        batch.retain(|record| record.seq <= wanted);
        let whole = batch.last().is_none_or(|record| record.seq >= wanted);
        last = batch.last().map_or(wanted, |record| record.seq);
        let writes = applier.writes_of(&batch);
        applier.overwrite(&writes)?;
        if whole {
            break;
        }
    }
    if last < wanted { Err(RollbackError::Short { last, wanted }) } else { Ok(true) }
}
