//! Runs seeds of the simulation: `sim [--roles] --seeds N [--from S] [--threads T] [--require]` or
//! `sim [--roles] --seed S [--verbose]`. `--roles` runs the world in which roles change.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use vgship_tests::world::faults::Coverage;
use vgship_tests::{roles, world};

/// Seeds from which on every required path must have been reached.
const CAMPAIGN: u64 = 100_000;

struct Args {
    roles: bool,
    from: u64,
    seeds: u64,
    threads: u64,
    require: bool,
    verbose: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Args> {
    let (roles, require, verbose) = (false, false, false);
    let mut args = Args { roles, from: 0, seeds: 100, threads: 2, require, verbose };
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().with_context(|| format!("{word} needs a number"))?;
            text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--seed" => (args.from, args.seeds) = (number()?, 1),
            "--threads" => args.threads = number()?.max(1),
            "--roles" => args.roles = true,
            "--require" => args.require = true,
            "--verbose" => args.verbose = true,
            _ => bail!(
                "{word}: use --roles, --seeds N, --from S, --seed S, --threads T, --require, \
                 --verbose"
            ),
        }
    }
    args.require |= args.seeds >= CAMPAIGN;
    Ok(args)
}

/// What a thread found: seeds that failed with their texts, and what was met.
type Found = (Vec<(u64, String)>, Coverage);

fn work(args: &Args, next: &AtomicU64) -> Found {
    let (mut failed, mut coverage) = (Vec::new(), Coverage::default());
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= args.from + args.seeds {
            return (failed, coverage);
        }
        let run_seed = if args.roles { roles::run_seed } else { world::run_seed };
        match run_seed(seed, args.verbose) {
            Ok(found) => coverage.add(&found),
            Err(text) => {
                eprintln!("{text}"); // at once: a long run may be cut
                failed.push((seed, text));
            }
        }
    }
}

fn run(args: &Args) -> Found {
    let next = AtomicU64::new(args.from);
    let (mut failed, mut coverage) = (Vec::new(), Coverage::default());
    std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| work(args, &next));
        let threads: Vec<_> = (0..args.threads.min(args.seeds)).map(spawn).collect();
        for thread in threads {
            let (texts, found) = thread.join().expect("a seed that panics is caught");
            failed.extend(texts);
            coverage.add(&found);
        }
    });
    failed.sort();
    (failed, coverage)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = parse(std::env::args().skip(1))?;
    let since = Instant::now();
    let (failed, coverage) = run(&args);
    print!("{coverage}");
    let missing = match (args.require, args.roles) {
        (false, _) => Vec::new(),
        (true, true) => roles::paths::missing(&coverage),
        (true, false) => world::paths::missing(&coverage),
    };
    missing.iter().for_each(|path| println!("no seed reached: {path}"));
    failed.iter().for_each(|(_, text)| println!("{text}"));
    println!(
        "{} seeds from {} in {} s, {} failed, {} required paths not reached",
        args.seeds,
        args.from,
        since.elapsed().as_secs(),
        failed.len(),
        missing.len()
    );
    let held = failed.is_empty() && missing.is_empty();
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
