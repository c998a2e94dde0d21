//! The book of peers as a file, shared by all that ask it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::watch;
use vgship_base::ids::{GroupId, Name, PeerId};

use super::home::{read, write_private};
use crate::wire::pairing::{Claim, InviteId, Refused, Secret};
use crate::wire::peers::{ATTEMPTS, BOOK_MAX, Book, BookError, Invite, Peer, Role};
use crate::wire::tls::Admission;
use crate::wire::token::Token;

/// Why the book cannot be read or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BookFileError {
    /// The file could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// The book's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text in the file is no book.
    #[error("{} cannot be used", path.display())]
    Text {
        /// The book's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BookError,
    },
    /// The change is not allowed.
    #[error("the book of peers was not changed")]
    Change(#[from] BookError),
    /// The system gives no random numbers.
    #[error("cannot make a secret: the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// The book of peers, in memory and in its file. One process owns the file.
///
/// A lock, not a task, holds it: TLS asks it in the middle of a handshake and cannot wait for a
/// message. It is held for a lookup, or for the write of one small file.
#[derive(Debug)]
pub struct PeerBook {
    path: PathBuf,
    book: RwLock<Book>,
    changes: watch::Sender<u64>,
}

impl PeerBook {
    /// Opens the book at `path`; an empty one when there is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<PeerBook, BookFileError> {
        let path = path.into();
        let book = load(&path)?;
        Ok(PeerBook { path, book: RwLock::new(book), changes: watch::Sender::new(0) })
    }

    /// All peers.
    pub fn peers(&self) -> Vec<Peer> {
        self.read().peers().to_vec()
    }

    /// The peer of this id.
    pub fn peer(&self, id: PeerId) -> Option<Peer> {
        self.read().peer(id).cloned()
    }

    /// Invites that are not used; expired ones may be among them.
    pub fn invites(&self) -> Vec<Invite> {
        self.read().invites().to_vec()
    }

    /// Whether the peer may be `role` in `group`.
    pub fn allows(&self, peer: PeerId, group: GroupId, role: Role) -> bool {
        self.read().allows(peer, group, role)
    }

    /// Whether the replica of a pair is blind.
    pub fn is_blind(&self, peer: PeerId, group: GroupId) -> bool {
        self.read().is_blind(peer, group)
    }

    /// Told at each change; the number has no meaning.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Opens an invite for one joiner and gives its token. `group` is `None` when the joiner is the
    /// source and brings the group.
    ///
    /// Durable: the invite, once this has returned.
    pub fn invite(
        &self,
        inviter: PeerId,
        addresses: Vec<SocketAddr>,
        (name, group): (Name, Option<GroupId>),
        (role, blind): (Role, bool),
        lasts: Duration,
    ) -> Result<Token, BookFileError> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        getrandom::fill(&mut id).map_err(BookFileError::Random)?;
        getrandom::fill(&mut secret).map_err(BookFileError::Random)?;
        let (id, secret, now) = (InviteId(id), Secret(secret), now());
        let expires = now.saturating_add(lasts.as_secs());
        let verifier = secret.verifier();
        let attempts = ATTEMPTS;
        let invite =
            Invite { id, verifier, name: name.clone(), group, role, blind, expires, attempts };
        self.change(|book| book.invite(invite, now))??;
        Ok(Token { addresses, inviter, invite: id, secret, expires, group: name, role, blind })
    }

    /// Enters a peer, or a further grant of a known one. Durable once this has returned.
    pub fn admit(&self, peer: Peer) -> Result<(), BookFileError> {
        Ok(self.change(|book| book.admit(peer))??)
    }

    /// Sets what a peer may be in a group after roles were exchanged; whether it had a grant.
    /// Durable once this has returned.
    pub fn set_role(&self, id: PeerId, group: GroupId, role: Role) -> Result<bool, BookFileError> {
        self.change(|book| book.set_role(id, group, role))
    }

    /// Takes away all that the peer of this name or id may do; its links are closed. `None` when it
    /// is not known. Durable once this has returned.
    pub fn revoke(&self, who: &str) -> Result<Option<Peer>, BookFileError> {
        self.change(|book| book.revoke(who))
    }

    /// Takes away what all peers may do in a group, and its invites; links of those that may do
    /// nothing else are closed. Returns who lost something, as it was. Durable once returned.
    pub fn forget_group(&self, group: GroupId) -> Result<Vec<Peer>, BookFileError> {
        self.change(|book| book.forget_group(group))
    }

    /// Closes an invite by its id in hexadecimal; whether it was open. Durable once returned.
    pub fn revoke_invite(&self, id: &str) -> Result<bool, BookFileError> {
        self.change(|book| book.revoke_invite(id))
    }

    /// Judges a claim. What it costs or uses up is durable before the result is known.
    pub(super) fn redeem(&self, claim: &Claim) -> Result<Result<Invite, Refused>, BookFileError> {
        let now = now();
        self.change(|book| book.redeem(claim, now))
    }

    fn read(&self) -> RwLockReadGuard<'_, Book> {
        // A panic elsewhere cannot leave a book half changed: changes replace it as a whole.
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a copy, stores it, then lets all see it.
    fn change<T>(&self, how: impl FnOnce(&mut Book) -> T) -> Result<T, BookFileError> {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = book.clone();
        let result = how(&mut changed);
        if changed != *book {
            write_private(&self.path, changed.encode().as_bytes())
                .map_err(failed("write", &self.path))?;
            *book = changed;
            drop(book);
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(result)
    }
}

impl Admission for PeerBook {
    fn knows(&self, peer: PeerId) -> bool {
        self.read().peer(peer).is_some()
    }

    fn pairing_open(&self) -> bool {
        self.read().pairing_open(now())
    }
}

/// The wall clock. Unit: seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn load(path: &Path) -> Result<Book, BookFileError> {
    let content = match File::open(path) {
        Ok(file) => read(file, BOOK_MAX).map_err(failed("read", path))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Book::default()),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let text = String::from_utf8(content)
        .map_err(|error| failed("read", path)(std::io::Error::other(error)))?;
    Book::decode(&text).map_err(|source| BookFileError::Text { path: path.to_owned(), source })
}

fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(std::io::Error) -> BookFileError + 'a {
    move |source| BookFileError::Io { action, path: path.to_owned(), source }
}
