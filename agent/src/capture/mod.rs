//! Capture: sees every write, gives it its place in the order, knows what a crash leaves in doubt.

pub mod activity;
pub mod io;
pub mod ledger;
pub mod ledger_format;
pub mod locks;
pub mod nbd;
pub mod source;
pub mod versions;

#[cfg(test)]
mod tests;
