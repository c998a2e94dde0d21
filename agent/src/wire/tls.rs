//! TLS for links: version 1.3 only, both sides show a certificate, and a certificate counts only
//! by its public key. Chains, names and dates are not looked at: a key is trusted from its pairing
//! until it is revoked. The handshake's signature is checked by the provider's own functions.
//!
//! ```text
//! ALPN            client known to the server   client unknown
//! vgship/1        admitted                     handshake fails
//! vgship-pair/1   admitted while an invite is open, else handshake fails
//! ```
//!
//! The book of peers is asked in each handshake, and no session is ever resumed, so a revocation
//! takes effect at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerMisbehaved, ServerConfig, SignatureScheme, version,
};
use vgship_base::ids::PeerId;

use super::identity::{Identity, peer_id};

/// What links between paired agents speak.
pub const ALPN_PEER: &[u8] = b"vgship/1";

/// What a joiner speaks, once, to the agent that invited it.
pub const ALPN_PAIR: &[u8] = b"vgship-pair/1";

/// The name that clients send and nobody reads.
pub const SERVER_NAME: &str = "vgship";

/// Who may come in. Asked during each handshake.
pub trait Admission: std::fmt::Debug + Send + Sync {
    /// Whether this peer is paired and not revoked.
    fn knows(&self, peer: PeerId) -> bool;

    /// Whether strangers may come in to redeem an invite.
    fn pairing_open(&self) -> bool;
}

/// What a client wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A link between paired agents.
    Link,
    /// To redeem an invite.
    Pair,
}

impl Purpose {
    /// Its ALPN name.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Purpose::Link => ALPN_PEER,
            Purpose::Pair => ALPN_PAIR,
        }
    }
}

/// The one choice of a cryptography library for links. A system that cannot build it gets another
/// one here.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// The server's side of one handshake. Make a new one for each: it remembers what the client asked
/// for.
pub fn server_config(
    identity: &Identity,
    admission: Arc<dyn Admission>,
) -> Result<ServerConfig, Error> {
    let pairing_open = admission.pairing_open();
    let wants_pairing = Arc::new(AtomicBool::new(false));
    let verifier = Clients { admission, wants_pairing: wants_pairing.clone() };
    let key = Arc::new(identity.certified()?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Asked { key, wants_pairing }));
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    if pairing_open {
        config.alpn_protocols.push(ALPN_PAIR.to_vec());
    }
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The client's side of handshakes with exactly one peer.
pub fn client_config(
    identity: &Identity,
    expected: PeerId,
    purpose: Purpose,
) -> Result<ClientConfig, Error> {
    let key = SingleCertAndKey::from(identity.certified()?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous() // the library's word for any verifier but its own; ours pins the key
        .with_custom_certificate_verifier(Arc::new(Pinned { expected }))
        .with_client_cert_resolver(Arc::new(key));
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Notes what the client asks for before its certificate is judged, and shows ours.
#[derive(Debug)]
struct Asked {
    key: Arc<CertifiedKey>,
    wants_pairing: Arc<AtomicBool>,
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Who offers both names is judged as a link: the server prefers that one.
        let mut offered: Vec<&[u8]> = hello.alpn().into_iter().flatten().collect();
        offered.dedup();
        self.wants_pairing.store(offered == [ALPN_PAIR], Ordering::Release);
        Some(self.key.clone())
    }
}

/// Judges clients.
#[derive(Debug)]
struct Clients {
    admission: Arc<dyn Admission>,
    wants_pairing: Arc<AtomicBool>,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let peer = peer_id(shown)?;
        let admitted = match self.wants_pairing.load(Ordering::Acquire) {
            true => self.admission.pairing_open(),
            false => self.admission.knows(peer),
        };
        admitted.then(ClientCertVerified::assertion).ok_or_else(unknown)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, shown, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Judges the one server that a client means to reach.
#[derive(Debug)]
struct Pinned {
    expected: PeerId,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let meant = peer_id(shown)? == self.expected;
        meant.then(ServerCertVerified::assertion).ok_or_else(unknown)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, shown, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn unknown() -> Error {
    CertificateError::ApplicationVerificationFailure.into()
}

fn only_tls13() -> Error {
    PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
