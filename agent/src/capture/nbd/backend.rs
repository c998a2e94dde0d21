//! What the NBD server serves: the seam between the protocol and the sequencer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use vgship_base::disk::Allocation;

/// One volume that clients can read and write. Calls come from several threads at once.
///
/// The caller has checked every range against [`Export::bytes`].
pub trait Export: Send + Sync {
    /// Its size. Unit: bytes.
    fn bytes(&self) -> u64;

    /// Smallest size of a request, of which every range is a multiple. Unit: bytes, a power of two.
    /// Stays what it is for as long as a client is connected.
    fn min_block(&self) -> u32 {
        1
    }

    /// Best size of a request. Unit: bytes, a power of two.
    fn preferred_block(&self) -> u32 {
        4096
    }

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// Fills `into` from `offset`.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes `data`; with `durable` it survives a power cut once this has returned (FUA).
    fn write(&self, offset: u64, data: Bytes, durable: bool) -> io::Result<()>;

    /// Makes a range read as zero: WRITE_ZEROES and TRIM alike (R13).
    fn zero(&self, offset: u64, len: u64, durable: bool) -> io::Result<()>;

    /// Makes every write that completed before this call durable, whichever connection made it.
    fn flush(&self) -> io::Result<()>;

    /// The run from `offset` that is of one kind and where it ends, at most `end`.
    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)>;
}

/// All volumes that are served now.
pub trait Exports: Send + Sync {
    /// Their export names, `GROUP/VOLUME`, sorted.
    fn names(&self) -> Vec<String>;

    /// The volume of an export name.
    fn find(&self, name: &str) -> Option<Arc<dyn Export>>;
}
