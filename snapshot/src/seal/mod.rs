//! Sealing: keys, and files whose frames are encrypted and authenticated (AES-256-GCM).
//!
//! ```text
//! key file -> KeyEncryptionKey -> DataKey (wrapped at rest) -> key of one file (HKDF, random salt)
//!                                 one of a KeyRing          -> frame 0, 1, 2 ... of that file
//! ```
//!
//! The nonce of a frame is its number. That never repeats under one key, because each file has a
//! key of its own and [`SealedWriter`] exists only for a file that it has just begun: whoever opens
//! a file gets a [`SealedReader`], which cannot append (R6). Group, purpose, number and cleartext
//! header of a frame are authenticated with it, so no frame can be moved.

pub(crate) mod cipher;
mod file;
mod frame;
mod header;
mod kept;
pub(crate) mod key;
mod object;
mod ring;

pub use file::{End, Frame, Placed, SealedReader, SealedWriter, Step, key_of_file};
pub use frame::{BODY_MAX, Frames};
pub use kept::{KEPT_LEN, Kept, Usable};
pub use key::{DataKey, KeyEncryptionKey, KeyId, WRAPPED_LEN};
pub(crate) use object::{FRAME_OVERHEAD, HEADER_LEN, ObjectOpener, ObjectSealer, key_of};
pub use ring::{KeyRing, Keys};

use std::io;

use thiserror::Error;
use vgship_base::bytes::FormatError;
use vgship_base::ids::GroupId;

/// What a sealed file is for. Files of different purposes never share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A segment of a replica's journal.
    Journal,
    /// A segment of a source's spill.
    Spill,
    /// A pack of preserved extents.
    Pack,
    /// A pack of a template's chunks.
    TemplatePack,
    /// A node of a template's hash tree, its root among them.
    TemplateNode,
}

impl Purpose {
    const ALL: [Purpose; 5] = [
        Purpose::Journal,
        Purpose::Spill,
        Purpose::Pack,
        Purpose::TemplatePack,
        Purpose::TemplateNode,
    ];

    /// Its number in formats.
    pub const fn code(self) -> u16 {
        match self {
            Purpose::Journal => 1,
            Purpose::Spill => 2,
            Purpose::Pack => 3,
            Purpose::TemplatePack => 4,
            Purpose::TemplateNode => 5,
        }
    }

    /// The purpose of a number.
    pub fn from_code(code: u16) -> Option<Purpose> {
        Purpose::ALL.into_iter().find(|purpose| purpose.code() == code)
    }
}

/// Why something sealed cannot be made or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The system gives no random bytes; nothing can be sealed.
    #[error("cannot draw random bytes from the system: {0}")]
    Random(getrandom::Error),
    /// The disk refused.
    #[error("cannot {action} at byte {offset}")]
    Io {
        /// A verb: read, write, flush.
        action: &'static str,
        /// Unit: bytes from the file's start.
        offset: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// The bytes are not what was written, or of a newer version.
    #[error("cannot decode the {what}")]
    Format {
        /// Which format.
        what: &'static str,
        /// What is wrong with it.
        source: FormatError,
    },
    /// Whole, but sealed with another key.
    #[error("the {what} needs key {found}, not {ours}: give the key that it was sealed with")]
    OtherKey {
        /// What was to be opened.
        what: &'static str,
        /// As stored.
        found: KeyId,
        /// The key that was given.
        ours: KeyId,
    },
    /// Whole, but sealed with a key that is no more.
    #[error("the {what} needs key {key}, which was destroyed: what it sealed cannot be read again")]
    Destroyed {
        /// What was to be opened.
        what: &'static str,
        /// As stored.
        key: KeyId,
    },
    /// Whole, but of another group.
    #[error("the {what} belongs to group {found}, not {ours}: it was put in the wrong place")]
    OtherGroup {
        /// What was to be opened.
        what: &'static str,
        /// As stored.
        found: GroupId,
        /// The group that was expected.
        ours: GroupId,
    },
    /// Whole, but for something else.
    #[error("the file is a {found:?}, not a {ours:?}: it was put in the wrong place")]
    OtherPurpose {
        /// As stored.
        found: Purpose,
        /// The purpose that was expected.
        ours: Purpose,
    },
    /// The seal does not hold: changed, moved, or sealed with something else.
    #[error("the {what} at byte {offset} is not what was sealed")]
    Broken {
        /// What was to be opened.
        what: &'static str,
        /// Unit: bytes from the start of what was given.
        offset: u64,
    },
    /// A key file that is none.
    #[error("a key file holds 64 hexadecimal digits, this has {len} bytes{}",
        if *len == 64 || *len == 65 { " with others among them" } else { "" })]
    KeyFile {
        /// Unit: bytes.
        len: usize,
    },
    /// A write or flush failed before: what the file holds is unknown until it was read again.
    #[error("the file takes no more since a write or flush failed")]
    Poisoned,
}

impl SealError {
    /// Whether the bytes are not what was once written, as against: refused by the disk, or whole
    /// and meant for others.
    pub const fn is_damage(&self) -> bool {
        match self {
            SealError::Format { source, .. } => !matches!(source, FormatError::Version { .. }),
            SealError::Broken { .. } => true,
            _ => false,
        }
    }
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    #[cfg(test)]
    if dice::thrown(&mut bytes) {
        return Ok(bytes);
    }
    getrandom::fill(&mut bytes).map_err(SealError::Random)?;
    Ok(bytes)
}

/// Tests that must repeat exactly throw dice of their own instead, thread by thread.
#[cfg(test)]
pub(crate) mod dice {
    use std::cell::RefCell;

    use vgship_base::sim::Rng;

    thread_local! {
        static DICE: RefCell<Option<Rng>> = const { RefCell::new(None) };
    }

    /// From now on this thread's random bytes come from `rng`.
    pub(crate) fn take(rng: Rng) {
        DICE.with_borrow_mut(|dice| *dice = Some(rng));
    }

    /// Whether this thread has dice; then they filled `bytes`.
    pub(super) fn thrown(bytes: &mut [u8]) -> bool {
        DICE.with_borrow_mut(|dice| match dice {
            None => false,
            Some(rng) => {
                bytes.fill_with(|| rng.draw().to_be_bytes()[7]);
                true
            }
        })
    }
}
