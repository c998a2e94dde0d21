//! The catalogue's file: redb's storage over the disk seam, so that it runs on simulated disks.
//!
//! redb writes its first page in place, both of its commit slots with it, and trusts the disk not
//! to garble the rest of a sector when power fails. Nothing else of ours does. So the first page
//! lies in two places, which are written in turn, each proven by a checksum; before a flush it is
//! in memory alone. A cut leaves the page as of this flush or as of the one before, which is what
//! redb counts on. All other pages it writes where nothing is that counts.
//!
//! ```text
//! at     size  field    unit    rule
//!     0  8192  place 0  -       below
//!  8192  8192  place 1  -       below
//! 16384     -  pages    -       redb's, from its second page on
//!
//! a place:
//!     0     4  magic    -       the letters VGCT
//!     4     2  version  -       1
//!     6     2  zero     -       0
//!     8     8  number   -       one more for each flush; the higher counts
//!    16  4096  page     -       redb's first
//!  4112     4  crc      CRC-32C of all before
//! ```
//!
//! Integers are big-endian; pages are redb's, which are little-endian.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};
use vgship_base::disk::Disk;

const MAGIC: [u8; 4] = *b"VGCT";
const VERSION: u16 = 1;
/// redb's page. Unit: bytes.
const PAGE: usize = 4096;
const PLACE: u64 = 8192;
const PLACE_LEN: usize = 16 + PAGE + 4;
/// How much further on the other pages lie than redb thinks. Unit: bytes.
const SHIFT: u64 = 2 * PLACE - PAGE as u64;

/// A file of the folder seam as redb wants it.
pub(super) struct Backend {
    disk: Box<dyn Disk>,
    first: Mutex<First>,
}

/// The first page.
struct First {
    page: Box<[u8; PAGE]>,
    /// Of the place that holds it.
    number: u64,
    changed: bool,
}

impl Backend {
    /// Over a file, which may be empty.
    pub(super) fn open(disk: Box<dyn Disk>) -> io::Result<Backend> {
        let mut found = First { page: Box::new([0; PAGE]), number: 0, changed: false };
        for place in [0, PLACE] {
            let mut bytes = vec![0; PLACE_LEN];
            if disk.len() >= place + PLACE_LEN as u64 {
                disk.read_at(place, &mut bytes)?;
            }
            if let Ok((number, page)) = decode(&bytes)
                && number > found.number
            {
                found = First { page, number, changed: false };
            }
        }
        if found.number == 0 && !disk.is_empty() {
            let text = "neither of the two places of its first page is whole";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Backend { disk, first: Mutex::new(found) })
    }

    fn first(&self) -> MutexGuard<'_, First> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(number: u64, page: &[u8; PAGE]) -> Vec<u8> {
    let mut out = Writer::with_capacity(PLACE_LEN);
    out.put(&MAGIC).u16(VERSION).u16(0).u64(number).put(page);
    with_checksum(out)
}

fn decode(bytes: &[u8]) -> Result<(u64, Box<[u8; PAGE]>), FormatError> {
    let mut from = checked(bytes)?;
    if from.array("magic")? != MAGIC {
        return Err(FormatError::Magic { expected: "VGCT" });
    }
    let (version, zero) = (from.u16("version")?, from.u16("zero")?);
    require("version", version, "1", version == VERSION)?;
    require("zero", zero, "0", zero == 0)?;
    let (number, page) = (from.u64("number")?, from.array("page")?);
    from.finish()?;
    Ok((number, Box::new(page)))
}

/// The part of `len` bytes from `offset` that lies in the first page.
fn split(offset: u64, len: usize) -> (std::ops::Range<usize>, usize) {
    let start = usize::try_from(offset).unwrap_or(PAGE).min(PAGE);
    let end = start.saturating_add(len).min(PAGE);
    (start..end, end - start)
}

impl fmt::Debug for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Backend({} bytes)", self.disk.len())
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.len().saturating_sub(SHIFT))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (run, taken) = split(offset, out.len());
        if taken > 0 {
            out[..taken].copy_from_slice(&self.first().page[run]);
        }
        if taken == out.len() {
            return Ok(());
        }
        self.disk.read_at(offset + taken as u64 + SHIFT, &mut out[taken..])
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len + SHIFT)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut first = self.first();
        if first.changed {
            let number = first.number + 1;
            self.disk.write_at(number % 2 * PLACE, &encode(number, &first.page))?;
            first.number = number;
        }
        self.disk.flush()?;
        first.changed = false;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (run, taken) = split(offset, data.len());
        if taken > 0 {
            let mut first = self.first();
            first.page[run].copy_from_slice(&data[..taken]);
            first.changed = true;
        }
        if taken == data.len() {
            return Ok(());
        }
        self.disk.write_at(offset + taken as u64 + SHIFT, &data[taken..])
    }
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, Rng, SimDisk};

    use super::*;

    #[test]
    fn a_place_is_laid_out_as_the_table_says() {
        let mut page = [7; PAGE];
        page[0] = 1;
        let bytes = encode(0x0102, &page);
        assert_eq!(
            bytes[..18],
            hex_literal::hex!("56474354" "0001" "0000" "0000000000000102" "01 07")
        );
        assert_eq!(bytes.len(), PLACE_LEN);
        assert_eq!(decode(&bytes).unwrap(), (0x0102, Box::new(page)));
        for at in [0, 5, 7, 15, 16, 4111, 4115] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(decode(&bytes).is_err(), "byte {at}");
        }
    }

    /// Goal: after a cut the first page is as of the last flush, or as it was written since and
    /// about to be flushed; never a mixture, never garbled.
    #[test]
    fn a_cut_leaves_the_first_page_as_of_a_flush() {
        for seed in 0..60 {
            let (power, mut rng) = (Power::default(), Rng::new(seed));
            let disk = SimDisk::file(&power);
            let open = || Backend::open(Box::new(disk.clone())).unwrap();
            let file = open();
            file.set_len(3 * PAGE as u64).unwrap();
            let mut flushed = 0;
            for fill in 1..6u8 {
                file.write(100, &[fill; 5000]).unwrap();
                if rng.one_in(2) {
                    file.sync_data().unwrap();
                    flushed = fill;
                }
            }
            if flushed == 0 {
                continue;
            }
            power.fail_after(1 + u32::try_from(rng.below(2)).unwrap());
            let tried = file.sync_data();
            disk.power_cut(&mut rng);
            power.restore();
            let mut found = [0; 300];
            open().read(0, &mut found).unwrap();
            assert_eq!(found[..100], [0; 100]);
            let now = found[100];
            assert!(now == flushed || now == 5, "seed {seed}: {now} of {flushed}, {tried:?}");
            assert_eq!(found[100..], [now; 200], "seed {seed}");
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let disk = SimDisk::file(&Power::default());
        disk.write_at(0, &vec![1; 40_000]).unwrap();
        assert!(Backend::open(Box::new(disk)).is_err());
    }
}
