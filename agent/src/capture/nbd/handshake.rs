//! Bytes of the handshake: fixed newstyle negotiation.
//!
//! ```text
//! greeting, server    magic u64 "NBDMAGIC", magic u64 "IHAVEOPT", flags u16 (bit 0 fixed
//!                     newstyle, bit 1 no zeroes)
//! answer, client      flags u32, the same bits; others end the connection
//! option, client      magic u64 "IHAVEOPT", option u32, length u32, data
//! reply, server       magic u64 0x0003e889045565a9, option u32, type u32, length u32, data
//! export, server      size u64, transmission flags u16, 124 zeroes unless "no zeroes" was
//!                     answered: what follows EXPORT_NAME instead of a reply
//!
//! data of INFO and GO         length u32, name, count u16, count times information u16
//! data of .._META_CONTEXT     length u32, name, count u32, count times (length u32, query)
//! data of a reply INFO        information u16, then: 0 size u64, flags u16; 1 name; 2 text;
//!                             3 smallest u32, preferred u32, largest u32, in bytes
//! data of a reply SERVER      length u32, name
//! data of a reply META_CONTEXT  number u32, name
//! ```

use thiserror::Error;
use vgship_base::bytes::{FormatError, Reader, Writer};

use super::limits::NAME_BYTES_MAX;

const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 1 << 1;

/// Size of an option's header. Unit: bytes.
pub const OPTION_HEADER_BYTES: usize = 16;

/// Numbers of the options that this server knows.
#[expect(missing_docs, reason = "the protocol's names")]
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Types of replies to options.
#[expect(missing_docs, reason = "the protocol's names")]
pub mod answer {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const UNSUPPORTED: u32 = (1 << 31) + 1;
    pub const POLICY: u32 = (1 << 31) + 2;
    pub const INVALID: u32 = (1 << 31) + 3;
    pub const UNKNOWN: u32 = (1 << 31) + 6;
    pub const TOO_BIG: u32 = (1 << 31) + 9;
}

/// Kinds of information that INFO and GO ask for.
#[expect(missing_docs, reason = "the protocol's names")]
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export can do.
#[expect(missing_docs, reason = "the protocol's names")]
pub mod can {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const FLUSH: u16 = 1 << 2;
    pub const FUA: u16 = 1 << 3;
    pub const TRIM: u16 = 1 << 5;
    pub const WRITE_ZEROES: u16 = 1 << 6;
    pub const DF: u16 = 1 << 7;
    pub const MULTI_CONN: u16 = 1 << 8;
}

/// Why a client's handshake cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Bytes that are no option.
    #[error("cannot read an option")]
    Format(#[from] FormatError),
    /// Client flags that were not offered.
    #[error("the client sets handshake flags {0:#x}, of which some were not offered")]
    Flags(u32),
    /// More data than any option has.
    #[error("option {option} claims {len} bytes of data, more than any option needs")]
    Long {
        /// Its number.
        option: u32,
        /// As claimed. Unit: bytes.
        len: u32,
    },
    /// An endless conversation.
    #[error("more options than any client needs")]
    Many,
    /// EXPORT_NAME of something that is not served; that option knows no other answer.
    #[error("no export has the name {0:?}")]
    NoSuchExport(String),
}

/// What the server says first.
pub fn greeting() -> Vec<u8> {
    let mut writer = Writer::with_capacity(18);
    writer.u64(GREETING_MAGIC).u64(OPTION_MAGIC).u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    writer.into_vec()
}

/// Reads the client's answer to the greeting: whether it wants no zeroes.
pub fn decode_client_flags(bytes: [u8; 4]) -> Result<bool, HandshakeError> {
    let flags = u32::from_be_bytes(bytes);
    match flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) {
        0 => Ok(flags & u32::from(FLAG_NO_ZEROES) != 0),
        _ => Err(HandshakeError::Flags(flags)),
    }
}

/// Reads an option's header: its number and how much data follows. Unit: bytes.
pub fn decode_option(bytes: [u8; OPTION_HEADER_BYTES]) -> Result<(u32, u32), FormatError> {
    let mut reader = Reader::new(&bytes);
    if reader.u64("magic")? != OPTION_MAGIC {
        return Err(FormatError::Magic { expected: "IHAVEOPT" });
    }
    Ok((reader.u32("option")?, reader.u32("length")?))
}

/// Appends one reply to an option.
pub fn reply(out: &mut Writer, option: u32, kind: u32, data: &[u8]) {
    let len = u32::try_from(data.len()).expect("replies are made of names of bounded length");
    out.u64(REPLY_MAGIC).u32(option).u32(kind).u32(len).put(data);
}

