//! Quiescing: applications are frozen by an operator's command, a marker goes into the stream, and
//! applications are thawed by another command, whatever happened in between.
//!
//! **Why a marker is enough.** A write over NBD takes its seq before its completion is reported
//! (`capture::source`). So when the freeze command returns 0, everything that the frozen application
//! knows to be written, and everything that it flushed while it was being frozen, has its seq
//! already, and the marker takes a later one. Nothing waits for replicas in the meantime:
//! applications are held for as long as the two commands take, not for the length of a line.
//!
//! **The hold.** Its time counts from before anything was started. The marker counts only if the
//! clock was before the end of the hold when it was put in and *also after that*: between the two the
//! agent may have been stopped for any time. The [`guard`] counts the same time, from later on, so
//! before the agent's deadline it cannot have thawed anything.
//!
//! **The guard** is a process of its own, begun before the freeze. It thaws when the agent dies, or
//! neither thaws nor speaks before the hold is over. It hears of the freeze command's process before
//! that may begin, so it also ends a freeze that an agent which died left at work, and only then
//! thaws.
//!
//! **Taking back.** Whether all held is known after the thaw only: it may say that applications were
//! not frozen any more ([`Thaw::Lapsed`]), or fail. The marker is in the stream by then, so it is
//! taken back: an order to delete the snapshot follows it.
//!
//! **Conducted** ([`Core::conducted`]): as one of several that are frozen together (`sets`), it waits
//! for a word before the marker and for another before the thaw, and for neither beyond its hold.
//!
//! Until applications are thawed nothing here writes a file or a log line: it may be on what is
//! frozen.

mod core;
pub mod guard;
pub mod io;
mod report;
mod tries;

pub use self::core::{Core, Freeze, Input, Outcome, Output, Thaw, Why};
pub use report::{Held, told};
pub use tries::{Tries, most};

/// With which code a thaw command says: they go on, but they were not frozen any more.
pub const LAPSED: i32 = 3;
