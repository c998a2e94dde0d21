//! What the group stage does to the system: open, create, list, run. Decides nothing.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use vgship_base::disk::SharedDisk;
use vgship_base::ids::Name;
use vgship_base::io::FileDisk;

use super::error::GroupError;
use super::identity::Identity;
use super::images::{Entry, EntryKind};
use super::lvm2::{Command, REPORT_BYTES_MAX};
use super::rootvg::RunningRoot;

/// How often a command that runs is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How a disk is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Only to look at.
    ReadOnly,
    /// To read and write, as a source. Not while it is guarded.
    Shared,
    /// To read and write, as a replica: no other agent may open it to write while it is open.
    Guarded,
}

/// Gives an error of the system its place.
pub(super) fn at<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> GroupError + 'a {
    move |source| GroupError::Io { action, path: path.to_owned(), source }
}

/// Opens an image or a device.
pub(super) fn open_disk(path: &Path, access: Access) -> Result<SharedDisk, GroupError> {
    let in_use = || GroupError::InUse { path: path.to_owned() };
    let mut options = OpenOptions::new();
    options.read(true).write(access != Access::ReadOnly);
    let device = block_device(path).map_err(at("open", path))?;
    let file = match (access, device) {
        (Access::Guarded, Some(_)) => {
            platform::exclusive(&mut options);
            match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(in_use()),
                opened => opened.map_err(at("open", path))?,
            }
        }
        (Access::Guarded | Access::Shared, None) => {
            let file = options.open(path).map_err(at("open", path))?;
            let locked = match access {
                Access::Guarded => file.try_lock(),
                _ => file.try_lock_shared(),
            };
            match locked {
                Ok(()) => file,
                Err(TryLockError::WouldBlock) => return Err(in_use()),
                Err(TryLockError::Error(source)) => return Err(at("lock", path)(source)),
            }
        }
        _ => options.open(path).map_err(at("open", path))?,
    };
    FileDisk::fixed(file).map(|disk| Arc::new(disk) as SharedDisk).map_err(at("measure", path))
}

/// A new image of ours by its descriptor, guarded: its name may lead elsewhere by now.
pub(super) fn guard_new(path: &Path, file: File) -> Result<SharedDisk, GroupError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(GroupError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(at("lock", path)(source)),
    }
    FileDisk::fixed(file).map(|disk| Arc::new(disk) as SharedDisk).map_err(at("measure", path))
}

/// The device number of a block device, major and minor; `None` for anything else.
pub(super) fn block_device(path: &Path) -> io::Result<Option<(u32, u32)>> {
    platform::block_device(path)
}

