//! Clients of the NBD tap: a whole connection of any bytes, and requests whose replies are compared
//! with a model.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use vgship::capture::nbd::backend::{Export, Exports};
use vgship::capture::nbd::handshake::{
    OPTION_HEADER_BYTES, decode_client_flags, decode_option, greeting, option,
};
use vgship::capture::nbd::job::{Job, Scratch};
use vgship::capture::nbd::limits::{OPTION_BYTES_MAX, OPTIONS_MAX, PAYLOAD_MAX, SCRATCH_BYTES};
use vgship::capture::nbd::negotiate::{Negotiation, Next, Session};
use vgship::capture::nbd::pipes::{Front, Inlet, Outlet};
use vgship::capture::nbd::request::{Command, Request};
use vgship_base::bytes::{Reader, Writer};
use vgship_base::disk::Allocation;

use super::Input;

/// Size of the export. Unit: bytes.
const SIZE: usize = 64 << 10;
const PAGE: u64 = 4096;

/// An export in memory; pages of zeroes are holes.
struct Memory {
    bytes: Mutex<Vec<u8>>,
    read_only: bool,
}

impl Memory {
    fn new(read_only: bool) -> Arc<Memory> {
        Arc::new(Memory { bytes: Mutex::new(vec![0; SIZE]), read_only })
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("ranges were checked against the export")
}

impl Export for Memory {
    fn bytes(&self) -> u64 {
        SIZE as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().expect("no panic while it is held");
        into.copy_from_slice(&bytes[place(offset)..place(offset) + into.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: Bytes, _: bool) -> io::Result<()> {
        assert!(!self.read_only, "a write to something read-only");
        let mut bytes = self.bytes.lock().expect("no panic while it is held");
        bytes[place(offset)..place(offset) + data.len()].copy_from_slice(&data);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, durable: bool) -> io::Result<()> {
        self.write(offset, Bytes::from(vec![0; place(len)]), durable)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let until = end.min((offset / PAGE + 1) * PAGE);
        let bytes = self.bytes.lock().expect("no panic while it is held");
        let holds = bytes[place(offset)..place(until)].iter().any(|&byte| byte != 0);
        Ok((if holds { Allocation::Data } else { Allocation::Hole }, until))
    }
}

struct Both([Arc<Memory>; 2]);

impl Exports for Both {
    fn names(&self) -> Vec<String> {
        vec!["g/lv".into(), "g/ro".into()]
    }

    fn find(&self, name: &str) -> Option<Arc<dyn Export>> {
        let place = ["g/lv", "g/ro"].iter().position(|known| *known == name)?;
        Some(Arc::<Memory>::clone(&self.0[place]))
    }
}

/// A socket that gives what a client said, a few bytes a call.
struct Said<'a> {
    left: &'a [u8],
    step: usize,
}

impl Read for Said<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = into.len().min(self.step).min(self.left.len());
        let (now, later) = self.left.split_at(len);
        into[..len].copy_from_slice(now);
        self.left = later;
        Ok(len)
    }
}

fn take(inlet: &mut Inlet, from: &mut Said<'_>, len: usize) -> Option<Vec<u8>> {
    loop {
        if let Some(bytes) = inlet.take(len) {
            return Some(bytes.to_vec());
        }
        if inlet.fill(from).expect("the socket does not fail") == 0 {
            return None;
        }
    }
}

/// The handshake as the server's shell leads it; `None` when it ends the connection.
fn shake_hands(inlet: &mut Inlet, from: &mut Said<'_>, exports: &Both) -> Option<Session> {
    let flags = *take(inlet, from, 4)?.first_chunk()?;
    let mut negotiation = Negotiation::new(decode_client_flags(flags).ok()?);
    for taken in 0.. {
        let header = *take(inlet, from, OPTION_HEADER_BYTES)?.first_chunk()?;
        let (code, len) = decode_option(header).ok()?;
        if len > OPTION_BYTES_MAX {
            return None;
        }
        let data = take(inlet, from, len as usize)?;
        let mut out = Writer::default();
        let next = negotiation.handle(exports, code, &data, &mut out).ok()?;
        assert!(taken < OPTIONS_MAX, "an endless handshake");
        if code != option::EXPORT_NAME {
            check_answers(code, out.as_slice());
        }
        match next {
            Next::Option => {}
            Next::Leave => return None,
            Next::Serve(session) => return Some(session),
        }
    }
    None
}

