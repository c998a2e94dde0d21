//! A link: one QUIC connection to a paired agent, and the streams of the groups on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use thiserror::Error;
use tokio::task::AbortHandle;
use vgship_base::bytes::FormatError;
use vgship_base::ids::{GroupId, PeerId};

use super::book::PeerBook;
use super::orders::{OrderError, Ordered, Orders};
use super::stream::{FrameReceiver, FrameSender};
use crate::wire::batch::Compression;
use crate::wire::hello::{Hello, PREFIX_LEN, Refusal, Reply, rest_len};
use crate::wire::orders;
use crate::wire::peers::Role;
use crate::wire::retry::Ended;
use crate::wire::tls::Admission;

/// How long a hello or its reply may take.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Smallest send window that a link falls to. Unit: bytes.
const WINDOW_MIN: u64 = 1 << 20;

/// How often the send window follows the path.
const WINDOW_PACE: Duration = Duration::from_millis(100);

/// Why a side closes a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// No longer wanted; nothing went wrong.
    Done,
    /// The agent stops.
    Stopping,
    /// The pairing was revoked.
    Revoked,
    /// The peer broke the protocol.
    Protocol,
}

impl Close {
    pub(super) const fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Close::Done => 0,
            Close::Stopping => 1,
            Close::Revoked => 2,
            Close::Protocol => 3,
        })
    }
}