/// What lies in a folder, sorted by name; nothing when `absent_is_empty` and it is not there.
pub(super) fn list_folder(dir: &Path, absent_is_empty: bool) -> Result<Vec<Entry>, GroupError> {
    let listing = match std::fs::read_dir(dir) {
        Err(error) if absent_is_empty && error.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        listing => listing.map_err(at("list", dir))?,
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.map_err(at("list", dir))?;
        let found = entry.metadata().map_err(at("look at", &entry.path()))?;
        let kind = if found.is_symlink() {
            EntryKind::Link
        } else if found.is_file() {
            EntryKind::File(found.len())
        } else {
            EntryKind::Other
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(Entry { name, kind, identity: identity_of(&found) });
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// Which file it is: its inode, and when that was made, for numbers of inodes are used again and
/// those of devices change from start to start.
pub fn identity_of(found: &Metadata) -> Option<Identity> {
    let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    Identity::new(match made {
        Some(made) => format!("inode-{}-made-{}", found.ino(), made.as_nanos()),
        None => format!("device-{}-inode-{}", found.dev(), found.ino()),
    })
}

/// Makes images larger; what is new reads as zero.
///
/// Durable: the new sizes, once this has returned.
pub(super) fn grow_images(dir: &Path, grow: &[(Name, u64)]) -> Result<(), GroupError> {
    for (name, bytes) in grow {
        let path = dir.join(name.as_str());
        let larger = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(*bytes)?;
            file.sync_all()
        };
        larger().map_err(at("make larger", &path))?;
    }
    Ok(())
}

/// Makes sparse images of zeroes, and the folder where it is missing.
///
/// Durable: names and sizes, once this has returned.
pub(super) fn create_images(dir: &Path, missing: &[(Name, u64)]) -> Result<(), GroupError> {
    std::fs::create_dir_all(dir).map_err(at("create", dir))?;
    for (name, bytes) in missing {
        let path = dir.join(name.as_str());
        let make = || {
            let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.set_len(*bytes)?;
            file.sync_all()
        };
        make().map_err(at("create", &path))?;
    }
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(at("sync", dir))
}

fn prepared(command: &Command) -> (&str, std::process::Command) {
    let (program, arguments) = command.split_first().expect("a command has a program");
    let mut process = std::process::Command::new(program);
    process.args(arguments).env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
    process.stdin(Stdio::null());
    (program, process)
}

/// Runs a command and returns what it printed.
pub(super) fn run(command: &Command) -> Result<Vec<u8>, GroupError> {
    let (program, mut process) = prepared(command);
    let output = process.output().map_err(at("run", Path::new(program)))?;
    printed(command, output)
}

/// Runs a command that may hang, and returns what it printed. One that takes longer than `patience`
/// is ended.
pub(super) fn run_within(command: &Command, patience: Duration) -> Result<Vec<u8>, GroupError> {
    let (program, mut process) = prepared(command);
    let failed = || at("run", Path::new(program));
    process.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process.spawn().map_err(failed())?;
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let since = Instant::now();
    let status = loop {
        match child.try_wait().map_err(failed())? {
            Some(status) => break status,
            None if since.elapsed() < patience => std::thread::sleep(LOOK),
            None => {
                // It may wait for a disk, and then ends when that answers; not waited for here.
                let _ = child.kill();
                std::thread::spawn(move || child.wait());
                let (command, stderr) = (command.join(" "), "LVM2 or a disk hangs".to_owned());
                let status = format!("no end within {} s", patience.as_secs());
                return Err(GroupError::Command { command, status, stderr });
            }
        }
    };
    let all = |reader: JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    printed(command, Output { status, stdout: all(stdout), stderr: all(stderr) })
}

/// Reads all that a command says, so that it never waits for us.
fn drain(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(from) = from {
            // What broke off is judged by what there is of it.
            let _ = from.take(REPORT_BYTES_MAX + 1).read_to_end(&mut said);
        }
        said
    })
}

fn printed(command: &Command, output: Output) -> Result<Vec<u8>, GroupError> {
    let shown = command.join(" ");
    let Output { status, stdout, stderr } = output;
    let failed = |why: String| {
        let command = shown.clone();
        GroupError::Command { command, status: status.to_string(), stderr: why }
    };
    if !status.success() {
        let text = String::from_utf8_lossy(&stderr);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        return Err(failed(lines.join("; ").chars().take(1000).collect()));
    }
    if stdout.len() as u64 > REPORT_BYTES_MAX {
        return Err(failed(format!("its report is longer than {REPORT_BYTES_MAX} bytes")));
    }
    Ok(stdout)
}

/// Whether a program can be found.
pub(super) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// The whole disks of this machine.
pub(super) fn block_devices() -> Vec<PathBuf> {
    platform::block_devices()
}

/// What holds the running root file system, as far as the system tells.
pub(super) fn running_root() -> RunningRoot {
    platform::running_root()
}

#[cfg(target_os = "linux")]
mod platform {
    use std::collections::BTreeSet;
    use std::fs::OpenOptions;
    use std::io;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
    use std::path::{Path, PathBuf};

    use nix::fcntl::OFlag;
    use nix::sys::stat::{major, minor};

    use super::super::rootvg::{RunningRoot, mounted_root, vg_of_dm_name};

    /// On a block device O_EXCL means: unless a file system or another exclusive opener has it.
    pub(super) fn exclusive(options: &mut OpenOptions) {
        options.custom_flags(OFlag::O_EXCL.bits());
    }

    pub(super) fn block_device(path: &Path) -> io::Result<Option<(u32, u32)>> {
        let found = std::fs::metadata(path)?;
        Ok(found.file_type().is_block_device().then(|| numbers(found.rdev())))
    }

