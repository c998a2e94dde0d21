//! A snapshot's volume for those who read it for long: it outlives the engine, which is opened
//! again after a failure.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vgship_base::disk::{Allocation, Disk};
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_snapshot::set::View;

use super::reading::Reading;

/// How long a read waits for a replica that is being opened.
const PATIENCE: Duration = Duration::from_secs(30);

const LOOK: Duration = Duration::from_millis(20);

/// One volume of a snapshot, whichever engine serves it now. Refuses writes.
#[derive(Clone)]
pub(in crate::pipeline) struct LiveVolume {
    reading: Arc<Reading>,
    seq: Seq,
    layout: Arc<Layout>,
    volume: VolumeId,
    bytes: u64,
}

impl LiveVolume {
    /// All volumes of the snapshot of `seq`, which somebody holds.
    pub(in crate::pipeline) fn all(
        reading: &Arc<Reading>,
        seq: Seq,
        layout: &Arc<Layout>,
    ) -> Vec<LiveVolume> {
        let volume = |volume: VolumeId| LiveVolume {
            reading: Arc::clone(reading),
            seq,
            layout: Arc::clone(layout),
            volume,
            bytes: layout.volumes[volume.index()].bytes,
        };
        layout.ids().map(volume).collect()
    }

    fn view(&self) -> io::Result<View> {
        let since = Instant::now();
        loop {
            match self.reading.snapshots() {
                Ok(set) => return Ok(set.view_at(self.seq, Arc::clone(&self.layout))),
                Err(why) if since.elapsed() >= PATIENCE => {
                    let text = format!("the group's snapshots cannot be read: {why}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a snapshot is never written")
}

impl Disk for LiveVolume {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let volume = self.view()?.volume(self.volume).ok_or(io::ErrorKind::NotFound)?;
        volume.read_at(offset, into)
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
        let volume = self.view()?.volume(self.volume).ok_or(io::ErrorKind::NotFound)?;
        volume.allocation(offset, end)
    }
}
