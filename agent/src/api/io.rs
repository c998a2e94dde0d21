//! The socket of the interface. Decides nothing.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control::{ControlError, SharedControl};
use super::routes::router;

/// How long open requests may take to end when the agent stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A served interface. Dropping it ends it at once; [`Server::stop`] lets requests finish.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stopping: watch::Sender<bool>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Serves `control` at `path`, for the owner alone. Whatever lies at `path` is replaced: the
    /// caller holds the home's lock, so it was left by an agent that is gone.
    pub fn start(path: &Path, control: SharedControl) -> Result<Server, ControlError> {
        let listener = listen(path).map_err(|error| {
            ControlError::failed(format!("cannot listen at {}: {error}", path.display()))
                .hint("a socket's path may have 107 bytes; choose a shorter --home")
        })?;
        let (stopping, stopped) = watch::channel(false);
        let mut wish = stopped.clone();
        let service = axum::serve(listener, router(control, stopped));
        let task = tokio::spawn(async move {
            let ended = async move {
                let _ = wish.wait_for(|stopping| *stopping).await;
            };
            service.with_graceful_shutdown(ended).await
        });
        Ok(Server { path: path.to_owned(), stopping, task })
    }

    /// Takes no new requests, lets open ones end, removes the socket.
    pub async fn stop(mut self) {
        let _ = self.stopping.send(true);
        if tokio::time::timeout(STOP_GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(crate::home::io::SECRET))?;
    Ok(listener)
}
