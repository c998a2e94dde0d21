//! Hashing whole clones, as evidence of what a check has met.

use std::sync::Arc;

use vgship_base::disk::{Allocation, Disk};
use vgship_base::ids::Name;
use vgship_base::spread::spread;
use vgship_snapshot::overlay::Overlay;

use crate::api::ControlError;
use crate::capture::io::report;
use crate::role::drill::Volume;

/// What is read at once. Unit: bytes.
const PIECE: usize = 1 << 20;

/// Clones that are read at once.
const WORKERS: usize = 2;

/// The BLAKE3 of each clone's whole content, holes as the zeroes that they read as. Gives up when
/// `stops` says so.
pub(in crate::pipeline) fn hash(
    clones: &[(Name, Arc<Overlay>)],
    stops: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Volume>, ControlError> {
    spread(clones, WORKERS, |(name, clone)| {
        let hash = hash_one(name, &**clone, stops)?;
        Ok(Volume { name: name.to_string(), bytes: clone.len(), blake3: Some(hash) })
    })
}

fn hash_one(
    name: &Name,
    disk: &dyn Disk,
    stops: &dyn Fn() -> bool,
) -> Result<String, ControlError> {
    let failed = |error: std::io::Error| {
        ControlError::failed(format!("cannot read the clone of {name}: {}", report(&error)))
    };
    let mut hasher = blake3::Hasher::new();
    let (mut piece, zeroes) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut at, mut kind, mut end) = (0, Allocation::Data, 0);
    while at < disk.len() {
        if stops() {
            return Err(ControlError::failed("the clone was not hashed: the agent stops"));
        }
        if end <= at {
            (kind, end) = disk.allocation(at, disk.len()).map_err(failed)?;
        }
        let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        if kind == Allocation::Hole {
            hasher.update(&zeroes[..len]);
        } else {
            disk.read_at(at, &mut piece[..len]).map_err(failed)?;
            hasher.update(&piece[..len]);
        }
        at += len as u64;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimDisk};

    use super::*;

    #[test]
    fn a_hash_is_that_of_all_bytes() {
        let disk = SimDisk::volume(&Power::default(), (3 << 20) + 4096);
        let mut all = vec![0; (3 << 20) + 4096];
        for (at, len) in [(5000, 512), (2 << 20, 70_000), ((3 << 20) + 4000, 96)] {
            disk.write_at(at as u64, &vec![7; len]).unwrap();
            all[at..at + len].fill(7);
        }
        let name = "lv".parse().unwrap();
        let hash = hash_one(&name, &disk, &|| false).unwrap();
        assert_eq!(hash, blake3::hash(&all).to_hex().to_string());
        let error = hash_one(&name, &disk, &|| true).unwrap_err();
        assert!(error.to_string().contains("the agent stops"), "{error}");
    }
}
