//! Records: the entries of a group's one ordered stream, the same bytes on the wire, in the spill
//! and in the journal. Version 1; the container of the records says which version it holds.
//!
//! ```text
//! at  size  field   unit     rule
//!  0     1  kind    -        1 write, 2 zero, 3 offer, 4 epoch end, 5 resync begin,
//!                            6 resync end, 7 void, 8 check, 9 marker, 10 handover
//!  1     1  target  -        255 all replicas; 0 ..= 7 the replica it is for, void for others
//!  2     2  volume  -        index in the layout; 0 where the kind has none
//!  4     4  len     bytes    of the body: write 1 ..= 1 MiB, else as below
//!  8     8  seq     records  place in the group's order
//! 16     8  at      -        write, zero: offset in bytes; offer, check: extent index; else 0
//! 24   len  body    -        by kind:
//!
//! write         the data
//! zero          8 length (bytes, not 0)
//! offer, check  32 BLAKE3 of the extent, masked bytes as zero
//! epoch end     8 clock (microseconds since 1970), 8 first seq of the epoch,
//!               8 chain's origin (seq), 32 chain
//! resync begin  8 session, 8 the seq after which the gap begins, 16 generation, 1 reason,
//!               8 extents to be compared
//! resync end    8 session
//! void          nothing
//! marker        1 order (1 event, 2 snapshot, 3 delete, 4 pin, 5 unpin), 1 quiesced (0 or 1),
//!               2 length of the name (1 ..= 128), the name; a delete with quiesced 1 takes
//!               back that applications were quiet at the marker whose seq it has as its name
//!               (`start.count`), or which stands before it by this name, which a set uses once,
//!               and deletes the snapshot that was taken there
//! handover      16 generation that its target begins here
//! ```
//!
//! Integers are big-endian.

mod marker;

use bytes::Bytes;

use crate::bytes::{FormatError, Reader, Writer, require};
use crate::extent::Extent;
use crate::ids::{Generation, ReplicaId, Seq, VolumeId};
use crate::layout::Layout;
use crate::limits::{PAYLOAD_MAX, REPLICAS_MAX};
use crate::units::Span;

pub use marker::{Marker, Order};

/// Encoded length of what stands before a body. Unit: bytes.
pub const HEADER_LEN: usize = 24;

const TARGET_ALL: u8 = 255;

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// One entry of a group's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the group's total order.
    pub seq: Seq,
    /// Whom it is for.
    pub target: Target,
    /// What it is.
    pub body: Body,
}

/// Whom a record is for. Records of a resync are for one replica (R9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Live: every replica, and part of the epoch hash.
    All,
    /// Part of one replica's resync.
    One(ReplicaId),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// These bytes are now there.
    Write {
        /// Where.
        volume: VolumeId,
        /// Where in the volume. Unit: bytes.
        offset: u64,
        /// What; 1 byte to [`PAYLOAD_MAX`].
        data: Bytes,
    },
    /// These bytes are now zero.
    Zero {
        /// Where.
        volume: VolumeId,
        /// Where in the volume; not empty.
        span: Span,
    },
    /// On the source, this extent has this hash here in the order.
    Offer {
        /// Which extent.
        extent: Extent,
        /// Of its bytes, the masked ones as zero.
        hash: Hash,
    },
    /// Outside a resync: this extent, which should be equal, has this hash here in the order.
    Check {
        /// Which extent.
        extent: Extent,
        /// Of its bytes, the masked ones as zero.
        hash: Hash,
    },
    /// An epoch ends here.
    EpochEnd(EpochEnd),
    /// A resync of one replica begins here.
    ResyncBegin(ResyncBegin),
    /// The resync of one replica ends here: it is consistent from here on.
    ResyncEnd {
        /// The session named by its begin.
        session: u64,
    },
    /// A number that was taken for something that this replica does not get.
    Void,
    /// A named place in the stream, and what is to be done there.
    Marker(Marker),
    /// The generation ends here: the replica that it is for becomes the source and begins this one.
    Handover {
        /// The history that begins.
        generation: Generation,
    },
}

/// The end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The source's wall clock. Unit: microseconds since 1970.
    pub clock: u64,
    /// First record of the epoch.
    pub first: Seq,
    /// The record behind which the chain of hashes began: a resync end.
    pub origin: Seq,
    /// BLAKE3 chained over the live records since `origin`.
    pub chain: Hash,
}

