//! Application writes: a range lock, a mark, a seq, a place in every outbox or map; the LV; the end.

use bytes::Bytes;
use vgship_base::extent::Extent;
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::record::{Record, ResyncReason, Target};
use vgship_base::units::Span;

use super::ready::{Ready, bodies};
use super::{After, Overflow, Source};
use crate::capture::activity::{Barrier, Completion, Region, Stable};
use crate::outbox::queue::Room;
use crate::ship::replica::Flow;

/// A write or a zeroing that an application asked for. Its bounds were checked.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which volume.
    pub volume: VolumeId,
    /// Which bytes; not empty.
    pub span: Span,
    /// The new content, as long as the span; `None` for zeroes.
    pub data: Option<Bytes>,
}

/// The duty to report how a write on the LV ended, with [`Source::end`].
#[derive(Debug)]
#[must_use = "a write that is never ended keeps its range locked"]
pub struct Ticket {
    volume: VolumeId,
    span: Span,
    /// What had been written when it began, and how many flushes had failed.
    begun: Barrier,
    /// The last seq that the write took.
    pub seq: Seq,
}

/// Whether a write may go to the LV now.
#[derive(Debug)]
pub enum Begin {
    /// It may; it has its seq.
    Go(Ticket),
    /// Its regions must be marked first: see [`Source::wanted_marks`].
    Mark,
    /// An overlapping write is under way.
    Busy,
    /// An outbox has no room; it will have some when the spill or the link has taken some.
    Room,
    /// Its hashes are needed, or its veiled data: see [`Source::wanted`].
    Ready,
    /// A replica is too far behind: ask again after [`Source::pace`] was told of a later time.
    Pace,
    /// The group gives its role away: the application gets an error.
    Fenced,
}

impl Source {
    /// A write wants to go to the LV. `ready` is what [`Change::ready`] computed, needed when
    /// [`Begin::Ready`] says so; `patient` is whether it may wait for room in an outbox.
    pub fn begin(&mut self, change: &Change, ready: Option<&Ready>, patient: bool) -> Begin {
        let (volume, span) = (change.volume, change.span);
        assert!(self.layout.holds(volume, span), "the tap checks bounds");
        if self.giving.fenced {
            return Begin::Fenced;
        }
        if self.locks.blocked(volume, span) {
            return Begin::Busy;
        }
        if !self.activity.ready(volume, span) {
            return Begin::Mark;
        }
        if !self.is_ready(change, ready) {
            return Begin::Ready;
        }
        if !self.is_in_pace() {
            return Begin::Pace;
        }
        if !self.make_room(change.data.as_ref().map_or(0, Bytes::len) as u64 + 256, patient) {
            return Begin::Room;
        }
        self.ground_what_cannot_be_veiled(change);
        self.locks.lock(volume, span, self.last.next());
        let (mut plain, mut veiled) = Ready::pieces(change, ready);
        for body in bodies(volume, span, change.data.as_ref()) {
            self.last = self.last.next();
            let record = |body| Record { seq: self.last, target: Target::All, body };
            let (plain, hash) = (record(body), plain.next());
            let veiled = veiled.next().map(|(body, hash)| (record(body), hash));
            for replica in &mut self.replicas {
                replica.pace.spend(plain.encoded_len() as u64);
                match &veiled {
                    Some((record, hash)) if replica.blind => {
                        replica.take(&self.layout, record, Some(*hash));
                    }
                    _ => {
                        let shown = replica.blind && replica.flow == Flow::Stream;
                        assert!(!shown || change.data.is_none(), "a blind replica gets no content");
                        replica.take(&self.layout, &plain, hash);
                    }
                }
            }
        }
        self.activity.begin(volume, span, self.last, self.now);
        let begun = self.activity.barrier(volume);
        Begin::Go(Ticket { volume, span, begun, seq: self.last })
    }

    pub(super) fn make_room(&mut self, bytes: u64, patient: bool) -> bool {
        let last = self.last;
        for replica in self.replicas.iter_mut().filter(|replica| replica.flow == Flow::Stream) {
            match (replica.outbox.room(bytes), self.policy.overflow) {
                (Room::Free, _) => {}
                (Room::Soon, Overflow::Map) if !patient => {
                    replica.collapse(&self.layout, last, ResyncReason::Overflow);
                }
                (Room::Full, Overflow::Map) => {
                    replica.collapse(&self.layout, last, ResyncReason::Overflow);
                }
                // Nobody waits for a replica that an operator stopped.
                (_, Overflow::Stall) if replica.paused => {
                    replica.collapse(&self.layout, last, ResyncReason::Overflow);
                }
                (Room::Soon, _) | (Room::Full, Overflow::Stall) => return false,
            }
        }
        true
    }

    pub(super) fn bump(&mut self, volume: VolumeId, span: Span) {
        let (first, end) = self.layout.extent.touched(span);
        (first..end).for_each(|index| self.versions.bump(Extent { volume, index }));
    }

    /// The write of a ticket ended on the LV. After a failure its extents are dirty for every
    /// replica until a resync has read them back (R8). Returns what is left to do before the
    /// application is told.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is consumed by its one report")]
    pub fn end(&mut self, ticket: Ticket, written: bool) -> After {
        let Ticket { volume, span, begun, .. } = ticket;
        self.locks.unlock(volume, span);
        self.bump(volume, span);
        self.activity.end(volume, span);
        if !written {
            for replica in &mut self.replicas {
                replica.taint(&self.layout, volume, span);
            }
            return After::Done;
        }
        if self.activity.stable(volume, begun) == Stable::Lost {
            return After::Lost;
        }
        self.after(self.activity.barrier(volume))
    }

    /// Regions to be marked in the ledger; then call [`Source::marked`].
    pub fn wanted_marks(&self) -> Vec<Region> {
        self.activity.wanted()
    }

    /// These regions are marked durably.
    pub fn marked(&mut self, regions: &[Region]) {
        self.activity.mark(regions, self.now);
    }

    /// What a flush must cover for all that is written to this volume by now.
    pub fn barrier(&self, volume: VolumeId) -> Barrier {
        self.activity.barrier(volume)
    }

    /// What became of the writes before a barrier.
    pub fn stable(&self, volume: VolumeId, barrier: Barrier) -> Stable {
        self.activity.stable(volume, barrier)
    }

    /// Whether a flush of this volume failed of which no client was told: the agent makes some of
    /// its own. The caller tells one now, whose flush proves nothing.
    pub fn owes_error(&mut self, volume: VolumeId) -> bool {
        self.activity.owes_error(volume)
    }

    /// What a flush of this volume that begins now covers.
    pub fn flush_begins(&self, volume: VolumeId) -> Completion {
        self.activity.completed(volume)
    }

    /// A flush ended. After a failure everything written since the last good one is dirty (R8).
    pub fn flush_ended(&mut self, volume: VolumeId, covers: Completion, flushed: bool) {
        if flushed {
            self.activity.flushed(volume, covers);
            return;
        }
        self.activity.flush_failed(volume);
        for region in self.activity.unflushed(volume) {
            let Some(span) = self.clip(region) else { continue };
            for replica in &mut self.replicas {
                replica.taint(&self.layout, volume, span);
            }
        }
    }
}
