//! The NBD tap: serves each LV to its applications and sees every write.
//!
//! A connection is greeted and asked what it wants ([`handshake`], [`negotiate`]); then requests
//! come in ([`request`], [`pipes`]), are judged and carried out ([`job`]) by threads that take
//! turns ([`turns`], [`io`]), and are answered ([`reply`]).

pub mod backend;

pub mod limits;

pub mod handshake;

pub mod negotiate;

pub mod request;

pub mod reply;

pub mod job;

pub mod turns;

pub mod pipes;

pub mod io;

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
