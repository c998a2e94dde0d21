//! Receiving: what arrives becomes durable here, before anything else is done with it.

pub mod journal;
