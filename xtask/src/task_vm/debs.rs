//! Debian packages of any architecture, fetched with a private apt state and unpacked into a
//! folder. What this machine has installed does not matter and does not change.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tree;

/// The release that packages are taken from, whatever this machine runs.
const SUITE: &str = "bookworm";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private apt for one architecture.
pub struct Apt {
    state: PathBuf,
}

impl Apt {
    /// Sets up the state under `home` and fetches the list of packages.
    ///
    /// # Errors
    /// When this machine has no Debian source, or it cannot be reached.
    pub fn new(home: &Path, arch: &str) -> Result<Apt> {
        let state = home.join(format!("apt-{arch}"));
        for folder in ["lists/partial", "archives/partial", "none"] {
            std::fs::create_dir_all(state.join(folder))?;
        }
        let source = source()?;
        std::fs::write(state.join("status"), "")?;
        let line = format!("deb [arch={arch} signed-by={KEYS}] {source} {SUITE} main\n");
        std::fs::write(state.join("sources.list"), line)?;
        let at = |name: &str| state.join(name).display().to_string();
        let mut config = String::new();
        for (key, value) in [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", at("none")),
            ("Dir::Etc::preferencesparts", at("none")),
            ("Dir::State", at("")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("")),
            ("Dir::Cache::archives", at("archives")),
            ("APT::Architecture", arch.to_owned()),
            ("APT::Architectures", arch.to_owned()),
            ("APT::Install-Recommends", "false".to_owned()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("Debug::NoLocking", "true".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::http::Timeout", "30".to_owned()),
            ("Acquire::Retries", "2".to_owned()),
        ] {
            writeln!(config, "{key} \"{value}\";")?;
        }
        std::fs::write(state.join("apt.conf"), config)?;
        let apt = Apt { state };
        apt.get(&["-o", "APT::Update::Error-Mode=any", "update"])?;
        Ok(apt)
    }

    /// Unpacks packages, with all they depend on whose name `keep` accepts, into a folder.
    pub fn unpack(&self, packages: &[&str], keep: fn(&str) -> bool, into: &Path) -> Result<()> {
        let mut ask = vec!["--print-uris", "install"];
        ask.extend(packages);
        let listed = self.get(&ask)?;
        // A line is: 'address' NAME_VERSION_ARCH.deb SIZE HASH
        let files = listed.lines().filter_map(|line| line.split_whitespace().nth(1));
        let names: Vec<&str> = files.filter_map(|file| file.split('_').next()).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| keep(name)).collect();
        if names.is_empty() {
            bail!("apt found none of {packages:?}");
        }
        let fetched = self.state.join("archives").join(packages.join("+"));
        std::fs::create_dir_all(&fetched)?;
        let mut fetch = self.command(&["download"]);
        tree::output(fetch.args(&names).current_dir(&fetched))?;
        for folder in ["bin", "sbin", "lib", "lib64"] {
            std::fs::create_dir_all(into.join("usr").join(folder))?;
            let link = into.join(folder);
            if !link.exists() {
                std::os::unix::fs::symlink(Path::new("usr").join(folder), link)?;
            }
        }
        for entry in std::fs::read_dir(&fetched)? {
            unpack_one(&entry?.path(), into)?;
        }
        std::fs::remove_dir_all(fetched)?;
        Ok(())
    }

    fn get(&self, args: &[&str]) -> Result<String> {
        tree::output(&mut self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.state.join("apt.conf")).arg("-qq").args(args);
        command
    }
}

/// Unpacks one package over what is there, through the links of a merged `/usr`.
fn unpack_one(package: &Path, into: &Path) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        r#"dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --no-same-owner"#,
    ]);
    tree::output(shell.arg("unpack").arg(package).arg(into)).map(|_| ())
}

/// Where this machine takes Debian packages from.
fn source() -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(LABEL)"]);
    let listed = tree::output(&mut apt).context("the package sources of this machine")?;
    let is_main = |line: &&str| {
        let uri = line.split('|').next().unwrap_or_default().trim_end_matches('/');
        line.ends_with("|Debian|Debian") || uri.ends_with("/debian")
    };
    let line = listed.lines().find(is_main).context("this machine has no Debian package source")?;
    Ok(line.split('|').next().unwrap_or_default().to_owned())
}

/// This machine's architecture, in Debian's words.
pub fn host_arch() -> Result<String> {
    Ok(tree::output(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned())
}
