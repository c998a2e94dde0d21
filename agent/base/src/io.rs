//! Real disks and folders. Decides nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::disk::{Allocation, Disk, zero_by_writing};
use crate::folder::Folder;
use crate::units::Tick;

/// The clocks of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Begins to count.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Time since [`Clock::start`]; never goes back.
    pub fn now(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The same, as a duration.
    pub fn now_duration(&self) -> Duration {
        self.start.elapsed()
    }

    /// Wall clock. Unit: microseconds since 1970; 0 before that.
    pub fn wall(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// An image file or a block device.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    fixed: Option<u64>,
}

impl FileDisk {
    /// A file that grows when written behind its end.
    pub fn growing(file: File) -> FileDisk {
        FileDisk { file, fixed: None }
    }

    /// A file or device of the size it has now.
    pub fn fixed(mut file: File) -> io::Result<FileDisk> {
        let bytes = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        Ok(FileDisk { file, fixed: Some(bytes) })
    }

    /// Opens an image or device of fixed size for reading and writing.
    pub fn open(path: &Path) -> io::Result<FileDisk> {
        FileDisk::fixed(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Opens an image or device of fixed size for reading.
    pub fn open_read_only(path: &Path) -> io::Result<FileDisk> {
        FileDisk::fixed(File::open(path)?)
    }

    /// The file below.
    pub const fn file(&self) -> &File {
        &self.file
    }

    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.fixed {
            Some(bytes) if offset.checked_add(len).is_none_or(|end| end > bytes) => {
                let text = format!("{len} bytes at {offset} reach behind the end at {bytes}");
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
            _ => Ok(()),
        }
    }
}

impl Disk for FileDisk {
    fn len(&self) -> u64 {
        self.fixed.unwrap_or_else(|| self.file.metadata().map_or(0, |found| found.len()))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset).map_err(|error| match (error.kind(), self.fixed) {
            (io::ErrorKind::UnexpectedEof, Some(bytes)) => {
                let text = format!("it ends before {bytes} bytes, which it had when it was opened");
                io::Error::new(io::ErrorKind::UnexpectedEof, text)
            }
            _ => error,
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len() as u64)?;
        self.file.write_all_at(data, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        match platform::zero(&self.file, offset, len)? {
            true => Ok(()),
            false => zero_by_writing(self, offset, len),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.fixed {
            None => self.file.set_len(len),
            Some(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget_cache(&self) {
        platform::forget_cache(&self.file);
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        Ok(platform::allocation(&self.file, offset, end))
    }
}

/// A folder of the file system.
#[derive(Debug)]
pub struct RealFolder {
    path: PathBuf,
}

impl RealFolder {
    /// The folder at `path`, made if it is not there.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<RealFolder> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        Ok(RealFolder { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Folder for RealFolder {
    fn create(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600) // what a stage keeps is for nobody else
            .open(self.path.join(name))?;
        Ok(Box::new(FileDisk::growing(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(FileDisk::growing(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn available(&self) -> io::Result<u64> {
        // What is kept for root does not count.
        let found = nix::sys::statvfs::statvfs(&self.path)?;
        Ok(found.blocks_available().saturating_mul(found.fragment_size()))
    }
}

/// What Linux does better than by writing and reading everything.
#[cfg(target_os = "linux")]
mod platform {
    use std::fs::File;
    use std::io;

    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
    use nix::unistd::{Whence, lseek64};

    use crate::disk::Allocation;

    /// Whether the run was zeroed; `false` where the file system or device cannot.
    pub(super) fn zero(file: &File, offset: u64, len: u64) -> io::Result<bool> {
        let (Ok(start), Ok(count)) = (i64::try_from(offset), i64::try_from(len)) else {
            return Ok(false);
        };
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        for flags in [punch, FallocateFlags::FALLOC_FL_ZERO_RANGE] {
            match fallocate(file, flags, start, count) {
                Ok(()) => return Ok(true),
                Err(Errno::EOPNOTSUPP | Errno::ENODEV | Errno::EINVAL | Errno::ENOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Drops clean pages. A failed flush leaves pages clean that were never stored (Linux, all
    /// common file systems; Rebello and others, 2020).
    pub(super) fn forget_cache(file: &File) {
        // Advice: where it is not taken, reading shows what the cache has.
        let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    fn reaches(file: &File, end: u64) -> bool {
        let found = lseek64(file, 0, Whence::SeekEnd).ok().and_then(|len| u64::try_from(len).ok());
        found.is_some_and(|len| len >= end)
    }

    /// Asks the file system where data and holes are.
    pub(super) fn allocation(file: &File, offset: u64, end: u64) -> (Allocation, u64) {
        let Ok(start) = i64::try_from(offset) else { return (Allocation::Data, end) };
        let clamp = |found: i64| u64::try_from(found).unwrap_or(end).clamp(offset, end);
        match lseek64(file, start, Whence::SeekData) {
            Ok(data) if clamp(data) > offset => (Allocation::Hole, clamp(data)),
            Ok(_) => match lseek64(file, start, Whence::SeekHole) {
                Ok(hole) if clamp(hole) > offset => (Allocation::Data, clamp(hole)),
                _ => (Allocation::Data, end),
            },
            // No data behind it: a hole up to the end, or the file is shorter than it was when it
            // was opened. What is not there is no hole: reading tells of it.
            Err(Errno::ENXIO) if reaches(file, end) => (Allocation::Hole, end),
            Err(_) => (Allocation::Data, end),
        }
    }
}

/// Elsewhere zeroes are written and everything may hold data.
#[cfg(not(target_os = "linux"))]
mod platform {
    use std::fs::File;
    use std::io;

    use crate::disk::Allocation;

    pub(super) fn zero(_: &File, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn forget_cache(_: &File) {}

    pub(super) fn allocation(_: &File, _: u64, end: u64) -> (Allocation, u64) {
        (Allocation::Data, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::{read_small, replace};

    #[test]
    fn a_small_file_is_replaced_as_a_whole() {
        let place = tempfile::tempdir().unwrap();
        let folder = RealFolder::open(place.path()).unwrap();
        assert_eq!(read_small(&folder, "state", 10).unwrap(), None);
        replace(&folder, "state", b"old content").unwrap();
        replace(&folder, "state", b"new").unwrap();
        assert_eq!(read_small(&folder, "state", 10).unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(folder.list().unwrap(), ["state"]);
        assert!(read_small(&folder, "state", 2).is_err());
    }

    #[test]
    fn what_a_stage_keeps_is_open_to_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let folder = RealFolder::open(place.path().join("stage")).unwrap();
        folder.create("file").unwrap();
        let mode = std::fs::metadata(place.path().join("stage/file")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_room_of_a_folder_is_what_its_file_system_has() {
        let place = tempfile::tempdir().unwrap();
        let folder = RealFolder::open(place.path().join("stage")).unwrap();
        let program = std::process::Command::new("stat")
            .args(["--file-system", "--format=%a %S"])
            .arg(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(program.stdout).unwrap();
        let (blocks, bytes) = text.trim().split_once(' ').unwrap();
        let told = blocks.parse::<u64>().unwrap() * bytes.parse::<u64>().unwrap();
        // Others use the file system meanwhile.
        assert!(folder.available().unwrap().abs_diff(told) < told / 2, "{told}");
        std::fs::remove_dir(folder.path()).unwrap();
        assert!(folder.available().is_err());
    }

    #[test]
    fn zeroing_leaves_the_neighbours_and_a_volume_does_not_grow() {
        let place = tempfile::NamedTempFile::new().unwrap();
        place.as_file().write_all_at(&[7; 16 << 10], 0).unwrap();
        let disk = FileDisk::open(place.path()).unwrap();
        disk.zero_at(4097, 8191).unwrap();
        let mut found = vec![1; 16 << 10];
        disk.read_at(0, &mut found).unwrap();
        let zeroed = 4097..4097 + 8191;
        assert!((0..found.len()).all(|at| found[at] == if zeroed.contains(&at) { 0 } else { 7 }));
        assert!(disk.write_at(16 << 10, b"x").is_err());
        assert_eq!(disk.len(), 16 << 10);
    }

    /// Goal: an image that somebody cut short is not taken for one that was zeroed there.
    #[test]
    fn what_was_cut_off_is_no_hole() {
        let place = tempfile::NamedTempFile::new().unwrap();
        place.as_file().set_len(64 << 10).unwrap();
        let disk = FileDisk::open(place.path()).unwrap();
        assert_eq!(disk.allocation(0, 64 << 10).unwrap().1, 64 << 10);
        disk.read_at(32 << 10, &mut [0; 4096]).unwrap();
        place.as_file().set_len(8 << 10).unwrap();
        for offset in [0, 4 << 10, 8 << 10, 32 << 10] {
            let found = disk.allocation(offset, 64 << 10).unwrap();
            assert_eq!(found, (Allocation::Data, 64 << 10), "{offset}");
        }
        let error = disk.read_at(32 << 10, &mut [0; 4096]).unwrap_err();
        assert!(error.to_string().contains("ends before 65536 bytes"), "{error}");
        assert!(disk.read_at(4 << 10, &mut [0; 4096]).is_ok());
    }
}
