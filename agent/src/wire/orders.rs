//! Orders of a set, on a stream of their own beside a group's: what the agent that coordinates a set
//! asks of the source of one group, and what it is told. Version 1.
//!
//! ```text
//! opening                                           message
//! at  size  field     unit   rule                   at  size  field     unit   rule
//!  0     4  magic     -      the letters VGSO        0     1  kind      -      see below
//!  4     2  lowest    -      oldest version spoken   1     1  reserved  -      0
//!  6     2  highest   -      newest, >= lowest       2     2  len       bytes  of the body, <= 1024
//!  8     4  len       bytes  of the body, <= 4096    4   len  body      -      by kind
//! 12   len  body      -      16 group, the rest is skipped
//!        4  crc       -      CRC-32C of all before
//!
//! order          body
//!  1 begin       1 flags (1 quiesce, 2 also without commands of its own), 4 hold (milliseconds),
//!                2+n name of the snapshot
//!  2 mark        -
//!  3 release     -
//!  4 give up     -
//!  5 change      1 what (1 take back, 2 pin, 3 unpin), 2+n name of the snapshot
//!
//! answer         body
//! 16 ready       -
//! 17 marked      16 generation, 8 seq
//! 18 released    4 held (milliseconds)
//! 19 followed    -
//! 20 done        -
//! 21 failed      1 flags (1 late, 2 applications may still be frozen), 2+n text (at most 512 bytes)
//! ```
//!
//! Each side says at most 8 messages on one stream; more end it. The opening has the outer form of a
//! hello. Integers are big-endian; the link below authenticates every byte.

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::ids::{Generation, GroupId, Name, Seq};

use super::hello::{framed, name, unframed};

/// What an opening begins with.
pub const MAGIC: [u8; 4] = *b"VGSO";

/// The one version of orders.
const VERSION: u16 = 1;

/// Encoded length of what stands before a message's body. Unit: bytes.
pub const HEADER_LEN: usize = 4;

/// Longest body of a message. Unit: bytes.
pub const BODY_MAX: usize = 1024;

/// Longest text of a failure. Unit: bytes.
pub const TEXT_MAX: usize = 512;

/// As many messages as one side may say on a stream. A try takes five at most.
pub const ORDERS_MAX: u32 = 8;

const QUIESCE: u8 = 1;
const WITHOUT_COMMANDS: u8 = 2;
const LATE: u8 = 1;
const FROZEN: u8 = 2;

/// How applications are made quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiesce {
    /// How long they may be held. Unit: milliseconds.
    pub hold: u32,
    /// A group that has no commands of its own is ready as it is.
    pub without_commands: bool,
}

/// What becomes of a snapshot that was made by an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It goes, with all that it says.
    TakeBack,
    /// It stays until it is unpinned.
    Pin,
    /// It may go.
    Unpin,
}

/// What a coordinator asks of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Get ready to take a snapshot of this name.
    Begin {
        /// What it is called on the replicas.
        name: Name,
        /// Freeze applications for it.
        quiesce: Option<Quiesce>,
    },
    /// Everybody is ready: put the marker in.
    Mark,
    /// All markers are in: let applications go on.
    Release,
    /// Let applications go on and take back what was done.
    GiveUp,
    /// Change a snapshot of earlier. Stands alone on its stream.
    Change(Change, Name),
}

/// What a member says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Applications are frozen, where they are to be.
    Ready,
    /// The marker is in.
    Marked {
        /// The history that its place belongs to.
        generation: Generation,
        /// Where it stands.
        seq: Seq,
    },
    /// Applications go on, and were frozen until now.
    Released {
        /// How long they were held. Unit: milliseconds.
        held: u32,
    },
    /// Every replica that follows has the snapshot.
    Followed,
    /// The change was made wherever it has to be.
    Done,
    /// The end: it did not work, or was given up, and what was done is taken back.
    Failed(Failure),
}

/// Why a member is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its hold was over.
    pub late: bool,
    /// Applications may still be frozen.
    pub frozen: bool,
    /// For people.
    pub text: String,
}

impl Failure {
    /// Of no special kind.
    pub fn plain(text: impl Into<String>) -> Failure {
        Failure { late: false, frozen: false, text: text.into() }
    }
}

/// The opening of a stream of orders for a group.
pub fn opening(group: GroupId) -> Vec<u8> {
    let mut body = Writer::default();
    body.put(&group.0);
    framed(MAGIC, VERSION, VERSION, &body)
}

/// The group of an opening; `None` when no version is spoken by both.
pub fn read_opening(bytes: &[u8]) -> Result<Option<GroupId>, FormatError> {
    let (lowest, highest, body) = unframed(MAGIC, "VGSO", bytes)?;
    require("lowest", lowest, "at least 1", lowest >= 1)?;
    require("highest", highest, "at least the lowest", highest >= lowest)?;
    if !(lowest..=highest).contains(&VERSION) {
        return Ok(None);
    }
    Ok(Some(GroupId(Reader::new(body).array("group")?)))
}

