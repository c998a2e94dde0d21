//! SIGKILL at random moments under load: nothing that was acknowledged is lost, and both sides
//! become equal.

use std::time::{Duration, Instant};

use vgship_base::sim::Rng;

use super::common::{Faults, MIB, Pair, Stamps, until};

/// A number that the environment may change.
fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Kills so many times the source, the replica or both.
fn survive(kills: u64) {
    let seed = number("VGSHIP_SEED", 20_240_611);
    println!("seed {seed}: VGSHIP_SEED={seed} repeats the dice, VGSHIP_KILLS=N kills N times");
    let mut rng = Rng::new(seed);
    let begun = Instant::now();
    // Large enough that most of what a kill could lose is not written again by and by.
    let mut pair = Pair::new(&[("data", 192 * MIB), ("log", 64 * MIB)], &[]);
    pair.relay.set(Faults { delay: number("VGSHIP_DELAY", 6), ..Faults::default() });
    let mut load = Stamps::start(&pair.source.nbd_socket(), &["data", "log"], 2, seed);
    let (mut source_kills, mut replica_kills) = (0, 0);
    let (mut slowest, mut recovered) = (Duration::ZERO, 0_u64);
    while source_kills + replica_kills < kills {
        let before = load.writes();
        let enough = 1 + rng.below(400);
        until("the application writes", || load.writes() >= before + enough);
        let (source, replica) = match rng.below(8) {
            0 if source_kills + replica_kills + 2 <= kills => (true, true),
            0..4 => (true, false),
            _ => (false, true),
        };
        if source {
            pair.source.kill();
            source_kills += 1;
        }
        if replica {
            pair.replica.kill();
            replica_kills += 1;
        }
        let since = Instant::now();
        if replica {
            pair.replica.spawn();
        }
        if source {
            pair.restart_source();
        }
        if replica {
            pair.replica.await_ready();
        }
        match rng.below(3) {
            0 => {} // the next one comes in the midst of the recovery
            1 => pair.source.wait("connected"),
            _ => {
                pair.source.wait("in-sync");
                slowest = slowest.max(since.elapsed());
                recovered += 1;
            }
        }
    }
    pair.source.wait("connected");
    load.rest();
    let written = load.acknowledged();
    pair.relay.restore();
    pair.source.wait("in-sync");
    pair.source.wait("applied");
    assert!(pair.source.stop().success());
    assert!(pair.replica.stop().success());
    assert_eq!(load.check(|volume| pair.source_image(volume), &written), Ok(written.clone()));
    assert_eq!(load.check(|volume| pair.replica_image(volume), &written), Ok(written));
    pair.assert_equal();
    println!(
        "{source_kills} kills of the source, {replica_kills} of the replica, {} writes \
         acknowledged, none lost; in sync again after each of {recovered} kills within \
         {slowest:.1?}; {:.1?} in all",
        load.writes(),
        begun.elapsed()
    );
}

/// Fifty, or as many as `VGSHIP_KILLS` says; `VGSHIP_DELAY` keeps datagrams back for up to so many
/// milliseconds.
#[test]
fn fifty_kills_lose_nothing() {
    survive(number("VGSHIP_KILLS", 50));
}
