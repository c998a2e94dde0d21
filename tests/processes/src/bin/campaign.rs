//! The program behind `cargo xtask campaign`.

use std::process::ExitCode;

use clap::Parser;
use vgship_processes::campaign;

#[derive(Parser)]
#[command(name = "campaign")]
struct Command {
    #[command(flatten)]
    campaign: campaign::Args,
}

fn main() -> ExitCode {
    match campaign::run(&Command::parse().campaign) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
