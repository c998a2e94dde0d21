//! `cargo xtask mutants`: how many small changes of the cores the tests notice.

mod copy;
mod find;
mod judge;
mod list;
mod place;
mod report;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::tree;
use copy::Copy;
use judge::{Court, Outcome};
use list::List;
use place::Mutant;
use report::{Judged, Watched};

/// Change the cores in many small ways, one at a time, and count how many changes the tests notice
///
/// All changes are written into one copy of the tree, behind a switch, and built once. Then the
/// unit tests of the cores, the scenarios and some seeds of the simulation run with one switch on
/// at a time, up to the first failure. Guards that `xtask/mutants.toml` lists are taken out as
/// well; each must be noticed by the tests that the list names.
#[derive(clap::Args)]
pub struct Args {
    /// Judge only so many, chosen by the seed
    #[arg(long)]
    sample: Option<usize>,
    /// Of the choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only files whose path has this in it
    #[arg(long)]
    file: Option<String>,
    /// Only mutants whose name has this in it
    #[arg(long)]
    only: Option<String>,
    /// Only the guards of the list
    #[arg(long)]
    guards: bool,
    /// Print the mutants instead of judging them
    #[arg(long)]
    list: bool,
    /// Fail when fewer parts of a hundred are noticed
    #[arg(long, default_value_t = 90)]
    least: usize,
    /// Mutants judged at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Seeds of the simulation
    #[arg(long, default_value_t = 300)]
    seeds: u64,
}

/// Where the cores lie.
const SOURCES: &str = "agent/src/";

/// Where the snapshot store lies: of it guards alone are taken out.
const SNAPSHOT: &str = "snapshot/src/";

/// What decides on a replica's past, the same.
const PAST: &str = "agent/src/history/keeping";

/// What decides on roles, the same.
const ROLE: &str = "agent/src/role/";

/// The cores: all files below these, without shells, tests and what only shows.
const CORES: [&str; 12] = [
    "capture/source",
    "capture/activity",
    "capture/versions",
    "capture/locks",
    "capture/ledger",
    "outbox/queue",
    "ship/",
    "receive/admit",
    "receive/journal",
    "receive/room",
    "apply/",
    "segment/",
];

/// Test binaries of `vgship-tests` that judge.
const SCENARIOS: [&str; 6] =
    ["rules", "rules_sync", "rules_snapshots", "bug_classes", "lag", "roles"];

/// Gives whether enough was noticed, and every guard by the tests that the list names.
pub fn run(args: &Args) -> Result<bool> {
    let list = tree::root().join("xtask/mutants.toml");
    let list = list::parse(&std::fs::read_to_string(&list).context("xtask/mutants.toml")?)?;
    let (mutants, guards) = all(&list)?;
    let chosen = choose(args, &list, &mutants)?;
    let wanted: Vec<usize> = (0..guards).filter(|&at| wants_guard(args, &mutants[at])).collect();
    if args.list {
        wanted.iter().chain(&chosen).for_each(|&at| println!("{}", mutants[at].name));
        println!("{} guards, {} mutants", wanted.len(), chosen.len());
        return Ok(true);
    }
    let begin = Instant::now();
    println!("building a copy with {} mutants", mutants.len());
    let copy = Copy::make()?;
    let scenarios = SCENARIOS.map(str::to_owned);
    let (left_out, built) = copy.build(&mutants, &scenarios)?;
    println!("built in {} s; {} do not compile", begin.elapsed().as_secs(), left_out.len());
    let folder = tempfile::tempdir().context("a folder for the tests")?;
    let mut court = Court::new(built, args.seeds, folder.path())?;
    let whole = court.swear_in()?;
    println!("the suite passes without a mutant, in {} s", whole.as_secs());

    let watched = judge_guards(&court, args.jobs, &list, &mutants, &wanted, &left_out)?;
    let compiles = |at: &usize| !left_out.contains(&number(*at));
    let chosen: Vec<usize> = chosen.into_iter().filter(compiles).collect();
    let judged = in_parallel(args.jobs, &chosen, |at| {
        let mutant = &mutants[at];
        let stage = report::short(&mutant.file).split('/').next().unwrap_or_default();
        let outcome = court.judge(number(at), stage)?;
        println!("{}: {outcome:?}", mutant.name);
        Ok(Judged { mutant, outcome })
    })?;
    print!("{}", report::guards(&watched));
    print!("{}", report::table(&judged));
    let percent = report::percent(&judged);
    println!(
        "{percent} % noticed, at least {} wanted; {} s",
        args.least,
        begin.elapsed().as_secs()
    );
    Ok(percent >= args.least && watched.iter().all(|it| it.else_.is_none()))
}

/// The number that turns a mutant on.
fn number(at: usize) -> u32 {
    u32::try_from(at + 1).expect("fewer mutants than numbers")
}

