//! Judges requests and carries them out on an export. Knows no socket.

use std::ops::Deref;

use bytes::Bytes;
use vgship_base::disk::Allocation;

use super::backend::Export;
use super::limits::{PAYLOAD_MAX, RUNS_MAX};
use super::negotiate::Session;
use super::reply::{self, ErrorNumber};
use super::request::{Command, FLAG_DF, FLAG_FUA, FLAG_NO_HOLE, FLAG_REQ_ONE, Request};
use crate::capture::io::report;

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told as a number.
    pub error: ErrorNumber,
    /// And in words.
    pub text: &'static str,
}

/// What is to be done. Ranges lie inside the export and are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    /// Send a range.
    Read { offset: u64, len: u32 },
    /// Write the payload.
    Write { offset: u64, data: Bytes, durable: bool },
    /// Make a range read as zero.
    Zero { offset: u64, len: u32, durable: bool },
    /// Make everything durable.
    Flush,
    /// Tell the kinds of a range's parts; only the first with `one`.
    Status { offset: u64, len: u32, one: bool },
}

/// Jobs that wait about equally long. Indexes what is remembered of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Known to wait for the disk, or for other machines.
    Slow,
    /// Usually quick; the number says which memory holds how quick.
    Usual(usize),
}

/// How many memories of durations there are.
pub const CLASSES: usize = 4;

/// One request that waits to be carried out, or to be refused in its turn.
#[derive(Debug)]
pub struct Job {
    cookie: u64,
    structured: bool,
    bytes: u32,
    work: Result<Work, Refusal>,
}

/// How a reply begins, or the whole of it.
#[derive(Debug)]
pub enum Head {
    /// A simple reply.
    Simple([u8; 16]),
    /// A chunk.
    Chunk(Vec<u8>),
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Head::Simple(bytes) => bytes,
            Head::Chunk(bytes) => bytes,
        }
    }
}

impl Job {
    /// Judges a request. `payload` is what followed it.
    pub fn new(session: &Session, request: &Request, payload: Bytes) -> Job {
        let answers_with_data = matches!(request.command, Command::Read | Command::BlockStatus);
        let work = judge(session, request, payload);
        let bytes = match (&work, request.command) {
            (Ok(_), Command::Read | Command::Write) => request.len,
            _ => 0,
        };
        let structured = session.structured && answers_with_data;
        Job { cookie: request.cookie, structured, bytes, work }
    }

    /// Memory that it holds or will hold. Unit: bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }

    /// How long it can be expected to take.
    pub fn class(&self) -> Class {
        match &self.work {
            Ok(
                Work::Flush | Work::Write { durable: true, .. } | Work::Zero { durable: true, .. },
            ) => Class::Slow,
            Ok(Work::Read { .. }) => Class::Usual(0),
            Ok(Work::Write { .. }) => Class::Usual(1),
            Ok(Work::Zero { .. }) => Class::Usual(2),
            Ok(Work::Status { .. }) | Err(_) => Class::Usual(3),
        }
    }

    /// Does it. What is to be sent is the head and then `data`, whose old content is lost.
    pub fn carry_out(self, export: &dyn Export, data: &mut Scratch) -> Head {
        data.len = 0;
        let done = match self.work {
            Err(refusal) => {
                return failed(self.structured, self.cookie, refusal.error, refusal.text);
            }
            Ok(Work::Read { offset, len }) => {
                let read = export.read(offset, data.resize(len as usize));
                if read.is_ok() {
                    return match self.structured {
                        true => Head::Chunk(reply::data(self.cookie, offset, len)),
                        false => Head::Simple(reply::simple(self.cookie, None)),
                    };
                }
                data.len = 0;
                read
            }
            Ok(Work::Status { offset, len, one }) => match runs(export, offset, len, one) {
                Ok(runs) => return Head::Chunk(reply::status(self.cookie, &runs)),
                Err(error) => Err(error),
            },
            Ok(Work::Write { offset, data, durable }) => export.write(offset, data, durable),
            Ok(Work::Zero { offset, len, durable }) => export.zero(offset, u64::from(len), durable),
            Ok(Work::Flush) => export.flush(),
        };
        match done {
            Ok(()) => Head::Simple(reply::simple(self.cookie, None)),
            Err(error) => {
                let text = report(&error);
                tracing::warn!(error = %text, "an NBD request failed");
                failed(self.structured, self.cookie, ErrorNumber::of(&error), &text)
            }
        }
    }
}

fn failed(structured: bool, cookie: u64, error: ErrorNumber, text: &str) -> Head {
    match structured {
        true => Head::Chunk(reply::error(cookie, error, text)),
        false => Head::Simple(reply::simple(cookie, Some(error))),
    }
}

/// Data that was read. Keeps its memory, so that it is cleared only once.
#[derive(Debug, Default)]
pub struct Scratch {
    memory: Vec<u8>,
    len: usize,
}

impl Scratch {
    fn resize(&mut self, len: usize) -> &mut [u8] {
        if self.memory.len() < len {
            self.memory = vec![0; len];
        }
        self.len = len;
        &mut self.memory[..len]
    }

