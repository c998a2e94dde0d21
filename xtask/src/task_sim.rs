//! `cargo xtask sim`: the seeded simulation, any number of seeds.

use anyhow::Result;

use crate::tree;

/// Run the simulation of both sides with torn writes, cut links and crashes
///
/// Every seed is one life of a group. A failure prints its seed and the command that repeats it.
#[derive(clap::Args)]
pub struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    pub seeds: u64,
    /// Run this seed alone (a failure names it)
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Gives whether all seeds held.
pub fn run(args: &Args) -> Result<bool> {
    let mut cargo = tree::cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "vgship-tests", "--bin", "sim", "--"]);
    cargo.arg("--seeds").arg(args.seeds.to_string());
    if let Some(seed) = args.seed {
        cargo.arg("--seed").arg(seed.to_string());
    }
    Ok(cargo.status()?.success())
}
