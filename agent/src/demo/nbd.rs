//! A blocking NBD client, enough for a workload: fixed newstyle, `GO`, simple replies, writes in
//! flight, one read at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use vgship_base::bytes::Writer;

/// Longest wait for a reply. An agent that does not answer for so long hangs.
const PATIENCE: Duration = Duration::from_mins(2);

/// Largest answer to an option that is read. Unit: bytes.
const ANSWER_MAX: u32 = 64 << 10;

const FIXED_NEWSTYLE: u16 = 1;
const OPTION_GO: u32 = 7;
const ANSWER_ACK: u32 = 1;
const ANSWER_INFO: u32 = 3;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

/// What is asked of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Bytes come back.
    Read = 0,
    /// Bytes go there.
    Write = 1,
    /// All completed writes become durable.
    Flush = 3,
    /// A run reads as zero from now on.
    Zero = 6,
}

/// A request; `data` is that of a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// What to do.
    pub(super) command: Command,
    /// Where. Unit: bytes.
    pub(super) offset: u64,
    /// How much. Unit: bytes.
    pub(super) len: u32,
    /// Content of a write, else empty.
    pub(super) data: &'a [u8],
    /// Whether it is durable when it is answered.
    pub(super) durable: bool,
}

/// A connection to one export.
pub(super) struct Client {
    socket: UnixStream,
    packet: Vec<u8>,
}

/// An answer that says no, or none that a server gives: of another kind than a lost connection.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::WouldBlock
    )
}

impl Client {
    /// Connects to an export and reaches its transmission phase.
    pub(super) fn connect(socket: &Path, export: &str) -> io::Result<Client> {
        let socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut client = Client { socket, packet: Vec::new() };
        let greeting: [u8; 18] = client.take()?;
        if greeting[..16] != *b"NBDMAGICIHAVEOPT" {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no NBD server"));
        }
        let mut hello = Writer::default();
        let name = u32::try_from(export.len()).map_err(io::Error::other)?;
        hello.u32(u32::from(FIXED_NEWSTYLE)).put(b"IHAVEOPT").u32(OPTION_GO).u32(name + 6);
        hello.u32(name).put(export.as_bytes()).u16(0);
        client.socket.write_all(hello.as_slice())?;
        loop {
            let head: [u8; 20] = client.take()?;
            let len = number(&head[16..]);
            if len > ANSWER_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer too long"));
            }
            let mut data = vec![0; len as usize];
            client.socket.read_exact(&mut data)?;
            match number(&head[12..16]) {
                ANSWER_ACK => return Ok(client),
                ANSWER_INFO => {}
                _ => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    return Err(io::Error::other(format!("export {export} is refused: {text}")));
                }
            }
        }
    }

    /// Sends a request; its reply comes by [`Client::reply`].
    pub(super) fn send(&mut self, cookie: u64, request: &Request<'_>) -> io::Result<()> {
        let mut head = Writer::default();
        head.u32(REQUEST).u16(u16::from(request.durable)).u16(request.command as u16);
        head.u64(cookie).u64(request.offset).u32(request.len);
        self.packet.clear();
        self.packet.extend_from_slice(head.as_slice());
        self.packet.extend_from_slice(request.data);
        self.socket.write_all(&self.packet)
    }

    /// The cookie of the next request that is done. For requests that bring nothing back.
    pub(super) fn reply(&mut self) -> io::Result<u64> {
        let head: [u8; 16] = self.take()?;
        match (number(&head), number(&head[4..])) {
            (REPLY, 0) => Ok(u64::from(number(&head[8..])) << 32 | u64::from(number(&head[12..]))),
            (REPLY, code) => Err(io::Error::other(format!("the agent answers with error {code}"))),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is no simple reply")),
        }
    }

    /// Does one request, with no other in flight.
    pub(super) fn call(&mut self, request: &Request<'_>) -> io::Result<()> {
        self.send(1, request)?;
        self.reply().map(drop)
    }

    /// Reads, with no other request in flight.
    pub(super) fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let len = u32::try_from(into.len()).map_err(io::Error::other)?;
        let request = Request { command: Command::Read, offset, len, data: &[], durable: false };
        self.send(1, &request)?;
        self.reply()?;
        self.socket.read_exact(into)
    }

    /// Makes all completed writes durable.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let request =
            Request { command: Command::Flush, offset: 0, len: 0, data: &[], durable: false };
        self.call(&request)
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// The big-endian number at the head of `bytes`.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |number, &byte| number << 8 | u32::from(byte))
}
