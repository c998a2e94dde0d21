//! A disk that can lose power, equal for equal seeds.
//!
//! Model: a flush that returned makes every earlier write survive. A power cut decides for each
//! 512-byte sector of each unflushed write on its own: kept, lost or garbled, in any order. So a
//! write larger than a sector may tear anywhere, and a later write may outlive an earlier.
//!
//! A flush that failed stored nothing, and leaves the cache as it was, but clean: reads go on to
//! show what was never stored, later flushes succeed without storing it, and only
//! [`Disk::forget_cache`], or the memory running short at any time, shows what the disk holds. So
//! do Linux and its file systems (Rebello and others, 2020).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::folder::Room;
use super::{Power, Rng};
use crate::disk::{Disk, zero_by_writing};

pub(super) const SECTOR: usize = 512;

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    power: Power,
    grows: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What a reader sees: the cache over what is stored.
    live: Vec<u8>,
    /// What is stored.
    stable: Vec<u8>,
    pending: Vec<(usize, [u8; SECTOR])>,
    /// Lengths that the file was given since the last flush.
    lens: Vec<usize>,
    fail_writes: u32,
    fail_flushes: u32,
    fail_reads: u32,
    misdirect: u32,
    shift: u64,
    misdirected: u64,
    /// Of the folder that a file lies in.
    room: Option<Arc<Room>>,
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

    /// Lets the next `count` flushes fail: what was pending is never stored, but shown until
    /// [`Disk::forget_cache`].
    pub fn fail_flushes(&self, count: u32) {
        self.state().fail_flushes = count;
    }

    /// Lets the next `count` reads fail.
    pub fn fail_reads(&self, count: u32) {
        self.state().fail_reads = count;
    }

    /// Lets the next `count` reads give other sectors than those asked for: all further on by the
    /// same number of sectors, which `pick` chooses, round the end to the start. A disk of one
    /// sector has no others; its reads fail instead.
    pub fn misdirect_reads(&self, count: u32, pick: u64) {
        let mut state = self.state();
        (state.misdirect, state.shift) = (count, pick);
    }

    /// How many reads were misdirected so far.
    pub fn misdirected(&self) -> u64 {
        self.state().misdirected
    }

    /// From now on growing takes from `room`, which has taken what is there.
    pub(super) fn live_in(&self, room: Option<Arc<Room>>) {
        self.state().room = room;
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
        let mut lens = std::mem::take(&mut state.lens);
        lens.insert(0, state.stable.len());
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
        if lens.len() > 1 {
            // A length is the file system's: it is one of those that the file was given.
            stable.resize(lens[rng.index(lens.len())], 0);
        }
        live.clone_from(stable);
    }

    /// Grows a file up to `end`, or as far as its folder has room; how far it reaches then.
    fn grow_or_refuse(&self, state: &mut State, end: usize) -> io::Result<usize> {
        let len = state.live.len();
        if end <= len {
            return Ok(end);
        }
        if !self.grows {
            let text = format!("{end} lies behind the end of a volume of {len}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let more = match &state.room {
            None => end - len,
            Some(room) => room.take(end - len),
        };
        state.live.resize(len + more, 0);
        Ok(len + more)
    }
}

impl State {
    /// Writes into the cache what lies below `end`.
    fn write(&mut self, at: usize, end: usize, data: &[u8]) {
        if end <= at {
            return;
        }
        self.live[at..end].copy_from_slice(&data[..end - at]);
        for index in at / SECTOR..end.div_ceil(SECTOR) {
            let mut sector = [0; SECTOR];
            let from = &self.live[index * SECTOR..self.live.len().min((index + 1) * SECTOR)];
            sector[..from.len()].copy_from_slice(from);
            self.pending.push((index, sector));
        }
    }

    /// Whether the next read goes wrong, and how: by so many sectors.
    fn misread(&mut self) -> io::Result<usize> {
        if self.fail_reads > 0 {
            self.fail_reads -= 1;
            return Err(io::Error::other("the simulated disk refuses a read"));
        }
        if self.misdirect == 0 {
            return Ok(0);
        }
        self.misdirect -= 1;
        let others = (self.live.len().div_ceil(SECTOR) as u64).saturating_sub(1);
        if others == 0 {
            return Err(io::Error::other("the simulated disk has one sector only"));
        }
        self.misdirected += 1;
        usize::try_from(1 + self.shift % others).map_err(io::Error::other)
    }
}