/// All mutants: those of the list's guards first, and how many those are.
fn all(list: &List) -> Result<(Vec<Mutant>, usize)> {
    let mut git = std::process::Command::new("git");
    let listed = ["ls-files", "--cached", "--others", "--exclude-standard", SOURCES, SNAPSHOT];
    let files = tree::output(git.current_dir(tree::root()).args(listed))?;
    let mut cores = Vec::new();
    for file in files.lines().filter(|file| is_core(file) || is_guarded(file)) {
        let path = tree::root().join(file);
        if path.is_file() {
            let text = std::fs::read_to_string(path).context(file.to_owned())?;
            cores.push((file.to_owned(), text));
        }
    }
    let guards: Result<Vec<Mutant>> = list.guard.iter().map(|guard| guard.mutant(&cores)).collect();
    let mut mutants = guards?;
    let guards = mutants.len();
    for (file, text) in cores.iter().filter(|(file, _)| is_core(file)) {
        mutants.extend(find::find(file, report::short(file), text)?);
    }
    Ok((mutants, guards))
}

fn is_core(file: &str) -> bool {
    let inside = file.strip_prefix(SOURCES);
    inside.is_some_and(|inside| CORES.iter().any(|core| inside.starts_with(core)))
        && is_no_shell(file)
}

/// Whether guards stand there, though it is no core.
fn is_guarded(file: &str) -> bool {
    [SNAPSHOT, PAST, ROLE].iter().any(|it| file.starts_with(it)) && is_no_shell(file)
}

fn is_no_shell(file: &str) -> bool {
    let mut parts = file.split('/');
    let shell_or_test = |part: &str| {
        ["io", "io.rs", "tests", "sweep.rs"].contains(&part) || part.ends_with("tests.rs")
    };
    let apart = parts.any(shell_or_test);
    let is_source = std::path::Path::new(file).extension().is_some_and(|end| end == "rs");
    is_source && !apart
}

fn wants_guard(args: &Args, guard: &Mutant) -> bool {
    let has = |what: &Option<String>, text: &str| what.as_ref().is_none_or(|it| text.contains(it));
    has(&args.file, &guard.file) && has(&args.only, &guard.name)
}

/// The generated mutants to judge, by their places; every entry of equivalents must still mean one.
fn choose(args: &Args, list: &List, mutants: &[Mutant]) -> Result<Vec<usize>> {
    let generated = list.guard.len()..mutants.len();
    for entry in &list.equivalent {
        let means = generated.clone().any(|at| entry.means(&mutants[at]));
        ensure!(means, "xtask/mutants.toml: no mutant is `{}` in `{}`", entry.change, entry.line);
    }
    if args.guards {
        return Ok(Vec::new());
    }
    let counts = |at: &usize| {
        wants_guard(args, &mutants[*at])
            && !list.equivalent.iter().any(|it| it.means(&mutants[*at]))
    };
    let mut chosen: Vec<usize> = generated.filter(counts).collect();
    if let Some(sample) = args.sample {
        chosen.sort_by_key(|&at| hash(args.seed, &mutants[at].name));
        chosen.truncate(sample);
        chosen.sort_unstable();
    }
    Ok(chosen)
}

/// FNV-1a: equal for equal seeds and names, on every machine.
fn hash(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_be_bytes().into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn judge_guards<'a>(
    court: &Court,
    jobs: usize,
    list: &'a List,
    mutants: &[Mutant],
    wanted: &[usize],
    left_out: &BTreeSet<u32>,
) -> Result<Vec<Watched<'a>>> {
    for &at in wanted {
        let guard = &list.guard[at];
        ensure!(!left_out.contains(&number(at)), "{}: does not compile", guard.name);
        for test in &guard.killers {
            ensure!(court.has(test)?, "{}: there is no test {test}", guard.name);
        }
    }
    in_parallel(jobs, wanted, |at| {
        let guard = &list.guard[at];
        let blind = court.judge_by(number(at), &guard.killers)?;
        let stage = report::short(&mutants[at].file).split('/').next().unwrap_or_default();
        let else_ = match blind.is_empty() {
            true => None,
            false => Some(court.judge(number(at), stage)?),
        };
        println!(
            "{}: {:?}",
            guard.name,
            else_.as_ref().unwrap_or(&Outcome::Killed("named".into()))
        );
        Ok(Watched { guard, blind, else_ })
    })
}

/// Does some work for each of `items`, `jobs` at a time; the results stand in their order.
fn in_parallel<T: Send>(
    jobs: usize,
    items: &[usize],
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(&item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(item);
                    let failed = result.is_err();
                    done.lock().expect("no worker panics").push((item, result));
                    if failed {
                        return;
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by_key(|(item, _)| *item);
    let results: Result<Vec<T>> = done.into_iter().map(|(_, result)| result).collect();
    let results = results?;
    if results.len() != items.len() {
        bail!("{} of {} were judged", results.len(), items.len());
    }
    Ok(results)
}
