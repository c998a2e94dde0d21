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