/// One option has one or more answers, all to it, and nothing else.
fn check_answers(code: u32, bytes: &[u8]) {
    let mut from = Reader::new(bytes);
    let read = |_| -> Result<u32, vgship_base::bytes::FormatError> {
        assert_eq!(from.u64("magic")?, 0x0003_e889_0455_65a9);
        assert_eq!(from.u32("option")?, code);
        let kind = from.u32("type")?;
        let len = from.u32("length")?;
        from.take("data", len as usize)?;
        assert!(len <= OPTION_BYTES_MAX, "an answer of {len} bytes");
        Ok(if from.left() == 0 { u32::MAX } else { kind })
    };
    let kinds: Result<Vec<u32>, _> = (0..1000).map(read).take_while(Result::is_ok).collect();
    assert_eq!(kinds.expect("whole").last(), Some(&u32::MAX), "answers that are none");
}

/// Carries requests out in order until the connection ends. Gives how many, and the replies.
fn serve(inlet: &mut Inlet, from: &mut Said<'_>, session: &Session) -> (usize, Vec<u8>) {
    let (mut outlet, mut scratch) = (Outlet::default(), Scratch::default());
    let (mut count, mut out) = (0, Vec::new());
    while let Ok(front) = inlet.front() {
        let (request, payload) = match front {
            Front::Part if inlet.fill(from).expect("the socket does not fail") == 0 => break,
            Front::Part => continue,
            Front::Large(request) if request.len > PAYLOAD_MAX => break,
            Front::Large(request) => {
                let taken = inlet
                    .take_large(&request, |len, into| from.take(len).read_to_end(into).map(drop));
                let Ok(payload) = taken else { break };
                (request, payload)
            }
            Front::Whole(request) => (request, inlet.take_whole(&request)),
        };
        if request.command == Command::Disconnect {
            break;
        }
        assert_eq!(payload.len(), request.payload() as usize);
        count += 1;
        let job = Job::new(session, &request, payload);
        let head = job.carry_out(&*session.export, &mut scratch);
        outlet.push(&head, scratch.data(), &mut out).expect("memory takes all");
        scratch.trim(SCRATCH_BYTES);
    }
    outlet.flush(&mut out).expect("memory takes all");
    (count, out)
}

/// One reply: the cookie, the error if it is one, and the content.
struct Answer<'a> {
    cookie: u64,
    error: u32,
    kind: Option<u16>,
    content: &'a [u8],
}

/// Reads the reply of a request as a client must. `len` is what a good simple READ brings.
fn answer<'a>(from: &mut Reader<'a>, len: u32) -> Answer<'a> {
    const WHOLE: &str = "replies are whole";
    let magic = from.u32("magic").expect(WHOLE);
    if magic == 0x6744_6698 {
        let (error, cookie) = (from.u32("error").expect(WHOLE), from.u64("cookie").expect(WHOLE));
        let len = if error == 0 { len } else { 0 };
        let content = from.take("data", len as usize).expect(WHOLE);
        return Answer { cookie, error, kind: None, content };
    }
    assert_eq!(magic, 0x668e_33ef, "neither kind of reply");
    assert_eq!(from.u16("flags").expect(WHOLE), 1, "the last chunk");
    let kind = from.u16("type").expect(WHOLE);
    let (cookie, len) = (from.u64("cookie").expect(WHOLE), from.u32("length").expect(WHOLE));
    let content = from.take("chunk", len as usize).expect(WHOLE);
    let error = match kind {
        0x8001 => Reader::new(content).u32("error").expect(WHOLE),
        _ => 0,
    };
    Answer { cookie, error, kind: Some(kind), content }
}

