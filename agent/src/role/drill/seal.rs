//! The signature of a report, in a file of its own beside it: the report's name and `.sig`. One JSON
//! document, indented, with a line feed behind it:
//!
//! ```text
//! field       rule
//! format      the text vgship-drill-signature
//! version     1
//! algorithm   ecdsa-p256-sha256
//! key         64 hexadecimal digits: SHA-256 of the public key's bytes, the signer's id
//! public_key  hexadecimal: SubjectPublicKeyInfo in DER
//! signature   hexadecimal: the signature of the report's bytes, in DER
//! ```

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vgship_base::ids::PeerId;

use super::{Report, ReportError};
use crate::home::text::FromHex;
use crate::wire::signature::{ALGORITHM, Signature, SignatureError};

/// What the name of a signature ends with, behind that of its report.
pub const ENDING: &str = "sig";

/// Longest signature that is read. Unit: bytes.
pub const SEAL_MAX: u64 = 4 << 10;

const FORMAT: &str = "vgship-drill-signature";
const VERSION: u16 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    format: String,
    version: u16,
    algorithm: String,
    key: String,
    public_key: String,
    signature: String,
}

/// Why a report is not believed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// What should be a report is none.
    #[error(transparent)]
    NotAReport(ReportError),
    /// What should be a signature is none that is understood.
    #[error("its signature is not understood: {0}")]
    NotASignature(String),
    /// The bytes are not those that were signed.
    #[error("the report was altered: it is not what was signed")]
    Altered(#[source] SignatureError),
    /// It was signed by somebody else than it says.
    #[error("the report says that {said} made it, but {signed} has signed it")]
    OtherKey {
        /// The id that the report names.
        said: String,
        /// The id of the key that signed.
        signed: PeerId,
    },
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(what: &str, digits: &str) -> Result<Vec<u8>, SealError> {
    let bad = || SealError::NotASignature(format!("{what} is not hexadecimal"));
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bad());
    }
    let byte = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        u8::try_from(high? * 16 + low?).ok()
    };
    pairs.iter().map(byte).collect::<Option<_>>().ok_or_else(bad)
}

/// The file of a signature.
pub fn encode(signature: &Signature) -> Vec<u8> {
    let seal = Seal {
        format: FORMAT.to_owned(),
        version: VERSION,
        algorithm: ALGORITHM.to_owned(),
        key: signature.signer().to_string(),
        public_key: hex(&signature.public_key),
        signature: hex(&signature.signature),
    };
    let mut json = serde_json::to_vec_pretty(&seal).expect("plain fields");
    json.push(b'\n');
    json
}

fn decode(bytes: &[u8]) -> Result<Signature, SealError> {
    let not = |why: String| SealError::NotASignature(why);
    let seal: Seal = serde_json::from_slice(bytes).map_err(|error| not(error.to_string()))?;
    if seal.format != FORMAT {
        return Err(not(format!("its format is {:?}, not {FORMAT:?}", seal.format)));
    }
    if seal.version != VERSION {
        let why = format!("it is of version {}, this program reads {VERSION}", seal.version);
        return Err(not(why));
    }
    if seal.algorithm != ALGORITHM {
        return Err(not(format!("the algorithm {:?} is not {ALGORITHM:?}", seal.algorithm)));
    }
    let signature = Signature {
        public_key: unhex("public_key", &seal.public_key)?,
        signature: unhex("signature", &seal.signature)?,
    };
    match PeerId::from_hex(&seal.key) == Some(signature.signer()) {
        true => Ok(signature),
        false => Err(not("its key is not the fingerprint of its public key".to_owned())),
    }
}

