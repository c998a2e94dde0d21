//! For tests: an export in memory whose writes can be held up, a server of it, and a client that
//! says exactly what a test tells it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use vgship_base::disk::Allocation;

use super::backend::{Export, Exports};
use super::io::NbdServer;
use super::io::socket::Listener;

/// Size of the test export. Unit: bytes.
pub const BYTES: u64 = 1 << 20;

/// Writes at this offset wait while the export is held up.
pub const HELD_OFFSET: u64 = 512 << 10;

/// An export in memory. Its second half is a hole as far as it tells.
pub struct Memory {
    bytes: Mutex<Vec<u8>>,
    pub read_only: bool,
    pub min_block: u32,
    held: Mutex<(bool, usize)>,
    change: Condvar,
}

impl Memory {
    pub fn new(read_only: bool) -> Memory {
        Memory {
            bytes: Mutex::new(vec![0; usize::try_from(BYTES).unwrap()]),
            read_only,
            min_block: 1,
            held: Mutex::default(),
            change: Condvar::new(),
        }
    }

    pub fn hold(&self, held: bool) {
        self.held.lock().unwrap().0 = held;
        self.change.notify_all();
    }

    /// Waits until so many writes wait.
    pub fn await_held(&self, count: usize) {
        let held = self.held.lock().unwrap();
        drop(self.change.wait_while(held, |held| held.1 < count).unwrap());
    }

    fn wait(&self) {
        let mut held = self.held.lock().unwrap();
        held.1 += 1;
        self.change.notify_all();
        drop(self.change.wait_while(held, |held| held.0).unwrap());
    }
}

impl Export for Memory {
    fn bytes(&self) -> u64 {
        BYTES
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn min_block(&self) -> u32 {
        self.min_block
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        into.copy_from_slice(&self.bytes.lock().unwrap()[at..at + into.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: Bytes, _: bool) -> io::Result<()> {
        if offset == HELD_OFFSET {
            self.wait();
        }
        assert_ne!(data.first(), Some(&0xdd), "an export that panics, for a test");
        if data.first() == Some(&0xee) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[at..at + data.len()].copy_from_slice(&data);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, durable: bool) -> io::Result<()> {
        self.write(offset, Bytes::from(vec![0; usize::try_from(len).unwrap()]), durable)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        // In small steps, so that neighbours of one kind have to be joined.
        let until = end.min(offset + 4096);
        match offset < HELD_OFFSET {
            true => Ok((Allocation::Data, until.min(HELD_OFFSET))),
            false => Ok((Allocation::Hole, until)),
        }
    }
}

/// `g/lv` and, read-only, `g/ro`.
pub struct Both {
    pub lv: Arc<Memory>,
    pub ro: Arc<Memory>,
}

impl Both {
    pub fn new() -> Both {
        Both { lv: Arc::new(Memory::new(false)), ro: Arc::new(Memory::new(true)) }
    }
}

impl Exports for Both {
    fn names(&self) -> Vec<String> {
        vec!["g/lv".into(), "g/ro".into()]
    }

    fn find(&self, name: &str) -> Option<Arc<dyn Export>> {
        match name {
            "g/lv" => Some(Arc::clone(&self.lv) as Arc<dyn Export>),
            "g/ro" => Some(Arc::clone(&self.ro) as Arc<dyn Export>),
            _ => None,
        }
    }
}

/// A server with its socket in a folder of its own.
pub struct Served {
    pub server: NbdServer,
    pub lv: Arc<Memory>,
    pub place: TempDir,
}

pub fn serve() -> Served {
    let place = tempfile::tempdir().unwrap();
    let exports = Both::new();
    let lv = Arc::clone(&exports.lv);
    let listener = Listener::unix(&place.path().join("nbd.sock")).unwrap();
    let server = NbdServer::start(vec![listener], Arc::new(exports)).unwrap();
    Served { server, lv, place }
}

impl Served {
    pub fn connect(&self) -> Client {
        let socket = UnixStream::connect(self.place.path().join("nbd.sock")).unwrap();
        // No test waits for a time; this ends one that would wait for ever.
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Client { socket };
        let greeting = client.take(18);
        assert_eq!(greeting[..8], *b"NBDMAGIC");
        client.send(&[0, 0, 0, 3]);
        client
    }

    /// A client in the transmission phase of `name`, with simple replies.
    pub fn open(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.option(1, name.as_bytes());
        let export = client.take(10);
        assert_eq!(export[..8], BYTES.to_be_bytes());
        client
    }

    /// The server serves a new client, whatever others did to it.
    pub fn assert_alive(&self) {
        let mut client = self.open("g/lv");
        client.write(1, 4096, &[7; 512]);
        assert_eq!(client.simple(), (1, 0));
        client.request(0, 0, 2, 4096, 512);
        assert_eq!(client.simple(), (2, 0));
        assert_eq!(client.take(512), [7; 512]);
    }
}

/// A client made by hand.
pub struct Client {
    socket: UnixStream,
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Waits until the server has closed; nothing may come before.
    pub fn assert_closed(&mut self) {
        match self.socket.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("the server has not closed the connection: {other:?}"),
        }
    }

    pub fn option(&mut self, option: u32, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        self.option_header(option, len);
        self.send(data);
    }

    pub fn option_header(&mut self, option: u32, len: u32) {
        self.send(&[&b"IHAVEOPT"[..], &option.to_be_bytes(), &len.to_be_bytes()].concat());
    }

    /// The type and the data of the next reply to an option.
    pub fn answer(&mut self) -> (u32, Vec<u8>) {
        let head = self.take(20);
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let data = self.take(number(16) as usize);
        (number(12), data)
    }

    pub fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, len: u32) {
        self.send(&Client::header(flags, command, cookie, offset, len));
    }

    pub fn header(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&command.to_be_bytes());
        bytes.extend_from_slice(&cookie.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes
    }

    pub fn write(&mut self, cookie: u64, offset: u64, data: &[u8]) {
        self.request(0, 1, cookie, offset, u32::try_from(data.len()).unwrap());
        self.send(data);
    }

    /// The cookie and the error of the next simple reply.
    pub fn simple(&mut self) -> (u64, u32) {
        let bytes = self.take(16);
        assert_eq!(bytes[..4], [0x67, 0x44, 0x66, 0x98]);
        let error = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        (u64::from_be_bytes(bytes[8..].try_into().unwrap()), error)
    }

    /// The type, the cookie and the content of the next chunk, which must be the last.
    pub fn chunk(&mut self) -> (u16, u64, Vec<u8>) {
        let head = self.take(20);
        assert_eq!(head[..6], [0x66, 0x8e, 0x33, 0xef, 0, 1]);
        let kind = u16::from_be_bytes(head[6..8].try_into().unwrap());
        let cookie = u64::from_be_bytes(head[8..16].try_into().unwrap());
        let len = u32::from_be_bytes(head[16..].try_into().unwrap());
        (kind, cookie, self.take(len as usize))
    }
}
