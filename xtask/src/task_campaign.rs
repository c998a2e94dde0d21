//! `cargo xtask campaign`: faults against agents that run as processes.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{programs, tree};

/// Let faults come over agents as processes, and look at what their replicas hold
///
/// Each round is a pair of agents under a load: processes are killed and stopped, the link is cut
/// and made noisy, disks are filled, bytes of the journal changed. Programs that it calls are
/// installed first, as `cargo xtask test` does it. A failed round prints the command that repeats
/// it; the last lines are the sums.
#[derive(clap::Args)]
pub struct Args {
    /// Begin no round after so many minutes
    #[arg(long)]
    minutes: Option<f64>,
    /// How many rounds [default: 10, or as many as --minutes allows]
    #[arg(long)]
    rounds: Option<u64>,
    /// The dice
    #[arg(long)]
    seed: Option<u64>,
    /// The number of the first round (a failure names it)
    #[arg(long)]
    from: Option<u64>,
    /// What writes: stamps, fio, postgres, or several with commas [default: all, in turn]
    #[arg(long)]
    load: Option<String>,
    /// When the source answers its application: async or sync [default: async]
    #[arg(long)]
    mode: Option<String>,
    /// Use the build for development, not that for release
    #[arg(long)]
    dev: bool,
    /// Never install packages
    #[arg(long)]
    no_install: bool,
}

/// Gives whether nothing was lost.
pub fn run(args: &Args) -> Result<bool> {
    programs::provide(args.no_install);
    let given = [
        ("--minutes", args.minutes.map(|it| it.to_string())),
        ("--rounds", args.rounds.map(|it| it.to_string())),
        ("--seed", args.seed.map(|it| it.to_string())),
        ("--from", args.from.map(|it| it.to_string())),
        ("--load", args.load.clone()),
        ("--mode", args.mode.clone()),
    ];
    let mut words = Vec::new();
    for (name, value) in &given {
        words.extend(value.iter().flat_map(|value| [*name, value.as_str()]));
    }
    play(args.dev, &words)
}

/// Builds and plays a campaign.
pub fn play(dev: bool, words: &[&str]) -> Result<bool> {
    let mut build = tree::cargo();
    build.args(["build", "--quiet", "--package", "vgship", "--package", "vgship-processes"]);
    build.arg("--bins").args((!dev).then_some("--release"));
    tree::run(&mut build)?;
    let program = tree::target().join(if dev { "debug" } else { "release" }).join("campaign");
    // In a world of its own its mounts and all its processes end with it, whatever ends it.
    let alone = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let unshare = |word: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]).args(alone).arg(word);
        command
    };
    let mut probe = unshare("true");
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut campaign = if probe.status().is_ok_and(|status| status.success()) {
        let mut command = unshare("--");
        command.arg(program);
        command
    } else {
        println!("no namespaces can be had: an interrupted campaign leaves its processes");
        Command::new(program)
    };
    Ok(campaign.args(words).stdin(Stdio::null()).status()?.success())
}
