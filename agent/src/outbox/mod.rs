//! Outbox: the records that one replica does not hold durably yet.

pub mod queue;

/// Records on disk that the memory has no room for.
pub mod spill;
