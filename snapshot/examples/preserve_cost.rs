//! What it costs in memory to preserve, without an agent: so many different extents of 4 KiB are
//! preserved, each of which takes as much memory as one of 64 KiB.
//!
//! ```text
//! cargo run --release -p vgship-snapshot --example preserve_cost -- STORE EXTENTS
//! ```
//!
//! The volume is made up and need not exist. The store must be empty.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, GroupId, Seq, VolumeId};
use vgship_base::io::RealFolder;
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::units::Span;
use vgship_snapshot::seal::DataKey;
use vgship_snapshot::set::{NewSnapshot, Origin, Parts, Preserver, SnapshotSet};

/// Unit: bytes.
const EXTENT: u64 = 4 << 10;
/// Extents that are preserved at once.
const BATCH: u64 = 2048;

/// Extents that differ in their first bytes.
struct MadeUp(u64);

impl Disk for MadeUp {
    fn len(&self) -> u64 {
        self.0 * EXTENT
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        into[..8].copy_from_slice(&(offset / EXTENT + 1).to_be_bytes());
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(store), Some(extents)) = (args.next(), args.next()) else {
        return Err("give STORE EXTENTS".into());
    };
    let disk = MadeUp(extents.parse()?);
    let extents = disk.0;
    let volumes = vec![VolumeLayout { name: "image".parse()?, bytes: disk.len(), masked: 0 }];
    let extent = ExtentSize::from_log2(12).ok_or("4 KiB is an extent's size")?;
    let set = SnapshotSet::open(Parts {
        folder: Arc::new(RealFolder::open(&store)?),
        keys: DataKey::generate()?.into(),
        group: GroupId([1; 16]),
        layout: Arc::new(Layout { extent, volumes }),
        volumes: vec![Arc::new(disk) as SharedDisk],
        pack_bytes: None,
    })?;
    let mut preserver = Preserver::new(Arc::clone(&set), 2, Seq(0))?;
    preserver.take(&NewSnapshot {
        seq: Seq(1),
        name: "one".parse()?,
        origin: Origin::Manual,
        guards: false,
        quiesced: false,
        torn: false,
        clock: 0,
        taken: 0,
        generation: Generation([1; 16]),
        point: Seq(1),
    })?;
    let begun = Instant::now();
    for (seq, first) in (1..).zip((0..extents).step_by(usize::try_from(BATCH)?)) {
        let count = BATCH.min(extents - first);
        let written = [(VolumeId(0), Span::new(first * EXTENT, count * EXTENT))];
        let shared = preserver.shared(written.into_iter(), Seq(seq), Seq(seq + 1))?;
        preserver.preserve(&shared)?;
        if (first / BATCH + 1).is_multiple_of(128) || first + count == extents {
            let millis = begun.elapsed().as_millis();
            let (now, most) = (memory("VmRSS")?, memory("VmHWM")?);
            println!("{:>9} extents, {millis} ms: {now} KiB, {most} at most", first + count);
        }
    }
    Ok(())
}

/// What the system says of this process's memory. Unit: KiB.
fn memory(field: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).ok_or("the field")?;
    Ok(line.split_whitespace().nth(1).ok_or("a number")?.parse()?)
}
