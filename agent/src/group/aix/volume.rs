//! An LV of an AIX VG as a disk: reads one good copy, writes all.

use std::collections::BTreeSet;
use std::io;

use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::units::Span;

use super::assemble::{Lv, LvState, Vg};
use super::place::{MirrorCopy, Run, runs};

/// Letters at the beginning of an LV that say that its first block belongs to LVM.
const CONTROL_BLOCK: &[u8; 8] = b"AIX LVCB";
/// Length of that block. Unit: bytes.
const CONTROL_BLOCK_BYTES: u32 = 512;

/// An LV over the disks of its VG.
///
/// Durable: a flush flushes every disk that holds a partition of it.
pub struct AixVolume {
    bytes: u64,
    runs: Vec<Run>,
    disks: Vec<SharedDisk>,
}

impl AixVolume {
    /// The LV as a disk, or the reason why it is not served.
    pub fn open(vg: &Vg, lv: &Lv) -> Result<AixVolume, String> {
        match &lv.state {
            LvState::Refused(why) => Err(why.clone()),
            LvState::Good | LvState::Degraded(_) => Ok(AixVolume {
                bytes: lv.bytes,
                runs: runs(&lv.lps, vg.pp_bytes()),
                disks: vg.disks.clone(),
            }),
        }
    }

    /// How much of the LV's head belongs to LVM. Unit: bytes.
    pub fn masked(&self) -> io::Result<u32> {
        let mut head = [0; CONTROL_BLOCK.len()];
        self.read_at(0, &mut head)?;
        Ok(if head == *CONTROL_BLOCK { CONTROL_BLOCK_BYTES } else { 0 })
    }

    /// Cuts a request at run boundaries: each run, where in it, and the part of the request.
    fn parts(&self, offset: u64, len: u64) -> io::Result<impl Iterator<Item = Part<'_>>> {
        if !Span::new(offset, len).within(self.bytes) {
            let text = format!("{len} bytes at {offset} reach behind the end at {}", self.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let first = self.runs.partition_point(|run| run.at + run.len <= offset);
        let mut done = 0;
        Ok(self.runs[first..].iter().map_while(move |run| {
            let inside = (offset + done).checked_sub(run.at)?;
            let step = (run.len - inside).min(len - done);
            let part = Span::new(done, step);
            done += step;
            (step > 0).then_some((run, inside, part))
        }))
    }

    fn disk(&self, copy: &MirrorCopy) -> &dyn Disk {
        &*self.disks[copy.disk]
    }
}

/// A run, where in it, and which part of a request.
type Part<'a> = (&'a Run, u64, Span);

/// A part of a buffer; parts come from a request of the buffer's length, so they fit it.
fn range(part: Span) -> std::ops::Range<usize> {
    let place = |at| usize::try_from(at).expect("a part lies within a buffer");
    place(part.offset)..place(part.end())
}

impl Disk for AixVolume {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        for (run, inside, part) in self.parts(offset, into.len() as u64)? {
            let into = &mut into[range(part)];
            let mut result = Err(io::Error::other("no copy of the partition may be read"));
            for copy in run.copies.iter().filter(|copy| copy.fresh) {
                result = self.disk(copy).read_at(copy.offset + inside, into);
                if result.is_ok() {
                    break;
                }
            }
            result?;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        for (run, inside, part) in self.parts(offset, data.len() as u64)? {
            for copy in &run.copies {
                self.disk(copy).write_at(copy.offset + inside, &data[range(part)])?;
            }
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        for (run, inside, part) in self.parts(offset, len)? {
            for copy in &run.copies {
                self.disk(copy).zero_at(copy.offset + inside, part.len)?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let copies = self.runs.iter().flat_map(|run| &run.copies);
        let touched: BTreeSet<usize> = copies.map(|copy| copy.disk).collect();
        // Every disk is flushed even when one fails, so that one bad disk costs the others nothing.
        let results: Vec<_> = touched.into_iter().map(|disk| self.disks[disk].flush()).collect();
        results.into_iter().collect()
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let len = end.saturating_sub(offset);
        let Some((run, inside, part)) = self.parts(offset, len)?.next() else {
            return Ok((Allocation::Data, end));
        };
        let Some(copy) = run.copies.iter().find(|copy| copy.fresh) else {
            return Ok((Allocation::Data, offset + part.len));
        };
        let at = copy.offset + inside;
        let (kind, found) = self.disk(copy).allocation(at, at + part.len)?;
        Ok((kind, offset + (found - at)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vgship_base::sim::{Power, SimDisk};

    use super::*;

    /// A volume of 1 KiB with a copy on each of two disks, and their power supplies.
    fn mirrored(second_is_fresh: bool) -> (AixVolume, [Power; 2]) {
        let power = [Power::default(), Power::default()];
        let disk = |power| Arc::new(SimDisk::volume(power, 4096)) as SharedDisk;
        let copies = vec![
            MirrorCopy { disk: 0, offset: 512, fresh: true },
            MirrorCopy { disk: 1, offset: 1024, fresh: second_is_fresh },
        ];
        let runs = vec![Run { at: 0, len: 1024, copies }];
        let disks = power.iter().map(disk).collect();
        (AixVolume { bytes: 1024, runs, disks }, power)
    }

    #[test]
    fn a_disk_that_fails_is_read_from_its_mirror() {
        let (volume, [first, second]) = mirrored(true);
        volume.write_at(3, b"both").unwrap();
        first.fail_after(0);
        let mut found = [0; 4];
        volume.read_at(3, &mut found).unwrap();
        assert_eq!(found, *b"both");
        assert!(volume.write_at(3, b"one?").is_err(), "a write must reach every copy");
        assert!(volume.flush().is_err());
        second.fail_after(0);
        assert!(volume.read_at(3, &mut found).is_err());
    }

    #[test]
    fn a_stale_mirror_is_no_way_out() {
        let (volume, [first, _]) = mirrored(false);
        volume.write_at(0, b"x").unwrap();
        first.fail_after(0);
        assert!(volume.read_at(0, &mut [0]).is_err());
    }
}
