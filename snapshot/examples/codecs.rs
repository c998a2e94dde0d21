//! Compresses files extent by extent with the codecs that preserved extents could have.
//!
//! ```text
//! cargo run --release -p vgship-snapshot --example codecs -- FILE...
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

/// Extents as the agent has them by default. Unit: bytes.
const EXTENT: usize = 64 << 10;

/// Compresses one extent.
type Pack = fn(&[u8]) -> Vec<u8>;
/// Expands it again, knowing its length.
type Unpack = fn(&[u8], usize) -> Vec<u8>;

const CODECS: [(&str, Pack, Unpack); 3] = [
    ("lz4", lz4_flex::block::compress, |packed, len| {
        lz4_flex::block::decompress(packed, len).expect("it was compressed")
    }),
    ("zstd -1", |content| zstd(content, 1), unzstd),
    ("zstd -3", |content| zstd(content, 3), unzstd),
];

fn zstd(content: &[u8], level: i32) -> Vec<u8> {
    zstd::bulk::compress(content, level).expect("memory is enough")
}

fn unzstd(packed: &[u8], len: usize) -> Vec<u8> {
    zstd::bulk::decompress(packed, len).expect("it was compressed")
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<24} {:<8} {:>8} {:>10} {:>10}", "file", "codec", "size", "pack", "unpack");
    for path in std::env::args().skip(1) {
        let content = std::fs::read(&path)?;
        for (name, pack, unpack) in CODECS {
            let (mut bytes, mut packing, mut unpacking) = (0, Duration::ZERO, Duration::ZERO);
            for extent in content.chunks(EXTENT) {
                let begun = Instant::now();
                let packed = pack(extent);
                packing += begun.elapsed();
                bytes += packed.len().min(extent.len());
                let begun = Instant::now();
                let found = unpack(&packed, extent.len());
                unpacking += begun.elapsed();
                assert!(found == extent, "{name} gives something else");
            }
            // Bytes in a microsecond are megabytes in a second.
            let speed = |time: Duration| content.len() as u128 / time.as_micros().max(1);
            let size = bytes * 100 / content.len().max(1);
            println!(
                "{:<24} {name:<8} {size:>6} % {:>5} MB/s {:>5} MB/s",
                path.rsplit('/').next().unwrap_or(&path),
                speed(packing),
                speed(unpacking)
            );
        }
    }
    Ok(())
}
