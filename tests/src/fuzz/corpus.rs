//! The corpus: `tests/fuzz/corpus/TARGET/`, small files that once reached something new.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of a target's corpus in the repository.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The files of a folder by name, with their content. None when there is no such folder.
///
/// # Errors
/// A folder or file that cannot be read.
pub fn load(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push((name, fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

/// A file's name from its content.
pub fn name_of(data: &[u8]) -> String {
    blake3::hash(data).to_hex()[..16].to_owned()
}

/// Writes a file named for its content; where it is.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn save(folder: &Path, data: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name_of(data));
    fs::write(&path, data)?;
    Ok(path)
}
