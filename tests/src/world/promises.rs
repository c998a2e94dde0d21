//! What applications were told: a write that ended well is there as long as the machine has power,
//! and one that a flush covered, which ended well, is there after a power cut.

use vgship::capture::source::Change;
use vgship_base::ids::VolumeId;
use vgship_base::layout::Layout;
use vgship_base::units::{SECTOR, Span};

use super::model::Images;

/// What is known of one sector.
#[derive(Clone, Copy, Debug, Default)]
struct Sector {
    /// Counts the writes that began.
    writes: u64,
    /// Whether the last of them ended well, and nothing has failed since.
    told: bool,
    /// Whether a flush covered it.
    stable: bool,
    /// A flush has failed since the last write began, and may have taken it along.
    lost: bool,
}

/// Which write of each of its sectors a write is.
pub type Turns = Vec<u64>;

/// Who made a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A client, who is told how it ended.
    Client,
    /// The agent on its own account.
    Agent,
}

/// Which writes a flush covers.
#[derive(Clone, Debug)]
pub struct Covers(Vec<Option<u64>>);

/// What must be where, by what applications were told.
pub struct Promises {
    sectors: Vec<Vec<Sector>>,
    /// The last content that was told; where nothing was, it means nothing.
    content: Images,
}

fn at(value: u64) -> usize {
    usize::try_from(value).expect("simulated volumes are small")
}

fn run(span: Span) -> std::ops::Range<usize> {
    at(span.offset / SECTOR)..at(span.end().div_ceil(SECTOR))
}

impl Promises {
    /// Of volumes that hold zeroes, of which nothing was told yet.
    pub fn new(layout: &Layout) -> Promises {
        let sectors = layout.volumes.iter().map(|lv| vec![Sector::default(); run_of(lv.bytes)]);
        let content = layout.volumes.iter().map(|lv| vec![0; at(lv.bytes)]).collect();
        Promises { sectors: sectors.collect(), content }
    }

    fn of(&mut self, volume: VolumeId, span: Span) -> &mut [Sector] {
        &mut self.sectors[volume.index()][run(span)]
    }

    /// A write begins: what was there need not be there any more.
    pub fn begins(&mut self, volume: VolumeId, span: Span) -> Turns {
        let begins = |sector: &mut Sector| {
            *sector = Sector { writes: sector.writes + 1, ..Sector::default() };
            sector.writes
        };
        self.of(volume, span).iter_mut().map(begins).collect()
    }

    /// An application is told that a write ended well, and that it is `stable`, too. Where a later
    /// one has begun it means nothing.
    pub fn ended(&mut self, change: &Change, turns: &Turns, stable: bool) {
        let size = at(SECTOR);
        for (place, turn) in turns.iter().enumerate() {
            let index = at(change.span.offset / SECTOR) + place;
            let sector = &mut self.sectors[change.volume.index()][index];
            if sector.writes != *turn {
                continue;
            }
            sector.told = true;
            sector.stable |= stable;
            let into = &mut self.content[change.volume.index()][index * size..(index + 1) * size];
            match &change.data {
                Some(data) => into.copy_from_slice(&data[place * size..(place + 1) * size]),
                None => into.fill(0),
            }
        }
    }

    /// The last content of which applications were told, and where that is what they would read:
    /// nothing writes there now, and no flush has failed since.
    pub fn content(&self) -> (&Images, impl Fn(usize, usize) -> bool + '_) {
        (&self.content, |volume, sector| {
            let sector = &self.sectors[volume][sector];
            sector.told && !sector.lost
        })
    }

    /// A flush begins; returns what it covers.
    pub fn flush_begins(&self, volume: VolumeId) -> Covers {
        let told = |sector: &Sector| sector.told.then_some(sector.writes);
        Covers(self.sectors[volume.index()].iter().map(told).collect())
    }

    /// A flush ended. A client who is told that it did well has everything that it covers; one who
    /// is told that it failed has nothing that no flush had covered before. One that the agent
    /// made tells nobody, but what it stores is stored.
    pub fn flush_ended(&mut self, volume: VolumeId, covers: &Covers, by: By, flushed: bool) {
        for (sector, covered) in self.sectors[volume.index()].iter_mut().zip(&covers.0) {
            let covered = *covered == Some(sector.writes);
            match (by, flushed) {
                (By::Client, true) => sector.stable |= covered && sector.told,
                (By::Agent, true) => sector.stable |= covered && sector.told && !sector.lost,
                (By::Client, false) => sector.told &= sector.stable,
                (By::Agent, false) => {}
            }
        }
    }

    /// A flush failed: what no flush had covered may be gone.
    pub fn flush_failed(&mut self, volume: VolumeId) {
        for sector in &mut self.sectors[volume.index()] {
            sector.lost |= !sector.stable;
        }
    }

    /// Whether everything that was told is there; `power` is whether it has failed since.
    pub fn check(&self, found: &Images, power: bool) {
        for (volume, sectors) in self.sectors.iter().enumerate() {
            for (index, sector) in sectors.iter().enumerate() {
                let run = at(SECTOR) * index..at(SECTOR) * (index + 1);
                let counts = if power { sector.stable } else { sector.told && !sector.lost };
                assert!(
                    !counts || self.content[volume][run.clone()] == found[volume][run],
                    "sector {index} of volume {volume} is not what an application was told \
                     (power failed: {power}; {sector:?})"
                );
            }
        }
    }

    /// What is found at a start is what applications read from then on.
    pub fn restart(&mut self, found: Images) {
        self.content = found;
        for sector in self.sectors.iter_mut().flatten() {
            *sector = Sector { writes: sector.writes + 1, told: true, ..Sector::default() };
        }
    }
}

fn run_of(bytes: u64) -> usize {
    run(Span::new(0, bytes)).end
}
