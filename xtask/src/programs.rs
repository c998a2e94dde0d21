//! Programs of other packages that tests and the campaign call.

use std::process::Command;

use anyhow::Result;

use crate::tree;

/// A program that tests call, and the Debian package that has it.
const NEEDED: [(&str, &str); 18] = [
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("fio", "fio"),
    ("nbdkit", "nbdkit"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdfuse", "libnbd-bin"),
    ("fusermount3", "fuse3"),
    ("rsync", "rsync"),
    ("mkfs.ext4", "e2fsprogs"),
    ("losetup", "mount"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("fsfreeze", "util-linux"),
    ("shellcheck", "shellcheck"),
    ("pgbench", "postgresql-contrib"),
    ("psql", "postgresql"),
];

/// A server of an object store that speaks S3, from Python's registry, in a folder of its own.
const MOTO: &str = "moto[server,s3]>=5.1,<6";

/// Installs what is missing, when this runs as root on Debian; else says it in one line.
pub fn provide(no_install: bool) {
    provide_debian(no_install);
    if !no_install && let Err(error) = provide_moto() {
        println!("missing, so the test with an S3 server is skipped: moto_server ({error:#})");
    }
}

/// Makes `target/tools/moto` unless it is there.
fn provide_moto() -> Result<()> {
    let place = tree::target().join("tools/moto");
    if place.join("bin/moto_server").exists() {
        return Ok(());
    }
    println!("installing moto_server");
    tree::output(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    let mut pip = Command::new(place.join("bin/pip"));
    tree::output(pip.args(["install", "--quiet", MOTO])).map(|_| ())
}

fn provide_debian(no_install: bool) {
    let missing = missing();
    if missing.is_empty() {
        return;
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let is_root = tree::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !no_install && is_root && tree::has_program("apt-get") {
        println!("installing {}", packages.join(" "));
        let refreshed = apt(&["update"]);
        let mut install = vec!["install", "-y", "--no-install-recommends"];
        install.extend(&packages);
        if let Err(error) = refreshed.and_then(|()| apt(&install)) {
            println!("could not install: {error:#}");
        }
    }
    let missing: Vec<_> = self::missing().iter().map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        println!("missing, so the tests that use them cannot run: {}", missing.join(" "));
    }
}

fn missing() -> Vec<(&'static str, &'static str)> {
    NEEDED.into_iter().filter(|(program, _)| !tree::has_program(program)).collect()
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(args).env("DEBIAN_FRONTEND", "noninteractive");
    tree::output(&mut command).map(|_| ())
}
