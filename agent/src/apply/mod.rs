//! Apply: brings journaled records to the replica's volumes.

pub mod applier;
pub mod checkpoint;
pub mod coalesce;
pub mod compare;
pub mod keeper;
mod note;
pub mod rollback;
pub mod rolled;
