//! Runs tests with one mutant on, until the first that notices it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::copy::Built;

/// Memory of one test program: a mutant that never stops taking more ends there. Unit: KiB.
const MEMORY: u64 = 3 << 20;

/// Unit tests that judge: those of the cores, without those of their shells.
const STAGES: [&str; 6] = ["capture", "outbox", "ship", "receive", "apply", "segment"];
const SHELLS: [&str; 2] = ["::nbd::", "::io::"];

/// What the list calls the simulation.
const SEEDS: &str = "seeds";

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This test noticed it.
    Killed(String),
    /// This step did not end with it.
    TimedOut(String),
    /// Nothing did.
    Survived,
}

/// One program with its arguments, as one step of the judgement.
#[derive(Clone)]
struct Step {
    name: String,
    program: PathBuf,
    words: Vec<String>,
    limit: Duration,
}

/// The tests that judge.
pub struct Court {
    unit: PathBuf,
    scenarios: Vec<(String, PathBuf)>,
    sim: PathBuf,
    seeds: u64,
    folder: PathBuf,
    /// How long the whole suite takes without a mutant.
    slowest: Duration,
}

impl Court {
    /// Of the programs that were built; `folder` is where they run.
    ///
    /// # Errors
    /// When one is missing.
    pub fn new(built: Vec<Built>, seeds: u64, folder: &Path) -> Result<Court> {
        let (mut unit, mut sim, mut scenarios) = (None, None, Vec::new());
        for Built { name, path } in built {
            match name.as_str() {
                "vgship lib" => unit = Some(path),
                "sim" => sim = Some(path),
                _ => scenarios.push((name, path)),
            }
        }
        let unit = unit.context("cargo built no unit tests")?;
        let sim = sim.context("cargo built no simulation")?;
        let slowest = Duration::from_secs(200);
        Ok(Court { unit, scenarios, sim, seeds, folder: folder.to_path_buf(), slowest })
    }

    /// Runs everything without a mutant and notes how long it takes.
    ///
    /// # Errors
    /// When something fails all the same.
    pub fn swear_in(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        for step in self.steps("") {
            let outcome = self.run(0, &step)?;
            anyhow::ensure!(outcome == Outcome::Survived, "without a mutant: {outcome:?}");
        }
        self.slowest = begin.elapsed();
        Ok(self.slowest)
    }

