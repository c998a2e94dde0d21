//! The hello: the first message on each group's stream, and its reply. The dialling side sends a
//! hello; the other side accepts with its own state, or refuses.
//!
//! ```text
//! hello                                             reply
//! at  size  field     unit   rule                   at  size  field    rule
//!  0     4  magic     -      the letters VGSH        0     4  magic    the letters VGSR
//!  4     2  lowest    -      oldest version spoken   4     2  version  chosen; refused: 0
//!  6     2  highest   -      newest, >= lowest       6     2  code     0 accepted, else why not
//!  8     4  len       bytes  of the body, <= 4096    8     4  len      of the body, <= 4096
//! 12   len  body                                    12   len  body     accepted: as in a hello
//!        4  crc       CRC-32C of all before                            refused: 2+n text, <= 256
//!                                                           4  crc     CRC-32C of all before
//!
//! body, version 1
//! at  size  field       unit     rule
//!  0    16  group       -        the group's id
//! 16     1  role        -        the sender's: 1 source, 2 replica
//! 17     1  flags       -        bit 0 consistent, bit 1 damaged, bit 2 fresh; since version 2:
//!                                bit 3 blind, bit 4 yields (with one of both it speaks none
//!                                below)
//! 18    16  generation  -
//! 34     2  start       starts   the source's start that the sender is at
//! 36     8  durable     records  seq
//! 44     8  applied     records  seq
//! 52    32  layout      -        BLAKE3 of the layout manifest
//! 84   2+n  name        -        the agent's, at most 128 bytes
//! appended by version 2
//!        2  lineage     -        earlier generations, oldest first, 0 ..= 64; then each 16 id,
//!                                8 the last seq that was kept of it
//! ```
//!
//! Frozen for all versions: all of the outer tables. A later version of the body appends fields;
//! a reader takes those it knows and skips the rest, and reads no more of them than the version
//! chosen has. Integers are big-endian.

use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::ids::{Generation, GroupId, NAME_MAX, Name, Seq, Start};
use vgship_base::record::Hash;

use super::frame::{TEXT_MAX, shortened};
use super::peers::Role;
use crate::capture::ledger_format::LINEAGE_MAX;

/// Oldest version of the link that this program speaks.
pub const LOWEST: u16 = 1;

/// Newest version of the link that this program speaks.
pub const HIGHEST: u16 = 2;

/// Oldest version that knows blind replicas, and such that yield.
pub const BLIND_SINCE: u16 = 2;

/// Length of the part before the body, from which the rest's length is known. Unit: bytes.
pub const PREFIX_LEN: usize = 12;

const BODY_MAX: u32 = 4096;
const HELLO_MAGIC: [u8; 4] = *b"VGSH";
const REPLY_MAGIC: [u8; 4] = *b"VGSR";

const CONSISTENT: u8 = 1;
const DAMAGED: u8 = 2;
const FRESH: u8 = 4;
const BLIND: u8 = 8;
const YIELDS: u8 = 16;

/// Where a side of a group stands (R11).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each a flag of the format")]
pub struct Hello {
    /// The group, by id.
    pub group: GroupId,
    /// What the sender is.
    pub role: Role,
    /// Replica: its volumes and journal give a consistent image at `durable`. Source: true.
    pub consistent: bool,
    /// Replica: the journal is damaged inside what was promised durable. Source: false.
    pub damaged: bool,
    /// Replica: it holds nothing of the group yet. Source: false.
    pub fresh: bool,
    /// Whether the replica is blind. Both sides must say the same.
    pub blind: bool,
    /// The history that the sender's state belongs to.
    pub generation: Generation,
    /// Source: its present start. Replica: the start of its last record.
    pub start: Start,
    /// Replica: last durable record. Source: last record issued.
    pub durable: Seq,
    /// Replica: last record applied. Source: last record that it knows this replica holds durably.
    pub applied: Seq,
    /// BLAKE3 of the layout manifest's bytes.
    pub layout: Hash,
    /// The sender's agent.
    pub name: Name,
    /// Replica: it gives up what it wrote itself as a source, and tells where that is before
    /// anything else. Source: false.
    pub yields: bool,
    /// The generations before the sender's, oldest first, each with the last seq that was kept of
    /// it, as far as they are known.
    pub lineage: Vec<(Generation, Seq)>,
}

