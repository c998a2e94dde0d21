//! What applications were told: a write that ended well is there as long as the machine has power,
//! and one that a flush covered, which ended well, is there after a power cut.

use vgship::capture::source::Change;
use vgship_base::ids::VolumeId;
use vgship_base::layout::Layout;
use vgship_base::units::{SECTOR, Span};

use super::model::{Images, change_image};

/// What is known of one sector.
#[derive(Clone, Copy, Debug, Default)]
struct Sector {
    /// Counts the writes that began.
    writes: u64,
    /// Whether the last of them ended well, and nothing has failed since.
    told: bool,
    /// Whether a flush covered it.
    stable: bool,
    /// A flush has failed since the last write began: it may have taken that write with it.
    void: bool,
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
    pub fn begins(&mut self, volume: VolumeId, span: Span) {
        for sector in self.of(volume, span) {
            *sector = Sector { writes: sector.writes + 1, ..Sector::default() };
        }
    }

    /// A write ended well.
    pub fn ended(&mut self, change: &Change) {
        change_image(&mut self.content, change);
        for sector in self.of(change.volume, change.span) {
            sector.told = !sector.void;
        }
    }

    /// A flush begins; returns what it covers.
    pub fn flush_begins(&self, volume: VolumeId) -> Covers {
        let told = |sector: &Sector| sector.told.then_some(sector.writes);
        Covers(self.sectors[volume.index()].iter().map(told).collect())
    }

    /// A flush ended. After a failure nothing is known of what no flush had covered.
    pub fn flush_ended(&mut self, volume: VolumeId, covers: &Covers, flushed: bool) {
        for (sector, covered) in self.sectors[volume.index()].iter_mut().zip(&covers.0) {
            if !flushed {
                sector.told &= sector.stable;
                sector.void = !sector.stable;
            } else if *covered == Some(sector.writes) {
                sector.stable = sector.told;
            }
        }
    }

    /// Whether everything that was told is there; `power` is whether it has failed since.
    pub fn check(&self, found: &Images, power: bool) {
        for (volume, sectors) in self.sectors.iter().enumerate() {
            for (index, sector) in sectors.iter().enumerate() {
                let run = at(SECTOR) * index..at(SECTOR) * (index + 1);
                let counts = if power { sector.stable } else { sector.told };
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
