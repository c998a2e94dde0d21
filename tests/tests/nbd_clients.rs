//! The NBD tap against real clients: each test serves a temporary file in this process and lets
//! programs of QEMU, libnbd, fio and the kernel work on it.

#![expect(clippy::unwrap_used, reason = "all of this file is a test")]

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use vgship::capture::nbd::backend::{Export, Exports};
use vgship::capture::nbd::io::NbdServer;
use vgship::capture::nbd::io::socket::Listener;
use vgship_base::disk::{Allocation, Disk};
use vgship_base::io::FileDisk;

const MIB: u64 = 1 << 20;

/// A disk served as it is.
struct Plain(FileDisk);

impl Export for Plain {
    fn bytes(&self) -> u64 {
        self.0.len()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }

    fn write(&self, offset: u64, data: Bytes, durable: bool) -> io::Result<()> {
        self.0.write_at(offset, &data)?;
        if durable { self.0.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, durable: bool) -> io::Result<()> {
        self.0.zero_at(offset, len)?;
        if durable { self.0.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        self.0.allocation(offset, end)
    }
}

struct One(Arc<Plain>);

impl Exports for One {
    fn names(&self) -> Vec<String> {
        vec!["g/lv".into()]
    }

    fn find(&self, name: &str) -> Option<Arc<dyn Export>> {
        (name == "g/lv").then(|| Arc::clone(&self.0) as Arc<dyn Export>)
    }
}

/// A folder with an image that is served, and room for the clients' files.
struct Served {
    place: TempDir,
    _server: NbdServer,
}

impl Served {
    fn start(bytes: u64) -> Served {
        let place = tempfile::tempdir().unwrap();
        let image = place.path().join("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        let disk = FileDisk::open(&image).unwrap();
        let listener = Listener::unix(&place.path().join("s")).unwrap();
        let exports = Arc::new(One(Arc::new(Plain(disk))));
        Served { _server: NbdServer::start(vec![listener], exports).unwrap(), place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///g/lv?socket={}", self.path("s").display())
    }

    fn image(&self) -> Vec<u8> {
        fs::read(self.path("image")).unwrap()
    }
}

/// Starts a program, or says which package has it.
fn spawn(package: &str, program: &str, args: &[&str]) -> Child {
    let started = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match started {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{program} is missing: install the Debian package {package}")
        }
        Err(error) => panic!("cannot start {program}: {error}"),
    }
}

/// Runs a program to its good end and returns what it printed.
fn run(package: &str, program: &str, args: &[&str]) -> String {
    let output = spawn(package, program, args).wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?} ends with {}:\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Content with data, repetition and holes.
fn content(bytes: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes).unwrap();
    let mut state = 0x9e37_79b9_u32;
    let mut all = vec![0; bytes];
    for (number, part) in all.chunks_mut(96 << 10).enumerate() {
        for byte in part.iter_mut().filter(|_| number % 3 != 2) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = state.to_be_bytes()[0];
        }
    }
    all
}

#[test]
fn qemu_img_copies_there_and_back() {
    let served = Served::start(16 * MIB);
    let data = content(16 * MIB);
    let (source, back) = (served.path("source"), served.path("back"));
    fs::write(&source, &data).unwrap();
    let (source, back) = (source.to_str().unwrap(), back.to_str().unwrap());
    let uri = served.uri();
    let qemu_img = |args: &[&str]| run("qemu-utils", "qemu-img", args);
    qemu_img(&["convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", source, &uri]);
    assert!(served.image() == data);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", source, &uri]);
    qemu_img(&["convert", "-f", "raw", "-O", "raw", &uri, back]);
    assert!(fs::read(back).unwrap() == data);
}

#[test]
fn qemu_io_writes_zeroes_discards_and_flushes() {
    let served = Served::start(8 * MIB);
    let commands = [
        "write -P 0xa5 1000 100000",
        "write -f -P 0x5a 4M 2M",
        "read -P 0xa5 1000 100000",
        "write -z 64k 4k",
        "write -z -u 4M 64k",
        "discard 5M 512k",
        "flush",
        "read -P 0 64k 4k",
        "read -P 0xa5 68k 4k",
        "read -P 0 5M 512k",
        "read -P 0x5a 5632k 512k",
    ];
    let uri = served.uri();
    let mut args = vec!["-f", "raw", "-d", "unmap"];
    commands.iter().for_each(|command| args.extend(["-c", command]));
    args.push(&uri);
    let told = run("qemu-utils", "qemu-io", &args);
    assert!(!told.contains("failed"), "{told}");
    let image = served.image();
    assert_eq!((image[999], image[1000], image[100_999], image[101_000]), (0, 0xa5, 0xa5, 0));
    assert_eq!((image[4 << 20], image[(4 << 20) + (64 << 10)]), (0, 0x5a));
}

#[test]
fn nbdcopy_uses_several_connections_and_finds_holes() {
    let served = Served::start(32 * MIB);
    let data = content(32 * MIB);
    let (source, back) = (served.path("source"), served.path("back"));
    fs::write(&source, &data).unwrap();
    let uri = served.uri();
    let nbdcopy = |from: &str, to: &str| {
        run("libnbd-bin", "nbdcopy", &["--connections=4", "--flush", from, to]);
    };
    nbdcopy(source.to_str().unwrap(), &uri);
    assert!(served.image() == data);
    nbdcopy(&uri, back.to_str().unwrap());
    assert!(fs::read(back).unwrap() == data);
}

#[test]
fn nbdinfo_tells_what_is_served() {
    let served = Served::start(4 * MIB);
    let image = File::options().write(true).open(served.path("image")).unwrap();
    image.write_all_at(&vec![1; 65536], MIB).unwrap();
    let told = run("libnbd-bin", "nbdinfo", &["--json", &served.uri()]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["protocol"], "newstyle-fixed");
    assert_eq!(told["structured"], true);
    let export = &told["exports"][0];
    assert_eq!(export["export-name"], "g/lv");
    assert_eq!(export["export-size"], 4 * MIB);
    assert_eq!(export["contexts"][0], "base:allocation");
    for can in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df"] {
        assert_eq!(export[can], true, "{can}");
    }
    assert_eq!(export["is_read_only"], false);
    assert_eq!(export["block_size_minimum"], 1);
    assert_eq!(export["block_size_maximum"], 32 * MIB);

