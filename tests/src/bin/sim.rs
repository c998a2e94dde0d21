//! Runs seeds of the simulation: `sim --seeds N [--from S]` or `sim --seed S [--verbose]`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use vgship_tests::world::faults::Coverage;
use vgship_tests::world::run_seed;

struct Args {
    from: u64,
    seeds: u64,
    verbose: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Args> {
    let mut args = Args { from: 0, seeds: 100, verbose: false };
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().with_context(|| format!("{word} needs a number"))?;
            text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--seed" => (args.from, args.seeds) = (number()?, 1),
            "--verbose" => args.verbose = true,
            _ => bail!("{word}: use --seeds N, --from S, --seed S, --verbose"),
        }
    }
    Ok(args)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = parse(std::env::args().skip(1))?;
    let (mut coverage, mut failed) = (Coverage::default(), Vec::new());
    for seed in args.from..args.from + args.seeds {
        match run_seed(seed, args.verbose) {
            Ok(found) => coverage.add(&found),
            Err(text) => {
                println!("{text}");
                failed.push(seed);
            }
        }
    }
    print!("{coverage}");
    println!("{} seeds from {}, {} failed: {failed:?}", args.seeds, args.from, failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
