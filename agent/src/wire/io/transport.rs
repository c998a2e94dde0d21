//! How links use the network: one UDP socket, windows, timers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::identity::Identity;

/// Bytes in flight that one stream may have. 1 Gbit/s over 100 ms is 12.5 MB; this leaves room for
/// a reader that pauses. Unit: bytes.
const STREAM_WINDOW: u32 = 32 << 20;

/// The same for all streams of one link together. Unit: bytes.
const LINK_WINDOW: u32 = 64 << 20;

/// Kernel buffers asked for; the kernel gives what its limits allow. Unit: bytes.
const SOCKET_BUFFER: usize = 8 << 20;

/// Groups that two agents share, and some to spare.
const STREAMS_MAX: u32 = 256;

const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Longest silence of a link that is taken to stand.
const IDLE: Duration = Duration::from_secs(10);

/// Datagrams that the library hands to the kernel in one call.
const TOGETHER: u32 = 10;

/// Largest UDP payload that is tried and taken. What is handed over in one call must fit one UDP
/// payload of the kernel, 65507 bytes over IPv4: the kernel refuses a longer one and the library
/// takes the refusal for a lost probe, so with larger datagrams every full call would be lost. On
/// a path of 9000 bytes this uses most of it. Unit: bytes.
const PAYLOAD_MAX: u16 = 6550;

const _: () = assert!(PAYLOAD_MAX as u32 * TOGETHER <= 65_507, "a full call must fit the kernel");

/// Unit: bytes.
const CONNECTION_ID_LEN: usize = 8;

/// The search for the path's size ends at this difference. Unit: bytes.
const MTU_STEP: u16 = 64;

/// How the network's capacity is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// By loss; what most of the network does. On loopback a third faster than the other.
    #[default]
    Cubic,
    /// By measured rate and delay; experimental in the library.
    Bbr,
}

/// What may be changed of a link's use of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes taken from streams that the peer has not confirmed: the upper bound. A link keeps
    /// itself below it where its path is slow. Unit: bytes.
    pub send_window: u64,
    /// How capacity is found.
    pub congestion: Congestion,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { send_window: u64::from(STREAM_WINDOW), congestion: Congestion::Cubic }
    }
}

/// The transport of all links.
pub(super) fn transport(tuning: Tuning) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(PAYLOAD_MAX).minimum_change(MTU_STEP);
    let idle = u32::try_from(IDLE.as_millis()).expect("10 s");
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .send_window(tuning.send_window)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(1)) // the welcome
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .mtu_discovery_config(Some(mtu));
    match tuning.congestion {
        Congestion::Cubic => config.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => config.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    config
}

/// Signs the resets that tell a peer that a connection is no more.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature: [u8; 32] = signature.try_into().map_err(|_| CryptoError)?;
        // The comparison of two digests takes the same time whatever they are.
        if blake3::keyed_hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Connection ids of dice alone. The library's own bear a mark of the endpoint's life, and packets
/// of an earlier life would be dropped in silence.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_LEN];
        getrandom::fill(&mut id).expect("the system gave randomness for the identity");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// What the endpoint takes from the network.
///
/// The key of resets comes from the identity and not from dice: so an agent that was killed and
/// started again tells a peer at once that its former connections are no more, where the peer
/// would otherwise wait until the silence has been too long. The library limits their rate.
pub(super) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let reset = ResetKey(identity.derive("vgship 2026 QUIC stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(|| Box::new(RandomIds));
    config.max_udp_payload_size(PAYLOAD_MAX).expect("within QUIC's bounds");
    config
}

/// A UDP socket with the largest buffers that the system gives.
pub(super) fn socket(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    for bytes in [SOCKET_BUFFER, SOCKET_BUFFER / 4] {
        // Systems that refuse a size instead of cutting it down may take a smaller one.
        let received = socket.set_recv_buffer_size(bytes);
        if socket.set_send_buffer_size(bytes).is_ok() && received.is_ok() {
            break;
        }
    }
    socket.bind(&listen.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
