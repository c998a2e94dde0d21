//! The catalogue's file: redb's storage over the disk seam, so that it runs on simulated disks.
//!
//! redb writes its first page in place, both of its commit slots with it, and trusts the disk not
//! to garble the rest of a sector when power fails. Nothing else of ours does. So the first page
//! lies in two places, which are written in turn, each proven by a checksum; before a flush it is
//! in memory alone. A cut leaves the page as of this flush or as of the one before, which is what
//! redb counts on. All other pages it writes where nothing is that counts.
//!
//! redb takes whatever it reads for what it wrote, and panics or gives another row where that is not
//! so. So every page has a checksum beside it, in a block that no other page shares, since a disk may
//! lose a whole block of 4 KiB; and one that is not as it was written is an error.
//!
//! ```text
//! at     size  field    unit    rule
//!     0  8192  place 0  -       below
//!  8192  8192  place 1  -       below
//! 16384     -  cells    -       one for each of redb's pages, from its second on
//!
//! a cell:
//!     0  4096  page     -       redb's
//!  4096     4  crc      CRC-32C of the page and its number (8 bytes), the first page's being 0
//!  4100  4092  zero     -       0
//!
//! a place:
//!     0     4  magic    -       the letters VGCT
//!     4     2  version  -       3
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
const VERSION: u16 = 3;
/// redb's page. Unit: bytes.
const PAGE: usize = 4096;
const PLACE: u64 = 8192;
const PLACE_LEN: usize = 16 + PAGE + 4;
/// A page with its checksum. Unit: bytes.
const CELL: usize = 2 * PAGE;
/// Where cells begin. Unit: bytes.
const CELLS: u64 = 2 * PLACE;

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

    /// Reads whole pages, none of them the first.
    fn read_pages(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        let mut cells = vec![0; out.len() / PAGE * CELL];
        self.disk.read_at(cell_at(first), &mut cells)?;
        for ((number, cell), out) in (first..).zip(cells.chunks(CELL)).zip(out.chunks_mut(PAGE)) {
            let (page, crc) = cell.split_at(PAGE);
            if crc[..4] != sum(number, page) || crc[4..].iter().any(|&byte| byte != 0) {
                let text = format!(
                    "its page {number} is not as it was written: the file is damaged; with the \
                     store's folder moved away the replica goes on, without its snapshots (not \
                     while its volumes are rolled back)"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            out.copy_from_slice(page);
        }
        Ok(())
    }

    fn first(&self) -> MutexGuard<'_, First> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the cell of a page lies. Unit: bytes.
const fn cell_at(number: u64) -> u64 {
    CELLS + (number - 1) * CELL as u64
}

fn sum(number: u64, page: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(page), &number.to_be_bytes()).to_be_bytes()
}

/// The number of the page that begins at `offset`.
fn page_at(offset: u64, len: usize) -> io::Result<u64> {
    if offset.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE) {
        return Ok(offset / PAGE as u64);
    }
    let text = format!("{len} bytes at {offset} are no whole pages");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
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
    require("version", version, "3", version == VERSION)?;
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
        let cells = self.disk.len().checked_sub(CELLS).map(|bytes| bytes / CELL as u64);
        Ok(cells.map_or(0, |cells| (1 + cells) * PAGE as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (run, taken) = split(offset, out.len());
        if taken > 0 {
            out[..taken].copy_from_slice(&self.first().page[run]);
        }
        if taken == out.len() {
            return Ok(());
        }
        let out = &mut out[taken..];
        self.read_pages(page_at(offset + taken as u64, out.len())?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let cells = (len / PAGE as u64).saturating_sub(1);
        self.disk.set_len(CELLS + cells * CELL as u64)
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

    /// Puts the first page into both places, so that damage to one, of which it cannot be told
    /// whether a cut did it, takes nothing back.
    fn close(&self) -> io::Result<()> {
        let mut first = self.first();
        if first.changed || first.number == 0 {
            return Ok(()); // a flush failed, or there was none
        }
        first.changed = true;
        drop(first);
        self.sync_data()
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
        let first = page_at(offset + taken as u64, data.len() - taken)?;
        let mut cells = Vec::with_capacity((data.len() - taken) / PAGE * CELL);
        for (number, page) in (first..).zip(data[taken..].chunks(PAGE)) {
            let end = cells.len() + CELL;
            cells.extend_from_slice(page);
            cells.extend_from_slice(&sum(number, page));
            cells.resize(end, 0);
        }
        self.disk.write_at(cell_at(first), &cells)
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
            hex_literal::hex!("56474354" "0003" "0000" "0000000000000102" "01 07")
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
                file.write(0, &[fill; 2 * PAGE]).unwrap();
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
            let now = found[0];
            assert!(now == flushed || now == 5, "seed {seed}: {now} of {flushed}, {tried:?}");
            assert_eq!(found, [now; 300], "seed {seed}");
        }
    }

    #[test]
    fn a_page_has_its_checksum_beside_it() {
        let disk = SimDisk::file(&Power::default());
        let file = Backend::open(Box::new(disk.clone())).unwrap();
        file.set_len(4 * PAGE as u64).unwrap();
        file.write(PAGE as u64, &[[7; PAGE], [8; PAGE]].concat()).unwrap();
        file.sync_data().unwrap();
        let bytes = disk.live();
        assert_eq!(bytes.len(), 16_384 + 3 * 8192);
        let second = &bytes[16_384 + 8192..][..8192];
        assert_eq!(second[..4096], [8; 4096]);
        // By an independent program, of 4096 times 08 and 0000000000000002.
        assert_eq!(second[4096..4100], hex_literal::hex!("cf2e06cd"));
        assert_eq!(second[4100..], [0; 4092]);

        let mut found = [0; PAGE];
        file.read(2 * PAGE as u64, &mut found).unwrap();
        assert_eq!(found, [8; PAGE]);
        for at in [0, 4095, 4096, 4099, 4100, 8191] {
            let at = 16_384 + 8192 + at;
            let place = u64::try_from(at).unwrap();
            disk.write_at(place, &[bytes[at] ^ 1]).unwrap();
            let error = file.read(2 * PAGE as u64, &mut found).unwrap_err();
            assert!(error.to_string().contains("page 2 is not as it was written"), "{error}");
            disk.write_at(place, &[bytes[at]]).unwrap();
        }
        let moved = bytes[16_384..][..8192].to_vec();
        disk.write_at(16_384 + 8192, &moved).unwrap();
        assert!(file.read(2 * PAGE as u64, &mut found).is_err(), "it belongs elsewhere");
        assert!(file.read(PAGE as u64, &mut found).is_ok());
        assert!(file.read(3 * PAGE as u64, &mut found).is_err(), "it was never written");
        assert!(file.write(PAGE as u64 + 1, &found).is_err(), "whole pages alone");
    }

    #[test]
    fn after_a_close_either_place_will_do() {
        let disk = SimDisk::file(&Power::default());
        let file = Backend::open(Box::new(disk.clone())).unwrap();
        for fill in [1, 2] {
            file.write(0, &[fill; PAGE]).unwrap();
            file.sync_data().unwrap();
        }
        file.close().unwrap();
        for place in [0, PLACE] {
            let byte = disk.live()[usize::try_from(place).unwrap() + 99];
            disk.write_at(place + 99, &[byte ^ 1]).unwrap();
            let mut found = [0; PAGE];
            Backend::open(Box::new(disk.clone())).unwrap().read(0, &mut found).unwrap();
            assert_eq!(found, [2; PAGE], "place at {place}");
            disk.write_at(place + 99, &[byte]).unwrap();
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let disk = SimDisk::file(&Power::default());
        disk.write_at(0, &vec![1; 40_000]).unwrap();
        assert!(Backend::open(Box::new(disk)).is_err());
    }
}
