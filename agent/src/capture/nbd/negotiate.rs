//! Decides what to answer to each option of a handshake. Does no I/O.

use std::fmt;
use std::sync::Arc;

use vgship_base::bytes::Writer;

use super::backend::{Export, Exports};
use super::handshake::{
    BadOption, HandshakeError, answer, can, decode_contexts, decode_info, export, info, option,
    reply,
};
use super::limits::{NAME_BYTES_MAX, OPTIONS_MAX, PAYLOAD_MAX};
use super::reply::ALLOCATION_CONTEXT;

const ALLOCATION: &str = "base:allocation";
const DESCRIPTION: &str = "logical volume served by vgship";

/// What client and server agreed on.
#[derive(Clone)]
pub struct Session {
    /// What is served.
    pub export: Arc<dyn Export>,
    /// Under which name.
    pub name: String,
    /// Whether READ is answered by chunks.
    pub structured: bool,
    /// Whether BLOCK_STATUS may be asked.
    pub allocation: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Session").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What follows an option.
#[derive(Debug)]
pub enum Next {
    /// Another option.
    Option,
    /// Requests.
    Serve(Session),
    /// The client has said that it leaves.
    Leave,
}

/// One handshake after the greeting.
#[derive(Debug)]
pub struct Negotiation {
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    allocation: Option<String>,
    options: usize,
}

impl Negotiation {
    /// Begins with what the client's flags said.
    pub const fn new(no_zeroes: bool) -> Negotiation {
        Negotiation { no_zeroes, structured: false, allocation: None, options: 0 }
    }

    /// Takes one option and appends to `out` what is to be sent.
    pub fn handle(
        &mut self,
        exports: &dyn Exports,
        code: u32,
        data: &[u8],
        out: &mut Writer,
    ) -> Result<Next, HandshakeError> {
        self.options += 1;
        if self.options > OPTIONS_MAX {
            return Err(HandshakeError::Many);
        }
        match code {
            option::EXPORT_NAME => return self.export_name(exports, data, out).map(Next::Serve),
            option::ABORT => {
                reply(out, code, answer::ACK, &[]);
                return Ok(Next::Leave);
            }
            option::INFO | option::GO => return Ok(self.info(exports, code, data, out)),
            option::LIST if !data.is_empty() => refuse(out, code, answer::INVALID, "has no data"),
            option::LIST => list(exports, out),
            option::STRUCTURED_REPLY if !data.is_empty() => {
                refuse(out, code, answer::INVALID, "has no data");
            }
            option::STRUCTURED_REPLY => {
                self.structured = true;
                reply(out, code, answer::ACK, &[]);
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.contexts(exports, code, data, out);
            }
            option::STARTTLS => {
                let text = "no TLS here: this server is reached from its own machine only";
                refuse(out, code, answer::POLICY, text);
            }
            _ => refuse(out, code, answer::UNSUPPORTED, "this server does not know this option"),
        }
        Ok(Next::Option)
    }

    fn export_name(
        &self,
        exports: &dyn Exports,
        data: &[u8],
        out: &mut Writer,
    ) -> Result<Session, HandshakeError> {
        let shown = &data[..data.len().min(NAME_BYTES_MAX)];
        let name = String::from_utf8_lossy(shown).into_owned();
        let found = match std::str::from_utf8(data) {
            Ok(exact) if exact.len() <= NAME_BYTES_MAX => exports.find(exact),
            _ => None,
        };
        let Some(found) = found else { return Err(HandshakeError::NoSuchExport(name)) };
        let session = self.session(found, &name);
        export(out, session.export.bytes(), session.flags(), self.no_zeroes);
        Ok(session)
    }

    fn info(&self, exports: &dyn Exports, code: u32, data: &[u8], out: &mut Writer) -> Next {
        let (name, asked) = match decode_info(data) {
            Ok(decoded) => decoded,
            Err(bad) => {
                refuse_bad(out, code, &bad);
                return Next::Option;
            }
        };
        let Some(found) = exports.find(name) else {
            refuse(out, code, answer::UNKNOWN, &format!("no export has the name {name:?}"));
            return Next::Option;
        };
        let session = self.session(found, name);
        let mut tell = |kind: u16, fill: &dyn Fn(&mut Writer)| {
            let mut data = Writer::default();
            data.u16(kind);
            fill(&mut data);
            reply(out, code, answer::INFO, data.as_slice());
        };
        tell(info::EXPORT, &|data| {
            data.u64(session.export.bytes()).u16(session.flags());
        });
        let preferred = session.export.preferred_block().clamp(512, PAYLOAD_MAX);
        tell(info::BLOCK_SIZE, &|data| {
            data.u32(session.export.min_block()).u32(preferred).u32(PAYLOAD_MAX);
        });
        for (kind, text) in [(info::NAME, name), (info::DESCRIPTION, DESCRIPTION)] {
            if asked.contains(&kind) {
                tell(kind, &|data| {
                    data.put(text.as_bytes());
                });
            }
        }
        reply(out, code, answer::ACK, &[]);
        match code {
            option::GO => Next::Serve(session),
            _ => Next::Option,
        }
    }

