//! A ppc64le guest with no disk but the one it is asked about: emulator, kernel, RAM disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::cpio::Archive;
use super::debs::{Apt, host_arch};
use crate::tree;

/// Module that reaches the disk, and the ones that find it, in this order.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_blk"];
/// Lines of the guest that are an answer begin so; the rest is the kernel's own.
pub const ANSWER: &str = "guest: ";

const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys
for m in $($b cat /modules); do $b insmod /$m; done
[ -e /sys/block/vda ] || echo "guest: no disk"
echo "guest: kernel $($b uname -r)"
$b dmesg | $b grep -E 'AIX|vda' | $b sed 's/^/guest: log /'
for p in /sys/block/vda/vda*; do
    [ -e $p ] && echo "guest: part ${p##*/} $($b cat $p/start) $($b cat $p/size)"
done
echo "guest: end"
$b poweroff -f
"#;

/// A guest that can be booted.
pub struct Guest {
    home: PathBuf,
}

/// Why there is no guest.
pub enum Unprepared {
    /// The packages cannot be fetched.
    Unreachable(Error),
    /// Anything else: a fault of the packages or of this machine.
    Broken(Error),
}

impl Unprepared {
    /// The cause.
    pub fn into_error(self) -> Error {
        match self {
            Unprepared::Unreachable(error) => error.context("cannot fetch the guest's packages"),
            Unprepared::Broken(error) => error.context("cannot make the guest"),
        }
    }
}

/// Makes the guest under `home`, once; later calls find it there.
pub fn prepare(home: &Path) -> Result<Guest, Unprepared> {
    let guest = Guest { home: home.to_path_buf() };
    let ready = home.join("ready");
    if !ready.exists() {
        println!("vm: making the guest in {}", home.display());
        for part in ["tools", "system"] {
            match std::fs::remove_dir_all(home.join(part)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Unprepared::Broken(error.into()));
                }
                _ => {}
            }
        }
        guest.fetch().map_err(Unprepared::Unreachable)?;
    }
    guest.build().map_err(Unprepared::Broken)?;
    std::fs::write(ready, "").map_err(|error| Unprepared::Broken(error.into()))?;
    Ok(guest)
}

impl Guest {
    fn fetch(&self) -> Result<()> {
        let tools = self.home.join("tools");
        let system = self.home.join("system");
        let host = Apt::new(&self.home, &host_arch()?)?;
        host.unpack(&["qemu-system-ppc"], |_| true, &tools)?;
        let guest = Apt::new(&self.home, "ppc64el")?;
        guest.unpack(&["busybox-static"], |_| true, &system)?;
        guest.unpack(&["linux-image-powerpc64le"], |name| name.starts_with("linux-image"), &system)
    }