    /// What was read.
    pub fn data(&self) -> &[u8] {
        &self.memory[..self.len]
    }

    /// Gives memory back if it is more than `keep` bytes.
    pub fn trim(&mut self, keep: usize) {
        if self.memory.len() > keep {
            *self = Scratch::default();
        }
    }
}

fn judge(session: &Session, request: &Request, payload: Bytes) -> Result<Work, Refusal> {
    use ErrorNumber::{Invalid, NoSpace, Perm};
    let refuse = |error, text| Err(Refusal { error, text });
    let Request { command, flags, offset, len, .. } = *request;
    let known = match command {
        Command::Unknown(_) | Command::Disconnect => return refuse(Invalid, "unknown command"),
        Command::Read if session.structured => FLAG_FUA | FLAG_DF,
        Command::WriteZeroes => FLAG_FUA | FLAG_NO_HOLE,
        Command::BlockStatus => FLAG_FUA | FLAG_REQ_ONE,
        Command::Read | Command::Write | Command::Flush | Command::Trim => FLAG_FUA,
    };
    if flags & !known != 0 {
        return refuse(Invalid, "a flag that this command does not have");
    }
    if command == Command::Flush {
        return match (offset, len) {
            (0, 0) => Ok(Work::Flush),
            _ => refuse(Invalid, "flush has no range"),
        };
    }
    let changes = matches!(command, Command::Write | Command::WriteZeroes | Command::Trim);
    if changes && session.export.read_only() {
        return refuse(Perm, "this export is read-only");
    }
    if command == Command::BlockStatus && !session.allocation {
        return refuse(Invalid, "no context was chosen");
    }
    if len == 0 {
        return refuse(Invalid, "an empty range");
    }
    let block = session.export.min_block();
    if !offset.is_multiple_of(block.into()) || !len.is_multiple_of(block) {
        return refuse(
            Invalid,
            "the range is no multiple of the smallest block that was announced",
        );
    }
    if offset.checked_add(u64::from(len)).is_none_or(|end| end > session.export.bytes()) {
        let writes = matches!(command, Command::Write | Command::WriteZeroes);
        return refuse(if writes { NoSpace } else { Invalid }, "the range ends behind the export");
    }
    let durable = flags & FLAG_FUA != 0;
    match command {
        Command::Read if len > PAYLOAD_MAX => refuse(Invalid, "longer than a reply may be"),
        Command::Read => Ok(Work::Read { offset, len }),
        Command::Write => Ok(Work::Write { offset, data: payload, durable }),
        // R13: a trimmed range reads as zero, so that source and replica stay comparable. NO_HOLE
        // is a wish: what is zeroed takes room where the volume cannot deallocate anyway.
        Command::Trim | Command::WriteZeroes => Ok(Work::Zero { offset, len, durable }),
        _ => Ok(Work::Status { offset, len, one: flags & FLAG_REQ_ONE != 0 }),
    }
}

/// The kinds of a range's parts, neighbours of one kind joined.
fn runs(
    export: &dyn Export,
    offset: u64,
    len: u32,
    one: bool,
) -> std::io::Result<Vec<(u32, Allocation)>> {
    let mut runs: Vec<(u32, Allocation)> = Vec::new();
    let (mut at, end) = (offset, offset + u64::from(len));
    while at < end {
        let (kind, until) = export.allocation(at, end)?;
        let until = until.clamp(at + 1, end);
        let step = u32::try_from(until - at).expect("a run lies inside a range of u32 bytes");
        let full = runs.len() == if one { 1 } else { RUNS_MAX };
        match runs.last_mut() {
            Some((len, last)) if *last == kind => *len += step,
            Some(_) if full => break,
            _ => runs.push((step, kind)),
        }
        at = until;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::capture::nbd::testing::Memory;

    /// Goal: an export that takes whole blocks alone refuses others as disks do, and says why.
    #[test]
    fn ranges_that_are_no_blocks_are_refused_where_blocks_are_announced() {
        let session = |min_block| {
            let mut export = Memory::new(false);
            export.min_block = min_block;
            let (name, structured, allocation) = ("g/lv".into(), false, true);
            Session { export: Arc::new(export), name, structured, allocation }
        };
        let ask = |command, offset, len| Request { command, flags: 0, cookie: 1, offset, len };
        for command in [Command::Read, Command::Write, Command::Trim, Command::BlockStatus] {
            for (offset, len, whole) in
                [(512, 1024, true), (512, 100, false), (100, 512, false), (100, 412, false)]
            {
                let request = ask(command, offset, len);
                assert!(judge(&session(1), &request, Bytes::new()).is_ok(), "{request:?}");
                let judged = judge(&session(512), &request, Bytes::new());
                let refused = judged.err().map(|refusal| refusal.error);
                let expected = (!whole).then_some(ErrorNumber::Invalid);
                assert_eq!(refused, expected, "{request:?}");
            }
        }
        let flush = judge(&session(512), &ask(Command::Flush, 0, 0), Bytes::new());
        assert_eq!(flush, Ok(Work::Flush));
    }
}