/// The begin of a replica's resync. Only before it may numbers be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncBegin {
    /// Names the resync; answers repeat it.
    pub session: u64,
    /// The last record that the replica has; what follows up to this one was never sent.
    pub after: Seq,
    /// The history that the records from here on belong to.
    pub generation: Generation,
    /// Why.
    pub reason: ResyncReason,
    /// How much is to be compared, as known now. Unit: extents.
    pub extents: u64,
}

/// Why a resync was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncReason {
    /// The replica is new.
    Initial,
    /// The outbox overflowed, or the replica was away for longer than the outbox reaches.
    Overflow,
    /// The source stopped without being able to say what was in flight.
    UncleanStart,
    /// The source was stopped and started.
    CleanStart,
    /// The replica's history does not end where this source knows it to.
    Lost,
    /// A volume or the outbox could not be read or written.
    Fault,
    /// A check found a difference where there should be none.
    Mismatch,
    /// A volume of the source became larger.
    Grown,
    /// A volume of the source was away, or was another for a while.
    Drifted,
    /// The replica is blind, and a write could not be veiled, or its content was not so far.
    Veil,
    /// The replica gave up a history of its own.
    Returned,
}

impl ResyncReason {
    const ALL: [ResyncReason; 11] = [
        ResyncReason::Initial,
        ResyncReason::Overflow,
        ResyncReason::UncleanStart,
        ResyncReason::CleanStart,
        ResyncReason::Lost,
        ResyncReason::Fault,
        ResyncReason::Mismatch,
        ResyncReason::Grown,
        ResyncReason::Drifted,
        ResyncReason::Veil,
        ResyncReason::Returned,
    ];

    /// Its number in formats.
    pub fn code(self) -> u8 {
        let place = ResyncReason::ALL.iter().position(|&reason| reason == self);
        u8::try_from(place.expect("ALL lists every reason")).expect("few reasons") + 1
    }

    /// The reason of a number.
    pub fn from_code(code: u8) -> Option<ResyncReason> {
        ResyncReason::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// As shown to people.
    pub const fn text(self) -> &'static str {
        match self {
            ResyncReason::Initial => "initial sync",
            ResyncReason::Overflow => "the outbox did not reach back far enough",
            ResyncReason::UncleanStart => "the source stopped uncleanly",
            ResyncReason::CleanStart => "the source was restarted",
            ResyncReason::Lost => "the replica lost part of its history",
            ResyncReason::Fault => "an I/O error on the source",
            ResyncReason::Mismatch => "the self-check found a difference",
            ResyncReason::Grown => "the volumes have grown",
            ResyncReason::Drifted => "a volume was changed behind the source's back",
            ResyncReason::Veil => "a write of part of a sector, which cannot be veiled by itself",
            ResyncReason::Returned => "the replica gave up a history of its own",
        }
    }
}

impl Record {
    /// Whether it stands alone in a batch, because what is applied together must lie on one side of
    /// it (R5).
    pub const fn is_border(&self) -> bool {
        matches!(
            self.body,
            Body::ResyncBegin(_) | Body::ResyncEnd { .. } | Body::Marker(_) | Body::Handover { .. }
        )
    }

    /// The bytes of a volume that the record changes.
    pub fn changes(&self) -> Option<(VolumeId, Span)> {
        match &self.body {
            Body::Write { volume, offset, data } => {
                Some((*volume, Span::new(*offset, data.len() as u64)))
            }
            Body::Zero { volume, span } => Some((*volume, *span)),
            _ => None,
        }
    }

    /// Whether it asks the replica for an answer, once: it is not asked again on replay, nor over
    /// another link (R1).
    pub const fn asks(&self) -> bool {
        matches!(self.body, Body::Offer { .. } | Body::Check { .. })
    }

