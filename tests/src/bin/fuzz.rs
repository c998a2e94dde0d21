//! Fuzzes without libFuzzer, repeats an input, writes the seeds of the corpus:
//! `fuzz --target T --seconds N [--seed S]`, `fuzz --target T --repeat FILE`, `fuzz --write-seeds`,
//! `fuzz --list`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vgship_base::sim::Rng;
use vgship_tests::fuzz::allocs::Counting;
use vgship_tests::fuzz::{TARGETS, Target, corpus, find, mutate};

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Default)]
struct Args {
    target: Option<&'static Target>,
    seconds: u64,
    seed: u64,
    repeat: Option<PathBuf>,
    artifacts: PathBuf,
    write_seeds: bool,
    list: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
    let mut args = Args { artifacts: "target/fuzz/artifacts".into(), ..Args::default() };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--target" => {
                let name = value()?;
                args.target = Some(find(&name).with_context(|| format!("no target {name}"))?);
            }
            "--seconds" => args.seconds = value()?.parse().context("--seconds")?,
            "--seed" => args.seed = value()?.parse().context("--seed")?,
            "--repeat" => args.repeat = Some(value()?.into()),
            "--artifacts" => args.artifacts = value()?.into(),
            "--write-seeds" => args.write_seeds = true,
            "--list" => args.list = true,
            _ => bail!("{word}: see the head of tests/src/bin/fuzz.rs"),
        }
    }
    Ok(args)
}

fn main() -> Result<ExitCode> {
    let args = parse(std::env::args().skip(1))?;
    if args.list {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return Ok(ExitCode::SUCCESS);
    }
    if args.write_seeds {
        return write_seeds();
    }
    let target = args.target.context("--target T is needed; see --list")?;
    if let Some(path) = &args.repeat {
        target.check(&std::fs::read(path).with_context(|| path.display().to_string())?);
        println!("{} holds", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    search(target, args.seed, Duration::from_secs(args.seconds), &args.artifacts)
}

fn write_seeds() -> Result<ExitCode> {
    for target in &TARGETS {
        for seed in (target.seeds)() {
            corpus::save(&corpus::folder(target.name), &seed)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs mutated inputs until the time is over or one fails, which is then kept in a file.
fn search(target: &Target, seed: u64, time: Duration, artifacts: &Path) -> Result<ExitCode> {
    let files = corpus::load(&corpus::folder(target.name))?;
    let known: Vec<Vec<u8>> = files.into_iter().map(|(_, data)| data).collect();
    let (mut rng, begin) = (Rng::new(seed), Instant::now());
    let mut executions = 0_u64;
    while begin.elapsed() < time {
        let data = mutate::mutated(&mut rng, &known, target.longest);
        executions += 1;
        if catch_unwind(AssertUnwindSafe(|| target.check(&data))).is_err() {
            let path = corpus::save(&artifacts.join(target.name), &data)?;
            println!("executions {executions} corpus {} crash {}", known.len(), path.display());
            return Ok(ExitCode::FAILURE);
        }
    }
    println!("executions {executions} corpus {}", known.len());
    Ok(ExitCode::SUCCESS)
}