/// Appends what answers EXPORT_NAME.
pub fn export(out: &mut Writer, bytes: u64, flags: u16, no_zeroes: bool) {
    out.u64(bytes).u16(flags);
    if !no_zeroes {
        out.put(&[0; 124]);
    }
}

/// Why the data of an option is refused; the conversation goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadOption {
    /// It does not decode.
    Invalid(FormatError),
    /// A name or query is longer than texts may be.
    TooBig,
}

impl From<FormatError> for BadOption {
    fn from(error: FormatError) -> BadOption {
        BadOption::Invalid(error)
    }
}

fn text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, BadOption> {
    let len = usize::try_from(reader.u32(field)?).map_err(|_| BadOption::TooBig)?;
    if len > NAME_BYTES_MAX {
        return Err(BadOption::TooBig);
    }
    let rule = "UTF-8 without NUL";
    let text = std::str::from_utf8(reader.take(field, len)?).ok().filter(|t| !t.contains('\0'));
    Ok(text.ok_or(FormatError::Field { field, found: len as u64, rule })?)
}

/// Reads the data of INFO and GO: the name and what is asked about it.
pub fn decode_info(data: &[u8]) -> Result<(&str, Vec<u16>), BadOption> {
    let mut reader = Reader::new(data);
    let name = text(&mut reader, "export name")?;
    let count = reader.u16("count of informations")?;
    let asked = (0..count).map(|_| reader.u16("information")).collect::<Result<Vec<_>, _>>()?;
    reader.finish()?;
    Ok((name, asked))
}

/// Reads the data of LIST_META_CONTEXT and SET_META_CONTEXT: the name and the queries.
pub fn decode_contexts(data: &[u8]) -> Result<(&str, Vec<&str>), BadOption> {
    let mut reader = Reader::new(data);
    let name = text(&mut reader, "export name")?;
    let mut queries = Vec::new();
    for _ in 0..reader.u32("count of queries")? {
        queries.push(text(&mut reader, "query")?);
    }
    reader.finish()?;
    Ok((name, queries))
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn the_greeting_and_the_export_have_these_bytes() {
        assert_eq!(greeting(), hex!("4e42444d41474943 49484156454f5054 0003"));
        let mut out = Writer::default();
        export(&mut out, 1 << 30, can::HAS_FLAGS | can::FLUSH, true);
        assert_eq!(out.as_slice(), hex!("0000000040000000 0005"));
        export(&mut out, 0, 0, false);
        assert_eq!(out.len(), 10 + 134);
    }

    #[test]
    fn options_and_replies_have_these_bytes() {
        let go = hex!("49484156454f5054 00000007 00000010");
        assert_eq!(decode_option(go), Ok((option::GO, 16)));
        for bit in 0..128 {
            let mut bytes = go;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(decode_option(bytes), Ok((option::GO, 16)), "bit {bit}");
        }
        let mut out = Writer::default();
        reply(&mut out, option::LIST, answer::SERVER, b"\0\0\0\x01a");
        assert_eq!(out.as_slice(), hex!("0003e889045565a9 00000003 00000002 00000005 00000001 61"));
    }

    #[test]
    fn what_is_asked_is_read_and_every_cut_is_noticed() {
        let data = hex!("00000003 672f61 0002 0001 0003");
        assert_eq!(decode_info(&data), Ok(("g/a", vec![1, 3])));
        assert!((0..data.len()).all(|end| decode_info(&data[..end]).is_err()));
        let data = hex!("00000001 61 00000002 00000005 626173653a 00000000");
        assert_eq!(decode_contexts(&data), Ok(("a", vec!["base:", ""])));
        assert!((0..data.len()).all(|end| decode_contexts(&data[..end]).is_err()));
    }

    #[test]
    fn claims_beyond_the_limits_cost_nothing() {
        let long = hex!("ffffffff 61");
        assert_eq!(decode_info(&long), Err(BadOption::TooBig));
        let many = hex!("00000000 ffffffff 00000000");
        assert!(matches!(decode_contexts(&many), Err(BadOption::Invalid(_))));
        assert!(decode_info(&hex!("00000002 ff00 0000")).is_err());
        assert_eq!(decode_client_flags([0, 0, 0, 4]), Err(HandshakeError::Flags(4)));
        assert_eq!(decode_client_flags([0, 0, 0, 3]), Ok(true));
    }
}
