//! The identity's two files in the agent's home.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::wire::identity::{Identity, IdentityError};

const CERTIFICATE: &str = "agent.crt";
const KEY: &str = "agent.key";

/// Longest file that is read: many times a P-256 certificate. Unit: bytes.
const FILE_MAX: u64 = 64 << 10;

/// Why the agent's home does not give an identity.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HomeError {
    /// A file or folder could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key can be read by others.
    #[error(
        "{} has mode {mode:04o}: others may have read the private key; if none did, \
         run chmod 600 on it, else remove both identity files and pair again", path.display()
    )]
    LooseMode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// One of the two files is missing.
    #[error(
        "{} is missing while its other half is there: restore it, or remove the other half \
         as well to get a new identity and pair again", path.display()
    )]
    Half {
        /// The missing file.
        path: PathBuf,
    },
    /// The files are damaged or belong to different identities.
    #[error("the identity in {} cannot be used", path.display())]
    Identity {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

/// The identity kept in `folder`, made there at first: `agent.crt` and, with mode 0600, `agent.key`.
///
/// Durable: a new identity is on stable storage before it is given out.
pub fn load_or_create_identity(folder: &Path) -> Result<Identity, HomeError> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    match (certificate.exists(), key.exists()) {
        (true, true) => load(folder, &certificate, &key),
        (true, false) => Err(HomeError::Half { path: key }),
        // The certificate is written last: a key alone is what a crash while making one leaves,
        // and nobody can have paired with it.
        (false, _) => create(folder, &certificate, &key),
    }
}

fn load(folder: &Path, certificate: &Path, key: &Path) -> Result<Identity, HomeError> {
    let file = File::open(key).map_err(failed("open", key))?;
    let mode = file.metadata().map_err(failed("examine", key))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(HomeError::LooseMode { path: key.to_owned(), mode });
    }
    let secret = read(file, FILE_MAX).map_err(failed("read", key))?;
    let shown = File::open(certificate).and_then(|file| read(file, FILE_MAX));
    let shown = shown.map_err(failed("read", certificate))?;
    Identity::from_pem(&shown, &secret)
        .map_err(|source| HomeError::Identity { path: folder.to_owned(), source })
}

fn create(folder: &Path, certificate: &Path, key: &Path) -> Result<Identity, HomeError> {
    std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let unusable = |source| HomeError::Identity { path: folder.to_owned(), source };
    let pair = Identity::generate_pem().map_err(unusable)?;
    write_private(key, pair.key.as_bytes()).map_err(failed("write", key))?;
    write_private(certificate, pair.certificate.as_bytes())
        .map_err(failed("write", certificate))?;
    load(folder, certificate, key)
}

/// Replaces a file that only its owner may read. After a power cut it is the old one or the new.
///
/// Durable: the new content, once this has returned.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file without a folder"))?;
    let mut fresh = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fresh.as_file().set_permissions(private)?;
    fresh.write_all(content)?;
    fresh.as_file().sync_all()?;
    fresh.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Reads a small file as a whole. Refuses one over `max` bytes.
pub(super) fn read(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content)?;
    match content.len() as u64 <= max {
        true => Ok(content),
        false => Err(io::Error::other(format!("it is longer than {max} bytes"))),
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> HomeError + 'a {
    move |source| HomeError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_stays() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("state");
        let first = load_or_create_identity(&folder).unwrap().id();
        assert_eq!(load_or_create_identity(&folder).unwrap().id(), first);
        let mode = std::fs::metadata(folder.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "no leftovers");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_advice() {
        let home = tempfile::tempdir().unwrap();
        load_or_create_identity(home.path()).unwrap();
        let key = home.path().join(KEY);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = load_or_create_identity(home.path()).unwrap_err();
        assert!(matches!(refused, HomeError::LooseMode { mode: 0o640, .. }));
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }

    #[test]
    fn a_crash_while_making_an_identity_is_repaired_and_a_lost_key_is_told() {
        let home = tempfile::tempdir().unwrap();
        load_or_create_identity(home.path()).unwrap();
        std::fs::remove_file(home.path().join(CERTIFICATE)).unwrap();
        load_or_create_identity(home.path()).unwrap();
        std::fs::remove_file(home.path().join(KEY)).unwrap();
        let refused = load_or_create_identity(home.path());
        assert!(matches!(refused, Err(HomeError::Half { .. })), "{refused:?}");
    }

    #[test]
    fn halves_of_two_identities_are_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        load_or_create_identity(one.path()).unwrap();
        load_or_create_identity(other.path()).unwrap();
        std::fs::copy(other.path().join(CERTIFICATE), one.path().join(CERTIFICATE)).unwrap();
        let refused = load_or_create_identity(one.path());
        assert!(matches!(refused, Err(HomeError::Identity { .. })), "{refused:?}");
    }
}
