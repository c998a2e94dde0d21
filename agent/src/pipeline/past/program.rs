//! A program that somebody gave for an environment: its mask, a step, its teardown. What it says
//! goes into the environment's log.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const LOOK: Duration = Duration::from_millis(20);

/// How long to wait for the last words of a program that has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long what a program had started may take to end after it.
const AFTER_IT: Duration = Duration::from_millis(500);

/// How much of one program's output is kept. Unit: bytes.
const OUTPUT_MAX: u64 = 16 << 20;

/// How much of what the program said last is repeated. Unit: bytes.
const SAID_MAX: u64 = 2000;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum How {
    /// By itself.
    Ended(ExitStatus),
    /// It took too long and was killed, with what it had started.
    TooLong,
    /// The agent stops; it was killed.
    Stopping,
}

/// What a program came to.
#[derive(Clone, Debug)]
pub(in crate::pipeline) struct Ran {
    pub(in crate::pipeline) how: How,
    pub(in crate::pipeline) took: Duration,
    /// The end of what it said.
    pub(in crate::pipeline) said: String,
    /// Its process group.
    group: Pid,
}

impl Ran {
    pub(in crate::pipeline) fn is_good(&self) -> bool {
        matches!(self.how, How::Ended(status) if status.success())
    }

    /// How it ended, in words.
    pub(in crate::pipeline) fn ended(&self) -> String {
        match self.how {
            How::Ended(status) => status.to_string(),
            How::TooLong => "took too long and was killed".to_owned(),
            How::Stopping => "was ended because the agent stops".to_owned(),
        }
    }

    /// Whether something of its process group was still at work a moment after it had ended. That
    /// is killed.
    ///
    /// To be asked at once: a number of a group that is gone may be another's later.
    pub(super) fn left_work(&self) -> bool {
        let since = Instant::now();
        while killpg(self.group, None) != Err(Errno::ESRCH) {
            if since.elapsed() >= AFTER_IT {
                // What cannot be killed was left all the same.
                let _ = killpg(self.group, Signal::SIGKILL);
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    }
}

/// Runs a program in a process group of its own, for at most so long.
///
/// Shape: `title` stands in the log before what it says.
pub(in crate::pipeline) fn run(
    mut command: Command,
    title: &str,
    log: &Path,
    most: Duration,
    stopping: &AtomicBool,
) -> io::Result<Ran> {
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    writeln!(file, "== {title}")?;
    let from = file.metadata()?.len();
    let since = Instant::now();
    let (output, input) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).process_group(0);
    let mut child = command.spawn()?;
    let group = group_of(&child)?;
    drop(command); // with it our side of the output's beginning
    let heard = match listen(output, file.try_clone()?) {
        Ok(heard) => heard,
        Err(error) => {
            kill(&mut child)?;
            return Err(error);
        }
    };
    let how = wait(&mut child, since + most, stopping)?;
    // What it left at work may hold its output for ever.
    let _ = heard.recv_timeout(LAST_WORDS);
    let mut ran = Ran { how, took: since.elapsed(), said: String::new(), group };
    ran.said = said(log, from).unwrap_or_default();
    if ran.said.is_empty() {
        "it said nothing".clone_into(&mut ran.said);
    }
    let line = if ran.said.ends_with('\n') { "" } else { "\n" };
    writeln!(file, "{line}== {} after {:.1} s", ran.ended(), ran.took.as_secs_f64())?;
    Ok(ran)
}

/// One that ends while the agent stops proves nothing, whatever it says: the signal that stops the
/// agent may have ended it, too.
fn wait(child: &mut Child, until: Instant, stopping: &AtomicBool) -> io::Result<How> {
    loop {
        let ended = child.try_wait()?;
        // Looked at second, so that what ended because of it is seen as such.
        let stops = stopping.load(Ordering::SeqCst);
        match ended {
            Some(_) if stops => return Ok(How::Stopping),
            Some(status) => return Ok(How::Ended(status)),
            None => {}
        }
        if stops || Instant::now() >= until {
            kill(child)?;
            return Ok(if stops { How::Stopping } else { How::TooLong });
        }
        thread::sleep(LOOK);
    }
}

/// Kills a program with what it started, and reaps it.
fn kill(child: &mut Child) -> io::Result<()> {
    // Its group is gone already only if it has just ended.
    let _ = killpg(group_of(child)?, Signal::SIGKILL);
    child.wait().map(drop)
}

/// Each program leads a group of its own, which has its number.
fn group_of(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)
}

