//! What making a template costs, without an agent: time, room, and the memory of the process.
//!
//! ```text
//! cargo run --release -p vgship-snapshot --example template_cost -- STORE NAME FILE
//! cargo run --release -p vgship-snapshot --example template_cost -- STORE NAME CHUNKS FIRST
//! ```
//!
//! The second form makes up a volume of so many different chunks of 4 KiB, numbered from FIRST on:
//! a chunk costs as much memory as one of 256 KiB, and the volume need not exist. Run again under
//! another NAME, it begins with reading what the store holds.

use std::error::Error;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, GroupId, Seq};
use vgship_base::io::FileDisk;
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_snapshot::seal::DataKey;
use vgship_snapshot::template::{
    self, CHUNK_LOG2_DEFAULT, Facts, LocalObjects, Meta, Progress, SourcePoint,
};

/// Of made-up chunks. Unit: bytes.
const CHUNK: usize = 4 << 10;

/// Chunks that differ in their first bytes.
struct MadeUp {
    first: u64,
    chunks: u64,
}

impl Disk for MadeUp {
    fn len(&self) -> u64 {
        self.chunks * CHUNK as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        for (chunk, number) in into.chunks_mut(CHUNK).zip(offset / CHUNK as u64..) {
            chunk[..8].copy_from_slice(&(self.first + number + 1).to_be_bytes());
        }
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
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (disk, log2): (SharedDisk, u8) = match &args[..] {
        [_, _, file] => (Arc::new(FileDisk::open(Path::new(file))?), CHUNK_LOG2_DEFAULT),
        [_, _, chunks, first] => {
            (Arc::new(MadeUp { chunks: chunks.parse()?, first: first.parse()? }), 12)
        }
        _ => return Err("give STORE NAME FILE, or STORE NAME CHUNKS FIRST".into()),
    };
    let store = LocalObjects::open(&args[0])?;
    let volume = VolumeLayout { name: "image".parse()?, bytes: disk.len(), masked: 0 };
    let extent = ExtentSize::from_log2(16).ok_or("64 KiB is an extent's size")?;
    let layout = Layout { extent, volumes: vec![volume] };
    let meta = Meta {
        created: 0,
        source: SourcePoint {
            group: GroupId([1; 16]),
            group_name: "image".parse()?,
            generation: Generation([1; 16]),
            seq: Seq(1),
            clock: 0,
        },
        chunk: ExtentSize::from_log2(log2).ok_or("a chunk's size")?,
        facts: Facts::new(),
        volumes: vec![Facts::new()],
    };
    // Always the same, so that the next run knows what this one stored. Nothing is kept secret here.
    let key = DataKey::from_bytes([1; 32]);
    let go_on = &mut |_: &Progress| ControlFlow::Continue(());
    let before = memory("VmRSS")?;
    let begun = Instant::now();
    let made =
        template::create(&store, &key, &args[1].parse()?, &[disk], &layout, &meta, go_on)?.progress;
    let millis = begun.elapsed().as_millis().max(1);
    // Bytes in a millisecond are thousandths of megabytes in a second.
    println!("{millis} ms, {} MB/s", u128::from(made.of) / millis / 1000);
    println!("{} bytes of data, {} stored", made.data, made.stored);
    println!("memory: {before} KiB before, {} KiB at most", memory("VmHWM")?);
    Ok(())
}

/// What the system says of this process's memory. Unit: KiB.
fn memory(field: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).ok_or("the field")?;
    Ok(line.split_whitespace().nth(1).ok_or("a number")?.parse()?)
}
