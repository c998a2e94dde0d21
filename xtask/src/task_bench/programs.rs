//! The other programs, and files for them.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tree;

/// Waits until `ready` holds.
///
/// # Errors
/// When it does not within `limit`, saying what was awaited.
pub fn until(limit: Duration, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > limit {
            bail!("{what} did not come within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// An NBD server over one file; it ends with this value.
pub struct Nbdkit {
    child: Child,
    socket: PathBuf,
}

impl Nbdkit {
    /// Serves `file` at a socket beside it.
    pub fn serve(file: &Path) -> Result<Nbdkit> {
        let socket = file.with_extension("sock");
        remove(&socket)?;
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(&socket);
        let child = command.arg("file").arg(file).stdin(Stdio::null()).spawn()?;
        let server = Nbdkit { child, socket };
        until(Duration::from_secs(10), "nbdkit's socket", || server.socket.exists())?;
        Ok(server)
    }

    /// Where clients find it.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = remove(&self.socket);
    }
}

/// Makes a file of random bytes, all of it allocated, and waits until the disk has it.
pub fn random_file(path: &Path, bytes: u64) -> Result<()> {
    let source = File::open("/dev/urandom")?;
    let mut file = File::create(path).with_context(|| path.display().to_string())?;
    std::io::copy(&mut std::io::Read::take(source, bytes), &mut file)?;
    file.sync_all()?;
    Ok(())
}

/// Copies a file byte by byte and waits until the disk has it.
pub fn copy_file(from: &Path, to: &Path) -> Result<()> {
    std::io::copy(&mut File::open(from)?, &mut File::create(to)?)?;
    flush(to)
}

/// Makes a file of a quarter zeroes, a quarter random bytes, a quarter of the same again, and a
/// quarter of lines of text that differ, as a volume with some life behind it has.
pub fn mixed_file(path: &Path, bytes: u64) -> Result<()> {
    let quarter = bytes / 4;
    let mut file = File::create(path).with_context(|| path.display().to_string())?;
    let random = path.with_extension("random");
    random_file(&random, quarter)?;
    file.set_len(quarter)?;
    file.seek(SeekFrom::Start(quarter))?;
    for _ in 0..2 {
        std::io::copy(&mut File::open(&random)?, &mut file)?;
    }
    remove(&random)?;
    let mut out = BufWriter::new(file);
    let (mut written, mut line) = (0, 0_u64);
    while written < quarter {
        // A multiplication spreads the bits, so that no two lines share more than their words.
        let number = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let text = format!("INSERT INTO orders VALUES ({line}, 'open', {number}, {});\n", line / 7);
        let left = usize::try_from(quarter - written).unwrap_or(usize::MAX);
        let part = &text.as_bytes()[..text.len().min(left)];
        out.write_all(part)?;
        written += part.len() as u64;
        line += 1;
    }
    out.into_inner()?.sync_all()?;
    Ok(())
}

/// Runs a program to its end: how long it took, and its memory at its highest. Unit: seconds, bytes.
pub fn watched(command: &mut Command) -> Result<(f64, u64)> {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| tree::line(command))?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        if let Some(status) = child.try_wait()? {
            let took = started.elapsed().as_secs_f64();
            if !status.success() {
                bail!("{} ended with {status}", tree::line(command));
            }
            return Ok((took, peak));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the files of a folder take on the disk. Unit: bytes.
pub fn taken(folder: &Path) -> Result<u64> {
    let said = tree::output(Command::new("du").args(["-s", "-B1"]).arg(folder))?;
    let bytes = said.split_whitespace().next().and_then(|word| word.parse().ok());
    bytes.with_context(|| format!("du of {}", folder.display()))
}

/// Makes an empty sparse file.
pub fn sparse_file(path: &Path, bytes: u64) -> Result<()> {
    File::create(path)?.set_len(bytes)?;
    Ok(())
}

/// Waits until the disk has all of a file.
pub fn flush(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).with_context(|| path.display().to_string())
}

/// Waits until the disk has all that this machine wrote to it, so that no run pays for another.
pub fn settle(dir: &Path) -> Result<()> {
    tree::output(Command::new("sync").arg("-f").arg(dir)).map(|_| ())
}

/// Checks that two files hold the same.
pub fn same(one: &Path, other: &Path) -> Result<()> {
    tree::output(Command::new("cmp").arg(one).arg(other)).map(|_| ())
}

/// Removes a file or a folder, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let done =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Makes an empty folder in place of whatever was there.
pub fn fresh(path: &Path) -> Result<()> {
    remove(path)?;
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())
}
