//! An agent as a process of its own, driven by the commands that its users have.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vgship_base::ids::Name;

use crate::api::Client;
use crate::api::status::{GroupStatus, Status};
use crate::home::Home;

/// Longest wait for anything. A machine that is busy with other things is no failure.
pub(super) const PATIENCE: Duration = Duration::from_mins(4);

/// How often something that is waited for is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Lines of each agent's log that are shown after a failure.
const LOG_LINES: usize = 15;

/// Set when the demonstration is told to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends the demonstration at the next look.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// An error once it is set.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::SeqCst), "interrupted");
        Ok(())
    }

    /// Looks until `probe` has found something, or for too long.
    pub(super) fn until<T>(
        &self,
        what: &str,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let since = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = probe().with_context(|| format!("while waiting for {what}"))? {
                return Ok(found);
            }
            ensure!(since.elapsed() < PATIENCE, "{what} did not come about in {PATIENCE:?}");
            std::thread::sleep(LOOK);
        }
    }
}

/// One agent: its home, its log, its process while it runs. The process ends with this value.
pub(super) struct Agent {
    /// What it is called.
    pub(super) name: &'static str,
    program: PathBuf,
    folder: PathBuf,
    home: Home,
    group: Name,
    log: PathBuf,
    interrupt: Interrupt,
    child: Option<Child>,
}

impl Agent {
    /// Sets up a home below `dir`.
    pub(super) fn init(
        dir: &Path,
        name: &'static str,
        group: &Name,
        interrupt: &Interrupt,
    ) -> Result<Agent> {
        let folder = dir.join(name);
        let agent = Agent {
            name,
            program: std::env::current_exe().context("find this program")?,
            home: Home::at(&folder),
            group: group.clone(),
            log: log_path(dir, name),
            folder,
            interrupt: interrupt.clone(),
            child: None,
        };
        agent.say(&["init", "--name", name, "--listen", "127.0.0.1:0"])?;
        Ok(agent)
    }

    /// Where it lies.
    pub(super) const fn home(&self) -> &Home {
        &self.home
    }

    /// Runs a command on its home and returns what it printed.
    pub(super) fn say(&self, args: &[&str]) -> Result<String> {
        let shown = format!("vgship {} (at the {})", args.join(" "), self.name);
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.folder).args(args).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("start {shown}"))?;
        let mut running = Ended(child);
        let status = self.interrupt.until(&shown, || Ok(running.0.try_wait()?))?;
        let (mut printed, mut said) = (String::new(), String::new());
        running.0.stdout.take().context("its output")?.read_to_string(&mut printed)?;
        running.0.stderr.take().context("its messages")?.read_to_string(&mut said)?;
        ensure!(status.success(), "{shown} failed, {status}: {}", said.trim());
        Ok(printed)
    }

    /// Starts the process and waits until it serves.
    pub(super) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        // A group of its own: a Ctrl-C at the terminal reaches the demonstration alone.
        command.arg("--home").arg(&self.folder).arg("agent").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let child = command.spawn().with_context(|| format!("start the {}", self.name))?;
        let child = self.child.insert(child);
        let stdout = child.stdout.take().context("the agent's output")?;
        let (ready, is_ready) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("ready") {
                    let _ = ready.send(());
                }
            }
        });
        let name = self.name;
        self.interrupt.until(&format!("the {name} to serve"), || {
            match is_ready.recv_timeout(LOOK) {
                Ok(()) => Ok(Some(())),
                Err(RecvTimeoutError::Timeout) => Ok(None),
                Err(RecvTimeoutError::Disconnected) => bail!("the {name} ended as it started"),
            }
        })
    }

    fn pid(&self) -> Result<Pid> {
        let child = self.child.as_ref().with_context(|| format!("the {} is down", self.name))?;
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }

    /// An error when the process has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            bail!("the {} ended by itself: {status}", self.name);
        }
        Ok(())
    }

    /// Ends the process by SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.check()?;
        kill(self.pid()?, Signal::SIGKILL)?;
        let mut child = self.child.take().context("a running agent")?;
        let status = child.wait()?;
        ensure!(status.signal() == Some(9), "the {} was not killed: {status}", self.name);
        Ok(())
    }

    /// Ends the process by SIGTERM; it must end with exit code 0.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.check()?;
        kill(self.pid()?, Signal::SIGTERM)?;
        let name = self.name;
        let child = self.child.as_mut().context("a running agent")?;
        let status =
            self.interrupt.until(&format!("the {name} to stop"), || Ok(child.try_wait()?))?;
        self.child = None;
        ensure!(status.success(), "the {name} stopped with {status}");
        Ok(())
    }

    /// What it says of itself.
    pub(super) fn status(&self) -> Result<Status> {
        let client = Client::new(&self.home);
        let asked = crate::cli::block_on(client.status(None));
        asked.with_context(|| format!("ask the {} for its status", self.name))
    }

    /// What it says of the group.
    pub(super) fn group(&self) -> Result<GroupStatus> {
        let status = self.status()?.only(self.group.as_str());
        let group = status.and_then(|status| status.groups.into_iter().next());
        group.with_context(|| format!("the {} knows no group {}", self.name, self.group))
    }
}

fn log_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

/// The end of an agent's log; nothing when it never ran.
pub(super) fn log_tail(dir: &Path, name: &str) -> String {
    let path = log_path(dir, name);
    let Ok(text) = std::fs::read(&path) else { return String::new() };
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(LOG_LINES)..];
    format!("the last lines of {}:\n{}\n", path.display(), last.join("\n"))
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command's process, which does not outlive this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
