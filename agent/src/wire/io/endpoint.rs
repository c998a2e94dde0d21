//! The agent's one UDP socket: links that come in, links that go out, pairing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ConnectionError, ServerConfig, TokioRuntime, TransportConfig};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use vgship_base::ids::{Name, PeerId};

use super::book::PeerBook;
use super::doors::{Doors, REMIND};
use super::link::{Close, Link};
use super::pairing::{Paired, PairingHost, serve_pairing};
use super::transport::{self, Tuning};
use crate::wire::batch::Compression;
use crate::wire::identity::{Identity, peer_id};
use crate::wire::retry::Ended;
use crate::wire::tls::{self, ALPN_PAIR, Admission, Purpose, SERVER_NAME};

/// How long a handshake may take, the welcome included.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// Handshakes at a time. Each costs a signature and some kilobytes; the rest waits.
const HANDSHAKES_MAX: usize = 32;

/// With fewer free places than this, a client must first show that it receives at its address.
const HANDSHAKES_EASY: usize = HANDSHAKES_MAX / 2;

/// First packets that wait for their handshake; more are dropped and come again.
const INCOMING_MAX: usize = 256;

/// Memory for packets that come before their handshake is begun. Unit: bytes.
const INCOMING_BYTES: u64 = 4 << 20;

/// Arrivals that wait for the agent.
const ARRIVALS_MAX: usize = 16;

/// What an endpoint needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this agent is.
    pub identity: Arc<Identity>,
    /// What this agent is called.
    pub name: Name,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Who may come in.
    pub book: Arc<PeerBook>,
    /// What joiners are told of groups.
    pub host: Arc<dyn PairingHost>,
    /// Of batches sent over links.
    pub compression: Compression,
    /// Of the transport.
    pub tuning: Tuning,
}

/// The agent's end of all links. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoint {
    endpoint: quinn::Endpoint,
    transport: Arc<TransportConfig>,
    config: Arc<Config>,
    doors: Arc<Doors>,
}

/// What comes in.
#[derive(Debug)]
pub enum Arrival {
    /// A paired agent opened a link.
    Link(Link),
    /// An invite was redeemed; the peer is in the book.
    Paired(Paired),
}

/// Where arrivals are taken.
#[derive(Debug)]
pub struct Arrivals {
    queue: mpsc::Receiver<Arrival>,
}

impl Arrivals {
    /// The next arrival; `None` when the endpoint is closed. May be dropped at any point.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.queue.recv().await
    }
}

/// Why an endpoint could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is taken, not this machine's, or not allowed.
    #[error("cannot listen on UDP {address}: choose a free port and an address of this machine")]
    Socket {
        /// As configured.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The identity cannot be used for TLS.
    #[error("cannot use this agent's identity for TLS")]
    Tls(#[from] rustls::Error),
}

/// Why no link to a peer came to stand.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answered in time, or the network failed.
    #[error("{address} does not answer: is the agent running there, and UDP let through?")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the connection said; `None`: it was silent.
        #[source]
        source: Option<ConnectionError>,
    },
    /// The address cannot be reached from this endpoint at all.
    #[error("cannot connect to {address}")]
    Address {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: quinn::ConnectError,
    },
    /// Another agent answers there.
    #[error("the agent at {address} is not the one that was paired")]
    WrongPeer {
        /// Where.
        address: SocketAddr,
        /// What TLS said.
        #[source]
        source: ConnectionError,
    },
    /// The agent there does not take us.
    #[error("the agent at {address} refuses: this agent is not paired there, or was revoked")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What the connection said.
        #[source]
        source: ConnectionError,
    },
    /// This agent's identity cannot be used for TLS.
    #[error("cannot use this agent's identity for TLS")]
    Tls(#[from] rustls::Error),
}

impl ConnectError {
    /// How the failure counts for the next attempt.
    pub const fn ended(&self) -> Ended {
        match self {
            ConnectError::Unreachable { .. } => Ended::Unreachable,
            _ => Ended::Refused,
        }
    }
}

