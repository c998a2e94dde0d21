//! Snapshots of one image file, without an agent: taken, overwritten under, read, cloned, deleted.
//!
//! ```text
//! cargo run --release -p vgship-snapshot --example file_snapshots
//! ```

use std::error::Error;
use std::fs::File;
use std::sync::Arc;

use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Generation, GroupId, Seq, VolumeId};
use vgship_base::io::{FileDisk, RealFolder};
use vgship_base::layout::{Layout, VolumeLayout};
use vgship_base::units::Span;
use vgship_snapshot::overlay::Overlay;
use vgship_snapshot::seal::DataKey;
use vgship_snapshot::set::{NewSnapshot, Origin, Parts, Preserver, SnapshotSet};

const SIZE: u64 = 64 << 20;
const VOLUME: VolumeId = VolumeId(0);

fn main() -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir()?;
    let image = place.path().join("image");
    File::create(&image)?.set_len(SIZE)?;
    let volume: SharedDisk = Arc::new(FileDisk::open(&image)?);
    let volumes = vec![VolumeLayout { name: "image".parse()?, bytes: SIZE, masked: 0 }];
    let extent = ExtentSize::from_log2(16).ok_or("64 KiB is an extent's size")?;
    let set = SnapshotSet::open(Parts {
        folder: Arc::new(RealFolder::open(place.path().join("store"))?),
        keys: DataKey::generate()?.into(),
        group: GroupId([1; 16]),
        layout: Arc::new(Layout { extent, volumes }),
        volumes: vec![Arc::clone(&volume)],
        pack_bytes: None,
    })?;
    let mut preserver = Preserver::new(Arc::clone(&set), 2, Seq(0))?;

    // Each write has a number in one order; a snapshot stands behind one of them.
    write(&mut preserver, &*volume, Seq(1), b"first")?;
    let first = take(&mut preserver, Seq(2), "first")?;
    write(&mut preserver, &*volume, Seq(3), b"second")?;
    let second = take(&mut preserver, Seq(4), "second")?;
    write(&mut preserver, &*volume, Seq(5), b"third")?;

    // What was written up to a snapshot is on the volume: it can be read.
    volume.flush()?;
    set.settle(Seq(4));
    for name in [&first, &second] {
        let snapshot = set.find(name)?;
        let mut found = [0; 8];
        set.view(&snapshot)?.read(VOLUME, 0, &mut found)?;
        println!("{name:8} {:?}", String::from_utf8_lossy(&found));
    }

    // A clone can be written to, and its snapshot stays as it is.
    let base = set.view(&set.find(&first)?)?.volume(VOLUME).ok_or("the volume")?;
    let clones = Arc::new(RealFolder::open(place.path().join("clones"))?);
    let clone = Overlay::create(clones, "one", Arc::new(base))?;
    clone.write_at(0, b"mine")?;
    let mut found = [0; 8];
    clone.read_at(0, &mut found)?;
    let own = clone.written_bytes();
    println!("clone    {:?}, {own} bytes of its own", String::from_utf8_lossy(&found));

    println!("preserved: {} bytes", set.usage()?.live);
    drop(clone);
    for name in [first, second] {
        set.delete(&name)?;
    }
    while !set.sweep(1000)?.done {}
    println!("preserved after deleting both: {} bytes", set.usage()?.live);
    Ok(())
}

/// Keeps what the group holds behind record `seq`.
fn take(preserver: &mut Preserver, seq: Seq, name: &str) -> Result<String, Box<dyn Error>> {
    let taken = preserver.take(&NewSnapshot {
        seq,
        name: name.parse()?,
        origin: Origin::Manual,
        guards: false,
        quiesced: false,
        torn: false,
        clock: 0,
        taken: 0,
        generation: Generation([1; 16]),
        point: seq,
    })?;
    Ok(taken.ok_or("a snapshot of this record was taken before")?.name.to_string())
}

/// Writes record `seq` to the head of the volume: what a snapshot shares with it is preserved first.
fn write(
    preserver: &mut Preserver,
    volume: &dyn Disk,
    seq: Seq,
    data: &[u8],
) -> Result<(), Box<dyn Error>> {
    let written = [(VOLUME, Span::new(0, data.len() as u64))];
    let shared = preserver.shared(written.into_iter(), Seq(seq.0 - 1), seq)?;
    preserver.preserve(&shared)?;
    Ok(volume.write_at(0, data)?)
}
