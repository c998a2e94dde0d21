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

/// Gives back what the kernel holds for a test, in reverse order, however the test ends.
#[derive(Default)]
pub struct Undo(Vec<(&'static str, Vec<String>)>);

impl Undo {
    pub fn later(&mut self, program: &'static str, args: &[&str]) {
        self.0.push((program, args.iter().map(|&arg| arg.to_owned()).collect()));
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for (program, args) in self.0.drain(..).rev() {
            let _ = Command::new(program).args(args).output();
        }
    }
}