/// Why a link ended, as far as this side can know.
#[derive(Clone, Debug, Error)]
#[error("the link to the peer ended")]
pub struct LinkError(#[from] pub(super) ConnectionError);

impl LinkError {
    /// How the loss counts for the next attempt, after a link that stood for `stood`.
    pub fn ended(&self, stood: Duration) -> Ended {
        match &self.0 {
            ConnectionError::ApplicationClosed(close)
                if close.error_code == Close::Revoked.code() =>
            {
                Ended::Refused
            }
            _ => Ended::LostAfter(stood),
        }
    }
}

/// A connection to a paired agent. Cheap to clone. The connection ends when it is closed, when the
/// peer is revoked, when nothing was heard for 10 s, or when the last clone and the last stream's
/// halves are dropped.
#[derive(Clone, Debug)]
pub struct Link {
    connection: quinn::Connection,
    peer: PeerId,
    book: Arc<PeerBook>,
    compression: Compression,
    watch: Arc<Watch>,
}

/// The task that watches over a connection. It lives as long as a link or a stream of it does; when
/// all are dropped the connection closes.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A group's stream, opened and answered.
#[derive(Debug)]
pub struct Opened {
    /// The version of the link that both speak.
    pub version: u16,
    /// Where the other side stands.
    pub theirs: Hello,
    /// To the other side.
    pub sender: FrameSender,
    /// From the other side.
    pub receiver: FrameReceiver,
}

/// Why a group's stream did not come to stand.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The link ended.
    #[error("the link ended before the group's stream stood")]
    Link(#[from] LinkError),
    /// The stream could not be written.
    #[error("cannot send the hello")]
    Send(#[from] WriteError),
    /// The stream ended or broke.
    #[error("the peer's hello broke off")]
    Receive(#[from] ReadExactError),
    /// The peer sent what is no hello, or no reply.
    #[error("the peer's hello is not one")]
    Format(#[from] FormatError),
    /// The peer said nothing for 10 s.
    #[error("the peer did not say hello in time")]
    Silent,
    /// The peer refused.
    #[error("the peer refuses the group ({refusal:?}): {text}")]
    Refused {
        /// For programs.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// This side refused, because the rules say so: no common version, or not allowed.
    #[error("refused the peer's hello: {0:?}")]
    RefusedHere(Refusal),
}

impl Link {
    /// Makes a link of a connection whose handshake has proved `peer`, and watches over it.
    pub(super) fn new(
        connection: quinn::Connection,
        peer: PeerId,
        book: Arc<PeerBook>,
        (compression, send_window): (Compression, u64),
    ) -> Link {
        let watch = watch_over(connection.clone(), peer, book.clone(), send_window);
        let watch = Arc::new(Watch(tokio::spawn(watch).abort_handle()));
        Link { connection, peer, book, compression, watch }
    }

    /// Who is across: proved by the handshake.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where the peer is now; changes when it moves.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The last measured round trip.
    pub fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// Bytes sent and received over UDP since the link stands.
    pub fn traffic(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Opens a group's stream: sends our hello and waits for the reply. To drop it half way ends
    /// the stream, and only that.
    pub async fn open(&self, ours: &Hello) -> Result<Opened, HelloError> {
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(LinkError)?;
        let asked = async {
            send.write_all(&ours.encode()).await?;
            Ok::<_, HelloError>(Reply::decode(&read_message(&mut receive).await?)?)
        };
        let reply = tokio::time::timeout(HELLO_PATIENCE, asked).await;
        match reply.map_err(|_| HelloError::Silent)?? {
            Reply::Accepted { version, hello } => {
                if hello.group != ours.group || hello.role == ours.role {
                    return Err(HelloError::RefusedHere(Refusal::Role));
                }
                if !self.book.allows(self.peer, hello.group, hello.role) {
                    return Err(HelloError::RefusedHere(Refusal::NotAllowed));
                }
                Ok(self.opened(version, hello, send, receive))
            }
            Reply::Refused { refusal, text } => Err(HelloError::Refused { refusal, text }),
        }
    }

    /// Opens a stream of orders for a group.
    pub async fn open_orders(&self, group: GroupId) -> Result<Orders, OrderError> {
        let (mut send, receive) = self.connection.open_bi().await.map_err(LinkError)?;
        send.write_all(&orders::opening(group)).await?;
        Ok(Orders::new(send, receive, &self.watch))
    }

    /// The connection below, to open what no link would.
    #[cfg(test)]
    pub(super) const fn raw(&self) -> &quinn::Connection {
        &self.connection
    }

    /// The next stream that the peer opens. Its hello may take a while: hear it in a task of its
    /// own. May be dropped at any point.
    pub async fn accept(&self) -> Result<Knock, LinkError> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok(Knock { link: self.clone(), send, receive })
    }

    /// Ends the link and all its streams at once.
    pub fn close(&self, why: Close, text: &str) {
        self.connection.close(why.code(), text.as_bytes());
    }

    /// Waits until the link has ended, for whatever reason.
    pub async fn closed(&self) -> LinkError {
        LinkError(self.connection.closed().await)
    }

    /// Whether the link stands, as far as this side knows.
    pub fn stands(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    fn opened(&self, version: u16, theirs: Hello, send: SendStream, receive: RecvStream) -> Opened {
        let sender = FrameSender::new(send, self.compression, self.watch.clone());
        let receiver = FrameReceiver::new(receive, self.watch.clone());
        Opened { version, theirs, sender, receiver }
    }
}

/// A stream whose hello has not been heard.
#[derive(Debug)]
#[must_use = "a knock that is not heard leaves the peer waiting"]
pub struct Knock {
    link: Link,
    send: SendStream,
    receive: RecvStream,
}

impl Knock {
    /// Hears the hello, or the opening of orders. Refuses by itself what no version is common for, and a group or role that
    /// the pairing does not allow; an unknown group is refused the same way, so that a peer cannot
    /// find out which groups there are.
    pub async fn hear(mut self) -> Result<Heard, HelloError> {
        let heard = tokio::time::timeout(HELLO_PATIENCE, read_message(&mut self.receive)).await;
        let bytes = heard.map_err(|_| HelloError::Silent)??;
        if bytes.starts_with(&orders::MAGIC) {
            return self.hear_orders(&bytes);
        }
        let Some((version, hello)) = Hello::decode(&bytes)? else {
            self.refuse(Refusal::Version, "no common version").await?;
            return Err(HelloError::RefusedHere(Refusal::Version));
        };
        // Whoever was given a role may come to have the other one: what that means is judged where
        // the group is known.
        let may = |role| self.link.book.allows(self.link.peer, hello.group, role);
        let shows_itself = hello.role == Role::Source && may(Role::Replica);
        if !may(hello.role) && !shows_itself {
            self.refuse(Refusal::NotAllowed, NOT_ALLOWED).await?;
            return Err(HelloError::RefusedHere(Refusal::NotAllowed));
        }
        Ok(Heard::Hello(Greeting { knock: self, version, hello }))
    }

    /// Only a replica of the group may give its source orders. One that may not sees the stream end.
    fn hear_orders(self, bytes: &[u8]) -> Result<Heard, HelloError> {
        let version = HelloError::RefusedHere(Refusal::Version);
        let group = orders::read_opening(bytes)?.ok_or(version)?;
        if !self.link.book.allows(self.link.peer, group, Role::Replica) {
            return Err(HelloError::RefusedHere(Refusal::NotAllowed));
        }
        let orders = Orders::new(self.send, self.receive, &self.link.watch);
        Ok(Heard::Orders(Ordered { group, orders }))
    }

    async fn refuse(&mut self, refusal: Refusal, text: &str) -> Result<(), HelloError> {
        let reply = Reply::Refused { refusal, text: text.to_owned() };
        self.send.write_all(&reply.encode()).await?;
        // The stream cannot be closed twice; and who does not read the refusal loses only that.
        let _ = self.send.finish();
        let _ = tokio::time::timeout(HELLO_PATIENCE, self.send.stopped()).await;
        Ok(())
    }
}

/// What unknown and forbidden groups are both refused with.
pub(super) const NOT_ALLOWED: &str = "the group is unknown or not part of the pairing";

/// What a stream that a peer opened is for.
#[derive(Debug)]
#[must_use = "a hello is answered by accept or refuse"]
pub enum Heard {
    /// A group's records.
    Hello(Greeting),
    /// Orders of a set.
    Orders(Ordered),
}

/// A hello that the pairing allows and that waits for its reply.
#[derive(Debug)]
#[must_use = "a hello is answered by accept or refuse"]
pub struct Greeting {
    knock: Knock,
    version: u16,
    hello: Hello,
}

impl Greeting {
    /// What the peer said.
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Opens the stream with our state.
    pub async fn accept(self, ours: &Hello) -> Result<Opened, HelloError> {
        let Greeting { knock: Knock { link, mut send, receive }, version, hello } = self;
        let reply = Reply::Accepted { version, hello: ours.clone() };
        send.write_all(&reply.encode()).await?;
        Ok(link.opened(version, hello, send, receive))
    }

    /// Ends the stream and says why. A group that is not served here is refused with
    /// [`Refusal::NotAllowed`], whose text is fixed.
    pub async fn refuse(mut self, refusal: Refusal, text: &str) -> Result<(), HelloError> {
        let text = if refusal == Refusal::NotAllowed { NOT_ALLOWED } else { text };
        self.knock.refuse(refusal, text).await
    }
}

async fn read_message(receive: &mut RecvStream) -> Result<Vec<u8>, HelloError> {
    let mut prefix = [0; PREFIX_LEN];
    receive.read_exact(&mut prefix).await?;
    let mut message = prefix.to_vec();
    message.resize(PREFIX_LEN + rest_len(prefix)?, 0);
    receive.read_exact(&mut message[PREFIX_LEN..]).await?;
    Ok(message)
}

/// Closes the connection when its peer is revoked, and keeps its send window near what the path
/// holds, so that a live write does not wait behind seconds of queued data on a slow path.
async fn watch_over(
    connection: quinn::Connection,
    peer: PeerId,
    book: Arc<PeerBook>,
    send_window: u64,
) {
    let mut changes = book.changes();
    let mut pace = tokio::time::interval(WINDOW_PACE);
    let mut window = send_window;
    loop {
        if !book.knows(peer) {
            connection.close(Close::Revoked.code(), b"revoked");
            return;
        }
        tokio::select! {
            _ = connection.closed() => return,
            changed = changes.changed() => if changed.is_err() { return },
            _ = pace.tick() => {
                let path = connection.stats().path.cwnd;
                let wanted = wanted_window(path, send_window);
                if wanted != window {
                    connection.set_send_window(wanted);
                    window = wanted;
                }
            }
        }
    }
}

/// Twice what the path holds, so that it never runs dry between two looks, within bounds.
fn wanted_window(path: u64, most: u64) -> u64 {
    path.saturating_mul(2).next_power_of_two().clamp(WINDOW_MIN.min(most), most)
}
