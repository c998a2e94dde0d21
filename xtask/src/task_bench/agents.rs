//! Agents under measurement, driven by the command line alone, as a user would.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::programs;
use crate::tree;

/// The group of every measurement.
pub const GROUP: &str = "bench";
/// Its one volume. An image file of this name is its LV.
pub const VOLUME: &str = "lv0";
/// After this a command hangs. Unit: seconds, for timeout(1).
const COMMAND_LIMIT: &str = "960";

/// An agent with its home and its images; its process ends with this value.
pub struct Agent {
    program: PathBuf,
    home: PathBuf,
    /// Folder of the images.
    images: PathBuf,
    child: Option<Child>,
}

/// Memory of a process. Unit of both: bytes.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// At its highest.
    pub peak: u64,
}

impl Agent {
    /// Makes a home and an empty folder of images below `dir`, then starts the agent.
    pub fn begin(program: &Path, dir: &Path, name: &str) -> Result<Agent> {
        let home = dir.join(name);
        programs::fresh(&home)?;
        let images = dir.join(format!("{name}-images"));
        programs::fresh(&images)?;
        let mut agent = Agent { program: program.to_path_buf(), home, images, child: None };
        let port = free_port()?;
        agent.say(&["init", "--name", name, "--listen", &format!("127.0.0.1:{port}")])?;
        agent.start()?;
        Ok(agent)
    }

    /// Where the volume's image lies.
    pub fn image(&self) -> PathBuf {
        self.images.join(VOLUME)
    }

    /// Serves the images as a group.
    pub fn add_group(&self) -> Result<()> {
        self.say(&["group", "add", GROUP, "--volumes", &self.volumes()]).map(|_| ())
    }

    /// Pairs `replica` with this source; the replica makes its image itself.
    pub fn take_replica(&self, replica: &Agent) -> Result<()> {
        let said = self.say(&["pair", "invite", "--group", GROUP, "--role", "replica"])?;
        let token = said.split_whitespace().next_back().context("pair invite printed no token")?;
        let volumes = replica.volumes();
        replica.say(&["pair", "join", token, "--group", GROUP, "--volumes", &volumes])?;
        Ok(())
    }

    /// Waits until the replica has all that was written before the call, on its LVs.
    pub fn wait_applied(&self) -> Result<()> {
        for what in ["in-sync", "applied"] {
            self.say(&["wait", GROUP, "--for", what, "--timeout", "15m"])?;
        }
        Ok(())
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.home.join("agent.log"))?;
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.home).arg("agent").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().context("the agent's output")?;
        self.child = Some(child);
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("ready") {
                    let _ = ready.send(());
                }
            }
        });
        if is_ready.recv_timeout(Duration::from_mins(1)).is_err() {
            bail!("the agent did not get ready; {}/agent.log says why", self.home.display());
        }
        Ok(())
    }

    /// Stops the process cleanly.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        tree::run(Command::new("kill").args(["-TERM", &child.id().to_string()]))?;
        let stopped = programs::until(Duration::from_mins(1), "the agent's end", || {
            child.try_wait().is_ok_and(|status| status.is_some())
        });
        if stopped.is_err() {
            child.kill()?;
            child.wait()?;
        }
        stopped
    }

    /// Ends the process at once, as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The URI of the volume's export.
    pub fn uri(&self) -> String {
        let socket = self.home.join("nbd.sock");
        format!("nbd+unix:///{GROUP}/{VOLUME}?socket={}", socket.display())
    }

    /// Runs a command of the agent, and how long that took, its process included. Unit: seconds.
    pub fn time(&self, args: &[&str]) -> Result<f64> {
        let started = Instant::now();
        self.say(args)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// What the process takes.
    pub fn memory(&self) -> Result<Memory> {
        let child = self.child.as_ref().context("the agent is not running")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib << 10).with_context(|| format!("{name} in the process's status"))
        };
        Ok(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// Bytes that the agent says it sent to its peer, if its status has that. Unit: bytes.
    pub fn sent_bytes(&self) -> Result<Option<u64>> {
        let said = self.say(&["status", GROUP, "--json"])?;
        let status: Value = serde_json::from_str(&said).context("status --json")?;
        Ok(status["groups"][0]["peers"][0]["sent_bytes"].as_u64())
    }

    /// Ends the process and removes its home and images.
    pub fn discard(mut self) -> Result<()> {
        self.stop()?;
        programs::remove(&self.home)?;
        programs::remove(&self.images)
    }

    fn volumes(&self) -> String {
        format!("images:{}", self.images.display())
    }

    /// Runs a command of the agent; none may take longer than the longest wait.
    pub fn say(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_LIMIT).arg(&self.program).arg("--home").arg(&self.home).args(args);
        tree::output(&mut command)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A source and a replica of a volume that `fill` makes, once the replica has all of it.
pub fn pair(
    program: &Path,
    dir: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<(Agent, Agent)> {
    let source = Agent::begin(program, dir, "source")?;
    fill(&source.image())?;
    source.add_group()?;
    let replica = Agent::begin(program, dir, "replica")?;
    source.take_replica(&replica)?;
    source.wait_applied()?;
    Ok((source, replica))
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Bytes that went over loopback so far, whoever sent them. NBD goes over unix sockets and is not
/// in it, so on a quiet machine this is what the peers said to each other, all headers included.
pub fn loopback_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let count = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    count.context("the counter of the loopback device")
}
