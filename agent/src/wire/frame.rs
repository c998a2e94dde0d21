//! Frames on a group's stream, version 1 of the link.
//!
//! ```text
//! at  size  field     unit   rule
//!  0     1  kind      -      1 batch, 2 ack, 3 answers, 4 ping, 5 pong, 6 bye, 7 layout,
//!                             8 kept, 9 changed
//!  1     1  flags     -      batch: bit 0 compressed; else 0
//!  2     2  reserved  -      0
//!  4     4  len       bytes  of the body, at most 2 MiB + 64
//!  8   len  body      -      by kind:
//!
//! batch      see `wire::batch`
//! ack        8 received, 8 durable, 8 applied (seqs),
//!            8 durable clock, 8 applied clock (microseconds since 1970)
//! answers    4 count (1 ..= 65536), then per answer:
//!            1 kind (1 match, 2 need), 8 session, 8 seq of the offer;
//!            need: 2 parts (0 ..= 256), then 8 per part: first bytes of its BLAKE3
//! ping, pong 8 number that the pong repeats
//! bye        2 code, 2+n text (at most 256 bytes)
//! layout     a layout manifest (at most 1 MiB), see `base::layout`
//! kept       see `wire::kept`
//! changed    see `wire::changed`
//! ```
//!
//! Integers are big-endian. The link below authenticates every byte, so frames carry no checksum.

use bytes::Bytes;
use thiserror::Error;
use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::ids::Seq;
use vgship_base::layout::Layout;
use vgship_base::limits::{BATCH_BYTES_MAX, EXTENT_LOG2_MAX, PART_BYTES};
use vgship_base::record::Record;

use super::batch;
use super::changed::Changed;
use super::kept::Kept;

/// Encoded length of what stands before a body. Unit: bytes.
pub const HEADER_LEN: usize = 8;

/// Longest body: a full batch with its own header. Unit: bytes.
pub const BODY_MAX: usize = BATCH_BYTES_MAX + 64;

/// Answers of one frame. One frame can answer a full batch of offers many times over.
pub const ANSWERS_MAX: u32 = 65_536;

/// Parts of the largest extent.
pub const PARTS_MAX: usize = (1 << EXTENT_LOG2_MAX) / PART_BYTES as usize;

/// Longest text of a bye or a refusal. Unit: bytes.
pub const TEXT_MAX: usize = 256;

/// Longest layout manifest. 4096 volumes with the longest names take 570 KiB. Unit: bytes.
pub const LAYOUT_MAX: usize = 1 << 20;

const COMPRESSED: u8 = 1;

/// What the two sides of a group's stream tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Source to replica: records in order.
    Batch(Vec<Record>),
    /// Replica to source: how far it is.
    Ack(Ack),
    /// Replica to source: what offers came to.
    Answers(Vec<Answer>),
    /// Asks for a [`Frame::Pong`] of the same number.
    Ping(u64),
    /// Answers a [`Frame::Ping`].
    Pong(u64),
    /// The last frame: why the sender leaves.
    Bye {
        /// For programs; see [`Bye`].
        code: Bye,
        /// For people.
        text: String,
    },
    /// Source to replica that showed another layout than the source has: what the group consists
    /// of now. Nothing follows it.
    Layout(Layout),
    /// Replica to source: which snapshots it keeps.
    Kept(Kept),
    /// Replica to source, before all else: where it differs from what it had of the source's
    /// history.
    Changed(Changed),
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Last record that arrived.
    pub received: Seq,
    /// Last record that a power cut cannot take away.
    pub durable: Seq,
    /// Last record whose effect is durable in the volumes.
    pub applied: Seq,
    /// Clock of the last epoch end at or before `durable`; 0 when none. Unit: us since 1970.
    pub durable_clock: u64,
    /// Clock of the last epoch end at or before `applied`; 0 when none. Unit: us since 1970.
    pub applied_clock: u64,
}

/// What an offer came to. Session and seq are the offer's; they key its in-flight entry (R1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The replica holds the same bytes.
    Match {
        /// The resync's session.
        session: u64,
        /// The offer's seq.
        seq: Seq,
    },
    /// The replica holds other bytes.
    Need {
        /// The resync's session.
        session: u64,
        /// The offer's seq.
        seq: Seq,
        /// First 8 bytes of the BLAKE3 of each 4 KiB part that the replica holds, masked bytes as
        /// zero; empty: send everything.
        parts: Vec<u64>,
    },
}