/// A whole connection: handshake and requests as they come, in pieces of any size.
pub fn connection(data: &[u8]) {
    let run = |step: usize| {
        let exports = Both([Memory::new(false), Memory::new(true)]);
        let mut said = Said { left: data, step };
        let mut inlet = Inlet::default();
        let session = shake_hands(&mut inlet, &mut said, &exports)?;
        let (count, out) = serve(&mut inlet, &mut said, &session);
        assert!(out.len() >= 16 * count, "every request has a reply");
        let bytes = exports.0[0].bytes.lock().expect("all is over").clone();
        Some((count, out, bytes))
    };
    // How a stream is cut into packets means nothing.
    assert_eq!(run(usize::MAX), run(7));
}

fn header(request: &Request, command: u16) -> Vec<u8> {
    let mut out = Writer::with_capacity(28);
    out.u32(0x2560_9513).u16(request.flags).u16(command).u64(request.cookie);
    out.u64(request.offset).u32(request.len);
    out.into_vec()
}

/// Commands with the numbers that clients send, the last of them unknown.
const COMMANDS: [(Command, u16); 7] = [
    (Command::Read, 0),
    (Command::Write, 1),
    (Command::Flush, 3),
    (Command::Trim, 4),
    (Command::WriteZeroes, 6),
    (Command::BlockStatus, 7),
    (Command::Unknown(5), 5),
];

/// Requests, most of them near what is allowed; every reply is what the model expects.
pub fn requests(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    // The status of ranges can be asked only where replies have chunks.
    let (structured, read_only) = (kind & 1 != 0, kind & 4 != 0);
    let allocation = structured && kind & 2 != 0;
    let memory = Memory::new(read_only);
    let export: Arc<dyn Export> = Arc::<Memory>::clone(&memory);
    let session = Session { export, name: "g/lv".into(), structured, allocation };
    let mut asked = Vec::new();
    let mut said = Vec::new();
    while !input.is_empty() && asked.len() < 64 {
        let (command, number) = COMMANDS[input.below(COMMANDS.len())];
        let flags = match input.below(16) {
            few @ 0..8 => 1 << few >> 1,
            _ => 0,
        };
        let flush = command == Command::Flush && input.below(4) > 0;
        let offset = if flush { 0 } else { range(&mut input) };
        let len = if flush { 0 } else { range(&mut input) };
        let mut len = u32::try_from(len).unwrap_or(u32::MAX);
        if command == Command::Write {
            len = len.min(48 << 10); // the client does send what it announces
        }
        let request = Request { command, flags, cookie: asked.len() as u64, offset, len };
        said.extend(header(&request, number));
        said.extend(std::iter::repeat_n(input.u8(), request.payload() as usize));
        asked.push((request, said.last().copied().unwrap_or(0)));
    }
    let mut inlet = Inlet::default();
    let (count, out) = serve(&mut inlet, &mut Said { left: &said, step: 9000 }, &session);
    assert_eq!(count, asked.len(), "well-formed requests do not end a connection");
    check(&session, &asked, &out);
}

/// An offset or length: any, or near the begin, or near the end.
fn range(input: &mut Input<'_>) -> u64 {
    match input.below(5) {
        0 => input.odd(),
        1 => SIZE as u64 - u64::from(input.u8()),
        2 => u64::from(input.u8()) * PAGE,
        _ => input.u16().into(),
    }
}

fn check(session: &Session, asked: &[(Request, u8)], out: &[u8]) {
    let mut model = vec![0; SIZE];
    let mut from = Reader::new(out);
    for (request, fill) in asked {
        let carried = may(session, request);
        let read = request.command == Command::Read;
        let found = answer(&mut from, if read { request.len } else { 0 });
        assert_eq!(found.cookie, request.cookie, "replies of one thread keep the order");
        assert_eq!(found.error == 0, carried, "{request:?} has error {}", found.error);
        let chunked =
            session.structured && matches!(request.command, Command::Read | Command::BlockStatus);
        assert_eq!(found.kind.is_some(), chunked, "{request:?}");
        if !carried || request.command == Command::Flush {
            continue;
        }
        let bytes = &mut model[place(request.offset)..][..request.len as usize];
        match request.command {
            Command::Write => bytes.fill(*fill),
            Command::Trim | Command::WriteZeroes => bytes.fill(0),
            Command::Read => {
                let head = if chunked { 8 } else { 0 };
                assert_eq!(&found.content[head..], bytes, "{request:?}");
            }
            _ => check_status(request, found.content, bytes),
        }
    }
    from.finish().expect("a reply to each request and no more");
}

