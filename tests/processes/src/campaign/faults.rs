//! Does to a pair of agents what a plan says, and takes it back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use vgship_base::sim::Rng;

use super::plan::{Held, Strike};
use crate::{Agent, Faults, MIB, Pair, SmallDisk};

/// Disks that are small enough to be filled.
pub struct SmallDisks {
    journal: SmallDisk,
    volumes: SmallDisk,
    ledger: Option<SmallDisk>,
    spill: Option<SmallDisk>,
}

/// Room of the replica's home: some segments of its journal. Unit: MiB.
const JOURNAL: u64 = 256;

/// Room for a ledger and the next one. Unit: MiB.
const LEDGER: u64 = 2;

/// More than what a round's group may spill. Unit: MiB.
const SPILL: u64 = 48;

fn small(folder: &Path, mib: u64) -> SmallDisk {
    fs::create_dir_all(folder).unwrap();
    SmallDisk::over(folder, mib).expect("who may mount may do so here")
}

impl SmallDisks {
    /// Those of the replica, before there is anything on it. `volumes`: the size of all its
    /// volumes. Unit: bytes.
    pub fn of_replica(place: &Path, volumes: u64) -> SmallDisks {
        SmallDisks {
            journal: small(&place.join("replica"), JOURNAL),
            volumes: small(&place.join("replica-images"), volumes / MIB + 4),
            ledger: None,
            spill: None,
        }
    }

    /// Adds those of the source, when its group was added and it was not started yet.
    pub fn add_source(&mut self, source: &Agent) {
        self.ledger = Some(small(&source.path("groups/g/source"), LEDGER));
        self.spill = Some(small(&source.path("groups/g/spill-0"), SPILL));
    }

    /// The disk that a fault fills, and what it leaves free. Unit: bytes.
    fn filled_by(&self, held: Held) -> Option<(&SmallDisk, u64)> {
        match held {
            Held::FillJournal { left } => Some((&self.journal, left)),
            Held::FillVolumes => Some((&self.volumes, 0)),
            Held::FillLedger { left } => Some((self.ledger.as_ref()?, left)),
            Held::FillSpill { left } => Some((self.spill.as_ref()?, left)),
            Held::StopSource | Held::StopReplica | Held::Cut | Held::Noise { .. } => None,
        }
    }
}

/// Begins what holds on.
pub fn begin(held: Held, pair: &Pair, disks: Option<&SmallDisks>) {
    match held {
        Held::StopSource => pair.source.signal(Signal::SIGSTOP),
        Held::StopReplica => pair.replica.signal(Signal::SIGSTOP),
        Held::Cut => pair.relay.cut(),
        Held::Noise { drop, damage, delay } => {
            pair.relay.set(Faults { cut: false, drop, damage, delay });
        }
        _ => {
            let (disk, left) = disks.and_then(|disks| disks.filled_by(held)).expect("it is small");
            disk.fill(left);
        }
    }
}

/// Takes back what held on.
pub fn lift(held: Held, pair: &Pair, disks: Option<&SmallDisks>) {
    match held {
        Held::StopSource if pair.source.runs() => pair.source.signal(Signal::SIGCONT),
        Held::StopReplica if pair.replica.runs() => pair.replica.signal(Signal::SIGCONT),
        Held::StopSource | Held::StopReplica => {}
        Held::Cut | Held::Noise { .. } => pair.relay.restore(),
        _ => {
            let (disk, _) = disks.and_then(|disks| disks.filled_by(held)).expect("it is small");
            disk.free();
        }
    }
}

/// Strikes; processes that it ended are not started here.
pub fn strike(strike: Strike, pair: &mut Pair, rng: &mut Rng) {
    if strike.kills_source() {
        pair.source.kill();
    }
    if strike.kills_replica() {
        pair.replica.kill();
    }
    match strike {
        Strike::FlipJournal { bytes } => flip(&pair.replica, bytes, rng),
        Strike::Move => pair.relay.move_peers(),
        Strike::KillSource | Strike::KillReplica | Strike::KillBoth => {}
    }
}

/// Behind what is changed in many places: the last promise, which one change may hit, but not
/// together with what it promises. Unit: bytes.
const PROMISE: u64 = 4096;

/// Changes bytes of the newest segments of the journal, most of them near its end, where what was
/// not applied yet stands.
fn flip(replica: &Agent, bytes: u64, rng: &mut Rng) {
    let folder = replica.path("groups/g/journal");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for _ in 0..bytes {
        let newest = files.len().saturating_sub(2);
        let Some(path) = files.get(newest + rng.index(2.min(files.len().max(1)))) else { return };
        let file = File::options().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        let end = if bytes == 1 { len } else { len.saturating_sub(PROMISE) };
        if end == 0 {
            continue;
        }
        let reach = if rng.one_in(4) { end } else { end.min(64 << 10) };
        let at = end - 1 - rng.below(reach);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << rng.below(8))], at).unwrap();
    }
}
