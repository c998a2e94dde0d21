//! The search by dice: the program `fuzz` of the tests, on the stable compiler.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Outcome;
use crate::tree;

fn program() -> PathBuf {
    tree::target().join("debug/fuzz")
}

/// Builds the program, with assertions.
pub fn build() -> Result<()> {
    tree::run(tree::cargo().args(["build", "--package", "vgship-tests", "--bin", "fuzz"]))
}

/// Searches for some seconds.
pub fn search(name: &str, seconds: u64, seed: u64) -> Result<Outcome> {
    let mut command = Command::new(program());
    command.args(["--target", name, "--seconds", &seconds.to_string()]);
    command.args(["--seed", &seed.to_string(), "--artifacts"]);
    command.arg(tree::target().join("fuzz/artifacts"));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {}", tree::line(&command)))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = read(&said).with_context(|| format!("{name} ended with {}", output.status))?;
    let (executions, corpus, crash) = found;
    let crash = crash.map(|file| {
        let command = super::repeat(name, &file);
        (file, command)
    });
    Ok(Outcome { executions, corpus, crash })
}

/// Reads `executions N corpus N [crash FILE]`, the last line.
fn read(said: &str) -> Option<(u64, usize, Option<PathBuf>)> {
    let rest = said.lines().last()?.strip_prefix("executions ")?;
    let (executions, rest) = rest.split_once(" corpus ")?;
    let (corpus, crash) = match rest.split_once(" crash ") {
        Some((corpus, file)) => (corpus, Some(PathBuf::from(file))),
        None => (rest, None),
    };
    Some((executions.parse().ok()?, corpus.parse().ok()?, crash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_how_it_went() {
        assert_eq!(read("executions 12 corpus 3\n"), Some((12, 3, None)));
        let crashed = Some((1, 3, Some(PathBuf::from("a b/c"))));
        assert_eq!(read("noise\nexecutions 1 corpus 3 crash a b/c\n"), crashed);
        assert_eq!(read("thread panicked\n"), None);
    }
}
