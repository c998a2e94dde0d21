//! Real clients write into an agent's exports while a replica follows. What they wrote must be
//! what they read, and at the end both sides are equal.

use std::fs;

use serde_json::Value;

use super::common::mounts::{FuseFile, LoopDevice, Mount, cannot_mount};
use super::common::programs::run;
use super::common::{MIB, Pair, noise};

/// Content with data and with holes.
fn content(mib: u64) -> Vec<u8> {
    let mut bytes = noise(11, mib * MIB);
    for (number, part) in bytes.chunks_mut(96 << 10).enumerate() {
        if number % 3 == 2 {
            part.fill(0);
        }
    }
    bytes
}

#[test]
fn qemu_img_and_qemu_io() {
    let pair = Pair::new(&[("data", 32 * MIB), ("log", 8 * MIB)], &[]);
    let original = pair.place.path().join("original");
    fs::write(&original, content(32)).unwrap();
    let (original, uri) = (original.to_str().unwrap(), pair.source.uri("data"));
    let qemu_img = |args: &[&str]| run("qemu-utils", "qemu-img", args);
    qemu_img(&["convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", original, &uri]);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", original, &uri]);
    let commands = [
        "write -P 0xa5 1000 100000",
        "write -f -P 0x5a 4M 2M",
        "write -z 64k 4k",
        "write -z -u 4M 64k",
        "discard 5M 512k",
        "flush",
        "read -P 0 64k 4k",
        "read -P 0xa5 68k 4k",
        "read -P 0 5M 512k",
        "read -P 0x5a 5632k 512k",
    ];
    let uri = pair.source.uri("log");
    let mut args = vec!["-f", "raw", "-d", "unmap"];
    commands.iter().for_each(|command| args.extend(["-c", command]));
    args.push(&uri);
    let told = run("qemu-utils", "qemu-io", &args);
    assert!(!told.contains("failed"), "{told}");
    pair.assert_follows();
    let copy = pair.replica_image("data");
    qemu_img(&["compare", "-f", "raw", "-F", "raw", original, copy.to_str().unwrap()]);
}

#[test]
fn nbdcopy_with_four_connections_and_nbdinfo() {
    let pair = Pair::new(&[("data", 48 * MIB), ("log", MIB)], &[]);
    let (original, back) = (pair.place.path().join("original"), pair.place.path().join("back"));
    fs::write(&original, content(48)).unwrap();
    let uri = pair.source.uri("data");
    let nbdcopy = |from: &str, to: &str| {
        run("libnbd-bin", "nbdcopy", &["--connections=4", "--flush", from, to]);
    };
    nbdcopy(original.to_str().unwrap(), &uri);
    nbdcopy(&uri, back.to_str().unwrap());
    assert!(fs::read(&back).unwrap() == fs::read(&original).unwrap());
    pair.assert_follows();
    assert!(fs::read(pair.replica_image("data")).unwrap() == fs::read(&original).unwrap());

    let list = run("libnbd-bin", "nbdinfo", &["--list", "--json", &uri]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let mut names: Vec<_> = list["exports"].as_array().unwrap().iter().collect();
    names.sort_by_key(|export| export["export-name"].to_string());
    assert_eq!(names[0]["export-name"], "g/data");
    assert_eq!(names[1]["export-name"], "g/log");
    assert_eq!(names[1]["export-size"], MIB);
    assert_eq!(names[0]["can_multi_conn"], true);
}

#[test]
fn fio_verifies_what_it_wrote() {
    let pair = Pair::new(&[("data", 32 * MIB)], &[]);
    let (uri, state) = (pair.source.uri("data"), pair.place.path().display().to_string());
    let (uri, state) = (format!("--uri={uri}"), format!("--aux-path={state}"));
    let common = ["--name=verify", "--ioengine=nbd", &uri, &state, "--size=32M"];
    let writes = ["--rw=randwrite", "--bsrange=512-128k", "--blockalign=512", "--iodepth=32"];
    let checks = ["--verify=crc32c", "--verify_fatal=1", "--fsync=64"];
    run("fio", "fio", &[&common[..], &writes, &checks].concat());
    pair.assert_follows();
}

#[test]
fn a_file_system_written_on_the_source_is_whole_on_the_replica() {
    if let Some(reason) = cannot_mount() {
        eprintln!("skipped: {reason}");
        return;
    }
    let pair = Pair::new(&[("data", 64 * MIB)], &[]);
    let [fuse, root, copy] = ["fuse", "root", "copy"].map(|name| pair.place.path().join(name));
    let file = FuseFile::of(&pair.source.uri("data"), &fuse);
    let disk = LoopDevice::over(&file.file());
    run("e2fsprogs", "mkfs.ext4", &["-q", "-F", disk.path()]);
    let mount = Mount::of(&[], disk.path(), &root).unwrap();
    let data = content(6);
    for number in 0..4 {
        fs::write(root.join(format!("file{number}")), &data[number * 1000..]).unwrap();
    }
    fs::remove_file(root.join("file1")).unwrap();
    drop(mount);
    drop(disk);
    drop(file);

    pair.assert_follows();
    fs::copy(pair.replica_image("data"), &copy).unwrap();
    let copy_text = copy.to_str().unwrap();
    run("e2fsprogs", "e2fsck", &["-f", "-n", copy_text]);
    let _mount = Mount::of(&["-o", "loop,ro"], copy_text, &root).unwrap();
    assert!(!root.join("file1").exists());
    for number in [0, 2, 3] {
        let found = fs::read(root.join(format!("file{number}"))).unwrap();
        assert!(found == data[number * 1000..], "file{number}");
    }
}
