//! Does to a pair of agents what a plan says, and takes it back.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use vgship_base::sim::Rng;

use super::plan::{Held, Strike};
use crate::mounts::Mount;
use crate::{Agent, Faults, MIB, Pair};

/// Disks that are small enough to be filled, each with what a fault of it is called.
pub struct SmallDisks {
    place: PathBuf,
    _mounts: Vec<Mount>,
}

/// Room of the replica's home: some segments of its journal. Unit: bytes.
const JOURNAL: u64 = 256 * MIB;

/// Room for a ledger and the next one. Unit: bytes.
const LEDGER: u64 = 2 * MIB;

/// More than what a round's group may spill. Unit: bytes.
const SPILL: u64 = 48 * MIB;

impl SmallDisks {
    /// Those of the replica, before there is anything on it; `volumes` is the size of all.
    pub fn for_replica(place: &Path, volumes: u64) -> SmallDisks {
        let mounts = vec![
            Mount::small(&place.join("replica"), JOURNAL),
            Mount::small(&place.join("replica-images"), volumes + 4 * MIB),
        ];
        SmallDisks { place: place.to_owned(), _mounts: mounts }
    }

    /// Adds those of the source, when its group was added and it was not started yet.
    pub fn add_source(&mut self) {
        let group = self.place.join("source/groups/g");
        self._mounts.push(Mount::small(&group.join("source"), LEDGER));
        self._mounts.push(Mount::small(&group.join("spill-0"), SPILL));
    }

    fn filler(&self, held: Held) -> Option<(PathBuf, u64)> {
        let (folder, left) = match held {
            Held::FillJournal { left } => ("replica", left),
            Held::FillVolumes => ("replica-images", 0),
            Held::FillLedger { left } => ("source/groups/g/source", left),
            Held::FillSpill { left } => ("source/groups/g/spill-0", left),
            _ => return None,
        };
        Some((self.place.join(folder).join("filler"), left))
    }
}

/// Takes all room of a disk but for so much. Unit: bytes.
fn fill(path: &Path, left: u64) {
    let mut file = File::create(path).unwrap();
    let (mut piece, mut taken) = (vec![0xa5; 1 << 20], 0_u64);
    while piece.len() >= 4096 {
        match file.write(&piece) {
            Ok(count) => taken += count as u64,
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                piece.truncate(piece.len() / 2);
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    file.set_len(taken.saturating_sub(left)).unwrap();
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
            let (path, left) = disks.and_then(|disks| disks.filler(held)).expect("a small disk");
            fill(&path, left);
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
            let (path, _) = disks.and_then(|disks| disks.filler(held)).expect("a small disk");
            // A spill that begins anew throws out what is there.
            let _ = fs::remove_file(path);
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
