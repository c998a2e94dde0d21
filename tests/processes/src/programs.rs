//! Programs that tests call.

use std::io::ErrorKind;
use std::process::{Child, Command, Stdio};

/// Starts a program, or says which Debian package has it.
pub fn start(package: &str, program: &str, args: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{program} is missing: install the Debian package {package}")
        }
        Err(error) => panic!("cannot start {program}: {error}"),
    }
}

/// Runs a program to its good end and gives what it printed.
#[track_caller]
pub fn run(package: &str, program: &str, args: &[&str]) -> String {
    let output = start(package, program, args).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{said}{errors}", output.status);
    said
}
