//! One agent as a process with a home of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{LONG, until};

/// The agent's program: the one beside the folder of this one, as cargo puts them.
fn program() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let found = own.ancestors().map(|folder| folder.join("vgship")).find(|it| it.is_file());
        found.expect("the program vgship is built first: cargo build -p vgship")
    })
}

/// An agent's home and, while it runs, its process.
pub struct Agent {
    name: String,
    home: PathBuf,
    child: Option<Child>,
    ready: Option<Receiver<String>>,
    /// Of its process and its commands, beside this one's.
    environment: Vec<(String, String)>,
}

/// A command under way.
pub struct Begun(Child);

impl Begun {
    /// Waits for its end.
    pub fn end(self) -> Ran {
        let Output { status, stdout, stderr } = self.0.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = status.code().unwrap_or(-1);
        Ran { code, out: text(stdout), err: text(stderr) }
    }
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    /// How it ended; -1 after a signal.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it said on stderr.
    pub err: String,
}

impl Ran {
    /// The one JSON document that it printed.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("no JSON document: {error}\n{}\n{}", self.out, self.err))
    }

    /// Fails unless the command ended with this code and said all of these on stderr.
    #[track_caller]
    pub fn expect(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        for words in said {
            assert!(self.err.contains(words), "{words:?} is not in: {}", self.err);
        }
    }
}

impl Agent {
    /// Sets a home up; the agent is not started.
    pub fn init(place: &Path, name: &str) -> Agent {
        let home = place.join(name);
        let agent = Agent {
            name: name.to_owned(),
            home,
            child: None,
            ready: None,
            environment: Vec::new(),
        };
        agent.ok(&["init", "--name", name, "--listen", "127.0.0.1:0"]);
        agent
    }

    /// A file of its home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Sets a variable of its process and its commands, from their next start on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.arg("--home").arg(&self.home);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Puts a line at the beginning of the configuration.
    pub fn configure(&self, line: &str) {
        let path = self.path("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{line}\n{text}")).unwrap();
    }

    /// Runs a command on this home, whatever it ends with.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.begin(args).end()
    }

    /// Begins a command on this home.
    pub fn begin(&self, args: &[&str]) -> Begun {
        let mut command = self.command();
        command.args(args).stdin(Stdio::null());
        Begun(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Runs a command that must succeed, and gives what it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{} {args:?}: {}{}", self.name, ran.out, ran.err);
        ran.out
    }

    /// Runs a command with `--json`, which must succeed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let ran = self.run(&all);
        assert_eq!(ran.code, 0, "{} {args:?}: {}{}", self.name, ran.out, ran.err);
        ran.json()
    }

    /// The status of its group `g`.
    #[track_caller]
    pub fn group(&self) -> Value {
        self.json(&["status", "g"])["groups"][0].clone()
    }

    /// Waits until the status of `g` is as wished, and gives it.
    #[track_caller]
    pub fn until(&self, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        until(&format!("{} is {what}", self.name), || {
            last = self.group();
            wished(&last)
        });
        last
    }

    /// Waits as `vgship wait` does.
    #[track_caller]
    pub fn wait(&self, what: &str) {
        self.wait_for(what, LONG);
    }

    /// Waits as `vgship wait` does, at most so long.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration) {
        let limit = format!("{}s", limit.as_secs());
        let ran = self.run(&["wait", "g", "--for", what, "--timeout", &limit]);
        let status = || self.run(&["status", "g"]).out;
        assert_eq!(ran.code, 0, "{} waits for {what}: {}{}", self.name, ran.err, status());
    }

    /// Starts the process; [`Agent::await_ready`] waits until it serves.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command();
        command.arg("agent");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, ready) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        (self.child, self.ready) = (Some(child), Some(ready));
    }

    /// Waits until a process that was spawned serves.
    #[track_caller]
    pub fn await_ready(&self) {
        let line = self.ready.as_ref().unwrap().recv_timeout(LONG);
        let line = line.unwrap_or_else(|_| panic!("{} does not get ready", self.name));
        assert!(line.starts_with("ready"), "{line}");
    }

    /// Starts the process and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        self.await_ready();
    }

    /// Where a running agent listens.
    pub fn listens(&self) -> SocketAddr {
        let status = self.json(&["status"]);
        status["agent"]["listen"].as_str().unwrap().parse().unwrap()
    }

    /// The process that runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether its process was started and not yet ended by this value.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it with SIGTERM and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let child = self.child.as_mut().expect("it runs");
        let mut ended = None;
        until(&format!("{} has stopped", self.name), || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        self.child = None;
        ended.unwrap()
    }

    /// All that its process has said on stderr.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How often its log has these words.
    pub fn logged(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Where NBD clients connect.
    pub fn nbd_socket(&self) -> PathBuf {
        self.path("nbd.sock")
    }

    /// How an NBD client names a volume of `g` here.
    pub fn uri(&self, volume: &str) -> String {
        format!("nbd+unix:///g/{volume}?socket={}", self.nbd_socket().display())
    }

    /// Memory of the process that is its own and resident. Unit: bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        kib << 10
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(80);
            eprintln!("---- log of {} ----\n{}", self.name, lines[last..].join("\n"));
        }
    }
}
