//! `cargo xtask test`: every test of the workspace, the simulation, short campaigns of faults, then
//! one line of sums.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

use crate::{programs, task_campaign, task_sim, tree};

/// Run all tests, the simulation and short campaigns; the last line says `N passed, N failed`
///
/// Programs that the tests use are installed first from Debian packages, when this runs as root
/// and some are missing; otherwise one line says what is missing, and the rest runs.
#[derive(clap::Args)]
pub struct Args {
    /// Seeds of the simulation after the tests
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Never install packages
    #[arg(long)]
    no_install: bool,
}

/// Short campaigns: loads, and the minutes after which no further round begins.
const CAMPAIGNS: [(&str, &str); 2] = [("stamps,fio", "0.6"), ("postgres", "0.5")];

/// What a test run came to. A part that did not even run counts as one failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Gives whether everything passed.
pub fn run(args: &Args) -> Result<bool> {
    programs::provide(args.no_install);
    let mut sums = Sums::default();
    let mut nextest = tree::cargo();
    nextest.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if nextest.status().is_ok_and(|status| status.success()) {
        let mut all = tree::cargo();
        all.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"]);
        all.args(["--color", "never"]);
        sums.add(counted(&mut all, nextest_line)?);
        let mut docs = tree::cargo();
        docs.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
        sums.add(counted(&mut docs, libtest_line)?);
    } else {
        let mut all = tree::cargo();
        all.args(["test", "--workspace", "--no-fail-fast"]);
        sums.add(counted(&mut all, libtest_line)?);
    }
    for roles in [false, true] {
        let (seeds, require, verbose) = (args.seeds, false, false);
        let (seed, from, threads) = (None, 0, 2);
        let held =
            task_sim::run(&task_sim::Args { roles, seeds, seed, from, threads, verbose, require })?;
        let what = if roles { "simulation of roles" } else { "simulation" };
        println!("{what}, {seeds} seeds: {}", if held { "held" } else { "FAILED" });
        sums.add(Sums { passed: u64::from(held), failed: u64::from(!held), skipped: 0 });
    }
    for (loads, minutes) in CAMPAIGNS {
        let words = ["--rounds", "3", "--minutes", minutes, "--load", loads, "--seed", "3"];
        let held = task_campaign::play(true, &words)?;
        println!("campaign, {loads}: {}", if held { "held" } else { "FAILED" });
        sums.add(Sums { passed: u64::from(held), failed: u64::from(!held), skipped: 0 });
    }
    println!("{sums}");
    Ok(sums.failed == 0)
}

/// Runs a command, passes on all it prints, and adds up what `read` finds in its lines.
fn counted(command: &mut Command, read: fn(&str) -> Option<Sums>) -> Result<Sums> {
    println!("$ {}", tree::line(command));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", tree::line(command)))?;
    let (lines, arrived) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as _),
        child.stderr.take().map(|err| Box::new(err) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let lines = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
    }
    drop(lines);
    let mut sums = Sums::default();
    for line in arrived {
        println!("{line}");
        if let Some(found) = read(&line) {
            sums.add(found);
        }
    }
    std::io::stdout().flush()?;
    let status = child.wait()?;
    if !status.success() && sums.failed == 0 {
        sums.failed = 1; // it did not compile, or was ended from outside
    }
    Ok(sums)
}

/// Reads `Summary [ 1.2s] 9/10 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 3 skipped`.
fn nextest_line(line: &str) -> Option<Sums> {
    let (_, rest) = line.split_once("Summary [")?;
    let (_, rest) = rest.split_once(" run: ")?;
    let mut plain = String::new();
    let mut depth = 0_u32;
    for letter in rest.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    sum_of(plain.split(','))
}

/// Reads `test result: FAILED. 7 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; ...`.
fn libtest_line(line: &str) -> Option<Sums> {
    let (_, rest) = line.split_once("test result: ")?;
    let (_, rest) = rest.split_once(". ")?;
    sum_of(rest.split(';'))
}

fn sum_of<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Sums> {
    let mut sums = Sums::default();
    let mut found = false;
    for part in parts {
        let Some((count, what)) = part.trim().split_once(' ') else { continue };
        let Ok(count) = count.parse::<u64>() else { continue };
        match what.trim() {
            "passed" => sums.passed += count,
            "failed" | "exec failed" | "timed out" => sums.failed += count,
            "skipped" | "ignored" => sums.skipped += count,
            _ => continue,
        }
        found = true;
    }
    found.then_some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(passed: u64, failed: u64, skipped: u64) -> Sums {
        Sums { passed, failed, skipped }
    }

    #[test]
    fn reads_the_summary_of_nextest() {
        let plain = "     Summary [   0.005s] 8 tests run: 8 passed, 0 skipped";
        assert_eq!(nextest_line(plain), Some(sums(8, 0, 0)));
        let one = "     Summary [   0.005s] 1 test run: 1 passed (1 slow, 1 leaky), 3 skipped";
        assert_eq!(nextest_line(one), Some(sums(1, 0, 3)));
        let bad = "     Summary [ 120.1s] 9/12 tests run: 5 passed (1 flaky), 2 failed, \
                   1 exec failed, 1 timed out, 3 skipped";
        assert_eq!(nextest_line(bad), Some(sums(5, 4, 3)));
        assert_eq!(nextest_line("        PASS [   0.003s] a::b 1 passed"), None);
    }

    #[test]
    fn reads_the_summary_of_libtest() {
        let line = "test result: FAILED. 7 passed; 1 failed; 2 ignored; 0 measured; 4 filtered \
                    out; finished in 0.00s";
        assert_eq!(libtest_line(line), Some(sums(7, 1, 2)));
        assert_eq!(libtest_line("running 3 tests"), None);
    }

    #[test]
    fn a_part_that_ends_badly_without_a_summary_is_one_failure() {
        let sums = counted(Command::new("sh").args(["-c", "echo broken; exit 101"]), nextest_line);
        assert_eq!(sums.expect("sh runs"), Sums { failed: 1, ..Sums::default() });
    }

    #[test]
    fn the_last_line_names_skipped_tests_only_when_there_are_some() {
        assert_eq!(Sums { passed: 2, failed: 0, skipped: 0 }.to_string(), "2 passed, 0 failed");
        let some = Sums { passed: 2, failed: 1, skipped: 4 };
        assert_eq!(some.to_string(), "2 passed, 1 failed, 4 skipped");
    }
}