    /// Everything, the tests of the mutant's own stage first.
    pub fn judge(&self, number: u32, stage: &str) -> Result<Outcome> {
        for step in self.steps(stage) {
            let outcome = self.run(number, &step)?;
            if outcome != Outcome::Survived {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Survived)
    }

    /// The tests of these names alone; which of them do not notice.
    pub fn judge_by(&self, number: u32, tests: &[String]) -> Result<Vec<String>> {
        let mut blind = Vec::new();
        for test in tests {
            let mut found =
                test == SEEDS && self.run(number, &self.sim_step())? != Outcome::Survived;
            for (program, name) in self.programs_of(test) {
                let words = vec![name.to_owned(), "--exact".to_owned()];
                let step = self.step(test, program, words);
                found |= self.run(number, &step)? != Outcome::Survived;
            }
            if !found {
                blind.push(test.clone());
            }
        }
        Ok(blind)
    }

    /// Whether there is a test of this name.
    pub fn has(&self, test: &str) -> Result<bool> {
        if test == SEEDS {
            return Ok(true);
        }
        for (program, name) in self.programs_of(test) {
            let mut list = Command::new(program);
            list.args(["--list", "--exact", name]);
            if crate::tree::output(&mut list)?.lines().any(|line| line == format!("{name}: test")) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn programs_of<'a>(&'a self, test: &'a str) -> Vec<(&'a Path, &'a str)> {
        if test == SEEDS {
            return Vec::new();
        }
        if test.contains("::") {
            return vec![(&self.unit, test)];
        }
        self.scenarios.iter().map(|(_, path)| (&**path, test)).collect()
    }

    fn steps(&self, stage: &str) -> Vec<Step> {
        let of = |stages: &[&str]| -> Vec<String> {
            let mut words: Vec<String> = stages.iter().map(|it| format!("{it}::")).collect();
            SHELLS.iter().for_each(|shell| words.extend(["--skip".into(), (*shell).into()]));
            words
        };
        let (own, others): (Vec<&str>, Vec<&str>) = STAGES.iter().partition(|it| **it == stage);
        let mut steps = Vec::new();
        if !own.is_empty() {
            steps.push(self.step("unit tests", &self.unit, of(&own)));
        }
        for (name, program) in &self.scenarios {
            steps.push(self.step(name, program, Vec::new()));
        }
        steps.push(self.step("other unit tests", &self.unit, of(&others)));
        steps.push(self.sim_step());
        steps
    }

    fn sim_step(&self) -> Step {
        let words = vec!["--seeds".to_owned(), self.seeds.to_string()];
        Step { words, ..self.step(SEEDS, &self.sim, Vec::new()) }
    }

    fn step(&self, name: &str, program: &Path, mut words: Vec<String>) -> Step {
        words.push("--test-threads=1".to_owned());
        let limit = Duration::from_secs(20) + 4 * self.slowest;
        Step { name: name.to_owned(), program: program.to_path_buf(), words, limit }
    }

    /// Runs one step up to its first failure.
    fn run(&self, number: u32, step: &Step) -> Result<Outcome> {
        let limited = format!("ulimit -v {MEMORY}; exec \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &limited, "sh"])
            .arg(&step.program)
            .args(&step.words)
            .current_dir(&self.folder)
            .env("VGSHIP_MUTANT", number.to_string())
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| step.program.display().to_string())?;
        let seen = watch(&mut child, step.limit);
        if seen != Seen::Ended {
            child.kill().context("cannot end a test")?;
        }
        let status = child.wait()?;
        Ok(match seen {
            Seen::Failed(test) => Outcome::Killed(test),
            Seen::Late => Outcome::TimedOut(step.name.clone()),
            Seen::Ended if status.success() => Outcome::Survived,
            Seen::Ended => Outcome::Killed(format!("{} ({status})", step.name)),
        })
    }
}

#[derive(PartialEq, Eq)]
enum Seen {
    Failed(String),
    Late,
    Ended,
}

/// Reads what a test program prints, up to its first failure, its end, or the limit.
fn watch(child: &mut Child, limit: Duration) -> Seen {
    let deadline = Instant::now() + limit;
    let (lines, arrived) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
    }
    loop {
        match arrived.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(test) = failed(&line) {
                    return Seen::Failed(test);
                }
            }
            Err(RecvTimeoutError::Timeout) => return Seen::Late,
            Err(RecvTimeoutError::Disconnected) => return Seen::Ended,
        }
    }
}

/// The test that a line says has failed.
fn failed(line: &str) -> Option<String> {
    if let Some(test) = line.strip_suffix(" ... FAILED") {
        return Some(test.strip_prefix("test ").unwrap_or(test).to_owned());
    }
    let rest = line.strip_prefix("seed ")?;
    let (seed, rest) = rest.split_once(' ')?;
    rest.starts_with("failed").then(|| format!("seed {seed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_read_from_what_programs_print() {
        assert_eq!(failed("test a::b ... FAILED").as_deref(), Some("a::b"));
        assert_eq!(failed("test a::b ... ok"), None);
        let seed = "seed 17 failed; repeat it with: cargo run";
        assert_eq!(failed(seed).as_deref(), Some("seed 17"));
        assert_eq!(failed("300 seeds from 0, 1 failed: [17]"), None);
    }

    fn court() -> Court {
        Court {
            unit: "sh".into(),
            scenarios: Vec::new(),
            sim: "sh".into(),
            seeds: 1,
            folder: ".".into(),
            slowest: Duration::ZERO,
        }
    }

    fn said(script: &str, limit: Duration) -> Outcome {
        let words = vec!["-c".to_owned(), script.to_owned()];
        let step = Step { name: "step".to_owned(), program: "sh".into(), words, limit };
        court().run(3, &step).expect("sh runs")
    }

    #[test]
    fn a_failure_a_bad_end_and_a_hang_are_told_apart() {
        let long = Duration::from_mins(1);
        assert_eq!(said("test $VGSHIP_MUTANT = 3", long), Outcome::Survived);
        let killed = said("echo 'test x ... FAILED'; exec sleep 600", long);
        assert_eq!(killed, Outcome::Killed("x".to_owned()), "at once");
        assert!(matches!(said("exit 3", long), Outcome::Killed(how) if how.contains('3')));
        let hangs = said("exec sleep 600", Duration::from_millis(1));
        assert_eq!(hangs, Outcome::TimedOut("step".to_owned()));
    }
}
