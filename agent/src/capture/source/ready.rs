//! What is computed of a write outside of the core's lock, before it takes its place: hashes for the
//! chains, and the data as blind replicas get it.

use bytes::Bytes;
use vgship_base::ids::{ReplicaId, VolumeId};
use vgship_base::limits::PAYLOAD_MAX;
use vgship_base::record::{Body, Hash, ResyncReason};
use vgship_base::units::Span;
use vgship_snapshot::veil::{VeilKey, is_whole};

use super::{Change, Source};
use crate::ship::replica::Flow;

/// What replicas want computed of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Hashes, for somebody's chain.
    pub hashes: bool,
    /// The veiled data, for somebody's outbox.
    pub veil: bool,
}

impl Wants {
    /// Whether anything is wanted.
    pub const fn any(self) -> bool {
        self.hashes || self.veil
    }
}

/// What was computed of a change.
#[derive(Clone, Debug)]
pub struct Ready {
    /// BLAKE3 of each record's data.
    hashes: Vec<Hash>,
    /// The veiled data, and the hashes of its records.
    veiled: Option<(Bytes, Vec<Hash>)>,
}

/// The bodies of a change's records: pieces that fit a record each.
pub(super) fn bodies(
    volume: VolumeId,
    span: Span,
    data: Option<&Bytes>,
) -> impl Iterator<Item = Body> {
    let step = data.map_or(u64::MAX, |_| PAYLOAD_MAX.into());
    let starts = (0..span.len).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    starts.map(move |at| match data {
        None => Body::Zero { volume, span },
        Some(data) => {
            let start = usize::try_from(at).expect("within a buffer");
            let end = data.len().min(start + PAYLOAD_MAX as usize);
            Body::Write { volume, offset: span.offset + at, data: data.slice(start..end) }
        }
    })
}

fn hashes(data: &[u8]) -> Vec<Hash> {
    data.chunks(PAYLOAD_MAX as usize).map(|piece| *blake3::hash(piece).as_bytes()).collect()
}

impl Change {
    /// Whether it is made of whole sectors, which alone can be veiled.
    pub const fn is_whole(&self) -> bool {
        is_whole(self.span.offset, self.span.len)
    }

    /// Computes what [`Source::begin`] may want; `veil` when that wants veiled data.
    pub fn ready(&self, veil: Option<&VeilKey>) -> Ready {
        let data = self.data.as_ref();
        let veiled = data.zip(veil).filter(|_| self.is_whole()).map(|(data, veil)| {
            let mut data = data.to_vec();
            veil.veil(self.volume, self.span.offset, &mut data);
            let hashes = hashes(&data);
            (Bytes::from(data), hashes)
        });
        Ready { hashes: data.map(|data| hashes(data)).unwrap_or_default(), veiled }
    }
}

impl Ready {
    /// The hashes of a change's records; and the bodies with their hashes as blind replicas get
    /// them, none when it was not veiled.
    pub(super) fn pieces<'a>(
        change: &'a Change,
        ready: Option<&'a Ready>,
    ) -> (impl Iterator<Item = Hash> + 'a, impl Iterator<Item = (Body, Hash)> + 'a) {
        let plain = ready.map(|ready| ready.hashes.iter().copied());
        let veiled = ready.and_then(|ready| ready.veiled.as_ref()).map(|(data, hashes)| {
            bodies(change.volume, change.span, Some(data)).zip(hashes.iter().copied())
        });
        (plain.into_iter().flatten(), veiled.into_iter().flatten())
    }
}

impl Source {
    /// What [`Source::begin`] will ask for of a change with data.
    pub fn wanted(&self) -> Wants {
        Wants {
            hashes: self.replicas.iter().any(|replica| replica.chain.is_some()),
            veil: self.replicas.iter().any(|it| it.blind && it.flow == Flow::Stream),
        }
    }

    /// Whether what was computed of a change is what is wanted of it now.
    pub(super) fn is_ready(&self, change: &Change, ready: Option<&Ready>) -> bool {
        let wants = self.wanted();
        change.data.is_none()
            || ready.map_or(!wants.any(), |ready| {
                !wants.veil || ready.veiled.is_some() || !change.is_whole()
            })
    }

    /// Part of a sector cannot be veiled without the rest of it. Clients that were told so are
    /// refused; for those that were connected before, a blind replica loses the order here, and gets
    /// the extent as a whole by a resync.
    pub(super) fn ground_what_cannot_be_veiled(&mut self, change: &Change) {
        if change.is_whole() {
            return;
        }
        for replica in self.replicas.iter_mut().filter(|it| it.blind && it.flow == Flow::Stream) {
            replica.collapse(&self.layout, self.last, ResyncReason::Veil);
        }
    }

    /// From now on a replica is blind, or is not: nothing that it has counts, and nothing that waits
    /// for it is sent. Its content is never veiled in part.
    pub fn set_blind(&mut self, id: ReplicaId, blind: bool) {
        let last = self.last;
        let replica = &mut self.replicas[usize::from(id.0)];
        if replica.blind == blind {
            return;
        }
        replica.blind = blind;
        replica.link_lost();
        replica.collapse(&self.layout, last, ResyncReason::Initial);
        replica.dirty.fill();
        replica.whole = false;
    }

    /// Whether any replica is blind: clients should write whole sectors.
    pub fn has_blind(&self) -> bool {
        self.replicas.iter().any(|replica| replica.blind)
    }
}
