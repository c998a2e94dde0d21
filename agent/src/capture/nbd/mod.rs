//! The NBD tap: serves each LV to its applications and sees every write.

pub mod backend;