/// Checks that a report is what its agent signed; gives it with who that was. Whether to believe
/// that agent is the caller's to say.
///
/// # Errors
/// It is no report, was altered, or was signed by somebody else.
pub fn verify(report: &[u8], seal: &[u8]) -> Result<(Report, PeerId), SealError> {
    let signature = decode(seal)?;
    let parsed = Report::parse(report);
    let parsed = match (signature.verify(report), parsed) {
        (_, Err(error)) => return Err(SealError::NotAReport(error)),
        (Err(error), Ok(_)) => return Err(SealError::Altered(error)),
        (Ok(()), Ok(parsed)) => parsed,
    };
    let signed = signature.signer();
    match PeerId::from_hex(&parsed.agent.key) == Some(signed) {
        true => Ok((parsed, signed)),
        false => Err(SealError::OtherKey { said: parsed.agent.key, signed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::drill::tests::hostile;
    use crate::wire::identity::Identity;
    use crate::wire::signature::sign;

    fn by(identity: &Identity) -> (Vec<u8>, Vec<u8>) {
        let mut report = hostile();
        report.agent.key = identity.id().to_string();
        let json = report.json();
        let seal = encode(&sign(identity, &json).unwrap());
        (json, seal)
    }

    #[test]
    fn a_report_that_was_signed_is_believed() {
        let identity = Identity::generate().unwrap();
        let (json, seal) = by(&identity);
        let (report, signer) = verify(&json, &seal).unwrap();
        assert_eq!((report.group, signer), (hostile().group, identity.id()));
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_own_error() {
        let (identity, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (json, seal) = by(&identity);
        let text = String::from_utf8(json.clone()).unwrap();
        let altered = text.replace("\"failed\"", "\"passed\"");
        assert_ne!(altered, text);
        assert!(matches!(verify(altered.as_bytes(), &seal), Err(SealError::Altered(_))));
        assert!(matches!(verify(format!("{text} ").as_bytes(), &seal), Err(SealError::Altered(_))));
        assert!(matches!(verify(b"<html>", &seal), Err(SealError::NotAReport(_))));
        // Signed again by somebody who is not who the report names.
        let forged = encode(&sign(&other, &json).unwrap());
        let error = verify(&json, &forged).unwrap_err();
        assert!(matches!(&error, SealError::OtherKey { signed, .. } if *signed == other.id()));
        assert!(error.to_string().contains(&identity.id().to_string()), "{error}");
        // The signature of another report.
        let (_, elsewhere) = by(&other);
        assert!(matches!(verify(&json, &elsewhere), Err(SealError::Altered(_))));
    }

    #[test]
    fn what_is_no_signature_is_said() {
        let (json, seal) = by(&Identity::generate().unwrap());
        let text = String::from_utf8(seal).unwrap();
        let why = |text: &str| verify(&json, text.as_bytes()).unwrap_err().to_string();
        for (changed, said) in [
            (text.replace(FORMAT, "x"), "its format is \"x\""),
            (text.replace("\"version\": 1", "\"version\": 7"), "version 7"),
            (text.replace(ALGORITHM, "none"), "the algorithm \"none\""),
            (text.replace("\"signature\": \"30", "\"signature\": \"3g"), "not hexadecimal"),
            (text.replace("\"signature\": \"30", "\"signature\": \"3"), "not hexadecimal"),
            (text.replace("\"public_key\": \"30", "\"public_key\": \"31"), "not the fingerprint"),
            (String::new(), "not understood"),
        ] {
            let why = why(&changed);
            assert!(why.contains(said), "{said}: {why}");
        }
    }

    #[test]
    fn the_form_of_a_signature_does_not_change() {
        let signature = Signature { public_key: vec![1, 0xab], signature: vec![0x30, 0] };
        let known = "{\n  \"format\": \"vgship-drill-signature\",\n  \"version\": 1,\n  \
                     \"algorithm\": \"ecdsa-p256-sha256\",\n  \"key\": \
                     \"KEY\",\n  \
                     \"public_key\": \"01ab\",\n  \"signature\": \"3000\"\n}\n";
        let known = known.replace("KEY", &signature.signer().to_string());
        assert_eq!(String::from_utf8(encode(&signature)).unwrap(), known);
        assert_eq!(decode(known.as_bytes()).unwrap(), signature);
    }
}
