//! Helpers for scenarios: worlds in which only what the scenario says goes wrong.

use bytes::Bytes;
use vgship::capture::source::Change;
use vgship::ship::replica::Replica;
use vgship_base::disk::Disk;
use vgship_base::ids::VolumeId;
use vgship_base::sim::Rng;
use vgship_base::units::Span;

use super::faults::Settings;
use super::promises::By;
use super::source::Waiting;
use super::{World, id_of};

impl World {
    /// A world in which everything has started and is in sync.
    pub fn in_sync_with(settings: Settings) -> World {
        let mut world = World::new(settings, Rng::new(1), false);
        world.start_all();
        world.settle();
        world
    }

    /// What the source knows of a replica.
    ///
    /// # Panics
    /// When the source is down.
    pub fn known(&self, index: usize) -> &Replica {
        self.source.life.as_ref().expect("the source runs").source.replica(id_of(index))
    }

    /// An application's write takes its seq; it has not reached the volume.
    pub fn begin_write(&mut self, volume: u16, offset: u64, len: u64, fill: u8) {
        let size = usize::try_from(len).expect("small");
        let data = Some(Bytes::from(vec![fill; size]));
        let change = Change { volume: VolumeId(volume), span: Span::new(offset, len), data };
        let before = self.life().flying.len();
        self.submit(Waiting::new(change));
        if self.life().flying.len() == before {
            self.write_retries();
        }
        assert_eq!(self.life().flying.len(), before + 1, "the write waits");
    }

    /// All writes under way reach their volumes and are reported.
    pub fn end_writes(&mut self) {
        while !self.life().flying.is_empty() {
            self.write_reaches_volume();
            self.write_ends();
        }
    }

    /// A client flushes a volume.
    pub fn flush_client(&mut self, volume: VolumeId) {
        let begun = self.flush_begins(volume, By::Client);
        let flushed = self.source.disks[volume.index()].flush().is_ok();
        self.flush_ended(&begun, flushed);
    }

    /// A whole write.
    pub fn write(&mut self, volume: u16, offset: u64, len: u64, fill: u8) {
        self.begin_write(volume, offset, len, fill);
        self.end_writes();
    }

    /// Records go to a replica, which makes them durable; nothing comes back.
    pub fn ship_out(&mut self, index: usize) {
        self.send(index);
        for _ in 0..200 {
            self.deliver(index);
        }
        self.persist(index);
    }

    /// What a replica received is applied.
    pub fn apply_all(&mut self, index: usize) {
        for _ in 0..200 {
            self.apply(index);
        }
    }

    /// What a replica said arrives.
    pub fn hear(&mut self, index: usize) {
        for _ in 0..200 {
            self.deliver_back(index);
        }
    }

    /// All extents that are due are read, offered or shipped.
    pub fn read_all(&mut self, index: usize) {
        for _ in 0..200 {
            self.next_job(index);
            self.read_step(index);
        }
    }

    /// One round of everything between source and replica.
    pub fn exchange(&mut self, index: usize) {
        self.read_all(index);
        self.ship_out(index);
        self.apply_all(index);
        self.hear(index);
    }

    /// The source's program is killed and started again, and the replicas connect.
    pub fn restart_source(&mut self, power: bool) {
        self.source_crashes(power);
        self.start_all();
    }

    /// A resync of this replica begins, which has a link.
    pub fn begin_resync(&mut self, index: usize) {
        self.tick(1);
        assert!(self.known(index).resync.is_some(), "no resync was due");
    }

    /// How many extents of the present resync are settled.
    pub fn offers_settled(&self, index: usize) -> u64 {
        let known = self.known(index);
        let total = known.resync.map_or(0, |resync| resync.total);
        total - known.dirty.count() - known.flight.len() as u64
    }
}
