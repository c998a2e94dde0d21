//! Small file systems that can be filled up.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const FILLER: &str = "filler";

/// A file system in memory; it goes when this is dropped.
pub struct SmallDisk {
    path: PathBuf,
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).status().is_ok_and(|status| status.success())
}

impl SmallDisk {
    /// Puts a file system of so many MiB over a folder and takes the files in it along. `None`,
    /// and a line that says so, where that is not allowed.
    pub fn over(path: &Path, mib: u64) -> Option<SmallDisk> {
        let files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|file| (file.clone(), fs::read(&file).unwrap()))
            .collect();
        let place = path.to_str().unwrap();
        if !run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", place]) {
            println!("skipped: it needs root to mount a small file system");
            return None;
        }
        for (file, content) in files {
            fs::write(file, content).unwrap();
        }
        Some(SmallDisk { path: path.to_owned() })
    }

    /// Unit: bytes.
    pub fn available(&self) -> u64 {
        let found = nix::sys::statvfs::statvfs(&self.path).unwrap();
        found.blocks_available() * found.fragment_size()
    }

    /// Takes all room but so many bytes.
    pub fn fill(&self, leave: u64) {
        let mut filler = File::create(self.path.join(FILLER)).unwrap();
        loop {
            let room = self.available().saturating_sub(leave).min(1 << 20);
            match filler.write(&vec![7; usize::try_from(room).unwrap()]) {
                Ok(0) => return,
                // Others write here, too.
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                written => drop(written.unwrap()),
            }
        }
    }

    /// Gives that room back.
    pub fn free(&self) {
        match fs::remove_file(self.path.join(FILLER)) {
            // A spill that begins anew throws out what is there.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done.unwrap(),
        }
    }

    /// Makes it larger.
    pub fn grow(&self, mib: u64) {
        let size = format!("remount,size={mib}m");
        assert!(run("mount", &["-o", &size, self.path.to_str().unwrap()]));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once for those who look; in the end when nobody has it open.
        run("umount", &["-l", self.path.to_str().unwrap()]);
    }
}
