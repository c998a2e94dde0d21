//! What the kernel holds for a test: FUSE files, loop devices, mounts. Each is given back with its
//! value, however the test ends.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::programs::{run, start};
use crate::{LOOK, until};

/// Why file systems cannot be mounted here.
pub fn cannot_mount() -> Option<&'static str> {
    if fs::metadata("/proc/self").map_or(true, |own| own.uid() != 0) {
        return Some("this user may not mount");
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return Some("/dev/fuse cannot be opened");
    }
    let free = Command::new("losetup").arg("-f").output();
    let has_loop = free.is_ok_and(|free| free.status.success());
    (!has_loop).then_some("there are no loop devices")
}

/// Undoes something; a failure is no reason to keep the rest.
fn undo(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    output.is_ok_and(|output| output.status.success())
}

/// Waits a while for the end of a process, then ends it.
pub(crate) fn end(child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// An NBD export as a file, by nbdfuse.
pub struct FuseFile {
    folder: PathBuf,
    child: Child,
}

impl FuseFile {
    /// Makes the folder and shows the export there.
    #[track_caller]
    pub fn of(uri: &str, folder: &Path) -> FuseFile {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join("disk");
        let child = start("libnbd-bin", "nbdfuse", &[file.to_str().unwrap(), uri]);
        let mut shown = FuseFile { folder: folder.to_owned(), child };
        until("nbdfuse shows the export", || {
            assert!(shown.child.try_wait().unwrap().is_none(), "nbdfuse has ended");
            shown.file().exists()
        });
        shown
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("disk")
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        let folder = self.folder.to_str().unwrap();
        let _ = undo("umount", &[folder]) || undo("umount", &["-l", folder]);
        end(&mut self.child);
    }
}

/// A file as a block device.
pub struct LoopDevice(String);

impl LoopDevice {
    /// Takes the next free one.
    #[track_caller]
    pub fn over(file: &Path) -> LoopDevice {
        let name = run("mount", "losetup", &["-f", "--show", file.to_str().unwrap()]);
        LoopDevice(name.trim().to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        undo("losetup", &["-d", &self.0]);
    }
}

/// A mounted file system.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts with these words before the source and the place.
    ///
    /// # Errors
    /// What mount(8) says.
    pub fn of(options: &[&str], source: &str, at: &Path) -> Result<Mount, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let output = Command::new("mount").args(options).arg(source).arg(at).output();
        let output = output.map_err(|error| format!("mount: {error}"))?;
        match output.status.success() {
            true => Ok(Mount(at.to_owned())),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.0.to_str().unwrap();
        let _ = undo("umount", &[at]) || undo("umount", &["-l", at]);
    }
}