    /// Encoded length. Unit: bytes.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN
            + match &self.body {
                Body::Write { data, .. } => data.len(),
                Body::Zero { .. } | Body::ResyncEnd { .. } => 8,
                Body::Offer { .. } | Body::Check { .. } => 32,
                Body::EpochEnd(_) => 56,
                Body::ResyncBegin(_) => 41,
                Body::Void => 0,
                Body::Marker(marker) => marker.encoded_len(),
                Body::Handover { .. } => 16,
            }
    }

    /// Appends everything but a write's data, which the caller appends from where it lies.
    pub fn encode_head(&self, out: &mut Writer) {
        let target = match self.target {
            Target::All => TARGET_ALL,
            Target::One(ReplicaId(id)) => id,
        };
        let (kind, volume, at) = match &self.body {
            Body::Write { volume, offset, .. } => (1, *volume, *offset),
            Body::Zero { volume, span } => (2, *volume, span.offset),
            Body::Offer { extent, .. } => (3, extent.volume, extent.index),
            Body::EpochEnd(_) => (4, VolumeId(0), 0),
            Body::ResyncBegin(_) => (5, VolumeId(0), 0),
            Body::ResyncEnd { .. } => (6, VolumeId(0), 0),
            Body::Void => (7, VolumeId(0), 0),
            Body::Check { extent, .. } => (8, extent.volume, extent.index),
            Body::Marker(_) => (9, VolumeId(0), 0),
            Body::Handover { .. } => (10, VolumeId(0), 0),
        };
        let len = u32::try_from(self.encoded_len() - HEADER_LEN).expect("bodies are at most 1 MiB");
        out.u8(kind).u8(target).u16(volume.0).u32(len).u64(self.seq.0).u64(at);
        match &self.body {
            Body::Write { .. } | Body::Void => {}
            Body::Zero { span, .. } => {
                out.u64(span.len);
            }
            Body::Offer { hash, .. } | Body::Check { hash, .. } => {
                out.put(hash);
            }
            Body::EpochEnd(end) => {
                out.u64(end.clock).u64(end.first.0).u64(end.origin.0).put(&end.chain);
            }
            Body::ResyncBegin(begin) => {
                out.u64(begin.session).u64(begin.after.0).put(&begin.generation.0);
                out.u8(begin.reason.code()).u64(begin.extents);
            }
            Body::ResyncEnd { session } => {
                out.u64(*session);
            }
            Body::Marker(marker) => marker.encode(out),
            Body::Handover { generation } => {
                out.put(&generation.0);
            }
        }
    }

    /// Appends the whole record.
    pub fn encode(&self, out: &mut Writer) {
        self.encode_head(out);
        if let Body::Write { data, .. } = &self.body {
            out.put(data);
        }
    }

    /// Takes one record off the front of `bytes`; a write's data stays where it lies.
    pub fn decode(bytes: &mut Bytes) -> Result<Record, FormatError> {
        let mut from = Reader::new(bytes);
        let (kind, target) = (from.u8("kind")?, from.u8("target")?);
        let (volume, len) = (VolumeId(from.u16("volume")?), from.u32("len")?);
        let (seq, at) = (Seq(from.u64("seq")?), from.u64("at")?);
        require("len", len, "at most 1 MiB", len <= PAYLOAD_MAX)?;
        let target = match target {
            TARGET_ALL => Target::All,
            id => {
                let known = usize::from(id) < REPLICAS_MAX;
                require("target", id, "255 or a replica's index", known)?;
                Target::One(ReplicaId(id))
            }
        };
        let placed = (1..=3).contains(&kind) || kind == 8;
        require("volume", volume.0, "0 for this kind", placed || volume.0 == 0)?;
        require("at", at, "0 for this kind", placed || at == 0)?;
        let head = Head { kind, target, volume, at };
        let body = head.body(from.take("body", len as usize)?, bytes)?;
        bytes::Buf::advance(bytes, HEADER_LEN + len as usize);
        Ok(Record { seq, target, body })
    }

    /// Whether the record's place lies within `layout`: what a peer must prove before it is used.
    pub fn fits(&self, layout: &Layout) -> bool {
        match &self.body {
            Body::Offer { extent, .. } | Body::Check { extent, .. } => {
                layout.span(*extent).is_some()
            }
            _ => self.changes().is_none_or(|(volume, span)| layout.holds(volume, span)),
        }
    }
}

struct Head {
    kind: u8,
    target: Target,
    volume: VolumeId,
    at: u64,
}

