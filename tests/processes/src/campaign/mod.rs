//! A campaign of faults against agents that run as processes, under an application that knows what
//! it was told. All dice come from the seed; what the machine does between them does not.

mod faults;
mod load;
mod load_fio;
mod load_postgres;
mod plan;
pub mod postgres;
mod report;
mod round;
mod verify;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::mounts::cannot_mount;
use load_postgres::Template;
pub use plan::LoadKind;
use plan::Round;
use report::Tally;

/// Let faults come over agents as processes, and look at what their replicas hold
///
/// Each round is a pair of agents under a load: processes are killed and stopped, the link is cut
/// and made noisy, disks are filled, bytes of the journal changed. After each fault the replica is
/// ended and a copy of its volumes must hold a prefix of what the application did, with all that
/// was promised; when all faults have ended both sides must become equal.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Begin no round after so many minutes
    #[arg(long)]
    pub minutes: Option<f64>,
    /// How many rounds [default: 10, or as many as --minutes allows]
    #[arg(long)]
    pub rounds: Option<u64>,
    /// The dice
    #[arg(long, default_value_t = 20_261_127)]
    pub seed: u64,
    /// The number of the first round (a failure names it)
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// What writes [default: all that can run here, in turn]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub load: Vec<LoadKind>,
    /// When the source answers its application
    #[arg(long, value_enum, default_value = "async")]
    pub mode: ModeArg,
}

/// When the source answers its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeArg {
    /// When its own volumes have a write
    Async,
    /// When the replica has it too; by the dice it degrades or stalls after a time-out
    Sync,
}

/// Runs a campaign; gives whether nothing was lost.
pub fn run(args: &Args) -> bool {
    let loads = loads(args);
    let place = TempDir::with_prefix("vgship-template-").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.path(), open).unwrap();
    let template = loads.contains(&LoadKind::Postgres).then(|| Template::make(place.path()));
    let small_disks = cannot_mount().is_none();
    if !small_disks {
        println!("no disk is filled: {}", cannot_mount().unwrap_or_default());
    }
    let (begun, mut sums, mut failed) = (Instant::now(), Tally::default(), Vec::new());
    let rounds = args.rounds.unwrap_or(if args.minutes.is_some() { u64::MAX } else { 10 });
    let is_over = |begun: Instant| {
        args.minutes.is_some_and(|limit| begun.elapsed().as_secs_f64() > limit * 60.0)
    };
    let mut played = 0;
    for number in args.from..args.from.saturating_add(rounds) {
        if loads.is_empty() || is_over(begun) {
            break;
        }
        let load = loads[usize::try_from(number % loads.len() as u64).unwrap()];
        let is_sync = args.mode == ModeArg::Sync;
        let round = Round::draw(args.seed, number, load, is_sync, small_disks);
        if !play(number, &round, small_disks, template.as_ref(), &mut sums) {
            println!("again: {}", again(args, number, load));
            failed.push(number);
        }
        played += 1;
    }
    print!("{sums}");
    let (lost, seed) = (failed.len(), args.seed);
    let took = begun.elapsed().as_secs();
    println!("{played} rounds of seed {seed} in {took} s, {lost} failed: {failed:?}");
    failed.is_empty()
}

/// What is asked for and can run here; says what cannot.
fn loads(args: &Args) -> Vec<LoadKind> {
    let all = [LoadKind::Stamps, LoadKind::Fio, LoadKind::Postgres];
    let mut loads = if args.load.is_empty() { all.to_vec() } else { args.load.clone() };
    let has_fio = std::process::Command::new("fio").arg("--version").output().is_ok();
    let mut leave_out = |kind: LoadKind, reason: Option<String>| {
        if let Some(reason) = reason.filter(|_| loads.contains(&kind)) {
            println!("skipped: the load {kind}: {reason}");
            loads.retain(|load| *load != kind);
        }
    };
    leave_out(LoadKind::Fio, (!has_fio).then(|| "fio is missing".to_owned()));
    leave_out(LoadKind::Postgres, postgres::cannot_run());
    loads
}

/// Plays one round and prints its line; gives whether it held.
fn play(
    number: u64,
    round: &Round,
    small_disks: bool,
    template: Option<&Template>,
    sums: &mut Tally,
) -> bool {
    let steps: Vec<String> = round.steps.iter().map(ToString::to_string).collect();
    print!("round {number}: {}, {}: {}", round.load, round.mode, steps.join("; "));
    let (begun, mut tally) = (Instant::now(), Tally::default());
    // A round fails as a test does.
    let played =
        catch_unwind(AssertUnwindSafe(|| round::play(round, small_disks, template, &mut tally)));
    let took = begun.elapsed().max(Duration::from_millis(1)).as_secs_f64();
    let looked = format!("{} looks, {} put off", tally.looks, tally.windows);
    let held = if played.is_ok() { "held" } else { "FAILED" };
    println!(": {}, {looked}, {took:.1} s: {held}", tally.operations());
    sums.add(&tally);
    played.is_ok()
}

fn again(args: &Args, number: u64, load: LoadKind) -> String {
    let mode = if args.mode == ModeArg::Sync { "sync" } else { "async" };
    format!(
        "cargo xtask campaign --seed {} --from {number} --rounds 1 --load {load} --mode {mode}",
        args.seed
    )
}
