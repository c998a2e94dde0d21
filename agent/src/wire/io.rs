//! The wire stage, the only part of it that opens, sends, waits or reads a clock: files of the
//! agent's home, and QUIC. Decisions are the neighbours' of this module.

mod book;

mod doors;

mod endpoint;

mod home;

mod link;

mod orders;

mod pairing;

mod stream;

mod transport;

pub use book::{BookFileError, PeerBook};
pub use endpoint::{Arrival, Arrivals, BindError, Config, ConnectError, Endpoint};
pub use home::{HomeError, load_or_create_identity};
pub use link::{Close, Greeting, Heard, HelloError, Knock, Link, LinkError, Opened};
pub use orders::{OrderError, OrderReceiver, OrderSender, Ordered, Orders};
pub use pairing::{JoinError, Paired, PairingHost};
pub use stream::{FrameReceiver, FrameSender, ReceiveError};
pub use transport::{Congestion, Tuning};

#[cfg(test)]
mod tests;