impl Head {
    fn body(&self, body: &[u8], whole: &Bytes) -> Result<Body, FormatError> {
        let mut from = Reader::new(body);
        let (volume, offset) = (self.volume, self.at);
        let decoded = match self.kind {
            1 => {
                require("len", body.len() as u64, "not 0 for a write", !body.is_empty())?;
                let data = whole.slice(HEADER_LEN..HEADER_LEN + body.len());
                return Ok(Body::Write { volume, offset, data });
            }
            2 => {
                let span = Span::new(offset, from.u64("length")?);
                require("length", span.len, "not 0", span.len > 0)?;
                Body::Zero { volume, span }
            }
            3 => {
                let extent = Extent { volume, index: offset };
                Body::Offer { extent, hash: from.array("hash")? }
            }
            4 => Body::EpochEnd(EpochEnd {
                clock: from.u64("clock")?,
                first: Seq(from.u64("first")?),
                origin: Seq(from.u64("origin")?),
                chain: from.array("chain")?,
            }),
            5 => Body::ResyncBegin(ResyncBegin {
                session: from.u64("session")?,
                after: Seq(from.u64("after")?),
                generation: Generation(from.array("generation")?),
                reason: {
                    let code = from.u8("reason")?;
                    let rule = "a known reason";
                    let unknown = FormatError::Field { field: "reason", found: code.into(), rule };
                    ResyncReason::from_code(code).ok_or(unknown)?
                },
                extents: from.u64("extents")?,
            }),
            6 => Body::ResyncEnd { session: from.u64("session")? },
            7 => Body::Void,
            8 => {
                let extent = Extent { volume, index: offset };
                Body::Check { extent, hash: from.array("hash")? }
            }
            9 => Body::Marker(Marker::decode(&mut from)?),
            10 => Body::Handover { generation: Generation(from.array("generation")?) },
            _ => {
                let rule = "a known kind";
                return Err(FormatError::Field { field: "kind", found: self.kind.into(), rule });
            }
        };
        from.finish()?;
        let one = matches!(self.target, Target::One(_));
        require("target", self.kind, "all for a marker", !(one && self.kind == 9))?;
        let needs_one = matches!(
            decoded,
            Body::Offer { .. }
                | Body::Check { .. }
                | Body::ResyncBegin(_)
                | Body::ResyncEnd { .. }
                | Body::Handover { .. }
        );
        require("target", self.kind, "one replica for this kind", one || !needs_one)?;
        Ok(decoded)
    }
}

/// The hash chain of live records: both sides carry it, epoch ends compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The record behind which it began.
    pub origin: Seq,
    /// Over all live records since.
    pub hash: Hash,
}

impl Chain {
    /// A chain that begins behind `origin`.
    pub const fn new(origin: Seq) -> Chain {
        Chain { origin, hash: [0; 32] }
    }

    /// Adds one record. `data` is the BLAKE3 of a write's data, computed wherever it is cheap; other
    /// kinds pass `None`. Records of a resync, epoch ends and voids stand outside (R9).
    pub fn add(&mut self, record: &Record, data: Option<Hash>) {
        let live = record.target == Target::All
            && matches!(record.body, Body::Write { .. } | Body::Zero { .. } | Body::Marker(_));
        if !live {
            return;
        }
        let mut head = Writer::with_capacity(128);
        head.put(&self.hash);
        record.encode_head(&mut head);
        head.put(&data.unwrap_or_default());
        self.hash = *blake3::hash(head.as_slice()).as_bytes();
    }

