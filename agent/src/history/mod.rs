//! History: any point in time, from the newest snapshot before it and the journal's records after.

pub mod bisect;
pub mod keeping;
pub mod roll;
pub mod spec;
