//! Steps of the self-check, and what it is there for: writes past all order.

use vgship::apply::compare::content_hash;
use vgship_base::disk::Disk;
use vgship_base::extent::Extent;
use vgship_base::ids::VolumeId;
use vgship_base::units::Span;

use super::source::Checking;
use super::{World, id_of};

/// Rounds of a walk over everything that end a pass: the first may have begun in the middle.
const PASS: u64 = 2;

impl World {
    /// The self-check takes up the next extent.
    pub fn next_check(&mut self, index: usize) {
        if !self.up() || self.life().lanes[index].checking.is_some() {
            return;
        }
        let next = self.life().source.next_check(id_of(index));
        let checking = next.map(|(extent, version)| Checking { extent, version, bytes: None });
        self.life().lanes[index].checking = checking;
    }

    /// The extent is read, or the question put.
    pub fn check_step(&mut self, index: usize) {
        if !self.up() {
            return;
        }
        let Some(mut checking) = self.life().lanes[index].checking.take() else { return };
        let id = id_of(index);
        let Some(bytes) = checking.bytes.take() else {
            checking.bytes = self.read(index, checking.extent);
            match checking.bytes {
                Some(_) => self.life().lanes[index].checking = Some(checking),
                None => self.life().source.uncheckable(id),
            }
            return;
        };
        let before = self.look();
        let passed = self.known(index).checks.report().passed_over;
        let hash = content_hash(&bytes);
        self.life().source.check(id, checking.extent, checking.version, hash);
        self.note_overflow(&before);
        if self.known(index).checks.report().passed_over > passed {
            self.coverage.hit("self-check passed over an extent that is written all the time");
        }
    }

    /// The self-check reported a difference: there must be one.
    pub(super) fn mismatch(&mut self, index: usize, extent: Extent) {
        self.trace(|| format!("self-check: {extent:?} differs on replica {index}"));
        self.coverage.hit("self-check: mismatch");
        let known = self.strays[index].contains(&(extent.volume, extent.index));
        assert!(known, "false alarm: {extent:?} was the same on source and replica {index}");
    }

    /// Somebody writes into a volume past the agents: the replica's, or the source's.
    pub(super) fn stray_write(&mut self, index: usize) -> bool {
        let ours = self.rng.one_in(3);
        let up = if ours { self.up() } else { self.replica_up(index) };
        if !up {
            return false;
        }
        let ids: Vec<VolumeId> = self.layout.ids().collect();
        let volume = ids[self.rng.index(ids.len())];
        let bytes = self.layout.volume(volume).expect("it was listed").bytes;
        let span = Span::new(self.rng.below(bytes / 512) * 512, 512);
        let content = [self.rng.draw().to_be_bytes()[0]; 512];
        let host = &self.replicas[index];
        let disks = if ours { &self.source.disks } else { &host.disks };
        if disks[volume.index()].write_at(span.offset, &content).is_err() {
            return false;
        }
        let (first, end) = self.layout.extent.touched(span);
        let places = (first..end).map(|extent| (volume, extent));
        if ours {
            (0..self.strays.len()).for_each(|index| self.note_strays(index, places.clone()));
            self.promises.begins(volume, span);
            self.reread(volume);
        } else {
            self.note_strays(index, places);
        }
        self.coverage.hit(if ours { "stray write on the source" } else { "stray write" });
        true
    }

    /// Whether the self-check has nothing more to find: asked again and again, with everything else
    /// at rest.
    pub(super) fn checked_through(&mut self, goals: &mut Vec<(u64, u64)>) -> bool {
        let reports: Vec<_> =
            (0..self.replicas.len()).map(|index| self.known(index).checks.report()).collect();
        let now: Vec<(u64, u64)> =
            reports.iter().map(|report| (report.rounds + PASS, report.mismatches)).collect();
        let found = goals.len() != now.len()
            || goals.iter().zip(&now).any(|(goal, now)| goal.1 != now.1 || goal.0 > now.0);
        if found {
            *goals = now; // the first look, or something was found, or the source began anew
            return false;
        }
        let quiet = |index: usize| self.known(index).checks.is_quiet();
        goals.iter().zip(&reports).all(|(goal, report)| report.rounds >= goal.0)
            && (0..self.replicas.len()).all(quiet)
    }
}
