//! Request header of the transmission phase: stands before every request, and before the payload
//! of WRITE.
//!
//! ```text
//! at  size  field   unit   rule
//!  0     4  magic          0x25609513
//!  4     2  flags          bit 0 FUA, 1 NO_HOLE, 2 DF, 3 REQ_ONE
//!  6     2  command        0 READ, 1 WRITE, 2 DISC, 3 FLUSH, 4 TRIM, 6 WRITE_ZEROES,
//!                          7 BLOCK_STATUS
//!  8     8  cookie         chosen by the client, comes back in the reply
//! 16     8  offset  bytes
//! 24     4  length  bytes
//! ```

use vgship_base::bytes::{FormatError, Reader};

/// Size of the header. Unit: bytes.
pub const HEADER_BYTES: usize = 28;

const MAGIC: u32 = 0x2560_9513;

/// Durable before the reply.
pub const FLAG_FUA: u16 = 1;
/// Zeroes should take room.
pub const FLAG_NO_HOLE: u16 = 1 << 1;
/// A read's reply in one piece.
pub const FLAG_DF: u16 = 1 << 2;
/// Only the first run of a status.
pub const FLAG_REQ_ONE: u16 = 1 << 3;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bytes of a range.
    Read,
    /// A range gets new bytes, which follow the header.
    Write,
    /// The client leaves. Has no reply.
    Disconnect,
    /// Everything completed becomes durable.
    Flush,
    /// A range is no longer needed.
    Trim,
    /// A range shall read as zero.
    WriteZeroes,
    /// Which parts of a range are holes.
    BlockStatus,
    /// A number that this server does not know.
    Unknown(u16),
}

/// One request as sent, unjudged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// How.
    pub flags: u16,
    /// Names the request in its reply.
    pub cookie: u64,
    /// Where. Unit: bytes.
    pub offset: u64,
    /// How much. Unit: bytes.
    pub len: u32,
}

impl Request {
    /// Reads a header.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Request, FormatError> {
        let mut reader = Reader::new(bytes);
        if reader.u32("magic")? != MAGIC {
            return Err(FormatError::Magic { expected: "0x25609513, a request" });
        }
        let flags = reader.u16("flags")?;
        let command = match reader.u16("command")? {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 => Command::Trim,
            6 => Command::WriteZeroes,
            7 => Command::BlockStatus,
            other => Command::Unknown(other),
        };
        let cookie = reader.u64("cookie")?;
        let offset = reader.u64("offset")?;
        let len = reader.u32("length")?;
        Ok(Request { command, flags, cookie, offset, len })
    }

    /// How many bytes follow the header. Unit: bytes.
    pub const fn payload(&self) -> u32 {
        match self.command {
            Command::Write => self.len,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const WRITE: [u8; HEADER_BYTES] =
        hex!("25609513 0001 0001 0123456789abcdef 0000000100000200 00001000");

    #[test]
    fn a_write_has_these_bytes() {
        let request = Request {
            command: Command::Write,
            flags: FLAG_FUA,
            cookie: 0x0123_4567_89ab_cdef,
            offset: (1 << 32) + 512,
            len: 4096,
        };
        assert_eq!(Request::decode(&WRITE), Ok(request));
        assert_eq!(request.payload(), 4096);
    }

    #[test]
    fn every_flipped_bit_is_another_request_or_none() {
        let whole = Request::decode(&WRITE).unwrap();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = WRITE;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = Request::decode(&bytes);
            assert_eq!(found.is_err(), bit < 32, "bit {bit}");
            assert_ne!(found, Ok(whole), "bit {bit}");
        }
    }

    #[test]
    fn an_unknown_command_is_read_and_has_no_payload() {
        let mut bytes = WRITE;
        bytes[7] = 0x63;
        let found = Request::decode(&bytes).unwrap();
        assert_eq!((found.command, found.payload()), (Command::Unknown(0x63), 0));
    }
}