    fn contexts(&mut self, exports: &dyn Exports, code: u32, data: &[u8], out: &mut Writer) {
        if code == option::SET_META_CONTEXT {
            self.allocation = None; // a refused choice leaves nothing chosen
        }
        let (name, queries) = match decode_contexts(data) {
            Ok(decoded) => decoded,
            Err(bad) => return refuse_bad(out, code, &bad),
        };
        if !self.structured {
            return refuse(out, code, answer::INVALID, "needs STRUCTURED_REPLY before it");
        }
        if exports.find(name).is_none() {
            let text = format!("no export has the name {name:?}");
            return refuse(out, code, answer::UNKNOWN, &text);
        }
        let setting = code == option::SET_META_CONTEXT;
        let named = queries.contains(&ALLOCATION);
        let all = !setting && (queries.is_empty() || queries.contains(&"base:"));
        if named || all {
            let mut context = Writer::default();
            context.u32(if setting { ALLOCATION_CONTEXT } else { 0 }).put(ALLOCATION.as_bytes());
            reply(out, code, answer::META_CONTEXT, context.as_slice());
        }
        if setting && named {
            self.allocation = Some(name.to_owned());
        }
        reply(out, code, answer::ACK, &[]);
    }

    fn session(&self, export: Arc<dyn Export>, name: &str) -> Session {
        let allocation = self.allocation.as_deref() == Some(name);
        Session { export, name: name.to_owned(), structured: self.structured, allocation }
    }
}

impl Session {
    /// Transmission flags of the export in this session.
    pub fn flags(&self) -> u16 {
        let mut flags = can::HAS_FLAGS | can::FLUSH | can::FUA | can::MULTI_CONN;
        flags |=
            if self.export.read_only() { can::READ_ONLY } else { can::TRIM | can::WRITE_ZEROES };
        if self.structured { flags | can::DF } else { flags }
    }
}

fn list(exports: &dyn Exports, out: &mut Writer) {
    for name in exports.names() {
        let len = u32::try_from(name.len()).expect("export names are bounded by NAME_BYTES_MAX");
        let mut data = Writer::with_capacity(4 + name.len());
        data.u32(len).put(name.as_bytes());
        reply(out, option::LIST, answer::SERVER, data.as_slice());
    }
    reply(out, option::LIST, answer::ACK, &[]);
}

fn refuse(out: &mut Writer, code: u32, kind: u32, text: &str) {
    reply(out, code, kind, text.as_bytes());
}

fn refuse_bad(out: &mut Writer, code: u32, bad: &BadOption) {
    match bad {
        BadOption::Invalid(error) => refuse(out, code, answer::INVALID, &error.to_string()),
        BadOption::TooBig => refuse(out, code, answer::TOO_BIG, "a name is too long"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::nbd::testing::Both;

    fn ask(negotiation: &mut Negotiation, code: u32, data: &[u8]) -> (Next, usize) {
        let mut out = Writer::default();
        let next = negotiation.handle(&Both::new(), code, data, &mut out).unwrap();
        (next, out.len())
    }

    #[test]
    fn a_context_counts_for_its_export_only_and_only_with_chunks() {
        let chosen = b"\0\0\0\x04g/lv\0\0\0\x01\0\0\0\x0fbase:allocation";
        let mut negotiation = Negotiation::new(true);
        ask(&mut negotiation, option::SET_META_CONTEXT, chosen);
        assert_eq!(negotiation.allocation, None, "chunks were not agreed on");
        ask(&mut negotiation, option::STRUCTURED_REPLY, &[]);
        ask(&mut negotiation, option::SET_META_CONTEXT, chosen);
        let (next, _) = ask(&mut negotiation, option::GO, b"\0\0\0\x04g/ro\0\0");
        let Next::Serve(session) = next else { panic!("go begins") };
        assert!(!session.allocation);
        assert_eq!(session.flags() & (can::READ_ONLY | can::TRIM | can::DF), 0x82);
        let (next, _) = ask(&mut negotiation, option::GO, b"\0\0\0\x04g/lv\0\0");
        let Next::Serve(session) = next else { panic!("go begins") };
        assert!(session.allocation);
        ask(&mut negotiation, option::SET_META_CONTEXT, b"\0\0\0\x04g/lv\0\0\0\0");
        assert_eq!(negotiation.allocation, None, "a new choice replaces the old");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_or_ends_the_handshake(
            code in 0_u32..12,
            mut data in proptest::collection::vec(any::<u8>(), 0..64),
            small in any::<bool>(),
        ) {
            if small {
                data.iter_mut().step_by(2).for_each(|byte| *byte &= 3);
                data.iter_mut().take(3).for_each(|byte| *byte = 0);
            }
            let mut out = Writer::default();
            let found = Negotiation::new(false).handle(&Both::new(), code, &data, &mut out);
            prop_assert!(matches!(found, Err(_) | Ok(Next::Serve(_))) || !out.is_empty());
        }
    }
}
