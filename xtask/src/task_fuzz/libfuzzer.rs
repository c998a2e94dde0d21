//! The guided search: cargo-fuzz and libFuzzer, which need a nightly compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{FILE_BYTES_MAX, FILES_MAX, Outcome, files, folder};
use crate::tree;

/// What of this machine keeps libFuzzer from being used, if anything does. Installs cargo-fuzz.
pub fn missing(no_install: bool) -> Option<String> {
    let works = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works(&["+nightly", "--version"]) {
        return Some("a nightly compiler (rustup toolchain install nightly)".to_owned());
    }
    if works(&["fuzz", "--version"]) {
        return None;
    }
    if !no_install {
        println!("installing cargo-fuzz");
        let mut install = Command::new("cargo");
        install.args(["install", "--locked", "cargo-fuzz"]);
        if tree::run(install.stdin(Stdio::null())).is_ok() {
            return None;
        }
    }
    Some("cargo-fuzz (cargo install cargo-fuzz)".to_owned())
}

fn target_folder() -> PathBuf {
    tree::target().join("fuzz")
}

/// Builds all programs. Without a sanitizer: the code is safe Rust, and runs twice as fast.
pub fn build() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "fuzz", "build", "--sanitizer", "none", "--fuzz-dir"]);
    cargo.arg(folder()).arg("--target-dir").arg(target_folder());
    tree::run(cargo.current_dir(tree::root()).stdin(Stdio::null()))
}

fn program(name: &str) -> Result<PathBuf> {
    let said = tree::output(Command::new("rustc").args(["+nightly", "--version", "--verbose"]))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    Ok(target_folder().join(host).join("release").join(name))
}

/// Searches for some seconds, from the corpus of the repository and what earlier searches found.
pub fn search(name: &str, seconds: u64, keep: bool) -> Result<Outcome> {
    let [found, artifacts] =
        ["corpus", "artifacts"].map(|kind| target_folder().join(kind).join(name));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let kept = folder().join("corpus").join(name);
    let before = files(&artifacts)?;
    let mut command = Command::new(program(name)?);
    command.arg(&found).arg(&kept).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    command.arg(format!("-max_len={FILE_BYTES_MAX}"));
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {}", tree::line(&command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let crash = if output.status.success() {
        None
    } else {
        print!("{}", panic_in(&said));
        let new = files(&artifacts)?.into_iter().find(|file| !before.contains(file));
        let file = new.with_context(|| format!("{name} ended with {}", output.status))?;
        let command = super::repeat(name, &file);
        Some((file, command))
    };
    if keep {
        merge(name, &kept, &found)?;
    }
    let corpus = files(&found)?.len() + files(&kept)?.len();
    Ok(Outcome { executions: executions(&said).unwrap_or(0), corpus, crash })
}

/// Reads `stat::number_of_executed_units: N`.
fn executions(said: &str) -> Option<u64> {
    let line =
        said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

/// The panic's message: all lines from `panicked at` to the backtrace.
fn panic_in(said: &str) -> String {
    let lines = said.lines().skip_while(|line| !line.contains("panicked at"));
    let lines = lines.take_while(|line| !line.starts_with("note:") && !line.contains("=="));
    lines.take(12).flat_map(|line| ["  ", line, "\n"]).collect()
}

/// Takes of what was found what reaches something that the kept files do not, smallest first.
fn merge(name: &str, kept: &Path, found: &Path) -> Result<()> {
    let fresh = target_folder().join("fresh").join(name);
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    for file in files(kept)? {
        fs::copy(&file, fresh.join(file.file_name().context("a file has a name")?))?;
    }
    let mut merge = Command::new(program(name)?);
    merge.arg("-merge=1").arg(format!("-max_len={FILE_BYTES_MAX}")).arg(&fresh).arg(found);
    tree::output(&mut merge)?;
    let mut sized = Vec::new();
    for file in files(&fresh)? {
        let target = kept.join(file.file_name().context("a file has a name")?);
        if !target.exists() {
            sized.push((fs::metadata(&file)?.len(), file, target));
        }
    }
    sized.sort();
    let room = FILES_MAX.saturating_sub(files(kept)?.len());
    for (_, file, target) in sized.into_iter().take(room) {
        fs::copy(file, target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_statistics_say_how_many_inputs_were_run() {
        let said = "#2\tINITED\nstat::number_of_executed_units: 88437\nstat::new_units_added: 1\n";
        assert_eq!(executions(said), Some(88_437));
        assert_eq!(executions("ERROR: no interesting inputs"), None);
    }

    #[test]
    fn a_panic_is_shown_without_what_surrounds_it() {
        let said = "INFO: Seed: 1\nthread 'main' panicked at a.rs:1:2:\nlost\nnote: run with\n";
        assert_eq!(panic_in(said), "  thread 'main' panicked at a.rs:1:2:\n  lost\n");
        assert_eq!(panic_in("INFO: Seed: 1\n"), "");
    }
}
