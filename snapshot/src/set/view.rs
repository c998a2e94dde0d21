//! A snapshot, read. Goes on reading the same while the volumes are written.

use std::io;
use std::sync::Arc;

use vgship_base::disk::{Allocation, Disk};
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::units::Span;

use super::SnapshotSet;
use crate::SnapshotError;
use crate::catalog::Before;

/// How often a read is tried again when the extent was preserved while it was being read, or its
/// content moved. Each time is a write of that extent; one is preserved once per snapshot.
const TRIES: usize = 100;

/// A snapshot that can be read.
#[derive(Clone)]
pub struct View {
    set: Arc<SnapshotSet>,
    seq: Seq,
    layout: Arc<Layout>,
}

impl View {
    pub(super) fn new(set: Arc<SnapshotSet>, seq: Seq, layout: Arc<Layout>) -> View {
        View { set, seq, layout }
    }

    /// Its volumes.
    pub const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// One of its volumes, as a disk that refuses writes.
    pub fn volume(&self, id: VolumeId) -> Option<ViewDisk> {
        let bytes = self.layout.volume(id)?.bytes;
        Some(ViewDisk { view: self.clone(), volume: id, bytes })
    }

    /// Fills `into` with what the volume held from `offset`.
    ///
    /// # Panics
    /// When that lies outside the volume.
    pub fn read(
        &self,
        volume: VolumeId,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), SnapshotError> {
        let span = Span::new(offset, into.len() as u64);
        let known = self.layout.volume(volume).map_or(0, |it| it.bytes);
        assert!(span.within(known), "a read outside the snapshot's volume");
        let size = self.layout.extent;
        let (first, end) = size.touched(span);
        let mut left: Vec<u64> = (first..end).collect();
        for _ in 0..TRIES {
            let before = self.set.catalog.befores(volume, first, end, self.seq)?;
            let mut again = Vec::new();
            for &index in &left {
                let extent = size.span(index, known);
                let run = extent.common(span);
                let part = &mut into[place(run.offset - offset)..place(run.end() - offset)];
                let found =
                    before.binary_search_by_key(&index, |it| it.0).ok().map(|at| before[at].1);
                if !self.read_extent(volume, found, extent, run, part)? {
                    again.push(index);
                }
            }
            // What had no before-image was read from the volume. A before-image is noted before the
            // volume is written: where there is none now either, what was read is the snapshot's.
            let live: Vec<u64> =
                left.iter().copied().filter(|index| !has(&before, *index)).collect();
            if !live.is_empty() {
                let now = self.set.catalog.befores(volume, first, end, self.seq)?;
                again.extend(live.into_iter().filter(|index| has(&now, *index)));
            }
            if again.is_empty() {
                return Ok(());
            }
            left = again;
        }
        Err(SnapshotError::Foreign("changes all the time: is it open twice?".into()))
    }

    /// Reads a run of an extent from its before-image, or from the volume. `false` when its content
    /// is not where it was said to be.
    fn read_extent(
        &self,
        volume: VolumeId,
        before: Option<Before>,
        extent: Span,
        run: Span,
        into: &mut [u8],
    ) -> Result<bool, SnapshotError> {
        match before {
            None => {
                let disk = &self.set.volumes[volume.index()];
                disk.read_at(run.offset, into).map_err(|source| {
                    let index = self.layout.extent.touched(run).0;
                    let extent = vgship_base::extent::Extent { volume, index };
                    SnapshotError::Volume { extent, source }
                })?;
            }
            Some(Before::Zeroes) => into.fill(0),
            Some(Before::Content(id)) => {
                let Some(content) = self.set.content(id)? else { return Ok(false) };
                let from = place(run.offset - extent.offset);
                // Longer when the volume has grown since, never shorter.
                into.copy_from_slice(&content[from..from + into.len()]);
            }
        }
        Ok(true)
    }

    /// The run from `offset` that is of one kind, as far as is known without reading.
    fn allocation(
        &self,
        volume: VolumeId,
        offset: u64,
        end: u64,
    ) -> Result<(Allocation, u64), SnapshotError> {
        let (size, disk) = (self.layout.extent, &self.set.volumes[volume.index()]);
        // The volume first: what it lost since, or while it was asked, had its before-image noted
        // by then. And no more rows are looked at than this run has. It gives advice: where that
        // cannot be had, all is data.
        let (kind, run) = disk.allocation(offset, end).unwrap_or((Allocation::Data, end));
        let (first, last) = size.touched(Span::new(offset, run - offset));
        let next = self.set.catalog.next_before(volume, first, last, self.seq)?;
        let border = next.map_or(run, |index| (index << size.log2()).clamp(offset, run));
        if border > offset {
            return Ok((kind, border));
        }
        let before = self.set.catalog.befores(volume, first, first + 1, self.seq)?;
        let kind = match before.first() {
            Some((_, Before::Zeroes)) => Allocation::Hole,
            _ => Allocation::Data,
        };
        Ok((kind, ((first + 1) << size.log2()).min(end)))
    }
}

fn has(before: &[(u64, Before)], index: u64) -> bool {
    before.binary_search_by_key(&index, |it| it.0).is_ok()
}

fn place(value: u64) -> usize {
    usize::try_from(value).expect("within a buffer")
}

/// One volume of a snapshot, as a disk that refuses writes.
#[derive(Clone)]
pub struct ViewDisk {
    view: View,
    volume: VolumeId,
    bytes: u64,
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a snapshot is never written")
}

impl Disk for ViewDisk {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if !Span::new(offset, into.len() as u64).within(self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.view.read(self.volume, offset, into).map_err(io::Error::other)
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let end = end.min(self.bytes);
        if offset >= end {
            return Ok((Allocation::Data, end));
        }
        self.view.allocation(self.volume, offset, end).map_err(io::Error::other)
    }
}
