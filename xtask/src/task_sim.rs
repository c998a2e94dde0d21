//! `cargo xtask sim`: the seeded simulation, any number of seeds.

use anyhow::Result;

use crate::tree;

/// Run the simulation of both sides with torn writes, cut links and crashes
///
/// Every seed is one life of a group. A failure prints its seed and the command that repeats it.
#[derive(clap::Args)]
pub struct Args {
    /// Run the world in which roles change: switchover, failover, failback
    #[arg(long)]
    pub roles: bool,
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    pub seeds: u64,
    /// Run this one seed (a failure names it)
    #[arg(long)]
    pub seed: Option<u64>,
    /// The first of the seeds
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Seeds run at once
    #[arg(long, default_value_t = 2)]
    pub threads: u64,
    /// Tell every step
    #[arg(long)]
    pub verbose: bool,
    /// Fail when a rare path was not reached; always so from 100,000 seeds on
    #[arg(long)]
    pub require: bool,
}

/// Seeds from which on building for release pays: below it, the tests' own build is faster.
const RELEASE_PAYS: u64 = 20_000;

/// Gives whether all seeds held.
pub fn run(args: &Args) -> Result<bool> {
    let mut cargo = tree::cargo();
    cargo.args(["run", "--quiet", "--package", "vgship-tests", "--bin", "sim"]);
    if args.seed.is_none() && args.seeds >= RELEASE_PAYS {
        cargo.arg("--release");
    }
    cargo.arg("--");
    for (is, word) in
        [(args.roles, "--roles"), (args.verbose, "--verbose"), (args.require, "--require")]
    {
        if is {
            cargo.arg(word);
        }
    }
    match args.seed {
        Some(seed) => cargo.args(["--seed".to_owned(), seed.to_string()]),
        None => cargo
            .args(["--seeds".to_owned(), args.seeds.to_string()])
            .args(["--from".to_owned(), args.from.to_string()])
            .args(["--threads".to_owned(), args.threads.to_string()]),
    };
    Ok(cargo.status()?.success())
}