/// A message's kind and the length of its body, checked. Unit: bytes.
pub fn read_header(bytes: [u8; HEADER_LEN]) -> Result<(u8, usize), FormatError> {
    let mut from = Reader::new(&bytes);
    let (kind, reserved, len) = (from.u8("kind")?, from.u8("reserved")?, from.u16("len")?);
    require("reserved", reserved, "0", reserved == 0)?;
    require("len", len, "at most 1024", usize::from(len) <= BODY_MAX)?;
    Ok((kind, len.into()))
}

fn message(kind: u8, body: &Writer) -> Vec<u8> {
    assert!(body.len() <= BODY_MAX, "a message of {} bytes", body.len());
    let len = u16::try_from(body.len()).expect("BODY_MAX fits");
    let mut out = Writer::default();
    out.u8(kind).u8(0).u16(len).put(body.as_slice());
    out.into_vec()
}

impl Change {
    const ALL: [Change; 3] = [Change::TakeBack, Change::Pin, Change::Unpin];

    fn code(self) -> u8 {
        match self {
            Change::TakeBack => 1,
            Change::Pin => 2,
            Change::Unpin => 3,
        }
    }

    fn decode(code: u8) -> Result<Change, FormatError> {
        let known = Change::ALL.into_iter().find(|it| it.code() == code);
        let rule = "1 to 3";
        known.ok_or(FormatError::Field { field: "what", found: code.into(), rule })
    }
}

impl Order {
    /// Header and body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        let kind = match self {
            Order::Begin { name, quiesce } => {
                let flags = quiesce.map_or(0, |it| {
                    QUIESCE | if it.without_commands { WITHOUT_COMMANDS } else { 0 }
                });
                body.u8(flags).u32(quiesce.map_or(0, |it| it.hold)).text(name.as_str());
                1
            }
            Order::Mark => 2,
            Order::Release => 3,
            Order::GiveUp => 4,
            Order::Change(what, name) => {
                body.u8(what.code()).text(name.as_str());
                5
            }
        };
        message(kind, &body)
    }

    /// Reads a body of this kind.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Order, FormatError> {
        let mut from = Reader::new(body);
        let order = match kind {
            1 => {
                let (flags, hold) = (from.u8("flags")?, from.u32("hold")?);
                let known = [0, QUIESCE, QUIESCE | WITHOUT_COMMANDS].contains(&flags);
                require("flags", flags, "0, 1 or 3", known)?;
                let without_commands = flags & WITHOUT_COMMANDS != 0;
                let quiesce = (flags != 0).then_some(Quiesce { hold, without_commands });
                require("hold", hold, "0 without quiescing", quiesce.is_some() || hold == 0)?;
                Order::Begin { name: name(&mut from, "name")?, quiesce }
            }
            2 => Order::Mark,
            3 => Order::Release,
            4 => Order::GiveUp,
            5 => Order::Change(Change::decode(from.u8("what")?)?, name(&mut from, "name")?),
            _ => {
                let rule = "an order, 1 to 5";
                return Err(FormatError::Field { field: "kind", found: kind.into(), rule });
            }
        };
        from.finish()?;
        Ok(order)
    }
}

impl Said {
    /// Header and body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        let kind = match self {
            Said::Ready => 16,
            Said::Marked { generation, seq } => {
                body.put(&generation.0).u64(seq.0);
                17
            }
            Said::Released { held } => {
                body.u32(*held);
                18
            }
            Said::Followed => 19,
            Said::Done => 20,
            Said::Failed(Failure { late, frozen, text }) => {
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                body.u8(flag(*late, LATE) | flag(*frozen, FROZEN));
                body.text(&text[..text.floor_char_boundary(TEXT_MAX)]);
                21
            }
        };
        message(kind, &body)
    }

    /// Reads a body of this kind.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Said, FormatError> {
        let mut from = Reader::new(body);
        let said = match kind {
            16 => Said::Ready,
            17 => Said::Marked {
                generation: Generation(from.array("generation")?),
                seq: Seq(from.u64("seq")?),
            },
            18 => Said::Released { held: from.u32("held")? },
            19 => Said::Followed,
            20 => Said::Done,
            21 => {
                let flags = from.u8("flags")?;
                require("flags", flags, "bits 0 and 1", flags & !(LATE | FROZEN) == 0)?;
                let text = from.text("text", TEXT_MAX)?.to_owned();
                Said::Failed(Failure { late: flags & LATE != 0, frozen: flags & FROZEN != 0, text })
            }
            _ => {
                let rule = "an answer, 16 to 21";
                return Err(FormatError::Field { field: "kind", found: kind.into(), rule });
            }
        };
        from.finish()?;
        Ok(said)
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
