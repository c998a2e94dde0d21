//! The vgship program: joins the command line with the parts behind it.

use std::process::ExitCode;

fn main() -> ExitCode {
    vgship::cli::main(&vgship::pipeline::Program)
}
