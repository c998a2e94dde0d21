//! `cargo xtask fuzz`: every target for a share of the time, with libFuzzer where there is a nightly
//! compiler, else with a search by dice.

mod dice;
mod libfuzzer;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tree;

/// Fuzz the parsers and cores: `tests/src/fuzz` has the targets, `tests/fuzz` corpus and programs
///
/// With a nightly compiler cargo-fuzz is used, and installed when it is missing. Without one, a
/// search by dice over the same corpus takes its place. Prints per target how many inputs were run
/// and which one failed; `docs/testing.md` says what is then to do.
#[derive(clap::Args)]
pub struct Args {
    /// Minutes for all targets together
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// This target alone (`--target help` lists them)
    #[arg(long)]
    target: Option<String>,
    /// Search by dice even where libFuzzer could be used
    #[arg(long)]
    dice: bool,
    /// Seed of the search by dice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Never install cargo-fuzz
    #[arg(long)]
    no_install: bool,
    /// Take what reached something new into the corpus of the repository, as far as it is small
    #[arg(long)]
    keep: bool,
}

/// What a corpus in the repository may take; `tests/tests/corpus.rs` checks it.
const FILES_MAX: usize = 40;
const FILE_BYTES_MAX: u64 = 4096;

/// What came of one target.
struct Outcome {
    executions: u64,
    corpus: usize,
    /// The input that failed, and the command that repeats it.
    crash: Option<(PathBuf, String)>,
}

/// Gives whether every target held.
pub fn run(args: &Args) -> Result<bool> {
    let known = targets()?;
    let chosen: Vec<&String> = match &args.target {
        None => known.iter().collect(),
        Some(name) => known.iter().filter(|target| *target == name).collect(),
    };
    if chosen.is_empty() {
        bail!("the targets are: {}", known.join(" "));
    }
    let missing = if args.dice { None } else { libfuzzer::missing(args.no_install) };
    if let Some(missing) = &missing {
        println!("missing: {missing}; a search by dice takes the place of libFuzzer");
    }
    let guided = !args.dice && missing.is_none();
    if guided {
        libfuzzer::build()?;
    } else {
        dice::build()?;
    }
    let seconds = share(args.minutes, chosen.len());
    let mut crashes = 0;
    for name in chosen {
        let done = match guided {
            true => libfuzzer::search(name, seconds, args.keep)?,
            false => dice::search(name, seconds, args.seed)?,
        };
        println!("{name}: {} executions, corpus {}", done.executions, done.corpus);
        if let Some((file, command)) = done.crash {
            crashes += 1;
            println!("  CRASH {}\n  repeat: {command}", file.display());
        }
    }
    println!("fuzz: {crashes} targets failed");
    Ok(crashes == 0)
}

/// Seconds for each of `count` targets, at least one.
fn share(minutes: f64, count: usize) -> u64 {
    let all = std::time::Duration::try_from_secs_f64(minutes.max(0.0) * 60.0).unwrap_or_default();
    (all.as_secs() / count.max(1) as u64).max(1)
}

fn folder() -> PathBuf {
    tree::root().join("tests/fuzz")
}

/// The targets by name: a program each.
fn targets() -> Result<Vec<String>> {
    let place = folder().join("targets");
    let mut names = Vec::new();
    for path in files(&place)? {
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// The files of a folder; none when it is not there.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// What repeats a failed input on the stable compiler.
fn repeat(name: &str, file: &Path) -> String {
    let mut command = Command::new("cargo");
    command.args(["run", "--package", "vgship-tests", "--bin", "fuzz", "--"]);
    command.args(["--target", name, "--repeat"]).arg(file);
    tree::line(&command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_and_never_nothing() {
        assert_eq!(share(10.0, 20), 30);
        assert_eq!(share(0.1, 20), 1);
        assert_eq!(share(-1.0, 0), 1);
        assert_eq!(share(f64::NAN, 1), 1);
    }

    #[test]
    fn the_targets_are_those_that_have_a_program() {
        let known = targets().expect("the folder is in the repository");
        assert!(known.iter().any(|name| name == "hello") && known.len() > 10, "{known:?}");
    }
}
