//! Receiving: what arrives becomes durable here, before anything else is done with it.

/// Records on the replica's stable storage, in order.
pub mod journal;