/// What is told as a hole reads as zero, and runs begin at the request and do not pass its end.
fn check_status(request: &Request, content: &[u8], bytes: &[u8]) {
    let mut from = Reader::new(content);
    assert_eq!(from.u32("context"), Ok(1));
    let mut at = 0;
    while let (Ok(len), Ok(kind)) = (from.u32("length"), from.u32("kind")) {
        let run = &bytes[at..at + len as usize];
        assert!(kind == 0 || run.iter().all(|&byte| byte == 0), "{request:?}: a hole with content");
        assert!(len > 0);
        at += len as usize;
    }
    assert!(at > 0, "a status tells something");
}

/// Whether a request is to be carried out, from the protocol and not from the server.
fn may(session: &Session, request: &Request) -> bool {
    let changes = matches!(request.command, Command::Write | Command::Trim | Command::WriteZeroes);
    let flags = match request.command {
        Command::Read if session.structured => 0b101,
        Command::WriteZeroes => 0b11,
        Command::BlockStatus => 0b1001,
        _ => 1,
    };
    let end = u128::from(request.offset) + u128::from(request.len);
    let inside = request.len > 0 && end <= SIZE as u128;
    let empty = request.offset == 0 && request.len == 0;
    match request.command {
        Command::Unknown(_) | Command::Disconnect => false,
        _ if request.flags & !flags != 0 => false,
        Command::Flush => empty,
        Command::BlockStatus if !session.allocation => false,
        _ => inside && !(changes && session.export.read_only()),
    }
}

fn option_bytes(code: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    let len = u32::try_from(data.len()).expect("seeds are small");
    out.put(&greeting()[8..16]).u32(code).u32(len).put(data);
    out.into_vec()
}

/// Handshakes of several kinds, with requests behind them.
pub fn connection_seeds() -> Vec<Vec<u8>> {
    let go = option_bytes(option::GO, b"\0\0\0\x04g/lv\0\x02\0\x01\0\x03");
    let context = b"\0\0\0\x04g/lv\0\0\0\x01\0\0\0\x0fbase:allocation";
    let options = [
        option_bytes(option::STRUCTURED_REPLY, b""),
        option_bytes(option::LIST, b""),
        option_bytes(option::INFO, b"\0\0\0\x04g/ro\0\0"),
        option_bytes(option::LIST_META_CONTEXT, b"\0\0\0\x04g/lv\0\0\0\0"),
        option_bytes(option::SET_META_CONTEXT, context),
        go.clone(),
    ];
    let mut requests = Vec::new();
    for (cookie, (command, number)) in (1..).zip(COMMANDS) {
        let len = if command == Command::Flush { 0 } else { 5 };
        let request = Request { command, flags: 0, cookie, offset: 0, len };
        requests.extend(header(&request, number));
        requests.extend(vec![7; request.payload() as usize]);
    }
    let flags = [0, 0, 0, 3];
    vec![
        [&flags[..], &go, &requests].concat(),
        [&flags[..], &options.concat(), &requests].concat(),
        [&[0, 0, 0, 1][..], &option_bytes(option::EXPORT_NAME, b"g/ro"), &requests].concat(),
        [&flags[..], &option_bytes(option::ABORT, b"")].concat(),
        [&flags[..], &option_bytes(option::STARTTLS, b""), &option_bytes(99, b"?")].concat(),
    ]
}

/// Choices that make each command, with and without chunks.
pub fn request_seeds() -> Vec<Vec<u8>> {
    let one = |command: u8| vec![command, 9, 3, 0, 0, 3, 1, 0, 0x55];
    let all: Vec<u8> = [1, 0, 5, 4, 5, 3, 0].into_iter().flat_map(one).collect();
    let flush = [2, 9, 1, 7, 2, 9, 0, 3, 0, 1, 3, 0, 1, 7];
    [0, 1, 3, 7]
        .into_iter()
        .map(|kind| [&[kind], &all[..], &flush[..], &all[..]].concat())
        .collect()
}
