//! Between the source's side of a peering and the replica's: who peers are, how they are paired,
//! what they say to each other, and the QUIC links that carry it. Everything but `io` is pure.

pub mod identity;

pub mod signature;

pub mod tls;

pub mod peers;

pub mod token;

pub mod pairing;

pub mod hello;

pub mod frame;

pub mod batch;

pub mod kept;

pub mod changed;

pub mod orders;

pub mod retry;

pub mod complaint;

pub mod knocks;

mod text;

pub mod io;
