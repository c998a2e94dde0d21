//! The seam to disks: whatever holds bytes at offsets and can be flushed.

use std::io;
use std::sync::Arc;

/// Whether a run of a volume is known to hold nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// May hold anything.
    Data,
    /// Reads as zero and takes no room.
    Hole,
}

/// Something that holds bytes at offsets: an image, an LV, a journal segment, a simulated disk.
///
/// Shape:   calls may come from several threads; runs that overlap are the caller's to order.
/// Durable: what was written before [`Disk::flush`] began survives a power cut once it returned.
pub trait Disk: Send + Sync {
    /// Its size. Unit: bytes.
    fn len(&self) -> u64;

    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` from `offset`; an error when the disk ends before that.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`. Files grow, volumes refuse.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes a run read as zero, giving its room back where the disk can.
    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a file shorter, or longer by zeroes. Volumes refuse.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let _ = len;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes all earlier writes durable. After an error nothing is known of them.
    fn flush(&self) -> io::Result<()>;

    /// Forgets what is cached, so that reading shows what is stored: for after a failed flush.
    fn forget_cache(&self) {}

    /// The run from `offset` that is of one kind: the kind and where it ends, at most `end`.
    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let _ = offset;
        Ok((Allocation::Data, end))
    }
}

/// A disk that several owners share.
pub type SharedDisk = Arc<dyn Disk>;

/// Zeroes by writing, for disks that have nothing better.
pub fn zero_by_writing(disk: &(impl Disk + ?Sized), offset: u64, len: u64) -> io::Result<()> {
    const ZEROES: &[u8] = &[0; 64 << 10];
    let mut done = 0;
    while done < len {
        let step = (len - done).min(ZEROES.len() as u64);
        disk.write_at(offset + done, &ZEROES[..usize::try_from(step).unwrap_or(ZEROES.len())])?;
        done += step;
    }
    Ok(())
}