    /// Checks the kernel and writes the RAM disk.
    fn build(&self) -> Result<()> {
        let boot = self.home.join("system/boot");
        let config = std::fs::read_to_string(named(&boot, "config-")?)?;
        if !config.lines().any(|line| line == "CONFIG_AIX_PARTITION=y") {
            bail!("this kernel has no reader of AIX volume groups (CONFIG_AIX_PARTITION)");
        }
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "proc", "sys"] {
            archive.folder(folder);
        }
        archive.device("dev/console", (5, 1));
        archive.program("bin/busybox", &std::fs::read(self.home.join("system/bin/busybox"))?);
        let mut order = Vec::new();
        let kernels = named(&self.home.join("system/lib/modules"), "")?;
        for module in MODULES {
            add_module(&kernels, module, &mut order, &mut archive)?;
        }
        archive.program("modules", order.join("\n").as_bytes());
        archive.program("init", INIT.as_bytes());
        std::fs::write(self.home.join("initrd"), archive.finish())?;
        Ok(())
    }

    /// Boots with `image` as its only disk and gives the lines that the guest said.
    ///
    /// # Errors
    /// When the guest does not come to its end within `limit`, with the last of its console.
    pub fn boot(&self, image: &Path, limit: Duration) -> Result<String> {
        let console = self.home.join("console");
        std::fs::write(&console, "")?;
        let started = Instant::now();
        let mut qemu = self.qemu()?;
        qemu.args(["-accel", "tcg", "-cpu", "power9", "-smp", "1", "-m", "768"]);
        qemu.args(["-M", "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken"]);
        qemu.args(["-nodefaults", "-display", "none", "-monitor", "none", "-nic", "none"]);
        qemu.arg("-no-reboot").arg("-serial").arg(format!("file:{}", console.display()));
        qemu.arg("-kernel").arg(named(&self.home.join("system/boot"), "vmlinu")?);
        qemu.arg("-initrd").arg(self.home.join("initrd"));
        qemu.args(["-append", "console=hvc0 panic=-1 quiet"]);
        let drive = format!("if=none,id=disk,format=raw,readonly=on,file={}", image.display());
        qemu.arg("-drive").arg(drive).args(["-device", "virtio-blk-pci,drive=disk"]);
        let mut child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", tree::line(&qemu)))?;
        let ended = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if started.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let said = String::from_utf8_lossy(&std::fs::read(&console)?).replace('\r', "");
        if !said.lines().any(|line| line == "guest: end") {
            let last: Vec<&str> = said.lines().rev().take(20).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            let mut error = String::new();
            if let Some(mut stream) = child.stderr.take() {
                std::io::Read::read_to_string(&mut stream, &mut error)?;
            }
            let how = ended.map_or_else(
                || format!("was ended after {} s; --limit allows more", limit.as_secs()),
                |status| format!("ended early ({status}) {error}"),
            );
            return Err(anyhow!("the guest {how}\nits console:\n{last}"));
        }
        println!("vm: the guest ran {:.1} s", started.elapsed().as_secs_f64());
        Ok(said)
    }

    /// The emulator, run by the loader and libraries that were unpacked with it.
    fn qemu(&self) -> Result<Command> {
        let tools = self.home.join("tools");
        let program = tools.join("usr/bin/qemu-system-ppc64");
        let libraries = tree::output(Command::new("find").arg(tools.join("usr/lib")).args([
            "-maxdepth",
            "2",
            "-name",
            "libc.so.6",
        ]))?;
        let libc = libraries.lines().next().context("no C library among the packages")?;
        let libraries = Path::new(libc).parent().context("libc lies in a folder")?;
        let loader = named(&tools.join("lib64"), "ld-linux")
            .or_else(|_| named(&tools.join("lib"), "ld-linux"))?;
        let mut command = Command::new(loader);
        let also = libraries.join("pulseaudio");
        command.arg("--library-path");
        command.arg(format!("{}:{}", libraries.display(), also.display())).arg(program);
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        command.arg("-L").arg(tools.join("usr/share/qemu"));
        Ok(command)
    }
}

/// Adds a module after those that it says it needs. One that is built in is no file: fine.
fn add_module(
    kernels: &Path,
    name: &str,
    order: &mut Vec<String>,
    archive: &mut Archive,
) -> Result<()> {
    let file = format!("{name}.ko");
    if order.contains(&file) {
        return Ok(());
    }
    let mut find = Command::new("find");
    let found = tree::output(find.arg(kernels).args(["-name", &file]))?;
    let Some(path) = found.lines().next() else { return Ok(()) };
    let content = std::fs::read(path)?;
    for needed in needs(&content) {
        add_module(kernels, &needed, order, archive)?;
    }
    archive.program(&file, &content);
    order.push(file);
    Ok(())
}

/// The last entry of a folder, by name, whose name begins so.
fn named(folder: &Path, head: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(head) {
            found.push(entry.path());
        }
    }
    found.sort();
    found.pop().with_context(|| format!("nothing named {head}... in {}", folder.display()))
}

/// The modules that a module names as needed: the value of `depends` in its information.
fn needs(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = &module[at + key.len()..];
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(0);
    let names = String::from_utf8_lossy(&value[..end]).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let module = b"\x7fELF...\0license=GPL\0depends=virtio,virtio_ring\0name=virtio_blk\0";
        assert_eq!(needs(module), ["virtio", "virtio_ring"]);
        assert!(needs(b"\0depends=\0").is_empty());
        assert!(needs(b"\0depends=cut").is_empty());
    }
}
