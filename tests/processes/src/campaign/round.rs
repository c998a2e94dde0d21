//! One round: a pair of agents, a load, faults, and what the replica holds after each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vgship_base::sim::Rng;

use super::faults::{SmallDisks, begin, lift, strike};
use super::load::{self, Load, volumes};
use super::load_postgres::Template;
use super::plan::{End, Held, LoadKind, Look, Mode, Round, Step, Strike};
use super::report::Tally;
use super::verify::copy;
use crate::{Pair, until};

/// Within this both sides are in sync when all faults have ended.
const BOUND: Duration = Duration::from_mins(4);

/// What a sync source waits for its replica.
const SYNC_TIMEOUT: &str = "5s";

/// A pair under load.
///
/// What stands on something else falls first, and the folder last.
struct Playing<'a> {
    load: Box<dyn Load>,
    pair: Pair,
    disks: Option<SmallDisks>,
    _place: Arc<TempDir>,
    mode: Mode,
    rng: Rng,
    /// What the replica holds whatever happens, of each stream.
    floor: Vec<u64>,
    /// Whether all that was ever acknowledged belongs to it.
    all_is_safe: bool,
    /// Its journal was changed and the source may not know it yet: nothing is promised.
    is_doubtful: bool,
    tally: &'a mut Tally,
}

/// Plays a round in a folder of its own; fails by a panic.
pub fn play(round: &Round, small_disks: bool, template: Option<&Template>, tally: &mut Tally) {
    let place = Arc::new(TempDir::with_prefix("vgship-campaign-").unwrap());
    // The database's user comes by here.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = place.path().to_owned();
    let sizes = volumes(round.load);
    let total = sizes.iter().map(|(_, bytes)| bytes).sum();
    let mut disks = small_disks.then(|| SmallDisks::of_replica(&path, total));
    if round.load == LoadKind::Postgres {
        template.expect("it was made").copy_to(&path.join("source-images"));
    }
    let mut words = vec!["--outbox-ram", "4MiB", "--spill", "32MiB"];
    match round.mode {
        Mode::Async => {}
        Mode::Degrade => {
            words.extend(["--mode", "sync", "--sync-timeout", SYNC_TIMEOUT]);
            words.extend(["--on-sync-timeout", "degrade"]);
        }
        Mode::Stall => words.extend(["--mode", "sync", "--on-sync-timeout", "stall"]),
    }
    let mut pair = Pair::at_rest(Arc::clone(&place), sizes, &words);
    if let Some(disks) = &mut disks {
        disks.add_source(&pair.source);
    }
    pair.start();
    pair.join();
    pair.source.wait("in-sync");
    let load = load::start(round.load, &pair.source, &path, round.seed);
    let mut playing = Playing {
        pair,
        load,
        disks,
        _place: place,
        mode: round.mode,
        rng: Rng::new(round.seed),
        floor: Vec::new(),
        all_is_safe: false,
        is_doubtful: false,
        tally,
    };
    playing.begin();
    for step in &round.steps {
        playing.step(step);
    }
    playing.finish();
}