    let list = run("libnbd-bin", "nbdinfo", &["--list", "--json", &served.uri()]);
    assert!(list.contains("\"g/lv\""), "{list}");

    let map = run("libnbd-bin", "nbdinfo", &["--map", "--json", &served.uri()]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let runs: Vec<_> = map.as_array().unwrap().iter().map(|run| &run["type"]).collect();
    assert_eq!(runs, [3, 0, 3], "{map}");
    assert_eq!(map[1]["offset"], MIB);
}

#[test]
fn fio_finds_what_it_wrote() {
    let served = Served::start(64 * MIB);
    let state = served.place.path().display().to_string();
    run(
        "fio",
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &format!("--uri={}", served.uri()),
            &format!("--aux-path={state}"),
            "--rw=randwrite",
            "--bsrange=512-128k",
            "--blockalign=512",
            "--iodepth=32",
            "--size=64M",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--fsync=64",
        ],
    );
}

/// Gives back what the kernel holds for a test, in reverse order, however the test ends.
#[derive(Default)]
struct Undo(Vec<(&'static str, String)>);

impl Drop for Undo {
    fn drop(&mut self) {
        for (program, what) in self.0.drain(..).rev() {
            let args: &[&str] = match program {
                "losetup" => &["-d", &what],
                "fusermount3" => &["-u", &what],
                _ => &[&what],
            };
            let _ = Command::new(program).args(args).output();
        }
    }
}

/// Why file systems cannot be mounted here.
fn cannot_mount() -> Option<&'static str> {
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

/// Waits for a file that a started program makes.
fn await_file(path: &Path, maker: &mut Child) {
    let (deadline, shown) = (Instant::now() + Duration::from_secs(20), path.display());
    while !path.exists() {
        assert!(maker.try_wait().unwrap().is_none(), "the program that makes {shown} has ended");
        assert!(Instant::now() < deadline, "{shown} does not appear");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_system_lives_on_it() {
    if let Some(reason) = cannot_mount() {
        eprintln!("skipped: {reason}");
        return;
    }
    let served = Served::start(64 * MIB);
    let (fuse, root) = (served.path("fuse"), served.path("root"));
    fs::create_dir(&fuse).unwrap();
    fs::create_dir(&root).unwrap();
    let device = fuse.join("disk");
    let uri = served.uri();
    let mut nbdfuse = spawn("nbdfuse", "nbdfuse", &[device.to_str().unwrap(), &uri]);
    let mut undo = Undo(vec![("fusermount3", fuse.display().to_string())]);
    await_file(&device, &mut nbdfuse);
    let disk = run("mount", "losetup", &["-f", "--show", device.to_str().unwrap()]);
    let (disk, root_text) = (disk.trim().to_owned(), root.to_str().unwrap());
    undo.0.push(("losetup", disk.clone()));
    run("e2fsprogs", "mkfs.ext4", &["-q", "-F", &disk]);
    run("mount", "mount", &[&disk, root_text]);
    undo.0.push(("umount", root_text.to_owned()));
    let data = content(8 * MIB);
    for number in 0..4 {
        fs::write(root.join(format!("file{number}")), &data[number..]).unwrap();
    }
    fs::remove_file(root.join("file1")).unwrap();
    run("util-linux", "fstrim", &[root_text]);
    run("mount", "umount", &[root_text]);
    run("e2fsprogs", "e2fsck", &["-f", "-n", &disk]);
    run("mount", "mount", &[&disk, root_text]);
    for number in [0, 2, 3] {
        assert!(fs::read(root.join(format!("file{number}"))).unwrap() == data[number..]);
    }
    drop(undo);
    assert!(nbdfuse.wait().unwrap().success());
    let image = served.path("image");
    run("e2fsprogs", "e2fsck", &["-f", "-n", image.to_str().unwrap()]);
}
