//! Sockets that clients come by: unix sockets, and TCP on this machine's own addresses.

use std::fs::{self, Permissions};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;

/// Why a place cannot be listened at.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Clients would not be told apart from anybody on the network.
    #[error(
        "will not listen at {0}: NBD has neither encryption nor passwords here, so only loopback \
         addresses are allowed; use the unix socket, or 127.0.0.1 behind a tunnel"
    )]
    NotLoopback(SocketAddr),
    /// Another server is there.
    #[error("{0} is in use: another agent answers there; stop it or use another --home")]
    InUse(PathBuf),
    /// A file that no server made.
    #[error("{0} is no socket and is not replaced; move it away or use another --home")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot listen at {place}")]
    Io {
        /// Path or address.
        place: String,
        /// The cause.
        source: io::Error,
    },
}

/// A place where clients connect.
#[derive(Debug)]
pub enum Listener {
    /// A socket file, removed when the listener is dropped.
    Unix(UnixListener, PathBuf),
    /// A loopback address.
    Tcp(TcpListener, SocketAddr),
}

/// One client's connection.
#[derive(Debug)]
pub enum Stream {
    /// By the socket file.
    Unix(UnixStream),
    /// By a loopback address.
    Tcp(TcpStream),
}

impl Listener {
    /// Listens at a socket file that only this user can open. A file left over by a server that
    /// is gone is replaced.
    pub fn unix(path: &Path) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::Io { place: path.display().to_string(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(ListenError::InUse(path.to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // Made aside and renamed, so that it is never there with wider permissions.
        let mut aside = path.as_os_str().to_owned();
        aside.push("~");
        let aside = PathBuf::from(aside);
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&aside).map_err(failed)?;
        fs::set_permissions(&aside, Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&aside, path).map_err(failed)?;
        Ok(Listener::Unix(listener, path.to_owned()))
    }

    /// Listens at a loopback address. Port 0 lets the system choose.
    pub fn tcp(address: SocketAddr) -> Result<Listener, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        let failed = |source| ListenError::Io { place: address.to_string(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Listener::Tcp(listener, address))
    }

    /// Where clients find it.
    pub fn place(&self) -> String {
        match self {
            Listener::Unix(_, path) => path.display().to_string(),
            Listener::Tcp(_, address) => address.to_string(),
        }
    }

    /// Waits for the next client.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Unix(listener, _) => Ok(Stream::Unix(listener.accept()?.0)),
            Listener::Tcp(listener, _) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    /// Ends a wait in [`Listener::accept`], which then returns an error or one more client.
    pub fn interrupt(&self) {
        match self {
            Listener::Unix(listener, path) => {
                if SockRef::from(listener).shutdown(Shutdown::Both).is_err() {
                    let _ = UnixStream::connect(path);
                }
            }
            Listener::Tcp(listener, address) => {
                if SockRef::from(listener).shutdown(Shutdown::Both).is_err() {
                    let _ = TcpStream::connect(address);
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

impl Stream {
    /// Ends both or one direction, whoever waits there.
    pub fn shutdown(&self, how: Shutdown) {
        // An error says that the other side was faster.
        let _ = match self {
            Stream::Unix(stream) => stream.shutdown(how),
            Stream::Tcp(stream) => stream.shutdown(how),
        };
    }

    /// How long one call may wait.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    /// Appends the next `len` bytes, or fewer where they end. Memory that `into` has room for is
    /// not cleared before: the standard library can do that for its own sockets only.
    pub fn append(&self, len: u64, into: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.take(len).read_to_end(into)?,
            Stream::Tcp(stream) => stream.take(len).read_to_end(into)?,
        };
        Ok(())
    }
}

impl Read for &Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).read(into),
            Stream::Tcp(stream) => (&*stream).read(into),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).write(from),
            Stream::Tcp(stream) => (&*stream).write(from),
        }
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).write_vectored(from),
            Stream::Tcp(stream) => (&*stream).write_vectored(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
