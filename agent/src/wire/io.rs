//! The wire stage, the only part of it that opens, sends, waits or reads a clock: files of the
//! agent's home, and QUIC. Decisions are the neighbours' of this module.

mod book;

mod doors;

mod endpoint;

mod home;

mod link;

mod pairing;

mod stream;

mod transport;

pub use book::{BookFileError, PeerBook};
pub use endpoint::{Arrival, Arrivals, BindError, Config, ConnectError, Endpoint};
pub use home::{HomeError, load_or_create_identity};
pub use link::{Close, Greeting, HelloError, Knock, Link, LinkError, Opened};
pub use pairing::{JoinError, Paired, PairingHost};
pub use stream::{FrameReceiver, FrameSender, ReceiveError};
pub use transport::{Congestion, Tuning};

#[cfg(test)]
mod tests;
