//! The guard as a process: how an agent starts and tells one, and what runs in it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use vgship_base::units::Tick;

use super::command::{Run, is_gone, kill_group, reap};
use super::{LOOK, Thawing, tick};
use crate::quiesce::guard::{Duty, Guard, Word};
use crate::quiesce::{Thaw, Tries};

/// The hidden command that is a guard.
pub const COMMAND: &str = "__thaw-watchdog";

/// What a guard answers when it has heard that a freeze is about to run.
const GUARDING: &str = "guarding";

/// How long a freeze that was killed may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// How long a guard that was told to end may take before nobody waits for it.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// This program, to be run as a guard; also when its file was replaced by a newer one.
pub fn own_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    match running.exists() {
        true => Ok(running.to_owned()),
        false => std::env::current_exe(),
    }
}

/// A guard, as its agent sees it.
#[derive(Debug)]
pub(super) struct Watch {
    child: Option<Child>,
    ear: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Watch {
    /// Starts one.
    pub(super) fn start(
        program: &Path,
        hold: Duration,
        thaw: &str,
        env: &[(&str, String)],
    ) -> io::Result<Watch> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg("--hold-ms").arg(hold.as_millis().to_string());
        command.arg(format!("--thaw={thaw}")).envs(env.iter().map(|(key, value)| (key, value)));
        // In a group of its own: what ends the agent's must not end it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let (ear, mouth) = (child.stdin.take(), child.stdout.take());
        let (tell, answers) = channel();
        let watch = Watch { child: Some(child), ear, answers };
        let mouth = BufReader::new(mouth.ok_or(io::ErrorKind::BrokenPipe)?);
        thread::Builder::new().name("guard".to_owned()).spawn(move || {
            mouth.lines().map_while(Result::ok).try_for_each(|line| tell.send(line).ok())
        })?;
        Ok(watch)
    }

    /// Tells it something. One that has ended is found by [`Watch::has_ended`].
    pub(super) fn tell(&mut self, word: Word) {
        if let Some(ear) = &mut self.ear {
            let _ = ear.write_all(format!("{}\n", word.line()).as_bytes());
        }
    }

