//! A hook's command while it runs: a shell in a process group of its own, its output kept in memory,
//! for a file may lie on what is frozen.

use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How much of what a command said last is kept. Unit: bytes.
const SAID_MAX: usize = 2000;

/// How long to wait for the last words of a command that has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What a shell does with `$1` once it is let through: nothing when the one who would say so died.
const GATE: &str = "read go && exec /bin/sh -c \"$1\" </dev/null";

/// A command that was started.
#[derive(Debug)]
pub(super) struct Run {
    child: Option<Child>,
    process: i32,
    status: Option<ExitStatus>,
    killed: bool,
    said: Arc<Mutex<Vec<u8>>>,
    /// Nobody holds its output any more.
    silent: Receiver<()>,
}

impl Run {
    /// Runs a shell command.
    pub(super) fn start(command: &str, env: &[(&str, String)]) -> io::Result<Run> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).stdin(Stdio::null());
        Run::spawn(shell, env)
    }

    /// Prepares a shell command, which begins with [`Run::let_go`].
    pub(super) fn prepare(command: &str, env: &[(&str, String)]) -> io::Result<Run> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(GATE).arg("vgship-hook").arg(command).stdin(Stdio::piped());
        Run::spawn(shell, env)
    }

    fn spawn(mut shell: Command, env: &[(&str, String)]) -> io::Result<Run> {
        let (output, input) = io::pipe()?;
        shell.envs(env.iter().map(|(key, value)| (key, value)));
        shell.stdout(input.try_clone()?).stderr(input).process_group(0);
        let child = shell.spawn()?;
        drop(shell); // with it our side of the output's beginning
        let process = i32::try_from(child.id()).map_err(io::Error::other)?;
        let said = Arc::default();
        let (tell, silent) = channel();
        let mut run =
            Run { child: Some(child), process, status: None, killed: false, said, silent };
        let said = Arc::clone(&run.said);
        let listens = thread::Builder::new().name("hook".to_owned()).spawn(move || {
            listen(output, &said);
            let _ = tell.send(());
        });
        if let Err(error) = listens {
            run.kill();
            return Err(error);
        }
        Ok(run)
    }

    /// Its process, which is its process group.
    pub(super) fn process(&self) -> i32 {
        self.process
    }

    /// Lets a prepared command begin.
    pub(super) fn let_go(&mut self) -> io::Result<()> {
        let gate = self.child.as_mut().and_then(|child| child.stdin.take());
        gate.ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"go\n")
    }

    /// How it ended, if it did; when it was killed, only once nobody holds its output.
    pub(super) fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none()
            && let Some(child) = &mut self.child
        {
            // Only who reaped it already can make this fail.
            self.status = child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0x7f00)));
        }
        let has_silenced = self.status.is_some() && self.killed && self.hear_end(Duration::ZERO);
        self.status.filter(|_| has_silenced || !self.killed)
    }

    /// Kills it with all that it started.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        // Not after it was reaped: the number may be another's.
        if self.status.is_none() {
            kill_group(self.process);
        }
    }

    /// What it said last, on one line.
    pub(super) fn said(&mut self) -> String {
        self.hear_end(LAST_WORDS);
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
        match lines.is_empty() {
            true => "it said nothing".to_owned(),
            false => lines.join("; "),
        }
    }

    fn hear_end(&mut self, patience: Duration) -> bool {
        use std::sync::mpsc::RecvTimeoutError;
        // A listener that has ended and was heard is gone for good.
        !matches!(self.silent.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let Some(child) = self.child.take().filter(|_| self.status.is_none()) else { return };
        self.kill();
        reap(child);
    }
}

/// Waits for a process where that disturbs nobody: one that cannot be killed ends late.
pub(super) fn reap(mut child: Child) {
    let _ = thread::Builder::new().name("reap".to_owned()).spawn(move || child.wait());
}

/// Kills a process group; that it is gone already is as well.
pub(super) fn kill_group(process: i32) {
    let _ = killpg(Pid::from_raw(process), Signal::SIGKILL);
}

/// Whether nothing is left of a process group.
pub(super) fn is_gone(process: i32) -> bool {
    killpg(Pid::from_raw(process), None) == Err(Errno::ESRCH)
}

/// Keeps the end of what comes.
fn listen(mut output: PipeReader, said: &Mutex<Vec<u8>>) {
    let mut some = [0; 1024];
    while let Ok(count @ 1..) = output.read(&mut some) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&some[..count]);
        let over = said.len().saturating_sub(SAID_MAX);
        said.drain(..over);
    }
}
