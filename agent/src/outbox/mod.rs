//! The outbox: records that no replica has durably yet.

/// Records on disk that the RAM ring has no room for.
pub mod spill;
