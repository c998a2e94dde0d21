//! A blocking NBD client that has one request under way.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Longer than any reply may take here, a stalled write's too.
const PATIENCE: Duration = Duration::from_secs(90);

/// A connection to one export.
pub struct Nbd {
    stream: UnixStream,
    cookie: u64,
    bytes: u64,
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

impl Nbd {
    /// Opens the export of a volume of `g`.
    pub fn open(socket: &Path, volume: &str) -> io::Result<Nbd> {
        Nbd::open_export(socket, &format!("g/{volume}"))
    }

    /// Opens any export.
    pub fn open_export(socket: &Path, name: &str) -> io::Result<Nbd> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut nbd = Nbd { stream, cookie: 0, bytes: 0 };
        let hello = nbd.take(18)?;
        if &hello[..16] != b"NBDMAGICIHAVEOPT" {
            return Err(odd("no NBD server"));
        }
        let mut go = Vec::new();
        go.extend(3_u32.to_be_bytes()); // fixed newstyle, no zeroes
        go.extend(OPTION_MAGIC.to_be_bytes());
        go.extend(7_u32.to_be_bytes()); // GO
        go.extend(u32::try_from(name.len() + 6).unwrap().to_be_bytes());
        go.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
        go.extend(name.as_bytes());
        go.extend(0_u16.to_be_bytes());
        nbd.stream.write_all(&go)?;
        loop {
            let head = nbd.take(20)?;
            if head[..8] != OPTION_REPLY_MAGIC.to_be_bytes() {
                return Err(odd("no option reply"));
            }
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let data = nbd.take(word(16) as usize)?;
            match word(12) {
                1 => return Ok(nbd),
                3 if data.starts_with(&[0, 0]) => {
                    nbd.bytes = u64::from_be_bytes(data[2..10].try_into().unwrap());
                }
                3 => {}
                kind => return Err(odd(&format!("refused with {kind:#x}"))),
            }
        }
    }

    /// Size of the export. Unit: bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn ask(&mut self, kind: u16, offset: u64, len: usize, data: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0_u16.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(u32::try_from(len).unwrap().to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)?;
        let reply = self.take(16)?;
        if reply[..4] != REPLY_MAGIC.to_be_bytes() || reply[8..] != self.cookie.to_be_bytes() {
            return Err(odd("no reply to this request"));
        }
        match u32::from_be_bytes(reply[4..8].try_into().unwrap()) {
            0 => Ok(()),
            error => Err(Error::from_raw_os_error(error.cast_signed())),
        }
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.ask(0, offset, len, &[])?;
        self.take(len)
    }

    /// Writes, and waits until that is answered.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ask(1, offset, data.len(), data)
    }

    /// Writes zeroes, and waits until that is answered.
    pub fn zero(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.ask(6, offset, len, &[])
    }

    /// Flushes, and waits until that is answered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.ask(3, 0, 0, &[])
    }
}