    /// The hash that [`Chain::add`] wants of a record.
    pub fn data_hash(record: &Record) -> Option<Hash> {
        match (&record.body, record.target) {
            (Body::Write { data, .. }, Target::All) => Some(*blake3::hash(data).as_bytes()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const SEQ: Seq = Seq(0x0001_0000_0000_0009);
    const ONE: Target = Target::One(ReplicaId(2));

    fn golden() -> Vec<(Record, Vec<u8>)> {
        let volume = VolumeId(3);
        let record = |target, body| Record { seq: SEQ, target, body };
        let head = hex!("0001000000000009");
        let with =
            |start: &[u8], at: u64, body: &[u8]| [start, &head, &at.to_be_bytes(), body].concat();
        vec![
            (
                record(
                    Target::All,
                    Body::Write { volume, offset: 512, data: Bytes::from_static(b"abc") },
                ),
                with(&hex!("01ff000300000003"), 512, b"abc"),
            ),
            (
                record(Target::All, Body::Zero { volume, span: Span::new(4096, 8192) }),
                with(&hex!("02ff000300000008"), 4096, &hex!("0000000000002000")),
            ),
            (
                record(ONE, Body::Offer { extent: Extent { volume, index: 7 }, hash: [0xaa; 32] }),
                with(&hex!("0302000300000020"), 7, &[0xaa; 32]),
            ),
            (
                record(
                    Target::All,
                    Body::EpochEnd(EpochEnd {
                        clock: 1,
                        first: Seq(2),
                        origin: Seq(3),
                        chain: [4; 32],
                    }),
                ),
                with(
                    &hex!("04ff000000000038"),
                    0,
                    &[&hex!("000000000000000100000000000000020000000000000003")[..], &[4; 32]]
                        .concat(),
                ),
            ),
            (
                record(
                    ONE,
                    Body::ResyncBegin(ResyncBegin {
                        session: 5,
                        after: Seq(6),
                        generation: Generation([7; 16]),
                        reason: ResyncReason::UncleanStart,
                        extents: 8,
                    }),
                ),
                with(
                    &hex!("0502000000000029"),
                    0,
                    &[
                        &hex!("00000000000000050000000000000006")[..],
                        &[7; 16],
                        &[3, 0, 0, 0, 0, 0, 0, 0, 8],
                    ]
                    .concat(),
                ),
            ),
            (
                record(ONE, Body::ResyncEnd { session: 5 }),
                with(&hex!("0602000000000008"), 0, &hex!("0000000000000005")),
            ),
            (record(Target::All, Body::Void), with(&hex!("07ff000000000000"), 0, b"")),
            (
                record(ONE, Body::Check { extent: Extent { volume, index: 7 }, hash: [0xbb; 32] }),
                with(&hex!("0802000300000020"), 7, &[0xbb; 32]),
            ),
            (
                record(
                    Target::All,
                    Body::Marker(Marker {
                        name: "noon".parse().unwrap(),
                        order: Order::Snapshot,
                        quiesced: true,
                    }),
                ),
                with(&hex!("09ff000000000008"), 0, &hex!("02 01 0004 6e6f6f6e")),
            ),
            (
                record(ONE, Body::Handover { generation: Generation([9; 16]) }),
                with(&hex!("0a02000000000010"), 0, &[9; 16]),
            ),
        ]
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        for (record, bytes) in golden() {
            let mut out = Writer::default();
            record.encode(&mut out);
            assert_eq!(out.as_slice(), bytes, "{record:?}");
            assert_eq!(out.len(), record.encoded_len());
            let mut from = Bytes::from(bytes);
            assert_eq!(Record::decode(&mut from), Ok(record));
            assert!(from.is_empty());
        }
    }

    #[test]
    fn cut_or_flipped_records_never_panic() {
        for (record, bytes) in golden() {
            for len in 0..bytes.len() {
                assert!(Record::decode(&mut Bytes::copy_from_slice(&bytes[..len])).is_err());
            }
            for bit in 0..HEADER_LEN * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = Record::decode(&mut Bytes::from(flipped)) {
                    assert_ne!(other, record, "bit {bit} went unnoticed");
                }
            }
        }
    }

    #[test]
    fn a_resync_record_names_its_replica() {
        let record = Record { seq: SEQ, target: Target::All, body: Body::ResyncEnd { session: 1 } };
        let mut out = Writer::default();
        record.encode(&mut out);
        assert!(Record::decode(&mut Bytes::from(out.into_vec())).is_err());
    }

    #[test]
    fn the_chain_sees_order_and_content_of_live_records_only() {
        let write = |at: u64, data: &'static [u8], target| Record {
            seq: SEQ,
            target,
            body: Body::Write { volume: VolumeId(0), offset: at, data: Bytes::from_static(data) },
        };
        let over = |records: &[Record]| {
            let mut chain = Chain::new(Seq::ZERO);
            records.iter().for_each(|record| chain.add(record, Chain::data_hash(record)));
            chain.hash
        };
        let (a, b) = (write(0, b"a", Target::All), write(1, b"b", Target::All));
        assert_ne!(over(&[a.clone(), b.clone()]), over(&[b.clone(), a.clone()]));
        assert_ne!(over(std::slice::from_ref(&a)), over(&[write(0, b"x", Target::All)]));
        assert_eq!(over(&[a.clone(), write(0, b"x", ONE)]), over(&[a]));
    }
}
