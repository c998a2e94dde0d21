//! Who an agent is: a key pair and a self-signed certificate that carries its public key. A peer
//! is known by the SHA-256 of that key's SubjectPublicKeyInfo and by nothing else: names, dates and
//! issuers in certificates mean nothing here.

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use thiserror::Error;
use vgship_base::ids::PeerId;

use super::tls;

/// Why an identity could not be made or read. The caller names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The library that makes keys and certificates refused.
    #[error("cannot make a key pair and its certificate")]
    Generate(#[source] rcgen::Error),
    /// Text that is no PEM of the kind that it should be.
    #[error("does not hold a PEM {what}")]
    Pem {
        /// certificate or private key.
        what: &'static str,
        /// What the reader met.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate or key are damaged, of an unknown kind, or of two different identities.
    #[error("the certificate and the private key do not belong together")]
    Mismatch(#[source] rustls::Error),
}

/// An agent's key pair and certificate.
pub struct Identity {
    id: PeerId,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

/// An identity as text, for its two files.
pub struct PemPair {
    /// May be shown to anyone.
    pub certificate: String,
    /// A secret.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    /// Names the identity, never the key.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Identity").field(&self.id).finish()
    }
}

impl Identity {
    /// A new key pair (ECDSA on P-256) and its certificate, which says nothing about host or person.
    /// The key is a secret.
    pub fn generate_pem() -> Result<PemPair, IdentityError> {
        let key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Generate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "vgship agent");
        let certificate = params.self_signed(&key).map_err(IdentityError::Generate)?;
        Ok(PemPair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A new identity that lives in memory only.
    pub fn generate() -> Result<Identity, IdentityError> {
        let pair = Identity::generate_pem()?;
        Identity::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes())
    }

    /// An identity from the two texts of a [`PemPair`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
        let bad = |what| move |source| IdentityError::Pem { what, source };
        let certificate =
            CertificateDer::from_pem_slice(certificate).map_err(bad("certificate"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(bad("private key"))?;
        let id = peer_id(&certificate).map_err(IdentityError::Mismatch)?;
        let identity = Identity { id, certificate, key };
        identity.certified().map_err(IdentityError::Mismatch)?;
        Ok(identity)
    }

    /// What peers pin.
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// A secret of this identity for one purpose, the same in every life of the agent.
    pub(super) fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.key.secret_pkcs8_der())
    }

    /// The pair as the TLS library takes it, once it has checked that both belong together.
    pub(super) fn certified(&self) -> Result<CertifiedKey, rustls::Error> {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        CertifiedKey::from_der(vec![self.certificate.clone()], key, &tls::provider())
    }
}

/// Who a certificate's holder is, once the handshake has proved that it holds the key.
pub fn peer_id(certificate: &CertificateDer<'_>) -> Result<PeerId, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(PeerId(Sha256::digest(parsed.subject_public_key_info().as_ref()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_same_whenever_it_is_read() {
        let pair = Identity::generate_pem().unwrap();
        let read = || Identity::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap();
        assert_eq!(read().id(), read().id());
        assert_eq!(format!("{:?}", read()), format!("Identity({})", read().id()));
        assert_eq!(read().derive("one"), read().derive("one"));
        assert_ne!(read().derive("one"), read().derive("two"));
        assert_ne!(read().derive("one"), Identity::generate().unwrap().derive("one"));
    }

    #[test]
    fn two_identities_do_not_mix() {
        let one = Identity::generate_pem().unwrap();
        let other = Identity::generate_pem().unwrap();
        let mixed = Identity::from_pem(other.certificate.as_bytes(), one.key.as_bytes());
        assert!(matches!(mixed, Err(IdentityError::Mismatch(_))));
        let swapped = Identity::from_pem(one.key.as_bytes(), one.certificate.as_bytes());
        assert!(matches!(swapped, Err(IdentityError::Pem { .. })));
        assert!(Identity::from_pem(b"", one.key.as_bytes()).is_err());
    }

    /// Certificate and digest were made by another program (openssl).
    #[test]
    fn the_id_is_the_digest_of_the_public_key() {
        let certificate = CertificateDer::from_pem_slice(GOLDEN_CERTIFICATE.as_bytes()).unwrap();
        assert_eq!(peer_id(&certificate).unwrap().to_string(), GOLDEN_ID);
    }

    const GOLDEN_ID: &str = "b6822face90b52709f5eff3c3dae666388aa7c919636083123e66e9601bd5a4e";
    const GOLDEN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBeTCCAR+gAwIBAgIUbqL3IJdaG29ibti7yDZdV55X6qAwCgYIKoZIzj0EAwIw\n\
        ETEPMA0GA1UEAwwGZ29sZGVuMCAXDTI2MTEyMzA4MDEyMVoYDzIxMjYxMDMwMDgw\n\
        MTIxWjARMQ8wDQYDVQQDDAZnb2xkZW4wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
        AASUvwiP4qS3VGwXESfqe5J5Nc+1t5PibZ172NHTNA8hrk5axUIGW8NcbWnsNnYG\n\
        3d74invqs7yA/S985D0qbuo5o1MwUTAdBgNVHQ4EFgQU43rekORrYlmw6r1qTPe6\n\
        gTGKgCAwHwYDVR0jBBgwFoAU43rekORrYlmw6r1qTPe6gTGKgCAwDwYDVR0TAQH/\n\
        BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBuTlGI9FDkxx6YZVedmMa+2Uy4dN3z\n\
        AlM7xpSHL8214AIhALf6akF7DCA2HJXYs1ySLvmAHoIJvfaZpzp0XNXypIc3\n\
        -----END CERTIFICATE-----\n";
}
