//! The outbox: records that no replica has durably yet.

pub mod spill;
