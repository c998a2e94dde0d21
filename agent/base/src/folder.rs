//! The seam to folders: named files that can be created, replaced and removed durably.

use std::io;
use std::sync::Arc;

use crate::disk::Disk;

/// A folder of one stage's files.
///
/// Durable: a name that was created, renamed or removed is so after a power cut once
/// [`Folder::sync`] has returned; before, either may be found.
pub trait Folder: Send + Sync {
    /// A new, empty file; an error when the name is taken.
    fn create(&self, name: &str) -> io::Result<Box<dyn Disk>>;

    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>>;

    /// All names, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Takes a name away; the file lives on for those who have it open.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, taking it from whatever had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes all earlier changes of names durable.
    fn sync(&self) -> io::Result<()>;

    /// How much its files may still grow, as far as is known: others may use the same disk. Unit:
    /// bytes.
    fn available(&self) -> io::Result<u64>;
}

/// A folder that several owners share.
pub type SharedFolder = Arc<dyn Folder>;

/// A number in a file's name: 16 hexadecimal digits, so that names sort as numbers do.
pub fn digits_of(number: u64) -> String {
    format!("{number:016x}")
}

/// The number of such digits; `None` when they are written in another way, so that no two names
/// have one number.
pub fn number_of(digits: &str) -> Option<u64> {
    let number = u64::from_str_radix(digits, 16).ok()?;
    (digits_of(number) == digits).then_some(number)
}

/// Numbers that files get by being counted lie below: no program counts so far.
const NUMBERS_END: u64 = 1 << 63;

/// The number behind the highest of a folder, 1 when there is none.
///
/// # Errors
/// That file was put there by somebody: files behind it would soon run out of numbers.
pub fn number_after(highest: Option<u64>) -> io::Result<u64> {
    let text = "nobody counts so far: it is no file of this program, remove it";
    match highest.unwrap_or(0) {
        NUMBERS_END.. => Err(io::Error::new(io::ErrorKind::InvalidData, text)),
        highest => Ok(highest + 1),
    }
}

/// Replaces a small file as a whole: after a power cut it is the old one or the new one.
///
/// Durable: the new content, once this has returned.
pub fn replace(folder: &dyn Folder, name: &str, content: &[u8]) -> io::Result<()> {
    let fresh = format!("{name}.new");
    match folder.remove(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = folder.create(&fresh)?;
    file.write_at(0, content)?;
    file.flush()?;
    folder.rename(&fresh, name)?;
    folder.sync()
}

/// Reads a small file as a whole, or `None` when there is none. Refuses one over `max` bytes.
pub fn read_small(folder: &dyn Folder, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match folder.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len();
    if len > max {
        let text = format!("{name} has {len} bytes, more than the {max} that it may have");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut content = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(0, &mut content)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_name_and_a_successor_or_an_error() {
        assert_eq!(number_of(&digits_of(0x2a)), Some(0x2a));
        assert_eq!(number_of("000000000000002a"), Some(0x2a));
        for other in ["000000000000002A", "+00000000000002a", "2a", "0000000000000002a", ""] {
            assert_eq!(number_of(other), None, "{other}");
        }
        assert_eq!(number_after(None).ok(), Some(1));
        assert_eq!(number_after(Some(7)).ok(), Some(8));
        assert!(number_after(Some(NUMBERS_END)).is_err() && number_after(Some(u64::MAX)).is_err());
    }
}