/// Why a hello is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No version is spoken by both.
    Version,
    /// The group is unknown, or the pairing does not allow this role in it: never said which.
    NotAllowed,
    /// Both sides are sources, or both replicas.
    Role,
    /// The volumes differ.
    Layout,
    /// The histories diverged, or are unrelated: a person must choose.
    Diverged,
    /// The group is already served over another stream, or not ready yet.
    Busy,
    /// The side cannot serve the group: paused, failed or stopping.
    Unavailable,
    /// One side says that the replica is blind, the other does not.
    Veil,
    /// A code that this version does not know.
    Other(u16),
}

impl Refusal {
    /// Its number in the format; never 0.
    pub const fn code(self) -> u16 {
        match self {
            Refusal::Version => 1,
            Refusal::NotAllowed => 2,
            Refusal::Role => 3,
            Refusal::Layout => 4,
            Refusal::Diverged => 5,
            Refusal::Busy => 6,
            Refusal::Unavailable => 7,
            Refusal::Veil => 8,
            Refusal::Other(code) => code,
        }
    }

    const fn from_code(code: u16) -> Refusal {
        match code {
            1 => Refusal::Version,
            2 => Refusal::NotAllowed,
            3 => Refusal::Role,
            4 => Refusal::Layout,
            5 => Refusal::Diverged,
            6 => Refusal::Busy,
            7 => Refusal::Unavailable,
            8 => Refusal::Veil,
            code => Refusal::Other(code),
        }
    }

    /// Whether another try soon may go otherwise without a person's help.
    pub const fn passes(self) -> bool {
        matches!(self, Refusal::Busy | Refusal::Unavailable)
    }
}

/// What a hello is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The stream is open.
    Accepted {
        /// The newest version that both speak.
        version: u16,
        /// Where the answering side stands.
        hello: Hello,
    },
    /// The stream ends here.
    Refused {
        /// For programs.
        refusal: Refusal,
        /// For people.
        text: String,
    },
}

impl Hello {
    /// The hello as sent by the dialling side.
    pub fn encode(&self) -> Vec<u8> {
        // One that knows neither must not take it for another replica.
        let needs = self.blind || self.yields;
        self.encode_versions(if needs { BLIND_SINCE } else { LOWEST }, HIGHEST)
    }

    fn encode_versions(&self, lowest: u16, highest: u16) -> Vec<u8> {
        framed(HELLO_MAGIC, lowest, highest, &self.body())
    }

    /// Reads a hello. The first result is the newest version that both sides speak, or `None`:
    /// then the body is not read and there is nothing to do but refuse with [`Refusal::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Option<(u16, Hello)>, FormatError> {
        let (lowest, highest, body) = unframed(HELLO_MAGIC, "VGSH", bytes)?;
        require("lowest", lowest, "at least 1", lowest >= 1)?;
        require("highest", highest, "at least the lowest", highest >= lowest)?;
        let version = highest.min(HIGHEST);
        match version >= lowest.max(LOWEST) {
            true => Ok(Some((version, Hello::decode_body(body, version)?))),
            false => Ok(None),
        }
    }

    fn body(&self) -> Writer {
        let flag = |set, bit| if set { bit } else { 0 };
        let flags = flag(self.consistent, CONSISTENT)
            | flag(self.damaged, DAMAGED)
            | flag(self.fresh, FRESH)
            | flag(self.blind, BLIND)
            | flag(self.yields, YIELDS);
        let mut out = Writer::default();
        out.put(&self.group.0).u8(self.role.code()).u8(flags).put(&self.generation.0);
        out.u16(self.start.0).u64(self.durable.0).u64(self.applied.0).put(&self.layout);
        out.text(self.name.as_str());
        let count = self.lineage.len().min(LINEAGE_MAX);
        out.u16(u16::try_from(count).expect("at most LINEAGE_MAX"));
        for (generation, kept) in &self.lineage[self.lineage.len() - count..] {
            out.put(&generation.0).u64(kept.0);
        }
        out
    }

    /// Takes the fields of the version chosen and skips what later ones append.
    fn decode_body(body: &[u8], version: u16) -> Result<Hello, FormatError> {
        let mut from = Reader::new(body);
        let (group, role) = (GroupId(from.array("group")?), Role::decode(from.u8("role")?)?);
        let flags = from.u8("flags")?;
        let later = if version >= 2 { BLIND | YIELDS } else { 0 };
        let known = CONSISTENT | DAMAGED | FRESH | later;
        require("flags", flags, "bits of this version", flags & !known == 0)?;
        let mut hello = Hello {
            group,
            role,
            consistent: flags & CONSISTENT != 0,
            damaged: flags & DAMAGED != 0,
            fresh: flags & FRESH != 0,
            blind: flags & BLIND != 0,
            generation: Generation(from.array("generation")?),
            start: Start(from.u16("start")?),
            durable: Seq(from.u64("durable")?),
            applied: Seq(from.u64("applied")?),
            layout: from.array("layout")?,
            name: name(&mut from, "name")?,
            yields: flags & YIELDS != 0,
            lineage: Vec::new(),
        };
        if version >= 2 {
            let count = from.u16("lineage")?;
            require("lineage", count, "at most 64", usize::from(count) <= LINEAGE_MAX)?;
            let mut one = || Ok((Generation(from.array("generation")?), Seq(from.u64("kept")?)));
            hello.lineage = (0..count).map(|_| one()).collect::<Result<_, FormatError>>()?;
        }
        Ok(hello)
    }
}

