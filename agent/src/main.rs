//! The vgship program: joins the command line with the agent behind it.

use std::process::ExitCode;

use vgship::cli::Program;

fn main() -> ExitCode {
    vgship::cli::main(&Program::new(vgship::pipeline::start))
}
