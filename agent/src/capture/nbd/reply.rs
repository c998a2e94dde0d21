//! Replies of the transmission phase: the simple one, and the chunks of a structured one.
//!
//! ```text
//! simple                              chunk
//! at  size  field   rule              at  size  field   rule
//!  0     4  magic   0x67446698         0     4  magic   0x668e33ef
//!  4     4  error   0 or a number      4     2  flags   bit 0: the last chunk
//!  8     8  cookie  of the request     6     2  type    1 data, 2 hole, 5 status, 0x8001 error
//! 16        data of a good READ        8     8  cookie  of the request
//!                                     16     4  length  of what follows, bytes
//!
//! data:   offset u64, bytes
//! status: context u32, then runs of (length u32 bytes, kind u32: bit 0 hole, bit 1 zero)
//! error:  number u32, length of text u16, text
//! ```
//!
//! Every structured reply of this server is one chunk. Only READ and BLOCK_STATUS have one, and
//! only when the client asked for them in the handshake.

use std::io;

use vgship_base::bytes::Writer;
use vgship_base::disk::Allocation;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;
const FLAG_DONE: u16 = 1;
const TYPE_DATA: u16 = 1;
const TYPE_STATUS: u16 = 5;
const TYPE_ERROR: u16 = 0x8001;

/// Longest text of an error chunk. Unit: bytes.
const TEXT_MAX: usize = 1024;

/// Number of the context `base:allocation` in this server's replies.
pub const ALLOCATION_CONTEXT: u32 = 1;

/// The errors that a client may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorNumber {
    /// Not permitted: a write to something read-only.
    Perm,
    /// Reading or writing failed.
    Io,
    /// The request makes no sense.
    Invalid,
    /// No room, or behind the end.
    NoSpace,
}

impl ErrorNumber {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            ErrorNumber::Perm => 1,
            ErrorNumber::Io => 5,
            ErrorNumber::Invalid => 22,
            ErrorNumber::NoSpace => 28,
        }
    }

    /// The number that says a failed call best.
    pub fn of(error: &io::Error) -> ErrorNumber {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                ErrorNumber::NoSpace
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => ErrorNumber::Perm,
            ErrorKind::InvalidInput => ErrorNumber::Invalid,
            _ => ErrorNumber::Io,
        }
    }
}

/// A whole simple reply without data, or the beginning of one with data.
pub fn simple(cookie: u64, error: Option<ErrorNumber>) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&SIMPLE_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.map_or(0, ErrorNumber::number).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

fn chunk(kind: u16, cookie: u64, len: u32) -> Writer {
    let mut writer = Writer::with_capacity(64);
    writer.u32(CHUNK_MAGIC).u16(FLAG_DONE).u16(kind).u64(cookie).u32(len);
    writer
}

/// What stands before the `len` bytes of a good structured READ.
///
/// Shape: `len` is at most [`PAYLOAD_MAX`](super::limits::PAYLOAD_MAX) and not zero.
pub fn data(cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut writer = chunk(TYPE_DATA, cookie, len + 8);
    writer.u64(offset);
    writer.into_vec()
}

/// A whole structured reply that says what went wrong.
pub fn error(cookie: u64, error: ErrorNumber, text: &str) -> Vec<u8> {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    let text = &text[..end.unwrap_or(0)];
    let len = u32::try_from(text.len()).expect("the text was just cut to 1024 bytes");
    let mut writer = chunk(TYPE_ERROR, cookie, 6 + len);
    writer.u32(error.number()).text(text);
    writer.into_vec()
}

/// A whole structured reply to BLOCK_STATUS. The runs follow each other; lengths in bytes.
pub fn status(cookie: u64, runs: &[(u32, Allocation)]) -> Vec<u8> {
    let count = u32::try_from(runs.len()).expect("runs are bounded by RUNS_MAX");
    let mut writer = chunk(TYPE_STATUS, cookie, 4 + 8 * count);
    writer.u32(ALLOCATION_CONTEXT);
    for &(len, kind) in runs {
        writer.u32(len).u32(match kind {
            Allocation::Data => 0,
            Allocation::Hole => 3,
        });
    }
    writer.into_vec()
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const COOKIE: u64 = 0x0123_4567_89ab_cdef;

    #[test]
    fn simple_replies_have_these_bytes() {
        assert_eq!(simple(COOKIE, None), hex!("67446698 00000000 0123456789abcdef"));
        let refused = simple(COOKIE, Some(ErrorNumber::NoSpace));
        assert_eq!(refused, hex!("67446698 0000001c 0123456789abcdef"));
    }

    #[test]
    fn chunks_have_these_bytes() {
        let begun = hex!("668e33ef 0001 0001 0123456789abcdef 00001008 0000000000000200");
        assert_eq!(data(COOKIE, 512, 4096), begun);
        let failed = hex!("668e33ef 0001 8001 0123456789abcdef 00000008 00000005 0002 6e6f");
        assert_eq!(error(COOKIE, ErrorNumber::Io, "no"), failed);
        let runs = [(4096, Allocation::Data), (512, Allocation::Hole)];
        let told = hex!(
            "668e33ef 0001 0005 0123456789abcdef 00000014 00000001
             00001000 00000000 00000200 00000003"
        );
        assert_eq!(status(COOKIE, &runs), told);
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let long = "\u{e4}".repeat(2000);
        let bytes = error(COOKIE, ErrorNumber::Io, &format!("x{long}"));
        assert_eq!(bytes.len(), 20 + 6 + 1023);
        assert!(std::str::from_utf8(&bytes[26..]).is_ok());
    }
}