impl Playing<'_> {
    /// Lets the load get going, then knows something that no fault may take back.
    fn begin(&mut self) {
        until("the load is under way", || self.load.acknowledged().iter().all(|&count| count >= 4));
        self.wait_durable();
        self.look_at_sync();
    }

    /// Waits until what was acknowledged by now is on the replica, from where nothing but a damaged
    /// journal takes it away.
    fn wait_durable(&mut self) {
        let acknowledged = self.load.acknowledged();
        self.pair.source.wait_for("durable", BOUND);
        self.floor = acknowledged;
        self.is_doubtful = false;
    }

    /// In sync mode, and in force: what was acknowledged before is on the replica.
    fn look_at_sync(&mut self) {
        if self.mode == Mode::Async || self.is_doubtful {
            return;
        }
        let acknowledged = self.load.acknowledged();
        let group = self.pair.source.group();
        if group["sync"]["state"] == "in-force" {
            self.floor = acknowledged;
            self.all_is_safe = self.mode == Mode::Stall;
            self.tally.in_force += 1;
        }
    }

    fn step(&mut self, step: &Step) {
        step.kinds().for_each(|kind| self.tally.count(kind));
        sleep(Duration::from_millis(step.peace));
        self.look_at_sync();
        for &held in &step.held {
            begin(held, &self.pair, self.disks.as_ref());
        }
        let half = Duration::from_millis(step.hold / 2);
        if !step.held.is_empty() {
            sleep(half);
        }
        let mut held = step.held.clone();
        if let Some(strike) = step.strike {
            self.strike(strike, &mut held);
        }
        let (look, end) = step.look;
        if look == Look::During {
            self.look(end, &held);
        } else if !step.held.is_empty() {
            sleep(half);
        }
        for held in held {
            lift(held, &self.pair, self.disks.as_ref());
        }
        if step.strike.is_some_and(Strike::kills_source) {
            // Not before: a load that has to write first would wait for a replica that is held.
            self.load.source_is_back(&self.pair.source);
        }
        match look {
            Look::During => {}
            Look::After => self.look(end, &[]),
            Look::Later => {
                self.pair.source.wait_for("in-sync", BOUND);
                self.wait_durable();
                self.look(end, &[]);
            }
        }
    }

    fn strike(&mut self, what: Strike, held: &mut Vec<Held>) {
        if what.kills_source() {
            // An operator makes room for the ledger before starting the source again.
            held.retain(|&held| {
                let stays = !matches!(held, Held::FillLedger { .. } | Held::FillSpill { .. });
                if !stays {
                    lift(held, &self.pair, self.disks.as_ref());
                }
                stays && held != Held::StopSource
            });
        }
        if what.kills_replica() {
            held.retain(|&held| held != Held::StopReplica);
        }
        if matches!(what, Strike::FlipJournal { .. }) {
            // What only the journal held may be gone; the source learns of it and sends it again.
            self.floor.iter_mut().for_each(|count| *count = 0);
            self.all_is_safe = false;
            self.is_doubtful = true;
        }
        strike(what, &mut self.pair, &mut self.rng);
        self.tally.kills += u64::from(what.kills_source()) + u64::from(what.kills_replica());
        if what.kills_replica() {
            self.pair.replica.spawn();
        }
        if what.kills_source() {
            self.load.source_is_gone();
            self.pair.restart_source();
        }
        if what.kills_replica() {
            self.pair.replica.await_ready();
        }
    }

    /// Ends the replica, and looks at what a failover would find there.
    fn look(&mut self, end: End, held: &[Held]) {
        let copied = self.pair.place.path().join("copy");
        if !held.contains(&Held::StopSource) {
            self.look_at_sync();
        }
        match end {
            End::Term => drop(self.pair.replica.stop()),
            End::Kill => self.pair.replica.kill(),
        }
        // What was acknowledged by now was so before the end, or not by the replica.
        let safe = self.all_is_safe.then(|| self.load.acknowledged());
        let floor = safe.unwrap_or_else(|| self.floor.clone());
        // By itself: nothing of the source comes through.
        self.pair.relay.cut();
        self.pair.replica.start();
        let group = self.pair.replica.until("open", |group| group["generation"] != "");
        let is_consistent = group["consistent"] == true;
        assert!(self.pair.replica.stop().success());
        let place = self.pair.place.path();
        copy(&place.join("replica-images"), &copied);
        let _ = fs::remove_file(copied.join("filler"));
        self.pair.relay.restore();
        held.iter().filter(|held| held.is_link()).for_each(|&held| {
            begin(held, &self.pair, self.disks.as_ref());
        });
        self.pair.replica.start();
        if is_consistent {
            self.check(&copied, &floor);
        } else {
            self.tally.windows += 1;
        }
        fs::remove_dir_all(&copied).unwrap();
    }

    fn check(&mut self, images: &Path, floor: &[u64]) -> Vec<u64> {
        self.tally.looks += 1;
        let found = self.load.check(images, floor);
        found.unwrap_or_else(|error| panic!("the replica: {error}; it must hold {floor:?}"))
    }

    /// When all faults have ended both sides become equal, and nothing is lost.
    fn finish(&mut self) {
        let begun = Instant::now();
        self.pair.source.wait_for("in-sync", BOUND);
        self.tally.slowest = self.tally.slowest.max(begun.elapsed());
        self.load.rest();
        self.pair.source.wait_for("in-sync", BOUND);
        self.pair.source.wait_for("applied", BOUND);
        assert!(self.pair.source.stop().success());
        assert!(self.pair.replica.stop().success());
        self.pair.assert_equal();
        let all = self.load.acknowledged();
        let copied = self.pair.place.path().join("copy");
        copy(&self.pair.place.path().join("replica-images"), &copied);
        let found = self.check(&copied, &all);
        assert_eq!(found, all, "both sides are equal, so it holds all and no more");
        self.tally.acknowledged(self.load.unit(), all.iter().sum());
    }
}
