//! One entry for every habit of development: `cargo xtask <task>`, each with `--help`.

mod programs;
mod task_bench;
mod task_campaign;
mod task_fuzz;
mod task_images;
mod task_mutants;
mod task_sim;
mod task_test;
mod task_tidy;
mod task_vm;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The habits of development of vgship.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Test(task_test::Args),
    Bench(task_bench::Args),
    Sim(task_sim::Args),
    Campaign(task_campaign::Args),
    Fuzz(task_fuzz::Args),
    Tidy(task_tidy::Args),
    Images(task_images::Args),
    Mutants(task_mutants::Args),
    Vm(task_vm::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Test(args) => task_test::run(&args),
        Task::Bench(args) => task_bench::run(&args),
        Task::Sim(args) => task_sim::run(&args),
        Task::Campaign(args) => task_campaign::run(&args),
        Task::Fuzz(args) => task_fuzz::run(&args),
        Task::Tidy(args) => task_tidy::run(&args),
        Task::Images(args) => task_images::run(&args),
        Task::Mutants(args) => task_mutants::run(&args),
        Task::Vm(args) => task_vm::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