/// Why a side leaves a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// The agent stops.
    Stopping,
    /// The group was paused or taken away.
    Paused,
    /// The peer sent what the rules do not allow.
    Protocol,
    /// The side cannot go on: an I/O error or a lack of space.
    Failed,
    /// The side changed its role.
    RoleChanged,
    /// A code that this version does not know.
    Other(u16),
}

impl Bye {
    const fn code(self) -> u16 {
        match self {
            Bye::Stopping => 1,
            Bye::Paused => 2,
            Bye::Protocol => 3,
            Bye::Failed => 4,
            Bye::RoleChanged => 5,
            Bye::Other(code) => code,
        }
    }

    const fn from_code(code: u16) -> Bye {
        match code {
            1 => Bye::Stopping,
            2 => Bye::Paused,
            3 => Bye::Protocol,
            4 => Bye::Failed,
            5 => Bye::RoleChanged,
            code => Bye::Other(code),
        }
    }
}

/// Why a frame does not decode. The stream is of no use behind it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A field that its table does not allow.
    #[error("the peer sent a {frame} that is not one")]
    Format {
        /// Which kind of frame, or its header.
        frame: &'static str,
        /// Which field.
        #[source]
        source: FormatError,
    },
    /// A compressed batch that does not become what its header says.
    #[error("the peer sent a compressed batch that does not unpack")]
    Compression(#[source] lz4_flex::block::DecompressError),
}

/// A frame's header, checked: kind and flags are known and the length is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    flags: u8,
    len: u32,
}

impl Header {
    /// The header of a batch.
    pub(super) fn batch(compressed: bool, len: usize) -> Header {
        Header { kind: 1, flags: u8::from(compressed), len: bounded(len) }
    }

    /// Length of the body that follows. Unit: bytes, at most [`BODY_MAX`].
    pub const fn body_len(self) -> usize {
        self.len as usize
    }

    /// Appends the header.
    pub(super) fn encode(self, out: &mut Writer) {
        out.u8(self.kind).u8(self.flags).u16(0).u32(self.len);
    }

    /// Reads and checks a header.
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Result<Header, FrameError> {
        let decode = || {
            let mut from = Reader::new(&bytes);
            let (kind, flags) = (from.u8("kind")?, from.u8("flags")?);
            let (reserved, len) = (from.u16("reserved")?, from.u32("len")?);
            require("kind", kind, "1 to 9", (1..=9).contains(&kind))?;
            let allowed = if kind == 1 { COMPRESSED } else { 0 };
            require("flags", flags, "flags of this kind", flags & !allowed == 0)?;
            require("reserved", reserved, "0", reserved == 0)?;
            require("len", len, "at most 2 MiB + 64", len as usize <= BODY_MAX)?;
            Ok(Header { kind, flags, len })
        };
        decode().map_err(|source| FrameError::Format { frame: "frame header", source })
    }
}

impl Frame {
    /// Header and body of a small frame.
    ///
    /// # Panics
    /// On a batch: those go through [`batch::BatchEncoder`], which does not copy their data.
    pub fn encode(&self) -> Bytes {
        let mut body = Writer::default();
        let kind = match self {
            Frame::Batch(_) => panic!("batches are encoded by the batch encoder"),
            Frame::Ack(ack) => {
                body.u64(ack.received.0).u64(ack.durable.0).u64(ack.applied.0);
                body.u64(ack.durable_clock).u64(ack.applied_clock);
                2
            }
            Frame::Answers(answers) => {
                body.u32(bounded(answers.len()));
                answers.iter().for_each(|answer| answer.encode(&mut body));
                3
            }
            Frame::Ping(number) => {
                body.u64(*number);
                4
            }
            Frame::Pong(number) => {
                body.u64(*number);
                5
            }
            Frame::Bye { code, text } => {
                body.u16(code.code()).text(shortened(text));
                6
            }
            Frame::Layout(layout) => {
                body.put(&layout.encode());
                7
            }
            Frame::Kept(kept) => {
                kept.encode(&mut body);
                8
            }
            Frame::Changed(changed) => {
                changed.encode(&mut body);
                9
            }
        };
        let mut out = Writer::with_capacity(HEADER_LEN + body.len());
        Header { kind, flags: 0, len: bounded(body.len()) }.encode(&mut out);
        out.put(body.as_slice());
        Bytes::from(out.into_vec())
    }