impl Disk for SimDisk {
    fn len(&self) -> u64 {
        self.state().live.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.power.spend()?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut state = self.state();
        let end = at.saturating_add(into.len());
        if end > state.live.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let shift = state.misread()?;
        if shift == 0 {
            into.copy_from_slice(&state.live[at..end]);
            return Ok(());
        }
        let round = state.live.len().next_multiple_of(SECTOR);
        for (byte, place) in into.iter_mut().zip(at + shift * SECTOR..) {
            *byte = state.live.get(place % round).copied().unwrap_or(0);
        }
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
        let fits = self.grow_or_refuse(&mut state, end)?;
        // As file systems do: what there was room for is written.
        state.write(at, fits, data);
        if fits < end { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        zero_by_writing(self, offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power.spend()?;
        if !self.grows {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut state = self.state();
        let (had, len) = (state.live.len(), usize::try_from(len).map_err(io::Error::other)?);
        if len > had {
            if let Some(room) = &state.room
                && !room.take_all(len - had)
            {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.live.resize(len, 0);
            // Where the file was longer before, what was there must not come back.
            let stored = state.stable.len().min(len);
            if had < stored {
                let zeroes = vec![0; stored - had];
                state.write(had, stored, &zeroes);
            }
        } else {
            state.live.truncate(len);
            state.pending.retain(|(index, _)| index * SECTOR < len);
            if let Some(room) = &state.room {
                room.give(had - len);
            }
        }
        state.lens.push(len);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.power.spend()?;
        let mut state = self.state();
        let fails = state.fail_flushes > 0;
        let State { live, stable, pending, lens, .. } = &mut *state;
        stable.resize(live.len(), 0);
        lens.clear();
        let pending = std::mem::take(pending);
        if fails {
            state.fail_flushes -= 1;
            return Err(io::Error::other("the simulated disk refuses to flush"));
        }
        for (index, _) in pending {
            let (at, end) = (index * SECTOR, live.len().min((index + 1) * SECTOR));
            stable[at..end].copy_from_slice(&live[at..end]);
        }
        Ok(())
    }

    fn forget_cache(&self) {
        let mut state = self.state();
        let State { live, stable, pending, .. } = &mut *state;
        stable.resize(live.len(), 0);
        live.clone_from(stable);
        for (index, sector) in pending {
            // What was not yet tried to be stored stays.
            let (at, end) = (*index * SECTOR, live.len().min((*index + 1) * SECTOR));
            live[at..end].copy_from_slice(&sector[..end - at]);
        }
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
    fn a_file_that_was_cut_is_longer_again_or_does_not_show_what_was_cut_off() {
        for seed in 0..20 {
            let disk = SimDisk::file(&Power::default());
            disk.write_at(0, &[1; 1024]).unwrap();
            disk.flush().unwrap();
            disk.set_len(100).unwrap();
            disk.set_len(2048).unwrap();
            let whole = [vec![1; 100], vec![0; 1948]].concat();
            assert_eq!(disk.live(), whole);
            let other = disk.clone();
            if seed % 2 == 0 {
                disk.flush().unwrap();
                disk.power_cut(&mut Rng::new(seed));
                assert_eq!(other.live(), whole);
            } else {
                disk.power_cut(&mut Rng::new(seed));
                assert!([100, 1024, 2048].contains(&other.live().len()));
            }
        }
        let volume = SimDisk::volume(&Power::default(), 512);
        assert!(volume.set_len(1024).is_err());
    }

    #[test]
    fn after_a_failed_flush_the_cache_shows_what_was_never_stored() {
        for forgets in [true, false] {
            let disk = SimDisk::volume(&Power::default(), 2048);
            disk.write_at(0, &[1; 600]).unwrap();
            disk.flush().unwrap();
            disk.write_at(512, &[2; 1024]).unwrap();
            disk.fail_flushes(1);
            assert!(disk.flush().is_err());
            disk.flush().unwrap();
            assert_eq!(disk.live()[512..1536], [2; 1024], "still in the cache");
            disk.write_at(1536, &[3; 512]).unwrap();
            if forgets {
                disk.forget_cache();
            } else {
                disk.flush().unwrap();
                disk.power_cut(&mut Rng::new(1));
            }
            assert_eq!(disk.live()[..600], [1; 600]);
            assert_eq!(disk.live()[600..1536], [0; 936]);
            assert_eq!(disk.live()[1536..], [3; 512], "written after the failure");
        }
    }

    #[test]
    fn reads_fail_or_go_astray_as_often_as_told() {
        let disk = SimDisk::volume(&Power::default(), 2048);
        (0..4u8).for_each(|at| disk.write_at(u64::from(at) * 512, &[at; 512]).unwrap());
        let read = |offset, len| {
            let mut found = vec![9; len];
            disk.read_at(offset, &mut found).map(|()| found)
        };
        disk.fail_reads(2);
        assert!(read(0, 1).is_err() && read(0, 512).is_err());
        assert_eq!(read(512, 512).unwrap(), [1; 512]);
        for pick in 0..7 {
            disk.misdirect_reads(1, pick);
            let found = read(256, 512).unwrap();
            let shift = u8::try_from(1 + pick % 3).unwrap();
            assert_eq!(found[..256], [shift; 256], "pick {pick}");
            assert_eq!(found[256..], [(shift + 1) % 4; 256], "pick {pick}");
            assert_eq!(read(256, 512).unwrap()[..256], [0; 256], "the next is right");
        }
        disk.misdirect_reads(1, 0);
        assert!(read(0, 4096).is_err(), "behind the end is behind the end");
        assert_eq!(read(0, 2048).unwrap()[..512], [1; 512], "a whole disk is turned");
        assert_eq!(disk.misdirected(), 8);
        let small = SimDisk::volume(&Power::default(), 512);
        small.misdirect_reads(1, 3);
        assert!(small.read_at(0, &mut [0; 8]).is_err() && small.read_at(0, &mut [0; 8]).is_ok());
        assert_eq!(small.misdirected(), 0);
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
