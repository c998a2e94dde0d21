//! Templates, the only file of them that touches the system: a store in a folder. Decides nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::objects::{ObjectError, ObjectInfo, Objects, key_is_legal};
use crate::seal;

/// Where files are written before they get their name. No key begins with a dot.
const PASSING: &str = ".passing";
/// What is older there was left by a process that ended. A file is there for the time that one
/// object takes to be written.
const LEFT_OVER: Duration = Duration::from_hours(24);

/// Objects as files of a folder: the parts of a key are folders, its last part is the file.
///
/// Files have mode 0600, folders 0700. Several processes may use the folder at once, if its file
/// system has hard links that are made atomically (local ones and NFS do): they are what makes
/// [`Objects::put_if_absent`] exact.
#[derive(Debug)]
pub struct LocalObjects {
    path: PathBuf,
}

impl LocalObjects {
    /// The store in the folder `path`, which is made if it is not there.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<LocalObjects> {
        let store = LocalObjects { path: path.into() };
        make_folder(&store.path)?;
        make_folder(&store.path.join(PASSING))?;
        store.remove_left_over()?;
        Ok(store)
    }

    fn remove_left_over(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path.join(PASSING))? {
            let entry = entry?;
            let written = entry.metadata().and_then(|found| found.modified());
            let age = written.ok().and_then(|it| SystemTime::now().duration_since(it).ok());
            if age.is_some_and(|age| age > LEFT_OVER) {
                // Another process may do the same at this moment.
                absent(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    fn path_of(&self, key: &str) -> io::Result<PathBuf> {
        if key_is_legal(key) {
            return Ok(self.path.join(key));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "a key has no such letters or parts"))
    }

    /// Writes a file under a passing name and hands it to `name`, which gives it its own.
    fn write<T>(
        &self,
        key: &str,
        bytes: &[u8],
        name: impl FnOnce(&Path, &Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = self.path_of(key)?;
        let folder = path.parent().unwrap_or(&self.path);
        make_folder(folder)?;
        let drawn: [u8; 16] = seal::random().map_err(io::Error::other)?;
        let passing = self.path.join(PASSING).join(super::place::hex(&drawn));
        let named = write_file(&passing, bytes).and_then(|()| name(&passing, &path));
        let removed = absent(fs::remove_file(&passing));
        let named = named?;
        removed?;
        sync_folder(folder)?;
        Ok(named)
    }

    fn open_file(&self, key: &str) -> io::Result<Option<File>> {
        absent(File::open(self.path_of(key)?))
    }

    /// Tells of all objects below `folder`, in order of their names. What vanishes meanwhile may
    /// have made room for something that was not there yet: then the folder is read again.
    fn walk(&self, folder: &Path, each: &mut dyn FnMut(ObjectInfo)) -> io::Result<()> {
        let mut last = None;
        'again: loop {
            let Some(entries) = absent(fs::read_dir(folder))? else { return Ok(()) };
            let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
            entries.retain(|entry| last.as_ref().is_none_or(|last| entry.file_name() > *last));
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                last = Some(entry.file_name());
                let path = entry.path();
                let Some(found) = absent(entry.metadata())? else { continue 'again };
                let key = path.strip_prefix(&self.path).ok().and_then(Path::to_str);
                let Some(key) = key.filter(|key| key_is_legal(key)) else { continue };
                match found.is_dir() {
                    true => self.walk(&path, each)?,
                    false => each(info(key, &found)?),
                }
            }
            return Ok(());
        }
    }
}

fn info(key: &str, found: &fs::Metadata) -> io::Result<ObjectInfo> {
    let since = found.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Ok(ObjectInfo { key: key.to_owned(), len: found.len(), modified })
}

/// `None` when the file is not there.
fn absent<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a folder and those above it, durably.
fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => match (error.kind(), path.parent()) {
            (io::ErrorKind::NotFound, Some(above)) if above != Path::new("") => {
                make_folder(above)?;
                make_folder(path)
            }
            _ => Err(error),
        },
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path == Path::new("") { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_range(mut file: File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Objects for LocalObjects {
    /// Two: one is copied to the system while the disk takes the other.
    fn at_once(&self) -> usize {
        2
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        self.write(key, bytes, |from, to| fs::rename(from, to))
            .map_err(ObjectError::of("write", key))
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
        let link = |from: &Path, to: &Path| match fs::hard_link(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        };
        self.write(key, bytes, link).map_err(ObjectError::of("write", key))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        self.get_range(key, 0, u64::MAX)
    }

    fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Option<Vec<u8>>, ObjectError> {
        let read = self
            .open_file(key)
            .and_then(|file| file.map(|file| read_range(file, offset, len)).transpose());
        read.map_err(ObjectError::of("read", key))
    }

    fn head(&self, key: &str) -> Result<Option<ObjectInfo>, ObjectError> {
        let found = self.path_of(key).and_then(|path| absent(fs::metadata(path)));
        let info = found.and_then(|found| found.map(|found| info(key, &found)).transpose());
        info.map_err(ObjectError::of("read", key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), ObjectError> {
        let parts = prefix.trim_end_matches('/');
        let folder = if parts.is_empty() { Ok(self.path.clone()) } else { self.path_of(parts) };
        let walked = folder.and_then(|folder| self.walk(&folder, each));
        walked.map_err(ObjectError::of("list", prefix))
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let removed = self.path_of(key).and_then(|path| match absent(fs::remove_file(&path))? {
            Some(()) => sync_folder(path.parent().unwrap_or(&self.path)),
            None => Ok(()),
        });
        removed.map_err(ObjectError::of("remove", key))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::template::objects::listed;

    fn keys(store: &LocalObjects, prefix: &str) -> Vec<String> {
        listed(store, prefix).unwrap().into_iter().map(|found| found.key).collect()
    }

    #[test]
    fn objects_are_written_read_listed_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let store = LocalObjects::open(place.path().join("a/b")).unwrap();
        store.put("objects/aa/one.pack", b"first").unwrap();
        store.put("objects/aa/one.pack", b"second").unwrap();
        assert!(store.put_if_absent("objects/bb/two.node", b"x").unwrap());
        assert!(!store.put_if_absent("objects/bb/two.node", b"y").unwrap());
        assert_eq!(store.get("objects/bb/two.node").unwrap().as_deref(), Some(&b"x"[..]));
        let range = |offset, len| store.get_range("objects/aa/one.pack", offset, len).unwrap();
        assert_eq!(range(1, 3).as_deref(), Some(&b"eco"[..]));
        assert_eq!(range(4, 30).as_deref(), Some(&b"nd"[..]));
        assert_eq!(range(40, 3).as_deref(), Some(&b""[..]));
        assert_eq!(store.get_range("objects/none", 0, 1).unwrap(), None);
        assert_eq!(store.head("objects/aa/one.pack").unwrap().unwrap().len, 6);
        assert_eq!(keys(&store, ""), ["objects/aa/one.pack", "objects/bb/two.node"]);
        assert_eq!(keys(&store, "objects/bb/"), ["objects/bb/two.node"]);
        assert!(keys(&store, "nothing/").is_empty());
        store.delete("objects/aa/one.pack").unwrap();
        store.delete("objects/aa/one.pack").unwrap();
        assert_eq!((store.get("objects/aa/one.pack").unwrap(), keys(&store, "").len()), (None, 1));
    }

    #[test]
    fn nobody_else_may_read_and_nothing_is_left_over() {
        let place = tempfile::tempdir().unwrap();
        let store = LocalObjects::open(place.path().join("store")).unwrap();
        store.put("x/y", b"").unwrap();
        let mode = |path: &str| {
            let found = fs::metadata(place.path().join("store").join(path)).unwrap();
            found.permissions().mode() & 0o777
        };
        assert_eq!([mode(""), mode("x"), mode("x/y")], [0o700, 0o700, 0o600]);
        assert!(!store.put_if_absent("x/y", b"z").unwrap());
        let passing = place.path().join("store").join(PASSING);
        assert_eq!(fs::read_dir(&passing).unwrap().count(), 0);
        for (name, age) in [("old", LEFT_OVER * 2), ("new", LEFT_OVER / 2)] {
            let file = File::create(passing.join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        LocalObjects::open(place.path().join("store")).unwrap();
        assert!(passing.join("new").exists() && !passing.join("old").exists());
    }

    #[test]
    fn a_key_does_not_leave_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let store = LocalObjects::open(place.path().join("store")).unwrap();
        assert!(store.put("../x", b"").is_err() && store.delete("/etc/x").is_err());
        let error = store.get("a/../../x").unwrap_err();
        assert_eq!(error.to_string(), "cannot read the object a/../../x");
        assert!(store.list("../", &mut |_| ()).is_err());
    }
}