    fn numbers(device: u64) -> (u32, u32) {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        (small(major(device)), small(minor(device)))
    }

    pub(super) fn block_devices() -> Vec<PathBuf> {
        let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| Path::new("/dev").join(entry.file_name())).collect();
        paths.sort();
        paths
    }

    pub(super) fn running_root() -> RunningRoot {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut root = RunningRoot::default();
        let mut seen = BTreeSet::new();
        if let Some((device, source)) = mounted_root(&text) {
            // Some file systems show a number of no device; their source is the device.
            let source = block_device(Path::new(&source)).ok().flatten();
            for device in [Some(device), source].into_iter().flatten() {
                walk(device, &mut seen, &mut root);
            }
        }
        root.devices = seen.into_iter().collect();
        root
    }

    /// Notes a device and all that it lies on: a mapped device's parts, a partition's disk.
    fn walk(device: (u32, u32), seen: &mut BTreeSet<(u32, u32)>, root: &mut RunningRoot) {
        if device.0 == 0 || !seen.insert(device) {
            return;
        }
        let place = PathBuf::from(format!("/sys/dev/block/{}:{}", device.0, device.1));
        let text = |name: &str| std::fs::read_to_string(place.join(name)).unwrap_or_default();
        if text("dm/uuid").starts_with("LVM-") {
            root.vgs.extend(vg_of_dm_name(text("dm/name").trim()));
        }
        let slaves = std::fs::read_dir(place.join("slaves")).into_iter().flatten().flatten();
        let mut below: Vec<PathBuf> = slaves.map(|entry| entry.path().join("dev")).collect();
        if place.join("partition").exists() {
            // The link is resolved first: `..` is the disk's folder, not that of the links.
            below.extend(place.canonicalize().ok().map(|place| place.join("../dev")));
        }
        for path in below {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let numbers = text.trim().split_once(':');
            let numbers =
                numbers.and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
            if let Some(device) = numbers {
                walk(device, seen, root);
            }
        }
    }
}

/// Elsewhere a volume group that holds the root is known by its name and its boot LV.
#[cfg(not(target_os = "linux"))]
mod platform {
    use std::fs::OpenOptions;
    use std::io;
    use std::path::{Path, PathBuf};

    use super::super::rootvg::RunningRoot;

    pub(super) fn exclusive(_: &mut OpenOptions) {}

    pub(super) fn block_device(path: &Path) -> io::Result<Option<(u32, u32)>> {
        std::fs::metadata(path).map(|_| None)
    }

    pub(super) fn block_devices() -> Vec<PathBuf> {
        Vec::new()
    }

    pub(super) fn running_root() -> RunningRoot {
        RunningRoot::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_is_quoted_with_what_it_said() {
        let command = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        let said =
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/group/fixtures/lvm2/no-such-vg.stderr");
        let error = run(&command(&format!("cat {said} >&2; exit 5"))).unwrap_err().to_string();
        assert!(error.contains("exit status: 5"), "{error}");
        let joined = "Volume group \"nosuchvg\" not found; Cannot process volume group nosuchvg";
        assert!(error.ends_with(joined), "{error}");
        assert_eq!(run(&command("echo $LC_ALL")).unwrap(), b"C\n");
        let absent = run(&vec!["no-such-program-here".to_owned()]);
        let long = Duration::from_mins(1);
        assert_eq!(run_within(&command("echo $LC_ALL"), long).unwrap(), b"C\n");
        let error = run_within(&command("echo no >&2; exit 5"), long).unwrap_err().to_string();
        assert!(error.contains("exit status: 5") && error.ends_with("no"), "{error}");
        // More than a pipe holds.
        let much = run_within(&command("head -c 300000 /dev/zero"), long).unwrap();
        assert_eq!(much.len(), 300_000);
        assert!(matches!(absent, Err(GroupError::Io { action: "run", .. })));
    }

    #[test]
    fn a_command_that_hangs_is_not_waited_for() {
        let command = ["sleep", "600"].map(str::to_owned).to_vec();
        let error = run_within(&command, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("no end within 0 s"), "{error}");
    }
}