    /// Tells it that a freeze is about to run, and waits until it has heard.
    pub(super) fn entrust(&mut self, process: i32, patience: Duration) -> io::Result<()> {
        self.tell(Word::Freezing(process));
        match self.answers.recv_timeout(patience) {
            Ok(line) if line == GUARDING => Ok(()),
            Ok(line) => Err(io::Error::other(format!("its guard says {line:?}"))),
            Err(_) => Err(io::Error::other("its guard does not answer")),
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Where the agent fails in the middle, its guard has something to do.
        if !thread::panicking() {
            self.tell(Word::Done);
        }
        self.ear = None;
        let until = Instant::now() + END_PATIENCE;
        while !self.has_ended() && Instant::now() < until {
            thread::sleep(LOOK);
        }
        if !self.has_ended()
            && let Some(child) = self.child.take()
        {
            reap(child);
        }
    }
}

/// What a guard does: reads words from stdin, and thaws when the agent does not.
///
/// # Errors
/// It had to thaw and could not.
pub fn watch(hold: Duration, thaw: &str) -> Result<(), String> {
    let since = Instant::now();
    // What ends an agent in good order ends all processes of its service; then this one is needed.
    let polite = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    let _ = polite.into_iter().collect::<SigSet>().thread_block();
    let (tell, words) = channel();
    thread::spawn(move || {
        let lines = io::stdin().lock().lines().map_while(Result::ok);
        lines.filter_map(|line| Word::read(&line)).try_for_each(|word| tell.send(word).ok())
    });
    let begun = Guard::new(Tick(0), u64::try_from(hold.as_millis()).unwrap_or(u64::MAX));
    match listen(begun, since, &words, || {
        let mut out = io::stdout();
        let _ = writeln!(out, "{GUARDING}").and_then(|()| out.flush());
    }) {
        Called::Nobody => Ok(()),
        Called::Behind(freeze) => step_in(freeze, thaw),
    }
}

/// What became of a guard's wait.
#[derive(Debug, PartialEq, Eq)]
enum Called {
    /// It is not needed.
    Nobody,
    /// It must thaw; behind a freeze that may still be at work, if there is one.
    Behind(Option<i32>),
}

/// Waits until there is something to do.
fn listen(mut guard: Guard, since: Instant, words: &Receiver<Word>, answer: impl Fn()) -> Called {
    let mut duty = guard.idle(tick(since));
    loop {
        let until = match duty {
            Duty::End => return Called::Nobody,
            Duty::Thaw(freeze) => return Called::Behind(freeze),
            Duty::Wait(until) => until,
        };
        let patience = Duration::from_millis(until.since(tick(since)));
        duty = match words.recv_timeout(patience) {
            Ok(word) => {
                let duty = guard.hear(tick(since), Some(word));
                if let (Word::Freezing(_), Duty::Wait(_)) = (word, duty) {
                    answer();
                }
                duty
            }
            Err(RecvTimeoutError::Timeout) => guard.idle(tick(since)),
            Err(RecvTimeoutError::Disconnected) => guard.hear(tick(since), None),
        };
    }
}

/// Ends a freeze that is still at work, and thaws behind it.
fn step_in(freeze: Option<i32>, thaw: &str) -> Result<(), String> {
    let is_over = || freeze.is_none_or(is_gone);
    if let Some(process) = freeze {
        kill_group(process);
        let since = Instant::now();
        while !is_over() && since.elapsed() < KILL_PATIENCE {
            thread::sleep(LOOK);
        }
    }
    let mut tries = Tries::default();
    loop {
        tries.begin();
        let was_over = is_over();
        let (ended, said) = Thawing::run_whole(Run::start(thaw, &[]));
        let pause = tries.pause();
        // Behind a freeze that cannot be killed it may have come too early.
        if ended != Thaw::Failed && (was_over || pause.is_none()) {
            let _ = writeln!(io::stderr(), "the agent did not thaw: its guard did; it {said}");
            return Ok(());
        }
        let Some(pause) = pause else {
            return Err(format!(
                "ALERT: APPLICATIONS MAY STILL BE FROZEN: the agent did not thaw, and its guard's \
                 thaw command {said}; thaw them by hand, at once: {thaw}"
            ));
        };
        thread::sleep(Duration::from_millis(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_found() {
        assert!(own_program().unwrap().exists());
    }

    #[test]
    fn silence_and_an_end_lead_to_a_thaw() {
        let guard = Guard::new(Tick(0), 50);
        let (tell, words) = channel();
        tell.send(Word::Freezing(77)).unwrap();
        let heard = std::cell::Cell::new(0);
        let answer = || heard.set(heard.get() + 1);
        assert_eq!(
            listen(guard, Instant::now(), &words, answer),
            Called::Behind(Some(77)),
            "it is late"
        );
        assert_eq!(heard.get(), 1);
        for word in [Word::Freezing(77), Word::Ended] {
            tell.send(word).unwrap();
        }
        drop(tell);
        let guard = Guard::new(Tick(0), 60_000);
        assert_eq!(
            listen(guard, Instant::now(), &words, || ()),
            Called::Behind(None),
            "the agent is dead"
        );
    }

    #[test]
    fn a_freeze_left_at_work_is_ended_before_the_thaw() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let freeze = format!("sleep 30; echo frozen >> {}", log.display());
        let mut left = Run::start(&freeze, &[]).unwrap();
        let process = left.process();
        // As the system does for the children of an agent that died.
        let reaper = thread::spawn(move || crate::quiesce::io::tests::ended(&mut left));
        let seen = format!("kill -s 0 -- -{process} 2> /dev/null && echo early || echo behind");
        step_in(Some(process), &format!("{{ {seen}; }} >> {}", log.display())).unwrap();
        assert!(!reaper.join().unwrap().success());
        // The system may take longer than is waited for to bury the freeze's processes, as under
        // load; then it is thawed until once surely behind them. None of them said anything more.
        let said = std::fs::read_to_string(log).unwrap();
        let (early, behind) = said.split_at(said.len().saturating_sub("behind\n".len()));
        assert_eq!(behind, "behind\n", "{said}");
        assert!(early.lines().all(|it| it == "early" || it == "behind"), "{said}");
    }
}
