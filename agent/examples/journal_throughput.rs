//! Measures the journal: sealed appends with group commit, then replay.
//!
//! ```text
//! cargo run --release -p vgship --example journal_throughput -- FOLDER
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use vgship::receive::journal::{Journal, JournalError};
use vgship_base::ids::{GroupId, Seq, VolumeId};
use vgship_base::io::RealFolder;
use vgship_base::record::{Body, Record, Target};
use vgship_snapshot::seal::DataKey;

const TOTAL: usize = 1 << 30;
const BATCH: usize = 1 << 20;
/// Batches between two flushes.
const COMMIT: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: journal_throughput FOLDER")?;
    for len in [64 << 10, 4 << 10] {
        measure(&folder, len)?;
    }
    Ok(())
}

fn measure(folder: &str, len: usize) -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir_in(folder)?;
    let folder = Arc::new(RealFolder::open(place.path())?);
    let key = DataKey::generate()?;
    let (mut journal, _) = Journal::recover(folder, &key, GroupId([1; 16]), Seq::ZERO)?;
    let data = Bytes::from((0..len).map(|at| at.to_le_bytes()[0]).collect::<Vec<u8>>());
    let mut seq = Seq::ZERO;
    let mut record = || {
        seq = seq.next();
        let body = Body::Write { volume: VolumeId(0), offset: 0, data: data.clone() };
        Record { seq, target: Target::All, body }
    };
    let batches: Vec<Vec<Record>> =
        (0..TOTAL / BATCH).map(|_| (0..BATCH / len).map(|_| record()).collect()).collect();

    let start = Instant::now();
    for (count, batch) in (1..).zip(&batches) {
        journal.append(batch, journal.durable())?;
        if count % COMMIT == 0 {
            journal.flush()?;
        }
    }
    journal.flush()?;
    tell(len, "append", start);

    let start = Instant::now();
    let records: Result<Vec<usize>, JournalError> =
        journal.replay(Seq::ZERO).map(|batch| batch.map(|records| records.len())).collect();
    assert_eq!(records?.iter().sum::<usize>(), TOTAL / len);
    tell(len, "replay", start);
    Ok(())
}

fn tell(len: usize, what: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let mib = u32::try_from(TOTAL >> 20).expect("a few GiB");
    println!("{len:>6} byte records: {what} {:.0} MiB/s", f64::from(mib) / seconds);
}
