//! Outbox: the records that one replica does not hold durably yet.

pub mod queue;
pub mod spill;
