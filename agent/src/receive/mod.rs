//! Receive: admits the stream in order, journals it, acknowledges.

pub mod admit;
pub mod io;
pub mod journal;
mod room;
