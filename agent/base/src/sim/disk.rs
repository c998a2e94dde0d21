//! A disk that can lose power, equal for equal seeds.
//!
//! Model: a flush that returned makes every earlier write survive. A power cut decides for each
//! 512-byte sector of each unflushed write on its own: kept, lost or garbled, in any order. So a
//! write larger than a sector may tear anywhere, and a later write may outlive an earlier.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Power, Rng};
use crate::disk::{Disk, zero_by_writing};

const SECTOR: usize = 512;

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    power: Power,
    grows: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    stable: Vec<u8>,
    pending: Vec<(usize, [u8; SECTOR])>,
    fail_writes: u32,
    fail_flushes: u32,
}

impl SimDisk {
    /// A volume of `bytes` zeroes, a multiple of a sector.
    pub fn volume(power: &Power, bytes: u64) -> SimDisk {
        let len = usize::try_from(bytes).expect("simulated volumes are small");
        assert!(len.is_multiple_of(SECTOR), "a volume has whole sectors");
        let state = State { live: vec![0; len], stable: vec![0; len], ..State::default() };
        SimDisk { power: power.clone(), grows: false, state: Arc::new(Mutex::new(state)) }
    }

    /// An empty file.
    pub fn file(power: &Power) -> SimDisk {
        SimDisk { power: power.clone(), grows: true, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while a simulated disk is held")
    }

    /// What a reader sees now.
    pub fn live(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// Lets the next `count` writes fail, as a broken disk would.
    pub fn fail_writes(&self, count: u32) {
        self.state().fail_writes = count;
    }

    /// Lets the next `count` flushes fail; what was pending is lost from the cache for good, and
    /// reads give what was there before, as reads from the device do.
    pub fn fail_flushes(&self, count: u32) {
        self.state().fail_flushes = count;
    }

    /// Flips one bit of what is stored, as decay would.
    pub fn decay(&self, byte: usize, bit: u8) {
        let mut state = self.state();
        for content in [true, false] {
            let bytes = if content { &mut state.live } else { &mut state.stable };
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Cuts the power and turns it on again: decides what of the unflushed sectors is found.
    pub fn power_cut(&self, rng: &mut Rng) {
        let mut state = self.state();
        let mut pending = std::mem::take(&mut state.pending);
        rng.shuffle(&mut pending);
        for (index, mut sector) in pending {
            match rng.below(4) {
                0 => continue,
                1 => sector[rng.index(SECTOR)] ^= 0x40,
                _ => {}
            }
            let (at, end) = (index * SECTOR, (index + 1) * SECTOR);
            if state.stable.len() < end {
                state.stable.resize(end, 0);
            }
            state.stable[at..end].copy_from_slice(&sector);
        }
        let State { live, stable, .. } = &mut *state;
        live.clone_from(stable);
    }

    fn grow_or_refuse(&self, state: &mut State, end: usize) -> io::Result<()> {
        if end <= state.live.len() {
            return Ok(());
        }
        if !self.grows {
            let text = format!("{end} lies behind the end of a volume of {}", state.live.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        state.live.resize(end, 0);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn len(&self) -> u64 {
        self.state().live.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.power.spend()?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let state = self.state();
        let end = at.saturating_add(into.len());
        let from = state.live.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.power.spend()?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut state = self.state();
        if state.fail_writes > 0 {
            state.fail_writes -= 1;
            return Err(io::Error::other("the simulated disk refuses a write"));
        }
        let end = at.saturating_add(data.len());
        self.grow_or_refuse(&mut state, end)?;
        state.live[at..end].copy_from_slice(data);
        for index in at / SECTOR..end.div_ceil(SECTOR) {
            let mut sector = [0; SECTOR];
            let from = &state.live[index * SECTOR..state.live.len().min((index + 1) * SECTOR)];
            sector[..from.len()].copy_from_slice(from);
            state.pending.push((index, sector));
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        zero_by_writing(self, offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        self.power.spend()?;
        let mut state = self.state();
        let fails = state.fail_flushes > 0;
        let State { live, stable, pending, .. } = &mut *state;
        stable.resize(live.len(), 0);
        let (from, into) = if fails { (stable, live) } else { (live, stable) };
        for (index, _) in pending.drain(..) {
            let (at, end) = (index * SECTOR, from.len().min((index + 1) * SECTOR));
            into[at..end].copy_from_slice(&from[at..end]);
        }
        if fails {
            state.fail_flushes -= 1;
            return Err(io::Error::other("the simulated disk refuses to flush"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_survives_and_what_was_not_may_tear() {
        let mut torn = 0;
        for seed in 0..50 {
            let (power, mut rng) = (Power::default(), Rng::new(seed));
            let disk = SimDisk::volume(&power, 4096);
            disk.write_at(0, &[1; 2048]).unwrap();
            disk.flush().unwrap();
            disk.write_at(1024, &[2; 2048]).unwrap();
            disk.power_cut(&mut rng);
            let found = disk.live();
            assert_eq!(found[..1024], [1; 1024], "seed {seed}");
            assert_eq!(found[3072..], [0; 1024], "seed {seed}");
            torn += u32::from(found[1024..3072] != [2; 2048]);
        }
        assert!(torn > 40, "a power cut must tear: {torn} of 50");
    }

    #[test]
    fn after_a_failed_flush_the_unflushed_is_gone() {
        let disk = SimDisk::volume(&Power::default(), 2048);
        disk.write_at(0, &[1; 600]).unwrap();
        disk.flush().unwrap();
        disk.write_at(512, &[2; 1024]).unwrap();
        disk.fail_flushes(1);
        assert!(disk.flush().is_err());
        disk.flush().unwrap();
        disk.power_cut(&mut Rng::new(1));
        assert_eq!(disk.live()[..600], [1; 600]);
        assert_eq!(disk.live()[600..], [0; 1448]);
    }

    #[test]
    fn nothing_works_without_power() {
        let power = Power::default();
        let disk = SimDisk::volume(&power, 512);
        power.fail_after(1);
        disk.write_at(0, b"x").unwrap();
        assert!(disk.write_at(0, b"y").is_err());
        assert!(disk.flush().is_err());
        assert!(power.is_off());
        power.restore();
        assert!(disk.flush().is_ok());
    }
}
