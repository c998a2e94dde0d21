//! A PostgreSQL server on two file systems, its data on one and its log on the other, so that what
//! it needs of the order holds over both.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::mounts::{LoopDevice, Mount, cannot_mount, end};
use crate::programs::run;
use crate::until;

/// The system's user that PostgreSQL's package makes; the server refuses to run as root.
const USER: &str = "postgres";

/// What the server is told. Small, so that its log goes round and checkpoints come often.
const SETTINGS: [&str; 7] = [
    "listen_addresses=",
    "fsync=on",
    "shared_buffers=16MB",
    "max_wal_size=16MB",
    "min_wal_size=4MB",
    "checkpoint_timeout=30s",
    "autovacuum_naptime=5s",
];

/// Why PostgreSQL cannot be run on exports here.
pub fn cannot_run() -> Option<String> {
    if let Some(reason) = cannot_mount() {
        return Some(reason.to_owned());
    }
    let missing = ["nbdfuse", "losetup", "mkfs.ext4", "e2fsck", "setpriv", "psql"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    match (missing, programs().is_none()) {
        (Some(program), _) => Some(format!("{program} is missing")),
        (None, true) => Some("PostgreSQL is not installed".to_owned()),
        (None, false) => None,
    }
}

/// The folder of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("pgbench").is_file()).max()
}

/// A program of the server, run by its user.
fn command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    command.arg(programs().expect("it is installed").join(program));
    command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command
}

/// Two file systems side by side, `data` and `log`.
pub struct Disks {
    root: PathBuf,
    _mounts: [Mount; 2],
}

impl Disks {
    /// Mounts both devices or files below `root`.
    pub fn mount(data: &str, log: &str, root: &Path, options: &[&str]) -> Result<Disks, String> {
        let mounts = [
            Mount::of(options, data, &root.join("data"))?,
            Mount::of(options, log, &root.join("log"))?,
        ];
        Ok(Disks { root: root.to_owned(), _mounts: mounts })
    }
}

/// Makes both images: file systems with an empty database, and the tables of all rounds.
pub fn make_images(images: &Path, volumes: &[(&str, u64)], place: &Path) {
    fs::create_dir_all(images).unwrap();
    let mut devices = Vec::new();
    for (name, bytes) in volumes {
        let image = images.join(name);
        File::create(&image).unwrap().set_len(*bytes).unwrap();
        let image = image.to_str().unwrap();
        run("e2fsprogs", "mkfs.ext4", &["-q", "-F", "-b", "4096", "-m", "0", image]);
        devices.push(LoopDevice::over(Path::new(image)));
    }
    let root = place.join("made");
    let disks = Disks::mount(devices[0].path(), devices[1].path(), &root, &[]).unwrap();
    for name in ["data", "log"] {
        run("coreutils", "chown", &[USER, root.join(name).to_str().unwrap()]);
    }
    let (data, log) = (root.join("data/pg"), root.join("log/wal"));
    let mut initdb = command("initdb");
    initdb.args(["--data-checksums", "--auth=trust", "--wal-segsize=1", "--no-sync"]);
    initdb.args(["--encoding=UTF8", "--username=postgres", "--pgdata"]).arg(&data);
    let made = initdb.arg("--waldir").arg(&log).output().unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    // So that it holds wherever both are mounted.
    fs::remove_file(data.join("pg_wal")).unwrap();
    symlink("../../log/wal", data.join("pg_wal")).unwrap();
    let mut server = Server::start(&disks, &place.join("made-server")).unwrap();
    server.ask("create table acks (client int, n bigint, primary key (client, n))").unwrap();
    let mut pgbench = server.pgbench(&["--initialize", "--quiet", "--scale=1"]);
    assert!(pgbench.wait().unwrap().success(), "pgbench --initialize");
    server.stop();
}

/// A server at work; it ends with this value, as after a fast shutdown or worse.
pub struct Server {
    child: Child,
    /// Folder of its socket and its messages.
    place: PathBuf,
}

impl Server {
    /// Starts it on mounted disks and waits until it has recovered.
    ///
    /// # Errors
    /// What it said when it ended instead.
    pub fn start(disks: &Disks, place: &Path) -> Result<Server, String> {
        fs::create_dir_all(place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
        // On a copy it names a process of the server that is copied.
        let _ = fs::remove_file(disks.root.join("data/pg/postmaster.pid"));
        let said = File::options().create(true).append(true).open(place.join("said")).unwrap();
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(disks.root.join("data/pg")).arg("-k").arg(place);
        postgres.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let (out, err) = (said.try_clone().unwrap(), said);
        let child = postgres.stdout(out).stderr(err).spawn().unwrap();
        let mut server = Server { child, place: place.to_owned() };
        let mut has_ended = false;
        until("the server has recovered", || {
            has_ended = server.child.try_wait().unwrap().is_some();
            has_ended || server.ask("select 1").is_ok()
        });
        match has_ended {
            false => Ok(server),
            true => Err(format!("PostgreSQL does not start: {}", server.said())),
        }
    }

    fn said(&self) -> String {
        let said = fs::read_to_string(self.place.join("said")).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Asks once; the answer's rows are lines, its columns are parted by `|`.
    pub fn ask(&self, question: &str) -> Result<String, String> {
        let mut psql = psql(&self.place);
        let output = psql.args(["-c", question]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Where clients find its socket.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Starts pgbench on it.
    pub fn pgbench(&self, args: &[&str]) -> Child {
        let mut pgbench = command("pgbench");
        pgbench.arg("-h").arg(&self.place).args(["-U", USER]).args(args).arg("postgres");
        pgbench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal);
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::SIGINT);
        let mut ended = None;
        until("the server has stopped", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert!(ended.unwrap().success(), "PostgreSQL: {}", self.said());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGQUIT);
            end(&mut self.child);
        }
    }
}

fn psql(server: &Path) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "postgres", "-h"]).arg(server);
    psql
}

/// A connection that asks again and again.
pub struct Session {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Session {
    /// Connects; that it could is known from the first answer.
    pub fn open(server: &Path) -> Session {
        let mut psql = psql(server);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = psql.spawn().expect("psql is installed");
        let asks = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Session { child, asks, answers }
    }

    /// The one number that answers; nothing when the connection is gone.
    pub fn ask(&mut self, question: &str) -> Option<u64> {
        writeln!(self.asks, "{question};").ok()?;
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        line.trim().parse().ok()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