impl Reply {
    /// The reply as sent.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Reply::Accepted { version, hello } => framed(REPLY_MAGIC, *version, 0, &hello.body()),
            Reply::Refused { refusal, text } => {
                let mut body = Writer::default();
                body.text(shortened(text));
                framed(REPLY_MAGIC, 0, refusal.code(), &body)
            }
        }
    }

    /// Reads a reply.
    pub fn decode(bytes: &[u8]) -> Result<Reply, FormatError> {
        let (version, code, body) = unframed(REPLY_MAGIC, "VGSR", bytes)?;
        if code == 0 {
            let spoken = (LOWEST..=HIGHEST).contains(&version);
            require("version", version, "one that was offered", spoken)?;
            return Ok(Reply::Accepted { version, hello: Hello::decode_body(body, version)? });
        }
        require("version", version, "0 when refused", version == 0)?;
        let text = Reader::new(body).text("text", TEXT_MAX)?.to_owned();
        Ok(Reply::Refused { refusal: Refusal::from_code(code), text })
    }
}

/// How many bytes follow the prefix of a hello, a reply or an opening of orders. Bounded, whatever the peer sent.
pub fn rest_len(prefix: [u8; PREFIX_LEN]) -> Result<usize, FormatError> {
    let mut from = Reader::new(&prefix);
    let magic = from.array("magic")?;
    if ![HELLO_MAGIC, REPLY_MAGIC, super::orders::MAGIC].contains(&magic) {
        return Err(FormatError::Magic { expected: "VGSH" });
    }
    let _ = from.u32("versions")?;
    let len = from.u32("len")?;
    require("len", len, "at most 4096", len <= BODY_MAX)?;
    Ok(len as usize + 4)
}

/// A name of at most [`NAME_MAX`] bytes.
pub(super) fn name(from: &mut Reader<'_>, field: &'static str) -> Result<Name, FormatError> {
    let text = from.text(field, NAME_MAX)?;
    let rule = "letters, digits, '.', '_' and '-'";
    text.parse().map_err(|_| FormatError::Field { field, found: text.len() as u64, rule })
}

/// A body of less than 4096 bytes in the outer form of a hello.
pub(super) fn framed(magic: [u8; 4], first: u16, second: u16, body: &Writer) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("bodies are below 4096 bytes");
    let mut out = Writer::default();
    out.put(&magic).u16(first).u16(second).u32(len).put(body.as_slice());
    with_checksum(out)
}

/// What `framed` made: both numbers of the prefix, and the body.
pub(super) fn unframed<'a>(
    magic: [u8; 4],
    expected: &'static str,
    bytes: &'a [u8],
) -> Result<(u16, u16, &'a [u8]), FormatError> {
    if bytes.get(..4) != Some(&magic) {
        return Err(FormatError::Magic { expected });
    }
    let mut from = checked(bytes)?;
    from.take("magic", 4)?;
    let (first, second, len) = (from.u16("version")?, from.u16("version")?, from.u32("len")?);
    require("len", len, "at most 4096", len <= BODY_MAX)?;
    let body = from.take("body", len as usize)?;
    from.finish()?;
    Ok((first, second, body))
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
