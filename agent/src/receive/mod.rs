//! Receive: admits the stream in order, journals it, acknowledges.

pub mod admit;

/// Records on the replica's stable storage, in order.
pub mod journal;