/// Writes what comes into the log, up to the limit; hears the rest, so that nobody waits.
fn listen(mut output: PipeReader, mut log: File) -> io::Result<Receiver<()>> {
    let (tell, heard) = channel();
    thread::Builder::new().name("program".to_owned()).spawn(move || {
        let mut some = [0; 8192];
        let (mut left, mut is_cut) = (OUTPUT_MAX, false);
        while let Ok(count @ 1..) = output.read(&mut some) {
            let part = left.min(count as u64);
            left -= part;
            let part = usize::try_from(part).expect("at most the buffer");
            // A log that cannot be written must not stop the program.
            let _ = log.write_all(&some[..part]);
            if part < count && !is_cut {
                is_cut = true;
                let _ = writeln!(log, "\n== what follows is not kept");
            }
        }
        let _ = tell.send(());
    })?;
    Ok(heard)
}

/// The end of what stands behind `from`.
fn said(log: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(SAID_MAX).max(from)))?;
    let mut text = Vec::new();
    file.take(SAID_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// The end of a log, and whether that is all of it. Unit: `most`, bytes.
pub(super) fn tail(log: &Path, most: u64) -> io::Result<(String, bool)> {
    let mut file = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((String::new(), true)),
        file => file?,
    };
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(most)))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok((String::from_utf8_lossy(&text).into_owned(), len <= most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_program_says_is_kept_with_how_it_ended() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let go = AtomicBool::new(false);
        let first = run(shell("echo one; echo two >&2"), "first", &log, LONG, &go).unwrap();
        assert!(first.is_good());
        let second = run(shell("printf three; exit 3"), "second", &log, LONG, &go).unwrap();
        assert!(!second.is_good());
        assert_eq!((second.said.as_str(), second.ended().as_str()), ("three", "exit status: 3"));
        let (text, whole) = tail(&log, 10_000).unwrap();
        assert!(whole && text.starts_with("== first\none\ntwo\n"), "{text}");
        assert!(text.contains("== second\nthree\n== exit status: 3 after"), "{text}");
        assert!(!tail(&log, 10).unwrap().1);
        assert_eq!(tail(&place.path().join("none"), 10).unwrap(), (String::new(), true));
        let third = run(shell("exit 0"), "third", &log, LONG, &go).unwrap();
        assert_eq!(third.said, "it said nothing");
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_what_it_started() {
        let place = tempfile::tempdir().unwrap();
        let (log, pid) = (place.path().join("log"), place.path().join("pid"));
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let (no, yes) = (AtomicBool::new(false), AtomicBool::new(true));
        let ran = run(shell("sleep 600"), "x", &log, LONG, &yes).unwrap();
        assert_eq!(ran.how, How::Stopping);
        let ran = run(shell(&script), "x", &log, Duration::from_secs(2), &no).unwrap();
        assert_eq!(ran.how, How::TooLong);
        let child: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let since = Instant::now();
        let is_gone = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !is_gone() {
            assert!(since.elapsed() < LONG, "what it started lives on");
            thread::sleep(LOOK);
        }
    }

    #[test]
    fn output_is_bounded_and_nobody_waits_for_it() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let go = AtomicBool::new(false);
        let much = format!("head -c {} /dev/zero | tr '\\0' x", OUTPUT_MAX + 100_000);
        assert!(run(shell(&much), "much", &log, LONG, &go).unwrap().is_good());
        let len = std::fs::metadata(&log).unwrap().len();
        assert!((OUTPUT_MAX..OUTPUT_MAX + 1000).contains(&len), "{len}");
        // One that leaves something at work is not waited for, and that is known and killed.
        let leaves = run(shell("sleep 600 & exit 0"), "leaves", &log, LONG, &go).unwrap();
        assert!(leaves.is_good() && leaves.took < LONG);
        assert!(leaves.left_work());
        assert!(!run(shell("exit 0"), "leaves nothing", &log, LONG, &go).unwrap().left_work());
    }

    #[test]
    fn one_that_ends_while_the_agent_stops_proves_nothing() {
        let mut child = shell("exit 0").spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let how = |child: &mut Child, stops| {
            wait(child, Instant::now() + LONG, &AtomicBool::new(stops)).unwrap()
        };
        assert!(matches!(how(&mut child, false), How::Ended(status) if status.success()));
        assert_eq!(how(&mut child, true), How::Stopping);
    }
}
