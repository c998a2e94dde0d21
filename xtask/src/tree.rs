//! Where things lie, and how other programs are run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The root of the repository that this program was built from.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target folder: `CARGO_TARGET_DIR` when set, else `target` in the root.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A cargo command that runs in the root of the repository, with no standard input.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Builds the agent for release and gives the path of its program.
pub fn build_agent() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "vgship", "--bin", "vgship"]))?;
    Ok(target().join("release/vgship"))
}

/// Whether a program of that name stands in one of the folders of `PATH` or an `sbin` folder.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(name).is_file())
}

/// Runs a command to its end; its output goes where ours goes.
///
/// # Errors
/// When it cannot be started or does not end with 0, with the command line.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command to its end and gives what it printed on standard output.
///
/// # Errors
/// As [`run`], with the last of what it said on standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output: Output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let tail = said.char_indices().rev().nth(1500).map_or(said, |(at, _)| &said[at..]);
        bail!("{} ended with {}: {tail}", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {}", line(command)))
}

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    let program = command.get_program();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