impl Endpoint {
    /// Opens the socket and begins to take links. Must be called inside a runtime.
    pub fn bind(config: Config) -> Result<(Endpoint, Arrivals), BindError> {
        let address = config.listen;
        let failed = |source| BindError::Socket { address, source };
        let transport = Arc::new(transport::transport(config.tuning));
        let server = server_config(&config, &transport)?;
        let socket = transport::socket(address).map_err(failed)?;
        let endpoint = quinn::Endpoint::new(
            transport::endpoint_config(&config.identity),
            Some(server.clone()),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(failed)?;
        let (arrived, queue) = mpsc::channel(ARRIVALS_MAX);
        let doors = Arc::new(Doors::new());
        let endpoint = Endpoint { endpoint, transport, config: Arc::new(config), doors };
        tokio::spawn(endpoint.clone().take_all(server, arrived));
        Ok((endpoint, Arrivals { queue }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Who this agent is.
    pub fn id(&self) -> PeerId {
        self.config.identity.id()
    }

    /// What this endpoint was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a link to exactly this peer. Returns when the peer has taken it.
    pub async fn connect(&self, address: SocketAddr, peer: PeerId) -> Result<Link, ConnectError> {
        let made = self.handshake(address, peer, Purpose::Link);
        let made = tokio::time::timeout(HANDSHAKE_PATIENCE, made).await;
        let connection =
            made.map_err(|_| ConnectError::Unreachable { address, source: None })??;
        Ok(self.link(connection, peer))
    }

    /// A connection whose peer has proved who it is and has taken us.
    pub(super) async fn handshake(
        &self,
        address: SocketAddr,
        peer: PeerId,
        purpose: Purpose,
    ) -> Result<quinn::Connection, ConnectError> {
        let crypto = tls::client_config(&self.config.identity, peer, purpose)?;
        let crypto = QuicClientConfig::try_from(crypto).expect("the provider has QUIC's suite");
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        let connecting = self
            .endpoint
            .connect_with(config, address, SERVER_NAME)
            .map_err(|source| ConnectError::Address { address, source })?;
        let failed = |source| connect_error(address, source);
        let connection = connecting.await.map_err(failed)?;
        // With TLS 1.3 a client is done before the server has judged it. The welcome tells.
        connection.accept_uni().await.map_err(failed)?;
        Ok(connection)
    }

    /// Moves the endpoint to another socket; links go on.
    pub fn rebind(&self, listen: SocketAddr) -> io::Result<()> {
        self.endpoint.rebind(transport::socket(listen)?)
    }

    /// Ends all links and takes no more. Returns when peers were told, as far as they can be.
    pub async fn close(&self, why: Close) {
        self.endpoint.close(why.code(), b"");
        let _ = tokio::time::timeout(HANDSHAKE_PATIENCE, self.endpoint.wait_idle()).await;
    }

    fn link(&self, connection: quinn::Connection, peer: PeerId) -> Link {
        let how = (self.config.compression, self.config.tuning.send_window);
        Link::new(connection, peer, self.config.book.clone(), how)
    }

    async fn take_all(self, server: ServerConfig, arrived: mpsc::Sender<Arrival>) {
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut remind = tokio::time::interval(REMIND);
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                _ = remind.tick() => {
                    self.doors.remind();
                    continue;
                }
            };
            let Some(incoming) = incoming else { return };
            let easy = places.available_permits() >= HANDSHAKES_EASY;
            if !easy && incoming.may_retry() && !incoming.remote_address_validated() {
                let _ = incoming.retry(); // fails only where it may not, which was just asked
                continue;
            }
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (this, server, arrived) = (self.clone(), server.clone(), arrived.clone());
            tokio::spawn(async move {
                let came = this.take(incoming, server).await;
                drop(place);
                if let Some(arrival) = came {
                    // No receiver: the agent stops, and the link ends with its endpoint.
                    let _ = arrived.send(arrival).await;
                }
            });
        }
    }

    async fn take(self, incoming: quinn::Incoming, server: ServerConfig) -> Option<Arrival> {
        let from = incoming.remote_address();
        let admitted = tokio::time::timeout(HANDSHAKE_PATIENCE, self.admit(incoming, server));
        let admitted = admitted.await.unwrap_or_else(|_| Err("it fell silent".to_owned()));
        let (connection, peer) = admitted.inspect_err(|why| self.doors.refused(from, why)).ok()?;
        if !asks_for_pairing(&connection) {
            return Some(Arrival::Link(self.link(connection, peer)));
        }
        // Keeps its own time: a pairing that was granted must not be lost to a slow joiner.
        let paired = serve_pairing(&self.config, &connection, peer).await;
        let paired = paired.inspect_err(|why| self.doors.refused_pairing(from, why));
        paired.ok().map(Arrival::Paired)
    }

    /// Runs the handshake, which admits or refuses, and says welcome; else why not.
    async fn admit(
        &self,
        incoming: quinn::Incoming,
        mut server: ServerConfig,
    ) -> Result<(quinn::Connection, PeerId), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        server.crypto = server_crypto(&self.config).map_err(|error| text(&error))?;
        let connection = match incoming.accept_with(Arc::new(server)) {
            Ok(connecting) => connecting.await,
            Err(error) => Err(error),
        };
        let connection = connection.map_err(|error| text(&error))?;
        let peer = shown_id(&connection).ok_or("it shows no certificate of an agent")?;
        // Asked once more: a revocation may have come between handshake and here.
        if !asks_for_pairing(&connection) && !self.config.book.knows(peer) {
            connection.close(Close::Revoked.code(), b"");
            return Err("it was revoked".to_owned());
        }
        let mut welcome = connection.open_uni().await.map_err(|error| text(&error))?;
        welcome.finish().map_err(|error| text(&error))?;
        Ok((connection, peer))
    }
}

fn server_config(
    config: &Config,
    transport: &Arc<TransportConfig>,
) -> Result<ServerConfig, rustls::Error> {
    let mut server = ServerConfig::with_crypto(server_crypto(config)?);
    server
        .transport_config(transport.clone())
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES);
    Ok(server)
}

fn server_crypto(config: &Config) -> Result<Arc<QuicServerConfig>, rustls::Error> {
    let crypto = tls::server_config(&config.identity, config.book.clone())?;
    Ok(Arc::new(QuicServerConfig::try_from(crypto).expect("the provider has QUIC's suite")))
}

fn shown_id(connection: &quinn::Connection) -> Option<PeerId> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_id(shown.first()?).ok()
}

fn asks_for_pairing(connection: &quinn::Connection) -> bool {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(ALPN_PAIR))
}

/// QUIC gives TLS alerts the error codes from 0x100 to 0x1ff (RFC 9001, section 4.8).
fn is_tls_alert(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}

fn connect_error(address: SocketAddr, source: ConnectionError) -> ConnectError {
    match &source {
        ConnectionError::TransportError(error) if is_tls_alert(error.code.into()) => {
            ConnectError::WrongPeer { address, source }
        }
        ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code.into()) => {
            ConnectError::Refused { address, source }
        }
        ConnectionError::ApplicationClosed(_) => ConnectError::Refused { address, source },
        _ => ConnectError::Unreachable { address, source: Some(source) },
    }
}
