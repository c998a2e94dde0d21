//! Signatures by an agent's identity over bytes that leave it: ECDSA on P-256 with SHA-256, in DER,
//! as any other program makes and checks them. Whose a signature is follows from the public key as
//! in pairing: the SHA-256 of its SubjectPublicKeyInfo.

use rustls::SignatureScheme;
use sha2::{Digest, Sha256};
use thiserror::Error;
use vgship_base::ids::PeerId;

use super::identity::Identity;
use super::tls;

/// The name of the only kind of signature that there is.
pub const ALGORITHM: &str = "ecdsa-p256-sha256";

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// What a SubjectPublicKeyInfo of a point on P-256 begins with: two object ids, and the head of a bit
/// string that holds an uncompressed point.
const HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Length of an uncompressed point. Unit: bytes.
const POINT: usize = 65;

/// Bytes signed by somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The signer's SubjectPublicKeyInfo, in DER.
    pub public_key: Vec<u8>,
    /// The signature, in DER.
    pub signature: Vec<u8>,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The public key is not one that an agent can have.
    #[error("the public key is no point on P-256")]
    Key,
    /// The bytes are not those that were signed, or it was not this key.
    #[error("the signature is not one of these bytes by this key")]
    Wrong,
}

/// Signs bytes with the key of an identity.
///
/// # Errors
/// The library refuses.
pub fn sign(identity: &Identity, bytes: &[u8]) -> Result<Signature, rustls::Error> {
    let certified = identity.certified()?;
    let none = || rustls::Error::General("the key of this identity signs nothing".to_owned());
    let signer = certified.key.choose_scheme(&[SCHEME]).ok_or_else(none)?;
    let public_key = certified.key.public_key().ok_or_else(none)?.as_ref().to_vec();
    Ok(Signature { public_key, signature: signer.sign(bytes)? })
}

impl Signature {
    /// Whose it says to be.
    pub fn signer(&self) -> PeerId {
        PeerId(Sha256::digest(&self.public_key).into())
    }

    /// Checks that the holder of the public key has signed these bytes.
    ///
    /// # Errors
    /// It did not, or that cannot be told.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), SignatureError> {
        let point = self.public_key.strip_prefix(&HEAD).filter(|it| it.len() == POINT);
        let point = point.ok_or(SignatureError::Key)?;
        let provider = tls::provider();
        let known = provider.signature_verification_algorithms.mapping;
        let found = known.iter().find(|(scheme, _)| *scheme == SCHEME);
        // The first of a scheme's is that of its own curve.
        let algorithm = found.and_then(|(_, all)| all.first()).ok_or(SignatureError::Key)?;
        let verified = algorithm.verify_signature(point, bytes, &self.signature);
        verified.map_err(|_| SignatureError::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn only_the_signer_has_signed_and_only_these_bytes() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let signed = sign(&one, b"so it was").unwrap();
        assert_eq!(signed.signer(), one.id());
        assert_eq!(signed.verify(b"so it was"), Ok(()));
        assert_eq!(signed.verify(b"so it is"), Err(SignatureError::Wrong));
        let of_other = sign(&other, b"so it was").unwrap();
        let mixed = Signature { public_key: of_other.public_key, ..signed.clone() };
        assert_eq!(mixed.verify(b"so it was"), Err(SignatureError::Wrong));
        for cut in [0, 26, signed.public_key.len() - 1] {
            let public_key = signed.public_key[..cut].to_vec();
            let cut = Signature { public_key, ..signed.clone() };
            assert_eq!(cut.verify(b"so it was"), Err(SignatureError::Key));
        }
    }

    /// Key and signature were made by another program (openssl).
    #[test]
    fn a_signature_of_another_program_is_read() {
        let public_key = hex!(
            "3059301306072a8648ce3d020106082a8648ce3d0301070342000436e3fec83dede794663c78a9cd05d7"
            "8a62492d44d07d1bdaa100feb4ede3e98835f357a6af3df016f65926ce4a2b7e1bae8a6f2fcb1b9f4219"
            "47c2b8f16c63d1"
        );
        let signature = hex!(
            "30450220784e7fc0e4245b512c701d12be9e808ec6c183e7e93df6093e62fff3ada286ad022100d8e6d1"
            "e0ba18fd662ae11db6c04e7bc07c32a1855e000073938d9dbdfe2267a0"
        );
        let signed = Signature { public_key: public_key.into(), signature: signature.into() };
        assert_eq!(signed.verify(b"a drill"), Ok(()));
        assert_eq!(
            signed.signer().to_string(),
            "9f0c22b11f3d60e70bc797df7c21e200867cdb128664f2e0b9b2ef35d6d2f786"
        );
    }
}