    /// Reads the body that belongs to `header`; a write's data stays where it lies.
    pub fn decode(header: Header, body: Bytes) -> Result<Frame, FrameError> {
        let (frame, decoded) = match header.kind {
            1 => return batch::decode(header.flags & COMPRESSED != 0, body).map(Frame::Batch),
            2 => ("ack", decode_ack(&body)),
            3 => ("list of answers", decode_answers(&body)),
            6 => ("bye", decode_bye(&body)),
            7 => ("layout", decode_layout(&body)),
            8 => ("list of snapshots", Kept::decode(&body).map(Frame::Kept)),
            9 => ("list of changes", Changed::decode(&body).map(Frame::Changed)),
            kind => ("ping", decode_ping(kind == 4, &body)),
        };
        decoded.map_err(|source| FrameError::Format { frame, source })
    }
}

impl Answer {
    /// Encoded length. Unit: bytes.
    pub const fn encoded_len(&self) -> usize {
        match self {
            Answer::Match { .. } => 17,
            Answer::Need { parts, .. } => 19 + 8 * parts.len(),
        }
    }

    fn encode(&self, out: &mut Writer) {
        match self {
            Answer::Match { session, seq } => {
                out.u8(1).u64(*session).u64(seq.0);
            }
            Answer::Need { session, seq, parts } => {
                assert!(parts.len() <= PARTS_MAX, "an extent has at most {PARTS_MAX} parts");
                let count = u16::try_from(parts.len()).expect("256 fit");
                out.u8(2).u64(*session).u64(seq.0).u16(count);
                parts.iter().for_each(|part| {
                    out.u64(*part);
                });
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Answer, FormatError> {
        let kind = from.u8("kind of answer")?;
        require("kind of answer", kind, "1 or 2", (1..=2).contains(&kind))?;
        let (session, seq) = (from.u64("session")?, Seq(from.u64("seq")?));
        if kind == 1 {
            return Ok(Answer::Match { session, seq });
        }
        let count = from.u16("parts")?;
        require("parts", count, "at most 256", usize::from(count) <= PARTS_MAX)?;
        let parts = (0..count).map(|_| from.u64("part")).collect::<Result<_, _>>()?;
        Ok(Answer::Need { session, seq, parts })
    }
}

fn decode_ack(body: &[u8]) -> Result<Frame, FormatError> {
    let mut from = Reader::new(body);
    let ack = Ack {
        received: Seq(from.u64("received")?),
        durable: Seq(from.u64("durable")?),
        applied: Seq(from.u64("applied")?),
        durable_clock: from.u64("durable clock")?,
        applied_clock: from.u64("applied clock")?,
    };
    from.finish()?;
    Ok(Frame::Ack(ack))
}

fn decode_answers(body: &[u8]) -> Result<Frame, FormatError> {
    let mut from = Reader::new(body);
    let count = from.u32("count")?;
    require("count", count, "1 to 65536", (1..=ANSWERS_MAX).contains(&count))?;
    let answers = (0..count).map(|_| Answer::decode(&mut from)).collect::<Result<_, _>>()?;
    from.finish()?;
    Ok(Frame::Answers(answers))
}

fn decode_ping(asks: bool, body: &[u8]) -> Result<Frame, FormatError> {
    let mut from = Reader::new(body);
    let number = from.u64("number")?;
    from.finish()?;
    Ok(if asks { Frame::Ping(number) } else { Frame::Pong(number) })
}

fn decode_bye(body: &[u8]) -> Result<Frame, FormatError> {
    let mut from = Reader::new(body);
    let code = Bye::from_code(from.u16("code")?);
    let text = from.text("text", TEXT_MAX)?.to_owned();
    from.finish()?;
    Ok(Frame::Bye { code, text })
}

fn decode_layout(body: &[u8]) -> Result<Frame, FormatError> {
    require("layout", body.len() as u64, "at most 1 MiB", body.len() <= LAYOUT_MAX)?;
    Layout::decode(body).map(Frame::Layout)
}

/// Splits answers into runs that fit one frame each.
pub fn answer_runs(mut answers: Vec<Answer>) -> Vec<Vec<Answer>> {
    let mut runs = Vec::new();
    while !answers.is_empty() {
        let mut bytes = 4;
        let mut fits = |answer: &Answer| {
            bytes += answer.encoded_len();
            bytes <= BODY_MAX
        };
        let count = answers.iter().take(ANSWERS_MAX as usize).take_while(|&a| fits(a)).count();
        let rest = answers.split_off(count);
        runs.push(std::mem::replace(&mut answers, rest));
    }
    runs
}

/// At most [`TEXT_MAX`] bytes of `text`, cut between characters.
pub(super) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

fn bounded(len: usize) -> u32 {
    assert!(len <= BODY_MAX, "a frame of {len} bytes");
    u32::try_from(len).expect("BODY_MAX fits")
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
